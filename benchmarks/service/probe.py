"""How long the health of a server takes to be told, asked from a process of its own.

One question is due every few milliseconds. It runs before the client, which has the same CPU, so
that what it waits for is the server.
"""

from __future__ import annotations

import contextlib
import http.client
import math
import os
import socket
import threading
from time import perf_counter, sleep
from typing import Final

__all__ = ["start", "stop"]

#: Seconds from one question to the next, and for which an answer is waited.
PERIOD: Final = 0.005
PATIENCE: Final = 60.0

_ended = threading.Event()
_worst = 0.0
_thread: threading.Thread


def start(port: int, path: str) -> None:
    """Begin to ask; return once the first answer is there."""
    global _thread, _worst
    # The client may be inside the system for longer than a nice value takes to count.
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _ask(connection, path)
    _ended.clear()
    _worst = 0.0
    _thread = threading.Thread(target=_run, args=(connection, path), daemon=True)
    _thread.start()


def stop() -> float:
    """Return the longest that an answer took, in seconds."""
    _ended.set()
    _thread.join(PATIENCE)
    if math.isnan(_worst):
        raise ConnectionError("a question about its health was not answered")
    return _worst


def _run(connection: http.client.HTTPConnection, path: str) -> None:
    global _worst
    due = perf_counter()
    while not _ended.is_set():
        try:
            _ask(connection, path)
        except OSError:
            _worst = float("nan")  # no answer at all
            break
        now = perf_counter()
        _worst = max(_worst, now - due)
        # One that came due while another was waited for waited less than that one.
        due = max(due + PERIOD, now)
        sleep(max(0.0, due - perf_counter()))
    connection.close()


def _ask(connection: http.client.HTTPConnection, path: str) -> None:
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
    except http.client.HTTPException as error:
        raise ConnectionError(f"the answer about its health is no HTTP: {error}") from error
    if answer.status != 200:
        raise ConnectionError(f"its health is answered with {answer.status}")
