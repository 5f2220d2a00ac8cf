"""Small vectors on which pooling libraries have disagreed, with the answers of this one's rules.

The comment on each names where the question was raised.
"""

import numpy as np
import pytest

import poolgrad as pg
from compare import assert_same_bits
from strategies import DTYPES


def series(*values, dtype="float64"):
    return np.array(values, dtype).reshape(1, -1, 1)


def image(rows, dtype="float64"):
    rows = np.array(rows, dtype)
    return rows.reshape(1, *rows.shape, 1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_ceil_overhang_is_not_counted(dtype):
    # A naive divisor gives 2.5 for the last.
    x = series(1, 2, 3, 4, 5, dtype=dtype)
    y = pg.avg_pool(x, 2, ceil_mode=True)
    assert y.ravel().tolist() == [1.5, 3.5, 5.0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_explicit_padding_is_counted_and_overhang_is_not(dtype):
    # https://github.com/pytorch/pytorch/issues/183528
    x = image(np.arange(1, 17).reshape(4, 4), dtype)
    y = pg.avg_pool(x, 3, stride=2, padding=1, ceil_mode=True)
    expected = [[14 / 9, 30 / 9, 12 / 6], [57 / 9, 99 / 9, 36 / 6], [27 / 6, 45 / 6, 16 / 4]]
    np.testing.assert_allclose(y[0, ..., 0], expected, rtol=np.finfo(dtype).eps * 2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_ceil_average_of_7_by_7(dtype):
    # https://github.com/apple/coremltools/pull/2844
    x = image(np.arange(49).reshape(7, 7), dtype)
    y = pg.avg_pool(x, 2, stride=3, ceil_mode=True)
    assert y[0, ..., 0].tolist() == [[4, 7, 9.5], [25, 28, 30.5], [42.5, 45.5, 48]]


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "out"),
    [
        (32, 1, 2, 0, 16),  # https://github.com/pytorch/pytorch/issues/57178
        (5, 2, 2, 1, 3),  # https://github.com/tracel-ai/burn/pull/5791
        (5, 3, 3, 1, 2),  # https://github.com/webmachinelearning/webnn/issues/935
        (5, 2, 2, 0, 3),
        (2, 3, 2, 0, 1),
    ],
)
def test_ceil_sizes(size, kernel, stride, padding, out):
    x = np.zeros((1, size, 1))
    y = pg.max_pool(x, kernel, stride=stride, padding=padding, ceil_mode=True)
    assert y.shape == (1, out, 1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_padding_does_not_win_over_negative_numbers(dtype):
    # https://github.com/uxlfoundation/oneDNN/issues/1094
    x = np.full((1, 2, 2, 1), -1, dtype)
    assert pg.max_pool(x, 2, padding=1).ravel().tolist() == [-1, -1, -1, -1]


@pytest.mark.parametrize("dtype", DTYPES)
def test_mean_of_4096_ones(dtype):
    # Accumulators that saturate fall short of 1.
    assert pg.avg_pool(np.ones((1, 64, 64, 1), dtype), 64).item() == 1.0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", [3, 16, 31])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_special_value_stays_in_its_windows(dtype, kernel, value):
    # https://github.com/scipy/scipy/issues/7818
    x = np.ones((1, 200, 1), dtype)
    x[0, 90] = value
    y = pg.avg_pool(x, kernel, stride=1)
    starts = np.arange(y.size)
    touched = (starts <= 90) & (starts + kernel > 90)
    assert touched.sum() == kernel
    np.testing.assert_array_equal(y.ravel(), np.where(touched, value, 1.0))


def test_the_first_of_equal_values_takes_the_gradient():
    x = series(1, 2, 2, 2)
    dx = pg.max_pool_backward(np.ones((1, 1, 1)), x, 4)
    assert dx.ravel().tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize("channels", range(1, 34))
def test_identical_channels_stay_identical(channels, layout):
    # https://github.com/tensorflow/tensorflow/issues/125965
    one = np.array([1, np.nan, 0, 3, 2, np.nan, -1, 5, 4], "float32")
    x = np.repeat(one[None, :, None], channels, 2)
    if layout == "channels_first":
        x = x.transpose(0, 2, 1)
    y, argmax = pg.max_pool(x, 3, stride=1, layout=layout, return_argmax=True)
    axis = 2 if layout == "channels_last" else 1
    for array in (y, argmax):
        lanes = np.moveaxis(array, axis, 0).reshape(channels, -1)
        np.testing.assert_array_equal(lanes, np.broadcast_to(lanes[:1], lanes.shape))
    nan = np.nan
    lane = np.moveaxis(y, axis, 0)[0].ravel()
    np.testing.assert_array_equal(lane, [nan, nan, 3, nan, nan, nan, 5])
    assert np.moveaxis(argmax, axis, 0)[0].ravel().tolist() == [1, 0, 1, 2, 1, 0, 1]


@pytest.mark.parametrize("op", ["max_pool", "avg_pool"])
def test_an_empty_batch(op):
    # https://github.com/pytorch/pytorch/issues/64306
    x = np.zeros((0, 4, 4, 3), "float32")
    y = getattr(pg, op)(x, 2)
    assert y.shape == (0, 2, 2, 3)
    dx = getattr(pg, f"{op}_backward")(y, x, 2)
    assert dx.shape == x.shape
    assert dx.dtype == y.dtype == "float32"


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (2, 1), (3, ((0, 2), (2, 0)))])
def test_the_gradients_sum_is_kept(stride, padding):
    x = np.arange(36.0).reshape(1, 6, 6, 1)[:, ::-1]
    y = pg.max_pool(x, 3, stride=stride, padding=padding)
    dy = np.arange(1.0, y.size + 1).reshape(y.shape)
    dx = pg.max_pool_backward(dy, x, 3, stride=stride, padding=padding)
    assert dx.sum() == dy.sum()


def test_a_dilated_window_with_no_real_tap():
    # Both taps of a dilated pair fall beside a single element: no index may be stored for them.
    x = series(7)
    options = {"stride": 1, "padding": 1, "dilation": 2}
    y, argmax = pg.max_pool(x, 2, return_argmax=True, **options)
    assert y.ravel().tolist() == [-np.inf]
    assert argmax.ravel().tolist() == [255]
    assert pg.max_pool_backward(np.ones_like(y), x, 2, **options).ravel().tolist() == [0]
    assert pg.avg_pool(x, 2, **options).ravel().tolist() == [0]
    assert pg.avg_pool_backward(np.ones_like(y), x, 2, **options).ravel().tolist() == [0]


def test_ceil_overhang_lies_behind_the_input_only():
    # Splitting the overhang between both sides would give [1.5, 3.0].
    x = series(1, 2, 3, 4)
    assert pg.avg_pool(x, 3, ceil_mode=True).ravel().tolist() == [2, 4]


def test_a_window_of_minus_infinities_has_a_winner():
    # A seed of the lowest finite number would be the result.
    x = series(-np.inf, -np.inf, -np.inf)
    y, argmax = pg.max_pool(x, 2, stride=1, return_argmax=True)
    assert y.ravel().tolist() == [-np.inf, -np.inf]
    assert argmax.ravel().tolist() == [0, 0]
    dx = pg.max_pool_backward(np.ones_like(y), x, 2, stride=1)
    assert dx.ravel().tolist() == [1, 1, 0]


def test_nans_of_the_user_are_not_padding():
    x = series(np.nan, 2, 4)
    y = pg.avg_pool(x, 2, stride=1, padding=1, count_include_pad=False)
    np.testing.assert_array_equal(y.ravel(), [np.nan, np.nan, 3, 4])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("same", [1, 3, 4]),
        ("same_lower", [0, 2, 4]),
        ("same_size", [-np.inf, 1, 3, 4, -np.inf]),
        ("valid", [1, 3]),
    ],
)
def test_named_paddings(name, expected):
    y = pg.max_pool(series(0, 1, 2, 3, 4), 2, stride=2, padding=name)
    assert y.ravel().tolist() == expected


def test_same_counts_dilation():
    # Effective kernel 3: one before, one after.
    y = pg.max_pool(series(1, 2, 3, 4), 2, stride=1, dilation=2, padding="same")
    assert y.ravel().tolist() == [2, 3, 4, 3]


def test_named_pads_count_in_the_average():
    x = series(2, 4, 6)
    assert pg.avg_pool(x, 2, stride=1, padding="same").ravel().tolist() == [3, 5, 3]
    y = pg.avg_pool(x, 2, stride=1, padding="same", count_include_pad=False)
    assert y.ravel().tolist() == [3, 5, 6]


def test_divisor_override_holds_at_the_edges_and_backward():
    x = series(1, 2, 3)
    options = {"stride": 1, "padding": 1, "divisor_override": 2}
    assert pg.avg_pool(x, 3, **options).ravel().tolist() == [1.5, 3, 2.5]
    dx = pg.avg_pool_backward(np.ones_like(x), x.shape, 3, **options)
    assert dx.ravel().tolist() == [1, 1.5, 1]


def test_argmax_counts_clipped_taps_and_indices_do_not():
    x = image([[1, 2], [3, 4]])
    plan = pg.plan("max_pool", x.shape, x.dtype, kernel_size=3, stride=2, padding=1)
    y, argmax = plan.forward(x, return_argmax=True)
    assert y.item() == 4
    assert argmax.item() == 8
    assert pg.argmax_to_indices(argmax, plan).item() == 3


@pytest.mark.parametrize(
    ("kernel", "dtype", "last"), [((15, 17), np.uint8, 254), ((16, 16), np.int32, 255)]
)
def test_argmax_grows_past_255_taps(kernel, dtype, last):
    x = np.zeros((1, *kernel, 1), "float32")
    x[0, -1, -1] = 1
    _, argmax = pg.max_pool(x, kernel, return_argmax=True)
    assert argmax.dtype == dtype
    assert argmax.item() == last
    dx = pg.max_pool_backward(np.ones((1, 1, 1, 1), "float32"), x.shape, kernel, argmax=argmax)
    assert_same_bits(dx, x)
