"""Measure the service beside other servers, and write the results as JSON, tables and a plot.

Each peer runs in an environment of its own, which the first run makes. All servers are on one CPU
and the client is on another. Every reply is compared with NumPy. Step by step all servers take
turns, in rounds; the median of the rounds is taken, and the worst of what must never be bad.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from time import monotonic
from typing import Any, Final

from benchmarks import worker
from benchmarks.machine import machine
from benchmarks.service import environments, measures, report
from benchmarks.service.client import Refused, Wrong
from benchmarks.service.contenders import CONTENDERS
from benchmarks.service.measures import SHAPES, STEPS, Form, Images, Shapes
from benchmarks.service.servers import NotStarted, Server, started

#: Seconds for which requests are begun, each step.
BUDGET, QUICK_BUDGET = 1.0, 0.3
#: Seconds after which no round is begun that may not end in time, without the installing.
LIMIT: Final = 690.0


def main() -> int:
    """Run the benchmark; return 1 if a reply was wrong."""
    options = _options()
    results = run(options.contenders, rounds=options.rounds, seconds=options.seconds, shapes=SHAPES)
    options.output.mkdir(parents=True, exist_ok=True)
    written = json.dumps(results, indent=1) + "\n"
    (options.output / "benchmarks-service.json").write_text(written)
    report.write(results, options.output)
    print(report.summary(results), file=sys.stderr)
    return 1 if results["wrong"] else 0


def run(
    contenders: Sequence[str], *, rounds: int, seconds: float, shapes: Shapes
) -> dict[str, Any]:
    """Measure contenders, and return the results.

    Parameters
    ----------
    contenders : sequence of str
        Names of `CONTENDERS`.
    rounds : int
        Rounds, if there is time for them.
    seconds : float
        For how long requests are begun, each step.
    shapes : dict of str to tuple of int
        The arrays of each size.
    """
    cpus = sorted(os.sched_getaffinity(0))
    results: dict[str, Any] = {"machine": machine(cpus), "shapes": dict(shapes)}
    results |= {"versions": {}, "missing": {}, "refused": [], "wrong": [], "idle": {}}
    pythons = {name: environments.interpreter(CONTENDERS[name].environment) for name in contenders}
    begin = monotonic()
    os.sched_setaffinity(0, cpus[-1:])
    try:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            prober = stack.enter_context(worker.process())
            servers: dict[str, Server] = {}
            for k, (name, python) in enumerate(pythons.items()):
                if python is None:
                    results["missing"][name] = "it could not be installed"
                    continue
                servers[name] = stack.enter_context(
                    started(python, CONTENDERS[name], folder / str(k), set(cpus[:1]))
                )
            for name, server in list(servers.items()):
                try:
                    server.wait()
                except NotStarted as error:
                    results["missing"][name] = f"it did not start: {error}"
                    del servers[name]
            images, forms = Images(shapes), []
            for name, server in servers.items():
                try:
                    results["idle"][name] = measures.idle(server, prober, min(seconds, 0.5))
                except OSError as error:
                    results["missing"][name] = str(error)
                    continue
                results["versions"][name] = environments.versions(CONTENDERS[name].environment)
                forms += _prepare(server, name, images, results)
            figures: dict[tuple[str, str, str], list[float]] = {}
            last, done = 0.0, 0
            while done < rounds and monotonic() - begin + last < LIMIT:
                start, patient = monotonic(), rounds > 1 and not done
                for step, form in product(STEPS, list(forms)):
                    if form not in forms:
                        continue
                    try:
                        for of, value in measures.measure(
                            form, step, prober, seconds, patient=patient
                        ):
                            key = form.contender, form.encoding, of
                            figures.setdefault(key, []).append(value)
                            print(*key, f"{value:.6g}", file=sys.stderr)
                    except (Refused, Wrong, OSError) as error:
                        forms.remove(form)
                        _left_out(results, form.contender, form.encoding, error)
                last = monotonic() - start
                done += 1
    finally:
        os.sched_setaffinity(0, cpus)
    return results | {
        "rounds": done,
        "seconds": monotonic() - begin,
        "figures": [
            {"contender": contender, "encoding": encoding, "measure": of, "rounds": values}
            for (contender, encoding, of), values in figures.items()
        ],
    }


def _prepare(server: Server, name: str, images: Images, results: dict[str, Any]) -> list[Form]:
    """Return the forms of a server that it answers rightly."""
    forms = []
    for encoding in server.contender.routes:
        try:
            forms.append(Form.prepared(server, name, encoding, images))
        except (Refused, Wrong, OSError) as error:
            _left_out(results, name, encoding, error)
    return forms


def _left_out(results: dict[str, Any], contender: str, encoding: str, error: Exception) -> None:
    """Add to the results why a form is not measured, or not to the end."""
    of = "wrong" if isinstance(error, Wrong) else "refused"
    results[of].append({"contender": contender, "encoding": encoding, "why": str(error)})
    print(f"{of.upper()}: {contender}, {encoding}: {error}", file=sys.stderr)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--quick", action="store_true", help="one short round, for a first look")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/output"), metavar="FOLDER")
    options = parser.parse_args()
    options.seconds = QUICK_BUDGET if options.quick else BUDGET
    if options.quick:
        options.rounds = 1
    return options


if __name__ == "__main__":
    sys.exit(main())
