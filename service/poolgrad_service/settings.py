"""The service's settings: one frozen object, from flags and ``POOLGRAD_SERVICE_*`` variables.

Every limit is here and nowhere else. A refusal names the setting that it goes back to.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, Self

from pydantic import ByteSize, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

import poolgrad

__all__ = ["PREFIX", "Settings", "SettingsError", "load"]

PREFIX: Final = "POOLGRAD_SERVICE_"

Seconds = Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=2**40)]
Bytes = Annotated[ByteSize, Field(ge=1, le=2**44)]


def _default_workers() -> int:
    """Return one worker a CPU; each holds a request's arrays, so not without end."""
    return min(8, poolgrad.get_num_threads())


class SettingsError(ValueError):
    """A setting has a value that it cannot have; the message is one line for people."""


class Settings(BaseSettings):
    """What the operator of a service decides; see each field's description."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for all")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 for any free one")
    root_path: str = Field(
        "", pattern=r"^(/[^/?#\s]+)*$", description="path under which a proxy serves this service"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severity that is logged"
    )
    access_log: bool = Field(True, description="log a line for each request")
    docs: bool = Field(True, description="serve the page to read about and try the API")

    max_body_bytes: Bytes = Field(
        ByteSize(64 * 2**20), description="bytes of one request body (413 above)"
    )
    max_elements: Count = Field(2**24, description="numbers in the arrays of one request")
    max_depth: int = Field(8, ge=5, le=32, description="depth of nested lists in a body")
    max_output_bytes: Bytes = Field(
        ByteSize(64 * 2**20), description="bytes of y, argmax and dx of one request, together"
    )
    max_workspace_bytes: Bytes = Field(
        ByteSize(64 * 2**20), description="bytes of partial results of one request, all threads"
    )
    # A step takes 0.3 ns as a rule, but 40 ns in the worst shapes: below request_timeout, then.
    max_work: Count = Field(
        2 * 10**9, description="element steps of one request, as `Plan.cost` counts them"
    )
    max_inflight_bytes: Bytes = Field(
        ByteSize(512 * 2**20),
        description="bytes of bodies and replies held at a time, all requests together",
    )
    max_connections: Count = Field(1000, description="open connections; more are closed")

    workers: int = Field(
        default_factory=_default_workers,
        ge=1,
        le=256,
        description="requests worked on at a time (default: one a CPU, at most 8)",
    )
    num_threads: int = Field(
        default_factory=lambda data: max(1, poolgrad.get_num_threads() // data.get("workers", 1)),
        ge=1,
        le=1024,
        description="threads of one library call (default: the CPUs shared among the workers)",
    )
    queue_size: int = Field(
        32, ge=0, le=100_000, description="requests that may wait for a worker (503 above)"
    )

    header_timeout: Seconds = Field(10, description="seconds to receive a request's headers")
    body_timeout: Seconds = Field(60, description="seconds to receive a request's body (408)")
    request_timeout: Seconds = Field(
        120, description="seconds from a received body to its reply, waiting included (503)"
    )
    reply_timeout: Seconds = Field(120, description="seconds for a client to take its reply")
    keep_alive: Seconds = Field(75, description="seconds that an idle connection is kept")
    drain_delay: float = Field(
        1,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description="seconds from SIGTERM, when readiness ends, until no connection is accepted",
    )
    shutdown_timeout: Seconds = Field(
        30, description="seconds that requests in flight may take to finish at the end"
    )

    @model_validator(mode="after")
    def _a_body_fits(self) -> Self:
        if self.max_body_bytes > self.max_inflight_bytes:
            raise ValueError("max_body_bytes may not be above max_inflight_bytes")
        return self


def _line(error: ValidationError) -> str:
    """Return a validation error as one line that names each setting."""
    parts = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        if item["type"] == "default_factory_not_called":
            continue  # only since another setting is bad
        name = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        parts.append(f"{name}: {message}" if name else message)
    return "; ".join(parts)


def _unknown(names: Iterable[str]) -> list[str]:
    """Return the variables with our prefix that are no setting: mistyped limits, mostly."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    return sorted(
        name for name in names if name.upper().startswith(PREFIX) and name.upper() not in known
    )


def load(**given: Any) -> Settings:
    """Return the settings: those given, then the environment's, then the defaults.

    Parameters
    ----------
    **given : object
        Settings that override the environment, such as a command line's.

    Returns
    -------
    Settings
        The checked, frozen settings.

    Raises
    ------
    SettingsError
        If one has a value that it cannot have, or the environment has an unknown one.
    """
    if unknown := _unknown(os.environ):
        raise SettingsError(f"{', '.join(unknown)}: there is no such setting")
    try:
        return Settings(**given)
    except ValidationError as error:
        raise SettingsError(_line(error)) from None
