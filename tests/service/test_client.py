"""The clients: the library's functions, results and exceptions, over a network that fails."""

from __future__ import annotations

import ast
import asyncio
import inspect
import subprocess
import sys
import threading
import time
from email.utils import formatdate
from pathlib import Path

import httpx
import numpy as np
import pytest

import poolgrad as pg
from poolgrad_service import exchange, poolings
from poolgrad_service.client import AsyncClient, Client, ServiceError
from poolgrad_service.exchange import delay

NAMES = [f"{op}{end}" for op in pg.OPERATIONS for end in ("", "_backward")]


@pytest.fixture(scope="session")
def url(client):
    return str(client.base_url)


@pytest.fixture(params=["binary", "json"])
def pools(request, url):
    with Client(url, format=request.param) as client:
        yield client


def data(dtype="float32"):
    x = np.random.default_rng(3).normal(size=(2, 7, 6, 5)).astype(dtype)
    x.reshape(-1)[:4] = np.nan, np.inf, -np.inf, -0.0
    return x


def same(a, b):
    assert type(a) is np.ndarray
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    assert a.flags.writeable
    assert a.flags.aligned
    nan = np.isnan(a)
    assert (nan == np.isnan(b)).all()
    assert a[~nan].tobytes() == b[~nan].tobytes()


ARGUMENTS = {
    "max_pool": [
        ((2,), {}),
        (((3, 2),), {"stride": [2, 1], "padding": ((1, 0), 1), "dilation": 1}),
        ((np.int64(3),), {"padding": "same", "stride": 2}),
        ((2,), {"ceil_mode": True, "layout": "channels_first", "stride": None}),
        (((2, 2),), {"padding": ((0, 1), (1, 0))}),
    ],
    "adaptive_max_pool": [((3,), {}), (((4, None),), {"layout": "channels_first"})],
}
ARGUMENTS["avg_pool"] = [
    *ARGUMENTS["max_pool"],
    ((3,), {"padding": 1, "count_include_pad": False}),
    ((3,), {"divisor_override": 7}),
]
ARGUMENTS["adaptive_avg_pool"] = ARGUMENTS["adaptive_max_pool"]
CASES = [(op, *case) for op in pg.OPERATIONS for case in ARGUMENTS[op]]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("op", "sizes", "more"), CASES)
def test_results_are_the_librarys(pools, op, sizes, more, dtype):
    x = data(dtype)
    local, remote = getattr(pg, op), getattr(pools, op)
    backward, remote_backward = getattr(pg, f"{op}_backward"), getattr(pools, f"{op}_backward")
    y = local(x, *sizes, **more)
    same(remote(x, *sizes, **more), y)
    dy = np.random.default_rng(4).normal(size=y.shape).astype(dtype)
    dx = backward(dy, x, *sizes, **more)
    same(remote_backward(dy, x, *sizes, **more), dx)
    if pg.OPERATIONS[op].has_argmax:
        y, argmax = local(x, *sizes, return_argmax=True, **more)
        pair = remote(x, *sizes, return_argmax=True, **more)
        assert type(pair) is tuple
        same(pair[0], y)
        same(pair[1], argmax)
        for given in (x, x.shape, list(x.shape)):
            same(remote_backward(dy, given, *sizes, argmax=argmax, **more), dx)
    else:
        same(remote_backward(dy, x.shape, *sizes, **more), dx)


def test_arrays_of_any_memory_order(pools):
    x = np.asfortranarray(data())[:, ::2, ::-1]
    same(pools.max_pool(x, 2), pg.max_pool(x, 2))


@pytest.mark.parametrize("shape", [(0, 4, 4, 1), (1, 4, 4, 0), (0, 5, 2)])
def test_empty_arrays(pools, shape):
    x = np.empty(shape, np.float32)
    same(pools.max_pool(x, 2), pg.max_pool(x, 2))
    y, argmax = pools.max_pool(x, 2, return_argmax=True)
    assert argmax.dtype == np.uint8
    same(pools.max_pool_backward(y, x.shape, 2, argmax=argmax), x)


def test_large_argmaxes_are_int32(pools):
    x = data()
    y, argmax = pools.max_pool(x, (4, 64), padding=(0, 32), return_argmax=True)
    assert argmax.dtype == np.int32
    dx = pools.max_pool_backward(y, x.shape, (4, 64), padding=(0, 32), argmax=argmax)
    same(dx, pg.max_pool_backward(y, x, (4, 64), padding=(0, 32)))


def test_large_arrays(url):
    x = np.random.default_rng(0).normal(size=(2, 300, 300, 16)).astype(np.float32)
    with Client(url) as client:
        same(client.max_pool(x, 2), pg.max_pool(x, 2))


X = np.ones((1, 4, 4, 1), np.float32)
Y = np.ones((1, 2, 2, 1), np.float32)
ARGMAX = np.zeros((1, 2, 2, 1), np.uint8)

WRONG = {
    "a_window_that_does_not_fit": lambda f: f.max_pool(X, 9),
    "zero": lambda f: f.max_pool(X, 0),
    "boolean": lambda f: f.max_pool(X, True),
    "too_few": lambda f: f.max_pool(X, (2,)),
    "too_many": lambda f: f.max_pool(X, (2, 2, 2)),
    "no_pair": lambda f: f.max_pool(X, 2, padding=((1, 1, 1), 0)),
    "name": lambda f: f.max_pool(X, 2, padding="full"),
    "layout": lambda f: f.max_pool(X, 2, layout="NHWC"),
    "rank": lambda f: f.max_pool(X[0, 0], 2),
    "int": lambda f: f.max_pool(X.astype(int), 2),
    "float16": lambda f: f.max_pool(X.astype(np.float16), 2),
    "list": lambda f: f.max_pool(X.tolist(), 2),
    "shape_of_dy": lambda f: f.max_pool_backward(X, X, 2),
    "dtype_of_dy": lambda f: f.max_pool_backward(Y.astype(float), X, 2),
    "dtype_of_dy_of_an_average": lambda f: f.avg_pool_backward(Y.astype(float), X, 2),
    "no_shape": lambda f: f.avg_pool_backward(Y, 3, 2),
    "shape_of_floats": lambda f: f.avg_pool_backward(Y, (1, 4.0, 4, 1), 2),
    "an_argmax_that_is_no_tap": lambda f: f.max_pool_backward(
        Y, X.shape, 2, argmax=np.full_like(ARGMAX, 9)
    ),
    "shape_of_argmax": lambda f: f.max_pool_backward(Y, X.shape, 2, argmax=ARGMAX[:, :1]),
    "dtype_of_argmax": lambda f: f.max_pool_backward(Y, X.shape, 2, argmax=ARGMAX.astype(np.int32)),
    "output_size": lambda f: f.adaptive_avg_pool(X, 0),
    "divisor": lambda f: f.avg_pool(X, 2, divisor_override=0),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_are_the_librarys_in_the_same_words(pools, name):
    with pytest.raises(pg.PoolgradError) as local:
        WRONG[name](pg)
    with pytest.raises(type(local.value)) as remote:
        WRONG[name](pools)
    assert type(remote.value) is type(local.value)
    assert str(remote.value).split(":")[0] == str(local.value).split(":")[0]
    if name not in ("boolean", "no_pair"):  # judged by its JSON type, before the library sees it
        assert str(remote.value) == str(local.value)


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda f: f.max_pool(X, 2.0), pg.ParameterError),
        (lambda f: f.max_pool(X, "2"), pg.ParameterError),
        (lambda f: f.max_pool(X, {}), pg.ParameterError),
        (lambda f: f.max_pool(X, (2, "2")), pg.ParameterError),
        (lambda f: f.max_pool(X, None), pg.ParameterError),
        (lambda f: f.max_pool(X, ()), pg.ParameterError),
        (lambda f: f.max_pool_backward(Y, X.shape, 2), pg.PoolgradError),
        (lambda f: f.max_pool_backward(Y, X.shape, 2, argmax=[0]), pg.DtypeError),
        (lambda f: f.max_pool_backward(Y, X.shape, 2, argmax=Y.astype(int)), pg.DtypeError),
        (lambda f: f.max_pool(X), TypeError),
        (lambda f: f.max_pool(X, 2, 3), TypeError),
        (lambda f: f.max_pool(X, 2, out=X), TypeError),
        (lambda f: f.max_pool(X, 2, num_threads=1), TypeError),
        (lambda f: f.avg_pool(X, 2, return_argmax=True), TypeError),
    ],
)
def test_other_errors(pools, call, kind):
    with pytest.raises(kind):
        call(pools)


def test_limits_are_the_services(pools):
    with pytest.raises(ServiceError, match="max_output_bytes") as caught:
        pools.max_pool(X, 2, padding=10**6)
    assert caught.value.status == 400


def test_a_format_that_there_is_not(url):
    with pytest.raises(pg.ParameterError, match="format"):
        Client(url, format="xml")


# ------------------------------------------------------------------------------------ asynchronous


def test_asynchronous(url):
    x = data()

    async def main(form):
        async with AsyncClient(f"{url}/", format=form) as client:
            found = await asyncio.gather(*(client.max_pool(x, k) for k in (1, 2, 3) * 5))
            for k, y in zip((1, 2, 3) * 5, found, strict=True):
                same(y, pg.max_pool(x, k))
            y, argmax = await client.max_pool(x, 2, return_argmax=True)
            dx = await client.max_pool_backward(y, x.shape, 2, argmax=argmax)
            same(dx, pg.max_pool_backward(y, x, 2))
            with pytest.raises(pg.ShapeError):
                await client.max_pool(x, 99)

    for form in ("binary", "json"):
        asyncio.run(main(form))


def test_an_unreachable_service_asynchronously():
    async def main():
        async with AsyncClient("http://127.0.0.1:1", retries=1, backoff=0.01) as client:
            await client.max_pool(X, 2)

    with pytest.raises(ServiceError, match=r"no answer from http://127\.0\.0\.1:1 \("):
        asyncio.run(main())


# -------------------------------------------------------------------------------- what fails, when


def told(content, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    headers = {"Content-Length": str(len(content))} | headers
    return httpx.Response(200, stream=httpx.ByteStream(content), headers=headers)


def scripted(answers, seen=None):
    """Return a client whose service gives these answers in turn, and then pools."""
    answers = iter(answers)

    def handle(request):
        request.read()
        if seen is not None:
            seen.append(request)
        answer = next(answers, None)
        if isinstance(answer, Exception):
            raise answer
        if answer is not None:
            return answer
        head = b'{"outputs":[{"name":"y","datatype":"FP32","shape":[1,1,1],"data":[7.0]}]}'
        return told(head)

    return httpx.Client(transport=httpx.MockTransport(handle))


def refused(status, **headers):
    document = {"detail": "not now", "error": "not now"}
    return httpx.Response(status, json=document, headers=headers)


@pytest.fixture
def slept(monkeypatch):
    seconds = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


SMALL = np.ones((1, 2, 1), np.float32)


def test_a_busy_service_is_asked_again(slept):
    seen = []
    http = scripted([refused(503), refused(429), refused(503)], seen)
    client = Client("http://a/b/", http=http, backoff=1)
    assert client.max_pool(SMALL, 2) == 7
    assert len(seen) == 4
    assert {str(request.url) for request in seen} == {"http://a/b/v2/models/max_pool/infer"}
    assert len({request.content for request in seen}) == 1
    assert "transfer-encoding" not in seen[0].headers
    for seconds, usual in zip(slept, (1, 2, 4), strict=True):
        assert 0.5 * usual <= seconds <= 1.5 * usual


def test_retry_after_is_kept(slept):
    date = formatdate(time.time() + 30, usegmt=True)
    answers = [
        refused(503, **{"Retry-After": "7"}),
        refused(429, **{"Retry-After": date}),
        refused(503, **{"Retry-After": "soon"}),
    ]
    assert Client("http://a", http=scripted(answers), backoff=0.001).max_pool(SMALL, 2) == 7
    assert slept[0] == 7
    assert 25 < slept[1] <= 30
    assert slept[2] < 1


def test_a_service_that_is_busy_for_long_is_not_waited_for(slept):
    http = scripted([refused(503, **{"Retry-After": "3600"})])
    with pytest.raises(ServiceError, match="not now") as caught:
        Client("http://a", http=http).max_pool(SMALL, 2)
    assert caught.value.retry_after == 3600
    assert not slept


@pytest.mark.parametrize("retries", [0, 2])
def test_patience_ends(slept, retries):
    seen = []
    client = Client("http://a", http=scripted([refused(503)] * 9, seen), retries=retries)
    with pytest.raises(ServiceError) as caught:
        client.max_pool(SMALL, 2)
    assert caught.value.status == 503
    assert len(seen) == retries + 1
    assert len(slept) == retries


@pytest.mark.parametrize("status", [400, 404, 413, 415, 500, 504])
def test_other_refusals_are_not_asked_again(slept, status):
    with pytest.raises(ServiceError, match="not now") as caught:
        Client("http://a", http=scripted([refused(status)])).max_pool(SMALL, 2)
    assert caught.value.status == status
    assert not slept


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError])
def test_a_lost_connection_is_made_again(slept, error):
    client = Client("http://a", http=scripted([error("lost"), error("lost")]))
    assert client.max_pool(SMALL, 2) == 7
    assert len(slept) == 2


@pytest.mark.parametrize("error", [httpx.ReadTimeout, httpx.ConnectTimeout])
def test_a_timeout_is_told_at_once(slept, error):
    client = Client("http://a", http=scripted([error("too late")]))
    with pytest.raises(ServiceError, match=r"no answer from http://a in time: \(too late\)"):
        client.max_pool(SMALL, 2)
    assert not slept


def test_a_timeout_is_kept(client_of, monkeypatch):
    from poolgrad_service import answers, service

    begin, gate = answers.begin, threading.Event()
    monkeypatch.setattr(answers, "begin", lambda *given: gate.wait(20) and begin(*given))
    monkeypatch.setattr(service, "SMALL", -1)
    try:
        with (
            Client(str(client_of().base_url), timeout=0.2) as client,
            pytest.raises(ServiceError, match="in time"),
        ):
            client.max_pool(X, 2)
    finally:
        gate.set()


@pytest.mark.parametrize(
    "reply",
    [
        told(b""),
        told(b"<html>"),
        told(b"[]"),
        told(b'{"outputs": []}'),
        told(b'{"outputs": [{"name": "y", "datatype": "FP8", "shape": [1], "data": [1]}]}'),
        told(b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [9], "data": [1]}]}'),
        told(b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [9]}]}'),
        told(b"{}", Inference_Header_Content_Length="5"),
        told(b"{}", Inference_Header_Content_Length="x"),
        told(b"{}", Content_Length="1"),
    ],
)
def test_replies_that_make_no_sense(reply):
    with pytest.raises(ServiceError, match="cannot be read"):
        Client("http://a", http=scripted([reply])).max_pool(SMALL, 2)


@pytest.mark.parametrize("content", [b"<html>\x1b[31m bad gateway", b"[1]", b"null", b"\xff"])
def test_refusals_without_a_problem_document(content):
    http = scripted([httpx.Response(502, content=content)])
    with pytest.raises(ServiceError, match="status 502") as caught:
        Client("http://a", http=http).max_pool(SMALL, 2)
    assert str(caught.value).isprintable()


def test_connections_are_used_again(client_of):
    service = client_of()
    ports = set()
    app = service.app.router  # noqa: F841  # the server runs for as long as there is its client

    with Client(str(service.base_url)) as client:
        pool = client._http._transport._pool
        for _ in range(5):
            client.max_pool(X, 2)
            ports.update(id(connection) for connection in pool.connections)
    assert len(ports) == 1
    assert client._http.is_closed


def test_what_was_given_is_not_closed():
    http = scripted([])
    with Client("http://a", http=http):
        pass
    assert not http.is_closed


def test_a_reply_without_a_known_length():
    head = b'{"outputs":[{"name":"y","datatype":"FP32","shape":[1,1,1],'
    head += b'"parameters":{"binary_data_size":4}}]}'
    reply = told(head + np.float32(5).tobytes(), Inference_Header_Content_Length=str(len(head)))
    del reply.headers["Content-Length"]
    y = Client("http://a", http=scripted([reply])).max_pool(SMALL, 2)
    same(y, np.full((1, 1, 1), 5, np.float32))


def test_delays_spread():
    error = ServiceError("busy", 503)
    found = [delay(error, 3, 9, 1.0) for _ in range(200)]
    assert 4 <= min(found) < 6 < 10 < max(found) <= 12
    assert delay(ValueError(), 0, 9, 1.0) is None


# ------------------------------------------------------------------------------------ its functions


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("name", NAMES)
def test_functions_have_the_librarys_signatures(kind, name):
    function = getattr(kind, name)
    local = inspect.signature(getattr(pg, name)).parameters
    kept = [p for p in local.values() if p.name not in ("out", "num_threads")]
    assert list(inspect.signature(function).parameters.values())[1:] == kept
    assert f"`poolgrad.{name}`" in function.__doc__
    assert function.__doc__.startswith(getattr(pg, name).__doc__.split("\n")[0])


def test_the_stub_is_what_there_is():
    tree = ast.parse(Path(poolings.__file__).with_suffix(".pyi").read_text())
    for node in tree.body:
        if not isinstance(node, ast.ClassDef):
            continue
        kind = getattr(poolings, node.name)
        functions = [f for f in node.body if isinstance(f, ast.FunctionDef)]
        assert {f.name for f in functions} - {"__init__"} == set(NAMES)
        for function in functions:
            parameters = inspect.signature(getattr(kind, function.name)).parameters
            names = [a.arg for a in (*function.args.args, *function.args.kwonlyargs)]
            assert names == list(parameters)
            defaults = [None] * len(function.args.args) + list(function.args.kw_defaults)
            if function.name == "__init__":
                continue
            for parameter, default in zip(parameters.values(), defaults, strict=True):
                if default is not None:
                    assert ast.literal_eval(default) == parameter.default
                elif parameter.name != "return_argmax":  # required in one of its overloads
                    assert parameter.default is parameter.empty


def test_a_later_operation_appears_by_itself(monkeypatch):
    monkeypatch.setattr(pg, "OPERATIONS", {"max_pool": pg.OPERATIONS["max_pool"]})
    assert list(pg.OPERATIONS) == ["max_pool"]
    made = poolings._function("max_pool", True)
    assert made.__name__ == "max_pool_backward"


@pytest.mark.parametrize("module", ["client", "cli"])
def test_neither_needs_what_the_service_does(module):
    code = (
        f"import sys, poolgrad_service.{module}\n"
        "foreign = {'fastapi', 'pydantic', 'starlette', 'uvicorn', 'orjson'}\n"
        "foreign |= {'httpx'} if sys.argv[1] == 'cli' else set()\n"
        "sys.exit(str(foreign & set(sys.modules)) if foreign & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, module], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_numbers_in_json_are_exact():
    for dtype in (np.float32, np.float64):
        x = np.random.default_rng(5).normal(size=1000).astype(dtype)
        assert np.array(exchange._numbers(x), dtype).tobytes() == x.tobytes()
