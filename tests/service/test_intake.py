"""Bodies that go straight into their place, on each event loop."""

from __future__ import annotations

import asyncio
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from poolgrad_service import intake
from poolgrad_service.intake import AHEAD, ENOUGH, HUGE, PIECE, Intake, Turns

LOOPS = {"asyncio": asyncio.SelectorEventLoop}
try:
    import uvloop
except ImportError:
    pass
else:
    LOOPS["uvloop"] = uvloop.new_event_loop


class Usual(asyncio.Protocol):
    """Collects what it receives, and lets an intake have what follows the first byte."""

    def __init__(self, size, count, turns):
        self.turns = turns
        self.buffer = memoryview(bytearray(size))
        self.count = count
        self.seen = b""
        self.begun = asyncio.get_running_loop().create_future()
        self.completed = []
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.seen += data
        if not self.begun.done():
            self.intake = Intake(
                self,
                self.transport,
                self.turns,
                self.buffer,
                self.count,
                lambda: self.completed.append(1),
            )
            self.begun.set_result(None)

    def eof_received(self):
        return False

    def connection_lost(self, exc):
        self.lost.set_result(exc)


def run(loop, job, size=1_000_000, count=lambda n: None):
    """Run a job on a loop, given the protocol of an intake that has begun, and its other side."""

    async def main():
        made = []

        def usual():
            made.append(Usual(size, count, Turns(finders)))
            return made[-1]

        server = await asyncio.get_running_loop().create_server(usual, "127.0.0.1", 0)
        async with server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"!")
            async with asyncio.timeout(20):
                while not made:
                    await asyncio.sleep(0)
                await made[0].begun
                await job(made[0], writer)
            writer.close()

    with ThreadPoolExecutor(1) as finders, asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main())


@pytest.fixture(params=LOOPS)
def loop(request):
    return request.param


def test_a_body_lies_where_it_should_and_what_follows_goes_on(loop):
    pieces = []
    body = bytes(range(250)) * 4_000

    async def job(protocol, writer):
        writer.write(body + b"what follows")
        await protocol.intake.done
        assert protocol.buffer == body
        assert protocol.completed == [1]
        while protocol.seen != b"!what follows":
            await asyncio.sleep(0.001)

    run(loop, job, len(body), pieces.append)
    assert sum(pieces) == len(body)
    assert max(pieces) <= PIECE  # others have their turn in between


@pytest.mark.skipif(sys.platform != "linux", reason="as Linux tells of what has arrived")
def test_the_event_loop_is_woken_when_enough_has_arrived(loop):
    pieces = []
    body = bytes(range(250)) * 4_000

    async def job(protocol, writer):
        writer.write(body[: ENOUGH - 1])
        await writer.drain()
        await asyncio.sleep(0.1)
        assert not pieces
        writer.write(body[ENOUGH - 1 : -1])
        await writer.drain()
        # Of the last bytes, each is told at once.
        while sum(pieces) < len(body) - 1:
            await asyncio.sleep(0.001)
        assert not protocol.intake.done.done()
        writer.write(body[-1:])
        await protocol.intake.done
        assert protocol.buffer == body
        writer.write(b"!")
        while protocol.seen != b"!!":
            await asyncio.sleep(0.001)

    run(loop, job, len(body), pieces.append)


@pytest.mark.parametrize("size", [HUGE - 1, HUGE, HUGE + 1, HUGE + AHEAD + PIECE + 7])
def test_memory_is_found_elsewhere_before_a_long_body_is_read(loop, size, monkeypatch):
    """The event loop, which would be deaf meanwhile, does not touch it first."""
    found, ahead, threads = 0, [], set()

    def touch(room):
        nonlocal found
        found += len(room)
        threads.add(threading.get_ident())
        really(room)

    def count(n):
        nonlocal read
        read += n
        ahead.append(found - read)

    read, really = 0, intake._touch
    monkeypatch.setattr(intake, "_touch", touch)
    body = bytes(range(251)) * (size // 251 + 1)

    async def job(protocol, writer):
        writer.write(body[:size] + b"what follows")
        await protocol.intake.done
        assert protocol.buffer == body[:size]
        while protocol.seen != b"!what follows":
            await asyncio.sleep(0.001)

    run(loop, job, size, count)
    assert read == size
    if size < HUGE:
        assert found == 0
    else:
        assert found == size - PIECE
        assert -PIECE <= min(ahead) <= max(ahead) <= AHEAD
        assert len(threads) == 1
        assert threading.get_ident() not in threads


def test_a_connection_may_be_lost_while_memory_is_found(loop, monkeypatch):
    finding, lost = threading.Event(), threading.Event()

    def touch(room):
        finding.set()
        assert lost.wait(20)

    monkeypatch.setattr(intake, "_touch", touch)

    async def job(protocol, writer):
        errors = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        try:
            writer.write(b"a" * (PIECE + ENOUGH))
            while not finding.is_set():
                await asyncio.sleep(0.001)
            protocol.transport.abort()
            with pytest.raises(ConnectionResetError):
                await protocol.intake.done
            await protocol.lost
        finally:
            lost.set()
        for _ in range(10):
            await asyncio.sleep(0.005)
        assert errors == []

    run(loop, job, HUGE)


def test_who_counts_may_refuse_and_the_rest_is_dropped(loop):
    def refuse(n):
        raise ValueError("enough")

    async def job(protocol, writer):
        writer.write(b"a" * ENOUGH)
        with pytest.raises(ValueError, match="enough"):
            await protocol.intake.done
        before = bytes(protocol.buffer)
        writer.write(b"b" * (1_000_000 - ENOUGH) + b"what follows")
        while protocol.seen != b"!what follows":
            await asyncio.sleep(0.001)
        assert protocol.buffer == before
        assert protocol.completed == [1]

    run(loop, job, count=refuse)


def test_the_rest_is_dropped_where_nobody_waits(loop):
    async def job(protocol, writer):
        protocol.intake.done.cancel()
        writer.write(b"b" * 1_000_000 + b"what follows")
        while protocol.seen != b"!what follows":
            await asyncio.sleep(0.001)
        assert not any(protocol.buffer[PIECE:])

    run(loop, job)


def test_the_end_of_a_connection_is_told_to_both(loop):
    async def job(protocol, writer):
        writer.write(b"a" * 1000)
        await writer.drain()
        writer.close()
        with pytest.raises(ConnectionResetError):
            await protocol.intake.done
        await protocol.lost
        assert protocol.completed == []

    run(loop, job)


class Connection:
    """A connection that always has a piece to read."""

    def __init__(self, read):
        self.read = read
        self.paused = False

    def pause_reading(self):
        self.paused = True

    def resume_reading(self):
        self.paused = False
        self.read(self)


@pytest.mark.parametrize("n", [1, 3])
def test_long_bodies_are_read_one_piece_at_a_time_in_turn(loop, n):
    """A round of the event loop reads from one of them at most, and every other from none."""
    turns, read = Turns(None), []

    def piece(connection):
        read.append(connection)
        turns.wait(connection)

    async def main():
        connections = [Connection(piece) for _ in range(n)]
        for connection in connections:
            piece(connection)
            assert connection.paused
        read.clear()
        counts = []
        for _ in range(12):
            await asyncio.sleep(0)
            counts.append(len(read))
        assert read == (connections * 12)[: len(read)]
        steps = [after - before for before, after in pairwise([0, *counts])]
        assert sorted(set(steps)) == [0, 1]
        assert all(0 in pair for pair in pairwise(steps))
        assert len(read) >= 5

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main())
