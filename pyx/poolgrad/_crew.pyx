"""Threads that help with the work of a kernel, without the GIL.

To wake a thread that sleeps takes 50 us where the CPU is a virtual machine's, and as long again
until it has the GIL; many a pooling takes less. So a helper that is done looks out for more for a
moment before it goes to sleep, and never needs the GIL. A kernel's work is a function that may be
called by any number of threads at once, each of which does what there is left to do: a helper that
comes late, or never, costs time and changes nothing.
"""

from cpython.pythread cimport (
    PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock, PyThread_release_lock,
    PyThread_type_lock, WAIT_LOCK,
)
from libc.stdlib cimport free, malloc

cdef extern from *:
    """
    #if defined(__x86_64__) || defined(__i386__)
    #define crew_pause() __builtin_ia32_pause()
    #elif defined(__aarch64__)
    #define crew_pause() __asm__ __volatile__("isb")
    #else
    #define crew_pause() ((void)0)
    #endif
    #define crew_get(at) __atomic_load_n((at), __ATOMIC_ACQUIRE)
    #define crew_swap(at, value) __atomic_exchange_n((at), (value), __ATOMIC_ACQ_REL)
    #define crew_add(at, n) __atomic_fetch_add((at), (n), __ATOMIC_ACQ_REL)
    static inline int crew_change(int *at, int from, int to) {
        return __atomic_compare_exchange_n(at, &from, to, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    }
    """
    void crew_pause() noexcept nogil
    int crew_get(int *at) noexcept nogil
    int crew_swap(int *at, int value) noexcept nogil
    bint crew_change(int *at, int old, int new) noexcept nogil
    Seat *get_seat "crew_get"(Seat **at) noexcept nogil
    Seat *swap_seat "crew_swap"(Seat **at, Seat *value) noexcept nogil
    int crew_add(int *at, int n) noexcept nogil

cdef enum:
    MOST = 1024    # as `threads.MOST`
    LOOKS = 5000   # about a tenth of a millisecond

cdef enum:
    IDLE
    ASLEEP
    CALLED   # but it has not begun
    BUSY
    AWAITED  # BUSY, and the caller sleeps

cdef struct Seat:
    # One helper.
    int taken                 # whether some caller has it
    int state
    PyThread_type_lock bell   # free once it is called in its sleep
    PyThread_type_lock done   # free once it is done, if that is AWAITED
    work_t work
    void *job
    int who
    Seat *next                # of the same caller

cdef Seat *seats[MOST]
cdef int n_seats = 0


cdef void run(work_t work, void *job, int helpers) noexcept nogil:
    """Call `work` with a job and 0, and so many others, as far as they are idle, with 1 and so on.

    Return when all are done.
    """
    cdef Seat *seat
    cdef Seat *first = NULL
    cdef int i, looks, who = 0
    for i in range(min(crew_get(&n_seats), MOST) if helpers else 0):
        if who == helpers:
            break
        seat = get_seat(&seats[i])
        if seat != NULL and crew_change(&seat.taken, False, True):
            who += 1
            seat.work, seat.job, seat.who, seat.next = work, job, who, first
            first = seat
            if crew_swap(&seat.state, CALLED) == ASLEEP:
                PyThread_release_lock(seat.bell)
    work(job, 0)
    while first != NULL:
        seat, first = first, first.next
        # Nothing is left to do, so who has not begun need not.
        if not crew_change(&seat.state, CALLED, IDLE):
            looks = 0
            while crew_get(&seat.state) == BUSY:
                looks += 1
                crew_pause()
                if looks > LOOKS and crew_change(&seat.state, BUSY, AWAITED):
                    PyThread_acquire_lock(seat.done, WAIT_LOCK)
                    break
        crew_swap(&seat.taken, False)


cdef void help_for_ever(Seat *seat) noexcept nogil:
    """Do what a helper is called for."""
    cdef int looks
    while True:
        looks = 0
        while crew_get(&seat.state) != CALLED and looks < LOOKS:
            looks += 1
            crew_pause()
        if crew_change(&seat.state, IDLE, ASLEEP):
            PyThread_acquire_lock(seat.bell, WAIT_LOCK)
        if crew_change(&seat.state, CALLED, BUSY):
            seat.work(seat.job, seat.who)
            if crew_swap(&seat.state, IDLE) == AWAITED:
                PyThread_release_lock(seat.done)


def serve():
    """Make this thread a helper for as long as the process lives."""
    cdef Seat *seat
    cdef int i
    seat = <Seat *>malloc(sizeof(Seat))
    if seat == NULL:
        raise MemoryError
    seat.taken, seat.state = False, IDLE
    seat.bell, seat.done = PyThread_allocate_lock(), PyThread_allocate_lock()
    if seat.bell == NULL or seat.done == NULL:
        if seat.bell != NULL:
            PyThread_free_lock(seat.bell)
        if seat.done != NULL:
            PyThread_free_lock(seat.done)
        free(seat)
        raise MemoryError
    PyThread_acquire_lock(seat.bell, WAIT_LOCK)
    PyThread_acquire_lock(seat.done, WAIT_LOCK)
    i = crew_add(&n_seats, 1)
    if i < MOST:
        swap_seat(&seats[i], seat)
        with nogil:
            help_for_ever(seat)


def forget():
    """Do without the helpers that there were: a forked child has none of its parent's threads."""
    cdef int i
    for i in range(MOST):
        seats[i] = NULL
    crew_swap(&n_seats, 0)
