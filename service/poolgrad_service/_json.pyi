"""JSON text to arrays of numbers and back, without the interpreter's lock; see `_json.pyx`."""

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from poolgrad.dispatch import Build

#: Bytes that the text outside of spans may have.
ENVELOPE: int

#: Characters that one number may have.
LONGEST: int

#: What reads and writes numbers of a dtype, and how many characters each takes at most.
KINDS: dict[np.dtype[Any], tuple[Any, Any, int]]

class Span:
    """A list or a string that a text has, found but not read."""

    #: Its JSON Pointer.
    pointer: str
    #: Whether it is a string; else it is a list.
    is_string: bool
    #: Whether it is a string with a backslash.
    has_escapes: bool
    #: Where it begins and ends in the text, brackets or quotes included.
    start: int
    end: int
    #: Numbers that it has at most; exactly as many if it has no empty lists.
    count: int

    @property
    def raw(self) -> memoryview:
        """The bytes between its brackets or quotes."""

    def read(
        self, name: str, dtype: npt.DTypeLike, *, tokens: bool = False
    ) -> npt.NDArray[Any]: ...

def kinds_of(build: Build) -> dict[np.dtype[Any], tuple[Any, Any, int]]: ...
def escape(name: str) -> str: ...
def scan(
    text: bytes | bytearray | memoryview, spans: Collection[str], *, max_depth: int
) -> dict[str, Any]: ...
def write(array: npt.NDArray[np.generic]) -> bytes | memoryview: ...
