"""Count the instructions of small calls under Valgrind, and compare with the counts kept here.

Unlike times, counts are the same on a busy machine, so a slower kernel shows even if it is little
slower. They depend on the compiler, so with another one the counts are told, but nothing fails.

Callgrind writes a profile each time that the program enters `getppid`, which nothing else calls:
each call of Poolgrad is enclosed by two of them, so that all else is in other profiles.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from benchmarks.contenders import OURS_OUT
from benchmarks.contenders.poolgrad import prepare
from benchmarks.workloads import Case, Op, Workload
from poolgrad.arrays import DTYPES
from poolgrad.dispatch import BUILDS, runnable

KEPT: Final = Path(__file__).with_suffix(".json")
#: How much more than the count that is kept is too much.
TOLERANCE: Final = 1.03
#: Calls of each case; the least is counted, as Python sometimes does some tidying in between.
CALLS: Final = 3
OPS: Final[tuple[Op, ...]] = ("max", "average")
#: What Valgrind can run.
EMULATED: Final = ("avx2", "baseline")


def main() -> int:
    """Count and compare; return 1 if there are more instructions than there were."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("--update", action="store_true", help="keep these counts from now on")
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run()
        return 0
    names = [build.name for build in runnable() if build.name in EMULATED]
    counts, built = {name: count(name) for name in names}, compiler()
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {"compiler": None, "counts": {}}
    lines, worse = compare(kept["counts"], counts)
    print(*lines, sep="\n")
    if options.update:
        KEPT.write_text(json.dumps({"compiler": built, "counts": counts}, indent=1) + "\n")
        return 0
    if kept["compiler"] != built:
        print(f"Not judged: kept with {kept['compiler']}, counted with {built}.")
        return 0
    return 1 if worse else 0


def calls() -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the calls that are counted, by name."""
    for side, channels in ((64, 64), (256, 1)):
        for k, stride, padding in ((2, 2, 0), (3, 2, 1), (3, 1, 1), (31, 1, 15)):
            for op in OPS:
                workload = Workload(
                    "instructions", op, op, 1, (side, side), channels, (k, k), stride, padding
                )
                for kind in workload.passes:
                    case = Case(workload, "channels_last", kind, 1)
                    run = prepare(case).runs[OURS_OUT]
                    yield f"{op} {k}x{k}/{stride} C={channels} {kind}", run


def run() -> None:
    """Make the calls, each enclosed by the mark, and print their names."""
    for name, call in calls():
        print(name)
        call()
        for _ in range(CALLS):
            os.getppid()
            call()
            os.getppid()


def count(build: str) -> dict[str, int]:
    """Return the instructions of each call, run by a build of the kernels."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            "valgrind", "--quiet", "--tool=callgrind", "--dump-before=getppid",
            f"--callgrind-out-file={folder}/profile",
            sys.executable, "-m", "benchmarks.instructions", "--run",
        ]  # fmt: skip
        environment = os.environ | {"POOLGRAD_ISA": build, "PYTHONHASHSEED": "0"}
        done = subprocess.run(
            command, env=environment, check=True, stdout=subprocess.PIPE, text=True
        )
        # Odd profiles are of what was between the calls.
        totals = [
            int(re.findall(r"^totals: (\d+)", profile.read_text(), re.MULTILINE)[0])
            for number in range(1, len(list(Path(folder).iterdir())) // 2 + 1)
            for profile in [Path(folder, f"profile.{2 * number}")]
        ]
    names = done.stdout.splitlines()
    return {name: min(totals[k * CALLS : (k + 1) * CALLS]) for k, name in enumerate(names)}


def compare(
    kept: Mapping[str, Mapping[str, int]], found: Mapping[str, Mapping[str, int]]
) -> tuple[list[str], bool]:
    """Return a line for each count, and whether any is too much."""
    lines, worse = [], False
    for build, counts in found.items():
        for name, number in counts.items():
            before = kept.get(build, {}).get(name)
            change = f"{number / before - 1:+.1%}" if before else "new"
            too_many = before is not None and number > TOLERANCE * before
            worse |= too_many
            lines.append(f"{build:9} {name:35} {number:13,} {change}{' MORE' * too_many}")
    return lines, worse


def compiler() -> str:
    """Return what compiled the kernels, as their files tell it."""
    spec = find_spec(BUILDS[-1].module(DTYPES[0]))
    content = Path(spec.origin).read_bytes() if spec and spec.origin else b""
    found = re.search(rb"(GCC: \(|clang version )[^\0]+", content)
    return f"{found[0].decode() if found else 'unknown'} {platform.machine()}"


if __name__ == "__main__":
    sys.exit(main())
