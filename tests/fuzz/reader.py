"""Fuzzes the JSON reader against `exact.check`: ``make fuzz``, or with libFuzzer's own options."""

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

with atheris.instrument_imports():
    import exact

DTYPES = ("float32", "float64", "uint8", "int64", "uint64")

#: What a byte stands for in texts that are JSON more often than not.
TOKENS = [
    *(bytes([c]) for c in b'[]{},:"-+.eE0123456789 \n\\'), b"[[", b"]]", b"],[", b",", b",", b",",
    b'{"x":[', b'"x":', b'"y":', b'"NaN"', b'"Infinity"', b'"-Infinity"', b"NaN", b"true", b"null",
    b"e-4", b"e+3", b"1e39", b"16777217", b"9007199254740993", b"18446744073709551615", b"0.1",
    b"00000000", b"12345678", b"1.00000005960464477539062500000", b"4.9e-324", b"\xc3\xa9", b"\xff",
]  # fmt: skip


def one(data: bytes) -> None:
    """Check a text: a body as it is, or a byte that chooses the dtype and others for tokens."""
    if data[:1] in (b"{", b""):
        exact.check(data, DTYPES[len(data) % len(DTYPES)])
        return
    text = b"".join(TOKENS[byte % len(TOKENS)] for byte in data[1:])
    how, dtype = divmod(data[0], len(DTYPES))
    exact.check(b'{"x":[%b]}' % text if how % 2 else text, DTYPES[dtype])


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
