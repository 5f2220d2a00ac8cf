"""Servers in processes of their own: start, health under load, and an orderly end."""

from __future__ import annotations

import os
import signal
import threading

import httpx
import pytest

GOOD = {"x": [[[[1.0], [3.0]], [[4.0], [2.0]]]], "kernel_size": 2}


def open_gate(gate):
    open(gate, "w").close()


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_ends_with_status_0(serve, sig):
    server = serve("--drain-delay", "0.1")
    with httpx.Client(base_url=server.url) as client:
        assert client.get("/health/ready").status_code == 200  # an idle connection stays open
        assert server.stop(sig) == 0
    assert "Traceback" not in server.log


def test_requests_in_flight_are_finished(gated, in_background):
    server, gate = gated("--drain-delay", "0.2")
    url = f"{server.url}/v1/max_pool/forward"
    running = in_background(url, GOOD)
    server.wait(lambda: os.path.exists(gate + ".begun"))
    waiting = in_background(url, GOOD)
    server.wait(lambda: server.log.count("POST") == 0)
    server.process.send_signal(signal.SIGTERM)
    server.wait(lambda: "Shutting down" in server.log)
    # No connection is accepted any more, but the work goes on.
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{server.url}/health/live")
    assert not running.done()
    open_gate(gate)
    assert running.result().json()["y"] == [[[[4.0]]]]
    assert waiting.result().status_code == 200
    assert server.process.wait(20) == 0


def test_readiness_ends_before_connections_do(gated, in_background):
    server, gate = gated("--drain-delay", "1.5")
    running = in_background(f"{server.url}/v1/max_pool/forward", GOOD)
    server.wait(lambda: os.path.exists(gate + ".begun"))
    assert httpx.get(f"{server.url}/health/ready").status_code == 200
    server.process.send_signal(signal.SIGTERM)
    server.wait(lambda: httpx.get(f"{server.url}/health/ready").status_code == 503)
    reply = httpx.get(f"{server.url}/health/ready")
    assert reply.headers["content-type"] == "application/problem+json"
    assert "retry-after" in reply.headers
    # Who has not noticed yet is still served.
    assert httpx.get(f"{server.url}/health/live").status_code == 200
    open_gate(gate)
    late = httpx.post(f"{server.url}/v1/max_pool/forward", json=GOOD)
    assert late.status_code == 200
    assert running.result().status_code == 200
    assert server.process.wait(20) == 0


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_forces(gated, in_background, second):
    server, gate = gated("--drain-delay", "0")
    running = in_background(f"{server.url}/v1/max_pool/forward", GOOD)
    server.wait(lambda: os.path.exists(gate + ".begun"))
    server.process.send_signal(signal.SIGTERM)
    server.wait(lambda: "Waiting for connections" in server.log)
    assert server.stop(second) == 128 + second
    with pytest.raises(httpx.TransportError):
        running.result()


def test_work_that_does_not_end_is_given_up(gated, in_background):
    server, gate = gated("--drain-delay", "0", "--shutdown-timeout", "1")
    running = in_background(f"{server.url}/v1/max_pool/forward", GOOD)
    server.wait(lambda: os.path.exists(gate + ".begun"))
    assert server.stop() == 1
    server.wait(lambda: "did not finish in time" in server.log)
    assert running.exception() is not None or running.result().status_code >= 500


def test_a_taken_port_is_told(serve):
    port = str(serve().port)
    other = serve("--port", port, wait=False)
    assert other.process.wait(20) not in (0, None)
    other.wait(lambda: "address already in use" in other.log)
    assert "Traceback" not in other.log


def test_health_answers_while_a_large_body_is_worked_on(serve):
    server = serve("--workers", "1", "--max-output-bytes", "256MiB")
    row = b"[" + b",".join(b"[%d.%06d]" % (i % 10, i * 7919 % 10**6) for i in range(2000)) + b"]"
    body = b'{"kernel_size":1,"x":[[' + b",".join([row] * 1500) + b"]]}"
    sent, done = threading.Event(), threading.Event()

    def chunks():
        for at in range(0, len(body), 2**18):
            yield body[at : at + 2**18]
        sent.set()

    replies = []

    def post():
        headers = {"Content-Type": "application/json"}
        reply = httpx.post(
            f"{server.url}/v1/max_pool/forward", content=chunks(), headers=headers, timeout=60
        )
        done.set()
        replies.append(reply)

    thread = threading.Thread(target=post)
    thread.start()
    assert sent.wait(20)
    answered = 0
    with httpx.Client(base_url=server.url) as client:
        while not done.is_set():
            assert client.get("/health/live").status_code == 200
            answered += not done.is_set()
    thread.join(60)
    assert replies[0].status_code == 200
    assert replies[0].json()["shape"] == [1, 1500, 2000, 1]
    # If parsing or writing held the loop, one answer at most could come before the reply.
    assert answered >= 10
