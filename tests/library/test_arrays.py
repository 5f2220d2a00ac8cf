"""What arrays are taken, in which memory, and what `out` must be."""

import numpy as np
import pytest

import poolgrad as pg
from compare import assert_same_bits
from strategies import MEMORY, fill, lay_out

SHAPE, KERNEL = (2, 6, 5, 3), 2
OUT_SHAPE = (2, 3, 2, 3)
X = fill("normal", SHAPE, "float32", 0)
DY = fill("normal", OUT_SHAPE, "float32", 1)
Y, ARGMAX = pg.max_pool(X, KERNEL, return_argmax=True)
PLANS = {op: pg.plan(op, SHAPE, kernel_size=KERNEL) for op in ("max_pool", "avg_pool")}

# Every way to get an array out, as a function of (x, dy, out).
CALLS = {
    "max_pool": lambda x, dy, out: pg.max_pool(x, KERNEL, out=out),
    "avg_pool": lambda x, dy, out: pg.avg_pool(x, KERNEL, out=out),
    "max_pool_backward": lambda x, dy, out: pg.max_pool_backward(dy, x, KERNEL, out=out),
    "avg_pool_backward": lambda x, dy, out: pg.avg_pool_backward(dy, x, KERNEL, out=out),
    "max_plan_forward": lambda x, dy, out: PLANS["max_pool"].forward(x, out=out),
    "avg_plan_forward": lambda x, dy, out: PLANS["avg_pool"].forward(x, out=out),
    "max_plan_backward": lambda x, dy, out: PLANS["max_pool"].backward(dy, x, out=out),
    "avg_plan_backward": lambda x, dy, out: PLANS["avg_pool"].backward(dy, x, out=out),
}
NAMES = sorted(CALLS)


def result_shape(name):
    return SHAPE if "backward" in name else OUT_SHAPE


def inner(name):
    """What the call reads most of: x forward, dy backward."""
    return "dy" if "backward" in name else "x"


# ---------------------------------------------------------------------------------- inputs


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("name", NAMES)
def test_any_memory_order_gives_the_same(name, memory):
    expected = CALLS[name](X, DY, None)
    assert_same_bits(CALLS[name](lay_out(X, memory), lay_out(DY, memory), None), expected)


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("name", [name for name in NAMES if "plan" not in name])
def test_any_memory_order_of_float64_gives_the_same(name, memory):
    x, dy = X.astype("float64"), DY.astype("float64")
    expected = CALLS[name](x, dy, None)
    assert_same_bits(CALLS[name](lay_out(x, memory), lay_out(dy, memory), None), expected)


@pytest.mark.parametrize("name", NAMES)
def test_broadcast_inputs(name):
    x = np.broadcast_to(np.float32(3), SHAPE)
    dy = np.broadcast_to(DY[:1, :, :, :1], OUT_SHAPE)
    expected = CALLS[name](x.copy(), dy.copy(), None)
    assert_same_bits(CALLS[name](x, dy, None), expected)


@pytest.mark.parametrize("memory", MEMORY)
def test_saved_argmax_in_any_memory(memory):
    dx = pg.max_pool_backward(DY, SHAPE, KERNEL, argmax=ARGMAX)
    argmax = lay_out(ARGMAX, memory)
    assert_same_bits(pg.max_pool_backward(DY, SHAPE, KERNEL, argmax=argmax), dx)
    indices = pg.argmax_to_indices(ARGMAX, PLANS["max_pool"])
    assert_same_bits(pg.argmax_to_indices(argmax, PLANS["max_pool"]), indices)


UNSUPPORTED = [
    "int8",
    "uint8",
    "int32",
    "int64",
    "bool",
    "float16",
    "longdouble",
    "complex64",
    "object",
    "U3",
    "datetime64[s]",
    ">f4" if np.little_endian else "<f4",
    ">f8" if np.little_endian else "<f8",
    [("a", "f4")],
]


@pytest.mark.parametrize("dtype", UNSUPPORTED, ids=str)
@pytest.mark.parametrize("name", [name for name in NAMES if "plan" not in name])
def test_other_dtypes_are_refused_by_name(name, dtype):
    x, dy = np.zeros(SHAPE, dtype), np.zeros(OUT_SHAPE, dtype)
    with pytest.raises(pg.DtypeError, match=rf"^{inner(name)}\b.*float32.*float64"):
        CALLS[name](x, dy, None)


@pytest.mark.parametrize("dtype", UNSUPPORTED, ids=str)
@pytest.mark.parametrize("op", ["max_pool", "avg_pool"])
def test_other_dtypes_are_refused_by_plans(op, dtype):
    with pytest.raises(pg.DtypeError, match=r"dtype.*float32.*float64"):
        pg.plan(op, SHAPE, dtype, kernel_size=KERNEL)


NO_DTYPES = ["nonsense", "float33", "", 3, [3], "\ud800", "f4,f4", {"a": 1}]


@pytest.mark.parametrize("dtype", NO_DTYPES, ids=ascii)
def test_what_is_no_dtype_is_refused_by_plans(dtype):
    with pytest.raises(pg.DtypeError, match="dtype"):
        pg.plan("max_pool", SHAPE, dtype, kernel_size=KERNEL)


SPELLINGS = ["f4", np.float32, np.dtype("float32"), "<f4" if np.little_endian else ">f4"]


@pytest.mark.parametrize("dtype", SPELLINGS, ids=str)
def test_dtypes_may_be_spelled_in_any_way(dtype):
    assert pg.plan("max_pool", SHAPE, dtype, kernel_size=KERNEL).dtype == np.float32


@pytest.mark.parametrize("name", NAMES)
def test_masked_arrays_are_refused(name):
    x, dy = np.ma.masked_array(X), np.ma.masked_array(DY)
    with pytest.raises(pg.DtypeError, match=r"^(x|dy)\b.*masked"):
        CALLS[name](x, dy, None)


NO_ARRAYS = {
    "none": None,
    "float": 3.0,
    "text": "x",
    "object": object(),
    "scalar": np.float32(3),
    "list": X.tolist(),
    "ragged": [[1.0], [1.0, 2.0]],
}


@pytest.mark.parametrize("junk", NO_ARRAYS)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_array_is_refused(name, junk):
    x, dy = (NO_ARRAYS[junk], DY) if inner(name) == "x" else (X, NO_ARRAYS[junk])
    with pytest.raises(pg.PoolgradError, match=rf"^{inner(name)}\b"):
        CALLS[name](x, dy, None)


@pytest.mark.parametrize("name", [name for name in NAMES if "backward" in name])
def test_dy_must_have_xs_dtype(name):
    with pytest.raises(pg.DtypeError, match=r"float64|float32"):
        CALLS[name](X, DY.astype("float64"), None)


@pytest.mark.parametrize("op", ["max_pool", "avg_pool"])
def test_subclasses_of_arrays_are_arrays(op, tmp_path):
    mapped = np.memmap(tmp_path / "x", "float32", "w+", shape=SHAPE)
    mapped[...] = X
    y = getattr(pg, op)(mapped, KERNEL)
    assert_same_bits(np.asarray(y), getattr(pg, op)(X, KERNEL))
    assert type(y) is np.ndarray


def test_a_dtype_with_metadata_is_still_that_dtype():
    dtype = np.dtype("float32", metadata={"unit": "m"})
    assert_same_bits(pg.max_pool(X.astype(dtype), KERNEL), Y)


# ------------------------------------------------------------------------------------- out


@pytest.mark.parametrize("memory", [m for m in MEMORY if m != "readonly"])
@pytest.mark.parametrize("name", NAMES)
def test_out_is_filled_and_returned(name, memory):
    out = lay_out(np.full(result_shape(name), np.nan, "float32"), memory)
    result = CALLS[name](X, DY, out)
    assert result is out
    assert_same_bits(out, CALLS[name](X, DY, None))


@pytest.mark.parametrize("name", NAMES)
def test_a_view_as_out_leaves_its_neighbours_alone(name):
    shape = result_shape(name)
    room = np.full([n + 2 for n in shape], 7, "float32")
    inside = tuple(slice(1, -1) for _ in shape)
    CALLS[name](X, DY, room[inside])
    assert_same_bits(room[inside].copy(), CALLS[name](X, DY, None))
    room[inside] = 7
    assert (room == 7).all()


@pytest.mark.parametrize("dtype", ["float64", "int32", "float16", ">f4", "object"])
@pytest.mark.parametrize("name", NAMES)
def test_out_of_another_dtype(name, dtype):
    out = np.zeros(result_shape(name), dtype)
    with pytest.raises(pg.DtypeError, match=r"^out\b.*float32"):
        CALLS[name](X, DY, out)
    assert not out.any()


@pytest.mark.parametrize("change", ["longer", "shorter", "transposed", "rank", "scalar", "empty"])
@pytest.mark.parametrize("name", NAMES)
def test_out_of_another_shape(name, change):
    n, h, w, c = result_shape(name)
    shape = {
        "longer": (n, h, w + 1, c),
        "shorter": (n, h - 1, w, c),
        "transposed": (n, c, h, w + 5),
        "rank": (n, h, w * c),
        "scalar": (),
        "empty": (0, h, w, c),
    }[change]
    out = np.zeros(shape, "float32")
    with pytest.raises(pg.ShapeError, match=r"^out\b"):
        CALLS[name](X, DY, out)
    assert not out.any()


@pytest.mark.parametrize("name", NAMES)
def test_read_only_out(name):
    out = np.zeros(result_shape(name), "float32")
    out.flags.writeable = False
    with pytest.raises(pg.PoolgradError, match=r"^out\b"):
        CALLS[name](X, DY, out)
    assert not out.any()


@pytest.mark.parametrize("name", NAMES)
def test_out_in_the_inputs_memory(name):
    room = np.zeros(400, "float32")
    x, dy = X.copy(), DY.copy()
    count = np.prod(result_shape(name))
    if "backward" in name:
        dy = room[: DY.size].reshape(DY.shape)
        dy[...] = DY
    else:
        x = room[: X.size].reshape(X.shape)
        x[...] = X
    before = room.copy()
    out = room[5 : 5 + count].reshape(result_shape(name))
    with pytest.raises(pg.PoolgradError, match=r"^out\b"):
        CALLS[name](x, dy, out)
    assert_same_bits(room, before)


def test_x_itself_as_out_of_its_gradient():
    x = X.copy()
    with pytest.raises(pg.PoolgradError, match=r"^out\b"):
        pg.max_pool_backward(DY, x, KERNEL, out=x)
    assert_same_bits(x, X)


@pytest.mark.parametrize("op", ["max_pool", "avg_pool"])
def test_x_itself_as_out_of_a_window_of_one(op):
    x = X.copy()
    with pytest.raises(pg.PoolgradError, match=r"^out\b"):
        getattr(pg, op)(x, 1, out=x)
    assert_same_bits(x, X)


def test_the_argmaxs_memory_as_out():
    room = np.zeros(X.nbytes, np.uint8)
    argmax = room[: ARGMAX.size].reshape(ARGMAX.shape)
    argmax[...] = ARGMAX
    out = room.view("float32").reshape(SHAPE)
    with pytest.raises(pg.PoolgradError, match=r"^out\b"):
        pg.max_pool_backward(DY, SHAPE, KERNEL, argmax=argmax, out=out)
    assert_same_bits(argmax, ARGMAX)


def test_neighbours_in_one_buffer_do_not_overlap():
    room = np.zeros((2 * X.size,), "float32")
    x, out = room[::2].reshape(SHAPE), room[1::2][: Y.size].reshape(Y.shape)
    x[...] = X
    assert_same_bits(pg.max_pool(x, KERNEL, out=out), Y)


@pytest.mark.parametrize("name", NAMES)
def test_an_out_that_holds_one_place_twice(name):
    out = np.lib.stride_tricks.as_strided(
        np.zeros(1, "float32"), result_shape(name), (0, 0, 0, 0), writeable=True
    )
    with pytest.raises(pg.PoolgradError, match=r"^out\b"):
        CALLS[name](X, DY, out)


@pytest.mark.parametrize("junk", [3, "out", [], object()], ids=lambda junk: type(junk).__name__)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_array_is_no_out(name, junk):
    with pytest.raises(pg.PoolgradError, match=r"^out\b"):
        CALLS[name](X, DY, junk)


@pytest.mark.parametrize("name", NAMES)
def test_a_masked_array_is_no_out(name):
    out = np.ma.zeros(result_shape(name), "float32")
    with pytest.raises(pg.PoolgradError, match=r"^out\b"):
        CALLS[name](X, DY, out)


@pytest.mark.parametrize("container", [tuple, list])
def test_a_pair_as_out(container):
    out = container([np.full(OUT_SHAPE, np.nan, "float32"), np.full(OUT_SHAPE, 9, np.uint8)])
    y, argmax = pg.max_pool(X, KERNEL, return_argmax=True, out=out)
    assert y is out[0]
    assert argmax is out[1]
    assert_same_bits(y, Y)
    assert_same_bits(argmax, ARGMAX)


def float_out():
    return np.zeros(OUT_SHAPE, "float32")


def byte_out():
    return np.zeros(OUT_SHAPE, np.uint8)


BAD_PAIRS = {
    "single_array": (float_out, pg.PoolgradError),
    "one": (lambda: (float_out(),), pg.PoolgradError),
    "three": (lambda: (float_out(), byte_out(), byte_out()), pg.PoolgradError),
    "swapped": (lambda: (byte_out(), float_out()), pg.DtypeError),
    "wide_argmax": (lambda: (float_out(), np.zeros(OUT_SHAPE, np.int32)), pg.DtypeError),
    "signed_argmax": (lambda: (float_out(), np.zeros(OUT_SHAPE, np.int8)), pg.DtypeError),
    "short_argmax": (lambda: (float_out(), byte_out()[:1]), pg.ShapeError),
    "short_y": (lambda: (float_out()[:1], byte_out()), pg.ShapeError),
    "junk": (lambda: "ab", pg.PoolgradError),
}


@pytest.mark.parametrize("name", BAD_PAIRS)
def test_bad_pairs_as_out(name):
    make, error = BAD_PAIRS[name]
    out = make()
    with pytest.raises(error, match=r"^out\b"):
        pg.max_pool(X, KERNEL, return_argmax=True, out=out)
    if isinstance(out, tuple):
        assert not any(part.any() for part in out)


def test_y_and_argmax_may_not_share_memory():
    y = float_out()
    argmax = y.view(np.uint8).ravel()[: y.size].reshape(OUT_SHAPE)
    with pytest.raises(pg.PoolgradError, match=r"^out\b"):
        pg.max_pool(X, KERNEL, return_argmax=True, out=(y, argmax))
    assert not y.any()


def test_a_pair_without_return_argmax():
    with pytest.raises(pg.PoolgradError, match=r"^out\b"):
        pg.max_pool(X, KERNEL, out=(float_out(), byte_out()))


@pytest.mark.parametrize("op", ["max_pool", "avg_pool"])
@pytest.mark.parametrize("shape", [(0, 6, 5, 3), (2, 6, 5, 0)])
def test_empty_arrays_with_out(op, shape):
    x = np.zeros(shape, "float32")
    out = np.zeros((shape[0], 3, 2, shape[-1]), "float32")
    assert getattr(pg, op)(x, KERNEL, out=out) is out
    dx = getattr(pg, f"{op}_backward")(out, x, KERNEL, out=np.zeros_like(x))
    assert dx.shape == shape
