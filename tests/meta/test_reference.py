"""The oracle itself: against vectors computed by hand, NumPy's own reductions and each other."""

import numpy as np
import pytest
from hypothesis import given

import reference
import windowed
from compare import assert_same_bits
from strategies import adaptive_cases, avg_cases, cases, fill, max_cases


@pytest.mark.parametrize(
    ("arguments", "out"),
    [
        ((32, 1, 2, 0, 0), 16),
        ((5, 2, 2, 1, 1), 3),
        ((5, 3, 3, 1, 1), 2),
        ((5, 2, 2, 0, 0), 3),
        ((2, 3, 2, 0, 0), 1),
        ((2, 3, 1, 0, 0), 0),
        ((1, 2, 4, 0, 8), 2),
    ],
)
def test_ceil_rule(arguments, out):
    assert reference.windows_of(*arguments, ceil_mode=True) == out


@pytest.mark.parametrize(
    ("name", "row", "pads"),
    [
        ("same", (5, 2, 1, 1), (0, 1)),
        ("same", (5, 2, 2, 1), (0, 1)),
        ("same", (4, 3, 1, 2), (2, 2)),
        ("same", (9, 2, 4, 1), (0, 1)),
        ("same", (11, 2, 4, 1), (0, 0)),
        ("same_lower", (5, 2, 1, 1), (1, 0)),
        ("same_size", (5, 2, 2, 1), (2, 3)),
        ("same_size", (5, 3, 1, 1), (1, 1)),
        ("valid", (5, 3, 1, 1), (0, 0)),
    ],
)
def test_named_pads(name, row, pads):
    assert reference.named_pads(name, *row) == pads


@given(case=cases())
def test_named_pads_give_the_named_sizes(case):
    geo = case.geometry
    sizes = reference.spatial_shape(case.shape, case.layout)
    expected = {
        "same": tuple(-(-i // a.stride) for i, a in zip(sizes, geo.axes, strict=True)),
        "same_size": sizes,
    }
    expected["same_lower"] = expected["same"]
    name = case.padding if isinstance(case.padding, str) else None
    assert geo.out == expected.get(name, geo.out)


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
def test_planes_round_trip(layout):
    x = fill("normal", (2, 3, 4, 5), "float32", 0)
    planes = reference.to_planes(x, layout)
    assert planes.shape == ((10, 3, 4) if layout == "channels_last" else (6, 4, 5))
    assert_same_bits(reference.from_planes(planes, x.shape, layout), x)


def test_max_agrees_with_sliding_windows():
    x = fill("normal", (2, 7, 6, 3), "float64", 0)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 2), (1, 2))[:, ::2, ::3]
    y, argmax = reference.max_pool(x, (3, 2), stride=(2, 3))
    flat = windows.reshape(*windows.shape[:4], 6)
    assert_same_bits(y, np.ascontiguousarray(flat.max(-1)))
    assert (argmax == flat.argmax(-1)).all()


def test_average_agrees_with_sliding_windows():
    x = fill("normal", (2, 3, 7, 6), "float64", 0)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 2), (2, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 2), (2, 3))[:, :, ::2, ::1]
    options = {"stride": (2, 1), "padding": ((1, 2), (2, 1)), "layout": "channels_first"}
    sums = reference.avg_pool(x, (3, 2), **options)
    np.testing.assert_allclose(sums.value, windows.mean((-2, -1)), rtol=0, atol=1e-15)
    assert sums.terms.min() == 0
    assert sums.terms.max() == 6


def test_max_rules_by_hand():
    nan, inf = np.nan, np.inf
    x = np.array([[1, 1, 0], [nan, 2, nan], [-inf, -inf, -inf], [-0.0, 0.0, -1]])
    y, argmax = reference.max_pool(x.reshape(4, 3, 1), 3)
    assert_same_bits(y.ravel(), np.array([1, nan, -inf, -0.0]))
    assert argmax.ravel().tolist() == [0, 0, 0, 0]


def test_argmax_counts_clipped_taps():
    x = np.array([5.0, 1.0, 2.0]).reshape(1, 3, 1)
    _, argmax = reference.max_pool(x, 3, stride=2, padding=1)
    assert argmax.ravel().tolist() == [1, 1]


def test_empty_window():
    options = {"stride": 1, "padding": 1, "dilation": 2}
    y, argmax = reference.max_pool(np.ones((1, 1, 1)), 2, **options)
    assert y.ravel().tolist() == [-np.inf]
    assert argmax.ravel().tolist() == [255]
    for count_include_pad in (True, False):
        sums = reference.avg_pool(
            np.ones((1, 1, 1)), 2, count_include_pad=count_include_pad, **options
        )
        assert sums.value.ravel().tolist() == [0]
    assert reference.argmax_to_indices(argmax, (1, 1, 1), 2, **options).ravel().tolist() == [-1]


@pytest.mark.parametrize(
    ("options", "divisors"),
    [
        ({}, [3, 3, 2]),
        ({"count_include_pad": False}, [2, 3, 1]),
        ({"divisor_override": 5}, [5, 5, 5]),
    ],
)
def test_divisors(options, divisors):
    # Taps -1..1, 1..3, 3..5 of a size 4 with one zero on either side: 5 is overhang.
    geo = reference.geometry((1, 4, 1), 3, stride=2, padding=1, ceil_mode=True)
    assert [geo.divisor((j,), **options) for j in range(3)] == divisors


def test_backward_by_hand():
    x = np.array([1.0, 3.0, 2.0, 3.0]).reshape(1, 4, 1)
    dy = np.array([1.0, 10.0, 100.0]).reshape(1, 3, 1)
    _, argmax = reference.max_pool(x, 2, stride=1)
    dx = reference.max_pool_backward(dy, argmax, x.shape, 2, stride=1)
    assert dx.ravel().tolist() == [0, 11, 0, 100]
    sums = reference.avg_pool_backward(dy, x.shape, 2, stride=1)
    assert sums.value.ravel().tolist() == [0.5, 5.5, 55, 50]
    assert sums.terms.ravel().tolist() == [1, 2, 2, 1]


def test_indices_by_hand():
    x = np.array([[0.0, 1, 2], [3, 9, 4], [5, 6, 7]]).reshape(1, 3, 3, 1)
    _, argmax = reference.max_pool(x, 2, stride=1)
    indices = reference.argmax_to_indices(argmax, x.shape, 2, stride=1)
    assert argmax.ravel().tolist() == [3, 2, 1, 0]
    assert indices.ravel().tolist() == [4, 4, 4, 4]


@pytest.mark.parametrize(
    ("size", "out", "windows"),
    [
        (5, 1, [[0, 1, 2, 3, 4]]),
        (5, 2, [[0, 1, 2], [2, 3, 4]]),
        (5, 3, [[0, 1], [1, 2, 3], [3, 4]]),
        (6, 3, [[0, 1], [2, 3], [4, 5]]),
        (3, 3, [[0], [1], [2]]),
        (2, 3, [[0], [0, 1], [1]]),
        (1, 2, [[0], [0]]),
        (2, 4, [[0], [0], [1], [1]]),
    ],
)
def test_adaptive_windows(size, out, windows):
    (axis,) = reference.geometry((1, size, 1), output_size=out).axes
    assert [list(axis.cells(j)) for j in range(out)] == windows
    assert axis.kernel == max(map(len, windows))
    taps = [[axis.tap(j, t) for t in range(axis.kernel)] for j in range(out)]
    assert [[t for t in row if axis.is_real(t)] for row in taps] == windows


def test_an_adaptive_axis_may_stay_as_it_is():
    geo = reference.geometry((1, 5, 6, 1), output_size=(None, 4))
    assert geo.out == (5, 4)
    assert geo.kernel == (1, 2)


def test_an_adaptive_argmax_counts_taps_in_the_largest_box():
    # Windows of 1, 2 and 1 columns, so each row of the box has two places.
    x = np.array([[3.0, 2], [4, 1]]).reshape(1, 2, 2, 1)
    y, argmax = reference.max_pool(x, output_size=(1, 3))
    assert y.ravel().tolist() == [4, 4, 2]
    assert argmax.ravel().tolist() == [2, 2, 0]


def test_zeros_take_part():
    x = np.full((1, 2, 2, 1), -1.0)
    y = reference.pool2d_forward(x, 2, stride=2, pad=1)
    assert y.ravel().tolist() == [0, 0, 0, 0]
    dx = reference.pool2d_backward(np.ones_like(y), x, 2, stride=2, pad=1)
    assert dx.ravel().tolist() == [0, 0, 0, 0]


def test_an_earlier_zero_of_the_input_beats_a_later_padded_one():
    x = np.zeros((1, 1, 1, 1))
    args = (2, 1, (0, 1, 0, 1))
    dx = reference.pool2d_backward(np.ones((1, 1, 1, 1)), x, *args)
    assert dx.item() == 1
    args = (2, 1, (1, 0, 1, 0))
    dx = reference.pool2d_backward(np.ones((1, 1, 1, 1)), x, *args)
    assert dx.item() == 0


def assert_same_sums(actual, expected):
    np.testing.assert_array_equal(actual.terms, expected.terms)
    # The two add in different orders, both in float64.
    tolerance = {"rtol": 1e-13, "atol": 1e-300}
    np.testing.assert_allclose(actual.magnitude, expected.magnitude, **tolerance)
    with np.errstate(invalid="ignore"):
        error = actual.value - expected.value
        small = np.abs(error) <= 1e-13 * expected.magnitude + 1e-300
    finite = np.isfinite(expected.value)
    assert small[finite].all()
    np.testing.assert_array_equal(actual.value[~finite], expected.value[~finite])


@given(case=max_cases(empty=False))
def test_windowed_max_is_the_definition(case):
    y, argmax = reference.max_pool(case.x, case.kernel_size, **case.options)
    fast_y, fast_argmax, indices = windowed.max_pool(case.x, case.kernel_size, **case.options)
    assert_same_bits(fast_y, y)
    assert_same_bits(fast_argmax, argmax)
    assert_same_bits(
        indices,
        reference.argmax_to_indices(argmax, case.shape, case.kernel_size, **case.options),
    )
    assert_same_bits(
        windowed.max_pool_backward(case.dy, indices, case.shape, layout=case.layout),
        reference.max_pool_backward(case.dy, argmax, case.shape, case.kernel_size, **case.options),
    )


@given(case=adaptive_cases(ops=("adaptive_max_pool",), empty=False))
def test_windowed_adaptive_max_is_the_definition(case):
    y, argmax = reference.max_pool(case.x, **case.options)
    fast_y, fast_argmax, indices = windowed.max_pool(case.x, **case.options)
    assert_same_bits(fast_y, y)
    assert_same_bits(fast_argmax, argmax)
    expected = reference.argmax_to_indices(argmax, case.shape, **case.options)
    assert_same_bits(indices, expected)


@given(case=adaptive_cases(ops=("adaptive_avg_pool",), empty=False))
def test_windowed_adaptive_average_is_the_definition(case):
    fast = windowed.avg_pool(case.x, **case.options)
    assert_same_sums(fast, reference.avg_pool(case.x, **case.options))
    fast = windowed.avg_pool_backward(case.dy, case.shape, **case.options)
    slow = reference.avg_pool_backward(case.dy, case.shape, **case.options)
    assert_same_sums(fast, slow)


@given(case=avg_cases(empty=False))
def test_windowed_average_is_the_definition(case):
    fast = windowed.avg_pool(case.x, case.kernel_size, **case.options)
    assert_same_sums(fast, reference.avg_pool(case.x, case.kernel_size, **case.options))
    fast = windowed.avg_pool_backward(case.dy, case.shape, case.kernel_size, **case.options)
    slow = reference.avg_pool_backward(case.dy, case.shape, case.kernel_size, **case.options)
    assert_same_sums(fast, slow)
