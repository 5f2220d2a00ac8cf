"""What "equal" means in these tests."""

import numpy as np


def canonical(array):
    """The array's bits, with every NaN mapped to one pattern: any NaN equals any NaN."""
    array = np.ascontiguousarray(array)
    if array.dtype.kind != "f":
        return array
    array = np.where(np.isnan(array), np.array(np.nan, array.dtype), array)
    return array.view(f"u{array.dtype.itemsize}")


def assert_same_bits(actual, expected):
    """Same shape, same dtype, same bits; the sign of a zero counts, a NaN's payload does not."""
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    wrong = np.argwhere(canonical(actual) != canonical(expected))
    if len(wrong):
        first = tuple(int(i) for i in wrong[0])
        raise AssertionError(
            f"{len(wrong)} of {actual.size} differ, first at {first}: "
            f"{actual[first]!r} is not {expected[first]!r}"
        )


def assert_close(actual, sums):
    """Compare with a `reference.Sums`, within its bound; NaN and infinities exactly."""
    assert actual.shape == sums.value.shape
    with np.errstate(all="ignore"):
        error = np.abs(actual.astype(np.float64) - sums.value)
        inside = error <= sums.bound(actual.dtype)
    same = (actual == sums.value) | (np.isnan(actual) & np.isnan(sums.value))
    ok = np.where(np.isfinite(sums.value), inside, same)
    wrong = np.argwhere(~ok)
    if len(wrong):
        first = tuple(int(i) for i in wrong[0])
        raise AssertionError(
            f"{len(wrong)} of {actual.size} differ, first at {first}: {actual[first]!r} "
            f"is not {sums.value[first]!r} within {sums.bound(actual.dtype)[first]!r}"
        )
