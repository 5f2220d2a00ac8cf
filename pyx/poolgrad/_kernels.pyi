"""The compiled loops; see `_kernels.pyx`. Fused functions are picked by ``kernel[signature]``."""

from enum import IntEnum
from typing import Any, Protocol

class Mode(IntEnum):
    MAX = ...
    ARGMAX = ...
    MEAN = ...
    ADJOINT = ...

class _Fused(Protocol):
    def __getitem__(self, signature: str) -> Any: ...

reduce: _Fused
max_backward: _Fused
first_bad: _Fused
let_zeros_take_part: _Fused
