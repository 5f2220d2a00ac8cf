"""Requests and their replies: equal to local calls bit for bit, and every error by its status."""

from __future__ import annotations

import base64
import gzip
import json
import zlib

import numpy as np
import pytest

import poolgrad as pg
from poolgrad_service import codec
from poolgrad_service.service import negotiate

JSON = {"Content-Type": "application/json"}


def as_json(array, form):
    return json.loads(b"".join(codec.encode({"a": array}, form)))["a"]


def as_array(value, dtype):
    if isinstance(value, dict):
        assert value["dtype"] == np.dtype(dtype).name
        if "base64" in value:
            raw = base64.b64decode(value["base64"], validate=True)
            return np.frombuffer(raw, np.dtype(dtype).newbyteorder("<")).reshape(value["shape"])
        return np.array(value["data"], np.float64).astype(dtype).reshape(value["shape"])
    return np.array(value, np.float64).astype(dtype)


def same_bits(a, b):
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    # JSON's text has one NaN only, and so has the library's promise of equal bits.
    nan = np.isnan(a)
    assert (nan == np.isnan(b)).all()
    assert a[~nan].tobytes() == b[~nan].tobytes()


def problem(response, status):
    """Check that a response is a problem document of a status, and return it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert {"type", "title", "status", "detail", "instance", "error"} <= set(document)
    assert document["status"] == status
    assert document["error"] == document["detail"]
    assert document["instance"].endswith(response.headers["x-request-id"])
    assert document["detail"].isprintable()
    return document


def pointers(document):
    return [error["pointer"] for error in document["errors"]]


# ---------------------------------------------------------------------------- equal to local calls

GEOMETRIES = {
    "plain": {"kernel_size": 2},
    "clipped": {"kernel_size": 3, "stride": 2, "padding": 1},
    "pairs": {"kernel_size": [3, 2], "stride": [1, 2], "padding": [[1, 0], [0, 1]]},
    "same": {"kernel_size": 3, "stride": 2, "padding": "same"},
    "dilated_ceil": {"kernel_size": 2, "stride": 2, "dilation": 2, "ceil_mode": True},
    "channels_first": {"kernel_size": 3, "stride": 1, "padding": 1, "layout": "channels_first"},
}
ADAPTIVE = {
    "one_size": {"output_size": 4},
    "an_axis_is_kept": {"output_size": [3, None]},
    "more_than_cells": {"output_size": [10, 7]},
    "adaptive_channels_first": {"output_size": [5, 2], "layout": "channels_first"},
}
POOLINGS = [
    *((op, GEOMETRIES[name]) for op in ("max_pool", "avg_pool") for name in GEOMETRIES),
    *((f"adaptive_{op}", ADAPTIVE[name]) for op in ("max_pool", "avg_pool") for name in ADAPTIVE),
]
IDS = [f"{op}-{name}" for op in ("max_pool", "avg_pool") for name in GEOMETRIES]
IDS += [f"adaptive_{op}-{name}" for op in ("max_pool", "avg_pool") for name in ADAPTIVE]


def data(dtype):
    x = np.random.default_rng(3).normal(size=(2, 7, 6, 5)).astype(dtype)
    x[0, 2, 2, :3] = np.nan, np.inf, -np.inf
    x[1, 0, 0] = -0.0
    return x


@pytest.mark.parametrize("form", codec.FORMS)
@pytest.mark.parametrize("dtype", codec.DTYPES)
@pytest.mark.parametrize(("op", "parameters"), POOLINGS, ids=IDS)
def test_replies_are_what_local_calls_return(client, op, parameters, dtype, form):
    x = data(dtype)
    plan = pg.plan(op, x.shape, dtype, **parameters)
    dy = np.random.default_rng(4).normal(size=plan.output_shape).astype(dtype)
    has_argmax = pg.OPERATIONS[op].has_argmax
    common = {**parameters, "dtype": dtype}
    given = as_json(x, form)

    body = {"x": given, **common} | ({"return_argmax": True} if has_argmax else {})
    reply = client.post(f"/v1/{op}/forward", json=body)
    assert reply.status_code == 200, reply.text
    reply = reply.json()
    assert reply["shape"] == list(plan.output_shape)
    assert reply["dtype"] == dtype
    saved = {}
    if has_argmax:
        y, argmax = plan.forward(x, return_argmax=True)
        same_bits(as_array(reply["argmax"], argmax.dtype), argmax)
        saved = {"argmax": reply["argmax"]}
    else:
        y = plan.forward(x)
    same_bits(as_array(reply["y"], dtype), y)

    dx = plan.backward(dy, x)
    for arrays in (
        {"x": given},
        {"x": given, "return_y": True},
        {"x": given, "return_y": True, **saved},
        {"x_shape": list(x.shape), **saved},
    ):
        reply = client.post(
            f"/v1/{op}/backward", json={"dy": as_json(dy, form), **arrays, **common}
        )
        assert reply.status_code == 200, reply.text
        reply = reply.json()
        same_bits(as_array(reply["dx"], dtype), dx)
        assert reply["shape"] == list(x.shape)
        assert ("y" in reply) == ("return_y" in arrays)
        if "y" in reply:
            same_bits(as_array(reply["y"], dtype), y)


@pytest.mark.parametrize("shape", [(1, 9, 2), (1, 4, 5, 3), (2, 3, 4, 5, 1)])
def test_every_rank(client, shape):
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    reply = client.post("/v1/avg_pool/forward", json={"x": x.tolist(), "kernel_size": 2}).json()
    same_bits(as_array(reply["y"], "float32"), pg.avg_pool(x, 2))


def test_an_average_has_its_own_hyperparameters(client):
    x = np.ones((1, 4, 4, 1), np.float32)
    for more in ({"count_include_pad": False}, {"divisor_override": 3}):
        parameters = {"kernel_size": 3, "padding": 1, **more}
        reply = client.post("/v1/avg_pool/forward", json={"x": x.tolist(), **parameters}).json()
        same_bits(as_array(reply["y"], "float32"), pg.avg_pool(x, **parameters))
        problem(client.post("/v1/max_pool/forward", json={"x": x.tolist(), **parameters}), 422)


@pytest.mark.parametrize("form", codec.FORMS)
@pytest.mark.parametrize("encoding", codec.FORMS)
def test_encoding_chooses_the_form_of_every_array(client, form, encoding):
    x = data("float32")
    body = {"x": as_json(x, form), "kernel_size": 2, "return_argmax": True, "encoding": encoding}
    reply = client.post("/v1/max_pool/forward", json=body).json()
    for name in ("y", "argmax"):
        found = "nested" if isinstance(reply[name], list) else sorted(reply[name])[0]
        assert found == {"nested": "nested", "flat": "data", "base64": "base64"}[encoding]


def test_large_kernels_have_an_argmax_of_int32(client):
    x = data("float32")
    body = {"x": x.tolist(), "kernel_size": [4, 64], "padding": [0, 32], "return_argmax": True}
    body["x"] = as_json(x, "nested")
    reply = client.post("/v1/max_pool/forward", json=body).json()
    _, argmax = pg.max_pool(x, [4, 64], padding=[0, 32], return_argmax=True)
    assert argmax.dtype == np.int32
    same_bits(np.array(reply["argmax"], np.int32), argmax)
    dy = np.ones(argmax.shape, np.float32)
    body = {
        "dy": dy.tolist(),
        "x_shape": list(x.shape),
        "argmax": reply["argmax"],
        "kernel_size": [4, 64],
        "padding": [0, 32],
    }
    reply = client.post("/v1/max_pool/backward", json=body).json()
    same_bits(
        as_array(reply["dx"], "float32"),
        pg.max_pool_backward(dy, x, [4, 64], padding=[0, 32]),
    )


@pytest.mark.parametrize("shape", [(0, 4, 4, 1), (1, 4, 4, 0)])
def test_empty_batches_and_channels(client, shape):
    x = {"shape": shape, "dtype": "float32", "data": []}
    reply = client.post("/v1/max_pool/forward", json={"x": x, "kernel_size": 2}).json()
    assert reply["y"] == {"shape": reply["shape"], "dtype": "float32", "data": []}
    refused = client.post(
        "/v1/max_pool/forward", json={"x": x, "kernel_size": 2, "encoding": "nested"}
    )
    assert pointers(problem(refused, 422)) == ["/encoding"]


def test_a_plan_needs_no_data(client):
    body = {"shape": [2**20, 2**18, 2**18, 3], "kernel_size": [3, 5], "padding": "same"}
    reply = client.post("/v1/max_pool/plan", json=body | {"stride": 2}).json()
    plan = pg.plan("max_pool", body["shape"], kernel_size=[3, 5], padding="same", stride=2)
    assert reply == {
        "op": "max_pool",
        "input_shape": body["shape"],
        "output_shape": list(plan.output_shape),
        "dtype": "float32",
        "argmax_dtype": "uint8",
        "kernel_size": [3, 5],
        "stride": [2, 2],
        "dilation": [1, 1],
        "padding": [list(pair) for pair in plan.padding],
        "output_bytes": plan.output_bytes,
        "workspace_bytes": plan.workspace_bytes,
    }
    reply = client.post("/v1/avg_pool/plan", json=body | {"dtype": "float64"}).json()
    assert reply["argmax_dtype"] is None
    assert reply["dtype"] == "float64"


def test_the_plan_of_an_adaptive_pooling(client):
    body = {"shape": [2**20, 2**18, 100, 3], "output_size": [7, None]}
    reply = client.post("/v1/adaptive_max_pool/plan", json=body).json()
    plan = pg.plan("adaptive_max_pool", body["shape"], output_size=(7, None))
    assert reply == {
        "op": "adaptive_max_pool",
        "input_shape": body["shape"],
        "output_shape": [2**20, 7, 100, 3],
        "dtype": "float32",
        "argmax_dtype": "int32",
        "kernel_size": [37450, 1],
        "stride": None,
        "dilation": [1, 1],
        "padding": [[0, 0], [0, 0]],
        "output_bytes": plan.output_bytes,
        "workspace_bytes": plan.workspace_bytes,
    }


# --------------------------------------------------------------------------------- refused members

X = [[[[1.0], [3.0]], [[4.0], [2.0]]]]
DY = [[[[1.0]]]]
ARGMAX = [[[[2]]]]

MEMBERS = {
    "no_x": ("forward", {"kernel_size": 2}, ["/x"]),
    "no_kernel_size": ("forward", {"x": X}, ["/kernel_size"]),
    "nothing": ("forward", {}, ["/x", "/kernel_size"]),
    "unknown": ("forward", {"x": X, "kernel_size": 2, "kernel": 2}, ["/kernel"]),
    "unknown_with_slash": ("forward", {"x": X, "kernel_size": 2, "a/b~": 2}, ["/a~1b~0"]),
    "threads": ("forward", {"x": X, "kernel_size": 2, "num_threads": 9}, ["/num_threads"]),
    "out": ("forward", {"x": X, "kernel_size": 2, "out": X}, ["/out"]),
    "dy_in_forward": ("forward", {"x": X, "dy": DY, "kernel_size": 2}, ["/dy"]),
    "argmax_in_forward": ("forward", {"x": X, "argmax": ARGMAX, "kernel_size": 2}, ["/argmax"]),
    "x_in_plan": ("plan", {"x": X, "shape": [1, 2, 2, 1], "kernel_size": 2}, ["/x"]),
    "no_shape": ("plan", {"kernel_size": 2}, ["/shape"]),
    "float": ("forward", {"x": X, "kernel_size": 2.0}, ["/kernel_size"]),
    "boolean": ("forward", {"x": X, "kernel_size": True}, ["/kernel_size"]),
    "string": ("forward", {"x": X, "kernel_size": "2"}, ["/kernel_size"]),
    "null": ("forward", {"x": X, "kernel_size": None}, ["/kernel_size"]),
    "boolean_in_list": ("forward", {"x": X, "kernel_size": [2, True]}, ["/kernel_size"]),
    "integer_for_boolean": ("forward", {"x": X, "kernel_size": 2, "ceil_mode": 1}, ["/ceil_mode"]),
    "object": ("forward", {"x": X, "kernel_size": {"{a}": 1}}, ["/kernel_size"]),
    "layout": ("forward", {"x": X, "kernel_size": 2, "layout": "NHWC"}, ["/layout"]),
    "encoding": ("forward", {"x": X, "kernel_size": 2, "encoding": "npy"}, ["/encoding"]),
    "padding_name": ("forward", {"x": X, "kernel_size": 2, "padding": "full"}, ["/padding"]),
    "padding_triple": ("forward", {"x": X, "kernel_size": 2, "padding": [[1, 1, 1]]}, ["/padding"]),
    "zero_kernel": ("forward", {"x": X, "kernel_size": 0}, ["/kernel_size"]),
    "huge_kernel": ("forward", {"x": X, "kernel_size": 10**400}, ["/kernel_size"]),
    "three_axes": ("forward", {"x": X, "kernel_size": [2, 2, 2]}, ["/kernel_size"]),
    "window_does_not_fit": ("forward", {"x": X, "kernel_size": 3}, ["/kernel_size"]),
    "zero_stride": ("forward", {"x": X, "kernel_size": 2, "stride": 0}, ["/stride"]),
    "rank": ("forward", {"x": [1, 2], "kernel_size": 2}, ["/x"]),
    "empty_space": (
        "forward",
        {"x": {"shape": [1, 0, 2, 1], "dtype": "float32", "data": []}, "kernel_size": 2},
        ["/x"],
    ),
    "dtype_in_two_ways": (
        "backward",
        {
            "dy": {"shape": [1, 1, 1, 1], "dtype": "float64", "data": [1]},
            "x": X,
            "kernel_size": 2,
        },
        ["/dy"],
    ),
    "dy_shape": ("backward", {"dy": X, "x": X, "kernel_size": 2}, ["/dy"]),
    "dy_shape_with_y": (
        "backward",
        {"dy": X, "x": X, "kernel_size": 2, "return_y": True},
        ["/dy"],
    ),
    "no_dy": ("backward", {"x": X, "kernel_size": 2}, ["/dy"]),
    "neither": ("backward", {"dy": DY, "kernel_size": 2}, ["/x", "/x_shape"]),
    "both": (
        "backward",
        {"dy": DY, "x": X, "x_shape": [1, 2, 2, 1], "kernel_size": 2},
        ["/x", "/x_shape"],
    ),
    "x_shape_without_argmax": (
        "backward",
        {"dy": DY, "x_shape": [1, 2, 2, 1], "kernel_size": 2},
        ["/argmax"],
    ),
    "return_y_without_x": (
        "backward",
        {
            "dy": DY,
            "x_shape": [1, 2, 2, 1],
            "argmax": ARGMAX,
            "kernel_size": 2,
            "return_y": True,
        },
        ["/return_y"],
    ),
    "x_shape_of_floats": (
        "backward",
        {"dy": DY, "x_shape": [1.0, 2, 2, 1], "argmax": ARGMAX, "kernel_size": 2},
        ["/x_shape"],
    ),
    "x_shape_of_rank_2": (
        "backward",
        {"dy": DY, "x_shape": [2, 2], "argmax": ARGMAX, "kernel_size": 2},
        ["/x_shape"],
    ),
    "argmax_is_no_tap": (
        "backward",
        {"dy": DY, "x_shape": [1, 2, 2, 1], "argmax": [[[[4]]]], "kernel_size": 2},
        ["/argmax"],
    ),
    "argmax_is_out_of_range": (
        "backward",
        {"dy": DY, "x_shape": [1, 2, 2, 1], "argmax": [[[[256]]]], "kernel_size": 2},
        ["/argmax/0/0/0/0"],
    ),
    "argmax_shape": (
        "backward",
        {"dy": DY, "x_shape": [1, 2, 2, 1], "argmax": [[[[0], [0]]]], "kernel_size": 2},
        ["/argmax"],
    ),
    "argmax_dtype": (
        "backward",
        {
            "dy": DY,
            "x_shape": [1, 2, 2, 1],
            "argmax": {"shape": [1, 1, 1, 1], "dtype": "int32", "data": [0]},
            "kernel_size": 2,
        },
        ["/argmax"],
    ),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_members_that_are_refused(client, name):
    action, body, where = MEMBERS[name]
    # Not `json=`: the client's own encoder is not asked about numbers of 400 digits.
    reply = client.post(f"/v1/max_pool/{action}", content=json.dumps(body), headers=JSON)
    document = problem(reply, 422)
    assert pointers(document) == where
    assert where[0].split("/")[1].split("~")[0] in document["detail"]


@pytest.mark.parametrize(
    ("output_size", "where"),
    [
        (None, "/output_size"),
        (True, "/output_size"),
        (2.0, "/output_size"),
        ("2", "/output_size"),
        ([2, True], "/output_size"),
        ([2, "2"], "/output_size"),
        ([[2], 2], "/output_size"),
        ({}, "/output_size"),
        (0, "/output_size"),
        ([None, -1], "/output_size"),
        ([2], "/output_size"),
        ([2, None, 2], "/output_size"),
        (10**400, "/output_size"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("op", ["adaptive_max_pool", "adaptive_avg_pool"])
def test_output_sizes_that_are_refused(client, op, output_size, where):
    body = json.dumps({"x": X, "output_size": output_size})
    document = problem(client.post(f"/v1/{op}/forward", content=body, headers=JSON), 422)
    assert pointers(document) == [where]
    assert document["detail"].startswith("output_size: ")


@pytest.mark.parametrize("name", ["kernel_size", "stride", "padding", "ceil_mode"])
def test_an_adaptive_pooling_has_its_own_hyperparameters(client, name):
    body = {"x": X, "output_size": 1, name: 1}
    assert pointers(problem(client.post("/v1/adaptive_avg_pool/forward", json=body), 422)) == [
        f"/{name}"
    ]
    problem(client.post("/v1/adaptive_avg_pool/forward", json={"x": X}), 422)


def test_an_average_has_no_argmax(client):
    body = {"dy": DY, "x": X, "argmax": ARGMAX, "kernel_size": 2}
    assert pointers(problem(client.post("/v1/avg_pool/backward", json=body), 422)) == ["/argmax"]
    body = {"x": X, "return_argmax": True, "kernel_size": 2}
    found = pointers(problem(client.post("/v1/avg_pool/forward", json=body), 422))
    assert found == ["/return_argmax"]


def test_the_librarys_own_sentence_is_the_detail(client):
    with pytest.raises(pg.ShapeError) as caught:
        pg.max_pool(np.array(X, np.float32), 3)
    document = problem(client.post("/v1/max_pool/forward", json={"x": X, "kernel_size": 3}), 422)
    assert document["detail"] == str(caught.value)


# -------------------------------------------------------------------------------- protocol errors

GOOD = {"x": X, "kernel_size": 2}
PLAN = {"shape": [1, 2, 2, 1], "kernel_size": 2}


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/min_pool/forward", "/v1/max_pool", "/docs/x"])
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_no_such_route(client, method, path):
    reply = client.request(method, path)
    assert reply.status_code == 404
    if method != "HEAD":
        problem(reply, 404)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/max_pool/forward", {"POST"}),
        ("PUT", "/v1/max_pool/plan", {"POST"}),
        ("PUT", "/v2/models/max_pool/infer", {"POST"}),
        ("POST", "/version", {"GET", "HEAD"}),
        ("DELETE", "/health/live", {"GET", "HEAD"}),
        ("POST", "/v2/models/max_pool", {"GET", "HEAD"}),
        ("POST", "/docs", {"GET", "HEAD"}),
        ("POST", "/openapi.json", {"GET", "HEAD"}),
    ],
)
def test_methods(client, method, path, allow):
    reply = client.request(method, path)
    problem(reply, 405)
    assert set(reply.headers["allow"].split(", ")) == allow | {"OPTIONS"}
    options = client.options(path)
    assert options.status_code == 204
    assert options.content == b""
    assert options.headers["allow"] == reply.headers["allow"]
    problem(client.options("/nope"), 404)


@pytest.mark.parametrize(
    "path", ["/health/live", "/health/ready", "/version", "/docs", "/openapi.json"]
)
def test_head_is_get_without_the_body(client, path):
    got, headed = client.get(path), client.head(path)
    assert headed.status_code == got.status_code == 200
    assert headed.content == b""
    for name in ("content-type", "content-length"):
        assert headed.headers[name] == got.headers[name]


@pytest.mark.parametrize(
    ("accept", "allowed"),
    [
        ("", True),
        ("*/*", True),
        ("application/*", True),
        ("application/json", True),
        ("APPLICATION/JSON", True),
        ("application/json; charset=utf-8", True),
        ("text/html, application/json;q=0.1", True),
        ("text/html", False),
        ("application/problem+json", False),
        ("application/json;q=0", False),
        ("application/json;q=0.000", False),
        ("application/json;q=0, */*", False),
        ("*/*;q=0", False),
        ("*/*;q=0, application/json", True),
        ("application/*;q=0, */*;q=1", False),
        ("application/json;version=2", False),
        ("application/json;version=2, */*;q=0.1", True),
        ("text/html;q=, application/json;q=x", False),
        (", ,", True),
    ],
)
def test_accept(client, accept, allowed):
    assert negotiate(accept, ["application/json"]) == ("application/json" if allowed else None)
    if accept:
        for reply in (
            client.post("/v1/max_pool/plan", json=PLAN, headers={"Accept": accept}),
            client.get("/version", headers={"Accept": accept}),
        ):
            if allowed:
                assert reply.status_code == 200
            else:
                problem(reply, 406)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 200),
        ("Application/JSON ; Charset=UTF-8", 200),
        ('application/json; charset="utf-8"', 200),
        ("application/json; foo=bar", 200),
        ("application/json; charset=latin-1", 415),
        ("text/json", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/jsonx", 415),
        ("", 415),
    ],
)
def test_content_types(client, kind, status):
    reply = client.post(
        "/v1/max_pool/forward", content=json.dumps(GOOD), headers={"Content-Type": kind}
    )
    assert reply.status_code == status
    if status == 415:
        problem(reply, 415)
        assert reply.headers["accept"] == "application/json, application/x-npy"


@pytest.mark.parametrize("coding", ["br", "zstd", "identity, br", "gzip, gzip", "gzip, deflate"])
@pytest.mark.parametrize("path", ["/v1/max_pool/forward", "/v2/models/max_pool/infer"])
def test_unknown_content_codings(client, path, coding):
    reply = client.post(path, json=GOOD, headers={"Content-Encoding": coding})
    problem(reply, 415)
    assert reply.headers["accept-encoding"] == "gzip, deflate, identity"


CODERS = {"gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress}


@pytest.mark.parametrize("coding", [*CODERS, "identity", "identity, GZip"])
def test_known_content_codings(client, coding):
    body = json.dumps(GOOD).encode()
    body = CODERS.get(coding.split(", ")[-1].lower(), bytes)(body)
    headers = JSON | {"Content-Encoding": coding}
    reply = client.post("/v1/max_pool/forward", content=body, headers=headers)
    assert reply.status_code == 200, reply.text
    assert reply.json()["y"] == [[[[4.0]]]]


@pytest.mark.parametrize("coding", CODERS)
def test_broken_content_codings(client, coding):
    whole = CODERS[coding](json.dumps(GOOD).encode())
    headers = JSON | {"Content-Encoding": coding}
    for body in (b"", b"{}", whole[:-1], whole[:5], whole + b"x", whole[:-4] + b"abcd"):
        problem(client.post("/v1/max_pool/forward", content=body, headers=headers), 400)


@pytest.mark.parametrize("coding", CODERS)
def test_decompressed_bytes_are_bounded(client_of, coding):
    client = client_of(max_body_bytes=10_000)
    memory = client.app.state.service.memory
    headers = JSON | {"Content-Encoding": coding}
    text = json.dumps(GOOD).encode()
    for size, status in ((10_000, 200), (10_001, 413), (50_000_000, 413)):
        body = CODERS[coding](text + b" " * (size - len(text)))[: 10_000 if size < 10**6 else None]
        reply = client.post("/v1/max_pool/forward", content=body, headers=headers)
        assert reply.status_code == status, (size, reply.text)
        if status == 413:
            assert reply.json()["limit"] == {"setting": "max_body_bytes", "value": 10_000}
        assert memory.used == 0


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip;q=0.5", "gzip"),
        ("identity, gzip", "gzip"),
        ("gzip, deflate", None),  # what HTTP libraries send by themselves
        ("gzip;q=0", None),
        ("gzip;q=0.0", None),
        ("br", None),
        ("identity", None),
        ("*", None),
        ("", None),
    ],
)
def test_replies_are_compressed_for_who_asks_for_one_coding(client, accept, coding):
    reply = client.post(
        "/v1/max_pool/forward", json={"x": np.ones((1, 90, 90, 1)).tolist(), "kernel_size": 2},
        headers={"Accept-Encoding": accept},
    )  # fmt: skip
    assert reply.headers.get("content-encoding") == coding
    assert "accept-encoding" in reply.headers["vary"].lower()
    assert len(reply.content) > 5000
    assert (int(reply.headers["content-length"]) < 1000) == (coding is not None)
    assert reply.json()["shape"] == [1, 45, 45, 1]
    refused = client.post("/v1/max_pool/forward", json={}, headers={"Accept-Encoding": accept})
    assert "content-encoding" not in refused.headers


@pytest.mark.parametrize("body", ["", "{", '{"x": [NaN]}', '{"a": "\ud800"}'])
def test_unreadable_bodies(client, body):
    content = body.encode("utf-8", "surrogatepass")
    problem(client.post("/v1/max_pool/forward", content=content, headers=JSON), 400)


def test_every_response_has_its_headers(client):
    for reply in (
        client.get("/version"),
        client.get("/nope"),
        client.post("/v1/max_pool/forward", json=GOOD),
        client.post("/v1/max_pool/forward", json={}),
    ):
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        assert "server" not in reply.headers
        assert len(reply.headers["x-request-id"]) == 32


@pytest.mark.parametrize("given", ["abc", "A-1.b_2", "x" * 64])
def test_a_harmless_request_id_is_kept(client, given):
    assert client.get("/nope", headers={"X-Request-ID": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a,b", "é", "<script>"])
def test_other_request_ids_are_replaced(client, given):
    headers = {"X-Request-ID": given.encode("latin-1")}
    found = client.get("/nope", headers=headers).headers["x-request-id"]
    assert len(found) == 32


def test_an_unexpected_error_is_logged_and_not_told(client_of, monkeypatch, caplog):
    def fail(*arguments):
        raise RuntimeError("the secret")

    monkeypatch.setattr("poolgrad_service.answers.begin", fail)
    client = client_of()
    reply = client.post("/v1/max_pool/forward", json=GOOD, headers={"X-Request-ID": "find-me"})
    problem(reply, 500)
    assert "secret" not in reply.text
    assert "find-me" in caplog.text
    assert "the secret" in caplog.text
    # It was one request's failure, not the service's.
    monkeypatch.undo()
    assert client.post("/v1/max_pool/forward", json=GOOD).status_code == 200


def test_no_memory_is_a_busy_service(client_of, monkeypatch):
    def fail(*arguments):
        raise MemoryError

    monkeypatch.setattr("poolgrad_service.answers.begin", fail)
    reply = client_of().post("/v1/max_pool/forward", json=GOOD)
    problem(reply, 503)
    assert int(reply.headers["retry-after"]) >= 1


def test_version_tells_what_runs(client):
    found = client.get("/version").json()
    assert found["library"] == pg.__version__
    assert found["numpy"] == np.__version__
    assert found["operations"] == list(pg.OPERATIONS)
    assert found["threads"] == {"workers": 2, "num_threads": 1}
    assert found["limits"]["max_body_bytes"] == 64 * 2**20
    assert found["kernels"] in ("avx512", "avx2", "baseline")


def test_the_documents_page_needs_nothing_from_elsewhere(client):
    page = client.get("/docs")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "://" not in page.text
    assert "<script>" not in page.text
    for name in ("docs/swagger-ui.css", "docs/swagger-ui-bundle.js", "docs/start.js"):
        assert name in page.text
        found = client.get("/" + name)
        assert found.status_code == 200
        kind = "text/css" if name.endswith("css") else "text/javascript"
        assert found.headers["content-type"].startswith(kind)
        assert found.headers["x-content-type-options"] == "nosniff"
        if tag := found.headers.get("etag"):
            again = client.get("/" + name, headers={"If-None-Match": tag})
            assert again.status_code == 304
    # From version 5 on, Swagger UI reads OpenAPI 3.1.
    script = client.get("/docs/swagger-ui-bundle.js").text
    assert 'PACKAGE_VERSION:"5.' in script


@pytest.mark.parametrize("path", ["/a/pool", ""])
def test_a_proxy_may_take_its_path_away_or_not(client_of, path):
    client = client_of(root_path="/a/pool")
    assert client.get(f"{path}/docs").status_code == 200
    assert client.get(f"{path}/openapi.json").json()["servers"] == [{"url": "/a/pool"}]
    reply = client.post(f"{path}/v1/max_pool/forward", json={"x": [[[1]]], "kernel_size": 1})
    assert reply.status_code == 200
    problem(client.get("/a/pools/docs"), 404)


def test_without_the_documents_page(client_of):
    client = client_of(docs=False)
    problem(client.get("/docs"), 404)
    assert client.get("/openapi.json").status_code == 200


# Texts that `json` and pydantic stumble over: bytes that look like UTF-16, and half a character.
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"\x00xy": [[[1]]], "kernel_size": 1}', 400),
        (b'{"x": [[[1]]], "kernel_size": [\x0011]}', 400),
        (b'{"x": [[[1]]], "kernel_size": "\x0011"}', 400),
        (b'{"x": {"shape": [1,1,1], "dtype": "float32", "data": [\x00 1]}, "kernel_size": 1}', 400),
        (b'{"x": [\x00[[1]]], "kernel_size": 1}', 400),
        ('{"x": [[[\u00e9]]], "kernel_size": 1}'.encode(), 400),
        ('{"x": [[[1]]], "kernel_size": 1, "\u00e9": [\u00e9]}'.encode(), 400),
        (b'{"x": [[[1]]], "kernel_size": 1, "\\ud800": true}', 422),
        (b'{"x": [[[1]]], "kernel_size": 1, "layout": "\\ud800"}', 422),
        (b'{"x": [[[1]]], "kernel_size": 1, "padding": "\\udc00"}', 422),
        (b'{"x": {"shape": [1,1,1], "dtype": "\\ud800", "data": [1]}, "kernel_size": 1}', 422),
    ],
)
def test_odd_texts_are_refused(client, body, status):
    reply = client.post(
        "/v1/max_pool/forward", content=body, headers={"Content-Type": "application/json"}
    )
    assert reply.status_code == status, reply.text
    assert reply.json()["error"] == reply.json()["detail"]
