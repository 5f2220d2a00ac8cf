"""HTTP as Uvicorn reads it with httptools, within bounds, and short replies in one packet.

With httptools, Uvicorn bounds neither how large a request's headers may be nor how long they may
take, and loses the body of a request that offers to switch protocols (Kludex/uvicorn#2722). It
bounds the number of connections only by an answer that is no problem document, and keeps one that
it has closed for as long as its client takes no bytes. Of requests that come without waiting for
replies, it reads on with each reply, however many are still to be answered.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Callable, Sized
from functools import lru_cache
from typing import Any, Final

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.protocols.utils import get_client_addr, get_path_with_query_string

from poolgrad_service.app import HEADERS
from poolgrad_service.errors import PROBLEM_TYPE, Problem, title
from poolgrad_service.intake import EXTENSION, Intake, Turns
from poolgrad_service.settings import Settings

__all__ = ["Protocol"]

logger = logging.getLogger("poolgrad_service")

AtOnce = Callable[[Any, memoryview], tuple[list[tuple[bytes, bytes]], bytes] | None]

#: Bytes of headers above which a request is refused; what other servers take by default.
MAX_HEADERS: Final = 64 * 1024


@lru_cache(256)
def _line(name: bytes, value: bytes) -> bytes:
    """Return a header as it is written."""
    if HEADER_RE.search(name) or HEADER_VALUE_RE.search(value):
        raise RuntimeError(f"no header: {name!r}: {value!r}")
    return b"%b: %b\r\n" % (name, value)


class _Flow(FlowControl):
    """Reads no more from a connection until all requests that have come are begun."""

    def __init__(self, transport: asyncio.Transport, pipeline: Sized) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if not self._pipeline:
            super().resume_reading()


class Protocol(HttpToolsProtocol):
    """A connection, within bounds.

    Parameters
    ----------
    at_once : callable
        Given a POST's ASGI scope and its body, returns the headers and the body of a reply, or
        None if it is to be asked by ASGI.
    settings : Settings
        The bounds.
    turns : Turns
        What long bodies of all connections are read by.
    **given : object
        What Uvicorn gives to its protocols.
    """

    _reading_headers = True
    _header_bytes = 0
    _fed = 0
    _deadline: asyncio.TimerHandle | None = None
    _watcher: asyncio.TimerHandle | None = None
    _was_closing = False
    _feeding = False
    _begun: tuple[RequestResponseCycle, Any] | None = None

    def __init__(self, at_once: AtOnce, settings: Settings, turns: Turns, **given: Any) -> None:
        super().__init__(**given)
        self.at_once = at_once
        self.settings = settings
        self.turns = turns

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection, unless there are too many."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        if len(self.connections) > self.settings.max_connections:
            logger.warning("a connection was closed: there are too many (max_connections)")
            transport.abort()
            return
        self._wait_for_headers()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """End it."""
        self._stop_waiting()
        if self._watcher is not None:
            self._watcher.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what has come, and begin to answer requests whose headers are complete."""
        self._unset_keepalive_if_required()
        if self._reading_headers and self._header_bytes > MAX_HEADERS:
            self._refuse(Problem(431, f"the headers are above {MAX_HEADERS} bytes"))
            return
        self._fed = len(data)
        self._feeding = True
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._refuse(Problem(400, "what was received is no HTTP request"))
            return
        finally:
            self._feeding = False
            begun, self._begun = self._begun, None
        if begun is not None and not self._answers(begun[0]):
            super()._start_asgi_task(*begun)
        if self._reading_headers:
            self._header_bytes += len(data)
            if self._deadline is None and self._header_bytes:
                self._wait_for_headers()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # Uvicorn calls this once it has a request's headers. A short body has come with them, as a
        # rule, and then neither a task nor ASGI is needed, which cost more than a small pooling.
        # Of requests that come together, the first is answered so: others have their turn, too.
        if self._feeding and self._begun is None and cycle.scope["method"] == "POST":
            self._begun = cycle, app
        else:
            super()._start_asgi_task(cycle, app)

    def _answers(self, cycle: RequestResponseCycle) -> bool:
        """Answer a request at once, in one packet, if that is possible."""
        if (
            cycle.more_body
            or cycle.waiting_for_100_continue
            or not cycle.keep_alive
            or self.flow.write_paused
        ):
            return False
        reply = self.at_once(cycle.scope, memoryview(cycle.body))
        if reply is None:
            return False
        headers, body = reply
        lines = [_line(*header) for header in (*cycle.default_headers, *headers)]
        if self.access_log:
            self.access_logger.info(
                '%s - "%s %s HTTP/%s" %d',  # as Uvicorn's formatter wants it
                get_client_addr(cycle.scope),
                cycle.scope["method"],
                get_path_with_query_string(cycle.scope),
                cycle.scope["http_version"],
                200,
            )
        self.transport.write(b"".join([STATUS_LINE[200], *lines, b"\r\n", body]))
        cycle.response_started = cycle.response_complete = True
        self.on_response_complete()
        return True

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
        """Make a request of its headers."""
        if self.parser.should_upgrade():
            return
        self._reading_headers = False
        self._stop_waiting()
        # Where a length is given, it is what the parser goes by: it refuses other codings then.
        take: Any = self._take
        self.scope["extensions"] = {EXTENSION: take}
        super().on_headers_complete()

    def _take(self, buffer: memoryview, count: Callable[[int], None]) -> asyncio.Future[None]:
        self.flow.resume_reading()
        return Intake(self, self.transport, self.turns, buffer, count, self._taken).done

    def _taken(self) -> None:
        # The parser has not seen the end of the body, so that what follows needs another one.
        self._fed = 0
        self.parser = httptools.HttpRequestParser(self)
        self.on_message_complete()

    def on_message_complete(self) -> None:
        """Note the end of its body."""
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
        self._deadline = self.loop.call_later(self.settings.header_timeout, self._give_up)

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
        self._watcher = self.loop.call_later(self.settings.reply_timeout / 2, self._watch)
