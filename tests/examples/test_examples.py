"""Run the examples as a reader would, in a process of their own, with few steps."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import poolgrad as pg

pytest.importorskip("sklearn")
pytest.importorskip("tqdm")
Image = pytest.importorskip("PIL.Image")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
# A child process finds the packages where this one did, installed or not.
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
SHORT = ("--steps", "3", "--loop-steps", "2", "--no-progress")
PADS = [0, 1, "same", "valid", (1, 0, 2, 1)]


def load(name: str) -> ModuleType:
    """Import an example by its path: the examples are scripts, not a package."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


digits = load("digits")


def run(script: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run an example to its end."""
    command = [sys.executable, str(EXAMPLES / script), *args]
    return subprocess.run(
        command, capture_output=True, text=True, env=ENVIRONMENT, timeout=120, check=False
    )


def digest(output: str) -> str:
    """Find the digest of the final weights in what an example printed."""
    found = re.search(r"weights sha256 ([0-9a-f]{64})", output)
    assert found is not None, output
    return found[1]


@pytest.fixture(scope="module")
def local() -> subprocess.CompletedProcess[str]:
    """Train a few steps in the example's own process."""
    return run("digits.py", *SHORT)


@pytest.fixture
def service_url(tmp_path: Path) -> Iterator[str]:
    """Serve on a free port of this machine, for one test."""
    pytest.importorskip("poolgrad_service")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "poolgrad_service", "--host", "127.0.0.1"]
    log = tmp_path / "service.log"
    with (
        log.open("w") as stream,
        subprocess.Popen(
            [*command, "--port", str(port)], stdout=stream, stderr=stream, env=ENVIRONMENT
        ) as server,
    ):
        try:
            wait_until_ready(url, server, log)
            yield url
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()


def wait_until_ready(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Ask for the service's health until it is well, or has ended, or time is up."""
    deadline = time.monotonic() + 30
    while server.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health/ready", timeout=2):
            return
        time.sleep(0.1)
    pytest.fail(f"the service did not become ready:\n{log.read_text()}")


def test_digits_trains_to_the_same_weights_with_loops(
    local: subprocess.CompletedProcess[str],
) -> None:
    assert local.returncode == 0, local.stderr
    assert "only the first 2 of these 3 steps" in local.stdout
    assert "equal bit for bit" in local.stdout
    assert local.stderr == ""


def test_digits_trains_to_the_same_weights_over_http(
    local: subprocess.CompletedProcess[str], service_url: str
) -> None:
    remote = run("digits.py", *SHORT, "--url", service_url)
    assert remote.returncode == 0, remote.stderr
    assert "equal bit for bit" in remote.stdout
    assert digest(remote.stdout) == digest(local.stdout)


def test_digits_seed_decides_the_weights(
    local: subprocess.CompletedProcess[str], capsys: pytest.CaptureFixture[str]
) -> None:
    printed = []
    for seed in ("0", "1"):
        digits.main([*SHORT, "--seed", seed])
        printed.append(digest(capsys.readouterr().out))
    assert printed[0] == digest(local.stdout)
    assert printed[1] != printed[0]


def test_digits_says_why_when_no_service_answers() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound but not listening: nobody else gets the port
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        result = run("digits.py", *SHORT, "--url", url)
    assert result.returncode == 1
    assert f"FAILED: the service at {url}" in result.stderr
    assert "Traceback" not in result.stderr


def test_digits_fails_below_its_goal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "FULL_EPOCHS", 1)
    monkeypatch.setattr(digits, "GOAL", 2.0)
    with pytest.raises(SystemExit, match="the goal is 200%"):
        digits.main(["--loop-steps", "1", "--no-progress"])


def test_digits_fails_when_weights_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    class Average(digits.LoopPool2D):  # type: ignore[name-defined, misc]
        def __init__(self, kernel_shape: int, stride: int, mode: str) -> None:
            super().__init__(kernel_shape, stride, mode="average")

    monkeypatch.setattr(digits, "LoopPool2D", Average)
    with pytest.raises(SystemExit, match="the weights differ"):
        digits.main(["--steps", "2", "--no-progress"])


@pytest.mark.parametrize("mode", ["max", "average"])
@pytest.mark.parametrize("pad", PADS, ids=str)
@pytest.mark.parametrize(("kernel", "stride"), [((2, 2), 2), ((3, 2), 1), ((2, 3), (3, 2)), (3, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_loop_layer_is_the_compiled_layer(
    mode: Any, pad: Any, kernel: Any, stride: Any, dtype: type[np.float32 | np.float64]
) -> None:
    rng = np.random.default_rng(7)
    # Few different values give ties; most are negative, so that padding zeros often win.
    x = rng.integers(-3, 2, (2, 7, 6, 3)).astype(dtype)
    ours, loops = pg.Pool2D(kernel, stride, pad, mode), digits.LoopPool2D(kernel, stride, pad, mode)
    y, expected = ours.forward(x), loops.forward(x)
    assert y.dtype == expected.dtype == dtype
    dy = rng.standard_normal(y.shape).astype(dtype)
    dx, expected_dx = ours.backward(dy), loops.backward(dy)
    if mode == "max":
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(dx, expected_dx)
    else:
        tolerance = 8 * float(np.finfo(dtype).eps)
        np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(dx, expected_dx, rtol=tolerance, atol=tolerance)


def test_loop_layer_remembers_as_the_compiled_layer_does() -> None:
    rng = np.random.default_rng(8)
    xs = [rng.integers(-9, 9, (1, 4, 4, 2)) for _ in range(2)]  # integers become float64
    for layer in (pg.Pool2D(2, 2), digits.LoopPool2D(2, 2)):
        ys = [layer.forward(x) for x in xs]
        layer.forward(xs[0], retain_derived=False)
        dxs = layer.backward([np.ones_like(y) for y in ys])
        assert [dx.sum() for dx in dxs] == [8, 8]
        with pytest.raises(ValueError, match="1"):
            layer.backward(ys[0])
        layer.flush_gradients()
        assert layer.forward(xs[0]).dtype == np.float64
        assert layer.backward(ys[0]).shape == xs[0].shape


@pytest.mark.parametrize(
    ("image", "kernel_size", "stride", "padding", "size"),
    [("flower", 8, 4, 0, (159, 105)), ("china", 3, 2, 1, (320, 214))],
)
def test_photo_writes_pictures(
    tmp_path: Path, image: str, kernel_size: int, stride: int, padding: int, size: tuple[int, int]
) -> None:
    options = {"image": image, "kernel-size": kernel_size, "stride": stride, "padding": padding}
    args = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    result = run("photo.py", *args, "--output", str(tmp_path / "made"))
    assert result.returncode == 0, result.stderr
    outputs = 3 * size[0] * size[1]
    assert f"{outputs} outputs sent a gradient of 1 each" in result.stdout
    assert f"maximum {outputs:11.1f} in all" in result.stdout
    expected = {"input": (640, 427), "max": size, "average": size}
    expected |= {"max_gradient": (640, 427), "average_gradient": (640, 427), "panel": (1984, 1002)}
    assert {path.stem for path in (tmp_path / "made").iterdir()} == set(expected)
    for name, expected_size in expected.items():
        with Image.open(tmp_path / "made" / f"{name}.png") as picture:
            picture.load()  # decodes all of it
            assert (picture.format, picture.size) == ("PNG", expected_size)
            assert np.ptp(np.asarray(picture)) > 100, f"{name} shows next to nothing"


def test_photo_says_why_a_geometry_is_refused(tmp_path: Path) -> None:
    result = run("photo.py", "--kernel-size", "1000", "--output", str(tmp_path / "none"))
    assert result.returncode == 1
    assert result.stderr.startswith("FAILED: ")
    assert not (tmp_path / "none").exists()
