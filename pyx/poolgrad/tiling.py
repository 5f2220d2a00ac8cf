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
    #: Gradient of a maximum: the windows that reach the tile.
    around: tuple[int, int, int, int]
    #: Elements of one row, as long as any that is needed.
    line: int
    #: Rows of the unfolded tables.
    windows: int

    def bytes(self, itemsize: int, argmax_itemsize: int) -> int:
        """Return the bytes of one thread's workspace."""
        tables = 3 * self.windows * (6 + 1) * 8
        carried = 4 if argmax_itemsize else 0
        return (
            prod(self.around) * (itemsize + argmax_itemsize)
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
    time; narrow ones do not. So width and channels are cut first, then depth, then height. The
    gradient of a maximum may have to find the argmax of all windows around its tile, so there only
    channels are cut freely, and the tile is kept as square as can be. With a saved argmax, there
    are no partial results at all.
    """
    shape = [axis.output if task == "forward" else axis.size for axis in axes]
    if task == "scatter":
        nothing = (0, 0, 0, 0)
        return Tiling((shape[0], shape[1], shape[2], max(1, channels)), nothing, nothing, 0, 0)
    sizes = [*(min(n, LONGEST) for n in shape), max(1, channels)]

    def extents(measure: Callable[[Axis, int], int], inner: Extents) -> Extents:
        depth, height, width = (measure(a, n) for a, n in zip(axes, inner, strict=True))
        return depth, height, width

    def tiling() -> Tiling:
        cells: Extents = (sizes[0], sizes[1], sizes[2])
        outs, around = cells, (0, 0, 0, 0)
        if task == "forward":
            ins = extents(Axis.reach, outs)
        elif task == "search":
            outs = extents(Axis.covering, cells)
            ins = extents(Axis.reach, outs)
            around = (1, outs[0], outs[1], outs[2] * sizes[3])
        else:
            ins = extents(Axis.covering, outs)
        flat = [axis.trivial for axis in axes[:2]]
        levels = 2 - sum(flat)
        height = max(ins[1], outs[1]) if levels == 2 else ins[1]
        work = (levels, ins[0], height, outs[2] * sizes[3]) if levels else (0, 0, 0, 0)
        # Only the gradient of an average looks at the tables of its input along the width.
        windows = max(*outs, *ins[:2], ins[2] if task == "adjoint" else 0)
        # A row of y, or of dy, or of all windows of which a strided row takes some.
        line = max(outs[2], ins[2] if task == "adjoint" or sizes[3] < 8 else 0) * sizes[3]
        return Tiling((*cells, sizes[3]), work, around, line, windows)

    def large() -> bool:
        now = tiling()
        return (prod(now.work) + prod(now.around) + now.line) * itemsize > TILE_BYTES

    row = -(-ROW_BYTES // itemsize)
    cuts = [(2, -(-row // sizes[3])), (3, 64), (0, 1), (1, 1), (2, 1), (3, 16)]
    if task == "search":
        cuts = [(3, 16), (0, 8), (1, 64), (2, 64), (0, 1), (1, 16), (2, 16), (1, 1), (2, 1)]
    for k, least in cuts:
        while sizes[k] > least and large():
            sizes[k] = max(least, (sizes[k] + 1) // 2)
    return tiling()
