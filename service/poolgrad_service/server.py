"""Uvicorn, with what it leaves to others: a drain before the end, and bounds on connections.

- Uvicorn stops accepting connections the moment it is told to stop, and ends with the signal that
  it got.
- With httptools, it bounds neither how large a request's headers may be nor how long they may
  take, and loses the body of a request that offers to switch protocols (Kludex/uvicorn#2722).
- It bounds the number of connections only by an answer that is no problem document, and keeps one
  that it has closed for as long as its client takes no bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import ctypes
import gc
import json
import logging
import os
import signal
import socket
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any, Final

import uvicorn
from fastapi import FastAPI
from uvicorn.config import LOGGING_CONFIG

from poolgrad_service.admission import step_back
from poolgrad_service.answers import SMALL
from poolgrad_service.app import HEADERS
from poolgrad_service.errors import PROBLEM_TYPE, Problem, title
from poolgrad_service.intake import EXTENSION, Intake, Turns
from poolgrad_service.service import Service
from poolgrad_service.settings import Settings

__all__ = ["Server", "run", "server_of"]

logger = logging.getLogger("poolgrad_service")

#: Bytes of headers above which a request is refused; what other servers take by default.
MAX_HEADERS: Final = 64 * 1024

#: A request to try, shown at the start: output and gradient of one small image.
_EXAMPLE: Final = (
    '{"x": [[[[1],[7],[2]],[[3],[4],[9]]]], "dy": [[[[1],[2]]]], '
    '"kernel_size": 2, "stride": 1, "return_y": true}'
)


def example_request(url: str) -> str:
    """Return a command that asks the service at `url` for an output and a gradient."""
    return f"curl -s {url}/v1/max_pool/backward -H 'Content-Type: application/json' -d '{_EXAMPLE}'"


class Server(uvicorn.Server):
    """A server that ends in order: readiness first, then connections, then requests."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service
        self._stop_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop at the first signal, and end at once at the second."""
        if self._stop_at is not None:
            logging.shutdown()
            os._exit(128 + sig)
        # Ctrl-C is a person's, who waits for the prompt; SIGTERM is a supervisor's, whose load
        # balancer has yet to notice.
        delay = self.service.settings.drain_delay if sig == signal.SIGTERM else 0
        self.service.draining = True
        self._stop_at = time.monotonic() + delay

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and show a request to try."""
        await super().startup(sockets)
        # What is here by now stays: to look for garbage in it would take some 20 ms each time.
        gc.collect()
        gc.freeze()
        if self.started and self.servers:
            settings = self.service.settings
            host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
            port = self.servers[0].sockets[0].getsockname()[1]
            url = f"http://{host}:{port}{settings.root_path}"
            logger.info("documentation: %s/docs; try:\n%s", url, example_request(url))

    async def on_tick(self, counter: int) -> bool:
        """Tell whether to stop; called ten times a second."""
        if self._stop_at is not None and time.monotonic() >= self._stop_at:
            self.should_exit = True
        return await super().on_tick(counter)


class _Joined:
    """A connection as a reply sees it: a short body goes out with its head, in one packet.

    Each of the two would be a call of the system, of which a small request has no other but one.

    Parameters
    ----------
    transport : asyncio.Transport
        The connection.
    cycle : uvicorn's RequestResponseCycle
        The request and its reply, whose head is the first that is written once it has started.
    """

    __slots__ = ("_cycle", "_head", "_transport")

    def __init__(self, transport: asyncio.Transport, cycle: Any) -> None:
        self._transport = transport
        self._cycle = cycle
        self._head: bytes | None = None

    def write(self, data: bytes | memoryview) -> None:
        """Write what comes next; the head waits for what is behind it."""
        if self._cycle is not None and self._cycle.response_started:
            self._cycle = None
            self._head = bytes(data)
            return
        if self._head is not None:
            if len(data) <= SMALL:
                data = self._head + data
            else:
                self._transport.write(self._head)
            self._head = None
        self._transport.write(data)

    def close(self) -> None:
        """Close the connection once all is written."""
        if self._head is not None:
            self.write(b"")
        self._transport.close()

    def is_closing(self) -> bool:
        """Return whether it is closed, or soon will be."""
        return self._transport.is_closing()


def _protocol(settings: Settings) -> Any:
    """Return the HTTP protocol, with bounds; the plain one where httptools is missing."""
    try:
        import httptools
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    except ImportError:
        return "h11"  # it bounds headers by itself

    turns = Turns(ThreadPoolExecutor(1, "poolgrad-memory", step_back))

    class Bounded(HttpToolsProtocol):
        _reading_headers = True
        _header_bytes = 0
        _fed = 0
        _deadline: asyncio.TimerHandle | None = None
        _watcher: asyncio.TimerHandle | None = None
        _was_closing = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > settings.max_connections:
                logger.warning("a connection was closed: there are too many (max_connections)")
                transport.abort()
                return
            self._wait_for_headers()
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            if self._watcher is not None:
                self._watcher.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            self._unset_keepalive_if_required()
            if self._reading_headers and self._header_bytes > MAX_HEADERS:
                self._refuse(Problem(431, f"the headers are above {MAX_HEADERS} bytes"))
                return
            self._fed = len(data)
            try:
                self._feed(data)
            except httptools.HttpParserError:
                self._refuse(Problem(400, "what was received is no HTTP request"))
                return
            if self._reading_headers:
                self._header_bytes += len(data)
                if self._deadline is None and self._header_bytes:
                    self._wait_for_headers()

        def _feed(self, data: bytes) -> None:
            rest = memoryview(data)
            while True:
                try:
                    self.parser.feed_data(rest)
                    return
                except httptools.HttpParserUpgrade as upgrade:
                    rest = rest[upgrade.args[0] :]
                self._read_again()

        def _read_again(self) -> None:
            # Java's client offers HTTP/2 with each request. The parser stops at such an offer; a
            # server may ignore it (RFC 9110, 7.8), so the request's head is read without it.
            version = self.parser.get_http_version().encode()
            head = [self.parser.get_method(), b" ", self.url, b" HTTP/", version, b"\r\n"]
            for name, value in self.headers:
                if name != b"upgrade":
                    head += [name, b": ", value, b"\r\n"]
            self.parser = httptools.HttpRequestParser(self)
            try:
                self.parser.feed_data(b"".join([*head, b"\r\n"]))
            except httptools.HttpParserUpgrade:  # CONNECT is an offer by itself
                raise httptools.HttpParserError from None

        def on_headers_complete(self) -> None:
            if self.parser.should_upgrade():
                return
            self._reading_headers = False
            self._stop_waiting()
            # Where a length is given, it is what the parser goes by: it refuses other codings then.
            take: Any = self._take
            self.scope["extensions"] = {EXTENSION: take}
            super().on_headers_complete()
            if self.parser.get_method() != b"HEAD":  # to which nothing follows the head
                joined: Any = _Joined(self.transport, self.cycle)
                self.cycle.transport = joined

        def _take(self, buffer: memoryview, count: Callable[[int], None]) -> asyncio.Future[None]:
            self.flow.resume_reading()
            return Intake(self, self.transport, turns, buffer, count, self._taken).done

        def _taken(self) -> None:
            # The parser has not seen the end of the body, so that what follows needs another one.
            self._fed = 0
            self.parser = httptools.HttpRequestParser(self)
            self.on_message_complete()

        def on_message_complete(self) -> None:
            if self.parser.should_upgrade():
                return
            # What is being fed now was, up to here, a body.
            self._reading_headers, self._header_bytes = True, -self._fed
            super().on_message_complete()

        def _refuse(self, problem: Problem) -> None:
            if self.cycle and self.cycle.response_started and not self.cycle.response_complete:
                self.transport.abort()  # the client would take the problem for a part of its reply
                return
            body = json.dumps(problem.document(uuid.uuid4().hex)).encode()
            head = [
                f"HTTP/1.1 {problem.status} {title(problem.status)}".encode(),
                b"content-type: " + PROBLEM_TYPE.encode(),
                b"content-length: %d" % len(body),
                b"connection: close",
                *(b"%b: %b" % header for header in HEADERS),
            ]
            self.transport.write(b"\r\n".join([*head, b"", body]))
            self.transport.close()

        def _wait_for_headers(self) -> None:
            self._deadline = self.loop.call_later(settings.header_timeout, self._give_up)

        def _stop_waiting(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _give_up(self) -> None:
            # A request that is still being answered has had its headers.
            if self.cycle is None or self.cycle.response_complete:
                self.transport.abort()
            else:
                self._wait_for_headers()

        def _watch(self) -> None:
            # A connection that was closed is there until its client has taken what was written.
            if self._was_closing:
                self.transport.abort()
                return
            self._was_closing = self.transport.is_closing()
            self._watcher = self.loop.call_later(settings.reply_timeout / 2, self._watch)

    return Bounded


def _logging(settings: Settings) -> dict[str, Any]:
    """Return Uvicorn's logging, all of it on stderr, and ours with it."""
    found = copy.deepcopy(LOGGING_CONFIG)
    found["handlers"]["access"]["stream"] = "ext://sys.stderr"
    found["loggers"]["poolgrad_service"] = {
        "handlers": ["default"],
        "level": settings.log_level.upper(),
        "propagate": False,
    }
    return found


def server_of(app: FastAPI, settings: Settings, *, log: bool = True) -> Server:
    """Return the server of an application, ready to run.

    Parameters
    ----------
    app : FastAPI
        What `create_app` returned.
    settings : Settings
        The same settings.
    log : bool, default True
        Whether to set up logging; without, it is left as it is.

    Returns
    -------
    Server
        Its ``run`` serves until told to stop.
    """
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=_protocol(settings),
        ws="none",
        lifespan="on",
        log_config=_logging(settings) if log else None,
        log_level=settings.log_level,
        access_log=settings.access_log,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=max(1, round(settings.keep_alive)),
        timeout_graceful_shutdown=max(1, round(settings.shutdown_timeout)),
    )
    return Server(config, app.state.service)


def _map_large_blocks() -> None:
    """Have glibc give back the memory of large blocks as soon as they are freed.

    By default it soon keeps blocks of up to 32 MiB on its heap. Many bodies that grow side by side
    leave holes there: 512 MiB of them took 1.5 GB.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # other C libraries
        # M_MMAP_THRESHOLD; to map and clear smaller ones each time would take a tenth of a request.
        ctypes.CDLL(None).mallopt(-3, 2**22)
        # Setting that one leaves this at 128 KiB, and smaller blocks would go back each time, too.
        ctypes.CDLL(None).mallopt(-1, 2**24)  # M_TRIM_THRESHOLD


def run(app: FastAPI, settings: Settings) -> int:
    """Serve until told to stop.

    Parameters
    ----------
    app : FastAPI
        What `create_app` returned.
    settings : Settings
        The same settings.

    Returns
    -------
    int
        The exit status: 0 after an orderly end.
    """
    _map_large_blocks()
    server = server_of(app, settings)
    server.run()
    work = server.service.work
    if work is not None and work.occupied:
        # Threads cannot be stopped, and the interpreter would wait for them.
        logger.error("%d requests did not finish in time (shutdown_timeout)", work.occupied)
        logging.shutdown()
        os._exit(1)
    return 0
