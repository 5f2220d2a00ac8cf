"""What is measured of each server, and how."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from statistics import median
from time import sleep
from typing import Final, NamedTuple

import numpy as np
import uvloop

from benchmarks.service import client, probe
from benchmarks.service.encodings import ENCODINGS, Encoded
from benchmarks.service.servers import Peak, Server
from benchmarks.workloads import Array

__all__ = ["MEASURES", "SHAPES", "SLOW", "STEPS", "Form", "Images", "Measure", "idle", "measure"]

#: Requests at a time, where there are many.
CONCURRENCY: Final = 8
#: Seconds of one large request after which eight at a time are not sent in each round.
SLOW: Final = 2.0

Shapes = Mapping[str, tuple[int, int, int, int]]
#: The arrays that are pooled, 2x2/2.
SHAPES: Final[Shapes] = {
    "small": (1, 4, 4, 1),
    "medium": (1, 224, 224, 4),
    "large": (4, 448, 448, 4),
}


class Measure(NamedTuple):
    """A figure: whether more of it is better, and whether its worst round counts, not the median.

    The unit is that which is shown; seconds and bytes are what is kept.
    """

    title: str
    unit: str
    more: bool = False
    worst: bool = False


MEASURES: Final[Mapping[str, Measure]] = {
    "medium rate": Measure("medium, 8 at a time", "requests/s", more=True),
    "large time": Measure("large, one at a time", "ms"),
    "health": Measure("health during one large", "ms", worst=True),
    "health of 8": Measure("health during 8 large", "ms", worst=True),
    "memory": Measure("memory with 8 large", "MiB", worst=True),
    "growth": Measure("growth with 8 large", "of body + twice the arrays", worst=True),
    "small rate": Measure("small, 8 at a time", "requests/s", more=True),
    "small time": Measure("small, one at a time", "ms"),
}

#: The size of the requests of each step of a round, and how many are sent at a time.
STEPS: Final[Mapping[str, tuple[str, int]]] = {
    "medium rate": ("medium", CONCURRENCY),
    "large time": ("large", 1),
    "health": ("large", 1),
    "health of 8": ("large", CONCURRENCY),
    "small rate": ("small", CONCURRENCY),
    "small time": ("small", 1),
}


class Images:
    """The arrays of each size, encoded once in each form, and what NumPy makes of them."""

    def __init__(self, shapes: Shapes) -> None:
        random = np.random.default_rng(0)
        self.x = {size: random.standard_normal(shape, np.float32) for size, shape in shapes.items()}
        self.y = {size: _pooled(x) for size, x in self.x.items()}
        self._encoded: dict[tuple[str, str], Encoded] = {}

    def encoded(self, encoding: str, size: str) -> Encoded:
        """Return the headers and the body of a request."""
        key = encoding, size
        if key not in self._encoded:
            self._encoded[key] = ENCODINGS[encoding].encode(self.x[size])
        return self._encoded[key]


def _pooled(x: Array) -> Array:
    n, h, w, c = x.shape
    y: Array = x.reshape(n, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))
    return y


@dataclass
class Form:
    """One encoding of one server, ready to be measured.

    Attributes
    ----------
    checked : dict of str to bytes
        The body of the reply of each size, compared with NumPy.
    allowance : int
        Bytes of a large body and of twice its arrays.
    slow : bool
        Whether one large request takes longer than `SLOW`.
    """

    server: Server
    contender: str
    encoding: str
    requests: dict[str, client.Request]
    checked: dict[str, bytes]
    allowance: int
    slow: bool = False

    @classmethod
    def prepared(cls, server: Server, contender: str, encoding: str, images: Images) -> Form:
        """Send a request of each size and check its reply.

        Raises
        ------
        Refused, Wrong
            If a reply is none, or not NumPy's.
        """
        route, how = server.contender.routes[encoding], ENCODINGS[encoding]
        sizes = ["small"] if how.kind == "empty" else list(images.x)
        requests = {
            size: client.Request.of(
                server.port, route, how, images.encoded(encoding, size), images.y[size]
            )
            for size in sizes
        }
        checked = {size: uvloop.run(client.once(request)) for size, request in requests.items()}
        arrays = images.x["large"].nbytes + images.y["large"].nbytes
        allowance = len(images.encoded(encoding, "large")[1]) + 2 * arrays
        return cls(server, contender, encoding, requests, checked, allowance)

    def load(self, size: str, concurrency: int, seconds: float) -> client.Load:
        """Send one of its requests for some seconds, at least once a connection."""
        return uvloop.run(
            client.load(self.requests[size], self.checked[size], concurrency, seconds=seconds)
        )


def idle(server: Server, prober: ProcessPoolExecutor, seconds: float) -> float:
    """Return the longest that the health took to be told while nothing else was asked."""
    prober.submit(probe.start, server.port, server.contender.health).result()
    sleep(seconds)
    return prober.submit(probe.stop).result()


def measure(
    form: Form, step: str, prober: ProcessPoolExecutor, seconds: float, *, patient: bool
) -> Iterator[tuple[str, float]]:
    """Measure one of `STEPS`, and yield names of `MEASURES` with their figures.

    Parameters
    ----------
    form : Form
        What is measured; nothing is yielded if it has no such step.
    step : str
        Which; that of eight large requests yields the memory, too.
    prober : ProcessPoolExecutor
        The process that asks for the health.
    seconds : float
        For how long requests are begun.
    patient : bool
        Whether to send eight large requests to a slow server.
    """
    size, concurrency = STEPS[step]
    if size not in form.requests or (step == "health of 8" and form.slow and not patient):
        return
    if not step.startswith("health"):
        load = form.load(size, concurrency, seconds)
        taken = median(load.taken)
        form.slow |= size == "large" and taken > SLOW
        yield step, load.rate if MEASURES[step].more else taken
        return
    prober.submit(probe.start, form.server.port, form.server.contender.health).result()
    peak = Peak(form.server)
    try:
        form.load(size, concurrency, seconds)
    finally:
        worst = prober.submit(probe.stop).result()
    yield step, worst
    if concurrency > 1:
        growth = peak.growth()
        yield "memory", peak.rest + growth
        yield "growth", growth / concurrency / form.allowance
