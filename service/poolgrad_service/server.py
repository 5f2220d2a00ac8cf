"""Uvicorn, with what it leaves to others: a drain before the end.

Uvicorn stops accepting connections the moment it is told to stop, and ends with the signal that it
got.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import gc
import logging
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import FrameType
from typing import Any, Final

import uvicorn
from uvicorn.config import LOGGING_CONFIG

from poolgrad_service.admission import step_back
from poolgrad_service.app import Application
from poolgrad_service.intake import Turns
from poolgrad_service.service import Service
from poolgrad_service.settings import Settings

__all__ = ["Server", "run", "server_of"]

logger = logging.getLogger("poolgrad_service")

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


def _protocol(app: Application, settings: Settings) -> Any:
    """Return the HTTP protocol, with bounds; the plain one where httptools is missing."""
    try:
        from poolgrad_service.protocol import Protocol
    except ModuleNotFoundError:
        return "h11"  # it bounds headers by itself
    turns = Turns(ThreadPoolExecutor(1, "poolgrad-memory", step_back))
    return partial(Protocol, app.at_once, settings, turns)


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


def server_of(app: Application, settings: Settings, *, log: bool = True) -> Server:
    """Return the server of an application, ready to run.

    Parameters
    ----------
    app : Application
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
        http=_protocol(app, settings),
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


def run(app: Application, settings: Settings) -> int:
    """Serve until told to stop.

    Parameters
    ----------
    app : Application
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
