"""Laws that hold between two calls, whatever the oracle says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import poolgrad as pg
import reference
from compare import assert_same_bits
from strategies import DTYPES, LAYOUTS, avg_cases, cases, fill, max_cases


def forward(case, x, **more):
    return getattr(pg, case.op)(x, case.kernel_size, **{**case.options, **more})


def backward(case, dy, x, **more):
    function = getattr(pg, f"{case.op}_backward")
    return function(dy, x, case.kernel_size, **{**case.options, **more})


def channel_axis(case):
    return -1 if case.layout == "channels_last" else 1


@given(case=cases(), seed=st.integers(0, 99))
def test_planes_are_independent(case, seed):
    # Permuting images or channels permutes results, so no plane reads another's values.
    rng = np.random.default_rng(seed)
    x, dy = case.x, case.dy
    for axis in (0, channel_axis(case)):
        order = rng.permutation(x.shape[axis])
        shuffled = np.take(x, order, axis)
        assert_same_bits(forward(case, shuffled), np.take(forward(case, x), order, axis))
        dx = backward(case, np.take(dy, order, axis), shuffled)
        assert_same_bits(dx, np.take(backward(case, dy, x), order, axis))


@given(case=cases(), seed=st.integers(0, 99))
def test_one_image_alone_is_the_same(case, seed):
    if 0 in case.shape:
        return
    at = seed % case.shape[0]
    image, dy = case.x[at : at + 1], case.dy[at : at + 1]
    assert_same_bits(forward(case, image), forward(case, case.x)[at : at + 1])
    dx = backward(case, case.dy, case.x)[at : at + 1]
    assert_same_bits(backward(case, dy, image), dx)


def other_layout(array, layout):
    return np.moveaxis(array, -1, 1) if layout == "channels_last" else np.moveaxis(array, 1, -1)


@given(case=cases())
def test_layouts_agree(case):
    other = next(layout for layout in LAYOUTS if layout != case.layout)
    x, dy = case.x, case.dy
    swapped_x, swapped_dy = other_layout(x, case.layout), other_layout(dy, case.layout)
    y = forward(case, swapped_x, layout=other)
    assert_same_bits(y, np.ascontiguousarray(other_layout(forward(case, x), case.layout)))
    dx = backward(case, swapped_dy, swapped_x, layout=other)
    assert_same_bits(dx, np.ascontiguousarray(other_layout(backward(case, dy, x), case.layout)))


@given(case=max_cases(values=("distinct",)), shift=st.integers(-50, 50))
def test_max_commutes_with_adding_a_constant(case, shift):
    c = np.dtype(case.dtype).type(shift)
    assert_same_bits(forward(case, case.x + c), forward(case, case.x) + c)
    dx = backward(case, case.dy, case.x + c)
    assert_same_bits(dx, backward(case, case.dy, case.x))


@given(case=max_cases(values=("normal", "ties", "special")), power=st.integers(-3, 3))
def test_max_commutes_with_positive_scaling(case, power):
    c = np.dtype(case.dtype).type(2.0**power)
    assert_same_bits(forward(case, case.x * c), forward(case, case.x) * c)


@given(case=avg_cases(values=("normal", "ties", "infinities")), power=st.integers(-3, 3))
def test_average_is_exactly_homogeneous_in_powers_of_two(case, power):
    c = np.dtype(case.dtype).type(2.0**power)
    assert_same_bits(forward(case, case.x * c), forward(case, case.x) * c)
    dy = fill("normal", case.output_shape, case.dtype, case.seed)
    assert_same_bits(backward(case, dy * c, case.shape), backward(case, dy, case.shape) * c)


@given(case=cases(values=("normal",)))
def test_a_window_of_one_is_identity(case):
    ones = {"stride": 1, "padding": 0, "dilation": 1, "ceil_mode": False}
    more = {} if case.op == "max_pool" else {"divisor_override": None}
    x = case.x
    y = getattr(pg, case.op)(x, 1, **{**case.options, **ones, **more})
    assert_same_bits(y, np.ascontiguousarray(x))
    dx = getattr(pg, f"{case.op}_backward")(x, x, 1, **{**case.options, **ones, **more})
    assert_same_bits(dx, np.ascontiguousarray(x))


@given(case=avg_cases(), constant=st.sampled_from([0.0, 1.0, -3.0, 0.5]))
def test_average_of_a_constant_is_the_constant(case, constant):
    x = np.full(case.shape, constant, case.dtype)
    y = forward(case, x, count_include_pad=False, divisor_override=None)
    empty = [not case.geometry.real_taps(output) for output in case.geometry.outputs()]
    expected = np.where(empty, 0.0, constant).reshape(case.geometry.out)
    planes = reference.to_planes(y, case.layout)
    np.testing.assert_array_equal(planes, np.broadcast_to(expected, planes.shape))


@given(case=max_cases())
def test_max_of_a_constant_goes_to_each_windows_first_real_tap(case):
    x = np.full(case.shape, -1.0, case.dtype)
    _, argmax = forward(case, x, return_argmax=True)
    none = reference.none_of(argmax.dtype)
    firsts = []
    for output in case.geometry.outputs():
        taps = case.geometry.real_taps(output)
        firsts.append(taps[0][0] if taps else none)
    planes = reference.to_planes(argmax, case.layout)
    expected = np.reshape(firsts, case.geometry.out)
    np.testing.assert_array_equal(planes, np.broadcast_to(expected, planes.shape))


@given(case=max_cases())
def test_max_gradient_sums_to_that_of_its_output(case):
    # Whole numbers, so that the order of the sums does not matter.
    dy = fill("distinct", case.output_shape, case.dtype, case.seed)
    real = np.array([bool(case.geometry.real_taps(o)) for o in case.geometry.outputs()])
    kept = reference.to_planes(dy, case.layout)[:, real.reshape(case.geometry.out)]
    expected = kept.sum(dtype="float64")
    assert backward(case, dy, case.x).sum(dtype="float64") == expected


@given(case=avg_cases())
def test_average_gradient_sums_to_that_of_its_output(case):
    # Each real tap gets 1 / (real taps), so a window with one passes on all of its gradient.
    dy = fill("normal", case.output_shape, "float64", case.seed)
    case = case.with_(dtype="float64", count_include_pad=False, divisor_override=None)
    real = np.array([bool(case.geometry.real_taps(o)) for o in case.geometry.outputs()])
    kept = reference.to_planes(dy, case.layout) * real.reshape(case.geometry.out)
    dx = backward(case, dy, case.shape)
    scale = np.abs(dy).sum() * (case.geometry.taps + 2)
    assert abs(dx.sum() - kept.sum()) <= 1e-15 * scale


@given(case=avg_cases(values=("normal",)))
def test_divisor_override_of_one_sums(case):
    case = case.with_(dtype="float64", divisor_override=1)
    once = forward(case, case.x)
    assert_same_bits(forward(case, case.x, divisor_override=4), once / 4)
    dx = backward(case, case.dy, case.shape)
    assert_same_bits(backward(case, case.dy, case.shape, divisor_override=4), dx / 4)


@given(case=cases())
def test_named_padding_equals_its_numbers(case):
    pads = case.geometry.padding
    assert_same_bits(forward(case, case.x, padding=pads), forward(case, case.x))
    dx = backward(case, case.dy, case.x, padding=pads)
    assert_same_bits(dx, backward(case, case.dy, case.x))


@given(case=cases())
def test_gradient_is_zero_outside_every_window(case):
    dy = np.ones(case.output_shape, case.dtype)
    touched = np.zeros(reference.spatial_shape(case.shape, case.layout), bool)
    for output in case.geometry.outputs():
        for _, index in case.geometry.real_taps(output):
            touched[index] = True
    planes = reference.to_planes(backward(case, dy, case.x), case.layout)
    assert not planes[:, ~touched].any()


@given(case=cases(values=("normal",)))
def test_unit_axes_change_nothing(case):
    # One and two spatial axes are three with unit axes.
    if len(case.geometry.axes) == 3:
        return
    at = 1 if case.layout == "channels_last" else 2
    geo = case.geometry
    more = {
        "stride": (1, *(a.stride for a in geo.axes)),
        "dilation": (1, *(a.dilation for a in geo.axes)),
        "padding": ((0, 0), *geo.padding),
    }
    y = getattr(pg, case.op)(
        np.expand_dims(case.x, at), (1, *geo.kernel), **{**case.options, **more}
    )
    assert_same_bits(y.squeeze(at), forward(case, case.x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_max_pools_compose(dtype):
    # A maximum of maxima is the maximum of the larger window.
    x = fill("special", (2, 17, 19, 3), dtype, 0)
    twice = pg.max_pool(pg.max_pool(x, 3, stride=1), 3, stride=1)
    once = pg.max_pool(x, 5, stride=1)
    np.testing.assert_array_equal(twice, once)


@pytest.mark.parametrize("op", ["max_pool", "avg_pool"])
def test_repeated_calls_agree_bit_for_bit(op):
    x = fill("normal", (2, 17, 19, 5), "float32", 0)
    function = getattr(pg, op)
    assert_same_bits(function(x, 4, stride=3, padding=2), function(x, 4, stride=3, padding=2))
