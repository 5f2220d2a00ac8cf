"""PyTorch as an oracle of its own, over the geometries that it supports."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import poolgrad as pg
import reference
from compare import assert_same_bits
from strategies import fill

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.torch

MAX = {1: torch.nn.functional.max_pool1d, 2: torch.nn.functional.max_pool2d}
MAX[3] = torch.nn.functional.max_pool3d
AVG = {1: torch.nn.functional.avg_pool1d, 2: torch.nn.functional.avg_pool2d}
AVG[3] = torch.nn.functional.avg_pool3d


@st.composite
def geometries(draw, dilated):
    """Draw (x's shape, kernel, options) in channels_first that PyTorch accepts as well."""
    axes = draw(st.integers(1, 3))
    kernel = tuple(draw(st.integers(1, 4)) for _ in range(axes))
    # PyTorch takes at most half the kernel, on both sides alike.
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    dilation = tuple(draw(st.integers(1, 3)) if dilated else 1 for _ in kernel)
    least = [
        max((k - 1) * d + 1 - 2 * p, 1) for k, d, p in zip(kernel, dilation, padding, strict=True)
    ]
    if axes == 3 and not dilated:
        least = kernel  # avg_pool3d compares with the input without its padding
    sizes = [draw(st.integers(low, low + 5)) for low in least]
    options = {
        "stride": tuple(draw(st.integers(1, 4)) for _ in kernel),
        "padding": padding,
        "ceil_mode": draw(st.booleans()),
    }
    if dilated:
        options["dilation"] = dilation
    return (draw(st.integers(1, 2)), draw(st.integers(1, 3)), *sizes), kernel, options


@given(
    drawn=geometries(dilated=True),
    values=st.sampled_from(["normal", "ties", "zeros", "infinities"]),
    dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 999),
)
def test_max(drawn, values, dtype, seed):
    shape, kernel, options = drawn
    x = fill(values, shape, dtype, seed)
    theirs = torch.from_numpy(x.copy()).requires_grad_()
    their_y, their_indices = MAX[len(kernel)](theirs, kernel, return_indices=True, **options)
    y, argmax = pg.max_pool(x, kernel, layout="channels_first", return_argmax=True, **options)
    np.testing.assert_array_equal(y, their_y.detach().numpy())

    plan = pg.plan("max_pool", shape, dtype, kernel_size=kernel, layout="channels_first", **options)
    indices = pg.argmax_to_indices(argmax, plan)
    # A window without a real tap has no index; PyTorch stores a candidate it never compared.
    real = argmax != reference.none_of(argmax.dtype)
    np.testing.assert_array_equal(indices[real], their_indices.numpy()[real])

    if real.all():
        # Whole numbers, whose sums are exact in any order.
        dy = fill("distinct", y.shape, dtype, seed)
        their_y.backward(torch.from_numpy(dy.copy()))
        dx = pg.max_pool_backward(dy, x, kernel, layout="channels_first", **options)
        np.testing.assert_array_equal(dx, theirs.grad.numpy())


@given(drawn=geometries(dilated=True), seed=st.integers(0, 999))
def test_max_of_nans(drawn, seed):
    # Values agree; of several NaNs PyTorch keeps the last one's index and this library the first's.
    shape, kernel, options = drawn
    x = fill("special", shape, "float32", seed)
    theirs = MAX[len(kernel)](torch.from_numpy(x.copy()), kernel, **options)
    y = pg.max_pool(x, kernel, layout="channels_first", **options)
    np.testing.assert_array_equal(y, theirs.numpy())


@given(
    drawn=geometries(dilated=False),
    count_include_pad=st.booleans(),
    divisor_override=st.none() | st.integers(1, 9),
    dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 999),
)
def test_average(drawn, count_include_pad, divisor_override, dtype, seed):
    shape, kernel, options = drawn
    x = fill("normal", shape, dtype, seed)
    theirs = torch.from_numpy(x.copy()).requires_grad_()
    more = {"count_include_pad": count_include_pad}
    if len(kernel) > 1:  # avg_pool1d has no divisor_override
        more["divisor_override"] = divisor_override
    their_y = AVG[len(kernel)](theirs, kernel, **options, **more)
    y = pg.avg_pool(x, kernel, layout="channels_first", **options, **more)
    more["layout"] = "channels_first"
    sums = reference.avg_pool(x, kernel, **options, **more)
    assert_within(y, their_y.detach().numpy(), 2 * sums.bound(dtype))

    dy = fill("normal", y.shape, dtype, seed + 1)
    their_y.backward(torch.from_numpy(dy.copy()))
    dx = pg.avg_pool_backward(dy, shape, kernel, **options, **more)
    sums = reference.avg_pool_backward(dy, shape, kernel, **options, **more)
    assert_within(dx, theirs.grad.numpy(), 2 * sums.bound(dtype))


def assert_within(ours, theirs, bound):
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    error = np.abs(ours.astype("float64") - theirs)
    assert (error <= bound).all(), (error - bound).max()


@given(
    size=st.integers(1, 40),
    kernel=st.integers(1, 8),
    half=st.integers(0, 4),
    stride=st.integers(1, 9),
    dilation=st.integers(1, 4),
    ceil_mode=st.booleans(),
)
def test_sizes(size, kernel, half, stride, dilation, ceil_mode):
    padding = min(half, kernel // 2)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}
    try:
        theirs = MAX[1](torch.zeros(1, 1, size), kernel, **options)
    except RuntimeError:
        with pytest.raises(pg.ShapeError):
            pg.plan("max_pool", (1, size, 1), kernel_size=kernel, **options)
        return
    plan = pg.plan("max_pool", (1, size, 1), kernel_size=kernel, **options)
    assert plan.output_shape == (1, theirs.shape[2], 1)


def test_channels_last_is_the_same_pooling():
    x = fill("normal", (2, 3, 9, 8), "float32", 0)
    theirs = torch.nn.functional.max_pool2d(torch.from_numpy(x), 3, stride=2, padding=1).numpy()
    y = pg.max_pool(np.ascontiguousarray(x.transpose(0, 2, 3, 1)), 3, stride=2, padding=1)
    assert_same_bits(np.ascontiguousarray(y.transpose(0, 3, 1, 2)), theirs)


ADAPTIVE_MAX = {
    1: torch.nn.functional.adaptive_max_pool1d,
    2: torch.nn.functional.adaptive_max_pool2d,
    3: torch.nn.functional.adaptive_max_pool3d,
}
ADAPTIVE_AVG = {
    1: torch.nn.functional.adaptive_avg_pool1d,
    2: torch.nn.functional.adaptive_avg_pool2d,
    3: torch.nn.functional.adaptive_avg_pool3d,
}


@st.composite
def adaptive_geometries(draw):
    """Draw (x's shape, output_size) in channels_first."""
    axes = draw(st.integers(1, 3))
    sizes = [draw(st.integers(1, 12 if axes < 3 else 6)) for _ in range(axes)]
    outs = tuple(draw(st.integers(1, 15 if axes < 3 else 8)) for _ in sizes)
    if axes > 1 and draw(st.booleans()):  # in one dimension PyTorch takes no None
        outs = (None, *outs[1:])
    return (draw(st.integers(1, 2)), draw(st.integers(1, 3)), *sizes), outs


@given(
    drawn=adaptive_geometries(),
    values=st.sampled_from(["normal", "ties", "zeros", "infinities"]),
    dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 999),
)
def test_adaptive_max(drawn, values, dtype, seed):
    shape, outs = drawn
    options = {"output_size": outs, "layout": "channels_first"}
    x = fill(values, shape, dtype, seed)
    theirs = torch.from_numpy(x.copy()).requires_grad_()
    their_y, their_indices = ADAPTIVE_MAX[len(outs)](theirs, outs, return_indices=True)
    y, argmax = pg.adaptive_max_pool(x, return_argmax=True, **options)
    np.testing.assert_array_equal(y, their_y.detach().numpy())
    plan = pg.plan("adaptive_max_pool", shape, dtype, **options)
    np.testing.assert_array_equal(pg.argmax_to_indices(argmax, plan), their_indices.numpy())
    # Whole numbers, whose sums are exact in any order.
    dy = fill("distinct", y.shape, dtype, seed)
    their_y.backward(torch.from_numpy(dy.copy()))
    dx = pg.adaptive_max_pool_backward(dy, x, **options)
    np.testing.assert_array_equal(dx, theirs.grad.numpy())


@given(
    drawn=adaptive_geometries(),
    dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 999),
)
def test_adaptive_average(drawn, dtype, seed):
    shape, outs = drawn
    options = {"output_size": outs, "layout": "channels_first"}
    x = fill("normal", shape, dtype, seed)
    theirs = torch.from_numpy(x.copy()).requires_grad_()
    their_y = ADAPTIVE_AVG[len(outs)](theirs, outs)
    y = pg.adaptive_avg_pool(x, **options)
    bound = reference.avg_pool(x, **options).bound(dtype)
    assert_within(y, their_y.detach().numpy(), 2 * bound)

    dy = fill("normal", y.shape, dtype, seed + 1)
    their_y.backward(torch.from_numpy(dy.copy()))
    dx = pg.adaptive_avg_pool_backward(dy, shape, **options)
    bound = reference.avg_pool_backward(dy, shape, **options).bound(dtype)
    assert_within(dx, theirs.grad.numpy(), 2 * bound)
