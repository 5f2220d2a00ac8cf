"""One array as npy: what NumPy writes and reads, and nothing that is merely like it."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

import poolgrad as pg
from poolgrad_service import npy
from poolgrad_service.errors import Problem

NPY = {"Content-Type": "application/x-npy"}
JSON = {"Content-Type": "application/json"}


def saved(array, version=None):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=version)
    return file.getvalue()


def loaded(response):
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-npy"
    assert int(response.headers["content-length"]) == len(response.content)
    return np.load(io.BytesIO(response.content), allow_pickle=False)


def refusal(response, status=422):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    return response.json()["detail"]


def same(a, b):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


def data(dtype="float32", shape=(2, 7, 6, 5)):
    x = np.random.default_rng(3).normal(size=shape).astype(dtype)
    x.reshape(-1)[:3] = np.nan, np.inf, -np.inf
    return x


QUERIES = [
    ("max_pool", "kernel_size=3&stride=2&padding=1:0,0:1", (3, 2, ((1, 0), (0, 1)))),
    ("max_pool", "kernel_size=3,2&stride=null&padding=same", ((3, 2), None, "same")),
    ("avg_pool", "kernel_size=3&stride=2&padding=1", (3, 2, 1)),
]


@pytest.mark.parametrize("dtype", ["<f4", "<f8", ">f4", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(("op", "query", "given"), QUERIES)
def test_forward(client, op, query, given, order, dtype):
    x = np.asarray(data(), dtype, order=order)
    kernel, stride, padding = given
    native = x.astype(x.dtype.newbyteorder("="))
    expected = getattr(pg, op)(native, kernel, stride=stride, padding=padding)
    reply = client.post(f"/v1/{op}/forward?{query}", content=saved(x), headers=NPY)
    same(loaded(reply), expected)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_versions_of_the_format(client, version):
    content = saved(data(), version)
    reply = client.post("/v1/avg_pool/forward?kernel_size=2", content=content, headers=NPY)
    same(loaded(reply), pg.avg_pool(data(), 2))


@pytest.mark.parametrize("op", ["avg_pool", "adaptive_avg_pool"])
def test_backward_of_an_average(client, op):
    size = "kernel_size=2" if op == "avg_pool" else "output_size=2,3"
    y = pg.avg_pool(data(), 2) if op == "avg_pool" else pg.adaptive_avg_pool(data(), (2, 3))
    dy = np.random.default_rng(1).normal(size=y.shape).astype("float32")
    query = f"{size}&x_shape=2,7,6,5"
    reply = client.post(f"/v1/{op}/backward?{query}", content=saved(dy), headers=NPY)
    given = 2 if op == "avg_pool" else (2, 3)
    same(loaded(reply), getattr(pg, f"{op}_backward")(dy, (2, 7, 6, 5), given))


@pytest.mark.parametrize("shape", [(0, 4, 4, 1), (1, 4, 4, 0)])
def test_empty_arrays(client, shape):
    content = saved(np.empty(shape, np.float32))
    reply = client.post("/v1/max_pool/forward?kernel_size=2", content=content, headers=NPY)
    assert loaded(reply).shape == (shape[0], 2, 2, shape[3])


def test_large_arrays(client):
    x = np.random.default_rng(0).normal(size=(2, 300, 300, 16)).astype(np.float32)
    content = saved(x)
    for body in (content, (content[at : at + 70_000] for at in range(0, len(content), 70_000))):
        reply = client.post("/v1/max_pool/forward?kernel_size=2", content=body, headers=NPY)
        same(loaded(reply), pg.max_pool(x, 2))
    assert client.app.state.service.memory.used == 0


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "application/x-npy"),
        ("*/*", "application/x-npy"),
        ("application/*", "application/x-npy"),
        ("application/x-npy", "application/x-npy"),
        ("application/json", "application/json"),
        ("application/json, */*;q=0.1", "application/json"),
        ("application/json;q=0.5, application/x-npy;q=0.4", "application/json"),
        ("application/json, application/x-npy", "application/x-npy"),
        ("application/x-npy;q=0, */*", "application/json"),
        ("text/html", None),
    ],
)
def test_the_reply_to_an_npy(client, accept, kind):
    headers = NPY | {"Accept": accept}
    reply = client.post(
        "/v1/avg_pool/forward?kernel_size=2", content=saved(data()), headers=headers
    )
    assert reply.headers.get("vary") == (kind and "Accept, Accept-Encoding")
    if kind is None:
        refusal(reply, 406)
    elif kind == "application/x-npy":
        same(loaded(reply), pg.avg_pool(data(), 2))
    else:
        assert reply.headers["content-type"] == kind
        assert reply.json()["y"]["shape"] == [2, 3, 3, 5]


def test_json_may_be_answered_by_npy(client):
    x = np.arange(16.0).reshape(1, 4, 4, 1)
    body = {"x": x.tolist(), "kernel_size": 2, "dtype": "float64"}
    for accept, kind in (("*/*", "json"), ("application/x-npy", "x-npy"), ("text/html", None)):
        reply = client.post("/v1/max_pool/forward", json=body, headers={"Accept": accept})
        if kind == "x-npy":
            same(loaded(reply), pg.max_pool(x, 2))
        elif kind:
            assert reply.headers["content-type"] == "application/json"
        else:
            refusal(reply, 406)
    headers = {"Accept": "application/x-npy"}
    dy = {"dy": np.ones((1, 2, 2, 1)).tolist(), **body}
    reply = client.post("/v1/max_pool/backward", json=dy, headers=headers)
    same(loaded(reply), pg.max_pool_backward(np.ones((1, 2, 2, 1)), x, 2))
    # An npy has room for one array only.
    for path, more in (("forward", {"return_argmax": True}), ("backward", {"return_y": True})):
        given = (dy if path == "backward" else body) | more
        refusal(client.post(f"/v1/max_pool/{path}", json=given, headers=headers))
        headers_of_both = {"Accept": "application/x-npy;q=0.1, application/json"}
        reply = client.post(f"/v1/max_pool/{path}", json=given, headers=headers_of_both)
        assert reply.status_code == 200
    plan = {"shape": [1, 4, 4, 1], "kernel_size": 2}
    refusal(client.post("/v1/max_pool/plan", json=plan, headers=headers), 406)


def test_a_query_may_ask_for_the_argmax_in_json(client):
    query = "kernel_size=2&return_argmax=true&encoding=base64"
    path = f"/v1/max_pool/forward?{query}"
    headers = NPY | {"Accept": "application/json"}
    reply = client.post(path, content=saved(data()), headers=headers)
    assert set(reply.json()["argmax"]) == {"shape", "dtype", "base64"}
    refusal(client.post(path, content=saved(data()), headers=NPY))


@pytest.mark.parametrize(
    ("path", "kinds"),
    [
        ("max_pool/backward", "application/json"),
        ("adaptive_max_pool/backward", "application/json"),
        ("max_pool/plan", "application/json"),
    ],
)
def test_what_needs_more_than_one_array(client, path, kinds):
    reply = client.post(f"/v1/{path}?kernel_size=2", content=saved(data()), headers=NPY)
    refusal(reply, 415)
    assert reply.headers["accept"] == kinds


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", "kernel_size: a value is missing"),
        ("kernel_size=", "kernel_size"),
        ("kernel_size=2&kernel_size=2", "more than once"),
        ("kernel_size=2&paddding=1", "paddding"),
        ("kernel_size=2&num_threads=1", "num_threads"),
        ("kernel_size=2.0", "kernel_size"),
        ("kernel_size=true", "kernel_size"),
        ("kernel_size=9", "kernel_size"),
        ("kernel_size=2&x=1", "x: unknown"),
        ("kernel_size=2&dtype=float64", "dtype"),
        ("kernel_size=2&ceil_mode=1", "ceil_mode"),
        ("kernel_size=%ff", ""),
        ("&".join(f"a{n}=1" for n in range(100)), ""),
    ],
)
def test_queries_that_are_refused(client, query, words):
    path = f"/v1/max_pool/forward?{query}"
    reply = client.post(path, content=saved(data()), headers=NPY)
    detail = refusal(reply, 422 if words else 400)
    assert words in detail
    assert "errors" not in reply.json()  # no JSON, so nothing to point into


def test_the_dtype_may_be_said_again(client):
    path = "/v1/max_pool/forward?kernel_size=2&dtype=float32"
    same(loaded(client.post(path, content=saved(data()), headers=NPY)), pg.max_pool(data(), 2))


GOOD = saved(np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1))


def with_header(text, tail=GOOD[128:], length=None):
    """Return a file of version 1.0 with another header."""
    text = text.encode("latin-1")
    return b"\x93NUMPY\x01\x00" + (length or len(text)).to_bytes(2, "little") + text + tail


HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 4, 4, 1), }"

BAD = {
    "empty": b"",
    "magic": b"\x93NUMPZ" + GOOD[6:],
    "short_magic": GOOD[:5],
    "no_version": GOOD[:7],
    "no_length": GOOD[:9],
    "version_4": GOOD[:6] + b"\x04" + GOOD[7:],
    "version_0": GOOD[:6] + b"\x00" + GOOD[7:],
    "version_1_1": GOOD[:7] + b"\x01" + GOOD[8:],
    "short_header": GOOD[:50],
    "long_header": with_header(HEADER + " " * 2000),
    "length_of_4_gib": b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + GOOD[10:],
    "one_byte_less": GOOD[:-1],
    "one_byte_more": GOOD + b"\0",
    "header_alone": GOOD[:128],
    "int32": saved(np.zeros((1, 4, 4, 1), np.int32)),
    "float16": saved(np.zeros((1, 4, 4, 1), np.float16)),
    "complex": saved(np.zeros((1, 4, 4, 1), np.complex64)),
    "structured": saved(np.zeros((1, 4, 4, 1), [("a", "f4")])),
    "object": with_header("{'descr': '|O', 'fortran_order': False, 'shape': (1, 4, 4, 1), }"),
    "other_shape": with_header(HEADER.replace("4, 1)", "5, 1)")),
    "negative_shape": with_header(HEADER.replace("4, 1)", "-4, 1)")),
    "float_shape": with_header(HEADER.replace("4, 1)", "4.0, 1)")),
    "boolean_shape": with_header(HEADER.replace("4, 1)", "4, True)")),
    "list_shape": with_header(HEADER.replace("(1, 4, 4, 1)", "[1, 4, 4, 1]")),
    "huge_shape": with_header(HEADER.replace("4, 1)", "9" * 100 + ", 1)")),
    "huge_empty_shape": with_header(HEADER.replace("4, 1)", "9" * 30 + ", 0)"), b""),
    "many_axes": with_header(HEADER.replace("4, 1)", "4, 1" + ", 1" * 70 + ")")),
    "fortran_is_1": with_header(HEADER.replace("False", "1")),
    "more_keys": with_header(HEADER.replace("}", "'a': 1}")),
    "fewer_keys": with_header("{'descr': '<f4', 'shape': (1, 4, 4, 1), }"),
    "a_list": with_header("[1]"),
    "code": with_header("__import__('os').abort()"),
    "unhashable": with_header("{[]: 1}"),
    "nested": with_header("(" * 900),
    "minus": with_header("-" * 900 + "1"),
    "utf_16": with_header("{'descr': '\xff'}"),
    "null_byte": with_header(HEADER + "\0"),
    "many_digits": with_header("9" * 1000),
    "pickle": b"\x80\x04\x95",
    "json": b'{"x": [[[1]]], "kernel_size": 1}',
}


@pytest.mark.parametrize("name", BAD)
def test_files_that_are_refused(client, name):
    path = "/v1/max_pool/forward?kernel_size=2"
    reply = client.post(path, content=BAD[name], headers=NPY)
    assert reply.status_code in (400, 422), reply.text
    assert reply.json()["detail"].isprintable()


def test_every_prefix_and_every_changed_byte():
    whole = np.load(io.BytesIO(GOOD))
    for end in range(len(GOOD)):
        with pytest.raises(Problem):
            npy.parsed(memoryview(GOOD)[:end], "x", 100)
    for at in range(128):
        for byte in (0, 0x20, 0x28, 0x2D, 0x39, 0x5C, 0xFF):
            changed = GOOD[:at] + bytes([byte]) + GOOD[at + 1 :]
            try:
                found = npy.parsed(memoryview(changed), "x", 100)
            except Problem:
                continue
            # What is still taken is what NumPy takes it for.
            expected = np.load(io.BytesIO(changed), allow_pickle=False)
            assert found.shape == expected.shape
            assert found.tobytes() == expected.tobytes() or whole.dtype != expected.dtype


def test_the_array_is_no_copy():
    body = memoryview(bytearray(GOOD))
    array = npy.parsed(body, "x", 16)
    assert np.shares_memory(array, np.frombuffer(body, np.uint8))
    with pytest.raises(Problem):
        npy.parsed(body, "x", 15)


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int32"])
@pytest.mark.parametrize("shape", [(1, 2, 3), (0, 5), (), (7,), (10**9, 0, 10**9)])
def test_headers_are_numpys(dtype, shape):
    array = np.empty(shape, dtype)
    assert npy.header(array) == saved(array)[: len(npy.header(array))]
    assert len(npy.header(array)) % 64 == 0


def test_npy_is_documented(client):
    document = client.get("/openapi.json").json()
    for path, item in document["paths"].items():
        if path.startswith("/v1/"):
            operation = item["post"]
            takes = "application/x-npy" in operation["requestBody"]["content"]
            assert takes == ("parameters" in operation)
            reply = client.post(path, content=json.dumps(0), headers=NPY)
            assert reply.status_code == (400 if takes else 415)
