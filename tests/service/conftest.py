"""Fixtures of the service's tests: applications in this process, and servers of their own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpx
import pytest

from poolgrad_service import Settings, create_app
from poolgrad_service.server import server_of

#: Seconds after which a test gives up on something that should have happened long before.
PATIENCE = 20.0


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("POOLGRAD_SERVICE_"):
            monkeypatch.delenv(name)


@contextlib.contextmanager
def running(**settings: object) -> Iterator[httpx.Client]:
    """Run the service on a thread of this process, and yield a client of it.

    The application is the client's ``app``, so that tests can look inside.
    """
    checked = Settings(port=0, drain_delay=0, access_log=False, **settings)
    app = create_app(checked)
    server = server_of(app, checked, log=False)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + PATIENCE
    while not server.started:
        assert thread.is_alive()
        assert time.monotonic() < end
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
        client.app = app
        yield client
    server.should_exit = True
    thread.join(PATIENCE)


@pytest.fixture(scope="session")
def client() -> Iterator[httpx.Client]:
    """Return a client of a service with the default limits."""
    with running(workers=2, num_threads=1) as client:
        yield client


@pytest.fixture
def client_of() -> Iterator[Callable[..., httpx.Client]]:
    """Return a maker of clients of services with other settings."""
    with contextlib.ExitStack() as stack:
        yield lambda **settings: stack.enter_context(running(**settings))


@dataclass
class Server:
    """A service in a process of its own."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return "".join(self.lines)

    def read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if match := re.search(r"running on http://127\.0\.0\.1:(\d+)", line):
                self.port = int(match[1])

    def wait(self, happened: Callable[[], object]) -> None:
        """Wait until something has happened; fail with the server's log if it does not."""
        end = time.monotonic() + PATIENCE
        while not happened():
            if time.monotonic() > end:
                pytest.fail(f"it did not happen; the server's log:\n{self.log}")
            time.sleep(0.01)

    def stop(self, sig: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(sig)
        return self.process.wait(PATIENCE)


#: The command, with jobs that wait for a file to appear: slow for exactly as long as needed.
GATED = """
import os, sys, time
from poolgrad_service import answers, service
begin, gate = answers.begin, sys.argv.pop(1)
def waiting(*arguments):
    open(gate + ".begun", "a").close()
    end = time.monotonic() + 30
    while not os.path.exists(gate) and time.monotonic() < end:
        time.sleep(0.01)
    return begin(*arguments)
answers.begin = waiting
service.SMALL = -1  # no job on the event loop
from poolgrad_service.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Return a starter of servers, on a free port of 127.0.0.1 each."""
    servers: list[Server] = []

    def start(*flags: str, command: tuple[str, ...] = (), wait: bool = True) -> Server:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        process = subprocess.Popen(
            [sys.executable, *(command or ("-m", "poolgrad_service")), "--port", "0", *flags],
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
        )
        server = Server(process)
        servers.append(server)
        thread = threading.Thread(target=server.read, daemon=True)
        thread.start()
        if wait:
            server.wait(lambda: server.port)
        return server

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait(PATIENCE)
        if server.process.stderr is not None:
            # The reader ends with the process.
            time.sleep(0.02)
            server.process.stderr.close()


@pytest.fixture
def gated(
    serve: Callable[..., Server], tmp_path: os.PathLike[str]
) -> Callable[..., tuple[Server, str]]:
    """Return a starter of servers whose jobs wait for a file, and that file's name."""

    def start(*flags: str) -> tuple[Server, str]:
        gate = os.path.join(tmp_path, "gate")
        return serve("--workers", "1", *flags, command=("-c", GATED, gate, "serve")), gate

    return start


@pytest.fixture
def in_background() -> Iterator[Callable[..., object]]:
    """Return a starter of POSTs on threads; ``.result()`` is the response."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:

        def post(url: str, body: object, **more: object) -> object:
            return pool.submit(httpx.post, url, json=body, timeout=PATIENCE, **more)

        yield post
