"""SciPy, whose filters are poolings of stride one, in any layout."""

from __future__ import annotations

from functools import partial

import numpy as np
from scipy import ndimage

from benchmarks.contenders import Prepared
from benchmarks.workloads import Case


def prepare(case: Case) -> Prepared | None:
    """Return the run of a case."""
    w = case.workload
    if case.kind != "forward" or w.op == "adaptive" or not w.centred:
        return None
    x, _ = case.data()
    pool = ndimage.maximum_filter if w.op == "max" else ndimage.uniform_filter
    beyond = -np.inf if w.op == "max" else 0.0
    run = partial(pool, x, case.spread(w.size, 1, 1), mode="constant", cval=beyond)
    return Prepared({"SciPy": run}, lambda y: (y,))
