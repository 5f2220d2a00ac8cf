"""JSON bodies to arrays, and arrays to JSON bodies: the only module that knows the wire's forms.

Two functions are all that the rest of the service calls: `decode` and `encode`. Numbers are read
and written by `_json`, without the interpreter's lock; here are the members that an array has, and
what they must agree about.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from poolgrad.arrays import empty
from poolgrad.errors import show
from poolgrad_service._json import Span, escape, scan, write
from poolgrad_service.errors import over_limit, refused, unreadable
from poolgrad_service.tensors import as_bytes, of_bytes

__all__ = [
    "ARRAYS",
    "DTYPES",
    "FORMS",
    "INDEX_DTYPES",
    "NAMES",
    "Given",
    "as_indices",
    "decode",
    "encode",
    "is_shape",
    "text_bytes",
]

Array = npt.NDArray[Any]

#: The members of a body that are arrays.
ARRAYS: Final = ("x", "dy", "argmax")

#: The forms of an array in JSON.
FORMS: Final = ("nested", "flat", "base64")

#: The dtypes of x and dy.
DTYPES: Final = ("float32", "float64")

#: The dtypes of an argmax.
INDEX_DTYPES: Final = ("uint8", "int32")

#: NumPy makes a dtype's name anew each time.
NAMES: Final = {np.dtype(name): name for name in (*DTYPES, *INDEX_DTYPES)}

_SPANS: Final = frozenset({*ARRAYS, "data", "base64"})

#: The members of an object that is an array.
_MEMBERS: Final = {"shape", "dtype", "data", "base64"}

_LONGEST: Final = {np.dtype("float32"): 20, np.dtype("float64"): 28}

#: Shapes and names are the same again and again, and it takes long to begin.
_text: Final = lru_cache(256, typed=True)(json.JSONEncoder(separators=(",", ":")).encode)

#: Bytes of an array that base64 is made of, or made into, at a time: about 0.1 ms with the
#: interpreter's lock. Only the last such piece has padding.
PIECE: Final = 192 * 1024


@dataclass(slots=True, eq=False)
class Given:
    """An array as a body gave it.

    Parameters
    ----------
    array : ndarray
        Its elements; integers of a nested list are int64, see `as_indices`.
    form : str
        One of `FORMS`.
    """

    array: Array
    form: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""
        return self.array.shape


# ------------------------------------------------------------------------------------- decoding


def decode(
    body: bytes | bytearray | memoryview, *, max_elements: int, max_depth: int
) -> tuple[dict[str, Any], dict[str, Given]]:
    """Read a request's body.

    Parameters
    ----------
    body : bytes-like
        A JSON object.
    max_elements : int
        Numbers that its arrays may have together.
    max_depth : int
        Lists and objects that may lie within each other.

    Returns
    -------
    fields : dict of str to object
        The members that are no arrays, as Python objects, unchecked.
    arrays : dict of str to Given
        The members of `ARRAYS` that are there.

    Raises
    ------
    Problem
        400 if the body is no JSON text, else 422.
    """
    fields = scan(body, _SPANS, max_depth=max_depth)
    dtype = fields.get("dtype", "float32")
    if dtype not in DTYPES:
        raise refused("/dtype", f"dtype: {show(dtype)} is not one of {', '.join(DTYPES)}")
    reader = _Reader(dtype if "dtype" in fields else None, max_elements, max_depth)
    arrays: dict[str, Given] = {}
    for name in ARRAYS:
        if name in fields:
            arrays[name] = reader.read(name, fields.pop(name))
    return fields, arrays


@dataclass(slots=True)
class _Reader:
    """Reads one body's arrays, whose numbers are counted together."""

    dtype: str | None
    max_elements: int
    max_depth: int
    elements: int = 0

    def read(self, name: str, value: object) -> Given:
        """Return an array, converted."""
        if isinstance(value, dict):
            return self.described(name, value)
        if not isinstance(value, Span) or value.is_string:
            raise refused(
                f"/{name}", f"{name}: a nested list, or an object with shape and dtype, is needed"
            )
        self.count(value.pointer, name, value.count)
        array = value.read(name, "int64" if name == "argmax" else self.dtype or "float32")
        if not array.size:
            raise refused(
                f"/{name}",
                f"{name}: a nested list cannot tell the shape of an array without elements; "
                'write {"shape", "dtype", "data": []}',
            )
        return Given(array, "nested")

    def count(self, pointer: str, name: str, elements: int) -> None:
        """Count an array's elements against the limit."""
        self.elements += elements
        if self.elements > self.max_elements:
            raise over_limit(
                pointer, f"{name}: elements", self.elements, "max_elements", self.max_elements
            )

    def described(self, name: str, members: dict[str, Any]) -> Given:
        """Return the array of an object."""
        for key in members.keys() - _MEMBERS:
            raise refused(
                f"/{name}/{escape(key)}",
                f"{name}: unknown member {show(key)}; an array has shape, dtype and either data or "
                "base64",
            )
        for key in ("shape", "dtype"):
            if key not in members:
                raise refused(f"/{name}", f"{name}: {key} is missing")
        is_string = "base64" in members
        kind = "base64" if is_string else "data"
        if kind not in members:
            raise refused(f"/{name}", f"{name}: data or base64 is missing")
        if len(members) > 3:
            second = [key for key in members if key in ("data", "base64")][1]
            raise refused(f"/{name}/{second}", f"{name}: data and base64 exclude each other")
        span = members[kind]
        if not isinstance(span, Span) or span.is_string != is_string:
            needed = "a string" if is_string else "a list of numbers"
            raise refused(f"/{name}/{kind}", f"{name}: {kind}: {needed} is needed")
        dtype = self.known(name, members["dtype"])
        shape = self.shape(name, members["shape"])
        size = prod(shape)
        # A list is read before it is known to fit. One of a single number may have none, too.
        more = not is_string and span.count > max(size, 1)
        self.count(span.pointer if more else f"/{name}/shape", name, span.count if more else size)
        if is_string:
            return Given(_from_base64(name, span, dtype, size).reshape(shape), "base64")
        array = span.read(name, dtype)
        if array.ndim > 1:
            raise refused(span.pointer, f"{name}: data: a flat list of numbers is needed")
        if array.size != size:
            raise refused(
                span.pointer,
                f"{name}: data has {array.size} numbers; shape {show(shape)} needs {size}",
            )
        return Given(array.reshape(shape), "flat")

    def known(self, name: str, dtype: object) -> np.dtype[Any]:
        """Check an object's dtype."""
        known = INDEX_DTYPES if name == "argmax" else DTYPES
        if dtype not in known:
            raise refused(
                f"/{name}/dtype", f"{name}: dtype {show(dtype)} is not one of {', '.join(known)}"
            )
        if name != "argmax" and self.dtype not in (None, dtype):
            raise refused(
                f"/{name}/dtype",
                f"{name}: dtype {dtype} contradicts the body's own dtype {self.dtype}",
            )
        return np.dtype(str(dtype))

    def shape(self, name: str, shape: Any) -> tuple[int, ...]:
        """Check an object's shape."""
        pointer = f"/{name}/shape"
        if not is_shape(shape):
            raise refused(
                pointer, f"{name}: shape {show(shape)} is not a list of integers of at least 0"
            )
        if len(shape) > self.max_depth:
            raise refused(
                pointer,
                f"{name}: shape has {len(shape)} axes, above the limit of {self.max_depth} "
                "(max_depth)",
            )
        # Also where one size is 0 the others have to be such that an array of them can be.
        if prod(filter(None, shape)) > 2**57:
            if 0 in shape:
                raise refused(pointer, f"{name}: shape {show(shape)} is too large for an array")
            self.count(pointer, name, prod(shape))
        return tuple(shape)


def is_shape(value: object) -> bool:
    """Return whether a value is a list of integers of at least 0."""
    return isinstance(value, list) and not [n for n in value if type(n) is not int or n < 0]


def _from_base64(name: str, span: Span, dtype: np.dtype[Any], size: int) -> Array:
    """Return the numbers of a base64 string, as a flat array."""
    text = span.raw
    if span.has_escapes:
        # Some writers escape the slash, or = and + as in HTML.
        text = memoryview(_unescaped(bytes(text)))
    n_bytes = size * dtype.itemsize
    if len(text) != -(-n_bytes // 3) * 4:
        raise refused(
            span.pointer,
            f"{name}: base64 of {len(text)} characters; {size} numbers of {dtype} have {n_bytes} "
            f"bytes, which take {-(-n_bytes // 3) * 4}",
        )
    found = empty(n_bytes, np.dtype(np.uint8))
    for start in range(0, n_bytes, PIECE):
        stop = min(start + PIECE, n_bytes)
        part = bytes(text[start // 3 * 4 : -(-stop // 3) * 4])
        try:
            data = binascii.a2b_base64(part, strict_mode=True)
        except binascii.Error as error:
            if re.search(rb"[\x00-\x1f]", part):
                raise unreadable("a string has a control character in it") from None
            raise refused(span.pointer, f"{name}: base64: {str(error).lower()}") from None
        # One array has one text: padding is at its end, and unused bits are 0.
        if len(data) != stop - start or not part.endswith(
            binascii.b2a_base64(data[-(len(data) % 3 or 3) :], newline=False)
        ):
            raise refused(
                span.pointer,
                f"{name}: base64: not what {n_bytes} bytes are written as (padding, or unused bits "
                "that are not 0)",
            )
        found[start:stop] = np.frombuffer(data, np.uint8)
    return of_bytes(found, 0, dtype, (size,))


def _unescaped(text: bytes) -> bytes:
    text = text.replace(b"\\/", b"/")
    for character in b"+/=":
        for code in (f"\\u{character:04x}", f"\\u{character:04X}"):
            text = text.replace(code.encode(), bytes([character]))
    return text


def as_indices(given: Given, dtype: np.dtype[Any]) -> Array:
    """Return an argmax in its plan's dtype.

    Parameters
    ----------
    given : Given
        What `decode` returned.
    dtype : numpy.dtype
        The plan's argmax dtype. That of a nested list follows it; that of an object is its own,
        and is left to the library to judge.

    Returns
    -------
    ndarray
        The argmax.

    Raises
    ------
    Problem
        If an integer of a nested list is out of the dtype's range.
    """
    array = given.array
    if given.form != "nested":
        return array
    info = np.iinfo(dtype)
    bad = np.flatnonzero((array < info.min) | (array > info.max))
    if len(bad):
        place = np.unravel_index(int(bad[0]), array.shape)
        raise refused(
            "/argmax/" + "/".join(str(int(i)) for i in place),
            f"argmax: {array[place]} is out of the range of {dtype}",
        )
    return array.astype(dtype)


# ------------------------------------------------------------------------------------- encoding


def encode(members: Mapping[str, Any], form: str) -> list[bytes | memoryview]:
    """Write a reply's body.

    Parameters
    ----------
    members : mapping of str to object
        Arrays, and whatever else JSON has.
    form : str
        The form of its arrays, one of `FORMS`.

    Returns
    -------
    list of bytes or memoryview
        The body in parts. They are not joined, which would take the memory twice.

    Raises
    ------
    Problem
        If an array has no elements and `form` is ``"nested"``.
    """
    parts: list[bytes | memoryview] = []
    separator = "{"
    for name, value in members.items():
        head = f'{separator}"{name}":'
        if isinstance(value, np.ndarray):
            parts += [head.encode(), *_written(value, form)]
        else:
            parts.append((head + _text(value)).encode())
        separator = ","
    parts.append(b"}")
    return parts


def text_bytes(dtype: np.dtype[Any], elements: int, form: str) -> int:
    """Return about how many bytes `encode` takes at most for so many elements."""
    if form == "base64":
        return elements * dtype.itemsize * 4 // 3
    # -3.4028235e+38, and -1.7976931348623157e+308, with a comma and brackets
    return elements * _LONGEST.get(dtype, 8)


def _written(array: Array, form: str) -> list[bytes | memoryview]:
    if form == "nested":
        if not array.size:
            raise refused(
                "/encoding",
                f"encoding: nested lists cannot tell the shape {show(array.shape)} of an array "
                'without elements; ask for "flat" or "base64"',
            )
        return [write(array)]
    key = "data" if form == "flat" else "base64"
    head = f'{{"shape":{_text(array.shape)},"dtype":"{NAMES[array.dtype]}","{key}":'.encode()
    if form == "flat":
        return [head, write(array.reshape(-1)), b"}"]
    raw = as_bytes(array)
    pieces = (raw[start : start + PIECE] for start in range(0, len(raw), PIECE))
    return [head, b'"', *(binascii.b2a_base64(piece, newline=False) for piece in pieces), b'"}']
