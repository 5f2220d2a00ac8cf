"""A plot of the rows, as SVG."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import log10
from xml.sax.saxutils import escape

from benchmarks.results import Row
from benchmarks.workloads import PASSES

__all__ = ["plot"]

LABELS, PANEL, GAP, LINE, TOP = 170, 360, 30, 26, 100
COLOURS = {"forward": "#1f6fb4", "argmax": "#d1761c", "backward": "#3d8f4e"}


def plot(rows: Sequence[Row]) -> str:
    """Return a plot of the rows of one thread: beside the best peer, and beside the floor."""
    some = [row for row in rows if row.case.threads == 1]
    names = list(dict.fromkeys(row.case.workload.name for row in some))
    lines = {name: TOP + LINE * (k + 0.5) for k, name in enumerate(names)}
    height, width = TOP + LINE * len(names) + 50, LABELS + 2 * PANEL + 2 * GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13" fill="#222">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        *_legend(),
        *(
            f'<text x="{LABELS - 10}" y="{y + 4:.1f}" text-anchor="end">{escape(name)}</text>'
            for name, y in lines.items()
        ),
        *_panel(some, lines, LABELS, "times as fast as the best peer", lambda row: row.ratio),
        *_panel(
            some, lines, LABELS + PANEL + GAP, "times the floor, with out=", lambda row: row.floors
        ),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _legend() -> Iterator[str]:
    """Yield what the marks mean."""
    x = LABELS
    for kind, colour in COLOURS.items():
        yield _mark(x, 22, colour, filled=True)
        yield f'<text x="{x + 10}" y="26">{PASSES[kind]}</text>'
        x += 40 + 7 * len(PASSES[kind])
    for name, filled in (("channels last", True), ("channels first", False)):
        yield _mark(x, 22, "#555", filled=filled)
        yield f'<text x="{x + 10}" y="26">{name}</text>'
        x += 130


def _panel(
    rows: Sequence[Row],
    lines: dict[str, float],
    left: float,
    title: str,
    value: Callable[[Row], float],
) -> Iterator[str]:
    """Yield a panel with a logarithmic axis, on which 1 is marked."""
    values = [value(row) for row in rows]
    low, high = log10(min([*values, 0.8])) - 0.05, log10(max([*values, 10.0])) + 0.05
    bottom = TOP + LINE * len(lines)

    def at(number: float) -> float:
        return left + PANEL * (log10(number) - low) / (high - low)

    yield _text(left + PANEL / 2, 58, title, 'font-weight="bold"')
    for y in lines.values():
        yield f'<path d="M{left} {y:.1f}h{PANEL}" stroke="#eee"/>'
    for power in range(-3, 5):
        for digit in (1, 2, 5):
            number = digit * 10.0**power
            if low <= log10(number) <= high:
                stroke = 'stroke="#222" stroke-width="1.5"' if number == 1 else 'stroke="#ddd"'
                yield f'<path d="M{at(number):.1f} {TOP - 8}V{bottom}" {stroke}/>'
                for y in (TOP - 14, bottom + 18):
                    yield _text(at(number), y, f"{number:g}")
    for row, number in zip(rows, values, strict=True):
        # The passes of a row are drawn one below the other.
        y = lines[row.case.workload.name] + 6 * (list(COLOURS).index(row.case.kind) - 1)
        yield _mark(
            at(number), y, COLOURS[row.case.kind], filled=row.case.layout == "channels_last"
        )


def _text(x: float, y: float, text: str, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y}" text-anchor="middle" {style}>{text}</text>'


def _mark(x: float, y: float, colour: str, *, filled: bool) -> str:
    fill = colour if filled else "#fff"
    style = f'fill="{fill}" stroke="{colour}" stroke-width="1.6"'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" {style}/>'
