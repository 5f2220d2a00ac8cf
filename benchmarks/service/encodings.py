"""How an array goes into a request's body and comes out of a reply's.

Each request is encoded once, before anything is timed. float32 is printed with the fewest digits
that read back, as a careful client would.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import orjson

from benchmarks.workloads import Array

__all__ = ["ENCODINGS", "Encoded", "Encoding"]

Headers = Mapping[str, str]
#: The headers and the body of a request.
Encoded = tuple[dict[str, str], bytes]

#: The member of a binary tensor request that tells where its JSON ends.
HEAD_LENGTH: Final = "inference-header-content-length"


@dataclass(frozen=True, slots=True)
class Encoding:
    """One form of a request and its reply.

    Attributes
    ----------
    kind : {"JSON", "binary", "empty"}
        Which peers' forms it is compared with.
    encode : callable
        Returns the headers and the body for an array.
    decode : callable or None
        Returns the array in a reply, given its headers and body; None where there is none.
    query : str
        What follows the route.
    """

    kind: Literal["JSON", "binary", "empty"]
    encode: Callable[[Array], Encoded]
    decode: Callable[[Headers, bytes], Array] | None
    query: str = ""


def _json(document: Any) -> Encoded:
    body = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return {"content-type": "application/json"}, body


def _flat(x: Array) -> dict[str, Any]:
    return {"shape": x.shape, "dtype": x.dtype.name, "data": x.ravel()}


def _base64(x: Array) -> dict[str, Any]:
    return {
        "shape": x.shape,
        "dtype": x.dtype.name,
        "base64": base64.b64encode(x.tobytes()).decode(),
    }


def _v1(form: Callable[[Array], Any]) -> Callable[[Array], Encoded]:
    return lambda x: _json({"x": form(x), "kernel_size": 2})


def _v2(x: Array, **tensor: Any) -> dict[str, Any]:
    """Return a request of the Open Inference Protocol, with an id, so that replies are the same."""
    one = {"name": "x", "shape": x.shape, "datatype": "FP32", **tensor}
    return {"id": "1", "parameters": {"kernel_size": 2}, "inputs": [one]}


def _encode_v2_binary(x: Array) -> Encoded:
    document = _v2(x, parameters={"binary_data_size": x.nbytes})
    document["outputs"] = [{"name": "y", "parameters": {"binary_data": True}}]
    head = orjson.dumps(document)
    headers = {"content-type": "application/octet-stream", HEAD_LENGTH: str(len(head))}
    return headers, head + x.tobytes()


def _encode_npy(x: Array) -> Encoded:
    file = io.BytesIO()
    np.save(file, x, allow_pickle=False)
    return {"content-type": "application/x-npy", "accept": "application/x-npy"}, file.getvalue()


def _encode_raw(x: Array) -> Encoded:
    shape = ",".join(map(str, x.shape))
    return {"content-type": "application/octet-stream", "x-shape": shape}, x.tobytes()


def _decode_nested(headers: Headers, body: bytes) -> Array:
    document = orjson.loads(body)
    return np.array(document["y"] if isinstance(document, dict) else document, np.float32)


def _decode_flat(headers: Headers, body: bytes) -> Array:
    y = orjson.loads(body)["y"]
    return np.array(y["data"], np.float32).reshape(y["shape"])


def _decode_base64(headers: Headers, body: bytes) -> Array:
    y = orjson.loads(body)["y"]
    return np.frombuffer(base64.b64decode(y["base64"]), np.float32).reshape(y["shape"])


def _decode_v2(headers: Headers, body: bytes) -> Array:
    (y,) = orjson.loads(body)["outputs"]
    return np.array(y["data"], np.float32).reshape(y["shape"])


def _decode_v2_binary(headers: Headers, body: bytes) -> Array:
    start = int(headers[HEAD_LENGTH])
    (y,) = orjson.loads(body[:start])["outputs"]
    return np.frombuffer(body[start:], np.float32).reshape(y["shape"])


def _decode_npy(headers: Headers, body: bytes) -> Array:
    y: Array = np.load(io.BytesIO(body), allow_pickle=False)
    return y


def _decode_raw(headers: Headers, body: bytes) -> Array:
    return np.frombuffer(body, np.float32).reshape([int(n) for n in headers["x-shape"].split(",")])


ENCODINGS: Final[Mapping[str, Encoding]] = {
    "nested": Encoding("JSON", _v1(lambda x: x), _decode_nested),
    "flat": Encoding("JSON", _v1(_flat), _decode_flat),
    "base64": Encoding("JSON", _v1(_base64), _decode_base64),
    "V2 JSON": Encoding("JSON", lambda x: _json(_v2(x, data=x.ravel())), _decode_v2),
    "V2 binary": Encoding("binary", _encode_v2_binary, _decode_v2_binary),
    "npy": Encoding("binary", _encode_npy, _decode_npy, "?kernel_size=2"),
    "raw": Encoding("binary", _encode_raw, _decode_raw),
    "empty": Encoding("empty", lambda x: ({}, b""), None),
}
