"""NumPy alone, as one would write it: a reshape where windows are blocks, else a sliding window."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from benchmarks.contenders import Prepared
from benchmarks.workloads import Array, Case


def prepare(case: Case) -> Prepared | None:
    """Return the run of a forward."""
    w = case.workload
    if case.kind != "forward" or w.op == "adaptive":
        return None
    x, _ = case.data()
    reduce: Callable[..., Array] = np.max if w.op == "max" else np.mean
    pads = case.spread([(w.padding, w.padding)] * len(w.size), (0, 0), (0, 0))
    beyond = -np.inf if w.op == "max" else 0.0
    steps = case.spread([slice(None, None, w.stride)] * len(w.size), slice(None), slice(None))
    blocks = [
        part
        for axis, cells in enumerate(case.input_shape)
        for part in ((cells // w.stride, w.stride) if axis in case.axes else (cells,))
    ]
    whole_blocks = w.padding == 0 and all(
        k == w.stride and cells % k == 0 for k, cells in zip(w.size, w.spatial, strict=True)
    )

    def run() -> Array:
        if whole_blocks:
            within = tuple(axis + k + 1 for k, axis in enumerate(case.axes))
            return reduce(x.reshape(blocks), axis=within)
        padded = np.pad(x, pads, constant_values=beyond) if w.padding else x
        windows = sliding_window_view(padded, w.size, case.axes)[steps]
        return reduce(windows, axis=tuple(range(x.ndim, windows.ndim)))

    return Prepared({"NumPy": run}, lambda y: (y,))
