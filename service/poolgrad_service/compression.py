"""Content codings: gzip and deflate (RFC 9110, 8.4.1), both ways and within bounds."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from poolgrad_service.errors import Problem, too_large

__all__ = ["CODINGS", "compressed", "decompressed", "wanted"]

#: Names of codings, and zlib's word for their frames. Deflate has zlib's, whatever its name says.
CODINGS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}

#: Bytes that are decompressed, or compressed, at a time.
PIECE: Final = 256 * 1024


def decompressed(
    body: bytes | bytearray | memoryview,
    coding: str,
    limit: int,
    grow: Callable[[int], None] = lambda n_bytes: None,
) -> bytearray:
    """Return a body as it was before it was compressed.

    Parameters
    ----------
    body : bytes-like
        The body as it came.
    coding : str
        One of `CODINGS`.
    limit : int
        Bytes that it may have (max_body_bytes).
    grow : callable
        Called with the bytes of each piece before it is kept.

    Raises
    ------
    Problem
        400 if the body is not of this coding, or cut short; 413 above the limit.
    """
    found = bytearray()
    given = memoryview(body)
    member = zlib.decompressobj(CODINGS[coding])
    at, tail = 0, b""
    while not member.eof:
        # In small pieces, since what is left of one is copied each time. Of the result never more
        # than a byte above the limit, however much is in there.
        piece = tail or given[at : at + PIECE]
        at += 0 if tail else len(piece)
        try:
            text = member.decompress(piece, min(PIECE, limit + 1 - len(found)))
        except zlib.error:
            raise Problem(400, f"the body is not {coding}, as Content-Encoding says") from None
        tail = member.unconsumed_tail
        if not piece and not text and not member.eof:
            raise Problem(400, f"the body's {coding} is cut short")
        if len(found) + len(text) > limit:
            raise too_large(limit)
        grow(len(text))
        found += text
    if surplus := len(given) - at + len(member.unused_data):
        raise Problem(400, f"the body goes on for {surplus} bytes after the end of its {coding}")
    return found


def wanted(accept: str) -> str | None:
    """Return the coding that an Accept-Encoding header asks for.

    HTTP libraries list all codings that they know with every request. Floats shrink little, and
    more slowly than a network takes them, so only who lists one coding alone is given it.
    """
    if accept in ("", "identity"):
        return None
    listed = []
    for item in accept.lower().split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        if name in ("", "identity"):
            continue
        if any(p.replace(" ", "").startswith("q=0") and not p.strip("q=0. ") for p in parameters):
            continue
        listed.append(name)
    return listed[0] if len(listed) == 1 and listed[0] in CODINGS else None


def compressed(parts: Sequence[bytes | memoryview], coding: str) -> Iterator[bytes]:
    """Yield a reply's parts, compressed as one body."""
    work = zlib.compressobj(1, zlib.DEFLATED, CODINGS[coding])
    for part in parts:
        view = memoryview(part)
        for start in range(0, len(view), PIECE):
            if piece := work.compress(view[start : start + PIECE]):
                yield piece
    yield work.flush()
