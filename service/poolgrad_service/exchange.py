"""One pooling asked of a service: its request, its reply and its retries, without any network.

The request is one of the Open Inference Protocol (V2), with the arrays as bytes behind its JSON
part or as numbers in it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, Final

import numpy as np
import numpy.typing as npt

import poolgrad
from poolgrad.arrays import as_input, as_shape, empty
from poolgrad.errors import DtypeError, ParameterError, PoolgradError, ShapeError, show
from poolgrad_service.parameters import from_text, to_scalar
from poolgrad_service.tensors import as_bytes, of_bytes

__all__ = ["Asked", "Body", "ServiceError", "delay", "failure", "readable"]

Array = npt.NDArray[Any]

_DATATYPES: Final[dict[str, str]] = {
    "float32": "FP32",
    "float64": "FP64",
    "uint8": "UINT8",
    "int32": "INT32",
}
_DTYPES: Final = {name: dtype for dtype, name in _DATATYPES.items()}

_NON_FINITE: Final = ("NaN", "Infinity", "-Infinity")

#: Bytes that are handed to the network at a time.
PIECE: Final = 256 * 1024

#: Seconds to wait for a service that asks for it; one that wants more is not waited for.
PATIENCE: Final = 60.0

_ERRORS: Final[dict[str, type[PoolgradError]]] = {
    kind.__name__: kind for kind in (ShapeError, ParameterError, DtypeError)
}


class ServiceError(PoolgradError):
    """A service could not be asked, or would not answer.

    Parameters
    ----------
    message : str
        What happened, in the service's words where it had any.
    status : int, optional
        The reply's HTTP status; None where there was no reply.
    retry_after : float, optional
        Seconds after which the service wants to be asked again.
    """

    def __init__(
        self, message: str, status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class Asked:
    """A request for one pooling.

    Parameters
    ----------
    op : str
        The operation's name.
    backward : bool
        Whether its gradient is asked for.
    given : mapping of str to object
        The arguments of the library's function of that name.
    binary : bool
        Whether arrays go both ways as bytes.
    """

    def __init__(self, op: str, backward: bool, given: Mapping[str, Any], binary: bool) -> None:
        self.path = f"/v2/models/{op}{'_backward' if backward else ''}/infer"
        operation = poolgrad.OPERATIONS[op]
        arrays: dict[str, Array] = {}
        parameters: dict[str, Any] = {}
        if backward:
            arrays["dy"] = as_input("dy", given["dy"])
            x, argmax = given["x"], given.get("argmax")
            if isinstance(x, (tuple, list)):
                shape = as_shape("x", x)
            else:
                array = as_input("x", x)
                shape = array.shape
                # An average needs none of its values, nor does a maximum whose argmax is known.
                if array.dtype != arrays["dy"].dtype or (operation.has_argmax and argmax is None):
                    arrays["x"] = array
            if "x" not in arrays:
                parameters["x_shape"] = to_scalar(shape)
            if argmax is not None:
                if not isinstance(argmax, np.ndarray) or argmax.dtype.name not in _DATATYPES:
                    raise DtypeError(f"argmax: {show(argmax)} is no array of uint8 or int32")
                arrays["argmax"] = argmax
            self.outputs = ["dx"]
        else:
            arrays["x"] = as_input("x", given["x"])
            self.outputs = ["y", "argmax"] if given.get("return_argmax") else ["y"]
        for name, default in operation.parameters.items():
            value = given[name]
            if type(value) is not type(default) or value != default:
                parameters[name] = _scalar(name, value)
        if binary:
            parameters["binary_data_output"] = True
        tensors = [np.ascontiguousarray(array) for array in arrays.values()]
        inputs = [
            {
                "name": name,
                "shape": array.shape,
                "datatype": _DATATYPES[array.dtype.name],
                **(
                    {"parameters": {"binary_data_size": array.nbytes}}
                    if binary
                    else {"data": _numbers(array)}
                ),
            }
            for name, array in zip(arrays, tensors, strict=True)
        ]
        head = json.dumps(
            {
                "parameters": parameters,
                "inputs": inputs,
                "outputs": [{"name": name} for name in self.outputs],
            }
        ).encode()
        self._parts = [memoryview(head)]
        self.headers = {"Accept-Encoding": "identity", "Content-Type": "application/json"}
        if binary:
            self._parts += [as_bytes(array) for array in tensors if array.nbytes]
            self.headers["Content-Type"] = "application/octet-stream"
            self.headers["Inference-Header-Content-Length"] = str(len(head))
        self.headers["Content-Length"] = str(sum(map(len, self._parts)))

    def content(self) -> Iterator[bytes]:
        """Yield the request's body, without a copy of it as a whole."""
        for part in self._parts:
            for start in range(0, len(part), PIECE):
                yield bytes(part[start : start + PIECE])

    def results(self, body: Body) -> Any:
        """Return the arrays of a reply, as the library's function does: one, or a pair."""
        arrays = self._read(body)
        return arrays[0] if len(arrays) == 1 else tuple(arrays)

    def _read(self, body: Body) -> list[Array]:
        at = 0
        found: dict[str, Array] = {}
        for output in json.loads(body.text)["outputs"]:
            dtype, shape = np.dtype(_DTYPES[output["datatype"]]), output["shape"]
            if "data" in output:
                numbers = [float(n) if type(n) is str else n for n in output["data"]]
                array = np.array(numbers, dtype).reshape(shape)
            elif output["parameters"]["binary_data_size"] == 0:
                array = np.empty(shape, dtype)
            else:
                array = body.array(dtype, shape, at)
                at += array.nbytes
            found[output["name"]] = array
        return [found[name] for name in self.outputs]


def _scalar(name: str, value: Any) -> Any:
    try:
        scalar = to_scalar(value)
    except TypeError:
        raise ParameterError(f"{name}: {show(value)} is no integer, nor a list of them") from None
    if isinstance(value, str) and from_text(value) != value:
        # It would be read as what it looks like.
        raise ParameterError(f"{name}: {show(value)} is a string where none belongs")
    return scalar


def _numbers(array: Array) -> list[Any]:
    flat = array.ravel()
    numbers: list[Any] = flat.tolist()
    if flat.dtype.kind == "f":
        for index in np.flatnonzero(~np.isfinite(flat)).tolist():
            value = numbers[index]
            numbers[index] = _NON_FINITE[0 if value != value else 1 if value > 0 else 2]
    return numbers


@contextmanager
def readable() -> Iterator[None]:
    """Turn what a reply that makes no sense leads to into a `ServiceError`."""
    try:
        yield
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ServiceError(f"the reply cannot be read: {type(error).__name__}: {error}") from error


class Body:
    """A reply's body, put together from its pieces so that its arrays lie as arrays should.

    Parameters
    ----------
    headers : mapping of str to str
        The reply's headers.
    """

    def __init__(self, headers: Mapping[str, str]) -> None:
        length = headers.get("Content-Length")
        header = headers.get("Inference-Header-Content-Length")
        self._n_header = None if header is None else int(header)
        # Results are the caller's to write to, and begin at a multiple of 64.
        self._begin = self._end = -(self._n_header or 0) % 64
        self._kept: Any = bytearray(self._begin)
        if length is not None:
            self._kept = empty(self._begin + int(length), np.dtype(np.uint8)).data

    def add(self, piece: bytes) -> None:
        """Take the next piece."""
        end = self._end + len(piece)
        self._kept[self._end : end] = piece
        self._end = end

    @property
    def text(self) -> bytes:
        """The JSON part."""
        return bytes(self._kept[self._begin : self._begin + self.n_header])

    @property
    def n_header(self) -> int:
        """The bytes of the JSON part; all, where nothing else is told."""
        return self._end - self._begin if self._n_header is None else self._n_header

    def array(self, dtype: np.dtype[Any], shape: Sequence[int], at: int) -> Array:
        """Return the array whose bytes begin at a place behind the JSON part."""
        return of_bytes(self._kept, self._begin + self.n_header + at, dtype, shape)


def failure(status: int, headers: Mapping[str, str], body: bytes) -> PoolgradError:
    """Return a reply of another status than 200 as an exception: the library's own, if it tells."""
    try:
        document = json.loads(body)
        detail, kind = str(document["detail"]), document.get("exception")
    except (ValueError, KeyError, TypeError, AttributeError):
        text = show(body[:200].decode("utf-8", "replace"))
        return ServiceError(f"status {status}, and no word why: {text}", status, _after(headers))
    if kind in _ERRORS:
        return _ERRORS[kind](detail)
    return ServiceError(detail, status, _after(headers))


def _after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After header, which may also be a date."""
    text = headers.get("Retry-After", "")
    try:
        if text.isdigit():
            return float(text)
        return max(0.0, parsedate_to_datetime(text).timestamp() - time())
    except ValueError:
        return None


def delay(error: Exception, attempt: int, retries: int, backoff: float) -> float | None:
    """Return the seconds until a request should be sent again, or None if it should not.

    Pooling has no side effects, so it can be sent again whatever became of it.

    Parameters
    ----------
    error : Exception
        What became of it.
    attempt : int
        How often it was sent again already.
    retries : int
        How often it may be.
    backoff : float
        Seconds before the first time; each time twice as many, and up to half more or less, so
        that clients who were refused together do not come back together.
    """
    if attempt >= retries or not isinstance(error, ServiceError):
        return None
    if error.status not in (None, 429, 503):
        return None
    asked = error.retry_after or 0.0
    if asked > PATIENCE:
        return None
    return max(asked, backoff * float(2**attempt) * random.uniform(0.5, 1.5))
