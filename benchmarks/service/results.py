"""The figures, beside the best peer and beside what is to be reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final, TypeAlias

from benchmarks.service.contenders import KSERVE, LISTS, ORJSON, OURS, RAW
from benchmarks.service.encodings import ENCODINGS
from benchmarks.service.measures import MEASURES

__all__ = ["TARGETS", "Figures", "Results", "Row", "Target", "figures_of", "rows"]

#: What benchmarks-service.json has.
Results: TypeAlias = Mapping[str, Any]
#: The figure of each contender, encoding and measure.
Figures: TypeAlias = Mapping[tuple[str, str, str], float]


def figures_of(results: Results) -> Figures:
    """Return the median of each figure's rounds, or the worst where that counts."""
    found = {}
    for cell in results["figures"]:
        summed = max if MEASURES[cell["measure"]].worst else median
        found[cell["contender"], cell["encoding"], cell["measure"]] = summed(cell["rounds"])
    return found


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of ours beside the best peer's, whichever encoding of the same kind it has."""

    measure: str
    encoding: str
    ours: float
    best: float
    peer: str

    @property
    def ratio(self) -> float:
        """How many times as good as the best peer."""
        return _times(self.measure, self.ours, self.best)

    @property
    def behind(self) -> bool:
        """Whether the best peer is better."""
        return self.ratio < 1


def rows(results: Results) -> list[Row]:
    """Return a row for each figure of ours that a peer has, too."""
    figures = figures_of(results)
    found = []
    for (contender, encoding, measure), own in figures.items():
        peers = [
            (_times(measure, other, own), other, f"{name} ({form})")
            for (name, form, of), other in figures.items()
            if name != OURS and of == measure and ENCODINGS[form].kind == ENCODINGS[encoding].kind
        ]
        if contender == OURS and peers:
            found.append(Row(measure, encoding, own, *max(peers)[1:]))
    return found


def _times(measure: str, one: float, other: float) -> float:
    """Return how many times as good one figure is as another."""
    one, other = (one, other) if MEASURES[measure].more else (other, one)
    return one / other if other else float("inf")


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be reached: a bound for a measure of ours.

    Attributes
    ----------
    encodings : tuple of str
        Those that must reach it, each by itself.
    measure : str
        Of `MEASURES`.
    bound : float
        The least that it must be, times as good as the peer; without one, the most that it may be.
    peer : tuple of str or None
        Who it is compared with, and in which encoding.
    """

    title: str
    encodings: tuple[str, ...]
    measure: str
    bound: float
    peer: tuple[str, str] | None = None

    def found(self, figures: Figures) -> dict[str, float]:
        """Return what was found for each encoding; without those that were not measured."""
        found = {}
        for encoding in self.encodings:
            own = figures.get((OURS, encoding, self.measure))
            if own is not None and self.peer is None:
                found[encoding] = own
            elif own is not None and self.peer and (*self.peer, self.measure) in figures:
                found[encoding] = _times(self.measure, own, figures[*self.peer, self.measure])
        return found

    def met(self, figures: Figures) -> bool | None:
        """Return whether all encodings reach it; None if not all were measured."""
        found = self.found(figures).values()
        if len(found) < len(self.encodings):
            return None
        if self.peer is None:
            return max(found) <= self.bound
        return min(found) >= self.bound


_JSON, _BINARY = ("nested", "flat"), ("V2 binary", "npy")
_LISTS, _ORJSON, _KSERVE = (LISTS, "nested"), (ORJSON, "flat"), (KSERVE, "V2 binary")
_RAW, _EMPTY = (RAW, "raw"), (RAW, "empty")

TARGETS: Final[Sequence[Target]] = (
    Target("times the rate of FastAPI with lists", _JSON, "medium rate", 10, _LISTS),
    Target("times the rate of FastAPI with orjson", _JSON, "medium rate", 3, _ORJSON),
    Target("times as fast as FastAPI with orjson", _JSON, "large time", 4, _ORJSON),
    Target("times the rate of KServe's binary", _BINARY, "medium rate", 50, _KSERVE),
    Target("times as fast as KServe's binary", _BINARY, "large time", 50, _KSERVE),
    Target("of the rate of FastAPI with raw bytes", _BINARY, "medium rate", 0.7, _RAW),
    Target("of the speed of FastAPI with raw bytes", _BINARY, "large time", 0.7, _RAW),
    Target("ms at the worst", _JSON, "health", 0.020),
    Target("ms at the worst", _JSON, "health of 8", 0.020),
    Target("MiB in all", _JSON, "memory", 450 * 2**20),
    Target("of body + twice the arrays", _JSON, "growth", 1),
    Target("of the rate of FastAPI with orjson", _JSON, "small rate", 0.9, _ORJSON),
    Target("of the speed of an empty route", _JSON, "small time", 0.5, _EMPTY),
)
