"""All builds of the kernels give the same bits, and the right one is chosen."""

import importlib
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import poolgrad as pg
from compare import assert_same_bits
from poolgrad import dispatch

RUNNABLE = [build.name for build in dispatch.runnable()]


def results(case, module):
    """Return everything that can be computed of a case, by the kernels of a module."""
    shape, dtype, seed, hyperparameters = case
    rng = np.random.default_rng(seed)
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45], dtype)
    x = rng.standard_normal(shape).astype(dtype)
    x = np.where(rng.random(shape) < 0.2, rng.choice(special, shape), np.round(x, 1))
    with pytest.MonkeyPatch.context() as patch:
        # By its name: `poolgrad.plan` is the function.
        patch.setattr(importlib.import_module("poolgrad.plan"), "kernels", module)
        maximum = pg.plan("max_pool", shape, dtype, **hyperparameters)
        average = pg.plan("avg_pool", shape, dtype, **hyperparameters)
        y, argmax = maximum.forward(x, return_argmax=True)
        dy = rng.standard_normal(y.shape).astype(dtype)
        sizes = {"output_size": y.shape[1:-1]}
        adaptive_max = pg.plan("adaptive_max_pool", shape, dtype, **sizes)
        adaptive_avg = pg.plan("adaptive_avg_pool", shape, dtype, **sizes)
        return {
            "max": maximum.forward(x),
            "max with argmax": y,
            "argmax": argmax,
            "max backward": maximum.backward(dy, argmax=argmax),
            "max backward, searched": maximum.backward(dy, x),
            "average": average.forward(x),
            "average backward": average.backward(dy),
            "adaptive max": adaptive_max.forward(x),
            "adaptive argmax": adaptive_max.forward(x, return_argmax=True)[1],
            "adaptive max backward": adaptive_max.backward(dy, x),
            "adaptive average": adaptive_avg.forward(x),
            "adaptive average backward": adaptive_avg.backward(dy),
        }


cases = st.tuples(
    st.tuples(
        st.integers(1, 2), st.integers(5, 12), st.integers(5, 40), st.sampled_from([1, 2, 3, 7, 17])
    ),
    st.sampled_from([np.float32, np.float64]),
    st.integers(0, 2**32),
    st.fixed_dictionaries(
        {
            "kernel_size": st.integers(1, 5),
            "stride": st.integers(1, 3),
            "padding": st.integers(0, 3),
        }
    ),
)


@pytest.mark.parametrize("name", RUNNABLE)
@given(case=cases)
def test_builds_agree_to_the_bit(name, case):
    build = next(b for b in dispatch.BUILDS if b.name == name)
    expected = results(case, importlib.import_module("poolgrad._kernels"))
    for what, got in results(case, importlib.import_module(build.module)).items():
        assert_same_bits(got, expected[what])


def test_the_baseline_runs_anywhere(monkeypatch):
    monkeypatch.setattr(dispatch._cpu, "features", frozenset)
    assert dispatch.choose({}).name == "baseline"


def test_the_best_is_chosen():
    assert dispatch.choose({}).name == RUNNABLE[0]
    assert dispatch.choose({"POOLGRAD_ISA": " "}).name == RUNNABLE[0]


@pytest.mark.parametrize("name", RUNNABLE)
def test_the_environment_chooses(name):
    environment = {**os.environ, "POOLGRAD_ISA": name}
    code = "from poolgrad import dispatch; print(dispatch.active().name, dispatch.kernels.__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [name, dispatch.choose(environment).module]


@pytest.mark.parametrize("value", ["AVX2", "sse9", "avx2,baseline", "\x1b[0m"])
def test_unknown_builds_are_refused(value):
    with pytest.raises(pg.ParameterError, match=r"POOLGRAD_ISA: .* is not one of avx2, baseline"):
        dispatch.choose({"POOLGRAD_ISA": value})


def test_builds_that_do_not_run_are_refused(monkeypatch):
    monkeypatch.setattr(dispatch._cpu, "features", frozenset)
    with pytest.raises(pg.ParameterError, match=r"avx2 does not run on this CPU.*baseline"):
        dispatch.choose({"POOLGRAD_ISA": "avx2"})
