"""Forward passes against the oracles, over the whole parameter space."""

import numpy as np
import pytest
from hypothesis import given

import poolgrad as pg
import reference
import windowed
from compare import assert_close, assert_same_bits
from hazards import HAZARDS, MAX_NAMES, NAMES
from strategies import DTYPES, LAYOUTS, avg_cases, cases, fill, max_cases


def check_max(case):
    expected, winners = reference.max_pool(case.x, case.kernel_size, **case.options)
    y, argmax = pg.max_pool(case.x, case.kernel_size, return_argmax=True, **case.options)
    assert_same_bits(y, expected)
    assert_same_bits(argmax, winners)
    assert_same_bits(pg.max_pool(case.x, case.kernel_size, **case.options), expected)


def check_avg(case):
    y = pg.avg_pool(case.x, case.kernel_size, **case.options)
    assert y.dtype == case.dtype
    assert_close(y, reference.avg_pool(case.x, case.kernel_size, **case.options))


@given(case=max_cases())
def test_max_is_the_definition(case):
    check_max(case)


@given(case=avg_cases())
def test_average_is_the_definition(case):
    check_avg(case)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_hazard(name, dtype):
    case = HAZARDS[name].case.with_(dtype=dtype)
    (check_max if case.op == "max_pool" else check_avg)(case)


@pytest.mark.parametrize("name", NAMES)
def test_hazard_of_the_other_operation(name):
    case = HAZARDS[name].case
    if case.op == "avg_pool":
        check_max(case.with_(op="max_pool"))
    elif case.values != "large":
        check_avg(case.with_(op="avg_pool", count_include_pad=False))


@given(case=max_cases())
def test_indices_are_those_of_the_plane(case):
    plan = pg.plan("max_pool", case.shape, case.dtype, kernel_size=case.kernel_size, **case.options)
    _, argmax = pg.max_pool(case.x, case.kernel_size, return_argmax=True, **case.options)
    indices = pg.argmax_to_indices(argmax, plan)
    expected = reference.argmax_to_indices(argmax, case.shape, case.kernel_size, **case.options)
    assert_same_bits(indices, expected)
    assert_same_bits(pg.argmax_to_indices(argmax, plan, base="plane"), expected)


@pytest.mark.parametrize("name", MAX_NAMES)
def test_indices_find_the_maximum(name):
    case = HAZARDS[name].case
    plan = pg.plan("max_pool", case.shape, case.dtype, kernel_size=case.kernel_size, **case.options)
    y, argmax = plan.forward(case.x, return_argmax=True)
    indices = reference.to_planes(pg.argmax_to_indices(argmax, plan), case.layout)
    planes = reference.to_planes(case.x, case.layout)
    planes = planes.reshape(len(planes), int(np.prod(planes.shape[1:])))
    values = reference.to_planes(y, case.layout)
    for p, plane in enumerate(planes):
        real = indices[p] >= 0
        np.testing.assert_array_equal(plane[indices[p][real]], values[p][real])
        assert (values[p][~real] == -np.inf).all()


# Sizes past those of the slow oracle: rows longer than any vector or strip, windows wide enough for
# block scans and doubling, and channel counts on both sides of every vector width.
MIDDLE = [
    ((1, 500, 1), 3, {"stride": 1}),
    ((2, 700, 3), 64, {"stride": 1, "padding": 31}),
    ((1, 1200, 1), 301, {"stride": 7, "padding": 150}),
    ((1, 300, 17), 2, {"stride": 2}),
    ((1, 600, 2), 5, {"stride": 3, "dilation": 7, "padding": (9,)}),
    ((1, 40, 50, 1), 3, {"stride": 1, "padding": 1}),
    ((2, 33, 47, 3), 3, {"stride": 2, "padding": 1}),
    ((1, 28, 31, 64), 3, {"stride": 2, "padding": "same"}),
    ((1, 20, 70, 8), 2, {"stride": 2, "ceil_mode": True}),
    ((1, 45, 41, 1), 31, {"stride": 1, "padding": "same"}),
    ((1, 30, 35, 5), (9, 14), {"stride": 1, "padding": ((4, 4), (6, 7))}),
    ((1, 25, 26, 2), (4, 3), {"stride": (3, 4), "dilation": (5, 2), "padding": 3}),
    ((1, 64, 64, 2), 64, {}),
    ((1, 17, 19, 33), (5, 1), {"stride": 1}),
    ((1, 17, 19, 16), (1, 5), {"stride": 1}),
    ((1, 9, 14, 15, 4), 3, {"stride": 2, "padding": 1}),
    ((1, 8, 9, 30, 1), (2, 3, 11), {"stride": 1, "padding": "same_lower"}),
    # Windows apart, of one channel with channels first: in pairs, and further, with few clipped.
    ((3, 21, 71, 3), 2, {"stride": 2}),
    ((1, 5, 9, 67, 2), 2, {"stride": 2}),
    ((1, 40, 90, 2), (3, 4), {"stride": 4}),
    ((2, 12, 301, 2), 2, {}),
    ((1, 7, 2300, 1), 3, {"stride": 2}),
    ((2, 5, 6, 150), (5, 6), {}),
    ((1, 700, 3), 4, {"stride": 4}),
    ((1, 31, 130, 2), 5, {"stride": 3, "padding": 2}),
    ((1, 70, 100, 9), 3, {"stride": 2, "padding": 1}),
    # Rows of one channel, with channels first, that are read once, in one tile or in several.
    ((2, 23, 35, 10), 3, {"stride": 1, "padding": 1}),
    ((1, 90, 200, 2), (5, 3), {"stride": 1, "padding": ((2, 2), (0, 2))}),
    ((1, 12, 30, 9), (2, 7), {"stride": 1, "padding": ((3, 4), (9, 2)), "dilation": (1, 4)}),
    ((1, 5, 18, 40, 2), (1, 5, 5), {"stride": 1, "padding": (0, 2, 2)}),
    ((1, 3, 17, 3), (5, 2), {"stride": 1, "padding": ((6, 7), (0, 0))}),
    # Rows of windows that share rows, a few at once.
    ((2, 19, 21, 20), 3, {"stride": 1, "padding": 1}),
    ((1, 14, 15, 40), 2, {"stride": 1}),
    ((1, 3, 9, 12, 33), (1, 3, 3), {"stride": 1, "dilation": (1, 1, 2)}),
    ((1, 3, 9, 12, 33), 2, {"stride": 1, "padding": 1}),
    # Series of one channel, with channels first, which are rows of one plane.
    ((3, 101, 25), 2, {}),
    ((3, 101, 25), 3, {"stride": 2, "ceil_mode": True}),
    ((2, 4500, 5), 31, {"stride": 1, "padding": 15}),
    ((2, 9, 301, 3), (1, 4), {}),
    ((2, 3, 5, 67, 2), (1, 1, 2), {}),
    # Rows that are read as they lie in memory, one after another, and planes.
    ((1, 260, 200, 2), 2, {}),
    ((1, 261, 201, 1), 3, {"stride": 2}),
    ((1, 6, 71, 66, 2), 2, {}),
    ((1, 7, 19, 43, 1), (3, 2, 3), {"stride": 2}),
    # Rows of vectors, of which windows have a tail of one block and a head of the next.
    ((1, 12, 30, 70), (3, 25), {"stride": 1, "padding": ((1, 1), (12, 11))}),
    ((2, 100, 36), 31, {"stride": 1}),
    # Large windows of more planes than are made together.
    ((1, 40, 40, 20), 13, {"stride": 1, "padding": 6}),
    ((1, 72, 60, 28), 9, {"stride": 1, "padding": 4}),
    # The same, whose maxima are made plane by plane: in several tiles, in planes of a volume, ...
    ((1, 700, 60, 2), 9, {"stride": 1, "padding": 4}),
    ((1, 3, 30, 40, 3), (1, 9, 11), {"stride": 1, "padding": (0, 2, 5)}),
    # ... and in tiles of which some have windows in the padding only.
    ((1, 10, 500, 1), 7, {"stride": 1, "padding": ((100, 0), (0, 0))}),
    ((1, 10, 500, 1), 7, {"stride": 1, "padding": ((0, 120), (9, 3))}),
    # Windows in the padding only, before one that is inside, in many rows.
    ((1, 7, 1, 1), (1, 1), {"stride": 1, "padding": (0, 2)}),
    ((1, 9, 2, 3), (2, 2), {"stride": (1, 2), "padding": (0, 4)}),
    # Planes whose rows go on as in one, more of them than are made in one go.
    ((70, 8, 20, 3), 2, {}),
    ((3, 6, 51, 40), (3, 2), {}),
    ((4, 12, 7, 33), (2, 3), {"stride": (4, 1)}),
    ((1, 9, 1030, 3), (1, 9), {"stride": (3, 2)}),
    # Windows that are reduced along the height first: in tiles, volumes, padding, in few columns.
    ((2, 140, 43, 3), 5, {"stride": 4}),
    ((1, 37, 50, 18), (8, 9), {"stride": 7, "padding": 3}),
    ((2, 33, 20, 6), 3, {"stride": 2, "padding": 1}),
    ((1, 9, 30, 31, 5), (2, 3, 4), {"stride": (2, 3, 3)}),
    ((20, 30, 31, 1), (6, 11), {"stride": (6, 7)}),
    ((1, 16, 9, 700), (4, 8), {"stride": (4, 8)}),
    # Cells narrower than a vector, of windows that are apart.
    ((2, 11, 23, 7), 2, {}),
    ((1, 12, 26, 13), (3, 2), {"stride": (3, 5)}),
    ((3, 4, 2, 3), (2, 2), {"stride": (1, 2)}),
    # Whole planes.
    ((1, 5, 7, 50), (5, 7), {}),
    ((3, 7, 7, 1500), 7, {}),
    ((2, 5, 3, 4, 17), (5, 3, 4), {}),
    ((1, 2, 3, 5), (4, 6), {"padding": ((1, 1), (2, 1))}),
]
MIDDLE_IDS = [f"{'x'.join(map(str, shape))}-{str(k).replace(' ', '')}" for shape, k, _ in MIDDLE]


def in_layout(shape, layout):
    return shape if layout == "channels_last" else (shape[0], shape[-1], *shape[1:-1])


@pytest.mark.parametrize("values", ["ties", "special"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("shape", "kernel_size", "options"), MIDDLE, ids=MIDDLE_IDS)
def test_middle_sized_max(shape, kernel_size, options, layout, dtype, values):
    x = fill(values, in_layout(shape, layout), dtype, 7)
    expected, winners, _ = windowed.max_pool(x, kernel_size, layout=layout, **options)
    y, argmax = pg.max_pool(x, kernel_size, layout=layout, return_argmax=True, **options)
    assert_same_bits(y, expected)
    assert_same_bits(argmax, winners)
    assert_same_bits(pg.max_pool(x, kernel_size, layout=layout, **options), expected)


# Some of these are reduced along the height first, so columns, not rows, find a zero before others.
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "kernel_size", "options"),
    [
        ((2, 33, 47, 3), 3, {"stride": 2, "padding": 1}),
        ((2, 33, 47, 1), 5, {"stride": 5}),
        ((9, 20, 20, 1), 6, {"stride": 5}),
        ((1, 8, 8, 2), 3, {"stride": 3}),
    ],
)
def test_a_maximum_of_zeros_has_the_sign_of_the_first(shape, kernel_size, options, dtype):
    x = fill("zeros", shape, dtype, 3)
    expected = windowed.max_pool(x, kernel_size, **options)[0]
    assert_same_bits(pg.max_pool(x, kernel_size, **options), expected)
    few = np.where(fill("normal", shape, dtype, 4) < 2, -1, x).astype(dtype)
    expected = windowed.max_pool(few, kernel_size, **options)[0]
    assert_same_bits(pg.max_pool(few, kernel_size, **options), expected)


@pytest.mark.parametrize("count_include_pad", [True, False], ids=["include", "exclude"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("shape", "kernel_size", "options"), MIDDLE, ids=MIDDLE_IDS)
def test_middle_sized_average(shape, kernel_size, options, layout, dtype, count_include_pad):
    x = fill("normal", in_layout(shape, layout), dtype, 7)
    options = {**options, "layout": layout, "count_include_pad": count_include_pad}
    y = pg.avg_pool(x, kernel_size, **options)
    assert_close(y, windowed.avg_pool(x, kernel_size, **options))
    if layout == "channels_first":
        last = pg.avg_pool(np.moveaxis(x, 1, -1), kernel_size, **{**options, "layout": LAYOUTS[0]})
        assert_same_bits(y, np.ascontiguousarray(np.moveaxis(last, -1, 1)))


# Without an argmax, each of these planes is made by itself; but those of the tall window together.
@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize(
    ("shape", "kernel_size"), [((2, 33, 40, 37), (11, 11)), ((2, 16, 20, 120), (35, 9))]
)
def test_planes_may_hold_a_nan_or_not(shape, kernel_size, num_threads):
    x = fill("normal", shape, np.float32, 3)
    x[0, 5, 11, 7], x[1, 10, 19, 36] = np.nan, -np.inf
    padding = tuple(k // 2 for k in kernel_size)
    options = {"stride": 1, "padding": padding, "layout": "channels_first"}
    made = pg.plan("max_pool", shape, kernel_size=kernel_size, **options)
    assert (made._program("forward").singly is None) == (kernel_size == (11, 11))
    y, argmax = pg.max_pool(x, kernel_size, return_argmax=True, num_threads=num_threads, **options)
    expected, winners, _ = windowed.max_pool(x, kernel_size, **options)
    assert_same_bits(y, expected)
    assert_same_bits(argmax, winners)
    assert_same_bits(pg.max_pool(x, kernel_size, num_threads=num_threads, **options), expected)


def test_a_window_wider_than_an_int32_argmax_can_name_still_has_a_maximum():
    # Only four taps are real; the rest of the 2**32 are cut off by the tables, not visited.
    x = np.array([3.0, 1.0, 4.0, 2.0], np.float32).reshape(1, 4, 1)
    y = pg.max_pool(x, 2**32, stride=1, padding=((2**31, 2**31),))
    assert y.shape == (1, 5, 1)
    assert y.ravel().tolist() == [4, 4, 4, 4, 4]


def test_average_of_a_window_of_two_to_the_32():
    x = np.array([3.0, 1.0, 4.0, 2.0], np.float32).reshape(1, 4, 1)
    options = {"stride": 1, "padding": ((2**31, 2**31),)}
    y = pg.avg_pool(x, 2**32, **options)
    assert y.ravel().tolist() == [10 / 2**32] * 5
    y = pg.avg_pool(x, 2**32, count_include_pad=False, **options)
    assert y.ravel().tolist() == [2.5] * 5


@pytest.mark.parametrize("op", ["max_pool", "avg_pool"])
@pytest.mark.parametrize(
    ("kernel_size", "options"),
    [
        (2, {"stride": 2**61}),
        (1, {"stride": 1, "dilation": 2**61}),
        (2, {"stride": 1, "dilation": 2**40, "padding": "same"}),
        (2, {"stride": 2**40, "padding": 2**39}),
        (3, {"stride": 2**40, "dilation": 2**39, "padding": 2**39}),
    ],
    ids=["stride", "dilation_of_one_tap", "dilation", "padding", "everything"],
)
def test_steps_beyond_32_bits(op, kernel_size, options):
    x = fill("distinct", (1, 4, 3, 2), "float64", 0)
    y = getattr(pg, op)(x, kernel_size, **options)
    expected = getattr(reference, op)(x, kernel_size, **options)
    if op == "max_pool":
        assert_same_bits(y, expected[0])
    else:
        assert_close(y, expected)


@given(case=cases())
def test_the_input_is_left_alone(case):
    x = case.x
    before = x.copy()
    getattr(pg, case.op)(x, case.kernel_size, **case.options)
    assert_same_bits(x, before)


@given(case=cases())
def test_the_result_is_a_fresh_contiguous_array(case):
    x = case.x
    y = getattr(pg, case.op)(x, case.kernel_size, **case.options)
    assert y.shape == case.output_shape
    assert y.flags.c_contiguous
    assert y.flags.writeable
    assert not np.shares_memory(x, y)


@pytest.mark.parametrize("op", ["max_pool", "avg_pool"])
def test_defaults(op):
    x = fill("normal", (2, 5, 4, 3), "float32", 0)
    spelled = {"stride": (2, 2), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}
    function = getattr(pg, op)
    y = function(x, (2, 2), ceil_mode=False, layout="channels_last", **spelled)
    assert_same_bits(function(x, kernel_size=2), y)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel_size", [(1, 12), (1, 31), (2, 5), (3, 3)])
def test_equal_rows_have_equal_averages(kernel_size, dtype):
    # One window a row is made with those of other rows; how many there are must not matter.
    row = fill("normal", (1, 1, kernel_size[1], 1), dtype, 0)
    for rows in (kernel_size[0], 7, 16, 20):
        x = np.repeat(row, rows, axis=1)
        y = pg.avg_pool(x, kernel_size, stride=1)
        assert_same_bits(y, np.repeat(y[:, :1], y.shape[1], axis=1))
        many = pg.avg_pool(np.repeat(x, 2, axis=-1), kernel_size, stride=1)
        assert_same_bits(many[..., :1].copy(), y)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("windows", [1, 4, 7, 8, 9, 15, 16, 17, 19, 31, 32, 35, 70])
def test_rows_may_begin_anywhere_in_a_line_of_the_cache(windows, dtype):
    for size in (2, 3, 4):
        for offset in range(17):
            values = fill("normal", (offset + 3 * windows * size,), dtype, 0)
            x = values[offset:].reshape(1, 3, windows * size)
            y = pg.max_pool(x, size, layout="channels_first")
            assert_same_bits(y, x.reshape(1, 3, windows, size).max(axis=-1))


@pytest.mark.parametrize("values", ["ties", "special"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [2, 3, 4, 5, 6, 7, 8, 9])
def test_a_few_channels_two_cells_apart(channels, dtype, values):
    for kernel_size, padding in ((2, 0), (3, 0), (3, 1), ((1, 4), 0), ((2, 5), (0, 2))):
        for windows in (1, 2, 3, 4, 5, 7, 8, 9, 16, 21):
            x = fill(values, (2, 6, 2 * windows + 3, channels), dtype, windows)
            options = {"stride": 2, "padding": padding}
            expected, winners, _ = windowed.max_pool(x, kernel_size, **options)
            y, argmax = pg.max_pool(x, kernel_size, return_argmax=True, **options)
            assert_same_bits(y, expected)
            assert_same_bits(argmax, winners)
            assert_same_bits(pg.max_pool(x, kernel_size, **options), expected)
            sums = windowed.avg_pool(x, kernel_size, **options)
            assert_close(pg.avg_pool(x, kernel_size, **options), sums)
