"""The library's errors, and how a value is shown in their messages.

Every message names the argument, the axis where there is one, the value and the rule it broke.
Nothing here knows about HTTP: the service maps these classes to status codes.
"""

from __future__ import annotations

from typing import Final

__all__ = ["DtypeError", "ParameterError", "PoolgradError", "ShapeError"]

_SHOWN: Final = 80


class PoolgradError(Exception):
    """The base of every error that Poolgrad raises on purpose."""


class ShapeError(PoolgradError, ValueError):
    """An array's shape does not fit: its rank, a size, or another array's shape."""


class ParameterError(PoolgradError, ValueError):
    """A hyperparameter is missing, of the wrong kind, or out of its range."""


class DtypeError(PoolgradError, TypeError):
    """An argument is no array, or an array of a dtype that is not supported."""


def show(value: object, _depth: int = 3) -> str:
    """Return `value` as one printable ASCII line of at most 80 characters.

    Messages travel into logs and HTTP replies, so control characters and lone surrogates are
    escaped, and a number of a million digits is never turned into text.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        # Decimal conversion takes quadratic time, and CPython refuses it past 4300 digits.
        sign = "-" if value < 0 else ""
        return f"{sign}(an integer of {value.bit_length()} bits)"
    if isinstance(value, (str, bytes)):
        text = ascii(value[: _SHOWN + 1])
    elif isinstance(value, (list, tuple)):
        if not _depth:  # a list may even hold itself
            return "..."
        parts = [show(item, _depth - 1) for item in value[: _SHOWN // 3]]
        more = ["..."] if len(value) > len(parts) else []
        inner = ", ".join(parts + more)
        if isinstance(value, list):
            text = f"[{inner}]"
        else:
            text = f"({inner},)" if len(value) == 1 else f"({inner})"
    else:
        try:
            text = ascii(value)
        except Exception:  # a foreign __repr__ may do anything; the error must still be raised
            text = f"<{type(value).__name__}>"
    # ascii() of a foreign object passes on what its __repr__ wrote, line breaks included.
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
