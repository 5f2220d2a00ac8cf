"""From hyperparameters to tap tables: all that is known of windows, one axis at a time.

Design
------
A pooling window is a box, so it is a product of one-axis windows. Along one axis the taps of
window ``o`` are ``start + j * step`` for ``j`` in ``0 .. count - 1``, and every kind of window
differs only in how ``start`` and ``count`` follow from ``o``, which a tap table tells. It has a row
for each window of a period, after which windows repeat, moved on by ``advance`` cells. The windows
of an adaptive pooling are ``advance / parts`` cells apart: window ``o`` lies between ``o *
advance`` and ``o * advance + taps``, in units of ``1 / parts`` of a cell, and has every cell that
this touches.

Which windows cover a cell is a table of the same kind, the transposed one: the gradient of a sum
is a sum with it. Kernels unfold the stretch of a table that they are working on, clipped to the
real input, and but for gradients need no stride, padding or dilation.

Everything is computed in Python integers, which cannot overflow. `LIMIT` keeps each quantity that
reaches a kernel well inside 64 bits.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any, Final

from poolgrad.errors import ParameterError, ShapeError, show

__all__ = [
    "LIMIT",
    "NAMED_PADDINGS",
    "AdaptiveAxis",
    "Axis",
    "Row",
    "Rows",
    "Side",
    "adaptive_axes_of",
    "axes_of",
    "integer",
]

#: No size, hyperparameter or padded extent may exceed this; sums of three still fit in 64 bits.
LIMIT: Final = 2**61

NAMED_PADDINGS: Final = ("valid", "same", "same_lower", "same_size")

AXIS_NAMES: Final = ("depth", "height", "width")

#: A row of a tap table: (start, taps * parts, advance, step, size, period, windows, parts).
Row = tuple[int, int, int, int, int, int, int, int]
Rows = list[Row]


@dataclass(frozen=True, slots=True)
class Side:
    """One axis of a reduction: the windows of its result, on the cells of its source.

    Parameters
    ----------
    windows, size : int
        Windows, and cells.
    taps, step : int
        Taps of the largest window, and cells from tap to tap.
    period, advance : int
        Windows after which the taps repeat, and the cells that they have moved on by then.
    front, back : int
        Cells by which windows reach out on either side, at most.
    extent : int
        Cells from the first tap of a window to just after its last one, at most.
    """

    windows: int
    size: int
    taps: int
    step: int
    period: int
    advance: int
    front: int
    back: int
    extent: int

    def reach(self, windows: int) -> int:
        """Return the most cells, first to last, that so many neighbouring windows touch."""
        moved = -(-(windows - 1) * self.advance // self.period)
        return min(self.size, moved + self.extent)

    def shares(self, taps: int) -> bool:
        """Whether a window has most of so many taps in common with the next one of its kind."""
        return self.advance * 4 <= taps * self.step

    @property
    def trivial(self) -> bool:
        """Whether window o is just cell o."""
        return (
            self.taps == self.period == self.advance == 1
            and self.windows == self.size
            and self.front == self.back == 0
        )


@dataclass(frozen=True, slots=True)
class Axis:
    """One spatial axis of a pooling, checked.

    Parameters
    ----------
    size : int
        The input's extent.
    output : int
        The number of windows.
    kernel, stride, dilation : int
        Taps of a window, distance between windows, distance between taps.
    before, after : int
        Padding on either side.
    """

    size: int
    output: int
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    before: int = 0
    after: int = 0

    @property
    def extent(self) -> int:
        """The distance from a window's first tap to just after its last one."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def trivial(self) -> bool:
        """Whether each window is just the input cell of the same index."""
        return self.kernel == 1 and self.stride == 1 and self.size == self.output

    @property
    def whole(self) -> bool:
        """Whether there is one window, which has all cells."""
        return self.output == self.dilation == 1 and self.kernel >= self.before + self.size

    def taps(self) -> Rows:
        """Return the table of the windows' taps in the input."""
        return [
            (-self.before, self.kernel, self.stride, self.dilation, self.size, 1, self.output, 1)
        ]

    def frame(self) -> Rows:
        """Return the table of the windows' taps in the padded input.

        Its counts divide an average that counts the padding: taps in explicit padding count,
        taps beyond it, where ``ceil_mode`` lets a window overhang, do not.
        """
        padded = self.before + self.size + self.after
        return [(0, self.kernel, self.stride, self.dilation, padded, 1, self.output, 1)]

    @property
    def plain(self) -> bool:
        """Whether all windows have as many taps, and lie equally far apart."""
        return True

    def covers(self) -> Rows:
        """Return the transposed table: for each cell, the windows that it is a tap of.

        Cell i is tap t of window o if ``i + before = o * stride + t * dilation``, so these are the
        same for cells a stride apart, but for a window each, and lie dilation / gcd(stride,
        dilation) apart. Later windows have it as an earlier tap.
        """
        common = gcd(self.stride, self.dilation)
        cycle, step = self.stride // common, self.dilation // common
        inverse = pow(step, -1, cycle) if cycle > 1 else 0
        rows = []
        for cell in range(min(self.stride, self.size)):
            at, rest = divmod(cell + self.before, common)
            tap = at * inverse % cycle
            count = -(-(self.kernel - tap) // cycle) if not rest and tap < self.kernel else 0
            last = tap + (count - 1) * cycle
            start = (cell + self.before - last * self.dilation) // self.stride if count else 0
            rows.append((start, count, 1, step, self.output, self.stride, self.size, 1))
        return rows

    @property
    def windows(self) -> Side:
        """The windows on the cells of the input."""
        end = (self.output - 1) * self.stride + self.extent - self.before
        return Side(
            windows=self.output,
            size=self.size,
            taps=self.kernel,
            step=self.dilation,
            period=1,
            advance=self.stride,
            front=self.before,
            back=max(0, end - self.size),
            extent=self.extent,
        )

    @property
    def covering(self) -> Side:
        """The cells of the input, on the windows that they are taps of."""
        cycle = self.stride // gcd(self.stride, self.dilation)
        return Side(
            windows=self.size,
            size=self.output,
            taps=-(-self.kernel // cycle),
            step=self.dilation // gcd(self.stride, self.dilation),
            period=self.stride,
            advance=1,
            front=max(0, -((self.before - self.extent + 1) // self.stride)),
            back=max(0, (self.size - 1 + self.before) // self.stride + 1 - self.output),
            extent=-(-self.extent // self.stride),
        )

    def first(self, windows: Any) -> Any:
        """Return a window's first tap, inside the input or not; of an array of them, an array."""
        ((start, _, advance, _, _, _, _, parts),) = self.taps()
        return start + windows // parts * advance + windows % parts * advance // parts

    def explain(self) -> str:
        """Return the windows in words."""
        span = f" spanning {self.extent} cells" if self.dilation > 1 else ""
        last = (self.output - 1) * self.stride + self.extent
        overhangs = last > self.before + self.size + self.after
        return (
            f"{self.output} windows of {self.kernel} taps{span}, {self.stride} apart, "
            f"on {self.size} cells; padding ({self.before}, {self.after})"
            + (", the last of which overhangs" if overhangs else "")
        )


@dataclass(frozen=True, slots=True)
class AdaptiveAxis(Axis):
    """One spatial axis of an adaptive pooling, cut into equal parts. Make one with `of`.

    Part ``o`` reaches from ``o * size / output`` to ``(o + 1) * size / output``, and its window has
    every cell that it touches. `kernel` is the taps of the largest window, and `stride` the least
    distance between windows, but at least 1.
    """

    @classmethod
    def of(cls, size: int, output: int) -> AdaptiveAxis:
        """Return the axis that has so many windows."""
        shared = gcd(size, output)
        advance, period = size // shared, output // shared
        largest = (advance + 2 * period - 2) // period
        return cls(size, output, largest, max(1, size // output))

    @property
    def plain(self) -> bool:
        """Whether all windows have as many taps, and lie equally far apart."""
        return self.size % self.output == 0

    def taps(self) -> Rows:
        """Return the table of the windows' taps, which all lie in the input."""
        shared = gcd(self.size, self.output)
        advance = self.size // shared
        return [(0, advance, advance, 1, self.size, 1, self.output, self.output // shared)]

    def covers(self) -> Rows:
        """Return the transposed table, which is that of the input as parts of the output."""
        return AdaptiveAxis.of(self.output, self.size).taps()

    @property
    def windows(self) -> Side:
        """The windows on the cells of the input."""
        ((_, _, advance, _, _, _, _, parts),) = self.taps()
        return Side(
            windows=self.output,
            size=self.size,
            taps=self.kernel,
            step=1,
            period=parts,
            advance=advance,
            front=0,
            back=0,
            extent=self.kernel,
        )

    @property
    def covering(self) -> Side:
        """The cells of the input, on the windows that they are taps of."""
        return AdaptiveAxis.of(self.output, self.size).windows

    def frame(self) -> Rows:
        """Return the same: there is no padding."""
        return self.taps()

    def explain(self) -> str:
        """Return the windows in words."""
        smallest = -(-self.size // self.output)  # the first one
        taps = f"{self.kernel}" if smallest == self.kernel else f"{smallest} to {self.kernel}"
        return f"{self.output} windows of {taps} taps, on {self.size} cells"


def integer(name: str, value: object, *, least: int, axis: int | None = None) -> int:
    """Return `value` as an int of at least `least`, or raise a `ParameterError`.

    Ints and NumPy integers are taken. A bool, a float of whole value and a numeric string are
    mistakes more often than not, and are refused.
    """
    where = name if axis is None else f"{name}: axis {axis}"
    if type(value) is int:
        number = value
    else:
        try:
            if isinstance(value, bool) or getattr(value, "dtype", None) == "bool":
                raise TypeError
            # Arrays have __index__ too; only scalars are meant.
            if getattr(value, "ndim", 0):
                raise TypeError
            number = operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            raise ParameterError(
                f"{where}: {show(value)} is of type {type(value).__name__}; an integer is needed"
            ) from None
    if number < least:
        raise ParameterError(f"{where}: {show(number)} is below {least}, the least allowed")
    if number > LIMIT:
        raise ParameterError(f"{where}: {show(number)} is above 2**61, the most allowed")
    return number


def _is_sequence(value: object) -> bool:
    return isinstance(value, (list, tuple)) or getattr(value, "ndim", 0) == 1


def per_axis(name: str, value: object, n_axes: int, *, least: int = 1) -> tuple[int, ...]:
    """Return a hyperparameter given as one integer, or as one an axis, as one an axis."""
    if not _is_sequence(value):
        return (integer(name, value, least=least),) * n_axes
    items = list(value)  # type: ignore[call-overload]
    if len(items) != n_axes:
        raise ParameterError(
            f"{name}: {show(value)} has length {len(items)}; "
            f"one integer, or one for each of the {n_axes} spatial axes, is needed"
        )
    return tuple(integer(name, item, least=least, axis=k) for k, item in enumerate(items))


def _explicit_padding(padding: object, n_axes: int) -> tuple[tuple[int, int], ...]:
    """Return the pads of an int, of one int an axis, or of one (before, after) pair an axis."""
    if not _is_sequence(padding):
        pad = integer("padding", padding, least=0)
        return ((pad, pad),) * n_axes
    items = list(padding)  # type: ignore[call-overload]
    if len(items) != n_axes:
        hint = "; for one axis write ((before, after),)" if n_axes == 1 and len(items) == 2 else ""
        raise ParameterError(
            f"padding: {show(padding)} has length {len(items)}; one integer, or one integer or "
            f"(before, after) pair for each of the {n_axes} spatial axes, is needed{hint}"
        )
    pads = []
    for axis, item in enumerate(items):
        if not _is_sequence(item):
            pad = integer("padding", item, least=0, axis=axis)
            pads.append((pad, pad))
            continue
        pair = list(item)
        if len(pair) != 2:
            raise ParameterError(
                f"padding: axis {axis}: {show(item)} has length {len(pair)}; "
                "a (before, after) pair has two integers"
            )
        before, after = (integer("padding", side, least=0, axis=axis) for side in pair)
        pads.append((before, after))
    return tuple(pads)


def _named_padding(name: str, size: int, extent: int, stride: int) -> tuple[int, int]:
    """Return the (before, after) pads of one axis for one of `NAMED_PADDINGS`."""
    if name == "valid":
        return 0, 0
    outputs = size if name == "same_size" else -(-size // stride)
    total = max(0, (outputs - 1) * stride + extent - size)
    small, large = total // 2, total - total // 2
    return (large, small) if name == "same_lower" else (small, large)


def axes_of(
    sizes: Sequence[int],
    kernel_size: object,
    stride: object,
    padding: object,
    dilation: object,
    ceil_mode: object,
) -> tuple[Axis, ...]:
    """Check the geometry of a windowed pooling and return its axes.

    Parameters
    ----------
    sizes : sequence of int
        The spatial sizes of the input, each at least 0.
    kernel_size, stride, padding, dilation, ceil_mode
        As in `poolgrad.max_pool`.

    Returns
    -------
    tuple of Axis
        One for each of `sizes`.

    Raises
    ------
    ParameterError
        A hyperparameter is of the wrong kind or out of its range.
    ShapeError
        A spatial size is 0, or a window does not fit into the padded input.

    Notes
    -----
    An axis has ``floor((size + before + after - extent) / stride) + 1`` windows. `ceil_mode` adds
    one where the division leaves a rest and that window would start before ``size + before``:
    PyTorch's rule, which ONNX adopted, wherever PyTorch allows the padding.
    """
    n_axes = len(sizes)
    kernels = per_axis("kernel_size", kernel_size, n_axes)
    strides = kernels if stride is None else per_axis("stride", stride, n_axes)
    dilations = per_axis("dilation", dilation, n_axes)
    ceil = boolean("ceil_mode", ceil_mode)
    if isinstance(padding, str):
        if padding not in NAMED_PADDINGS:
            raise ParameterError(
                f"padding: {show(padding)} is not one of {', '.join(map(repr, NAMED_PADDINGS))}"
            )
        if ceil:
            raise ParameterError(
                f"ceil_mode: True does not go with padding={padding!r}, "
                "which already fixes the output's size"
            )
        pads = None
    else:
        pads = _explicit_padding(padding, n_axes)

    axes = []
    for axis, size in enumerate(sizes):
        kernel, step, dil = kernels[axis], strides[axis], dilations[axis]
        extent = (kernel - 1) * dil + 1
        if extent > LIMIT:
            raise ParameterError(
                f"kernel_size: axis {axis}: {kernel} taps at dilation {dil} span {show(extent)} "
                "cells, above 2**61, the most allowed"
            )
        _check_size(axis, size)
        before, after = (
            _named_padding(padding, size, extent, step)  # type: ignore[arg-type]
            if pads is None
            else pads[axis]
        )
        padded = size + before + after
        if padded > LIMIT:
            raise ParameterError(
                f"padding: axis {axis}: the padded size {show(padded)} is above 2**61, "
                "the most allowed"
            )
        output, rest = divmod(padded - extent, step)
        output += 1
        if ceil and rest and output * step < size + before:
            output += 1
        if output < 1:
            raise ShapeError(
                f"kernel_size: axis {axis}: kernel {kernel} at dilation {dil} spans {extent} "
                f"cells and exceeds the padded input of {before} + {size} + {after}; "
                f"the smallest input that fits is {max(1, extent - before - after)}"
            )
        axes.append(Axis(size, output, kernel, step, dil, before, after))
    return tuple(axes)


def adaptive_axes_of(sizes: Sequence[int], output_size: object) -> tuple[AdaptiveAxis, ...]:
    """Check the geometry of an adaptive pooling and return its axes.

    Parameters
    ----------
    sizes : sequence of int
        The spatial sizes of the input, each at least 0.
    output_size
        As in `poolgrad.adaptive_avg_pool`.

    Returns
    -------
    tuple of AdaptiveAxis
        One for each of `sizes`.

    Raises
    ------
    ParameterError
        `output_size` is of the wrong kind or out of its range.
    ShapeError
        A spatial size is 0.
    """
    if _is_sequence(output_size):
        items = list(output_size)  # type: ignore[call-overload]
        if len(items) != len(sizes):
            raise ParameterError(
                f"output_size: {show(output_size)} has length {len(items)}; one integer, or one "
                f"integer or None for each of the {len(sizes)} spatial axes, is needed"
            )
        outputs = [
            None if item is None else integer("output_size", item, least=1, axis=axis)
            for axis, item in enumerate(items)
        ]
    else:
        outputs = [integer("output_size", output_size, least=1)] * len(sizes)
    axes = []
    for number, (size, output) in enumerate(zip(sizes, outputs, strict=True)):
        _check_size(number, size)
        axis = AdaptiveAxis.of(size, size if output is None else output)
        period = axis.windows.period
        if size * period > LIMIT:
            raise ParameterError(
                f"output_size: axis {number}: {axis.output} windows on {size} cells repeat only "
                f"after {period}; cells times that may be at most 2**61"
            )
        axes.append(axis)
    return tuple(axes)


def _check_size(axis: int, size: int) -> None:
    if size == 0:
        raise ShapeError(
            f"x: axis {axis} of the spatial axes has size 0; each must be at least 1 "
            "(only the batch and the channels may be empty)"
        )


def boolean(name: str, value: object) -> bool:
    """Return `value` as a bool, or raise a `ParameterError`; only bools are taken."""
    if isinstance(value, bool):
        return value
    if getattr(value, "dtype", None) == "bool" and getattr(value, "ndim", None) == 0:
        return bool(value)
    raise ParameterError(
        f"{name}: {show(value)} is of type {type(value).__name__}; True or False is needed"
    )
