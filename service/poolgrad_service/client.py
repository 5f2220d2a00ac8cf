"""Clients of the service, with the library's own functions and their arguments.

>>> from poolgrad_service.client import Client  # doctest: +SKIP
>>> with Client("http://127.0.0.1:8000") as client:  # doctest: +SKIP
...     y, argmax = client.max_pool(x, 3, stride=2, return_argmax=True)
...     dx = client.max_pool_backward(dy, x.shape, 3, stride=2, argmax=argmax)

The functions come from `poolings`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, Final, Literal, Self

import httpx

from poolgrad_service.exchange import Asked, Body, ServiceError, delay, failure, readable
from poolgrad_service.poolings import AsyncPoolings, Poolings

__all__ = ["AsyncClient", "Client", "ServiceError"]


_LOST: Final = (
    httpx.ConnectError, httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError,
)  # fmt: skip


def _unanswered(url: str, error: httpx.TransportError) -> tuple[ServiceError, bool]:
    """Return what a connection's failure means, and whether it makes sense to try again."""
    late = "in time: " if isinstance(error, httpx.TimeoutException) else ""
    failed = ServiceError(f"no answer from {url} {late}({error or type(error).__name__})")
    failed.__cause__ = error
    return failed, isinstance(error, _LOST)


class Client(Poolings):
    """A client of one service. It keeps its connections, and may be used by several threads.

    Parameters
    ----------
    url : str
        Where the service is, as ``"http://127.0.0.1:8000"``.
    format : {"binary", "json"}
        How arrays go both ways: as their bytes, or as numbers that people can read.
    timeout : float or httpx.Timeout, default 60
        Seconds to wait for the network each time.
    retries : int, default 4
        How often a request is sent again to a service that is busy or cannot be reached.
    backoff : float, default 0.1
        Seconds before the first time; they double, and the service's Retry-After is kept.
    http : httpx.Client, optional
        What sends the requests, for proxies, authentication and the like. It is not closed.

    Raises
    ------
    ShapeError, ParameterError, DtypeError
        By its functions, where the library's would raise them.
    ServiceError
        By its functions, where the service cannot be reached, or refuses for another reason.
    """

    def __init__(
        self,
        url: str,
        *,
        format: Literal["binary", "json"] = "binary",
        timeout: float | httpx.Timeout = 60.0,
        retries: int = 4,
        backoff: float = 0.1,
        http: httpx.Client | None = None,
    ) -> None:
        super().__init__(url, format)
        self._timeout = timeout
        self._retries = retries
        self._backoff = backoff
        self._owns = http is None
        self._http = httpx.Client() if http is None else http

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        if self._owns:
            self._http.close()

    def _pool(self, asked: Asked) -> Any:
        attempt = 0
        error: Exception
        while True:
            try:
                with self._http.stream(
                    "POST",
                    self.url + asked.path,
                    content=asked.content(),
                    headers=asked.headers,
                    timeout=self._timeout,
                ) as reply:
                    if reply.status_code == 200:
                        with readable():
                            body = Body(reply.headers)
                            for piece in reply.iter_raw():
                                body.add(piece)
                            return asked.results(body)
                    error = failure(reply.status_code, reply.headers, reply.read())
                again = True
            except httpx.TransportError as problem:
                error, again = _unanswered(self.url, problem)
            seconds = delay(error, attempt, self._retries if again else 0, self._backoff)
            if seconds is None:
                raise error
            time.sleep(seconds)
            attempt += 1


class AsyncClient(AsyncPoolings):
    """A client of one service, whose functions are awaited; else the same as `Client`.

    Parameters
    ----------
    url, format, timeout, retries, backoff
        As in `Client`.
    http : httpx.AsyncClient, optional
        What sends the requests. It is not closed.
    """

    def __init__(
        self,
        url: str,
        *,
        format: Literal["binary", "json"] = "binary",
        timeout: float | httpx.Timeout = 60.0,
        retries: int = 4,
        backoff: float = 0.1,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        super().__init__(url, format)
        self._timeout = timeout
        self._retries = retries
        self._backoff = backoff
        self._owns = http is None
        self._http = httpx.AsyncClient() if http is None else http

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Close the connections."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        if self._owns:
            await self._http.aclose()

    async def _pool(self, asked: Asked) -> Any:
        async def content() -> AsyncIterator[bytes]:
            for piece in asked.content():
                yield piece

        attempt = 0
        error: Exception
        while True:
            try:
                async with self._http.stream(
                    "POST",
                    self.url + asked.path,
                    content=content(),
                    headers=asked.headers,
                    timeout=self._timeout,
                ) as reply:
                    if reply.status_code == 200:
                        with readable():
                            body = Body(reply.headers)
                            async for piece in reply.aiter_raw():
                                body.add(piece)
                            return asked.results(body)
                    error = failure(reply.status_code, reply.headers, await reply.aread())
                again = True
            except httpx.TransportError as problem:
                error, again = _unanswered(self.url, problem)
            seconds = delay(error, attempt, self._retries if again else 0, self._backoff)
            if seconds is None:
                raise error
            await asyncio.sleep(seconds)
            attempt += 1
