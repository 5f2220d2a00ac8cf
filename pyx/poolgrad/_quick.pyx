"""Calls on small arrays, which take less time than Python takes to look at the arguments.

Plans are kept here, and found again; and the arrays of a call that is as it nearly always is go to
the kernel right away. Whatever is unusual about a call is left to `Plan`, which does all of it.
"""

from poolgrad import arrays, threads

cimport cython
from cpython.long cimport PyLong_CheckExact
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.tuple cimport PyTuple_CheckExact
from cpython.unicode cimport PyUnicode_CheckExact
from numpy cimport (
    NPY_ARRAY_WRITEABLE, PyArray_BYTES, PyArray_DESCR, PyArray_Descr, PyArray_DIMS, PyArray_EMPTY,
    PyArray_FLAGS, PyArray_NBYTES, PyArray_NDIM, import_array, ndarray, npy_intp,
)

import_array()

cdef enum:
    MOST = 256  # plans; what strangers ask a server for must not pile up
    MOST_AXES = 5
    BRIEF = 10_000  # element steps: a few microseconds, for which the GIL is not given up

# What a plan has programs for.
cdef enum:
    FORWARD
    ARGMAX
    ADJOINT
    SEARCH
    ROUTE
    TASKS

cdef dict NUMBERS = {
    "forward": FORWARD, "argmax": ARGMAX, "adjoint": ADJOINT, "search": SEARCH, "route": ROUTE
}

cdef int MOST_THREADS = threads.MOST
cdef int USABLE = arrays.USABLE
cdef int WRITEABLE = USABLE | NPY_ARRAY_WRITEABLE

cdef dict kept = {}  # plans, each with what calls on small arrays need, or None


cdef inline bint plain(object value, int depth):
    """Whether a value is an int, None, a str, or a tuple of ints, of None and of such tuples.

    Of exactly these types: 1, True and 1.0 are equal, but not equally welcome, and an `__eq__` of
    foreign code is not to be asked.
    """
    return (
        PyLong_CheckExact(value) or value is None or PyUnicode_CheckExact(value)
        or depth and PyTuple_CheckExact(value) and all_plain(<tuple>value, depth - 1)
    )


cdef bint all_plain(tuple values, int depth):
    """Whether all values are plain. Deeper tuples are refused later, and may be endlessly deep."""
    for value in values:
        if not plain(value, depth):
            return False
    return True


cdef object key_of(str op, object shape, object dtype, tuple values):
    """Return what a plan is kept by, or None if it is not kept."""
    cdef unsigned int switches = 1
    if not plain(shape, 2):
        return None
    for value in values:
        switches *= 2
        if type(value) is bool:
            switches += 1
        elif not plain(value, 2):
            return None
    return op, shape, dtype, values, switches


cdef inline tuple find(str op, object shape, object dtype, tuple values):
    """Return what was kept for these hyperparameters, or None."""
    key = key_of(op, shape, dtype, values)
    return None if key is None else kept.get(key)


def recall(str op not None, object shape, object dtype, tuple values not None):
    """Return the plan that was kept of an operation with these hyperparameters, or None."""
    found = find(op, shape, dtype, values)
    return None if found is None else found[0]


def keep(str op not None, object shape, object dtype, tuple values not None, object plan):
    """Keep a plan, in the place of the oldest one where there is no room."""
    key = key_of(op, shape, dtype, values)
    if key is None:
        return
    small = plan._small
    with cython.critical_section(kept):
        if len(kept) >= MOST:
            del kept[next(iter(kept))]
        kept[key] = plan, small


cdef struct Like:
    # What an array must be like.
    PyArray_Descr *dtype
    int number              # of the dtype
    int axes
    npy_intp[MOST_AXES] shape


cdef class Small:
    """What calls on the small arrays of a plan need: its programs, and what reads them."""
    cdef Like x
    cdef Like y
    cdef Like argmax
    cdef int argmax_size
    cdef bint maximum
    cdef bint brief
    cdef perform_t kernel
    cdef const Py_ssize_t *programs[TASKS]
    cdef list held              # what these pointers point into

    def __init__(self, plan, bint maximum, kernel):
        self.held = [kernel]
        self.kernel = <perform_t>PyCapsule_GetPointer(kernel, NULL)
        self.maximum, self.brief = maximum, plan.cost < BRIEF
        self.be_like(&self.x, plan.dtype, plan.input_shape)
        self.be_like(&self.y, plan.dtype, plan.output_shape)
        if plan.argmax_dtype is not None:
            self.argmax_size = plan.argmax_dtype.itemsize
            self.be_like(&self.argmax, plan.argmax_dtype, plan.output_shape)

    cdef int be_like(self, Like *like, dtype, tuple shape) except -1:
        """Write down a dtype and a shape."""
        self.held.append(dtype)
        like.dtype, like.number, like.axes = <PyArray_Descr *>dtype, dtype.num, len(shape)
        for axis in range(like.axes):
            like.shape[axis] = shape[axis]
        return 0

    def remember(self, str task not None, ndarray code not None):
        """Keep the program of a task."""
        self.held.append(code)
        self.programs[<int>NUMBERS[task]] = <const Py_ssize_t *>PyArray_BYTES(code)

    cdef bint perform(self, const Call *call):
        """Do what a call says; False if there is no memory."""
        cdef bint done
        if self.brief:
            return self.kernel(call)
        with nogil:
            done = self.kernel(call)
        return done


cdef bint fits(object array, const Like *like, int flags):
    """Whether it is a plain array of a dtype and a shape, whose memory is as it should be."""
    cdef ndarray a
    cdef int axis
    if type(array) is not ndarray:
        return False
    a = <ndarray>array
    if PyArray_DESCR(a) is not like.dtype or PyArray_NDIM(a) != like.axes:
        return False
    for axis in range(like.axes):
        if PyArray_DIMS(a)[axis] != like.shape[axis]:
            return False
    return (PyArray_FLAGS(a) & flags) == flags


cdef bint plain_number(object num_threads):
    """Whether it is a number of threads that needs no further look: small arrays take one."""
    return num_threads is None or (
        type(num_threads) is int and 1 <= num_threads <= MOST_THREADS
    )


cdef bint apart(object array, object other):
    """Whether no byte is in both of two arrays, each in one piece; or the other is None."""
    cdef char *a
    cdef char *b
    if other is None:
        return True
    a, b = PyArray_BYTES(<ndarray>array), PyArray_BYTES(<ndarray>other)
    return a + PyArray_NBYTES(<ndarray>array) <= b or b + PyArray_NBYTES(<ndarray>other) <= a


cdef object result(object out, Like *like, object one, object two, object three):
    """Return an array to write to, new or given; None if what is given needs a closer look."""
    if out is None:
        return PyArray_EMPTY(like.axes, like.shape, like.number, 0)
    if fits(out, like, WRITEABLE) and apart(out, one) and apart(out, two) and apart(out, three):
        return out
    return None


cdef inline void *data(object array):
    """Return where an array is; NULL for None."""
    return NULL if array is None else PyArray_BYTES(<ndarray>array)


cdef object pool_small(
    Small small, object x, object return_argmax, object out, object num_threads
):
    """Do `forward`."""
    cdef Call call
    if small is None or not plain_number(num_threads) or not fits(x, &small.x, USABLE):
        return None
    argmax = None
    call.what = LARGEST if small.maximum else TOTAL
    call.program = small.programs[FORWARD if return_argmax is False else ARGMAX]
    if call.program == NULL:  # an average's, if an argmax is wanted
        return None
    if return_argmax is False:
        y = result(out, &small.y, x, None, None)
    elif return_argmax is True and (out is None or type(out) is tuple and len(<tuple>out) == 2):
        y, argmax = (None, None) if out is None else <tuple>out
        y = result(y, &small.y, x, None, None)
        argmax = result(argmax, &small.argmax, x, y, None)
        if argmax is None:
            return None
    else:
        return None
    if y is None:
        return None
    call.source, call.result, call.argmax = data(x), data(y), data(argmax)
    call.item = small.argmax_size
    if not small.perform(&call):
        return None
    return y if argmax is None else (y, argmax)


cdef object pool_small_backward(
    object plan, Small small, object dy, object x, object argmax, object out, object num_threads
):
    """Do `backward`."""
    cdef Call call
    if small is None or not plain_number(num_threads) or not fits(dy, &small.y, USABLE):
        return None
    if x is not None and not fits(x, &small.x, USABLE):
        return None
    call.what, call.x, call.argmax, call.item = TOTAL, NULL, NULL, small.argmax_size
    if not small.maximum:
        if argmax is not None:
            return None
        call.program = small.programs[ADJOINT]
    else:
        call.what, call.forward = GRADIENT, small.programs[ARGMAX]
        if argmax is None:
            call.program, call.x = small.programs[SEARCH], data(x)
            if x is None:
                return None
        elif fits(argmax, &small.argmax, USABLE) and plan._first_bad(argmax.ravel(), 0) < 0:
            call.program, call.argmax = small.programs[ROUTE], data(argmax)
        else:
            return None
    if call.program == NULL:
        return None
    dx = result(out, &small.x, dy, x, argmax)
    if dx is None:
        return None
    call.source, call.result = data(dy), data(dx)
    return dx if small.perform(&call) else None


def forward(object plan, object x, object return_argmax, object out, object num_threads):
    """Pool a small array; return None if that takes a closer look."""
    return pool_small(plan._small, x, return_argmax, out, num_threads)


def backward(object plan, object dy, object x, object argmax, object out, object num_threads):
    """Return the gradient of a small array; None if that takes a closer look."""
    return pool_small_backward(plan, plan._small, dy, x, argmax, out, num_threads)


def pool(
    otherwise, str op not None, object x, tuple values not None, object return_argmax, object out,
    object num_threads,
):
    """Do `forward` by a plan that was kept, or what is done otherwise."""
    if type(x) is ndarray:
        found = find(op, (<object>x).shape, <object>PyArray_DESCR(<ndarray>x), values)
        if found is not None:
            y = pool_small(found[1], x, return_argmax, out, num_threads)
            if y is not None:
                return y
    return otherwise(op, x, values, return_argmax, out, num_threads)


def pool_backward(
    otherwise, str op not None, object dy, object x, tuple values not None, object argmax,
    object out, object num_threads,
):
    """Do `backward` by a plan that was kept, given x or its shape, or what is done otherwise."""
    shape = x.shape if type(x) is ndarray else x
    if type(dy) is ndarray and type(shape) is tuple:
        found = find(op, shape, <object>PyArray_DESCR(<ndarray>dy), values)
        if found is not None:
            dx = pool_small_backward(
                found[0], found[1], dy, None if shape is x else x, argmax, out, num_threads
            )
            if dx is not None:
                return dx
    return otherwise(op, dy, x, values, argmax, out, num_threads)
