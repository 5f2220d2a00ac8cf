"""How an array is cut into the tiles that threads take, and the workspace that a tile needs.

Results do not depend on it; only time and memory do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Final, Literal

from poolgrad.geometry import Axis

__all__ = ["Task", "Tiling", "tile"]

Extents = tuple[int, int, int]

#: Bytes of partial results that a tile aims at: well inside the L2 cache of current cores.
TILE_BYTES: Final = 128 * 1024

#: Bytes that they may take before tiles are made so low that most rows are reduced twice.
MOST_BYTES: Final = 512 * 1024

#: The longest side of a tile, since the tables unfolded for it should stay in cache too.
LONGEST: Final = 2048

#: Rows are not cut below so many bytes, nor channels below 64, before all else is tried.
ROW_BYTES: Final = 512


@dataclass(frozen=True, slots=True)
class Tiling:
    """The tiles of one array, and the shapes of the workspace of one thread."""

    #: Depth, height, width and channels of a tile.
    sizes: tuple[int, int, int, int]
    #: Partial results: rows reduced along the width, then planes reduced along the height too.
    work: tuple[int, int, int, int]
    #: Gradient of a maximum: so many windows have their argmax found at a time, or none.
    slab: tuple[int, int, int, int]
    #: Elements of one row, as long as any that is needed.
    line: int
    #: Rows of the unfolded tables.
    windows: int

    def bytes(self, itemsize: int, argmax_itemsize: int) -> int:
        """Return the bytes of one thread's workspace."""
        tables = 3 * self.windows * (6 + 1) * 8
        carried = 4 if argmax_itemsize else 0
        return (
            prod(self.slab) * (itemsize + argmax_itemsize)
            + (prod(self.work) + 2 * self.line) * (itemsize + carried)
            + tables
        )

    def finer(self, shape: Extents, channels: int, planes: int, tiles: int) -> list[int]:
        """Return smaller sizes that cut the array into at least `tiles`, where that can be."""
        sizes = list(self.sizes)
        whole = (*shape, channels)

        def count() -> int:
            return planes * prod(-(-whole[k] // sizes[k]) for k in range(4))

        for k, least in enumerate((1, 1, 16, 16)):
            while count() < tiles and sizes[k] > least:
                sizes[k] = max(least, (sizes[k] + 1) // 2)
        return sizes


#: What is computed: y; dx of an average; dx of a maximum, its argmax found again; the same, saved.
Task = Literal["forward", "adjoint", "search", "scatter"]


def tile(axes: tuple[Axis, Axis, Axis], channels: int, itemsize: int, task: Task) -> Tiling:
    """Choose the tiles of a result, y or dx.

    Parameters
    ----------
    axes : (Axis, Axis, Axis)
        Depth, height and width.
    channels : int
        Neighbouring elements of a cell.
    itemsize : int
        Bytes of a partial result, its place included.
    task : {"forward", "adjoint", "search", "scatter"}
        What is computed.

    Notes
    -----
    Neighbouring tiles share rows and planes, which both reduce, so low and shallow tiles cost
    time; narrow ones do not. So width and channels are cut first, then depth, then height.

    The gradient of a maximum needs no partial results where the argmax was saved. Where it must be
    found again, that is done slab by slab of windows, in row-major order for the sums' sake: a
    slab has several planes only if these are whole, and several rows only if these are.
    """
    cells = (axes[0].size, axes[1].size, axes[2].size)
    nothing = (0, 0, 0, 0)
    if task == "scatter":
        return Tiling((*cells, max(1, channels)), nothing, nothing, 0, 0)
    shape = cells if task == "adjoint" else tuple(axis.output for axis in axes)
    sizes = [*shape, max(1, channels)]
    if task != "search":
        sizes[:3] = [min(n, LONGEST) for n in shape]

    def extents(measure: Callable[[Axis, int], int], inner: Extents) -> Extents:
        depth, height, width = (measure(a, n) for a, n in zip(axes, inner, strict=True))
        return depth, height, width

    def tiling() -> Tiling:
        outs: Extents = (sizes[0], sizes[1], sizes[2])
        ins = extents(Axis.covering if task == "adjoint" else Axis.reach, outs)
        flat = [axis.trivial for axis in axes[:2]]
        levels = 2 - sum(flat)
        height = max(ins[1], outs[1]) if levels == 2 else ins[1]
        work = (levels, ins[0], height, outs[2] * sizes[3]) if levels else (0, 0, 0, 0)
        # Only the gradient of an average looks at the tables of its input along the width.
        windows = max(*outs, *ins[:2], ins[2] if task == "adjoint" else 0)
        # A row of y, or of dy, or of all windows of which a strided row takes some.
        line = max(outs[2], ins[2] if task == "adjoint" or sizes[3] < 8 else 0) * sizes[3]
        if task == "search":
            slab = (1, outs[0], outs[1], outs[2] * sizes[3])
            return Tiling((*cells, sizes[3]), work, slab, line, windows)
        return Tiling((*outs, sizes[3]), work, nothing, line, windows)

    def cut(size_of: int, least: int, budget: int) -> None:
        while sizes[size_of] > least:
            now = tiling()
            if (prod(now.work) + prod(now.slab) + now.line) * itemsize <= budget:
                return
            sizes[size_of] = max(least, (sizes[size_of] + 1) // 2)

    depth, height, width, channel = range(4)
    # Rows that neighbours share should stay the smaller part of those that a tile reduces.
    tall = max(1, 2 * (axes[1].extent // axes[1].stride - 1))
    row = -(-ROW_BYTES // (itemsize * sizes[channel]))
    if task == "search":
        for size_of, least in ((channel, 64), (depth, 1), (height, tall)):
            cut(size_of, least, TILE_BYTES)
        if sizes[height] == 1:
            cut(width, row, TILE_BYTES)
        cut(channel, 16, TILE_BYTES)
        for size_of in (height, width, channel):
            cut(size_of, 1, MOST_BYTES)
    else:
        for size_of, least in ((width, row), (channel, 64), (depth, 1), (height, tall)):
            cut(size_of, least, TILE_BYTES)
        for size_of, least in ((height, 1), (width, 1), (channel, 16)):
            cut(size_of, least, MOST_BYTES)
    return tiling()
