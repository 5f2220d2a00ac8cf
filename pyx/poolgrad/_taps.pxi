# Tap tables, and the windows of a tile that are unfolded from them.

from libc.string cimport memset

cdef inline const Py_ssize_t *look_up(
    const Py_ssize_t *taps, Py_ssize_t o, Py_ssize_t *first, Py_ssize_t *many
) noexcept nogil:
    """Return window `o`'s row of a tap table, where its first tap is, and how many it has."""
    cdef Py_ssize_t period = taps[PERIOD], parts = taps[PARTS], rest
    if parts != 1:
        rest = o % parts * taps[ADVANCE]
        first[0] = taps[BASE] + o // parts * taps[ADVANCE] + rest // parts
        many[0] = (rest % parts + taps[TAPS] + parts - 1) // parts
    elif period == 1:
        first[0] = taps[BASE] + o * taps[ADVANCE]
        many[0] = taps[TAPS]
    else:
        rest = o // period * taps[ADVANCE]
        taps += o % period * COLUMNS
        first[0] = taps[BASE] + rest
        many[0] = taps[TAPS]
    return taps


cdef inline Py_ssize_t first_tap(const Py_ssize_t *taps, Py_ssize_t o) noexcept nogil:
    """Return where the first tap of window `o` lies, be it inside the axis or not."""
    cdef Py_ssize_t first, many
    look_up(taps, o, &first, &many)
    return first


cdef inline Py_ssize_t first_beyond(
    const Py_ssize_t *taps, Py_ssize_t cell, bint by_last
) noexcept nogil:
    """Return the first window whose first, or last, tap is at a cell or behind it.

    Windows that follow each other begin, and end, in that order: those of a result do.
    """
    cdef Py_ssize_t low = 0, high = taps[WINDOWS], middle, at, many
    cdef const Py_ssize_t *row
    while low < high:
        middle = (low + high) // 2
        row = look_up(taps, middle, &at, &many)
        if at + ((many - 1) * row[STRIDE] if by_last else 0) < cell:
            low = middle + 1
        else:
            high = middle
    return low


cdef inline void cut_off(
    Py_ssize_t at, Py_ssize_t many, Py_ssize_t step, Py_ssize_t size, Window *window
) noexcept nogil:
    """Write which of a window's taps lie inside the axis."""
    cdef Py_ssize_t front = 0
    if at < 0:
        front = min((step - 1 - at) // step, many)
    if at + (many - 1) * step >= size:
        many = (size - 1 - at) // step + 1 if at < size else 0
    window.start = at + front * step
    window.count = max(0, many - front)
    window.step = step if window.count > 1 else 1  # what is not used may be large
    window.first = window.place = front


cdef inline Window clip(const Py_ssize_t *taps, Py_ssize_t o) noexcept nogil:
    """Return the taps of window `o` that lie inside the axis."""
    cdef Py_ssize_t at, many
    cdef const Py_ssize_t *row = look_up(taps, o, &at, &many)
    cdef Window window
    cut_off(at, many, row[STRIDE], row[SIZE], &window)
    return window


cdef bint all_inside(const Py_ssize_t *taps, Py_ssize_t low, Py_ssize_t high) noexcept nogil:
    """Whether windows `low` .. `high` - 1 have taps, periodic ones, and none outside the axis."""
    cdef Py_ssize_t o, first, many, last, period = taps[PERIOD]
    cdef const Py_ssize_t *row
    if taps[PARTS] != 1:
        return False
    for o in range(low, min(high, low + period)):
        row = look_up(taps, o, &first, &many)
        last = first + (high - 1 - o) // period * taps[ADVANCE]
        if first < 0 or many == 0 or last + (many - 1) * row[STRIDE] >= row[SIZE]:
            return False
    return True


cdef bint unfold(
    const Py_ssize_t *program,
    int axis,
    Py_ssize_t low,
    Py_ssize_t high,
    bint padded,         # whether windows may reach outside the axis; then place is theirs too
    bint covering,       # whether windows are cells, and their taps the windows that cover them
    bint short,          # whether only windows of the first period are written, all being inside
    Space *space,        # OUT: windows, needed, low, high
) noexcept nogil:
    """Write the taps of windows `low` .. `high` - 1 of an axis, and which cells they use.

    Return whether none of them was clipped.
    """
    cdef const Py_ssize_t *taps = program + program[AXES + axis * AXIS_FIELDS + TAPS_AT]
    cdef const Py_ssize_t *field = program + AXES + axis * AXIS_FIELDS
    cdef const Py_ssize_t *row = taps
    cdef Window *window = space.windows[axis]
    cdef Py_ssize_t o, k, first, many, moved = 0, least = 0, most = 0, period = taps[PERIOD]
    cdef Py_ssize_t number = 0, further_on = 0
    cdef bint whole = True
    if taps[PARTS] == 1:
        number = low % period
        moved = low // period * taps[ADVANCE]
    for o in range(low, min(high, low + period) if short else high):
        if taps[PARTS] != 1:
            look_up(taps, o, &first, &many)
        else:
            # As `look_up` finds them, without its divisions.
            row = taps + number * COLUMNS
            first, many = row[BASE] + moved, row[TAPS]
            number += 1
            if number == period:
                number = 0
                moved += taps[ADVANCE]
        cut_off(first, many, row[STRIDE], row[SIZE], window)
        if window.count == 0:
            if space.empty_high[axis] == 0:
                space.empty_low[axis] = o - low
            space.empty_high[axis] = o - low + 1
        if window.count != many:
            whole = False
        if padded:
            window.start, window.count = first, many
            window.step = row[STRIDE] if many > 1 else 1
            window.first = window.place = 0
        window.hop = 1
        if window.count:
            if covering:
                # Which tap of its first window the cell is; of later windows, it is an earlier one.
                window.place = o + field[BEFORE] - window.start * field[EVERY]
                window.hop = -window.step * field[EVERY]
                if field[APART] != 1:
                    window.place //= field[APART]
                    window.hop = -(-window.hop // field[APART])
            if most == least == 0 or window.start < least:
                least = window.start
            if short:
                further_on = (high - 1 - o) // period * taps[ADVANCE]
            most = max(most, window.start + (window.count - 1) * window.step + 1 + further_on)
        window += 1
    space.low[axis] = least
    space.high[axis] = most
    if axis < 2:
        memset(space.needed[axis], 0, most - least)
        for o in range(high - low):
            window = space.windows[axis] + o
            for k in range(window.count):
                space.needed[axis][window.start + k * window.step - least] = 1
    return whole


cdef void count_taps(
    const Py_ssize_t *program,
    int axis,
    Py_ssize_t low,
    Py_ssize_t high,
    double *counts,      # OUT
    Py_ssize_t *alike,   # OUT: windows, from each on, whose counts are equal; or NULL
) noexcept nogil:
    """Write each window's factor of the divisor; 1 where it is empty and its sum is 0 anyway."""
    cdef const Py_ssize_t *divisors = (
        program + program[AXES + axis * AXIS_FIELDS + DIVISORS_AT]
    )
    cdef Py_ssize_t o
    cdef bint equal = divisors[PERIOD] == 1 and all_inside(divisors, low, high)
    for o in range(low, high):
        counts[o - low] = <double>(divisors[TAPS] if equal else max(1, clip(divisors, o).count))
    if alike != NULL:
        for o in range(high - low - 1, -1, -1):
            alike[o] = 1
            if o < high - low - 1 and counts[o + 1] == counts[o]:
                alike[o] = alike[o + 1] + 1


cdef void find_segments(
    const Py_ssize_t *program,
    Py_ssize_t low,
    Py_ssize_t width,
    bint regular,        # whether windows a period apart have the same taps
    Space *space,        # IN: windows along the width; OUT: segments
) noexcept nogil:
    """Group the windows along the width, so that many can be done in one go."""
    cdef const Py_ssize_t *taps = program + program[AXES + 2 * AXIS_FIELDS + TAPS_AT]
    cdef const Window *windows = space.windows[2]
    cdef Segment *segment = space.segments
    cdef Py_ssize_t w = 0, many, period = taps[PERIOD], hop = 1
    if regular:
        for w in range(min(period, width)):
            segment.first, segment.every = w, period
            segment.many = (width - w + period - 1) // period
            segment.hop = taps[ADVANCE]
            segment.window = windows[w]
            segment.radix = radix_for(windows[w].count) if program[LADDER] else 0
            segment += 1
    else:
        # Wide cells further apart than this are vectors by themselves.
        if taps[PARTS] == period == 1 and program[CHANNELS] < LANES:
            hop = taps[ADVANCE]
        while w < width:
            many = 1
            while w + many < width and (
                windows[w + many].start == windows[w].start + many * hop
                and windows[w + many].count == windows[w].count
                and windows[w + many].place == windows[w].place
                and windows[w + many].step == windows[w].step
            ):
                many += 1
            segment.first, segment.many, segment.window = w, many, windows[w]
            segment.every, segment.hop = 1, hop
            if many == 1:
                # No run: it joins those before.
                segment.every = 0
                if w and (segment - 1).every == 0:
                    segment -= 1
                    segment.many += 1
            segment += 1
            w += many
    space.n_segments = segment - space.segments
