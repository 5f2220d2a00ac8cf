# An argmax by itself: whether it is right, and what zeros in the padding make of it.

from poolgrad cimport _crew

from libc.stdint cimport uint16_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

cdef inline bint is_tap(
    Py_ssize_t place, const Py_ssize_t *box, const Window *at
) noexcept nogil:
    """Whether a tap of the box is one of a clipped window's."""
    cdef Py_ssize_t row = place // box[2]
    return (
        place >= 0
        and at[2].first <= place % box[2] < at[2].first + at[2].count
        and at[1].first <= row % box[1] < at[1].first + at[1].count
        and at[0].first <= row // box[1] < at[0].first + at[0].count
    )


cdef inline bint below(const index *argmax, Py_ssize_t n, unsigned int taps) noexcept nogil:
    """Whether each value is none or one of so many taps."""
    cdef Py_ssize_t i
    cdef unsigned char byte, most_byte = 0
    cdef unsigned int one, most = 0
    # None is the largest value: one more than it is 0.
    if index is int:
        for i in range(n):
            one = <unsigned int>argmax[i] + 1
            most = max(most, one)
    else:
        for i in range(n):
            byte = argmax[i] + 1
            most_byte = max(most_byte, byte)
        most = most_byte
    return most <= taps


cdef inline bint all_byte_taps(
    const unsigned char *argmax, Py_ssize_t n, const Py_ssize_t *box, const Window *at,
    const int *first, const int *count
) noexcept nogil:
    """As `all_taps`, in numbers of 16 bits, of which a vector has twice as many."""
    cdef Py_ssize_t i
    cdef bint each = first != NULL
    cdef uint16_t bad = 0, place, row, d, h, w, front, many
    cdef uint16_t across = <uint16_t>box[2], down = <uint16_t>box[1]
    # Rounded up, these make no quotient of numbers below 256 wrong.
    cdef uint16_t by_across = <uint16_t>(65535 // across + 1)
    cdef uint16_t by_down = <uint16_t>(65535 // down + 1)
    cdef uint16_t upper = <uint16_t>at[1].first, rows = <uint16_t>at[1].count
    cdef uint16_t near = <uint16_t>at[0].first, deep = <uint16_t>at[0].count
    front, many = <uint16_t>at[2].first, <uint16_t>at[2].count
    for i in range(n):
        place = argmax[i]
        row = place if across == 1 else <uint16_t>((<uint32_t>place * by_across) >> 16)
        d = row if down == 1 else <uint16_t>((<uint32_t>row * by_down) >> 16)
        w = <uint16_t>(place - row * across - (<uint16_t>first[i] if each else front))
        h = <uint16_t>(row - d * down - upper)
        d = <uint16_t>(d - near)
        bad |= <uint16_t>((place != 255) & (
            (w >= (<uint16_t>count[i] if each else many)) | (h >= rows) | (d >= deep)
        ))
    return not bad


cdef inline bint all_taps(
    const index *argmax, Py_ssize_t n, const Py_ssize_t *box, const Window *at,
    const int *first, const int *count
) noexcept nogil:
    """Whether each value below 2**16 is none or a tap of a clipped window.

    Of the same window; or, with the first taps and the numbers of taps along the width of each, of
    windows of a row.
    """
    cdef Py_ssize_t i
    cdef bint each = first != NULL
    cdef int bad = 0, place, row, d, h, w, front = <int>at[2].first, many = <int>at[2].count
    cdef int across = <int>box[2], down = <int>box[1]
    # Half a tap more keeps quotients clear of whole numbers by more than they are rounded.
    cdef float by_across = <float>1 / across, by_down = <float>1 / down
    if index is not int:
        return all_byte_taps(argmax, n, box, at, first, count)
    else:
        for i in range(n):
            place = argmax[i]
            row = <int>((place + <float>0.5) * by_across)
            d = <int>((row + <float>0.5) * by_down)
            w = place - row * across - (first[i] if each else front)
            h = row - d * down - <int>at[1].first
            d -= <int>at[0].first
            bad |= (argmax[i] != <index>-1) & (
                (<unsigned int>w >= <unsigned int>(count[i] if each else many))
                | (<unsigned int>h >= <unsigned int>at[1].count)
                | (<unsigned int>d >= <unsigned int>at[0].count)
            )
        return not bad


cdef bint all_rows(
    const index *argmax, Py_ssize_t planes, const Py_ssize_t **taps, const Py_ssize_t *box
) noexcept nogil:
    """As `all_planes`, row by row, for windows of up to 2**16 taps."""
    cdef Py_ssize_t width = taps[2][WINDOWS], n, d, h, w
    cdef Window[3] at
    cdef bint good = True
    cdef int *first = <int *>malloc(2 * width * sizeof(int))
    if first == NULL:
        return False
    for w in range(width):
        at[2] = clip(taps[2], w)
        first[w], first[width + w] = <int>at[2].first, <int>at[2].count
    for n in range(planes):
        for d in range(taps[0][WINDOWS]):
            at[0] = clip(taps[0], d)
            for h in range(taps[1][WINDOWS]):
                at[1] = clip(taps[1], h)
                good = good and all_taps(argmax, width, box, at, first, first + width)
                argmax += width
    free(first)
    return good


cdef enum:
    MOST_RIGHT = 4194304  # bytes of a table of what is right where
    FEW_PLANES = 4        # for which no table is made
    # If of so many windows one is clipped, to look at all takes less, where rows are so long, or
    # bits can tell of each of so few taps whether it is right.
    MANY_CLIPPED = 8
    LONG_ROW = 32
    MOST_BITS = 31
    MOST_WORDS = 8192  # windows of a plane


cdef Py_ssize_t write_clipped(
    const Py_ssize_t **taps,
    const Py_ssize_t *box,
    int *clipped,                      # OUT: which windows of a plane are clipped; or NULL
    char *right,                       # OUT: for none and for each tap, if it is one of theirs
) noexcept nogil:
    """Return how many windows of a plane are clipped."""
    cdef Py_ssize_t limit = box[0] * box[1] * box[2], d, h, w, i, k, row, many = 0
    cdef Py_ssize_t wide = taps[2][WINDOWS], first = 0, last, skipped
    cdef bint inner
    cdef Window[3] at
    while first < wide and clip(taps[2], first).count < box[2]:
        first += 1
    last = first
    while last < wide and clip(taps[2], last).count == box[2]:
        last += 1
    for d in range(taps[0][WINDOWS]):
        at[0] = clip(taps[0], d)
        for h in range(taps[1][WINDOWS]):
            at[1] = clip(taps[1], h)
            inner = at[0].count == box[0] and at[1].count == box[1]
            if clipped == NULL and not inner:
                many += wide
                continue
            skipped = last - first if inner else 0
            for i in range(wide - skipped):
                w = i if i < first else i + skipped
                at[2] = clip(taps[2], w)
                if inner and at[2].count == box[2]:
                    continue
                many += 1
                if clipped == NULL:
                    continue
                clipped[0] = <int>((d * taps[1][WINDOWS] + h) * wide + w)
                clipped += 1
                memset(right, 0, limit + 1)
                right[0] = 1
                for k in range(at[0].count * at[1].count):
                    row = (at[0].first + k // at[1].count) * box[1] + at[1].first
                    row = (row + k % at[1].count) * box[2] + at[2].first
                    memset(right + 1 + row, 1, at[2].count)
                right += limit + 1
    return many


cdef uint32_t bits_of(Window at) noexcept nogil:
    """Return the taps of a clipped window along one axis, as bits."""
    return ((<uint32_t>1 << at.count) - 1) << at.first


cdef bint all_bits(
    const index *argmax, Py_ssize_t planes, const Py_ssize_t **taps, const Py_ssize_t *box
) noexcept nogil:
    """As `all_planes`, for windows of few taps: a word for each, with a bit for each tap."""
    cdef Py_ssize_t cells = 0, n, d, h, w, i, k
    cdef uint32_t[MOST_WORDS] words
    cdef uint32_t good = 1, rows, first, along_depth, along_height
    for d in range(taps[0][WINDOWS]):
        along_depth = bits_of(clip(taps[0], d))
        for h in range(taps[1][WINDOWS]):
            along_height = bits_of(clip(taps[1], h))
            # The first taps of the rows that are inside; those along the width follow each.
            rows = first = 0
            for i in range(box[0]):
                for k in range(box[1]):
                    first = along_depth >> i & along_height >> k & 1
                    rows |= first << (i * box[1] + k) * box[2]
            for w in range(taps[2][WINDOWS]):
                # None has the bits of the largest value.
                words[cells] = rows * bits_of(clip(taps[2], w)) | <uint32_t>1 << MOST_BITS
                cells += 1
    for n in range(planes):
        for i in range(cells):
            good &= words[i] >> (argmax[i] & MOST_BITS)
        argmax += cells
    return good


cdef bint all_planes(
    const index *argmax,
    Py_ssize_t planes,
    const Py_ssize_t **taps,
    const Py_ssize_t *box,
    Py_ssize_t cells,
) noexcept nogil:
    """Whether all values, each a tap of the box or none, are right, in planes of one channel.

    False also if they cannot be looked at that fast.
    """
    cdef Py_ssize_t row = box[0] * box[1] * box[2] + 1, n, i
    cdef Py_ssize_t many = write_clipped(taps, box, NULL, NULL)
    cdef bint many_clipped = many * MANY_CLIPPED > cells
    cdef int *clipped
    cdef char *right
    cdef char good = 1
    if many == 0:
        return True
    if planes <= FEW_PLANES:
        return many_clipped and row <= 65536 and all_rows(argmax, planes, taps, box)
    if many_clipped and row <= MOST_BITS + 1 and cells <= MOST_WORDS:
        return all_bits(argmax, planes, taps, box)
    if many * row > MOST_RIGHT or many_clipped and taps[2][WINDOWS] >= LONG_ROW and row <= 65536:
        return row <= 65536 and all_rows(argmax, planes, taps, box)
    clipped = <int *>malloc(many * (sizeof(int) + row))
    if clipped == NULL:
        return False
    right = <char *>(clipped + many)
    write_clipped(taps, box, clipped, right)
    for n in range(planes):
        for i in range(many):
            # None is the largest value, or -1: one more is 0.
            if index is int:
                good &= right[i * row + argmax[clipped[i]] + 1]
            else:
                good &= right[i * row + <unsigned char>(argmax[clipped[i]] + 1)]
        argmax += cells
    free(clipped)
    return good


cdef bint none_clipped(const Py_ssize_t **taps, const Py_ssize_t *box) noexcept nogil:
    """Whether all windows have all taps of the box."""
    cdef int axis
    for axis in range(3):
        if taps[axis][PERIOD] != 1 or taps[axis][TAPS] != box[axis] or not all_inside(
            taps[axis], 0, taps[axis][WINDOWS]
        ):
            return False
    return True


cdef Py_ssize_t find_bad(
    const index *argmax,
    Py_ssize_t first,                  # row of windows
    Py_ssize_t rows,                   # of one channel: those of whole planes
    Py_ssize_t channels,
    const Py_ssize_t **taps,
    const Py_ssize_t *box,
) noexcept nogil:
    """Return the flat place of the first value that is neither none nor a real tap, or -1."""
    cdef Py_ssize_t high = taps[1][WINDOWS], wide = taps[2][WINDOWS]
    cdef Py_ssize_t plane = taps[0][WINDOWS] * high
    cdef Py_ssize_t limit = box[0] * box[1] * box[2], r, w, c, last = -1
    cdef Py_ssize_t d = first % plane // high, h = first % high
    cdef Py_ssize_t cell = first * wide * channels
    cdef bint good = below(argmax + cell, rows * wide * channels, <unsigned int>limit), inner
    cdef Window[3] at
    if good and (none_clipped(taps, box) or channels == 1 and plane * wide < 2147483647 and (
        all_planes(argmax + cell, rows // plane, taps, box, plane * wide)
    )):
        return -1  # else the first bad one is looked for
    # The last window along the width that is not clipped behind.
    if taps[2][PARTS] == 1 and taps[2][SIZE] > (box[2] - 1) * taps[2][STRIDE] + taps[2][BASE]:
        last = (taps[2][SIZE] - (box[2] - 1) * taps[2][STRIDE] - 1 - taps[2][BASE]) \
            // taps[2][ADVANCE]
        last = min(last, wide - 1)
    at[0] = clip(taps[0], d)
    for r in range(rows):
        at[1] = clip(taps[1], h)
        h += 1
        inner = at[0].count == box[0] and at[1].count == box[1]
        w = 0
        while w < wide:
            at[2] = clip(taps[2], w)
            if good and inner and at[2].count == box[2] and w <= last:
                # Nor is any up to that one, and all values are taps.
                cell += (last + 1 - w) * channels
                w = last + 1
                continue
            if not good or limit > 65536 or not all_taps(
                argmax + cell, channels, box, at, NULL, NULL
            ):
                for c in range(cell, cell + channels):
                    if argmax[c] != <index>-1 and not is_tap(argmax[c], box, at):
                        return c
            cell += channels
            w += 1
        if h == high:
            h, d = 0, d + 1 if d + 1 < taps[0][WINDOWS] else 0
            at[0] = clip(taps[0], d)
    return -1


cdef struct Check:
    # An argmax, for any number of threads to look at.
    const void *argmax
    int item                 # bytes of an element of it
    Py_ssize_t rows          # of windows
    Py_ssize_t size          # of a piece
    Py_ssize_t channels
    const Py_ssize_t *taps[3]
    Py_ssize_t[3] box
    Queue queue
    bint bad


cdef void take_part_in_check(void *of, int who) noexcept nogil:
    """Look at a share of an argmax."""
    cdef Check *job = <Check *>of
    cdef Ticket ticket = ticket_of(&job.queue, who)
    cdef Py_ssize_t n = parts_of(job.rows, job.size), first, rows, bad
    while True:
        first = next_of(&ticket, n) * job.size
        if first >= job.rows:
            return
        rows = min(job.size, job.rows - first)
        if job.item == 1:
            bad = find_bad(<const unsigned char *>job.argmax, first, rows, job.channels, job.taps,
                           job.box)
        else:
            bad = find_bad(<const int *>job.argmax, first, rows, job.channels, job.taps, job.box)
        if bad >= 0:
            job.bad = True


def first_bad(
    const Py_ssize_t[::1] program,     # IN: of y
    Py_ssize_t planes,
    Py_ssize_t channels,
    const index[::1] argmax,           # IN
    int helpers,
):
    """Return the flat place of the first value that is neither none nor a real tap, or -1."""
    cdef const Py_ssize_t *p = &program[0]
    cdef Check job
    cdef Py_ssize_t axis, plane, bad = -1
    for axis in range(3):
        job.taps[axis] = p + p[AXES + axis * AXIS_FIELDS + TAPS_AT]
        job.box[axis] = p[AXES + axis * AXIS_FIELDS + BOX]
    plane = job.taps[0][WINDOWS] * job.taps[1][WINDOWS]
    job.argmax, job.item, job.channels = &argmax[0], sizeof(index), channels
    job.rows = planes * plane
    job.size = parts_of(job.rows, helpers + 1)
    if channels == 1:
        job.size = parts_of(job.size, plane) * plane
    job.bad = False
    open_queue(&job.queue)
    with nogil:
        _crew.run(take_part_in_check, &job, helpers)
        if job.bad:
            bad = find_bad(&argmax[0], 0, job.rows, channels, job.taps, job.box)
    return bad


def let_zeros_take_part(
    const Py_ssize_t[::1] program,     # IN: of y
    Py_ssize_t planes,
    Py_ssize_t channels,
    real[::1] y,                       # INOUT
    index[::1] argmax,                 # INOUT
):
    """Turn the maximum over real taps into one in which taps outside the input are zeros.

    A zero wins over a smaller maximum, and over an equal one at a later position; then the
    result is 0 and nothing gets the gradient. A NaN wins over any zero.
    """
    cdef const Py_ssize_t *p = &program[0]
    cdef const Py_ssize_t *taps[3]
    cdef Py_ssize_t[3] box
    cdef Window[3] at
    cdef Py_ssize_t axis, n, d, h, w, c, zero, cell = 0
    cdef real value
    for axis in range(3):
        taps[axis] = p + p[AXES + axis * AXIS_FIELDS + TAPS_AT]
        box[axis] = p[AXES + axis * AXIS_FIELDS + BOX]
    with nogil:
        for n in range(planes):
            for d in range(taps[0][WINDOWS]):
                at[0] = clip(taps[0], d)
                for h in range(taps[1][WINDOWS]):
                    at[1] = clip(taps[1], h)
                    for w in range(taps[2][WINDOWS]):
                        at[2] = clip(taps[2], w)
                        cell += channels
                        # The position of the first tap, in row-major order, that is a zero.
                        if at[0].first or at[1].first or at[2].first:
                            zero = 0
                        elif at[2].count < box[2]:
                            zero = at[2].count
                        elif at[1].count < box[1]:
                            zero = at[1].count * box[2]
                        elif at[0].count < box[0]:
                            zero = at[0].count * box[1] * box[2]
                        else:
                            continue
                        for c in range(cell - channels, cell):
                            value = y[c]
                            if value < 0 or value == 0 and argmax[c] > zero:
                                y[c] = 0
                                argmax[c] = <index>-1
