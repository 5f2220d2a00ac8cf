"""The plans that are kept, found again in less time than Python takes to look at the arguments."""

cimport cython

cdef enum:
    MOST = 256  # plans; what strangers ask a server for must not pile up

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


def recall(str op not None, object shape, object dtype, tuple values not None):
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
