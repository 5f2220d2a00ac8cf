"""JSON bodies to arrays, and arrays to JSON bodies: the only module that knows the wire's forms.

Two functions are all that the rest of the service calls: `decode` and `encode`.

Design
------
- A body is walked once for its structure, and its numbers are read afterwards, because the
  ``dtype`` that they are read as may follow them. The walk finds each array's end, depth and shape
  before a single number is made, so nesting and element limits are kept before anything is
  allocated, and nothing here recurses.
- The numbers are read and written by orjson: strict, correctly rounded, shortest float32 texts.
  It holds the interpreter's lock for as long as a call takes, so it is given pieces of a few
  milliseconds and never a whole body; the event loop runs in between.
- A nested list is regular if, with all but its brackets and commas deleted, it equals the text
  that its shape implies. Both are made and compared at the speed of memory.
- What is refused is refused where it stands, with a JSON Pointer to it.
"""

from __future__ import annotations

import binascii
import itertools
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from math import isinf, prod
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt
import orjson

from poolgrad.errors import show
from poolgrad_service.errors import Problem, over_limit, refused, unreadable

__all__ = ["ARRAYS", "DTYPES", "FORMS", "Given", "as_indices", "decode", "encode", "text_bytes"]

Array = npt.NDArray[Any]

#: The members of a body that are arrays.
ARRAYS: Final = ("x", "dy", "argmax")

#: The forms of an array in JSON.
FORMS: Final = ("nested", "flat", "base64")

#: The dtypes of x and dy.
DTYPES: Final = ("float32", "float64")

#: The dtypes of an argmax.
INDEX_DTYPES: Final = ("uint8", "int32")

#: Bytes of text that the parser is given at a time: about 2 ms.
PIECE: Final = 64 * 1024

#: Elements that the writer is given at a time: about 1 ms.
ELEMENTS: Final = 16 * 1024

#: Characters that one number may have. The longest exact float64 takes 1078.
LONGEST: Final = 8 * 1024

#: Characters that one member that is no array may have.
FIELD: Final = 4 * 1024

_SPACE: Final = re.compile(rb"[ \t\n\r]*")
_SCALAR: Final = re.compile(rb"[-+.\w]+")
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_OPENING: Final = re.compile(rb"(?:\[[ \t\n\r]*)+")
_BEFORE_A_FOREIGN_STRING: Final = re.compile(rb'(?:[^"]*"(?:NaN|-?Infinity)")*[^"]*')
# The exponent of 1e-0 is no number of its own.
_MINUS_ZERO: Final = re.compile(rb"(?<![eE])-0(?=[\s,\]]|\Z)")

#: What `_MINUS_ZERO` may find; looking for these first is a hundred times as fast.
_MINUS_ZEROS: Final = tuple(b"-0" + bytes([after]) for after in b",] \n\r\t")

_NOT_STRUCTURE: Final = bytes(set(range(256)) - set(b"[],"))

_UNBRACKETED: Final = bytes.maketrans(b"[]", b"  ")

_NON_FINITE: Final = {
    "NaN": float("nan"),
    "Infinity": float("inf"),
    "-Infinity": float("-inf"),
}

#: +1 for an opening bracket, -1 for a closing one.
_STEPS: Final = np.zeros(256, np.int8)
_STEPS[ord("[")], _STEPS[ord("]")] = 1, -1


@dataclass(frozen=True, slots=True, eq=False)
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


class _OutOfRangeError(Exception):
    """A number is too large for a float64."""


# ------------------------------------------------------------------------------------- decoding


def decode(
    body: bytes | bytearray, *, max_elements: int, max_depth: int
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
    reader = _Reader(body, max_elements, max_depth)
    return reader.read()


@dataclass(slots=True)
class _Span:
    """Where an array stands in the body, and in which form; nothing of it is converted yet."""

    form: str
    start: int
    end: int
    shape: Any = None
    dtype: Any = None


class _Reader:
    """One walk through one body."""

    def __init__(self, body: bytes | bytearray, max_elements: int, max_depth: int) -> None:
        self.body = body
        self.max_elements = max_elements
        self.max_depth = max_depth
        self.elements = 0

    def read(self) -> tuple[dict[str, Any], dict[str, Given]]:
        body = self.body
        if body.startswith(b"\xef\xbb\xbf"):
            raise unreadable("the body begins with a byte order mark; JSON has none")
        if not body.isascii():
            try:
                body.decode()
            except UnicodeDecodeError as error:
                raise unreadable(f"the body is not UTF-8: byte {error.start}") from None
        spans: dict[str, _Span] = {}
        fields: dict[str, Any] = {}
        start = self.skip(0)
        if body[start : start + 1] != b"{":
            self.no_object(start)

        def member(name: str, at: int) -> int:
            if name in ARRAYS:
                spans[name] = span = self.span(name, at)
                return span.end
            fields[name], end = self.field(f"/{_escape(name)}", at)
            return end

        end = self.skip(self.members(start, "", member))
        if end != len(body):
            raise unreadable(f"the JSON object ends, but the body goes on at byte {end}")
        default = fields.get("dtype", "float32")
        if default not in DTYPES:
            raise refused("/dtype", f"dtype: {show(default)} is not one of {', '.join(DTYPES)}")
        arrays = {
            name: Given(self.array(name, span, default if "dtype" in fields else None), span.form)
            for name, span in spans.items()
        }
        return fields, arrays

    # ------------------------------------------------------------------------------- structure

    def skip(self, at: int) -> int:
        """Return where the space at a place ends."""
        match = _SPACE.match(self.body, at)
        return match.end() if match else at

    def broken(self, at: int, wanted: str) -> NoReturn:
        """Raise the problem of a text that is not JSON at a place."""
        if at >= len(self.body):
            raise unreadable(f"the body ends where {wanted} is needed")
        found = show(chr(self.body[at]))
        raise unreadable(f"{wanted} is needed at byte {at}, where {found} is")

    def no_object(self, start: int) -> NoReturn:
        """Raise the problem of a body that is something other than an object."""
        if self.body[start : start + 1] == b"[":
            raise refused("", "the body is a list; an object is needed")
        self.field("", start)
        raise refused("", "the body is a single value; an object is needed")

    def members(self, at: int, where: str, member: Callable[[str, int], int]) -> int:
        """Walk the members of the object at a place and return its end.

        `member` is called with each name and the place of its value, and returns that one's end.
        """
        seen: set[str] = set()
        at = self.skip(at + 1)
        if self.body[at : at + 1] == b"}":
            return at + 1
        while True:
            if self.body[at : at + 1] != b'"':
                self.broken(at, "a member's name")
            end = self.string_end(at, where)
            name = self.small(at, end, where)
            pointer = f"{where}/{_escape(name)}"
            if name in seen:
                raise refused(pointer, f"the member {show(name)} is there more than once")
            seen.add(name)
            at = self.skip(end)
            if self.body[at : at + 1] != b":":
                self.broken(at, "a colon")
            at = self.skip(member(name, self.skip(at + 1)))
            following = self.body[at : at + 1]
            if following == b"}":
                return at + 1
            if following != b",":
                self.broken(at, "a comma or a closing brace")
            at = self.skip(at + 1)

    def string_end(self, at: int, where: str) -> int:
        """Return the end of the string of at most `FIELD` bytes at a place."""
        match = _TOKEN.match(self.body, at, at + FIELD)
        if match:
            return match.end()
        if len(self.body) - at > FIELD:
            raise refused(where, f"a string of more than {FIELD} bytes")
        raise unreadable(f"the string at byte {at} is not closed")

    def small(self, start: int, end: int, where: str) -> Any:
        """Return the value of a short JSON text that is not nested too deeply."""
        # Given bytes, `json` would guess at their encoding.
        text = self.body[start:end].decode()

        def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
            found = dict(items)
            if len(found) != len(items):
                names = [name for name, _ in items]
                twice = next(name for name in found if names.count(name) > 1)
                raise refused(where, f"the member {show(twice)} is there more than once")
            return found

        try:
            return json.loads(text, object_pairs_hook=pairs, parse_constant=_no_constant)
        except json.JSONDecodeError as error:
            at = start + len(text[: error.pos].encode())
            raise unreadable(f"{error.msg} at byte {at}") from None

    def field(self, pointer: str, at: int) -> tuple[Any, int]:
        """Return the value of a member that is no array, and its end."""
        first = self.body[at : at + 1]
        if first == b'"':
            end = self.string_end(at, pointer)
        elif first in (b"[", b"{"):
            end = self.bracket_end(at, pointer)
        else:
            match = _SCALAR.match(self.body, at, at + FIELD)
            if match is None:
                self.broken(at, "a value")
            end = match.end()
            if end - at == FIELD:
                raise refused(pointer, f"a value of more than {FIELD} bytes")
        return self.small(at, end, pointer), end

    def bracket_end(self, at: int, pointer: str) -> int:
        """Return the end of the list or object of at most `FIELD` bytes at a place."""
        depth = 0
        for token in _TOKEN.finditer(self.body, at, at + FIELD):
            if token[0] in b"[{":
                depth += 1
                if depth >= self.max_depth:  # the body itself is the first level
                    raise self.too_deep(pointer)
            elif token[0] in b"]}":
                depth -= 1
                if depth == 0:
                    return token.end()
        if len(self.body) - at > FIELD:
            raise refused(pointer, f"a value of more than {FIELD} bytes where no array belongs")
        raise unreadable(f"the list or object at byte {at} is not closed")

    def too_deep(self, pointer: str) -> Problem:
        detail = f"nesting: more than the limit of {self.max_depth} levels (max_depth)"
        return Problem(
            422,
            detail,
            [(pointer, detail)],
            members={"limit": {"setting": "max_depth", "value": self.max_depth}},
        )

    # ---------------------------------------------------------------------------------- arrays

    def span(self, name: str, at: int) -> _Span:
        """Return where the array at a place begins and ends."""
        first = self.body[at : at + 1]
        if first == b"[":
            return _Span("nested", at, self.list_end(f"/{name}", at, 1))
        if first != b"{":
            self.field(f"/{name}", at)
            raise refused(
                f"/{name}", f"{name}: a nested list, or an object with shape and dtype, is needed"
            )
        found: dict[str, Any] = {}
        data: list[_Span] = []

        def member(key: str, at: int) -> int:
            pointer = f"/{name}/{_escape(key)}"
            if key in ("shape", "dtype"):
                found[key], end = self.field(pointer, at)
                return end
            if key not in ("data", "base64"):
                raise refused(
                    pointer,
                    f"{name}: unknown member {show(key)}; an array has shape, dtype and either "
                    "data or base64",
                )
            if data:
                raise refused(pointer, f"{name}: data and base64 exclude each other")
            if key == "data":
                if self.body[at : at + 1] != b"[":
                    self.field(pointer, at)
                    raise refused(pointer, f"{name}: data: a list of numbers is needed")
                data.append(_Span("flat", at, self.list_end(pointer, at, 2)))
            else:
                if self.body[at : at + 1] != b'"':
                    self.field(pointer, at)
                    raise refused(pointer, f"{name}: base64: a string is needed")
                end = self.body.find(b'"', at + 1) + 1
                if not end:
                    raise unreadable(f"the string at byte {at} is not closed")
                if self.body[end - 2 : end - 1] == b"\\":
                    raise refused(pointer, f"{name}: base64: a quote is no base64 character")
                data.append(_Span("base64", at, end))
            return data[0].end

        end = self.members(at, f"/{name}", member)
        for key in ("shape", "dtype"):
            if key not in found:
                raise refused(f"/{name}", f"{name}: {key} is missing")
        if not data:
            raise refused(f"/{name}", f"{name}: data or base64 is missing")
        # The walk goes on after the object; its data is found again by its own span.
        inner = data[0]
        return _Object(inner.form, at, end, found["shape"], found["dtype"], inner.start, inner.end)

    def list_end(self, pointer: str, at: int, level: int) -> int:
        """Return the end of a list of numbers, however nested within the limit.

        No string but the three names of non-finite numbers may be in it, so that brackets can be
        counted without looking at strings at all.
        """
        most = self.max_depth - level
        depth = 0
        for start, stop in _pieces(self.body, at):
            piece = self.body[start:stop]
            opened, closed = piece.count(b"["), piece.count(b"]")
            length = len(piece)
            deepest, done = depth + opened, False
            if closed >= depth or deepest > most:
                codes = np.frombuffer(piece, np.uint8)
                depths = np.cumsum(_STEPS[codes], dtype=np.int32)
                depths += depth
                # Space and numbers before the first bracket are at depth 0 as well, but there
                # are none: the list begins at the first piece's first byte.
                ends = np.flatnonzero(depths == 0)
                if len(ends):
                    length, done = int(ends[0]) + 1, True
                deepest = int(depths[:length].max())
            self.no_foreign_values(pointer, start, piece[:length])
            if deepest > most:
                raise self.too_deep(pointer)
            if done:
                return start + length
            if length > PIECE + LONGEST - 1 and not piece.endswith(b","):
                raise refused(pointer, f"a value of more than {LONGEST} characters")
            depth += opened - closed
        raise unreadable(f"the list at byte {at} is not closed")

    def no_foreign_values(self, pointer: str, start: int, piece: bytes | bytearray) -> None:
        """Refuse objects, and strings other than the names of non-finite numbers."""
        quotes = piece.count(b'"')
        if not quotes and b"{" not in piece:
            return
        names = sum(piece.count(f'"{name}"'.encode()) for name in _NON_FINITE)
        if quotes == 2 * names:
            if b"{" not in piece:
                return
            raise refused(pointer, "an object is in a list of numbers")
        match = _BEFORE_A_FOREIGN_STRING.match(piece)
        offset = match.end() if match else 0
        text = bytes(self.body[start + offset : start + offset + FIELD])
        token = _TOKEN.match(text)
        if token is None and start + offset + FIELD > len(self.body):
            raise unreadable(f"the string at byte {start + offset} is not closed")
        shown = show((token[0] if token else text)[1:61].rstrip(b'"').decode(errors="replace"))
        raise refused(
            pointer,
            f"the string {shown} at byte {start + offset} is no number; of strings, only "
            '"NaN", "Infinity" and "-Infinity" are',
        )

    def array(self, name: str, span: _Span, default: str | None) -> Array:
        """Return an array, converted."""
        known = INDEX_DTYPES if name == "argmax" else DTYPES
        if not isinstance(span, _Object):
            dtype = np.dtype("int64" if name == "argmax" else default or "float32")
            return self.nested(name, span, dtype)
        if span.dtype not in known:
            raise refused(
                f"/{name}/dtype",
                f"{name}: dtype {show(span.dtype)} is not one of {', '.join(known)}",
            )
        if name != "argmax" and default not in (None, span.dtype):
            raise refused(
                f"/{name}/dtype",
                f"{name}: dtype {span.dtype} contradicts the body's own dtype {default}",
            )
        dtype = np.dtype(span.dtype)
        shape = self.shape(name, span.shape)
        if span.form == "base64":
            return self.base64(name, span, shape, dtype)
        return self.flat(name, span, shape, dtype)

    def shape(self, name: str, shape: object) -> tuple[int, ...]:
        """Check an object's shape, and count its elements."""
        pointer = f"/{name}/shape"
        if not isinstance(shape, list) or not all(
            type(size) is int and size >= 0 for size in shape
        ):
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
        if prod(max(size, 1) for size in shape) > 2**57:
            if 0 in shape:
                raise refused(pointer, f"{name}: shape {show(shape)} is too large for an array")
            raise over_limit(
                pointer, f"{name}: elements", prod(shape), "max_elements", self.max_elements
            )
        self.count(pointer, name, prod(shape))
        return tuple(shape)

    def count(self, pointer: str, name: str, elements: int) -> None:
        """Count an array's elements against the limit."""
        self.elements += elements
        if self.elements > self.max_elements:
            raise over_limit(
                pointer, f"{name}: elements", self.elements, "max_elements", self.max_elements
            )

    def structure(self, span: _Object | _Span) -> bytes:
        """Return the brackets and commas of a list."""
        return b"".join(
            bytes(self.body[start:stop]).translate(None, _NOT_STRUCTURE)
            for start, stop in _pieces(self.body, span.start, span.end)
        )

    def nested(self, name: str, span: _Span, dtype: np.dtype[Any]) -> Array:
        """Return the array of a nested list."""
        opening = _OPENING.match(self.body, span.start, span.end)
        depth = opening[0].count(b"[") if opening else 0
        found = self.structure(span)
        sizes: list[int] = []
        unit = b""
        for level in range(1, depth + 1):
            # The first list of this level, up to its closing bracket.
            stop = found.find(b"]" * level) + level
            first = found[depth - level : stop] if stop >= level else b""
            size = (len(first) - 1) // (len(unit) + 1)
            unit = b"[" + b",".join([unit] * size) + b"]"
            if first != unit:
                break
            sizes.insert(0, size)
        if found != unit:
            self.check_syntax(span)
            raise refused(
                f"/{name}", f"{name}: ragged: its lists differ in length or depth among themselves"
            )
        shape = tuple(sizes)
        self.count(f"/{name}", name, prod(shape))

        def pointer(index: int) -> str:
            place = np.unravel_index(index, shape)
            return f"/{name}/" + "/".join(str(int(i)) for i in place)

        array = self.numbers(name, span, depth, prod(shape), dtype, pointer)
        if array is None:
            # Regular lists of one element each, some of which are empty: "[]" has no comma either.
            if shape[-1] == 1 and not re.search(rb"[\w]", self.body[span.start : span.end]):
                raise refused(
                    f"/{name}",
                    f"{name}: a nested list cannot tell the shape of an array without elements; "
                    'write {"shape", "dtype", "data": []}',
                )
            raise refused(f"/{name}", f"{name}: ragged: some of its lists are empty, others not")
        return array.reshape(shape)

    def check_syntax(self, span: _Span) -> None:
        """Raise the problem of a list that is not JSON, if it is not."""
        for _ in self.parsed(span, "", ragged=True):
            pass

    def parsed(
        self, span: _Span, name: str, *, ragged: bool = False
    ) -> Iterator[tuple[list[Any], bool]]:
        """Yield the values of each piece of a list, and whether they are flat already."""
        depth = 0
        for start, stop in _pieces(self.body, span.start, span.end):
            text = bytes(self.body[start:stop])
            if stop < span.end:
                text = text[:-1]  # the comma
            after = depth + text.count(b"[") - text.count(b"]")
            flat = None if ragged else _flattened(text)
            if flat is None:
                before, whole = depth, b"[" * depth + text + b"]" * after
            else:
                before, whole = 1, b"[" + flat + b"]"
            if any(zero in whole for zero in _MINUS_ZEROS):
                # To orjson this is the integer 0, which has no sign.
                whole = _MINUS_ZERO.sub(b"-0.0", whole)
            try:
                values = orjson.loads(whole)
            except orjson.JSONDecodeError:
                values = self.reread(whole, start - before, name, ragged=ragged)
            yield values, flat is not None
            depth = after

    def reread(self, text: bytes, start: int, name: str, *, ragged: bool) -> Any:
        """Find out why a text was refused: it is no JSON, or a number is out of range.

        It has no strings but those of non-finite numbers, so bytes and characters are the same.
        """
        try:
            return json.loads(
                text.decode(),
                parse_float=_finite,
                parse_int=_finite_int,
                parse_constant=_no_constant,
            )
        except json.JSONDecodeError as error:
            raise unreadable(f"{error.msg} at byte {start + error.pos}") from None
        except _OutOfRangeError as error:
            if ragged:
                return []
            raise refused(f"/{name}", f"{name}: {error} is out of the range of float64") from None

    def numbers(
        self,
        name: str,
        span: _Span,
        depth: int,
        size: int,
        dtype: np.dtype[Any],
        pointer: Callable[[int], str],
    ) -> Array | None:
        """Return the `size` numbers of a list, or None if there are fewer or more."""
        array = np.empty(size, dtype)
        done = 0
        for values, is_flat in self.parsed(span, name):
            for _ in range(0 if is_flat else depth - 1):
                values = list(chain.from_iterable(values))
            if done + len(values) > size:
                return None
            try:
                array[done : done + len(values)] = _converted(values, dtype)
            except _BadValueError as error:
                raise refused(pointer(done + error.index), f"{name}: {error.detail}") from None
            done += len(values)
        return array if done == size else None

    def flat(self, name: str, span: _Object, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return the array of a flat list."""
        size = prod(shape)
        pointer = f"/{name}/data"
        inner = _Span("flat", span.inner_start, span.inner_end)
        found = self.structure(inner)
        if found.count(b"[") > 1:
            self.check_syntax(inner)
            raise refused(pointer, f"{name}: data: a flat list of numbers is needed")
        n_found = len(found) - 1
        if n_found == 1 and self.skip(inner.start + 1) == inner.end - 1:
            n_found = 0
        if n_found != size:
            self.check_syntax(inner)
            raise refused(
                pointer, f"{name}: data has {n_found} numbers; shape {show(shape)} needs {size}"
            )
        array = self.numbers(name, inner, 1, size, dtype, lambda index: f"{pointer}/{index}")
        if array is None:
            raise AssertionError("a flat list has as many values as its commas say")
        return array.reshape(shape)

    def base64(
        self, name: str, span: _Object, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> Array:
        """Return the array of a base64 string."""
        pointer = f"/{name}/base64"
        text: bytes | memoryview = memoryview(self.body)[span.inner_start + 1 : span.inner_end - 1]
        if self.body.find(b"\\", span.inner_start, span.inner_end) >= 0:
            # Some writers escape the slash, or = and + as in HTML.
            text = _unescaped(bytes(text))
        n_bytes = prod(shape) * dtype.itemsize
        if len(text) != -(-n_bytes // 3) * 4:
            raise refused(
                pointer,
                f"{name}: base64 of {len(text)} characters; shape {show(shape)} of {dtype} has "
                f"{n_bytes} bytes, which take {-(-n_bytes // 3) * 4}",
            )
        parts = []
        step = PIECE * 4
        for start in range(0, len(text), step):
            part = bytes(text[start : start + step])
            padding = -n_bytes % 3 if start + step >= len(text) else 0
            try:
                data = binascii.a2b_base64(part, strict_mode=True)
            except binascii.Error as error:
                bad = re.search(rb"[\x00-\x1f]", part)
                if bad:
                    raise unreadable("a string has a control character in it") from None
                raise refused(pointer, f"{name}: base64: {str(error).lower()}") from None
            # Unused bits of the last character must be 0, or one array would have many texts.
            last = binascii.b2a_base64(data[-(3 - padding) :], newline=False)
            if len(data) != len(part) // 4 * 3 - padding or part[-4:] != last:
                raise refused(
                    pointer,
                    f"{name}: base64: not what {n_bytes} bytes are written as (padding, or unused "
                    "bits that are not 0)",
                )
            parts.append(data)
        found = np.frombuffer(b"".join(parts), dtype.newbyteorder("<"))
        return found.astype(dtype, copy=False).reshape(shape)


@dataclass(slots=True)
class _Object(_Span):
    """An array that is an object, and where its data stands."""

    inner_start: int = 0
    inner_end: int = 0


@dataclass(eq=False)
class _BadValueError(Exception):
    """A value that is no number of the dtype."""

    index: int
    detail: str


def _pieces(
    body: bytes | bytearray, start: int, end: int | None = None
) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of consecutive pieces that end after a comma where there is one.

    NumPy gives the interpreter's lock back and takes it again so quickly, many times a piece, that
    a thread that waits for it is woken but comes too late each time, and never gets to the point
    of demanding it (CPython's take_gil demands it only after a wait without such a wake-up). It
    was kept from the event loop for 220 ms. So every few pieces there is a real pause.
    """
    end = len(body) if end is None else end
    for count in itertools.count(1):
        if start >= end:
            return
        if count % 4 == 0:
            time.sleep(50e-6)
        stop = start + PIECE
        if stop >= end:
            stop = end
        else:
            comma = body.find(b",", stop, min(end, stop + LONGEST))
            stop = comma + 1 if comma >= 0 else min(end, stop + LONGEST)
        yield start, stop
        start = stop


def _flattened(text: bytes) -> bytes | None:
    """Return a piece of a nested list without its brackets, if that loses nothing.

    Its structure is known to be regular. What is still to be seen is that each bracket stands
    where a bracket can: not between a number and a number, and not around nothing.
    """
    if b"[" not in text and b"]" not in text:
        return text
    codes = np.frombuffer(text.translate(None, b" \t\n\r"), np.uint8)
    before = codes[:-1][codes[1:] == ord("[")]
    after = codes[1:][codes[:-1] == ord("]")]
    inside = codes[1:][codes[:-1] == ord("[")]
    if (
        ((before == ord("[")) | (before == ord(","))).all()
        and ((after == ord("]")) | (after == ord(","))).all()
        and (inside != ord("]")).all()
    ):
        return text.translate(_UNBRACKETED)
    return None


def _converted(values: list[Any], dtype: np.dtype[Any]) -> Array:
    """Return JSON values as an array of a dtype, or raise a `_BadValueError`."""
    kinds = set(map(type, values))
    if dtype.kind in "iu":
        if kinds - {int}:
            index = next(i for i, value in enumerate(values) if type(value) is not int)
            raise _BadValueError(index, f"{show(values[index])} is no integer")
        least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
        try:
            integers = np.array(values, np.int64)
            bad = np.flatnonzero((integers < least) | (integers > most))
        except OverflowError:
            bad = np.array([i for i, value in enumerate(values) if not least <= value <= most])
        if len(bad):
            index = int(bad[0])
            raise _BadValueError(index, f"{values[index]} is out of the range of {dtype}")
        return integers
    if kinds - {float, int}:
        for index, value in enumerate(values):
            if type(value) in (float, int) or (type(value) is str and value in _NON_FINITE):
                continue
            word = {bool: "a boolean", type(None): "null", str: "a string"}.get(
                type(value), "no number"
            )
            raise _BadValueError(index, f"{show(value)} is {word}; a number is needed")
        values = [_NON_FINITE[value] if type(value) is str else value for value in values]
    doubles = np.array(values, np.float64)
    if dtype == np.float64:
        return doubles
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        singles = doubles.astype(dtype)
    bad = np.flatnonzero(np.isinf(singles) & np.isfinite(doubles))
    if len(bad):
        index = int(bad[0])
        raise _BadValueError(index, f"{doubles[index]!s} is out of the range of {dtype}")
    return singles


def _finite(text: str) -> float:
    number = float(text)
    if isinf(number):
        raise _OutOfRangeError(text if len(text) <= 40 else f"{text[:30]}... ({len(text)} digits)")
    return number


def _finite_int(text: str) -> int | float:
    # int() takes quadratic time, and refuses more than 4300 digits; float() does neither.
    return int(text) if len(text) <= 20 else _finite(text)


def _no_constant(name: str) -> NoReturn:
    raise unreadable(f'{name} is not JSON; write the string "{name}"')


def _escape(name: str) -> str:
    """Return a name as it stands in a JSON Pointer, short and printable."""
    return show(name)[1:-1].replace("~", "~0").replace("/", "~1")


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


def encode(members: Mapping[str, Any], form: str) -> list[bytes]:
    """Write a reply's body.

    Parameters
    ----------
    members : mapping of str to object
        Arrays, and whatever else JSON has.
    form : str
        The form of its arrays, one of `FORMS`.

    Returns
    -------
    list of bytes
        The body in parts. They are not joined, which would take the memory twice.

    Raises
    ------
    Problem
        If an array has no elements and `form` is ``"nested"``.
    """
    parts: list[bytes] = []
    separator = b"{"
    for name, value in members.items():
        parts.append(separator + json.dumps(name).encode() + b":")
        if isinstance(value, np.ndarray):
            parts.extend(_written(np.ascontiguousarray(value), form))
        else:
            parts.append(json.dumps(value, separators=(",", ":")).encode())
        separator = b","
    parts.append(b"}")
    return parts


def text_bytes(dtype: np.dtype[Any], elements: int, form: str) -> int:
    """Return about how many bytes `encode` takes at most for so many elements."""
    if form == "base64":
        return elements * dtype.itemsize * 4 // 3
    # -3.4028235e+38, and -1.7976931348623157e+308, with a comma and brackets
    return elements * {"float32": 20, "float64": 28}.get(dtype.name, 8)


def _written(array: Array, form: str) -> Iterator[bytes]:
    if form == "nested":
        if not array.size:
            raise refused(
                "/encoding",
                f"encoding: nested lists cannot tell the shape {show(array.shape)} of an array "
                'without elements; ask for "flat" or "base64"',
            )
        yield from _lists(array)
        return
    shape = json.dumps(array.shape, separators=(",", ":")).encode()
    yield b'{"shape":%b,"dtype":"%b","%b":' % (
        shape,
        array.dtype.name.encode(),
        b"data" if form == "flat" else b"base64",
    )
    if form == "flat":
        yield from _lists(array.reshape(-1))
    else:
        little = array.astype(array.dtype.newbyteorder("<"), copy=False).reshape(-1)
        step = 3 * ELEMENTS  # so that only the last part has padding
        yield b'"'
        for start in range(0, little.size, step):
            yield binascii.b2a_base64(little[start : start + step].data, newline=False)
        yield b'"'
    yield b"}"


def _lists(array: Array) -> Iterator[bytes]:
    """Yield the text of an array as nested lists, in parts of limited size."""
    if array.size <= ELEMENTS:
        yield _text(array)
        return
    rows = max(1, ELEMENTS // (array.size // len(array)))
    separator = b"["
    for start in range(0, len(array), rows):
        yield separator
        separator = b","
        if rows == 1:
            yield from _lists(array[start])
        else:
            yield _text(array[start : start + rows])[1:-1]
    yield b"]"


def _text(array: Array) -> bytes:
    """Return the text of a small array as nested lists."""
    text = orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY)
    if array.dtype.kind != "f":
        return text
    flat = array.reshape(-1)
    if not np.isfinite(flat).all():
        # JSON has no tokens for these; orjson writes null.
        names = (
            b'"NaN"' if value != value else b'"Infinity"' if value > 0 else b'"-Infinity"'
            for value in flat[~np.isfinite(flat)].tolist()
        )
        first, *rest = text.split(b"null")
        text = first + b"".join(chain.from_iterable(zip(names, rest, strict=True)))
    if array.dtype == np.float32 and b"7.038531e-26" in text:
        # The one magnitude of all 2**31 whose shortest text reads back as its neighbour where a
        # reader goes through a double, as Python's and JavaScript's do.
        text = text.replace(b"7.038531e-26", b"7.0385307e-26")
    return text


if sys.float_info.mant_dig != 53:
    raise ImportError("poolgrad_service needs IEEE 754 doubles")
