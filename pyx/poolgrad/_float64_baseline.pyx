# The kernels for float64, on any CPU.
from libc.stdint cimport int64_t

cdef extern from *:
    """
    #define REAL double
    #define BITS int64_t
    #define UNSIGNED_BITS uint64_t
    """

ctypedef double real
ctypedef int64_t bits
include "_kernels.pxi"
