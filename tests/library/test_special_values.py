"""NaN, infinities, ties and the bits of the kept value, in every lane."""

import numpy as np
import pytest

import poolgrad as pg
import reference
import windowed
from compare import assert_same_bits
from strategies import DTYPES, LAYOUTS, fill

CHANNELS = range(1, 34)
# (kernel, stride, padding) by what a library may do differently for them.
WINDOWS = {
    "apart": (2, 2, 0),
    "overlapping": (3, 1, 1),
    "strided": (3, 2, 1),
    "wide": (9, 1, 4),
}


def in_layout(x, layout):
    return x if layout == "channels_last" else np.ascontiguousarray(np.moveaxis(x, -1, 1))


@pytest.mark.parametrize("values", ["special", "zeros", "infinities", "ties"])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", CHANNELS)
def test_every_lane_keeps_the_laws(channels, layout, window, values):
    kernel, stride, padding = WINDOWS[window]
    options = {"stride": stride, "padding": padding, "layout": layout}
    x = in_layout(fill(values, (1, 10, 11, channels), "float32", channels), layout)
    expected, winners, indices = windowed.max_pool(x, kernel, **options)
    y, argmax = pg.max_pool(x, kernel, return_argmax=True, **options)
    assert_same_bits(y, expected)
    assert_same_bits(argmax, winners)
    assert_same_bits(pg.max_pool(x, kernel, **options), expected)
    dy = fill("distinct", y.shape, "float32", channels)
    dx = windowed.max_pool_backward(dy, indices, x.shape, layout=layout)
    assert_same_bits(pg.max_pool_backward(dy, x, kernel, **options), dx)


@pytest.mark.parametrize("special", [np.nan, -np.inf])
@pytest.mark.parametrize("window", [(2, 2), (2, 5), (1, 4)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [1, 2, 3, 5, 8, 17])
def test_a_value_in_the_last_of_many_planes_is_seen(channels, layout, dtype, window, special):
    options = {"stride": (2, 2), "layout": layout}
    x = in_layout(fill("normal", (6, 8, 19, channels), dtype, channels), layout)
    (x[-1, ..., -1] if layout == "channels_last" else x[-1, -1])[3, 5:9] = special
    expected, winners, _ = windowed.max_pool(x, window, **options)
    y, argmax = pg.max_pool(x, window, return_argmax=True, **options)
    assert_same_bits(y, expected)
    assert_same_bits(argmax, winners)
    assert_same_bits(pg.max_pool(x, window, **options), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("position", range(9))
def test_the_first_nan_wins_from_every_position(position, dtype):
    x = np.full((3, 3), np.inf, dtype)
    x.ravel()[position:] = np.nan
    y, argmax = pg.max_pool(x.reshape(1, 3, 3, 1), 3, return_argmax=True)
    assert np.isnan(y.item())
    assert argmax.item() == position
    dx = pg.max_pool_backward(np.ones_like(y), x.reshape(1, 3, 3, 1), 3)
    assert np.flatnonzero(dx).tolist() == [position]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("first", [0.0, -0.0])
@pytest.mark.parametrize("axis", ["row", "column"])
def test_the_first_zero_keeps_its_sign(first, axis, dtype):
    x = np.array([first, -first, first, -first], dtype)
    x = x.reshape((1, 1, 4, 1) if axis == "row" else (1, 4, 1, 1))
    kernel = x.shape[1:3]
    with_argmax, argmax = pg.max_pool(x, kernel, return_argmax=True)
    without = pg.max_pool(x, kernel)
    assert np.signbit(with_argmax.item()) == np.signbit(without.item()) == np.signbit(first)
    assert argmax.item() == 0


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_ties_between_rows_go_to_the_upper_one(dtype, layout):
    # The larger column index in the upper row comes first in row-major order.
    rows = np.array([[0, 0, 5], [5, 0, 0], [5, 5, 5]], dtype)
    x = rows.reshape((1, 3, 3, 1) if layout == "channels_last" else (1, 1, 3, 3))
    _, argmax = pg.max_pool(x, 3, layout=layout, return_argmax=True)
    assert argmax.item() == 2


@pytest.mark.parametrize("dtype", DTYPES)
def test_ties_between_slices_go_to_the_first(dtype):
    x = np.zeros((1, 2, 2, 2, 1), dtype)
    x[0, 0, 1, 1] = x[0, 1, 0, 0] = 3
    _, argmax = pg.max_pool(x, 2, return_argmax=True)
    assert argmax.item() == 3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", [2, 7, 16, 33])
def test_constant_rows_name_their_first_tap(kernel, dtype):
    x = np.zeros((1, 80, 3), dtype)
    _, argmax = pg.max_pool(x, kernel, stride=1, return_argmax=True)
    assert not argmax.any()
    dx = pg.max_pool_backward(np.ones(argmax.shape, dtype), x, kernel, stride=1)
    expected = (np.arange(80) <= 80 - kernel).astype(dtype)
    assert_same_bits(dx, np.repeat(expected[None, :, None], 3, 2))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("padding", [0, 1])
def test_the_identity_never_beats_a_real_minus_infinity(padding, dtype):
    x = np.full((1, 4, 4, 2), -np.inf, dtype)
    y, argmax = pg.max_pool(x, 2, stride=2, padding=padding, return_argmax=True)
    assert (y == -np.inf).all()
    assert (argmax != 255).all()
    dx = pg.max_pool_backward(np.ones_like(y), x, 2, stride=2, padding=padding)
    assert dx.sum() == y.size


@pytest.mark.parametrize("dtype", DTYPES)
def test_subnormals_are_not_flushed(dtype):
    least = np.finfo(dtype).smallest_subnormal
    x = np.array([0, least, -least, 2 * least], dtype).reshape(1, 4, 1)
    assert_same_bits(pg.max_pool(x, 2), np.array([[[least], [2 * least]]], dtype))
    total = pg.avg_pool(x, 4, divisor_override=1)
    assert_same_bits(total, np.array([[[2 * least]]], dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_average_of_opposite_infinities_is_nan(dtype):
    x = np.array([np.inf, -np.inf, 1, np.inf], dtype).reshape(1, 4, 1)
    y = pg.avg_pool(x, 2, stride=1).ravel()
    np.testing.assert_array_equal(y, [np.nan, -np.inf, np.inf])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", ["max_pool", "avg_pool"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_special_gradient_stays_in_its_window(value, op, dtype):
    x = fill("distinct", (1, 60, 1), dtype, 0)
    dy = np.zeros((1, 52, 1), dtype)
    dy[0, 20] = value
    dx = getattr(pg, f"{op}_backward")(dy, x, 9, stride=1).ravel()
    touched = np.flatnonzero(~np.isfinite(dx))
    if op == "max_pool":
        assert touched.tolist() == [20 + int(x.ravel()[20:29].argmax())]
    else:
        assert touched.tolist() == list(range(20, 29))
    assert not np.delete(dx, touched).any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 30, 31, 1), (1, 12, 11, 5), (1, 200, 3)])
@pytest.mark.parametrize("kernel", [2, 5, 9])
def test_signed_zeros_survive_wide_windows(shape, kernel, dtype):
    x = fill("zeros", shape, dtype, 11)
    options = {"stride": 1, "padding": kernel // 2}
    expected, winners, _ = windowed.max_pool(x, kernel, **options)
    y, argmax = pg.max_pool(x, kernel, return_argmax=True, **options)
    assert_same_bits(y, expected)
    assert_same_bits(argmax, winners)
    assert_same_bits(pg.max_pool(x, kernel, **options), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [1, 3, 40])
@pytest.mark.parametrize(("kernel", "stride"), [(2, 1), (3, 1), (2, 2), (3, 3), (6, 3), (40, 1)])
def test_a_sum_of_negative_zeros_is_one(kernel, stride, channels, layout):
    # As the definition has it: the first tap, and then the others added.
    x = in_layout(np.full((1, 40, 40, channels), -0.0, "float32"), layout)
    y = pg.avg_pool(x, kernel, stride=stride, layout=layout)
    assert np.signbit(y).all()
    dx = pg.avg_pool_backward(-np.abs(y), x.shape, kernel, stride=stride, layout=layout)
    covered = pg.avg_pool_backward(np.ones_like(y), x.shape, kernel, stride=stride, layout=layout)
    np.testing.assert_array_equal(np.signbit(dx), covered > 0)


def test_nan_in_the_padding_frame_is_the_users():
    # With exclude, a NaN beside the padding is still counted and spreads to its windows only.
    x = np.array([np.nan, 1, 1, 1], "float32").reshape(1, 4, 1)
    sums = reference.avg_pool(x, 3, stride=1, padding=1, count_include_pad=False)
    y = pg.avg_pool(x, 3, stride=1, padding=1, count_include_pad=False)
    assert np.isnan(y).ravel().tolist() == [True, True, False, False]
    assert np.isnan(sums.value).ravel().tolist() == [True, True, False, False]
