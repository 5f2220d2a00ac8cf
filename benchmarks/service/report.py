"""What the measurements of the service say: a Markdown document, and a summary."""

from __future__ import annotations

from math import prod
from pathlib import Path

from benchmarks.report import table
from benchmarks.service.contenders import OURS
from benchmarks.service.encodings import ENCODINGS
from benchmarks.service.measures import MEASURES, SLOW
from benchmarks.service.plot import plot
from benchmarks.service.results import TARGETS, Results, figures_of, rows

__all__ = ["document", "summary", "write"]

VERDICTS = {True: "reached", False: "**missed**", None: "not measured"}


def write(results: Results, folder: Path) -> None:
    """Write the document, and the plot that it shows, into a folder."""
    (folder / "benchmarks-service.md").write_text(document(results), encoding="utf-8")
    (folder / "benchmarks-service.svg").write_text(plot(rows(results)), encoding="utf-8")


def summary(results: Results) -> str:
    """Return the outcome in a few lines of Markdown."""
    some, figures = rows(results), figures_of(results)
    verdicts = [target.met(figures) for target in TARGETS]
    lines = [
        f"- {verdicts.count(True)} of {len(verdicts)} targets reached, {verdicts.count(False)} "
        f"missed, {verdicts.count(None)} not measured.",
        f"- {sum(row.behind for row in some)} of {len(some)} rows behind the best peer.",
    ]
    lines += [f"- Left out: {name}: {why}." for name, why in results["missing"].items()]
    for of, word in (("refused", "Not answered"), ("wrong", "WRONG")):
        lines += [
            f"- {word}: {{contender}}, {{encoding}}: {{why}}.".format(**c) for c in results[of]
        ]
    return "\n".join(lines)


def document(results: Results) -> str:
    """Return the whole document."""
    parts = [
        INTRODUCTION.format(
            **results["machine"],
            sizes="\n".join(
                f"| {size} | ({', '.join(map(str, shape))}) | {prod(shape):,} |"
                for size, shape in results["shapes"].items()
            ),
            rounds=results["rounds"],
            seconds=results["seconds"],
        ),
        summary(results),
        "![How many times as good as the best peer](benchmarks-service.svg)",
        "## Targets",
        TARGET,
        _target_table(results),
    ]
    for title, kind in (("JSON", "JSON"), ("Binary", "binary"), ("Nothing to do", "empty")):
        parts += [f"## {title}", _kind_table(results, kind)]
    parts += [
        EXPLANATION.format(slow=SLOW),
        "## Beside the best peer",
        _row_table(results),
        RUNNING,
        "## Versions",
    ]
    versions = {", ".join(of): name for name, of in results["versions"].items()}
    parts += ["\n".join(f"- {text.replace('==', ' ')}" for text in versions)]
    return "\n\n".join(part for part in parts if part) + "\n"


INTRODUCTION = """\
# Benchmarks of the service

`make bench-service` wrote this page, benchmarks-service.json and the plot, on {cpu} with {cpus}
CPUs, {system}, Python {python}, in {seconds:.0f} s; rounds: {rounds}. All servers have one CPU, the
client has another. What is asked for is max pooling 2x2/2 of float32:

| size | shape | numbers |
| --- | --- | --- |
{sizes}"""

TARGET = "Those that are for several forms are reached if each of them reaches it."

EXPLANATION = """\
- Every reply was compared with NumPy's result.
- All peers pool with this library, so only the serving differs. "FastAPI, raw bytes" checks
  nothing: it is the most that this stack can do. "Constant reply" is no more than a socket: it
  shows how many requests the client could make.
- Rates and times are medians over the rounds, health and memory the worst of all rounds. Health is
  asked every 5 ms on a connection of its own; "idle" is its worst while nothing else is asked.
- Memory is what all processes of a server hold together, at its peak. Growth is what was added to
  it while eight were answered, for each of them, as a share of its body and twice its arrays.
- Where one large request takes more than {slow:g} s, eight at a time are sent in the first round
  only; with `--quick` not at all, which shows as a dash."""


RUNNING = """\
## Running it

```console
$ make bench-service                      # all rounds, about ten minutes; writes this page
$ make bench-service BENCH=--quick        # one short round; writes to benchmarks/output
$ make bench-service BENCH='--contenders Poolgrad "FastAPI, orjson"'
```

It needs Linux, and two CPUs of which nothing else has need meanwhile. The first run makes an
environment for each peer in .venv-peers, which takes some minutes; a peer that cannot be installed,
or does not start, is left out and named. All connections are on 127.0.0.1. It ends with status 1 if
any reply was wrong.

A peer is a module in `benchmarks/service/peers/` and an entry in
`benchmarks/service/contenders.py`, where its requirements are pinned. A form of request and reply
is an entry in `benchmarks/service/encodings.py`; what a server does not answer is named, too."""


def _target_table(results: Results) -> str:
    figures, cells = figures_of(results), []
    for target in TARGETS:
        measure = MEASURES[target.measure]
        found = target.found(figures)
        name = None if target.peer else target.measure
        cells.append(
            (
                measure.title,
                target.title,
                f"{'at least' if target.peer else 'at most'} {_number(name, target.bound)}",
                ", ".join(f"{form} {_number(name, value)}" for form, value in found.items()) or "-",
                VERDICTS[target.met(figures)],
            )
        )
    return table("measure|what|needed|found|verdict", cells)


def _kind_table(results: Results, kind: str) -> str:
    figures = figures_of(results)
    cells = []
    for contender, encoding in dict.fromkeys(key[:2] for key in figures):
        if ENCODINGS[encoding].kind == kind:
            own = (figures.get((contender, encoding, name)) for name in MEASURES)
            named = f"**{contender}**" if contender == OURS else contender
            shown = (
                "-" if value is None else _number(name, value)
                for name, value in zip(MEASURES, own, strict=True)
            )
            idle = _number("health", results["idle"][contender])
            cells.append((named, encoding, *shown, idle))
    titles = (f"{measure.title}, {measure.unit}" for measure in MEASURES.values())
    return table("|".join(["server", "form", *titles, "health idle, ms"]), cells)


def _row_table(results: Results) -> str:
    cells = []
    for row in sorted(rows(results), key=lambda row: list(MEASURES).index(row.measure)):
        measure, ratio = MEASURES[row.measure], _number(None, row.ratio)
        cells.append(
            (
                f"**behind** {measure.title}" if row.behind else measure.title,
                row.encoding,
                _number(row.measure, row.ours),
                _number(row.measure, row.best),
                row.peer,
                f"**{ratio}**" if row.behind else ratio,
            )
        )
    return table("measure|form|ours|best peer|which|times as good", cells)


def _number(measure: str | None, value: float) -> str:
    """Write a figure in its unit, or a ratio, with three digits."""
    unit = MEASURES[measure].unit if measure else ""
    value *= {"ms": 1e3, "MiB": 2**-20}.get(unit, 1)
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
