"""What a service takes on at a time: bytes held, requests worked on, requests waiting.

Design
------
- Bytes are counted as they arrive, not as they are announced, so a client that announces much and
  sends slowly holds little. Replies are counted until the client has taken them.
- A slot belongs to the work and not to the request. A thread cannot be stopped, so a request that
  is cancelled or times out gives its slot back only when its thread is done with it.
- Nothing here waits for room: what does not fit is refused at once, with 503 and Retry-After.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

import numpy as np
from starlette.types import Receive

from poolgrad.arrays import empty
from poolgrad_service.errors import Problem, busy, too_large
from poolgrad_service.intake import Take
from poolgrad_service.patience import within
from poolgrad_service.settings import Settings

__all__ = ["Lease", "Memory", "Work", "read_body", "step_back"]

T = TypeVar("T")

_UINT8: Final = np.dtype(np.uint8)

#: How much nicer workers are than the event loop: each step is about a quarter more of the CPU for
#: it, and 10 of them leave a tenth to a worker for as long as the loop is busy.
NICE: Final = 10


class Memory:
    """A count of the bytes that bodies and replies hold.

    Parameters
    ----------
    limit : int
        The bytes that all leases may hold together.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        # Bodies are counted on the event loop, replies on the workers.
        self.lock = threading.Lock()

    def lease(self) -> Lease:
        """Return a lease of no bytes yet."""
        return Lease(self)

    def has_room(self, n_bytes: int) -> bool:
        """Return whether so many bytes could be had now."""
        return self.used + n_bytes <= self.limit


class Lease:
    """A part of a `Memory`, held until it is released."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._held = 0

    def grow(self, n_bytes: int) -> None:
        """Hold so many bytes more, or raise the `Problem` of a busy service."""
        memory = self._memory
        with memory.lock:
            if n_bytes and not memory.has_room(n_bytes):
                raise busy("too many bytes of other requests are held (max_inflight_bytes)")
            memory.used += n_bytes
        self._held += n_bytes

    def settle(self, n_bytes: int) -> None:
        """Hold exactly so many bytes: what was estimated is now known."""
        memory = self._memory
        with memory.lock:
            memory.used += n_bytes - self._held
        self._held = n_bytes

    def release(self) -> None:
        """Hold nothing any more."""
        self.settle(0)


class Work:
    """A small pool of threads and a bounded queue in front of it.

    Parameters
    ----------
    workers : int
        Jobs that run at a time.
    queue_size : int
        Jobs that may wait.
    """

    def __init__(self, workers: int, queue_size: int) -> None:
        self._places = workers + queue_size
        self._pool = ThreadPoolExecutor(
            workers, thread_name_prefix="poolgrad-service", initializer=step_back
        )
        self._closed = False
        #: Jobs that run or wait. Only the event loop's thread changes it.
        self.occupied = 0

    def check_room(self) -> None:
        """Raise the `Problem` of a busy service if a job could not be taken now."""
        if self._closed:
            raise busy("the service is shutting down")
        if self.occupied >= self._places:
            raise busy("all workers are busy and the queue is full (workers, queue_size)")

    async def run(
        self,
        job: Callable[[], T],
        *,
        timeout: float,
        unwanted: Callable[[], None],
    ) -> T:
        """Run a job on a thread and return its result.

        Parameters
        ----------
        job : callable
            What to run.
        timeout : float
            Seconds to wait for it, in the queue or at work.
        unwanted : callable
            Called where no result is returned, once the job has ended or will never begin.

        Raises
        ------
        Problem
            If there is no place for it, or it takes too long.
        """
        try:
            self.check_room()
            loop = asyncio.get_running_loop()
            future = self._pool.submit(job)
        except BaseException:
            unwanted()
            raise
        self.occupied += 1

        def leave(finished: Future[T]) -> None:
            def vacate() -> None:
                self.occupied -= 1

            try:
                loop.call_soon_threadsafe(vacate)
            except RuntimeError:
                self.occupied -= 1  # the loop is closed, and nobody else counts any more

        future.add_done_callback(leave)
        try:
            # Cancelling takes a job that waits out of the queue; one that runs goes on.
            async with asyncio.timeout(timeout):
                return await asyncio.wrap_future(future)
        except BaseException as error:
            future.add_done_callback(lambda finished: unwanted())
            if isinstance(error, TimeoutError):
                raise busy(f"no reply within {timeout:g} seconds (request_timeout)") from None
            raise

    def close(self) -> None:
        """Take no more jobs, and forget those that have not begun."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)


def step_back() -> None:
    """Let the event loop go before this thread where both want the same CPU.

    Between equals, the loop waits for up to two of the scheduler's ticks, 4 ms each as a rule, at
    each of its own.
    """
    # POSIX has a nice value for a process; Linux has one for each thread, and those it starts.
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a sandbox may forbid it
            os.nice(NICE)


async def read_body(
    announced: str,
    receive: Receive,
    settings: Settings,
    memory: Memory,
    lease: Lease,
    aligned: int = 0,
    take: Take | None = None,
) -> memoryview:
    """Read a request's body within the limits.

    Parameters
    ----------
    announced : str
        The request's Content-Length, or ``""``.
    receive : callable
        The ASGI channel that the body comes from.
    settings : Settings
        Its limits.
    memory : Memory
        Where the bytes are counted.
    lease : Lease
        Grows by the bytes that were read.
    aligned : int
        The byte of the body at which arrays begin: it is aligned for them, in a long body to 64.
    take : callable, optional
        What puts the rest of a body of known length into a buffer, where the server can.

    Returns
    -------
    memoryview
        The body, of which there is this one copy.

    Raises
    ------
    Problem
        413 for too many bytes, if possible before any is read, 408 for too slow ones, 503 if
        there is no room for them.
    """
    limit = settings.max_body_bytes
    if announced.isascii() and announced.isdigit():
        # Compared as text first: int() refuses thousands of digits.
        if len(announced.lstrip("0")) > 18 or int(announced) > limit:
            raise too_large(limit)
        if not memory.has_room(int(announced)):
            raise busy("too many bytes of other requests are held (max_inflight_bytes)")
        expected = int(announced)
    else:
        expected = -1
    try:
        return await within(
            settings.body_timeout, _received(receive, take, expected, limit, lease, -aligned % 64)
        )
    except TimeoutError:
        raise Problem(
            408,
            f"the body did not arrive within {settings.body_timeout:g} seconds (body_timeout)",
        ) from None


async def _received(
    receive: Receive, take: Take | None, expected: int, limit: int, lease: Lease, before: int
) -> memoryview:
    """Return a body, which lies behind so many bytes."""
    body: Any = None
    end = before
    try:
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                # Nobody is left to read this.
                raise Problem(400, "the connection was closed before the body's end")
            chunk = message.get("body", b"")
            more = message.get("more_body", False)
            if end - before + len(chunk) > limit:
                raise too_large(limit)
            lease.grow(len(chunk))
            if not (end or before or more):
                return memoryview(chunk)
            if body is None:
                # Memory that is not touched is not there: bytes take some as they arrive.
                body = bytearray(before) if expected < 0 else empty(before + expected, _UINT8).data
            body[end : end + len(chunk)] = chunk
            end += len(chunk)
            rest = before + expected - end
            if take is not None and more and rest > 0:
                # If the connection is lost, the next message tells.
                with contextlib.suppress(ConnectionResetError):
                    await take(memoryview(body)[end:], lease.grow)
                    end += rest
    except BaseException:
        body = b""  # the error's traceback keeps this frame while the client is answered
        raise
    return memoryview(body)[before:end]
