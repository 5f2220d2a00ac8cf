"""The routes: each reads a body, hands it to a worker, and sends what comes back.

The way of a request is ``answer``: bytes, arrays, a `poolgrad.Plan` with its budgets, the kernels,
bytes. It runs on a worker; the event loop only moves bytes.
"""

from __future__ import annotations

import asyncio
import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

import poolgrad
from poolgrad import dispatch
from poolgrad_service import schemas
from poolgrad_service.admission import Lease, Memory, Work, read_body
from poolgrad_service.codec import Given, as_indices, decode, encode, text_bytes
from poolgrad_service.errors import Problem, busy, over_limit, refused, title
from poolgrad_service.schemas import Call
from poolgrad_service.settings import Settings

__all__ = ["Service", "accepts_json", "answer", "calls", "document", "router"]

MEDIA_TYPE: Final = "application/json"


@dataclass
class Service:
    """What the routes of one application share.

    Parameters
    ----------
    settings : Settings
        The operator's settings.
    """

    settings: Settings
    memory: Memory = field(init=False)
    #: There while the application runs.
    work: Work | None = None
    #: Set when the process was told to stop.
    draining: bool = False

    def __post_init__(self) -> None:
        """Begin to count."""
        self.memory = Memory(self.settings.max_inflight_bytes)

    def started(self) -> Work:
        """Return the workers, or raise the `Problem` of a service that is not ready."""
        if self.work is None:
            raise busy("the service is not ready")
        return self.work


# ----------------------------------------------------------------------------------- one request


def _checked_plan(
    call: Call, shape: Any, dtype: Any, members: Mapping[str, Any], given: str
) -> Any:
    """Return the plan; an error about its shape names the member that the shape came from."""
    try:
        return poolgrad.plan(call.operation.name, shape, dtype, **call.hyperparameters(members))
    except poolgrad.ShapeError as error:
        argument, colon, rest = str(error).partition(":")
        if argument not in ("shape", "x"):
            raise
        raise poolgrad.ShapeError(f"{given}{colon}{rest}") from None


def _check_budget(settings: Settings, plan: poolgrad.Plan, n_bytes: int, work: int) -> None:
    if n_bytes > settings.max_output_bytes:
        raise over_limit("", "output bytes", n_bytes, "max_output_bytes", settings.max_output_bytes)
    workspace, most = plan.workspace_bytes * settings.num_threads, settings.max_workspace_bytes
    if workspace > most:
        raise over_limit("", "workspace bytes", workspace, "max_workspace_bytes", most)
    if work > settings.max_work:
        raise over_limit("", "element steps", work, "max_work", settings.max_work)


def answer(
    call: Call,
    body: bytes | bytearray,
    settings: Settings,
    reserve: Callable[[int], None] = lambda n_bytes: None,
) -> list[bytes]:
    """Return the reply to a body, in parts.

    Parameters
    ----------
    call : Call
        What is asked.
    body : bytes-like
        The request's body.
    settings : Settings
        The limits.
    reserve : callable
        Called with about how many bytes the results will take, before they are allocated.

    Returns
    -------
    list of bytes
        The reply's body.

    Raises
    ------
    Problem, poolgrad.PoolgradError
        If the body is refused.
    """
    fields, arrays = decode(body, max_elements=settings.max_elements, max_depth=settings.max_depth)
    members = call.check(fields, arrays)
    if call.action == "plan":
        return _plan(call, members)
    if call.action == "forward":
        return _forward(call, members, arrays, settings, reserve)
    return _backward(call, members, arrays, settings, reserve)


def _plan(call: Call, members: Mapping[str, Any]) -> list[bytes]:
    plan = _checked_plan(call, members["shape"], members["dtype"], members, "shape")
    reply = {
        "op": plan.op,
        "input_shape": plan.input_shape,
        "output_shape": plan.output_shape,
        "dtype": plan.dtype.name,
        "argmax_dtype": plan.argmax_dtype and plan.argmax_dtype.name,
        "kernel_size": plan.kernel_size,
        "stride": plan.stride,
        "dilation": plan.dilation,
        "padding": plan.padding,
        "output_bytes": plan.output_bytes,
        "workspace_bytes": plan.workspace_bytes,
    }
    return encode(reply, "nested")


def _elements(plan: Any) -> int:
    return int(plan.output_bytes // plan.dtype.itemsize)


def _reserve_reply(
    settings: Settings, reserve: Callable[[int], None], results: int, text: int
) -> None:
    """Make room for the results and their text, which are there at the same time."""
    if results + text > settings.max_inflight_bytes:
        raise over_limit(
            "",
            "bytes of the reply and its arrays, about",
            results + text,
            "max_inflight_bytes",
            settings.max_inflight_bytes,
        )
    reserve(results + text)


def _forward(
    call: Call,
    members: Mapping[str, Any],
    arrays: Mapping[str, Given],
    settings: Settings,
    reserve: Callable[[int], None],
) -> list[bytes]:
    x = arrays["x"]
    form = members["encoding"] or x.form
    plan = _checked_plan(call, x.shape, x.array.dtype, members, "x")
    with_argmax = members.get("return_argmax", False)
    results = plan.output_bytes + with_argmax * plan.argmax_bytes
    _check_budget(settings, plan, results, plan.cost)
    text = text_bytes(plan.dtype, _elements(plan), form)
    if with_argmax and plan.argmax_dtype is not None:
        text += text_bytes(plan.argmax_dtype, _elements(plan), form)
    _reserve_reply(settings, reserve, results, text)
    reply: dict[str, Any] = {}
    if with_argmax:
        reply["y"], reply["argmax"] = plan.forward(
            x.array, return_argmax=True, num_threads=settings.num_threads
        )
    else:
        reply["y"] = plan.forward(x.array, num_threads=settings.num_threads)
    reply |= {"shape": plan.output_shape, "dtype": plan.dtype.name}
    return encode(reply, form)


def _backward(
    call: Call,
    members: Mapping[str, Any],
    arrays: Mapping[str, Given],
    settings: Settings,
    reserve: Callable[[int], None],
) -> list[bytes]:
    dy, x = arrays["dy"], arrays.get("x")
    form = members["encoding"] or (x or dy).form
    if x is None:
        plan = _checked_plan(call, members["x_shape"], dy.array.dtype, members, "x_shape")
    else:
        plan = _checked_plan(call, x.shape, x.array.dtype, members, "x")
    return_y = members["return_y"]
    # The argmax is found again where it is not given, and kept for as long as dx is made.
    finds_argmax = call.operation.has_argmax and "argmax" not in arrays
    results = plan.input_bytes + return_y * plan.output_bytes + finds_argmax * plan.argmax_bytes
    _check_budget(settings, plan, results, plan.cost * (1 + (return_y or finds_argmax)))
    elements = int(plan.input_bytes // plan.dtype.itemsize) + return_y * _elements(plan)
    _reserve_reply(settings, reserve, results, text_bytes(plan.dtype, elements, form))
    threads = settings.num_threads
    argmax = None
    if "argmax" in arrays:
        if plan.argmax_dtype is None:
            raise refused("/argmax", "argmax: the windows have more taps than one can tell")
        argmax = as_indices(arrays["argmax"], plan.argmax_dtype)
    y = None
    if return_y and x is not None:
        # Shapes and dtypes are compared before the forward, not after it.
        if dy.shape != plan.output_shape:
            raise refused("/dy", f"dy: shape {dy.shape}; {plan.output_shape} is needed")
        if finds_argmax:
            y, argmax = plan.forward(x.array, return_argmax=True, num_threads=threads)
        else:
            y = plan.forward(x.array, num_threads=threads)
    dx = plan.backward(dy.array, None if x is None else x.array, argmax=argmax, num_threads=threads)
    reply: dict[str, Any] = {"dx": dx}
    if y is not None:
        reply["y"] = y
    reply |= {"shape": plan.input_shape, "dtype": plan.dtype.name}
    return encode(reply, form)


class Reply(Response):
    """A reply in parts, which hold a lease until the client has taken them."""

    def __init__(self, parts: list[bytes], lease: Lease, timeout: float) -> None:
        self.parts = parts
        self.lease = lease
        self.timeout = timeout
        super().__init__(media_type=MEDIA_TYPE)
        self.headers["Content-Length"] = str(sum(map(len, parts)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the parts, waiting for the client after each."""
        try:
            async with asyncio.timeout(self.timeout):
                await send(
                    {
                        "type": "http.response.start",
                        "status": self.status_code,
                        "headers": self.raw_headers,
                    }
                )
                for part in self.parts:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self.parts.clear()
            self.lease.release()


async def _respond(request: Request, call: Call) -> Response:
    """Answer one POST."""
    service: Service = request.app.state.service
    settings = service.settings
    work = service.started()
    _check_headers(request)
    work.check_room()  # rather now than after a long body
    lease, reply_lease = service.memory.lease(), service.memory.lease()
    try:
        body = await read_body(request.headers, request.receive, settings, service.memory, lease)
    except BaseException:
        lease.release()
        raise

    def job() -> list[bytes]:
        try:
            parts = answer(call, body, settings, reply_lease.grow)
        except BaseException:
            reply_lease.release()
            raise
        reply_lease.settle(sum(map(len, parts)))
        return parts

    parts = await work.run(
        job,
        timeout=settings.request_timeout,
        done=lease.release,
        unwanted=lambda parts: reply_lease.release(),
    )
    return Reply(parts, reply_lease, settings.reply_timeout)


# ----------------------------------------------------------------------------------- negotiation


def accepts_json(accept: str) -> bool:
    """Return whether an Accept header allows ``application/json`` (RFC 9110, 12.5.1).

    The most specific range that matches decides; a quality of 0 excludes. What cannot be parsed is
    passed over, and a header without any range allows everything.
    """
    best = (-1, 1.0)
    ranges = 0
    for item in accept.split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        if not name:
            continue
        ranges += 1
        quality = 1.0
        others = 0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                try:
                    quality = float(value.strip())
                except ValueError:
                    quality = 0.0
                break
            others += bool(parameter) and parameter not in ("charset=utf-8", 'charset="utf-8"')
        if others:
            continue  # a variant of JSON that we do not make
        rank = {"*/*": 0, "application/*": 1, MEDIA_TYPE: 2}.get(name, -1)
        if rank > best[0] or (rank == best[0] >= 0 and quality > best[1]):
            best = (rank, quality)
    return not ranges or (best[0] >= 0 and best[1] > 0)


def _check_accept(request: Request) -> None:
    if not accepts_json(",".join(request.headers.getlist("accept"))):
        raise Problem(406, f"Accept allows no {MEDIA_TYPE}, which is all that there is here")


def _check_headers(request: Request) -> None:
    """Raise the problem of a request whose reply or body would be of a foreign type."""
    _check_accept(request)
    kind, *parameters = request.headers.get("content-type", "").split(";")
    if kind.strip().lower() != MEDIA_TYPE:
        raise Problem(
            415, f"the body's Content-Type must be {MEDIA_TYPE}", headers={"Accept": MEDIA_TYPE}
        )
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip().lower() == "charset" and value.strip().strip('"').lower() not in (
            "utf-8",
            "utf8",
        ):
            raise Problem(
                415,
                "JSON is always UTF-8; another charset is given",
                headers={"Accept": MEDIA_TYPE},
            )
    codings = ",".join(request.headers.getlist("content-encoding")).split(",")
    if any(coding.strip().lower() not in ("", "identity") for coding in codings):
        raise Problem(
            415,
            "the body has a Content-Encoding; it must come as it is",
            headers={"Accept-Encoding": "identity"},
        )


# ---------------------------------------------------------------------------------------- routes


async def _live(request: Request) -> Response:
    """Tell that the process runs and its event loop turns."""
    _check_accept(request)
    return JSONResponse({"status": "live"})


async def _ready(request: Request) -> Response:
    """Tell whether requests should be sent here."""
    _check_accept(request)
    service: Service = request.app.state.service
    service.started()
    if service.draining:
        raise busy("the service is shutting down")
    return JSONResponse({"status": "ready"})


async def _version(request: Request) -> Response:
    """Tell what runs here, and its limits."""
    _check_accept(request)
    settings: Settings = request.app.state.service.settings
    return JSONResponse(
        {
            "library": poolgrad.__version__,
            "service": poolgrad.__version__,  # one distribution holds both
            "python": platform.python_version(),
            "numpy": metadata.version("numpy"),
            "kernels": dispatch.active().name,
            "operations": list(poolgrad.OPERATIONS),
            "threads": {"workers": settings.workers, "num_threads": settings.num_threads},
            "limits": {
                name: getattr(settings, name)
                for name in sorted(type(settings).model_fields)
                if name.startswith("max_") or name == "queue_size" or name.endswith("_timeout")
            },
        }
    )


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _get_responses(words: str, schema: dict[str, Any], *errors: int) -> dict[int | str, Any]:
    return {
        200: {"description": words, "content": {MEDIA_TYPE: {"schema": schema}}},
        **{status: schemas.ERRORS[status] for status in (406, *errors)},
    }


_STRING: Final = {"type": "string"}
_COUNT: Final = {"type": "integer"}


def _post_responses(call: Call) -> dict[int | str, Any]:
    return {
        200: {
            "description": "The result.",
            "content": {MEDIA_TYPE: {"schema": schemas.reply_schema(call)}},
        },
        **{status: schemas.ERRORS[status] for status in (400, 406, 408, 413, 415, 422, 500, 503)},
    }


def calls() -> list[Call]:
    """Return every action on every operation of the registry."""
    return [
        Call(operation, action)
        for operation in poolgrad.OPERATIONS.values()
        for action in schemas.ACTIONS
    ]


def document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, whose replies are what the code itself answers.

    Parameters
    ----------
    app : FastAPI
        The application whose routes are told.

    Returns
    -------
    dict
        The document, also kept in ``app.openapi_schema``.
    """
    if app.openapi_schema is None:
        settings: Settings = app.state.service.settings
        found = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            # A path starts at the host, so without this it would miss the proxy's.
            servers=[{"url": settings.root_path}] if settings.root_path else None,
        )
        found.setdefault("components", {}).setdefault("schemas", {}).update(schemas.COMPONENTS)
        found["components"]["responses"] = {
            title(int(status)).replace(" ", ""): response
            for status, response in schemas.ERRORS.items()
        }
        usual = Settings.model_construct()  # the examples are the same under every limit
        for call in calls():
            reply = found["paths"][call.path]["post"]["responses"]["200"]["content"][MEDIA_TYPE]
            reply["examples"] = {
                name: {
                    "summary": example["summary"],
                    "value": json.loads(
                        b"".join(answer(call, json.dumps(example["value"]).encode(), usual))
                    ),
                }
                for name, example in schemas.examples(call).items()
            }
        app.openapi_schema = found
    return app.openapi_schema


def router() -> APIRouter:
    """Return the service's routes."""
    routes = APIRouter()
    for call in calls():
        body = {"schema": call.body_schema(), "examples": schemas.examples(call)}
        routes.add_api_route(
            call.path,
            _endpoint(call),
            methods=["POST"],
            operation_id=f"{call.operation.name}_{call.action}",
            summary=schemas.ACTIONS[call.action],
            description=call.operation.summary,
            tags=[call.operation.name],
            response_model=None,
            responses=_post_responses(call),
            openapi_extra={"requestBody": {"required": True, "content": {MEDIA_TYPE: body}}},
        )
    status = _object(status=_STRING)
    version = _object(
        **dict.fromkeys(("library", "service", "python", "numpy", "kernels"), _STRING),
        operations={"type": "array", "items": _STRING},
        threads=_object(workers=_COUNT, num_threads=_COUNT),
        limits={"type": "object", "additionalProperties": {"type": "number"}},
    )
    for path, endpoint, responses in (
        ("/health/live", _live, _get_responses("The process runs.", status)),
        ("/health/ready", _ready, _get_responses("Requests are welcome.", status, 503)),
        ("/version", _version, _get_responses("What runs here.", version)),
    ):
        routes.add_api_route(
            path,
            endpoint,
            methods=["GET"],
            operation_id=path.strip("/").replace("/", "_"),
            summary=endpoint.__doc__,
            tags=["service"],
            response_model=None,
            responses=responses,
        )
    return routes


def _endpoint(call: Call) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        return await _respond(request, call)

    return endpoint
