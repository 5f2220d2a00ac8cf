"""The strategies reach every named hazard, and every hazard's own case shows it."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings

import reference
import strategies
from compare import assert_same_bits
from hazards import ADAPTIVE, ADAPTIVE_NAMES, HAZARDS, NAMES
from strategies import AdaptiveCase, Case, adaptive_cases, cases, fill, lay_out

# Shrinking would only make a found case prettier, and nobody looks at it.
REACH = settings(
    max_examples=6000,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("name", NAMES)
def test_strategies_reach(name):
    hazard = HAZARDS[name]
    case = find(cases(), hazard.matches, settings=REACH)
    assert hazard.matches(case)


@pytest.mark.parametrize("name", NAMES)
def test_hazard_shows_itself(name):
    assert HAZARDS[name].matches(HAZARDS[name].case)


@pytest.mark.parametrize("name", ADAPTIVE_NAMES)
def test_adaptive_strategies_reach(name):
    case = find(adaptive_cases(), ADAPTIVE[name].matches, settings=REACH)
    assert ADAPTIVE[name].matches(case)
    assert ADAPTIVE[name].matches(ADAPTIVE[name].case)


@given(case=adaptive_cases())
def test_adaptive_cases_are_valid_and_cheap(case):
    geo = case.geometry
    assert min(geo.out) >= 1
    planes = case.shape[0] * case.shape[-1 if case.layout == "channels_last" else 1]
    assert planes * math.prod(geo.out) * geo.taps <= strategies.BUDGET


@given(case=cases())
def test_cases_are_valid_and_cheap(case):
    geo = case.geometry
    assert min(geo.out) >= 1
    planes = case.shape[0] * case.shape[-1 if case.layout == "channels_last" else 1]
    assert planes * math.prod(geo.out) * geo.taps <= strategies.BUDGET
    assert not (case.ceil_mode and isinstance(case.padding, str))


@given(case=cases() | adaptive_cases())
def test_repr_pastes(case):
    pasted = eval(repr(case), {"Case": Case, "AdaptiveCase": AdaptiveCase, "np": np})
    assert pasted == case
    assert repr(pasted) == repr(case)


@pytest.mark.parametrize("memory", strategies.MEMORY)
@pytest.mark.parametrize("shape", [(2, 3, 4), (0, 3, 1), (1, 1, 1)])
def test_lay_out_keeps_values(memory, shape):
    array = fill("special", shape, "float64", 3)
    assert_same_bits(lay_out(array, memory), array)


@pytest.mark.parametrize("values", strategies.VALUES)
def test_fill_is_repeatable(values):
    first, second = (fill(values, (3, 4), "float32", 5) for _ in range(2))
    assert_same_bits(first, second)


def test_distinct_values_are_whole_and_differ():
    x = fill("distinct", (3, 5, 2), "float64", 0)
    assert len(np.unique(x)) == x.size
    assert (x == np.round(x)).all()


def test_gradient_has_the_output_shape():
    case = Case("avg_pool", (2, 5, 4, 3), 2, stride=1)
    assert case.dy.shape == case.output_shape == (2, 4, 3, 3)
    assert case.dy.shape == reference.output_shape(case.shape, case.geometry, case.layout)
