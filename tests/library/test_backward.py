"""Gradients against the oracles, against differences of the forward, and as adjoints."""

import dataclasses
import importlib

import numpy as np
import pytest
from hypothesis import given

import poolgrad as pg
import reference
import windowed
from compare import assert_close, assert_same_bits
from hazards import HAZARDS, MAX_NAMES, NAMES
from poolgrad.program import PAST as PAST_AT
from strategies import DTYPES, LAYOUTS, avg_cases, cases, fill, max_cases


def backward(case, dy, x, **more):
    return getattr(pg, f"{case.op}_backward")(dy, x, case.kernel_size, **case.options, **more)


def check_max(case):
    _, argmax = reference.max_pool(case.x, case.kernel_size, **case.options)
    expected = reference.max_pool_backward(
        case.dy, argmax, case.shape, case.kernel_size, **case.options
    )
    assert_same_bits(backward(case, case.dy, case.x), expected)
    assert_same_bits(backward(case, case.dy, case.shape, argmax=argmax), expected)
    assert_same_bits(backward(case, case.dy, case.x, argmax=argmax), expected)


def check_avg(case):
    dx = backward(case, case.dy, case.x)
    assert dx.dtype == case.dtype
    expected = reference.avg_pool_backward(case.dy, case.shape, case.kernel_size, **case.options)
    assert_close(dx, expected)
    assert_same_bits(backward(case, case.dy, case.shape), dx)


@given(case=max_cases())
def test_max_is_the_definition(case):
    check_max(case)


@given(case=avg_cases())
def test_average_is_the_definition(case):
    check_avg(case)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_hazard(name, dtype):
    case = HAZARDS[name].case.with_(dtype=dtype)
    (check_max if case.op == "max_pool" else check_avg)(case)


@pytest.mark.parametrize("name", NAMES)
def test_hazard_of_the_other_operation(name):
    case = HAZARDS[name].case
    if case.op == "avg_pool":
        check_max(case.with_(op="max_pool"))
    else:
        check_avg(case.with_(op="avg_pool", count_include_pad=False))


@given(case=avg_cases(values=("normal", "ties")))
def test_average_is_the_adjoint_of_its_forward(case):
    # <dy, A v> == <A' dy, v> for every v, which no wrong gradient of a linear map survives.
    case = case.with_(dtype="float64")
    v, dy = case.x, case.dy
    forward = pg.avg_pool(v, case.kernel_size, **case.options)
    dx = backward(case, dy, case.shape)
    left, right = np.vdot(dy, forward), np.vdot(dx, v)
    scale = np.vdot(np.abs(dx), np.abs(v)) + np.vdot(np.abs(dy), np.abs(forward))
    taps = case.geometry.taps + case.dy.size
    assert abs(left - right) <= taps * np.finfo("float64").eps * scale


@given(case=max_cases(empty=False))
def test_max_is_the_adjoint_of_its_own_selection(case):
    # With the winners fixed, forward is linear too: it gathers, so backward must scatter.
    case = case.with_(dtype="float64")
    plan = pg.plan("max_pool", case.shape, "float64", kernel_size=case.kernel_size, **case.options)
    _, argmax = plan.forward(case.x, return_argmax=True)
    indices = reference.to_planes(pg.argmax_to_indices(argmax, plan), case.layout)
    v = reference.to_planes(fill("normal", case.shape, "float64", 3), case.layout)
    dy = fill("normal", case.output_shape, "float64", 4)
    dx = reference.to_planes(plan.backward(dy, argmax=argmax), case.layout)
    gathered = np.take_along_axis(
        v.reshape(len(v), -1), np.maximum(indices, 0).reshape(len(v), -1), 1
    )
    gathered = np.where(indices.reshape(len(v), -1) >= 0, gathered, 0.0)
    left = reference.to_planes(dy, case.layout).reshape(len(v), -1) * gathered
    assert np.isclose(left.sum(), np.vdot(dx, v), rtol=0, atol=1e-12 * (np.abs(left).sum() + 1))


DIFFERENCES = [
    ((2, 7, 3), 3, {"stride": 2, "padding": 1}),
    ((1, 8, 2), 3, {"stride": 1, "dilation": 2, "padding": ((3, 1),)}),
    ((1, 5, 6, 2), 3, {"stride": 2, "padding": 1, "ceil_mode": True}),
    ((1, 5, 6, 2), (2, 3), {"stride": (3, 1), "padding": "same"}),
    ((1, 4, 5, 1), 2, {"stride": 2, "padding": "same_size"}),
    ((1, 3, 4, 3, 1), 2, {"stride": 1, "padding": ((0, 1), (1, 0), (2, 2))}),
    ((1, 1, 1, 2), 2, {"stride": 1, "padding": 1, "dilation": 2}),
]


def central_differences(f, x):
    """Gradient of a scalar function, each component by the symmetric difference quotient.

    The step of 1/4 is exact in binary and stays within half of the least gap between values, so
    no maximum changes hands and the quotient of a piecewise linear function has no error.
    """
    dx = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += 0.25
        down[index] -= 0.25
        dx[index] = (f(up) - f(down)) / 0.5
    return dx


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("op", ["max_pool", "avg_pool", "avg_pool_exclude", "avg_pool_override"])
@pytest.mark.parametrize(("shape", "kernel_size", "options"), DIFFERENCES)
def test_gradient_is_that_of_the_forward(shape, kernel_size, options, op, layout):
    if layout == "channels_first":
        shape = (shape[0], shape[-1], *shape[1:-1])
    options = {**options, "layout": layout}
    if op == "avg_pool_exclude":
        options["count_include_pad"] = False
    if op == "avg_pool_override":
        options["divisor_override"] = 4
    op = op[:8]
    forward, grad = getattr(pg, op), getattr(pg, f"{op}_backward")
    x = fill("distinct", shape, "float64", 1)
    y = forward(x, kernel_size, **options)
    dy = fill("distinct", y.shape, "float64", 2)

    def loss(x):
        y = forward(x, kernel_size, **options)
        # An empty window's -inf does not depend on x.
        return np.vdot(dy, np.where(np.isfinite(y), y, 0.0))

    expected = central_differences(loss, x)
    # Averages divide by 3, 9 and so on; maxima are exact.
    tolerance = 0.0 if op == "max_pool" else 1e-9
    np.testing.assert_allclose(
        grad(dy, x, kernel_size, **options), expected, rtol=0, atol=tolerance
    )
    if op == "max_pool":
        _, argmax = forward(x, kernel_size, return_argmax=True, **options)
        dx = grad(dy, shape, kernel_size, argmax=argmax, **options)
        np.testing.assert_array_equal(dx, expected)


@pytest.mark.parametrize("name", MAX_NAMES)
def test_saved_and_recomputed_argmax_agree(name):
    case = HAZARDS[name].case
    _, argmax = pg.max_pool(case.x, case.kernel_size, return_argmax=True, **case.options)
    saved = backward(case, case.dy, list(case.shape), argmax=argmax)
    assert_same_bits(saved, backward(case, case.dy, case.x))


MIDDLE = [
    ((1, 700, 1), 64, {"stride": 1, "padding": 31}),
    ((1, 600, 2), 5, {"stride": 3, "dilation": 7, "padding": (9,)}),
    ((2, 33, 47, 3), 3, {"stride": 2, "padding": 1}),
    ((1, 28, 31, 40), 3, {"stride": 2, "padding": "same"}),
    ((1, 40, 37, 1), 17, {"stride": 1, "padding": "same"}),
    ((1, 25, 26, 2), (4, 3), {"stride": (3, 4), "dilation": (5, 2), "padding": 3}),
    ((1, 20, 21, 8), 2, {}),
    ((1, 48, 48, 2), 48, {}),
    ((1, 9, 14, 15, 4), 3, {"stride": 2, "padding": 1}),
    # Windows in pairs: all cells covered, or not all; and of a large argmax, row by row.
    ((3, 22, 50, 3), 2, {}),
    ((2, 5, 7, 37, 3), 2, {}),
    ((2, 23, 70, 3), (1, 2), {"stride": (3, 2)}),
    # The same of few channels, whose last windows of a row are done with care, or of all rows.
    ((2, 24, 24, 6), 2, {}),
    ((2, 12, 28, 5), (4, 3), {}),
    ((1, 4, 6, 20, 11), 2, {}),
    ((2, 3, 4, 2, 2), (1, 2, 2), {}),
    # Vectors of several of their cells: of a large argmax, with cells behind the last window, and
    # in as many manners as there is room for, or more.
    ((1, 260, 41, 3), (130, 2), {}),
    ((2, 5, 42, 7), (2, 5), {}),
    ((1, 7, 4, 31, 14), (2, 1, 2), {"stride": (3, 1, 2)}),
    ((1, 6, 33, 15), (2, 3), {}),
    ((5, 60, 61, 1), 39, {"stride": 1, "padding": 19}),
    # Rows of one channel, with channels first, that are read once, in one tile or in several.
    ((2, 23, 35, 10), 3, {"stride": 1, "padding": 1}),
    ((1, 90, 200, 2), (3, 4), {"stride": 1, "padding": ((1, 1), (0, 2))}),
    ((1, 12, 30, 9), (2, 6), {"stride": 1, "padding": ((3, 4), (9, 2)), "dilation": (1, 4)}),
    ((1, 5, 18, 40, 2), (1, 5, 2), {"stride": 1, "padding": (0, 2, 1)}),
    ((1, 20, 30, 9), 5, {"stride": 1, "padding": 2}),
    # Cells every other one of which is under windows of a kind.
    ((1, 41, 90, 2), 3, {"stride": 2, "padding": 1}),
    # Windows that share every other cell of a row, in all manners of rows; a large argmax.
    ((2, 40, 75, 1), 3, {"stride": 2}),
    ((2, 21, 136, 2), 3, {"stride": 2, "padding": 1}),
    ((1, 33, 80, 3), (5, 3), {"stride": (1, 2), "padding": ((4, 7), (0, 3))}),
    ((1, 7, 6, 70, 2), (2, 4, 3), {"stride": (1, 3, 2), "padding": (1, 2, 1)}),
    ((1, 7, 6, 143, 2), (2, 4, 3), {"stride": (1, 3, 2), "padding": (1, 2, 1)}),
    ((1, 4, 345, 3), 3, {"stride": 2, "padding": 1}),
    ((1, 5, 300, 4), 3, {"stride": 2}),
    ((1, 9, 107, 5), 3, {"stride": 2, "padding": 1}),
    ((2, 6, 88, 6), (2, 3), {"stride": 2}),
    ((1, 7, 75, 7), 3, {"stride": 2, "padding": ((1, 0), (1, 0))}),
    ((1, 8, 60, 8), 3, {"stride": 2, "padding": 1}),
    # Windows that share no cell, in pieces: with cells between them, outside, and in long rows.
    ((1, 30, 137, 3), (2, 3), {"stride": (3, 5), "padding": 1}),
    ((1, 4, 5, 3000), 2, {}),
    ((2, 2, 4500, 1), (1, 2), {"stride": (1, 3)}),
    ((1, 6, 7, 90, 2), (2, 1, 4), {"stride": (2, 2, 4), "padding": (0, 0, 1), "ceil_mode": True}),
    ((1, 3, 5000, 1), 2, {}),
    ((1, 18, 12, 75, 1), (12, 9, 3), {"stride": (6, 5, 2), "padding": (5, 3, 1)}),
    # Whole planes.
    ((3, 7, 7, 1500), 7, {}),
    ((1, 2, 3, 5), (4, 6), {"padding": ((1, 1), (2, 1))}),
]
MIDDLE_IDS = [f"{'x'.join(map(str, shape))}-{str(k).replace(' ', '')}" for shape, k, _ in MIDDLE]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("shape", "kernel_size", "options"), MIDDLE, ids=MIDDLE_IDS)
def test_middle_sized_max(shape, kernel_size, options, layout, dtype):
    if layout == "channels_first":
        shape = (shape[0], shape[-1], *shape[1:-1])
    options = {**options, "layout": layout}
    x = fill("ties", shape, dtype, 7)
    y, argmax, indices = windowed.max_pool(x, kernel_size, **options)
    dy = fill("normal", y.shape, dtype, 8)
    expected = windowed.max_pool_backward(dy, indices, shape, layout=layout)
    assert_same_bits(pg.max_pool_backward(dy, x, kernel_size, **options), expected)
    saved = pg.max_pool_backward(dy, shape, kernel_size, argmax=argmax, **options)
    assert_same_bits(saved, expected)


@pytest.mark.parametrize("count_include_pad", [True, False], ids=["include", "exclude"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("shape", "kernel_size", "options"), MIDDLE, ids=MIDDLE_IDS)
def test_middle_sized_average(shape, kernel_size, options, layout, dtype, count_include_pad):
    if layout == "channels_first":
        shape = (shape[0], shape[-1], *shape[1:-1])
    options = {**options, "layout": layout, "count_include_pad": count_include_pad}
    geometry_options = {k: v for k, v in options.items() if k != "count_include_pad"}
    geo = reference.geometry(shape, kernel_size, **geometry_options)
    dy = fill("normal", reference.output_shape(shape, geo, layout), dtype, 8)
    dx = pg.avg_pool_backward(dy, shape, kernel_size, **options)
    assert_close(dx, windowed.avg_pool_backward(dy, shape, kernel_size, **options))
    if layout == "channels_first":
        options["layout"] = "channels_last"
        shape = (shape[0], *shape[2:], shape[1])
        last = pg.avg_pool_backward(np.moveaxis(dy, 1, -1), shape, kernel_size, **options)
        assert_same_bits(dx, np.ascontiguousarray(np.moveaxis(last, -1, 1)))


@given(case=cases())
def test_the_inputs_are_left_alone(case):
    x, dy = case.x, case.dy
    before = x.copy(), dy.copy()
    backward(case, dy, x)
    assert_same_bits(x, before[0])
    assert_same_bits(dy, before[1])


@given(case=cases())
def test_the_result_is_a_fresh_contiguous_array(case):
    dx = backward(case, case.dy, case.x)
    assert dx.shape == case.shape
    assert dx.flags.c_contiguous
    assert dx.flags.writeable


def test_a_none_in_a_saved_argmax_gets_no_gradient():
    x = fill("normal", (1, 4, 1), "float32", 0)
    argmax = np.array([255, 1], np.uint8).reshape(1, 2, 1)
    dx = pg.max_pool_backward(np.ones((1, 2, 1), np.float32), x.shape, 2, argmax=argmax)
    assert dx.ravel().tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", ["max_pool", "avg_pool"])
def test_gradient_of_a_shape_has_dys_dtype(op, dtype):
    dy = np.ones((1, 2, 1), dtype)
    more = {"argmax": np.zeros((1, 2, 1), np.uint8)} if op == "max_pool" else {}
    dx = getattr(pg, f"{op}_backward")(dy, (1, 4, 1), 2, **more)
    assert dx.dtype == dtype


def test_the_callers_x_may_change_once_the_argmax_is_saved():
    x = fill("distinct", (1, 4, 4, 2), "float64", 0)
    _, argmax = pg.max_pool(x, 2, return_argmax=True)
    dy = np.ones((1, 2, 2, 2))
    expected = pg.max_pool_backward(dy, x, 2)
    x *= -1
    assert_same_bits(pg.max_pool_backward(dy, x, 2, argmax=argmax), expected)


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize("threads", [1, 2])
def test_windows_of_more_taps_than_a_table_of_offsets_holds(layout, threads, monkeypatch):
    monkeypatch.setattr(importlib.import_module("poolgrad.plan"), "STEPS_A_THREAD", 1)
    shape = (1, 50, 40, 3) if layout == "channels_last" else (1, 3, 50, 40)
    rng = np.random.default_rng(5)
    x = rng.standard_normal(shape)
    plan = pg.plan("max_pool", shape, x.dtype, kernel_size=(255, 258), stride=7, padding=130,
                   layout=layout)  # fmt: skip
    y, argmax = plan.forward(x, return_argmax=True, num_threads=threads)
    dy = rng.standard_normal(y.shape)
    last = layout == "channels_last"
    expected = np.zeros((3, 50 * 40))
    cells = pg.argmax_to_indices(argmax, plan)[0]
    for channel in range(3):
        one = (..., channel) if last else channel
        np.add.at(expected[channel], cells[one].ravel(), dy[0][one].ravel())
    expected = expected.T if last else expected
    for found in (
        plan.backward(dy, argmax=argmax, num_threads=threads),
        plan.backward(dy, x, num_threads=threads),
    ):
        np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-12)


def test_of_such_windows_every_plane_has_its_gradient():
    plan = pg.plan("max_pool", (9, 70_100, 1), kernel_size=70_000, stride=50)
    x = fill("normal", plan.input_shape, "float32", 0)
    y, argmax = plan.forward(x, return_argmax=True)
    dy = np.ones_like(y)
    dx = plan.backward(dy, argmax=argmax, num_threads=1)
    assert (dx.sum(axis=(1, 2)) == 3).all()
    assert_same_bits(dx, plan.backward(dy, x))
    assert_same_bits(dx, plan.backward(dy, argmax=argmax, num_threads=4))


# Gradients of many megabytes go past the caches; here those of a few bytes do.
PAST = {
    "side_by_side": ((2, 6, 8, 64), {"kernel_size": 2}),
    "overlapping": ((2, 7, 9, 17), {"kernel_size": 3, "stride": 1, "padding": 1}),
    "between_windows": ((1, 9, 11, 20), {"kernel_size": 2, "stride": 3}),
    "series": ((3, 50, 16), {"kernel_size": 4}),
    "under_none": ((1, 21, 20), {"kernel_size": 18, "stride": 2}),
    "rows_under_none": ((1, 4, 21, 20), {"kernel_size": (2, 18), "stride": 2}),
    "volume": ((1, 4, 6, 8, 33), {"kernel_size": (2, 3, 2)}),
    "channels_first": ((2, 3, 6, 70), {"kernel_size": 2, "layout": "channels_first"}),
    "cells_between": ((1, 2, 9, 111), {"kernel_size": 2, "stride": 3, "layout": "channels_first"}),
    "padding_only": ((1, 3, 4, 16), {"kernel_size": 2, "stride": 3, "padding": ((0, 9), (0, 0))}),
    "whole": ((2, 7, 5, 100), {"kernel_size": (7, 5)}),
    "adaptive": ((2, 7, 9, 18), {"output_size": (3, 4)}),
}


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", PAST)
def test_what_goes_past_the_caches_is_the_same(monkeypatch, case, dtype, num_threads):
    shape, options = PAST[case]
    op = "adaptive_avg_pool" if "output_size" in options else "avg_pool"
    plan = pg.plan(op, shape, dtype, **options)
    dy = fill("normal", plan.output_shape, dtype, 0)
    dx = plan.backward(dy, num_threads=1)
    monkeypatch.setattr("poolgrad.program.LARGE_BYTES", 0)
    monkeypatch.setattr(importlib.import_module("poolgrad.plan"), "STEPS_A_THREAD", 1)
    past = dataclasses.replace(plan)  # one with a program of its own
    assert_same_bits(past.backward(dy, num_threads=num_threads), dx)
    # Lines of the cache begin elsewhere than vectors, and than rows.
    for offset in range(17):
        out = np.full(dx.size + 40, 7, dtype)
        past.backward(dy, out=out[offset : offset + dx.size].reshape(shape))
        assert_same_bits(out[offset : offset + dx.size].reshape(shape), dx)
        assert (out[:offset] == 7).all()
        assert (out[offset + dx.size :] == 7).all()
    assert past._program("adjoint").header[PAST_AT] > plan._program("adjoint").header[PAST_AT]


def test_several_threads_keep_twice_as_much_in_the_caches(monkeypatch):
    shape, options = PAST["side_by_side"]
    plan = pg.plan("avg_pool", shape, **options)
    dy = fill("normal", plan.output_shape, "float32", 0)
    dx = plan.backward(dy, num_threads=1)
    monkeypatch.setattr(importlib.import_module("poolgrad.plan"), "STEPS_A_THREAD", 1)
    for least, kept in (((dx.nbytes + dy.nbytes) * 3 // 4, True), (dx.nbytes // 4, False)):
        monkeypatch.setattr("poolgrad.program.LARGE_BYTES", least)
        past = dataclasses.replace(plan)
        program = past._program("adjoint")
        assert program.code[PAST_AT] == 1
        assert program.finer(2)[PAST_AT] == (not kept)
        for num_threads in (1, 2):
            assert_same_bits(past.backward(dy, num_threads=num_threads), dx)


APART = [
    ((2, 101, 95, 48), (3, 4), (4, 4)),
    ((1, 130, 96, 24), (2, 2), (2, 2)),
    ((1, 9, 50, 53, 40), (2, 3, 2), (3, 3, 2)),
    ((3, 5000, 17), (7,), (7,)),
]


@pytest.mark.parametrize("num_threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "kernel", "stride"), APART)
def test_windows_that_share_no_cell_write_each_once(shape, kernel, stride, dtype, num_threads):
    rng = np.random.default_rng(0)
    spatial = tuple((n - k) // s + 1 for n, k, s in zip(shape[1:-1], kernel, stride, strict=True))
    windows = (shape[0], *spatial, shape[-1])
    dy = rng.standard_normal(windows).astype(dtype)
    argmax = rng.integers(0, np.prod(kernel), windows).astype(np.uint8)
    expected = np.zeros(shape, dtype)
    where = list(np.indices(windows))
    for axis, tap in enumerate(np.unravel_index(argmax, kernel)):
        where[1 + axis] = where[1 + axis] * stride[axis] + tap
    expected[tuple(where)] = dy
    out = np.full(shape, np.nan, dtype)
    pg.max_pool_backward(
        dy, shape, kernel, stride=stride, argmax=argmax, out=out, num_threads=num_threads
    )
    assert_same_bits(out, expected)
