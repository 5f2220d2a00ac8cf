"""Limits: kept before anything is allocated, and each refusal names its setting."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import socket
import sys
import threading
import time
import tracemalloc
from itertools import pairwise

import httpx
import numpy as np
import pytest

import poolgrad
from poolgrad_service import Settings, answers, service
from poolgrad_service.admission import NICE, Memory, Work, read_body
from poolgrad_service.errors import Problem
from poolgrad_service.schemas import Call
from poolgrad_service.v1 import V1

JSON = {"Content-Type": "application/json"}
X = [[[[1.0], [3.0]], [[4.0], [2.0]]]]
GOOD = {"x": X, "kernel_size": 2}


def limit_of(response, status=422):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    return response.json()["limit"]


def call(op, action):
    return Call(poolgrad.OPERATIONS[op], action)


HUGE = {
    "padding": ("max_pool/forward", {"x": X, "kernel_size": 2, "stride": 1, "padding": 10**6}),
    "padding_beyond_numbers": (
        "avg_pool/forward",
        {"x": X, "kernel_size": 2, "stride": 1, "padding": [[2**60, 2**60], [0, 0]]},
    ),
    "x_shape": (
        "avg_pool/backward",
        {"dy": [[[[1]]]], "x_shape": [1, 2**30, 2**20, 1], "kernel_size": [2**30, 2**20]},
    ),
    "x_shape_of_a_maximum": (
        "max_pool/backward",
        {
            "dy": [[[[1]]]],
            "argmax": [[[[0]]]],
            "x_shape": [1, 2**15, 2**15, 1],
            "kernel_size": 2**15,
        },
    ),
    "output_size": ("adaptive_avg_pool/forward", {"x": X, "output_size": 10**6}),
    "output_size_of_one_axis": (
        "adaptive_max_pool/forward",
        {"x": X, "output_size": [None, 2**40 + 1], "return_argmax": True},
    ),
    "x_shape_of_an_adaptive_average": (
        "adaptive_avg_pool/backward",
        {"dy": [[[[1]]]], "x_shape": [1, 2**30, 2**20, 1], "output_size": 1},
    ),
    "shape_of_flat_data": (
        "max_pool/forward",
        {"x": {"shape": [2**40, 2**40], "dtype": "float32", "data": []}, "kernel_size": 2},
    ),
    "shape_of_base64": (
        "max_pool/forward",
        {"x": {"shape": [1, 2**12, 2**13, 1], "dtype": "float32", "base64": ""}, "kernel_size": 2},
    ),
    "empty_shape": (
        "max_pool/forward",
        {"x": {"shape": [0, 2**62], "dtype": "float32", "data": []}, "kernel_size": 2},
    ),
}


@pytest.mark.parametrize("name", HUGE)
def test_nothing_is_allocated_for_what_is_too_large(name):
    path, body = HUGE[name]
    text = memoryview(json.dumps(body).encode())
    settings = Settings()
    asked = call(*path.split("/"))
    with pytest.raises((Problem, poolgrad.PoolgradError)):  # once, to warm caches
        answers.answer(asked, V1(asked), text, settings)
    tracemalloc.start()
    try:
        with pytest.raises((Problem, poolgrad.PoolgradError)):
            answers.answer(asked, V1(asked), text, settings)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("name", HUGE)
def test_what_is_too_large_is_refused(client, name):
    path, body = HUGE[name]
    reply = client.post(f"/v1/{path}", json=body)
    assert reply.status_code == 422, reply.text


def test_output_bytes_are_counted_together(client_of):
    # x has 4 elements; y has 36 of 4 bytes, its argmax 36 of 1, dx 4 of 4.
    wide = {"x": X, "kernel_size": 1, "stride": 1, "padding": 2}
    client = client_of(max_output_bytes=179)
    assert client.post("/v1/max_pool/forward", json=wide).status_code == 200
    reply = client.post("/v1/max_pool/forward", json=wide | {"return_argmax": True})
    assert limit_of(reply) == {"setting": "max_output_bytes", "value": 179}
    assert "180 is above the limit of 179 (max_output_bytes)" in reply.json()["detail"]
    y = client.post("/v1/max_pool/forward", json=wide).json()["y"]
    dy = [[[[1.0] for _ in row] for row in y[0]]]
    body = wide | {"dy": dy}
    assert client.post("/v1/avg_pool/backward", json=body | {"return_y": True}).status_code == 200
    reply = client.post("/v1/max_pool/backward", json=body | {"return_y": True})
    assert limit_of(reply)["setting"] == "max_output_bytes"


@pytest.mark.parametrize(
    ("settings", "body", "setting"),
    [
        ({"max_elements": 3}, GOOD, "max_elements"),
        ({"max_work": 1}, GOOD, "max_work"),
        ({"max_workspace_bytes": 1}, GOOD, "max_workspace_bytes"),
        ({"max_depth": 5}, {"x": [[[[[1]]]]], "kernel_size": 1}, "max_depth"),
        (
            {"max_inflight_bytes": 1000, "max_body_bytes": 1000},
            {"x": X, "kernel_size": 1, "padding": 5},
            "max_inflight_bytes",
        ),
    ],
    ids=["elements", "work", "workspace", "depth", "inflight"],
)
def test_each_limit_is_kept_and_named(client_of, settings, body, setting):
    reply = client_of(**settings).post("/v1/max_pool/forward", json=body)
    assert limit_of(reply) == {"setting": setting, "value": settings[setting]}
    assert f"({setting})" in reply.json()["detail"]


def test_limits_do_not_refuse_what_just_fits(client_of):
    plan = poolgrad.plan("max_pool", (1, 2, 2, 1), kernel_size=2)
    client = client_of(max_elements=4, max_output_bytes=4, max_work=plan.cost, max_depth=5)
    assert client.post("/v1/max_pool/forward", json=GOOD).status_code == 200


@pytest.mark.parametrize("small", [-1, 2**14], ids=["worker", "loop"])
def test_a_refused_body_is_not_kept(client_of, monkeypatch, small):
    bodies, begin = [], answers.begin

    def noting(call, wire, body, *rest):
        bodies.append(body)
        return begin(call, wire, body, *rest)

    monkeypatch.setattr(service, "SMALL", small)
    monkeypatch.setattr(answers, "begin", noting)
    client = client_of()
    gc.disable()
    try:
        for wrong in ({"kernel_size": 100}, {"x": [[[1], []]]}, {"stride": "2"}):
            assert client.post("/v1/max_pool/forward", json=GOOD | wrong).status_code == 422
            wait_for(lambda: sys.getrefcount(bodies[-1]) == 2)  # the list's and the argument's
    finally:
        gc.enable()


def test_a_body_that_is_not_read_to_its_end_is_not_kept():
    messages = iter([{"type": "http.request", "body": b" " * 100, "more_body": True}] * 3)

    async def receive():
        return next(messages)

    settings, memory = Settings(max_body_bytes=250), Memory(1000)
    with pytest.raises(Problem) as caught:
        asyncio.run(read_body("", receive, settings, memory, memory.lease()))
    assert caught.traceback[-1].frame.f_locals["body"] == b""


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize("aligned", [0, 1, 63, 64, 100])
def test_the_arrays_of_a_body_are_aligned(aligned, pieces):
    text = bytes(range(200))
    cuts = [*range(0, 200, 200 // pieces), 200]
    messages = iter(
        {"type": "http.request", "body": text[a:b], "more_body": b < 200} for a, b in pairwise(cuts)
    )

    async def receive():
        return next(messages)

    memory = Memory(1000)
    body = asyncio.run(
        read_body("200", receive, Settings(), memory, memory.lease(), aligned=aligned)
    )
    assert body == text
    assert np.frombuffer(body, "f8", 10, aligned).flags.aligned


def test_long_replies_let_others_go_after_each_piece():
    sizes, turns, between = [], 0, []
    parts = [b"a" * 700_000, memoryview(b"b" * 300_000), b"", b"c"]

    async def send(message):
        sizes.append(len(message.get("body", b"")))
        between.append(turns)

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def main():
        memory = Memory(2**23)
        lease = memory.lease()
        lease.grow(1_000_001)
        sent = service._Sent(answers.Reply(list(parts), "text/plain", {}), lease, 10)
        other = asyncio.ensure_future(others())
        await sent({"type": "http"}, None, send)
        other.cancel()
        assert memory.used == 0

    asyncio.run(main())
    assert sum(sizes) == 1_000_001
    assert max(sizes) <= service.PIECE
    pieces = [n for n, size in zip(between, sizes, strict=True) if size]
    assert all(after > before for before, after in pairwise(pieces))


# ------------------------------------------------------------------------------------- body bytes


def padded(size):
    text = json.dumps(GOOD).encode()
    return text + b" " * (size - len(text))


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [1000, 1001, 3_000_000])
def test_body_bytes(client_of, chunked, size):
    client = client_of(max_body_bytes=1000)
    body = padded(size)
    parts = iter([body[at : at + 50_000] for at in range(0, size, 50_000)])
    reply = client.post("/v1/max_pool/forward", content=parts if chunked else body, headers=JSON)
    if size == 1000:
        assert reply.status_code == 200
        assert reply.json()["y"] == [[[[4.0]]]]
    else:
        assert limit_of(reply, 413) == {"setting": "max_body_bytes", "value": 1000}
        if size > 100_000:
            # What was not read may not be taken for the next request.
            assert reply.headers["connection"] == "close"
    assert client.post("/v1/max_pool/forward", json=GOOD).status_code == 200
    wait_for(lambda: client.app.state.service.memory.used == 0)


def connect(client):
    sock = socket.create_connection(("127.0.0.1", client.base_url.port), timeout=20)
    return sock, sock.makefile("rb")


def head(**headers):
    lines = [b"POST /v1/max_pool/forward HTTP/1.1", b"Host: a", b"Content-Type: application/json"]
    lines += [f"{name}: {value}".encode() for name, value in headers.items()]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def test_content_length_is_judged_before_any_byte_is_read(client_of):
    sock, reader = connect(client_of(max_body_bytes=1000))
    with sock, reader:
        sock.sendall(head(**{"Content-Length": 1001, "Expect": "100-continue"}))
        # Not "100 Continue": the client need not send the body at all.
        assert reader.readline().startswith(b"HTTP/1.1 413 ")


def test_expectations_are_met(client_of):
    sock, reader = connect(client_of())
    body = json.dumps(GOOD).encode()
    with sock, reader:
        sock.sendall(head(**{"Content-Length": len(body), "Expect": "100-continue"}))
        assert reader.readline().startswith(b"HTTP/1.1 100 ")
        assert reader.readline() == b"\r\n"
        sock.sendall(body)
        assert reader.readline().startswith(b"HTTP/1.1 200 ")


def test_chunks_of_one_byte(client):
    body = json.dumps(GOOD).encode()
    reply = client.post(
        "/v1/max_pool/forward",
        content=(body[at : at + 1] for at in range(len(body))),
        headers=JSON,
    )
    assert reply.json()["y"] == [[[[4.0]]]]


def test_a_slow_body_times_out(client_of):
    client = client_of(body_timeout=0.3)
    sock, reader = connect(client)
    with sock, reader:
        sock.sendall(head(**{"Content-Length": 100}) + b'{"x": ')
        assert reader.readline().startswith(b"HTTP/1.1 408 ")
        assert b"connection: close\r\n" in iter(reader.readline, b"\r\n")
    wait_for(lambda: client.app.state.service.memory.used == 0)


def test_slow_headers_time_out(client_of):
    sock, reader = connect(client_of(header_timeout=0.2))
    with sock, reader:
        sock.sendall(b"GET /version HTTP/1.1\r\nHost:")
        found = b""
        with contextlib.suppress(ConnectionError):
            found = reader.read()
        assert found == b""


def test_headers_without_end_are_refused(client_of):
    sock, reader = connect(client_of())
    with sock, reader:
        sent = 0
        with contextlib.suppress(ConnectionError):
            sock.sendall(b"GET /version HTTP/1.1\r\nHost: a\r\n")
            while sent < 1000:
                sock.sendall(b"x-%d: " % sent + b"a" * 60_000 + b"\r\n")
                sent += 1
        assert sent < 1000


def reply_of(reader):
    """Return a reply's status, headers and document."""
    status = int(reader.readline().split()[1])
    headers = dict(line.strip().lower().split(b": ", 1) for line in iter(reader.readline, b"\r\n"))
    return status, headers, json.loads(reader.read(int(headers[b"content-length"])))


def refusal_of(reader):
    """Return the status of a refusal, after which the connection is closed."""
    status, headers, document = reply_of(reader)
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"connection"] == b"close"
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert document["status"] == status
    assert reader.read() == b""
    return status


def test_large_headers_are_refused_with_a_problem(client_of):
    sock, reader = connect(client_of())
    with sock, reader:
        sock.sendall(b"GET /version HTTP/1.1\r\nHost: a\r\n")
        for _ in range(8):
            sock.sendall(b"x: " + b"a" * 10_000 + b"\r\n")
            time.sleep(0.02)  # nothing may be on its way when the connection is closed
        assert refusal_of(reader) == 431


@pytest.mark.parametrize(
    "text",
    [b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"],
    ids=["tls", "no_path", "connect"],
)
def test_what_is_no_request_is_refused_with_a_problem(client, text):
    sock, reader = connect(client)
    with sock, reader:
        sock.sendall(text)
        assert refusal_of(reader) == 400


def test_nothing_gets_into_the_middle_of_a_reply(client_of):
    body = json.dumps({"x": X, "kernel_size": 1, "padding": 1200, "encoding": "base64"}).encode()
    sock, reader = connect(client_of())
    with sock, reader:
        sock.sendall(head(**{"Content-Length": len(body)}) + body)
        assert reader.readline().startswith(b"HTTP/1.1 200 ")
        sock.sendall(b"no request")
        time.sleep(0.2)
        with contextlib.suppress(ConnectionError):
            assert b"HTTP" not in reader.read()


# Java's client offers HTTP/2 with each request; servers may ignore it.
H2C = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAAB"}


def test_many_offers_at_once_are_ignored(client):
    sock, reader = connect(client)
    offer = b"GET /health/live HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n"
    with sock, reader:
        sock.sendall(offer * 2000)
        for _ in range(2000):
            assert reply_of(reader)[0] == 200


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("step", [1, 50, 10**6])
def test_an_offer_of_another_protocol_is_ignored(client, chunked, step):
    body = json.dumps(GOOD).encode()
    framing = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": len(body)}
    sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    text = (head(**H2C, **framing) + sent) * 2 + b"GET /version HTTP/1.1\r\nHost: a\r\n\r\n"
    sock, reader = connect(client)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with sock, reader:
        for at in range(0, len(text), step):
            sock.sendall(text[at : at + step])
        for key in ("y", "y", "library"):
            status, _, document = reply_of(reader)
            assert status == 200
            assert key in document


def test_large_bodies_do_not_count_as_headers(client):
    for _ in range(3):
        body = padded(2_000_000)
        assert client.post("/v1/max_pool/forward", content=body, headers=JSON).status_code == 200


def test_connections_are_bounded(client_of):
    client = client_of(max_connections=3)
    assert client.get("/version").status_code == 200  # keeps one
    answered = 0
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            sock, reader = connect(client)
            stack.enter_context(sock)
            stack.enter_context(reader)
            with contextlib.suppress(ConnectionError):
                sock.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
                answered += reader.readline().startswith(b"HTTP/1.1 200")
    assert answered == 2


def test_a_client_that_goes_away_leaves_nothing(client_of):
    client = client_of()
    memory = client.app.state.service.memory
    sock, reader = connect(client)
    with sock, reader:
        sock.sendall(head(**{"Content-Length": 1000}) + b" " * 500)
        wait_for(lambda: memory.used == 500)
    wait_for(lambda: memory.used == 0)


def wait_for(happened):
    end = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


# --------------------------------------------------------------------------------------- overload


@pytest.fixture
def gate(monkeypatch):
    """Make all jobs wait until the returned event is set, and count those that began."""
    opened, begin = threading.Event(), answers.begin
    opened.begun = []

    def waiting(*arguments):
        opened.begun.append(1)
        assert opened.wait(20)
        return begin(*arguments)

    monkeypatch.setattr(answers, "begin", waiting)
    monkeypatch.setattr(service, "SMALL", -1)  # so that there is a job for a worker
    yield opened
    opened.set()


def test_overload_is_told_and_passes(client_of, gate, in_background):
    client = client_of(workers=1, queue_size=2)
    url = str(client.base_url.join("/v1/max_pool/forward"))
    work = client.app.state.service.work
    taken = [in_background(url, GOOD) for _ in range(3)]
    wait_for(lambda: work.occupied == 3)
    for _ in range(3):
        reply = client.post("/v1/max_pool/forward", json=GOOD)
        assert reply.status_code == 503
        assert reply.headers["content-type"] == "application/problem+json"
        assert int(reply.headers["retry-after"]) >= 1
        assert "queue_size" in reply.json()["detail"]
    # A busy service is neither dead nor unready.
    assert client.get("/health/live").status_code == 200
    assert client.get("/health/ready").status_code == 200
    gate.set()
    assert [future.result().status_code for future in taken] == [200] * 3
    assert client.post("/v1/max_pool/forward", json=GOOD).status_code == 200
    wait_for(lambda: work.occupied == 0)
    wait_for(lambda: client.app.state.service.memory.used == 0)


def test_a_request_that_times_out_keeps_its_slot_until_its_thread_ends(client_of, gate):
    client = client_of(workers=1, queue_size=1, request_timeout=0.2)
    service = client.app.state.service
    reply = client.post("/v1/max_pool/forward", json=GOOD)
    assert reply.status_code == 503
    assert "request_timeout" in reply.json()["detail"]
    # The thread is still at it, so its slot and its body are still taken.
    assert service.work.occupied == 1
    assert service.memory.used == len(json.dumps(GOOD, separators=(",", ":")))
    # One that only waited leaves the queue as it times out.
    assert client.post("/v1/max_pool/forward", json=GOOD).status_code == 503
    wait_for(lambda: service.work.occupied == 1)
    assert len(gate.begun) == 1
    gate.set()
    wait_for(lambda: service.work.occupied == 0)
    wait_for(lambda: service.memory.used == 0)
    assert client.post("/v1/max_pool/forward", json=GOOD).status_code == 200


def test_bodies_of_all_requests_are_counted_together(client_of, gate, in_background):
    client = client_of(max_inflight_bytes=10_000, max_body_bytes=8_000, workers=1)
    service = client.app.state.service
    url = str(client.base_url.join("/v1/max_pool/forward"))
    first = in_background(url, GOOD | {"padding": [0] * 2}, headers={"X-Request-ID": "first"})
    body = json.dumps(GOOD) + " " * 7_900
    second = threading.Thread(
        target=lambda: client.post("/v1/max_pool/forward", content=body, headers=JSON)
    )
    second.start()
    wait_for(lambda: service.work.occupied == 2)
    held = service.memory.used
    assert held > 7_900
    with httpx.Client(base_url=client.base_url) as other:
        for content in (body, iter([body.encode()])):
            reply = other.post("/v1/max_pool/forward", content=content, headers=JSON)
            assert reply.status_code == 503
            assert "max_inflight_bytes" in reply.json()["detail"]
            assert "retry-after" in reply.headers
    assert service.memory.used == held
    gate.set()
    assert first.result().status_code == 200
    second.join(20)
    wait_for(lambda: service.memory.used == 0)


def test_bodies_that_arrive_together_are_counted_as_they_arrive(client_of):
    client = client_of(max_inflight_bytes=10_000, max_body_bytes=8_000)
    memory = client.app.state.service.memory
    with contextlib.ExitStack() as stack:
        first, second = ([stack.enter_context(one) for one in connect(client)] for _ in range(2))
        for sock, _ in (first, second):
            sock.sendall(head(**{"Content-Length": 8_000}) + b" " * 100)
        wait_for(lambda: memory.used == 200)  # each would have had room
        first[0].sendall(b" " * 6_900)
        wait_for(lambda: memory.used == 7_100)
        second[0].sendall(b" " * 7_900)
        assert second[1].readline().startswith(b"HTTP/1.1 503 ")
        first[0].sendall(json.dumps(GOOD).encode().ljust(1_000))
        assert reply_of(first[1])[2]["y"] == [[[[4.0]]]]
    wait_for(lambda: memory.used == 0)


def test_a_reply_is_counted_until_it_is_taken(client_of):
    client = client_of(reply_timeout=20)
    memory = client.app.state.service.memory
    body = json.dumps({"x": X, "kernel_size": 1, "padding": 1200, "encoding": "base64"}).encode()
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", client.base_url.port))
    with sock:
        sock.sendall(head(**{"Content-Length": len(body)}) + body)
        # 2402 * 2402 * 4 bytes as base64, not one of them read by the client
        wait_for(lambda: 30_000_000 < memory.used < 31_000_000)
    wait_for(lambda: memory.used == 0)


def test_a_reply_that_is_never_taken_is_given_up(client_of):
    client = client_of(reply_timeout=0.3)
    memory = client.app.state.service.memory
    body = json.dumps({"x": X, "kernel_size": 1, "padding": 1200, "encoding": "base64"}).encode()
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", client.base_url.port))
    with sock:
        sock.sendall(head(**{"Content-Length": len(body)}) + body)
        wait_for(lambda: memory.used > 30_000_000)
        wait_for(lambda: memory.used == 0)


def test_a_connection_is_not_kept_for_a_reply_that_is_never_taken(client_of):
    client = client_of(reply_timeout=0.3, max_connections=1)
    body = json.dumps({"x": X, "kernel_size": 1, "padding": 1200, "encoding": "base64"}).encode()
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", client.base_url.port))

    def another_is_served():
        with contextlib.suppress(httpx.TransportError):
            return client.get("/health/live").status_code == 200

    with sock:
        sock.sendall(head(**{"Content-Length": len(body)}) + body)
        wait_for(lambda: client.app.state.service.memory.used > 30_000_000)
        assert not another_is_served()
        wait_for(another_is_served)


def test_leases():
    memory = Memory(10)
    a, b = memory.lease(), memory.lease()
    a.grow(6)
    with pytest.raises(Problem) as caught:
        b.grow(5)
    assert caught.value.status == 503
    b.grow(4)
    a.settle(9)  # what was estimated too low is there all the same
    assert memory.used == 13
    a.release()
    a.release()
    assert memory.used == 4


def test_digit_bombs_are_refused_in_time(client):
    bomb = b'{"kernel_size": 2, "x": [[[%s]]]}' % (b"9" * 10_000_000)
    reply = client.post("/v1/max_pool/forward", content=bomb, headers=JSON)
    assert reply.status_code == 422, reply.text
    bomb = b'{"x": [[[1]]], "kernel_size": %s}' % (b"9" * 10_000_000)
    reply = client.post("/v1/max_pool/forward", content=bomb, headers=JSON)
    assert reply.status_code == 422, reply.text


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no nice value of their own")
def test_workers_leave_the_event_loop_the_cpu():
    async def nice_values():
        work = Work(1, 1)
        there = await work.run(lambda: os.nice(0), timeout=10, unwanted=lambda: None)
        work.close()
        return os.nice(0), there

    here, there = asyncio.run(nice_values())
    assert there == min(here + NICE, 19)
