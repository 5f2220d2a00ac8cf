"""A second oracle for inputs too large for the first: every window gathered into one array.

It is held to `reference` by tests/meta, and exists so that sizes at which a library changes its
method (long rows, wide windows, many channels) are checked too. It gathers, so it keeps the
definition's one-window-at-a-time meaning: nothing is shared between two windows.
"""

import numpy as np

import reference


def _tables(geo):
    """Per axis: input index of each tap of each output, clamped, and whether it is real."""
    tables = []
    for axis in geo.axes:
        if isinstance(axis, reference.AdaptiveAxis):
            starts = np.arange(axis.out) * axis.size // axis.out
            ends = -(-np.arange(1, axis.out + 1) * axis.size // axis.out)
            index = starts[:, None] + np.arange(axis.kernel)
            real = counted = index < ends[:, None]
        else:
            index = (
                np.arange(axis.out)[:, None] * axis.stride
                - axis.before
                + np.arange(axis.kernel)[None, :] * axis.dilation
            )
            real = (index >= 0) & (index < axis.size)
            counted = (index >= -axis.before) & (index < axis.size + axis.after)
        tables.append((np.clip(index, 0, axis.size - 1), real, counted))
    return tables


def _outer(masks):
    """Combine per-axis ``(out, kernel)`` masks to ``(outputs, taps)``."""
    result = np.ones((1, 1), bool)
    for mask in masks:
        joined = result[:, None, :, None] & mask[None, :, None, :]
        result = joined.reshape(result.shape[0] * mask.shape[0], -1)
    return result


def _gather(x, geo, layout):
    """Every window as ``(planes, outputs, taps)``, and which taps are real and counted."""
    planes = reference.to_planes(x, layout)
    tables = _tables(geo)
    n = len(tables)
    flat = np.zeros((1,) * (2 * n), np.int64)
    for axis, (index, _, _) in enumerate(tables):
        shape = [1] * (2 * n)
        shape[axis], shape[n + axis] = index.shape
        flat = flat * geo.axes[axis].size + index.reshape(shape)
    flat = flat.reshape(np.prod(geo.out), geo.taps)
    windows = planes.reshape(len(planes), -1)[:, flat]
    real = _outer([real for _, real, _ in tables])
    counted = _outer([counted for _, _, counted in tables])
    return windows, flat, real, counted


def max_pool(x, kernel_size=None, *, layout="channels_last", **options):
    """Maximum, argmax and, as a by-product, the plane index of each winner (-1: none)."""
    geo = reference.geometry(x.shape, kernel_size, layout=layout, **options)
    windows, flat, real, _ = _gather(x, geo, layout)
    masked = np.where(real, windows, -np.inf)
    nan = np.isnan(masked)
    with np.errstate(invalid="ignore"):
        top = masked.max(-1, keepdims=True)
    winner = np.where(nan.any(-1), nan.argmax(-1), ((masked == top) & real).argmax(-1))
    y = np.take_along_axis(windows, winner[..., None], -1)[..., 0]
    indices = np.take_along_axis(np.broadcast_to(flat, windows.shape), winner[..., None], -1)
    empty = ~real.any(-1)
    y[:, empty] = -np.inf
    dtype = reference.argmax_dtype(geo.taps)
    argmax = winner.astype(dtype)
    argmax[:, empty] = reference.none_of(dtype)
    indices = indices[..., 0].copy()
    indices[:, empty] = -1
    parts = (part.reshape(-1, *geo.out) for part in (y, argmax, indices))
    return tuple(reference.from_planes(part, x.shape, layout) for part in parts)


def max_pool_backward(dy, indices, shape, *, layout="channels_last"):
    """Scatter ``dy`` to the winners' plane indices, in ascending order of outputs."""
    dys = reference.to_planes(dy, layout)
    dys = dys.reshape(len(dys), -1)
    where = reference.to_planes(indices, layout).reshape(dys.shape)
    sizes = reference.spatial_shape(shape, layout)
    dx = np.zeros((len(dys), int(np.prod(sizes))), dy.dtype)
    with np.errstate(all="ignore"):
        for p in range(len(dys)):
            kept = where[p] >= 0
            # ufunc.at adds unbuffered, one after the other.
            np.add.at(dx[p], where[p][kept], dys[p][kept])
    return reference.from_planes(dx.reshape(-1, *sizes), shape, layout)


def avg_pool(
    x,
    kernel_size=None,
    *,
    count_include_pad=True,
    divisor_override=None,
    layout="channels_last",
    **options,
):
    """Average as `reference.Sums`."""
    geo = reference.geometry(x.shape, kernel_size, layout=layout, **options)
    windows, _, real, counted = _gather(x, geo, layout)
    divisor = _divisor(real, counted, count_include_pad, divisor_override)
    terms = np.where(real, windows.astype(np.float64), 0.0)
    with np.errstate(invalid="ignore"):
        value = terms.sum(-1) / divisor
    magnitude = np.abs(terms).sum(-1) / divisor
    count = np.broadcast_to(real.sum(-1), value.shape)
    parts = (part.reshape(-1, *geo.out) for part in (value, magnitude, count))
    return reference.Sums(*(reference.from_planes(part, x.shape, layout) for part in parts))


def _divisor(real, counted, count_include_pad, divisor_override):
    if divisor_override is not None:
        return np.full(len(real), divisor_override)
    return np.maximum((counted if count_include_pad else real).sum(-1), 1)


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
    """Average's gradient as `reference.Sums`."""
    geo = reference.geometry(shape, kernel_size, layout=layout, **options)
    zeros = np.broadcast_to(np.zeros((), dy.dtype), shape)
    _, flat, real, counted = _gather(zeros, geo, layout)
    divisor = _divisor(real, counted, count_include_pad, divisor_override)
    dys = reference.to_planes(dy, layout).astype(np.float64)
    terms = dys.reshape(len(dys), -1) / divisor
    sizes = reference.spatial_shape(shape, layout)
    sums = [np.zeros((len(dys), int(np.prod(sizes)))) for _ in range(3)]
    outputs, _ = np.nonzero(real)
    with np.errstate(all="ignore"):
        for p in range(len(dys)):
            spread = terms[p][outputs]
            for total, part in zip(sums, (spread, np.abs(spread), 1.0), strict=True):
                np.add.at(total[p], flat[real], part)
    parts = (total.reshape(-1, *sizes) for total in sums)
    return reference.Sums(*(reference.from_planes(part, shape, layout) for part in parts))
