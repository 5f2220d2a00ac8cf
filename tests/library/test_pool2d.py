"""The classic layer: zeros that take part in the maximum, and the true gradient of that."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import poolgrad as pg
import reference
from compare import assert_close, assert_same_bits
from strategies import fill

MODES = ["max", "average"]


def check(actual, expected):
    if isinstance(expected, reference.Sums):
        assert_close(actual, expected)
    else:
        assert_same_bits(actual, expected)


@st.composite
def layers(draw):
    """Draw (X, kernel_shape, stride, pad, mode) of a layer that has an output."""
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    stride = draw(st.integers(1, 3) | st.tuples(st.integers(1, 3), st.integers(1, 3)))
    sides = st.integers(0, 3)
    pad = draw(st.sampled_from(["same", "valid"]) | sides | st.tuples(sides, sides, sides, sides))
    sizes = [draw(st.integers(max(k, 1), 6)) for k in kernel]
    mode = draw(st.sampled_from(MODES))
    kinds = ["normal", "ties", "zeros", "special", "infinities", "subnormal"]
    values = draw(st.sampled_from(kinds))
    shape = (draw(st.integers(0, 2)), *sizes, draw(st.integers(1, 3)))
    dtype = draw(st.sampled_from(["float32", "float64"]))
    X = fill(values, shape, dtype, draw(st.integers(0, 999)))
    return X, kernel, stride, pad, mode


@given(drawn=layers())
def test_forward_and_backward_are_those_of_the_zero_padded_frame(drawn):
    X, kernel, stride, pad, mode = drawn
    layer = pg.Pool2D(kernel, stride=stride, pad=pad, mode=mode)
    Y = layer.forward(X)
    check(Y, reference.pool2d_forward(X, kernel, stride, pad, mode))
    assert Y.dtype == X.dtype
    dLdy = fill("normal", Y.shape, X.dtype, 1)
    dX = layer.backward(dLdy)
    check(dX, reference.pool2d_backward(dLdy, X, kernel, stride, pad, mode))
    assert dX.dtype == X.dtype


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pad", [0, 1, 2, (1, 0, 1, 0), (0, 2, 1, 0), "same", "valid"], ids=str)
@pytest.mark.parametrize("stride", [1, 2, (1, 2)], ids=str)
@pytest.mark.parametrize("kernel", [2, 3, (2, 3)], ids=str)
def test_gradient_is_that_of_the_forward(kernel, stride, pad, mode):
    # Halves: no value is 0, and none comes within the step of another or of the padding's zero.
    X = fill("distinct", (1, 4, 5, 2), "float64", 3) + 0.5
    layer = pg.Pool2D(kernel, stride=stride, pad=pad, mode=mode)
    dLdy = fill("distinct", layer.forward(X).shape, "float64", 4)
    dX = layer.backward(dLdy)
    for index in itertools.islice(np.ndindex(X.shape), 0, None, 3):
        up, down = X.copy(), X.copy()
        up[index] += 0.25
        down[index] -= 0.25
        ahead, behind = (layer.forward(x, retain_derived=False) for x in (up, down))
        slope = np.vdot(dLdy, ahead - behind) / 0.5
        assert abs(dX[index] - slope) <= (0 if mode == "max" else 1e-9)


def test_zeros_of_the_padding_win_over_negative_numbers():
    X = np.full((1, 4, 4, 1), -1.0)
    layer = pg.Pool2D(3, pad=1)
    Y = layer.forward(X)
    expected = np.zeros((4, 4))
    expected[1:-1, 1:-1] = -1
    assert_same_bits(Y[0, ..., 0].copy(), expected)
    dX = layer.backward(np.ones_like(Y))
    assert dX.sum() == 4


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("pad", "gradient"),
    [((1, 0, 0, 0), 0), ((0, 0, 1, 0), 0), ((0, 1, 0, 0), 1), ((0, 0, 0, 1), 1)],
)
def test_a_tie_of_zeros_goes_to_the_first_in_the_frame(pad, gradient, dtype):
    top, bottom, left, right = pad
    layer = pg.Pool2D((1 + top + bottom, 1 + left + right), pad=pad)
    Y = layer.forward(np.zeros((1, 1, 1, 1), dtype))
    assert_same_bits(Y, np.zeros((1, 1, 1, 1), dtype))
    assert layer.backward(np.ones_like(Y)).item() == gradient


@pytest.mark.parametrize(("pad", "negative"), [((0, 1, 0, 0), True), ((1, 0, 0, 0), False)])
def test_a_negative_zero_keeps_its_sign_only_before_the_padding(pad, negative):
    layer = pg.Pool2D((2, 1), pad=pad)
    Y = layer.forward(np.full((1, 1, 1, 1), -0.0))
    assert Y.item() == 0
    assert np.signbit(Y.item()) == negative


@pytest.mark.parametrize("pad", [(1, 0, 1, 0), (0, 1, 0, 1), 1])
def test_a_nan_beats_the_padding(pad):
    layer = pg.Pool2D(2, pad=pad)
    X = np.full((1, 2, 2, 1), np.nan)
    Y = layer.forward(X)
    assert np.isnan(Y).all()
    assert layer.backward(np.ones_like(Y)).sum() == Y.size


@pytest.mark.parametrize("mode", MODES)
def test_a_window_of_padding_only_is_zero(mode):
    layer = pg.Pool2D(2, stride=2, pad=2, mode=mode)
    Y = layer.forward(np.full((1, 2, 2, 1), -3.0))
    assert Y[0, 0, 0, 0] == Y[0, 2, 2, 0] == 0
    assert not np.signbit(Y[0, 0, 0, 0])
    assert (layer.backward(np.where(Y == 0, 7.0, 0.0)) == 0).all()


def test_average_counts_every_zero():
    layer = pg.Pool2D(2, stride=2, pad=1, mode="average")
    Y = layer.forward(np.full((1, 2, 2, 1), 8.0))
    assert Y.ravel().tolist() == [2, 2, 2, 2]
    assert layer.backward(np.full_like(Y, 4.0)).ravel().tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_same_keeps_the_size_at_every_stride(stride):
    layer = pg.Pool2D(2, stride=stride, pad="same")
    X = fill("normal", (1, 5, 4, 2), "float64", 0)
    assert layer.forward(X).shape == X.shape


def test_same_puts_the_odd_zero_at_the_bottom_and_the_right():
    X = np.arange(1.0, 5).reshape(1, 2, 2, 1)
    Y = pg.Pool2D(2, pad="same", mode="average").forward(X)
    assert Y.ravel().tolist() == [2.5, 1.5, 1.75, 1.0]


def test_the_sides_are_top_bottom_left_right():
    X = np.ones((1, 2, 2, 1))
    Y = pg.Pool2D(1, pad=(1, 2, 3, 4)).forward(X)
    assert Y.shape == (1, 5, 9, 1)
    assert np.argwhere(Y[0, ..., 0]).tolist() == [[1, 3], [1, 4], [2, 3], [2, 4]]


def test_defaults():
    X = fill("normal", (2, 5, 4, 3), "float64", 0)
    Y = pg.Pool2D((2, 2)).forward(X)
    assert_same_bits(Y, pg.max_pool(X, 2, stride=1))


def test_spellings():
    X = fill("normal", (1, 6, 6, 2), "float64", 0)
    Y = pg.Pool2D(kernel_shape=(2, 2), stride=2, pad=1, mode="max").forward(X)
    others = [
        pg.Pool2D(2, 2, 1),
        pg.Pool2D((2, 2), (2, 2), (1, 1, 1, 1), "max", None),
        pg.Pool2D(np.int64(2), np.int32(2), np.int8(1)),
    ]
    for layer in others:
        assert_same_bits(layer.forward(X), Y)


# ------------------------------------------------------------------------- stored forwards


@pytest.mark.parametrize("mode", MODES)
def test_several_forwards_take_a_list(mode):
    layer = pg.Pool2D(2, stride=2, pad=1, mode=mode)
    inputs = [fill("normal", (n, 4 + n, 6, 2), "float64", n) for n in (1, 2, 3)]
    outputs = [layer.forward(X) for X in inputs]
    gradients = [fill("normal", Y.shape, "float64", 9) for Y in outputs]
    dXs = layer.backward(gradients)
    assert isinstance(dXs, list)
    assert len(dXs) == 3
    for X, dLdy, dX in zip(inputs, gradients, dXs, strict=True):
        check(dX, reference.pool2d_backward(dLdy, X, 2, 2, 1, mode))


def test_backward_leaves_the_stored_forwards():
    layer = pg.Pool2D(2, pad="same")
    Y = layer.forward(fill("normal", (1, 4, 4, 1), "float64", 0))
    first = layer.backward(np.ones_like(Y))
    assert_same_bits(layer.backward(np.ones_like(Y)), first)


def test_retain_grads_has_no_effect():
    layer = pg.Pool2D(2)
    Y = layer.forward(fill("normal", (1, 4, 4, 1), "float64", 0))
    first = layer.backward(np.ones_like(Y), retain_grads=False)
    assert_same_bits(layer.backward(np.ones_like(Y), retain_grads=True), first)


def test_a_list_of_one_gives_a_list_of_one():
    layer = pg.Pool2D(2)
    Y = layer.forward(np.ones((1, 3, 3, 1)))
    dX = layer.backward(np.ones_like(Y))
    in_list = layer.backward([np.ones_like(Y)])
    assert isinstance(in_list, list)
    assert_same_bits(in_list[0], dX)


def test_a_forward_that_is_not_retained_leaves_nothing():
    layer = pg.Pool2D(2)
    X = fill("distinct", (1, 4, 4, 1), "float64", 0)
    Y = layer.forward(X)
    layer.forward(-X, retain_derived=False)
    dX = layer.backward(np.ones_like(Y))
    check(dX, reference.pool2d_backward(np.ones_like(Y), X, 2))


def test_flush_forgets():
    layer = pg.Pool2D(2)
    layer.flush_gradients()
    Y = layer.forward(np.ones((1, 3, 3, 1)))
    layer.flush_gradients()
    with pytest.raises(pg.PoolgradError):
        layer.backward(np.ones_like(Y))
    layer.forward(np.ones((1, 3, 3, 1)))
    assert layer.backward(np.ones_like(Y)).shape == (1, 3, 3, 1)


@pytest.mark.parametrize(("stored", "given"), [(0, 1), (2, 1), (1, 2), (2, 3), (3, 0)])
def test_counts_that_do_not_match(stored, given):
    layer = pg.Pool2D(2)
    for _ in range(stored):
        layer.forward(np.ones((1, 3, 3, 1)))
    dLdy = np.ones((1, 2, 2, 1))
    gradients = dLdy if given == 1 else [dLdy] * given
    with pytest.raises(pg.PoolgradError, match=r"flush_gradients\(\)") as caught:
        layer.backward(gradients)
    assert isinstance(caught.value, ValueError)
    assert str(stored) in str(caught.value)
    assert str(given) in str(caught.value)


@pytest.mark.parametrize("mode", MODES)
def test_the_callers_x_may_change_after_forward(mode):
    layer = pg.Pool2D(2, pad=1, mode=mode)
    X = fill("distinct", (1, 4, 4, 2), "float64", 0)
    Y = layer.forward(X)
    expected = layer.backward(np.ones_like(Y))
    X *= -1
    assert_same_bits(layer.backward(np.ones_like(Y)), expected)


def test_the_callers_y_may_change_after_forward():
    layer = pg.Pool2D(2, pad=1)
    Y = layer.forward(fill("distinct", (1, 4, 4, 2), "float64", 0))
    expected = layer.backward(np.ones_like(Y))
    Y[...] = np.nan
    assert_same_bits(layer.backward(np.ones(Y.shape)), expected)


def test_channels_may_change_between_forwards():
    layer = pg.Pool2D(2)
    shapes = [layer.forward(np.ones((1, 3, 3, channels))).shape for channels in (2, 5, 1)]
    assert shapes == [(1, 2, 2, 2), (1, 2, 2, 5), (1, 2, 2, 1)]


def test_a_gradient_that_is_refused_leaves_the_stored_forwards():
    layer = pg.Pool2D(2)
    Y = layer.forward(np.ones((1, 3, 3, 1)))
    with pytest.raises(pg.ShapeError):
        layer.backward(np.ones((1, 5, 5, 1)))
    assert layer.backward(np.ones_like(Y)).shape == (1, 3, 3, 1)


def test_a_forward_that_is_refused_stores_nothing():
    layer = pg.Pool2D(3)
    Y = layer.forward(np.ones((1, 3, 3, 1)))
    with pytest.raises(pg.ShapeError):
        layer.forward(np.ones((1, 2, 2, 1)))
    assert layer.backward(np.ones_like(Y)).shape == (1, 3, 3, 1)


@pytest.mark.parametrize("mode", MODES)
def test_an_empty_batch(mode):
    layer = pg.Pool2D(2, pad=1, mode=mode)
    Y = layer.forward(np.zeros((0, 4, 4, 3)))
    assert Y.shape == (0, 5, 5, 3)
    assert layer.backward(Y).shape == (0, 4, 4, 3)


# ------------------------------------------------------------------------------------ dtypes


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "uint64", "float16", ">f8"])
def test_other_real_dtypes_become_float64(dtype, mode):
    X = np.arange(16).reshape(1, 4, 4, 1).astype(dtype)
    layer = pg.Pool2D(2, stride=2, mode=mode)
    Y = layer.forward(X)
    assert Y.dtype == np.float64
    assert Y.dtype.isnative
    expected = pg.Pool2D(2, stride=2, mode=mode).forward(X.astype("float64"))
    assert_same_bits(Y, expected)
    assert layer.backward(np.ones(Y.shape, "int32")).dtype == np.float64


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("given", ["float32", "float64", "int64", "float16"])
def test_gradients_take_xs_dtype(given, dtype):
    layer = pg.Pool2D(2)
    Y = layer.forward(np.arange(9, dtype=dtype).reshape(1, 3, 3, 1))
    dX = layer.backward(np.full(Y.shape, 3, given))
    assert dX.dtype == dtype
    assert dX.ravel().tolist() == [0, 0, 0, 0, 3, 3, 0, 3, 3]


@pytest.mark.parametrize("dtype", ["complex128", "object", "U1", "datetime64[s]"])
def test_what_is_not_real_is_refused(dtype):
    layer = pg.Pool2D(2)
    with pytest.raises(pg.DtypeError, match=r"^X\b"):
        layer.forward(np.zeros((1, 3, 3, 1), dtype))
    Y = layer.forward(np.zeros((1, 3, 3, 1)))
    with pytest.raises(pg.DtypeError, match=r"^dLdy\b"):
        layer.backward(np.zeros(Y.shape, dtype))


def test_masked_arrays_are_refused():
    layer = pg.Pool2D(2)
    with pytest.raises(pg.DtypeError, match=r"^X\b.*masked"):
        layer.forward(np.ma.zeros((1, 3, 3, 1)))
    Y = layer.forward(np.zeros((1, 3, 3, 1)))
    with pytest.raises(pg.DtypeError, match=r"^dLdy\b.*masked"):
        layer.backward(np.ma.zeros(Y.shape))


# ----------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("shape", [(), (4, 4), (4, 4, 1), (1, 4, 4, 4, 1)], ids=len)
def test_ranks(shape):
    with pytest.raises(pg.ShapeError, match=r"^X\b"):
        pg.Pool2D(2).forward(np.zeros(shape))


@pytest.mark.parametrize(
    "shape", [(1, 3, 2, 1), (1, 5, 5, 1), (2, 2, 2, 1), (1, 2, 2), (1, 2, 2, 2)]
)
def test_a_gradient_of_another_shape(shape):
    layer = pg.Pool2D(2)
    layer.forward(np.zeros((1, 3, 3, 1)))
    with pytest.raises(pg.ShapeError, match=r"^dLdy\b.*\(1, 2, 2, 1\)"):
        layer.backward(np.zeros(shape))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("kernel", "stride"), [(5, 1), (7, 4), (7, 1), ((2, 5), 2)])
def test_a_window_that_does_not_fit(kernel, stride, mode):
    with pytest.raises(pg.ShapeError):
        pg.Pool2D(kernel, stride=stride, mode=mode).forward(np.zeros((1, 4, 4, 1)))


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("kernel_shape", 0),
        ("kernel_shape", (2, 0)),
        ("kernel_shape", (2, 2, 2)),
        ("kernel_shape", ()),
        ("kernel_shape", 2.0),
        ("kernel_shape", "2"),
        ("kernel_shape", True),
        ("kernel_shape", None),
        ("stride", 0),
        ("stride", -1),
        ("stride", (1, 0)),
        ("stride", (1, 1, 1)),
        ("stride", 1.0),
        ("stride", None),
        ("pad", -1),
        ("pad", (1, 1)),
        ("pad", (1, 1, 1)),
        ("pad", (1, 1, 1, -1)),
        ("pad", (1, 1, 1, True)),
        ("pad", ((1, 1), (1, 1))),
        ("pad", 1.0),
        ("pad", "SAME"),
        ("pad", "same_lower"),
        ("pad", None),
        ("mode", "avg"),
        ("mode", "MAX"),
        ("mode", None),
        ("mode", ["max"]),
    ],
    ids=str,
)
def test_bad_settings_are_refused_when_the_layer_is_made(argument, value):
    settings = {"kernel_shape": 2, argument: value}
    with pytest.raises(pg.ParameterError, match=rf"^{argument}\b"):
        pg.Pool2D(**settings)


# ------------------------------------------------------------------------------ hyperparams


def test_hyperparams():
    optimizer = object()
    layer = pg.Pool2D((2, 3), stride=2, pad="same", mode="average", optimizer=optimizer)
    expected = {
        "layer": "Pool2D",
        "acti_fn": None,
        "pad": "same",
        "mode": "average",
        "in_ch": None,
        "out_ch": None,
        "stride": 2,
        "kernel_shape": (2, 3),
        "optimizer": optimizer,
    }
    assert layer.hyperparams == expected
    layer.forward(np.zeros((1, 4, 4, 5)))
    assert layer.hyperparams == {**expected, "in_ch": 5, "out_ch": 5}


def test_hyperparams_are_a_copy():
    layer = pg.Pool2D(2)
    layer.hyperparams["mode"] = "average"
    assert layer.hyperparams["mode"] == "max"
    assert layer.hyperparams["optimizer"] is None
