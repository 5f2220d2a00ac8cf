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

    /* A choice between two numbers by their bits. Of two plain conditionals in a row, GCC 12 makes
       branches, and a loop over them is no vector any more. */
    #include <stdint.h>
    #include <string.h>
    #define POOLGRAD_CHOOSE(name, real, bits)                                                  \
        static inline real name(int condition, real yes, real no) {                            \
            bits mask = -(bits)condition, y, n;                                                \
            memcpy(&y, &yes, sizeof y);                                                        \
            memcpy(&n, &no, sizeof n);                                                         \
            n = (y & mask) | (n & ~mask);                                                      \
            memcpy(&no, &n, sizeof n);                                                         \
            return no;                                                                         \
        }
    POOLGRAD_CHOOSE(poolgrad_choose_float, float, int32_t)
    POOLGRAD_CHOOSE(poolgrad_choose_double, double, int64_t)
    """
    Py_ssize_t poolgrad_fetch_add(Py_ssize_t *p, Py_ssize_t n) noexcept nogil
    float poolgrad_choose_float(bint condition, float yes, float no) noexcept nogil
    double poolgrad_choose_double(bint condition, double yes, double no) noexcept nogil

from libc.string cimport memcpy, memset

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

# Columns of a tap table. From window to window it is ADVANCE / PERIOD cells: window o lies between
# o * ADVANCE and o * ADVANCE + TAPS, in units of 1 / PERIOD of a cell, and has all that it touches.
cdef enum:
    BASE      # first tap of window 0, unclipped
    TAPS      # taps of a window, unclipped, times PERIOD
    ADVANCE   # from a window to the one a period later
    STRIDE    # between the taps of a window; 1 where PERIOD is not
    SIZE      # cells of the axis
    PERIOD    # windows after which they repeat
    WINDOWS   # windows of the axis

# Columns of an unfolded table, one row a window.
cdef enum:
    START     # first tap inside the axis
    COUNT     # taps inside the axis
    STEP      # between them
    FIRST     # taps cut off in front
    NEEDED    # row i: whether cell `low + i` is a tap of any window of the tile
    IN_RUN    # whether the window is one of a `Run`

# Rows of a width with a longer period than this are done window by window.
cdef enum:
    MOST_RUNS = 8

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
    cdef Py_ssize_t period = taps[axis, 0, PERIOD], advance = taps[axis, 0, ADVANCE]
    if period == 1:  # mostly; divisions are slow
        return taps[axis, 0, BASE] + o * advance
    return taps[axis, 0, BASE] + o // period * advance + o % period * advance // period


cdef inline void clip(
    const Py_ssize_t[:, :, ::1] taps,  # IN (3, 1, 7)
    Py_ssize_t axis,
    Py_ssize_t o,
    Py_ssize_t *start,                 # OUT
    Py_ssize_t *count,                 # OUT
    Py_ssize_t *first,                 # OUT
) noexcept nogil:
    """Find the taps of window `o` that lie inside the axis."""
    cdef Py_ssize_t at = first_tap(taps, axis, o)
    cdef Py_ssize_t many = taps[axis, 0, TAPS]
    cdef Py_ssize_t step = taps[axis, 0, STRIDE]
    cdef Py_ssize_t size = taps[axis, 0, SIZE]
    cdef Py_ssize_t period = taps[axis, 0, PERIOD]
    cdef Py_ssize_t front = 0
    if period > 1:
        # The window starts so far into a cell, and touches all up to its end.
        many = (o % period * taps[axis, 0, ADVANCE] % period + many + period - 1) // period
    if at < 0:
        front = min((step - 1 - at) // step, many)
    if at + (many - 1) * step >= size:
        many = (size - 1 - at) // step + 1 if at < size else 0
    start[0] = at + front * step
    count[0] = max(0, many - front)
    first[0] = front


cdef void unfold(
    const Py_ssize_t[:, :, ::1] taps,  # IN (3, 1, 7)
    Py_ssize_t axis,
    Py_ssize_t low,
    Py_ssize_t high,
    Py_ssize_t[:, :, ::1] windows,     # OUT (3, any, 6): rows 0 .. high - low - 1 of the axis
) noexcept nogil:
    """Write the clipped taps of windows `low` .. `high` - 1."""
    cdef Py_ssize_t o, start, count, first
    for o in range(low, high):
        clip(taps, axis, o, &start, &count, &first)
        windows[axis, o - low, START] = start
        windows[axis, o - low, COUNT] = count
        windows[axis, o - low, STEP] = taps[axis, 0, STRIDE]
        windows[axis, o - low, FIRST] = first


cdef void touching(
    const Py_ssize_t[:, :, ::1] taps,  # IN (3, 1, 7)
    Py_ssize_t axis,
    Py_ssize_t low,
    Py_ssize_t high,
    Py_ssize_t *least,                 # OUT
    Py_ssize_t *most,                  # OUT
) noexcept nogil:
    """Find the windows that reach cells `low` .. `high` - 1: all lie in `least` .. `most` - 1."""
    cdef Py_ssize_t period = taps[axis, 0, PERIOD], advance = taps[axis, 0, ADVANCE]
    cdef Py_ssize_t extent = (taps[axis, 0, TAPS] - period) * taps[axis, 0, STRIDE] + period
    cdef Py_ssize_t before = (low - taps[axis, 0, BASE]) * period - extent
    cdef Py_ssize_t behind = (high - taps[axis, 0, BASE]) * period
    # Up to the last that starts before `high`, from the first that ends after `low`.
    most[0] = min((behind + advance - 1) // advance, taps[axis, 0, WINDOWS])
    least[0] = min(max(0, before + advance) // advance, most[0])


cdef void transpose(
    const Py_ssize_t[:, :, ::1] taps,  # IN (3, 1, 7)
    Py_ssize_t axis,
    Py_ssize_t low,
    Py_ssize_t high,
    Py_ssize_t[:, :, ::1] windows,     # OUT (3, any, 6): rows 0 .. high - low - 1 of the axis
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
        step = taps[axis, 0, STRIDE]
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


# ----------------------------------------------------------------------------------- vectors
#
# Innermost loops, on pointers: passing a memoryview copies 200 bytes, as long as many a vector.
# Whoever takes a pointer calls `check` for the far end of what will be used behind it.


cdef inline void check(const real[:, :, :, ::1] x, Spot at) noexcept nogil:
    """Have the debug build, and only that, check that a place is inside an array."""
    cdef real _ = x[at.plane, at.depth, at.height, at.column]


cdef inline real join(bint largest, real best, real value) noexcept nogil:
    """Return the larger of two values, the first of equal ones or NaNs, or their sum."""
    if not largest:
        return best + value
    if real is float:
        return poolgrad_choose_float(beats(value, best), value, best)
    else:
        return poolgrad_choose_double(beats(value, best), value, best)


cdef inline void fold_as(
    bint largest,                      # a constant to the compiler: two copies of each loop
    const real *x,                     # IN
    Py_ssize_t step,
    Py_ssize_t count,
    Py_ssize_t n,
    real *y,                           # OUT
) noexcept nogil:
    cdef Py_ssize_t i, _
    cdef const real *second
    cdef const real *third
    if count == 0:
        for i in range(n):
            y[i] = -INFINITY if largest else 0
        return
    # Several vectors at a time, so that y is stored less often. The order of a sum stays.
    if count == 1:
        memcpy(y, x, n * sizeof(real))
        return
    second = x + step
    if count == 2:
        for i in range(n):
            y[i] = join(largest, x[i], second[i])
        return
    third = second + step
    for i in range(n):
        y[i] = join(largest, join(largest, x[i], second[i]), third[i])
    x = third
    for _ in range((count - 3) // 2):
        second = x + step
        x = second + step
        for i in range(n):
            y[i] = join(largest, join(largest, y[i], second[i]), x[i])
    if count % 2 == 0:
        x += step
        for i in range(n):
            y[i] = join(largest, y[i], x[i])


cdef void fold(
    bint largest,
    const real *x,                     # IN: `count` vectors of length `n`, `step` apart
    Py_ssize_t step,
    Py_ssize_t count,
    Py_ssize_t n,
    real *y,                           # OUT: their largest elements, or their sums
) noexcept nogil:
    """Combine vectors into one."""
    if largest:
        fold_as(True, x, step, count, n, y)
    else:
        fold_as(False, x, step, count, n, y)


cdef inline void challenge(real value, int place, real *best, int *kept) noexcept nogil:
    """Replace the best value so far, and its place, if `value` beats it."""
    cdef bint replace = beats(value, best[0])
    best[0] = join(True, best[0], value)
    kept[0] = (place & -replace) | (kept[0] & ~-replace)


cdef void fold_argmax(
    const real *x,                     # IN: `count` vectors of length `n`, `step` apart
    const int *carried,                # IN: the argmax so far of each value; NULL: none yet
    Py_ssize_t step,
    Py_ssize_t count,
    Py_ssize_t n,
    Py_ssize_t first,                  # position of the first vector's tap on its axis
    Py_ssize_t weight,                 # what a tap of this axis counts in an argmax
    real *y,                           # OUT: their largest elements
    int *argmax,                       # OUT: and where these are in their boxes of taps
) noexcept nogil:
    """As `fold` for the largest, with its position."""
    cdef Py_ssize_t i, t
    cdef int place = <int>(first * weight), second = place + <int>weight
    cdef int third = second + <int>weight
    cdef real best
    cdef int kept
    if count == 0:
        for i in range(n):
            y[i] = -INFINITY
            argmax[i] = -1
        return
    # Up to three taps at a time. Two loops each, since vectors that are not there cannot be read.
    if carried == NULL:
        if count == 1:
            for i in range(n):
                y[i], argmax[i] = x[i], place
        elif count == 2:
            for i in range(n):
                best, kept = x[i], place
                challenge(x[step + i], second, &best, &kept)
                y[i], argmax[i] = best, kept
        else:
            for i in range(n):
                best, kept = x[i], place
                challenge(x[step + i], second, &best, &kept)
                challenge(x[2 * step + i], third, &best, &kept)
                y[i], argmax[i] = best, kept
    else:
        if count == 1:
            for i in range(n):
                y[i], argmax[i] = x[i], carried[i] + place
        elif count == 2:
            for i in range(n):
                best, kept = x[i], carried[i] + place
                challenge(x[step + i], carried[step + i] + second, &best, &kept)
                y[i], argmax[i] = best, kept
        else:
            for i in range(n):
                best, kept = x[i], carried[i] + place
                challenge(x[step + i], carried[step + i] + second, &best, &kept)
                challenge(x[2 * step + i], carried[2 * step + i] + third, &best, &kept)
                y[i], argmax[i] = best, kept
    for t in range(3, count):
        place = <int>((first + t) * weight)
        if carried == NULL:
            for i in range(n):
                best, kept = y[i], argmax[i]
                challenge(x[t * step + i], place, &best, &kept)
                y[i], argmax[i] = best, kept
        else:
            for i in range(n):
                best, kept = y[i], argmax[i]
                challenge(x[t * step + i], carried[t * step + i] + place, &best, &kept)
                y[i], argmax[i] = best, kept


cdef void narrow(const int *wide, Py_ssize_t n, index *argmax) noexcept nogil:
    """Store an argmax in the caller's dtype."""
    cdef Py_ssize_t i
    for i in range(n):
        argmax[i] = <index>wide[i]


# ------------------------------------------------------------------------------ one tile, reduced


cdef struct Run:
    # Windows first, first + every, ... of a row: the same count and step, starts `hop` apart.
    Py_ssize_t first
    Py_ssize_t every
    Py_ssize_t many
    Py_ssize_t hop


cdef void sweep(
    Mode mode,
    const real *x,                     # IN: a row
    Py_ssize_t pitch,                  # columns from cell to cell of x
    Py_ssize_t channels,               # of which so many matter
    const Py_ssize_t[:, :, ::1] windows,   # IN: the windows along the width
    Py_ssize_t width,                  # so many
    const Run *runs,                   # IN: those that lie regularly, if `pitch` is `channels`
    Py_ssize_t n_runs,
    real *y,                           # OUT: a row
    Py_ssize_t y_pitch,                # columns from cell to cell of y
    int *argmax,                       # OUT, ARGMAX: a row, cell beside cell
    real *values,                      # WORK: a row
    int *places,                       # WORK, ARGMAX: a row
) noexcept nogil:
    """Reduce a row along the width."""
    cdef Py_ssize_t w, k, first, start, count, step, front, length, gap
    cdef real *to
    cdef int *which
    for k in range(n_runs):
        first = runs[k].first
        start = windows[2, first, START] * channels
        count, front = windows[2, first, COUNT], windows[2, first, FIRST]
        step = windows[2, first, STEP] * channels
        # All the windows between the first and the last, whether there are such or not: one
        # long vector. Then every `hop`-th of it is a result, for every `every`-th window.
        length = ((runs[k].many - 1) * runs[k].hop + 1) * channels
        to = values
        which = places
        if runs[k].hop == 1 and runs[k].every == 1:
            to = y + first * channels
            which = argmax + first * channels
        if mode == ARGMAX:
            fold_argmax(x + start, NULL, step, count, length, front, 1, to, which)
        else:
            fold(mode == MAX, x + start, step, count, length, to)
        if to == values:
            gap = runs[k].hop * channels
            step = runs[k].every * channels
            spread(values, gap, runs[k].many, channels, y + first * channels, step)
            if mode == ARGMAX:
                spread(places, gap, runs[k].many, channels, argmax + first * channels, step)
    for w in range(width):
        if windows[2, w, IN_RUN] and n_runs:
            continue
        start = windows[2, w, START] * pitch
        count, step = windows[2, w, COUNT], windows[2, w, STEP] * pitch
        if mode == ARGMAX:
            fold_argmax(x + start, NULL, step, count, channels, windows[2, w, FIRST], 1,
                        y + w * y_pitch, argmax + w * channels)
        else:
            fold(mode == MAX, x + start, step, count, channels, y + w * y_pitch)


ctypedef fused element:
    float
    double
    int


cdef void spread(
    const element *x,                  # IN
    Py_ssize_t gap,                    # from cell to cell of x
    Py_ssize_t cells,
    Py_ssize_t channels,
    element *y,                        # OUT
    Py_ssize_t step,                   # from cell to cell of y
) noexcept nogil:
    """Copy cells that lie a fixed distance apart to where they lie another distance apart."""
    cdef Py_ssize_t i, c
    if channels == 1:
        for i in range(cells):
            y[i * step] = x[i * gap]
    elif channels == 3:
        for i in range(cells):
            for c in range(3):
                y[i * step + c] = x[i * gap + c]
    else:
        for i in range(cells):
            for c in range(channels):
                y[i * step + c] = x[i * gap + c]


cdef Py_ssize_t find_runs(
    Py_ssize_t[:, :, ::1] windows,     # INOUT: the windows along the width; column IN_RUN
    Py_ssize_t width,
    Py_ssize_t every,
    Py_ssize_t channels,
    Run *runs,                         # OUT (MOST_RUNS)
) noexcept nogil:
    """Find windows that lie regularly, where doing them in one go is worth it."""
    cdef Py_ssize_t r, w, k, count, first, many, hop, n = 0
    for w in range(width):
        windows[2, w, IN_RUN] = False
    if every > MOST_RUNS:
        return 0
    for r in range(min(every, width)):
        # The most taps of any: that of the windows that are not clipped.
        count = 0
        for k in range((width - r + every - 1) // every):
            count = max(count, windows[2, r + k * every, COUNT])
        first = r
        while first < width and windows[2, first, COUNT] < count:
            first += every
        if first + every >= width:
            continue
        hop = windows[2, first + every, START] - windows[2, first, START]
        many = 1
        w = first + every
        while (
            w < width and windows[2, w, COUNT] == count
            and windows[2, w, START] - windows[2, w - every, START] == hop
        ):
            many += 1
            w += every
        # Neighbours in memory are one vector at any number of channels. Else vectors of 8 are
        # long enough by themselves, and a wide hop would waste most of the long vector.
        if many < 4 or count == 0 or hop < 1 or not (
            hop == 1 and every == 1 or channels < 8 and hop <= 4
        ):
            continue
        runs[n] = Run(first, every, many, hop)
        n += 1
        for k in range(many):
            windows[2, first + k * every, IN_RUN] = True
    return n


cdef void count_taps(
    const Py_ssize_t[:, :, ::1] divisors,  # IN (3, 1, 7)
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


cdef void divide(
    const real *x,                     # IN: a row; may be y
    Py_ssize_t pitch,                  # columns from cell to cell of x
    double outer,                      # the divisor, but for its factor along the width
    const double[:, ::1] counts,       # IN: that factor, at `counts[2, w]`
    Py_ssize_t width,
    Py_ssize_t channels,
    real *y,                           # OUT: a row
    Py_ssize_t y_pitch,
) noexcept nogil:
    """Divide each cell of a row by its window's divisor."""
    cdef Py_ssize_t i, w = 0, many, length
    cdef real divisor
    while w < width:
        # Neighbours mostly have the same divisor: one long vector.
        many = 1
        if pitch == channels and y_pitch == channels:
            while w + many < width and counts[2, w + many] == counts[2, w]:
                many += 1
        divisor = <real>(outer * counts[2, w])
        length = many * channels
        for i in range(length):
            y[w * y_pitch + i] = x[w * pitch + i] / divisor
        w += many


cdef void stack(
    Mode mode,
    real[:, :, :, ::1] work,           # IN: reduced rows or planes; OUT: planes
    int[:, :, :, ::1] carry,           # the same, ARGMAX
    Spot at,                           # IN: the first tap there
    Spot step,                         # from tap to tap there
    Py_ssize_t count,
    Py_ssize_t first,
    Py_ssize_t weight,
    Py_ssize_t length,                 # columns of y that are neighbours
    Py_ssize_t stretches,              # so many times
    bint last,                         # whether the result goes to y
    Spot to_work,                      # else there
    real[:, :, :, ::1] y,              # OUT
    index[:, :, :, ::1] argmax,        # OUT, ARGMAX
    Spot to_y,
    Py_ssize_t y_pitch,                # from stretch to stretch of y
    int[:, ::1] places,                # WORK (2, any), ARGMAX
) noexcept nogil:
    """Reduce a row along the height or the depth."""
    cdef Py_ssize_t k
    cdef Py_ssize_t hop = (step.depth * work.shape[2] + step.height) * work.shape[3]
    cdef const real *row = NULL
    cdef const int *carried = NULL
    cdef real *to
    cdef int *which
    if not last:
        length, stretches = length * stretches, 1
    for k in range(stretches):
        if count:
            row = &work[at.plane, at.depth, at.height, k * length]
            check(work, Spot(at.plane, at.depth + (count - 1) * step.depth,
                             at.height + (count - 1) * step.height, (k + 1) * length - 1))
        if last:
            to = &y[to_y.plane, to_y.depth, to_y.height, to_y.column + k * y_pitch]
        else:
            to = &work[to_work.plane, to_work.depth, to_work.height, 0]
        if mode != ARGMAX:
            fold(mode == MAX, row, hop, count, length, to)
            continue
        if count:
            carried = &carry[at.plane, at.depth, at.height, k * length]
        if last:
            which = &places[1, 0]
        else:
            which = &carry[to_work.plane, to_work.depth, to_work.height, 0]
        fold_argmax(row, carried, hop, count, length, first, weight, to, which)
        if last:
            narrow(which, length, &argmax[to_y.plane, to_y.depth, to_y.height,
                                          to_y.column + k * y_pitch])


cdef void reduce_tile(
    Mode mode,
    const real[:, :, :, ::1] x,        # IN: x, or dy for the ADJOINT
    Py_ssize_t pitch,                  # channels of x, hence columns from cell to cell
    const Py_ssize_t[:, :, ::1] taps,  # IN (3, 1, 7)
    const Py_ssize_t[:, :, ::1] divisors,  # IN (3, 1, 7), for MEAN and ADJOINT
    const Py_ssize_t[::1] box,         # IN (3), ARGMAX: taps of the largest window
    Tile *tile,                        # IN: the part of the result to make
    real[:, :, :, ::1] y,              # OUT
    index[:, :, :, ::1] argmax,        # OUT, ARGMAX
    Spot origin,                       # where the tile starts in y and argmax
    Py_ssize_t y_pitch,                # columns from cell to cell there
    real[:, :, :, ::1] work,           # WORK (2, ...): reduced rows; then reduced planes
    int[:, :, :, ::1] carry,           # WORK, ARGMAX: the same shape
    real[:, ::1] lines,                # WORK (2, any): a divided row; a row of any window
    int[:, ::1] places,                # WORK (2, any), ARGMAX: as the latter; and a row of argmax
    double[:, ::1] counts,             # WORK (3, any), MEAN and ADJOINT
    Py_ssize_t[:, :, ::1] windows,     # WORK (3, any, 6)
) noexcept nogil:
    """Reduce all windows of a tile, or, as the ADJOINT, sum what covers each cell of it."""
    cdef Py_ssize_t axis, d, h, w, c, n_runs, row_pitch
    cdef Py_ssize_t[3] low
    cdef Py_ssize_t[3] high
    cdef Py_ssize_t depth = tile.high[0] - tile.low[0]
    cdef Py_ssize_t height = tile.high[1] - tile.low[1]
    cdef Py_ssize_t width = tile.high[2] - tile.low[2]
    cdef Py_ssize_t dense = width * tile.channels
    cdef bint flat_depth = is_identity(taps, 0)
    cdef bint flat_height = is_identity(taps, 1)
    cdef bint last
    # A row of y is one stretch of memory if the tile has all channels, else one for each cell.
    cdef bint whole = tile.channels == y_pitch
    cdef Py_ssize_t stretches = 1 if whole else width
    cdef Py_ssize_t length = dense if whole else tile.channels
    cdef const real *row
    cdef real *to
    cdef int *which
    cdef Run[MOST_RUNS] runs
    cdef Spot at, to_work, to_y
    cdef bint empty = False

    for axis in range(3):
        if mode == ADJOINT:
            transpose(taps, axis, tile.low[axis], tile.high[axis], windows)
        else:
            unfold(taps, axis, tile.low[axis], tile.high[axis], windows)
        if axis < 2 or mode == ADJOINT:
            mark(axis, tile.high[axis] - tile.low[axis], windows, &low[axis], &high[axis])
        if mode == ARGMAX:
            for w in range(tile.high[axis] - tile.low[axis]):
                empty = empty or windows[axis, w, COUNT] == 0
        if mode == MEAN:
            count_taps(divisors, axis, tile.low[axis], tile.high[axis], counts)
        elif mode == ADJOINT:
            count_taps(divisors, axis, low[axis], high[axis], counts)
    row_pitch = pitch
    if mode == ADJOINT:
        row_pitch = tile.channels
        for w in range(width):
            windows[2, w, START] -= low[2]
    n_runs = 0
    if row_pitch == tile.channels and (whole or not (flat_depth and flat_height)):
        n_runs = find_runs(windows, width, taps[2, 0, ADVANCE] if mode == ADJOINT else 1,
                           tile.channels, runs)

    for d in range(low[0], high[0]):
        if not windows[0, d - low[0], NEEDED]:
            continue

        # Width: row (d, h) of x -> a row of the work, or of y if that is all.
        last = flat_depth and flat_height
        for h in range(low[1], high[1]):
            if not windows[1, h - low[1], NEEDED]:
                continue
            if mode == ADJOINT:
                row = &lines[0, 0]
                divide(&x[tile.plane, d, h, low[2] * pitch + tile.channel], pitch,
                       counts[0, d - low[0]] * counts[1, h - low[1]], counts, high[2] - low[2],
                       tile.channels, &lines[0, 0], tile.channels)
            else:
                row = &x[tile.plane, d, h, tile.channel]
                check(x, Spot(tile.plane, d, h, taps[2, 0, SIZE] * pitch - 1))
            if last:
                check(y, Spot(origin.plane, origin.depth + d - low[0], origin.height + h - low[1],
                              origin.column + (width - 1) * y_pitch + tile.channels - 1))
                to = &y[origin.plane, origin.depth + d - low[0], origin.height + h - low[1],
                        origin.column]
                which = &places[1, 0] if mode == ARGMAX else NULL
            else:
                check(work, Spot(0, d - low[0], h - low[1], dense - 1))
                to = &work[0, d - low[0], h - low[1], 0]
                which = &carry[0, d - low[0], h - low[1], 0] if mode == ARGMAX else NULL
            sweep(mode, row, row_pitch, tile.channels, windows, width, runs, n_runs, to,
                  y_pitch if last else tile.channels, which, &lines[1, 0],
                  &places[0, 0] if mode == ARGMAX else NULL)
            if last and mode == ARGMAX:
                for w in range(stretches):
                    narrow(which + w * length, length,
                           &argmax[origin.plane, origin.depth + d - low[0],
                                   origin.height + h - low[1], origin.column + w * y_pitch])

        # Height: the rows of plane d -> a plane of the work, or of y if depth has nothing to do.
        if not flat_height:
            for h in range(height):
                at = Spot(0, d - low[0], windows[1, h, START] - low[1], 0)
                to_work = Spot(1, d - low[0], h, 0)
                to_y = Spot(origin.plane, origin.depth + d - low[0], origin.height + h,
                            origin.column)
                stack(mode, work, carry, at, Spot(0, 0, windows[1, h, STEP], 0),
                      windows[1, h, COUNT], windows[1, h, FIRST], box[2], length, stretches,
                      flat_depth, to_work, y, argmax, to_y, y_pitch, places)

    # Depth: the planes -> y.
    if not flat_depth:
        for d in range(depth):
            for h in range(height):
                at = Spot(0 if flat_height else 1, windows[0, d, START] - low[0], h, 0)
                to_y = Spot(origin.plane, origin.depth + d, origin.height + h, origin.column)
                stack(mode, work, carry, at, Spot(0, windows[0, d, STEP], 0, 0),
                      windows[0, d, COUNT], windows[0, d, FIRST], box[1] * box[2], length,
                      stretches, True, to_y, y, argmax, to_y, y_pitch, places)

    for d in range(depth):
        for h in range(height):
            at = Spot(origin.plane, origin.depth + d, origin.height + h, origin.column)
            if mode == MEAN:
                divide(&y[at.plane, at.depth, at.height, at.column], y_pitch,
                       counts[0, d] * counts[1, h], counts, width, tile.channels,
                       &y[at.plane, at.depth, at.height, at.column], y_pitch)
            elif mode == ARGMAX and empty:
                # What was carried through an axis without taps means nothing.
                for w in range(width):
                    if not (windows[0, d, COUNT] and windows[1, h, COUNT]
                            and windows[2, w, COUNT]):
                        for c in range(tile.channels):
                            argmax[at.plane, at.depth, at.height,
                                   at.column + w * y_pitch + c] = <index>-1


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
    int[:, :, :, ::1] carry,
    real[:, ::1] lines,
    int[:, ::1] places,
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
                        shape[4], work, carry, lines, places, counts, windows)


# ------------------------------------------------------------------------ gradient of a maximum


cdef void clear(
    real[:, :, :, ::1] dx,             # OUT
    Tile *tile,
    Py_ssize_t channels,
    Py_ssize_t *cleared,               # INOUT: planes, or rows of a lone plane, that are cleared
    Py_ssize_t until,
) noexcept nogil:
    """Set the planes of a tile to zero, up to `until`; or the rows, if it has a single plane."""
    cdef Py_ssize_t d, h, w, _
    cdef bint whole = tile.channels == channels
    cdef Py_ssize_t width = tile.high[2] - tile.low[2]
    cdef Py_ssize_t length = width * channels if whole else tile.channels
    cdef Py_ssize_t[2] low = [tile.low[0], tile.low[1]]
    cdef Py_ssize_t[2] high = [tile.high[0], tile.high[1]]
    cdef int axis = 1 if tile.high[0] - tile.low[0] == 1 else 0
    low[axis] = max(low[axis], cleared[0])
    high[axis] = min(high[axis], until)
    cleared[0] = max(cleared[0], until)
    for d in range(low[0], high[0]):
        for h in range(low[1], high[1]):
            w = tile.low[2] * channels + tile.channel
            for _ in range(1 if whole else width):
                memset(&dx[tile.plane, d, h, w], 0, length * sizeof(real))
                w += channels


cdef void add_at(
    real *dx,                          # INOUT: where the window's first tap is, or would be
    const Py_ssize_t *offsets,         # IN: of each tap
    const index *argmax,               # IN
    const real *dy,                    # IN
    Py_ssize_t n,
) noexcept nogil:
    """Add one window's gradients where its argmax points."""
    cdef Py_ssize_t c
    for c in range(n):
        if argmax[c] != <index>-1:
            dx[offsets[argmax[c]] + c] += dy[c]


cdef void scatter(
    const real[:, :, :, ::1] dy,       # IN
    const index[:, :, :, ::1] argmax,  # IN
    Spot origin,                       # where the windows' argmax starts
    Py_ssize_t pitch,                  # columns from cell to cell there
    const Py_ssize_t[:, :, ::1] taps,  # IN (3, 1, 7)
    const Py_ssize_t[::1] box,         # IN (3)
    const Py_ssize_t[::1] offsets,     # IN: how far each tap lies behind the first; or empty
    Tile *windows,                     # IN: the windows to look at
    Tile *tile,                        # IN: the part of dx to add to
    Py_ssize_t channels,
    real[:, :, :, ::1] dx,             # OUT
    Py_ssize_t *cleared,               # INOUT: planes, or rows of a lone plane, that are cleared
) noexcept nogil:
    """Add to a tile of dx what of dy points into it.

    Rows are cleared just before the first window that reaches them, while they come into cache.
    """
    cdef Py_ssize_t axis, d, h, w, c, i, j, k, at, base
    cdef Py_ssize_t[3] first
    cdef Py_ssize_t[3] step
    cdef Py_ssize_t[3] extent
    cdef bint[3] inside
    cdef Py_ssize_t row = dx.shape[3], plane = dx.shape[2] * dx.shape[3]
    cdef unsigned int position, across = <unsigned int>box[2], down = <unsigned int>box[1]
    cdef bint flat = tile.high[0] - tile.low[0] == 1
    cdef const index *which
    cdef const real *gradient
    cdef real *target = &dx[tile.plane, 0, 0, tile.channel]
    for axis in range(3):
        step[axis] = taps[axis, 0, STRIDE]
        extent[axis] = (box[axis] - 1) * step[axis] + 1
    for d in range(windows.low[0], windows.high[0]):
        first[0] = first_tap(taps, 0, d)
        inside[0] = within(tile, 0, dx.shape[1], first[0], extent[0])
        if not flat:
            clear(dx, tile, channels, cleared, first[0] + extent[0])
        for h in range(windows.low[1], windows.high[1]):
            first[1] = first_tap(taps, 1, h)
            inside[1] = within(tile, 1, dx.shape[2], first[1], extent[1])
            if flat:
                clear(dx, tile, channels, cleared, first[1] + extent[1])
            for w in range(windows.low[2], windows.high[2]):
                first[2] = first_tap(taps, 2, w)
                inside[2] = within(tile, 2, taps[2, 0, SIZE], first[2], extent[2])
                which = &argmax[origin.plane, origin.depth + d - windows.low[0],
                                origin.height + h - windows.low[1],
                                origin.column + (w - windows.low[2]) * pitch]
                gradient = &dy[tile.plane, d, h, w * channels + tile.channel]
                if inside[0] and inside[1] and inside[2] and offsets.shape[0]:
                    base = first[0] * plane + first[1] * row + first[2] * channels
                    add_at(target + base, &offsets[0], which, gradient, tile.channels)
                    continue
                for c in range(tile.channels):
                    if which[c] == <index>-1:
                        continue
                    position = <unsigned int>which[c]
                    k = first[2] + <Py_ssize_t>(position % across) * step[2]
                    position = position // across
                    j = first[1] + <Py_ssize_t>(position % down) * step[1]
                    i = first[0] + <Py_ssize_t>(position // down) * step[0]
                    if (
                        tile.low[0] <= i < tile.high[0] and tile.low[1] <= j < tile.high[1]
                        and tile.low[2] <= k < tile.high[2]
                    ):
                        at = k * channels + tile.channel + c
                        dx[tile.plane, i, j, at] += gradient[c]


cdef inline Py_ssize_t parts(Tile whole, Py_ssize_t axis, Py_ssize_t size) noexcept nogil:
    """Return the number of parts of at most `size` that an axis of a tile has."""
    return (whole.high[axis] - whole.low[axis] + size - 1) // size


cdef inline void next_part(
    Tile whole, Py_ssize_t axis, Py_ssize_t size, Py_ssize_t i, Tile *slab
) noexcept nogil:
    """Set an axis of a slab to the `i`-th of these parts."""
    slab.low[axis] = whole.low[axis] + i * size
    slab.high[axis] = min(whole.high[axis], slab.low[axis] + size)


cdef inline bint within(
    Tile *tile, Py_ssize_t axis, Py_ssize_t size, Py_ssize_t first, Py_ssize_t extent
) noexcept nogil:
    """Whether all taps of a window that are inside the input are inside the tile too."""
    return (
        tile.low[axis] == 0 and tile.high[axis] == size
        or tile.low[axis] <= first and first + extent <= tile.high[axis]
    )


def max_backward(
    const real[:, :, :, ::1] dy,       # IN (planes, depth, height, width * channels)
    const real[:, :, :, ::1] x,        # IN: to find the argmax again; without planes: saved
    const index[:, :, :, ::1] saved,   # IN: the argmax; without planes: to be found again
    const Py_ssize_t[:, :, ::1] taps,  # IN (3, 1, 7)
    const Py_ssize_t[::1] box,         # IN (3)
    const Py_ssize_t[::1] offsets,     # IN: how far each tap lies behind the first in dx; or empty
    const Py_ssize_t[::1] shape,       # IN (5): planes, depth, height, width, channels of dx
    const Py_ssize_t[::1] sizes,       # IN (4): a tile's depth, height, width, channels
    Py_ssize_t[::1] ticket,            # INOUT (1), shared by the threads
    real[:, :, :, ::1] dx,             # OUT
    real[:, :, :, ::1] y,              # WORK (1, ...): a slab of the windows that reach a tile
    index[:, :, :, ::1] argmax,        # WORK, the same shape
    real[:, :, :, ::1] work,           # WORK, as in `reduce_tile`, and all that follow
    int[:, :, :, ::1] carry,
    real[:, ::1] lines,
    int[:, ::1] places,
    double[:, ::1] counts,
    Py_ssize_t[:, :, ::1] unfolded,
):
    """Make tile after tile of dx until none is left."""
    cdef Tile tile, windows, slab
    cdef Spot origin
    cdef Py_ssize_t axis, d, h, w, cleared, channels = shape[4]
    with nogil:
        while take(ticket, sizes, shape, &tile):
            cleared = 0
            windows = tile
            for axis in range(3):
                touching(taps, axis, tile.low[axis], tile.high[axis],
                         &windows.low[axis], &windows.high[axis])
            if saved.shape[0]:
                origin = Spot(tile.plane, windows.low[0], windows.low[1],
                              windows.low[2] * channels + tile.channel)
                scatter(dy, saved, origin, channels, taps, box, offsets, &windows, &tile,
                        channels, dx, &cleared)
            else:
                slab = windows
                origin = Spot(0, 0, 0, 0)
                for d in range(parts(windows, 0, y.shape[1])):
                    next_part(windows, 0, y.shape[1], d, &slab)
                    for h in range(parts(windows, 1, y.shape[2])):
                        next_part(windows, 1, y.shape[2], h, &slab)
                        for w in range(parts(windows, 2, y.shape[3] // sizes[3])):
                            next_part(windows, 2, y.shape[3] // sizes[3], w, &slab)
                            reduce_tile(ARGMAX, x, channels, taps, taps, box, &slab, y, argmax,
                                        origin, tile.channels, work, carry, lines, places,
                                        counts, unfolded)
                            scatter(dy, argmax, origin, tile.channels, taps, box, offsets, &slab,
                                    &tile, channels, dx, &cleared)
            clear(dx, &tile, channels, &cleared, max(tile.high[0], tile.high[1]))


# ------------------------------------------------------------------------------- argmax by itself


cdef inline bint all_below(
    const index *argmax, Py_ssize_t n, Py_ssize_t taps
) noexcept nogil:
    """Whether each value is none or the position of one of so many taps."""
    cdef Py_ssize_t i
    cdef int bad = 0
    cdef index limit = <index>taps  # at most the value that says none
    for i in range(n):
        bad |= (argmax[i] != <index>-1) & ((argmax[i] >= limit) | (argmax[i] < 0))
    return not bad


def first_bad(
    const index[:, :, :, ::1] argmax,  # IN (planes, depth, height, width * channels)
    Py_ssize_t channels,
    const Py_ssize_t[:, :, ::1] taps,  # IN (3, 1, 7)
    const Py_ssize_t[::1] box,         # IN (3)
):
    """Return the flat place of the first value that is neither none nor a real tap, or -1."""
    cdef Py_ssize_t n, d, h, w, c, k, position, start, bad = -1
    cdef Py_ssize_t taps_in_all = box[0] * box[1] * box[2]
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
                        if (
                            count[0] == box[0] and count[1] == box[1] and count[2] == box[2]
                            and all_below(&argmax[n, d, h, w * channels], channels, taps_in_all)
                        ):
                            continue
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
    const Py_ssize_t[:, :, ::1] taps,  # IN (3, 1, 7)
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
