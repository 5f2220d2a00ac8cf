"""The measurements, case by case, and beside the best peer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from benchmarks.contenders import FLOOR, OURS, OURS_OUT
from benchmarks.workloads import LAYOUTS, WORKLOADS, Case

__all__ = ["Results", "Row", "Times", "floor", "measured", "rows", "times_of"]

#: What benchmarks.json has.
Results: TypeAlias = Mapping[str, Any]
#: Seconds of each contender.
Times: TypeAlias = Mapping[Case, Mapping[str, float]]


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

    case: Case
    ours: float
    out: float
    floor: float
    best: float
    peer: str

    @property
    def ratio(self) -> float:
        """How many times as fast as the best peer."""
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
    for case, own in measured(times, "peers"):
        peers = []
        for layout in LAYOUTS:
            there = times.get(replace(case, layout=layout), {})
            where = "" if layout == case.layout else f" ({layout.replace('_', ' ')})"
            peers += [(seconds, name + where) for name, seconds in there.items() if _is_peer(name)]
        if peers:
            found.append(Row(case, own[OURS], own[OURS_OUT], floor(own), *min(peers)))
    return found


def times_of(results: Results) -> Times:
    """Return the seconds of each contender, by case."""
    workloads = {workload.name: workload for workload in WORKLOADS}
    times: dict[Case, dict[str, float]] = {}
    for cell in results["times"]:
        case = Case(workloads[cell["workload"]], cell["layout"], cell["pass"], cell["threads"])
        times.setdefault(case, {})[cell["contender"]] = cell["seconds"]
    return times


def measured(times: Times, group: str) -> Iterator[tuple[Case, Mapping[str, float]]]:
    """Yield the cases of a group that Poolgrad was measured in, and all that was measured there."""
    for case, own in times.items():
        if case.workload.group == group and OURS in own:
            yield case, own


def floor(own: Mapping[str, float]) -> float:
    """Return the time of the quickest way to copy."""
    return min(seconds for name, seconds in own.items() if name.startswith(FLOOR))


def _is_peer(name: str) -> bool:
    return name not in (OURS, OURS_OUT) and not name.startswith(FLOOR)
