"""Measure, and write the results as JSON, a table and a plot.

Each contender runs in a process of its own, in turn, on as many CPUs as threads. Case by case,
every contender is prepared and its result is checked against the others'; then they are timed in
rounds, and the median of the rounds is taken.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import report, worker
from benchmarks.agreement import dissenters
from benchmarks.contenders import CONTENDERS, contenders_of
from benchmarks.machine import machine
from benchmarks.workloads import Case, cases

#: Seconds that one contender is timed for, each round.
BUDGET, QUICK_BUDGET = 0.1, 0.02


def main() -> int:
    """Run the benchmark; return 1 if a contender's result is not the others'."""
    options = _options()
    cpus = sorted(os.sched_getaffinity(0))
    results: dict[str, Any] = {"machine": machine(cpus), "rounds": options.rounds}
    results |= {"versions": {}, "missing": [], "wrong": [], "times": []}
    for threads in options.threads:
        if threads > len(cpus):
            print(f"left out: {threads} threads, as there are {len(cpus)} CPUs", file=sys.stderr)
            continue
        # Processes inherit both.
        os.sched_setaffinity(0, cpus[-threads:])
        os.environ.update(_environment(threads))
        with ExitStack() as stack:
            processes = {}
            for name in options.contenders:
                process = stack.enter_context(worker.process())
                installed = process.submit(worker.load, name).result()
                if installed is None:
                    results["missing"] = sorted({*results["missing"], name})
                    continue
                results["versions"][name] = installed
                processes[name] = process
            for case in cases(threads, options.rows):
                _measure(case, processes, results, options)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "benchmarks.json").write_text(json.dumps(results, indent=1) + "\n")
    report.write(results, options.output)
    print(report.summary(results), file=sys.stderr)
    return 1 if results["wrong"] else 0


def _measure(
    case: Case,
    processes: dict[str, ProcessPoolExecutor],
    results: dict[str, Any],
    options: argparse.Namespace,
) -> None:
    """Measure one case, and add to the results."""
    warm = {}
    for name in contenders_of(case):
        if name in processes and (
            made := processes[name].submit(worker.prepare, name, case).result()
        ):
            warm[name] = made
    where = {
        "workload": case.workload.name,
        "layout": case.layout,
        "pass": case.kind,
        "threads": case.threads,
    }
    for name in dissenters(case, {name: made.result for name, made in warm.items()}):
        results["wrong"].append(where | {"contender": name})
        print("WRONG:", name, *where.values(), file=sys.stderr)
    rounds: dict[str, list[dict[str, float]]] = {
        name: [made.seconds] if made.seconds else [] for name, made in warm.items()
    }
    budget = QUICK_BUDGET if options.quick else BUDGET
    for _ in range(options.rounds):
        for name, made in warm.items():
            if not made.seconds:
                rounds[name].append(processes[name].submit(worker.time, budget).result())
    medians = {
        label: median(r[label] for r in timed) for timed in rounds.values() for label in timed[0]
    }
    for label, seconds in medians.items():
        results["times"].append(where | {"contender": label, "seconds": seconds})
    told = ", ".join(f"{label} {1e3 * seconds:.3g}" for label, seconds in medians.items())
    print(*where.values(), f"ms: {told}", file=sys.stderr)


def _environment(threads: int) -> dict[str, str]:
    """Return the variables that libraries read their number of threads from."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return dict.fromkeys(names, str(threads)) | {
        "XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={str(threads > 1).lower()} "
        f"intra_op_parallelism_threads={threads}",
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--rows", default="", metavar="TEXT", help="only rows with this in the name"
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--quick", action="store_true", help="one short round, for a first look")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/output"), metavar="FOLDER")
    options = parser.parse_args()
    if options.quick:
        options.rounds = 1
    return options


if __name__ == "__main__":
    sys.exit(main())
