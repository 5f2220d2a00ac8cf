# What a kernel is told of a call whose arguments are right.

cdef extern from *:
    """
    /* Changes with Call, so that a kernel that was built before is refused. */
    #define POOLGRAD_CALL "poolgrad.Call.1"
    """
    const char *KIND "POOLGRAD_CALL"

cdef enum What:
    LARGEST
    TOTAL
    GRADIENT       # of a maximum

cdef struct Call:
    What what
    const Py_ssize_t *program
    const Py_ssize_t *forward   # GRADIENT: the program of y
    const void *source          # IN: x, or of a gradient, dy
    const void *x               # GRADIENT, IN: to find the argmax again; or NULL: it is saved
    void *argmax                # LARGEST, OUT, or NULL; GRADIENT, IN
    int item                    # bytes of an element of it
    void *result                # OUT
    int helpers                 # threads, beside the caller's

ctypedef bint (*perform_t)(const Call *call) noexcept nogil  # False if there is no memory
