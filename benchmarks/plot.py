"""A plot of the rows, as SVG."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import log10
from typing import NamedTuple
from xml.sax.saxutils import escape

from benchmarks.results import Row
from benchmarks.workloads import PASSES

__all__ = ["LABELS", "LINE", "PANEL", "TOP", "Mark", "circle", "page", "panel", "plot"]

LABELS, PANEL, GAP, LINE, TOP = 170, 360, 30, 26, 100
COLOURS = {"forward": "#1f6fb4", "argmax": "#d1761c", "backward": "#3d8f4e"}


def plot(rows: Sequence[Row]) -> str:
    """Return a plot of the rows of one thread: beside the best peer, and beside the floor."""
    some = [row for row in rows if row.case.threads == 1]
    names = list(dict.fromkeys(row.case.workload.name for row in some))
    lines = {name: TOP + LINE * (k + 0.5) for k, name in enumerate(names)}

    def marks(value: Callable[[Row], float]) -> Iterator[Mark]:
        for row in some:
            # The passes of a row are drawn one below the other.
            y = lines[row.case.workload.name] + 6 * (list(COLOURS).index(row.case.kind) - 1)
            filled = row.case.layout == "channels_last"
            yield Mark(value(row), y, COLOURS[row.case.kind], filled)

    right = LABELS + PANEL + GAP
    return page(
        lines,
        right + PANEL + GAP,
        *_legend(),
        *panel(list(marks(lambda row: row.ratio)), lines, LABELS, "times as fast as the best peer"),
        *panel(list(marks(lambda row: row.floors)), lines, right, "times the floor, with out="),
    )


class Mark(NamedTuple):
    """A number, and how it is drawn."""

    number: float
    y: float
    colour: str
    filled: bool = True


def page(lines: Mapping[str, float], width: float, *parts: str) -> str:
    """Return a plot of parts, in which each line has its name on the left."""
    height = TOP + LINE * len(lines) + 50
    names = (
        f'<text x="{LABELS - 10}" y="{y + 4:.1f}" text-anchor="end">{escape(name)}</text>'
        for name, y in lines.items()
    )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13" fill="#222">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    )
    return "\n".join([*head, *names, *parts, "</svg>"]) + "\n"


def _legend() -> Iterator[str]:
    """Yield what the marks mean."""
    x = LABELS
    for kind, colour in COLOURS.items():
        yield circle(x, 22, colour, filled=True)
        yield f'<text x="{x + 10}" y="26">{PASSES[kind]}</text>'
        x += 40 + 7 * len(PASSES[kind])
    for name, filled in (("channels last", True), ("channels first", False)):
        yield circle(x, 22, "#555", filled=filled)
        yield f'<text x="{x + 10}" y="26">{name}</text>'
        x += 130


def panel(
    marks: Sequence[Mark],
    lines: Mapping[str, float],
    left: float,
    title: str,
    digits: Sequence[int] = (1, 2, 5),
) -> Iterator[str]:
    """Yield a panel with a logarithmic axis, on which 1 is marked."""
    values = [mark.number for mark in marks]
    low, high = log10(min([*values, 0.8])) - 0.05, log10(max([*values, 10.0])) + 0.05
    bottom = TOP + LINE * len(lines)

    def at(number: float) -> float:
        return left + PANEL * (log10(number) - low) / (high - low)

    yield _text(left + PANEL / 2, 58, title, 'font-weight="bold"')
    for y in lines.values():
        yield f'<path d="M{left} {y:.1f}h{PANEL}" stroke="#eee"/>'
    for power in range(-3, 5):
        for digit in digits:
            number = digit * 10.0**power
            if low <= log10(number) <= high:
                stroke = 'stroke="#222" stroke-width="1.5"' if number == 1 else 'stroke="#ddd"'
                yield f'<path d="M{at(number):.1f} {TOP - 8}V{bottom}" {stroke}/>'
                for y in (TOP - 14, bottom + 18):
                    yield _text(at(number), y, f"{number:g}")
    for mark in marks:
        yield circle(at(mark.number), mark.y, mark.colour, filled=mark.filled)


def _text(x: float, y: float, text: str, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y}" text-anchor="middle" {style}>{text}</text>'


def circle(x: float, y: float, colour: str, *, filled: bool) -> str:
    """Return the mark of a number."""
    fill = colour if filled else "#fff"
    style = f'fill="{fill}" stroke="{colour}" stroke-width="1.6"'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" {style}/>'
