"""The comparisons refuse what they should."""

import numpy as np
import pytest

from compare import assert_close, assert_same_bits
from reference import Sums


def sums(value, magnitude=1.0, terms=4):
    return Sums(np.array([value]), np.array([magnitude]), np.array([terms]))


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        (np.array([0.0]), np.array([-0.0])),
        (np.array([1.0]), np.array([np.nan])),
        (np.array([1.0], np.float32), np.array([1.0])),
        (np.array([1.0]), np.array([[1.0]])),
        (np.array([1.0]), np.array([np.nextafter(1.0, 2.0)])),
        (np.array([255], np.uint8), np.array([254], np.uint8)),
    ],
    ids=["zero_sign", "nan", "dtype", "shape", "last_bit", "argmax"],
)
def test_different_bits_are_refused(actual, expected):
    with pytest.raises(AssertionError):
        assert_same_bits(actual, expected)


def test_any_nan_equals_any_nan():
    quiet, negative = np.array([np.nan], np.float32), np.array([0xFFC00001], np.uint32)
    assert_same_bits(negative.view(np.float32), quiet)


@pytest.mark.parametrize("shift", [-1, 1])
def test_close_refuses_beyond_the_bound(shift):
    expected = sums(1.0)
    bound = expected.bound(np.float32)[0]
    assert_close(np.array([1.0 + shift * 0.4 * bound], np.float32), expected)
    with pytest.raises(AssertionError):
        assert_close(np.array([1.0 + shift * 2 * bound], np.float32), expected)


@pytest.mark.parametrize(
    ("actual", "expected"), [(np.inf, np.nan), (1.0, np.inf), (-np.inf, np.inf), (np.nan, 0.0)]
)
def test_close_refuses_other_specials(actual, expected):
    with pytest.raises(AssertionError):
        assert_close(np.array([actual], np.float32), sums(expected, magnitude=np.inf))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_close_accepts_equal_specials(value):
    assert_close(np.array([value], np.float32), sums(value, magnitude=np.inf))
