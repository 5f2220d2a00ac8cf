"""One request, from bytes to bytes, whatever it is written in: the way that all of them take.

A `Wire` reads the arrays and hyperparameters of a body and writes the results. Between the two
there is a `poolgrad.Plan` with its budgets, checked before anything is allocated, and the kernels.
Nothing here knows about HTTP or an event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from time import perf_counter_ns
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from poolgrad.errors import PoolgradError
from poolgrad.plan import plan_of
from poolgrad_service.codec import Given, as_indices
from poolgrad_service.compression import compressed, decompressed
from poolgrad_service.errors import Problem, busy, over_limit, refused
from poolgrad_service.schemas import Call
from poolgrad_service.settings import Settings

__all__ = [
    "SMALL",
    "Asked",
    "Body",
    "Part",
    "Reply",
    "Task",
    "Times",
    "Wire",
    "answer",
    "begin",
]

Array = npt.NDArray[Any]
Body = memoryview
Part = bytes | memoryview

#: Bytes of a body or a reply, and element steps, up to which a request is answered on the event
#: loop, by one thread: it takes about as long as waking a worker up.
SMALL: Final = 16 * 1024


@dataclass(slots=True)
class Asked:
    """What a body asks for.

    Parameters
    ----------
    members : mapping of str to object
        All that are no arrays, as `Call.check` returns them.
    arrays : mapping of str to Given
        The arrays.
    outputs : sequence of str
        The arrays that are wanted, among ``"y"``, ``"argmax"`` and ``"dx"``.
    patience : float
        Seconds after which the reply is of no use any more.
    """

    members: Mapping[str, Any]
    arrays: Mapping[str, Given]
    outputs: Sequence[str] = ()
    patience: float = float("inf")


class Wire(Protocol):
    """How one request and its reply are written; it may remember what the request said."""

    def read(self, body: Body, settings: Settings) -> Asked:
        """Read a body, or raise what is wrong with it."""

    def text(self, body: Body) -> int:
        """Return how many bytes of a body have to be parsed, not only moved."""

    def room(self, dtype: np.dtype[Any], elements: int) -> int:
        """Return about how many bytes a result takes in the reply, beside the array itself."""

    def write(
        self, plan: Any, results: Mapping[str, Array]
    ) -> tuple[list[Part], str, Mapping[str, str]]:
        """Return a reply's body in parts, its media type and further headers."""

    def told(self, error: Exception) -> Problem:
        """Return an error as this wire's clients are told it."""


@dataclass(slots=True)
class Times:
    """When a request came to each stage, in nanoseconds; it may wait before it is begun or run."""

    received: int = field(default_factory=perf_counter_ns)
    begun: int = 0
    read: int = 0
    run: int = 0
    pooled: int = 0
    written: int = 0


@dataclass(slots=True)
class Reply:
    """What is sent back: a body in parts, which are not joined, and what its headers say."""

    parts: list[Part]
    media_type: str
    headers: Mapping[str, str]
    n_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        """Add up the bytes of the body."""
        self.n_bytes = sum(map(len, self.parts))


@dataclass(slots=True)
class Task:
    """A request that was read and checked, and is ready to run.

    Parameters
    ----------
    wire : Wire
        What its reply is written by.
    settings : Settings
        The limits.
    plan : poolgrad.Plan
        The pooling.
    asked : Asked
        What was asked.
    results : int
        The bytes of all results, and of an argmax that is found on the way.
    room : int
        The bytes that they take in the reply.
    cost : int
        Element steps, as `poolgrad.Plan.cost` counts them.
    pool : callable
        Returns the results, given a number of threads.
    times : Times
        When it came to each stage.
    """

    wire: Wire
    settings: Settings
    plan: Any
    asked: Asked
    results: int
    room: int
    cost: int
    pool: Callable[[int | None], dict[str, Array]]
    times: Times

    def finish(
        self,
        reserve: Callable[[int], None] = lambda n_bytes: None,
        coding: str | None = None,
    ) -> Reply:
        """Run it, and return the reply.

        Parameters
        ----------
        reserve : callable
            Called with about how many bytes the results and the reply will take, before they are
            allocated.
        coding : str, optional
            How to compress the reply.
        """
        times, settings = self.times, self.settings
        times.run = perf_counter_ns()
        if times.run - times.received > self.asked.patience * 1e9:
            raise busy("the request's own timeout passed before it could be worked on")
        needed, most = self.results + self.room, settings.max_inflight_bytes
        if coding:
            needed += self.results + self.room
        if needed > most:
            what = "bytes of the reply and its arrays, about"
            raise over_limit("", what, needed, "max_inflight_bytes", most)
        reserve(needed)
        try:
            # Of little work, the library makes less where nothing is said about threads.
            few = self.cost <= SMALL
            results = self.pool(None if few else settings.num_threads)
            times.pooled = perf_counter_ns()
            parts, media_type, headers = self.wire.write(self.plan, results)
        except (Problem, PoolgradError) as error:
            raise self.wire.told(error) from None
        if coding:
            parts = list(compressed(parts, coding))
            headers = {**headers, "Content-Encoding": coding}
        times.written = perf_counter_ns()
        return Reply(parts, media_type, headers)


def answer(
    call: Call,
    wire: Wire,
    body: Body,
    settings: Settings,
    reserve: Callable[[int], None] = lambda n_bytes: None,
) -> Reply:
    """Return the reply to a body.

    Parameters
    ----------
    call : Call
        What is asked.
    wire : Wire
        How it and its reply are written.
    body : bytes-like
        The request's body.
    settings : Settings
        The limits.
    reserve : callable
        See `Task.finish`.

    Raises
    ------
    Problem, poolgrad.PoolgradError
        If the body is refused.
    """
    return begin(call, wire, body, settings).finish(reserve)


def begin(
    call: Call,
    wire: Wire,
    body: Body,
    settings: Settings,
    times: Times | None = None,
    coding: str | None = None,
    grow: Callable[[int], None] = lambda n_bytes: None,
) -> Task:
    """Read a body, and check all that can be checked before anything is allocated for the results.

    Parameters
    ----------
    call, wire, body, settings
        As in `answer`.
    times : Times, optional
        When the body was received; by default now.
    coding : str, optional
        How the body is compressed.
    grow : callable
        Called with the bytes of each piece that is decompressed, before it is kept.
    """
    times = times or Times()
    times.begun = perf_counter_ns()
    try:
        if coding:
            body = memoryview(decompressed(body, coding, settings.max_body_bytes, grow))
        asked = wire.read(body, settings)
        stage = {"forward": _forward, "backward": _backward, "plan": _plan}[call.action]
        task = stage(call, wire, asked, settings, times)
    except (Problem, PoolgradError) as error:
        raise wire.told(error) from None
    times.read = perf_counter_ns()
    return task


def _checked_plan(call: Call, shape: Any, dtype: Any, asked: Asked, given: str) -> Any:
    """Return the plan; an error about its shape names the member that the shape came from."""
    hyperparameters = call.hyperparameters(asked.members)
    return plan_of(given, call.operation.name, shape, np.dtype(dtype), hyperparameters)


def _plan(call: Call, wire: Wire, asked: Asked, settings: Settings, times: Times) -> Task:
    members = asked.members
    plan = _checked_plan(call, members["shape"], members["dtype"], asked, "shape")
    return Task(wire, settings, plan, asked, 0, 0, 0, lambda threads: {}, times)


def _forward(call: Call, wire: Wire, asked: Asked, settings: Settings, times: Times) -> Task:
    x = asked.arrays["x"]
    plan = _checked_plan(call, x.shape, x.array.dtype, asked, "x")
    with_argmax = "argmax" in asked.outputs

    def pool(threads: int | None) -> dict[str, Array]:
        if not with_argmax:
            return {"y": plan.forward(x.array, num_threads=threads)}
        y, argmax = plan.forward(x.array, return_argmax=True, num_threads=threads)
        return {"y": y, "argmax": argmax}

    results = plan.output_bytes + (plan.argmax_bytes if with_argmax else 0)
    return _within_budget(wire, settings, plan, asked, results, plan.cost, pool, times)


def _backward(call: Call, wire: Wire, asked: Asked, settings: Settings, times: Times) -> Task:
    arrays = asked.arrays
    dy, x = arrays["dy"], arrays.get("x")
    if x is None:
        plan = _checked_plan(call, asked.members["x_shape"], dy.array.dtype, asked, "x_shape")
    else:
        plan = _checked_plan(call, x.shape, x.array.dtype, asked, "x")
    given = None
    if "argmax" in arrays:
        if plan.argmax_dtype is None:
            raise refused("/argmax", "argmax: the windows have more taps than one can tell")
        given = as_indices(arrays["argmax"], plan.argmax_dtype)
    return_y = "y" in asked.outputs
    if return_y and dy.shape != plan.output_shape:
        # Compared before the forward, not after it.
        raise refused("/dy", f"dy: shape {dy.shape}; {plan.output_shape} is needed")
    # The argmax is found again where it is not given, and kept for as long as dx is made.
    finds_argmax = call.operation.has_argmax and given is None

    def pool(threads: int | None) -> dict[str, Array]:
        y, argmax = None, given
        if return_y and x is not None:
            if finds_argmax:
                y, argmax = plan.forward(x.array, return_argmax=True, num_threads=threads)
            else:
                y = plan.forward(x.array, num_threads=threads)
        xs = None if x is None else x.array
        dx = plan.backward(dy.array, xs, argmax=argmax, num_threads=threads)
        return {"dx": dx} if y is None else {"dx": dx, "y": y}

    results = plan.input_bytes + return_y * plan.output_bytes + finds_argmax * plan.argmax_bytes
    cost = plan.cost * (1 + (return_y or finds_argmax))
    return _within_budget(wire, settings, plan, asked, results, cost, pool, times)


def _within_budget(
    wire: Wire,
    settings: Settings,
    plan: Any,
    asked: Asked,
    results: int,
    cost: int,
    pool: Callable[[int | None], dict[str, Array]],
    times: Times,
) -> Task:
    """Return a task whose results, workspace and work the settings allow."""
    workspace = plan.workspace_bytes * settings.num_threads
    limit: int
    if results > (limit := settings.max_output_bytes):
        raise over_limit("", "output bytes", results, "max_output_bytes", limit)
    if workspace > (limit := settings.max_workspace_bytes):
        raise over_limit("", "workspace bytes", workspace, "max_workspace_bytes", limit)
    if cost > (limit := settings.max_work):
        raise over_limit("", "element steps", cost, "max_work", limit)
    room = 0
    for name in asked.outputs:
        shape = plan.input_shape if name == "dx" else plan.output_shape
        dtype = plan.argmax_dtype if name == "argmax" else plan.dtype
        if dtype is not None:
            room += wire.room(dtype, prod(shape))
    return Task(wire, settings, plan, asked, results, room, cost, pool, times)
