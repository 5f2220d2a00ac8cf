"""The measurements, case by case, and beside the best peer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from benchmarks.contenders import FLOOR, OURS, OURS_OUT
from benchmarks.workloads import LAYOUTS, WORKLOADS, Workload

__all__ = ["Results", "Row", "Times", "floor", "measured", "rows", "times_of"]

#: What benchmarks.json has.
Results: TypeAlias = Mapping[str, Any]
#: Seconds by contender, by workload, pass, layout and threads.
Times: TypeAlias = Mapping[tuple[str, str, str, int], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Row:
    """One case beside its best peer and its floor, in seconds.

    Attributes
    ----------
    ours, out, floor : float
        Poolgrad with a fresh result and with `out`, and copying.
    best : float
        The quickest peer, in whichever layout it is quickest.
    peer : str
        Its name; with its layout, if that is another one.
    """

    workload: Workload
    layout: str
    kind: str
    threads: int
    ours: float
    out: float
    floor: float
    best: float
    peer: str

    @property
    def ratio(self) -> float:
        """How many times faster than the best peer."""
        return self.best / self.ours

    @property
    def behind(self) -> bool:
        """Whether the best peer is faster."""
        return self.ratio < 1

    @property
    def floors(self) -> float:
        """How many times the floor."""
        return self.out / self.floor


def rows(results: Results) -> list[Row]:
    """Return a row for each case of Poolgrad that a peer has, too."""
    times = times_of(results)
    found = []
    for workload, kind, layout, threads, own in measured(times, "peers"):
        peers = []
        for other in LAYOUTS:
            there = times.get((workload.name, kind, other, threads), {})
            where = "" if other == layout else f" ({other.replace('_', ' ')})"
            peers += [(t, name + where) for name, t in there.items() if _is_peer(name)]
        if peers:
            timed = own[OURS], own[OURS_OUT], floor(own)
            found.append(Row(workload, layout, kind, threads, *timed, *min(peers)))
    return found


def times_of(results: Results) -> Times:
    """Return the seconds of each contender, by case."""
    times: dict[tuple[str, str, str, int], dict[str, float]] = {}
    for cell in results["times"]:
        key = cell["workload"], cell["pass"], cell["layout"], cell["threads"]
        times.setdefault(key, {})[cell["contender"]] = cell["seconds"]
    return times


def measured(
    times: Times, group: str
) -> Iterator[tuple[Workload, str, str, int, Mapping[str, float]]]:
    """Yield the cases of a group that Poolgrad was measured in, in the order of the workloads."""
    for workload in WORKLOADS:
        if workload.group != group:
            continue
        for (name, kind, layout, threads), own in times.items():
            if name == workload.name and OURS in own:
                yield workload, kind, layout, threads, own


def _is_peer(name: str) -> bool:
    return name not in (OURS, OURS_OUT) and not name.startswith(FLOOR)


def floor(own: Mapping[str, float]) -> float:
    """Return the time of the quickest way to copy."""
    return min(seconds for name, seconds in own.items() if name.startswith(FLOOR))
