"""The oracle: pooling written from its definition, one window and one tap at a time.

Nothing here is fast and nothing is clever: no separability, no clipping by formula, no running
sums. A tap is real when its index lies inside the input; that single comparison decides everything
else. The module knows nothing of the library under test, so the two can only agree by both being
right.
"""

import itertools
import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

NAMED_PADDINGS = ("valid", "same", "same_lower", "same_size")


@dataclass(frozen=True)
class Axis:
    """One spatial axis: output ``j`` looks at ``j * stride - before + t * dilation``."""

    size: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int
    out: int

    def tap(self, j, t):
        """Input index of tap ``t`` of output ``j``, which may lie outside the input."""
        return j * self.stride - self.before + t * self.dilation

    def is_real(self, index):
        return 0 <= index < self.size

    def is_counted(self, index):
        """Whether an average that includes padding counts this index.

        Explicit padding is counted; what a ceil'd window overhangs beyond it is not.
        """
        return -self.before <= index < self.size + self.after


@dataclass(frozen=True)
class AdaptiveAxis:
    """One spatial axis: output ``j`` looks at all cells that the ``j``-th of equal parts touches.

    All its taps are real; its box has room for the most that any output has.
    """

    size: int
    out: int

    def cells(self, j):
        start = math.floor(j * Fraction(self.size, self.out))
        return range(start, math.ceil((j + 1) * Fraction(self.size, self.out)))

    @cached_property
    def kernel(self):
        return max(len(self.cells(j)) for j in range(self.out))

    def tap(self, j, t):
        """Input index of tap ``t`` of output ``j``; None behind its last."""
        cells = self.cells(j)
        return cells[t] if t < len(cells) else None

    def is_real(self, index):
        return index is not None

    def is_counted(self, index):
        return index is not None


@dataclass(frozen=True)
class Geometry:
    """All spatial axes of one pooling, in the order depth, height, width."""

    axes: tuple

    @property
    def kernel(self):
        return tuple(axis.kernel for axis in self.axes)

    @property
    def taps(self):
        return math.prod(self.kernel)

    @property
    def out(self):
        return tuple(axis.out for axis in self.axes)

    @property
    def padding(self):
        return tuple((axis.before, axis.after) for axis in self.axes)

    def outputs(self):
        """Every output index, row-major."""
        return itertools.product(*(range(axis.out) for axis in self.axes))

    def window(self, output):
        """Every tap of one window as ``(position, index)``, row-major, real or not."""
        boxes = itertools.product(*(range(axis.kernel) for axis in self.axes))
        for position, box in enumerate(boxes):
            taps = zip(self.axes, output, box, strict=True)
            yield position, tuple(axis.tap(j, t) for axis, j, t in taps)

    def is_real(self, index):
        return all(axis.is_real(i) for axis, i in zip(self.axes, index, strict=True))

    def is_counted(self, index):
        return all(axis.is_counted(i) for axis, i in zip(self.axes, index, strict=True))

    def real_taps(self, output):
        """The taps of one window that lie inside the input, as ``(position, index)``."""
        return [(p, index) for p, index in self.window(output) if self.is_real(index)]

    def divisor(self, output, *, count_include_pad=True, divisor_override=None):
        if divisor_override is not None:
            return int(divisor_override)
        if count_include_pad:
            return sum(self.is_counted(index) for _, index in self.window(output))
        return len(self.real_taps(output))


def per_axis(value, axes):
    """Spread an int, or one int an axis, over ``axes`` axes."""
    values = [value] * axes if np.ndim(value) == 0 else list(value)
    assert len(values) == axes
    return [int(v) for v in values]


def windows_of(size, kernel, stride, before, after, dilation=1, *, ceil_mode=False):
    """Number of windows on one axis, possibly below 1."""
    effective = dilation * (kernel - 1) + 1
    quotient, rest = divmod(size + before + after - effective, stride)
    out = quotient + 1
    # The extra window would start at out * stride in the padded frame; a start in the padding
    # behind the input would hold nothing but overhang.
    if ceil_mode and rest and out * stride < size + before:
        out += 1
    return out


def named_pads(name, size, kernel, stride, dilation):
    """``(before, after)`` of a named padding on one axis."""
    if name == "valid":
        return 0, 0
    out = size if name == "same_size" else -(-size // stride)
    effective = dilation * (kernel - 1) + 1
    total = max((out - 1) * stride + effective - size, 0)
    small, large = total // 2, total - total // 2
    return (large, small) if name == "same_lower" else (small, large)


def spatial_shape(shape, layout):
    return tuple(shape[1:-1] if layout == "channels_last" else shape[2:])


def geometry(
    shape,
    kernel_size=None,
    *,
    output_size=None,
    stride=None,
    padding=0,
    dilation=1,
    ceil_mode=False,
    layout="channels_last",
):
    """Resolve hyperparameters in any of their spellings to a `Geometry`.

    Without a kernel size it is that of an adaptive pooling, of which only ``output_size`` counts.
    """
    sizes = spatial_shape(shape, layout)
    n = len(sizes)
    if kernel_size is None:
        outs = [output_size] * n if np.ndim(output_size) == 0 else list(output_size)
        rows = zip(sizes, outs, strict=True)
        return Geometry(tuple(AdaptiveAxis(i, i if o is None else int(o)) for i, o in rows))
    kernel = per_axis(kernel_size, n)
    strides = kernel if stride is None else per_axis(stride, n)
    dilations = per_axis(dilation, n)
    if isinstance(padding, str):
        rows = zip(sizes, kernel, strides, dilations, strict=True)
        pads = [named_pads(padding, *row) for row in rows]
    elif np.ndim(padding) == 2:
        pads = [(int(before), int(after)) for before, after in padding]
    else:
        pads = [(p, p) for p in per_axis(padding, n)]
    assert len(pads) == n
    axes = []
    for i, k, s, d, (before, after) in zip(sizes, kernel, strides, dilations, pads, strict=True):
        out = windows_of(i, k, s, before, after, d, ceil_mode=ceil_mode)
        axes.append(Axis(i, k, s, d, before, after, out))
    return Geometry(tuple(axes))


def to_planes(x, layout):
    """View or copy ``x`` as ``(N * C, *spatial)``."""
    x = np.asarray(x)
    if layout == "channels_last":
        x = np.moveaxis(x, -1, 1)
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def from_planes(planes, shape, layout):
    """Undo `to_planes` for an array whose batch and channels are those of ``shape``."""
    batch = shape[0]
    channels = shape[-1] if layout == "channels_last" else shape[1]
    x = planes.reshape(batch, channels, *planes.shape[1:])
    return np.ascontiguousarray(np.moveaxis(x, 1, -1) if layout == "channels_last" else x)


def output_shape(shape, geo, layout):
    if layout == "channels_last":
        return (shape[0], *geo.out, shape[-1])
    return (shape[0], shape[1], *geo.out)


def argmax_dtype(taps):
    return np.dtype(np.uint8 if taps <= 255 else np.int32)


def none_of(dtype):
    """How "no tap" is written in an argmax of this dtype."""
    return 255 if dtype == np.uint8 else -1


def beats(challenger, best):
    """Whether a later tap displaces the best so far: larger, or the first NaN."""
    return challenger > best or (challenger != challenger and best == best)


def max_pool(x, kernel_size=None, *, layout="channels_last", **options):
    """Maximum and argmax of every window."""
    geo = geometry(x.shape, kernel_size, layout=layout, **options)
    planes = to_planes(x, layout)
    y = np.full((len(planes), *geo.out), -np.inf, planes.dtype)
    dtype = argmax_dtype(geo.taps)
    argmax = np.full(y.shape, none_of(dtype), dtype)
    windows = [(output, geo.real_taps(output)) for output in geo.outputs()] if len(planes) else []
    for p, plane in enumerate(planes):
        for output, taps in windows:
            best = None
            for position, index in taps:
                value = plane[index]
                if best is None or beats(value, best):
                    best = value
                    # Copied as an array element, so that the kept element's bits arrive.
                    y[(p, *output)] = value
                    argmax[(p, *output)] = position
    return from_planes(y, x.shape, layout), from_planes(argmax, x.shape, layout)


def max_pool_backward(dy, argmax, shape, kernel_size=None, *, layout="channels_last", **options):
    """Send each gradient to its window's argmax, adding in ascending order of outputs."""
    geo = geometry(shape, kernel_size, layout=layout, **options)
    dys, winners = to_planes(dy, layout), to_planes(argmax, layout)
    dx = np.zeros((len(dys), *spatial_shape(shape, layout)), dy.dtype)
    none = none_of(argmax.dtype)
    with np.errstate(all="ignore"):
        for p in range(len(dys)):
            for output in geo.outputs():
                winner = int(winners[(p, *output)])
                if winner != none:
                    index = dict(geo.window(output))[winner]
                    dx[(p, *index)] += dys[(p, *output)]
    return from_planes(dx, shape, layout)


@dataclass(frozen=True)
class Sums:
    """A sum's value in float64, with what its rounding error is bounded by.

    ``magnitude`` is the sum of the terms' absolute values, ``terms`` how many there are.
    """

    value: np.ndarray
    magnitude: np.ndarray
    terms: np.ndarray

    def bound(self, dtype):
        """Largest error of a plain loop in ``dtype``, with slack for subnormal terms."""
        info = np.finfo(dtype)
        relative = (self.terms + 2) * float(info.eps)
        return relative * self.magnitude + (self.terms + 2) * float(info.smallest_subnormal)


def avg_pool(
    x,
    kernel_size=None,
    *,
    count_include_pad=True,
    divisor_override=None,
    layout="channels_last",
    **options,
):
    """Average of every window as `Sums`; a window without a real tap averages to 0."""
    geo = geometry(x.shape, kernel_size, layout=layout, **options)
    planes = to_planes(x, layout).astype(np.float64)
    value = np.zeros((len(planes), *geo.out))
    magnitude, terms = np.zeros(value.shape), np.zeros(value.shape)
    windows = []
    for output in geo.outputs() if len(planes) else ():
        taps = geo.real_taps(output)
        divisor = geo.divisor(
            output, count_include_pad=count_include_pad, divisor_override=divisor_override
        )
        windows.append((output, taps, divisor))
    with np.errstate(all="ignore"):
        for p, plane in enumerate(planes):
            for output, taps, divisor in windows:
                if not taps:
                    continue
                values = [float(plane[index]) for _, index in taps]
                value[(p, *output)] = exact_sum(values) / divisor
                magnitude[(p, *output)] = sum(abs(v) for v in values) / divisor
                terms[(p, *output)] = len(values)
    parts = (from_planes(part, x.shape, layout) for part in (value, magnitude, terms))
    return Sums(*parts)


def exact_sum(values):
    """Sum in float64; `math.fsum` refuses opposite infinities, a plain sum makes them NaN."""
    if all(math.isfinite(v) for v in values):
        return math.fsum(values)
    return sum(values)


def avg_pool_backward(
    dy,
    shape,
    kernel_size=None,
    *,
    count_include_pad=True,
    divisor_override=None,
    layout="channels_last",
    **options,
):
    """Spread each gradient over its window's real taps, as `Sums`."""
    geo = geometry(shape, kernel_size, layout=layout, **options)
    dys = to_planes(dy, layout).astype(np.float64)
    value = np.zeros((len(dys), *spatial_shape(shape, layout)))
    magnitude, terms = np.zeros(value.shape), np.zeros(value.shape)
    with np.errstate(all="ignore"):
        for output in geo.outputs():
            divisor = geo.divisor(
                output, count_include_pad=count_include_pad, divisor_override=divisor_override
            )
            for _, index in geo.real_taps(output):
                for p in range(len(dys)):
                    term = dys[(p, *output)] / divisor
                    value[(p, *index)] += term
                    magnitude[(p, *index)] += abs(term)
                    terms[(p, *index)] += 1
    parts = (from_planes(part, shape, layout) for part in (value, magnitude, terms))
    return Sums(*parts)


def argmax_to_indices(argmax, shape, kernel_size=None, *, layout="channels_last", **options):
    """Flat index of each winner within its own plane of the input, -1 for none."""
    geo = geometry(shape, kernel_size, layout=layout, **options)
    winners = to_planes(argmax, layout)
    sizes = spatial_shape(shape, layout)
    indices = np.full(winners.shape, -1, np.int64)
    none = none_of(argmax.dtype)
    for p in range(len(winners)):
        for output in geo.outputs():
            winner = int(winners[(p, *output)])
            if winner != none:
                flat = 0
                for i, size in zip(dict(geo.window(output))[winner], sizes, strict=True):
                    flat = flat * size + i
                indices[(p, *output)] = flat
    return from_planes(indices, shape, layout)


@dataclass(frozen=True)
class ZeroPadded:
    """The classic layer's frame: the input with its padding written out as zeros."""

    frame: np.ndarray
    pads: tuple
    kernel: tuple
    stride: tuple

    @classmethod
    def of(cls, x, kernel_shape, stride, pad):
        kernel, strides = per_axis(kernel_shape, 2), per_axis(stride, 2)
        if pad == "valid":
            pads = ((0, 0), (0, 0))
        elif isinstance(pad, str):
            # "same" of this layer keeps the input's size at every stride.
            rows = zip(x.shape[1:3], kernel, strides, strict=True)
            pads = tuple(named_pads("same_size", i, k, s, 1) for i, k, s in rows)
        elif np.ndim(pad) == 0:
            pads = ((pad, pad), (pad, pad))
        else:
            top, bottom, left, right = pad
            pads = ((top, bottom), (left, right))
        frame = np.pad(x, ((0, 0), *pads, (0, 0)))
        return cls(frame, pads, tuple(kernel), tuple(strides))

    def crop(self, frame):
        (top, bottom), (left, right) = self.pads
        rows = slice(top, frame.shape[1] - bottom)
        return np.ascontiguousarray(frame[:, rows, left : frame.shape[2] - right])


def pool2d_forward(x, kernel_shape, stride=1, pad=0, mode="max"):
    """Forward of the classic layer: an array for ``"max"``, `Sums` for ``"average"``."""
    padded = ZeroPadded.of(x, kernel_shape, stride, pad)
    if mode == "max":
        return max_pool(padded.frame, padded.kernel, stride=padded.stride)[0]
    return avg_pool(padded.frame, padded.kernel, stride=padded.stride)


def pool2d_backward(dy, x, kernel_shape, stride=1, pad=0, mode="max"):
    """The true gradient of `pool2d_forward`, in the same form."""
    padded = ZeroPadded.of(x, kernel_shape, stride, pad)
    shape = padded.frame.shape
    if mode == "max":
        argmax = max_pool(padded.frame, padded.kernel, stride=padded.stride)[1]
        dx = max_pool_backward(dy, argmax, shape, padded.kernel, stride=padded.stride)
        return padded.crop(dx)
    sums = avg_pool_backward(dy, shape, padded.kernel, stride=padded.stride)
    return Sums(*(padded.crop(part) for part in (sums.value, sums.magnitude, sums.terms)))
