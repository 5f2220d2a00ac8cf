"""Whether contenders computed the same."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from benchmarks.workloads import Array, Case

__all__ = ["agree", "dissenters"]

EPSILON = float(np.finfo(np.float32).eps)


def agree(case: Case, one: tuple[Array, ...], other: tuple[Array, ...]) -> bool:
    """Return whether two results of a case are equal, as far as both are right.

    Maxima and their positions are equal to the bit. Two float32 sums of n terms, each in an order
    of its own, differ by at most n eps times the sum of the terms' magnitudes.
    """
    if case.kind == "backward":
        # No term is negative, so the sum itself is that of the magnitudes.
        (a,), (b,) = one, other
        return a.shape == b.shape and bool(
            np.all(np.abs(a - b) <= case.workload.taps * EPSILON * np.maximum(a, b))
        )
    if case.workload.op == "max":
        return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    (a,), (b,) = one, other
    # No |x| is above 4, so the magnitudes of an average's terms, divided like it, are not, either.
    return a.shape == b.shape and bool(np.all(np.abs(a - b) <= case.workload.taps * EPSILON * 4))


def dissenters(case: Case, results: Mapping[str, tuple[Array, ...]]) -> list[str]:
    """Return the names of those whose result is not the one that most of them have.

    If no result is that of more than half, nobody is known to be right, and all are named.
    """
    for reference in results.values():
        wrong = [name for name, result in results.items() if not agree(case, reference, result)]
        if 2 * len(wrong) < len(results):
            return wrong
    return list(results)
