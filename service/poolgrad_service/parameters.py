"""Hyperparameters as one line of text: for queries, V2 parameters and the command line.

======================  ==================
``3``                   3
``3,2``                 [3, 2]
``3,``                  [3]
``1:0,0:1``             [[1, 0], [0, 1]]
``7,null``              [7, None]
``true``, ``false``     True, False
``null``                None
anything else           itself, as ``same``
======================  ==================
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from operator import index
from typing import Any, Final

__all__ = ["from_text", "to_scalar"]

_WORDS: Final = {"true": True, "false": False, "null": None}

#: Longer ones are no size of anything, and int() refuses thousands of digits.
_INTEGER: Final = re.compile(r"[-+]?[0-9]{1,40}")


def _item(text: str) -> int | None:
    if text == "null":
        return None
    if not _INTEGER.fullmatch(text):
        raise ValueError
    return int(text)


def from_text(text: str) -> Any:
    """Return what a text says; nothing is checked but its form.

    Examples
    --------
    >>> from_text("3"), from_text("1:0,0:1"), from_text("same")
    (3, [[1, 0], [0, 1]], 'same')
    """
    if text in _WORDS:
        return _WORDS[text]
    listed = text.endswith(",")
    parts = text[:-1].split(",") if listed else text.split(",")
    try:
        items = [
            [_item(end) for end in part.split(":")] if ":" in part else _item(part)
            for part in parts
        ]
    except ValueError:
        return text
    return items if listed or len(items) > 1 or ":" in text else items[0]


def to_scalar(value: Any) -> str | int | bool:
    """Return a value as a number, a boolean, or a text that `from_text` reads.

    Raises
    ------
    TypeError
        If it is of another kind.

    Examples
    --------
    >>> to_scalar(3), to_scalar((3,)), to_scalar([(1, 0), 2]), to_scalar(None)
    (3, '3,', '1:0,2', 'null')
    """
    if value is None:
        return "null"
    if isinstance(value, (bool, str)):
        return value
    if not isinstance(value, Sequence):
        return index(value)
    parts = [
        ":".join(str(index(end)) for end in item)
        if isinstance(item, Sequence)
        else str(to_scalar(item))
        for item in value
    ]
    return ",".join(parts) + "," * (len(parts) < 2 and ":" not in "".join(parts))
