"""Every refusal, and how it is told: one exception, one table, one document form.

A refusal is an RFC 9457 problem document with two extension members: ``errors``, a list of
``{"pointer", "detail"}`` where a place in the body is at fault, and ``error``, the detail again
under the name that clients of the Open Inference Protocol read.

Details are written here or by the library. What they quote from a request is cut short and
escaped by `poolgrad.errors.show`; nothing else of a request is ever echoed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from poolgrad.errors import DtypeError, ParameterError, PoolgradError, ShapeError

__all__ = [
    "PROBLEM_TYPE",
    "TABLE",
    "Problem",
    "busy",
    "over_limit",
    "problem_of",
    "problem_response",
    "refused",
    "title",
    "too_large",
    "unreadable",
]

PROBLEM_TYPE: Final = "application/problem+json"

#: Seconds after which a client that met a busy service may come back.
RETRY_AFTER: Final = 1


@dataclass(eq=False)
class Problem(Exception):
    """A request that is answered with an error.

    Parameters
    ----------
    status : int
        The HTTP status.
    detail : str
        What is wrong, in one sentence.
    errors : sequence of (str, str)
        JSON Pointers (RFC 6901) into the body, each with what is wrong there.
    headers : mapping of str to str
        Further response headers.
    members : mapping of str to object
        Further members of the document.
    """

    status: int
    detail: str
    errors: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    members: Mapping[str, object] = field(default_factory=dict)

    def document(self, request_id: str) -> dict[str, Any]:
        """Return the problem document of this error."""
        document: dict[str, Any] = {
            # With "about:blank" the title is the status's own phrase (RFC 9457, 4.2.1).
            "type": "about:blank",
            "title": title(self.status),
            "status": self.status,
            "detail": self.detail,
            "instance": f"urn:poolgrad:request:{request_id}",
            "error": self.detail,
        }
        if self.errors:
            document["errors"] = [
                {"pointer": pointer, "detail": detail} for pointer, detail in self.errors
            ]
        return document | dict(self.members)


def title(status: int) -> str:
    """Return a status's phrase as RFC 9110 has it, which Python follows only since 3.13."""
    phrases = {413: "Content Too Large", 422: "Unprocessable Content"}
    return phrases.get(status) or HTTPStatus(status).phrase


def unreadable(detail: str) -> Problem:
    """Return the problem of a body that is no JSON text."""
    return Problem(400, detail)


def refused(pointer: str, detail: str) -> Problem:
    """Return the problem of a body that can be read but not accepted."""
    return Problem(422, detail, [(pointer, detail)])


def over_limit(pointer: str, what: str, figure: int, setting: str, limit: int) -> Problem:
    """Return the problem of a request that asks for more than one of the settings allows."""
    # Python refuses to write out integers of thousands of digits, and nobody would read them.
    shown = str(figure) if figure < 2**128 else f"at least 2**{figure.bit_length() - 1}"
    detail = f"{what}: {shown} is above the limit of {limit} ({setting})"
    members = {"limit": {"setting": setting, "value": limit}}
    return Problem(422, detail, [(pointer, detail)], members=members)


def too_large(limit: int) -> Problem:
    """Return the problem of a body of more bytes than the settings allow."""
    return Problem(
        413,
        f"the body is above the limit of {limit} bytes (max_body_bytes)",
        members={"limit": {"setting": "max_body_bytes", "value": int(limit)}},
    )


def busy(detail: str) -> Problem:
    """Return the problem of a service that cannot take the request now."""
    return Problem(503, detail, headers={"Retry-After": str(RETRY_AFTER)})


def _of_library(error: Exception) -> Problem:
    """Return the problem of a library error, whose message begins with the argument at fault."""
    detail = str(error)
    argument = detail.partition(":")[0]
    errors = [(f"/{argument}", detail)] if argument.isidentifier() else []
    # With this, a client can raise the same.
    return Problem(422, detail, errors, members={"exception": type(error).__name__})


def _of_memory(error: Exception) -> Problem:
    del error  # it says how many bytes were asked for, if anything
    return busy("the service is out of memory for now")


def _of_http(error: Exception) -> Problem:
    """Return the problem of an error that the framework's router raised."""
    if not isinstance(error, HTTPException):
        raise TypeError
    headers = dict(error.headers or {})
    if error.status_code == 404:
        detail = "there is no such route; /openapi.json lists those that there are"
    elif error.status_code == 405:
        allowed = headers.get("Allow", headers.get("allow", ""))
        # The middleware answers HEAD wherever there is a GET, and the application OPTIONS.
        heads = ", HEAD" if "GET" in allowed and "HEAD" not in allowed else ""
        headers = {"Allow": f"{allowed}{heads}, OPTIONS"}
        detail = f"this route takes {headers['Allow']} only"
    else:
        detail = title(error.status_code)
    return Problem(error.status_code, detail, headers=headers)


def _as_is(error: Exception) -> Problem:
    if not isinstance(error, Problem):
        raise TypeError
    return error


#: The one exception table: what is raised on purpose, and the problem that it becomes.
TABLE: Final = {
    Problem: _as_is,
    ShapeError: _of_library,
    ParameterError: _of_library,
    DtypeError: _of_library,
    PoolgradError: _of_library,
    MemoryError: _of_memory,
    HTTPException: _of_http,
}


def problem_of(error: Exception) -> Problem:
    """Return the problem that an exception of `TABLE` becomes."""
    for kind in type(error).__mro__:
        if kind in TABLE:
            return TABLE[kind](error)
    # Nothing of an unexpected error leaves the service; the log has it under the request's id.
    return Problem(500, "the service failed; the request's id leads to the reason in its log")


def problem_response(request: Request, error: Exception) -> Response:
    """Return the response that tells an exception."""
    problem = problem_of(error)
    return Response(
        json.dumps(problem.document(request.state.request_id)).encode(),
        problem.status,
        headers=dict(problem.headers),
        media_type=PROBLEM_TYPE,
    )
