"""The routes: what each accepts and answers, and what the OpenAPI document tells of it."""

from __future__ import annotations

import json
import platform
from importlib import metadata
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

import poolgrad
from poolgrad import dispatch
from poolgrad_service import npy, schemas
from poolgrad_service.answers import Wire, answer
from poolgrad_service.errors import Problem, title
from poolgrad_service.schemas import Call
from poolgrad_service.service import Post, check_accept, check_ready, header
from poolgrad_service.settings import Settings
from poolgrad_service.v1 import V1

__all__ = ["calls", "document", "post", "router"]

MEDIA_TYPE: Final = "application/json"

# ---------------------------------------------------------------------------------------- routes


async def _live(request: Request) -> Response:
    """Tell that the process runs and its event loop turns."""
    check_accept(request, MEDIA_TYPE)
    return JSONResponse({"status": "live"})


async def _ready(request: Request) -> Response:
    """Tell whether requests should be sent here."""
    check_accept(request, MEDIA_TYPE)
    check_ready(request)
    return JSONResponse({"status": "ready"})


async def _version(request: Request) -> Response:
    """Tell what runs here, and its limits."""
    check_accept(request, MEDIA_TYPE)
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
            "content": {MEDIA_TYPE: {"schema": schemas.reply_schema(call)}}
            | ({} if call.action == "plan" else {npy.MEDIA_TYPE: {"schema": schemas.NPY}}),
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


def _answered(call: Call, body: bytes, settings: Settings) -> bytes:
    return b"".join(answer(call, V1(call), memoryview(body), settings).parts)


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
                        _answered(call, json.dumps(example["value"]).encode(), usual)
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
        content: dict[str, Any] = {
            MEDIA_TYPE: {"schema": call.body_schema(), "examples": schemas.examples(call)}
        }
        more: dict[str, Any] = {}
        if call.takes_npy:
            content[npy.MEDIA_TYPE] = {"schema": schemas.NPY}
            more = {"parameters": call.query_parameters()}
        routes.add_api_route(
            call.path,
            post(call).respond,
            methods=["POST"],
            operation_id=f"{call.operation.name}_{call.action}",
            summary=schemas.ACTIONS[call.action],
            description=call.operation.summary,
            tags=[call.operation.name],
            response_model=None,
            responses=_post_responses(call),
            openapi_extra={"requestBody": {"required": True, "content": content}, **more},
        )
    status = _object(status=_STRING)
    version = _object(
        **dict.fromkeys(("library", "service", "python", "numpy", "kernels"), _STRING),
        operations={"type": "array", "items": _STRING},
        threads=_object(workers=_COUNT, num_threads=_COUNT),
        limits={"type": "object", "additionalProperties": {"type": "number"}},
    )
    for path, status_of, responses in (
        ("/health/live", _live, _get_responses("The process runs.", status)),
        ("/health/ready", _ready, _get_responses("Requests are welcome.", status, 503)),
        ("/version", _version, _get_responses("What runs here.", version)),
    ):
        routes.add_api_route(
            path,
            status_of,
            methods=["GET"],
            operation_id=path.strip("/").replace("/", "_"),
            summary=status_of.__doc__,
            tags=["service"],
            response_model=None,
            responses=responses,
        )
    return routes


def post(call: Call) -> Post:
    """Return what answers a call's POSTs."""
    # An npy is one array, so it can be all of a body where one array is all that is needed.
    given = [MEDIA_TYPE, npy.MEDIA_TYPE][: 1 + call.takes_npy]
    wanted = [MEDIA_TYPE] if call.action == "plan" else [MEDIA_TYPE, npy.MEDIA_TYPE]

    def judge(request: Request) -> tuple[Wire, int]:
        kind = _content_type(request, given)
        # Without a preference, a reply is of the body's own type.
        offers = wanted if kind == MEDIA_TYPE else wanted[::-1]
        wire = V1(
            call,
            kind,
            check_accept(request, *offers),
            request.scope["query_string"].decode("latin-1"),
        )
        return wire, 0

    return Post(call, judge)


def _content_type(request: Request, known: list[str]) -> str:
    """Return the media type of a body, or raise the problem of one that is not known."""
    given = header(request, b"content-type")
    if given in known:
        return given
    found, *parameters = given.split(";")
    kind = found.strip().lower()
    headers = {"Accept": ", ".join(known)}
    if kind not in known:
        detail = f"the body's Content-Type must be {' or '.join(known)}"
        raise Problem(415, detail, headers=headers)
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip().lower() == "charset" and value.strip().strip('"').lower() not in (
            "utf-8",
            "utf8",
        ):
            detail = "JSON is always UTF-8; another charset is given"
            raise Problem(415, detail, headers=headers)
    return kind
