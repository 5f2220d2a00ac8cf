"""The routes of the Open Inference Protocol (V2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

import poolgrad
from poolgrad_service import schemas
from poolgrad_service.admission import read_body
from poolgrad_service.answers import Wire
from poolgrad_service.errors import Problem
from poolgrad_service.schemas import Call
from poolgrad_service.service import Post, Service, check_accept, check_ready, header
from poolgrad_service.v2 import V2, VERSION, Model

__all__ = ["models", "posts", "router"]

_JSON: Final = "application/json"
_BINARY: Final = "application/octet-stream"


def models() -> dict[str, Model]:
    """Return every operation and direction as the protocol sees it, by name."""
    found = [
        Model(Call(operation, action))
        for operation in poolgrad.OPERATIONS.values()
        for action in ("forward", "backward")
    ]
    return {model.name: model for model in found}


def posts(models: Iterable[Model]) -> dict[str, Post]:
    """Return what answers the POSTs of each model's inference, by path."""
    return {
        f"/v2/models/{model.name}{version}/infer": _post(model)
        for model in models
        for version in ("", f"/versions/{VERSION}")
    }


def _model(request: Request) -> Model:
    """Return the model that a path names, or raise the problem of one that does not exist."""
    name = request.path_params["model"]
    found: dict[str, Model] = request.app.state.models
    if name not in found:
        raise Problem(404, f"there is no model of this name; there are {', '.join(found)}")
    if request.path_params.get("version", VERSION) != VERSION:
        raise Problem(404, f"there is no such version of {name}; {VERSION} is the only one")
    return found[name]


def _post(model: Model) -> Post:
    def judge(request: Request) -> tuple[Wire, int]:
        check_accept(request, _JSON, _BINARY)
        given = header(request, b"inference-header-content-length")
        if not given:
            return V2(model), 0
        if not (given.isascii() and given.isdigit() and len(given) < 19):
            raise Problem(400, "Inference-Header-Content-Length is no number of bytes")
        length = int(given)
        return V2(model, length), length

    return Post(model.call, judge)


async def _infer(request: Request) -> Response:
    """Run a model: pool x, or return a gradient."""
    return await _post(_model(request)).respond(request)


async def _server(request: Request) -> Response:
    """Tell what this server is, and which extensions of the protocol it has."""
    extensions = ["binary_tensor_data", "model_configuration", "model_repository", "statistics"]
    return JSONResponse(
        {"name": "poolgrad", "version": poolgrad.__version__, "extensions": extensions}
    )


async def _server_live(request: Request) -> Response:
    """Tell that the process runs and its event loop turns."""
    return JSONResponse({"live": True})


async def _server_ready(request: Request) -> Response:
    """Tell whether requests should be sent here."""
    check_ready(request)
    return JSONResponse({"ready": True})


async def _models(request: Request) -> Response:
    """List the models."""
    return JSONResponse({"models": list(request.app.state.models)})


async def _metadata(request: Request) -> Response:
    """Tell a model's tensors."""
    return JSONResponse(_model(request).metadata())


async def _model_ready(request: Request) -> Response:
    """Tell whether requests to a model should be sent here."""
    name = _model(request).name
    check_ready(request)
    return JSONResponse({"name": name, "ready": True})


async def _config(request: Request) -> Response:
    """Tell a model's configuration: its tensors, and its parameters with their defaults."""
    return JSONResponse(_model(request).config())


async def _stats(request: Request) -> Response:
    """Tell how many requests there were, whatever they were written in, and how long they took."""
    service: Service = request.app.state.service
    one = "model" in request.path_params
    chosen = [_model(request)] if one else request.app.state.models.values()
    return JSONResponse({"model_stats": [_counted(service, model) for model in chosen]})


def _counted(service: Service, model: Model) -> dict[str, Any]:
    counts = service.counts_of(model.call)
    succeeded = counts.succeeded
    stages = {
        "success": (succeeded, counts.success),
        "fail": (counts.failed, counts.fail),
        "queue": (succeeded, counts.queue),
        "compute_input": (succeeded, counts.read),
        "compute_infer": (succeeded, counts.pool),
        "compute_output": (succeeded, counts.write),
        "cache_hit": (0, 0),
        "cache_miss": (0, 0),
    }
    return {
        "name": model.name,
        "version": VERSION,
        "last_inference": round(counts.last * 1000),
        "inference_count": succeeded,
        "execution_count": succeeded,
        "inference_stats": {name: {"count": n, "ns": ns} for name, (n, ns) in stages.items()},
        "batch_stats": [],
    }


async def _index(request: Request) -> Response:
    """List the models as a repository: all are always loaded."""
    service: Service = request.app.state.service
    lease = service.memory.lease()
    try:
        # It may ask for those that are ready, which are all.
        await read_body(
            header(request, b"content-length"),
            request.receive,
            service.settings,
            service.memory,
            lease,
        )
    finally:
        lease.release()
    return JSONResponse(
        [
            {"name": name, "version": VERSION, "state": "READY", "reason": ""}
            for name in request.app.state.models
        ]
    )


async def _load(request: Request) -> Response:
    """Refuse: models are a part of the service."""
    raise Problem(400, f"{_model(request).name} is built in: it cannot be loaded or unloaded")


#: Method, path below /v2, endpoint, and the statuses of its errors. A path with a model also has
#: a form with its version.
_ROUTES: Final = (
    ("GET", "", _server, ()),
    ("GET", "/health/live", _server_live, ()),
    ("GET", "/health/ready", _server_ready, (503,)),
    ("GET", "/models", _models, ()),
    ("GET", "/models/stats", _stats, ()),
    ("GET", "/models/{model}", _metadata, (404,)),
    ("GET", "/models/{model}/ready", _model_ready, (404, 503)),
    ("GET", "/models/{model}/config", _config, (404,)),
    ("GET", "/models/{model}/stats", _stats, (404,)),
    ("POST", "/models/{model}/infer", _infer, (400, 404, 406, 408, 413, 415, 500, 503)),
    ("POST", "/repository/index", _index, (408, 413, 503)),
    ("POST", "/repository/models/{model}/load", _load, (400, 404)),
    ("POST", "/repository/models/{model}/unload", _load, (400, 404)),
)


def router() -> APIRouter:
    """Return the protocol's routes."""
    routes = APIRouter(prefix="/v2")
    for method, path, endpoint, errors in _ROUTES:
        name = path.replace("{model}", "model").replace("/", "_") or "_server"
        extra: dict[str, Any] = {}
        parameters = [
            {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
        ]
        if "{model}" in path:
            extra["parameters"] = parameters
        if endpoint is _infer:
            extra["requestBody"] = {
                "required": True,
                "content": {
                    _JSON: {"schema": schemas.V2_REQUEST, "example": schemas.V2_EXAMPLE},
                    _BINARY: {"schema": schemas.V2_BINARY},
                },
            }
        content: dict[str, Any] = {_JSON: {}}
        if endpoint is _infer:
            content[_BINARY] = {"schema": schemas.V2_BINARY}
        responses: dict[int | str, Any] = {200: {"description": "OK", "content": content}}
        responses |= {status: schemas.ERRORS[status] for status in errors}
        versioned = path.replace("{model}", "{model}/versions/{version}")
        for form in dict.fromkeys((path, versioned, path or "/")):
            routes.add_api_route(
                form,
                endpoint,
                methods=[method],
                operation_id=f"v2{name}",
                summary=endpoint.__doc__,
                tags=["Open Inference Protocol"],
                response_model=None,
                responses=responses,
                openapi_extra=extra,
                include_in_schema=form == path,
            )
    return routes
