"""The number of threads changes no bit of a result, and threads, forks and callers mix."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import poolgrad as pg
import windowed
from compare import assert_close, assert_same_bits
from poolgrad import threads
from strategies import DTYPES, fill

# Large enough that every one is cut up for threads; one image or one series each where it says so.
SIZES = {
    "one_image": ((1, 257, 259, 5), 3, {"stride": 2, "padding": 1}),
    "one_grey_image": ((1, 500, 510, 1), 5, {"stride": 1, "padding": 2}),
    "one_pixel_row_of_channels": ((1, 6, 6, 9000), 3, {"stride": 1}),
    "one_series": ((1, 400_000, 1), 7, {"stride": 3, "padding": 3}),
    "one_series_wide_window": ((1, 300_000, 1), 100, {"stride": 1, "padding": 50}),
    "one_series_of_channels": ((1, 120_000, 3), 4, {"stride": 2, "ceil_mode": True}),
    "one_tall_image": ((1, 120_000, 3, 1), 3, {"stride": 1, "padding": 1}),
    "one_window": ((1, 600, 500, 1), (600, 500), {}),
    "one_volume": ((1, 40, 50, 60, 2), 3, {"stride": 2, "padding": "same"}),
    "one_image_of_many_channels": ((1, 40, 30, 70), 5, {"stride": 1, "padding": 2}),
    "one_volume_of_many_channels": ((1, 9, 12, 11, 64), 3, {"stride": 1, "padding": 1}),
    "batch": ((7, 70, 71, 8), 3, {"stride": 2, "dilation": 2}),
    "series_first": ((1, 1, 400_000), 5, {"stride": 2, "layout": "channels_first"}),
    "many_series_first": ((40, 5, 700), 3, {"stride": 2, "layout": "channels_first"}),
    "large_windows_first": (
        (1, 32, 70, 66),
        9,
        {"stride": 1, "padding": 4, "layout": "channels_first"},
    ),
    "one_image_large_windows_first": (
        (1, 1, 300, 400),
        9,
        {"stride": 1, "padding": 4, "layout": "channels_first"},
    ),
    "batch_first": ((3, 5, 120, 110), 3, {"stride": 1, "layout": "channels_first"}),
}


@pytest.fixture(autouse=True)
def restore_num_threads():
    before = pg.get_num_threads()
    yield
    pg.set_num_threads(before)


@pytest.mark.parametrize("num_threads", [2, 3])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_max_is_the_same_on_any_number_of_threads(size, dtype, num_threads):
    shape, kernel_size, options = SIZES[size]
    x = fill("ties", shape, dtype, 0)
    y, argmax = pg.max_pool(x, kernel_size, return_argmax=True, num_threads=1, **options)
    options = {**options, "num_threads": num_threads}
    other_y, other_argmax = pg.max_pool(x, kernel_size, return_argmax=True, **options)
    assert_same_bits(other_y, y)
    assert_same_bits(other_argmax, argmax)
    assert_same_bits(pg.max_pool(x, kernel_size, **options), y)
    dy = fill("normal", y.shape, dtype, 1)
    dx = pg.max_pool_backward(dy, x, kernel_size, **{**options, "num_threads": 1})
    assert_same_bits(pg.max_pool_backward(dy, x, kernel_size, **options), dx)
    saved = pg.max_pool_backward(dy, x.shape, kernel_size, argmax=argmax, **options)
    assert_same_bits(saved, dx)


@pytest.mark.parametrize("num_threads", [2, 3])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_average_is_the_same_on_any_number_of_threads(size, dtype, num_threads):
    shape, kernel_size, options = SIZES[size]
    x = fill("normal", shape, dtype, 0)
    y = pg.avg_pool(x, kernel_size, num_threads=1, **options)
    assert_same_bits(pg.avg_pool(x, kernel_size, num_threads=num_threads, **options), y)
    dy = fill("normal", y.shape, dtype, 1)
    dx = pg.avg_pool_backward(dy, shape, kernel_size, num_threads=1, **options)
    other = pg.avg_pool_backward(dy, shape, kernel_size, num_threads=num_threads, **options)
    assert_same_bits(other, dx)


# Cut into several pieces whatever the number of threads, so the seams are compared with an oracle
# too. The windows left out would take it gigabytes.
LARGE = [size for size in SIZES if size != "one_series_wide_window"]


@pytest.mark.parametrize("size", LARGE)
def test_large_max_is_the_definition(size):
    shape, kernel_size, options = SIZES[size]
    x = fill("ties", shape, "float32", 0)
    expected, winners, indices = windowed.max_pool(x, kernel_size, **options)
    y, argmax = pg.max_pool(x, kernel_size, return_argmax=True, num_threads=2, **options)
    assert_same_bits(y, expected)
    assert_same_bits(argmax, winners)
    dy = fill("normal", y.shape, "float32", 1)
    layout = options.get("layout", "channels_last")
    dx = windowed.max_pool_backward(dy, indices, shape, layout=layout)
    assert_same_bits(pg.max_pool_backward(dy, x, kernel_size, num_threads=2, **options), dx)


@pytest.mark.parametrize("size", LARGE)
def test_large_average_is_the_definition(size):
    shape, kernel_size, options = SIZES[size]
    x = fill("normal", shape, "float32", 0)
    y = pg.avg_pool(x, kernel_size, num_threads=2, **options)
    assert_close(y, windowed.avg_pool(x, kernel_size, **options))
    dy = fill("normal", y.shape, "float32", 1)
    dx = pg.avg_pool_backward(dy, shape, kernel_size, num_threads=2, **options)
    assert_close(dx, windowed.avg_pool_backward(dy, shape, kernel_size, **options))


def test_several_callers_at_once():
    x = fill("normal", (2, 150, 151, 3), "float32", 0)
    plan = pg.plan("max_pool", x.shape, x.dtype, kernel_size=3, stride=2, padding=1)
    expected = plan.forward(x, return_argmax=True, num_threads=1)
    dy = fill("normal", plan.output_shape, "float32", 1)
    dx = plan.backward(dy, x, num_threads=1)

    def work(caller):
        num_threads = 1 + caller % 3
        y, argmax = plan.forward(x, return_argmax=True, num_threads=num_threads)
        return y, argmax, plan.backward(dy, argmax=argmax, num_threads=num_threads)

    with ThreadPoolExecutor(6) as callers:
        results = list(callers.map(work, range(24)))
    for y, argmax, gradient in results:
        assert_same_bits(y, expected[0])
        assert_same_bits(argmax, expected[1])
        assert_same_bits(gradient, dx)


# More threads than there are CPUs: those that wait are often out of turn when what they wait for
# happens.
CROWD = """
import numpy as np
import poolgrad as pg

x = np.arange(400_000, dtype="float32").reshape(1, 200, 400, 5)
y = pg.max_pool(x, 2, num_threads=1)
for num_threads in (2, 3, 8, 40) * 100:
    assert np.array_equal(pg.max_pool(x, 2, num_threads=num_threads), y)
"""


def test_a_crowd_of_threads_ends():
    done = run_python(CROWD)
    assert done.returncode == 0, done.stderr


def test_no_thread_can_be_had(monkeypatch):
    def start(self):
        raise RuntimeError("can't start new thread")

    x = fill("normal", (1, 300, 301, 5), "float32", 0)
    y = pg.max_pool(x, 2, num_threads=1)
    monkeypatch.setattr(threading.Thread, "start", start)
    assert threads.gather(1000) < 1000
    assert_same_bits(pg.max_pool(x, 2, num_threads=1000), y)


@pytest.mark.parametrize("num_threads", [1, 2, 5, 64])
@pytest.mark.parametrize("op", ["max_pool", "avg_pool"])
def test_more_threads_than_work(op, num_threads):
    x = fill("normal", (1, 3, 1), "float32", 0)
    function = getattr(pg, op)
    y = function(x, 2, num_threads=num_threads)
    assert_same_bits(y, function(x, 2, num_threads=1))


def test_set_and_get():
    pg.set_num_threads(3)
    assert pg.get_num_threads() == 3
    pg.set_num_threads(np.int64(1))
    assert pg.get_num_threads() == 1
    assert type(pg.get_num_threads()) is int


BAD_NUMBERS = [0, -1, True, 2.0, "2", [2], 2**63, 10**400]


@pytest.mark.parametrize("bad", [*BAD_NUMBERS, None], ids=repr)
def test_bad_settings_are_refused(bad):
    before = pg.get_num_threads()
    with pytest.raises(pg.ParameterError, match="num_threads"):
        pg.set_num_threads(bad)
    assert pg.get_num_threads() == before


@pytest.mark.parametrize("bad", BAD_NUMBERS, ids=repr)
@pytest.mark.parametrize("op", ["max_pool", "avg_pool"])
def test_bad_arguments_are_refused(op, bad):
    x = np.zeros((1, 4, 1), "float32")
    dy = np.zeros((1, 2, 1), "float32")
    plan = pg.plan(op, x.shape, kernel_size=2)
    calls = [
        lambda: getattr(pg, op)(x, 2, num_threads=bad),
        lambda: getattr(pg, f"{op}_backward")(dy, x, 2, num_threads=bad),
        lambda: plan.forward(x, num_threads=bad),
        lambda: plan.backward(dy, x, num_threads=bad),
    ]
    for call in calls:
        with pytest.raises(pg.ParameterError, match="num_threads"):
            call()


def run_python(code, **environment):
    """Run code in a new interpreter, which must end by itself."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


SHOW = "import poolgrad; print(poolgrad.get_num_threads())"


@pytest.mark.parametrize(("value", "number"), [("1", 1), ("3", 3), (" 2 ", 2)])
def test_environment_sets_the_default(value, number):
    done = run_python(SHOW, POOLGRAD_NUM_THREADS=value)
    assert done.stderr == ""
    assert done.stdout.split() == [str(number)]


def test_an_empty_environment_variable_means_unset():
    done = run_python(SHOW, POOLGRAD_NUM_THREADS="")
    assert done.returncode == 0
    assert 1 <= int(done.stdout) <= (os.cpu_count() or 1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs CPU affinity")
def test_the_default_counts_only_cpus_that_may_be_used():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n" + SHOW
    environment = {k: v for k, v in os.environ.items() if k != "POOLGRAD_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["1"]


@pytest.mark.parametrize(
    "value",
    ["0", "-3", "2.0", "many", "1e3", "9" * 5000, "9" * 30],
    ids=["zero", "negative", "float", "word", "exponent", "5000_digits", "30_digits"],
)
def test_a_bad_environment_variable_is_named(value):
    done = run_python(SHOW, POOLGRAD_NUM_THREADS=value)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "ParameterError" in last
    assert "POOLGRAD_NUM_THREADS" in last
    assert len(last) < 400


# The child of a threaded parent has none of its threads; a pool that waits for them never ends.
FORK = """
import os, signal, sys
import numpy as np
import poolgrad as pg

x = np.arange(600_000, dtype="float32").reshape(1, 300, 400, 5)
dy = np.ones((1, 150, 200, 5), "float32")
y = pg.max_pool(x, 2, num_threads=2)
dx = pg.max_pool_backward(dy, x, 2, num_threads=2)
child = os.fork()
if child == 0:
    signal.alarm(30)
    good = np.array_equal(pg.max_pool(x, 2, num_threads=2), y)
    good &= np.array_equal(pg.max_pool_backward(dy, x, 2, num_threads=2), dx)
    good &= np.array_equal(pg.max_pool(x, 2), y)
    os._exit(0 if good else 3)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert np.array_equal(pg.max_pool(x, 2, num_threads=2), y)
sys.exit(status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_can_pool():
    done = run_python(FORK)
    assert done.returncode == 0, done.stderr


# Forks while another thread is in the middle of calls, so that locks may be held.
FORK_UNDER_LOAD = """
import os, signal, sys, threading
import numpy as np
import poolgrad as pg

x = np.arange(120_000, dtype="float32").reshape(1, 200, 300, 2)
y = pg.avg_pool(x, 2, num_threads=2)
done = threading.Event()

def load():
    while not done.is_set():
        pg.avg_pool(x, 2, num_threads=3)

thread = threading.Thread(target=load)
thread.start()
status = 0
for _ in range(20):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(0 if np.array_equal(pg.avg_pool(x, 2, num_threads=2), y) else 3)
    status |= os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
done.set()
thread.join()
sys.exit(status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_children_forked_under_load_can_pool():
    done = run_python(FORK_UNDER_LOAD)
    assert done.returncode == 0, done.stderr


EXIT = """
import numpy as np
import poolgrad as pg
pg.max_pool(np.zeros((1, 400, 400, 4), "float32"), 3, num_threads=4)
print("pooled")
"""


def test_the_interpreter_ends_after_a_threaded_call():
    done = run_python(EXIT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["pooled"]
    assert done.stderr == ""
