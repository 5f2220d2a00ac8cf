"""What a body's members may be, told twice from one source: to pydantic and to OpenAPI.

pydantic checks the presence and JSON types of hyperparameters, never arrays (`codec` does) and
never meaning (the library does). Members follow from the library's registry, so a new operation
needs no line here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from inspect import Parameter
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
    create_model,
)
from pydantic_core import PydanticCustomError

from poolgrad import Operation
from poolgrad.errors import show
from poolgrad_service.codec import ARRAYS, DTYPES, FORMS, INDEX_DTYPES
from poolgrad_service.errors import PROBLEM_TYPE, Problem, refused

__all__ = ["ACTIONS", "COMPONENTS", "ERRORS", "Call", "examples", "reply_schema"]

#: What can be asked of an operation, with a summary for people.
ACTIONS: Final = {
    "forward": "Pool x.",
    "backward": "Return the gradient with respect to x, given the one with respect to y.",
    "plan": "Check a pooling and tell its shapes and bytes, without data.",
}

_INTEGER: Final = {"type": "integer"}
_INTEGERS: Final = {"type": "array", "items": _INTEGER}


def _is_int(value: object) -> bool:
    return type(value) is int


def _are_ints(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_int, value))


def _kind(accepts: Callable[[object], bool], needed: str, schema: dict[str, Any]) -> Any:
    """Return a type for pydantic with one plain message, where a union would have several."""

    def check(value: object) -> object:
        if not accepts(value):
            # Braces would be read as fields of pydantic's own template.
            shown = show(value).replace("{", "(").replace("}", ")")
            raise PydanticCustomError("kind", f"{shown} is not {needed}")
        return value

    return Annotated[Any, PlainValidator(check), WithJsonSchema(schema)]


_AN_INTEGER: Final = _kind(_is_int, "an integer", _INTEGER)
_A_BOOLEAN: Final = _kind(lambda value: type(value) is bool, "true or false", {"type": "boolean"})
_A_STRING: Final = _kind(lambda value: type(value) is str, "a string", {"type": "string"})
_SHAPE: Final = _kind(_are_ints, "a list of integers", _INTEGERS)
_PER_AXIS: Final = _kind(
    lambda value: _is_int(value) or _are_ints(value),
    "an integer or a list of integers",
    {"oneOf": [_INTEGER, _INTEGERS]},
)
_OUTPUT_SIZE: Final = _kind(
    lambda value: (
        _is_int(value)
        or (isinstance(value, list) and all(item is None or _is_int(item) for item in value))
    ),
    "an integer or a list of integers and nulls",
    {
        "oneOf": [
            _INTEGER | {"minimum": 1},
            {
                "type": "array",
                "items": {"oneOf": [_INTEGER | {"minimum": 1}, {"type": "null"}]},
            },
        ]
    },
)
_STRIDE: Final = _kind(
    lambda value: value is None or _is_int(value) or _are_ints(value),
    "an integer, a list of integers or null",
    {"oneOf": [_INTEGER, _INTEGERS, {"type": "null"}]},
)
_PADDING: Final = _kind(
    lambda value: (
        _is_int(value)
        or type(value) is str
        or (isinstance(value, list) and all(_is_int(item) or _are_ints(item) for item in value))
    ),
    "an integer, a list of integers or of [before, after] pairs, or a name",
    {
        "oneOf": [
            _INTEGER,
            {
                "type": "array",
                "items": {
                    "oneOf": [_INTEGER, _INTEGERS | {"minItems": 2, "maxItems": 2}],
                },
            },
            {"enum": ["valid", "same", "same_lower", "same_size"]},
        ]
    },
)
_LAYOUT: Final = _kind(
    lambda value: type(value) is str,
    "a string",
    {"enum": ["channels_last", "channels_first"]},
)
_OVERRIDE: Final = _kind(
    lambda value: value is None or _is_int(value),
    "an integer or null",
    {"oneOf": [_INTEGER | {"minimum": 1}, {"type": "null"}]},
)

#: Types of hyperparameters whose default does not tell them.
_KINDS: Final = {
    "kernel_size": _PER_AXIS,
    "output_size": _OUTPUT_SIZE,
    "stride": _STRIDE,
    "padding": _PADDING,
    "dilation": _PER_AXIS,
    "layout": _LAYOUT,
    "divisor_override": _OVERRIDE,
}

_WORDS: Final = {
    "kernel_size": "Taps of a window, for all spatial axes or for each.",
    "output_size": "Windows, for all spatial axes or for each; null keeps an axis as it is.",
    "stride": "Cells from window to window; null for kernel_size.",
    "padding": "Cells around x, for all axes, for each, or as [before, after] pairs; or a name.",
    "dilation": "Cells from tap to tap.",
    "ceil_mode": "Whether a window may overhang the end.",
    "layout": "Where the channels are: (N, spatial axes, C) or (N, C, spatial axes).",
    "count_include_pad": "Whether padding counts in an average's divisor.",
    "divisor_override": "Replaces every divisor.",
}


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def _hyperparameter(name: str, default: object) -> tuple[Any, Any]:
    """Return a hyperparameter's type and field; an unknown one's type is its default's."""
    by_default = {bool: _A_BOOLEAN, int: _AN_INTEGER, str: _A_STRING}
    kind = _KINDS.get(name) or by_default.get(type(default), JsonValue)
    words = _WORDS.get(name)
    if default is Parameter.empty:
        return kind, Field(description=words)
    if isinstance(default, tuple):
        default = list(default)
    return kind, Field(default, description=words)


@dataclass(frozen=True)
class Call:
    """One route: an action on an operation, and what its body may hold.

    Parameters
    ----------
    operation : poolgrad.Operation
        The operation, from the library's registry.
    action : str
        One of `ACTIONS`.
    """

    operation: Operation
    action: str

    @cached_property
    def path(self) -> str:
        """The route's path."""
        return f"/v1/{self.operation.name}/{self.action}"

    @cached_property
    def arrays(self) -> tuple[str, ...]:
        """The arrays that the body may have; the first is required, where there is one."""
        if self.action == "forward":
            return ("x",)
        if self.action == "backward":
            return ("dy", "x", "argmax") if self.operation.has_argmax else ("dy", "x")
        return ()

    @property
    def takes_npy(self) -> bool:
        """Whether one array is all that a body needs, beside numbers and words."""
        return len(self.arrays) == 1 or (
            self.action == "backward" and not self.operation.has_argmax
        )

    @cached_property
    def model(self) -> type[BaseModel]:
        """The model of all members that are no arrays."""
        members: dict[str, Any] = {
            name: _hyperparameter(name, default)
            for name, default in self.operation.parameters.items()
        }
        members["dtype"] = (
            Literal[DTYPES],
            Field("float32", description="What nested lists are read as."),
        )
        if self.action == "plan":
            members["shape"] = (_SHAPE, Field(description="The shape of x."))
        else:
            members["encoding"] = (
                Literal[FORMS] | None,
                Field(
                    None,
                    description="The form of the reply's arrays; by default that of x, else of dy.",
                ),
            )
        if self.action == "forward" and self.operation.has_argmax:
            members["return_argmax"] = (
                _A_BOOLEAN,
                Field(False, description="Whether to return the argmax too."),
            )
        if self.action == "backward":
            words = "The shape of x, in place of x"
            words += " where argmax is given." if self.operation.has_argmax else "."
            members["x_shape"] = (_SHAPE, Field(None, description=words))
            members["return_y"] = (
                _A_BOOLEAN,
                Field(False, description="Whether to return the output too; needs x."),
            )
        title = "".join(part.title() for part in self.operation.name.split("_"))
        config = ConfigDict(strict=True, extra="forbid", frozen=True)
        return create_model(f"{title}{self.action.title()}", __config__=config, **members)

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self.model.model_fields)

    def check(self, fields: Mapping[str, Any], arrays: Mapping[str, Any]) -> dict[str, Any]:
        """Check a body's members and return all that are no arrays, defaults included.

        Raises
        ------
        Problem
            422, with a pointer to each member at fault.
        """
        errors: list[tuple[str, str]] = [
            (f"/{name}", self._unknown(name)) for name in arrays if name not in self.arrays
        ]
        # pydantic would do this too, but not for a name that holds half a character.
        known, unknown = fields, fields.keys() - self._names
        if unknown:
            known = {name: value for name, value in fields.items() if name in self._names}
        for name in unknown:
            shown = show(name)[1:-1]
            pointer = "/" + shown.replace("~", "~0").replace("/", "~1")
            errors.append((pointer, self._unknown(name)))
        if self.arrays and self.arrays[0] not in arrays:
            name = self.arrays[0]
            errors.append((f"/{name}", f"{name}: the array is missing"))
        try:
            checked = self.model.__pydantic_validator__.validate_python(known)
        except ValidationError as error:
            for item in error.errors(include_url=False):
                name = str(item["loc"][0])
                if item["type"] == "missing":
                    message = f"{name}: a value is missing"
                elif item["type"] == "literal_error":
                    message = (
                        f"{name}: {show(item['input'])} is not one of {item['ctx']['expected']}"
                    )
                else:
                    message = f"{name}: {item['msg']}"
                errors.append((f"/{name}", message))
            checked = None
        if errors or checked is None:
            wrong = {pointer[1:] for pointer, _ in errors} <= self.operation.parameters.keys()
            members = {"exception": "ParameterError"} if wrong else {}
            detail = "; ".join(message for _, message in errors[:4])
            raise Problem(422, detail, errors[:16], members=members)
        members = dict(checked.__dict__)
        if self.action == "backward":
            self._check_backward(members, arrays)
        return members

    def _check_backward(self, members: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
        if ("x" in arrays) == (members["x_shape"] is not None):
            detail = "exactly one of x and x_shape is needed"
            raise Problem(422, detail, [("/x", detail), ("/x_shape", detail)])
        if "x" not in arrays:
            if self.operation.has_argmax and "argmax" not in arrays:
                raise refused("/argmax", "argmax: with x_shape in place of x, the argmax is needed")
            if members["return_y"]:
                raise refused("/return_y", "return_y: the output can only be had from x")

    def _unknown(self, name: str) -> str:
        known = ", ".join([*self.arrays, *self.model.model_fields])
        return f"{show(name)[1:-1]}: unknown member; {self.path} takes {known}"

    def hyperparameters(self, members: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return the operation's own among the checked members, in its order, lists as tuples.

        The library keeps the plans of what is hashable.
        """
        return tuple([_as_tuple(members[name]) for name in self.operation.parameters])

    def body_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the body."""
        schema = self.model.model_json_schema()
        arrays = {
            name: {"$ref": f"#/components/schemas/{'Argmax' if name == 'argmax' else 'Array'}"}
            for name in self.arrays
        }
        schema["properties"] = arrays | schema["properties"]
        schema["required"] = [*self.arrays[:1], *schema.get("required", [])]
        if self.action == "backward":
            schema["properties"]["x_shape"].pop("default", None)
            schema["oneOf"] = [{"required": ["x"]}, {"required": ["x_shape"]}]
        return schema

    def query_parameters(self) -> list[dict[str, Any]]:
        """Return what a query has, where the body is an array, as OpenAPI describes it."""
        schema = self.model.model_json_schema()
        return [
            {
                "name": name,
                "in": "query",
                "description": "Where the body is application/x-npy. "
                + told.get("description", ""),
                "schema": {"type": "string"},
            }
            for name, told in schema["properties"].items()
            if name not in ("dtype", "return_y")
        ]


def reply_schema(call: Call) -> dict[str, Any]:
    """Return the JSON Schema of a call's reply."""
    shape = {"type": "array", "items": {"type": "integer", "minimum": 0}}
    array = {"$ref": "#/components/schemas/Array"}
    dtype = {"enum": list(DTYPES)}
    properties: dict[str, Any]
    if call.action == "forward":
        properties = {"y": array, "shape": shape, "dtype": dtype}
        required = list(properties)
        if call.operation.has_argmax:
            properties["argmax"] = {"$ref": "#/components/schemas/Argmax"}
    elif call.action == "backward":
        properties = {"dx": array, "shape": shape, "dtype": dtype}
        required = list(properties)
        properties["y"] = array
    else:
        pair = {**shape, "minItems": 2, "maxItems": 2}
        size = {"type": "integer", "minimum": 0}
        properties = {
            "op": {"const": call.operation.name},
            "input_shape": shape,
            "output_shape": shape,
            "dtype": dtype,
            "argmax_dtype": {"enum": [*INDEX_DTYPES, None]},
            "kernel_size": shape,
            "stride": {"oneOf": [shape, {"type": "null"}]},
            "dilation": shape,
            "padding": {"type": "array", "items": pair},
            "output_bytes": size,
            "workspace_bytes": size,
        }
        required = list(properties)
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


# -------------------------------------------------------------------------------------- examples

_X: Final[Any] = [
    [[[1], [3], [2], [0]], [[4], [2], [1], [5]], [[0], [1], [7], [6]], [[2], [8], [3], [1]]]
]
_X_BASE64: Final = (
    "AACAPwAAQEAAAABAAAAAAAAAgEAAAABAAACAPwAAoEAAAAAAAACAPwAA4EAAAMBAAAAAQAAAAEEAAEBAAACAPw=="
)
_DY: Final = [[[[0.5], [1]], [[-1], [0.25]]]]


def examples(call: Call) -> dict[str, dict[str, Any]]:
    """Return bodies to try, by name, each with a summary; none if the operation needs more."""
    needed = [n for n, d in call.operation.parameters.items() if d is Parameter.empty]
    if needed not in (["kernel_size"], ["output_size"]):
        return {}
    adaptive = needed == ["output_size"]
    # On four by four cells, two windows an axis are windows of two.
    pool: dict[str, Any] = {needed[0]: 2}
    shape = [1, 4, 4, 1]
    flat = [1, 3, 2, 0, 4, 2, 1, 5, 0, 1, 7, 6, 2, 8, 3, 1]
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    if call.action == "plan":
        large = {"kernel_size": 3, "stride": 2, "padding": "same"}
        found["plan"] = (
            "A large image",
            {"shape": [8, 224, 224, 64], **({"output_size": 5} if adaptive else large)},
        )
        pairs = {"kernel_size": [3, 2], "padding": [[1, 0], [0, 1]]}
        found["keep" if adaptive else "pairs"] = (
            ("One axis kept" if adaptive else "Padding as pairs") + ", channels first, float64",
            {
                "shape": [1, 3, 7, 7],
                "dtype": "float64",
                "layout": "channels_first",
                **({"output_size": [3, None]} if adaptive else pairs),
            },
        )
    elif call.action == "forward":
        found["nested"] = ("Nested lists", {"x": _X, **pool})
        found["flat"] = (
            "Shape, dtype and flat data",
            {"x": {"shape": shape, "dtype": "float64", "data": flat}, **pool},
        )
        found["base64"] = (
            "Shape, dtype and base64",
            {"x": {"shape": shape, "dtype": "float32", "base64": _X_BASE64}, **pool},
        )
        found["channels_first"] = (
            "Channels first, overlapping windows",
            {
                "x": [[[[cell[0] for cell in row] for row in _X[0]]]],
                "layout": "channels_first",
                **(
                    {"output_size": [3, 5]}
                    if adaptive
                    else {"kernel_size": [3, 3], "stride": 1, "padding": [1, 1]}
                ),
                "dtype": "float64",
            },
        )
        found["non_finite"] = (
            "Non-finite numbers",
            {"x": [[["NaN"], [1], ["-Infinity"], ["-Infinity"]]], **pool},
        )
        if call.operation.has_argmax:
            found["argmax"] = ("With its argmax", {"x": _X, "return_argmax": True, **pool})
    else:
        found["with_x"] = (
            "Output and gradient in one call",
            {
                "dy": _DY,
                "x": _X,
                "return_y": True,
                **pool,
            },
        )
        saved: dict[str, Any] = (
            {"argmax": [[[[2], [3]], [[3], [0]]]]} if call.operation.has_argmax else {}
        )
        found["with_shape"] = (
            "Without x" + (", from a saved argmax" if saved else ""),
            {"dy": _DY, "x_shape": shape, **saved, **pool},
        )
        if saved:
            saved = {"argmax": {"shape": [1, 2, 2, 1], "dtype": "uint8", "base64": "AgMDAA=="}}
        flat_dy = {"shape": [1, 2, 2, 1], "dtype": "float32", "data": [0.5, 1, -1, 0.25]}
        found["objects"] = (
            "Flat data in, base64 out",
            {"dy": flat_dy, "x_shape": shape, **saved, "encoding": "base64", **pool},
        )
    return {name: {"summary": words, "value": body} for name, (words, body) in found.items()}


# ------------------------------------------------------------------------------------ components


def _array_schema(what: str, dtypes: tuple[str, ...], number: dict[str, Any]) -> dict[str, Any]:
    shape = {"type": "array", "items": {"type": "integer", "minimum": 0}}
    rows: dict[str, Any] = number
    for _ in range(5):
        rows = {"oneOf": [number, {"type": "array", "items": rows}]}
    head = {"shape": shape, "dtype": {"enum": list(dtypes)}}
    return {
        "description": f"{what}: nested lists, or an object with flat data or with base64.",
        "oneOf": [
            {"title": "nested", "type": "array", "items": rows["oneOf"][1]["items"]},
            {
                "title": "flat",
                "type": "object",
                "properties": {**head, "data": {"type": "array", "items": number}},
                "required": ["shape", "dtype", "data"],
                "additionalProperties": False,
            },
            {
                "title": "base64",
                "type": "object",
                "properties": {
                    **head,
                    "base64": {
                        "type": "string",
                        "contentEncoding": "base64",
                        "description": "The little-endian bytes, row by row.",
                    },
                },
                "required": ["shape", "dtype", "base64"],
                "additionalProperties": False,
            },
        ],
    }


#: A whole body that is one array.
NPY: Final = {
    "type": "string",
    "format": "binary",
    "description": "One float32 or float64 array, as numpy.save writes it.",
}

#: Bodies of the Open Inference Protocol.
V2_REQUEST: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "parameters": {
            "type": "object",
            "additionalProperties": {"type": ["string", "number", "boolean"]},
        },
        "inputs": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "shape": _INTEGERS,
                    "datatype": {"enum": ["FP32", "FP64", "UINT8", "INT32", "INT64"]},
                    "parameters": {"type": "object"},
                    "data": {"type": "array"},
                },
                "required": ["name", "shape", "datatype"],
            },
        },
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "parameters": {"type": "object"}},
                "required": ["name"],
            },
        },
    },
    "required": ["inputs"],
}
V2_BINARY: Final = {
    "type": "string",
    "format": "binary",
    "description": "JSON of Inference-Header-Content-Length bytes, then the tensors' bytes.",
}
V2_EXAMPLE: Final[dict[str, Any]] = {
    "parameters": {"kernel_size": 2},
    "inputs": [{"name": "x", "shape": [1, 4, 1], "datatype": "FP32", "data": [1, 5, 2, 4]}],
}

_NUMBER: Final = {"oneOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]}

#: The document's shared schemas.
COMPONENTS: Final[dict[str, Any]] = {
    "Array": _array_schema("An array", DTYPES, _NUMBER),
    "Argmax": _array_schema(
        "Positions in the window; 255 (uint8) or -1 (int32) for none", INDEX_DTYPES, _INTEGER
    ),
    "Problem": {
        "description": "An error (RFC 9457).",
        "type": "object",
        "properties": {
            "type": {"type": "string", "format": "uri-reference"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "instance": {"type": "string", "format": "uri-reference"},
            "error": {"type": "string", "description": "The detail again."},
            "errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "pointer": {"type": "string", "description": "JSON Pointer to the place."},
                        "detail": {"type": "string"},
                    },
                    "required": ["pointer", "detail"],
                },
            },
            "exception": {
                "type": "string",
                "description": "The name of the library's exception of the same words.",
            },
            "limit": {
                "type": "object",
                "properties": {"setting": {"type": "string"}, "value": {"type": "integer"}},
                "required": ["setting", "value"],
            },
        },
        "required": ["type", "title", "status", "detail", "instance", "error"],
    },
}

_REASONS: Final = {
    400: "The body is no JSON text.",
    404: "There is no such route, operation or model.",
    405: "The route does not take this method; Allow lists those that it takes.",
    406: "Accept allows none of the types that the reply can have.",
    408: "The body did not arrive in time.",
    413: "The body is larger than max_body_bytes.",
    415: "The body's content type or content coding is none of those that are known.",
    422: "The body can be read, but not accepted.",
    500: "The service failed.",
    503: "The service is busy, not ready or out of memory.",
}

_HEADERS: Final = {
    405: {"Allow": {"schema": {"type": "string"}}},
    415: {
        "Accept": {"schema": {"type": "string"}},
        "Accept-Encoding": {"schema": {"type": "string"}},
    },
    503: {"Retry-After": {"schema": {"type": "integer"}}},
}


def _error(status: int) -> dict[str, Any]:
    detail = _REASONS[status]
    document = Problem(status, detail).document("00000000000000000000000000000000")
    response: dict[str, Any] = {
        "description": detail,
        "content": {
            PROBLEM_TYPE: {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "example": json.loads(json.dumps(document)),
            }
        },
    }
    if status in _HEADERS:
        response["headers"] = _HEADERS[status]
    return response


#: Every error response, by status.
ERRORS: Final[dict[int | str, dict[str, Any]]] = {status: _error(status) for status in _REASONS}

if set(ARRAYS) != {"x", "dy", "argmax"}:
    raise ImportError("schemas and codec disagree about the arrays of a body")
