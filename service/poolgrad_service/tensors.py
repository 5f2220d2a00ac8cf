"""Arrays as bytes, row-major and little-endian, as binary tensors and npy have them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["as_bytes", "of_bytes"]

Array = npt.NDArray[Any]


def as_bytes(array: Array) -> memoryview:
    """Return the bytes of an array, uncopied where they are as they should be."""
    if sys.byteorder != "little":
        array = array.astype(array.dtype.newbyteorder("<"))
    return array.reshape(-1).view(np.uint8).data


def of_bytes(buffer: Any, at: int, dtype: np.dtype[Any], shape: Sequence[int]) -> Array:
    """Return the array whose bytes begin at a place of a buffer; they share the memory."""
    array = np.frombuffer(buffer, dtype, prod(shape), at)
    return (array if sys.byteorder == "little" else array.byteswap()).reshape(shape)
