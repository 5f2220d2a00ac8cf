"""The program of a reduction: all that the kernels need to know of it, as integers.

It says which windows there are, how they are best reduced, how the result is cut into the tiles
that threads take, and what workspace a thread needs. `_kernels.pxi` explains the ways of reducing
that are chosen between here. What is chosen changes time and memory; of the results it changes
only the order in which a sum's elements are added, so it follows from the geometry alone, and not
from the number of threads or the instruction set.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import isqrt, prod
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from poolgrad.geometry import Axis, Rows, Side

__all__ = ["Program", "Task", "in_rows", "program"]

#: What is computed: y; y and its argmax; the same as gradients know it, plane by plane; dx of an
#: average; dx of a maximum, of a saved argmax or of a searched one.
Task = Literal["forward", "argmax", "windows", "adjoint", "route", "search"]

#: Bytes of a tile of small planes, and of the rows of a scan, which stay in the L2 cache.
TILE_BYTES: Final = 128 * 1024

#: Bytes that a tile may take, of workspace and of rows that are read again; and if its windows have
#: more taps along an axis than ordinary ones. To read memory in order is worth more than to stay in
#: the L2 cache.
MOST_BYTES: Final = 896 * 1024
ORDINARY: Final = 16
VAST_BYTES: Final = 2304 * 1024

#: The longest side of a tile, since the tables unfolded for it should stay in cache too.
LONGEST: Final = 2048

#: Channels below which neighbouring windows are made as one vector, on some CPU at least.
NARROW: Final = 16

#: The least taps of windows that are reduced along the height first, but for maxima of a few
#: channels.
LEAST_UPRIGHT: Final = 25

#: Taps above which windows are put together from smaller ones, where they share most of them.
LARGE: Final = 8

#: The same for a maximum, whose windows may be put together in any order, and the least elements
#: of a row of results for which it is.
LARGE_MAXIMUM: Final = 6
LEAST_PUT: Final = 256

#: Windows that a cell may be under, and still look for what they route to it.
MOST_LOOKS: Final = 12

#: Windows that an element is in, on average, and they still look out for NaNs one by one.
MOST_VISITS: Final = 2.5

#: Taps of windows, two apart and not dilated, whose argmax a forward finds by `apart` even in short
#: rows, of less than NARROW.
FEW_TAPS: Final = 9

#: Taps from which on the argmax of windows apart is found by planes together.
MANY_TAPS: Final = 16

#: Planes of one channel are made together, 16 at a time, if there are so many of so few cells.
MOST_TOGETHER: Final = 16
LEAST_TOGETHER: Final = 8
MOST_CELLS: Final = 4096

#: Bytes of a plane's channels that are averaged at a time, so that their sums stay in the L1 cache.
MOST_SUMS: Final = 8192

#: Bytes of a tile of such planes of one channel, which are read at several places far apart.
WHOLE_BYTES: Final = 2 * 1024 * 1024

#: Rows of windows that rows of one channel go into while they are read once; the least windows of
#: a row for which that pays, and the most cells that a window may reach; the bytes of rows that a
#: tile aims at, and the least rows of results.
ROLLED: Final = (2, 3, 5)
LEAST_ROLLED: Final = 16
MOST_REACH: Final = 64
ROLL_BYTES: Final = 24 * 1024
LEAST_ROWS: Final = 16

#: Maxima of large windows of one channel that are made plane by plane: the least windows of a row,
#: the most bytes of the rows of two windows, and cells that are reduced along the width in one go.
LEAST_SCANNED: Final = 16
SCAN_BYTES: Final = 32 * 1024
SCAN_CELLS: Final = 2048

#: Windows of a row of narrow cells that are clipped, and made by themselves nevertheless.
FEW_CLIPPED: Final = 4

#: Rows of windows of one channel that are made in one go, and their elements, which also bound the
#: planes that are, and the argmax that is narrowed at once, of any channels.
MOST_ROWS: Final = 16
MOST_RUN: Final = 4096

#: Elements of gradients of averages that share no cell that are made at a time, and of a row for
#: which that pays.
PIECE: Final = 4096
LEAST_LONE: Final = 32

#: Bytes of source and result that do not stay in the caches. From there on, results may go past
#: them, and what is read next is fetched meanwhile. Gradients of an average go past them unless
#: long copies do as well; by several threads, from twice as many on, since they are no faster then.
LARGE_BYTES: Final = 16 * 1024 * 1024

#: Fields of an axis, behind the program's own; see `AXES` and `AXIS_FIELDS` in the kernels.
HEADER: Final = 36
PLANES: Final = 0
GROUP: Final = 2
PAST: Final = 16
BY_ROWS: Final = 29
AXIS_FIELDS: Final = 6


@dataclass(frozen=True)
class Program:
    """A program, and the bytes of one thread's workspace for it."""

    axes: tuple[Axis, Axis, Axis]
    divisors: tuple[Rows, Rows, Rows] | None
    backward: bool
    header: tuple[int, ...]
    sizes: tuple[int, int, int, int, int]
    shape: tuple[int, int, int, int, int]
    cuts: tuple[tuple[int, int, int], ...]
    workspace_bytes: int
    together: int
    near: bool  # whether several threads do without `PAST`
    singly: Program | None  # if planes are together row by row, how each is done by itself

    @cached_property
    def code(self) -> npt.NDArray[np.intp]:
        """The integers for the kernels: fields, then fields of each axis, then tables."""
        code = list(self.header)
        tables: list[int] = []

        def add(rows: Rows) -> int:
            at = HEADER + 3 * AXIS_FIELDS + len(tables)
            for row in rows:
                tables.extend(row)
            return at

        for number, axis in enumerate(self.axes):
            code.append(add(axis.covers() if self.backward else axis.taps()))
            code.append(add(self.divisors[number]) if self.divisors else 0)
            code += (axis.kernel, axis.before, axis.stride, axis.dilation)
        made = np.array(code + tables, np.intp)
        if self.singly is None:
            return made
        # Behind it, the program of one plane by itself.
        made[BY_ROWS] = len(made)
        one = self.singly.code.copy()
        one[PLANES] = one[GROUP] = 1
        return np.concatenate([made, one])

    @cached_property
    def _finer(self) -> dict[int, npt.NDArray[np.intp]]:
        return {}

    def finer(self, threads: int) -> npt.NDArray[np.intp]:
        """Return the code with smaller tiles, so many that threads seldom wait for each other."""
        if self.together:
            # Groups of planes are what threads take, if there are enough.
            if self.singly is None or self.together > (threads - 1) * MOST_TOGETHER:
                return self.code
            return self.singly.finer(threads)
        if threads not in self._finer:
            self._finer[threads] = self._cut(threads)
        return self._finer[threads]

    def _cut(self, threads: int) -> npt.NDArray[np.intp]:
        sizes = list(self.sizes)

        def count() -> int:
            return prod(-(-n // size) for n, size in zip(self.shape, sizes, strict=True))

        for k, least, each in self.cuts:
            while (
                count() < each * threads and sizes[k] > 1 and (half := -(-sizes[k] // 2)) >= least
            ):
                sizes[k] = half
        code = self.code.copy()
        code[2:7] = sizes
        if self.near:
            code[PAST] = False
        return code


def in_rows(axes: tuple[Axis, Axis, Axis], planes: int) -> tuple[tuple[Axis, Axis, Axis], int]:
    """Return the axes and the planes as which a forward of one channel is best done.

    Planes whose windows are in one row each are rows of one plane, if these are few or long, or
    `apart` makes their windows; others are made together.
    """
    depth, height, width = axes
    few = planes < LEAST_TOGETHER or max(width.size, width.output) > MOST_CELLS
    if (
        depth.trivial
        and height.trivial
        and (few or _apart(width.windows))
        and not all(axis.whole for axis in axes)
    ):
        rows = planes * depth.size * height.size
        return (Axis(1, 1), Axis(rows, rows), width), 1
    return axes, planes


def program(
    axes: tuple[Axis, Axis, Axis],
    planes: int,
    channels: int,
    itemsize: int,
    task: Task,
    divisors: tuple[Rows, Rows, Rows] | None,
    together_too: bool = True,
) -> Program:
    """Choose how a reduction is done.

    Parameters
    ----------
    axes : (Axis, Axis, Axis)
        Depth, height and width.
    planes, channels : int
        Planes, and neighbouring elements of a cell.
    itemsize : int
        Bytes of an element.
    task : {"forward", "argmax", "windows", "adjoint", "route", "search"}
        What is computed.
    divisors : (Rows, Rows, Rows), optional
        Of a mean: tables whose counts, multiplied over the axes, are the windows' divisors.
    together_too : bool, default True
        Whether planes of one channel may be made together.
    """
    forward = task in ("forward", "argmax")  # not for gradients
    task = "argmax" if task == "windows" else task
    backward = task not in ("forward", "argmax")
    depth, height, width = (axis.covering if backward else axis.windows for axis in axes)
    sides = (depth, height, width)
    routes = task in ("route", "search")
    looks = depth.taps * height.taps * width.taps
    many_looks = looks > MOST_LOOKS or not all(axis.plain for axis in axes)
    together = 0
    most = max(prod(axis.size for axis in axes), prod(axis.output for axis in axes))
    # Averages of whole planes.
    whole = divisors is not None and most <= MOST_CELLS and all(a.whole for a in axes)
    share_none = all(a.plain and a.dilation == 1 and a.kernel <= a.stride for a in axes)
    # Gradients of averages that share no cell.
    lone = (
        task == "adjoint"
        and not whole
        and share_none
        and width.windows * channels >= LEAST_LONE
        and axes[2].stride * min(channels, NARROW) <= PIECE
    )
    # Gradients of a maximum of wide cells that `route_apart` makes.
    side_by_side = (
        task == "route"
        and channels >= NARROW
        and share_none
        and all(a.before == 0 and (a.output - 1) * a.stride + a.kernel <= a.size for a in axes)
        and axes[2].kernel == axes[2].stride
    )
    # What finds an argmax again is done as its forward is.
    windows = (axes[0].windows, axes[1].windows, axes[2].windows)
    rolls = channels == 1 and _rolls(windows if task == "search" else sides)
    roll = rolls and _rolls(sides) and not (routes and many_looks)
    scan = task == "forward" and divisors is None and channels == 1 and _scans(sides, itemsize)
    upright = task == "forward" and not whole and _upright(sides, channels, divisors is None)
    # Windows that scatter a saved argmax, and those that `apart` makes by the vector, are best left
    # where they are.
    alone = whole or lone or rolls or scan or upright or task == "route"
    few = windows[2].windows < NARROW or prod(s.taps for s in windows) >= MANY_TAPS
    if task == "argmax" and forward:
        # Gradients that search for it would rather have them together.
        few = few and not (
            windows[2].advance == 2
            and windows[2].step == 1
            and prod(s.taps for s in windows) <= FEW_TAPS
        )
    alone = alone or (
        task in ("forward", "argmax", "search")
        and _apart(windows[2])
        and (task == "forward" or not few)
    )
    singly = None
    if channels == 1 and planes >= LEAST_TOGETHER and not alone and together_too:
        if forward and _by_rows(axes, planes, most, itemsize, task, divisors is None):
            singly = program(axes, planes, 1, itemsize, task, divisors, together_too=False)
        if singly is not None or most <= MOST_CELLS:
            together, planes, channels = planes, 1, MOST_TOGETHER
    scatter = routes and not roll and (channels < NARROW or many_looks or side_by_side)
    own = _own(depth, height)
    large = LARGE
    if scan or (divisors is None and width.windows * max(1, channels) >= LEAST_PUT):
        large = LARGE_MAXIMUM
    by_width = not (routes or upright)
    ladder = by_width and axes[2].plain and width.taps > large and width.shares(width.taps)
    slide = (
        by_width
        and depth.trivial
        and axes[1].plain
        and height.period == 1
        and height.taps > large
        and height.step == 1
        and height.shares(height.taps)
    )
    along = 2 * isqrt(width.taps) if ladder else width.taps
    stacked = 6 if slide else depth.taps * height.taps
    separable = (
        by_width
        and depth.taps * height.taps > 1
        and own * (along + 2) + stacked + 2 < depth.taps * height.taps * width.taps
    )
    slide = slide and separable
    padding = width.front + width.back
    # Few windows of a row that are clipped cost less, made by themselves, than to copy the row.
    many_clipped = width.period > 1 or padding > FEW_CLIPPED * width.advance
    padded = _framed(width) and (
        ladder
        or task == "search"
        or (
            not scatter
            and channels < NARROW
            and padding > 0
            and (many_clipped or task == "adjoint")
        )
    )
    padded = padded or roll
    ladder = ladder and padded and (separable or depth.taps == height.taps == 1)
    assert not scan or (slide and ladder and padded)
    copied = (padded and not upright) or task == "adjoint"
    # Rows of windows that are not made by vectors as they lie.
    turns = (
        upright
        and channels == 1
        and (width.period > 1 or width.step > 1 or width.taps > LARGE or width.windows < NARROW)
    )
    visits = prod(s.taps * s.period / s.advance for s in sides)
    # Long vectors of narrow cells reach many elements more often than windows do.
    apart = channels == width.period == 1 and width.advance > 1
    picked = 1 < channels < NARROW and width.period == width.step == 1 < width.advance
    watched = (
        (channels >= NARROW or apart or picked)
        and not copied
        and not separable
        and visits <= MOST_VISITS
    )
    # Whether each row is read for one row of results only, and in one pass, on every CPU.
    once = watched and all(s.taps * s.period <= s.advance for s in (depth, height))

    # Planes whose rows of windows are as far apart from plane to plane as they are in one.
    follow = 1
    if (
        task in ("forward", "argmax")
        and not (whole or copied or separable or upright)
        and depth.trivial
        and depth.windows == 1
        and axes[1].before == 0
        and axes[1].kernel <= axes[1].stride
        and axes[1].dilation == 1
        and axes[1].output * axes[1].stride == axes[1].size
        and padding == 0
        and (watched or divisors is not None)
    ):
        elements = max(1, height.windows * width.windows * channels)
        follow = max(1, min(planes, MOST_RUN // elements))
    if upright:
        follow = MOST_TOGETHER

    band = [axis.output for axis in axes]
    sizes = [planes, depth.windows, height.windows, width.windows, max(1, channels)]
    if not scatter and not whole:
        sizes[1:4] = [min(n, LONGEST) for n in sizes[1:4]]
    if slide and not scan:
        sizes[2] = height.windows

    carried = task == "argmax"
    mark = 1 if prod(axis.kernel for axis in axes) <= 255 else 4  # bytes of an element of an argmax

    def workspace() -> tuple[int, int, int, int, int]:
        """Return the elements of stage, work, line and slab, and the rows of tables."""
        deep, high, wide = (s.reach(n) for s, n in zip(sides, sizes[1:4], strict=True))
        if lone:
            return 0, 0, 0, 0, max(*sizes[1:4], deep, high, wide)
        columns = (wide + (padding if padded else 0)) * sizes[4]
        out = sizes[3] * sizes[4]
        rows = 1 if separable or slide else deep * high
        if roll:
            rows = sizes[2] + height.taps - 1
        if scan:
            rows = min(high, max(1, SCAN_CELLS // columns))
        stage = rows * columns if copied and not scatter else 0
        work = 0
        if upright:
            rows = MOST_TOGETHER if turns else max(1, min(MOST_TOGETHER, MOST_RUN // columns))
            work, stage = rows * columns, rows * columns * turns
        elif scan:
            work = (sizes[2] + height.taps - 1) * columns
        elif slide:
            work = (height.taps + 1) * (-(-out // 16) * 16 + 16)
        elif separable:
            work = deep * high * out
        line = 0 if scatter else max(out, columns if ladder else 0)
        if task == "forward" and channels >= NARROW and not ladder:
            line = sizes[4]  # each result is made in its place
        if task == "argmax" and not separable:
            line = max(line, min(follow * sizes[2] * out, MOST_RUN))
        if not scatter and (channels < NARROW or padded):
            line = max(line, min(columns, width.advance * out) + out)
        if apart and not backward:
            line = max(line, min(MOST_ROWS * out, MOST_RUN))  # rows that are made in one go
        if roll:
            line = max(line, sizes[2] * out)
        if scan:
            line = max(stage, -(-height.taps * columns // 4))  # tails take all four
        if turns:
            line = max(line, MOST_TOGETHER * out // 4)  # results take all four
        if task == "argmax" and not separable and height.advance == height.step == 1:
            line = max(line, 2 * out)  # of small windows, rows are made in twos
        slab = 0
        if task == "search":
            slab = prod(band) * sizes[4] if scatter else deep * high * wide * sizes[4]
        table = 0  # windows that look for their cells are not unfolded
        if not scatter:
            table = max(*sizes[1:4], deep, high, wide + (padding if padded else 0))
        return stage, work, line, slab, table

    def used() -> int:
        """Return the bytes that a tile takes: the workspace, and rows read again."""
        stage, work, line, slab, _ = workspace()
        deep, high, wide = (s.reach(n) for s, n in zip(sides, sizes[1:4], strict=True))
        source = 0 if separable or upright or scatter or once else deep * high * wide * sizes[4]
        lines = 4 * line if separable else 0
        return (stage + (work + lines) * (1 + carried) + source) * itemsize + slab * mark

    def cut(k: int, least: int, budget: int) -> None:
        while sizes[k] > least and used() > budget:
            sizes[k] = max(least, (sizes[k] + 1) // 2)

    cell = sizes[4] * itemsize
    if lone:
        sizes[4] = min(sizes[4], PIECE // axes[2].stride)
    elif whole:
        sizes[4] = sizes[4] if backward else min(sizes[4], MOST_SUMS // itemsize)
    elif scan:
        sizes[1] = 1
        cut(2, 2 * height.taps, TILE_BYTES)
    elif slide:
        budget = VAST_BYTES if max(height.taps, width.taps) > ORDINARY else MOST_BYTES
        for k, least in ((3, max(width.taps, 512 // cell)), (4, 64), (3, 1), (4, 16)):
            cut(k, least, budget)
    elif scatter and task == "search":
        # Windows are searched band by band; low bands would search many rows twice.
        held = [*band, sizes[4]]
        for k, low in ((0, 1), (1, 4 * windows[1].taps), (3, 64), (1, 1), (2, 1), (3, 16)):
            while held[k] > low and prod(held) * mark > MOST_BYTES:
                held[k] = max(low, (held[k] + 1) // 2)
        *band, sizes[4] = held
    elif roll:
        sizes[1] = 1
        cut(2, LEAST_ROWS, ROLL_BYTES)
    elif not scatter:
        if separable:
            # Lower tiles reduce some rows twice, narrower ones some columns, and read memory in
            # pieces.
            far, tall = (
                max(1, 2 * (s.taps * s.period // max(1, s.advance) - 1)) for s in (depth, height)
            )
            low, wide = tall if depth.taps > 1 else 4 * tall, max(1, 2048 // cell)
            for k, least in (
                (1, far), (2, low), (3, max(4 * width.taps, wide)), (2, tall), (3, wide),
            ):  # fmt: skip
                cut(k, least, MOST_BYTES)
        for k, least in ((1, 1), (2, 1), (3, max(1, 512 // cell)), (4, 64), (3, 1), (4, 16)):
            cut(k, least, MOST_BYTES)
    if separable and sizes[4] < channels and _framed(width):
        padded = copied = True  # so that a row is one vector again
    uncut = sizes[1:] == [depth.windows, height.windows, width.windows, max(1, channels)]
    if uncut:
        plane = max(
            1,
            itemsize
            * max(1, channels)
            * max(prod(s.size for s in sides), prod(s.windows for s in sides)),
        )
        aim = WHOLE_BYTES if whole and channels == 1 else TILE_BYTES
        sizes[0] = max(1, min(planes, aim // plane))
        if turns:
            sizes[0] = max(sizes[0], min(planes, MOST_TOGETHER))
        if scatter and channels == 1:
            sizes[0] = max(sizes[0], min(planes, 4))  # which are done in step
    else:
        sizes[0] = 1
    stage, work, line, slab, table = (0, 0, 0, 0, 0) if whole else workspace()
    cells_in, cells_out = (prod(s.size for s in sides), prod(s.windows for s in sides))
    moved = planes * max(1, channels) * (cells_in + cells_out) * itemsize
    vast = moved >= LARGE_BYTES and not together
    past = vast and task == "adjoint" and (lone or channels >= NARROW)
    # Else what is read by rows would be taken for planes together.
    assert singly is None or (slide and ladder and padded and uncut)
    code = [
        planes, channels, *sizes, separable, ladder, slide, roll, padded, watched,
        divisors is not None and not backward, task == "adjoint", lone, past, scatter,
        slab, *band, stage, work, line,
        whole, together, cells_in, cells_out, 0, vast, scan, follow, upright, turns, table,
    ]  # fmt: skip
    shared = 3 * (cells_in + cells_out) * MOST_TOGETHER * itemsize if together else 0
    if singly is not None:
        shared = 2 * width.windows * MOST_TOGETHER * itemsize + singly.workspace_bytes
    # As `lay_out` adds them up: each part with a margin, and what is known of each window.
    spaces = (stage + work + 4 * line + 6 * 64) * itemsize * (1 + carried) + 24 * 64
    spaces += 4 * (stage + 64) * routes + slab * mark + table * 266
    return Program(
        axes,
        divisors,
        backward,
        tuple(code),
        (sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]),
        (planes, depth.windows, height.windows, width.windows, max(1, channels)),
        _cuts(whole, roll, scatter, slide, scan, channels, sides),
        spaces + shared,
        together,
        past and moved < 2 * LARGE_BYTES,
        singly,
    )


def _framed(width: Side) -> bool:
    """Return whether rows may be copied with their padding: it is not much more than they are."""
    return width.front + width.back <= width.size + 64


def _by_rows(
    axes: tuple[Axis, Axis, Axis], planes: int, most: int, itemsize: int, task: Task, maximum: bool
) -> bool:
    """Return whether planes are made together row by row, each row turned about when it is needed.

    They are if their windows are large and a cell apart, and the rows that are kept few; large
    planes, those of many cells at `most`, only if few lanes are idle.
    """
    depth, height, width = (axis.windows for axis in axes)
    large = LARGE_MAXIMUM if maximum and task == "forward" else LARGE
    budget = VAST_BYTES if max(height.taps, width.taps) > ORDINARY else MOST_BYTES
    # At least what `workspace` makes of it, with the lines: the tile is not to be cut.
    row = MOST_TOGETHER * itemsize * (width.windows + width.front + width.back + width.taps)
    row *= 2 if task == "argmax" else 1
    groups = -(-planes // MOST_TOGETHER)
    full = planes >= MOST_TOGETHER and 4 * planes >= 3 * groups * MOST_TOGETHER
    return (
        depth.trivial
        and depth.windows <= LONGEST
        and all(axis.plain and axis.stride == axis.dilation == 1 for axis in axes[1:])
        and min(height.taps, width.taps) > large
        and _framed(width)
        and NARROW <= width.size <= LONGEST
        and NARROW <= width.windows <= LONGEST
        and (height.taps + 11) * row <= budget
        and (full or most <= MOST_CELLS)
    )


def _apart(width: Side) -> bool:
    """Return whether vectors of windows of one channel are made out of vectors of the source."""
    return (
        width.period == 1 < width.advance
        and width.windows >= NARROW // 2
        and width.front + width.back == 0
    )


def _rolls(sides: tuple[Side, Side, Side]) -> bool:
    """Return whether rows of one channel are read once, and go into all windows they are in."""
    depth, height, width = sides
    return (
        depth.trivial
        and all(s.period == s.advance == 1 for s in (height, width))
        and height.taps in ROLLED
        and height.step == 1
        and width.taps <= LARGE
        and (width.taps - 1) * width.step <= MOST_REACH
        and LEAST_ROLLED <= width.windows <= LONGEST
    )


def _own(depth: Side, height: Side) -> float:
    """Return how many rows of the source each row of results has for its own."""
    return prod(min(side.advance / side.period, side.taps) for side in (depth, height))


def _upright(sides: tuple[Side, Side, Side], channels: int, maximum: bool) -> bool:
    """Return whether windows are reduced along the height first.

    They are if they lie apart along the width, and to reduce their columns, whose elements are side
    by side, and then one row takes less than to look for taps in each row, or than to reduce all
    rows. Small windows of one channel are made out of all their rows in registers. The order of a
    sum may not depend on the channels; maxima of wide cells are made in the order that memory has.
    """
    depth, height, width = sides
    rows, columns = depth.taps * height.taps, width.advance / width.period
    large = rows * width.taps >= LEAST_UPRIGHT
    return (
        width.advance > 1
        and ((channels < NARROW and (large or channels > 1)) if maximum else large)
        and not any(side.taps > LARGE and side.shares(side.taps) for side in (height, width))
        and rows * columns + width.taps + 2
        < min(1.5 * rows * width.taps, _own(depth, height) * (width.taps + 2) + 2 + rows)
    )


def _scans(sides: tuple[Side, Side, Side], itemsize: int) -> bool:
    """Return whether maxima of large windows of one channel are made plane by plane.

    They are if the rows that a window and the next ones below it need stay near.
    """
    depth, height, width = sides
    columns = width.size + width.front + width.back
    return (
        depth.trivial
        and all(s.period == s.advance == s.step == 1 for s in (height, width))
        and min(height.taps, width.taps) > LARGE_MAXIMUM
        and width.windows >= LEAST_SCANNED
        and _framed(width)
        and 2 * height.taps * columns * itemsize <= SCAN_BYTES
    )


def _cuts(
    whole: bool,
    roll: bool,
    scatter: bool,
    slide: bool,
    scan: bool,
    channels: int,
    sides: tuple[Side, Side, Side],
) -> tuple[tuple[int, int, int], ...]:
    """Return which sizes of a tile to halve, down to what, to have how many tiles a thread."""
    depth, height, width = sides
    if whole:
        return (0, 1, 4), (4, 256, 4)
    if roll:
        return (0, 1, 4), (2, 8, 4)
    if scatter:
        # Either some channels of a whole plane, or one stretch of memory. Windows that reach into
        # two of these are visited twice, so they should be few.
        if channels >= 64:
            along = 1 if depth.windows > 1 else 2
            return (0, 1, 4), (along, 2 * sides[along - 1].taps, 1), (4, 32, 1), (4, 16, 1)
        return (0, 1, 4), (1, 1, 4), (2, 1, 4), (3, 1, 4)
    if scan:
        return (0, 1, 4), (2, 2 * height.taps, 2), (2, 1, 1)  # rows are short
    if slide:
        # Lower tiles make some rows twice, narrower ones some columns; of fewer channels, memory
        # is read and written in pieces, which takes longer than both.
        low, wide = height.taps, width.taps
        twice = (3, 4 * wide, 2), (2, 2 * low, 2)
        return (0, 1, 4), *twice, (3, wide, 1), (2, low, 1), (4, 16, 1), (2, 1, 1)
    return (0, 1, 4), (1, 1, 4), (2, 8, 4), (3, 64, 4), (2, 2, 4), (4, 16, 1), (2, 1, 1), (3, 1, 1)
