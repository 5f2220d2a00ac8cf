"""Calls that are as they nearly always are, without the time that Python takes to look at them.

Plans are kept here, and found again; and arrays that are as they should be go to the kernel right
away. Whatever is unusual about a call is left to `Plan`, which does all of it.
"""

from poolgrad import _memory, arrays, threads

cimport cython
from cpython.long cimport PyLong_CheckExact
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.tuple cimport PyTuple_CheckExact
from cpython.unicode cimport PyUnicode_CheckExact
from numpy cimport (
    NPY_ARRAY_WRITEABLE, PyArray_BYTES, PyArray_DESCR, PyArray_Descr, PyArray_DIMS, PyArray_EMPTY,
    PyArray_FLAGS, PyArray_ISNOTSWAPPED, PyArray_NBYTES, PyArray_NDIM, PyArray_TYPE, import_array,
    ndarray, npy_intp,
)

import_array()

cdef enum:
    MOST = 256  # plans; what strangers ask a server for must not pile up
    MOST_AXES = 5
    # Element steps, and bytes: a few microseconds, for which the GIL is not given up.
    BRIEF = 10_000
    BRIEF_BYTES = 65536

# What a plan has programs for.
cdef enum:
    FORWARD
    ARGMAX
    WINDOWS
    ADJOINT
    SEARCH
    ROUTE
    TASKS

cdef dict NUMBERS = {
    "forward": FORWARD, "argmax": ARGMAX, "windows": WINDOWS, "adjoint": ADJOINT,
    "search": SEARCH, "route": ROUTE,
}

cdef int MOST_THREADS = threads.MOST
cdef int USABLE = arrays.USABLE
cdef int WRITEABLE = USABLE | NPY_ARRAY_WRITEABLE

cdef object empty = _memory.empty
cdef object get_num_threads = threads.get_num_threads

cdef dict kept = {}  # plans, each with what its usual calls need, or None


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
    usual = plan._usual
    with cython.critical_section(kept):
        if len(kept) >= MOST:
            del kept[next(iter(kept))]
        kept[key] = plan, usual


cdef struct Like:
    # What an array must be like.
    PyArray_Descr *dtype
    int number              # of the dtype
    PyObject *sizes         # the shape
    int axes
    npy_intp[MOST_AXES] shape


cdef class Usual:
    """What the usual calls on a plan need: its programs, and what reads them."""
    cdef Like x
    cdef Like y
    cdef Like argmax
    cdef int argmax_size
    cdef bint maximum
    cdef bint alone             # whether no second thread is worth it
    cdef bint brief
    cdef perform_t kernel
    cdef const Py_ssize_t *codes[TASKS]
    cdef list programs          # which these are of
    cdef list held              # what else pointers here point to

    def __init__(self, plan, bint maximum, bint alone, kernel):
        self.held, self.programs = [kernel], [None] * TASKS
        self.kernel = <perform_t>PyCapsule_GetPointer(kernel, KIND)
        self.maximum, self.alone = maximum, alone
        self.brief = plan.cost < BRIEF and plan.input_bytes + plan.output_bytes < BRIEF_BYTES
        self.be_like(&self.x, plan.dtype, plan.input_shape)
        self.be_like(&self.y, plan.dtype, plan.output_shape)
        if plan.argmax_dtype is not None:
            self.argmax_size = plan.argmax_dtype.itemsize
            self.be_like(&self.argmax, plan.argmax_dtype, plan.output_shape)

    cdef int be_like(self, Like *like, dtype, tuple shape) except -1:
        """Write down a dtype and a shape."""
        if len(shape) > MOST_AXES:
            raise ValueError(f"{len(shape)} axes")
        self.held += [dtype, shape]
        like.dtype, like.number, like.axes = <PyArray_Descr *>dtype, dtype.num, len(shape)
        like.sizes = <PyObject *>shape
        for axis in range(like.axes):
            like.shape[axis] = shape[axis]
        return 0

    def remember(self, str task not None, program):
        """Keep how a task is done."""
        cdef int number = NUMBERS[task]
        cdef ndarray code = program.code
        if self.programs[number] is program:
            return
        self.held.append(code)
        self.programs[number] = program
        self.codes[number] = <const Py_ssize_t *>PyArray_BYTES(code)

    cdef int helpers(self, object plan, object num_threads) except -1:
        """Return how many threads help with a call."""
        if self.alone or num_threads == 1:
            return 0
        return plan._helpers(get_num_threads() if num_threads is None else num_threads)

    cdef object result(self, object out, Like *like, object one, object two, object three):
        """Return an array to write to, new or given; None if what is given needs a closer look."""
        if out is None:
            if self.brief:  # then it is too small for memory of our own
                return PyArray_EMPTY(like.axes, like.shape, like.number, 0)
            return empty(<object>like.sizes, <object>like.dtype)
        if fits(out, like, WRITEABLE) and apart(out, one) and apart(out, two) and (
            apart(out, three)
        ):
            return out
        return None

    cdef bint perform(self, int task, Call *call):
        """Do what a call says, and a task; False if there is no memory."""
        cdef bint done
        cdef ndarray code = None
        call.program, call.item = self.codes[task], self.argmax_size
        if self.brief:
            return self.kernel(call)
        if call.helpers:
            code = self.programs[task].finer(1 + call.helpers)
            call.program = <const Py_ssize_t *>PyArray_BYTES(code)
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
    # By its number: an array that was unpickled has a dtype of its own.
    if PyArray_TYPE(a) != like.number or not PyArray_ISNOTSWAPPED(a) or (
        PyArray_NDIM(a) != like.axes
    ):
        return False
    for axis in range(like.axes):
        if PyArray_DIMS(a)[axis] != like.shape[axis]:
            return False
    return (PyArray_FLAGS(a) & flags) == flags


cdef bint plain_number(object num_threads):
    """Whether it is a number of threads that needs no further look."""
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


cdef inline void *data(object array):
    """Return where an array is; NULL for None."""
    return NULL if array is None else PyArray_BYTES(<ndarray>array)


cdef object pool_usual(
    object plan, Usual usual, object x, object return_argmax, object out, object num_threads
):
    """Do `forward`."""
    cdef Call call
    cdef int task = FORWARD if return_argmax is False else ARGMAX
    if usual is None or not plain_number(num_threads) or not fits(x, &usual.x, USABLE):
        return None
    if usual.codes[task] == NULL:  # an average's, if an argmax is wanted
        return None
    argmax = None
    if return_argmax is False:
        y = usual.result(out, &usual.y, x, None, None)
    elif return_argmax is True and (out is None or type(out) is tuple and len(<tuple>out) == 2):
        y, argmax = (None, None) if out is None else <tuple>out
        y = usual.result(y, &usual.y, x, None, None)
        argmax = usual.result(argmax, &usual.argmax, x, y, None)
        if argmax is None:
            return None
    else:
        return None
    if y is None:
        return None
    call.what = LARGEST if usual.maximum else TOTAL
    call.source, call.result, call.argmax = data(x), data(y), data(argmax)
    call.helpers = usual.helpers(plan, num_threads)
    if not usual.perform(task, &call):
        return None
    return y if argmax is None else (y, argmax)


cdef object pool_usual_backward(
    object plan, Usual usual, object dy, object x, object argmax, object out, object num_threads
):
    """Do `backward`."""
    cdef Call call
    cdef int task = ADJOINT
    if usual is None or not plain_number(num_threads) or not fits(dy, &usual.y, USABLE):
        return None
    if x is not None and not fits(x, &usual.x, USABLE):
        return None
    call.what, call.x = TOTAL, NULL
    if usual.maximum:
        task = SEARCH if argmax is None else ROUTE
        call.what, call.forward = GRADIENT, usual.codes[WINDOWS]
        if argmax is None:
            if x is None:
                return None
            call.x = data(x)
        elif not fits(argmax, &usual.argmax, USABLE):
            return None
    elif argmax is not None:
        return None
    # Another thread may be about to make both.
    if usual.codes[task] == NULL or usual.maximum and call.forward == NULL:
        return None
    dx = usual.result(out, &usual.x, dy, x, argmax)
    if dx is None:
        return None
    call.helpers = usual.helpers(plan, num_threads)
    if argmax is not None and plan._first_bad(argmax.ravel(), call.helpers) >= 0:
        return None
    call.source, call.argmax, call.result = data(dy), data(argmax), data(dx)
    return dx if usual.perform(task, &call) else None


def forward(object plan, object x, object return_argmax, object out, object num_threads):
    """Pool an array; return None if that takes a closer look."""
    return pool_usual(plan, plan._usual, x, return_argmax, out, num_threads)


def backward(object plan, object dy, object x, object argmax, object out, object num_threads):
    """Return the gradient of an array; None if that takes a closer look."""
    return pool_usual_backward(plan, plan._usual, dy, x, argmax, out, num_threads)


def pool(
    otherwise, str op not None, object x, tuple values not None, object return_argmax, object out,
    object num_threads,
):
    """Do `forward` by a plan that was kept, or what is done otherwise."""
    if type(x) is ndarray:
        found = find(op, (<object>x).shape, <object>PyArray_DESCR(<ndarray>x), values)
        if found is not None:
            y = pool_usual(found[0], found[1], x, return_argmax, out, num_threads)
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
            dx = pool_usual_backward(
                found[0], found[1], dy, None if shape is x else x, argmax, out, num_threads
            )
            if dx is not None:
                return dx
    return otherwise(op, dy, x, values, argmax, out, num_threads)
