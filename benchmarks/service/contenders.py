"""Who is measured: each server, how it is started, and the forms that it takes.

All peers pool with this library, installed in their environments, so that only the serving
differs; and all leave out the log of requests, where they have a switch for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = [
    "CONSTANT",
    "CONTENDERS",
    "KSERVE",
    "LISTS",
    "ORJSON",
    "OURS",
    "RAW",
    "REQUIREMENTS",
    "Contender",
]

OURS, LISTS, ORJSON, RAW = "Poolgrad", "FastAPI, lists", "FastAPI, orjson", "FastAPI, raw bytes"
KSERVE, CONSTANT = "KServe", "constant reply"

#: What is installed in each environment, pinned; the first is what the versions tell.
REQUIREMENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "fastapi": (
        "fastapi==0.165.0", "httptools==0.9.0", "numpy==2.4.6", "orjson==3.13.0",
        "pydantic==2.14.4", "uvicorn==0.54.0", "uvloop==0.23.0",
    ),
    "kserve": ("kserve==0.21.0",),
    "mlserver": ("mlserver==1.7.1", "uvloop==0.21.0"),  # its worker dies with a later uvloop
    "litserve": ("litserve==0.2.19", "numpy==2.4.6"),
    "bentoml": ("bentoml==1.4.39", "numpy==2.4.6"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Contender:
    """One server.

    Attributes
    ----------
    environment : str or None
        That of `REQUIREMENTS` which it runs in; None for the one that the benchmark runs in.
    command : tuple of str
        What the interpreter is given to run it; ``{0}`` and so on are ports.
    routes : dict of str to str
        Where it takes each of the encodings that it has.
    health : str
        What is asked while it is at work.
    ready : str
        Answers 200 once it can take requests.
    """

    environment: str | None
    command: tuple[str, ...]
    routes: Mapping[str, str]
    health: str
    ready: str


def _peer(
    module: str,
    routes: Mapping[str, str],
    *,
    environment: str | None = None,
    health: str = "/health",
    ready: str | None = None,
    ports: int = 1,
) -> Contender:
    numbers = (f"{{{k}}}" for k in range(ports))
    command = "-P", "-m", f"benchmarks.service.peers.{module}", *numbers
    return Contender(environment or module, command, routes, health, ready or health)


_V1, _V2 = "/v1/max_pool/forward", "/v2/models/max_pool/infer"

CONTENDERS: Final[Mapping[str, Contender]] = {
    OURS: Contender(
        None,
        ("-m", "poolgrad_service", "--port", "{0}", "--no-access-log"),
        {"nested": _V1, "flat": _V1, "base64": _V1, "V2 binary": _V2, "npy": _V1},
        "/health/live",
        "/health/ready",
    ),
    LISTS: _peer("fastapi_lists", {"nested": "/pool"}, environment="fastapi"),
    ORJSON: _peer("fastapi_orjson", {"nested": "/pool", "flat": "/pool"}, environment="fastapi"),
    RAW: _peer("fastapi_raw", {"raw": "/pool", "empty": "/empty"}, environment="fastapi"),
    KSERVE: _peer(
        "kserve",
        {"V2 JSON": _V2, "V2 binary": _V2},
        health="/v2/health/live",
        ready="/v2/models/max_pool/ready",
    ),
    "MLServer": _peer(
        "mlserver",
        {"V2 JSON": _V2},
        health="/v2/health/live",
        ready="/v2/models/max_pool/ready",
        ports=3,
    ),
    "LitServe": _peer("litserve", {"flat": "/predict"}),
    "BentoML": Contender(
        "bentoml",
        ("-P", "-m", "bentoml", "serve", "benchmarks.service.peers.bentoml:Pool", "--port", "{0}"),
        {"nested": "/pool"},
        "/livez",
        "/readyz",
    ),
    CONSTANT: _peer("constant", {"empty": "/"}, environment="fastapi", health="/"),
}
