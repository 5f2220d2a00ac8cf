"""All builds of the kernels give the same bits, and the right one is chosen."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import builds
import poolgrad as pg
from compare import assert_same_bits
from poolgrad import dispatch
from strategies import fill

ROOT = Path(__file__).resolve().parents[2]
RUNNABLE = dispatch.runnable()
NAMES = [build.name for build in RUNNABLE]


@st.composite
def cases(draw):
    return builds.draw_case(
        lambda low, high: draw(st.integers(low, high)),
        lambda values: draw(st.sampled_from(values)),
    )


def check(case, build, threads, reference=RUNNABLE[-1], large=False):
    """Hold a build to a reference; if `large`, as if the caches had no room for any array."""
    # By its name, for `poolgrad.plan` is the function.
    plan = importlib.import_module("poolgrad.plan")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "kernels", dispatch.load(reference))
        expected = builds.results(case)
        patch.setattr(plan, "kernels", dispatch.load(build))
        if large:
            patch.setattr("poolgrad.program.LARGE_BYTES", 0)
        for what, got in builds.results(case, threads).items():
            assert_same_bits(got, expected[what])


@pytest.mark.parametrize("build", RUNNABLE, ids=NAMES)
@given(case=cases(), threads=st.integers(1, 3))
def test_builds_agree_to_the_bit(build, case, threads):
    check(case, build, threads)


@pytest.mark.parametrize("build", RUNNABLE, ids=NAMES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize("channels", builds.CHANNELS)
@pytest.mark.parametrize(
    ("kernel_size", "stride", "padding"),
    [
        ((3, 3), (2, 2), (1, 1)),
        ((2, 33), (1, 1), (1, 16)),
        ((33, 2), (1, 2), (16, 1)),
        ((17, 19), (1, 1), (8, 9)),
        ((24,), (2,), (12,)),
        ((2, 2), (2, 2), (0, 0)),
        ((4, 5), (4, 3), (0, 1)),
        ((3, 3), (1, 1), (1, 1)),
        ((5, 4), (1, 1), (2, 2)),
        ((41, 67), (1, 1), (0, 0)),
    ],
    ids=["small", "wide", "high", "large", "long", "pairs", "apart", "rolled", "rows", "whole"],
)
def test_builds_agree_on_every_path(build, dtype, layout, channels, kernel_size, stride, padding):
    case = builds.Case(
        cells=(41, 67)[: len(kernel_size)],
        channels=channels,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        dilation=(1,) * len(kernel_size),
        output_size=(7, 5)[: len(kernel_size)],
        dtype=dtype,
        layout=layout,
        batch=1,
    )
    check(case, build, 2)


@pytest.mark.parametrize("build", RUNNABLE, ids=NAMES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize(
    ("kernel_size", "stride"),
    [((2, 2), (2, 2)), ((3, 3), (2, 2)), ((2, 4), (2, 4)), ((1, 4), (2, 4)), ((2, 3), (2, 3))],
)
def test_builds_agree_on_rows_of_about_a_vector(build, dtype, rows, kernel_size, stride):
    for windows, values in product(range(1, 18), ("ties", "rare")):
        case = builds.Case(
            cells=tuple(
                (n - 1) * step + taps
                for n, step, taps in zip((rows, windows), stride, kernel_size, strict=True)
            ),
            channels=2,
            kernel_size=kernel_size,
            stride=stride,
            padding=(0, 0),
            dilation=(1, 1),
            output_size=(1, 1),
            dtype=dtype,
            layout="channels_first",
            values=values,
        )
        check(case, build, 2)


@pytest.mark.parametrize("build", RUNNABLE, ids=NAMES)
@given(case=cases(), threads=st.integers(1, 3))
def test_large_arrays_give_the_same_bits(build, case, threads):
    check(case, build, threads, build, large=True)


@pytest.mark.parametrize("build", RUNNABLE, ids=NAMES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("values", ["ties", "rare"])
@pytest.mark.parametrize(
    ("cells", "channels", "kernel_size", "stride", "padding"),
    [
        ((6, 64), 1, (2, 2), (2, 2), (0, 0)),
        ((6, 70), 1, (2, 2), (2, 2), (0, 0)),
        ((7, 65), 1, (3, 3), (2, 2), (0, 0)),
        ((4, 6, 56), 1, (2, 2, 2), (2, 2, 2), (0, 0, 0)),
        ((4, 6, 300), 1, (2, 2, 2), (2, 2, 2), (0, 0, 0)),
        ((256,), 1, (4,), (4,), (0,)),
        ((403,), 1, (4,), (4,), (0,)),
        ((512,), 1, (2,), (2,), (0,)),
        ((8, 64), 1, (4, 4), (4, 4), (0, 0)),
        ((9, 40), 1, (3, 3), (1, 1), (1, 1)),
        ((9, 8), 16, (2, 2), (2, 2), (0, 0)),
        ((9, 8), 64, (3, 3), (2, 2), (1, 1)),
    ],
)
def test_large_arrays_give_the_same_bits_on_each_path(
    build, dtype, values, cells, channels, kernel_size, stride, padding
):
    case = builds.Case(
        cells=cells,
        channels=channels,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        dilation=(1,) * len(cells),
        output_size=(2,) * len(cells),
        dtype=dtype,
        values=values,
        batch=3,
    )
    check(case, build, 2, build, large=True)


@pytest.mark.parametrize("build", RUNNABLE, ids=NAMES)
@pytest.mark.parametrize("op", ["max_pool", "avg_pool"])
@pytest.mark.parametrize("kind", ["pairs", "fours", "volumes", "cells"])
def test_large_results_may_begin_anywhere_in_a_line_of_the_cache(monkeypatch, build, op, kind):
    shape, size = {
        "pairs": ((2, 6, 64, 1), 2),
        "fours": ((3, 256, 1), 4),
        "volumes": ((2, 4, 6, 64, 1), 2),
        "cells": ((2, 4, 6, 32), 2),
    }[kind]
    x = fill("ties" if op == "max_pool" else "normal", shape, "float32", 0)
    monkeypatch.setattr(importlib.import_module("poolgrad.plan"), "kernels", dispatch.load(build))
    plan = replace(pg.plan(op, shape, "float32", kernel_size=size))
    y = plan.forward(x, num_threads=1)
    monkeypatch.setattr("poolgrad.program.LARGE_BYTES", 0)
    past = replace(plan)
    for offset in range(17):
        memory = np.full(y.size + 40, 7, "float32")
        out = memory[offset : offset + y.size].reshape(y.shape)
        past.forward(x, out=out, num_threads=1)
        assert_same_bits(out, y)
        assert (memory[:offset] == 7).all()
        assert (memory[offset + y.size :] == 7).all()


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / "setup.py").is_file(), reason="needs the checkout")
def test_wider_vectors_give_the_same_bits(tmp_path):
    # What this CPU may not have, lane by lane: the baseline, with vectors as wide as AVX-512's.
    sources = tmp_path / "sources"
    unbuilt = shutil.ignore_patterns(
        "*.so", "*.c", "*.cpp", "*.html", "*.egg-info", "__pycache__", ".*"
    )
    sources.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    for name in ("pyx", "service"):
        shutil.copytree(ROOT / name, sources / name, ignore=unbuilt)
    target = tmp_path / "target"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "POOLGRAD"))}
    switches = {"CFLAGS": "-DPOOLGRAD_BYTES=64", "POOLGRAD_BUILDS": "baseline"}
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target]
    done = subprocess.run(
        [*pip, sources], env=environment | switches, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    path = os.pathsep.join([str(target), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "builds.py", "150"],
        env=environment | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    where, digests = json.loads(done.stdout)
    assert Path(where).is_relative_to(target)
    for got, expected in zip(digests, json.loads(json.dumps(builds.digests(150))), strict=True):
        assert got == expected


def test_the_baseline_runs_anywhere(monkeypatch):
    monkeypatch.setattr(dispatch._cpu, "features", frozenset)
    assert dispatch.choose({}).name == "baseline"


def test_the_best_is_chosen():
    assert dispatch.choose({}).name == NAMES[0]
    assert dispatch.choose({"POOLGRAD_ISA": " "}).name == NAMES[0]


@pytest.mark.parametrize("name", NAMES)
def test_the_environment_chooses(name):
    environment = {**os.environ, "POOLGRAD_ISA": name}
    code = (
        "from poolgrad import dispatch\n"
        "print(dispatch.active().name, *(m.__name__ for m in dispatch.kernels.values()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [name, f"poolgrad._float32_{name}", f"poolgrad._float64_{name}"]


@pytest.mark.parametrize("value", ["AVX2", "sse9", "avx2,baseline", "\x1b[0m"])
def test_unknown_builds_are_refused(value):
    with pytest.raises(
        pg.ParameterError, match=r"POOLGRAD_ISA: .* is not one of avx512, avx2, baseline"
    ):
        dispatch.choose({"POOLGRAD_ISA": value})


@pytest.mark.parametrize("name", ["avx512", "avx2"])
def test_builds_that_do_not_run_are_refused(name, monkeypatch):
    monkeypatch.setattr(dispatch._cpu, "features", frozenset)
    with pytest.raises(
        pg.ParameterError, match=rf"{name} does not run on this CPU, which has baseline"
    ):
        dispatch.choose({"POOLGRAD_ISA": name})
