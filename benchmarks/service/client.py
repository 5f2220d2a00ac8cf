"""A client that costs little: bodies encoded before, a parser in C, and nothing copied twice.

It runs on one event loop, on a CPU of its own. Each reply is compared, byte for byte, with one
that was decoded and compared with NumPy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Final

import httptools
import numpy as np

from benchmarks.service.encodings import Encoded, Encoding
from benchmarks.workloads import Array

__all__ = ["Load", "Refused", "Request", "Wrong", "load", "once"]

#: Seconds after which a reply is given up.
PATIENCE: Final = 60.0


class Refused(Exception):
    """A server did not give a reply: how it did not."""


class Wrong(Exception):
    """A server gave another reply than NumPy."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request that is ready to send, and what must come back."""

    port: int
    head: bytes
    body: bytes
    encoding: Encoding
    expected: Array

    @classmethod
    def of(
        cls, port: int, route: str, encoding: Encoding, encoded: Encoded, expected: Array
    ) -> Request:
        """Make a request of what an encoding made of an array."""
        headers, body = encoded
        lines = [
            f"POST {route}{encoding.query} HTTP/1.1",
            f"host: 127.0.0.1:{port}",
            f"content-length: {len(body)}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        return cls(port, "\r\n".join([*lines, "", ""]).encode(), body, encoding, expected)

    def check(self, headers: Mapping[str, str], body: bytes) -> None:
        """Raise `Wrong` if a reply does not have the array that is expected."""
        if self.encoding.decode is None:
            return
        try:
            y = self.encoding.decode(headers, body)
        except (EOFError, LookupError, TypeError, ValueError) as error:
            raise Wrong(f"the reply cannot be read: {error}") from error
        if not np.array_equal(y, self.expected):
            raise Wrong("the numbers are not NumPy's")


@dataclass(frozen=True, slots=True)
class Load:
    """What a load came to: the seconds of each reply, and of all together."""

    taken: list[float]
    seconds: float

    @property
    def rate(self) -> float:
        """Replies a second."""
        return len(self.taken) / self.seconds


class Connection(asyncio.Protocol):
    """A kept connection, on which one request at a time is sent."""

    def __init__(self) -> None:
        self._reply: asyncio.Future[bytes] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self.headers: dict[str, str] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take over the connection."""
        self.transport = transport

    def send(self, request: Request) -> asyncio.Future[bytes]:
        """Send a request, and return the body of its reply to come."""
        self._parts, self.headers = [], {}
        self._reply = asyncio.get_running_loop().create_future()
        if len(request.body) < 2**16:
            self.transport.write(request.head + request.body)
        else:
            self.transport.write(request.head)
            self.transport.write(request.body)
        return self._reply

    def data_received(self, data: bytes) -> None:
        """Parse a piece of a reply."""
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header of a reply."""
        self.headers[name.decode().lower()] = value.decode()

    def on_body(self, body: bytes) -> None:
        """Keep a piece of a reply's body."""
        self._parts.append(body)

    def on_message_complete(self) -> None:
        """Hand over a reply, or say why there is none."""
        status, body = self._parser.get_status_code(), b"".join(self._parts)
        if self._reply is None or self._reply.done():
            return
        if status == 200:
            self._reply.set_result(body)
        else:
            self._reply.set_exception(Refused(f"{status} {body[:100].decode(errors='replace')}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Say that there will be no reply."""
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(Refused("the connection was closed"))


async def once(request: Request) -> bytes:
    """Send one request, and return the body of its reply, which was compared with NumPy."""
    (connection,) = await _connect(request, 1)
    try:
        body = await _within(connection.send(request))
        request.check(connection.headers, body)
        return body
    finally:
        connection.transport.abort()


async def load(
    request: Request, checked: bytes, concurrency: int, *, seconds: float, least: int = 1
) -> Load:
    """Send a request again and again.

    Parameters
    ----------
    request : Request
        What to send.
    checked : bytes
        What `once` returned for it.
    concurrency : int
        Connections, each of which sends its next request when it has its reply.
    seconds : float
        After which no more requests are begun; those begun are waited for.
    least : int
        Requests of each connection, even if they take longer.
    """
    connections = await _connect(request, concurrency)
    taken: list[float] = []
    begin = perf_counter()

    async def use(connection: Connection) -> None:
        sent = 0
        start = perf_counter()
        while sent < least or start - begin < seconds:
            body = await _within(connection.send(request))
            end = perf_counter()
            taken.append(end - start)
            if body != checked:
                request.check(connection.headers, body)
            sent += 1
            start = perf_counter()

    try:
        async with asyncio.TaskGroup() as group:
            for connection in connections:
                group.create_task(use(connection))
    except* (Refused, Wrong) as errors:
        raise errors.exceptions[0] from None
    finally:
        for connection in connections:
            connection.transport.abort()
    return Load(taken, perf_counter() - begin)


async def _connect(request: Request, number: int) -> list[Connection]:
    loop = asyncio.get_running_loop()
    make: Callable[[], Connection] = Connection
    made = [await loop.create_connection(make, "127.0.0.1", request.port) for _ in range(number)]
    return [connection for _, connection in made]


async def _within(reply: asyncio.Future[bytes]) -> bytes:
    """Wait for a reply, though not for ever. `asyncio.timeout` would take thrice the time."""
    timer = asyncio.get_running_loop().call_later(PATIENCE, _give_up, reply)
    try:
        return await reply
    finally:
        timer.cancel()


def _give_up(reply: asyncio.Future[bytes]) -> None:
    if not reply.done():
        reply.set_exception(Refused(f"no reply within {PATIENCE:g} s"))
