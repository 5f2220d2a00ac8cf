"""A call like one that has been made before takes a short cut, to the very same end."""

import pickle
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

import poolgrad as pg
from compare import assert_same_bits
from poolgrad import _quick

SHAPE = (2, 5, 4, 3)
RNG = np.random.default_rng(0)
X = RNG.standard_normal(SHAPE).astype("float32")
Y_SHAPE = (2, 2, 2, 3)
DY = RNG.standard_normal(Y_SHAPE).astype("float32")
ARGMAX = pg.max_pool(X, 2, return_argmax=True)[1]


def strided(array: Any) -> Any:
    """Return the same elements, two places apart."""
    return np.repeat(array, 2, axis=-1)[..., ::2]


def unaligned(array: Any) -> Any:
    """Return the same elements, a byte after where they should be."""
    there = np.zeros(array.nbytes + 1, "uint8")[1:].view(array.dtype).reshape(array.shape)
    there[...] = array
    return there


def read_only(array: Any) -> Any:
    """Return an array that must not be written."""
    array.flags.writeable = False
    return array


class Sub(np.ndarray):
    """An array of another class."""


def new(shape: tuple[int, ...] = Y_SHAPE, dtype: str = "float32") -> Any:
    """Return an array to be written to."""
    return np.full(shape, 7, dtype)


#: Inputs of the right shape or not, and what a call may be told beside them.
ARRAYS: dict[str, Callable[[Any], Any]] = {
    "plain": lambda a: a,
    "strided": strided,
    "unaligned": unaligned,
    "fortran": np.asfortranarray,
    "read-only": lambda a: read_only(a.copy()),
    "subclass": lambda a: a.view(Sub),
    "masked": np.ma.masked_array,
    "swapped": lambda a: a.astype(">f4"),
    "float64": lambda a: a.astype("float64"),
    "other shape": lambda a: a[:1].copy(),
    "list": lambda a: a.tolist(),
    "None": lambda a: None,
}
THREADS = [None, 1, 3, 1024, 0, -1, 1025, True, 1.0, "1", np.int64(2), 10**30]
OUTS: dict[str, Callable[[tuple[int, ...]], Any]] = {
    "plain": new,
    "float64": lambda shape: new(shape, "float64"),
    "strided": lambda shape: strided(new(shape)),
    "unaligned": lambda shape: unaligned(new(shape)),
    "read-only": lambda shape: read_only(new(shape)),
    "subclass": lambda shape: new(shape).view(Sub),
    "other shape": lambda shape: new((1, *shape[1:])),
    "list": lambda shape: [1.0],
}


def outcome(call: Callable[[], Any]) -> Any:
    """Return what a call returns, or raises."""
    try:
        return call()
    except pg.PoolgradError as error:
        return type(error), str(error)


def check(op: str, method: str, *args: Any, **options: Any) -> None:
    """Make a call by a new plan, which has no short cut yet, and by one that has all of them."""
    new_plan = replace(pg.plan(op, SHAPE, kernel_size=2))
    plan = replace(new_plan)
    if op == "max_pool":
        _, argmax = plan.forward(X, return_argmax=True)
        plan.backward(DY, X)
        plan.backward(DY, argmax=argmax)
    else:
        plan.backward(DY)
    plan.forward(X)
    # A copy, since both may write to the same place.
    expected = deepcopy(outcome(partial(getattr(new_plan, method), *args, **options)))
    found = outcome(partial(getattr(plan, method), *args, **options))
    if isinstance(expected, np.ndarray):
        assert type(found) is type(expected)
        assert_same_bits(found, expected)
    elif isinstance(expected[0], np.ndarray):
        for one, other in zip(found, expected, strict=True):
            assert_same_bits(one, other)
    else:
        assert found == expected


OPS = ["max_pool", "avg_pool"]


@pytest.mark.parametrize("form", ARRAYS)
@pytest.mark.parametrize("op", OPS)
def test_input(op, form):
    make = ARRAYS[form]
    check(op, "forward", make(X))
    check(op, "backward", make(DY), X)
    check(op, "backward", DY, make(X))
    check(op, "forward", make(X), return_argmax=True)


@pytest.mark.parametrize("form", [*ARRAYS, "int32", "not a tap"])
@pytest.mark.parametrize("op", OPS)
def test_argmax(op, form):
    make = ARRAYS.get(form, lambda a: a.astype("int32") if form == "int32" else a + np.uint8(4))
    check(op, "backward", DY, argmax=make(ARGMAX))
    check(op, "backward", DY, X, argmax=make(ARGMAX))


@pytest.mark.parametrize("num_threads", THREADS, ids=repr)
@pytest.mark.parametrize("op", OPS)
def test_num_threads(op, num_threads):
    check(op, "forward", X, num_threads=num_threads)
    check(op, "backward", DY, X, num_threads=num_threads)


@pytest.mark.parametrize("return_argmax", [True, 1, 0, None, "yes", np.True_], ids=repr)
@pytest.mark.parametrize("op", OPS)
def test_return_argmax(op, return_argmax):
    check(op, "forward", X, return_argmax=return_argmax)


@pytest.mark.parametrize("form", OUTS)
@pytest.mark.parametrize("op", OPS)
def test_out(op, form):
    make = OUTS[form]
    check(op, "forward", X, out=make(Y_SHAPE))
    check(op, "backward", DY, X, out=make(SHAPE))
    for pair in tuple, list:
        y, argmax = new(), new(dtype="uint8")
        check(op, "forward", X, return_argmax=True, out=pair((make(Y_SHAPE), argmax)))
        check(op, "forward", X, return_argmax=True, out=pair((y, make(Y_SHAPE))))
        check(op, "forward", X, return_argmax=True, out=pair((y, argmax)))
        check(op, "forward", X, return_argmax=True, out=pair((y, None)))
        check(op, "forward", X, return_argmax=True, out=pair((None, argmax)))
        check(op, "forward", X, return_argmax=True, out=pair((y,)))


@pytest.mark.parametrize("op", OPS)
def test_out_that_shares_memory(op):
    memory = np.zeros(X.size + 24, "float32")
    memory[: X.size] = X.ravel()
    x = memory[: X.size].reshape(SHAPE)
    for start in 0, X.size - 24, X.size - 1, X.size:
        y = memory[start : start + 24].reshape(Y_SHAPE)
        check(op, "forward", x.copy() if start == X.size else x, out=y)
    dy = memory[-24:].reshape(Y_SHAPE)
    check(op, "backward", dy, X, out=memory[1 : 1 + X.size].reshape(SHAPE))
    check(op, "backward", DY, x, out=memory[: X.size].reshape(SHAPE))
    both = new()
    check(op, "forward", X, return_argmax=True, out=(both, both))
    check(op, "forward", X, return_argmax=True, out=(both, both.view("uint8")))
    bytes_of_x = x.view("uint8").reshape(-1)[:24].reshape(Y_SHAPE)
    check(op, "forward", x, return_argmax=True, out=(None, bytes_of_x))
    check(op, "backward", DY, X, argmax=bytes_of_x, out=x)


@pytest.mark.parametrize("op", OPS)
def test_the_second_call_takes_the_short_cut(op):
    plan = replace(pg.plan(op, SHAPE, kernel_size=2))
    backward = partial(_quick.backward, plan, DY, X, None, None, 1)
    forward = partial(_quick.forward, plan, X, False, None, 1)
    assert forward() is None
    assert backward() is None
    plan.forward(X)
    plan.backward(DY, X)
    assert_same_bits(forward(), plan.forward(X))
    assert_same_bits(backward(), plan.backward(DY, X))


@pytest.mark.parametrize("op", OPS)
def test_it_takes_threads_too(op):
    shape = (16, 64, 64, 3)
    x = RNG.standard_normal(shape).astype("float32")
    plan = replace(pg.plan(op, shape, kernel_size=2))
    assert plan._helpers(2) == 1
    y = plan.forward(x)
    dx = plan.backward(y, x)
    for num_threads in (None, 1, 2, 3):
        assert_same_bits(_quick.forward(plan, x, False, None, num_threads), y)
        assert_same_bits(_quick.backward(plan, y, x, None, None, num_threads), dx)


def test_out_is_what_is_returned():
    plan = pg.plan("max_pool", SHAPE, kernel_size=2)
    for _ in range(2):
        y, argmax, dx = new(), new(dtype="uint8"), new(SHAPE)
        assert plan.forward(X, out=y) is y
        made = plan.forward(X, return_argmax=True, out=(y, argmax))
        assert made[0] is y
        assert made[1] is argmax
        assert plan.backward(DY, argmax=argmax, out=dx) is dx


def test_functions_check_what_plans_do():
    for _ in range(2):
        y, argmax = pg.max_pool(X, 2, return_argmax=True)
        for x in (X, SHAPE, list(SHAPE)):
            assert_same_bits(
                pg.max_pool_backward(DY, x, 2, argmax=argmax), pg.max_pool_backward(DY, X, 2)
            )
            assert_same_bits(pg.avg_pool_backward(DY, x, 2), pg.avg_pool_backward(DY, SHAPE, 2))
        assert_same_bits(pg.max_pool(X, 2), y)
        for wrong in (SHAPE[:-1], (*SHAPE[:-1], 4), (2.0, 5, 4, 3), "2543", None, {}, X[:1]):
            with pytest.raises(pg.PoolgradError):
                pg.avg_pool_backward(DY, wrong, 2)
        for gradient in pg.max_pool_backward, pg.avg_pool_backward:
            with pytest.raises(pg.DtypeError, match=r"^dy: dtype float64; the plan is for float32"):
                gradient(DY.astype("float64"), X, 2)
        for op in pg.max_pool, pg.avg_pool:
            for x in (None, X.tolist(), X.astype("int32"), X.astype(">f4"), X[0, 0]):
                with pytest.raises(pg.PoolgradError):
                    op(x, 2)


@pytest.mark.parametrize("op", OPS)
def test_a_dtype_of_its_own_is_as_good_as_any(op):
    # As arrays have that were pickled, by number, or with metadata.
    own = np.dtype("float32", metadata={"a": 1})
    function, gradient = getattr(pg, op), getattr(pg, f"{op}_backward")
    for _ in range(2):
        for array in (X.astype(own), X, pickle.loads(pickle.dumps(X))):
            y = function(array, 2, ceil_mode=True)
            assert y.dtype.metadata is None
            assert_same_bits(y, function(X, 2, ceil_mode=True))
            assert gradient(y.astype(own), array, 2, ceil_mode=True).dtype.metadata is None
    plan = pg.plan(op, SHAPE, kernel_size=2, ceil_mode=True)
    assert _quick.forward(plan, X.astype(own), False, None, 1) is not None


def test_few_taps_of_a_large_array_are_no_brief_call():
    # Its gradient has memory of our own, as large results have, at the second call too.
    x = np.zeros((1, 10**6, 3), "float32")
    for _ in range(3):
        dx = pg.max_pool_backward(np.ones((1, 10, 3), "float32"), x, 1, stride=10**5)
        assert dx.base is not None
