"""Hypothesis strategies for whole poolings, and the `Case` or `AdaptiveCase` that they draw.

A case holds no arrays, only how to make them, so its repr is short and pastes as a reproducer::

    from strategies import Case
    case = Case(op='max_pool', shape=(1, 4, 1), kernel_size=2)
    case.x, case.dy, case.kernel_size, case.options
"""

import math
from dataclasses import dataclass, fields, replace

import numpy as np
from hypothesis import strategies as st

import reference

OPS = ("max_pool", "avg_pool")
ADAPTIVE_OPS = ("adaptive_max_pool", "adaptive_avg_pool")
DTYPES = ("float32", "float64")
LAYOUTS = ("channels_last", "channels_first")
# "large" reaches the largest finite numbers, whose sums overflow on the way: for maxima only.
VALUES = ("normal", "ties", "zeros", "special", "infinities", "subnormal", "distinct", "large")
SUMMABLE = tuple(v for v in VALUES if v != "large")
MEMORY = ("c", "fortran", "strided", "reversed", "readonly", "unaligned")

# Comparisons that the oracle may make for one case: its loops run about a million a second.
BUDGET = 6_000


def fill(values, shape, dtype, seed):
    """Make an array of one kind of values, the same for the same arguments."""
    rng = np.random.default_rng(seed)
    info = np.finfo(dtype)
    palettes = {
        "zeros": [0.0, -0.0],
        "infinities": [-np.inf, -np.inf, np.inf, 1.0],
        "special": [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, float(info.tiny)],
        "large": [float(info.max), float(info.min), 1.0],
    }
    if values == "normal":
        x = rng.standard_normal(shape)
    elif values == "ties":
        x = rng.integers(-1, 2, shape).astype(dtype)
    elif values == "distinct":
        # No two alike, and at least 1 apart: away from every tie.
        x = rng.permutation(math.prod(shape)).reshape(shape) - math.prod(shape) // 2
    elif values == "subnormal":
        x = rng.integers(-3, 4, shape).astype(dtype) * info.smallest_subnormal
    else:
        x = rng.choice(np.array(palettes[values], dtype), shape)
    return x.astype(dtype)


def lay_out(array, memory):
    """Copy an array into one kind of memory; values, shape and dtype stay."""
    if memory == "fortran":
        return np.asfortranarray(array)
    if memory == "strided":
        # What lies between must not be read: a NaN, or a tap that no window has.
        poison = np.nan if array.dtype.kind == "f" else 254
        wide = np.full([2 * n for n in array.shape], poison, array.dtype)
        view = wide[tuple(slice(None, None, 2) for _ in array.shape)]
        view[...] = array
        return view
    if memory == "reversed":
        flip = tuple(slice(None, None, -1) for _ in array.shape)
        return np.ascontiguousarray(array[flip])[flip]
    if memory == "unaligned":
        room = np.zeros(array.nbytes + 1, np.uint8)
        view = room[1:].view(array.dtype).reshape(array.shape)
        view[...] = array
        return view
    array = np.array(array, order="C")
    array.flags.writeable = memory != "readonly"
    return array


class Drawn:
    """What every case can do; a subclass has the fields, and its operation's `options`."""

    def __repr__(self):
        changed = [
            f"{field.name}={getattr(self, field.name)!r}"
            for field in fields(self)
            if getattr(self, field.name) is not field.default
        ]
        return f"{type(self).__name__}({', '.join(changed)})"

    def with_(self, **changes):
        return replace(self, **changes)

    @property
    def output_shape(self):
        return reference.output_shape(self.shape, self.geometry, self.layout)

    @property
    def x(self):
        return lay_out(fill(self.values, self.shape, self.dtype, self.seed), self.memory)

    @property
    def dy(self):
        return lay_out(self.plain_dy(), self.memory)

    def plain_dy(self):
        # Backward's own arithmetic is addition, so its values must stay summable.
        values = self.values if self.values in ("special", "subnormal", "ties") else "normal"
        return fill(values, self.output_shape, self.dtype, self.seed + 1)


@dataclass(frozen=True, repr=False)
class Case(Drawn):
    """One pooling with its input and its gradient."""

    op: str
    shape: tuple
    kernel_size: object
    stride: object = None
    padding: object = 0
    dilation: object = 1
    ceil_mode: bool = False
    layout: str = "channels_last"
    count_include_pad: bool = True
    divisor_override: int | None = None
    dtype: str = "float32"
    values: str = "normal"
    seed: int = 0
    memory: str = "c"

    @property
    def geometry_options(self):
        """The keywords that every operation has."""
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "ceil_mode": self.ceil_mode,
            "layout": self.layout,
        }

    @property
    def options(self):
        """The keywords of this case's operation."""
        if self.op == "max_pool":
            return self.geometry_options
        return {
            **self.geometry_options,
            "count_include_pad": self.count_include_pad,
            "divisor_override": self.divisor_override,
        }

    @property
    def geometry(self):
        return reference.geometry(self.shape, self.kernel_size, **self.geometry_options)


@dataclass(frozen=True, repr=False)
class AdaptiveCase(Drawn):
    """One adaptive pooling with its input and its gradient."""

    op: str
    shape: tuple
    output_size: object
    layout: str = "channels_last"
    dtype: str = "float32"
    values: str = "normal"
    seed: int = 0
    memory: str = "c"

    @property
    def options(self):
        return {"output_size": self.output_size, "layout": self.layout}

    @property
    def geometry(self):
        return reference.geometry(self.shape, **self.options)


def _spell(draw, values, *, allow_int=True):
    """Write per-axis ints as one int where they agree, or as a tuple, list or NumPy integers."""
    spellings = ["tuple", "list", "numpy"]
    if allow_int and len(set(values)) == 1:
        spellings.append("int")
    spelling = draw(st.sampled_from(spellings))
    if spelling == "int":
        return values[0]
    if spelling == "list":
        return list(values)
    if spelling == "numpy":
        return tuple(np.int64(v) for v in values)
    return tuple(values)


@st.composite
def kernels(draw, axes):
    """Draw a kernel: mostly small, at times wide on one axis or about 255 taps in all."""
    kind = draw(st.sampled_from(["small", "small", "small", "wide", "many_taps"]))
    if kind == "many_taps":
        shapes = {
            1: [(254,), (255,), (256,), (300,)],
            2: [(15, 17), (16, 16), (1, 256), (255, 1)],
            3: [(3, 5, 17), (4, 8, 8), (1, 1, 256), (7, 6, 7)],
        }
        return draw(st.sampled_from(shapes[axes]))
    kernel = [draw(st.integers(1, 4)) for _ in range(axes)]
    if kind == "wide":
        kernel[draw(st.integers(0, axes - 1))] = draw(st.integers(5, 20))
    return tuple(kernel)


@st.composite
def paddings(draw, axes, kernel):
    """Draw a padding in every form, beyond the kernel too."""
    if draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from(reference.NAMED_PADDINGS))
    pairs = []
    for k in kernel:
        limit = draw(st.sampled_from([0, min(k // 2, 4), min(k + 2, 8)]))
        pairs.append(tuple(draw(st.integers(0, limit)) for _ in range(2)))
    if draw(st.booleans()):
        return draw(st.sampled_from([tuple(pairs), [list(pair) for pair in pairs]]))
    befores = [before for before, _ in pairs]
    if len(set(befores)) > 1 or draw(st.booleans()):
        return tuple(befores)
    return befores[0]


@st.composite
def cases(draw, ops=OPS, layouts=LAYOUTS, dtypes=DTYPES, values=None, empty=True):
    """Draw a valid `Case` whose oracle takes milliseconds."""
    op = draw(st.sampled_from(ops))
    axes = draw(st.integers(1, 3))
    layout = draw(st.sampled_from(layouts))
    kernel = draw(kernels(axes))
    small = math.prod(kernel) <= 64
    stride = tuple(draw(st.integers(1, 5)) for _ in range(axes))
    dilation = tuple(draw(st.integers(1, 4)) if small else 1 for _ in range(axes))
    padding = draw(paddings(axes, kernel))
    ceil_mode = not isinstance(padding, str) and draw(st.booleans())
    sizes = [draw(st.integers(1, 9)) for _ in range(axes)]

    options = {"stride": stride, "padding": padding, "dilation": dilation}
    options |= {"ceil_mode": ceil_mode, "layout": "channels_last"}
    for axis in range(axes):
        # An input too small for its window becomes just large enough: nothing is filtered out.
        resolved = reference.geometry((1, *sizes, 1), kernel, **options).axes[axis]
        if resolved.out < 1:
            effective = resolved.dilation * (resolved.kernel - 1) + 1
            room = resolved.before + resolved.after
            sizes[axis] = max(effective - room, 1) + draw(st.integers(0, 2))

    def cost():
        return reference.geometry((1, *sizes, 1), kernel, **options)

    while math.prod(cost().out) * math.prod(kernel) > BUDGET:
        # Shrink the axis with the most outputs by lengthening its stride.
        widest = max(range(axes), key=lambda a: cost().out[a])
        if cost().out[widest] == 1 or padding == "same_size":
            sizes = [min(size, 2) if padding == "same_size" else size for size in sizes]
            break
        stride = tuple(s * 2 if a == widest else s for a, s in enumerate(stride))
        options["stride"] = stride

    per_plane = math.prod(cost().out) * math.prod(kernel)
    planes = max(BUDGET // per_plane, 1)
    channels = min(draw(st.sampled_from([1, 2, 3, 4, 5, 8, 16, 17, 33])), planes)
    batch = min(draw(st.integers(1, 3)), max(planes // channels, 1))
    if empty and draw(st.integers(0, 15)) == 0:
        batch, channels = draw(st.sampled_from([(0, channels), (batch, 0), (0, 0)]))
    shape = (batch, *sizes, channels) if layout == "channels_last" else (batch, channels, *sizes)

    default_stride = stride == kernel and draw(st.booleans())
    kinds = values or (SUMMABLE if op == "avg_pool" else VALUES)
    divisor_override = None
    if op == "avg_pool" and draw(st.integers(0, 3)) == 0:
        divisor_override = draw(st.integers(1, 12))
    return Case(
        op=op,
        shape=shape,
        kernel_size=_spell(draw, kernel),
        stride=None if default_stride else _spell(draw, stride),
        padding=padding,
        dilation=_spell(draw, dilation),
        ceil_mode=ceil_mode,
        layout=layout,
        count_include_pad=op == "max_pool" or draw(st.booleans()),
        divisor_override=divisor_override,
        dtype=draw(st.sampled_from(dtypes)),
        values=draw(st.sampled_from(kinds)),
        seed=draw(st.integers(0, 9999)),
        memory=draw(st.sampled_from(MEMORY)),
    )


def max_cases(**options):
    return cases(ops=("max_pool",), **options)


def avg_cases(**options):
    return cases(ops=("avg_pool",), **options)


@st.composite
def adaptive_cases(draw, ops=ADAPTIVE_OPS, values=None, empty=True):
    """Draw a valid `AdaptiveCase` whose oracle takes milliseconds."""
    op = draw(st.sampled_from(ops))
    axes = draw(st.integers(1, 3))
    layout = draw(st.sampled_from(LAYOUTS))
    sizes = [draw(st.integers(1, (40, 11, 5)[axes - 1])) for _ in range(axes)]
    if axes < 3 and draw(st.integers(0, 5)) == 0:
        many = {1: [(255,), (256,), (300,)], 2: [(15, 17), (16, 16), (2, 128)]}
        sizes, outs = list(draw(st.sampled_from(many[axes]))), [1] * axes
    else:
        outs = [draw(_outputs(size)) for size in sizes]
    geo = reference.geometry((1, *sizes, 1), output_size=outs)
    planes = max(BUDGET // (math.prod(geo.out) * geo.taps), 1)
    channels = min(draw(st.sampled_from([1, 2, 3, 5, 8, 17])), planes)
    batch = min(draw(st.integers(1, 3)), max(planes // channels, 1))
    if empty and draw(st.integers(0, 15)) == 0:
        batch, channels = draw(st.sampled_from([(0, channels), (batch, 0), (0, 0)]))
    kinds = values or (SUMMABLE if op == "adaptive_avg_pool" else VALUES)
    return AdaptiveCase(
        op=op,
        shape=(batch, *sizes, channels) if layout == "channels_last" else (batch, channels, *sizes),
        output_size=tuple(outs) if None in outs else _spell(draw, outs),
        layout=layout,
        dtype=draw(st.sampled_from(DTYPES)),
        values=draw(st.sampled_from(kinds)),
        seed=draw(st.integers(0, 9999)),
        memory=draw(st.sampled_from(MEMORY)),
    )


def _outputs(size):
    """Numbers of windows: few, many, more than cells, as many, or a divisor of that."""
    divisors = [n for n in range(1, size + 1) if size % n == 0]
    return st.one_of(
        st.integers(1, size),
        st.integers(1, size),
        st.integers(size + 1, 2 * size + 2),
        st.sampled_from(divisors),
        st.sampled_from([None, size]),
    )
