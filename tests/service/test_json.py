"""The reader and the writer of numbers, against exact arithmetic and NumPy's own shortest texts."""

from __future__ import annotations

import json
import re
import threading
import tracemalloc
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import exact
from poolgrad import dispatch
from poolgrad_service import _json
from poolgrad_service.errors import Problem

FLOATS = ("float32", "float64")
INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
CORPUS = sorted((Path(__file__).parents[1] / "fuzz" / "corpus").iterdir())


@pytest.fixture(params=dispatch.runnable(), ids=lambda it: it.name, autouse=True, scope="module")
def build(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_json, "KINDS", _json.kinds_of(request.param))
        yield request.param


def read(text, dtype, **options):
    return _json.scan(b'{"x":%b}' % text, {"x"}, max_depth=32)["x"].read("x", dtype, **options)


def of_bits(dtype, n):
    """Floats drawn by their bits: each exponent is as likely as any other."""
    size = np.dtype(dtype).itemsize
    return st.integers(0, 2 ** (8 * size) - 1).map(
        lambda bits: np.frombuffer(bits.to_bytes(size, "little"), dtype)[0]
    )


def significand(text):
    """The digits of a number that count."""
    return re.sub("[-.]", "", re.split("[eE]", text)[0]).strip("0")


NUMBERS = st.from_regex(
    r"-?(0|[1-9][0-9]{0,22})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?", fullmatch=True
)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_the_seeds_of_the_fuzzer(path, dtype):
    exact.check(path.read_bytes(), dtype)


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
@given(text=NUMBERS)
def test_a_number_is_read_as_the_nearest(dtype, text):
    exact.check(b'{"x":[%b]}' % text.encode(), dtype)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_are_exact_up_to_the_last(dtype):
    info = np.iinfo(dtype)
    for value in {info.min, info.max, 0, 1, info.max - 1, 10**17, 10**19}:
        if value <= info.max:
            assert read(b"[%d]" % value, dtype).tolist() == [value]
    for value in (info.min - 1, info.max + 1, 10**19 + info.max, 10**25):
        with pytest.raises(Problem, match=f"out of the range of {dtype}"):
            read(b"[%d]" % value, dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@given(data=st.data())
@settings(max_examples=200)
def test_a_text_near_the_middle_of_two_floats_is_read_as_the_nearest(dtype, data):
    value = data.draw(of_bits(dtype, 1).filter(np.isfinite))
    above = np.nextafter(value, np.inf, dtype=dtype)
    if not np.isfinite(above):
        return
    middle = (Fraction(float(value)) + Fraction(float(above))) / 2
    with localcontext(prec=1200):
        text = f"{Decimal(middle.numerator) / Decimal(middle.denominator):e}"
    head, _, exponent = text.partition("e")
    head = head if "." in head else f"{head}.0"
    texts = [f"{head}{more}e{exponent}" for more in ("", "0" * 20, "1", "0" * 30 + "1")]
    # A little less: one unit of the last place, with a nine behind.
    texts.append(f"{head[:-1]}{max(int(head[-1]) - 1, 0)}9e{exponent}")
    texts += [f"{digits:.{n}f}" for n in (5, 9, 12) for digits in [Decimal(middle.numerator) / 1]]
    for item in texts:
        exact.check(b'{"x":[%b]}' % item.encode(), dtype)


@given(value=st.integers(1, 2**53), exponent=st.integers(-22, 22), sign=st.sampled_from(["", "-"]))
@example(value=2**53, exponent=22, sign="")
@example(value=2**53, exponent=-22, sign="-")
# Half-way between two float32 as doubles, but the text is not.
@example(value=16777217, exponent=0, sign="")
@example(value=8388608500000000, exponent=-9, sign="")
def test_the_short_way_of_the_reader(value, exponent, sign):
    for dtype in FLOATS:
        exact.check(b'{"x":[%s%de%d]}' % (sign.encode(), value, exponent), dtype)


@pytest.mark.parametrize("n_digits", range(1, 40))
def test_digits_of_every_number_at_every_distance_from_the_end(n_digits):
    digits = ("1234567890" * 4)[:n_digits]
    for tail in ("", "]", " " * 20, ",1.5,2.25"):
        text = f"[0.{digits}{tail.rstrip(']')}]"
        found = read(text.encode(), "float64")
        assert found[0] == float(f"0.{digits}")


TOKENS = [
    *'[]{},:"x -\\\n', '"x"', "1", "-0", "1.5", "1e400", "NaN", '"NaN"', "true", "null", "\\u0041",
    "é", "Infinity", '"-Infinity"', "[[", "]]",
]  # fmt: skip


@given(parts=st.lists(st.sampled_from(TOKENS), max_size=12), dtype=st.sampled_from(FLOATS))
@settings(max_examples=1000)
def test_texts_of_tokens(parts, dtype):
    text = "".join(parts).encode()
    for body in (text, b'{"x":%b}' % text, b'{"x":[%b]}' % text, b'{"y":[%b]}' % text):
        exact.check(body, dtype)


AMONG = [
    "1", "-0", "01", "-", "1.", ".5", "1.5.5", "1-5", "1..5", "1e5", "-2.5E-3", "1e39", "1.5e400",
    "9.9e", "1.5 ", "16777217.0", "8388608.5", "-33554434", "0.30000000000000004", "-129", "256",
    "123456789012345", "1234567890.12345", "3.4028235677973366e38", "99999999999999999999",
    '"NaN"', "NaN", "true", "[1.5]", "[]", "é",
]  # fmt: skip


@given(
    rows=st.lists(
        st.lists(st.sampled_from(["0.5", "-12.25", "127", *AMONG]), min_size=1, max_size=4),
        min_size=1, max_size=4,
    ),
    usual=st.integers(1, 6), joint=st.sampled_from([",", ", ", " ,\n"]),
    dtype=st.sampled_from([*FLOATS, "uint8", "int8", "int64"]),
)  # fmt: skip
@settings(max_examples=1000)
def test_the_unusual_among_the_usual(rows, usual, joint, dtype):
    # Usual numbers on both sides, so that there are enough bytes for the short way.
    fill = ["1.25"] * usual if np.dtype(dtype).kind == "f" else ["100"] * usual
    text = joint.join(f"[{joint.join([*fill, *row, *fill])}]" for row in rows)
    exact.check(b'{"x":[%b]}' % text.encode(), dtype)
    fill = joint.join(fill * 8)
    exact.check(b'{"x":[%b]}' % f"{fill}{joint}{joint.join(rows[0])}{joint}{fill}".encode(), dtype)


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
@pytest.mark.parametrize("joints", [(", ", ","), (",", ", "), (", ", ", ", ",", ",\n", ",  ")])
def test_spaces_may_be_behind_some_commas_only(dtype, joints):
    numbers = [10 + n for n in range(60)]
    text = "".join(f"{n}{joints[i % len(joints)]}" for i, n in enumerate(numbers)) + "99"
    assert read(f"[{text}]".encode(), dtype).tolist() == [*numbers, 99]
    assert read(f"[[{text}], [{text}],[{text}]]".encode(), dtype).tolist() == [[*numbers, 99]] * 3


@pytest.mark.parametrize("joint", [",", ", "])
@pytest.mark.parametrize("place", [(0, 0), (0, 1), (1, 0), (1, 20), (2, 38), (2, 39)])
def test_the_place_of_a_wrong_value_is_told(joint, place):
    rows = [["0.5"] * 40 for _ in range(3)]
    for wrong in ('"a"', "1e99", "true", "1234567890123456789012345678901234567890e1"):
        rows[place[0]][place[1]] = wrong
        text = joint.join(f"[{joint.join(row)}]" for row in rows)
        with pytest.raises(Problem) as caught:
            read(f"[{text}]".encode(), "float32")
        ((pointer, detail),) = caught.value.errors
        assert pointer == f"/x/{place[0]}/{place[1]}"
        assert wrong.strip('"')[:20] in detail


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5) | st.sampled_from(list(exact.NAMES)),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["x", "y", "é"]), inner, max_size=3),
    max_leaves=20,
)  # fmt: skip


@given(
    value=VALUES, indent=st.sampled_from([None, 1]), ascii_only=st.booleans(),
    cut=st.integers(0, 200), put=st.sampled_from(TOKENS), dtype=st.sampled_from(FLOATS),
)  # fmt: skip
@settings(max_examples=500)
def test_whole_texts_and_broken_ones(value, indent, ascii_only, cut, put, dtype):
    text = json.dumps({"x": value}, indent=indent, ensure_ascii=ascii_only)
    exact.check(text.encode(), dtype)
    cut = min(cut, len(text))
    exact.check((text[:cut] + put + text[cut:]).encode(), dtype)
    exact.check((text[:cut] + text[cut + 1 :]).encode(), dtype)


@pytest.mark.parametrize("shape", [(1000, 3), (2, 1, 500, 1), (4, 700), (1500,), (3, 3, 3, 64)])
@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
def test_arrays_of_many_blocks(shape, dtype):
    rng = np.random.default_rng(7)
    bits = rng.integers(0, 256, (*shape, np.dtype(dtype).itemsize), np.uint8)
    array = bits.view(dtype)[..., 0]
    if np.dtype(dtype).kind == "f":
        array[np.isnan(array)] = np.nan
    text = _json.write(array)
    found = read(text, dtype)
    assert found.shape == array.shape
    assert found.dtype == array.dtype
    assert found.tobytes() == array.tobytes()
    spaced = re.sub(rb"([\[\],])", rb" \1\n\t", text)
    assert read(spaced, dtype).tobytes() == array.tobytes()


@given(array=hnp.arrays("float32", (40,), elements=of_bits("float32", 40)))
def test_a_float32_has_no_digit_too_many(array):
    check_digits(array)


@given(array=hnp.arrays("float64", (40,), elements=of_bits("float64", 40)))
def test_a_float64_has_no_digit_too_many(array):
    check_digits(array)


@pytest.mark.parametrize("dtype", FLOATS)
def test_usual_numbers_have_no_digit_too_many(dtype):
    rng = np.random.default_rng(11)
    for scale in (1e-6, 1e-4, 1e-3, 0.05, 1, 100, 1e5, 1e7, 1e10, 1e17):
        check_digits((rng.normal(size=500) * scale).astype(dtype))
        check_digits(np.round(rng.normal(size=200) * scale, 2).astype(dtype))
    check_digits(np.float64(2.0 ** np.arange(-120, 120)).astype(dtype))
    check_digits(np.arange(-2000, 2000, dtype=dtype) / 16)
    check_digits(np.arange(-2000, 2000, dtype=dtype))


def check_digits(array):
    """Hold texts to being JSON's numbers, the same when read back, and as short as NumPy's."""
    texts = _json.write(array).decode()[1:-1].split(",")
    assert len(texts) == array.size
    for value, text in zip(array, texts, strict=True):
        if not np.isfinite(value):
            assert np.array_equal(exact.NAMES[json.loads(text)], value, equal_nan=True)
            continue
        back = np.array(exact.nearest(exact.Number(text), array.dtype))
        assert back.tobytes() == value.tobytes(), text
        assert type(json.loads(text)) is float, text  # no whole number
        if abs(value) != np.float32(7.038531e-26):
            best = np.format_float_scientific(value, unique=True)
            # Large whole numbers are written in full where that is as short.
            in_full = text.endswith(".0") and len(text) <= len(best) + 2
            assert significand(text) == significand(best) or in_full, (text, best)


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((), b"0"), ((0,), b"[]"), ((2, 0), b"[[],[]]"), ((0, 3), b"[]"), ((2, 0, 3), b"[[],[]]"),
        ((1, 1, 1), b"[[[0]]]"), ((2, 1), b"[[0],[0]]"), ((1, 2), b"[[0,0]]"),
        ((2, 1, 2), b"[[[0,0]],[[0,0]]]"),
    ],
)  # fmt: skip
def test_shapes_are_written(shape, text):
    assert _json.write(np.zeros(shape, np.uint8)) == text


def test_views_are_written_in_their_order():
    array = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
    for view in (array.T, array[:, ::-1], array[::-1, 1:, ::2]):
        assert json.loads(_json.write(view)) == view.tolist()


@pytest.mark.parametrize("dtype", ["float16", "bool", "complex64", ">f4", "O", "U3"])
def test_other_dtypes_are_refused(dtype):
    if dtype != ">f4":
        with pytest.raises(TypeError, match="dtype"):
            read(b"[1]", dtype)
    with pytest.raises(TypeError, match="array"):
        _json.write(np.zeros(3, dtype))


def test_names_without_quotes_are_read_where_they_may_be():
    text = b"[NaN, -Infinity, Infinity, -1]"
    found = read(text, "float32", tokens=True)
    assert np.array_equal(found, np.float32([np.nan, -np.inf, np.inf, -1]), equal_nan=True)
    with pytest.raises(Problem, match="NaN is not JSON"):
        read(text, "float32")
    with pytest.raises(Problem, match="NaN is no integer"):
        read(text, "int32", tokens=True)


def test_spans_are_found_at_any_depth_and_nowhere_else():
    body = b'{"inputs": [{"data": [[1, 2]], "shape": [1, 2]}, {"data": "AA\\u003d"}], "data": 3}'
    found = _json.scan(body, {"data"}, max_depth=5)
    first, second = (item["data"] for item in found["inputs"])
    assert (first.pointer, first.is_string, first.count) == ("/inputs/0/data", False, 2)
    assert body[first.start : first.end] == b"[[1, 2]]"
    assert bytes(first.raw) == b"[1, 2]"
    assert (second.is_string, second.has_escapes) == (True, True)
    assert found["data"] == 3
    assert found["inputs"][0]["shape"] == [1, 2]
    with pytest.raises(Problem, match="max_depth"):
        _json.scan(body, {"data"}, max_depth=4)
    with pytest.raises(Problem) as caught:
        _json.scan(b'{"inputs": [{"data": [1, null]}]}', {"data"}, max_depth=9)["inputs"][0][
            "data"
        ].read("x", "float32")
    assert caught.value.errors[0][0] == "/inputs/0/data/1"


def test_a_read_takes_little_more_memory_than_its_array():
    array = np.random.default_rng(3).random((20, 100, 50), np.float32)
    span = _json.scan(b'{"x":%b}' % _json.write(array), {"x"}, max_depth=5)["x"]
    tracemalloc.start()
    found = span.read("x", "float32")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.nbytes == array.nbytes
    assert peak < 1.2 * array.nbytes


def test_others_run_while_numbers_are_read_and_written():
    """A thread that counts has its turn, so the lock is not held for as long as a call takes."""
    array = np.random.default_rng(3).random(2_000_000, np.float32)
    body = b'{"x":%b}' % _json.write(array)
    during = []

    def work():
        _json.scan(body, {"x"}, max_depth=5)["x"].read("x", "float32")
        _json.write(array)

    worker = threading.Thread(target=work)
    worker.start()
    while worker.is_alive():
        during.append(None)
    assert len(during) > 1000
