"""Time limits that cost nothing where nothing is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from types import coroutine
from typing import Any, TypeVar

__all__ = ["within"]

T = TypeVar("T")


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine returns, within a time.

    Parameters
    ----------
    seconds : float
        For how long it may wait.
    work : coroutine
        It is begun at once. Most bodies are there already, and most replies are taken at once:
        then no timer is set, which takes longer than the rest.

    Raises
    ------
    TimeoutError
        If it takes longer.
    """
    try:
        needed = work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    async with asyncio.timeout(seconds):
        return await _rest(work, needed)


@coroutine
def _rest(work: Coroutine[Any, Any, T], needed: Any) -> Generator[Any, Any, T]:
    """Go on with a coroutine that has begun and needs something first."""
    while True:
        try:
            try:
                given = yield needed
            except BaseException as error:
                needed = work.throw(error)
            else:
                needed = work.send(given)
        except StopIteration as end:
            result: T = end.value
            return result
