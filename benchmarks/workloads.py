"""What is measured: poolings of certain shapes, and the cases that each is measured in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["LAYOUTS", "PASSES", "WORKLOADS", "Array", "Case", "Workload", "cases"]

Array: TypeAlias = npt.NDArray[Any]
Layout: TypeAlias = Literal["channels_last", "channels_first"]
Pass: TypeAlias = Literal["forward", "argmax", "backward"]
Op: TypeAlias = Literal["max", "average", "adaptive"]

LAYOUTS: Final[tuple[Layout, ...]] = ("channels_last", "channels_first")
#: The passes, in words.
PASSES: Final[Mapping[str, str]] = {
    "forward": "forward",
    "argmax": "forward with argmax",
    "backward": "backward",
}
ITEM: Final = 4  # bytes of a float32


@dataclass(frozen=True, slots=True)
class Workload:
    """A pooling of float32 arrays of one shape.

    Attributes
    ----------
    group : str
        The table that it belongs to: ``"peers"``, which every contender runs; ``"small"``, calls
        on next to nothing; ``"window"``, ``"scaling"`` and ``"size"``, which Poolgrad runs alone.
    name : str
        Unique in all groups.
    op : {"max", "average", "adaptive"}
        The operation; an adaptive one is an average.
    batch, spatial, channels : int, tuple of int, int
        The shape of the input.
    size : tuple of int
        The window's, or the output's if `op` is adaptive.
    stride, padding : int
        The same for all axes; not for an adaptive one.
    """

    group: str
    name: str
    op: Op
    batch: int
    spatial: tuple[int, ...]
    channels: int
    size: tuple[int, ...]
    stride: int = 1
    padding: int = 0

    @property
    def output(self) -> tuple[int, ...]:
        """The spatial sizes of the output."""
        if self.op == "adaptive":
            return self.size
        return tuple(
            (cells + 2 * self.padding - window) // self.stride + 1
            for cells, window in zip(self.spatial, self.size, strict=True)
        )

    @property
    def taps(self) -> int:
        """The cells of the largest window."""
        if self.op == "adaptive":
            return prod(
                -(-cells // windows) + 1
                for cells, windows in zip(self.spatial, self.size, strict=True)
            )
        return prod(self.size)

    @property
    def whole(self) -> bool:
        """Whether one window has all there is: a global pooling."""
        return self.op != "adaptive" and self.size == self.spatial and self.padding == 0

    @property
    def centred(self) -> bool:
        """Whether each cell has a window around it, as in a filter."""
        return self.stride == 1 and all(window == 2 * self.padding + 1 for window in self.size)

    @property
    def passes(self) -> tuple[Pass, ...]:
        """What is measured of it."""
        return ("forward", "argmax", "backward") if self.op == "max" else ("forward", "backward")


@dataclass(frozen=True, slots=True)
class Case:
    """One pass of a workload in one memory layout, by so many threads."""

    workload: Workload
    layout: Layout
    kind: Pass
    threads: int

    @property
    def axes(self) -> tuple[int, ...]:
        """The spatial axes."""
        first = 1 if self.layout == "channels_last" else 2
        return tuple(range(first, first + len(self.workload.spatial)))

    def spread(self, spatial: Sequence[Any] | int, batch: Any, channels: Any) -> tuple[Any, ...]:
        """Return one value an axis of an array; an int counts for each spatial axis."""
        along = [spatial] * len(self.axes) if isinstance(spatial, int) else list(spatial)
        ordered = [*along, channels] if self.layout == "channels_last" else [channels, *along]
        return (batch, *ordered)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of x and of its gradient."""
        w = self.workload
        return self.spread(w.spatial, w.batch, w.channels)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of y and of its gradient."""
        w = self.workload
        return self.spread(w.output, w.batch, w.channels)

    @property
    def bytes_moved(self) -> int:
        """The bytes that must be read and written: of x or dx, of y or dy, and of the argmax."""
        outputs = prod(self.output_shape)
        moved = ITEM * (prod(self.input_shape) + outputs)
        if self.workload.op == "max" and self.kind != "forward":
            moved += outputs * (1 if self.workload.taps <= 255 else 4)
        return moved

    def data(self) -> tuple[Array, Array]:
        """Return x and dy: the same values in every layout, every pass and every process."""
        return _data(self.workload, self.layout)


@lru_cache(maxsize=1)
def _data(w: Workload, layout: Layout) -> tuple[Array, Array]:
    """Return x and dy, without order.

    All of x are distinct, up to 2^24 of them, since libraries share the gradient of equal maxima in
    different ways; none is above 4 in magnitude. All of dy is positive, so that no sum in a
    gradient cancels, and two sums may be compared by their relative difference.
    """
    shape, bits = (w.batch, *w.spatial, w.channels), 24
    # Each step maps the numbers of 24 bits one to one, and a float32 has as many.
    number = np.arange(prod(shape), dtype=np.uint32) & ((1 << bits) - 1)
    for factor in (0x9E3779B1, 0x85EBCA77):
        number ^= number >> (bits // 2)
        number *= np.uint32(factor)
        number &= (1 << bits) - 1
    number ^= number >> (bits // 2)
    x = number.astype(np.float32).reshape(shape) * np.float32(2.0 ** (3 - bits)) - np.float32(4)
    dy = np.random.default_rng(0).random((w.batch, *w.output, w.channels), np.float32)
    dy += np.float32(0.5)
    if layout == "channels_first":
        x, dy = (np.ascontiguousarray(np.moveaxis(array, -1, 1)) for array in (x, dy))
    return x, dy


def _peers() -> Iterator[Workload]:
    """Yield what Poolgrad is compared in with every peer."""
    table: tuple[tuple[str, Op, int, tuple[int, ...], int, tuple[int, ...], int, int], ...] = (
        ("LeNet", "max", 64, (24, 24), 6, (2, 2), 2, 0),
        ("ResNet stem", "max", 16, (112, 112), 64, (3, 3), 2, 1),
        ("VGG", "max", 4, (224, 224), 64, (2, 2), 2, 0),
        ("Inception", "max", 16, (35, 35), 192, (3, 3), 1, 1),
        ("SPPF", "max", 8, (20, 20), 512, (5, 5), 1, 2),
        ("SPP", "max", 4, (64, 64), 64, (13, 13), 1, 6),
        ("grey image", "max", 1, (1024, 1024), 1, (31, 31), 1, 15),
        ("RGB", "max", 4, (512, 512), 3, (3, 3), 2, 1),
        ("video", "max", 2, (16, 56, 56), 64, (2, 2, 2), 2, 0),
        ("audio", "max", 16, (8192,), 64, (4,), 4, 0),
        ("average VGG", "average", 4, (224, 224), 64, (2, 2), 2, 0),
        ("average Inception", "average", 16, (35, 35), 192, (3, 3), 1, 1),
        ("average grey image", "average", 1, (1024, 1024), 1, (31, 31), 1, 15),
        ("global average", "average", 64, (7, 7), 2048, (7, 7), 7, 0),
        ("adaptive average", "adaptive", 8, (50, 50), 256, (7, 7), 1, 0),
    )
    for row in table:
        yield Workload("peers", *row)


def _alone() -> Iterator[Workload]:
    """Yield what shows how the cost depends on the window, the threads and the size."""
    ops: tuple[Op, ...] = ("max", "average")
    for op in ops:
        for k in (7, 17, 63):
            for name, spatial, channels in (
                ("grey", (1024, 1024), 1),
                ("64 channels", (128, 128), 64),
            ):
                yield Workload(
                    "window", f"{op} {name} {k}x{k}/1", op, 1, spatial, channels, (k, k), 1, k // 2
                )
        for n in (1, 16):
            yield Workload("scaling", f"{op} 13x13/1, N={n}", op, n, (64, 64), 64, (13, 13), 1, 6)
        yield Workload("scaling", f"{op} series 31/1, N=1", op, 1, (1 << 22,), 8, (31,), 1, 15)
        for exponent, side in ((4, 12), (5, 40), (6, 125), (7, 395), (8, 1250)):
            yield Workload(
                "size", f"{op} 3x3/2, 10^{exponent}", op, 1, (side, side), 64, (3, 3), 2, 1
            )
        yield Workload("small", f"{op} 2x2/2 of (1, 4, 4, 1)", op, 1, (4, 4), 1, (2, 2), 2)


WORKLOADS: Final = (*_peers(), *_alone())


def cases(threads: int, rows: str) -> Iterator[Case]:
    """Yield the cases of the workloads whose name has `rows` in it."""
    for workload in WORKLOADS:
        if rows.lower() not in workload.name.lower():
            continue
        if workload.group in ("size", "small") and threads > 1:
            continue
        # Elsewhere the second layout tells nothing new.
        layouts = LAYOUTS if workload.group in ("peers", "window") else LAYOUTS[:1]
        for layout in layouts:
            for kind in workload.passes:
                yield Case(workload, layout, kind, threads)
