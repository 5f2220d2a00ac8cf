"""`Plan`: one checked pooling, and the way it is run.

Building a plan does all checking, in Python integers, and allocates nothing whose size depends on
the arrays' sizes. Running one compares the arrays with it, allocates the result and a small
workspace for each thread, and calls a kernel, which then has nothing left to check.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, partial
from inspect import Parameter
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numpy import ndarray

from poolgrad import _quick, threads
from poolgrad.arrays import (
    Array,
    as_dtype,
    as_input,
    as_output,
    as_shape,
    check_bytes,
    empty,
    flat,
    usable,
)
from poolgrad.dispatch import kernels
from poolgrad.errors import DtypeError, ParameterError, ShapeError, show
from poolgrad.geometry import Axis, Rows, adaptive_axes_of, axes_of, boolean, integer
from poolgrad.operations import OPERATIONS
from poolgrad.program import Program, Task, in_rows, program

__all__ = ["Plan", "plan"]

LAYOUTS: Final = ("channels_last", "channels_first")

#: Element steps below which a further thread costs more than it saves: they take 10 to 20 us.
STEPS_A_THREAD: Final = 100_000

_SIGNATURES: Final = {
    np.dtype(np.uint8): "unsigned char",
    np.dtype(np.int32): "int",
}

_UINT8: Final = np.dtype(np.uint8)
_INT32: Final = np.dtype(np.int32)


@dataclass(frozen=True)
class Plan:
    """A checked pooling of arrays of one shape and dtype. Make one with `poolgrad.plan`.

    Parameters
    ----------
    op : str
        The operation's name.
    input_shape : tuple of int
        The shape of x.
    dtype : numpy.dtype
        The dtype of x, and so of y, dy and dx.
    layout : str
        ``"channels_last"`` or ``"channels_first"``.
    ceil_mode : bool
        As given; `output_shape` has it counted in.
    count_include_pad : bool
        For an average, whether padding counts in the divisor.
    divisor_override : int or None
        For an average, what replaces every divisor.
    axes : tuple of Axis
        The geometry, one for each spatial axis.
    """

    op: str
    input_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    layout: str
    ceil_mode: bool
    count_include_pad: bool
    divisor_override: int | None
    axes: tuple[Axis, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what is above, and neither what follows from it nor this machine's kernels."""
        return Plan, tuple(getattr(self, field.name) for field in fields(self))

    # ------------------------------------------------------------------ what follows from them

    @property
    def output_size(self) -> tuple[int, ...]:
        """Windows along each spatial axis."""
        return tuple(axis.output for axis in self.axes)

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """Taps of a window along each spatial axis; of the largest one in an adaptive pooling."""
        return tuple(axis.kernel for axis in self.axes)

    @property
    def stride(self) -> tuple[int, ...] | None:
        """Cells from window to window along each spatial axis; None in an adaptive pooling."""
        if self._adaptive:
            return None
        return tuple(axis.stride for axis in self.axes)

    @property
    def dilation(self) -> tuple[int, ...]:
        """Cells from tap to tap along each spatial axis."""
        return tuple(axis.dilation for axis in self.axes)

    @property
    def padding(self) -> tuple[tuple[int, int], ...]:
        """The (before, after) padding really used along each spatial axis."""
        return tuple((axis.before, axis.after) for axis in self.axes)

    @cached_property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of y."""
        if self._channels_first:
            return self.input_shape[:2] + self.output_size
        return self.input_shape[:1] + self.output_size + self.input_shape[-1:]

    @cached_property
    def argmax_dtype(self) -> np.dtype[Any] | None:
        """The dtype of the argmax: uint8 for up to 255 taps, else int32; None if there is none."""
        taps = prod(self.kernel_size)
        if not OPERATIONS[self.op].has_argmax or taps > 2**31 - 1:
            return None
        return _UINT8 if taps <= 255 else _INT32

    @property
    def input_bytes(self) -> int:
        """The bytes of x, and of dx."""
        return prod(self.input_shape) * self.dtype.itemsize

    @property
    def output_bytes(self) -> int:
        """The bytes of y, and of dy."""
        return prod(self.output_shape) * self.dtype.itemsize

    @property
    def argmax_bytes(self) -> int:
        """The bytes of the argmax; 0 if there is none."""
        return prod(self.output_shape) * self._argmax_itemsize

    @property
    def workspace_bytes(self) -> int:
        """The bytes that one thread needs beside x and the results, forward or backward."""

        def bytes_for(task: Task) -> int:
            return self._program(task).workspace_bytes

        if OPERATIONS[self.op].has_argmax:
            searching = bytes_for("windows") + bytes_for("search")
            return max(bytes_for("forward"), bytes_for("argmax"), searching)
        return max(bytes_for("forward"), bytes_for("adjoint"))

    @cached_property
    def cost(self) -> int:
        """The work of one forward in element steps: taps visited, all axes and elements.

        A backward takes about as much again. It is an upper bound for budgets, not a time.
        """
        planes, channels = self._planes_and_channels
        depth, height, width = self._axes3
        rows = depth.size * height.size * width.output * min(width.kernel, width.size)
        columns = depth.size * height.output * width.output * min(height.kernel, height.size)
        stacks = depth.output * height.output * width.output * min(depth.kernel, depth.size)
        return planes * channels * (rows + columns + stacks)

    @property
    def _adaptive(self) -> bool:
        return "output_size" in OPERATIONS[self.op].parameters

    @property
    def _channels_first(self) -> bool:
        return self.layout == "channels_first"

    @property
    def _argmax_itemsize(self) -> int:
        return self.argmax_dtype.itemsize if self.argmax_dtype else 0

    @property
    def _planes_and_channels(self) -> tuple[int, int]:
        if self._channels_first:
            return self.input_shape[0] * self.input_shape[1], 1
        return self.input_shape[0], self.input_shape[-1]

    @cached_property
    def _axes3(self) -> tuple[Axis, Axis, Axis]:
        """Depth, height and width; an axis that x lacks has one cell."""
        missing = (Axis(1, 1),) * (3 - len(self.axes))
        depth, height, width = missing + self.axes
        return depth, height, width

    # --------------------------------------------------------------------------------- in words

    def explain(self) -> str:
        """Return the plan in words: one line for each fact, and one for each spatial axis.

        Examples
        --------
        >>> import poolgrad as pg
        >>> plan = pg.plan("max_pool", (1, 7, 1), kernel_size=3, stride=2, padding=1)
        >>> print(plan.explain())  # doctest: +ELLIPSIS
        max_pool of float32 (1, 7, 1), channels_last -> (1, 4, 1)
          axis 0: 4 windows of 3 taps, 2 apart, on 7 cells; padding (1, 1)
          argmax: uint8, a position among 3 taps, 255 for none
          bytes: 28 in, 16 out, 4 argmax, ... workspace a thread
        """
        lines = [
            f"{self.op} of {self.dtype} {self.input_shape}, {self.layout} -> {self.output_shape}"
        ]
        lines += [f"  axis {number}: {axis.explain()}" for number, axis in enumerate(self.axes)]
        if self.argmax_dtype is not None:
            none = 255 if self.argmax_dtype == _UINT8 else -1
            lines.append(
                f"  argmax: {self.argmax_dtype}, a position among {prod(self.kernel_size)} taps, "
                f"{none} for none"
            )
        if not OPERATIONS[self.op].has_argmax:
            if self._adaptive:
                rule = "a window's taps"
            elif self.divisor_override is not None:
                rule = f"{self.divisor_override}, for every window"
            elif self.count_include_pad:
                rule = "a window's taps in the input and the padding"
            else:
                rule = "a window's taps in the input"
            lines.append(f"  divisor: {rule}")
        argmax = f", {self.argmax_bytes} argmax" if self.argmax_dtype is not None else ""
        lines.append(
            f"  bytes: {self.input_bytes} in, {self.output_bytes} out{argmax}, "
            f"{self.workspace_bytes} workspace a thread"
        )
        return "\n".join(lines)

    # ------------------------------------------------------------------------------ running it

    def forward(
        self,
        x: Array,
        *,
        return_argmax: bool = False,
        out: Any = None,
        num_threads: int | None = None,
    ) -> Any:
        """Pool `x`.

        Parameters
        ----------
        x : ndarray
            Of the plan's `input_shape` and `dtype`, in any memory order.
        return_argmax : bool, default False
            For a maximum, return its argmax too.
        out : ndarray or (ndarray, ndarray), optional
            Where to write the result, or the pair of results with `return_argmax`.
        num_threads : int, optional
            See `poolgrad.set_num_threads`.

        Returns
        -------
        ndarray or (ndarray, ndarray)
            y, of `output_shape`; with `return_argmax` also the argmax, of `argmax_dtype`.

        Raises
        ------
        ShapeError, DtypeError, ParameterError
            If an argument does not fit the plan.

        Examples
        --------
        >>> import numpy as np, poolgrad as pg
        >>> plan = pg.plan("avg_pool", (1, 4, 1), kernel_size=2)
        >>> plan.forward(np.arange(4, dtype=np.float32).reshape(1, 4, 1)).ravel()
        array([0.5, 2.5], dtype=float32)
        """
        made = _quick.forward(self, x, return_argmax, out, num_threads)
        if made is not None:
            return made
        x = self._as_given("x", x, self.input_shape)
        used = threads.resolve(num_threads)
        if return_argmax is not False and boolean("return_argmax", return_argmax):
            argmax_dtype = self._need_argmax("return_argmax")
            y, argmax = self._result_pair(out, argmax_dtype, x)
            self._reduce(x, y, argmax, used)
            return y, argmax
        y = self._result("out", out, self.output_shape, self.dtype, x)
        self._reduce(x, y, None, used)
        return y

    def backward(
        self,
        dy: Array,
        x: Array | None = None,
        *,
        argmax: Array | None = None,
        out: Array | None = None,
        num_threads: int | None = None,
    ) -> Array:
        """Return the gradient with respect to x, given the one with respect to y.

        Parameters
        ----------
        dy : ndarray
            Of the plan's `output_shape` and `dtype`, in any memory order.
        x : ndarray, optional
            The input of the forward. A maximum needs it unless `argmax` is given, to find that
            again; an average does not look at it.
        argmax : ndarray, optional
            What `forward` returned with `return_argmax`. Each value must be none, or a tap of its
            window that lies inside the input; this is checked before anything is written.
        out : ndarray, optional
            Where to write the result.
        num_threads : int, optional
            See `poolgrad.set_num_threads`.

        Returns
        -------
        ndarray
            dx, of `input_shape`.

        Raises
        ------
        ShapeError, DtypeError, ParameterError
            If an argument does not fit the plan.

        Examples
        --------
        >>> import numpy as np, poolgrad as pg
        >>> plan = pg.plan("avg_pool", (1, 4, 1), kernel_size=2)
        >>> plan.backward(np.ones((1, 2, 1), np.float32)).ravel()
        array([0.5, 0.5, 0.5, 0.5], dtype=float32)
        """
        made = _quick.backward(self, dy, x, argmax, out, num_threads)
        if made is not None:
            return made
        dy = self._as_given("dy", dy, self.output_shape)
        inputs = [dy]
        if x is not None:
            x = self._as_given("x", x, self.input_shape)
            inputs.append(x)
        used = threads.resolve(num_threads)
        if OPERATIONS[self.op].has_argmax:
            self._need_argmax("the gradient")
            if argmax is not None:
                argmax = self.check_argmax(argmax, used)
                inputs.append(argmax)
            elif x is None:
                raise ParameterError(
                    "x: the gradient of a maximum needs x itself, or the argmax of its forward"
                )
        elif argmax is not None:
            raise ParameterError(f"argmax: {self.op} has none")
        dx = self._result("out", out, self.input_shape, self.dtype, *inputs)
        if OPERATIONS[self.op].has_argmax:
            self._max_backward(dy, x, argmax, dx, used)
        else:
            self._adjoint(dy, dx, used)
        return dx

    # -------------------------------------------------------------------------- its arguments

    def _as_given(self, name: str, array: object, shape: tuple[int, ...]) -> Array:
        if type(array) is np.ndarray and array.dtype is self.dtype and array.shape == shape:
            return array
        given = as_input(name, array)
        if given.dtype != self.dtype:
            raise DtypeError(f"{name}: dtype {given.dtype}; the plan is for {self.dtype}")
        if given.shape != shape:
            raise ShapeError(f"{name}: shape {show(given.shape)}; {show(shape)} is needed")
        return given

    def _need_argmax(self, what: str) -> np.dtype[Any]:
        if self.argmax_dtype is None:
            if not OPERATIONS[self.op].has_argmax:
                raise ParameterError(f"{what}: {self.op} has no argmax")
            name, given = "kernel_size", self.kernel_size
            if self._adaptive:
                name, given = "output_size", self.output_size
            raise ParameterError(
                f"{name}: {show(given)} makes windows of {show(prod(self.kernel_size))} taps; "
                f"{what} needs an argmax, which can tell at most 2**31 - 1 apart"
            )
        return self.argmax_dtype

    def check_argmax(self, argmax: object, num_threads: int = 1) -> Array:
        """Return a saved argmax if every value of it may stem from this pooling, or raise."""
        dtype = self._need_argmax("argmax")
        if type(argmax) is not ndarray and (
            isinstance(argmax, np.ma.MaskedArray) or not isinstance(argmax, ndarray)
        ):
            raise DtypeError(
                f"argmax: {show(argmax)} is of type {type(argmax).__name__}; "
                "a numpy.ndarray is needed"
            )
        if argmax.dtype != dtype:
            raise DtypeError(
                f"argmax: dtype {show(str(argmax.dtype))}; {dtype} is needed for "
                f"{prod(self.kernel_size)} taps"
            )
        if argmax.shape != self.output_shape:
            raise ShapeError(
                f"argmax: shape {show(argmax.shape)}; {show(self.output_shape)} is needed"
            )
        if not argmax.size:
            return argmax  # its cells are counted by billions where it has no channels
        bad = self._first_bad(flat(argmax), self._helpers(num_threads))
        if bad >= 0:
            where = tuple(int(i) for i in np.unravel_index(bad, self.output_shape))
            raise ParameterError(
                f"argmax: {int(argmax[where])} at index {where} is neither none nor, in a box of "
                f"{show(self.kernel_size)} taps, one of its window's inside the input; "
                "it does not stem from this pooling"
            )
        return argmax

    def _result(
        self,
        name: str,
        out: object,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        *inputs: Array,
    ) -> Array:
        if out is None:
            return empty(shape, dtype)
        return as_output(name, out, shape, dtype, *inputs)

    def _result_pair(
        self, out: object, argmax_dtype: np.dtype[Any], x: Array
    ) -> tuple[Array, Array]:
        if out is None:
            pair: Sequence[object] = (None, None)
        elif isinstance(out, (tuple, list)) and len(out) == 2:
            pair = out
        else:
            raise ParameterError(
                f"out: {show(type(out).__name__)}; with return_argmax a pair (y, argmax) is needed"
            )
        y = self._result("out", pair[0], self.output_shape, self.dtype, x)
        others = [x] if pair[0] is None else [x, y]
        argmax = self._result("out", pair[1], self.output_shape, argmax_dtype, *others)
        return y, argmax

    # ------------------------------------------------------------------------------- kernels

    def _divisors(self, axes: tuple[Axis, Axis, Axis]) -> tuple[Rows, Rows, Rows]:
        """Return tables whose counts, multiplied over the axes, are the divisors."""
        depth, height, width = axes
        if self.divisor_override is not None:
            counts = (self.divisor_override, 1, 1)
            return tuple(  # type: ignore[return-value]
                [(0, count, 0, 1, count, 1, axis.output, 1)]
                for count, axis in zip(counts, axes, strict=True)
            )
        if self.count_include_pad:
            return depth.frame(), height.frame(), width.frame()
        return depth.taps(), height.taps(), width.taps()

    def _program(self, task: Task) -> Program:
        """Return how a task is done; made once."""
        if task not in self._programs:
            self._programs[task] = self._make_program(task)
        return self._programs[task]

    def _make_program(self, task: Task) -> Program:
        if task == "windows":
            usual = self._program("argmax")
            if (usual.axes, usual.singly) == (self._axes3, None) and (
                usual.together == self._program("search").together
            ):
                return usual  # which knows each plane by itself, too
        axes, (planes, channels) = self._axes3, self._planes_and_channels
        if task in ("forward", "argmax") and channels == 1:
            axes, planes = in_rows(axes, planes)
        return program(
            axes,
            planes,
            channels,
            self.dtype.itemsize,
            task,
            None if OPERATIONS[self.op].has_argmax else self._divisors(axes),
        )

    def _used(self, task: Task) -> Program:
        """Return how a task is done, which the next usual call will know."""
        found = self._program(task)
        if self._usual is not None:
            self._usual.remember(task, found)
        return found

    @cached_property
    def _programs(self) -> dict[Task, Program]:
        return {}

    def _run(self, kernel: Callable[..., bool], task: Task, num_threads: int, *args: Any) -> None:
        """Call a kernel on as many threads as the work is worth."""
        made = self._used(task)
        helpers = self._helpers(num_threads)
        if not kernel(made.finer(1 + helpers) if helpers else made.code, *args, helpers):
            raise MemoryError

    def _helpers(self, num_threads: int) -> int:
        """Return how many threads help, as far as the work is worth it, and they can be had."""
        used = min(num_threads, self.cost // STEPS_A_THREAD) if num_threads > 1 else 1
        return threads.gather(used - 1) if used > 1 else 0

    def _written(self, array: Array) -> Array:
        """Return an array that a kernel can write: `array` itself, or a temporary beside it."""
        return array if usable(array) else empty(array.shape, array.dtype)

    @cached_property
    def _usual(self) -> _quick.Usual | None:
        """What `_quick` needs; None where an array is empty."""
        if not self.input_bytes or not self.output_bytes:
            return None
        alone = self.cost < 2 * STEPS_A_THREAD
        has_argmax = OPERATIONS[self.op].has_argmax
        return _quick.Usual(self, has_argmax, alone, kernels[self.dtype].quick)

    @cached_property
    def _first_bad(self) -> Callable[[Array, int], int]:
        """Return where in an argmax the first value is that does not stem from here, or -1."""
        dtype = self._need_argmax("argmax")
        kernel = kernels[self.dtype].first_bad[_SIGNATURES[dtype]]
        return partial(kernel, self._program("windows").code, *self._planes_and_channels)

    def _reduce(self, x: Array, y: Array, argmax: Array | None, num_threads: int) -> None:
        """Reduce the windows of x."""
        if not y.size:
            return
        module = kernels[self.dtype]
        to = self._written(y)
        if argmax is None:
            kernel = module.largest if OPERATIONS[self.op].has_argmax else module.total
            self._run(kernel, "forward", num_threads, flat(x), flat(to))
        else:
            which = self._written(argmax)
            kernel = module.largest_and_where[_SIGNATURES[argmax.dtype]]
            self._run(kernel, "argmax", num_threads, flat(x), flat(to), flat(which))
            if which is not argmax:
                argmax[...] = which
        if to is not y:
            y[...] = to

    def _adjoint(self, dy: Array, dx: Array, num_threads: int) -> None:
        if not dx.size:
            return
        to = self._written(dx)
        self._run(kernels[self.dtype].total, "adjoint", num_threads, flat(dy), flat(to))
        if to is not dx:
            dx[...] = to

    def _max_backward(
        self, dy: Array, x: Array | None, argmax: Array | None, dx: Array, num_threads: int
    ) -> None:
        if not dx.size:
            return
        dtype = self._need_argmax("backward")
        to = self._written(dx)
        self._run(
            kernels[self.dtype].max_backward[_SIGNATURES[dtype]],
            "search" if argmax is None else "route",
            num_threads,
            self._used("windows").code,
            flat(dy),
            None if x is None or argmax is not None else flat(x),
            None if argmax is None else flat(argmax),
            flat(to),
        )
        if to is not dx:
            dx[...] = to

    def zeros_take_part(self, y: Array, argmax: Array) -> None:
        """Turn a forward's results, in place, into those of an input padded with real zeros.

        `Pool2D` needs it; the arrays must be C-contiguous results of `forward`.
        """
        if y.size:
            kernel = kernels[self.dtype].let_zeros_take_part[_SIGNATURES[argmax.dtype]]
            code = self._program("windows").code
            kernel(code, *self._planes_and_channels, flat(y), flat(argmax))


def _checked(
    op: str, shape: tuple[int, ...], dtype: np.dtype[Any], given: tuple[object, ...]
) -> Plan:
    """Build a plan."""
    values: dict[str, Any] = dict(zip(OPERATIONS[op].parameters, given, strict=True))
    layout = values["layout"]
    if not isinstance(layout, str) or layout not in LAYOUTS:
        allowed = " or ".join(map(repr, LAYOUTS))
        raise ParameterError(f"layout: {show(layout)} is not {allowed}")
    sizes = shape[2:] if layout == "channels_first" else shape[1:-1]
    axes: tuple[Axis, ...]
    if "output_size" in values:
        axes = adaptive_axes_of(sizes, values["output_size"])
    else:
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        axes = axes_of(sizes, *(values[name] for name in names))
    override = values.get("divisor_override")
    if override is not None:
        override = integer("divisor_override", override, least=1)
    made = Plan(
        op=op,
        input_shape=shape,
        dtype=dtype,
        layout=layout,
        ceil_mode=boolean("ceil_mode", values.get("ceil_mode", False)),
        count_include_pad=boolean("count_include_pad", values.get("count_include_pad", True)),
        divisor_override=override,
        axes=axes,
    )
    check_bytes("x", made.input_shape, 8)
    check_bytes("y", made.output_shape, 8)
    return made


def plan(
    op: str, shape: Sequence[int], dtype: npt.DTypeLike = "float32", **hyperparameters: Any
) -> Plan:
    """Check a pooling, and return it as a `Plan` that tells all about it and can be run.

    Parameters
    ----------
    op : str
        The operation: ``"max_pool"``, ``"avg_pool"``, ``"adaptive_max_pool"`` or
        ``"adaptive_avg_pool"``.
    shape : tuple of int
        The shape of x.
    dtype : dtype, default float32
        The dtype of x: float32 or float64.
    **hyperparameters
        The operation's keywords: ``kernel_size, stride, padding, dilation, ceil_mode, layout``,
        and for ``"avg_pool"`` also ``count_include_pad, divisor_override``; ``output_size, layout``
        for the adaptive ones. See the functions of these names.

    Returns
    -------
    Plan
        Nothing is allocated for it that grows with the arrays.

    Raises
    ------
    ParameterError
        If there is no such operation or keyword, or a value is out of its range.
    ShapeError
        If the shape has no 3 to 5 axes, or a window does not fit.
    DtypeError
        If the dtype is not supported.

    Examples
    --------
    >>> import poolgrad as pg
    >>> plan = pg.plan("max_pool", (10**6, 1000, 1000, 1), kernel_size=3, stride=2, padding="same")
    >>> plan.output_shape, plan.padding
    ((1000000, 500, 500, 1), ((0, 1), (0, 1)))
    >>> plan = pg.plan("adaptive_avg_pool", (1, 48, 56, 1), output_size=7)
    >>> print(plan.explain())  # doctest: +ELLIPSIS
    adaptive_avg_pool of float32 (1, 48, 56, 1), channels_last -> (1, 7, 7, 1)
      axis 0: 7 windows of 7 to 8 taps, on 48 cells
      axis 1: 7 windows of 8 taps, on 56 cells
    ...
    """
    return plan_for("shape", op, shape, as_dtype("dtype", dtype), hyperparameters)


def plan_for(
    name: str, op: str, shape: object, dtype: np.dtype[Any], hyperparameters: dict[str, Any]
) -> Plan:
    """Return the plan of `plan`, for a shape that the caller knows by `name`."""
    if not isinstance(op, str) or op not in OPERATIONS:
        allowed = ", ".join(map(repr, OPERATIONS))
        raise ParameterError(f"op: {show(op)} is not one of {allowed}")
    defaults = OPERATIONS[op].parameters
    for keyword in hyperparameters:
        if keyword not in defaults:
            allowed = ", ".join(defaults)
            raise ParameterError(
                f"{show(keyword)[1:-1]}: {op} has no such hyperparameter; it has {allowed}"
            )
    values = {**defaults, **hyperparameters}
    for keyword, value in values.items():
        if value is Parameter.empty:
            raise ParameterError(f"{keyword}: it is missing; {op} needs it")
    return plan_of(name, op, shape, dtype, tuple(values.values()))


def plan_of(
    name: str, op: str, shape: object, dtype: np.dtype[Any], values: tuple[object, ...]
) -> Plan:
    """Return the plan of an operation, given all its hyperparameters in their order."""
    made = _quick.recall(op, shape, dtype, values)
    if made is None:
        # An array's dtype may carry metadata, which is its own.
        made = _checked(op, as_shape(name, shape), as_dtype("dtype", dtype), values)
        _quick.keep(op, shape, dtype, values, made)
    return made
