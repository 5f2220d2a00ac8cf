"""How fast arrays of numbers are read from JSON and written: ``python -m benchmarks.numbers``.

Prints a table in Markdown. Every contender has a process of its own; they take turns, and what is
told are medians. Contenders that cannot read or write such an array are given what comes nearest:
pysimdjson reads float64 only, sees no shape and cannot write; msgspec writes lists.
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from poolgrad import release_memory

__all__ = ["CONTENDERS", "SHAPES", "measure", "prepare", "table"]

Array = npt.NDArray[Any]
Run = Callable[[], Any]

#: What is read and written: a million numbers, nested 4 deep.
SHAPES = ((10, 10, 100, 100), (25, 200, 200, 1))
DTYPES = ("float32", "float64", "int32")

#: Seconds that a thread makes runs for, at least.
WHILE = 0.2


def _poolgrad(array: Array, text: bytes) -> dict[str, Run]:
    from poolgrad_service import _json

    def read() -> Array:
        found: Array = _json.scan(text, {"x"}, max_depth=8)["x"].read("x", array.dtype)
        return found

    return {"read": read, "write": lambda: _json.write(array)}


def _orjson(array: Array, text: bytes) -> dict[str, Run]:
    import orjson

    return {
        "read": lambda: np.array(orjson.loads(text)["x"], array.dtype),
        "write": lambda: orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY),
    }


def _pysimdjson(array: Array, text: bytes) -> dict[str, Run]:
    import simdjson

    local = threading.local()  # a parser reads one document at a time
    kind = "d" if array.dtype.kind == "f" else "i"

    def read() -> Array:
        if not hasattr(local, "parser"):
            local.parser = simdjson.Parser()
        document = local.parser.parse(text)
        flat = np.frombuffer(document["x"].as_buffer(of_type=kind), f"{kind}8".replace("d", "f"))
        del document  # else the parser cannot be used again
        return flat.reshape(array.shape)

    return {"read": read}


def _msgspec(array: Array, text: bytes) -> dict[str, Run]:
    import msgspec

    number = float if array.dtype.kind == "f" else int
    decoder: Any = msgspec.json.Decoder(dict[str, list[list[list[list[number]]]]])  # type: ignore[valid-type]
    return {
        "read": lambda: np.array(decoder.decode(text)["x"], array.dtype),
        "write": lambda: msgspec.json.encode(array.tolist()),
    }


CONTENDERS = {
    "poolgrad": _poolgrad,
    "orjson + NumPy": _orjson,
    "pysimdjson": _pysimdjson,
    "msgspec + NumPy": _msgspec,
}

_runs: dict[str, Run]


def _random(shape: tuple[int, ...], dtype: str) -> Array:
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(-(10**6), 10**6, shape).astype(dtype)


def prepare(name: str, shape: tuple[int, ...], dtype: str) -> dict[str, float | None] | None:
    """Make a contender ready; return the memory that a first read took, in arrays, if it is told.

    None if it is not installed. Called in the contender's process.
    """
    from poolgrad_service import _json

    global _runs
    array = _random(shape, dtype)
    text = b'{"x":%b}' % bytes(_json.write(array))
    try:
        _runs = CONTENDERS[name](array, text)
    except ModuleNotFoundError:
        return None
    release_memory()  # of the text that was written: it would be read into that
    before = _memory()
    found = _runs["read"]()
    after = _memory(peak=True)
    if not np.array_equal(found.astype(dtype), array):
        raise ValueError(f"{name} reads other numbers")
    return {"memory": (after - before) / array.nbytes if before and after else None}


def _memory(*, peak: bool = False) -> int:
    """Return the process's memory in bytes, or the most since this was called last; 0 if untold."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        if not peak:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return 0
    label = "VmHWM:" if peak else "VmRSS:"
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if label in line))


def measure(what: str, n_threads: int) -> float | None:
    """Return the seconds for each run of those that so many threads make in a while, or None.

    Each thread goes on as a server's do, and none waits for another: their rates are added. Called
    in the contender's process, too.
    """
    run = _runs.get(what)
    if run is None:
        return None
    start = threading.Barrier(n_threads)

    def rate(_: int) -> float:
        start.wait()
        n, taken, begin = 0, 0.0, perf_counter()
        while taken < WHILE:
            run()
            n += 1
            taken = perf_counter() - begin
        return n / taken

    with ThreadPoolExecutor(n_threads) as pool:
        return 1 / sum(pool.map(rate, range(n_threads)))


def _cell(seconds: float | None, ours: float) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.1f} ms ({seconds / ours:.2f})"


def table(shape: tuple[int, ...], dtype: str, rounds: int) -> list[str]:
    """Measure one array with all contenders, and return the lines of its table."""
    processes = {
        name: ProcessPoolExecutor(1, mp_context=get_context("spawn")) for name in CONTENDERS
    }
    ready: dict[str, dict[str, float | None]] = {}
    times: dict[tuple[str, str, int], list[float]] = {}
    try:
        for name, process in processes.items():
            told = process.submit(prepare, name, shape, dtype).result()
            if told is not None:
                ready[name] = told
        for _ in range(rounds):
            for name in ready:
                for what in ("read", "write"):
                    for n_threads in (1, 2):
                        taken = processes[name].submit(measure, what, n_threads).result()
                        if taken is not None:
                            times.setdefault((name, what, n_threads), []).append(taken)
    finally:
        for process in processes.values():
            process.shutdown()
    medians = {key: median(values) for key, values in times.items()}
    lines = [
        f"{dtype}, shape {shape}:",
        "",
        "| | read | write | 2 threads read | 2 threads write | memory of a read |",
        "|---|---|---|---|---|---|",
    ]
    for name, told in ready.items():
        cells = [
            _cell(medians.get((name, what, 1)), medians["poolgrad", what, 1])
            for what in ("read", "write")
        ]
        for what in ("read", "write"):
            one, two = medians.get((name, what, 1)), medians.get((name, what, 2))
            cells.append("-" if one is None or two is None else f"{one / two:.2f} times")
        memory = told["memory"]
        cells.append("-" if memory is None else f"{memory:.2f} arrays")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.numbers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="turns that each contender has")
    rounds = parser.parse_args().rounds
    print("In brackets, the time as a multiple of ours. 2 threads that are 2 times as fast as one")
    print("do twice the work in the same time.")
    for shape in SHAPES:
        for dtype in DTYPES:
            print()
            print("\n".join(table(shape, dtype, rounds)), flush=True)


if __name__ == "__main__":
    main()
