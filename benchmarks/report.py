"""What the measurements say: a Markdown document, and a summary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from statistics import geometric_mean

from benchmarks.contenders import OURS, OURS_OUT
from benchmarks.plot import plot
from benchmarks.results import Results, Row, Times, floor, measured, rows, times_of
from benchmarks.workloads import PASSES, Case, Workload

__all__ = ["document", "summary", "table", "write"]


def write(results: Results, folder: Path) -> None:
    """Write the document, and the plot that it shows, into a folder."""
    (folder / "benchmarks.md").write_text(document(results), encoding="utf-8")
    (folder / "benchmarks.svg").write_text(plot(rows(results)), encoding="utf-8")


def summary(results: Results) -> str:
    """Return the outcome in a few lines of Markdown."""
    lines = []
    for threads in sorted({row.case.threads for row in rows(results)}):
        some = [row for row in rows(results) if row.case.threads == threads]
        behind = sorted((row for row in some if row.behind), key=lambda row: row.ratio)
        lines += [
            f"- {_threads(threads).capitalize()}: **{_mean(row.ratio for row in some)} times** as "
            f"fast as the best peer (geometric mean over {len(some)} rows), {len(behind)} rows "
            f"behind; with `out=` {_mean(row.floors for row in some)} times the floor, and "
            f"{_mean(row.ours / row.out for row in some)} times as fast as without."
        ]
        if behind:
            worst = "; ".join(
                f"{row.case.workload.name}, {PASSES[row.case.kind]}, {_layout(row.case)}: "
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
    parts = [
        INTRODUCTION.format(**machine, versions=versions, rounds=results["rounds"]),
        summary(results),
        "![How many times as fast as the best peer, and how many times the floor](benchmarks.svg)",
        EXPLANATION,
    ]
    tables: dict[str, list[Row]] = {}
    for row in rows(results):
        title = f"{_layout(row.case).capitalize()}, {_threads(row.case.threads)}"
        tables.setdefault(title, []).append(row)
    for title, some in tables.items():
        parts += [f"## {title}", _peer_table(some)]
    for title, text, table_of in (
        ("Flat in the window", WINDOW, _window_table),
        ("Threads", SCALING, _scaling_table),
        ("Cost of an element", SIZE, _size_table),
        ("Small calls", SMALL, _small_table),
    ):
        shown = table_of(times_of(results))
        if shown:
            parts += [f"## {title}", text, shown]
    return "\n\n".join(parts) + "\n"


INTRODUCTION = """\
# Benchmarks

`make bench` wrote this page, benchmarks.json and the plot, on {cpu} with {cpus} CPUs, {system},
Python {python}, with the {build} build of the kernels: float32, medians over {rounds} rounds, each
contender in a process of its own, in turn, on as many CPUs as threads. Each contender's result was
checked against the others'.

{versions}"""

EXPLANATION = """\
"Best peer" is the quickest of all peers in either layout, each of which is timed with its arrays
already in its own layout: no transposing is counted. A peer has no time where it lacks just that
pooling. Gradients of a maximum are given what the library's forward saved: the argmax here, indices
in PyTorch, x in JAX, x and y in TensorFlow; other peers have no gradients. "Floor" is the time in
which the machine copies, into a warm buffer, half as many bytes as the pass must read and write,
argmax included: a copy reads and writes each of its bytes."""

WINDOW = "Milliseconds for windows of 7, 17 and 63 cells an axis, and their ratios."
SCALING = "Milliseconds, where computing bounds the time rather than memory."
SIZE = "Nanoseconds an element of the input, one thread."
SMALL = "Microseconds, one thread."


def _peer_table(some: Iterable[Row]) -> str:
    """Return a table of rows, in which those behind are marked."""
    cells = []
    for row in some:
        w, ratio = row.case.workload, f"{row.ratio:.2f}"
        cells.append(
            (
                f"**behind** {w.name}" if row.behind else w.name,
                _shape(w),
                PASSES[row.case.kind],
                _ms(row.ours),
                _ms(row.best),
                row.peer,
                f"**{ratio}**" if row.behind else ratio,
                _ms(row.out),
                _ms(row.floor),
                f"{row.floors:.2f}",
            )
        )
    head = "workload|(N, spatial, C), window/stride|pass|ours, ms|best peer, ms|which|times as fast"
    return table(f"{head}|ours with out=, ms|floor, ms|times the floor", cells)


def _window_table(times: Times) -> str:
    cells = []
    widths = 7, 17, 63
    by_name = {case.workload.name: case.workload for case in times}
    for case, _ in measured(times, "window"):
        names = [case.workload.name.replace("7x7", f"{k}x{k}") for k in widths]
        if case.workload.size[0] == widths[0] and all(name in by_name for name in names):
            same = (replace(case, workload=by_name[name]) for name in names)
            seven, seventeen, most = (times[other][OURS] for other in same)
            cells.append(
                (
                    case.workload.name.removesuffix(" 7x7/1"),
                    PASSES[case.kind],
                    _layout(case),
                    str(case.threads),
                    *map(_ms, (seven, seventeen, most)),
                    f"{most / seventeen:.2f}",
                    f"{most / seven:.2f}",
                )
            )
    return table("input|pass|layout|threads|7|17|63|63 / 17|63 / 7", cells)


def _scaling_table(times: Times) -> str:
    cells = []
    for case, own in measured(times, "scaling"):
        one = times.get(replace(case, threads=1))
        if case.threads > 1 and one:
            one_by_one, together = one[OURS], own[OURS]
            times_as_fast = f"{one_by_one / together:.2f}"
            shown = _ms(one_by_one), _ms(together), times_as_fast
            cells.append((case.workload.name, PASSES[case.kind], str(case.threads), *shown))
    return table("workload|pass|threads|one thread|all threads|times as fast", cells)


def _size_table(times: Times) -> str:
    cells = []
    for case, own in measured(times, "size"):
        n = prod(case.input_shape)
        nanos = (f"{1e9 * seconds / n:.2f}" for seconds in (own[OURS], own[OURS_OUT], floor(own)))
        cells.append((case.workload.name, PASSES[case.kind], *nanos))
    return table("workload, elements|pass|ours|ours with out=|floor", cells)


def _small_table(times: Times) -> str:
    cells = []
    for case, own in measured(times, "small"):
        peer = own.get("PyTorch")
        if peer:
            ratio = peer / own[OURS]
            shown = f"{ratio:.2f}" if ratio >= 1 else f"**behind {ratio:.2f}**"
            micros = (f"{1e6 * seconds:.2f}" for seconds in (own[OURS], own[OURS_OUT], peer))
            cells.append((case.workload.name, PASSES[case.kind], *micros, shown))
    return table("workload|pass|ours|ours with out=|PyTorch|times as fast", cells)


def _shape(w: Workload) -> str:
    """Describe a workload as in ``(4,224,224,64) 2x2/2 p1``."""
    size = "x".join(map(str, w.size))
    how = f"to {size}" if w.op == "adaptive" else f"{size}/{w.stride}"
    padding = f" p{w.padding}" if w.padding else ""
    return f"({','.join(map(str, (w.batch, *w.spatial, w.channels)))}) {how}{padding}"


def _layout(case: Case) -> str:
    return case.layout.replace("_", " ")


def _threads(threads: int) -> str:
    return "one thread" if threads == 1 else f"{threads} threads"


def _mean(values: Iterable[float]) -> str:
    return f"{geometric_mean(values):.2f}"


def _ms(seconds: float) -> str:
    """Write milliseconds with three digits."""
    ms = 1e3 * seconds
    return f"{ms:.0f}" if ms >= 100 else f"{ms:#.3g}"


def table(head: str, cells: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, or nothing if it has no rows."""
    if not cells:
        return ""
    columns = head.split("|")
    lines = [columns, ["---"] * len(columns), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
