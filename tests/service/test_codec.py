"""The codec on its own: every form both ways, and every refusal by name."""

from __future__ import annotations

import base64
import contextlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from poolgrad_service import codec
from poolgrad_service.errors import Problem

FLAT = '{"x": {"shape": %s, "dtype": "float32", "data": %s}}'
BASE64 = '{"x": {"shape": %s, "dtype": "float32", "base64": "%s"}}'


def decode(body, *, max_elements=10**6, max_depth=8):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return codec.decode(body, max_elements=max_elements, max_depth=max_depth)


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def arrays(dtypes=("float32", "float64")):
    shapes = hnp.array_shapes(min_dims=1, max_dims=5, max_side=4)
    return st.sampled_from(dtypes).flatmap(
        lambda dtype: hnp.arrays(
            dtype,
            shapes,
            elements=st.floats(width=np.dtype(dtype).itemsize * 8).map(
                # Text has one NaN only; base64 is tested with all of them.
                lambda value: value if value == value else float("nan")
            ),
        )
    )


@pytest.mark.parametrize("form", codec.FORMS)
@given(array=arrays())
def test_what_is_written_is_read_back_bit_for_bit(form, array):
    text = b"".join(codec.encode({"x": array, "dtype": array.dtype.name}, form))
    fields, found = decode(text)
    assert fields == {"dtype": array.dtype.name}
    assert found["x"].form == form
    assert same_bits(found["x"].array, array)


@given(array=arrays(("float32",)))
def test_float32_text_reads_back_through_a_double(array):
    values = json.loads(b"".join(codec.encode({"x": array}, "flat")))["x"]["data"]
    doubles = np.array([float(v) for v in values], np.float64)
    assert same_bits(doubles.astype(np.float32).reshape(array.shape), array)


def test_the_one_float32_whose_shortest_text_a_double_misreads():
    array = np.array([0x15AE43FD, 0x95AE43FD], np.uint32).view(np.float32)
    values = json.loads(b"".join(codec.encode({"x": array}, "nested")))["x"]
    assert same_bits(np.array(values, np.float64).astype(np.float32), array)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_base64_keeps_payloads_of_nan(dtype):
    bits = np.arange(16, dtype=np.uint8).repeat(16)
    bits[3::4] = 0x7F
    array = np.frombuffer(bits.tobytes(), dtype)
    _, found = decode(b"".join(codec.encode({"x": array}, "base64")))
    assert same_bits(found["x"].array, array)


@pytest.mark.parametrize("form", codec.FORMS)
@pytest.mark.parametrize("shape", [(3, 70_001), (70_001, 3), (2, 1, 70_001, 1), (200_003,)])
def test_arrays_of_many_pieces(form, shape):
    size = int(np.prod(shape))
    array = np.random.default_rng(5).normal(size=size).astype(np.float32).reshape(shape)
    array.flat[::1001] = np.nan
    array.flat[5::1003] = -np.inf
    _, found = decode(b"".join(codec.encode({"x": array}, form)))
    assert same_bits(found["x"].array, array)


@pytest.mark.parametrize("indent", [None, 1])
def test_spaced_out_lists_of_many_pieces(indent):
    array = np.arange(60_000, dtype=np.float32).reshape(10, 2000, 3)
    _, found = decode(json.dumps({"x": array.tolist()}, indent=indent).encode())
    assert same_bits(found["x"].array, array)


@given(
    data=st.data(),
    array=hnp.arrays("uint8", hnp.array_shapes(min_dims=1, max_dims=4, max_side=4)),
)
@settings(max_examples=30)
def test_argmax_keeps_its_own_dtype(data, array):
    form = data.draw(st.sampled_from(codec.FORMS))
    text = b"".join(codec.encode({"argmax": array, "dtype": "float64"}, form))
    _, found = decode(text)
    assert same_bits(codec.as_indices(found["argmax"], np.dtype("uint8")), array)


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("-0", 0x80000000),
        ("-0.0", 0x80000000),
        ("-1e-0", 0xBF800000),
        ("0", 0),
        ("1e-60", 0),
        ("-1e-400", 0x80000000),
        ("1e-45", 1),
        ("16777217", 0x4B800000),
        ("340282350000000000000000000000000000000", 0x7F7FFFFF),
        ("3.4028235677973362e38", 0x7F7FFFFF),
        ('"NaN"', 0x7FC00000),
        ('"-Infinity"', 0xFF800000),
    ],
)
def test_a_number_becomes_the_nearest_float32(text, bits):
    _, found = decode(f'{{"x": [{text}]}}'.encode())
    assert int(found["x"].array.view(np.uint32)[0]) == bits


@pytest.mark.parametrize("place", ["before", "after"])
def test_dtype_may_follow_the_array(place):
    head, tail = ('"dtype": "float64", ', "") if place == "before" else ("", ', "dtype": "float64"')
    _, found = decode(f'{{{head}"x": [0.1]{tail}}}'.encode())
    assert found["x"].array.dtype == np.float64


@pytest.mark.parametrize("shape", [[0, 4, 4, 1], [2, 3, 3, 0], [0]])
@pytest.mark.parametrize("rest", [{"data": []}, {"base64": ""}])
def test_arrays_without_elements(shape, rest):
    _, found = decode({"x": {"shape": shape, "dtype": "float32", **rest}})
    assert found["x"].shape == tuple(shape)


def test_base64_may_come_with_escapes():
    raw = np.array([np.nan, -1], "<f4").tobytes() + b"\xff\xff\xff\xfe"
    text = base64.b64encode(raw).decode().replace("/", "\\/").replace("=", "\\u003d")
    assert "\\/" in text
    body = BASE64 % ([3], text)
    _, found = decode(body.encode())
    assert found["x"].array.tobytes() == raw


UNREADABLE = {
    "empty": ("", "ends"),
    "space_only": (" \n", "ends"),
    "cut_short": ('{"x": [1, 2', "not closed"),
    "cut_in_a_number": ('{"x": [1, 2.', "not closed"),
    "cut_in_a_string": ('{"x": ["NaN', "not closed"),
    "cut_after_a_name": ('{"x"', "colon"),
    "no_value": ('{"x": }', "value"),
    "no_colon": ('{"x" [1]}', "colon"),
    "two_values": ('{"x": [1] [2]}', "comma"),
    "trailing_comma": ('{"x": [1],}', "name"),
    "trailing_comma_in_list": ('{"x": [1,]}', "at byte"),
    "leading_comma_in_list": ('{"x": [,1]}', "at byte"),
    "gap_in_list": ('{"x": [1,,2]}', "at byte"),
    "gap_in_ragged_list": ('{"x": [[1,,2],[3]]}', "at byte"),
    "no_comma_in_list": ('{"x": [1 2]}', "at byte"),
    "number_against_bracket": ('{"x": [[1,2],3[,4]]}', "at byte"),
    "number_after_bracket": ('{"x": [[1,2]3,[4,5]]}', "at byte"),
    "too_many_closers": ('{"x": [1]]}', "comma"),
    "goes_on": ('{"x": [1]} {}', "goes on"),
    "leading_zero": ('{"x": [01]}', "at byte"),
    "plus_sign": ('{"x": [+1]}', "at byte"),
    "bare_dot": ('{"x": [.5]}', "at byte"),
    "dot_without_digits": ('{"x": [5.]}', "at byte"),
    "hexadecimal": ('{"x": [0x10]}', "at byte"),
    "comment": ('{"x": [1] /* one */}', "comma"),
    "single_quotes": ("{'x': [1]}", "name"),
    "nan_token": ('{"x": [NaN]}', "NaN is not JSON"),
    "infinity_token": ('{"x": [Infinity]}', "Infinity is not JSON"),
    "minus_infinity_token": ('{"x": [-Infinity]}', "-Infinity is not JSON"),
    "nan_token_as_field": ('{"kernel_size": NaN}', "NaN is not JSON"),
    "bad_word": ('{"x": [nul]}', "at byte"),
    "word": ("nope", "at byte"),
    "control_character_in_a_name": ('{"a\tb": 1}', "ontrol character"),
    "control_character_in_base64": (BASE64 % ("[1]", "AAA\nAA=="), "control character"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_not_json_is_unreadable(name):
    text, fragment = UNREADABLE[name]
    with pytest.raises(Problem) as caught:
        decode(text.encode())
    assert caught.value.status == 400
    assert fragment in caught.value.detail


@pytest.mark.parametrize(
    "body",
    [b'{"x": [1], "\xff": 1}', b'{"layout": "\xc3\x28"}', b'{"layout": "\xed\xa0\x80"}', b"\xff"],
    ids=["name", "field", "surrogate", "all"],
)
def test_what_is_not_utf8_is_unreadable(body):
    with pytest.raises(Problem, match="UTF-8") as caught:
        decode(body)
    assert caught.value.status == 400


def test_a_byte_order_mark_is_refused():
    with pytest.raises(Problem, match="byte order mark") as caught:
        decode(b'\xef\xbb\xbf{"x": [1]}')
    assert caught.value.status == 400


REFUSED = {
    "body_is_a_list": ("[1]", "", "object is needed"),
    "body_is_a_number": ("3", "", "object is needed"),
    "body_is_a_string": ('"x"', "", "object is needed"),
    "body_is_nested_lists": ("[" * 100_000, "", "object is needed"),
    "boolean": ('{"x": [1, true]}', "/x/1", "true is no number"),
    "all_booleans": ('{"x": [[true, false]]}', "/x/0/0", "true is no number"),
    "null": ('{"x": [[1], [null]]}', "/x/1/0", "null is no number"),
    "numeric_string": ('{"x": [1, "2"]}', "/x/1", "is no number"),
    "other_nan": ('{"x": ["nan"]}', "/x/0", "is no number"),
    "empty_string": ('{"x": [""]}', "/x/0", "is no number"),
    "string_with_brackets": ('{"x": [["]", 1], [2, 3]]}', "/x/0/0", "is no number"),
    "string_with_quotes": ('{"x": ["\\"NaN\\""]}', "/x/0", "is no number"),
    "object_in_list": ('{"x": [{}]}', "/x", "object"),
    "object_of_names_in_list": (
        '{"x": [[[1]], [{"NaN": [2]}]]}',
        "/x",
        "object",
    ),
    "object_in_data": (FLAT % ("[1]", '[{"NaN": 1}]'), "/x/data", "object"),
    "scalar": ('{"x": 3}', "/x", "nested list"),
    "null_array": ('{"x": null}', "/x", "nested list"),
    "string_array": ('{"x": "AAAA"}', "/x", "nested list"),
    "ragged": ('{"x": [[1, 2], [3]]}', "/x/1", "ragged: x[1] has length 1, and a list before it 2"),
    "ragged_depth_at_the_end": ('{"x": [[1], 2]}', "/x/1", "x[1] is nested less deeply"),
    "ragged_depth_at_the_start": ('{"x": [1, [2]]}', "/x/1", "x[1] is nested more deeply"),
    "ragged_deeper_later": ('{"x": [[1], [[2]]]}', "/x/1/0", "x[1][0] is nested more deeply"),
    "ragged_outer": ('{"x": [[[1], [2]], [[3]]]}', "/x/1", "x[1] has length 1"),
    "ragged_with_an_empty_list": ('{"x": [[1], []]}', "/x/1", "x[1] has length 0"),
    "ragged_with_an_empty_list_too_high": (
        '{"x": [[[1]], []]}',
        "/x/1",
        "x[1] is nested less deeply",
    ),
    "ragged_with_an_empty_list_too_deep": (
        '{"x": [[1], [[]]]}',
        "/x/1/0",
        "x[1][0] is nested more deeply",
    ),
    "ragged_in_the_middle": (
        '{"x": [[[1, 2], [3, 4]], [[5, 6], [7]], [[8]]]}',
        "/x/1/1",
        "x[1][1] has length 1",
    ),
    "ragged_and_wrong": ('{"x": [[1, 2], [3], [true]]}', "/x/1", "x[1] has length 1"),
    "wrong_and_ragged": ('{"x": [[1, true], [3]]}', "/x/0/1", "true is no number"),
    "empty_list": ('{"x": []}', "/x", "without elements"),
    "empty_lists": ('{"x": [[], []]}', "/x", "without elements"),
    "too_deep_list": ('{"x": ' + "[" * 8 + "1" + "]" * 8 + "}", "/x", "max_depth"),
    "very_deep_list": ('{"x": ' + "[" * 1_000_000, "/x", "max_depth"),
    "very_deep_list_later": ('{"x": [1, ' + "[" * 1_000_000, "/x", "max_depth"),
    "very_deep_data": (FLAT % ("[1]", "[" * 100_000), "/x/data", "max_depth"),
    "very_deep_shape": (FLAT % ("[" * 100_000, "[1]"), "/x/shape" + "/0" * 6, "max_depth"),
    "very_deep_field": ('{"padding": ' + "[" * 100_000, "/padding" + "/0" * 7, "max_depth"),
    "very_deep_object": ('{"padding": ' + '{"a":' * 100_000, "/padding" + "/a" * 7, "max_depth"),
    "long_field": ('{"padding": [1' + ",1" * 9000 + "]}", "/padding", "16384"),
    "long_string_field": ('{"layout": "%s"}' % ("a" * 20_000), "/layout", "16384"),
    "long_name": ('{"%s": 1}' % ("a" * 20_000), "", "16384"),
    "long_number_field": ('{"kernel_size": %s}' % ("1" * 9000), "/kernel_size", "1000"),
    "twice": ('{"x": [1], "x": [1]}', "/x", "more than once"),
    "twice_by_escape": ('{"x": [1], "\\u0078": [1]}', "/x", "more than once"),
    "twice_in_an_array": (
        '{"x": {"shape": [1], "shape": [1], "dtype": "float32", "data": [1]}}',
        "/x/shape",
        "more than once",
    ),
    "twice_in_a_field": ('{"padding": [{"a": 1, "a": 1}]}', "/padding/0/a", "more than once"),
    "data_and_base64": (
        '{"x": {"shape": [1], "dtype": "float32", "data": [1], "base64": "AACAPw=="}}',
        "/x/base64",
        "exclude",
    ),
    "unknown_member_of_an_array": ('{"x": {"shape": [1], "order": "C"}}', "/x/order", "unknown"),
    "no_shape": ('{"x": {"dtype": "float32", "data": [1]}}', "/x", "shape is missing"),
    "no_dtype": ('{"x": {"shape": [1], "data": [1]}}', "/x", "dtype is missing"),
    "no_data": ('{"x": {"shape": [1], "dtype": "float32"}}', "/x", "data or base64"),
    "shape_is_a_number": (FLAT % ("4", "[1]"), "/x/shape", "list of integers"),
    "shape_of_floats": (FLAT % ("[1.0]", "[1]"), "/x/shape", "list of integers"),
    "shape_of_booleans": (FLAT % ("[true]", "[1]"), "/x/shape", "list of integers"),
    "negative_shape": (FLAT % ("[-1, -1]", "[1]"), "/x/shape", "at least 0"),
    "shape_of_many_axes": (FLAT % ([1] * 9, "[1]"), "/x/shape", "max_depth"),
    "shape_beyond_memory": (FLAT % ([2**40, 2**40], "[]"), "/x/shape", "max_elements"),
    "shape_beyond_digits": (FLAT % ([10**500], "[]"), "/x/shape", "max_elements"),
    "empty_shape_beyond_memory": (FLAT % ([0, 2**62], "[]"), "/x/shape", "too large"),
    "data_too_short": (FLAT % ([3], "[1, 2]"), "/x/data", "2 numbers"),
    "data_too_long": (FLAT % ([1], "[1, 2]"), "/x/data", "2 numbers"),
    "data_missing": (FLAT % ([1], "[ ]"), "/x/data", "0 numbers"),
    "data_for_no_elements": (FLAT % ([0], "[1]"), "/x/data", "1 numbers"),
    "nested_data": (FLAT % ([2], "[[1, 2]]"), "/x/data", "flat"),
    "data_is_a_string": (FLAT % ([1], '"1"'), "/x/data", "list of numbers"),
    "boolean_in_data": (FLAT % ([2], "[1, false]"), "/x/data/1", "false is no number"),
    "dtype_of_integers": (
        '{"x": {"shape": [1], "dtype": "int32", "data": [1]}}',
        "/x/dtype",
        "float32, float64",
    ),
    "dtype_is_a_number": (
        '{"x": {"shape": [1], "dtype": 32, "data": [1]}}',
        "/x/dtype",
        "float32, float64",
    ),
    "unknown_dtype": ('{"x": [1], "dtype": "float16"}', "/dtype", "float32, float64"),
    "null_dtype": ('{"x": [1], "dtype": null}', "/dtype", "float32, float64"),
    "contradicting_dtype": (
        '{"dtype": "float64", "x": {"shape": [1], "dtype": "float32", "data": [1]}}',
        "/x/dtype",
        "contradicts",
    ),
    "above_float32": ('{"x": [[0], [1e39]]}', "/x/1/0", "range of float32"),
    "below_float32": ('{"x": [-3.4028236e38]}', "/x/0", "range of float32"),
    "just_above_float32": ('{"x": [3.4028235677973367e38]}', "/x/0", "range of float32"),
    "above_float64": ('{"dtype": "float64", "x": [1e400]}', "/x/0", "range of float64"),
    "integer_above_float32": ('{"x": [%s]}' % ("9" * 400), "/x/0", "range of float32"),
    "bomb_of_digits": ('{"x": [%s]}' % ("9" * 10_000_000), "/x/0", "8192 characters"),
    "bomb_of_digits_later": ('{"x": [1, 2, %s]}' % ("9" * 10_000_000), "/x/2", "8192 characters"),
    "small_bomb_of_digits": ('{"x": [%s]}' % ("9" * 50_000), "/x/0", "8192 characters"),
    "base64_is_a_list": (
        '{"x": {"shape": [1], "dtype": "float32", "base64": [1]}}',
        "/x/base64",
        "string",
    ),
    "base64_too_short": (BASE64 % ([2], "AACAPw=="), "/x/base64", "8 bytes"),
    "base64_too_long": (BASE64 % ([1], "AACAPwAAgD8="), "/x/base64", "4 bytes"),
    "base64_without_padding": (BASE64 % ([1], "AACAPw"), "/x/base64", "which take 8"),
    "base64_not_canonical": (BASE64 % ([1], "AACAPx=="), "/x/base64", "unused"),
    "base64_foreign_character": (BASE64 % ([1], "AACA-w=="), "/x/base64", "base64"),
    "base64_url_alphabet": (BASE64 % ([1], "__-_-w=="), "/x/base64", "base64"),
    "base64_with_space": (BASE64 % ([1], "AACA Pw="), "/x/base64", "base64"),
    "base64_padding_inside": (BASE64 % ([3], "AACAPw==AACAPw=="), "/x/base64", "base64"),
    "base64_all_padding": (BASE64 % ([1], "========"), "/x/base64", "base64"),
    "base64_with_a_quote": (BASE64 % ([1], 'AACAP\\"=='), "/x/base64", "base64"),
    "base64_not_ascii": (BASE64 % ([1], "AACAPä="), "/x/base64", "base64"),
    "argmax_of_floats": ('{"argmax": [1.0]}', "/argmax/0", "no integer"),
    "argmax_of_booleans": ('{"argmax": [0, true]}', "/argmax/1", "no integer"),
    "argmax_of_names": ('{"argmax": ["NaN"]}', "/argmax/0", "no integer"),
    "argmax_beyond_int64": ('{"argmax": [9223372036854775808]}', "/argmax/0", "int64"),
    "argmax_dtype": (
        '{"argmax": {"shape": [1], "dtype": "int64", "data": [1]}}',
        "/argmax/dtype",
        "uint8, int32",
    ),
    "argmax_beyond_uint8": (
        '{"argmax": {"shape": [2], "dtype": "uint8", "data": [1, 256]}}',
        "/argmax/data/1",
        "range of uint8",
    ),
    "negative_argmax": (
        '{"argmax": {"shape": [1], "dtype": "uint8", "data": [-1]}}',
        "/argmax/data/0",
        "range of uint8",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    text, pointer, fragment = REFUSED[name]
    with pytest.raises(Problem) as caught:
        decode(text.encode())
    problem = caught.value
    assert problem.status == 422, problem.detail
    assert fragment in problem.detail
    assert [where for where, _ in problem.errors] == [pointer]
    assert len(problem.detail) < 400
    assert problem.detail.isprintable()


@pytest.mark.parametrize(
    "body",
    [
        {"x": [[1, 2], [3, 4]]},
        {"x": {"shape": [4], "dtype": "float32", "data": [1, 2, 3, 4]}},
        {"x": {"shape": [4], "dtype": "float32", "base64": "AAAAAAAAAAAAAAAAAAAAAA=="}},
        {"x": [1, 2], "dy": [3, 4]},
    ],
    ids=["nested", "flat", "base64", "two_arrays"],
)
def test_elements_are_counted_over_all_arrays(body):
    decode(body, max_elements=4)
    with pytest.raises(Problem, match="4 is above the limit of 3") as caught:
        decode(body, max_elements=3)
    assert caught.value.members["limit"] == {"setting": "max_elements", "value": 3}


def test_a_ragged_list_of_many_pieces_is_told_from_a_broken_one():
    rows = [[1, 2, 3]] * 100_000
    with pytest.raises(
        Problem, match=r"x\[100000\] has length 2, and a list before it 3"
    ) as caught:
        decode({"x": [*rows, [1, 2]]})
    assert caught.value.status == 422
    text = json.dumps({"x": [*rows, [1, 2]]}).replace("[1, 2]]", "[1 2]]")
    with pytest.raises(Problem) as caught:
        decode(text.encode())
    assert caught.value.status == 400


def test_what_is_quoted_is_short_and_printable():
    for text in (
        '{"x": ["\\u0000\\u001b[31m%s"]}' % ("a" * 5000),
        '{"x": {"shape": ["%s"], "dtype": "float32", "data": []}}' % ("\\u0007" * 200),
        '{"%s": 1, "%s": 1}' % (("\\u001b" * 60,) * 2),
    ):
        with pytest.raises(Problem) as caught:
            decode(text.encode())
        assert caught.value.detail.isprintable()
        assert len(caught.value.detail) < 300
        assert all(len(pointer) < 100 for pointer, _ in caught.value.errors)


@given(st.binary(max_size=60) | st.text('[]{}:,"x10.e- NaInfity\\', max_size=40).map(str.encode))
@settings(max_examples=400)
def test_no_text_raises_anything_but_a_problem(text):
    for body in (text, b'{"x":' + text, b'{"x":' + text + b"}", b'{"x":[' + text + b"]}"):
        with contextlib.suppress(Problem):
            decode(body)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.integers()
        | st.text(max_size=4),
        lambda inner: st.lists(inner, max_size=4),
        max_leaves=12,
    )
)
@settings(max_examples=400)
def test_lists_are_accepted_exactly_where_numpy_would_make_an_array_of_numbers(value):
    """The reference: a plain walk over what the standard parser returns."""

    def shape(item):
        if isinstance(item, list):
            shapes = {shape(part) for part in item}
            if len(shapes) != 1 or None in shapes:
                return None
            return (len(item), *shapes.pop())
        if item in ("NaN", "Infinity", "-Infinity") and isinstance(item, str):
            return ()
        if type(item) not in (int, float) or abs(item) > 1.7976931348623157e308:
            return None
        return ()

    if not isinstance(value, list):
        return
    expected = shape(value)
    body = json.dumps({"dtype": "float64", "x": value}).encode()
    if expected is None or len(expected) > 7:
        with pytest.raises(Problem) as caught:
            decode(body)
        assert caught.value.status == 422
    else:
        found = decode(body)[1]["x"].array
        assert found.shape == expected
        assert same_bits(found, np.array(value, np.float64))
