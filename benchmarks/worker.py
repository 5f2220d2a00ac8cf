"""What runs in the process of one contender: prepare a case, then time it when asked."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from multiprocessing import get_context
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks.contenders import CONTENDERS, Prepared
from benchmarks.workloads import Array, Case

__all__ = ["SLOW", "Warm", "load", "prepare", "process", "time"]

#: Seconds after which one run is enough.
SLOW = 1.0

_prepared: Prepared


@dataclass(frozen=True, slots=True)
class Warm:
    """What the first run of each call gave: the result, and the seconds if that was enough."""

    result: tuple[Array, ...]
    seconds: dict[str, float] | None


def process() -> ProcessPoolExecutor:
    """Return a process that starts empty, so that no contender can disturb another one."""
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


def load(name: str) -> str | None:
    """Import a contender and return its version; None if it is not installed."""
    module, distribution = CONTENDERS[name]
    try:
        import_module(f"benchmarks.contenders.{module}")
    except ModuleNotFoundError:
        return None
    return version(distribution)


def prepare(name: str, case: Case) -> Warm | None:
    """Make a case ready and run it once; return None if the contender does not have it."""
    global _prepared
    module = import_module(f"benchmarks.contenders.{CONTENDERS[name].module}")
    prepared = module.prepare(case)
    if prepared is None:
        return None
    _prepared = prepared
    seconds = {}
    results = []
    for label, run in prepared.runs.items():
        begin = perf_counter()
        results.append(run())
        seconds[label] = perf_counter() - begin
    slow = max(seconds.values()) > SLOW
    return Warm(prepared.arrays(results[0]), seconds if slow else None)


def time(budget: float) -> dict[str, float]:
    """Return the median seconds of each run of the case that was prepared last."""
    return {label: _median(run, budget) for label, run in _prepared.runs.items()}


def _median(run: Callable[[], Any], budget: float) -> float:
    """Return the median seconds of as many runs as fit into a budget, and at least one."""
    taken: list[float] = []
    begin = end = perf_counter()
    while not taken or end - begin < budget:
        start = perf_counter()
        run()
        end = perf_counter()
        taken.append(end - start)
    return median(taken)
