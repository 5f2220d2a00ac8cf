"""The protocol as the clients of other projects speak it, unmodified, from their packages."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

import poolgrad as pg

pytestmark = pytest.mark.clients

X = np.random.default_rng(3).normal(size=(2, 6, 6, 3)).astype(np.float32)
X[0, 2:4, 2:4, 0] = -np.inf
X[0, 0, 0, 0] = np.nan
Y, ARGMAX = pg.max_pool(X, 2, return_argmax=True)

CODINGS = [None, "gzip", "deflate"]


@pytest.fixture(scope="module")
def address(client):
    return f"127.0.0.1:{client.base_url.port}"


@pytest.fixture(scope="module")
def triton(address):
    http = pytest.importorskip("tritonclient.http")
    # An exception of the package's own destructor would be a warning, and so an error.
    client = http.InferenceServerClient(address)
    yield client
    client.close()


def tensor(module, name, array, binary=True):
    from tritonclient.utils import np_to_triton_dtype

    found = module.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
    found.set_data_from_numpy(array, binary_data=binary)
    return found


def check(result):
    np.testing.assert_array_equal(result.as_numpy("y"), Y)
    assert result.as_numpy("y").dtype == np.float32


@pytest.mark.parametrize("sent", CODINGS)
@pytest.mark.parametrize("received", CODINGS)
@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("output", [None, True, False])
def test_tritonclient(triton, sent, received, binary, output):
    import tritonclient.http as http

    outputs = None
    if output is not None:
        outputs = [http.InferRequestedOutput("y", binary_data=output)]
    result = triton.infer(
        "max_pool",
        [tensor(http, "x", X, binary)],
        outputs=outputs,
        request_id="an id",
        parameters={"kernel_size": "2,2"},
        request_compression_algorithm=sent,
        response_compression_algorithm=received,
        query_params={"a": "b"},
    )
    check(result)
    assert result.get_response()["id"] == "an id"
    if output is None:
        np.testing.assert_array_equal(result.as_numpy("argmax"), ARGMAX)


def test_tritonclient_backward(triton):
    import tritonclient.http as http

    inputs = [
        tensor(http, "dy", Y),
        tensor(http, "argmax", ARGMAX, binary=False),
        tensor(http, "x_shape", np.array(X.shape, np.int64)),
    ]
    result = triton.infer("max_pool_backward", inputs, parameters={"kernel_size": 2})
    expected = pg.max_pool_backward(Y, X.shape, 2, argmax=ARGMAX)
    np.testing.assert_array_equal(result.as_numpy("dx"), expected)


def test_tritonclient_with_gevent(triton):
    import tritonclient.http as http

    asked = [
        triton.async_infer("max_pool", [tensor(http, "x", X)], parameters={"kernel_size": 2})
        for _ in range(8)
    ]
    for request in asked:
        check(request.get_result())


def test_tritonclient_asks_about_the_server(triton):
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("max_pool")
    assert triton.is_model_ready("max_pool", "1")
    assert not triton.is_model_ready("nope")
    assert triton.get_server_metadata()["name"] == "poolgrad"
    assert triton.get_model_metadata("avg_pool")["outputs"][0]["name"] == "y"
    assert triton.get_model_config("avg_pool")["max_batch_size"] == 0
    assert len(triton.get_model_repository_index()) == 2 * len(pg.OPERATIONS)
    (found,) = triton.get_inference_statistics("max_pool")["model_stats"]
    assert found["inference_stats"]["success"]["count"] >= 0


def test_tritonclient_reads_errors(triton):
    import tritonclient.http as http
    from tritonclient.utils import InferenceServerException

    for call, status, words in (
        (lambda: triton.infer("max_pool", [tensor(http, "x", X)]), "400", "kernel_size: a value"),
        (lambda: triton.infer("nope", [tensor(http, "x", X)]), "404", "no model"),
        (lambda: triton.get_model_metadata("nope"), "404", "no model"),
        (lambda: triton.load_model("max_pool"), "400", "built in"),
    ):
        with pytest.raises(InferenceServerException, match=words) as caught:
            call()
        assert caught.value.status() == status


@pytest.mark.parametrize("coding", CODINGS)
def test_tritonclient_with_asyncio(address, coding):
    aio = pytest.importorskip("tritonclient.http.aio")

    async def main():
        async with aio.InferenceServerClient(address) as client:
            assert await client.is_server_ready()
            assert (await client.get_model_metadata("max_pool"))["name"] == "max_pool"
            asked = (
                client.infer(
                    "max_pool",
                    [tensor(aio, "x", X)],
                    parameters={"kernel_size": 2},
                    request_compression_algorithm=coding,
                    response_compression_algorithm=coding,
                )
                for _ in range(8)
            )
            for result in await asyncio.gather(*asked):
                check(result)

    asyncio.run(main())


# KServe's package sets up logging and warns of its own on import, so it has a process of its own.
KSERVE = """
import asyncio, sys
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

url, source, target = sys.argv[1:]
x = np.load(source)

async def main():
    client = InferenceRESTClient(config=RESTConfig(protocol="v2"))
    assert await client.is_server_live(url)
    assert await client.is_server_ready(url)
    assert await client.is_model_ready(url, "max_pool")
    found = []
    for binary in (True, False):
        for output in (None, True, False):
            tensor = InferInput("x", list(x.shape), "FP32")
            tensor.set_data_from_numpy(x, binary_data=binary)
            outputs = None if output is None else [RequestedOutput("y", {"binary_data": output})]
            request = InferRequest(
                "max_pool", [tensor], parameters={"kernel_size": 2}, request_outputs=outputs
            )
            response = await client.infer(url, request, model_name="max_pool")
            found.append(response.outputs[0].as_numpy())
    np.save(target, np.stack(found))

asyncio.run(main())
"""


def test_kserve(address, tmp_path):
    pytest.importorskip("kserve", exc_type=ImportError)
    x = np.nan_to_num(X)  # its JSON has no infinities
    np.save(tmp_path / "in.npy", x)
    paths = [str(tmp_path / name) for name in ("in.npy", "out.npy")]
    done = subprocess.run(
        [sys.executable, "-c", KSERVE, f"http://{address}", *paths],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for y in np.load(tmp_path / "out.npy"):
        np.testing.assert_array_equal(y, pg.max_pool(x, 2))


def test_perf_analyzer(address, tmp_path):
    program = shutil.which("perf_analyzer")
    if program is None or subprocess.run([program, "--version"], capture_output=True).returncode:
        # No package index has it in working order; CONTRIBUTING.md says how to get it.
        pytest.skip("perf_analyzer is a binary that needs glibc 2.35, libb64 and CUDA's runtime")
    # Over HTTP it sends no parameters, so the window is a tensor.
    tensors = {
        "x": {"content": np.nan_to_num(X[:1]).ravel().tolist(), "shape": [1, 6, 6, 3]},
        "kernel_size": {"content": [2, 2], "shape": [2]},
    }
    (tmp_path / "input.json").write_text(json.dumps({"data": [tensors]}))
    done = subprocess.run(
        [
            program, "-m", "max_pool", "-u", address, "-i", "http",
            "--input-data", str(tmp_path / "input.json"),
            "--measurement-interval", "500", "--stability-percentage", "999",
        ],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Throughput:" in done.stdout
