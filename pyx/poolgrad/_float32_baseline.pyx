# The kernels for float32, on any CPU.
from libc.stdint cimport int32_t

cdef extern from *:
    """
    #define REAL float
    #define BITS int32_t
    #define UNSIGNED_BITS uint32_t
    """

ctypedef float real
ctypedef int32_t bits
include "_kernels.pxi"
