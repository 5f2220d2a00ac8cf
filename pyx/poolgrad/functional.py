"""The pooling functions: each makes a `Plan` and runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from poolgrad import _quick
from poolgrad.arrays import Array, as_input
from poolgrad.errors import ParameterError, show
from poolgrad.plan import Plan, plan_of

__all__ = [
    "adaptive_avg_pool",
    "adaptive_avg_pool_backward",
    "adaptive_max_pool",
    "adaptive_max_pool_backward",
    "argmax_to_indices",
    "avg_pool",
    "avg_pool_backward",
    "max_pool",
    "max_pool_backward",
]

Size: TypeAlias = int | Sequence[int]
OutputSize: TypeAlias = int | Sequence[int | None]
Padding: TypeAlias = (
    int | Sequence[int | tuple[int, int]] | Literal["valid", "same", "same_lower", "same_size"]
)
Layout: TypeAlias = Literal["channels_last", "channels_first"]


@overload
def max_pool(
    x: Array,
    kernel_size: Size,
    *,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    layout: Layout = "channels_last",
    return_argmax: Literal[False] = False,
    out: Array | None = None,
    num_threads: int | None = None,
) -> Array: ...
@overload
def max_pool(
    x: Array,
    kernel_size: Size,
    *,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    layout: Layout = "channels_last",
    return_argmax: Literal[True],
    out: tuple[Array, Array] | None = None,
    num_threads: int | None = None,
) -> tuple[Array, Array]: ...
def max_pool(
    x: Array,
    kernel_size: Size,
    *,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    layout: Layout = "channels_last",
    return_argmax: bool = False,
    out: Any = None,
    num_threads: int | None = None,
) -> Any:
    """Return the largest element of each window.

    Padding never wins: it counts as minus infinity. A NaN wins over everything. Of equal elements,
    -0.0 and 0.0 included, the first in row-major order is taken.

    Parameters
    ----------
    x : ndarray of shape (N, *spatial, C), or (N, C, *spatial) with ``layout="channels_first"``
        float32 or float64, in any memory order, with one to three spatial axes. A lone image of
        shape (H, W, C) would be taken for a batch of series: write ``image[np.newaxis]``.
    kernel_size : int or tuple of int
        Taps of a window, for all spatial axes or for each.
    stride : int or tuple of int, optional
        Cells from window to window; `kernel_size` where not given.
    padding : int, tuple of int, tuple of (int, int), or str, default 0
        Cells around the input: for all axes, for each, or (before, after) for each;
        ``"valid"``: none; ``"same"``: so many that the output has ceil(size / stride) cells, the
        odd one after; ``"same_lower"``: the odd one before; ``"same_size"``: so many that the
        output has the input's size at every stride.
    dilation : int or tuple of int, default 1
        Cells from tap to tap.
    ceil_mode : bool, default False
        Add a window that overhangs the padding where the stride leaves a rest, if it starts
        before the end of the input. Not with a named padding.
    layout : {"channels_last", "channels_first"}
        Where the channels are.
    return_argmax : bool, default False
        Return also where each element comes from.
    out : ndarray, or (ndarray, ndarray) with `return_argmax`, optional
        Where to write: of exactly the result's shape and dtype, and apart from x in memory.
    num_threads : int, optional
        See `set_num_threads`. Results do not depend on it.

    Returns
    -------
    y : ndarray
        Of x's dtype. A window without a single cell of x gives -inf.
    argmax : ndarray, with `return_argmax`
        The tap that each element of y was taken from: its row-major position in the window, taps
        outside x counted. uint8, with 255 for none, while a window has at most 255 taps, else
        int32, with -1 for none. `argmax_to_indices` turns it into indices.

    Raises
    ------
    ShapeError
        If x has not 3 to 5 axes, or a window does not fit into it.
    ParameterError
        If a hyperparameter is of the wrong kind or out of its range.
    DtypeError
        If x is no array of a supported dtype.

    Notes
    -----
    Along each axis there are ``floor((size + before + after - extent) / stride) + 1`` windows,
    with ``extent = (kernel_size - 1) * dilation + 1``.

    Examples
    --------
    >>> import numpy as np, poolgrad as pg
    >>> x = np.array([1, 5, 2, 4, 3], np.float32).reshape(1, 5, 1)
    >>> y, argmax = pg.max_pool(x, 3, stride=2, padding=1, return_argmax=True)
    >>> y.ravel(), argmax.ravel()
    (array([5., 5., 4.], dtype=float32), array([2, 0, 0], dtype=uint8))
    """
    values = (kernel_size, stride, padding, dilation, ceil_mode, layout)
    return _quick.pool(_forward, "max_pool", x, values, return_argmax, out, num_threads)


def max_pool_backward(
    dy: Array,
    x: Array | Sequence[int],
    kernel_size: Size,
    *,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    layout: Layout = "channels_last",
    argmax: Array | None = None,
    out: Array | None = None,
    num_threads: int | None = None,
) -> Array:
    """Return the gradient of `max_pool` with respect to x.

    Each element of dy goes to the element of x that its window took; where windows overlap, they
    add up in row-major order.

    Parameters
    ----------
    dy : ndarray
        The gradient with respect to y, of y's shape and x's dtype.
    x : ndarray or tuple of int
        The input of the forward; its shape is enough if `argmax` is given.
    kernel_size, stride, padding, dilation, ceil_mode, layout
        As in `max_pool`.
    argmax : ndarray, optional
        What `max_pool` returned with ``return_argmax=True``; it saves finding it again.
    out : ndarray, optional
        Where to write: of exactly x's shape and dtype, and apart from the inputs in memory.
    num_threads : int, optional
        See `set_num_threads`. Results do not depend on it.

    Returns
    -------
    dx : ndarray
        Of x's shape and dtype.

    Raises
    ------
    ShapeError, ParameterError, DtypeError
        As `max_pool`; also if dy or argmax do not fit, or argmax points outside of its window's
        part of x. Nothing is written then.

    Examples
    --------
    >>> import numpy as np, poolgrad as pg
    >>> x = np.array([1, 5, 2, 4, 3], np.float32).reshape(1, 5, 1)
    >>> dy = np.ones((1, 3, 1), np.float32)
    >>> pg.max_pool_backward(dy, x, 3, stride=2, padding=1).ravel()
    array([0., 2., 0., 1., 0.], dtype=float32)
    """
    values = (kernel_size, stride, padding, dilation, ceil_mode, layout)
    return _quick.pool_backward(_backward, "max_pool", dy, x, values, argmax, out, num_threads)


def avg_pool(
    x: Array,
    kernel_size: Size,
    *,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    layout: Layout = "channels_last",
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    out: Array | None = None,
    num_threads: int | None = None,
) -> Array:
    """Return the average of each window.

    Parameters
    ----------
    x, kernel_size, stride, padding, dilation, ceil_mode, layout
        As in `max_pool`.
    count_include_pad : bool, default True
        Whether the divisor counts taps in the padding. Taps beyond it, where `ceil_mode` lets a
        window overhang, are never counted.
    divisor_override : int, optional
        At least 1; divides every window instead. With 1 this is sum pooling.
    out : ndarray, optional
        Where to write: of exactly the result's shape and dtype, and apart from x in memory.
    num_threads : int, optional
        See `set_num_threads`. Results do not depend on it.

    Returns
    -------
    y : ndarray
        Of x's dtype. A window without a single cell of x gives 0.

    Raises
    ------
    ShapeError, ParameterError, DtypeError
        As `max_pool`.

    Examples
    --------
    >>> import numpy as np, poolgrad as pg
    >>> x = np.array([1, 2, 3, 4, 5], np.float32).reshape(1, 5, 1)
    >>> pg.avg_pool(x, 2, ceil_mode=True).ravel()
    array([1.5, 3.5, 5. ], dtype=float32)
    """
    values = (
        kernel_size,
        stride,
        padding,
        dilation,
        ceil_mode,
        layout,
        count_include_pad,
        divisor_override,
    )
    y: Array = _quick.pool(_forward, "avg_pool", x, values, False, out, num_threads)
    return y


def avg_pool_backward(
    dy: Array,
    x: Array | Sequence[int],
    kernel_size: Size,
    *,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    layout: Layout = "channels_last",
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    out: Array | None = None,
    num_threads: int | None = None,
) -> Array:
    """Return the gradient of `avg_pool` with respect to x.

    Parameters
    ----------
    dy : ndarray
        The gradient with respect to y, of y's shape and x's dtype.
    x : ndarray or tuple of int
        The input of the forward, or its shape: the gradient does not depend on its values.
    kernel_size, stride, padding, dilation, ceil_mode, layout
        As in `max_pool`.
    count_include_pad, divisor_override
        As in `avg_pool`.
    out : ndarray, optional
        Where to write: of exactly x's shape and dtype, and apart from the inputs in memory.
    num_threads : int, optional
        See `set_num_threads`. Results do not depend on it.

    Returns
    -------
    dx : ndarray
        Of x's shape and dy's dtype.

    Raises
    ------
    ShapeError, ParameterError, DtypeError
        As `max_pool`; also if dy does not fit.

    Examples
    --------
    >>> import numpy as np, poolgrad as pg
    >>> pg.avg_pool_backward(np.ones((1, 2, 1), np.float32), (1, 4, 1), 3, stride=1).ravel()
    array([0.33333334, 0.6666667 , 0.6666667 , 0.33333334], dtype=float32)
    """
    values = (
        kernel_size,
        stride,
        padding,
        dilation,
        ceil_mode,
        layout,
        count_include_pad,
        divisor_override,
    )
    return _quick.pool_backward(_backward, "avg_pool", dy, x, values, None, out, num_threads)


@overload
def adaptive_max_pool(
    x: Array,
    output_size: OutputSize,
    *,
    layout: Layout = "channels_last",
    return_argmax: Literal[False] = False,
    out: Array | None = None,
    num_threads: int | None = None,
) -> Array: ...
@overload
def adaptive_max_pool(
    x: Array,
    output_size: OutputSize,
    *,
    layout: Layout = "channels_last",
    return_argmax: Literal[True],
    out: tuple[Array, Array] | None = None,
    num_threads: int | None = None,
) -> tuple[Array, Array]: ...
def adaptive_max_pool(
    x: Array,
    output_size: OutputSize,
    *,
    layout: Layout = "channels_last",
    return_argmax: bool = False,
    out: Any = None,
    num_threads: int | None = None,
) -> Any:
    """Return the largest element of each of a given number of windows.

    NaNs and equal elements are treated as in `max_pool`.

    Parameters
    ----------
    x : ndarray of shape (N, *spatial, C), or (N, C, *spatial) with ``layout="channels_first"``
        As in `max_pool`.
    output_size, layout
        As in `adaptive_avg_pool`.
    return_argmax : bool, default False
        Return also where each element comes from.
    out : ndarray, or (ndarray, ndarray) with `return_argmax`, optional
        Where to write: of exactly the result's shape and dtype, and apart from x in memory.
    num_threads : int, optional
        See `set_num_threads`. Results do not depend on it.

    Returns
    -------
    y : ndarray
        Of x's dtype.
    argmax : ndarray, with `return_argmax`
        The tap that each element of y was taken from, as in `max_pool`: its row-major position in
        a box that has along each axis as many taps as the largest window.

    Raises
    ------
    ShapeError, ParameterError, DtypeError
        As `adaptive_avg_pool`.

    Examples
    --------
    >>> import numpy as np, poolgrad as pg
    >>> x = np.array([1, 5, 2, 4, 3], np.float32).reshape(1, 5, 1)
    >>> y, argmax = pg.adaptive_max_pool(x, 3, return_argmax=True)
    >>> y.ravel(), argmax.ravel()
    (array([5., 5., 4.], dtype=float32), array([1, 0, 0], dtype=uint8))
    """
    values = (output_size, layout)
    return _quick.pool(_forward, "adaptive_max_pool", x, values, return_argmax, out, num_threads)


def adaptive_max_pool_backward(
    dy: Array,
    x: Array | Sequence[int],
    output_size: OutputSize,
    *,
    layout: Layout = "channels_last",
    argmax: Array | None = None,
    out: Array | None = None,
    num_threads: int | None = None,
) -> Array:
    """Return the gradient of `adaptive_max_pool` with respect to x.

    Parameters
    ----------
    dy : ndarray
        The gradient with respect to y, of y's shape and x's dtype.
    x : ndarray or tuple of int
        The input of the forward; its shape is enough if `argmax` is given.
    output_size, layout
        As in `adaptive_avg_pool`.
    argmax : ndarray, optional
        What `adaptive_max_pool` returned with ``return_argmax=True``; it saves finding it again.
    out : ndarray, optional
        Where to write: of exactly x's shape and dtype, and apart from the inputs in memory.
    num_threads : int, optional
        See `set_num_threads`. Results do not depend on it.

    Returns
    -------
    dx : ndarray
        Of x's shape and dtype.

    Raises
    ------
    ShapeError, ParameterError, DtypeError
        As `adaptive_avg_pool`; also if dy or argmax do not fit, or argmax points outside of its
        window. Nothing is written then.

    Examples
    --------
    >>> import numpy as np, poolgrad as pg
    >>> x = np.array([1, 5, 2, 4, 3], np.float32).reshape(1, 5, 1)
    >>> pg.adaptive_max_pool_backward(np.ones((1, 3, 1), np.float32), x, 3).ravel()
    array([0., 2., 0., 1., 0.], dtype=float32)
    """
    values = (output_size, layout)
    return _quick.pool_backward(
        _backward, "adaptive_max_pool", dy, x, values, argmax, out, num_threads
    )


def adaptive_avg_pool(
    x: Array,
    output_size: OutputSize,
    *,
    layout: Layout = "channels_last",
    out: Array | None = None,
    num_threads: int | None = None,
) -> Array:
    """Return the average of each of a given number of windows.

    Each axis is cut into as many equal parts as asked for. A part's window has all cells that the
    part touches, so neighbours share one where the parts do not end between cells.

    Parameters
    ----------
    x : ndarray of shape (N, *spatial, C), or (N, C, *spatial) with ``layout="channels_first"``
        As in `max_pool`.
    output_size : int or tuple of (int or None)
        The number of windows, for all spatial axes or for each; None keeps that axis as it is.
        It may exceed the size of x: windows have one or two cells then.
    layout : {"channels_last", "channels_first"}
        Where the channels are.
    out : ndarray, optional
        Where to write: of exactly the result's shape and dtype, and apart from x in memory.
    num_threads : int, optional
        See `set_num_threads`. Results do not depend on it.

    Returns
    -------
    y : ndarray
        Of x's dtype.

    Raises
    ------
    ShapeError
        If x has not 3 to 5 axes, or a spatial size of 0.
    ParameterError
        If `output_size` is of the wrong kind or out of its range.
    DtypeError
        If x is no array of a supported dtype.

    Notes
    -----
    Along each axis, window ``o`` reaches from ``floor(o * size / output_size)`` up to, not
    including, ``ceil((o + 1) * size / output_size)``.

    Examples
    --------
    >>> import numpy as np, poolgrad as pg
    >>> x = np.array([1, 5, 2, 4, 3], np.float32).reshape(1, 5, 1)
    >>> pg.adaptive_avg_pool(x, 2).ravel()
    array([2.6666667, 3.       ], dtype=float32)
    >>> pg.adaptive_avg_pool(np.ones((2, 30, 40, 3), np.float32), (7, None)).shape
    (2, 7, 40, 3)
    """
    y: Array = _quick.pool(
        _forward, "adaptive_avg_pool", x, (output_size, layout), False, out, num_threads
    )
    return y


def adaptive_avg_pool_backward(
    dy: Array,
    x: Array | Sequence[int],
    output_size: OutputSize,
    *,
    layout: Layout = "channels_last",
    out: Array | None = None,
    num_threads: int | None = None,
) -> Array:
    """Return the gradient of `adaptive_avg_pool` with respect to x.

    Parameters
    ----------
    dy : ndarray
        The gradient with respect to y, of y's shape and x's dtype.
    x : ndarray or tuple of int
        The input of the forward, or its shape: the gradient does not depend on its values.
    output_size, layout
        As in `adaptive_avg_pool`.
    out : ndarray, optional
        Where to write: of exactly x's shape and dtype, and apart from the inputs in memory.
    num_threads : int, optional
        See `set_num_threads`. Results do not depend on it.

    Returns
    -------
    dx : ndarray
        Of x's shape and dy's dtype.

    Raises
    ------
    ShapeError, ParameterError, DtypeError
        As `adaptive_avg_pool`; also if dy does not fit.

    Examples
    --------
    >>> import numpy as np, poolgrad as pg
    >>> pg.adaptive_avg_pool_backward(np.ones((1, 2, 1), np.float32), (1, 3, 1), 2).ravel()
    array([0.5, 1. , 0.5], dtype=float32)
    """
    values = (output_size, layout)
    return _quick.pool_backward(
        _backward, "adaptive_avg_pool", dy, x, values, None, out, num_threads
    )


def argmax_to_indices(argmax: Array, plan: Plan, base: str = "plane") -> npt.NDArray[np.int64]:
    """Turn a compact argmax into indices of x.

    Parameters
    ----------
    argmax : ndarray
        What a maximum returned with ``return_argmax=True``.
    plan : Plan
        The plan of that pooling.
    base : {"plane", "tensor", "tensor_column_major", "channels", "batch_channels"}
        What an index counts from:

        - ``"plane"``: row-major in the spatial axes of its batch item and channel, as PyTorch;
        - ``"tensor"``: row-major in the whole of x in the channels-first order, as ONNX;
        - ``"tensor_column_major"``: as that, each spatial plane column-major, as ONNX with
          ``storage_order=1``;
        - ``"channels"``: row-major in its batch item in the channels-last order, as TensorFlow;
        - ``"batch_channels"``: as that, with the batch, as TensorFlow with
          ``include_batch_in_index``.

    Returns
    -------
    indices : ndarray of int64
        Of argmax's shape; -1 where argmax is none.

    Raises
    ------
    ParameterError
        If argmax does not stem from such a pooling, or `base` is none of those.
    ShapeError, DtypeError
        If argmax does not fit the plan.

    Examples
    --------
    >>> import numpy as np, poolgrad as pg
    >>> x = np.array([1, 5, 2, 4, 3], np.float32).reshape(1, 5, 1)
    >>> y, argmax = pg.max_pool(x, 3, stride=2, padding=1, return_argmax=True)
    >>> plan = pg.plan("max_pool", x.shape, kernel_size=3, stride=2, padding=1)
    >>> pg.argmax_to_indices(argmax, plan).ravel()
    array([1, 1, 3])
    """
    if not isinstance(plan, Plan):
        raise ParameterError(f"plan: {show(plan)} is of type {type(plan).__name__}; not a Plan")
    if base not in _BASES:
        raise ParameterError(f"base: {show(base)} is not one of {', '.join(map(repr, _BASES))}")
    given = plan.check_argmax(argmax)
    none = given == given.dtype.type(-1 if given.dtype == np.int32 else 255)
    spatial = len(plan.axes)
    first = 2 if plan.layout == "channels_first" else 1
    # The cell that each argmax points at, axis by axis: window's first tap + tap * dilation.
    position = given.astype(np.int64)
    cells: list[npt.NDArray[np.int64]] = []
    for k in reversed(range(spatial)):
        axis = plan.axes[k]
        position, tap = np.divmod(position, axis.kernel)
        shape = [1] * given.ndim
        shape[first + k] = axis.output
        starts = axis.first(np.arange(axis.output)).reshape(shape)
        cells.insert(0, starts + tap * axis.dilation)
    batch = np.arange(given.shape[0]).reshape([-1] + [1] * (given.ndim - 1))
    at = 1 if first == 2 else given.ndim - 1
    channel = np.arange(given.shape[at]).reshape(
        [-1 if axis == at else 1 for axis in range(given.ndim)]
    )
    sizes = [axis.size for axis in plan.axes]
    n_channels = given.shape[at]
    order: list[tuple[npt.NDArray[np.int64], int]] = list(zip(cells, sizes, strict=True))
    if base == "tensor":
        order = [(batch, 0), (channel, n_channels), *order]
    elif base == "tensor_column_major":
        # ONNX counts the two planar axes column by column, and the depth outermost, as before.
        order = [(batch, 0), (channel, n_channels), *order[:-2], *reversed(order[-2:])]
    elif base == "channels":
        order = [*order, (channel, n_channels)]
    elif base == "batch_channels":
        order = [(batch, 0), *order, (channel, n_channels)]
    indices = np.zeros(given.shape, np.int64)
    for coordinate, size in order:
        indices = indices * size + coordinate
    indices[none] = -1
    return indices


_BASES = ("plane", "tensor", "tensor_column_major", "channels", "batch_channels")


def _forward(
    op: str,
    x: object,
    values: tuple[object, ...],
    return_argmax: bool,
    out: Any,
    num_threads: int | None,
) -> Any:
    """Pool, given the hyperparameters in their order."""
    array = as_input("x", x)
    plan = plan_of("x", op, array.shape, array.dtype, values)
    return plan.forward(array, return_argmax=return_argmax, out=out, num_threads=num_threads)


def _backward(
    op: str,
    dy: object,
    x: object,
    values: tuple[object, ...],
    argmax: Array | None,
    out: Array | None,
    num_threads: int | None,
) -> Array:
    """Return a gradient, given the hyperparameters in their order, and x or its shape."""
    gradient = as_input("dy", dy)
    if isinstance(x, (tuple, list)):
        array, shape, dtype = None, x, gradient.dtype
    else:
        array = as_input("x", x)
        shape, dtype = array.shape, array.dtype
    plan = plan_of("x", op, shape, dtype, values)
    return plan.backward(gradient, array, argmax=argmax, out=out, num_threads=num_threads)
