"""Calls on small arrays, which take less time than Python takes to look at the arguments.

Plans are kept here, and found again; and the arrays of a call that is as it nearly always is go to
the kernel right away. Whatever is unusual about a call is left to `Plan`, which does all of it.
"""

import numpy as np

from poolgrad import arrays, threads

cimport cython
from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_FORMAT
from cython cimport view

cdef enum:
    MOST = 256  # plans; what strangers ask a server for must not pile up

cdef int MOST_THREADS = threads.MOST
cdef int USABLE = arrays.USABLE
cdef int WRITEABLE = USABLE | 0x0400  # NPY_ARRAY_WRITEABLE

cdef object ndarray = np.ndarray
cdef object empty = np.empty
cdef object may_share_memory = np.may_share_memory

cdef dict kept = {}


cdef bint plain(object value, int depth=2):
    """Whether a value is an int, None, a str, or a tuple of ints, of None and of such tuples.

    Of exactly these types: 1, True and 1.0 are equal, but not equally welcome, and an `__eq__` of
    foreign code is not to be asked.
    """
    cdef type kind = type(value)
    if kind is int or value is None:
        return True
    if kind is tuple and depth:  # deeper ones are refused later, and may be endlessly deep
        for item in <tuple>value:
            if not plain(item, depth - 1):
                return False
        return True
    return kind is str


cdef object key_of(str op, object shape, object dtype, tuple values):
    """Return what a plan is kept by, or None if it is not kept."""
    cdef unsigned int switches = 1
    if not plain(shape):
        return None
    for value in values:
        switches *= 2
        if type(value) is bool:
            switches += 1
        elif not plain(value):
            return None
    return op, shape, dtype, values, switches


cpdef object recall(str op, object shape, object dtype, tuple values):
    """Return the plan that was kept of an operation with these hyperparameters, or None."""
    key = key_of(op, shape, dtype, values)
    return None if key is None else kept.get(key)


def keep(str op not None, object shape, object dtype, tuple values not None, object plan):
    """Keep a plan, in the place of the oldest one where there is no room."""
    key = key_of(op, shape, dtype, values)
    if key is None:
        return
    with cython.critical_section(kept):
        if len(kept) >= MOST:
            del kept[next(iter(kept))]
        kept[key] = plan


cdef class Small:
    """What calls on the small arrays of a plan need: its kernels and programs, once they have run.

    Beside them what an array must be like, since attributes of a Python object take long to find.
    """
    cdef object dtype
    cdef object argmax_dtype
    cdef tuple input_shape
    cdef tuple output_shape
    cdef dict kernels

    def __init__(self, plan):
        self.dtype = plan.dtype
        self.argmax_dtype = plan.argmax_dtype
        self.input_shape = plan.input_shape
        self.output_shape = plan.output_shape
        self.kernels = {}

    def remember(self, str task not None, object kernel, object code):
        """Keep what has done a task."""
        self.kernels[task] = kernel, view.memoryview(code, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS)


cdef bint fits(object array, object dtype, tuple shape, int flags):
    """Whether it is a plain array of a dtype and a shape, whose memory is as it should be."""
    return (
        type(array) is ndarray and array.dtype is dtype and array.shape == shape
        and (<int>array.flags.num & flags) == flags
    )


cdef bint plain_number(object num_threads):
    """Whether it is a number of threads that needs no further look: small arrays take one."""
    return num_threads is None or (
        type(num_threads) is int and 1 <= num_threads <= MOST_THREADS
    )


cdef object result(object out, object dtype, tuple shape, tuple others):
    """Return an array to write to, new or given; None if what is given needs a closer look."""
    if out is None:
        return empty(shape, dtype)
    if not fits(out, dtype, shape, WRITEABLE):
        return None
    for other in others:
        if other is not None and may_share_memory(out, other):
            return None
    return out


cpdef object forward(object plan, object x, object return_argmax, object out, object num_threads):
    """Pool a small array; return None if that takes a closer look."""
    cdef Small small = plan._small
    if small is None or not plain_number(num_threads):
        return None
    way = small.kernels.get("forward" if return_argmax is False else "argmax")
    if way is None or not fits(x, small.dtype, small.input_shape, USABLE):
        return None
    kernel, code = <tuple>way
    if return_argmax is False:
        y = result(out, small.dtype, small.output_shape, (x,))
        if y is None or not kernel(code, x.ravel(), y.ravel(), 0):
            return None
        return y
    if out is None:
        out = (None, None)
    if return_argmax is not True or type(out) is not tuple or len(<tuple>out) != 2:
        return None
    y = result((<tuple>out)[0], small.dtype, small.output_shape, (x,))
    argmax = result((<tuple>out)[1], small.argmax_dtype, small.output_shape, (x, y))
    if y is None or argmax is None:
        return None
    if not kernel(code, x.ravel(), y.ravel(), argmax.ravel(), 0):
        return None
    return y, argmax


cpdef object backward(
    object plan, object dy, object x, object argmax, object out, object num_threads
):
    """Return the gradient of a small array; None if that takes a closer look."""
    cdef Small small = plan._small
    if small is None or not plain_number(num_threads):
        return None
    if not fits(dy, small.dtype, small.output_shape, USABLE):
        return None
    if x is not None and not fits(x, small.dtype, small.input_shape, USABLE):
        return None
    way = small.kernels.get("adjoint")
    if way is not None:
        kernel, code = <tuple>way
        dx = result(out, small.dtype, small.input_shape, (dy, x))
        if argmax is not None or dx is None or not kernel(code, dy.ravel(), dx.ravel(), 0):
            return None
        return dx
    way = small.kernels.get("search" if argmax is None else "route")
    if way is None or (argmax is None and x is None):
        return None
    if argmax is not None:
        if not fits(argmax, small.argmax_dtype, small.output_shape, USABLE):
            return None
        saved = argmax.ravel()
        if plan._first_bad(saved, 0) >= 0:
            return None
    kernel, code = <tuple>way
    dx = result(out, small.dtype, small.input_shape, (dy, x, argmax))
    if dx is None or not kernel(
        code, plan._programs["argmax"].code, dy.ravel(), x.ravel() if argmax is None else None,
        None if argmax is None else saved, dx.ravel(), 0,
    ):
        return None
    return dx


def pool(str op, object x, tuple values, object return_argmax, object out, object num_threads):
    """Do `forward` by a plan that was kept; return None if there is none."""
    plan = recall(op, x.shape, x.dtype, values) if type(x) is ndarray else None
    return None if plan is None else forward(plan, x, return_argmax, out, num_threads)


def pool_backward(
    str op, object dy, object x, tuple values, object argmax, object out, object num_threads
):
    """Do `backward` by a plan that was kept, given x or its shape; None if there is none."""
    if type(dy) is not ndarray:
        return None
    if type(x) is tuple:
        shape, x = x, None
    elif type(x) is ndarray:
        shape = x.shape
    else:
        return None
    plan = recall(op, shape, dy.dtype, values)
    return None if plan is None else backward(plan, dy, x, argmax, out, num_threads)
