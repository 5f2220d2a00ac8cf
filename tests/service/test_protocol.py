"""Requests that are answered at once, without ASGI: nobody can tell, but for the time."""

import contextlib
import gc
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import numpy as np
import pytest

import poolgrad
from poolgrad_service import answers
from poolgrad_service.answers import SMALL
from poolgrad_service.protocol import Protocol

JSON = {"Content-Type": "application/json"}
PATH = "/v1/max_pool/forward"
BODY = b'{"x": [[[[1], [7], [2]], [[3], [4], [9]]]], "kernel_size": 2, "stride": 1}'
REPLY = b'{"y":[[[[7.0],[9.0]]]],"shape":[1,1,2,1],"dtype":"float32"}'


def request(body: bytes = BODY, path: str = PATH, *headers: str, version: str = "1.1") -> bytes:
    """Return a POST as it goes over the wire."""
    lines = [f"POST {path} HTTP/{version}", "Host: a", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def reply(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Return a reply's status, its headers in order, and its body."""
    text = b""
    while b"\r\n\r\n" not in text:
        piece = connection.recv(65536)
        assert piece, text
        text += piece
    head, _, body = text.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    while len(body) < int(headers["content-length"]):
        body += connection.recv(65536)
    return int(status.split()[1]), headers, body


@pytest.fixture
def connection(client: httpx.Client) -> Iterator[socket.socket]:
    address = client.base_url.host, client.base_url.port
    with socket.create_connection(address, timeout=20) as found:
        yield found


def in_pieces(connection: socket.socket, text: bytes) -> None:
    """Send a request whose body comes later than its head: it is answered the usual way."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    at = text.index(b"\r\n\r\n") + 6
    connection.sendall(text[:at])
    time.sleep(0.05)
    connection.sendall(text[at:])


@pytest.fixture
def usual_way(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Return a counter of the requests that were answered the usual way."""
    from poolgrad_service import service

    n, respond = 0, service._respond

    async def counted(*arguments):
        nonlocal n
        n += 1
        return await respond(*arguments)

    monkeypatch.setattr(service, "_respond", counted)
    return lambda: n


@pytest.mark.parametrize("more", [(), ("X-Request-ID: a.b-c",), ("Accept: */*",)])
def test_both_ways_answer_the_same(connection, usual_way, more) -> None:
    connection.sendall(request(BODY, PATH, *more))
    at_once = reply(connection)
    assert usual_way() == 0
    in_pieces(connection, request(BODY, PATH, *more))
    usual = reply(connection)
    assert usual_way() == 1
    assert at_once[::2] == (200, REPLY)
    for _, headers, _ in (at_once, usual):
        headers.pop("date")
        if not any("X-Request-ID" in line for line in more):
            assert len(headers.pop("x-request-id")) == 32
    assert list(at_once[1].items()) == list(usual[1].items())
    assert at_once[2] == usual[2]


@pytest.mark.parametrize("op", list(poolgrad.OPERATIONS))
def test_every_operation_is_answered_at_once(connection, usual_way, op) -> None:
    x = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    adaptive = "output_size" in poolgrad.OPERATIONS[op].parameters
    size = {"output_size" if adaptive else "kernel_size": 2}
    connection.sendall(request(json.dumps({"x": x.tolist(), **size}).encode(), f"/v1/{op}/forward"))
    status, _, body = reply(connection)
    assert status == 200
    y = getattr(poolgrad, op)(x, 2)
    np.testing.assert_array_equal(np.float32(json.loads(body)["y"]), y)
    dy = np.ones_like(y)
    document = {"x": x.tolist(), "dy": dy.tolist(), **size}
    connection.sendall(request(json.dumps(document).encode(), f"/v1/{op}/backward"))
    _, _, body = reply(connection)
    dx = getattr(poolgrad, f"{op}_backward")(dy, x, 2)
    np.testing.assert_array_equal(np.float32(json.loads(body)["dx"]), dx)
    inputs = [{"name": "x", "shape": x.shape, "datatype": "FP32", "data": x.ravel().tolist()}]
    document = {"inputs": inputs, "parameters": size}
    connection.sendall(request(json.dumps(document).encode(), f"/v2/models/{op}/infer"))
    _, _, body = reply(connection)
    assert json.loads(body)["outputs"][0]["data"] == y.ravel().tolist()
    assert usual_way() == 0


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        (request(b"{"), 400, "the body ends"),
        (request(b'{"x": [[[[1], [2]], [[3]]]], "kernel_size": 1}'), 422, "ragged"),
        (request(BODY.replace(b"stride", b"strides")), 422, "strides: unknown member"),
        (request(BODY, PATH, "Accept: text/html"), 406, "Accept allows no"),
        (request(BODY, PATH, "Content-Encoding: br"), 415, "Content-Encoding"),
        (request(BODY, PATH, "Content-Encoding: gzip"), 400, "gzip"),
        (request(BODY, "/v1/no_pool/forward"), 404, "Not Found"),
    ],
)
def test_refusals_are_as_ever(connection, client, text, status, words) -> None:
    counts = client.app.state.service.counts["/v1/max_pool/forward"]
    before = counts.succeeded
    connection.sendall(text)
    found, headers, body = reply(connection)
    assert found == status
    assert headers["content-type"] == "application/problem+json"
    assert words in body.decode()
    assert counts.succeeded == before
    if headers.get("connection") != "close":  # as it is where the body was not read
        connection.sendall(request())
        assert reply(connection)[0] == 200


def test_a_compressed_reply_takes_the_usual_way(connection, usual_way) -> None:
    connection.sendall(request(BODY, PATH, "Accept-Encoding: gzip"))
    status, headers, _ = reply(connection)
    assert (status, headers["content-encoding"], usual_way()) == (200, "gzip", 1)


def test_what_is_no_small_request_takes_the_usual_way(connection, usual_way) -> None:
    long = BODY + b" " * SMALL
    connection.sendall(request(long))
    assert reply(connection)[::2] == (200, REPLY)
    document = b'{"dy": [[[[1]]]], "x_shape": [1, 500, 500, 1], "output_size": 1}'
    connection.sendall(request(document, "/v1/adaptive_avg_pool/backward"))
    assert reply(connection)[0] == 200
    assert usual_way() == 2


def test_requests_that_come_together_are_answered_in_order(connection, usual_way) -> None:
    ids = [f"X-Request-ID: r{k}" for k in range(20)]
    connection.sendall(b"".join(request(BODY, PATH, line) for line in ids))
    left = b""
    while left.count(REPLY) < 20:
        left += connection.recv(65536)
    found = [line for line in left.decode().split("\r\n") if line.startswith("x-request-id")]
    assert found == [line.lower() for line in ids]
    assert usual_way() > 0  # others have their turn between them


def test_an_old_client_gets_its_reply_and_the_end(connection) -> None:
    connection.sendall(request(version="1.0"))
    status, headers, body = reply(connection)
    assert (status, headers["connection"], body) == (200, "close", REPLY)
    assert connection.recv(1) == b""


def test_who_waits_to_be_told_to_go_on_is_told(connection) -> None:
    connection.sendall(request(BODY, PATH, "Expect: 100-continue"))
    text = b""
    while not text.endswith(REPLY):
        text += connection.recv(65536)
    assert text.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


def test_what_nobody_expected_is_logged_and_answered(connection, monkeypatch, caplog) -> None:
    def broken(*arguments):
        raise RuntimeError("not for clients")

    monkeypatch.setattr(answers, "begin", broken)
    connection.sendall(request(BODY, PATH, "X-Request-ID: lost"))
    status, _, body = reply(connection)
    assert status == 500
    assert b"not for clients" not in body
    assert "request lost failed" in caplog.text
    monkeypatch.undo()
    connection.sendall(request())
    assert reply(connection)[::2] == (200, REPLY)


def test_room_is_kept_for_others(client_of) -> None:
    client = client_of()
    memory = client.app.state.service.memory
    assert client.post(PATH, content=BODY, headers=JSON).status_code == 200
    held = memory.lease()
    held.grow(memory.limit)
    assert client.post(PATH, content=BODY, headers=JSON).status_code == 503
    held.release()
    assert client.post(PATH, content=BODY, headers=JSON).status_code == 200


@pytest.mark.parametrize(
    ("setting", "value", "status"),
    [
        ("max_body_bytes", len(BODY) - 1, 413),
        ("max_elements", 5, 422),
        ("max_output_bytes", 7, 422),
        ("max_work", 1, 422),
    ],
)
def test_every_limit_holds_for_small_requests(client_of, setting, value, status) -> None:
    client = client_of(**{setting: value})
    address = client.base_url.host, client.base_url.port
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(request())
        found, _, body = reply(connection)
    assert (found, setting in body.decode()) == (status, True)


def test_requests_are_counted_once(client_of) -> None:
    client = client_of()
    counts = client.app.state.service.counts[PATH]
    for _ in range(3):
        client.post(PATH, content=BODY, headers=JSON)
    client.post(PATH, content=BODY[:-1], headers=JSON)
    assert (counts.succeeded, counts.failed) == (3, 1)
    assert 0 < counts.read + counts.pool + counts.write <= counts.success


def test_the_log_tells_of_them(serve) -> None:
    server = serve()
    assert httpx.post(f"{server.url}{PATH}?a=b", content=BODY, headers=JSON).status_code == 200
    server.wait(lambda: f'"POST {PATH}?a=b HTTP/1.1" 200' in server.log)


def test_a_client_that_takes_nothing_is_not_answered_without_end(client_of) -> None:
    client = client_of()
    address = client.base_url.host, client.base_url.port
    # More than the system's own buffers have room for, with a reply for each request.
    sent, most = 0, 2**26
    waiting = socket.create_connection(address, timeout=0.5)
    with contextlib.suppress(TimeoutError), waiting:
        while sent < most:
            sent += waiting.send(request())
    assert sent < most
    assert client.post(PATH, content=BODY, headers=JSON).status_code == 200


def test_only_requests_that_came_together_wait_for_their_turn(client_of) -> None:
    client = client_of()
    address = client.base_url.host, client.base_url.port
    sent, waited = 0, 0
    waiting = socket.create_connection(address, timeout=0.5)
    with contextlib.suppress(TimeoutError), waiting:
        while sent < 2**24:
            sent += waiting.send(request() * 100)
            found = (it for it in gc.get_objects() if type(it) is Protocol)
            waited = max(waited, 0, *(len(protocol.pipeline) for protocol in found))
    assert 0 < waited <= 2**18 // len(request()) + 1  # what the event loop reads at once


@pytest.mark.parametrize("body", [BODY, BODY[:-1] + b" " * 2000 + b"}"], ids=["short", "longer"])
def test_requests_that_wait_for_no_reply_are_all_answered_in_order(client_of, body) -> None:
    client = client_of()
    address = client.base_url.host, client.base_url.port
    n = 2000
    with socket.create_connection(address, timeout=20) as connection:
        sender = threading.Thread(target=connection.sendall, args=(request(body) * n,))
        sender.start()
        stream = connection.makefile("rb")
        for _ in range(n):
            assert stream.readline() == b"HTTP/1.1 200 OK\r\n"
            length = 0
            while (line := stream.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            assert stream.read(length) == REPLY
        sender.join()
