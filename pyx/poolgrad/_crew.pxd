ctypedef void (*work_t)(void *job, int who) noexcept nogil

cdef void run(work_t work, void *job, int helpers) noexcept nogil
