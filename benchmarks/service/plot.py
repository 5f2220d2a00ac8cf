"""A plot of the service's rows, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from benchmarks.plot import LABELS, LINE, PANEL, TOP, Mark, circle, page, panel
from benchmarks.service.measures import MEASURES
from benchmarks.service.results import Row

__all__ = ["plot"]

COLOURS: Final = {
    "nested": "#1f6fb4",
    "flat": "#3d8f4e",
    "base64": "#8a5fb0",
    "V2 binary": "#d1761c",
    "npy": "#c23b3b",
}


def plot(rows: Sequence[Row]) -> str:
    """Return a plot of how many times as good as the best peer each figure is."""
    names = [name for name in MEASURES if any(row.measure == name for row in rows)]
    lines = {MEASURES[name].title: TOP + LINE * (k + 0.5) for k, name in enumerate(names)}
    legend = []
    for k, (encoding, colour) in enumerate(COLOURS.items()):
        x = LABELS + 85 * k
        legend += [
            circle(x, 22, colour, filled=True),
            f'<text x="{x + 10}" y="26">{encoding}</text>',
        ]
    marks = [
        Mark(
            row.ratio,
            # The forms of a measure are drawn one below the other.
            lines[MEASURES[row.measure].title] + 5 * (list(COLOURS).index(row.encoding) - 2),
            COLOURS[row.encoding],
        )
        for row in rows
    ]
    title = "times as good as the best peer"
    return page(lines, LABELS + PANEL + 60, *legend, *panel(marks, lines, LABELS, title, (1,)))
