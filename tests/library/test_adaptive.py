"""Adaptive poolings against the oracles, against strided ones, and their refusals."""

import pickle
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
import windowed
from compare import assert_close, assert_same_bits
from hazards import ADAPTIVE, ADAPTIVE_NAMES
from strategies import ADAPTIVE_OPS, DTYPES, LAYOUTS, adaptive_cases, fill


def max_cases(**options):
    return adaptive_cases(ops=("adaptive_max_pool",), **options)


def avg_cases(**options):
    return adaptive_cases(ops=("adaptive_avg_pool",), **options)


def forward(case, x, **more):
    return getattr(pg, case.op)(x, **case.options, **more)


def backward(case, dy, x, **more):
    return getattr(pg, f"{case.op}_backward")(dy, x, **case.options, **more)


def plan_of(case):
    return pg.plan(case.op, case.shape, case.dtype, **case.options)


# -------------------------------------------------------------------------------- definitions


def check_max(case):
    expected, winners = reference.max_pool(case.x, **case.options)
    y, argmax = pg.adaptive_max_pool(case.x, return_argmax=True, **case.options)
    assert_same_bits(y, expected)
    assert_same_bits(argmax, winners)
    assert_same_bits(pg.adaptive_max_pool(case.x, **case.options), expected)
    dx = reference.max_pool_backward(case.dy, winners, case.shape, **case.options)
    gradient = pg.adaptive_max_pool_backward
    assert_same_bits(gradient(case.dy, case.x, **case.options), dx)
    assert_same_bits(gradient(case.dy, case.shape, argmax=argmax, **case.options), dx)


def check_avg(case):
    y = pg.adaptive_avg_pool(case.x, **case.options)
    assert y.dtype == case.dtype
    assert_close(y, reference.avg_pool(case.x, **case.options))
    dx = pg.adaptive_avg_pool_backward(case.dy, case.shape, **case.options)
    assert dx.dtype == case.dtype
    assert_close(dx, reference.avg_pool_backward(case.dy, case.shape, **case.options))
    assert_same_bits(pg.adaptive_avg_pool_backward(case.dy, case.x, **case.options), dx)


@given(case=max_cases())
def test_max_is_the_definition(case):
    check_max(case)


@given(case=avg_cases())
def test_average_is_the_definition(case):
    check_avg(case)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ADAPTIVE_NAMES)
def test_hazard(name, dtype):
    case = ADAPTIVE[name].case.with_(dtype=dtype)
    check_max(case.with_(op="adaptive_max_pool"))
    check_avg(case.with_(op="adaptive_avg_pool"))


@given(case=max_cases())
def test_indices_are_those_of_the_plane(case):
    _, argmax = pg.adaptive_max_pool(case.x, return_argmax=True, **case.options)
    indices = pg.argmax_to_indices(argmax, plan_of(case))
    assert_same_bits(indices, reference.argmax_to_indices(argmax, case.shape, **case.options))


# Past the sizes of the slow oracle: long rows, wide windows, many channels, and several tiles.
MIDDLE = [
    ((1, 500, 1), 499),
    ((1, 500, 1), 333),
    ((2, 700, 3), 1000),
    ((1, 3000, 2), 7),
    ((1, 10_007, 1), 10_000),
    ((1, 300, 17), (201,)),
    ((1, 40, 50, 1), (7, 50)),
    ((2, 33, 47, 3), (22, 94)),
    ((1, 28, 31, 64), 7),
    ((1, 61, 59, 5), (60, 60)),
    ((1, 5, 6, 8), (40, 45)),
    ((1, 17, 19, 33), (None, 5)),
    ((1, 9, 14, 15, 4), (4, 5, 20)),
    ((1, 12, 9, 30, 1), (None, 1, 7)),
]
MIDDLE_IDS = [f"{'x'.join(map(str, shape))}-{out}".replace(" ", "") for shape, out in MIDDLE]


def in_layout(shape, layout):
    return shape if layout == "channels_last" else (shape[0], shape[-1], *shape[1:-1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("shape", "output_size"), MIDDLE, ids=MIDDLE_IDS)
def test_middle_sized_max(shape, output_size, layout, dtype):
    x = fill("ties", in_layout(shape, layout), dtype, 7)
    options = {"output_size": output_size, "layout": layout}
    expected, winners, indices = windowed.max_pool(x, **options)
    y, argmax = pg.adaptive_max_pool(x, return_argmax=True, **options)
    assert_same_bits(y, expected)
    assert_same_bits(argmax, winners)
    dy = fill("normal", y.shape, dtype, 8)
    expected = windowed.max_pool_backward(dy, indices, x.shape, layout=layout)
    assert_same_bits(pg.adaptive_max_pool_backward(dy, x, **options), expected)
    saved = pg.adaptive_max_pool_backward(dy, x.shape, argmax=argmax, **options)
    assert_same_bits(saved, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("shape", "output_size"), MIDDLE, ids=MIDDLE_IDS)
def test_middle_sized_average(shape, output_size, layout, dtype):
    x = fill("normal", in_layout(shape, layout), dtype, 7)
    options = {"output_size": output_size, "layout": layout}
    y = pg.adaptive_avg_pool(x, **options)
    assert_close(y, windowed.avg_pool(x, **options))
    dy = fill("normal", y.shape, dtype, 8)
    dx = pg.adaptive_avg_pool_backward(dy, x.shape, **options)
    assert_close(dx, windowed.avg_pool_backward(dy, x.shape, **options))


@given(case=avg_cases(values=("normal", "ties")))
def test_average_is_the_adjoint_of_its_forward(case):
    case = case.with_(dtype="float64")
    v, dy = case.x, case.dy
    y, dx = forward(case, v), backward(case, dy, case.shape)
    scale = np.vdot(np.abs(dx), np.abs(v)) + np.vdot(np.abs(dy), np.abs(y))
    taps = case.geometry.taps + case.dy.size
    assert abs(np.vdot(dy, y) - np.vdot(dx, v)) <= taps * np.finfo("float64").eps * scale


@given(case=max_cases(empty=False))
def test_max_is_the_adjoint_of_its_own_selection(case):
    # With the winners fixed, forward is linear too: it gathers, so backward must scatter.
    case = case.with_(dtype="float64")
    _, argmax = forward(case, case.x, return_argmax=True)
    indices = reference.to_planes(pg.argmax_to_indices(argmax, plan_of(case)), case.layout)
    v = reference.to_planes(fill("distinct", case.shape, "float64", 3), case.layout)
    dy = fill("distinct", case.output_shape, "float64", 4)
    dx = reference.to_planes(backward(case, dy, case.shape, argmax=argmax), case.layout)
    gathered = np.take_along_axis(v.reshape(len(v), -1), indices.reshape(len(v), -1), 1)
    # Whole numbers, whose sums are exact.
    assert np.vdot(reference.to_planes(dy, case.layout), gathered) == np.vdot(dx, v)


# --------------------------------------------------------------------------------------- laws


@given(
    op=st.sampled_from(["max_pool", "avg_pool"]),
    outs=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    kernel=st.integers(1, 4),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 99),
)
def test_equal_parts_are_a_strided_pooling(op, outs, kernel, dtype, seed):
    x = fill("special", (2, *(n * kernel for n in outs), 3), dtype, seed)
    y = getattr(pg, op)(x, kernel)
    assert_same_bits(getattr(pg, f"adaptive_{op}")(x, outs), y)
    dy = fill("normal", y.shape, dtype, seed)
    dx = getattr(pg, f"{op}_backward")(dy, x, kernel)
    assert_same_bits(getattr(pg, f"adaptive_{op}_backward")(dy, x, outs), dx)


@pytest.mark.parametrize("op", ADAPTIVE_OPS)
@pytest.mark.parametrize("output_size", [(5, 6), (None, None), [None, 6]], ids=str)
def test_as_many_windows_as_cells_change_nothing(op, output_size):
    x = fill("special", (2, 5, 6, 3), "float32", 0)
    assert_same_bits(getattr(pg, op)(x, output_size), x)
    dy = fill("normal", x.shape, "float32", 1)
    assert_same_bits(getattr(pg, f"{op}_backward")(dy, x, output_size), dy)


@given(case=adaptive_cases())
def test_layouts_agree(case):
    def other(array):
        last = case.layout == "channels_last"
        return np.moveaxis(array, -1, 1) if last else np.moveaxis(array, 1, -1)

    swapped = case.with_(layout=next(name for name in LAYOUTS if name != case.layout))
    x, dy = case.x, case.dy
    assert_same_bits(forward(swapped, other(x)), np.ascontiguousarray(other(forward(case, x))))
    dx = backward(swapped, other(dy), other(x))
    assert_same_bits(dx, np.ascontiguousarray(other(backward(case, dy, x))))


@given(case=avg_cases(), constant=st.sampled_from([1.0, -3.0, 0.5]))
def test_average_of_a_constant_is_the_constant(case, constant):
    assert (forward(case, np.full(case.shape, constant, case.dtype)) == constant).all()


@given(case=avg_cases(values=("normal",)))
def test_the_gradients_sum_is_kept(case):
    case = case.with_(dtype="float64")
    dx = backward(case, case.dy, case.shape)
    assert abs(dx.sum() - case.dy.sum()) <= 1e-12 * (1 + np.abs(case.dy).sum())


@pytest.mark.parametrize("dtype", DTYPES)
def test_vectors(dtype):
    # Windows [0, 2), [1, 4), [3, 5) of five cells.
    x = np.array([1, 5, 2, 4, 3], dtype).reshape(1, 5, 1)
    y, argmax = pg.adaptive_max_pool(x, 3, return_argmax=True)
    assert y.ravel().tolist() == [5, 5, 4]
    assert argmax.ravel().tolist() == [1, 0, 0]
    third = np.dtype(dtype).type(11) / np.dtype(dtype).type(3)
    assert pg.adaptive_avg_pool(x, 3).ravel().tolist() == [3, third, 3.5]
    dy = np.array([2, 3, 4], dtype).reshape(1, 3, 1)
    assert pg.adaptive_max_pool_backward(dy, x, 3).ravel().tolist() == [0, 5, 0, 4, 0]
    assert pg.adaptive_avg_pool_backward(dy, (1, 5, 1), 3).ravel().tolist() == [1, 2, 1, 3, 2]


@pytest.mark.parametrize(("size", "output"), [(2**24 + 1, 3), (3, 2**24 + 1)])
def test_windows_are_exact_beyond_the_precision_of_float32(size, output):
    x = np.arange(size, dtype=np.float64).reshape(1, size, 1)
    starts = [o * size // output for o in (0, 1, output // 2, output - 2, output - 1)]
    y = pg.adaptive_max_pool(-x, output).ravel()
    assert [-y[o] for o in (0, 1, output // 2, output - 2, output - 1)] == starts


# ------------------------------------------------------------------------------------- threads

SIZES = {
    "one_image": ((1, 257, 259, 5), (100, 101), "channels_last"),
    "one_grey_image": ((1, 300, 310, 1), (299, 450), "channels_last"),
    "many_channels": ((1, 6, 6, 9000), 4, "channels_last"),
    "one_series": ((1, 150_000, 1), 110_001, "channels_last"),
    "longer_series": ((1, 200_000, 1), 400_001, "channels_last"),
    "one_window": ((1, 600, 500, 1), 1, "channels_last"),
    "one_volume": ((1, 40, 50, 60, 2), (7, None, 90), "channels_last"),
    "batch": ((7, 70, 71, 8), 33, "channels_last"),
    "batch_first": ((3, 5, 120, 110), (50, 7), "channels_first"),
}


@pytest.mark.parametrize("num_threads", [2, 3])
@pytest.mark.parametrize("size", SIZES)
def test_any_number_of_threads(size, num_threads):
    shape, output_size, layout = SIZES[size]
    options = {"output_size": output_size, "layout": layout}
    one, more = {**options, "num_threads": 1}, {**options, "num_threads": num_threads}
    x = fill("ties", shape, "float32", 0)
    y, argmax = pg.adaptive_max_pool(x, return_argmax=True, **one)
    other_y, other_argmax = pg.adaptive_max_pool(x, return_argmax=True, **more)
    assert_same_bits(other_y, y)
    assert_same_bits(other_argmax, argmax)
    dy = fill("normal", y.shape, "float32", 1)
    dx = pg.adaptive_max_pool_backward(dy, x, **one)
    assert_same_bits(pg.adaptive_max_pool_backward(dy, x, **more), dx)
    saved = pg.adaptive_max_pool_backward(dy, shape, argmax=argmax, **more)
    assert_same_bits(saved, dx)
    assert_same_bits(pg.adaptive_avg_pool(dx, **more), pg.adaptive_avg_pool(dx, **one))
    dx = pg.adaptive_avg_pool_backward(dy, shape, **one)
    assert_same_bits(pg.adaptive_avg_pool_backward(dy, shape, **more), dx)


@pytest.mark.parametrize("size", [size for size in SIZES if size != "longer_series"])
def test_large_ones_are_the_definition(size):
    shape, output_size, layout = SIZES[size]
    options = {"output_size": output_size, "layout": layout}
    x = fill("ties", shape, "float32", 0)
    expected, winners, indices = windowed.max_pool(x, **options)
    y, argmax = pg.adaptive_max_pool(x, return_argmax=True, num_threads=2, **options)
    assert_same_bits(y, expected)
    assert_same_bits(argmax, winners)
    assert_close(pg.adaptive_avg_pool(x, **options), windowed.avg_pool(x, **options))
    dy = fill("normal", y.shape, "float32", 1)
    dx = windowed.max_pool_backward(dy, indices, shape, layout=layout)
    assert_same_bits(pg.adaptive_max_pool_backward(dy, x, num_threads=2, **options), dx)
    dx = pg.adaptive_avg_pool_backward(dy, shape, **options)
    assert_close(dx, windowed.avg_pool_backward(dy, shape, **options))


# --------------------------------------------------------------------------------------- plans


@given(case=adaptive_cases())
def test_a_plan_tells_and_runs_it(case):
    plan, geo = plan_of(case), case.geometry
    assert plan.output_shape == case.output_shape
    assert plan.output_size == geo.out
    assert plan.kernel_size == geo.kernel
    assert plan.stride is None
    assert plan.dilation == (1,) * len(geo.axes)
    assert plan.padding == ((0, 0),) * len(geo.axes)
    has_argmax = case.op == "adaptive_max_pool"
    assert plan.argmax_dtype == (reference.argmax_dtype(geo.taps) if has_argmax else None)
    # Each step is a tap of some row, and no element is looked at less than once.
    assert plan.cost >= np.prod(case.shape)
    assert_same_bits(plan.forward(case.x), forward(case, case.x))
    assert_same_bits(plan.backward(case.dy, case.x), backward(case, case.dy, case.x))
    copy = pickle.loads(pickle.dumps(plan))
    assert copy == plan
    assert hash(copy) == hash(plan)


@given(case=adaptive_cases())
def test_explain_tells_the_windows(case):
    lines = plan_of(case).explain().splitlines()
    assert lines[0].startswith(case.op)
    for axis, line in zip(case.geometry.axes, lines[1:], strict=False):
        counts = sorted({len(axis.cells(j)) for j in range(axis.out)})
        taps = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        assert f": {axis.out} windows of {taps} taps, on {axis.size} cells" in line
    rule = "divisor: a window's taps"
    assert (rule in lines[-2]) == (case.op == "adaptive_avg_pool")


@pytest.mark.parametrize("op", ADAPTIVE_OPS)
def test_equal_plans(op):
    plan = pg.plan(op, (1, 6, 4, 1), output_size=(6, 2))
    assert plan == pg.plan(op, [1, 6, 4, 1], np.float32, output_size=[None, np.int64(2)])
    assert plan != pg.plan(op, (1, 6, 4, 1), output_size=(6, 3))
    # The same windows, but another operation.
    assert plan != pg.plan(op.removeprefix("adaptive_"), (1, 6, 4, 1), kernel_size=(1, 2))


@pytest.mark.parametrize("op", ADAPTIVE_OPS)
@pytest.mark.parametrize(
    ("shape", "output_size"),
    [
        ((1, 10**6, 10**6, 1), 10**6 - 1),
        ((1, 10**12, 1), 10**6 + 3),
        ((1, 10**6 + 3, 1), 10**12),
        ((10**12, 4, 1), 3),
        ((1, 10**4, 10**4, 10**4, 1), (7, None, 10**4 + 1)),
        ((1, 2**20, 2**20, 1), 2**19),
    ],
)
def test_a_plan_of_a_trillion_elements_is_quick_and_small(op, shape, output_size):
    start = time.perf_counter()
    tracemalloc.start()
    try:
        plan = pg.plan(op, shape, output_size=output_size)
        text = plan.explain()
        assert plan.workspace_bytes >= 0
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - start < 0.5
    assert peak < 1_000_000
    assert str(plan.output_shape) in text


@pytest.mark.parametrize("op", ADAPTIVE_OPS)
def test_a_plan_that_ran_keeps_nothing_of_the_size_of_its_arrays(op):
    # A million windows, no two of which lie alike, and a plan that stays in the cache.
    x = np.zeros((1, 1_000_003, 1), "float32")
    dy = np.zeros((1, 1_000_000, 1), "float32")
    tracemalloc.start()
    try:
        getattr(pg, op)(x, 1_000_000)
        getattr(pg, f"{op}_backward")(dy, x, 1_000_000)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 100_000


@pytest.mark.parametrize("op", ADAPTIVE_OPS)
def test_out_and_a_fresh_result_agree(op):
    x = fill("normal", (1, 7, 5, 2), "float32", 0)
    dy = fill("normal", (1, 3, 4, 2), "float32", 1)
    out, dx = np.empty_like(dy), np.empty((2, 5, 7, 1), "float32").T
    assert getattr(pg, op)(x, (3, 4), out=out) is out
    assert_same_bits(out, getattr(pg, op)(x, (3, 4)))
    gradient = getattr(pg, f"{op}_backward")
    assert gradient(dy, x, (3, 4), out=dx) is dx
    assert_same_bits(np.ascontiguousarray(dx), gradient(dy, x, (3, 4)))


# ------------------------------------------------------------------------------------ refusals

SHAPE = (1, 6, 5, 2)
X = np.arange(60, dtype="float32").reshape(SHAPE)
DY = np.ones((1, 3, 3, 2), "float32")

ENTRIES = {
    "max": lambda n, **o: pg.adaptive_max_pool(X, n, **o),
    "avg": lambda n, **o: pg.adaptive_avg_pool(X, n, **o),
    "max_backward": lambda n, **o: pg.adaptive_max_pool_backward(DY, X, n, **o),
    "avg_backward": lambda n, **o: pg.adaptive_avg_pool_backward(DY, SHAPE, n, **o),
    "max_plan": lambda n, **o: pg.plan("adaptive_max_pool", SHAPE, output_size=n, **o),
    "avg_plan": lambda n, **o: pg.plan("adaptive_avg_pool", SHAPE, output_size=n, **o),
}


def refused(error, call, *patterns):
    """Call, expect that error, and check its message's content and hygiene."""
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    message = str(caught.value)
    for pattern in patterns:
        assert re.search(pattern, message), (pattern, message)
    assert message.isprintable()
    assert len(message) < 500
    return message


BAD_OUTPUT_SIZES = {
    "none": (None, ["None", "integer"]),
    "true": (True, ["True"]),
    "true_in_a_tuple": ((3, True), [r"\baxis 1\b", "True"]),
    "float": (3.0, [r"3\.0"]),
    "float_in_a_list": ([3.0, 3], [r"\baxis 0\b", r"3\.0"]),
    "text": ("3", ["'3'"]),
    "text_in_a_tuple": (("same", 3), [r"\baxis 0\b", "'same'"]),
    "zero": (0, [r"\b0\b", r"\b1\b"]),
    "zero_in_a_tuple": ((3, 0), [r"\baxis 1\b", r"\b0\b", r"\b1\b"]),
    "negative": (-3, ["-3"]),
    "none_of_two": ((), ["length 0", r"\b2\b"]),
    "one_of_two": ((3,), ["length 1", r"\b2\b", "None"]),
    "three_of_two": ([3, 3, 3], ["length 3", r"\b2\b"]),
    "pairs": (((3, 3), (3, 3)), [r"\baxis 0\b"]),
    "huge": (10**400, ["above"]),
    "huge_in_a_tuple": ((3, 10**5000), [r"\baxis 1\b", "above"]),
    "newline": ("3\nERROR: forged", ["ERROR"]),
}


@pytest.mark.parametrize("junk", BAD_OUTPUT_SIZES)
@pytest.mark.parametrize("entry", ENTRIES)
def test_bad_output_sizes(entry, junk):
    value, shown = BAD_OUTPUT_SIZES[junk]
    refused(pg.ParameterError, lambda: ENTRIES[entry](value), r"^output_size\b", *shown)


def test_spellings_that_are_equal_but_refused_stay_refused_after_a_good_one():
    pg.plan("adaptive_max_pool", SHAPE, output_size=(1, None))
    for bad in ((True, None), (1.0, None)):
        call = partial(ENTRIES["max_plan"], bad)
        refused(pg.ParameterError, call, r"^output_size: axis 0\b")


@pytest.mark.parametrize("layout", ["NHWC", None, 0], ids=repr)
@pytest.mark.parametrize("entry", ENTRIES)
def test_bad_layouts(entry, layout):
    refused(pg.ParameterError, lambda: ENTRIES[entry](3, layout=layout), r"^layout\b")


@pytest.mark.parametrize("name", ["kernel_size", "stride", "padding", "ceil_mode", "divisor"])
@pytest.mark.parametrize("op", ADAPTIVE_OPS)
def test_other_hyperparameters(op, name):
    call = partial(pg.plan, op, SHAPE, output_size=3, **{name: 1})
    refused(pg.ParameterError, call, name, "output_size, layout")
    refused(pg.ParameterError, lambda: pg.plan(op, SHAPE), r"^output_size\b", "missing", op)
    call = partial(pg.plan, "max_pool", SHAPE, kernel_size=2, output_size=3)
    refused(pg.ParameterError, call, "output_size")


@pytest.mark.parametrize(
    ("shape", "layout", "axis"),
    [((1, 0, 4, 1), "channels_last", 0), ((1, 1, 4, 0), "channels_first", 1)],
)
@pytest.mark.parametrize("op", ADAPTIVE_OPS)
def test_spatial_sizes_of_zero(op, shape, layout, axis):
    x = np.zeros(shape, "float32")
    for output_size in (1, (None, None)):
        call = partial(getattr(pg, op), x, output_size, layout=layout)
        refused(pg.ShapeError, call, rf"\baxis {axis}\b", r"\b0\b")


@pytest.mark.parametrize("output", [2**61, 2**61 - 1, 2**60 + 1, 10**18])
@pytest.mark.parametrize("op", ADAPTIVE_OPS)
def test_huge_outputs_are_refused(op, output):
    # https://github.com/pytorch/pytorch/issues/42582, https://github.com/pytorch/pytorch/issues/50960
    start = time.perf_counter()
    with pytest.raises(pg.PoolgradError, match=r"above|at most"):
        getattr(pg, op)(X, output)
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize("op", ADAPTIVE_OPS)
def test_windows_that_hardly_repeat_are_refused(op):
    call = partial(pg.plan, op, (1, 2**40, 1), output_size=2**22 - 1)
    refused(pg.ParameterError, call, r"^output_size: axis 0\b", str(2**22 - 1), str(2**40))
    assert pg.plan(op, (1, 2**40, 1), output_size=2**22).output_shape == (1, 2**22, 1)
    assert pg.plan(op, (1, 2**40, 1), output_size=2**21 - 1).output_shape == (1, 2**21 - 1, 1)


def test_windows_too_large_for_an_argmax():
    plan = pg.plan("adaptive_max_pool", (1, 2**31, 1), output_size=1)
    assert plan.argmax_dtype is None
    call = partial(plan.backward, np.zeros((1, 1, 1), "float32"))
    refused(pg.ParameterError, call, r"^output_size\b", str(2**31))
    assert pg.plan("adaptive_max_pool", (1, 2**31 - 1, 1), output_size=1).argmax_dtype == np.int32


@pytest.mark.parametrize("op", ADAPTIVE_OPS)
def test_a_gradient_of_another_shape(op):
    dy = np.ones((1, 3, 4, 2), "float32")
    call = partial(getattr(pg, f"{op}_backward"), dy, X, 3)
    refused(pg.ShapeError, call, r"^dy\b", re.escape("(1, 3, 3, 2)"))


def test_what_belongs_to_the_maximum_only():
    plan = pg.plan("adaptive_avg_pool", SHAPE, output_size=3)
    argmax = np.zeros(DY.shape, np.uint8)
    refused(pg.ParameterError, lambda: plan.forward(X, return_argmax=True), "argmax")
    refused(pg.ParameterError, lambda: plan.backward(DY, argmax=argmax), "argmax")
    call = partial(pg.adaptive_max_pool_backward, DY, SHAPE, 3)
    refused(pg.ParameterError, call, "argmax")


@given(case=max_cases(values=("ties",), empty=False), data=st.data())
def test_exactly_the_taps_of_its_window_are_taken(case, data):
    # One value of a good argmax is replaced by any place of the box; smaller windows have not all.
    geo = case.geometry
    _, argmax = reference.max_pool(case.x, **case.options)
    output = data.draw(st.tuples(*(st.integers(0, n - 1) for n in geo.out)), label="output")
    position = data.draw(st.integers(0, geo.taps - 1), label="position")
    where = (0, *output, 0) if case.layout == "channels_last" else (0, 0, *output)
    argmax[where] = position
    out = np.full(case.shape, 7, case.dtype)
    call = partial(backward, case, case.dy, case.shape, argmax=argmax, out=out)
    if geo.is_real(dict(geo.window(output))[position]):
        expected = reference.max_pool_backward(case.dy, argmax, case.shape, **case.options)
        assert_same_bits(call(), expected)
    else:
        refused(pg.ParameterError, call, r"^argmax\b", re.escape(str(where)))
        assert (out == 7).all()


@pytest.mark.parametrize("bad", [4, 6, 8, 9, 254])
def test_a_foreign_argmax_is_refused_before_out_is_written(bad):
    # On 5 by 3 cells the first of 3 by 2 windows has 2 by 2 taps, in a box of 3 by 2.
    argmax = np.zeros((1, 3, 2, 1), np.uint8)
    argmax[0, 0, 0, 0] = bad
    out = np.full((1, 5, 3, 1), 7, "float32")
    dy = np.ones(argmax.shape, "float32")
    call = partial(pg.adaptive_max_pool_backward, dy, out.shape, (3, 2), argmax=argmax, out=out)
    refused(pg.ParameterError, call, r"^argmax\b", rf"\b{bad}\b", re.escape("(0, 0, 0, 0)"))
    assert (out == 7).all()


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 12) | st.integers(-(2**70), 2**70) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner),
)


@given(op=st.sampled_from(ADAPTIVE_OPS), output_size=JUNK | st.tuples(JUNK, JUNK))
def test_junk_is_refused(op, output_size):
    plan, message = None, ""
    try:
        plan = pg.plan(op, SHAPE, output_size=output_size)
    except pg.PoolgradError as error:
        message = str(error)
    assert message.isprintable()
    assert plan is None or min(plan.output_shape) >= 1
