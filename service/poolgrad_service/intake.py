"""The rest of a long body, from the network straight into the memory where it is to lie.

On its usual way each piece of a body is copied five times, and wakes the application: the event
loop makes bytes of it, the parser a part of those, Uvicorn collects these and makes bytes again,
and the application puts them where the arrays are to be read. A body whose length is known needs
no parser, so `Intake` stands in for the connection's protocol until it is complete.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import mmap
import socket
import sys
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, Final

__all__ = ["EXTENSION", "PIECE", "Intake", "Take", "Turns"]

#: What an application calls to have the rest of a body put into a buffer, of that very length:
#: ``take(buffer, count)``. ``count`` is called with the bytes of each piece, and may raise.
Take = Callable[[memoryview, Callable[[int], None]], asyncio.Future[None]]

#: Its name among a scope's extensions.
EXTENSION: Final = "poolgrad.intake"

#: Bytes that are read before others have their turn.
PIECE: Final = 512 * 1024

#: Bytes that have to be there before the event loop is woken, as long as more than that are to
#: come: each time takes it from what else there is to do, and a network brings a large body in
#: hundreds of pieces.
ENOUGH: Final = 128 * 1024

#: Bytes of a buffer from which on another thread finds its memory.
HUGE: Final = 4 * 1024 * 1024

#: Bytes whose memory is found at a time: that of one such page, as a rule.
AHEAD: Final = 2 * 1024 * 1024

#: Where bytes go that nobody wants; it is never read.
_DROPPED: Final = bytearray(PIECE)


class Turns:
    """Connections that have more than a piece to read, and do so one by one.

    The event loop reads what there is on each connection before it looks at any again, and eight
    pieces would hold up whoever asks for little.

    Parameters
    ----------
    finders : concurrent.futures.Executor
        Who finds the memory of long bodies.
    """

    def __init__(self, finders: Executor) -> None:
        self._finders = finders
        self._waiting: deque[asyncio.Transport] = deque()

    def find(self, room: memoryview, transport: asyncio.Transport) -> None:
        """Read no more from a connection until there is memory for it, and its turn has come."""
        loop = asyncio.get_running_loop()

        def found(_: Future[None]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self.wait, transport)

        transport.pause_reading()
        self._finders.submit(_touch, room).add_done_callback(found)

    def wait(self, transport: asyncio.Transport) -> None:
        """Read no more from a connection until those before it had their turn."""
        transport.pause_reading()
        self._waiting.append(transport)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._let_others)

    def _let_others(self) -> None:
        # Who asks for little is heard in one round of the event loop, and answered in the next.
        asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        transport = self._waiting.popleft()
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._let_others)
        transport.resume_reading()


def _touch(room: memoryview) -> None:
    """Have the system find memory for a buffer, while others may run.

    In a virtual machine whose host has to find it too, to touch a huge page took 8 ms. Where the
    system cannot be asked, memory is found when bytes arrive.
    """
    if sys.platform == "linux":
        first = ctypes.addressof(ctypes.c_char.from_buffer(room))
        end = first + len(room)
        first -= first % mmap.PAGESIZE
        # MADV_POPULATE_WRITE, which Linux has from 5.14 on.
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), 23)


class Intake(asyncio.BufferedProtocol):
    """A connection's protocol for as long as the rest of a body arrives.

    Parameters
    ----------
    protocol : asyncio.Protocol
        The one it stands in for, and gives the connection back to.
    transport : asyncio.Transport
        The connection, which is being read.
    turns : Turns
        Shared by all that there are on the same event loop.
    buffer : memoryview
        Where the rest goes. It is as long as that, and not empty.
    count : callable
        Called with the number of bytes of each piece. If it raises, so does `done`.
    complete : callable
        Called when all has arrived, and the connection was given back.
    """

    def __init__(
        self,
        protocol: asyncio.Protocol,
        transport: asyncio.Transport,
        turns: Turns,
        buffer: memoryview,
        count: Callable[[int], None],
        complete: Callable[[], None],
    ) -> None:
        self._protocol = protocol
        self._transport = transport
        self._turns = turns
        self._rest = buffer
        self._left = len(buffer)
        #: Bytes ahead for which there is memory, or may be found as they come: those of the first
        #: piece, since an announcement alone shall take none.
        self._found = PIECE if self._left >= HUGE else self._left
        self._count = count
        self._complete = complete
        #: What `ENOUGH` is for the connection, as the system knows it.
        self._enough = 1
        #: When the buffer is full. Once this is done, for better or worse, it is not written to:
        #: if that is so too early, because nobody waits any more, what still comes is dropped.
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wait_for_enough()
        self._hand_over(self)

    def _wait_for_enough(self) -> None:
        """Have the system tell of what has arrived only once it is enough."""
        enough = ENOUGH if self._left > ENOUGH else 1
        if enough != self._enough:
            self._enough = enough
            connection = self._transport.get_extra_info("socket")
            with contextlib.suppress(OSError):  # some tell of each byte
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, enough)

    def _hand_over(self, protocol: asyncio.BaseProtocol) -> None:
        """Let a protocol have what is read from here on."""
        # Loops tell one kind of protocol from the other when they begin to read.
        self._transport.pause_reading()
        self._transport.set_protocol(protocol)
        self._transport.resume_reading()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next piece goes."""
        if self.done.done():
            self._rest = memoryview(_DROPPED)[: self._left]
            self._found = self._left
        return self._rest[: min(PIECE, self._found)]

    def buffer_updated(self, nbytes: int) -> None:
        """Take note of a piece."""
        self._left -= nbytes
        self._found -= nbytes
        self._wait_for_enough()
        if not self.done.done():
            self._rest = self._rest[nbytes:]
            try:
                self._count(nbytes)
            except Exception as error:
                self.done.set_exception(error)
        if self._left and not self._found:
            room = self._rest[:AHEAD]
            self._found = len(room)
            self._turns.find(room, self._transport)
        elif self._left and nbytes == PIECE:
            # There is more as a rule, and libuv would read it 32 times before it looks up.
            self._turns.wait(self._transport)
        if not self._left:
            self._rest = memoryview(b"")
            if not self._transport.is_closing():
                self._hand_over(self._protocol)
            self._complete()
            if not self.done.done():
                self.done.set_result(None)

    def eof_received(self) -> Any:
        """Pass on that nothing more will come."""
        return self._protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass on that the connection is gone."""
        self._rest = memoryview(b"")
        if not self.done.done():
            self.done.set_exception(ConnectionResetError())
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass on that replies are not taken."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that they are again."""
        self._protocol.resume_writing()
