"""The command, the settings, and every way to start the service."""

from __future__ import annotations

import subprocess
import sys

import httpx
import pytest
from pydantic import ValidationError

import poolgrad
from poolgrad import dispatch
from poolgrad_service.cli import main
from poolgrad_service.settings import Settings, SettingsError, load


@pytest.mark.parametrize(
    "command",
    [
        ("-m", "poolgrad_service"),
        ("-c", "import sys; from poolgrad_service.cli import main; sys.exit(main())", "serve"),
        ("-m", "uvicorn", "--factory", "poolgrad_service:create_app"),
    ],
    ids=["module", "command", "factory"],
)
def test_every_way_to_start(serve, command):
    server = serve(command=command)
    assert httpx.get(f"{server.url}/health/ready").json() == {"status": "ready"}
    reply = httpx.post(
        f"{server.url}/v1/max_pool/forward", json={"x": [[[1], [2]]], "kernel_size": 2}
    )
    assert reply.json()["y"] == [[[2.0]]]


def test_effective_settings_are_shown_at_the_start(serve, monkeypatch):
    monkeypatch.setenv("POOLGRAD_SERVICE_QUEUE_SIZE", "7")
    monkeypatch.setenv("POOLGRAD_SERVICE_MAX_ELEMENTS", "5")
    server = serve("--max-elements", "12345", "--max-body-bytes", "1MiB", "--no-access-log")
    assert '"max_elements": 12345' in server.log
    assert '"max_body_bytes": 1048576' in server.log
    assert '"queue_size": 7' in server.log
    limits = httpx.get(f"{server.url}/version").json()["limits"]
    assert limits["max_elements"] == 12345
    assert limits["queue_size"] == 7
    assert '"GET /version' not in server.log


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--port", "70000"], "port"),
        (["--port", "http"], "port"),
        (["--workers", "0"], "workers"),
        (["--max-body-bytes", "lots"], "max_body_bytes"),
        (["--max-body-bytes", "1GiB"], "max_inflight_bytes"),
        (["--body-timeout", "inf"], "body_timeout"),
        (["--body-timeout", "-1"], "body_timeout"),
        (["--root-path", "x/"], "root_path"),
        (["--log-level", "loud"], "log_level"),
    ],
)
def test_a_bad_flag_is_one_line_and_status_2(capsys, flags, named):
    assert main(["serve", *flags]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("poolgrad serve: ")
    assert output.err.count("\n") == 1
    assert named in output.err
    assert "factory" not in output.err


@pytest.mark.parametrize(
    ("name", "value"),
    [("WORKERS", "many"), ("MAX_DEPTH", "1"), ("PORT", ""), ("MAX_ELEMENT", "5")],
)
def test_a_bad_variable_is_one_line_and_status_2(capsys, monkeypatch, name, value):
    monkeypatch.setenv(f"POOLGRAD_SERVICE_{name}", value)
    assert main(["serve"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert name.lower() in error.lower()


def test_a_bad_variable_stops_a_factory_too(serve, monkeypatch):
    monkeypatch.setenv("POOLGRAD_SERVICE_PORT", "x")
    command = ("-m", "uvicorn", "--factory", "poolgrad_service:create_app")
    server = serve(command=command, wait=False)
    assert server.process.wait(20) == 2
    server.wait(lambda: "port" in server.log)
    assert "Traceback" not in server.log


def test_an_unknown_flag_is_status_2(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["serve", "--no-such-flag"])
    assert caught.value.code == 2
    assert "--no-such-flag" in capsys.readouterr().err


def test_there_is_a_flag_for_every_setting(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["serve", "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for name, field in Settings.model_fields.items():
        assert "--" + name.replace("_", "-") in text
        assert field.description


def test_settings_are_frozen_and_known():
    settings = Settings()
    with pytest.raises(ValidationError):
        settings.port = 1
    with pytest.raises(SettingsError, match="nope"):
        load(nope=1)
    assert settings.host == "127.0.0.1"


def test_nothing_happens_at_import():
    code = (
        "import threading, poolgrad_service, sys; "
        "assert threading.active_count() == 1; "
        "assert 'fastapi_offline' not in sys.modules"
    )
    environment = {"PYTHONPATH": ":".join(filter(None, sys.path)), "POOLGRAD_SERVICE_PORT": "x"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_info(capsys):
    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"poolgrad {poolgrad.__version__}, numpy ")
    assert lines[1].startswith(f"kernels: {dispatch.active().name} (runnable: ")
    assert lines[2].startswith(f"threads: {poolgrad.get_num_threads()} (usable CPUs: ")
