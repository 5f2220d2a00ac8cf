"""Calls that are as they nearly always are; see `_quick.pyx`."""

from collections.abc import Callable
from typing import Any

import numpy as np

from poolgrad.arrays import Array
from poolgrad.plan import Plan
from poolgrad.program import Program

class Usual:
    def __init__(self, plan: Plan, maximum: bool, alone: bool, kernel: object) -> None: ...
    def remember(self, task: str, program: Program) -> None: ...

def recall(
    op: str, shape: object, dtype: np.dtype[Any], values: tuple[object, ...]
) -> Plan | None: ...
def keep(
    op: str, shape: object, dtype: np.dtype[Any], values: tuple[object, ...], plan: Plan
) -> None: ...
def forward(
    plan: Plan, x: object, return_argmax: object, out: object, num_threads: object
) -> Any: ...
def backward(
    plan: Plan, dy: object, x: object, argmax: object, out: object, num_threads: object
) -> Array | None: ...
def pool(
    otherwise: Callable[..., Any],
    op: str,
    x: object,
    values: tuple[object, ...],
    return_argmax: object,
    out: object,
    num_threads: object,
) -> Any: ...
def pool_backward(
    otherwise: Callable[..., Array],
    op: str,
    dy: object,
    x: object,
    values: tuple[object, ...],
    argmax: object,
    out: object,
    num_threads: object,
) -> Array: ...
