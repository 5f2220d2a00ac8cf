"""What the routes of one application share, and how one of them answers a body."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from poolgrad_service import answers
from poolgrad_service.admission import Lease, Memory, Work, read_body
from poolgrad_service.answers import SMALL, Times, Wire
from poolgrad_service.compression import CODINGS, wanted
from poolgrad_service.errors import Problem, busy
from poolgrad_service.intake import EXTENSION, PIECE
from poolgrad_service.patience import within
from poolgrad_service.schemas import Call
from poolgrad_service.settings import Settings

__all__ = [
    "Counts",
    "Post",
    "Service",
    "check_accept",
    "check_ready",
    "header",
    "headers_of",
    "negotiate",
]

#: Bytes that are only moved, and element steps, up to which the same holds: a fraction of a
#: millisecond.
LIGHT: Final = 1024 * 1024


@dataclass(slots=True)
class Counts:
    """What became of the requests of one kind, and how long its stages took, in nanoseconds."""

    succeeded: int = 0
    success: int = 0
    failed: int = 0
    fail: int = 0
    queue: int = 0
    read: int = 0
    pool: int = 0
    write: int = 0
    #: When the last one succeeded, in seconds since 1970.
    last: float = 0.0

    def add(self, times: Times) -> None:
        """Count a request that succeeded."""
        self.succeeded += 1
        self.success += times.written - times.received
        self.queue += times.begun - times.received + times.run - times.read
        self.read += times.read - times.begun
        self.pool += times.pooled - times.run
        self.write += times.written - times.pooled
        self.last = time.time()

    def add_failure(self, times: Times) -> None:
        """Count a request that was refused, or came to nothing."""
        self.failed += 1
        self.fail += time.perf_counter_ns() - times.received


@dataclass
class Service:
    """What the routes of one application share.

    Parameters
    ----------
    settings : Settings
        The operator's settings.
    """

    settings: Settings
    memory: Memory = field(init=False)
    #: There while the application runs.
    work: Work | None = None
    #: Set when the process was told to stop.
    draining: bool = False
    #: By path of the call; only the event loop's thread changes them.
    counts: defaultdict[str, Counts] = field(default_factory=lambda: defaultdict(Counts))

    def __post_init__(self) -> None:
        """Begin to count."""
        self.memory = Memory(self.settings.max_inflight_bytes)

    def started(self) -> Work:
        """Return the workers, or raise the `Problem` of a service that is not ready."""
        if self.work is None:
            raise busy("the service is not ready")
        return self.work

    def counts_of(self, call: Call) -> Counts:
        """Return the counts of a call."""
        return self.counts[call.path]


@dataclass(frozen=True, slots=True)
class Post:
    """What answers the POSTs to one path.

    Parameters
    ----------
    call : Call
        What is asked.
    judge : callable
        Returns how a request is written, by its headers and its query, and the byte of its body at
        which arrays begin; or raises the problem of one that is not taken.
    """

    call: Call
    judge: Callable[[Request], tuple[Wire, int]]

    async def respond(self, request: Request) -> Response:
        """Answer a request."""
        wire, aligned = self.judge(request)
        return await _respond(request, self.call, wire, aligned)

    def at_once(self, request: Request, body: memoryview) -> answers.Reply | None:
        """Return the reply to a short body, if there is one and it takes as little as to say no.

        What is refused, or asks for more, is left to `respond`, which goes over it again.
        """
        service: Service = request.app.state.service
        if len(body) > min(SMALL, service.settings.max_body_bytes):
            return None
        if header(request, b"content-encoding") or wanted(header(request, b"accept-encoding")):
            return None
        times = Times()
        try:
            service.started()
            wire, _ = self.judge(request)
            task = answers.begin(self.call, wire, body, service.settings, times)
            needed = len(body) + task.results + task.room
            if not _is_light(task) or not service.memory.has_room(needed):
                return None
            reply = task.finish()
        except Exception:
            return None  # it comes to the same there, where it is told or logged
        service.counts_of(self.call).add(times)
        return reply


def _is_light(task: answers.Task) -> bool:
    return task.room <= SMALL and max(task.results, task.cost) <= LIGHT


async def _respond(request: Request, call: Call, wire: Wire, aligned: int) -> Response:
    service: Service = request.app.state.service
    settings, work = service.settings, service.started()
    coding = _coding(header(request, b"content-encoding"))
    reply_coding = wanted(header(request, b"accept-encoding"))
    announced = header(request, b"content-length")
    if not announced.isdigit() or len(announced) > 5 or int(announced) > SMALL:
        work.check_room()  # rather now than after a long body
    lease, counts = service.memory.lease(), service.counts_of(call)
    try:
        body = await read_body(
            announced,
            request.receive,
            settings,
            service.memory,
            lease,
            aligned,
            request.scope.get("extensions", {}).get(EXTENSION),
        )
    except BaseException:
        lease.release()
        raise
    times = Times()
    task: answers.Task | None = None

    def job() -> answers.Reply:
        ready = task or answers.begin(call, wire, body, settings, times, coding, lease.grow)
        reply = ready.finish(lease.grow, reply_coding)
        lease.settle(reply.n_bytes)
        return reply

    reply: answers.Reply | None = None
    try:
        if wire.text(body) <= SMALL and len(body) <= LIGHT and coding is None:
            try:
                task = answers.begin(call, wire, body, settings, times)
                if _is_light(task) and not reply_coding:
                    reply = job()
            except BaseException:
                lease.release()
                raise
        if reply is None:
            timeout = settings.request_timeout
            reply = await work.run(job, timeout=timeout, unwanted=lease.release)
    except BaseException:
        counts.add_failure(times)
        raise
    counts.add(times)
    return _Sent(reply, lease, settings.reply_timeout)


def headers_of(reply: answers.Reply) -> list[tuple[bytes, bytes]]:
    """Return the headers of a reply."""
    return [
        (b"content-type", reply.media_type.encode()),
        (b"content-length", b"%d" % reply.n_bytes),
        (b"vary", b"Accept, Accept-Encoding"),
        *((name.lower().encode(), value.encode()) for name, value in reply.headers.items()),
    ]


class _Sent(Response):
    """A reply in parts; they hold a lease until the client has taken them."""

    # What its base would do here takes a while, and is done below.
    status_code = 200
    background = None

    def __init__(self, reply: answers.Reply, lease: Lease, timeout: float) -> None:
        self.parts = reply.parts
        self.n_bytes = reply.n_bytes
        self.lease = lease
        self.timeout = timeout
        self.raw_headers = headers_of(reply)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the parts within the time."""
        try:
            await within(self.timeout, self._send(send))
        finally:
            self.parts.clear()
            self.lease.release()

    async def _send(self, send: Send) -> None:
        """Send the parts in pieces, waiting for the client and letting others go after each."""
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        if self.n_bytes <= SMALL:
            body = b"".join(self.parts)
            await send({"type": "http.response.body", "body": body, "more_body": False})
            return
        for part in self.parts:
            for start in range(0, len(part), PIECE):
                piece = memoryview(part)[start : start + PIECE]
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                # What the client's end of the connection takes at once is not waited for.
                await asyncio.sleep(0)
        # This returns when the client has taken all, or nearly.
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def header(request: Request, name: bytes) -> str:
    """Return a header's value, or those of several of its name as one list; else ``""``."""
    found: str = request.scope["state"]["headers"].get(name, "")
    return found


# ----------------------------------------------------------------------------------- negotiation


def negotiate(accept: str, offers: Sequence[str]) -> str | None:
    """Return the media type that an Accept header likes best (RFC 9110, 12.5.1).

    For each type the most specific range that matches decides; a quality of 0 excludes. What
    cannot be parsed is passed over, and a header without any range allows everything.

    Parameters
    ----------
    accept : str
        The header's value.
    offers : sequence of str
        The types that there are; of equally liked ones the first is taken.

    Returns
    -------
    str or None
        One of them, or None if all are excluded.
    """
    if accept in offers:
        return accept
    if accept in ("", "*/*") or not accept.strip(" ,"):
        return offers[0]
    best: dict[str, tuple[int, float]] = dict.fromkeys(offers, (-1, 0.0))
    for item in accept.split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        quality = 1.0
        others = 0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                try:
                    quality = float(value.strip())
                except ValueError:
                    quality = 0.0
                break
            others += bool(parameter) and parameter not in ("charset=utf-8", 'charset="utf-8"')
        if others:
            continue  # a variant of a type that we do not make
        for offer in offers:
            ranges = ("*/*", offer.partition("/")[0] + "/*", offer)
            rank = ranges.index(name) if name in ranges else -1
            if rank > best[offer][0] or (rank == best[offer][0] >= 0 and quality > best[offer][1]):
                best[offer] = (rank, quality)
    liked = max(offers, key=lambda offer: best[offer][1])
    return liked if best[liked][1] > 0 else None


def check_accept(request: Request, *offers: str) -> str:
    """Return the media type to answer in, or raise the problem of one that accepts none of them."""
    found = negotiate(header(request, b"accept"), offers)
    if found is None:
        names = " or ".join(offers)
        raise Problem(406, f"Accept allows no {names}, which is all that there is here")
    return found


def check_ready(request: Request) -> None:
    """Raise the problem of a service that should be sent no requests."""
    service: Service = request.app.state.service
    service.started()
    if service.draining:
        raise busy("the service is shutting down")


def _coding(given: str) -> str | None:
    """Return a body's content coding, if it has one."""
    if not given:
        return None
    codings = [name.strip().lower() for name in given.split(",")]
    codings = [name for name in codings if name not in ("", "identity")]
    if not codings:
        return None
    if len(codings) > 1 or codings[0] not in CODINGS:
        raise Problem(
            415,
            "the body's Content-Encoding is not gzip, deflate or none",
            headers={"Accept-Encoding": "gzip, deflate, identity"},
        )
    return codings[0]
