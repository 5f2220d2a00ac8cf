"""Memory of large arrays, some of which is kept when it is free.

The C library gives large memory back to the system as soon as it is free, as a rule from 32 MiB on.
Who pools in a loop then has the system find, and clear, each page of each result anew: gradients
of 34 MB took 1.4 times as long. In a virtual machine the host may have to find the page, too, while
nothing else there goes on. So a little of what was freed last is kept for arrays of about its size.
"""

from math import prod

import numpy as np

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from libc.stdint cimport uintptr_t
from libc.string cimport memmove

cdef extern from *:
    """
    #include <sys/mman.h>
    #ifndef MAP_ANONYMOUS
    #define MAP_ANONYMOUS MAP_ANON
    #endif
    static void *map_pages(size_t size) {
        void *at = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        return at == MAP_FAILED ? 0 : at;
    }
    static void want_large_pages(void *at, size_t size) {
    #ifdef MADV_HUGEPAGE
        madvise(at, size, MADV_HUGEPAGE);
    #endif
    }
    """
    char *map_pages(size_t size) noexcept
    int unmap_pages "munmap"(void *at, size_t size) noexcept
    void want_large_pages(void *at, size_t size) noexcept
    int PyTraceMalloc_Track(unsigned int domain, uintptr_t at, size_t size) noexcept
    int PyTraceMalloc_Untrack(unsigned int domain, uintptr_t at) noexcept

cdef enum:
    PAGE = 64 << 10     # or less
    LARGE_PAGE = 2 << 20
    LEAST = LARGE_PAGE  # smaller arrays are NumPy's
    KEPT = 128 << 20    # bytes that are kept at most
    MOST = 64           # blocks, likewise

cdef struct Free:
    char *at
    Py_ssize_t size

# Those that are kept, the one first that was freed first.
cdef Free free_ones[MOST]
cdef int n_free = 0
cdef Py_ssize_t n_bytes = 0
cdef object lock = object()


cdef Free taken_out(int which) noexcept:
    """Take a block out of those that are kept."""
    global n_free, n_bytes
    cdef Free found = free_ones[which]
    n_free -= 1
    n_bytes -= found.size
    memmove(&free_ones[which], &free_ones[which + 1], (n_free - which) * sizeof(Free))
    return found


cdef Py_ssize_t shrink(Py_ssize_t bytes_left, int blocks_left) noexcept:
    """Give the blocks that were freed first back to the system; return how many bytes they had."""
    cdef Py_ssize_t given = 0
    cdef Free oldest
    while True:
        with cython.critical_section(lock):
            if n_bytes <= bytes_left and n_free <= blocks_left:
                return given
            oldest = taken_out(0)
        unmap_pages(oldest.at, oldest.size)
        given += oldest.size


cdef Free block_of(Py_ssize_t size) noexcept:
    """Return a block of at least so many bytes, or NULL: the kept one that fits best, or a new one.

    One that is larger by more than a quarter is left to larger arrays.
    """
    cdef Free found = Free(NULL, 0)
    cdef char *at
    cdef Py_ssize_t before
    cdef int i, best = -1
    with cython.critical_section(lock):
        for i in range(n_free):
            if size <= free_ones[i].size <= size + size // 4:
                if best < 0 or free_ones[i].size <= free_ones[best].size:
                    best = i
        if best >= 0:
            found = taken_out(best)
    if found.at == NULL:
        # What is kept makes room, so that a program whose arrays change holds no more for it.
        shrink(max(0, n_bytes - size), MOST)
        found.size = (size + PAGE - 1) // PAGE * PAGE
        at = map_pages(found.size + LARGE_PAGE)
        if at != NULL:
            # Large pages begin at multiples of their size.
            before = -<uintptr_t> at % LARGE_PAGE
            if before:
                unmap_pages(at, before)
            found.at = at + before
            unmap_pages(found.at + found.size, LARGE_PAGE - before)
            want_large_pages(found.at, found.size)
    return found


@cython.final
cdef class Block:
    """Memory that is free when nothing refers to this any more."""
    cdef Free block

    def __cinit__(self, Py_ssize_t size):
        self.block = block_of(size)
        if self.block.at == NULL:
            shrink(0, 0)
            self.block = block_of(size)
        if self.block.at == NULL:
            raise MemoryError
        # It tells whoever measures a program's memory of it, as NumPy does of its own.
        PyTraceMalloc_Track(0, <uintptr_t> self.block.at, self.block.size)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.block.at, self.block.size, False, flags)

    def __dealloc__(self):
        global n_free, n_bytes
        cdef Free block = self.block
        if block.at == NULL:
            return
        PyTraceMalloc_Untrack(0, <uintptr_t> block.at)
        if block.size > KEPT:
            unmap_pages(block.at, block.size)
            return
        shrink(KEPT - block.size, MOST - 1)
        with cython.critical_section(lock):
            if n_free < MOST and n_bytes <= KEPT - block.size:
                free_ones[n_free] = block
                n_free += 1
                n_bytes += block.size
                return
        unmap_pages(block.at, block.size)  # other threads were faster


def empty(shape, dtype):
    """Return a new array whose elements are whatever its memory has.

    Parameters
    ----------
    shape : int or tuple of int
        Its shape.
    dtype : numpy.dtype
        Its dtype.

    Returns
    -------
    ndarray
        Of large ones the memory belongs to their ``base``. It begins at a multiple of 64 bytes.

    Raises
    ------
    MemoryError
        If there is no memory for it.
    """
    size = (prod(shape) if type(shape) is tuple else shape) * dtype.itemsize
    if LEAST <= size < 1 << 62:
        return np.ndarray(shape, dtype, Block(size))
    return np.empty(shape, dtype)


def release_memory():
    """Give the memory of large arrays that is free, but kept for the next ones, to the system.

    Results of 2 MiB or more, of which at most 128 MiB are kept, so that calls in a loop need not
    have their memory found anew.

    Returns
    -------
    int
        The bytes that were given back.

    Examples
    --------
    >>> import numpy as np, poolgrad as pg
    >>> y = pg.max_pool(np.zeros((1, 2048, 2048, 1), np.float32), 2)
    >>> del y
    >>> pg.release_memory() >= 4 * 1024 * 1024
    True
    >>> pg.release_memory()
    0
    """
    return shrink(0, 0)
