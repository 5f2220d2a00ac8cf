"""Memory of large arrays: whose it is, when it is used again, and how much of it is kept."""

import gc
import sys
import threading
import tracemalloc

import numpy as np
import pytest

import poolgrad as pg
from poolgrad._memory import empty

MIB = 2**20
LEAST = 2 * MIB
KEPT = 128 * MIB

UINT8 = np.dtype(np.uint8)


@pytest.fixture(autouse=True)
def nothing_is_kept():
    gc.collect()
    pg.release_memory()
    yield
    pg.release_memory()


def of(n_bytes):
    return empty(n_bytes, UINT8)


def test_small_arrays_are_numpys_own():
    assert of(LEAST - 1).base is None
    assert of(0).shape == (0,)
    assert empty((0, 10**12), np.dtype(np.float64)).shape == (0, 10**12)
    assert pg.release_memory() == 0


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32", "float64"])
def test_an_array_is_as_any_other(dtype):
    a = empty((1, 3, 1031, 1033), np.dtype(dtype))
    assert a.shape == (1, 3, 1031, 1033)
    assert a.dtype == dtype
    assert a.flags.c_contiguous
    assert a.flags.writeable
    assert a.ctypes.data % 64 == 0
    a[...] = 7
    assert a.min() == a.max() == 7
    assert (a.copy() == a).all()


def test_freed_memory_is_used_again_by_arrays_of_about_the_size():
    a = of(10 * MIB)
    place = a.ctypes.data
    del a
    for n_bytes in (10 * MIB, 10 * MIB - 1, 8 * MIB + 1):
        assert of(n_bytes).ctypes.data == place
    for n_bytes in (10 * MIB + 2**16, 7 * MIB):
        again = of(10 * MIB)
        del again
        other = of(n_bytes)
        assert memoryview(other.base).nbytes == n_bytes
        del other


def test_of_several_the_one_that_fits_best_is_used():
    places = {}
    for n_bytes in (12 * MIB, 11 * MIB, 13 * MIB):
        places[n_bytes] = of(n_bytes)
    where = places[11 * MIB].ctypes.data
    places.clear()
    assert of(11 * MIB - 5).ctypes.data == where


def test_memory_is_kept_for_as_long_as_any_view_of_it():
    a = of(4 * MIB)
    place = a.ctypes.data
    a[:] = 3
    view = memoryview(a)[5:10]
    del a
    others = [of(4 * MIB) for _ in range(5)]
    assert place not in {other.ctypes.data for other in others}
    for other in others:
        other[:] = 9
    assert bytes(view) == b"\3" * 5
    del view, others


def test_arrays_that_live_share_nothing():
    alive = [of(3 * MIB) for _ in range(20)]
    for i, a in enumerate(alive):
        a[:] = i
    del alive[::2]
    alive += [of(3 * MIB) for _ in range(20)]
    for i, a in enumerate(alive[10:], 100):
        a[:] = i
    assert [set(a[:: 2**12].tolist()) for a in alive] == [
        {i} for i in (*range(1, 20, 2), *range(100, 120))
    ]


def test_what_is_kept_is_bounded():
    for _ in range(3):
        alive = [of(10 * MIB) for _ in range(20)]
        del alive
        assert 0 < pg.release_memory() <= KEPT
    alive = [of(LEAST) for _ in range(200)]
    del alive
    assert 0 < pg.release_memory() <= KEPT
    assert pg.release_memory() == 0


def test_what_was_freed_first_goes_first():
    arrays = [of(n * MIB) for n in (50, 40, 70, 20)]
    for i in (0, 1, 3, 2):  # the first two have to go
        arrays[i] = None
    assert pg.release_memory() == (20 + 70) * MIB


def test_what_is_kept_makes_room_for_what_is_new():
    arrays = [of(n * MIB) for n in (10, 20, 30)]
    for i in range(3):
        arrays[i] = None
    a = of(5 * MIB)
    assert pg.release_memory() == (20 + 30) * MIB
    del a


def test_more_than_is_kept_is_given_back_at_once():
    a = of(KEPT + 2**16)
    del a
    assert pg.release_memory() == 0


def test_a_result_is_used_again_but_not_while_it_is_there():
    x = np.arange(2 * 1024 * 2048, dtype=np.float32).reshape(1, 2048, 2048, 1)
    y = pg.max_pool(x, 1)
    place = y.ctypes.data
    other = pg.max_pool(x + 1, 1)
    assert np.array_equal(y, x)
    assert np.array_equal(other, x + 1)
    del y
    again = pg.max_pool(x, 1)
    assert again.ctypes.data == place
    assert np.array_equal(again, x)


@pytest.mark.parametrize("op", ["max_pool", "avg_pool"])
def test_stale_memory_does_not_show(op):
    """Each cell of a result is written, those that no window has as well."""
    dirty = of(4 * 3 * 600 * 600)
    dirty[:] = 255  # NaN
    del dirty
    x = np.ones((1, 600, 600, 3), np.float32)
    plan = pg.plan(op, x.shape, kernel_size=2, stride=7, dilation=1)
    dx = plan.backward(np.ones(plan.output_shape, np.float32), x)
    assert dx.base is not None
    assert np.isfinite(dx).all()
    assert dx.sum() == np.prod(plan.output_shape)


def test_a_program_that_measures_its_memory_is_told():
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        a = of(50 * MIB)
        during, _ = tracemalloc.get_traced_memory()
        del a
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert during - before >= 50 * MIB
    assert after - before < MIB


def test_there_is_an_error_where_there_is_no_memory():
    kept = of(4 * MIB)
    del kept
    with pytest.raises(MemoryError):
        of(2**60)
    with pytest.raises((MemoryError, ValueError)):
        of(2**70)
    assert pg.release_memory() == 0  # it was given back first


def test_threads_get_memory_of_their_own():
    wrong = []

    def use(mark):
        for i in range(50):
            a = of((3 + (mark + i) % 3) * MIB)
            a[:: 2**12] = mark
            if set(a[:: 2**12].tolist()) != {mark}:
                wrong.append(mark)
            del a

    threads = [threading.Thread(target=use, args=(mark,)) for mark in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert pg.release_memory() <= KEPT


@pytest.mark.skipif(sys.platform != "linux", reason="the system tells of memory in another way")
def test_a_loop_has_no_pages_to_find():
    """The point of it: memory of this size would be found anew each time."""
    import resource

    x = np.ones((1, 4096, 4096, 1), np.float32)
    dy = np.ones((1, 2048, 2048, 1), np.float32)

    def faults():
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    pg.avg_pool_backward(dy, x.shape, 2)
    before = faults()
    for _ in range(10):
        pg.avg_pool_backward(dy, x.shape, 2)
    with_it = faults() - before
    before = faults()
    for _ in range(10):
        pg.avg_pool_backward(dy, x.shape, 2)
        pg.release_memory()
    without = faults() - before
    # One a large page, of which a gradient has 32. Other memory that is looked at has its own.
    assert without - with_it > 10 * 32 // 2
