"""Arrays of more than 2^31 elements: 13 GiB and half a minute, for which one has to ask.

The input repeats a block, so results do, and are compared with those of the block.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

import poolgrad as pg

pytestmark = pytest.mark.skipif(
    "POOLGRAD_TEST_LARGE" not in os.environ, reason="POOLGRAD_TEST_LARGE is not set"
)

#: Elements of a block, and blocks: 2 149 580 800 elements.
BLOCK, BLOCKS = 2**20, 2050


def assert_repeats(array, block):
    flat = array.reshape(-1)
    assert flat.size % block.size == 0
    for at in range(0, flat.size, block.size):
        assert np.array_equal(flat[at : at + block.size], block.reshape(-1))


@pytest.fixture(scope="module")
def block():
    return np.random.default_rng(0).standard_normal(BLOCK, np.float32)


@pytest.fixture
def many(block):
    x = np.empty((BLOCKS, BLOCK), np.float32)
    x[:] = block
    return x


def test_a_series(block, many):
    x = many.reshape(1, -1, 1)
    pairs = block.reshape(-1, 2)
    taps = pairs.argmax(1)
    y, argmax = pg.max_pool(x, 2, return_argmax=True)
    assert_repeats(y, pairs.max(1))
    assert_repeats(argmax, taps)
    expected = np.where(np.arange(2) == taps[:, np.newaxis], pairs, 0)
    assert_repeats(pg.max_pool_backward(y, x.shape, 2, argmax=argmax, out=x), expected)


def test_volumes(block, many):
    side = 2**9
    x = many.reshape(2, BLOCKS, side, side, 2)
    cells = block.reshape(2, side, side, 2)
    quarter = cells[:, ::2, ::2] + cells[:, ::2, 1::2] + cells[:, 1::2, ::2] + cells[:, 1::2, 1::2]
    y = pg.avg_pool(x, (1, 2, 2))
    assert_repeats(y, quarter / 4)
    expected = np.repeat(np.repeat(quarter / 16, 2, axis=1), 2, axis=2)
    assert_repeats(pg.avg_pool_backward(y, x.shape, (1, 2, 2), out=x), expected)
