"""One array as NumPy's own file format (NEP 1): a header that is checked, and bytes as they are.

NumPy's reader evaluates the header, allocates what it says, and can unpickle objects. This one
believes the header only where the body's length agrees with it, and takes numbers only.
"""

from __future__ import annotations

import re
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from poolgrad.errors import show
from poolgrad_service.errors import over_limit, refused, unreadable

__all__ = ["MEDIA_TYPE", "header", "parsed"]

Array = npt.NDArray[Any]

MEDIA_TYPE: Final = "application/x-npy"

_MAGIC: Final = b"\x93NUMPY"

#: Bytes that a header may have; NumPy pads those of numbers to 128 or less.
LONGEST: Final = 1024

#: One field of a header, as `repr` writes it; each is there once, by the count of all.
_FIELD: Final = re.compile(
    r"\s*['\"](descr|fortran_order|shape)['\"]\s*:\s*"
    r"('[^'\\]*'|True|False|\([0-9\s,]{0,400}\))\s*(?:,\s*|(?=\}))",
    re.ASCII,
)

_DTYPES: Final = {
    order + kind: np.dtype(order + kind) for order in "<>" for kind in ("f4", "f8")
}  # fmt: skip


def parsed(body: memoryview, name: str, max_elements: int) -> Array:
    """Return the array of a body, which it shares its memory with.

    Parameters
    ----------
    body : memoryview
        The file.
    name : str
        What errors call the array.
    max_elements : int
        Numbers that it may have.

    Raises
    ------
    Problem
        400 if the body is no npy, 422 if it is one that cannot be taken.
    """
    if bytes(body[:6]) != _MAGIC:
        raise unreadable("the body is no npy: it does not begin with \\x93NUMPY")
    major, minor = (int(body[6]), int(body[7])) if len(body) > 7 else (0, 0)
    if (major, minor) not in ((1, 0), (2, 0), (3, 0)):
        raise unreadable(f"the body is npy of version {major}.{minor}; 1.0, 2.0 or 3.0 is needed")
    start = 10 if major == 1 else 12
    length = int.from_bytes(body[8:start], "little")
    if length > LONGEST:
        raise unreadable(f"the npy header has {length} bytes, more than the {LONGEST} of any array")
    start += length
    if len(body) < start:
        raise unreadable("the body ends within the npy header")
    descr, fortran, shape = _fields(bytes(body[start - length : start]).decode("latin-1"))
    if descr not in _DTYPES:
        raise refused("", f"{name}: the npy's dtype {show(descr)} is not float32 or float64")
    dtype, elements = _DTYPES[descr], prod(shape)
    if elements > max_elements:
        raise over_limit("", f"{name}: elements", elements, "max_elements", max_elements)
    found, needed = len(body) - start, elements * dtype.itemsize
    if found != needed:
        raise refused(
            "",
            f"{name}: {found} bytes follow the npy header; its shape {show(shape)} of "
            f"{dtype.name} needs {needed}",
        )
    array = np.frombuffer(body, dtype, elements, start)
    array = array.astype(dtype.newbyteorder("="), copy=False)
    try:
        return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)
    except ValueError:  # a size beyond all limits, beside one that is 0, or very many axes
        raise refused("", f"{name}: no array can have the shape {show(shape)}") from None


def _fields(text: str) -> tuple[str, bool, tuple[int, ...]]:
    """Return a header's descr, fortran_order and shape."""
    text = text.strip()
    found: dict[str, str] = {}
    at = 1
    while match := _FIELD.match(text, at):
        found[match[1]] = match[2]
        at = match.end()
    if text[:1] != "{" or text[at:] != "}" or len(found) != 3:
        raise unreadable(
            "the npy header is not that of an array of numbers: a dict of descr, fortran_order "
            "and shape"
        )
    if found["fortran_order"] not in ("True", "False") or found["shape"][0] != "(":
        raise unreadable("the npy header's fortran_order is no boolean, or its shape no tuple")
    sizes = found["shape"][1:-1].split(",")
    if not sizes[-1].strip():
        sizes.pop()
    elif len(sizes) == 1:
        raise unreadable("the npy header's shape is a number in parentheses, and no tuple")
    try:
        shape = tuple(map(int, sizes))
    except ValueError:  # nothing between two commas
        raise unreadable("the npy header's shape is no tuple of integers") from None
    return found["descr"][1:-1], found["fortran_order"] == "True", shape


def header(array: Array) -> bytes:
    """Return what stands before the bytes of an array in row-major order."""
    text = f"{{'descr': '{array.dtype.str}', 'fortran_order': False, 'shape': {array.shape}, }}"
    padded = text.encode().ljust(-(-(len(text) + 11) // 64) * 64 - 11) + b"\n"
    return _MAGIC + b"\x01\x00" + len(padded).to_bytes(2, "little") + padded
