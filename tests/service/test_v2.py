"""The Open Inference Protocol (V2): bit for bit what local calls return, and every refusal."""

from __future__ import annotations

import gzip
import json
import random
import zlib

import numpy as np
import pytest

import poolgrad as pg
from poolgrad_service import Settings, create_app
from poolgrad_service.answers import answer
from poolgrad_service.errors import Problem
from poolgrad_service.v2 import V2
from poolgrad_service.v2_routes import models

DATATYPES = {
    "float32": "FP32", "float64": "FP64", "uint8": "UINT8", "int32": "INT32", "int64": "INT64",
}  # fmt: skip
DTYPES = {name: dtype for dtype, name in DATATYPES.items()}

ALL = [f"{op}{end}" for op in pg.OPERATIONS for end in ("", "_backward")]


def message(arrays, parameters, *, binary=True, outputs=None, **more):
    """Return a request's body and headers; `binary` may name the tensors that are bytes."""
    as_bytes = set(arrays) if binary is True else set(binary or ())
    inputs, tail = [], b""
    for name, array in arrays.items():
        tensor = {"name": name, "shape": array.shape, "datatype": DATATYPES[array.dtype.name]}
        if name in as_bytes:
            tail += array.tobytes()
            tensor["parameters"] = {"binary_data_size": array.nbytes}
        else:
            tensor["data"] = array.ravel().tolist()
        inputs.append(tensor)
    head = {"parameters": parameters, "inputs": inputs, **more}
    if outputs is not None:
        head["outputs"] = outputs
    text = json.dumps(head).encode()
    return text + tail, {"Inference-Header-Content-Length": str(len(text))} if tail else {}


def tensors(response):
    """Return the arrays of a response by name, and its JSON part."""
    assert response.status_code == 200, response.text
    length = response.headers.get("inference-header-content-length")
    kind = "application/json" if length is None else "application/octet-stream"
    assert response.headers["content-type"] == kind
    at = int(length or len(response.content))
    head, found = json.loads(response.content[:at]), {}
    for output in head["outputs"]:
        dtype = DTYPES[output["datatype"]]
        if "data" in output:
            array = np.array([float(n) for n in output["data"]]).astype(dtype)
        else:
            size = output["parameters"]["binary_data_size"]
            array = np.frombuffer(response.content[at : at + size], dtype)
            at += size
        found[output["name"]] = array.reshape(output["shape"])
    assert at == len(response.content)
    return found, head


def refusal(response, status=400):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["error"] == document["detail"]
    return document


def infer(client, model, *arguments, headers=None, **keywords):
    body, more = message(*arguments, **keywords)
    return client.post(f"/v2/models/{model}/infer", content=body, headers=more | (headers or {}))


def same(a, b):
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    nan = np.isnan(a)
    assert (nan == np.isnan(b)).all()
    assert a[~nan].tobytes() == b[~nan].tobytes()


def data(dtype="float32", shape=(2, 7, 6, 5)):
    x = np.random.default_rng(3).normal(size=shape).astype(dtype)
    x.reshape(-1)[:4] = np.nan, np.inf, -np.inf, -0.0
    return x


PARAMETERS = {
    "number": ({"kernel_size": 2}, {"kernel_size": 2}),
    "list": ({"kernel_size": "3,2", "stride": "2,1"}, {"kernel_size": (3, 2), "stride": (2, 1)}),
    "pairs": (
        {"kernel_size": 3, "padding": "1:0,0:1"},
        {"kernel_size": 3, "padding": ((1, 0), (0, 1))},
    ),
    "name": ({"kernel_size": "3", "padding": "same"}, {"kernel_size": 3, "padding": "same"}),
    "boolean": (
        {"kernel_size": 2, "ceil_mode": True, "stride": "null"},
        {"kernel_size": 2, "ceil_mode": True},
    ),
    "layout": (
        {"kernel_size": 2, "layout": "channels_first", "dilation": 2},
        {"kernel_size": 2, "layout": "channels_first", "dilation": 2},
    ),
}
ADAPTIVE = {
    "number": ({"output_size": 3}, {"output_size": 3}),
    "null": ({"output_size": "3,null"}, {"output_size": (3, None)}),
}
CASES = [
    (op, *case)
    for op, operation in pg.OPERATIONS.items()
    for case in (ADAPTIVE if "output_size" in operation.parameters else PARAMETERS).values()
]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("op", "parameters", "local"), CASES)
def test_models_are_the_librarys_functions(client, op, parameters, local, dtype, binary):
    x = data(dtype)
    if not binary:
        x = np.nan_to_num(x)
    plan = pg.plan(op, x.shape, dtype, **local)
    sent = parameters | {"binary_data_output": binary}
    found, head = tensors(infer(client, op, {"x": x}, sent, binary=binary))
    assert head["model_name"] == op
    assert head["model_version"] == "1"
    saved = {}
    if pg.OPERATIONS[op].has_argmax:
        y, argmax = plan.forward(x, return_argmax=True)
        same(found["argmax"], argmax)
        saved = {"argmax": argmax}
    else:
        y = plan.forward(x)
    same(found.pop("y"), y)
    assert set(found) == set(saved)

    dy = np.random.default_rng(4).normal(size=y.shape).astype(dtype)
    dx = plan.backward(dy, x)
    shape = np.array(x.shape, np.int64)
    with_shape = sent | {"x_shape": ",".join(map(str, x.shape))}
    for arrays, given in (({"x": x}, sent), (saved, with_shape)):
        reply = infer(client, f"{op}_backward", {"dy": dy, **arrays}, given, binary=binary)
        same(tensors(reply)[0]["dx"], dx)
    reply = infer(
        client, f"{op}_backward", {"dy": dy, **saved, "x_shape": shape}, sent, binary=binary
    )
    same(tensors(reply)[0]["dx"], dx)


@pytest.mark.parametrize("binary", [True, False])
def test_integers_may_be_tensors(client, binary):
    x = data()
    for given, local in (
        ({"kernel_size": [3, 2], "stride": 2}, {"kernel_size": (3, 2), "stride": 2}),
        (
            {"kernel_size": [3, 3], "padding": [[1, 0], [0, 1]]},
            {"kernel_size": 3, "padding": ((1, 0), (0, 1))},
        ),
        ({"kernel_size": 2, "divisor_override": 5}, {"kernel_size": 2, "divisor_override": 5}),
    ):
        arrays = {name: np.array(value, np.int64) for name, value in given.items()}
        reply = infer(client, "avg_pool", {"x": x, **arrays}, {}, binary=binary)
        same(tensors(reply)[0]["y"], pg.avg_pool(x, **local))
    size = np.array([3, 2], np.int64)
    reply = infer(client, "adaptive_max_pool", {"x": x, "output_size": size}, {}, binary=binary)
    same(tensors(reply)[0]["y"], pg.adaptive_max_pool(x, (3, 2)))
    for size, words in (([3], "length 1"), ([0, 0], "below 1"), ([2] * 17, "too large"), ([], "")):
        arrays = {"x": x, "kernel_size": np.array(size, np.int64)}
        document = refusal(infer(client, "max_pool", arrays, {}, binary=binary))
        assert words in document["detail"]
        assert document["errors"][0]["pointer"].startswith("/inputs/1")
    arrays = {"x": x, "kernel_size": np.array([2, 2], np.int64)}
    document = refusal(infer(client, "max_pool", arrays, {"kernel_size": 2}, binary=binary))
    assert "also among the inputs" in document["detail"]


def test_bytes_and_json_may_be_mixed(client):
    x, dy = data()[:, :4, :4], np.ones((2, 2, 2, 5), np.float32)
    y, argmax = pg.max_pool(x, 2, return_argmax=True)
    dx = pg.max_pool_backward(dy, x.shape, 2, argmax=argmax)
    sent = {"kernel_size": 2, "x_shape": "2,4,4,5"}
    for binary in ([], ["dy"], ["argmax"], ["dy", "argmax"]):
        arrays = {"argmax": argmax, "dy": dy}
        reply = infer(client, "max_pool_backward", arrays, sent, binary=binary)
        same(tensors(reply)[0]["dx"], dx)
    for chosen in (True, False):
        outputs = [
            {"name": "argmax", "parameters": {"binary_data": chosen}},
            {"name": "y", "parameters": {"binary_data": not chosen}},
        ]
        reply = infer(client, "max_pool", {"x": x}, {"kernel_size": 2}, outputs=outputs)
        found, head = tensors(reply)
        assert [output["name"] for output in head["outputs"]] == ["argmax", "y"]
        assert ["data" in output for output in head["outputs"]] == [not chosen, chosen]
        same(found["y"], y)
        same(found["argmax"], argmax)


def test_a_choice_for_an_output_wins_over_that_for_all(client):
    sent = {"kernel_size": 2, "binary_data_output": True}
    outputs = [{"name": "y", "parameters": {"binary_data": False}}]
    reply = infer(client, "max_pool", {"x": data()}, sent, outputs=outputs)
    assert "inference-header-content-length" not in reply.headers
    assert set(tensors(reply)[0]) == {"y"}


def test_non_finite_numbers_in_json(client):
    x = data()[:, :2, :2]
    for given in (json.dumps, lambda value: json.dumps(value).replace("NaN", '"NaN"')):
        body = {"inputs": [{"name": "x", "shape": x.shape, "datatype": "FP32"}]}
        body["inputs"][0]["data"] = x.ravel().tolist()
        body["parameters"] = {"kernel_size": 2}
        text = given(body)  # `json` writes bare tokens, as other clients do
        assert "NaN" in text
        reply = client.post("/v2/models/max_pool/infer", content=text)
        assert "NaN" not in reply.text.replace('"NaN"', "")
        same(tensors(reply)[0]["y"], pg.max_pool(x, 2))


def test_data_may_be_nested_as_its_shape(client):
    x = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    tensor = {"name": "x", "shape": x.shape, "datatype": "FP32", "data": x.tolist()}
    body = {"inputs": [tensor], "parameters": {"kernel_size": 2}}
    reply = client.post("/v2/models/avg_pool/infer", json=body)
    same(tensors(reply)[0]["y"], pg.avg_pool(x, 2))


@pytest.mark.parametrize("shape", [(0, 4, 4, 1), (1, 4, 4, 0)])
@pytest.mark.parametrize("binary", [True, False])
def test_empty_tensors(client, shape, binary):
    sent = {"kernel_size": 2, "binary_data_output": binary}
    reply = infer(client, "max_pool", {"x": np.empty(shape, np.float32)}, sent, binary=binary)
    assert "inference-header-content-length" not in reply.headers
    assert tensors(reply)[0]["y"].shape == (shape[0], 2, 2, shape[3])


@pytest.mark.parametrize("identifier", ["", "abc", 'quoted " \\ \u00e9 \u2028', "x" * 1024])
def test_an_id_is_sent_back(client, identifier):
    reply = infer(client, "avg_pool", {"x": data()}, {"kernel_size": 2}, id=identifier)
    assert tensors(reply)[1]["id"] == identifier
    assert "id" not in tensors(infer(client, "avg_pool", {"x": data()}, {"kernel_size": 2}))[1]


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_compression(client, coding):
    x = np.ones((1, 64, 64, 4), np.float32)
    body, headers = message({"x": x}, {"kernel_size": 2, "binary_data_output": True})
    body = gzip.compress(body) if coding == "gzip" else zlib.compress(body)
    headers |= {"Content-Encoding": coding, "Accept-Encoding": coding}
    reply = client.post("/v2/models/avg_pool/infer", content=body, headers=headers)
    assert reply.headers["content-encoding"] == coding
    assert int(reply.headers["content-length"]) < 1000
    same(tensors(reply)[0]["y"], pg.avg_pool(x, 2))


@pytest.mark.parametrize("size", [100, 300_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_tensors_need_not_be_aligned(client, size, chunked):
    x = np.random.default_rng(0).normal(size=(1, size, 2)).astype(np.float64)
    for spaces in range(3):
        body, _ = message({"x": x}, {"kernel_size": 2, "binary_data_output": True})
        at = len(body) - x.nbytes
        text = body[:at] + b" " * spaces
        body = text + body[at:]
        headers = {"Inference-Header-Content-Length": str(len(text))}
        content = (body[i : i + 50_001] for i in range(0, len(body), 50_001)) if chunked else body
        reply = client.post("/v2/models/avg_pool/infer", content=content, headers=headers)
        same(tensors(reply)[0]["y"], pg.avg_pool(x, 2))


@pytest.mark.parametrize("kind", ["application/octet-stream", "application/json", "text/plain", ""])
def test_no_content_type_is_needed(client, kind):
    headers = {"Content-Type": kind} if kind else {}
    reply = infer(client, "avg_pool", {"x": data()}, {"kernel_size": 2}, headers=headers)
    assert reply.status_code == 200
    assert "content-type" not in client.build_request("POST", "/", content=b"").headers


# ---------------------------------------------------------------------------------------- refusals

X = np.ones((1, 4, 4, 1), np.float32)
TENSOR = {"name": "x", "shape": [1, 4, 4, 1], "datatype": "FP32", "data": [1.0] * 16}
GOOD = {"inputs": [TENSOR], "parameters": {"kernel_size": 2}}


def with_input(**changes):
    return GOOD | {"inputs": [{k: v for k, v in (TENSOR | changes).items() if v is not None}]}


REFUSED = {
    "no_inputs": ({"parameters": {"kernel_size": 2}}, "/inputs"),
    "inputs_is_an_object": (GOOD | {"inputs": {}}, "/inputs"),
    "empty_inputs": (GOOD | {"inputs": []}, "/inputs"),
    "an_input_is_a_number": (GOOD | {"inputs": [1]}, "/inputs/0"),
    "twice": (GOOD | {"inputs": [TENSOR, TENSOR]}, "/inputs/1/name"),
    "unknown_input": (with_input(name="z"), "/inputs/0/name"),
    "no_name": (with_input(name=None), "/inputs/0/name"),
    "dy_in_a_forward": (with_input(name="dy"), "/inputs/0/name"),
    "datatype": (with_input(datatype="FP16"), "/inputs/0/datatype"),
    "datatype_is_a_list": (with_input(datatype=[]), "/inputs/0/datatype"),
    "no_datatype": (with_input(datatype=None), "/inputs/0/datatype"),
    "no_shape": (with_input(shape=None), "/inputs/0/shape"),
    "negative_shape": (with_input(shape=[1, -1, 4, 1]), "/inputs/0/shape"),
    "boolean_shape": (with_input(shape=[True, 4, 4, 1]), "/inputs/0/shape"),
    "huge_shape": (with_input(shape=[2**40, 2**40]), "/inputs/0/shape"),
    "large_shape": (with_input(shape=[1, 2**20, 2**20, 1]), "/inputs/0"),
    "shape_of_more": (with_input(shape=[1, 4, 5, 1]), "/inputs/0/data"),
    "shape_of_less": (with_input(shape=[1, 4, 3, 1]), "/inputs/0/data"),
    "other_nesting": (with_input(data=[[1.0] * 8] * 2), "/inputs/0/data"),
    "ragged": (with_input(data=[[1.0] * 8, [1.0] * 7, [1.0]]), "/inputs/0/data/1"),
    "too_large_a_number": (with_input(data=[1e39] * 16), "/inputs/0/data/0"),
    "a_string": (with_input(data=["1.5"] * 16), "/inputs/0/data/0"),
    "a_boolean": (with_input(data=[True] * 16), "/inputs/0/data/0"),
    "null": (with_input(data=[None] * 16), "/inputs/0/data/0"),
    "no_data": (with_input(data=None), "/inputs/0"),
    "data_is_a_string": (with_input(data="AAAA"), "/inputs/0/data"),
    "data_and_bytes": (with_input(parameters={"binary_data_size": 64}), "/inputs/0"),
    "shared_memory": (
        with_input(data=None, parameters={"shared_memory_region": "a"}),
        "/inputs/0/parameters/shared_memory_region",
    ),
    "unknown_member": (GOOD | {"input": []}, "/input"),
    "unknown_member_of_a_tensor": (with_input(dtype="FP32"), "/inputs/0/dtype"),
    "no_kernel_size": (GOOD | {"parameters": {}}, "/parameters/kernel_size"),
    "unknown_parameter": (
        GOOD | {"parameters": {"kernel_size": 2, "paddding": 1}},
        "/parameters/paddding",
    ),
    "threads": (
        GOOD | {"parameters": {"kernel_size": 2, "num_threads": 1}},
        "/parameters/num_threads",
    ),
    "encoding": (
        GOOD | {"parameters": {"kernel_size": 2, "encoding": "flat"}},
        "/parameters/encoding",
    ),
    "a_list": (GOOD | {"parameters": {"kernel_size": [2, 2]}}, "/parameters/kernel_size"),
    "a_float": (GOOD | {"parameters": {"kernel_size": 2.0}}, "/parameters/kernel_size"),
    "a_float_as_text": (GOOD | {"parameters": {"kernel_size": "2.0"}}, "/parameters/kernel_size"),
    "geometry": (GOOD | {"parameters": {"kernel_size": 9}}, "/parameters/kernel_size"),
    "many_digits": (GOOD | {"parameters": {"kernel_size": "9" * 5000}}, "/parameters/kernel_size"),
    "parameters_is_a_list": (GOOD | {"parameters": []}, "/parameters"),
    "binary_data_output": (
        GOOD | {"parameters": {"kernel_size": 2, "binary_data_output": 1}},
        "/parameters/binary_data_output",
    ),
    "timeout": (GOOD | {"parameters": {"kernel_size": 2, "timeout": -1}}, "/parameters/timeout"),
    "priority": (GOOD | {"parameters": {"kernel_size": 2, "priority": 1}}, "/parameters/priority"),
    "rank": (with_input(shape=[16]), "/inputs/0"),
    "unknown_output": (GOOD | {"outputs": [{"name": "dx"}]}, "/outputs/0/name"),
    "output_twice": (GOOD | {"outputs": [{"name": "y"}, {"name": "y"}]}, "/outputs/1/name"),
    "outputs_is_an_object": (GOOD | {"outputs": {}}, "/outputs"),
    "classification": (
        GOOD | {"outputs": [{"name": "y", "parameters": {"classification": 2}}]},
        "/outputs/0/parameters/classification",
    ),
    "binary_data": (
        GOOD | {"outputs": [{"name": "y", "parameters": {"binary_data": "yes"}}]},
        "/outputs/0/parameters/binary_data",
    ),
    "id": (GOOD | {"id": 5}, "/id"),
    "long_id": (GOOD | {"id": "x" * 1025}, "/id"),
    "another_model": (GOOD | {"model_name": "avg_pool"}, "/model_name"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(client, name):
    body, pointer = REFUSED[name]
    document = refusal(client.post("/v2/models/max_pool/infer", json=body))
    assert [error["pointer"] for error in document["errors"]] == [pointer], document


def test_the_good_one_is_not_refused(client):
    for body in (GOOD, GOOD | {"outputs": []}, GOOD | {"model_name": "max_pool", "id": ""}):
        assert client.post("/v2/models/max_pool/infer", json=body).status_code == 200


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "1", '{"inputs": [}', "\ufeff{}", '{"a": 1, "a": 2}', "[" * 100_000,
        '{"inputs": ' + "[" * 100_000, '{"inputs": [{"name": "x", "name": "x"}]}',
        '{"a": "\ud800"}',
    ],
)  # fmt: skip
def test_what_cannot_be_read(client, text):
    content = text.encode("utf-8", "surrogatepass")
    refusal(client.post("/v2/models/max_pool/infer", content=content))


@pytest.mark.parametrize(
    ("length", "tail"),
    [
        ("x", b""), ("-1", b""), ("1.5", b""), ("0", b""), ("9999999", b""), ("9" * 5000, b""),
        (None, b"1234"), (None, b"\0" * 63), (None, b"\0" * 65), (None, b""), ("+5", b""),
    ],
)  # fmt: skip
def test_bytes_that_do_not_add_up(client, length, tail):
    body = json.dumps(with_input(data=None, parameters={"binary_data_size": 64})).encode()
    headers = {"Inference-Header-Content-Length": length or str(len(body))}
    refusal(client.post("/v2/models/max_pool/infer", content=body + tail, headers=headers))


@pytest.mark.parametrize("size", [63, 65, 0, -64, 64.0, True, "64", None, 2**70])
def test_sizes_of_tensors(client, size):
    body = json.dumps(with_input(data=None, parameters={"binary_data_size": size})).encode()
    headers = {"Inference-Header-Content-Length": str(len(body))}
    document = refusal(
        client.post("/v2/models/max_pool/infer", content=body + b"\0" * 64, headers=headers)
    )
    assert "binary_data_size" in document["detail"]


def test_the_librarys_exception_is_told(client):
    document = refusal(client.post("/v2/models/max_pool/infer", json=REFUSED["geometry"][0]))
    assert document["exception"] == "ShapeError"
    document = refusal(client.post("/v2/models/max_pool/infer", json=REFUSED["a_float"][0]))
    assert document["exception"] == "ParameterError"
    assert "exception" not in refusal(client.post("/v2/models/max_pool/infer", json={}))


def test_elements_of_all_tensors_are_counted_together(client_of):
    client = client_of(max_elements=20)
    assert client.post("/v2/models/max_pool/infer", json=GOOD).status_code == 200
    dy = np.ones((1, 2, 2, 1), np.float32)
    arrays = {"dy": dy, "x": np.ones((1, 4, 4, 1), np.float32)}
    assert infer(client, "max_pool_backward", arrays, {"kernel_size": 2}).status_code == 200
    arrays["argmax"] = np.zeros((1, 2, 2, 1), np.uint8)
    document = refusal(infer(client, "max_pool_backward", arrays, {"kernel_size": 2}))
    assert document["limit"] == {"setting": "max_elements", "value": 20}


def test_a_timeout_that_has_passed_is_kept(client_of, monkeypatch):
    x = np.ones((1, 400, 400, 4), np.float32)
    client = client_of(workers=1)
    sent = {"kernel_size": 2, "timeout": 10_000_000}
    assert infer(client, "avg_pool", {"x": x}, sent).status_code == 200
    document = refusal(infer(client, "avg_pool", {"x": x}, sent | {"timeout": 1}), 503)
    assert "timeout" in document["detail"]
    assert client.app.state.service.memory.used == 0


# ------------------------------------------------------------------------------------ other routes


def test_the_server_and_its_models(client):
    assert client.get("/v2").json() == client.get("/v2/").json()
    assert client.get("/v2").json()["version"] == pg.__version__
    assert "binary_tensor_data" in client.get("/v2").json()["extensions"]
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2/models").json() == {"models": ALL}
    index = client.post("/v2/repository/index", content=b"").json()
    assert index == client.post("/v2/repository/index", json={"ready": True}).json()
    assert [model["name"] for model in index] == ALL
    assert {model["state"] for model in index} == {"READY"}


@pytest.mark.parametrize("version", ["", "/versions/1"])
@pytest.mark.parametrize("name", ALL)
def test_each_model_is_described(client, name, version):
    path = f"/v2/models/{name}{version}"
    told = client.get(path).json()
    config = client.get(f"{path}/config").json()
    assert told["name"] == config["name"] == name
    assert told["versions"] == ["1"]
    assert client.get(f"{path}/ready").json() == {"name": name, "ready": True}
    for kind, short in (("inputs", "input"), ("outputs", "output")):
        assert [t["name"] for t in told[kind]] == [t["name"] for t in config[short]]
        for tensor, configured in zip(told[kind], config[short], strict=True):
            assert configured["data_type"] == f"TYPE_{tensor['datatype']}"
            assert configured["dims"] == tensor["shape"]
            assert set(tensor["shape"]) == {-1}
    backward = name.endswith("_backward")
    operation = pg.OPERATIONS[name.removesuffix("_backward")]
    expected = ["dy", "x"] if backward else ["x"]
    if backward:
        expected += ["argmax"] * operation.has_argmax + ["x_shape"]
    words = ("ceil_mode", "layout", "count_include_pad")
    expected += [parameter for parameter in operation.parameters if parameter not in words]
    assert [tensor["name"] for tensor in told["inputs"]] == expected
    assert [t["optional"] for t in config["input"]] == [False] + [True] * (len(expected) - 1)
    assert list(config["parameters"]) == list(operation.parameters)


@pytest.mark.parametrize(
    "path",
    ["nope", "nope/ready", "nope/stats", "max_pool/versions/2", "max_pool/versions/2/ready", "%00"],
)
def test_models_that_there_are_not(client, path):
    refusal(client.get(f"/v2/models/{path}"), 404)
    refusal(client.post("/v2/models/nope/infer", json=GOOD), 404)
    refusal(client.post("/v2/models/max_pool/versions/2/infer", json=GOOD), 404)
    refusal(client.get("/v2/systemsharedmemory/status"), 404)


def test_models_are_built_in(client):
    for what in ("load", "unload"):
        document = refusal(client.post(f"/v2/repository/models/max_pool/{what}", content=b""))
        assert "built in" in document["error"]


def test_versions_and_paths_with_a_prefix(client_of):
    client = client_of(root_path="/a/pool")
    for prefix in ("", "/a/pool"):
        for version in ("", "/versions/1"):
            path = f"{prefix}/v2/models/max_pool{version}/infer"
            assert client.post(path, json=GOOD).status_code == 200
            refusal(client.post(path, json={}))


def test_statistics_are_counts_and_nanoseconds(client_of):
    client = client_of()
    x = np.ones((1, 100, 100, 4), np.float32)
    for _ in range(3):
        assert infer(client, "avg_pool", {"x": x}, {"kernel_size": 2}).status_code == 200
    refusal(infer(client, "avg_pool", {"x": x}, {"kernel_size": 0}))
    # Models are what all routes run.
    body = {"x": [[[1], [2]]], "kernel_size": 2}
    assert client.post("/v1/avg_pool/forward", json=body).status_code == 200
    (found,) = client.get("/v2/models/avg_pool/stats").json()["model_stats"]
    assert found["name"] == "avg_pool"
    assert found["version"] == "1"
    assert found["inference_count"] == found["execution_count"] == 4
    assert found["last_inference"] > 1.7e12
    stages = found["inference_stats"]
    assert stages["success"]["count"] == 4
    assert stages["fail"]["count"] == 1
    assert stages["fail"]["ns"] > 0
    parts = [stages[n]["ns"] for n in ("compute_input", "compute_infer", "compute_output", "queue")]
    assert all(ns > 0 for ns in parts[:3])
    assert sum(parts) <= stages["success"]["ns"] < 20e9
    everything = client.get("/v2/models/stats").json()["model_stats"]
    assert [model["name"] for model in everything] == ALL
    assert everything[ALL.index("avg_pool")] == found
    assert everything[ALL.index("max_pool")]["inference_count"] == 0


def test_readiness(client_of):
    client = client_of()
    client.app.state.service.draining = True
    refusal(client.get("/v2/health/ready"), 503)
    refusal(client.get("/v2/models/max_pool/ready"), 503)
    assert client.get("/v2/health/live").status_code == 200


def test_a_later_operation_is_a_model_by_itself(monkeypatch):
    later = pg.Operation(
        "lp_pool", "The norm.", has_argmax=False, parameters={"kernel_size": 1, "norm": 2}
    )
    monkeypatch.setattr(pg, "OPERATIONS", {**pg.OPERATIONS, "lp_pool": later})
    found = create_app().state.models
    assert list(found)[-2:] == ["lp_pool", "lp_pool_backward"]
    assert found["lp_pool"].config()["parameters"]["norm"] == {"string_value": "2"}


# -------------------------------------------------------------------------------------------- fuzz


def mutated(body, rng):
    """Return a body with a few bytes or tokens changed."""
    body = bytearray(body)
    tokens = b'" { } [ ] , : -1 1e999 null true \\ \xff \x00 "x" "name": "data":[] NaN'.split(b" ")
    tokens += [b" ", b"9" * 30]
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(len(body) + 1)
        end = min(len(body), at + rng.choice([0, 0, 1, 1, 3, 20]))
        match rng.randrange(3):
            case 0:
                body[at:end] = rng.choice(tokens)
            case 1:
                body[at:end] = b""
            case 2:
                other = rng.randrange(len(body) + 1)
                body[at:at] = body[other : other + 10]
    return bytes(body)


@pytest.mark.parametrize("seed", range(4))
def test_no_body_is_an_unexpected_error(seed):
    rng = random.Random(seed)
    known = models()
    settings = Settings(max_elements=1000, max_output_bytes=10_000, num_threads=1)
    x, dy = np.ones((1, 4, 4, 1), np.float32), np.ones((1, 2, 2, 1), np.float32)
    argmax = np.zeros((1, 2, 2, 1), np.uint8)
    seeds = [
        ("max_pool", *message({"x": x}, {"kernel_size": "2,2", "padding": "0:1,1:0"}, id="i")),
        ("avg_pool", *message({"x": x}, {"kernel_size": 2}, binary=False, outputs=[{"name": "y"}])),
        ("max_pool_backward", *message({"dy": dy, "x": x}, {"kernel_size": 2}, binary=["x"])),
        (
            "max_pool_backward",
            *message({"dy": dy, "argmax": argmax}, {"kernel_size": 2, "x_shape": "1,4,4,1"}),
        ),
    ]
    answered, refused = 0, []
    for _ in range(1500):
        name, body, headers = rng.choice(seeds)
        length = headers.get("Inference-Header-Content-Length")
        given = None if length is None else int(length) + rng.choice([0, 0, 0, 1, -1, 7])
        wire = V2(known[name], given)
        try:
            answer(known[name].call, wire, memoryview(mutated(body, rng)), settings)
            answered += 1
        except Problem as problem:
            refused.append(problem)
    assert answered > 10
    assert len(refused) > 500
    assert {problem.status for problem in refused} == {400}
    assert all(problem.detail.isprintable() for problem in refused)
