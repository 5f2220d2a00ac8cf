# The gradient of a maximum.

from poolgrad cimport _crew

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

cdef enum:
    MOST_OFFSETS = 65536  # of a table; windows with more taps do without
    SMALL = 4096          # elements that become 0 in one go
    TABLE = 256           # values of a byte


cdef inline void add_apart(
    real *dx, Py_ssize_t cells, const Py_ssize_t *offsets, const index *which, const real *dy,
    Py_ssize_t windows
) noexcept nogil:
    """Add four gradients, so many windows apart, where their argmax points, so many cells apart.

    They go to four places, as the compiler cannot know: so all are read before one is written.
    """
    cdef Py_ssize_t a = offsets[which[0]], b = offsets[which[windows]]
    cdef Py_ssize_t c = offsets[which[2 * windows]], d = offsets[which[3 * windows]], k
    cdef real one, two, three, four
    if (a | b | c | d) < 0:  # one points nowhere
        for k in range(4):
            a = offsets[which[k * windows]]
            if a >= 0:
                dx[k * cells + a] += dy[k * windows]
        return
    b, c, d = b + cells, c + 2 * cells, d + 3 * cells
    one, two = dx[a] + dy[0], dx[b] + dy[windows]
    three, four = dx[c] + dy[2 * windows], dx[d] + dy[3 * windows]
    dx[a], dx[b], dx[c], dx[d] = one, two, three, four


cdef inline void add_at(
    real *dx, const Py_ssize_t *offsets, const index *which, const real *dy, Py_ssize_t n,
    bint all_in, Py_ssize_t base, Py_ssize_t low, Py_ssize_t high
) noexcept nogil:
    """Add neighbouring gradients where their argmax points, if that is in dx."""
    cdef Py_ssize_t i = 0, at
    while all_in and i + 4 <= n:
        add_apart(dx + base + i, 1, offsets, which + i, dy + i, 1)
        i += 4
    while i < n:
        if which[i] != <index>-1:
            at = base + i + offsets[which[i]]
            if all_in or low <= at < high:
                dx[at] += dy[i]
        i += 1


cdef inline real *place_of(real *dx, Py_ssize_t at, real *elsewhere) noexcept nogil:
    """Return where an element is, or elsewhere if that is negative; a branch would take longer."""
    cdef Py_ssize_t outside = -<Py_ssize_t>(at < 0)
    return <real *>((<Py_ssize_t>(dx + at) & ~outside) | (<Py_ssize_t>elsewhere & outside))


cdef inline void add_within(
    real *dx, const Py_ssize_t *offsets, const index *which, const real *dy, Py_ssize_t n
) noexcept nogil:
    """As `add_at`, where the offsets of taps that are not in dx are negative."""
    cdef Py_ssize_t i = 0
    cdef real *a
    cdef real *b
    cdef real *c
    cdef real *d
    cdef real one, two, three, four
    cdef real[4] elsewhere
    for i in range(4):
        elsewhere[i] = 0
    i = 0
    while i + 4 <= n:
        a = place_of(dx + i, offsets[which[i]], elsewhere)
        b = place_of(dx + i + 1, offsets[which[i + 1]], elsewhere + 1)
        c = place_of(dx + i + 2, offsets[which[i + 2]], elsewhere + 2)
        d = place_of(dx + i + 3, offsets[which[i + 3]], elsewhere + 3)
        one, two, three, four = a[0] + dy[i], b[0] + dy[i + 1], c[0] + dy[i + 2], d[0] + dy[i + 3]
        a[0], b[0], c[0], d[0] = one, two, three, four
        i += 4
    while i < n:
        if offsets[which[i]] >= 0:
            dx[i + offsets[which[i]]] += dy[i]
        i += 1


cdef inline void add_cells(
    real *dx, const Py_ssize_t *offsets, const index *which, const real *dy, Py_ssize_t n,
    Py_ssize_t step, Py_ssize_t channels, bint all_in, Py_ssize_t base, Py_ssize_t low,
    Py_ssize_t high
) noexcept nogil:
    """As `add_at`, for windows of few channels, `step` cells apart."""
    cdef Py_ssize_t i
    for i in range(n):
        add_at(dx, offsets, which, dy, channels, all_in, base, low, high)
        which += channels
        dy += channels
        base += step * channels


cdef inline void add_along(
    real *dx, const Py_ssize_t *offsets, const index *which, const real *dy, Py_ssize_t n,
    Py_ssize_t step, bint all_in, Py_ssize_t base, Py_ssize_t low, Py_ssize_t high
) noexcept nogil:
    """As `add_at`, for neighbouring windows, which often have the same largest element.

    To add to memory what has just been written there takes several times as long as to a register.
    """
    cdef Py_ssize_t i, at, last = -1
    cdef real sum = 0
    for i in range(n):
        if which[i] != <index>-1:
            at = base + i * step + offsets[which[i]]
            if all_in or low <= at < high:
                if at != last:
                    if last >= 0:
                        dx[last] = sum
                    sum = dx[at]
                    last = at
                sum = sum + dy[i]
    if last >= 0:
        dx[last] = sum


cdef void add_four(
    real *dx, Py_ssize_t cells, const Py_ssize_t *offsets, const index *which, const real *dy,
    Py_ssize_t windows, Py_ssize_t n, Py_ssize_t step, Py_ssize_t base
) noexcept nogil:
    """As `add_at`, in four planes at once, of so many cells and windows.

    Neighbouring windows often have the same largest element, and each addition to it has to wait
    for the last one. Those of other planes need not. Bytes have a table for each of the planes.
    """
    cdef Py_ssize_t i, a, b, c, d, k
    cdef real one, two, three, four
    dx += base
    for i in range(n):
        if index is int:
            add_apart(dx, cells, offsets, which + i, dy + i, windows)
        else:
            a, b = offsets[TABLE + which[i]], offsets[2 * TABLE + which[i + windows]]
            c = offsets[3 * TABLE + which[i + 2 * windows]]
            d = offsets[4 * TABLE + which[i + 3 * windows]]
            if (a | b | c | d) < 0:  # one points nowhere
                for k in range(4):
                    a = offsets[(1 + k) * TABLE + which[i + k * windows]]
                    if a >= 0:
                        dx[a] += dy[i + k * windows]
            else:
                one, two = dx[a] + dy[i], dx[b] + dy[i + windows]
                three, four = dx[c] + dy[i + 2 * windows], dx[d] + dy[i + 3 * windows]
                dx[a], dx[b], dx[c], dx[d] = one, two, three, four
        dx += step


cdef inline void set_to_zero(
    real *dx, Py_ssize_t first, Py_ssize_t last, Py_ssize_t size, Py_ssize_t planes,
    Py_ssize_t channels, Py_ssize_t many
) noexcept nogil:
    """Set elements of planes, of so many cells, to 0: all channels, or the first so many."""
    cdef Py_ssize_t n, at
    for n in range(planes):
        if many == channels:
            memset(dx + n * size * channels + first, 0, (last - first) * sizeof(real))
        else:
            for at in range((last - first) // channels):
                memset(dx + n * size * channels + first + at * channels, 0, many * sizeof(real))


cdef void near_offsets(
    const Py_ssize_t *forward, const Py_ssize_t *offsets, Py_ssize_t deep, Py_ssize_t high,
    Py_ssize_t low_row, Py_ssize_t high_row, Py_ssize_t *near
) noexcept nogil:
    """Copy the offsets of taps that lie in some rows of x; those of others, and none, are -1."""
    cdef const Py_ssize_t *box = forward + AXES + BOX
    cdef const Py_ssize_t *depth = forward + forward[AXES + TAPS_AT]
    cdef const Py_ssize_t *height = forward + forward[AXES + AXIS_FIELDS + TAPS_AT]
    cdef Py_ssize_t wide = box[2 * AXIS_FIELDS], d, h, row, k = 0
    memset(near, -1, 256 * sizeof(Py_ssize_t))
    for d in range(box[0]):
        for h in range(box[AXIS_FIELDS]):
            row = (deep + d * depth[STRIDE]) * height[SIZE] + high + h * height[STRIDE]
            if low_row <= row < high_row:
                memcpy(near + k, offsets + k, wide * sizeof(Py_ssize_t))
            k += wide


cdef void scatter(
    const Py_ssize_t *program,
    const Py_ssize_t *forward,         # IN: the program of the windows
    const Py_ssize_t *offsets,         # IN: how far each tap lies behind the first in dx; or NULL
    const real *dy,                    # IN
    Spot *which,                       # IN
    Tile *tile,                        # IN: the part of dx to make: one stretch, or some channels
    Py_ssize_t[3] least,               # IN: the windows that may reach it
    Py_ssize_t[3] most,
    Py_ssize_t plane,
    Py_ssize_t planes,                 # 1; or 4 whole ones, of one channel
    bint clear,                        # whether this is the first time
    real *dx,                          # INOUT: the array
    Space *space,                      # INOUT: what is fetched meanwhile
    index _index,
) noexcept nogil:
    """Add each window's gradient where its argmax points."""
    cdef const Py_ssize_t *taps[3]
    cdef Py_ssize_t[3] cells
    cdef Py_ssize_t axis, d, h, w, at, deep, high, bottom, first, last, base, row, many, n
    cdef Py_ssize_t channels = program[CHANNELS], size, done, reach
    cdef bint whole = True, all_in, apart, by_rows
    cdef Py_ssize_t[256] near
    cdef const index *argmax
    cdef const real *gradient
    for axis in range(3):
        taps[axis] = forward + forward[AXES + axis * AXIS_FIELDS + TAPS_AT]
        cells[axis] = taps[axis][SIZE]
        whole = whole and tile.low[axis] == 0 and tile.high[axis] == cells[axis]
    apart = taps[2][PARTS] != 1
    dx += plane * cells[0] * cells[1] * cells[2] * channels + tile.channel
    first = ((tile.low[0] * cells[1] + tile.low[1]) * cells[2] + tile.low[2]) * channels
    last = ((((tile.high[0] - 1) * cells[1] + tile.high[1] - 1) * cells[2]) + tile.high[2]) \
        * channels
    size = cells[0] * cells[1] * cells[2]
    # Rows of one tile's part are told from others' by their taps, be it one of few.
    by_rows = offsets != NULL and sizeof(index) == 1 and (
        tile.low[2] == 0 and tile.high[2] == cells[2] and tile.channels >= 4
    )
    done = first if clear else last
    if clear and planes * size * channels <= SMALL:
        set_to_zero(dx, first, last, size, planes, channels, tile.channels)
        done = last
    for d in range(least[0], most[0]):
        row = look_up(taps[0], d, &deep, &many)[STRIDE]
        bottom = deep + (many - 1) * row
        for h in range(least[1], most[1]):
            row = look_up(taps[1], h, &high, &many)[STRIDE]
            reach = min(bottom * cells[1] + high + (many - 1) * row, cells[0] * cells[1] - 1) + 1
            reach = reach * cells[2] * channels
            at = (max(0, deep) * cells[1] + max(0, high)) * cells[2] * channels
            all_in = whole or first <= at and reach <= last
            # What these windows can reach becomes 0 just before, while it is near in the cache.
            reach = min(last, reach)
            if reach > done:
                set_to_zero(dx, done, reach, size, planes, channels, tile.channels)
                done = reach
            if by_rows and not all_in:
                near_offsets(forward, offsets, deep, high, first // (cells[2] * channels),
                             last // (cells[2] * channels), near)
            high = (deep * cells[1] + high) * cells[2]
            argmax = <const index *>which.at + (
                (plane - which.origin[0]) * which.pitch[0] + (d - which.origin[1]) * which.pitch[1]
                + (h - which.origin[2]) * which.pitch[2]
            )
            gradient = dy + (
                ((plane * taps[0][WINDOWS] + d) * taps[1][WINDOWS] + h) * taps[2][WINDOWS]
            ) * channels + tile.channel
            if channels == 1 and not apart and offsets != NULL:
                base = high + taps[2][BASE] + least[2] * taps[2][ADVANCE]
                n = most[2] - least[2]
                if planes == 4:
                    fetch_share(1, space)
                    add_four(dx, size, offsets, argmax + least[2], gradient + least[2],
                             taps[0][WINDOWS] * taps[1][WINDOWS] * taps[2][WINDOWS], n,
                             taps[2][ADVANCE], base)
                elif all_in:
                    add_along(dx, offsets, argmax + least[2], gradient + least[2], n,
                              taps[2][ADVANCE], True, base, 0, 0)
                else:
                    add_along(dx, offsets, argmax + least[2], gradient + least[2], n,
                              taps[2][ADVANCE], False, base, first, last)
                continue
            if channels < LANES and tile.channels == channels and not apart and offsets != NULL:
                base = (high + taps[2][BASE] + least[2] * taps[2][ADVANCE]) * channels
                n = most[2] - least[2]
                if all_in:
                    add_cells(dx, offsets, argmax + least[2] * channels,
                              gradient + least[2] * channels, n, taps[2][ADVANCE], channels, True,
                              base, 0, 0)
                else:
                    add_cells(dx, offsets, argmax + least[2] * channels,
                              gradient + least[2] * channels, n, taps[2][ADVANCE], channels, False,
                              base, first, last)
                continue
            for w in range(least[2], most[2]):
                base = (high + first_tap(taps[2], w)) * channels
                if tile.channels < channels:
                    # What is next of these channels is not next in memory.
                    for n in range(tile.channels * <Py_ssize_t>sizeof(real) // 64):
                        poolgrad_prefetch(<const char *>(gradient + (w + 2) * channels) + 64 * n)
                    for n in range((tile.channels * <Py_ssize_t>sizeof(index) + 63) // 64):
                        poolgrad_prefetch(<const char *>(argmax + (w + 2) * which.cell) + 64 * n)
                if offsets == NULL:
                    for n in range(tile.channels):
                        if argmax[w * which.cell + n] != <index>-1:
                            at = base + n + offset_of(
                                forward, channels, argmax[w * which.cell + n])
                            if all_in or first <= at < last:
                                dx[at] += gradient[w * channels + n]
                elif all_in:
                    add_at(dx, offsets, argmax + w * which.cell, gradient + w * channels,
                           tile.channels, True, base, 0, 0)
                elif by_rows:
                    add_within(dx + base, near, argmax + w * which.cell, gradient + w * channels,
                               tile.channels)
                else:
                    add_at(dx, offsets, argmax + w * which.cell, gradient + w * channels,
                           tile.channels, False, base, first, last)
    if done < last:
        set_to_zero(dx, done, last, size, planes, channels, tile.channels)


cdef inline bint covers(const Py_ssize_t *forward) noexcept nogil:
    """Return whether windows that share no cell have all cells among them."""
    cdef const Py_ssize_t *taps = NULL
    cdef int axis
    for axis in range(3):
        taps = forward + forward[AXES + axis * AXIS_FIELDS + TAPS_AT]
        if taps[WINDOWS] * taps[TAPS] != taps[SIZE]:
            return False
    return True


cdef bint share_none(const Py_ssize_t *forward, Py_ssize_t channels) noexcept nogil:
    """Whether windows share no cell, and lie side by side in a row; of one channel, in pairs."""
    cdef const Py_ssize_t *taps = NULL
    cdef int axis
    cdef Py_ssize_t high = (forward + forward[AXES + AXIS_FIELDS + TAPS_AT])[WINDOWS]
    for axis in range(3):
        taps = forward + forward[AXES + axis * AXIS_FIELDS + TAPS_AT]
        if not (
            taps[PARTS] == taps[PERIOD] == taps[STRIDE] == 1 and taps[BASE] == 0
            and taps[TAPS] <= taps[ADVANCE]
            and (taps[WINDOWS] - 1) * taps[ADVANCE] + taps[TAPS] <= taps[SIZE]
        ):
            return False
    return taps[TAPS] == taps[ADVANCE] and (
        channels > 1 or taps[TAPS] == 2 and (
            taps[WINDOWS] >= LANES or covers(forward) and high > 1 and 2 * taps[WINDOWS] >= LANES
        )
    )


cdef inline flags points_at(const index *x, Py_ssize_t place) noexcept nogil:
    """Return which of so many windows' argmax is a tap."""
    if index is int:
        return equal_ints(x, place)
    else:
        return equal_bytes(x, place)


cdef inline mask widened(const index *x) noexcept nogil:
    """Return so many windows' argmax, a lane each."""
    if index is int:
        return widen_ints(x)
    else:
        return widen_bytes(x)


cdef inline void route_row_of_pairs(
    const real *dy, const index *argmax, Py_ssize_t n, Py_ssize_t place, bint more, real *dx
) noexcept nogil:
    """Write the row of dx that has tap `place` of each of n windows, and the next one.

    A row shorter than a vector reaches into the next one, which is written after it; if there is
    none, it is made with the end of the one before, and copied.
    """
    cdef Py_ssize_t i = 0, last = n - LANES if n >= LANES or not more else n
    cdef vec v, one, two
    cdef real[32] both  # two vectors, of up to 16 elements
    while i < n:
        i = min(i, last)  # the last vector may overlap the one before
        v = load(dy + i)
        # 0 is added, here too: then no -0.0 is left.
        one = add_where(points_at(argmax + i, place), v, splat(0))
        two = add_where(points_at(argmax + i, place + 1), v, splat(0))
        if i < 0:
            store(both, first_in_turn(one, two))
            store(both + LANES, second_in_turn(one, two))
            memcpy(dx, both - 2 * i, 2 * n * sizeof(real))
            return
        store(dx + 2 * i, first_in_turn(one, two))
        store(dx + 2 * i + LANES, second_in_turn(one, two))
        i += LANES


cdef inline void route_row(
    const real *dy, const index *argmax, Py_ssize_t n, Py_ssize_t channels, Py_ssize_t taps,
    Py_ssize_t place, bint more, real *dx
) noexcept nogil:
    """Write the row of dx that has the taps from `place` on of each of n windows.

    A vector may reach into the next cell, which is written after it; in the last windows of a row,
    into the next row, if there is more.
    """
    cdef Py_ssize_t w, c, t, last = n
    cdef real share
    if not more and channels % LANES:
        last = max(0, n - 1 - (LANES - 1) // channels)
    for w in range(last):
        for t in range(taps):
            c = 0
            while c < channels:
                store(dx + c, add_where(points_at(argmax + c, place + t), load(dy + c), splat(0)))
                c += LANES
            dx += channels
        dy += channels
        argmax += channels
    for w in range(last, n):
        for t in range(taps):
            for c in range(channels):
                share = dy[c]
                dx[c] = 0 + (share if argmax[c] == <index>(place + t) else 0)
            dx += channels
        dy += channels
        argmax += channels


cdef enum:
    MOST_WOVEN = 32

cdef struct Weave:
    # How vectors of a row of dx are made of a row of dy, where windows lie side by side.
    Py_ssize_t many                  # vectors; then it begins anew, with what is
    Py_ssize_t step                  # so many elements of dy further
    Py_ssize_t[MOST_WOVEN] start     # the elements of dy that each is made of,
    bits[MOST_WOVEN * 16] order      # the place of each lane's among these,
    bits[MOST_WOVEN * 16] tap        # and its tap in the row


cdef bint weave(const Py_ssize_t *taps, Py_ssize_t channels, Weave *woven) noexcept nogil:
    """Write that of windows along the width, if a vector has room for more than one cell."""
    cdef Py_ssize_t length = taps[TAPS] * channels, k, i, at
    woven.many = 1
    if LANES < 8 or channels == 1 or channels >= LANES or taps[WINDOWS] * channels < LANES:
        return False
    # A short row has less than there are before it begins anew.
    while woven.many * LANES % length and woven.many * LANES < taps[WINDOWS] * length:
        woven.many += 1
        if woven.many > MOST_WOVEN:
            return False
    woven.step = woven.many * LANES // length * channels
    for k in range(woven.many):
        woven.start[k] = taps[WINDOWS] * channels
        for i in range(k * LANES, (k + 1) * LANES):
            at = i // length * channels + i % channels
            woven.start[k] = min(woven.start[k], at)
            woven.order[i], woven.tap[i] = at, i % length // channels
        # They are LANES neighbours at most: a cell's channels are once as many, and a window's
        # taps more than that.
        for i in range(k * LANES, (k + 1) * LANES):
            woven.order[i] -= woven.start[k]
    return True


cdef inline vec woven_vector(
    const real *dy, const index *argmax, mask order, mask tap
) noexcept nogil:
    """Return dx for lanes that have a tap each, given which elements of dy theirs are."""
    return add_where(
        equal_bits(permute_bits(widened(argmax), order), tap), permute(load(dy), order), splat(0)
    )


cdef inline void route_row_woven(
    const real *dy, const index *argmax, Py_ssize_t n, Py_ssize_t taps, Py_ssize_t place,
    bint more, const Weave *woven, real *dx
) noexcept nogil:
    """Write the row of dx that has so many taps, from `place` on, of each of n elements of dy.

    Vectors may reach into the next rows if there are more.
    """
    cdef Py_ssize_t i, k, at, back, end = n * taps
    # To the compiler, what is stored might be part of these.
    cdef Py_ssize_t many = woven.many, step = woven.step
    cdef mask order, tap
    cdef real[16] rest
    for k in range(many):
        order = load_bits(woven.order + k * LANES)
        tap = add_bits(load_bits(woven.tap + k * LANES), splat_bits(<bits>place))
        i, at = k * LANES, woven.start[k]
        while i < end and (more or i + LANES <= end and at + LANES <= n):
            store(dx + i, woven_vector(dy + at, argmax + at, order, tap))
            i += many * LANES
            at += step
        while i < end:
            # What would reach behind the row of dy begins sooner; behind that of dx, it is copied.
            back = max(0, at + LANES - n)
            order = add_bits(order, splat_bits(<bits>back))
            at -= back
            store(rest, woven_vector(dy + at, argmax + at, order, tap))
            memcpy(dx + i, rest, min(LANES, end - i) * sizeof(real))
            i += many * LANES
            at += step


cdef inline void route_apart_as(
    const Py_ssize_t *forward,         # IN: the program of the windows
    Py_ssize_t channels,
    const real *dy,                    # IN: a plane
    const index *argmax,               # IN
    const Weave *woven,                # or NULL
    const Tile *tile,                  # which rows of cells to write
    real *dx,                          # OUT: a plane
) noexcept nogil:
    """Write rows of a plane of dx, each cell of which is under one window at most."""
    cdef const Py_ssize_t *deep = forward + forward[AXES + TAPS_AT]
    cdef const Py_ssize_t *high = forward + forward[AXES + AXIS_FIELDS + TAPS_AT]
    cdef const Py_ssize_t *wide = forward + forward[AXES + 2 * AXIS_FIELDS + TAPS_AT]
    # To the compiler, what is stored might be part of the program.
    cdef Py_ssize_t height = high[SIZE], bands = high[WINDOWS], rows = high[TAPS]
    cdef Py_ssize_t across = wide[TAPS], n = wide[WINDOWS] * channels, every = high[ADVANCE]
    cdef Py_ssize_t length = wide[SIZE] * channels, rest = length - n * across
    cdef Py_ssize_t low = tile.low[1], end = tile.high[1], windows = deep[WINDOWS] * bands
    cdef Py_ssize_t i, k, d, h, w, tap, place
    cdef real *to
    cdef bint inside, more
    # A vector that reaches behind a row must end in the next one; of one channel, it is of pairs.
    cdef bint long_enough = covers(forward) and (n >= LANES or channels == 1)
    for k in range(tile.low[0], tile.high[0]):
        d = k // deep[ADVANCE]
        inside = d < deep[WINDOWS] and k - d * deep[ADVANCE] < deep[TAPS]
        h, tap = low // every, low % every
        # Row after row: memory that is written in order is written sooner.
        for i in range(low, end):
            to = dx + (k * height + i) * length
            if inside and h < bands and tap < rows:
                w = d * bands + h
                place = ((k - d * deep[ADVANCE]) * rows + tap) * across
                more = long_enough and i + 1 < end and w + 1 < windows
                if channels == 1:
                    route_row_of_pairs(dy + w * n, argmax + w * n, n, place, more, to)
                elif woven != NULL:
                    route_row_woven(dy + w * n, argmax + w * n, n, across, place, more, woven, to)
                else:
                    route_row(dy + w * n, argmax + w * n, wide[WINDOWS], channels, across, place,
                              more, to)
                if rest:
                    memset(to + n * across, 0, rest * sizeof(real))
            else:
                memset(to, 0, length * sizeof(real))
            tap += 1
            if tap == every:
                h, tap = h + 1, 0


cdef void route_apart(
    const Py_ssize_t *forward, Py_ssize_t channels, const real *dy, const index *argmax,
    const Weave *woven, const Tile *tile, real *dx
) noexcept nogil:
    if channels == 1:
        route_apart_as(forward, 1, dy, argmax, NULL, tile, dx)
    else:
        route_apart_as(forward, channels, dy, argmax, woven, tile, dx)


cdef enum:
    MOST_ABOVE = 8  # rows of windows above a row of cells, of those that `route_twos` makes


cdef struct Turns:
    # The lanes of two vectors of as many cells as there is room for, these cells in turn: of the
    # first vector of them, and of the one that ends with the last.
    bits[16] first
    bits[16] second


cdef bint lap_by_one(const Py_ssize_t *forward, Py_ssize_t channels) noexcept nogil:
    """Whether windows of few channels have 3 taps in a row, 2 apart, so that every other is shared.

    Rows of windows may lie as they like, if few reach a cell. With vectors of 4, and in short rows,
    windows that look for their cells take less.
    """
    cdef const Py_ssize_t *taps = NULL
    cdef Py_ssize_t above = 1
    cdef int axis
    for axis in range(3):
        taps = forward + forward[AXES + axis * AXIS_FIELDS + TAPS_AT]
        if not taps[PARTS] == taps[PERIOD] == taps[STRIDE] == 1:
            return False
        if axis < 2:
            above *= (taps[TAPS] + taps[ADVANCE] - 1) // taps[ADVANCE]
    return (
        (channels == 1 and LANES >= 8 or 1 < channels <= MOST_PICKED) and above <= MOST_ABOVE
        and taps[TAPS] == 3 and taps[ADVANCE] == 2 and taps[WINDOWS] * channels >= 4 * LANES
        and -1 <= taps[BASE] <= 0 and taps[BASE] + (taps[WINDOWS] - 1) * 2 < taps[SIZE]
    )


cdef inline vec routed(
    const real *dy, const index *argmax, Py_ssize_t rows, const Py_ssize_t *starts,
    const Py_ssize_t *places, Py_ssize_t tap, Py_ssize_t at
) noexcept nogil:
    """Return what a tap has of the elements from `at` on."""
    cdef vec sum = splat(0)
    cdef Py_ssize_t k
    for k in range(rows):
        sum = add_where(
            points_at(argmax + starts[k] + at, places[k] + tap), load(dy + starts[k] + at), sum
        )
    return sum


cdef inline void routed_in_turn(
    const real *dy, const index *argmax, Py_ssize_t rows, const Py_ssize_t *begin,
    const Py_ssize_t *place, Py_ssize_t channels, Py_ssize_t i, vec *one, vec *two
) noexcept nogil:
    """Write what tap 1 has of the elements from i on; and tap 2, tap 0 of the next ones."""
    cdef vec v
    cdef Py_ssize_t k
    one[0] = two[0] = splat(0)
    for k in range(rows):
        v = load(dy + begin[k] + i)
        one[0] = add_where(points_at(argmax + begin[k] + i, place[k] + 1), v, one[0])
        two[0] = add_where(points_at(argmax + begin[k] + i, place[k] + 2), v, two[0])
        v = load(dy + begin[k] + i + channels)
        two[0] = add_where(points_at(argmax + begin[k] + i + channels, place[k]), v, two[0])


cdef inline void route_row_of_twos(
    const real *dy,                    # IN: of n windows from each of the starts on
    const index *argmax,               # IN
    Py_ssize_t rows,
    const Py_ssize_t *starts,
    const Py_ssize_t *places,          # IN: of the first tap of each row in this one
    Py_ssize_t n,
    Py_ssize_t channels,
    Py_ssize_t front,                  # cells of padding: 0 or 1
    Py_ssize_t size,
    const Turns *turns,                # unless there is one channel
    real *dx,                          # OUT: a row
) noexcept nogil:
    """Write a row of dx: tap 1 of a window and tap 2, which is tap 0 of the next, in turn."""
    cdef Py_ssize_t i = 0, k, c, last = (n - 1) * channels, many = LANES // channels * channels
    cdef vec one, two
    # To the compiler, what is stored might be part of these.
    cdef Py_ssize_t[MOST_ABOVE] begin
    cdef Py_ssize_t[MOST_ABOVE] place
    cdef mask first, second
    cdef real[32] ends  # two vectors of 64 bytes
    cdef real *to = dx + (1 - front) * channels
    for k in range(rows):
        begin[k], place[k] = starts[k], places[k]
    # Without a look at single values, which are hard to foretell: what is too much of a vector is
    # overwritten.
    if front == 0:
        store(dx, routed(dy, argmax, rows, starts, places, 0, 0))
    if channels == 1:
        while i < last:
            # The last vector may overlap the one before.
            i = min(i, last - LANES)
            routed_in_turn(dy, argmax, rows, begin, place, 1, i, &one, &two)
            store(to + 2 * i, first_in_turn(one, two))
            store(to + 2 * i + LANES, second_in_turn(one, two))
            i += LANES
    else:
        first, second = load_bits(turns.first), load_bits(turns.second)
        while i + LANES <= last:
            routed_in_turn(dy, argmax, rows, begin, place, channels, i, &one, &two)
            store(to + 2 * i, pick(one, two, first))
            store(to + 2 * (i + many) - LANES, pick(one, two, second))
            i += many
        routed_in_turn(dy, argmax, rows, begin, place, channels, last - LANES, &one, &two)
        store(ends, one)
        store(ends + LANES, two)
        while i < last:
            for c in range(channels):
                to[2 * i + c] = ends[i - (last - LANES) + c]
                to[2 * i + channels + c] = ends[i - (last - LANES) + LANES + c]
            i += channels
    # The last window has no next one.
    store(ends, routed(dy, argmax, rows, starts, places, 1, n * channels - LANES))
    store(ends + LANES, routed(dy, argmax, rows, starts, places, 2, n * channels - LANES))
    to += 2 * last
    for i in range(size - (2 * n - 1 - front)):
        for c in range(channels):
            to[c] = ends[(i + 1) * LANES - channels + c] if i < 2 else 0
        to += channels


cdef inline Py_ssize_t windows_over(
    const Py_ssize_t *taps, Py_ssize_t cell, Py_ssize_t *window, Py_ssize_t *tap
) noexcept nogil:
    """Return how many windows reach a cell, if there are those, which of them is first, and how."""
    cdef Py_ssize_t many = 1
    window[0] = (cell - taps[BASE]) // taps[ADVANCE]
    tap[0] = (cell - taps[BASE]) % taps[ADVANCE]
    if tap[0] >= taps[TAPS]:
        return 0
    while tap[0] + taps[ADVANCE] < taps[TAPS]:
        window[0] -= 1
        tap[0] += taps[ADVANCE]
        many += 1
    return many


cdef inline bits turn_of(Py_ssize_t i, Py_ssize_t channels) noexcept nogil:
    """Return which lane of two vectors is element i, if cells of theirs come in turn."""
    cdef Py_ssize_t cell = i // channels
    return <bits>(cell % 2 * LANES + cell // 2 * channels + i % channels)


cdef inline void route_twos_as(
    const Py_ssize_t *forward,         # IN: the program of the windows
    const real *dy,                    # IN: a plane
    const index *argmax,               # IN
    const Tile *tile,                  # IN: the part of dx to make, of whole rows
    Py_ssize_t channels,
    real *dx,                          # OUT: a plane
) noexcept nogil:
    """Write cells that are under every other window twice, along the width, row after row."""
    cdef const Py_ssize_t *deep = forward + forward[AXES + TAPS_AT]
    cdef const Py_ssize_t *high = forward + forward[AXES + AXIS_FIELDS + TAPS_AT]
    cdef const Py_ssize_t *wide = forward + forward[AXES + 2 * AXIS_FIELDS + TAPS_AT]
    cdef Py_ssize_t[MOST_ABOVE] starts
    cdef Py_ssize_t[MOST_ABOVE] places
    cdef Py_ssize_t d, h, i, j, rows, before, above, behind, under, far, down
    cdef Py_ssize_t n = wide[WINDOWS], front = -wide[BASE], size = wide[SIZE]
    cdef Py_ssize_t many = LANES // channels * channels, lane
    cdef real *row
    cdef Turns turns
    for lane in range(LANES if channels > 1 else 0):
        turns.first[lane] = turn_of(lane, channels)
        turns.second[lane] = turn_of(2 * many - LANES + lane, channels)
    for d in range(tile.low[0], tile.high[0]):
        before = windows_over(deep, d, &behind, &far)
        for h in range(tile.low[1], tile.high[1]):
            above = windows_over(high, h, &under, &down)
            rows = 0
            # In the order of the windows, which is that of all sums.
            for i in range(before):
                for j in range(above):
                    if 0 <= behind + i < deep[WINDOWS] and 0 <= under + j < high[WINDOWS]:
                        starts[rows] = n * channels * ((behind + i) * high[WINDOWS] + under + j)
                        places[rows] = wide[TAPS] * (
                            (far - i * deep[ADVANCE]) * high[TAPS] + down - j * high[ADVANCE]
                        )
                        rows += 1
            row = dx + (d * high[SIZE] + h) * size * channels
            if rows == 1:
                route_row_of_twos(dy, argmax, 1, starts, places, n, channels, front, size, &turns,
                                  row)
            elif rows == 2:
                route_row_of_twos(dy, argmax, 2, starts, places, n, channels, front, size, &turns,
                                  row)
            else:
                route_row_of_twos(dy, argmax, rows, starts, places, n, channels, front, size,
                                  &turns, row)


cdef void route_twos(
    const Py_ssize_t *forward, const real *dy, const index *argmax, const Tile *tile,
    Py_ssize_t channels, real *dx
) noexcept nogil:
    if channels == 1:
        route_twos_as(forward, dy, argmax, tile, 1, dx)
    else:
        route_twos_as(forward, dy, argmax, tile, channels, dx)


cdef void search(
    const Py_ssize_t *forward,         # IN: the program of the windows
    const real *x,                     # IN
    Tile *tile,                        # IN: the part of dx that is made
    Py_ssize_t[3] least,               # IN: the windows whose argmax is needed
    Py_ssize_t[3] most,
    Py_ssize_t plane,
    Space *space,
    index *argmax,                     # OUT: of so many windows
    Spot *which,                       # OUT: how it lies
) noexcept nogil:
    """Find the argmax of the windows that reach a tile."""
    cdef Tile whole, piece
    cdef Target target
    cdef Py_ssize_t axis, at
    target.cell = tile.channels
    target.height = (most[2] - least[2]) * target.cell
    target.depth = (most[1] - least[1]) * target.height
    target.plane = 0
    target.y, target.kept = space.lines + 3 * space.line, False
    which.at = <const char *>argmax
    which.item = sizeof(index)
    which.origin[0], which.origin[1], which.origin[2] = plane, least[0], least[1]
    which.pitch[0], which.pitch[1], which.pitch[2] = 0, target.depth, target.height
    which.cell = target.cell
    whole.plane, whole.planes = plane, 1
    whole.channel, whole.channels = tile.channel, tile.channels
    for axis in range(3):
        whole.low[axis], whole.high[axis] = least[axis], most[axis]
    piece = whole
    piece.high[0] = least[0]
    while next_piece(&whole, 0, forward[TILE_DEPTH], &piece):
        piece.high[1] = least[1]
        while next_piece(&whole, 1, forward[TILE_HEIGHT], &piece):
            piece.high[2] = least[2]
            while next_piece(&whole, 2, forward[TILE_WIDTH], &piece):
                at = (
                    (piece.low[0] - least[0]) * target.depth
                    + (piece.low[1] - least[1]) * target.height
                    + (piece.low[2] - least[2]) * target.cell
                )
                piece.channel, piece.channels = tile.channel, 0
                while piece.channel + piece.channels < tile.channel + tile.channels:
                    piece.channel += piece.channels
                    piece.channels = min(forward[TILE_CHANNELS],
                                         tile.channel + tile.channels - piece.channel)
                    target.argmax = argmax + at + piece.channel - tile.channel
                    reduce_tile(ARGMAX, forward, x, &piece, &target, space, <index>0)
    # Elements count from the first window of the row.
    which.at -= least[2] * which.cell * which.item


cdef Py_ssize_t offset_of(
    const Py_ssize_t *forward, Py_ssize_t cell, Py_ssize_t place
) noexcept nogil:
    """Return how many elements of x, of so many a cell, a tap lies behind the first."""
    cdef Py_ssize_t axis, many, offset = 0
    cdef const Py_ssize_t *taps
    for axis in range(2, -1, -1):
        taps = forward + forward[AXES + axis * AXIS_FIELDS + TAPS_AT]
        many = forward[AXES + axis * AXIS_FIELDS + BOX]
        offset += place % many * taps[STRIDE] * cell
        place = place // many
        cell *= taps[SIZE]
    return offset


cdef Py_ssize_t *offsets_of(
    const Py_ssize_t *forward, Py_ssize_t cell, Py_ssize_t taps, bint by_four
) noexcept nogil:
    """Allocate and write the offsets of so many taps, and -1 for none; or return NULL.

    None is -1 or 255. What is returned lies behind the first element that was allocated. By four,
    tables for as many planes that lie behind one another follow, if the taps are so few.
    """
    cdef Py_ssize_t place, plane, size = cell
    cdef Py_ssize_t *offsets = <Py_ssize_t *>malloc((1 + max(taps, 5 * TABLE)) * sizeof(Py_ssize_t))
    if offsets == NULL:
        return NULL
    offsets += 1
    (offsets - 1)[0] = offsets[TABLE - 1] = -1
    for place in range(taps):
        offsets[place] = offset_of(forward, cell, place)
    if by_four and taps < TABLE:
        for place in range(3):
            size *= (forward + forward[AXES + place * AXIS_FIELDS + TAPS_AT])[SIZE]
        for plane in range(4):
            for place in range(TABLE):
                offsets[(1 + plane) * TABLE + place] = (
                    plane * size + offsets[place] if place < taps else -1
                )
    return offsets


cdef inline Py_ssize_t taps_of(const Py_ssize_t *forward) noexcept nogil:
    """Return the taps of the largest window."""
    return (
        forward[AXES + BOX] * forward[AXES + AXIS_FIELDS + BOX]
        * forward[AXES + 2 * AXIS_FIELDS + BOX]
    )


cdef void route_tiles(
    const Py_ssize_t *p,               # IN: the program of dx
    const Py_ssize_t *f,               # IN: the program of y
    const Py_ssize_t *offsets,         # IN, SCATTER; or NULL
    const real *dy,                    # IN
    const real *x,                     # IN: to find the argmax again; or NULL
    const index *saved,                # IN: the argmax; or NULL
    real *dx,                          # OUT
    const Ticket *ticket,
    Space *space,
    Space *again,                      # WORK: the same for the program of y
    index *slab,                       # WORK
) noexcept nogil:
    """Make tile after tile of dx until none is left."""
    cdef Tile tile, one, band, piece
    cdef Target target
    cdef const Py_ssize_t *taps
    cdef Spot *which = &space.which
    cdef Py_ssize_t axis, plane, planes, next_plane, many
    cdef bint whole, full, apart, twos, weaves
    cdef Weave woven
    cdef Py_ssize_t[3] windows
    cdef Py_ssize_t[3] least
    cdef Py_ssize_t[3] most
    cdef Kind kind = ROUTE_BYTES if sizeof(index) == 1 else ROUTE_INTS
    describe(p, &target)
    target.argmax = NULL
    which.item = sizeof(index)
    which.cell = p[CHANNELS]
    for axis in range(3):
        windows[axis] = (f + f[AXES + axis * AXIS_FIELDS + TAPS_AT])[WINDOWS]
        which.origin[axis] = 0
    which.pitch[2] = windows[2] * p[CHANNELS]
    which.pitch[1] = windows[1] * which.pitch[2]
    which.pitch[0] = windows[0] * which.pitch[1]
    apart = p[SCATTER] and x == NULL and share_none(f, p[CHANNELS])
    weaves = apart and weave(f + f[AXES + 2 * AXIS_FIELDS + TAPS_AT], p[CHANNELS], &woven)
    twos = p[SCATTER] and x == NULL and lap_by_one(f, p[CHANNELS])
    while take(ticket, p, &tile):
        one = tile
        one.planes = 1
        next_plane = tile.plane
        whole = (f + f[AXES + 2 * AXIS_FIELDS + TAPS_AT])[PARTS] == 1
        for axis in range(3):
            full = tile.low[axis] == 0 and (
                tile.high[axis] == (p + p[AXES + axis * AXIS_FIELDS + TAPS_AT])[WINDOWS]
            )
            whole = whole and full
            if p[SCATTER]:
                taps = f + f[AXES + axis * AXIS_FIELDS + TAPS_AT]
                least[axis] = first_beyond(taps, tile.low[axis], True)
                most[axis] = first_beyond(taps, tile.high[axis], False)
        full = full and tile.channels == p[CHANNELS]  # rows are
        for plane in range(tile.plane, tile.plane + tile.planes):
            if not p[SCATTER]:
                set_up(p, &tile, False, True, space)
                for axis in range(3):
                    least[axis] = max(0, space.low[axis])
                    most[axis] = min(windows[axis], space.high[axis])
            if x == NULL:
                which.at = <const char *>(saved + tile.channel)
            if not p[SCATTER]:
                if x != NULL:
                    search(f, x, &tile, least, most, plane, again, slab, which)
                one.plane = plane
                target.y = dx + (
                    plane * target.plane + tile.low[0] * target.depth
                    + tile.low[1] * target.height + tile.low[2] * target.cell + tile.channel
                )
                reduce_plane(kind, False, p, dy, &one, &target, plane, 1, space, <index>0)
            elif x == NULL:
                if next_plane > plane:
                    continue  # it was one of four
                # Rows of less than a vector need those around them.
                if apart and full and (whole or p[CHANNELS] > 1 or windows[2] >= LANES):
                    route_apart(f, p[CHANNELS], dy + plane * which.pitch[0],
                                saved + plane * which.pitch[0], &woven if weaves else NULL,
                                &tile, dx + plane * target.plane)
                    continue
                if twos and (tile.high[2] - tile.low[2]) * target.cell == target.height:
                    route_twos(f, dy + plane * which.pitch[0], saved + plane * which.pitch[0],
                               &tile, p[CHANNELS], dx + plane * target.plane)
                    continue
                planes = 1
                if (
                    p[CHANNELS] == 1 and whole and offsets != NULL
                    and plane + 4 <= tile.plane + tile.planes
                ):
                    planes = 4
                next_plane = plane + planes
                if planes == 4 and 4 * target.plane <= SMALL:
                    # The CPU foresees longer ones by itself.
                    many = windows[0] * windows[1]
                    fetch_soon(dy + plane * which.pitch[0], 4 * which.pitch[0], many,
                               &space.soon[0])
                    fetch_soon(dx + plane * target.plane, 4 * target.plane, many, &space.soon[1])
                    fetch_soon(saved + plane * which.pitch[0], 4 * which.pitch[0], many,
                               &space.soon[2])
                scatter(p, f, offsets, dy, which, &tile, least, most, plane, planes, True, dx,
                        space, <index>0)
            else:
                # As many windows at a time as there is room for, in ascending order.
                scatter(p, f, offsets, dy, which, &tile, least, least, plane, 1, True, dx,
                        space, <index>0)
                for axis in range(3):
                    band.low[axis], band.high[axis] = least[axis], most[axis]
                piece = band
                piece.high[0] = least[0]
                while next_piece(&band, 0, p[SLAB_DEPTH], &piece):
                    piece.high[1] = least[1]
                    while next_piece(&band, 1, p[SLAB_HEIGHT], &piece):
                        piece.high[2] = least[2]
                        while next_piece(&band, 2, p[SLAB_WIDTH], &piece):
                            search(f, x, &tile, piece.low, piece.high, plane, again, slab, which)
                            scatter(p, f, offsets, dy, which, &tile, piece.low, piece.high, plane,
                                    1, False, dx, space, <index>0)


cdef struct Route:
    # A gradient of a maximum, for any number of threads to make.
    const Py_ssize_t *p      # the program of dx
    const Py_ssize_t *f      # the program of y
    const real *dy           # IN
    const real *x            # IN: to find the argmax again; or NULL: it is saved
    const void *saved        # IN: the argmax; or NULL: it has to be found again
    int item                 # bytes of an element of it
    real *dx                 # OUT
    Queue queue
    bint failed


cdef bint route(Route *job, const Ticket *ticket, index _index) noexcept nogil:
    """Make a share of dx; False if there is no memory."""
    cdef Space space, again
    cdef Space *busy = &again if job.x != NULL and job.p[SCATTER] else &space  # what makes rows
    cdef Queue queue
    cdef Ticket inner
    cdef Py_ssize_t first, planes
    cdef const Py_ssize_t *p = job.p
    cdef const Py_ssize_t *f = job.f
    cdef Py_ssize_t n = p[CELLS_IN], m = p[CELLS_OUT]
    cdef Py_ssize_t rows = rows_made(p) if p[TOGETHER] else 1
    cdef const real *source = job.x
    cdef const index *given = <const index *>job.saved
    cdef void *block = lay_out(p, 0, sizeof(index), &space)
    cdef void *again_block = NULL
    cdef Py_ssize_t *offsets = NULL
    cdef index *slab = NULL
    cdef void *planes_block = NULL
    cdef real *together = NULL
    cdef real *result = NULL
    cdef real *source_together = NULL
    cdef index *which = NULL
    cdef bint done
    if source != NULL:
        again_block = lay_out(f, 1, 0, &again)
        slab = <index *>malloc((p[SLAB] + 64) * sizeof(index))
    if p[SCATTER] and taps_of(f) <= MOST_OFFSETS:
        offsets = offsets_of(f, p[CHANNELS], taps_of(f), p[CHANNELS] == 1 and p[PLANES] >= 4)
    if p[TOGETHER]:
        planes_block = malloc(
            64 + (n + 2 * m) * MOST_TOGETHER * sizeof(real) + n * MOST_TOGETHER * sizeof(index)
        )
    done = (
        block != NULL and (source == NULL or again_block != NULL and slab != NULL)
        and (not p[SCATTER] or offsets != NULL or taps_of(f) > MOST_OFFSETS)
        and (not p[TOGETHER] or planes_block != NULL)
    )
    if done and not p[TOGETHER]:
        route_tiles(p, f, offsets, job.dy, source, given, job.dx, ticket, &space, &again,
                    slab)
    elif done:
        together = <real *>next_line(planes_block)
        result = together + n * MOST_TOGETHER
        which = <index *>(result + 2 * m * MOST_TOGETHER)
        while next_group(ticket, p, &first, &planes):
            put_together(job.dy + first * n, n, n, planes, together)
            if source != NULL:
                source_together = result + m * MOST_TOGETHER
                put_together(source + first * m, m, m, planes, source_together)
            else:
                put_together(given + first * n, n, n, planes, which)
            if source != NULL:
                fetch_soon(source + first * m, m * planes, rows, &busy.soon[2])
            else:
                fetch_soon(given + first * n, n * planes, rows, &busy.soon[2])
            fetch_soon(job.dy + first * n, n * planes, rows, &busy.soon[0])
            fetch_soon(job.dx + first * m, m * planes, rows, &busy.soon[1])
            open_queue(&queue)
            inner = ticket_of(&queue, 0)
            route_tiles(p, f, offsets, together, source_together,
                        NULL if source != NULL else which, result, &inner, &space, &again,
                        slab)
            take_apart(result, m, planes, job.dx + first * m, m)
    give_back(block, &space)
    give_back(again_block, &again)
    free(slab)
    if offsets != NULL:
        free(offsets - 1)
    free(planes_block)
    return done


cdef void take_part_in_route(void *of, int who) noexcept nogil:
    """Make a share of dx."""
    cdef Route *job = <Route *>of
    cdef Ticket ticket = ticket_of(&job.queue, who)
    if not (
        route(job, &ticket, <unsigned char>0) if job.item == 1 else route(job, &ticket, <int>0)
    ):
        job.failed = True


def max_backward(
    const Py_ssize_t[::1] program,     # IN: of dx
    const Py_ssize_t[::1] forward,     # IN: of y
    const real[::1] dy,                # IN
    const real[::1] x,                 # IN: to find the argmax again; or None: it is saved
    const index[::1] saved,            # IN: the argmax; or None: it has to be found again
    real[::1] dx,                      # OUT
    int helpers,
):
    """Make dx, with so many other threads; False if there is no memory."""
    cdef Route job
    job.p, job.f, job.dy, job.dx = &program[0], &forward[0], &dy[0], &dx[0]
    job.x = NULL if x is None else &x[0]
    job.saved = NULL if saved is None else &saved[0]
    job.item, job.failed = sizeof(index), False
    open_queue(&job.queue)
    with nogil:
        _crew.run(take_part_in_route, &job, helpers)
    return not job.failed


cdef bint perform(const _quick.Call *call) noexcept nogil:
    """Do what a call says; False if there is no memory."""
    cdef Route job
    cdef Kind kind = SUM
    if call.what == _quick.LARGEST:
        kind = MAX if call.argmax == NULL else ARGMAX
    if call.what != _quick.GRADIENT:
        return make(
            kind, call.program, <const real *>call.source, <real *>call.result, call.argmax,
            call.item, call.helpers,
        )
    job.p, job.f = call.program, call.forward
    job.dy, job.x, job.dx = <const real *>call.source, <const real *>call.x, <real *>call.result
    job.saved, job.item, job.failed = call.argmax, call.item, False
    open_queue(&job.queue)
    _crew.run(take_part_in_route, &job, call.helpers)
    return not job.failed


quick = PyCapsule_New(<void *>perform, _quick.KIND, NULL)
