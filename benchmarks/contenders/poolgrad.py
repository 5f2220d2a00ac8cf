"""Poolgrad, with fresh results and with `out`; and the floor, which is copying."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

import poolgrad as pg
from benchmarks.contenders import FLOOR, OURS, OURS_OUT, Prepared
from benchmarks.workloads import Array, Case


def prepare(case: Case) -> Prepared:
    """Return the runs of a case; its gradient of a maximum is given the argmax."""
    w, (x, dy) = case.workload, case.data()
    how: dict[str, Any] = {"layout": case.layout, "num_threads": case.threads}
    if w.op == "adaptive":
        op, how["output_size"] = "adaptive_avg_pool", w.size
    else:
        op = "max_pool" if w.op == "max" else "avg_pool"
        how |= {"kernel_size": w.size, "stride": w.stride, "padding": w.padding}
    forward = partial(getattr(pg, op), x, **how)
    plan = None
    if case.kind == "forward":
        run = forward
    elif case.kind == "argmax":
        run = partial(forward, return_argmax=True)
        geometry = {name: how[name] for name in ("kernel_size", "stride", "padding", "layout")}
        plan = pg.plan("max_pool", x.shape, **geometry)
    else:
        run = partial(getattr(pg, f"{op}_backward"), dy, x.shape, **how)
        if w.op == "max":
            run = partial(run, argmax=forward(return_argmax=True)[1])

    def arrays(result: Any) -> tuple[Array, ...]:
        if plan is None:
            return (result,)
        y, argmax = result
        return y, pg.argmax_to_indices(argmax, plan)

    runs: dict[str, Callable[[], Any]] = {
        OURS: run,
        OURS_OUT: partial(run, out=run()),
        **_copies(case),
    }
    return Prepared(runs, arrays)


def _copies(case: Case) -> dict[str, Callable[[], Any]]:
    """Return runs that move as many bytes as the case must read and write.

    Copying n bytes reads n and writes n; so half of the bytes that a case moves are copied. With
    several threads each copies a part; since handing over may cost more than it gains, one
    thread's copy is measured too, and the quicker one is the floor.
    """
    source = np.ones(case.bytes_moved // 2, np.uint8)
    target = np.ones_like(source)
    runs: dict[str, Callable[[], Any]] = {FLOOR: partial(np.copyto, target, source)}
    if case.threads > 1:
        pool = ThreadPoolExecutor(case.threads - 1)
        *others, mine = zip(
            np.array_split(target, case.threads),
            np.array_split(source, case.threads),
            strict=True,
        )

        def together() -> None:
            waiting = [pool.submit(np.copyto, *part) for part in others]
            np.copyto(*mine)
            for part in waiting:
                part.result()

        runs[f"{FLOOR} by {case.threads}"] = together
    return runs
