"""Writes and reads back every float32, and random float64, bit for bit; takes some minutes.

    python tests/fuzz/every_float.py [--doubles 100000000]

Where the writer does not ask the standard library, its digits are compared with orjson's, too.
"""

import argparse
import time

import numpy as np
import orjson

from poolgrad_service import _json

BLOCK = 1 << 22


def check(array: np.ndarray) -> None:
    """Hold an array without NaN to its own bits."""
    text = _json.write(array)
    span = _json.scan(b'{"x":%b}' % text, {"x"}, max_depth=2)["x"]
    found = span.read("x", array.dtype)
    if found.tobytes() != array.tobytes():
        place = np.flatnonzero(found.view(f"u{array.itemsize}") != array.view(f"u{array.itemsize}"))
        raise SystemExit(f"differs: {array[place[0]]!r} is read as {found[place[0]]!r}")


def check_digits(array: np.ndarray) -> None:
    """Hold the texts of usual numbers to being the shortest."""
    ours, theirs = _json.write(array), orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY)
    if ours != theirs:
        pairs = zip(array, ours.split(b","), theirs.split(b","), strict=True)
        raise SystemExit(str(next(pair for pair in pairs if pair[1] != pair[2])))


def every_float32() -> int:
    """Check all that are no NaN, and return how many these are."""
    n = 0
    for first in range(0, 1 << 32, BLOCK):
        bits = np.arange(first, first + BLOCK, dtype=np.uint32)
        array = bits.view(np.float32)
        array = array[~np.isnan(array)]
        check(array)
        n += array.size
        if -13 <= (first >> 23 & 0xFF) - 127 < 23:
            check_digits(array)
    return n


def random_float64(n_wanted: int) -> int:
    """Check random bits that are no NaN, and as many between 2**-11 and 2**52."""
    rng = np.random.default_rng()
    n = 0
    while n < n_wanted:
        bits = rng.integers(0, 1 << 64, BLOCK, np.uint64)
        array = bits.view(np.float64)
        array = array[~np.isnan(array)]
        check(array)
        n += array.size
        bits &= np.uint64(0x800FFFFFFFFFFFFF)
        bits |= rng.integers(1012, 1075, BLOCK, np.uint64) << np.uint64(52)
        check(bits.view(np.float64))
        check_digits(bits.view(np.float64))
    return n


def main() -> None:
    """Check all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--doubles", type=int, default=100_000_000, help="how many random float64")
    n_doubles = parser.parse_args().doubles
    start = time.monotonic()
    print(f"{every_float32()} float32, all that are no NaN: the same", flush=True)
    print(f"{random_float64(n_doubles)} random float64: the same")
    print(f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
