"""What the documents show is run: examples in docstrings, in the README and in docs/."""

import doctest
import importlib
import io
import json
import pkgutil
import re
import shlex
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path

import httpx
import numpy as np
import pytest

import poolgrad
import poolgrad_service
from poolgrad import dispatch
from poolgrad_service import Settings, create_app
from poolgrad_service.routes import calls
from poolgrad_service.schemas import ERRORS
from poolgrad_service.server import example_request, server_of

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL


def modules(package):
    """Return the names of a package and its modules, but for `__main__` and what has many builds.

    Not every CPU can import all of these, and they have no examples.
    """
    names = [m.name for m in pkgutil.iter_modules(package.__path__)]
    skipped = ("__main__", "_cyutility", *(f"_{build.name}" for build in dispatch.BUILDS))
    return [
        package.__name__,
        *(f"{package.__name__}.{name}" for name in names if not name.endswith(skipped)),
    ]


@pytest.mark.parametrize("name", modules(poolgrad) + modules(poolgrad_service))
def test_docstring_examples(name):
    threads = poolgrad.get_num_threads()
    try:
        assert doctest.testmod(importlib.import_module(name)).failed == 0
    finally:
        poolgrad.set_num_threads(threads)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_python_examples(path):
    assert doctest.testfile(str(path), module_relative=False).failed == 0


def test_readme_has_python_examples():
    assert len(doctest.DocTestParser().get_examples((ROOT / "README.md").read_text())) > 15


@pytest.mark.parametrize("name", [n for n in poolgrad.__all__ if n[0].islower()])
def test_each_function_has_an_example(name):
    assert ">>> " in getattr(poolgrad, name).__doc__


@pytest.fixture(scope="module")
def client():
    app = create_app(Settings(port=0, drain_delay=0, access_log=False))
    server = server_of(app, app.state.service.settings, log=False)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        yield client
    server.should_exit = True
    thread.join()


def npy():
    file = io.BytesIO()
    np.save(file, np.arange(49, dtype=np.float32).reshape(1, 7, 7, 1))
    return file.getvalue()


X_NPY = npy()


def curls(text):
    """Return (path, headers, body) of every curl command in a document."""
    found = []
    for line in re.findall(r"^\$ (curl .*)$", text, re.MULTILINE):
        words = shlex.split(line)
        url = next(word for word in words if word.startswith("http://127.0.0.1:8000/"))
        headers = dict(words[i + 1].split(": ", 1) for i, word in enumerate(words) if word == "-H")
        body = words[words.index("-d") + 1] if "-d" in words else None
        if "--data-binary" in words:
            body = X_NPY  # whichever file it is
        found.append((url.removeprefix("http://127.0.0.1:8000"), headers, body))
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_curl_commands_answer(path, client):
    for route, headers, body in curls(path.read_text()):
        method = "GET" if body is None else "POST"
        reply = client.request(method, route, headers=headers, content=body)
        assert reply.status_code == 200, (route, reply.text)


def test_readme_shows_the_true_reply(client):
    text = (ROOT / "README.md").read_text()
    ((route, headers, body),) = curls(text)
    shown = re.search(r"```json\n(.*?)\n```", text, re.DOTALL)[1]
    assert shown == client.post(route, headers=headers, content=body).text


def test_server_prints_the_same_curl():
    line = example_request("http://127.0.0.1:8000")
    assert f"$ {line}\n" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


def test_versions_agree():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert poolgrad.__version__ == version
    assert f"ARG VERSION={version}\n" in (ROOT / "Dockerfile").read_text()
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_importing_the_library_needs_numpy_only():
    code = (
        "import sys, poolgrad;"
        "bad = {'fastapi', 'pydantic', 'starlette', 'uvicorn', 'poolgrad_service'};"
        "sys.exit(str(bad & set(sys.modules)) if bad & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", Settings.model_fields)
def test_each_setting_is_documented_with_its_default(name):
    field = Settings.model_fields[name]
    text = (ROOT / "docs" / "service.md").read_text()
    default = r"[^`|]+" if field.default_factory else re.escape(f"`{field.default!r}`")
    assert re.search(rf"^\| `{name}` \| {default} \|", text, re.MULTILINE)


def test_service_page_shows_true_replies(client):
    text = (ROOT / "docs" / "service.md").read_text()
    shown = re.findall(r"^\$ (curl .*)\n(\{.*\})$", text, re.MULTILINE)
    assert len(shown) >= 8
    for line, reply in shown:
        ((route, headers, body),) = curls(f"$ {line}")
        method = "GET" if body is None else "POST"
        assert client.request(method, route, headers=headers, content=body).text == reply


def test_service_page_shows_a_true_problem(client):
    text = (ROOT / "docs" / "service.md").read_text()
    (shown,) = map(json.loads, re.findall(r"```json\n(.*?)\n```", text, re.DOTALL))
    body = {"x": [[[1], [2, 3]]], "kernel_size": 1}
    found = client.post("/v1/max_pool/forward", json=body).json()
    assert {**found, "instance": ""} == {**shown, "instance": ""}


def test_service_page_shows_python_that_runs(client):
    text = (ROOT / "docs" / "service.md").read_text()
    shown = re.findall(r"```python\n(.*?)\n```", text, re.DOTALL)
    assert len(shown) == 2
    x = np.arange(49, dtype=np.float32).reshape(1, 7, 7, 1)
    names = {"x": x, "dy": np.ones((1, 3, 3, 1), np.float32)}
    for code in shown:
        code = code.replace("http://127.0.0.1:8000", str(client.base_url))
        exec(code, names)
        if "urllib" in code:
            expected = poolgrad.avg_pool(names["x"], 3, stride=2, padding=1)
            np.testing.assert_array_equal(names["y"], expected)
            names["x"] = x
    np.testing.assert_array_equal(names["y"], poolgrad.max_pool(x, 3, stride=2))
    expected = poolgrad.max_pool_backward(names["dy"], x, 3, stride=2)
    np.testing.assert_array_equal(names["dx"], expected)


@pytest.mark.parametrize("status", ERRORS)
def test_each_status_is_documented(status):
    text = (ROOT / "docs" / "service.md").read_text()
    assert re.search(rf"^\| {status} \| ", text, re.MULTILINE)


def test_each_route_is_documented():
    text = (ROOT / "docs" / "service.md").read_text()
    for path, item in create_app(Settings()).openapi()["paths"].items():
        (method,) = item
        generic = re.sub(r"^/v1/\w+/", "/v1/{op}/", path)
        assert re.search(rf"^\| `{method.upper()} {re.escape(generic)}` \|", text, re.MULTILINE)


def test_each_member_of_a_body_is_documented():
    text = (ROOT / "docs" / "service.md").read_text()
    for call in calls():
        for name in (*call.arrays, *call.model.model_fields):
            assert re.search(rf"^\| (`\w+`, )*`{name}`(, `\w+`)* \|", text, re.MULTILINE), name
