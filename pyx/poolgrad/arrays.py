"""Arrays in and out: the only place that copies or reshapes them, and that words what is wrong."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from poolgrad._memory import empty
from poolgrad.errors import DtypeError, ParameterError, ShapeError, show
from poolgrad.geometry import LIMIT, integer

__all__ = [
    "DTYPES",
    "USABLE",
    "Array",
    "as_dtype",
    "as_input",
    "as_output",
    "as_shape",
    "check_bytes",
    "empty",
    "flat",
    "usable",
]

Array = npt.NDArray[Any]

#: The dtypes that the kernels are compiled for.
DTYPES: Final = (np.dtype(np.float32), np.dtype(np.float64))
_FLOAT32, _FLOAT64 = DTYPES

#: The flags of an array whose memory can be used as it is: C-contiguous and aligned.
USABLE: Final = 0x0001 | 0x0100


def as_dtype(name: str, dtype: object) -> np.dtype[Any]:
    """Return a supported dtype, or raise a `DtypeError` that names those."""
    found: np.dtype[Any] | None = None
    if dtype is not None:  # to NumPy, None means float64
        with suppress(TypeError, ValueError, SyntaxError, RecursionError):
            found = np.dtype(dtype)  # type: ignore[call-overload]
    # An equal dtype may carry metadata; kernels are found by the plain one.
    for supported in DTYPES:
        if found is not None and found == supported:
            return supported
    shown = show(dtype) if found is None else show(str(found))
    swapped = found is not None and found.newbyteorder("=") in DTYPES
    raise DtypeError(
        f"{name}: dtype {shown} is not supported; "
        + (f"{sys.byteorder}-endian " if swapped else "")
        + "float32 or float64 is needed"
    )


def as_shape(name: str, shape: object) -> tuple[int, ...]:
    """Return a shape of (N, spatial axes, C) in either layout, checked as far as it stands alone.

    Raises
    ------
    ShapeError
        If it is no tuple or list of 3 to 5 sizes, or a size is no integer or below 0.
    """
    if not isinstance(shape, (tuple, list)):
        raise ShapeError(
            f"{name}: {show(shape)} is of type {type(shape).__name__}; "
            "a tuple of 3 to 5 sizes is needed"
        )
    if not 3 <= len(shape) <= 5:
        raise ShapeError(
            f"{name}: shape {show(shape)} has {len(shape)} axes; 3, 4 or 5 are needed: "
            "batch, one to three spatial axes, and channels"
        )
    sizes = []
    for axis, size in enumerate(shape):
        try:
            number = integer(name, size, least=0, axis=axis)
        except ParameterError as error:
            raise ShapeError(str(error)) from None
        sizes.append(number)
    return tuple(sizes)


def as_input(name: str, array: object) -> Array:
    """Return an input array of a supported dtype as it is, or raise a `DtypeError`."""
    if type(array) is np.ndarray and (array.dtype is _FLOAT32 or array.dtype is _FLOAT64):
        return array  # nearly always, so it should cost next to nothing
    if isinstance(array, np.ma.MaskedArray):
        raise DtypeError(f"{name}: a masked array is not supported; fill it first")
    if not isinstance(array, np.ndarray):
        raise DtypeError(
            f"{name}: {show(array)} is of type {type(array).__name__}; a numpy.ndarray is needed"
        )
    as_dtype(name, array.dtype)
    return array


def as_output(
    name: str, out: object, shape: tuple[int, ...], dtype: np.dtype[Any], *inputs: Array
) -> Array:
    """Check an array that the caller gave to be written to, and return it.

    Raises
    ------
    DtypeError, ShapeError, ParameterError
        If it is no array of exactly that dtype and shape, cannot be written to, or shares memory
        with one of `inputs`.
    """
    if type(out) is not np.ndarray and (
        isinstance(out, np.ma.MaskedArray) or not isinstance(out, np.ndarray)
    ):
        raise DtypeError(
            f"{name}: {show(out)} is of type {type(out).__name__}; a numpy.ndarray is needed"
        )
    if out.dtype != dtype:
        raise DtypeError(f"{name}: dtype {show(str(out.dtype))}; {dtype} is needed")
    if out.shape != shape:
        raise ShapeError(f"{name}: shape {show(out.shape)}; {show(shape)} is needed")
    if not out.flags.writeable:
        raise ParameterError(f"{name}: the array is read-only; a writeable one is needed")
    for other in inputs:
        if _overlap(out, other):
            raise ParameterError(
                f"{name}: it overlaps an input in memory, which would be overwritten while it is "
                "still read; a separate array is needed"
            )
    if (
        not usable(out)
        and any(n > 1 and s == 0 for n, s in zip(out.shape, out.strides, strict=True))
        and out.size
    ):
        raise ParameterError(
            f"{name}: several of its elements share one place in memory (a broadcast array)"
        )
    return out


def _overlap(a: Array, b: Array) -> bool:
    try:
        return np.shares_memory(a, b, max_work=10_000)  # type: ignore[arg-type]  # stub: -1 or 0
    except np.exceptions.TooHardError:
        return True


def flat(array: Array) -> Array:
    """Return an array's elements in row-major order, as the kernels see them.

    A view where the memory allows it; a copy of a strided, Fortran-ordered or unaligned array.
    """
    if not usable(array):
        array = np.require(array, requirements=["C", "A"])
    return array.ravel()


def usable(array: Array) -> bool:
    """Whether the kernels can work on an array's memory as it is."""
    return array.flags.num & USABLE == USABLE


def check_bytes(name: str, shape: tuple[int, ...], itemsize: int) -> None:
    """Raise a `ShapeError` if an array of `shape` cannot exist at all, zero sizes aside."""
    total = itemsize
    for size in shape:
        total *= max(size, 1)
    if total > LIMIT:
        raise ShapeError(
            f"{name}: an array of shape {show(shape)} would take {show(total)} bytes, "
            "above 2**61, the most allowed"
        )
