"""The Open Inference Protocol (V2) over REST, with its binary tensor data extension.

A model is an operation and a direction: ``max_pool``, ``max_pool_backward``. Its tensors have the
library's names. Hyperparameters are the request's parameters, which the protocol wants to be
numbers, booleans or strings; `parameters` says how a list is written in a string.

The JSON part of a request is walked member by member, and what is not understood is refused: a
hyperparameter that is misspelt, or a tensor that nobody asked for, is never ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from inspect import Parameter
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from poolgrad.errors import show
from poolgrad_service._json import Span, scan, write
from poolgrad_service.answers import Asked, Body, Part
from poolgrad_service.codec import Given, is_shape, text_bytes
from poolgrad_service.errors import Problem, over_limit, problem_of, refused
from poolgrad_service.parameters import from_text, to_scalar
from poolgrad_service.schemas import Call
from poolgrad_service.settings import Settings
from poolgrad_service.tensors import as_bytes, of_bytes

__all__ = ["V2", "VERSION", "Model"]

Array = npt.NDArray[Any]

#: The one version of every model.
VERSION: Final = "1"

#: Names of the protocol's datatypes that tensors here may have.
DATATYPES: Final[dict[str, np.dtype[Any]]] = {
    "FP32": np.dtype("float32"),
    "FP64": np.dtype("float64"),
    "UINT8": np.dtype("uint8"),
    "INT32": np.dtype("int32"),
    "INT64": np.dtype("int64"),
}

_NAMES: Final = {dtype: name for name, dtype in DATATYPES.items()}

#: What each tensor may be; the first is what metadata tells, which has room for one.
_TENSORS: Final = {
    "x": ("FP32", "FP64"),
    "dy": ("FP32", "FP64"),
    "y": ("FP32", "FP64"),
    "dx": ("FP32", "FP64"),
    "argmax": ("UINT8", "INT32"),
}

#: What a parameter may be that comes as a tensor.
_INTEGERS: Final = ("INT64",)

#: Characters of an id; it is sent back.
LONGEST: Final = 1024


@dataclass(frozen=True)
class Model:
    """A pooling as the protocol sees it.

    Parameters
    ----------
    call : Call
        An operation and a direction.
    """

    call: Call

    @cached_property
    def name(self) -> str:
        """The function's name in the library."""
        backward = self.call.action == "backward"
        return f"{self.call.operation.name}_backward" if backward else self.call.operation.name

    @cached_property
    def integers(self) -> tuple[str, ...]:
        """The parameters that are integers, which may come as tensors, too."""
        found = [
            name
            for name, default in self.call.operation.parameters.items()
            if default in (Parameter.empty, None) or type(default) is int
        ]
        return ("x_shape", *found) if self.call.action == "backward" else tuple(found)

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """The parameters that a request may have, beside the protocol's own."""
        found = tuple(self.call.operation.parameters)
        return (*found, "x_shape") if self.call.action == "backward" else found

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """The tensors that a request may have; the first is always needed."""
        return (*self.call.arrays, *self.integers)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """The tensors that a reply has, where a request does not choose."""
        if self.call.action == "backward":
            return ("dx",)
        return ("y", "argmax") if self.call.operation.has_argmax else ("y",)

    def metadata(self) -> dict[str, Any]:
        """Return the protocol's metadata of this model."""
        return {
            "name": self.name,
            "versions": [VERSION],
            "platform": "poolgrad_cython",
            "inputs": [_described(name) for name in self.inputs],
            "outputs": [_described(name) for name in self.outputs],
        }

    def config(self) -> dict[str, Any]:
        """Return the model's configuration, as the extension for it has it."""

        def tensor(name: str) -> dict[str, Any]:
            told = _described(name)
            return {
                "name": name,
                "data_type": f"TYPE_{told['datatype']}",
                "dims": told["shape"],
            }

        return {
            "name": self.name,
            "platform": "poolgrad_cython",
            "backend": "poolgrad",
            "max_batch_size": 0,  # the batch axis is an axis like others
            "input": [{**tensor(name), "optional": name != self.inputs[0]} for name in self.inputs],
            "output": [tensor(name) for name in self.outputs],
            "parameters": {
                name: {"string_value": "" if default is Parameter.empty else str(_text(default))}
                for name, default in self.call.operation.parameters.items()
            },
        }


def _text(value: Any) -> str:
    scalar = to_scalar(value)
    return str(scalar).lower() if isinstance(scalar, bool) else str(scalar)


def _described(name: str) -> dict[str, Any]:
    # An image: other numbers of axes, and the other datatypes, are just as welcome.
    shape = [-1] * 4 if name in _TENSORS else [-1]
    return {"name": name, "datatype": _TENSORS.get(name, _INTEGERS)[0], "shape": shape}


class V2:
    """One inference request and its response.

    Parameters
    ----------
    model : Model
        What is asked.
    header_length : int, optional
        Bytes of the body's JSON part, where tensors follow it (Inference-Header-Content-Length).
    """

    def __init__(self, model: Model, header_length: int | None = None) -> None:
        self.model = model
        self.header_length = header_length
        self.id: str | None = None
        #: Whether each output is sent as bytes, in the order in which they are sent.
        self.binary: dict[str, bool] = {}
        #: Where in the body each of the library's arguments stands.
        self.places: dict[str, str] = {}

    def read(self, body: Body, settings: Settings) -> Asked:
        """Read a request."""
        n_header = len(body) if self.header_length is None else self.header_length
        if n_header > len(body):
            raise Problem(
                400,
                f"Inference-Header-Content-Length: {n_header} bytes; the body has {len(body)}",
            )
        if n_header == 0:
            raise Problem(400, "a body without a JSON part cannot tell the shape of its tensor")
        request = scan(body[:n_header], ("data",), max_depth=settings.max_depth)
        _object(request, "", _REQUEST)
        self._identify(request)
        parameters = request.get("parameters", {})
        binary_output, patience = self._protocol_parameters(parameters)
        fields = self._hyperparameters(parameters)
        arrays = self._inputs(request, body, n_header, settings)
        for name in arrays.keys() & self.model.integers:
            if name in fields:
                raise refused(f"/parameters/{name}", f"{name}: it is also among the inputs")
            fields[name] = arrays.pop(name).array.tolist()
        self._outputs(request.get("outputs", []), binary_output)
        members = self.model.call.check(fields, arrays)
        return Asked(members, arrays, tuple(self.binary), patience)

    def _identify(self, request: Mapping[str, Any]) -> None:
        for name, own in (("model_name", self.model.name), ("model_version", VERSION)):
            if request.get(name, own) not in (own, "", None):
                raise refused(f"/{name}", f"{name}: {show(request[name])}, but the path has {own}")
        if "id" in request:
            self.id = request["id"]
            if not isinstance(self.id, str) or len(self.id) > LONGEST:
                raise refused("/id", f"id: a string of at most {LONGEST} characters is needed")
        if "parameters" in request:
            _object(request["parameters"], "/parameters")

    def _protocol_parameters(self, parameters: Mapping[str, Any]) -> tuple[bool, float]:
        """Return whether outputs are binary, and the seconds that the client waits."""
        binary = parameters.get("binary_data_output", False)
        if not isinstance(binary, bool):
            raise refused(
                "/parameters/binary_data_output",
                f"binary_data_output: {show(binary)} is not true or false",
            )
        timeout = parameters.get("timeout", 0)
        if type(timeout) is not int or timeout < 0:
            raise refused(
                "/parameters/timeout",
                f"timeout: {show(timeout)} is not a number of microseconds",
            )
        return binary, timeout / 1e6 if 0 < timeout < 2**63 else float("inf")

    def _hyperparameters(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        known = self.model.parameters
        found = {}
        for name, value in parameters.items():
            if name in ("binary_data_output", "timeout"):
                continue
            if name not in known:
                raise refused(
                    f"/parameters/{_escape(name)}",
                    f"{show(name)[1:-1]}: unknown parameter; {self.model.name} takes "
                    f"{', '.join(known)}",
                )
            if isinstance(value, (list, dict)) or value is None:
                raise refused(
                    f"/parameters/{name}",
                    f"{name}: {show(value)} is not a number, a boolean or a string, as the "
                    'protocol wants parameters to be; write lists as "3,2" or "1:0,0:1"',
                )
            found[name] = from_text(value) if isinstance(value, str) else value
        return found

    def _inputs(
        self, request: Mapping[str, Any], body: Body, at: int, settings: Settings
    ) -> dict[str, Given]:
        """Return the input tensors; those that are bytes share the body's memory."""
        inputs = request.get("inputs")
        if not isinstance(inputs, list):
            raise refused("/inputs", "inputs: a list of tensors is needed")
        found: dict[str, Given] = {}
        elements = 0
        for index, item in enumerate(inputs):
            place = f"/inputs/{index}"
            tensor = _object(item, place, _INPUT)
            name = tensor.get("name")
            if name not in self.model.inputs:
                raise refused(
                    f"{place}/name",
                    f"{show(name)} is no input; {self.model.name} takes "
                    f"{', '.join(self.model.inputs)}",
                )
            if name in found:
                raise refused(f"{place}/name", f"{name}: it is among the inputs more than once")
            self.places[name] = place
            dtype = _datatype(tensor.get("datatype"), name, place)
            shape = _shape(tensor.get("shape"), name, place)
            size = prod(shape)
            elements += size
            if name in self.model.integers and size > 16:
                raise refused(f"{place}/shape", f"{name}: shape {show(shape)} is too large")
            if elements > (most := settings.max_elements):
                raise over_limit(place, f"{name}: elements", elements, "max_elements", most)
            parameters = _object(tensor.get("parameters", {}), f"{place}/parameters", _BINARY)
            if ("data" in tensor) == bool(parameters):
                raise refused(place, f"{name}: either data or binary_data_size is needed")
            if "data" in tensor:
                found_there = _of_json(tensor["data"], name, dtype, shape)
                if found_there is None:
                    raise refused(
                        f"{place}/data",
                        f"{name}: data is no list of {size} numbers, flat or nested as "
                        f"{show(shape)}",
                    )
                array = found_there
            else:
                given, needed = parameters["binary_data_size"], size * dtype.itemsize
                if given != needed or type(given) is not int:
                    raise refused(
                        f"{place}/parameters/binary_data_size",
                        f"{name}: binary_data_size {show(given)}; shape {show(shape)} of "
                        f"{_NAMES[dtype]} has {needed} bytes",
                    )
                if needed > (rest := len(body) - at):
                    raise refused(
                        place,
                        f"{name}: binary_data_size {needed}; {rest} bytes are left in the body",
                    )
                array = of_bytes(body, at, dtype, shape)
                at += needed
            found[name] = Given(array, "flat")
        if self.header_length is not None and at < len(body):
            raise refused(
                "", f"{len(body) - at} bytes follow the tensors, which none of them takes"
            )
        return found

    def _outputs(self, outputs: Any, binary_output: bool) -> None:
        if not isinstance(outputs, list):
            raise refused("/outputs", "outputs: a list is needed")
        for index, item in enumerate(outputs):
            place = f"/outputs/{index}"
            output = _object(item, place, _OUTPUT)
            name = output.get("name")
            if name not in self.model.outputs:
                raise refused(
                    f"{place}/name",
                    f"{show(name)} is no output; {self.model.name} has "
                    f"{', '.join(self.model.outputs)}",
                )
            if name in self.binary:
                raise refused(f"{place}/name", f"{name}: it is among the outputs more than once")
            parameters = _object(output.get("parameters", {}), f"{place}/parameters", _CHOICE)
            binary = parameters.get("binary_data", binary_output)
            if not isinstance(binary, bool):
                raise refused(
                    f"{place}/parameters/binary_data",
                    f"{name}: binary_data {show(binary)} is not true or false",
                )
            self.binary[name] = binary
        if not outputs:
            self.binary = dict.fromkeys(self.model.outputs, binary_output)

    def text(self, body: Body) -> int:
        """Return how many bytes of a body are JSON."""
        return len(body) if self.header_length is None else self.header_length

    def room(self, dtype: np.dtype[Any], elements: int) -> int:
        """Return about how many bytes of text a result takes."""
        return 0 if all(self.binary.values()) else text_bytes(dtype, elements, "flat")

    def write(
        self, plan: Any, results: Mapping[str, Array]
    ) -> tuple[list[Part], str, Mapping[str, str]]:
        """Return the response's body, type and headers."""
        told = "" if self.id is None else f',"id":{json.dumps(self.id)}'
        text: list[Part] = [
            f'{{"model_name":"{self.model.name}","model_version":"{VERSION}"{told},"outputs":['.encode()
        ]
        tensors: list[Part] = []
        for count, (name, binary) in enumerate(self.binary.items()):
            array = results[name]
            head = (
                f'{"," if count else ""}{{"name":"{name}","datatype":"{_NAMES[array.dtype]}",'
                f'"shape":[{",".join(map(str, array.shape))}],'
            )
            if binary:
                head += f'"parameters":{{"binary_data_size":{array.nbytes}}}}}'
                text.append(head.encode())
                if array.nbytes:
                    tensors.append(as_bytes(array))
            else:
                text += [f'{head}"data":'.encode(), write(array.reshape(-1)), b"}"]
        text.append(b"]}")
        if not tensors:
            return text, "application/json", {}
        length = str(sum(map(len, text)))
        headers = {"Inference-Header-Content-Length": length}
        return [*text, *tensors], "application/octet-stream", headers

    def told(self, error: Exception) -> Problem:
        """Return an error's problem: 400, and with pointers into a body of this protocol."""
        problem = problem_of(error)
        errors = [(self._pointer(pointer), detail) for pointer, detail in problem.errors]
        status = 400 if problem.status == 422 else problem.status
        return replace(problem, status=status, errors=errors)

    def _pointer(self, pointer: str) -> str:
        first = pointer[1:].partition("/")[0]
        if first in self.places:
            return self.places[first]
        if first in self.model.call.operation.parameters:
            return f"/parameters{pointer}"
        return "/inputs" if first in self.model.inputs else pointer


# ------------------------------------------------------------------------------- the JSON part

_REQUEST: Final = ("id", "parameters", "inputs", "outputs", "model_name", "model_version")
_INPUT: Final = ("name", "shape", "datatype", "parameters", "data")
_OUTPUT: Final = ("name", "parameters")
_BINARY: Final = ("binary_data_size",)
_CHOICE: Final = ("binary_data",)


def _object(value: Any, place: str, known: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a value that is an object of known members."""
    if not isinstance(value, dict):
        raise refused(place, f"{place or 'the body'}: {show(value)} is no object")
    for name in value if known else ():
        if name not in known:
            raise refused(
                f"{place}/{_escape(name)}",
                f"{place or 'the body'}: unknown member {show(name)}; it has {', '.join(known)}",
            )
    return value


def _escape(name: str) -> str:
    """Return a name as it stands in a JSON Pointer, short and printable."""
    return show(name)[1:-1].replace("~", "~0").replace("/", "~1")


def _datatype(value: Any, name: str, place: str) -> np.dtype[Any]:
    known = _TENSORS.get(name, _INTEGERS)
    if not isinstance(value, str) or value not in known:
        raise refused(
            f"{place}/datatype", f"{name}: datatype {show(value)} is not one of {', '.join(known)}"
        )
    return DATATYPES[value]


def _shape(value: Any, name: str, place: str) -> tuple[int, ...]:
    if not is_shape(value):
        raise refused(
            f"{place}/shape", f"{name}: shape {show(value)} is not a list of integers of at least 0"
        )
    if len(value) > 8 or prod(filter(None, value)) > 2**57:
        raise refused(f"{place}/shape", f"{name}: no array can have the shape {show(value)}")
    return tuple(value)


def _of_json(data: Any, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array | None:
    """Return the array of a list of numbers, flat or nested as its shape is; else None."""
    elements = prod(shape)
    # Lists without elements have fewer numbers than commas tell.
    if not isinstance(data, Span) or data.count != (elements or min(data.count, 4096)):
        return None
    array = data.read(name, dtype, tokens=True)  # bare ones, as other clients write them
    if array.shape != shape and (array.ndim > 1 or array.size != elements):
        return None
    return array.reshape(shape)
