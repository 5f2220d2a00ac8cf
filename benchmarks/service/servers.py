"""Servers in processes of their own: started, asked whether they are ready, weighed, stopped."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import IO, Final

from benchmarks.service.contenders import Contender
from benchmarks.service.environments import ROOT

__all__ = ["NotStarted", "Peak", "Server", "started"]

#: Seconds for a server to become ready, and to end.
START, END = 60.0, 10.0
#: Those that would report home are told not to.
QUIET: Final = {"BENTOML_DO_NOT_TRACK": "True", "PYTHONUNBUFFERED": "1"}


class NotStarted(Exception):
    """A server did not become ready: the end of what it said."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs."""

    contender: Contender
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def wait(self) -> None:
        """Wait until it is ready, or raise `NotStarted`."""
        end = monotonic() + START
        while self.process.poll() is None and monotonic() < end:
            with contextlib.suppress(OSError, http.client.HTTPException):
                asked = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
                asked.request("GET", self.contender.ready)
                status = asked.getresponse().status
                asked.close()
                if status == 200:
                    return
            sleep(0.05)
        said = self.log.read_text(errors="replace").strip().splitlines()
        raise NotStarted("; ".join(said[-3:]) or "it said nothing")

    def processes(self) -> set[int]:
        """Return the ids of its processes that run: its descendants, and all of its session."""
        running = list(_running())
        found = {self.process.pid}
        before = 0
        while len(found) > before:
            before = len(found)
            found |= {pid for pid, parent, session in running if {parent, session} & found}
        return found & {pid for pid, _, _ in running}

    def stop(self) -> None:
        """End it and all that it started."""
        pids = self.processes()
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(END)
        for pid in pids & {pid for pid, _, _ in _running()}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(END)
        # The others are not our children to wait for.
        end = monotonic() + END
        while pids & {pid for pid, _, _ in _running()} and monotonic() < end:
            sleep(0.01)


class Peak:
    """The most memory that a server held since this was made, in bytes.

    The system itself keeps each process's high-water mark of resident memory, so nothing is sampled
    and no peak is missed. Pages that processes share count once: what they hold at first is summed
    in proportional shares, and only what each grew by is added to it.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._first = {}
        self.rest = 0
        for pid in server.processes():
            with contextlib.suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")  # the mark starts anew
                self._first[pid] = _kilobytes(pid, "status", "VmRSS")
                self.rest += _kilobytes(pid, "smaps_rollup", "Pss")

    def bytes(self) -> int:
        """Return it."""
        return self.rest + self.growth()

    def growth(self) -> int:
        """Return how much more it was than at first."""
        grown = 0
        for pid in self._server.processes():
            with contextlib.suppress(OSError):
                most = _kilobytes(pid, "status", "VmHWM")
                grown += max(0, most - self._first.get(pid, 0))
        return grown


def _running() -> Iterator[tuple[int, int, int]]:
    """Yield each process that has not ended, with its parent and its session."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # What is in parentheses is the program's name, which may have spaces.
                state, parent, _, session, *_ = (
                    (entry / "stat").read_text().rpartition(")")[2].split()
                )
                if state != "Z":
                    yield int(entry.name), int(parent), int(session)


def _kilobytes(pid: int, file: str, name: str) -> int:
    """Return a field of a file of a process, in bytes."""
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"{file} has no {name}")  # a process that ends


@contextlib.contextmanager
def started(python: str, contender: Contender, folder: Path, cpus: set[int]) -> Iterator[Server]:
    """Start a server on some CPUs, and stop it at the end.

    Parameters
    ----------
    python : str
        The interpreter that runs it.
    contender : Contender
        Which.
    folder : pathlib.Path
        Where it works and its log is kept.
    cpus : set of int
        The CPUs of all its processes.
    """
    folder.mkdir()
    ports = _free_ports(contender.command)
    command = [python, *(part.format(*ports) for part in contender.command)]
    # The service is measured as it is by default.
    kept = {name: v for name, v in os.environ.items() if not name.startswith("POOLGRAD_SERVICE_")}
    environment = {**kept, **QUIET, "PYTHONPATH": str(ROOT)}
    own = os.sched_getaffinity(0)
    with open(folder / "log", "wb") as log:
        os.sched_setaffinity(0, cpus)  # processes inherit it
        try:
            process = _start(command, environment, folder, log)
        finally:
            os.sched_setaffinity(0, own)
    server = Server(contender, process, ports[0], folder / "log")
    try:
        yield server
    finally:
        server.stop()


def _start(
    command: Sequence[str], environment: dict[str, str], folder: Path, log: IO[bytes]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _free_ports(command: Sequence[str]) -> list[int]:
    """Return as many free ports as a command names."""
    number = sum(part.startswith("{") for part in command)
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
