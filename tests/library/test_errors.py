"""Every input that has brought a pooling library down is refused here, by name, beforehand."""

import importlib
import itertools
import re
import time
import tracemalloc
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import poolgrad as pg
import reference
from compare import assert_same_bits
from strategies import max_cases

SHAPE = (1, 6, 5, 2)
X = np.arange(60, dtype="float32").reshape(SHAPE)
DY = np.ones((1, 3, 2, 2), "float32")

ENTRIES = {
    "max_pool": lambda kernel_size, **o: pg.max_pool(X, kernel_size, **o),
    "avg_pool": lambda kernel_size, **o: pg.avg_pool(X, kernel_size, **o),
    "max_pool_backward": lambda kernel_size, **o: pg.max_pool_backward(DY, X, kernel_size, **o),
    "avg_pool_backward": lambda kernel_size, **o: pg.avg_pool_backward(DY, X, kernel_size, **o),
    "avg_pool_backward_of_shape": lambda kernel_size, **o: pg.avg_pool_backward(
        DY, SHAPE, kernel_size, **o
    ),
    "max_plan": lambda kernel_size, **o: pg.plan("max_pool", SHAPE, kernel_size=kernel_size, **o),
    "avg_plan": lambda kernel_size, **o: pg.plan("avg_pool", SHAPE, kernel_size=kernel_size, **o),
}
AVG_ENTRIES = [name for name in ENTRIES if name.startswith("avg")]


def refused(error, call, *patterns):
    """Call, expect that error, and check its message's content and hygiene."""
    with pytest.raises(error) as caught:
        call()
    # Not a subclass by accident: the class tells the caller what to look at.
    assert type(caught.value) is error
    message = str(caught.value)
    for pattern in patterns:
        assert re.search(pattern, message), (pattern, message)
    assert message.isprintable()
    assert message.encode()
    assert len(message) < 500
    return message


class NamelessInt:
    """Looks like an integer, and cannot even be shown."""

    def __index__(self):
        raise RuntimeError("no index")

    def __repr__(self):
        raise RuntimeError("no repr")


class Nameless:
    def __repr__(self):
        raise RuntimeError("no repr")

    def __eq__(self, other):
        raise RuntimeError("no equality")

    __hash__ = None


def deep_tuple():
    nested = ()
    for _ in range(100_000):
        nested = (nested,)
    return nested


def self_holding_list():
    loop = [1]
    loop[0] = loop
    return loop


# What no integer hyperparameter takes, with what the message must show of it.
NO_INTEGERS = {
    "true": (True, "True"),
    "false": (False, "False"),
    "numpy_true": (np.True_, "True"),
    "float": (2.0, r"2\.0"),
    "numpy_float": (np.float32(2), r"2\.0"),
    "nan": (float("nan"), "nan"),
    "string": ("2", "'2'"),
    "bytes": (b"2", "b'2'"),
    "complex": (2j, "2j"),
    "dict": ({2: 2}, r"\{2: 2\}"),
    "set": ({2}, r"\{2\}"),
    "type": (int, "int"),
    "matrix": (np.ones((2, 2), int), ""),
    "nothing_to_show": (Nameless(), "Nameless"),
    "empty_list": ([], r"\[\]|length 0"),
    "empty_tuple": ((), r"\(\)|length 0"),
    "three_of_two": ((2, 2, 2), r"\(2, 2, 2\)|length 3"),
    "one_of_two": ([2], r"\[2\]|length 1"),
    "list_of_itself": (self_holding_list(), ""),
    "deep_tuple": (deep_tuple(), ""),
    "many": ([2] * 10_000, "10000|length"),
    "huge": (10**400, "above"),
    "huger_than_text": (10**5000, "above"),
    "minus_huge": (-(10**400), "below"),
    "above_the_limit": (2**62 + 1, "4611686018427387905"),
    "uint64": (np.uint64(2**63), "9223372036854775808"),
}


@pytest.mark.parametrize("junk", NO_INTEGERS)
@pytest.mark.parametrize("argument", ["kernel_size", "stride", "dilation", "padding"])
@pytest.mark.parametrize("entry", ENTRIES)
def test_no_integers(entry, argument, junk):
    value, shown = NO_INTEGERS[junk]
    options = {"kernel_size": 2, argument: value}
    refused(pg.ParameterError, lambda: ENTRIES[entry](**options), rf"^{argument}\b", shown)


@pytest.mark.parametrize(
    "junk", [name for name in NO_INTEGERS if "of_two" not in name and "empty" not in name]
)
@pytest.mark.parametrize("entry", AVG_ENTRIES)
def test_no_divisors(entry, junk):
    value, shown = NO_INTEGERS[junk]
    if junk == "many":
        shown = ""
    call = partial(ENTRIES[entry], 2, divisor_override=value)
    refused(pg.ParameterError, call, r"^divisor_override\b", shown)


@pytest.mark.parametrize("value", [True, 2.0, "2", None, 10**400, 0, -1, [2], 2**62 + 1], ids=repr)
@pytest.mark.parametrize("argument", ["kernel_size", "stride", "dilation"])
@pytest.mark.parametrize("entry", ENTRIES)
def test_one_bad_axis_is_named(entry, argument, value):
    options = {"kernel_size": 2, argument: (2, value)}
    call = partial(ENTRIES[entry], **options)
    refused(pg.ParameterError, call, rf"^{argument}\b", r"\baxis 1\b")


@pytest.mark.parametrize("value", [0, -1, -(2**70), np.int64(-3)], ids=repr)
@pytest.mark.parametrize("argument", ["kernel_size", "stride", "dilation", "divisor_override"])
@pytest.mark.parametrize("entry", AVG_ENTRIES)
def test_below_one(entry, argument, value):
    options = {"kernel_size": 2, argument: value}
    call = partial(ENTRIES[entry], **options)
    refused(pg.ParameterError, call, rf"^{argument}\b", re.escape(str(value)), r"\b1\b")


BAD_PADDINGS = {
    "negative": (-1, ["-1", r"\b0\b"]),
    "negative_axis": ((0, -1), [r"\baxis 1\b", "-1"]),
    "negative_side": (((0, 0), (0, -1)), [r"\baxis 1\b", "-1"]),
    "triple": (((0, 0), (0, 0, 0)), [r"\baxis 1\b", r"\(0, 0, 0\)|length 3|\b3\b"]),
    "single": (((0,), (0, 0)), [r"\baxis 0\b"]),
    "empty_pair": (((), (0, 0)), [r"\baxis 0\b"]),
    "one_pair": (((0, 0),), []),
    "three_pairs": (((0, 0), (0, 0), (0, 0)), []),
    "true_side": (((True, 0), (0, 0)), [r"\baxis 0\b", "True"]),
    "float_side": (((0, 0), (0, 1.0)), [r"\baxis 1\b", r"1\.0"]),
    "string_side": (((0, 0), ("1", 0)), [r"\baxis 1\b", "'1'"]),
    "deeper": ((((0, 0), 0), (0, 0)), [r"\baxis 0\b"]),
    "huge_side": (((0, 10**400), (0, 0)), [r"\baxis 0\b"]),
    "upper_case": ("SAME", ["'SAME'", "'same'", "'same_lower'", "'same_size'", "'valid'"]),
    "unknown": ("full", ["'full'"]),
    "empty_name": ("", ["''"]),
    "none": (None, ["None"]),
    "named_axes": (("same", "same"), ["'same'"]),
}


@pytest.mark.parametrize("junk", BAD_PADDINGS)
@pytest.mark.parametrize("entry", ENTRIES)
def test_bad_padding(entry, junk):
    padding, shown = BAD_PADDINGS[junk]
    call = partial(ENTRIES[entry], 2, padding=padding)
    refused(pg.ParameterError, call, r"^padding\b", *shown)


NO_LAYOUTS = {
    "nhwc": "NHWC",
    "dash": "channels-last",
    "empty": "",
    "none": None,
    "int": 0,
    "bytes": b"channels_last",
    "list": ["channels_last"],
    "nameless": Nameless(),
}


@pytest.mark.parametrize("junk", NO_LAYOUTS)
@pytest.mark.parametrize("entry", ENTRIES)
def test_bad_layout(entry, junk):
    call = partial(ENTRIES[entry], 2, layout=NO_LAYOUTS[junk])
    refused(pg.ParameterError, call, r"^layout\b", "channels_last.*channels_first")


@pytest.mark.parametrize("value", ["yes", None, 2, 1.0, [True], np.array([True])], ids=repr)
@pytest.mark.parametrize("argument", ["ceil_mode", "count_include_pad"])
@pytest.mark.parametrize("entry", AVG_ENTRIES)
def test_bad_switches(entry, argument, value):
    call = partial(ENTRIES[entry], 2, **{argument: value})
    refused(pg.ParameterError, call, rf"^{argument}\b")


@pytest.mark.parametrize("padding", ["same", "same_lower", "same_size", "valid"])
@pytest.mark.parametrize("entry", ENTRIES)
def test_ceil_mode_with_a_named_padding(entry, padding):
    call = partial(ENTRIES[entry], 2, padding=padding, ceil_mode=True)
    refused(pg.ParameterError, call, "ceil_mode", "padding", padding)


@pytest.mark.parametrize(
    ("options", "patterns"),
    [
        ({"kernel_size": 7}, [r"\baxis 0\b", r"\b7\b", r"\b6\b"]),
        ({"kernel_size": (2, 6)}, [r"\baxis 1\b", r"\b6\b", r"\b5\b"]),
        ({"kernel_size": (2, 3), "dilation": (1, 3)}, [r"\baxis 1\b", r"\b7\b", r"\b5\b"]),
        ({"kernel_size": 8, "padding": ((1, 0), (2, 2))}, [r"\baxis 0\b", r"\b8\b"]),
        ({"kernel_size": 8, "stride": 2, "ceil_mode": True, "padding": (0, 9)}, [r"\baxis 0\b"]),
        ({"kernel_size": 2**61}, [r"\baxis 0\b", str(2**61)]),
        ({"kernel_size": 2, "dilation": 2**61 - 1}, [r"\baxis 0\b"]),
        ({"kernel_size": 7, "padding": "valid"}, [r"\baxis 0\b"]),
    ],
)
@pytest.mark.parametrize("entry", ENTRIES)
def test_a_window_that_does_not_fit(entry, options, patterns):
    refused(pg.ShapeError, lambda: ENTRIES[entry](**options), "kernel_size", *patterns)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 2**61, "dilation": 2**61},
        {"kernel_size": 2**40, "dilation": 2**40, "padding": 2**60},
        {"kernel_size": 2**32, "dilation": 2**32, "padding": "same"},
        {"kernel_size": 2, "stride": 2**61, "padding": "same_size"},
        {"kernel_size": 1, "stride": 1, "padding": 2**61},
        {"kernel_size": 1, "stride": 1, "padding": 2**40},
        {"kernel_size": 1, "stride": 1, "padding": (2**31, 2**31)},
    ],
    ids=["span", "span_with_pad", "span_same", "stride_same_size", "pad", "output", "output_32"],
)
@pytest.mark.parametrize("entry", ENTRIES)
def test_overflowing_products(entry, options):
    start = time.perf_counter()
    with pytest.raises(pg.PoolgradError, match=r"above|exceeds|too"):
        ENTRIES[entry](**options)
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize("op", ["max_pool", "avg_pool"])
@pytest.mark.parametrize("shape", [(), (4,), (4, 4), (1,) * 6, (1,) * 30], ids=len)
def test_ranks(op, shape):
    x = np.zeros(shape, "float32")
    ranks = rf"\b{len(shape)} axes|{re.escape(str(shape))}" if len(shape) < 9 else ""
    refused(pg.ShapeError, lambda: getattr(pg, op)(x, 1), r"^x\b", ranks)
    backward = getattr(pg, f"{op}_backward")
    refused(pg.ShapeError, lambda: backward(x, x, 1))
    refused(pg.ShapeError, lambda: pg.plan(op, shape, kernel_size=1), r"^shape\b")


@pytest.mark.parametrize("op", ["max_pool", "avg_pool"])
@pytest.mark.parametrize(
    ("shape", "layout", "axis"),
    [
        ((1, 0, 4, 1), "channels_last", 0),
        ((1, 4, 0, 1), "channels_last", 1),
        ((0, 4, 0, 0), "channels_last", 1),
        ((1, 1, 0, 4), "channels_first", 0),
        ((1, 0, 4, 0), "channels_first", 1),
    ],
)
@pytest.mark.parametrize("padding", [0, 3, "same", "same_size"])
def test_spatial_sizes_of_zero(op, shape, layout, axis, padding):
    x = np.zeros(shape, "float32")
    options = {"layout": layout, "padding": padding}
    patterns = rf"\baxis {axis}\b", r"\b0\b"
    refused(pg.ShapeError, lambda: getattr(pg, op)(x, 1, **options), *patterns)
    backward = getattr(pg, f"{op}_backward")
    refused(pg.ShapeError, lambda: backward(x, x, 1, **options), *patterns)
    refused(pg.ShapeError, lambda: pg.plan(op, shape, kernel_size=1, **options), *patterns)


BAD_SHAPES = {
    "negative": ((1, -6, 5, 2), [r"\baxis 1\b", "-6"]),
    "negative_batch": ((-1, 6, 5, 2), [r"\baxis 0\b", "-1"]),
    "bool": ((1, True, 5, 2), [r"\baxis 1\b", "True"]),
    "float": ((1, 6.0, 5, 2), [r"\baxis 1\b", r"6\.0"]),
    "string": ((1, "6", 5, 2), [r"\baxis 1\b", "'6'"]),
    "none": ((1, None, 5, 2), [r"\baxis 1\b", "None"]),
    "huge": ((1, 10**400, 5, 2), [r"\baxis 1\b"]),
    "product": ((2**31, 2**31, 2**31, 2), []),
    "zero_beside_huge": ((0, 2**62 + 1, 5, 2), [r"\baxis 1\b"]),
    "text": ("1652", []),
    "number": (60, []),
    "nothing": (None, []),
    "dict": ({1: 1, 2: 2, 3: 3}, []),
    "deep": ((deep_tuple(), 6, 5, 2), [r"\baxis 0\b"]),
    "many": ((1,) * 100_000, []),
}


@pytest.mark.parametrize("op", ["max_pool", "avg_pool"])
@pytest.mark.parametrize("junk", BAD_SHAPES)
def test_bad_shapes_of_plans(op, junk):
    shape, shown = BAD_SHAPES[junk]
    refused(pg.ShapeError, lambda: pg.plan(op, shape, kernel_size=2), *shown)


@pytest.mark.parametrize("junk", BAD_SHAPES)
def test_bad_shapes_of_gradients(junk):
    shape, _ = BAD_SHAPES[junk]
    argmax = np.zeros(DY.shape, np.uint8)
    calls = [
        lambda: pg.avg_pool_backward(DY, shape, 2),
        lambda: pg.max_pool_backward(DY, shape, 2, argmax=argmax),
    ]
    for call in calls:
        with pytest.raises((pg.ShapeError, pg.DtypeError)):
            call()


NO_OPERATIONS = {
    "run_together": "maxpool",
    "upper_case": "MAX_POOL",
    "empty": "",
    "none": None,
    "int": 3,
    "list": ["max_pool"],
    "bytes": b"max_pool",
    "nameless": Nameless(),
}


@pytest.mark.parametrize("junk", NO_OPERATIONS)
def test_unknown_operations(junk):
    call = partial(pg.plan, NO_OPERATIONS[junk], SHAPE, kernel_size=2)
    refused(pg.ParameterError, call, r"^op\b", "max_pool")


@pytest.mark.parametrize("name", ["count_include_pad", "divisor_override"])
def test_a_maximum_has_no_divisor(name):
    call = partial(pg.plan, "max_pool", SHAPE, kernel_size=2, **{name: 1})
    refused(pg.ParameterError, call, name, "max_pool")


def test_an_unknown_hyperparameter_of_a_plan():
    call = partial(pg.plan, "max_pool", SHAPE, kernel_size=2, strides=1)
    refused(pg.ParameterError, call, "strides")


def test_a_plan_without_a_kernel():
    refused(pg.ParameterError, lambda: pg.plan("max_pool", SHAPE), "kernel_size")


# ------------------------------------------------------------------------- text in messages

NASTY = {
    "surrogate": "\ud800",
    "newline": "same\nERROR: forged",
    "escape": "\x1b[31msame\x1b[0m",
    "nul": "same\0",
    "right_to_left": "\u202eemas",
    "long": "x" * 100_000,
    "long_surrogates": "\udcff" * 10_000,
    "long_newlines": "\n" * 10_000,
}


@pytest.mark.parametrize("nasty", NASTY)
@pytest.mark.parametrize("argument", ["padding", "layout", "kernel_size", "stride", "ceil_mode"])
@pytest.mark.parametrize("entry", ENTRIES)
def test_nasty_text_is_escaped_and_cut(entry, argument, nasty):
    options = {"kernel_size": 2, argument: NASTY[nasty]}
    message = refused(pg.ParameterError, lambda: ENTRIES[entry](**options), rf"^{argument}\b")
    assert "x" * 81 not in message


@pytest.mark.parametrize("nasty", NASTY)
def test_nasty_text_elsewhere(nasty):
    text = NASTY[nasty]
    refused(pg.ParameterError, lambda: pg.plan(text, SHAPE, kernel_size=2), r"^op\b")
    refused(pg.DtypeError, lambda: pg.plan("max_pool", SHAPE, text, kernel_size=2), r"^dtype\b")
    refused(pg.DtypeError, lambda: pg.max_pool(text, 2), r"^x\b")
    refused(pg.ParameterError, lambda: pg.plan("max_pool", SHAPE, kernel_size=2, **{text: 1}))
    refused(pg.ParameterError, lambda: pg.Pool2D(2, mode=text), r"^mode\b")
    refused(pg.ParameterError, lambda: pg.Pool2D(2, pad=text), r"^pad\b")
    refused(pg.ParameterError, lambda: pg.set_num_threads(text), r"^num_threads\b")
    _, argmax = pg.max_pool(X, 2, return_argmax=True)
    plan = pg.plan("max_pool", SHAPE, kernel_size=2)
    refused(pg.ParameterError, lambda: pg.argmax_to_indices(argmax, plan, base=text), r"^base\b")


def test_an_index_that_raises_is_the_callers_error():
    # The library cannot know what such an error means, so it may pass it on, but nothing else.
    with pytest.raises((RuntimeError, pg.ParameterError)):
        pg.max_pool(X, NamelessInt())


# ------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("op", ["max_pool", "avg_pool"])
@pytest.mark.parametrize(
    "shape",
    [(1, 3, 3, 2), (1, 2, 2, 2), (2, 3, 2, 2), (1, 3, 2, 1), (1, 5, 5, 2), (0, 3, 2, 2), (1, 6, 2)],
)
def test_a_gradient_of_another_shape(op, shape):
    dy = np.ones(shape, "float32")
    backward = getattr(pg, f"{op}_backward")
    plan = pg.plan(op, SHAPE, kernel_size=2)
    patterns = r"^dy\b", re.escape(str(shape)), re.escape("(1, 3, 2, 2)")
    refused(pg.ShapeError, lambda: backward(dy, X, 2), *patterns)
    refused(pg.ShapeError, lambda: plan.backward(dy, X), *patterns)


@pytest.mark.parametrize("op", ["max_pool", "avg_pool"])
def test_a_plan_refuses_other_inputs(op):
    plan = pg.plan(op, SHAPE, kernel_size=2)
    patterns = r"^x\b", re.escape("(1, 5, 6, 2)"), re.escape(str(SHAPE))
    other = X.reshape(1, 5, 6, 2)
    refused(pg.ShapeError, lambda: plan.forward(other), *patterns)
    refused(pg.ShapeError, lambda: plan.backward(DY, other), *patterns)
    refused(pg.DtypeError, lambda: plan.forward(X.astype("float64")), r"^x\b", "float64.*float32")
    refused(pg.DtypeError, lambda: plan.backward(DY.astype("float64"), X), r"^dy\b")


def test_a_maximums_gradient_needs_x_or_its_argmax():
    plan = pg.plan("max_pool", SHAPE, kernel_size=2)
    refused(pg.ParameterError, lambda: pg.max_pool_backward(DY, SHAPE, 2), "argmax")
    refused(pg.ParameterError, lambda: plan.backward(DY), "argmax")


def test_an_average_has_no_argmax():
    plan = pg.plan("avg_pool", SHAPE, kernel_size=2)
    argmax = np.zeros(DY.shape, np.uint8)
    refused(pg.ParameterError, lambda: plan.forward(X, return_argmax=True), "argmax")
    refused(pg.ParameterError, lambda: plan.backward(DY, X, argmax=argmax), "argmax")
    refused(pg.ParameterError, lambda: pg.argmax_to_indices(argmax, plan), "argmax")


# A 3x3 window at stride 2 and one zero around a 4x4 input: the first window's first row and column
# of taps are clipped, the last window's are not.
FOREIGN_SHAPE, FOREIGN_OUT = (1, 4, 4, 1), (1, 2, 2, 1)
FOREIGN = {"stride": 2, "padding": 1}
CLIPPED = [0, 1, 2, 3, 6]


def foreign_calls(argmax, out):
    dy = np.ones(FOREIGN_OUT, "float32")
    plan = pg.plan("max_pool", FOREIGN_SHAPE, kernel_size=3, **FOREIGN)
    return {
        "function": lambda: pg.max_pool_backward(
            dy, FOREIGN_SHAPE, 3, argmax=argmax, out=out, **FOREIGN
        ),
        "with_x": lambda: pg.max_pool_backward(
            dy, np.zeros(FOREIGN_SHAPE, "float32"), 3, argmax=argmax, out=out, **FOREIGN
        ),
        "plan": lambda: plan.backward(dy, argmax=argmax, out=out),
        "indices": lambda: pg.argmax_to_indices(argmax, plan),
    }


CALLERS = ["function", "with_x", "plan", "indices"]


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("bad", [9, 10, 100, 254, *CLIPPED])
def test_a_foreign_argmax_is_refused_before_out_is_written(bad, caller):
    out = np.full(FOREIGN_SHAPE, 7, "float32")
    argmax = np.full(FOREIGN_OUT, 4, np.uint8)
    argmax[0, 0, 0, 0] = bad
    call = foreign_calls(argmax, out)[caller]
    refused(pg.ParameterError, call, r"^argmax\b", rf"\b{bad}\b", re.escape("(0, 0, 0, 0)"))
    assert (out == 7).all()


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("good", [4, 5, 7, 8, 255])
def test_what_a_window_can_name_is_taken(good, caller):
    argmax = np.full(FOREIGN_OUT, 4, np.uint8)
    argmax[0, 0, 0, 0] = good
    assert foreign_calls(argmax, None)[caller]() is not None


@pytest.mark.parametrize("caller", CALLERS)
def test_the_first_foreign_value_is_named(caller):
    argmax = np.full(FOREIGN_OUT, 4, np.uint8)
    argmax[0, 1, 0, 0], argmax[0, 1, 1, 0] = 77, 99
    call = foreign_calls(argmax, None)[caller]
    message = refused(pg.ParameterError, call, r"\b77\b", re.escape("(0, 1, 0, 0)"))
    assert "99" not in message


@pytest.mark.parametrize("bad", [-2, -(2**31), 256, 2**31 - 1, 0, 255])
def test_a_foreign_wide_argmax(bad):
    # 16x16 taps; one pixel of padding clips the first row and column, the input the last ones.
    options = {"stride": 1, "padding": ((1, 0), (1, 0))}
    argmax = np.full((1, 1, 1, 1), bad, np.int32)
    dy = np.ones((1, 1, 1, 1), "float32")
    out = np.full((1, 15, 15, 1), 7, "float32")
    if bad == 255:  # the last tap is real
        dx = pg.max_pool_backward(dy, out.shape, 16, argmax=argmax, **options)
        assert np.flatnonzero(dx).tolist() == [224]
        return
    call = partial(pg.max_pool_backward, dy, out.shape, 16, argmax=argmax, out=out, **options)
    refused(pg.ParameterError, call, r"^argmax\b", re.escape(str(bad)))
    assert (out == 7).all()


def test_a_foreign_value_far_into_an_argmax():
    shape = (3, 40, 41, 7)
    x = np.random.default_rng(0).standard_normal(shape).astype("float32")
    y, argmax = pg.max_pool(x, 3, stride=2, padding=1, return_argmax=True)
    argmax[2, 19, 20, 6] = 99
    out = np.full(shape, 7, "float32")
    call = partial(
        pg.max_pool_backward,
        y,
        shape,
        3,
        stride=2,
        padding=1,
        argmax=argmax,
        out=out,
        num_threads=2,
    )
    refused(pg.ParameterError, call, re.escape("(2, 19, 20, 6)"))
    assert (out == 7).all()


@given(case=max_cases(values=("ties",), empty=False), data=st.data())
def test_exactly_the_clipped_taps_are_refused(case, data):
    # One value of a good argmax is replaced by any tap of the box, of which the oracle knows
    # whether it lies inside the input.
    geo = case.geometry
    _, argmax = reference.max_pool(case.x, case.kernel_size, **case.options)
    output = data.draw(st.tuples(*(st.integers(0, n - 1) for n in geo.out)), label="output")
    position = data.draw(st.integers(0, geo.taps - 1), label="position")
    last = case.layout == "channels_last"
    where = (0, *output, 0) if last else (0, 0, *output)
    argmax[where] = position
    out = np.full(case.shape, 7, case.dtype)
    call = partial(
        pg.max_pool_backward,
        case.dy,
        case.shape,
        case.kernel_size,
        argmax=argmax,
        out=out,
        **case.options,
    )
    if geo.is_real(dict(geo.window(output))[position]):
        expected = reference.max_pool_backward(
            case.dy, argmax, case.shape, case.kernel_size, **case.options
        )
        assert_same_bits(call(), expected)
    else:
        refused(pg.ParameterError, call, r"^argmax\b", re.escape(str(where)))
        assert (out == 7).all()


# Planes of one channel are looked at in other ways: by bits, by a table, and by rows.
WAYS = {
    "bits": ((2, 3, 4, 5), 3, 1),
    "bits_of_a_volume": ((2, 3, 3, 4, 3), (3, 2, 3), (1, 0, 2)),
    "table": ((2, 3, 40, 40), 3, 1),
    "rows": ((2, 3, 8, 40), 7, 3),
}


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("way", WAYS)
def test_the_clipped_taps_of_many_planes_are_refused(way, num_threads, monkeypatch):
    monkeypatch.setattr(importlib.import_module("poolgrad.plan"), "STEPS_A_THREAD", 1)
    shape, kernel_size, padding = WAYS[way]
    options = {"stride": 1, "padding": padding, "layout": "channels_first"}
    geo = reference.geometry(shape, kernel_size, **options)
    plan = pg.plan("max_pool", shape, kernel_size=kernel_size, **options)
    good = plan.forward(np.zeros(shape, "float32"), return_argmax=True)[1]
    refusals = 0
    for output in itertools.product(*({0, 1, n // 2, n - 1} for n in geo.out)):
        taps = dict(geo.window(output))
        for position in range(geo.taps):
            argmax = good.copy()
            where = (1, 1, *output)
            argmax[where] = position
            if geo.is_real(taps[position]):
                plan.check_argmax(argmax, num_threads)
                continue
            refusals += 1
            with pytest.raises(pg.ParameterError, match=re.escape(str(where))):
                plan.check_argmax(argmax, num_threads)
    assert refusals


@pytest.mark.parametrize(
    ("layout", "where"), [("channels_last", (1, 2, 1, 4)), ("channels_first", (1, 4, 2, 1))]
)
def test_the_place_is_named_in_the_arrays_own_axes(layout, where):
    shape = (2, 6, 4, 5) if layout == "channels_last" else (2, 5, 6, 4)
    _, argmax = pg.max_pool(np.zeros(shape), 2, layout=layout, return_argmax=True)
    argmax[where] = 4
    dy = np.zeros(argmax.shape)
    call = partial(pg.max_pool_backward, dy, shape, 2, layout=layout, argmax=argmax)
    refused(pg.ParameterError, call, re.escape(str(where)))


NO_ARGMAXES = {
    "int64": (np.full(FOREIGN_OUT, 4, np.int64), pg.DtypeError),
    "int32": (np.full(FOREIGN_OUT, 4, np.int32), pg.DtypeError),
    "int8": (np.full(FOREIGN_OUT, 4, np.int8), pg.DtypeError),
    "float": (np.full(FOREIGN_OUT, 4, np.float32), pg.DtypeError),
    "rank": (np.full((1, 2, 2), 4, np.uint8), pg.ShapeError),
    "longer": (np.full((1, 2, 3, 1), 4, np.uint8), pg.ShapeError),
    "empty": (np.full((0, 2, 2, 1), 4, np.uint8), pg.ShapeError),
    "masked": (np.ma.masked_array(np.full(FOREIGN_OUT, 4, np.uint8)), pg.DtypeError),
    "list": ([[[[4], [4]], [[4], [4]]]], pg.DtypeError),
    "scalar": (4, pg.DtypeError),
    "text": ("4", pg.DtypeError),
}


@pytest.mark.parametrize("kind", NO_ARGMAXES)
@pytest.mark.parametrize("caller", CALLERS)
def test_an_argmax_of_another_kind(caller, kind):
    argmax, error = NO_ARGMAXES[kind]
    out = np.full(FOREIGN_SHAPE, 7, "float32")
    refused(error, foreign_calls(argmax, out)[caller], r"^argmax\b")
    assert (out == 7).all()


@pytest.mark.parametrize("kernel", [(2**31, 1), (2**16, 2**15)], ids=["one_axis", "two_axes"])
def test_windows_too_large_for_an_argmax(kernel):
    x = np.zeros((1, 4, 4, 1), "float32")
    padding = tuple((k // 2, k // 2) for k in kernel)
    options = {"stride": 2**31, "padding": padding}
    y = pg.max_pool(x, kernel, **options)
    calls = [
        lambda: pg.max_pool(x, kernel, return_argmax=True, **options),
        lambda: pg.max_pool_backward(y, x, kernel, **options),
        lambda: pg.max_pool_backward(
            y, x.shape, kernel, argmax=np.zeros(y.shape, np.int32), **options
        ),
    ]
    for call in calls:
        refused(pg.ParameterError, call, r"^kernel_size\b", str(2**31))


@pytest.mark.parametrize("plan", [None, "max_pool", 3, X], ids=["none", "text", "int", "array"])
def test_indices_need_a_plan(plan):
    argmax = np.zeros(DY.shape, np.uint8)
    refused(pg.ParameterError, lambda: pg.argmax_to_indices(argmax, plan), r"^plan\b")


@pytest.mark.parametrize("base", ["", "Plane", None, 0, []], ids=repr)
def test_unknown_bases(base):
    plan = pg.plan("max_pool", SHAPE, kernel_size=2)
    argmax = np.zeros(DY.shape, np.uint8)
    call = partial(pg.argmax_to_indices, argmax, plan, base=base)
    refused(pg.ParameterError, call, r"^base\b", "plane")


# ------------------------------------------------------------------------------ the family


@pytest.mark.parametrize(
    ("error", "builtin"),
    [(pg.ShapeError, ValueError), (pg.ParameterError, ValueError), (pg.DtypeError, TypeError)],
)
def test_the_family(error, builtin):
    assert issubclass(error, pg.PoolgradError)
    assert issubclass(error, builtin)


def test_a_refused_call_leaves_the_next_one_alone():
    expected = pg.max_pool(X, 2)
    with pytest.raises(pg.ParameterError):
        pg.max_pool(X, 0)
    assert_same_bits(pg.max_pool(X, 2), expected)


# -------------------------------------------------------------------------- large and quick


@pytest.mark.parametrize("op", ["max_pool", "avg_pool"])
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((1, 10**6, 10**6, 1), {"kernel_size": 3, "stride": 1, "padding": "same"}),
        ((1, 10**12, 1), {"kernel_size": 10**6, "stride": 1, "ceil_mode": True}),
        ((10**4, 10**4, 10**4, 1), {"kernel_size": (99, 101), "dilation": 3}),
        ((10**12, 4, 1), {"kernel_size": 2}),
        ((1, 10**4, 10**4, 10**4, 1), {"kernel_size": 10**4}),
    ],
)
def test_a_plan_of_a_trillion_elements_is_quick_and_small(op, shape, options):
    start = time.perf_counter()
    tracemalloc.start()
    try:
        plan = pg.plan(op, shape, **options)
        text = plan.explain()
        assert plan.output_bytes == 4 * np.prod(plan.output_shape, dtype=object)
        assert plan.workspace_bytes >= 0
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - start < 0.5
    assert peak < 1_000_000
    assert str(plan.output_shape) in text


@pytest.mark.parametrize("op", ["max_pool", "avg_pool"])
def test_an_empty_batch_of_large_images_is_quick(op):
    x = np.zeros((0, 2**20, 2**20, 3), "float32")
    start = time.perf_counter()
    y = getattr(pg, op)(x, 2)
    dx = getattr(pg, f"{op}_backward")(y, x, 2)
    assert time.perf_counter() - start < 0.5
    assert y.shape == (0, 2**19, 2**19, 3)
    assert dx.shape == x.shape


def test_memory_that_cannot_be_had_is_a_plain_memory_error():
    x = np.zeros((1, 4, 1), "float32")
    with pytest.raises((MemoryError, pg.PoolgradError)):
        pg.max_pool(x, 1, stride=1, padding=2**50)


# ------------------------------------------------------------------------------------ fuzz

INTEGERS = st.integers(-3, 12) | st.integers(-(2**70), 2**70)
SCALARS = st.none() | st.booleans() | INTEGERS | st.floats() | st.text(max_size=5) | st.binary()
NAMED = st.sampled_from(["same", "same_lower", "same_size", "valid", "channels_last"])
JUNK = st.recursive(
    SCALARS | NAMED, lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner)
)
KEYWORDS = ["stride", "padding", "dilation", "ceil_mode", "layout", "count_include_pad"]


def made_or_refused(*arguments, **options):
    """Return a plan, or None where it is refused properly; all else passes through and fails."""
    plan, message = None, ""
    try:
        plan = pg.plan(*arguments, **options)
    except pg.PoolgradError as error:
        message = str(error)
    assert message.isprintable()
    assert len(message) < 500
    return plan


@given(
    op=st.sampled_from(["max_pool", "avg_pool"]),
    kernel_size=INTEGERS | JUNK,
    options=st.dictionaries(st.sampled_from(KEYWORDS), INTEGERS | JUNK, max_size=3),
)
def test_junk_hyperparameters_are_refused(op, kernel_size, options):
    plan = made_or_refused(op, SHAPE, kernel_size=kernel_size, **options)
    if plan is not None:
        assert min(plan.output_shape) >= 1


@given(
    op=st.just("max_pool") | JUNK,
    shape=st.just(SHAPE) | JUNK | st.lists(INTEGERS, min_size=3, max_size=5),
    dtype=st.just("float32") | st.text(max_size=4) | JUNK,
)
def test_junk_operations_shapes_and_dtypes_are_refused(op, shape, dtype):
    plan = made_or_refused(op, shape, dtype, kernel_size=1)
    if plan is not None:
        assert op == plan.op
        assert plan.output_shape == tuple(shape)
        assert dtype is None or plan.dtype == dtype


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
def test_an_empty_argmax_costs_nothing(layout):
    """However many cells a shape has, none of them holds anything to look at without channels."""
    shape = (2**40, 1, 0) if layout == "channels_last" else (2**40, 0, 1)
    plan = pg.plan("max_pool", shape, kernel_size=1, layout=layout)
    empty = np.empty(plan.output_shape, np.uint8)
    dy = np.empty(plan.output_shape, np.float32)
    assert plan.check_argmax(empty) is empty
    assert plan.backward(dy, argmax=empty).shape == shape
    assert plan.backward(dy, np.empty(shape, np.float32)).shape == shape
    assert plan.forward(np.empty(shape, np.float32), return_argmax=True)[0].shape == shape
