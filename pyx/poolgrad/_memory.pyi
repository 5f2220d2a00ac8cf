"""Memory of large arrays, some of which is kept when it is free; see `_memory.pyx`."""

from typing import Any

import numpy as np

from poolgrad.arrays import Array

def empty(shape: int | tuple[int, ...], dtype: np.dtype[Any]) -> Array: ...
def release_memory() -> int: ...
