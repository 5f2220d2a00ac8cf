"""Shapes and values at which pooling code goes wrong, by name.

Each hazard is a `Case` that shows it and a predicate that recognises it. Tests of operations run
the cases, with the names as ids; tests/meta shows that the strategies reach every predicate.
`ADAPTIVE` has those of adaptive poolings.
"""

from dataclasses import dataclass
from math import gcd

import numpy as np

import reference
from strategies import AdaptiveCase, Case


@dataclass(frozen=True)
class Hazard:
    case: Case
    matches: object


def _channels(case):
    return case.shape[-1] if case.layout == "channels_last" else case.shape[1]


def _any_axis(predicate):
    return lambda case: any(predicate(axis) for axis in case.geometry.axes)


def _any_window(predicate):
    """Whether a predicate holds for the values of one window's real taps, on the first plane."""

    def matches(case):
        if 0 in case.shape:
            return False
        plane = reference.to_planes(case.x, case.layout)[0]
        geo = case.geometry
        return any(
            predicate(np.array([plane[index] for _, index in geo.real_taps(output)]))
            for output in geo.outputs()
        )

    return matches


def _axis_is_empty(axis, j):
    return not any(axis.is_real(axis.tap(j, t)) for t in range(axis.kernel))


def _window_all_pad(case):
    return any(_axis_is_empty(axis, j) for axis in case.geometry.axes for j in range(axis.out))


def _straddles(axis):
    """Taps on both sides of the input and none in it."""
    return any(
        _axis_is_empty(axis, j) and axis.tap(j, 0) < 0 < axis.size <= axis.tap(j, axis.kernel - 1)
        for j in range(axis.out)
    )


def _ceil_adds(axis):
    floor = reference.windows_of(
        axis.size, axis.kernel, axis.stride, axis.before, axis.after, axis.dilation
    )
    return axis.out > floor


def _ceil_drops(case):
    """A rest whose window would start behind the input, so that ceil adds nothing."""

    def on(axis):
        room = axis.size + axis.before + axis.after - axis.dilation * (axis.kernel - 1) - 1
        return room % axis.stride != 0 and not _ceil_adds(axis)

    return case.ceil_mode and any(on(axis) for axis in case.geometry.axes)


def _unclamped_same(axis):
    """What "same" would pad if it could pad a negative amount."""
    return (axis.out - 1) * axis.stride + axis.dilation * (axis.kernel - 1) + 1 - axis.size


def _overhang(axis):
    last = axis.tap(axis.out - 1, axis.kernel - 1)
    return last >= axis.size + axis.after


def _max_has_signed_zeros(values):
    zeros = values[values == 0]
    return (
        len(zeros) > 1
        and not np.isnan(values).any()
        and values.max() == 0
        and len(np.unique(np.signbit(zeros))) == 2
    )


def _tied(values):
    return len(values) > 1 and np.count_nonzero(values == values.max()) > 1


def _large_window_stride_1(case):
    return any(a.kernel >= 12 and a.stride == 1 and a.out >= 3 for a in case.geometry.axes)


def _gapped_and(relation):
    return _any_axis(lambda a: a.kernel > 1 and relation(a.stride, a.dilation))


def _max(shape, kernel_size, **options):
    return Case("max_pool", shape, kernel_size, **options)


def _avg(shape, kernel_size, **options):
    return Case("avg_pool", shape, kernel_size, **options)


HAZARDS = {
    "one_axis": Hazard(
        _max((2, 9, 3), 3, stride=2, padding=1),
        lambda c: len(c.geometry.axes) == 1,
    ),
    "three_axes": Hazard(
        _max((1, 4, 5, 3, 2), (2, 3, 1), stride=(1, 2, 1), padding=(1, 0, 1), values="ties"),
        lambda c: len(c.geometry.axes) == 3,
    ),
    "one_channel": Hazard(
        _max((1, 5, 7, 1), 3, stride=1, padding=1),
        lambda c: _channels(c) == 1 and c.layout == "channels_last",
    ),
    "three_channels": Hazard(
        _max((1, 5, 7, 3), 3, stride=2),
        lambda c: _channels(c) == 3 and c.layout == "channels_last",
    ),
    "tail_17_channels": Hazard(
        _max((1, 5, 4, 17), 3, stride=2, padding=1, values="special"),
        lambda c: _channels(c) == 17,
    ),
    "tail_33_channels": Hazard(
        _avg((1, 5, 4, 33), 2, padding=1),
        lambda c: _channels(c) == 33,
    ),
    "channels_first": Hazard(
        _max((2, 3, 4, 5), 2, padding=1, layout="channels_first"),
        lambda c: c.layout == "channels_first" and _channels(c) > 1,
    ),
    "empty_batch": Hazard(
        _max((0, 5, 4, 2), 3, padding=1),
        lambda c: c.shape[0] == 0,
    ),
    "empty_channels": Hazard(
        _avg((2, 5, 4, 0), 3, padding=1),
        lambda c: _channels(c) == 0,
    ),
    "one_pixel": Hazard(
        _max((1, 1, 1, 2), 1),
        lambda c: all(a.size == 1 for a in c.geometry.axes),
    ),
    "kernel_of_one": Hazard(
        _avg((1, 4, 3, 2), 1),
        lambda c: c.geometry.taps == 1,
    ),
    "kernel_is_input": Hazard(
        _avg((2, 6, 5, 3), (6, 5)),
        lambda c: all(a.kernel == a.size and a.size > 1 for a in c.geometry.axes),
    ),
    "stride_beyond_kernel": Hazard(
        _max((1, 11, 2), 2, stride=4),
        _any_axis(lambda a: a.stride > a.kernel and a.out > 1),
    ),
    "overlapping_windows": Hazard(
        _max((1, 8, 6, 2), 3, stride=1, values="ties"),
        _any_axis(lambda a: a.stride < a.kernel and a.out > 2),
    ),
    "pad_only_left": Hazard(
        _max((1, 5, 6, 2), 3, padding=((0, 0), (2, 0))),
        _any_axis(lambda a: a.before > 0 == a.after),
    ),
    "pad_only_right": Hazard(
        _avg((1, 5, 6, 2), 3, padding=((0, 2), (0, 0))),
        _any_axis(lambda a: a.after > 0 == a.before),
    ),
    "pad_beyond_kernel": Hazard(
        _avg((1, 4, 3, 2), 2, stride=1, padding=3, count_include_pad=False),
        _any_axis(lambda a: a.before > a.kernel),
    ),
    "window_all_pad": Hazard(
        _max((1, 2, 2, 2), 2, padding=4),
        _window_all_pad,
    ),
    "dilated_window_without_a_real_tap": Hazard(
        _max((1, 1, 1), 2, stride=1, padding=1, dilation=2),
        _any_axis(_straddles),
    ),
    "average_without_a_real_tap": Hazard(
        _avg((1, 1, 1), 2, stride=1, padding=1, dilation=2, count_include_pad=False),
        lambda c: c.op == "avg_pool" and not c.count_include_pad and _window_all_pad(c),
    ),
    "same_odd_pad": Hazard(
        _max((1, 5, 4, 1), 2, stride=1, padding="same"),
        lambda c: c.padding == "same" and any(b != a for b, a in c.geometry.padding),
    ),
    "same_lower_odd_pad": Hazard(
        _max((1, 5, 4, 1), 2, stride=1, padding="same_lower"),
        lambda c: c.padding == "same_lower" and any(b != a for b, a in c.geometry.padding),
    ),
    "same_with_room_to_spare": Hazard(
        _avg((1, 11, 2), 2, stride=4, padding="same"),
        lambda c: c.padding == "same" and any(_unclamped_same(a) < 0 for a in c.geometry.axes),
    ),
    "same_size_with_stride": Hazard(
        _max((1, 5, 5, 1), 2, stride=2, padding="same_size"),
        lambda c: c.padding == "same_size" and any(a.stride > 1 for a in c.geometry.axes),
    ),
    "ceil_adds_a_window": Hazard(
        _avg((1, 5, 2), 2, ceil_mode=True),
        _any_axis(_ceil_adds),
    ),
    "ceil_drops_a_window": Hazard(
        _max((1, 5, 2), 2, padding=1, ceil_mode=True),
        _ceil_drops,
    ),
    "ceil_overhang_beyond_pad": Hazard(
        _avg((1, 4, 4, 1), 3, stride=2, padding=1, ceil_mode=True),
        lambda c: (
            c.op == "avg_pool"
            and c.count_include_pad
            and any(_overhang(a) and a.after > 0 for a in c.geometry.axes)
        ),
    ),
    "ceil_window_wider_than_padded_input": Hazard(
        _max((1, 2, 1), 3, stride=2, ceil_mode=True),
        _any_axis(lambda a: a.size + a.before + a.after < a.dilation * (a.kernel - 1) + 1),
    ),
    "dilation_divides_stride": Hazard(
        _avg((1, 11, 2), 3, stride=4, dilation=2, padding=2),
        _gapped_and(lambda s, d: 1 < d < s and s % d == 0),
    ),
    "stride_divides_dilation": Hazard(
        _avg((1, 12, 2), 3, stride=2, dilation=4, padding=2),
        _gapped_and(lambda s, d: 1 < s < d and d % s == 0),
    ),
    "stride_and_dilation_coprime": Hazard(
        _avg((1, 13, 2), 3, stride=3, dilation=2, padding=2),
        _gapped_and(lambda s, d: min(s, d) > 1 and gcd(s, d) == 1),
    ),
    "kernel_of_255_taps": Hazard(
        _max((1, 15, 17, 1), (15, 17), values="ties"),
        lambda c: c.op == "max_pool" and c.geometry.taps == 255,
    ),
    "kernel_of_256_taps": Hazard(
        _max((1, 17, 16, 1), 16, stride=1, padding=1),
        lambda c: c.op == "max_pool" and c.geometry.taps == 256,
    ),
    "large_window_stride_1": Hazard(
        _max((1, 24, 20, 2), 13, stride=1, padding=6, values="ties"),
        _large_window_stride_1,
    ),
    "divisor_override_at_an_edge": Hazard(
        _avg((1, 5, 2), 3, stride=2, padding=1, divisor_override=7),
        lambda c: c.divisor_override is not None and any(sum(p) for p in c.geometry.padding),
    ),
    "nan_first_tap": Hazard(
        _max((1, 4, 4, 5), 2, values="special", seed=1),
        _any_window(lambda v: len(v) > 1 and np.isnan(v[0]) and not np.isnan(v[1:]).any()),
    ),
    "nan_last_tap": Hazard(
        _max((1, 6, 6, 3), 2, values="special", seed=2),
        _any_window(lambda v: len(v) > 1 and np.isnan(v[-1]) and not np.isnan(v[:-1]).any()),
    ),
    "two_nans_in_a_window": Hazard(
        _max((1, 6, 6, 3), 3, stride=1, values="special", seed=1),
        _any_window(lambda v: np.count_nonzero(np.isnan(v)) > 1),
    ),
    "window_all_minus_inf": Hazard(
        _max((1, 8, 8, 3), 2, stride=1, padding=1, values="infinities"),
        _any_window(lambda v: len(v) > 1 and (v == -np.inf).all()),
    ),
    "opposite_infinities": Hazard(
        _avg((1, 6, 6, 3), 2, stride=1, values="infinities"),
        _any_window(lambda v: (v == np.inf).any() and (v == -np.inf).any()),
    ),
    "zeros_of_both_signs": Hazard(
        _max((1, 6, 6, 5), 2, values="zeros"),
        _any_window(_max_has_signed_zeros),
    ),
    "ties": Hazard(
        _max((1, 7, 6, 5), 3, stride=2, padding=1, values="ties"),
        _any_window(_tied),
    ),
    "subnormals": Hazard(
        _avg((1, 6, 6, 3), 2, values="subnormal"),
        lambda c: c.values == "subnormal" and c.op == "avg_pool" and 0 not in c.shape,
    ),
    "largest_numbers": Hazard(
        _max((1, 6, 6, 3), 2, values="large"),
        lambda c: c.values == "large" and 0 not in c.shape,
    ),
    "fortran_order": Hazard(
        _max((2, 4, 5, 3), 2, memory="fortran"),
        lambda c: not c.x.flags.c_contiguous and c.x.flags.f_contiguous,
    ),
    "strided_view": Hazard(
        _avg((2, 4, 5, 3), 2, memory="strided"),
        lambda c: c.memory == "strided" and not c.x.flags.forc,
    ),
    "negative_strides": Hazard(
        _max((2, 4, 5, 3), 2, memory="reversed"),
        lambda c: any(s < 0 for s in c.x.strides),
    ),
    "read_only": Hazard(
        _avg((2, 4, 5, 3), 2, memory="readonly"),
        lambda c: not c.x.flags.writeable,
    ),
    "unaligned": Hazard(
        _max((2, 4, 5, 3), 2, memory="unaligned", dtype="float64"),
        lambda c: not c.x.flags.aligned,
    ),
}

NAMES = sorted(HAZARDS)
MAX_NAMES = [name for name in NAMES if HAZARDS[name].case.op == "max_pool"]


def _adaptive(shape, output_size, **options):
    return AdaptiveCase("adaptive_max_pool", shape, output_size, **options)


def _counts(axis):
    return {len(axis.cells(j)) for j in range(axis.out)}


ADAPTIVE = {
    "one_cell": Hazard(
        _adaptive((2, 1, 3), 1),
        _any_axis(lambda a: a.size == 1 == a.out),
    ),
    "one_window": Hazard(
        _adaptive((1, 7, 6, 2), 1, values="special"),
        lambda c: all(a.out == 1 < a.size for a in c.geometry.axes),
    ),
    "as_many_windows_as_cells": Hazard(
        _adaptive((1, 5, 6, 3), (2, 6)),
        _any_axis(lambda a: a.out == a.size > 1),
    ),
    "an_axis_is_kept": Hazard(
        _adaptive((1, 5, 6, 3), (None, 4)),
        lambda c: isinstance(c.output_size, tuple) and None in c.output_size,
    ),
    "windows_side_by_side": Hazard(
        _adaptive((1, 12, 8, 2), 4),
        _any_axis(lambda a: a.size % a.out == 0 and 1 < a.out < a.size),
    ),
    "windows_of_two_sizes": Hazard(
        _adaptive((1, 10, 7, 3), (7, 5), values="ties"),
        _any_axis(lambda a: len(_counts(a)) == 2),
    ),
    "windows_of_one_size_that_overlap": Hazard(
        _adaptive((1, 10, 7, 3), 3, values="ties"),
        _any_axis(lambda a: len(_counts(a)) == 1 and a.size % a.out and a.out < a.size),
    ),
    "windows_that_repeat": Hazard(
        _adaptive((1, 15, 2), 6, values="ties"),
        _any_axis(lambda a: 1 < gcd(a.size, a.out) < min(a.size, a.out)),
    ),
    "more_windows_than_cells": Hazard(
        _adaptive((1, 3, 4, 2), (7, 9), values="ties"),
        _any_axis(lambda a: a.out > a.size > 1 and a.out % a.size),
    ),
    "each_cell_several_times": Hazard(
        _adaptive((1, 3, 2, 2), (6, 8)),
        _any_axis(lambda a: a.out > a.size and a.out % a.size == 0),
    ),
    "three_axes_of_three_kinds": Hazard(
        _adaptive((1, 4, 3, 5, 2), (2, 5, 3), values="special"),
        lambda c: (
            len(c.geometry.axes) == 3
            and any(a.size % a.out == 0 for a in c.geometry.axes)
            and any(a.out > a.size for a in c.geometry.axes)
            and any(a.out < a.size and a.size % a.out for a in c.geometry.axes)
        ),
    ),
    "box_of_255_taps": Hazard(
        _adaptive((1, 15, 17, 1), 1, values="ties"),
        lambda c: c.geometry.taps == 255,
    ),
    "box_of_256_taps": Hazard(
        _adaptive((1, 16, 16, 1), 1, values="ties"),
        lambda c: c.geometry.taps == 256,
    ),
    "channels_first": Hazard(
        _adaptive((2, 3, 7, 5), (3, 4), layout="channels_first"),
        lambda c: c.layout == "channels_first" and min(c.geometry.out) > 1,
    ),
    "no_batch": Hazard(
        _adaptive((0, 7, 5, 3), 3),
        lambda c: 0 in c.shape,
    ),
    "strided_view": Hazard(
        _adaptive((2, 7, 5, 3), 3, memory="strided"),
        lambda c: c.memory == "strided" and not c.x.flags.forc,
    ),
}

ADAPTIVE_NAMES = sorted(ADAPTIVE)
