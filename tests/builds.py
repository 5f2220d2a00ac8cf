"""Poolings that reach every path of the kernels, and all that can be computed of one.

Results are compared between builds of the kernels, never with the reference, so windows and arrays
may be large.
"""

import hashlib
import importlib
import json
import sys
from dataclasses import asdict, dataclass, replace

import numpy as np
import pytest

import poolgrad as pg
from compare import canonical
from strategies import fill


@dataclass(frozen=True)
class Case:
    """A pooling, and a kind of values; `output_size` is for the adaptive ones."""

    cells: tuple
    channels: int
    kernel_size: tuple
    stride: tuple
    padding: tuple
    dilation: tuple
    output_size: tuple
    dtype: str = "float32"
    layout: str = "channels_last"
    values: str = "normal"
    ceil_mode: bool = False
    batch: int = 2
    seed: int = 0

    @property
    def shape(self):
        if self.layout == "channels_first":
            return (self.batch, self.channels, *self.cells)
        return (self.batch, *self.cells, self.channels)


CHANNELS = (1, 2, 3, 5, 8, 16, 17, 64)
# "rare" has one value in a hundred that a maximum has to look out for, so planes of both kinds.
VALUES = ("normal", "ties", "zeros", "special", "infinities", "subnormal", "large", "rare")

# Elements of an input, at most; a run with checks takes about a second for so many.
MOST = 30_000


def draw_case(integer, choice):
    """Make a case of two functions that draw: an integer of a range, and one of several values."""
    axes = integer(1, 3)
    # Large windows along one axis or two, as no three axes with them are small.
    kernel_size = tuple(
        integer(6, 40) if choice((False, True)) and axis >= axes - 2 else integer(1, 5)
        for axis in range(axes)
    )
    dilation = tuple(choice((1, 1, 1, 2) if k < 20 else (1,)) for k in kernel_size)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel_size, dilation, strict=True)]
    stride = tuple(choice((1, 1, 2, 3, k)) for k in kernel_size)
    padding = tuple(choice((0, k // 2, integer(0, k + 1))) for k in kernel_size)
    cells = tuple(
        max(1, span - 2 * pad) + integer(0, (24, 48)[axis == axes - 1] if axes < 3 else 5)
        for axis, (span, pad) in enumerate(zip(spans, padding, strict=True))
    )
    layout = choice(("channels_last", "channels_first"))
    room = MOST // int(np.prod(cells))
    channels = choice([c for c in CHANNELS if c <= room] or [1])
    return Case(
        cells=cells,
        channels=channels,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        output_size=tuple(integer(1, n + n // 2) for n in cells),
        dtype=choice(("float32", "float64")),
        layout=layout,
        values=choice(VALUES),
        ceil_mode=choice((False, True)),
        batch=2 if 2 * channels <= room else 1,
        seed=integer(0, 9999),
    )


# What is seldom drawn: large windows of one channel, a cell apart, in rows of 16 and more ...
SELDOM = (
    [
        Case(
            cells=(30, width),
            channels=3,
            kernel_size=(9, 7),
            stride=(1, 1),
            padding=(4, 3),
            dilation=(1, 1),
            output_size=(7, 9),
            layout="channels_first",
            values=values,
        )
        for width, values in ((17, "normal"), (40, "ties"), (79, "rare"))
    ]
    + [  # and planes whose rows of windows go on in the next plane
        Case(
            cells=(6, width),
            channels=channels,
            kernel_size=(kernel, kernel),
            stride=(kernel, 2),
            padding=(0, 0),
            dilation=(1, 1),
            output_size=(3, width // 2),
            layout=layout,
            values=values,
            batch=9,
        )
        for width, kernel, channels, layout, values in (
            (18, 2, 4, "channels_first", "rare"),
            (33, 2, 9, "channels_first", "ties"),
            (40, 3, 5, "channels_first", "rare"),
            (24, 2, 6, "channels_last", "rare"),
            (21, 2, 17, "channels_last", "normal"),
        )
    ]
    + [  # and short rows of pairs, the first of which is a thread's only ones
        Case(
            cells=(6, 10),
            channels=1,
            kernel_size=(2, 2),
            stride=(2, 2),
            padding=(0, 0),
            dilation=(1, 1),
            output_size=(3, 5),
            layout="channels_last",
            values="normal",
        )
    ]
)


def drawn(many):
    """Return so many cases, always the same."""
    rng = np.random.default_rng(3)
    return SELDOM + [
        draw_case(
            lambda low, high: int(rng.integers(low, high + 1)),
            lambda values: values[rng.integers(len(values))],
        )
        for _ in range(many - len(SELDOM))
    ]


def array(case, values, shape, seed):
    """Return an array of a kind of values."""
    if values != "rare":
        return fill(values, shape, case.dtype, seed)
    x = fill("normal", shape, case.dtype, seed)
    rare = np.random.default_rng(seed + 2).random(shape) < 0.01
    return np.where(rare, fill("special", shape, case.dtype, seed + 3), x)


def results(case, threads=1):
    """Return everything that can be computed of a case."""
    x = array(case, case.values, case.shape, case.seed)
    geometry = {n: getattr(case, n) for n in ("kernel_size", "stride", "padding", "dilation")}
    geometry["ceil_mode"] = case.ceil_mode
    # A gradient is summed too, where infinities and NaNs would hide what is beside them.
    kind = case.values if case.values in ("ties", "subnormal", "rare") else "normal"
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        # By its name, for `poolgrad.plan` is the function. The work is too little for threads.
        patch.setattr(importlib.import_module("poolgrad.plan"), "STEPS_A_THREAD", 1)
        for op, parameters in (
            ("max_pool", geometry),
            ("avg_pool", geometry),
            ("adaptive_max_pool", {"output_size": case.output_size}),
            ("adaptive_avg_pool", {"output_size": case.output_size}),
        ):
            # A new one: those that are kept go to the kernels that they went to before.
            plan = replace(pg.plan(op, case.shape, case.dtype, layout=case.layout, **parameters))
            dy = array(case, kind, plan.output_shape, case.seed + 1)
            with np.errstate(all="ignore"):
                found[op] = plan.forward(x, num_threads=threads)
                if "max" not in op:
                    found[f"{op} backward"] = plan.backward(dy, num_threads=threads)
                    continue
                y, argmax = plan.forward(x, return_argmax=True, num_threads=threads)
                found[f"{op} with argmax"], found[f"{op} argmax"] = y, argmax
                found[f"{op} backward"] = plan.backward(dy, argmax=argmax, num_threads=threads)
                found[f"{op} backward, searched"] = plan.backward(dy, x, num_threads=threads)
    return found


def digests(many):
    """Return a digest of each result of so many cases, with the case as the first part."""
    return [
        [asdict(case), what, hashlib.sha256(canonical(found).tobytes()).hexdigest()]
        for case in drawn(many)
        for what, found in results(case).items()
    ]


if __name__ == "__main__":
    # Of another build, in a process of its own.
    json.dump([pg.__file__, digests(int(sys.argv[1]))], sys.stdout)
