"""What the JSON reader should answer, by Python's `json` and exact fractions, slowly.

`json` with NumPy would round twice on the way to a float32.
"""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from fractions import Fraction

import numpy as np

from poolgrad_service import _json
from poolgrad_service.errors import Problem, unreadable

UNREADABLE, REFUSED = "unreadable", "refused"

NAMES = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class Number(str):
    """The text of a number."""


class Members(list):
    """The members of an object, as pairs."""


class OutOfRange(Exception):
    """A number is too large for its dtype."""


def nearest(text, dtype):
    """Return the number of a dtype that is nearest to a decimal text; of two, the even one."""
    kind = np.dtype(dtype)
    if kind.kind in "iu":
        if not re.fullmatch("-?[0-9]{1,30}", text):
            raise OutOfRange(text)
        value = int(text)
        if not np.iinfo(kind).min <= value <= np.iinfo(kind).max:
            raise OutOfRange(text)
        return kind.type(value)
    sign = -1.0 if text.startswith("-") else 1.0
    digits, _, exponent = text.lstrip("-").lower().partition("e")
    # Decimal has its limits, far beyond all floats.
    size = Decimal(f"{digits}e{min(max(int(exponent or 0), -(10**6)), 10**6)}")
    if not size or size.adjusted() < -400:
        return kind.type(sign * 0.0)
    if size.adjusted() > 400:
        raise OutOfRange(text)
    exact, info = Fraction(size), np.finfo(kind)
    exponent = exact.numerator.bit_length() - exact.denominator.bit_length()
    exponent -= exact < Fraction(2) ** exponent
    quantum = max(exponent, int(info.minexp)) - info.nmant
    steps = round(exact / Fraction(2) ** quantum)  # half to even
    if steps * Fraction(2) ** quantum > Fraction(float(info.max)):
        raise OutOfRange(text)
    return kind.type(sign * math.ldexp(steps, quantum))


def regular(value):
    """Return the shape of nested lists and their elements, or None if they are ragged."""
    if type(value) is not list:  # objects are lists of their own type
        return (), [value]
    parts = [regular(part) for part in value]
    if None in parts or len({shape for shape, _ in parts}) > 1:
        return None
    return (len(parts), *(parts[0][0] if parts else ())), [x for _, flat in parts for x in flat]


def array(value, dtype):
    """Return the array that nested lists are read as, or `REFUSED`."""
    found = regular(value)
    if found is None:
        return REFUSED
    shape, flat = found
    numbers = []
    for item in flat:
        if isinstance(item, Number):
            try:
                numbers.append(nearest(item, dtype))
            except OutOfRange:
                return REFUSED
        elif type(item) is str and item in NAMES and np.dtype(dtype).kind == "f":
            numbers.append(np.dtype(dtype).type(NAMES[item]))
        else:
            return REFUSED
    return np.array(numbers, dtype).reshape(shape)


def _no_constant(name):
    raise json.JSONDecodeError("no JSON", name, 0)


def parsed(body):
    """Return a text's value, its numbers as texts, its objects as pairs; or `UNREADABLE`."""
    try:
        return json.loads(
            body.decode(),
            parse_float=Number,
            parse_int=Number,
            parse_constant=_no_constant,
            object_pairs_hook=Members,
        )
    except (ValueError, RecursionError):
        return UNREADABLE


def plain(value, dtype):
    """Return a parsed value as `scan` should, with the arrays of its spans; or `REFUSED`."""
    if isinstance(value, Members):
        found = {}
        for name, item in value:
            if name in found:
                return REFUSED
            if name == "x" and isinstance(item, list) and not isinstance(item, Members):
                found[name] = array(item, dtype)
            else:
                found[name] = plain(item, dtype)
            if found[name] is REFUSED:
                return REFUSED
        return found
    if isinstance(value, list):
        found = [plain(item, dtype) for item in value]
        return REFUSED if any(item is REFUSED for item in found) else found
    if isinstance(value, Number):
        if len(value) > 1000:
            return REFUSED
        if re.fullmatch("-?[0-9]+", value):
            return int(value)
        try:
            return float(nearest(value, "float64"))
        except OutOfRange:
            return REFUSED
    return value


def scanned(value, dtype):
    """Return what `scan` did, with its spans read."""
    if isinstance(value, dict):
        return {name: scanned(item, dtype) for name, item in value.items()}
    if isinstance(value, list):
        return [scanned(item, dtype) for item in value]
    if isinstance(value, _json.Span):
        if value.is_string:
            try:
                return json.loads(bytes(value.raw).join([b'"', b'"']).decode())
            except ValueError as error:
                raise unreadable(str(error)) from None
        return value.read("x", dtype)
    return value


def same(a, b):
    """Return whether two values are the same, the bits of their numbers included."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[name], b[name]) for name in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.ndarray):
        return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
    if isinstance(a, float):
        return math.copysign(1, a) == math.copysign(1, b) and a == b
    return a == b


def check(body, dtype):
    """Hold the reader to what it should answer about a body.

    Parameters
    ----------
    body : bytes
        Any bytes.
    dtype : str
        The dtype that lists under the name "x" are read as.
    """
    expected = parsed(body)
    if expected is not UNREADABLE:
        expected = plain(expected, dtype) if isinstance(expected, Members) else REFUSED
    problem = None
    try:
        found = scanned(_json.scan(body, {"x"}, max_depth=20), dtype)
    except Problem as error:
        problem = error
    if problem is None:
        assert expected is not UNREADABLE, body
        assert expected is not REFUSED, body
        assert same(found, expected), (body, found, expected)
        return
    assert problem.detail.isprintable()
    if problem.status == 400:
        assert expected is UNREADABLE, (body, problem.detail)
    else:
        # What is refused may be met before what is broken, and some limits are its own.
        limit = any(word in problem.detail for word in ("more than", "longer", "limit"))
        assert limit or expected is UNREADABLE or expected is REFUSED, (body, problem.detail)
        assert problem.status == 422
