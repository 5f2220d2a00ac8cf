"""What the measurements say: a Markdown document, and a summary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from pathlib import Path
from statistics import geometric_mean

from benchmarks.contenders import OURS, OURS_OUT
from benchmarks.plot import plot
from benchmarks.results import Results, Row, Times, floor, measured, rows, times_of
from benchmarks.workloads import LAYOUTS, PASSES, Workload

__all__ = ["document", "summary", "write"]


def write(results: Results, folder: Path) -> None:
    """Write the document, and the plot that it shows, into a folder."""
    (folder / "benchmarks.md").write_text(document(results), encoding="utf-8")
    (folder / "benchmarks.svg").write_text(plot(rows(results)), encoding="utf-8")


def summary(results: Results) -> str:
    """Return the outcome in a few lines of Markdown."""
    lines = []
    for threads in sorted({row.threads for row in rows(results)}):
        some = [row for row in rows(results) if row.threads == threads]
        behind = sorted((row for row in some if row.behind), key=lambda row: row.ratio)
        lines += [
            f"- {_threads(threads)}: **{_mean(row.ratio for row in some)} times** as fast as the "
            f"best peer (geometric mean over {len(some)} rows), {len(behind)} rows behind; with "
            f"`out=` {_mean(row.floors for row in some)} times the floor."
        ]
        if behind:
            worst = "; ".join(
                f"{row.workload.name}, {PASSES[row.kind]}, {row.layout.replace('_', ' ')}: "
                f"{row.ratio:.2f} of {row.peer}"
                for row in behind[:5]
            )
            lines += [f"  The worst: {worst}."]
    if results["missing"]:
        lines += [f"- Not installed, so left out: {', '.join(results['missing'])}."]
    lines += [
        "- WRONG: {contender}, {workload}, {pass}, {layout}, threads {threads}.".format(**wrong)
        for wrong in results["wrong"]
    ]
    return "\n".join(lines)


def document(results: Results) -> str:
    """Return the whole document."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    times = times_of(results)
    parts = [
        INTRODUCTION.format(**machine, versions=versions, rounds=results["rounds"]),
        summary(results),
        "![How many times as fast as the best peer, and how many times the floor](benchmarks.svg)",
        EXPLANATION,
    ]
    for threads in sorted({row.threads for row in rows(results)}):
        for layout in LAYOUTS:
            parts += [f"## {layout.replace('_', ' ').capitalize()}, {_threads(threads)}"]
            parts += [_peer_table(rows(results), layout, threads)]
    for group, title, text in GROUPS:
        table = GROUP_TABLES[group](times)
        if table:
            parts += [f"## {title}", text, table]
    return "\n\n".join(parts) + "\n"


INTRODUCTION = """\
# Benchmarks

`make bench` wrote this page, benchmarks.json and the plot, on {cpu} with {cpus} CPUs, {system},
Python {python}: float32, medians over {rounds} rounds, each contender in a process of its own, in
turn, on as many CPUs as threads. Each contender's result was checked against the others'.

{versions}"""

EXPLANATION = """\
"Best peer" is the quickest of all peers in either layout, each of which is timed with its arrays
already in its own layout: no transposing is counted. A peer has no time where it lacks just that
pooling. Gradients of a maximum are given what the library's forward saved: the argmax here, indices
in PyTorch, x in JAX, x and y in TensorFlow; other peers have no gradients. "Floor" is the time in
which the machine copies, into a warm buffer, half as many bytes as the pass must read and write,
argmax included: a copy reads and writes each of its bytes."""

GROUPS = (
    (
        "window",
        "Flat in the window",
        "Milliseconds; and how many times those of 17 and of 7 cells.",
    ),
    ("scaling", "Threads", "Milliseconds, where computing bounds the time rather than memory."),
    ("size", "Cost of an element", "Nanoseconds an element of the input, with `out=`, one thread."),
    ("small", "Small calls", "Microseconds, one thread."),
)


def _peer_table(all_rows: Sequence[Row], layout: str, threads: int) -> str:
    """Return the rows of one layout and number of threads; those behind are marked."""
    cells = [
        (
            f"**behind** {row.workload.name}" if row.behind else row.workload.name,
            _shape(row.workload),
            PASSES[row.kind],
            _ms(row.ours),
            _ms(row.best),
            row.peer,
            f"**{row.ratio:.2f}**" if row.behind else f"{row.ratio:.2f}",
            _ms(row.out),
            _ms(row.floor),
            f"{row.floors:.2f}",
        )
        for row in all_rows
        if (row.layout, row.threads) == (layout, threads)
    ]
    head = "workload|(N, spatial, C), window/stride|pass|ours, ms|best peer, ms|which|times as fast"
    return _table(f"{head}|ours with out=, ms|floor, ms|times the floor", cells)


def _window_table(times: Times) -> str:
    """Return the cost of windows of 7, 17 and 63 cells."""
    cells = []
    found = {w.name: w for w, *_ in measured(times, "window")}
    for workload in found.values():
        if workload.size[0] != 63:
            continue
        names = [workload.name.replace("63x63", f"{k}x{k}") for k in (7, 17, 63)]
        for threads in sorted({key[3] for key in times}):
            for layout in LAYOUTS:
                for kind in workload.passes:
                    keys = [(name, kind, layout, threads) for name in names]
                    if not all(key in times for key in keys):
                        continue
                    seven, seventeen, most = (times[key][OURS] for key in keys)
                    cells.append(
                        (
                            workload.name.removesuffix(" 63x63/1"),
                            PASSES[kind],
                            layout.replace("_", " "),
                            str(threads),
                            *map(_ms, (seven, seventeen, most)),
                            f"{most / seventeen:.2f}",
                            f"{most / seven:.2f}",
                        )
                    )
    return _table("input|pass|layout|threads|7|17|63|63 / 17|63 / 7", cells)


def _scaling_table(times: Times) -> str:
    """Return the times of one thread and of more."""
    cells = []
    for workload, kind, layout, threads, own in measured(times, "scaling"):
        one = times.get((workload.name, kind, layout, 1))
        if threads > 1 and one:
            cells.append(
                (
                    workload.name,
                    PASSES[kind],
                    str(threads),
                    _ms(one[OURS]),
                    _ms(own[OURS]),
                    f"{one[OURS] / own[OURS]:.2f}",
                )
            )
    return _table("workload|pass|threads|one thread|all threads|times as fast", cells)


def _size_table(times: Times) -> str:
    """Return the cost of an element of the input."""
    cells = []
    for workload, kind, _, threads, own in measured(times, "size"):
        if threads == 1:
            n = workload.channels * prod(workload.spatial)
            cells.append(
                (
                    workload.name,
                    PASSES[kind],
                    f"{1e9 * own[OURS_OUT] / n:.2f}",
                    f"{1e9 * floor(own) / n:.2f}",
                )
            )
    return _table("workload, elements|pass|ours with out=|floor", cells)


def _small_table(times: Times) -> str:
    """Return the cost of a call."""
    cells = []
    for workload, kind, _, threads, own in measured(times, "small"):
        peer = own.get("PyTorch")
        if threads == 1 and peer:
            ratio = peer / own[OURS]
            shown = f"{ratio:.2f}" if ratio >= 1 else f"**{ratio:.2f} behind**"
            micros = (f"{1e6 * t:.2f}" for t in (own[OURS], own[OURS_OUT], peer))
            cells.append((workload.name, PASSES[kind], *micros, shown))
    return _table("workload|pass|ours|ours with out=|PyTorch|times as fast", cells)


GROUP_TABLES = {
    "window": _window_table,
    "scaling": _scaling_table,
    "size": _size_table,
    "small": _small_table,
}


def _shape(w: Workload) -> str:
    """Describe a workload as in ``(4,224,224,64) 2x2/2 p1``."""
    size = "x".join(map(str, w.size))
    how = f"to {size}" if w.op == "adaptive" else f"{size}/{w.stride}"
    padding = f" p{w.padding}" if w.padding else ""
    return f"({','.join(map(str, (w.batch, *w.spatial, w.channels)))}) {how}{padding}"


def _threads(threads: int) -> str:
    return "one thread" if threads == 1 else f"{threads} threads"


def _mean(values: Iterable[float]) -> str:
    return f"{geometric_mean(values):.2f}"


def _ms(seconds: float) -> str:
    """Write milliseconds with three digits."""
    ms = 1e3 * seconds
    return f"{ms:.0f}" if ms >= 100 else f"{ms:#.3g}"


def _table(head: str, cells: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, or nothing if it has no rows."""
    if not cells:
        return ""
    columns = head.split("|")
    lines = [columns, ["---"] * len(columns), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
