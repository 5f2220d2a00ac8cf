"""All loops over array elements.

Design
------
a) Arrays come as (planes, depth, height, width * channels). Channels-last data is that already;
   channels-first data has N * C planes and one channel; missing spatial axes have size 1. The last
   axis is contiguous, so a row is one long vector whatever the number of channels.
b) A box is reduced one axis at a time, width first, by one primitive, `fold`, which combines
   vectors that lie a fixed step apart. 3 x 3 costs 3 + 3 combinations. Width first and a strict
   comparison keep the first of equal values in row-major order exactly.
c) Work is cut into tiles of the output (`Tile`), small enough for their partial results to stay in
   cache. Threads take tiles from a common counter. A tile's owner alone writes its part of the
   output, and the order of every sum follows from the geometry, so the bits of a result depend
   neither on the number of threads nor on the tiles.
d) Windows come as tap tables (see `geometry`). A tile unfolds the part that it needs, clipped to
   the input, or transposed for the gradient of a sum.
e) The gradient of a maximum goes where the argmax points. A tile of dx looks at every window that
   reaches it, in ascending order, and takes what points into it.

Nothing here checks, allocates or raises: `plan` has compared every shape before.
"""

cdef extern from *:
    """
    #if defined(_MSC_VER)
    #include <intrin.h>
    #define poolgrad_fetch_add(p, n) ((Py_ssize_t)_InterlockedExchangeAdd64((__int64 *)(p), (n)))
    #else
    #define poolgrad_fetch_add(p, n) __atomic_fetch_add((p), (n), __ATOMIC_RELAXED)
    #endif
    """
    Py_ssize_t poolgrad_fetch_add(Py_ssize_t *p, Py_ssize_t n) noexcept nogil

cdef extern from "math.h":
    const float INFINITY

ctypedef fused real:
    float
    double

# One byte while 255 taps suffice; the largest value, or -1, says "none".
ctypedef fused index:
    unsigned char
    int

# What `reduce` does with the taps of a window; `plan` passes these by name.
cpdef enum Mode:
    MAX
    ARGMAX
    MEAN      # their sum, divided by the window's divisor
    ADJOINT   # the transpose of MEAN: windows are divided, then summed over each cell they cover

# Columns of a tap table.
cdef enum:
    BASE      # first tap of the row's first window, unclipped
    TAPS      # taps of a window, unclipped
    ADVANCE   # from a window to the one a period later
    STRIDE    # between the taps of a window
    SIZE      # cells of the axis
    PERIOD    # rows of the table that count
    WINDOWS   # windows of the axis

# Columns of an unfolded table, one row a window.
cdef enum:
    START     # first tap inside the axis
    COUNT     # taps inside the axis
    STEP      # between them
    FIRST     # taps cut off in front
    NEEDED    # row i: whether cell `low + i` is a tap of any window of the tile

cdef struct Tile:
    Py_ssize_t plane
    Py_ssize_t low[3]     # first index along depth, height, width
    Py_ssize_t high[3]    # one past the last
    Py_ssize_t channel    # first channel
    Py_ssize_t channels   # number of channels

cdef struct Spot:
    # A place in an array, or a step between two places.
    Py_ssize_t plane
    Py_ssize_t depth
    Py_ssize_t height
    Py_ssize_t column


cdef inline bint beats(real value, real best) noexcept nogil:
    """Whether `value` comes to replace `best`: it is larger, or the first NaN."""
    return (not best >= value) & (best == best)


# ---------------------------------------------------------------------------------------- tiles


cdef inline bint take(
    Py_ssize_t[::1] ticket,            # INOUT (1): the next tile that nobody has taken
    const Py_ssize_t[::1] sizes,       # IN (4): a tile's depth, height, width and channels
    const Py_ssize_t[::1] shape,       # IN (5): planes, depth, height, width, channels
    Tile *tile,                        # OUT
) noexcept nogil:
    """Take the next tile of an array of `shape`; False when none is left."""
    cdef Py_ssize_t axis, many, at
    cdef Py_ssize_t i = poolgrad_fetch_add(&ticket[0], 1)
    # Channels vary fastest, planes slowest: neighbouring tiles are neighbours in memory.
    many = (shape[4] + sizes[3] - 1) // sizes[3]
    tile.channel = i % many * sizes[3]
    tile.channels = min(sizes[3], shape[4] - tile.channel)
    i //= many
    for axis in range(2, -1, -1):
        many = (shape[axis + 1] + sizes[axis] - 1) // sizes[axis]
        at = i % many * sizes[axis]
        tile.low[axis] = at
        tile.high[axis] = min(at + sizes[axis], shape[axis + 1])
        i //= many
    tile.plane = i
    return i < shape[0]


# ---------------------------------------------------------------------------------- tap tables


cdef inline Py_ssize_t first_tap(
    const Py_ssize_t[:, :, ::1] taps, Py_ssize_t axis, Py_ssize_t o
) noexcept nogil:
    """Return where the first tap of window `o` lies, be it inside the axis or not."""
    cdef Py_ssize_t period = taps[axis, 0, PERIOD]
    cdef Py_ssize_t row = o % period
    return taps[axis, row, BASE] + o // period * taps[axis, row, ADVANCE]


cdef inline void clip(
    const Py_ssize_t[:, :, ::1] taps,  # IN (3, period, 7)
    Py_ssize_t axis,
    Py_ssize_t o,
    Py_ssize_t *start,                 # OUT
    Py_ssize_t *count,                 # OUT
    Py_ssize_t *first,                 # OUT
) noexcept nogil:
    """Find the taps of window `o` that lie inside the axis."""
    cdef Py_ssize_t row = o % taps[axis, 0, PERIOD]
    cdef Py_ssize_t at = first_tap(taps, axis, o)
    cdef Py_ssize_t many = taps[axis, row, TAPS]
    cdef Py_ssize_t step = taps[axis, row, STRIDE]
    cdef Py_ssize_t size = taps[axis, row, SIZE]
    cdef Py_ssize_t front = 0
    if at < 0:
        front = min((step - 1 - at) // step, many)
    if at + (many - 1) * step >= size:
        many = (size - 1 - at) // step + 1 if at < size else 0
    start[0] = at + front * step
    count[0] = max(0, many - front)
    first[0] = front


cdef void unfold(
    const Py_ssize_t[:, :, ::1] taps,  # IN (3, period, 7)
    Py_ssize_t axis,
    Py_ssize_t low,
    Py_ssize_t high,
    Py_ssize_t[:, :, ::1] windows,     # OUT (3, any, 5): rows 0 .. high - low - 1 of the axis
) noexcept nogil:
    """Write the clipped taps of windows `low` .. `high` - 1."""
    cdef Py_ssize_t o, start, count, first
    for o in range(low, high):
        clip(taps, axis, o, &start, &count, &first)
        windows[axis, o - low, START] = start
        windows[axis, o - low, COUNT] = count
        windows[axis, o - low, STEP] = taps[axis, o % taps[axis, 0, PERIOD], STRIDE]
        windows[axis, o - low, FIRST] = first


cdef void touching(
    const Py_ssize_t[:, :, ::1] taps,  # IN (3, period, 7)
    Py_ssize_t axis,
    Py_ssize_t low,
    Py_ssize_t high,
    Py_ssize_t *least,                 # OUT
    Py_ssize_t *most,                  # OUT
) noexcept nogil:
    """Find the windows that reach cells `low` .. `high` - 1: all lie in `least` .. `most` - 1."""
    cdef Py_ssize_t period = taps[axis, 0, PERIOD]
    cdef Py_ssize_t outputs = taps[axis, 0, WINDOWS]
    cdef Py_ssize_t row, base, extent, advance, turn
    least[0] = outputs
    most[0] = 0
    for row in range(min(period, outputs)):
        base = taps[axis, row, BASE]
        extent = (taps[axis, row, TAPS] - 1) * taps[axis, row, STRIDE] + 1
        advance = taps[axis, row, ADVANCE]
        # The first turn whose last tap is at or after `low`, and the last that starts by `high`.
        turn = max(0, low - base - extent + advance) // advance
        least[0] = min(least[0], turn * period + row)
        if high - 1 >= base:
            turn = min((high - 1 - base) // advance, (outputs - 1 - row) // period)
            most[0] = max(most[0], turn * period + row + 1)
    least[0] = min(least[0], most[0])


cdef void transpose(
    const Py_ssize_t[:, :, ::1] taps,  # IN (3, period, 7)
    Py_ssize_t axis,
    Py_ssize_t low,
    Py_ssize_t high,
    Py_ssize_t[:, :, ::1] windows,     # OUT (3, any, 5): rows 0 .. high - low - 1 of the axis
) noexcept nogil:
    """Write, for each cell `low` .. `high` - 1, the windows of which it is a tap.

    They lie a fixed step apart, dilation / gcd(stride, dilation), so they too are (start, count,
    step), found by walking the windows in ascending order.
    """
    cdef Py_ssize_t o, i, j, least, most, start, count, first, step, front
    for i in range(high - low):
        windows[axis, i, START] = 0
        windows[axis, i, COUNT] = 0
        windows[axis, i, STEP] = 1
    touching(taps, axis, low, high, &least, &most)
    for o in range(least, most):
        clip(taps, axis, o, &start, &count, &first)
        step = taps[axis, o % taps[axis, 0, PERIOD], STRIDE]
        front = (low - start + step - 1) // step if start < low else 0
        for j in range(front, count):
            i = start + j * step - low
            if i >= high - low:
                break
            if windows[axis, i, COUNT] == 0:
                windows[axis, i, START] = o
            elif windows[axis, i, COUNT] == 1:
                windows[axis, i, STEP] = o - windows[axis, i, START]
            windows[axis, i, COUNT] += 1


cdef void mark(
    Py_ssize_t axis,
    Py_ssize_t n,
    Py_ssize_t[:, :, ::1] windows,     # INOUT: column NEEDED
    Py_ssize_t *low,                   # OUT
    Py_ssize_t *high,                  # OUT
) noexcept nogil:
    """Find the cells that the `n` unfolded windows of an axis use, and mark each from `low` on."""
    cdef Py_ssize_t k, j, start, count, step
    low[0] = high[0] = 0
    for k in range(n):
        start, count = windows[axis, k, START], windows[axis, k, COUNT]
        step = windows[axis, k, STEP]
        if count:
            if high[0] == 0 or start < low[0]:
                low[0] = start
            high[0] = max(high[0], start + (count - 1) * step + 1)
    for k in range(high[0] - low[0]):
        windows[axis, k, NEEDED] = False
    for k in range(n):
        start, count = windows[axis, k, START], windows[axis, k, COUNT]
        step = windows[axis, k, STEP]
        for j in range(count):
            windows[axis, start + j * step - low[0], NEEDED] = True


cdef inline bint is_identity(
    const Py_ssize_t[:, :, ::1] taps, Py_ssize_t axis
) noexcept nogil:
    """Whether window o of the axis is just cell o, so that there is nothing to reduce."""
    return (
        taps[axis, 0, PERIOD] == 1 and taps[axis, 0, BASE] == 0 and taps[axis, 0, TAPS] == 1
        and taps[axis, 0, ADVANCE] == 1 and taps[axis, 0, SIZE] == taps[axis, 0, WINDOWS]
    )


# ------------------------------------------------------------------------------------ one fold


cdef void fold(
    Mode mode,
    const real[:, :, :, ::1] x,        # IN
    const index[:, :, :, ::1] carried,  # IN, ARGMAX: the argmax so far of each value of x
    Spot at,
    Spot step,
    Py_ssize_t count,
    Py_ssize_t n,
    Py_ssize_t first,                  # ARGMAX: position of the first vector's tap on the axis
    Py_ssize_t weight,                 # ARGMAX: what a tap of this axis counts; 0: nothing carried
    real[:, :, :, ::1] y,              # OUT
    index[:, :, :, ::1] argmax,        # OUT, ARGMAX: position of each value in its box of taps
    Spot to,
) noexcept nogil:
    """Combine `count` vectors of length `n`, `step` apart from `at` on, into one at `to`."""
    cdef Py_ssize_t i, t
    cdef real value, best
    cdef index position, kept
    cdef bint replace
    if count == 0:
        for i in range(n):
            y[to.plane, to.depth, to.height, to.column + i] = \
                -INFINITY if mode <= ARGMAX else 0
        if mode == ARGMAX:
            for i in range(n):
                argmax[to.plane, to.depth, to.height, to.column + i] = <index>-1
        return
    for i in range(n):
        y[to.plane, to.depth, to.height, to.column + i] = \
            x[at.plane, at.depth, at.height, at.column + i]
    if mode == ARGMAX:
        for i in range(n):
            argmax[to.plane, to.depth, to.height, to.column + i] = <index>(
                first * max(weight, 1)
                + (carried[at.plane, at.depth, at.height, at.column + i] if weight else 0)
            )
    for t in range(1, count):
        at.depth += step.depth
        at.height += step.height
        at.column += step.column
        if mode == ARGMAX:
            position = <index>((first + t) * max(weight, 1))
            for i in range(n):
                value = x[at.plane, at.depth, at.height, at.column + i]
                best = y[to.plane, to.depth, to.height, to.column + i]
                kept = argmax[to.plane, to.depth, to.height, to.column + i]
                replace = beats(value, best)
                y[to.plane, to.depth, to.height, to.column + i] = value if replace else best
                argmax[to.plane, to.depth, to.height, to.column + i] = <index>(
                    (position + carried[at.plane, at.depth, at.height, at.column + i]
                     if weight else position)
                    if replace else kept
                )
        elif mode == MAX:
            for i in range(n):
                value = x[at.plane, at.depth, at.height, at.column + i]
                best = y[to.plane, to.depth, to.height, to.column + i]
                y[to.plane, to.depth, to.height, to.column + i] = \
                    value if beats(value, best) else best
        else:
            for i in range(n):
                y[to.plane, to.depth, to.height, to.column + i] += \
                    x[at.plane, at.depth, at.height, at.column + i]


# ------------------------------------------------------------------------------ one tile, reduced


cdef void count_taps(
    const Py_ssize_t[:, :, ::1] divisors,  # IN (3, period, 7)
    Py_ssize_t axis,
    Py_ssize_t low,
    Py_ssize_t high,
    double[:, ::1] counts,             # OUT (3, any)
) noexcept nogil:
    """Write each window's factor of the divisor; 1 where it is empty and its sum is 0 anyway."""
    cdef Py_ssize_t o, start, count, first
    for o in range(low, high):
        clip(divisors, axis, o, &start, &count, &first)
        counts[axis, o - low] = <double>max(1, count)


cdef void reduce_tile(
    Mode mode,
    const real[:, :, :, ::1] x,        # IN: x, or dy for the ADJOINT
    Py_ssize_t pitch,                  # channels of x, hence columns from cell to cell
    const Py_ssize_t[:, :, ::1] taps,  # IN (3, period, 7)
    const Py_ssize_t[:, :, ::1] divisors,  # IN (3, period, 7), for MEAN and ADJOINT
    const Py_ssize_t[::1] box,         # IN (3), ARGMAX: taps of the largest window
    Tile *tile,                        # IN: the part of the result to make
    real[:, :, :, ::1] y,              # OUT
    index[:, :, :, ::1] argmax,        # OUT, ARGMAX
    Spot origin,                       # where the tile starts in y and argmax
    Py_ssize_t y_pitch,                # columns from cell to cell there
    real[:, :, :, ::1] work,           # WORK (2, ...): reduced rows; then reduced planes
    index[:, :, :, ::1] carry,         # WORK, ARGMAX: the same shape
    real[:, :, :, ::1] line,           # WORK (1, 1, 1, any), ADJOINT: one row, divided
    double[:, ::1] counts,             # WORK (3, any), MEAN and ADJOINT
    Py_ssize_t[:, :, ::1] windows,     # WORK (3, any, 5)
) noexcept nogil:
    """Reduce all windows of a tile, or, as the ADJOINT, sum what covers each cell of it."""
    cdef Py_ssize_t axis, d, h, w, c, _, start
    cdef Py_ssize_t[3] low
    cdef Py_ssize_t[3] high
    cdef Py_ssize_t depth = tile.high[0] - tile.low[0]
    cdef Py_ssize_t height = tile.high[1] - tile.low[1]
    cdef Py_ssize_t width = tile.high[2] - tile.low[2]
    cdef Py_ssize_t dense = width * tile.channels
    cdef bint flat_depth = is_identity(taps, 0)
    cdef bint flat_height = is_identity(taps, 1)
    # A row of y is one stretch of memory if the tile has all channels, else one for each cell.
    cdef bint whole = tile.channels == y_pitch
    cdef Py_ssize_t stretches = 1 if whole else width
    cdef Py_ssize_t length = dense if whole else tile.channels
    cdef Spot at, to, step
    cdef double divisor

    for axis in range(3):
        if mode == ADJOINT:
            transpose(taps, axis, tile.low[axis], tile.high[axis], windows)
        else:
            unfold(taps, axis, tile.low[axis], tile.high[axis], windows)
        if axis < 2 or mode == ADJOINT:
            mark(axis, tile.high[axis] - tile.low[axis], windows, &low[axis], &high[axis])
        if mode == MEAN:
            count_taps(divisors, axis, tile.low[axis], tile.high[axis], counts)
        elif mode == ADJOINT:
            count_taps(divisors, axis, low[axis], high[axis], counts)

    for d in range(low[0], high[0]):
        if not windows[0, d - low[0], NEEDED]:
            continue

        # Width: row (d, h) of x -> a row of the work, or of y if that is all.
        for h in range(low[1], high[1]):
            if not windows[1, h - low[1], NEEDED]:
                continue
            if mode == ADJOINT:
                for w in range(low[2], high[2]):
                    divisor = (counts[0, d - low[0]] * counts[1, h - low[1]]
                               * counts[2, w - low[2]])
                    for c in range(tile.channels):
                        line[0, 0, 0, (w - low[2]) * tile.channels + c] = \
                            x[tile.plane, d, h, w * pitch + tile.channel + c] / <real>divisor
            to = Spot(0, d - low[0], h - low[1], 0)
            if flat_depth and flat_height:
                to = Spot(origin.plane, origin.depth + to.depth, origin.height + to.height,
                          origin.column)
            for w in range(width):
                start = windows[2, w, START]
                step = Spot(0, 0, 0, windows[2, w, STEP] * pitch)
                at = Spot(tile.plane, d, h, start * pitch + tile.channel)
                if mode == ADJOINT:
                    step = Spot(0, 0, 0, windows[2, w, STEP] * tile.channels)
                    at = Spot(0, 0, 0, (start - low[2]) * tile.channels)
                if flat_depth and flat_height:
                    fold(mode, line if mode == ADJOINT else x, carry, at, step,
                         windows[2, w, COUNT], tile.channels, windows[2, w, FIRST], 0,
                         y, argmax, to)
                    to.column += y_pitch
                else:
                    fold(mode, line if mode == ADJOINT else x, carry, at, step,
                         windows[2, w, COUNT], tile.channels, windows[2, w, FIRST], 0,
                         work, carry, to)
                    to.column += tile.channels

        # Height: the rows of plane d -> a plane of the work, or of y if depth has nothing to do.
        if flat_height:
            continue
        for h in range(height):
            step = Spot(0, 0, windows[1, h, STEP], 0)
            at = Spot(0, d - low[0], windows[1, h, START] - low[1], 0)
            if flat_depth:
                to = Spot(origin.plane, origin.depth + d - low[0], origin.height + h,
                          origin.column)
                for _ in range(stretches):
                    fold(mode, work, carry, at, step, windows[1, h, COUNT], length,
                         windows[1, h, FIRST], box[2], y, argmax, to)
                    at.column += length
                    to.column += y_pitch
            else:
                to = Spot(1, d - low[0], h, 0)
                fold(mode, work, carry, at, step, windows[1, h, COUNT], dense,
                     windows[1, h, FIRST], box[2], work, carry, to)

    # Depth: the planes -> y.
    if not flat_depth:
        for d in range(depth):
            for h in range(height):
                step = Spot(0, windows[0, d, STEP], 0, 0)
                at = Spot(0 if flat_height else 1, windows[0, d, START] - low[0], h, 0)
                to = Spot(origin.plane, origin.depth + d, origin.height + h, origin.column)
                for _ in range(stretches):
                    fold(mode, work, carry, at, step, windows[0, d, COUNT], length,
                         windows[0, d, FIRST], box[1] * box[2], y, argmax, to)
                    at.column += length
                    to.column += y_pitch

    if mode == MEAN or mode == ARGMAX:
        for d in range(depth):
            for h in range(height):
                for w in range(width):
                    at = Spot(origin.plane, origin.depth + d, origin.height + h,
                              origin.column + w * y_pitch)
                    if mode == MEAN:
                        divisor = counts[0, d] * counts[1, h] * counts[2, w]
                        for c in range(tile.channels):
                            y[at.plane, at.depth, at.height, at.column + c] /= <real>divisor
                    elif (
                        windows[0, d, COUNT] == 0 or windows[1, h, COUNT] == 0
                        or windows[2, w, COUNT] == 0
                    ):
                        # What was carried through an axis without taps means nothing.
                        for c in range(tile.channels):
                            argmax[at.plane, at.depth, at.height, at.column + c] = <index>-1


def reduce(
    Mode mode,
    const real[:, :, :, ::1] x,        # IN (planes, depth, height, width * channels)
    const Py_ssize_t[:, :, ::1] taps,
    const Py_ssize_t[:, :, ::1] divisors,
    const Py_ssize_t[::1] box,
    const Py_ssize_t[::1] shape,       # IN (5): planes, depth, height, width, channels of y
    const Py_ssize_t[::1] sizes,       # IN (4): a tile's depth, height, width, channels
    Py_ssize_t[::1] ticket,            # INOUT (1), shared by the threads
    real[:, :, :, ::1] y,              # OUT
    index[:, :, :, ::1] argmax,        # OUT
    real[:, :, :, ::1] work,
    index[:, :, :, ::1] carry,
    real[:, :, :, ::1] line,
    double[:, ::1] counts,
    Py_ssize_t[:, :, ::1] windows,
):
    """Reduce tile after tile until none is left (see `reduce_tile` for the arguments)."""
    cdef Tile tile
    cdef Spot origin
    with nogil:
        while take(ticket, sizes, shape, &tile):
            origin = Spot(tile.plane, tile.low[0], tile.low[1],
                          tile.low[2] * shape[4] + tile.channel)
            reduce_tile(mode, x, shape[4], taps, divisors, box, &tile, y, argmax, origin,
                        shape[4], work, carry, line, counts, windows)


# ------------------------------------------------------------------------ gradient of a maximum


cdef void scatter(
    const real[:, :, :, ::1] dy,       # IN
    const index[:, :, :, ::1] argmax,  # IN
    Spot origin,                       # where the windows' argmax starts
    Py_ssize_t pitch,                  # columns from cell to cell there
    const Py_ssize_t[:, :, ::1] taps,  # IN (3, period, 7)
    const Py_ssize_t[::1] box,         # IN (3)
    Tile *windows,                     # IN: the windows to look at
    Tile *tile,                        # IN: the part of dx to add to
    Py_ssize_t channels,
    real[:, :, :, ::1] dx,             # INOUT
) noexcept nogil:
    """Add to a tile of dx what of dy points into it."""
    cdef Py_ssize_t d, h, w, c, i, j, k, at
    cdef Py_ssize_t front, top, left, dense, column
    cdef unsigned int position, across = <unsigned int>box[2], down = <unsigned int>box[1]
    cdef Py_ssize_t depth_step = taps[0, 0, STRIDE]
    cdef Py_ssize_t height_step = taps[1, 0, STRIDE]
    cdef Py_ssize_t width_step = taps[2, 0, STRIDE]
    cdef index which
    for d in range(windows.low[0], windows.high[0]):
        front = first_tap(taps, 0, d)
        for h in range(windows.low[1], windows.high[1]):
            top = first_tap(taps, 1, h)
            for w in range(windows.low[2], windows.high[2]):
                left = first_tap(taps, 2, w)
                dense = origin.column + (w - windows.low[2]) * pitch
                column = w * channels + tile.channel
                for c in range(tile.channels):
                    which = argmax[origin.plane, origin.depth + d - windows.low[0],
                                   origin.height + h - windows.low[1], dense + c]
                    if which == <index>-1:
                        continue
                    position = <unsigned int>which
                    k = left + <Py_ssize_t>(position % across) * width_step
                    position = position // across
                    j = top + <Py_ssize_t>(position % down) * height_step
                    i = front + <Py_ssize_t>(position // down) * depth_step
                    if (
                        tile.low[0] <= i < tile.high[0] and tile.low[1] <= j < tile.high[1]
                        and tile.low[2] <= k < tile.high[2]
                    ):
                        at = k * channels + tile.channel + c
                        dx[tile.plane, i, j, at] += dy[tile.plane, d, h, column + c]


def max_backward(
    const real[:, :, :, ::1] dy,       # IN (planes, depth, height, width * channels)
    const real[:, :, :, ::1] x,        # IN: to find the argmax again; without planes: saved
    const index[:, :, :, ::1] saved,   # IN: the argmax; without planes: to be found again
    const Py_ssize_t[:, :, ::1] taps,  # IN (3, period, 7)
    const Py_ssize_t[::1] box,         # IN (3)
    const Py_ssize_t[::1] shape,       # IN (5): planes, depth, height, width, channels of dx
    const Py_ssize_t[::1] sizes,       # IN (4): a tile's depth, height, width, channels
    Py_ssize_t[::1] ticket,            # INOUT (1), shared by the threads
    real[:, :, :, ::1] dx,             # OUT
    real[:, :, :, ::1] y,              # WORK (1, ...): the windows that reach a tile
    index[:, :, :, ::1] argmax,        # WORK, the same shape
    real[:, :, :, ::1] work,           # WORK, as in `reduce_tile`, and all that follow
    index[:, :, :, ::1] carry,
    real[:, :, :, ::1] line,
    double[:, ::1] counts,
    Py_ssize_t[:, :, ::1] unfolded,
):
    """Make tile after tile of dx until none is left."""
    cdef Tile tile, windows
    cdef Spot origin
    cdef Py_ssize_t axis, d, h, w, c, channels = shape[4]
    with nogil:
        while take(ticket, sizes, shape, &tile):
            windows = tile
            for axis in range(3):
                touching(taps, axis, tile.low[axis], tile.high[axis],
                         &windows.low[axis], &windows.high[axis])
            for d in range(tile.low[0], tile.high[0]):
                for h in range(tile.low[1], tile.high[1]):
                    for w in range(tile.low[2], tile.high[2]):
                        for c in range(tile.channels):
                            dx[tile.plane, d, h, w * channels + tile.channel + c] = 0
            if saved.shape[0]:
                origin = Spot(tile.plane, windows.low[0], windows.low[1],
                              windows.low[2] * channels + tile.channel)
                scatter(dy, saved, origin, channels, taps, box, &windows, &tile, channels, dx)
            else:
                origin = Spot(0, 0, 0, 0)
                reduce_tile(ARGMAX, x, channels, taps, taps, box, &windows, y, argmax, origin,
                            tile.channels, work, carry, line, counts, unfolded)
                scatter(dy, argmax, origin, tile.channels, taps, box, &windows, &tile,
                        channels, dx)


# ------------------------------------------------------------------------------- argmax by itself


def first_bad(
    const index[:, :, :, ::1] argmax,  # IN (planes, depth, height, width * channels)
    Py_ssize_t channels,
    const Py_ssize_t[:, :, ::1] taps,  # IN (3, period, 7)
    const Py_ssize_t[::1] box,         # IN (3)
):
    """Return the flat place of the first value that is neither none nor a real tap, or -1."""
    cdef Py_ssize_t n, d, h, w, c, k, position, start, bad = -1
    cdef Py_ssize_t width = argmax.shape[3] // channels if channels else 0
    cdef Py_ssize_t[3] first
    cdef Py_ssize_t[3] count
    cdef index which
    with nogil:
        for n in range(argmax.shape[0]):
            for d in range(argmax.shape[1]):
                clip(taps, 0, d, &start, &count[0], &first[0])
                for h in range(argmax.shape[2]):
                    clip(taps, 1, h, &start, &count[1], &first[1])
                    for w in range(width):
                        clip(taps, 2, w, &start, &count[2], &first[2])
                        for c in range(channels):
                            which = argmax[n, d, h, w * channels + c]
                            if which == <index>-1:
                                continue
                            position = which
                            k = position % box[2] - first[2]
                            if not 0 <= k < count[2]:
                                position = -1
                            if position >= 0:
                                position = position // box[2]
                                k = position % box[1] - first[1]
                                if not 0 <= k < count[1]:
                                    position = -1
                            if position >= 0:
                                k = position // box[1] - first[0]
                                if not 0 <= k < count[0]:
                                    position = -1
                            if position < 0 and bad < 0:
                                bad = ((n * argmax.shape[1] + d) * argmax.shape[2] + h) \
                                    * argmax.shape[3] + w * channels + c
                        if bad >= 0:
                            break
                    if bad >= 0:
                        break
                if bad >= 0:
                    break
            if bad >= 0:
                break
    return bad


def let_zeros_take_part(
    real[:, :, :, ::1] y,              # INOUT (planes, depth, height, width * channels)
    index[:, :, :, ::1] argmax,        # INOUT, the same shape
    Py_ssize_t channels,
    const Py_ssize_t[:, :, ::1] taps,  # IN (3, period, 7)
    const Py_ssize_t[::1] box,         # IN (3)
):
    """Turn the maximum over real taps into one in which taps outside the input are zeros.

    A zero wins over a smaller maximum, and over an equal one at a later position; then the
    result is 0 and nothing gets the gradient. A NaN wins over any zero.
    """
    cdef Py_ssize_t n, d, h, w, c, start, zero
    cdef Py_ssize_t width = y.shape[3] // channels if channels else 0
    cdef Py_ssize_t[3] first
    cdef Py_ssize_t[3] count
    cdef real value
    with nogil:
        for n in range(y.shape[0]):
            for d in range(y.shape[1]):
                clip(taps, 0, d, &start, &count[0], &first[0])
                for h in range(y.shape[2]):
                    clip(taps, 1, h, &start, &count[1], &first[1])
                    for w in range(width):
                        clip(taps, 2, w, &start, &count[2], &first[2])
                        # The position of the first tap, in row-major order, that is a zero.
                        if first[0] or first[1] or first[2]:
                            zero = 0
                        elif count[2] < box[2]:
                            zero = count[2]
                        elif count[1] < box[1]:
                            zero = count[1] * box[2]
                        elif count[0] < box[0]:
                            zero = count[0] * box[1] * box[2]
                        else:
                            continue
                        for c in range(w * channels, (w + 1) * channels):
                            value = y[n, d, h, c]
                            if value < 0 or value == 0 and argmax[n, d, h, c] > zero:
                                y[n, d, h, c] = 0
                                argmax[n, d, h, c] = <index>-1
