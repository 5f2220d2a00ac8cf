"""A plan tells all about a pooling before there is data, never changes, and runs it."""

import dataclasses
import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import poolgrad as pg
import reference
from compare import assert_same_bits
from strategies import cases, fill


def plan_of(case):
    return pg.plan(case.op, case.shape, case.dtype, kernel_size=case.kernel_size, **case.options)


@given(case=cases())
def test_attributes_are_those_of_the_geometry(case):
    plan, geo = plan_of(case), case.geometry
    assert plan.output_shape == case.output_shape
    assert plan.dtype == case.dtype
    assert isinstance(plan.dtype, np.dtype)
    assert plan.kernel_size == geo.kernel
    assert plan.stride == tuple(axis.stride for axis in geo.axes)
    assert plan.dilation == tuple(axis.dilation for axis in geo.axes)
    assert plan.padding == geo.padding
    size = math.prod(case.output_shape)
    assert plan.output_bytes == size * np.dtype(case.dtype).itemsize
    assert plan.workspace_bytes >= 0
    numbers = (*plan.output_shape, *plan.kernel_size, *plan.stride, *plan.dilation)
    assert all(type(n) is int for n in (*numbers, *sum(plan.padding, ())))
    assert type(plan.output_bytes) is type(plan.workspace_bytes) is int


@given(case=cases(ops=("max_pool",)))
def test_argmax_dtype_is_the_compact_one(case):
    plan = plan_of(case)
    assert plan.argmax_dtype == reference.argmax_dtype(case.geometry.taps)
    _, argmax = plan.forward(case.x, return_argmax=True)
    assert argmax.dtype == plan.argmax_dtype


@pytest.mark.parametrize(
    ("kernel", "dtype"), [(255, np.uint8), (256, np.int32), (2**31 - 1, np.int32)]
)
def test_argmax_dtype_grows_with_the_kernel(kernel, dtype):
    plan = pg.plan("max_pool", (1, 2**31, 1), kernel_size=kernel)
    assert plan.argmax_dtype == dtype


def test_an_average_has_no_argmax_dtype():
    assert pg.plan("avg_pool", (1, 4, 1), kernel_size=2).argmax_dtype is None


@given(case=cases())
def test_a_plan_and_its_function_agree(case):
    plan = plan_of(case)
    y = plan.forward(case.x)
    assert_same_bits(y, getattr(pg, case.op)(case.x, case.kernel_size, **case.options))
    dx = plan.backward(case.dy, case.x)
    backward = getattr(pg, f"{case.op}_backward")
    assert_same_bits(dx, backward(case.dy, case.x, case.kernel_size, **case.options))


def test_a_plan_can_be_reused():
    plan = pg.plan("max_pool", (2, 7, 6, 3), "float64", kernel_size=3, stride=2, padding=1)
    for seed in range(3):
        x = fill("normal", (2, 7, 6, 3), "float64", seed)
        y, argmax = plan.forward(x, return_argmax=True)
        expected, winners = reference.max_pool(x, 3, stride=2, padding=1)
        assert_same_bits(y, expected)
        assert_same_bits(argmax, winners)
        assert_same_bits(plan.backward(y, argmax=argmax), plan.backward(y, x))


def test_an_average_plans_backward_needs_only_dy():
    plan = pg.plan("avg_pool", (1, 4, 1), kernel_size=2)
    dy = np.array([2.0, 4.0], "float32").reshape(1, 2, 1)
    assert plan.backward(dy).ravel().tolist() == [1, 1, 2, 2]


def test_the_default_dtype_is_float32():
    assert pg.plan("max_pool", (1, 4, 1), kernel_size=2).dtype == np.float32


MAGNITUDES = st.integers(1, 9) | st.integers(1, 2**20) | st.integers(1, 2**61)


@given(
    size=MAGNITUDES,
    kernel=MAGNITUDES,
    stride=MAGNITUDES,
    dilation=MAGNITUDES,
    padding=st.sampled_from(reference.NAMED_PADDINGS) | st.tuples(MAGNITUDES, MAGNITUDES),
    ceil_mode=st.booleans(),
)
def test_geometry_of_any_magnitude(size, kernel, stride, dilation, padding, ceil_mode):
    # Near the limits of 64 bits a plan is either refused or exactly that of Python's integers.
    options = {"stride": stride, "dilation": dilation}
    options["padding"] = padding if isinstance(padding, str) else (padding,)
    options["ceil_mode"] = ceil_mode and not isinstance(padding, str)
    geo = reference.geometry((1, size, 1), kernel, **options)
    try:
        plan = pg.plan("max_pool", (1, size, 1), kernel_size=kernel, **options)
    except pg.PoolgradError:
        (axis,) = geo.axes
        extent = dilation * (kernel - 1) + 1
        padded = size + axis.before + axis.after
        # Far below the limits only a window that does not fit may be refused.
        assert axis.out < 1 or 16 * max(size, extent, padded, axis.out) > 2**61
    else:
        assert plan.output_shape == (1, *geo.out, 1)
        assert plan.padding == geo.padding
        assert plan.output_bytes == 4 * geo.out[0]


ATTRIBUTES = [
    "output_shape",
    "dtype",
    "argmax_dtype",
    "kernel_size",
    "stride",
    "dilation",
    "padding",
    "output_bytes",
    "workspace_bytes",
]


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_plan_is_immutable(name):
    plan = pg.plan("max_pool", (1, 6, 4, 1), kernel_size=2)
    before = getattr(plan, name)
    with pytest.raises((AttributeError, dataclasses.FrozenInstanceError)):
        setattr(plan, name, before)
    with pytest.raises((AttributeError, dataclasses.FrozenInstanceError)):
        delattr(plan, name)
    assert getattr(plan, name) == before


def test_nothing_can_be_added_to_a_plan():
    plan = pg.plan("max_pool", (1, 6, 4, 1), kernel_size=2)
    with pytest.raises((AttributeError, dataclasses.FrozenInstanceError)):
        plan.note = 1


def test_equal_plans():
    first = pg.plan("avg_pool", (1, 6, 4, 1), "float32", kernel_size=2, padding=1)
    second = pg.plan(
        "avg_pool",
        [1, 6, 4, 1],
        np.float32,
        kernel_size=[2, 2],
        stride=(2, 2),
        padding=((1, 1), (1, 1)),
        dilation=1,
        ceil_mode=False,
        layout="channels_last",
        count_include_pad=True,
        divisor_override=None,
    )
    assert first == second
    assert hash(first) == hash(second)
    assert len({first, second}) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"op": "max_pool"},
        {"shape": (1, 6, 5, 1)},
        {"shape": (2, 6, 4, 1)},
        {"dtype": "float64"},
        {"kernel_size": (2, 1)},
        {"stride": 1},
        {"padding": 1},
        {"dilation": 2},
        {"layout": "channels_first", "shape": (1, 1, 6, 4)},
        {"count_include_pad": False},
        {"divisor_override": 4},
    ],
    ids=str,
)
def test_unequal_plans(change):
    arguments = {"op": "avg_pool", "shape": (1, 6, 4, 1), "dtype": "float32", "kernel_size": 2}
    plan, other = pg.plan(**arguments), pg.plan(**{**arguments, **change})
    assert plan != other
    assert plan not in [None, "avg_pool", arguments]


def test_spellings_that_are_equal_but_refused_stay_refused_after_a_good_one():
    # 1 == True == 1.0: a cache that looks values up by equality lets these through.
    pg.plan("max_pool", (1, 6, 4, 1), kernel_size=1, stride=1)
    for bad in (True, 1.0, np.float64(1)):
        with pytest.raises(pg.ParameterError, match=r"^kernel_size\b"):
            pg.plan("max_pool", (1, 6, 4, 1), kernel_size=bad, stride=1)
        with pytest.raises(pg.ParameterError, match=r"^stride\b"):
            pg.plan("max_pool", (1, 6, 4, 1), kernel_size=1, stride=bad)
    with pytest.raises(pg.ParameterError, match=r"^ceil_mode\b"):
        pg.plan("max_pool", (1, 6, 4, 1), kernel_size=1, stride=1, ceil_mode=0.0)


def test_repr_tells_what_it_is():
    plan = pg.plan("max_pool", (1, 6, 4, 3), kernel_size=(2, 3), padding=1)
    text = repr(plan)
    assert "max_pool" in text
    assert "(1, 6, 4, 3)" in text
    assert "float32" in text
    assert "\n" not in text


@given(case=cases())
def test_explain_tells_what_will_happen(case):
    plan = plan_of(case)
    text = plan.explain()
    assert case.op in text
    assert case.dtype in text
    assert str(case.shape) in text
    assert str(case.output_shape) in text
    assert str(plan.output_bytes) in text
    for before, after in case.geometry.padding:
        assert f"({before}, {after})" in text
    assert "\t" not in text
    assert text == plan.explain()


def test_explain_tells_the_divisors_rule():
    texts = {
        pg.plan("avg_pool", (1, 6, 1), kernel_size=3, padding=1, **options).explain()
        for options in ({}, {"count_include_pad": False}, {"divisor_override": 31})
    }
    assert len(texts) == 3
    assert sum("31" in text for text in texts) == 1


@pytest.mark.parametrize("op", ["max_pool", "avg_pool"])
def test_a_plan_survives_pickling(op):
    plan = pg.plan(op, (1, 6, 4, 3), kernel_size=2)
    x = fill("normal", (1, 6, 4, 3), "float32", 0)
    y = plan.forward(x)
    pickled = pickle.dumps(plan)
    assert b"poolgrad._" not in pickled  # a kernel, which another CPU may not be able to run
    copy = pickle.loads(pickled)
    assert copy == plan
    assert_same_bits(copy.forward(x), y)


@pytest.mark.parametrize("shape", [(1, 10**8, 1), (1, 10**7, 8), (1, 100, 10**6, 1)])
def test_long_rows_take_little_workspace(shape):
    made = pg.plan("max_pool", shape, kernel_size=9, stride=1, padding=4)
    assert made.workspace_bytes < 3 * 2**20


@pytest.mark.parametrize("channels", [16, 64, 256, 1024])
@pytest.mark.parametrize("op", ["max_pool", "avg_pool"])
@pytest.mark.parametrize("kernel_size", [5, 9, 16])
def test_overlapping_windows_take_less_than_a_mebibyte(kernel_size, op, channels):
    made = pg.plan(op, (1, 128, 128, channels), kernel_size=kernel_size, stride=1)
    for task in ("forward", "argmax") if op == "max_pool" else ("forward", "adjoint"):
        assert made._program(task).workspace_bytes < 2**20


def test_workspace_is_that_of_the_pass_that_needs_most():
    made = pg.plan(  # a forward that does planes together, while one with an argmax does not
        "max_pool",
        (1, 64, 30, 300),
        kernel_size=(15, 8),
        stride=1,
        padding=(7, 4),
        layout="channels_first",
    )
    assert made._program("forward").workspace_bytes > made._program("argmax").workspace_bytes
    for task in ("forward", "argmax", "windows", "search", "route"):
        assert made.workspace_bytes >= made._program(task).workspace_bytes


@pytest.mark.parametrize("shape", [(1, 2, 2048, 2048), (1, 30, 10**6, 3), (1, 10**5, 10**4, 1)])
def test_windows_that_share_no_cell_take_little_workspace(shape):
    made = pg.plan("avg_pool", shape, "float64", kernel_size=2)
    assert made._program("adjoint").workspace_bytes < 3 * 2**20


@pytest.mark.parametrize("op", ["max_pool", "avg_pool"])
def test_many_plans_do_not_pile_up(op):
    # What is cached is bounded: a server makes plans of shapes that strangers choose.
    import gc
    import tracemalloc

    def make(start, count):
        for size in range(start, start + count):
            x = np.zeros((1, size, 1), "float32")
            pg.plan(op, x.shape, kernel_size=2, stride=1).forward(x)

    make(2, 3000)
    gc.collect()
    tracemalloc.start()
    try:
        make(3002, 1500)
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 8_000_000


@given(case=cases(ops=("avg_pool",)))
def test_an_array_may_stand_for_its_shape(case):
    backward = pg.avg_pool_backward
    dx = backward(case.dy, case.x, case.kernel_size, **case.options)
    for shape in (case.shape, list(case.shape), tuple(np.int64(n) for n in case.shape)):
        assert_same_bits(backward(case.dy, shape, case.kernel_size, **case.options), dx)
