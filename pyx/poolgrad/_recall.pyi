"""The plans that are kept; see `_recall.pyx`."""

from typing import Any

import numpy as np

from poolgrad.plan import Plan

def recall(
    op: str, shape: object, dtype: np.dtype[Any], values: tuple[object, ...]
) -> Plan | None: ...
def keep(
    op: str, shape: object, dtype: np.dtype[Any], values: tuple[object, ...], plan: Plan
) -> None: ...
