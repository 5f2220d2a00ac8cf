"""The command, the settings, and every way to start the service."""

from __future__ import annotations

import subprocess
import sys

import httpx
import numpy as np
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


X = np.random.default_rng(3).normal(size=(2, 7, 6, 5)).astype(np.float32)

POOLS = [
    ("max_pool", ["-k", "3", "-s", "2"], {"kernel_size": 3, "stride": 2}),
    (
        "max_pool",
        ["--kernel-size", "3,2", "--padding", "1:0,0:1", "--layout", "channels_first"],
        {"kernel_size": (3, 2), "padding": ((1, 0), (0, 1)), "layout": "channels_first"},
    ),
    (
        "max_pool",
        ["-k", "2", "-p", "same", "-d", "2"],
        {"kernel_size": 2, "padding": "same", "dilation": 2},
    ),
    (
        "avg_pool",
        ["-k", "3", "-p", "1", "--no-count-include-pad", "--ceil-mode"],
        {"kernel_size": 3, "padding": 1, "count_include_pad": False, "ceil_mode": True},
    ),
    ("avg_pool", ["-k", "3", "--divisor-override", "1"], {"kernel_size": 3, "divisor_override": 1}),
    ("adaptive_max_pool", ["-o", "3,null"], {"output_size": (3, None)}),
    ("adaptive_avg_pool", ["--output-size", "3"], {"output_size": 3}),
]


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize(("op", "flags", "given"), POOLS)
def test_pool(tmp_path, capsys, client, op, flags, given, remote):
    source, target = str(tmp_path / "in.npy"), tmp_path / "out"
    np.save(source, X)
    url = ["--url", str(client.base_url)] if remote else []
    assert main(["pool", op, source, str(target), *flags, *url]) == 0
    y = np.load(target)
    expected = getattr(poolgrad, op)(X, **given)
    assert y.dtype == expected.dtype
    np.testing.assert_array_equal(y, expected)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["nope.npy", "out.npy", "-k", "2"], "nope.npy"),
        (["in.npy", "nope/out.npy", "-k", "2"], "nope/out.npy"),
        (["in.npy", "out.npy", "-k", "99"], "kernel_size: axis 0"),
        (["in.npy", "out.npy", "-k", "two"], "kernel_size: 'two'"),
        (["in.npy", "out.npy", "-k", "2", "--layout", "NHWC"], "layout: 'NHWC'"),
        (["text.npy", "out.npy", "-k", "2"], "text.npy"),
        (["pickled.npy", "out.npy", "-k", "2"], "allow_pickle"),
        (["in.npy", "out.npy", "-k", "2", "--url", "http://127.0.0.1:1"], "no answer"),
    ],
)
def test_what_cannot_be_pooled_is_one_line_and_status_1(
    tmp_path, monkeypatch, capsys, flags, words
):
    monkeypatch.chdir(tmp_path)
    np.save("in.npy", X)
    np.save("pickled.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("no array")
    assert main(["pool", "max_pool", *flags]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("poolgrad pool: ")
    assert output.err.count("\n") == 1
    assert words in output.err
    assert not (tmp_path / "out.npy").exists()


@pytest.mark.parametrize("flags", [[], ["-k", "2", "--output-size", "3"], ["-k"], ["-k", "2", "x"]])
def test_bad_flags_of_pool_are_status_2(capsys, flags):
    with pytest.raises(SystemExit) as caught:
        main(["pool", "max_pool", "in.npy", "out.npy", *flags])
    assert caught.value.code == 2
    assert "usage: poolgrad" in capsys.readouterr().err


@pytest.mark.parametrize(("op", "flags", "given"), POOLS)
def test_plan(capsys, op, flags, given):
    assert main(["plan", op, "2,7,6,5", "--dtype", "float64", *flags]) == 0
    expected = poolgrad.plan(op, (2, 7, 6, 5), "float64", **given).explain()
    assert capsys.readouterr().out == expected + "\n"


@pytest.mark.parametrize("flags", [["2,7,6,5", "-k", "9"], ["7", "-k", "1"], ["x", "-k", "1"]])
def test_a_plan_that_there_is_not(capsys, flags):
    assert main(["plan", "max_pool", *flags]) == 1
    assert capsys.readouterr().err.startswith("poolgrad plan: ")


def test_later_operations_are_commands_by_themselves(monkeypatch, capsys):
    later = poolgrad.Operation(
        "lp_pool", "The norm.", has_argmax=False, parameters={"norm": 2, "root": True}
    )
    monkeypatch.setattr(poolgrad, "OPERATIONS", {"lp_pool": later})
    with pytest.raises(SystemExit):
        main(["pool", "lp_pool", "-h"])
    text = capsys.readouterr().out
    assert "-n VALUE, --norm VALUE" in text
    assert "--no-root" in text


WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        absent = "fastapi starlette pydantic pydantic_settings uvicorn orjson httpx".split()
        if name.split(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from poolgrad_service.cli import main
sys.exit(main(sys.argv[1:]))
"""


def without_extras(*arguments, cwd=None):
    environment = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, *arguments],
        capture_output=True, text=True, env=environment, cwd=cwd,
    )  # fmt: skip


def test_without_extras_all_but_the_service_works(tmp_path):
    np.save(tmp_path / "in.npy", X)
    pool = ("pool", "max_pool", "in.npy", "out.npy", "-k", "2")
    for command in (("info",), ("plan", "max_pool", "1,7,7,1", "-k", "3"), pool):
        done = without_extras(*command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), poolgrad.max_pool(X, 2))
    for command, extra in ((("serve",), "service"), ((*pool, "--url", "http://a"), "client")):
        done = without_extras(*command, cwd=tmp_path)
        assert done.returncode == 1
        assert f'pip install "poolgrad[{extra}]"' in done.stderr
        assert done.stderr.count("\n") == 1
