"""The application: settings in, an ASGI application out. Nothing happens at import."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import re
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import poolgrad
from poolgrad_service import docs, v2_routes
from poolgrad_service.admission import Work
from poolgrad_service.errors import TABLE, problem_response
from poolgrad_service.routes import calls, document, post, router
from poolgrad_service.service import Post, Service, headers_of
from poolgrad_service.settings import Settings, SettingsError, load

__all__ = ["HEADERS", "Application", "create_app"]

logger = logging.getLogger("poolgrad_service")

#: Request ids that are taken over; others would let a client write into the log.
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")

#: Seconds for which the rest of a refused body is read and thrown away.
LINGER: Final = 2.0

#: The headers of every response, where it has no others of these names.
HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)

_NAMES: Final = frozenset(name for name, _ in HEADERS)

_DESCRIPTION: Final = """Pooling, forward and backward, on arrays in JSON.

An array is a nested list, or an object with `shape`, `dtype` and either flat `data` or `base64`
(little-endian, row by row). Numbers that are not finite are the strings `"NaN"`, `"Infinity"` and
`"-Infinity"`. A reply has exactly the bits of the same call of the Python library.

Every error is an `application/problem+json` document. Other routes answer 404, other methods 405.
"""


def _note(scope: Scope) -> tuple[str, dict[bytes, str]]:
    """Note a request's id, and its headers by name, in its scope, and return them."""
    names: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        text = value.decode("latin-1")
        names[name] = f"{names[name]},{text}" if name in names else text
    given = names.get(b"x-request-id", "")
    request_id = given if _REQUEST_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"
    scope["state"] = {**scope.get("state", {}), "request_id": request_id, "headers": names}
    return request_id, names


class Frame:
    """What is common to all responses, as pure ASGI around the application.

    Parameters
    ----------
    app : callable
        The application inside.
    root_path : str
        The path under which a proxy serves this; requests may come with it or without.

    Notes
    -----
    - Each request has an id: the client's if it is harmless, else a new one.
    - HEAD is answered as GET, without the body.
    - An unexpected error is logged under the request's id and answered without a word about it.
    - Where a request is answered before its body was read, the connection is closed, but the rest
      of the body is read first for a moment. Closing at once would reset the connection, and a
      client that still sends would never see the answer (RFC 9112, 9.6).
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self.app = app
        self.root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        head = scope["method"] == "HEAD"
        if head:
            scope = {**scope, "method": "GET"}
        scope["root_path"] = self.root_path or scope.get("root_path", "")
        request_id, names = _note(scope)
        unread = b"transfer-encoding" in names or names.get(b"content-length", "0") != "0"
        started = False

        async def receiving() -> Message:
            nonlocal unread
            message = await receive()
            if not message.get("more_body", False):
                unread = False
            return message

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                own = dict(message["headers"])
                headers = [*message["headers"], (b"x-request-id", request_id.encode())]
                headers += (
                    HEADERS if _NAMES.isdisjoint(own) else [h for h in HEADERS if h[0] not in own]
                )
                if unread:
                    headers.append((b"connection", b"close"))
                message = {**message, "headers": headers}
            elif head:
                message = {**message, "body": b""}
            if message["type"] == "http.response.body" and unread and not message.get("more_body"):
                await send({**message, "more_body": True})
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LINGER):
                        while unread:
                            await receiving()
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)

        try:
            await self.app(scope, receiving, sending)
        except TimeoutError:
            # A client took too long to take its reply; the server closes the connection.
            logger.warning("request %s: the reply was not taken in time", request_id)
        except Exception as error:
            logger.exception("request %s failed", request_id)
            if started:
                raise
            await problem_response(Request(scope), error)(scope, receiving, sending)


_KNOWN: Final[tuple[type[Exception], ...]] = tuple(TABLE)


class Application(FastAPI):
    """An application whose poolings go past FastAPI, which takes as long as a small one itself.

    FastAPI has their routes too, for its document, for other methods, and under a proxy's path.
    """

    def answer_directly(self, posts: Mapping[str, Post]) -> None:
        """Take what answers POSTs, by path."""

        async def direct(scope: Scope, receive: Receive, send: Send) -> None:
            request = Request(scope, receive, send)
            try:
                response = await posts[scope["path"]].respond(request)
            except _KNOWN as error:
                response = problem_response(request, error)
                # Its frames refer back to it in a circle, and hold the body.
                error.__traceback__ = None
            await response(scope, receive, send)

        self._posts = posts
        self._direct = Frame(direct, self.state.service.settings.root_path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in self._posts:
            scope["app"] = self
            await self._direct(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def at_once(
        self, scope: Scope, body: memoryview
    ) -> tuple[list[tuple[bytes, bytes]], bytes] | None:
        """Return the headers and the body of the reply to a POST, if that is done in no time.

        A server that has a short body already can save what a task and ASGI take, which is more
        than such a reply itself. All others are answered by a call, the usual way.
        """
        post = self._posts.get(scope["path"])
        if post is None:
            return None
        scope["app"] = self
        request_id, _ = _note(scope)
        reply = post.at_once(Request(scope), body)
        if reply is None:
            return None
        headers = [*headers_of(reply), (b"x-request-id", request_id.encode()), *HEADERS]
        return headers, b"".join(reply.parts)


async def _refuse(request: Request, error: Exception) -> Response:
    response = problem_response(request, error)
    if response.status_code == 405 and request.method == "OPTIONS":
        return Response(status_code=204, headers={"Allow": response.headers["Allow"]})
    return response


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    shown = json.dumps(service.settings.model_dump(), sort_keys=True)
    logger.info("poolgrad %s starts with %s", poolgrad.__version__, shown)
    work = service.work = Work(service.settings.workers, service.settings.queue_size)
    try:
        yield
    finally:
        service.draining = True
        work.close()


async def _openapi(request: Request) -> Response:
    return JSONResponse(document(request.app))


def create_app(settings: Settings | None = None) -> Application:
    """Return the service as an ASGI application.

    Parameters
    ----------
    settings : Settings, optional
        The operator's settings; by default those of the environment.

    Returns
    -------
    Application
        The application, which is FastAPI's. It starts no thread before its lifespan begins.

    Raises
    ------
    SystemExit
        With status 2, if no settings are given and the environment's are bad. Servers call a
        factory without catching anything, and one line is better than their traceback.

    Examples
    --------
    >>> from poolgrad_service import Settings, create_app
    >>> app = create_app(Settings(max_elements=1000))
    """
    if settings is None:
        try:
            settings = load()
        except SettingsError as error:
            print(f"poolgrad: {error}", file=sys.stderr)
            raise SystemExit(2) from None
    app = Application(
        title="Poolgrad",
        version=poolgrad.__version__,
        description=_DESCRIPTION,
        lifespan=_lifespan,
        # Both are replaced: FastAPI's page loads its assets from elsewhere.
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        # A redirect would echo the Host header.
        redirect_slashes=False,
    )
    app.state.service = Service(settings)
    app.openapi = lambda: document(app)  # type: ignore[method-assign]
    app.state.models = v2_routes.models()
    app.include_router(router())
    app.include_router(v2_routes.router())
    app.router.routes.append(Route("/openapi.json", _openapi, methods=["GET"]))
    if settings.docs:
        app.router.routes.extend(docs.routes())
    for kind in TABLE:
        app.add_exception_handler(kind, _refuse)
    app.add_middleware(Frame, root_path=settings.root_path)
    v1 = {call.path: post(call) for call in calls()}
    app.answer_directly(v1 | v2_routes.posts(app.state.models.values()))
    return app
