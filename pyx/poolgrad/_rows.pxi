# Rows of results.

from libc.string cimport memcpy, memset

cdef void spread(
    const element *x,    # IN
    Py_ssize_t gap,      # from cell to cell of x
    Py_ssize_t cells,
    Py_ssize_t channels,
    element *y,          # OUT
    Py_ssize_t step,     # from cell to cell of y
) noexcept nogil:
    """Copy cells that lie a fixed distance apart to where they lie another distance apart."""
    cdef Py_ssize_t i, c
    if channels == 1:
        # The usual distances are constants, which makes vectors of the loops.
        if gap == 2 and step == 1:
            for i in range(cells):
                y[i] = x[2 * i]
        elif gap == 4 and step == 1:
            for i in range(cells):
                y[i] = x[4 * i]
        else:
            for i in range(cells):
                y[i * step] = x[i * gap]
    elif channels < 4:
        for i in range(cells):
            for c in range(channels):
                y[i * step + c] = x[i * gap + c]
    elif channels < 8:
        # Two copies of fixed length, which may overlap, are quicker than one of any length.
        for i in range(cells):
            memcpy(y + i * step, x + i * gap, 4 * sizeof(element))
            memcpy(y + i * step + channels - 4, x + i * gap + channels - 4, 4 * sizeof(element))
    elif channels < 16:
        for i in range(cells):
            memcpy(y + i * step, x + i * gap, 8 * sizeof(element))
            memcpy(y + i * step + channels - 8, x + i * gap + channels - 8, 8 * sizeof(element))
    else:
        for i in range(cells):
            memcpy(y + i * step, x + i * gap, channels * sizeof(element))


cdef enum:
    MOST_TOGETHER = 16
    MANY = 8  # squares in a row, of which one more does not count


cdef inline void turn_about(
    const item *x,           # IN
    Py_ssize_t rows,
    Py_ssize_t columns,
    Py_ssize_t gap,          # elements from row to row of x
    item *y,                 # OUT
    Py_ssize_t step,         # and from row to row of y, which are the columns of x
) noexcept nogil:
    """Turn rows to columns."""
    cdef Py_ssize_t side = SIDE(sizeof(item)), wide = WIDE_SIDE(sizeof(item)), r, c, i, k
    cdef bint is_wide = 0 < wide <= min(rows, columns)
    if is_wide:
        side = wide
    if side == 0 or rows < side or columns < side:
        for c in range(columns):
            for r in range(rows):
                y[c * step + r] = x[r * gap + c]
        return
    # Squares, whose rows lie in one line of the cache each, on either side, if all begin alike, and
    # they are many: the first and the last ones may overlap those beside them.
    c = -(<Py_ssize_t>x // <Py_ssize_t>sizeof(item) % side) if columns >= MANY * side else 0
    while c < columns:
        i = max(0, min(c, columns - side))
        r = -(<Py_ssize_t>y // <Py_ssize_t>sizeof(item) % side) if rows >= MANY * side else 0
        while r < rows:
            k = max(0, min(r, rows - side))
            if is_wide:
                turn_wide(x + k * gap + i, gap, y + i * step + k, step)
            else:
                turn(x + k * gap + i, gap, y + i * step + k, step, sizeof(item), side)
            r += side
        c += side


cdef void put_together(
    const item *x, Py_ssize_t gap, Py_ssize_t cells, Py_ssize_t planes, item *y
) noexcept nogil:
    """Copy cells of planes, which are `gap` apart, to the channels of one; to those left, 0."""
    cdef Py_ssize_t c, k
    turn_about(x, planes, cells, gap, y, MOST_TOGETHER)
    if planes < MOST_TOGETHER:
        for c in range(cells):
            for k in range(planes, MOST_TOGETHER):
                y[c * MOST_TOGETHER + k] = 0


cdef void take_apart(
    const item *x, Py_ssize_t cells, Py_ssize_t planes, item *y, Py_ssize_t gap
) noexcept nogil:
    """Copy the channels of cells to planes, which are `gap` apart."""
    turn_about(x, cells, planes, MOST_TOGETHER, y, gap)


cdef inline void interleave(const real *a, const real *b, Py_ssize_t n, real *y) noexcept nogil:
    """Write n elements that come from two rows in turn."""
    cdef Py_ssize_t i = 0
    while i + 2 * LANES <= n:
        store(y + i, first_in_turn(load(a + i // 2), load(b + i // 2)))
        store(y + i + LANES, second_in_turn(load(a + i // 2), load(b + i // 2)))
        i += 2 * LANES
    while i < n:
        y[i] = b[i // 2] if i % 2 else a[i // 2]
        i += 1


cdef inline void repeat(const real *x, Py_ssize_t n, Py_ssize_t times, real *y) noexcept nogil:
    """Write n elements, of which so many neighbours are one of x."""
    cdef Py_ssize_t i = 0, k
    if times == 2:
        interleave(x, x, n, y)
        return
    while i < n:
        k = i
        i = min(i + times, n)
        # The last vector may reach into the elements of the next, which are written later.
        while k < i and k + LANES <= n:
            store(y + k, splat(x[0]))
            k += LANES
        while k < i:
            y[k] = x[0]
            k += 1
        x += 1


cdef void fill(Kind kind, Py_ssize_t n, real *y, bits *places) noexcept nogil:
    """Write a row of padding."""
    cdef Py_ssize_t i
    for i in range(n):
        y[i] = blank(kind)
    if kind == ARGMAX:
        memset(places, 0, n * sizeof(bits))


cdef Py_ssize_t radix_for(Py_ssize_t taps) noexcept nogil:
    """Return the radix of a `ladder`: up to 64 taps, that with the fewest steps."""
    cdef Py_ssize_t radix, steps, best = 8, least = 64
    if taps <= 64:
        for radix in range(2, 9):
            steps = radix + taps // radix + taps % radix
            if taps // radix <= MOST_DIGIT and steps < least:
                best, least = radix, steps
    return best


cdef const real *ladder(
    Kind kind,
    const real *x,       # IN: where the first tap's vector is
    Py_ssize_t pitch,    # elements from tap to tap
    Py_ssize_t taps,
    Py_ssize_t radix,
    Py_ssize_t n,
    real *lines,         # WORK: three rows, each of n + (taps - 1) * pitch elements
    bits *places,        # WORK, ARGMAX
    Py_ssize_t line,     # elements from row to row there
    real *y,             # OUT: or NULL, and the results are in one of the rows, which is returned
    bits *argmax,        # OUT, ARGMAX: likewise
) noexcept nogil:
    """As `box`, for many taps in a line: windows of radix, radix squared, ... taps come first.

    A maximum ends with two windows that may overlap. A sum adds disjoint ones, the small ones
    at the end of the window first.
    """
    cdef Py_ssize_t span = 1, used = 0, digit, tail = -1
    cdef const real *now = x
    cdef const bits *carried = NULL
    cdef Box b
    cdef int into = 0
    cdef bint last
    while True:
        # Row `into` is free; `now` and the tail are in the other two.
        last = taps // span <= MOST_DIGIT
        digit = taps // span if last else taps // span % radix
        if last and y == NULL:
            y, argmax = lines + into * line, places + into * line
        if kind == SUM or last:
            used += digit * span
            b = line_of(digit, span * pitch)
            b.hop[2] = span
            b.carried = carried
            if kind == SUM:
                if tail >= 0:
                    b.tail = lines + tail * line
            elif used < taps:
                b.tail = now + (taps - span) * pitch
                b.tail_carried = carried + (taps - span) * pitch if carried != NULL else NULL
                b.tail_place = taps - span
            if last:
                box(kind, False, now + (taps - used) * pitch if kind == SUM else now, &b, n, y,
                    argmax)
                return y
            if digit:
                box(kind, False, now + (taps - used) * pitch, &b, n, lines + into * line, NULL)
                tail = into
                into = free_row(now, lines, line, tail)
        b = line_of(radix, span * pitch)
        b.hop[2] = span
        b.carried = carried
        box(kind, False, now, &b, n + (taps - radix * span) * pitch, lines + into * line,
            places + into * line)
        now = lines + into * line
        carried = places + into * line if kind == ARGMAX else NULL
        into = free_row(now, lines, line, tail)
        span *= radix


cdef inline int free_row(
    const real *now, const real *lines, Py_ssize_t line, Py_ssize_t tail
) noexcept nogil:
    """Return which of three rows holds neither `now` nor the tail."""
    cdef int row = 0
    while row == tail or lines + row * line == now:
        row += 1
    return row


cdef inline void scan_strip(
    Kind kind, int vectors, const real *x, Py_ssize_t pitch, Py_ssize_t taps, Py_ssize_t many,
    real *tails, bits *tail_places, real *y, Py_ssize_t y_pitch, bits *places
) noexcept nogil:
    """As `scan`, for so many vectors of each cell."""
    cdef vec[4] best
    cdef mask[4] kept
    cdef vec one
    cdef mask place = splat_bits(0)
    cdef Py_ssize_t i, first = 0, last, at
    cdef int u
    while first < many:
        last = min(taps, many - first)
        # The tails of a block of so many cells, from the last one up. Of equals, the first counts.
        for u in range(vectors):
            best[u], kept[u] = load(x + (taps - 1) * pitch + u * LANES), splat_bits(<bits>taps - 1)
        for i in range(taps - 2, last - 1, -1):
            for u in range(vectors):
                one, place = load(x + i * pitch + u * LANES), splat_bits(<bits>i)
                fold(kind, QUICK, best[u], kept[u], &one, &place)
                best[u], kept[u] = one, place
        for i in range(last - 1, -1, -1):
            for u in range(vectors):
                at = i * pitch + u * LANES
                one, place = load(x + at), splat_bits(<bits>i)
                fold(kind, QUICK, best[u], kept[u], &one, &place)
                best[u], kept[u] = one, place
                # The block itself is a window.
                store(tails + at if i else y + u * LANES, one)
                if kind == ARGMAX:
                    store_bits(tail_places + at if i else places + at, place)
        # The heads of the next one.
        for u in range(vectors):
            best[u], kept[u] = splat(-INFINITY), splat_bits(0)
        for i in range(1, last):
            for u in range(vectors):
                at = i * pitch + u * LANES
                fold(kind, QUICK, load(x + at + (taps - 1) * pitch),
                     splat_bits(<bits>(taps + i - 1)), &best[u], &kept[u])
                one = load(tails + at)
                if kind == ARGMAX:
                    place = load_bits(tail_places + at)
                fold(kind, QUICK, best[u], kept[u], &one, &place)
                store(y + i * y_pitch + u * LANES, one)
                if kind == ARGMAX:
                    # So far from the block's first cell; now from the window's.
                    store_bits(places + at, place - splat_bits(<bits>i))
        x += taps * pitch
        y += taps * y_pitch
        places += taps * pitch
        first += taps


cdef inline void scan_as(
    Kind kind, const real *x, Py_ssize_t pitch, Py_ssize_t n, Py_ssize_t taps, Py_ssize_t many,
    real *tails, bits *tail_places, real *y, Py_ssize_t y_pitch, bits *places
) noexcept nogil:
    cdef Py_ssize_t i = 0
    while i + 4 * LANES <= n:
        scan_strip(kind, 4, x + i, pitch, taps, many, tails, tail_places, y + i, y_pitch,
                   places + i)
        i += 4 * LANES
    if i + 2 * LANES <= n:
        scan_strip(kind, 2, x + i, pitch, taps, many, tails, tail_places, y + i, y_pitch,
                   places + i)
        i += 2 * LANES
    while i < n:
        # The last vector may overlap the one before, and make some elements twice.
        i = min(i, n - LANES)
        scan_strip(kind, 1, x + i, pitch, taps, many, tails, tail_places, y + i, y_pitch,
                   places + i)
        i += LANES


cdef void scan(
    Kind kind,
    const real *x,       # IN: where the first tap's vector is
    Py_ssize_t pitch,    # elements from cell to cell
    Py_ssize_t n,        # elements of a cell: LANES or more
    Py_ssize_t taps,
    Py_ssize_t many,     # windows, a cell apart
    real *tails,         # WORK: as many cells as taps, as far apart
    bits *tail_places,   # WORK, ARGMAX
    real *y,             # OUT
    Py_ssize_t y_pitch,  # elements from cell to cell of y
    bits *places,        # OUT, ARGMAX: as far apart as those of x
) noexcept nogil:
    """As `ladder`, for a maximum of cells that are vectors: a window is a block's tail and a head.

    What these come to stays in registers from cell to cell, so it takes three loads a cell. Sums
    are not made like this: their order must not depend on how many lanes a vector has.
    """
    if kind == ARGMAX:
        scan_as(ARGMAX, x, pitch, n, taps, many, tails, tail_places, y, y_pitch, places)
    else:
        scan_as(MAX, x, pitch, n, taps, many, tails, tail_places, y, y_pitch, places)


cdef inline void roll_strip(
    Kind kind, bint by_rows, bint fetch, int vectors, int high, Py_ssize_t wide, Py_ssize_t strip,
    const real *x, const void *which, const Box *b, Py_ssize_t rows, real *y, Py_ssize_t y_step,
    bits *places
) noexcept nogil:
    """As `roll`, for so many vectors of a row; the counts are the box's, to be constants."""
    cdef vec[5][2] best
    cdef mask[5][2] kept
    cdef vec v, none = splat(0 if kind >= ROUTE_BYTES else blank(kind))
    cdef mask place
    cdef Py_ssize_t row, w, i
    # To the compiler, what is stored might be part of the box.
    cdef Py_ssize_t down = b.pitch[1], across = b.pitch[2], first = b.place
    cdef Py_ssize_t hop_down = b.hop[1], hop_across = b.hop[2]
    cdef real divisor = b.divisor, factor = b.factor
    cdef const char *soon = b.soon
    cdef const char *soon_too = b.soon_too
    cdef int u, t
    cdef bint divides = kind == SUM and divisor != 0, fetches = fetch and soon != NULL
    if fetches:
        # A line of each with each row: that is as much as two vectors of 32 bytes.
        soon += strip * rows * 64
        soon_too += strip * rows * 64
    for t in range(high):
        for u in range(vectors):
            best[t][u], kept[t][u] = none, splat_bits(0)
    for row in range(rows + high - 1):
        if fetches:
            poolgrad_prefetch(soon + 64 * row)
            poolgrad_prefetch(soon_too + 64 * row)
        for u in range(vectors):
            i = row * down + u * LANES
            if by_rows:
                # What the taps of a row come to is the same for all windows that it is in.
                v, place = load(x + i), splat_bits(<bits>first)
                for w in range(1, wide):
                    fold(kind, QUICK, load(x + i + w * across),
                         splat_bits(<bits>(first + w * hop_across)), &v, &place)
                for t in range(high - 1):
                    fold(kind, QUICK, v, place + splat_bits(<bits>((high - 1 - t) * hop_down)),
                         &best[t][u], &kept[t][u])
                best[high - 1][u], kept[high - 1][u] = v, place  # the first row of that one
                continue
            for w in range(wide):
                v = load(x + i)
                for t in range(high):
                    if kind == SUM and t == high - 1 and w == 0:
                        best[t][u] = v  # the first tap of that one
                        continue
                    if kind == SUM:
                        best[t][u] = best[t][u] + v
                    else:
                        best[t][u] = add_where(meant(
                            kind, which, i, first + (high - 1 - t) * hop_down + w * hop_across
                        ), v, best[t][u])
                i += across
        for u in range(vectors):
            if row >= high - 1:
                if divides:
                    best[0][u] = divided(best[0][u], divisor, factor)
                store(y + u * LANES, best[0][u])
                if kind == ARGMAX:
                    store_bits(places + u * LANES, kept[0][u])
            for t in range(high - 1):
                best[t][u], kept[t][u] = best[t + 1][u], kept[t + 1][u]
            best[high - 1][u], kept[high - 1][u] = none, splat_bits(0)
        if row >= high - 1:
            y += y_step
            places += y_step


cdef inline void roll_as(
    Kind kind, bint by_rows, bint fetch, int high, Py_ssize_t wide, const real *x,
    const void *which, const Box *b, Py_ssize_t rows, Py_ssize_t n, real *y, Py_ssize_t y_step,
    bits *places
) noexcept nogil:
    cdef Py_ssize_t i = 0
    while i + 2 * LANES <= n and kind != ARGMAX and kind < ROUTE_BYTES:
        roll_strip(kind, by_rows, fetch, 2, high, wide, i // (2 * LANES), x + i,
                   further(kind, which, i), b, rows, y + i, y_step, places + i)
        i += 2 * LANES
    while i < n:
        # The last vector may overlap the one before.
        i = min(i, n - LANES)
        roll_strip(kind, by_rows, fetch, 1, high, wide, i // (2 * LANES), x + i,
                   further(kind, which, i), b, rows, y + i, y_step, places + i)
        i += LANES


cdef void roll(
    Kind kind,
    bint by_rows,            # SUM: whether the taps of each row are added first
    const real *x,           # IN
    const void *which,       # IN, ROUTE: the argmax of each element
    const Box *b,            # IN: the taps of the first window; those of others are a cell further
    Py_ssize_t rows,
    Py_ssize_t n,            # results of a row: LANES or more
    real *y,                 # OUT
    Py_ssize_t y_step,       # elements from row to row of y
    bits *places,            # OUT, ARGMAX
) noexcept nogil:
    """Make rows of results of windows that are a row apart each, reading each row once.

    As many rows of results as a window has rows are in the making at a time, in registers.
    """
    if kind == MAX:
        roll_rows(MAX, True, x, which, b, rows, n, y, y_step, places)
    elif kind == ARGMAX:
        roll_rows(ARGMAX, True, x, which, b, rows, n, y, y_step, places)
    elif kind == SUM and by_rows:
        roll_rows(SUM, True, x, which, b, rows, n, y, y_step, places)
    elif kind == SUM:
        roll_rows(SUM, False, x, which, b, rows, n, y, y_step, places)
    elif kind == ROUTE_BYTES:
        roll_rows(ROUTE_BYTES, False, x, which, b, rows, n, y, y_step, places)
    else:
        roll_rows(ROUTE_INTS, False, x, which, b, rows, n, y, y_step, places)


cdef inline void roll_rows(
    Kind kind, bint by_rows, const real *x, const void *which, const Box *b, Py_ssize_t rows,
    Py_ssize_t n, real *y, Py_ssize_t y_step, bits *places
) noexcept nogil:
    if b.count[1] == 2:
        roll_as(kind, by_rows, True, 2, b.count[2], x, which, b, rows, n, y, y_step, places)
    elif b.count[1] == 3 and b.count[2] == 3:
        roll_as(kind, by_rows, True, 3, 3, x, which, b, rows, n, y, y_step, places)
    elif b.count[1] == 3:
        roll_as(kind, by_rows, True, 3, b.count[2], x, which, b, rows, n, y, y_step, places)
    elif b.count[2] == 5:
        roll_as(kind, by_rows, True, 5, 5, x, which, b, rows, n, y, y_step, places)
    else:
        roll_as(kind, by_rows, True, 5, b.count[2], x, which, b, rows, n, y, y_step, places)


cdef enum:
    FEW_ROWS = 4  # of windows that share rows, made at once; those with an argmax are half as many


cdef inline Py_ssize_t share_rows_as(
    Kind kind, const real *x, const Box *b, const Run *run, Py_ssize_t n, real *y, bits *places
) noexcept nogil:
    cdef Py_ssize_t rows = FEW_ROWS // 2 if kind == ARGMAX else FEW_ROWS
    if run.rows < rows:
        return 0
    if b.count[1] == 2:
        roll_as(kind, kind != SUM, False, 2, 2, x, NULL, b, rows, n, y, run.y_step, places)
    else:
        roll_as(kind, kind != SUM, False, 3, 3, x, NULL, b, rows, n, y, run.y_step, places)
    return rows


cdef Py_ssize_t share_rows(
    Kind kind, const real *x, const Box *b, const Run *run, Py_ssize_t n, real *y, bits *places
) noexcept nogil:
    """As `box`, a few rows of windows of 2 by 2 or 3 by 3 taps; return how many, or 0.

    More rows would be read in too many places, where cells have many channels.
    """
    if n < LANES or run.x_step != b.pitch[1] or run.y_step != run.places_step or not (
        b.count[0] == 1 and b.count[1] == b.count[2] and 2 <= b.count[1] <= 3 and b.seen == NULL
    ):
        return 0
    if kind == MAX:
        return share_rows_as(MAX, x, b, run, n, y, places)
    if kind == ARGMAX:
        return share_rows_as(ARGMAX, x, b, run, n, y, places)
    return share_rows_as(SUM, x, b, run, n, y, places) if kind == SUM else 0


cdef inline bint same(const Window *a, const Window *b) noexcept nogil:
    """Whether two windows have the same taps."""
    return a.start == b.start and a.count == b.count and a.step == b.step


cdef inline bint enough(const Segment *segment, Py_ssize_t width, const Run *run) noexcept nogil:
    """Whether `apart` makes a segment of windows.

    Rows of at least half a vector will do if there are several, each made and read as a whole,
    right behind the one before: vectors may then reach into those beside them.
    """
    cdef Py_ssize_t many = segment.many
    if many >= LANES:
        return True
    if segment.hop > 2 and not sorts(segment.hop, segment.window.count):
        return False
    return 2 * many >= LANES and run.rows > 1 and (
        many == width == run.y_step == run.places_step
        and run.x_step >= segment.hop * (LANES - many)
    )


cdef inline bint picks(const Segment *segment, Py_ssize_t channels) noexcept nogil:
    """Whether `apart` makes a segment of windows of a few channels, cell beside cell."""
    return 1 < channels < LANES and segment.every == 1 and segment.hop > 1 and (
        segment.many * channels >= LANES
    )


cdef enum:
    COLUMN = 16      # rows of which a window each is made at a time
    LEAST_COLUMN = 6
    MOST_TAPS = 32


cdef bint make_column(
    Kind kind, bint exact, const real *x, const Box *b, const Window *window, const Run *run,
    real *y, bits *places
) noexcept nogil:
    """Make a window of each row, of one channel, by vectors of rows; False if that does not pay."""
    cdef Py_ssize_t taps = b.count[0] * b.count[1] * window.count, d, h, w, r, top = 0, rows
    cdef real[MOST_TAPS * COLUMN] turned
    cdef real[COLUMN] made
    cdef bits[COLUMN] made_places
    cdef const real *source
    cdef real *to
    cdef Box one = b[0]
    if run.rows < LEAST_COLUMN or not 0 < taps <= MOST_TAPS:
        return False
    one.large = False
    one.count[2], one.hop[2], one.place = window.count, window.hop, b.place + window.place
    one.pitch[2] = COLUMN
    one.pitch[1] = one.count[2] * one.pitch[2]
    one.pitch[0] = one.count[1] * one.pitch[1]
    while top < run.rows:
        rows = min(COLUMN, run.rows - top)
        to = turned
        for d in range(b.count[0]):
            for h in range(b.count[1]):
                for w in range(window.count):
                    source = x + d * b.pitch[0] + h * b.pitch[1] + window.start + w * window.step
                    for r in range(rows):
                        to[r] = source[(top + r) * run.x_step]
                    for r in range(rows, COLUMN):
                        to[r] = to[0]
                    to += COLUMN
        box(kind, exact, turned, &one, COLUMN, made, made_places)
        for r in range(rows):
            y[(top + r) * run.y_step] = made[r]
            if kind == ARGMAX:
                places[(top + r) * run.places_step] = made_places[r]
        top += rows
    return True


cdef void sweep(
    Kind kind,
    bint exact,
    const Py_ssize_t *program,
    const real *x,       # IN: the first row of the box, at the cell that windows count from
    Py_ssize_t pitch,    # elements from cell to cell of x
    Box *b,              # IN: the box along depth and height
    Py_ssize_t channels,  # of which so many matter
    Py_ssize_t width,    # windows
    Space *space,        # IN: segments; WORK: lines
    real *y,             # OUT: a row
    Py_ssize_t y_pitch,  # elements from cell to cell of y
    bits *places,        # OUT, ARGMAX: a row, cell beside cell
    const Run *run,      # how many such rows
) noexcept nogil:
    """Make a row of results, or several."""
    cdef Py_ssize_t k, n, r, made, done, place = b.place
    cdef Run rest
    cdef const void *which = b.which
    cdef const Segment *segment
    cdef const Window *window
    cdef const real *found
    cdef const real *source
    cdef const bits *found_places
    cdef real *to
    cdef bits *to_places
    cdef bint side_by_side, few
    # Windows that are every other one have the same taps, and those between them others.
    cdef bint paired = (
        space.n_segments == 2 and space.segments.every == 2 and space.segments.hop == 1
        and channels == y_pitch == pitch == run.rows == 1 and not program[LADDER]
    )
    space.divided = False
    # Vectors of windows apart come first: they read rows in order, and the rest finds them near.
    for k in range(2 * space.n_segments):
        segment = space.segments + (k if k < space.n_segments else k - space.n_segments)
        window = &segment.window
        few = picks(segment, channels) and channels == y_pitch == pitch and not program[LADDER]
        if (few or channels == y_pitch == pitch == segment.every == 1 and (
            segment.hop == 2 or segment.hop > 2 and 0 < SIDE(sizeof(real)) <= LANES
        ) and enough(segment, width, run)) and (
            1 < window.count <= MOST_DIGIT and window.step == 1 and kind < ROUTE_BYTES
            and b.count[0] * b.count[1]
        ):
            if k < space.n_segments:
                b.count[2], b.pitch[2], b.hop[2] = window.count, channels, window.hop
                b.place = place + window.place
                apart(kind, exact, x + window.start * channels, b, segment.hop, segment.many, run,
                      y + segment.first * channels, places + segment.first * channels)
                space.divided = b.divisor != 0
            continue
        if k < space.n_segments:
            continue
        b.place = place
        if (
            segment.many == 1 and channels == y_pitch == pitch == 1 and kind < ROUTE_BYTES
            and not program[LADDER]  # which adds in another order
            and make_column(kind, exact, x, b, window, run, y + segment.first,
                            places + segment.first)
        ):
            space.divided = b.divisor != 0
            continue
        done = 0
        for r in range(run.rows):
            if r < done:
                continue
            b.place, b.which = place, which
            source = x + r * run.x_step
            to = y + r * run.y_step + segment.first * y_pitch
            to_places = places + r * run.places_step + segment.first * channels
            if segment.every == 0 or pitch != channels or not program[LADDER] and (
                y_pitch != channels or segment.many > 1 and (
                    segment.hop >= LANES
                    or channels >= LANES and (segment.hop != 1 or segment.every != 1)
                )
            ):
                # Cells that are not side by side, or are vectors by themselves, or far apart.
                boxes(kind, exact, source, b, space.windows[2] + segment.first, segment.many,
                      max(1, segment.every), pitch, channels, to, y_pitch,
                      to_places)
                space.divided = b.divisor != 0
                continue
            b.count[2] = window.count
            b.pitch[2] = window.step * pitch
            b.hop[2] = window.hop
            b.place = place + window.place
            # All the windows between the first and the last, whether there are such or not: one
            # long vector. Then every `hop`-th of it is a result, for every `every`-th window.
            n = ((segment.many - 1) * segment.hop + 1) * channels
            b.which = further(kind, which, window.start * pitch)
            source += window.start * pitch
            side_by_side = y_pitch == channels and segment.every == 1 and (
                segment.hop == 1 or segment.many == 1
            )
            if program[LADDER] or not side_by_side:
                b.divisor = b.factor = 0  # `finish` does it, of what is wanted
                b.large = False
            space.divided = b.divisor != 0
            if program[LADDER] and not exact and window.count > 1 and b.count[0] * b.count[1]:
                if side_by_side and window.step == 1 and channels >= LANES and kind < SUM:
                    scan(kind, source, channels, channels, window.count, segment.many, space.lines,
                         space.places, to, channels, to_places)
                    continue
                found = ladder(kind, source, b.pitch[2], window.count, segment.radix, n,
                               space.lines, space.places, space.line,
                               to if side_by_side else NULL, to_places)
                if side_by_side:
                    continue
                found_places = space.places + (found - space.lines)
            elif side_by_side:
                rest = run[0]
                rest.rows -= r
                made = 0 if exact else share_rows(kind, source, b, &rest, n, to, to_places)
                if made == 0:
                    box(kind, exact, source, b, n, to, to_places)
                done = r + made
                continue
            elif paired:
                box(kind, exact, source, b, n, space.lines + segment.first * space.line, places)
                if segment.first:
                    interleave(space.lines, space.lines + space.line, width, y)
                continue
            else:
                box(kind, exact, source, b, n, space.lines, space.places)
                found, found_places = space.lines, space.places
            spread(found, segment.hop * channels, segment.many, channels, to,
                   segment.every * y_pitch)
            if kind == ARGMAX:
                spread(found_places, segment.hop * channels, segment.many, channels, to_places,
                       segment.every * channels)
    b.place = place
    b.which = which


cdef inline bint plain_row(const real *x, Py_ssize_t n, real *y, flags *good) noexcept nogil:
    """Whether the few elements that are no vector are plain; `good` tells it of the others."""
    cdef Py_ssize_t i = 0, k
    cdef vec least = splat(-INFINITY), v
    cdef bint every = True
    while i + 4 * LANES <= n:
        for k in range(4):
            v = load(x + i + k * LANES)
            good[0] &= larger(v, least)
            if y != NULL:
                store(y + i + k * LANES, v)
        i += 4 * LANES
    while i < n and n >= LANES:
        # The last vector may overlap the one before.
        i = min(i, n - LANES)
        v = load(x + i)
        good[0] &= larger(v, least)
        if y != NULL:
            store(y + i, v)
        i += LANES
    while i < n:
        every = every and x[i] > -INFINITY
        if y != NULL:
            y[i] = x[i]
        i += 1
    return every


cdef bint plain(const real *x, Py_ssize_t n) noexcept nogil:
    """Whether there is neither a NaN nor -inf among `n` elements."""
    cdef flags good = every_lane()
    return plain_row(x, n, NULL, &good) and all_set(good)


cdef bint plain_copy(const real *x, Py_ssize_t n, real *y) noexcept nogil:
    """As `plain`, but the elements are copied as well, be they plain or not."""
    cdef flags good = every_lane()
    return plain_row(x, n, y, &good) and all_set(good)


cdef inline void divide_by(const real *x, Py_ssize_t n, real divisor, real *y) noexcept nogil:
    """Divide n elements, in their place or apart from it."""
    cdef real factor = 1 / divisor
    cdef bint exact = is_power_of_two(divisor)  # then this is, and takes less time
    cdef Py_ssize_t i = 0
    cdef vec last
    if n < LANES:
        for i in range(n):
            y[i] = x[i] * factor if exact else x[i] / divisor
        return
    # The last vector may overlap the one before, which is written first.
    last = load(x + n - LANES)
    if exact:
        while i + LANES < n:
            store(y + i, load(x + i) * splat(factor))
            i += LANES
        store(y + n - LANES, last * splat(factor))
    else:
        while i + LANES < n:
            store(y + i, load(x + i) / splat(divisor))
            i += LANES
        store(y + n - LANES, last / splat(divisor))


cdef void divide(
    const real *x,           # IN: a row; may be y
    Py_ssize_t pitch,        # elements from cell to cell of x
    double outer,            # the divisor, but for its factor along the width
    const double *counts,    # IN: that factor
    const Py_ssize_t *alike,  # IN: how many windows from each on have the same
    Py_ssize_t width,
    Py_ssize_t channels,
    real *y,                 # OUT: a row
    Py_ssize_t y_pitch,
) noexcept nogil:
    """Divide each cell of a row by its window's divisor."""
    cdef Py_ssize_t w = 0, many
    while w < width:
        # Neighbours mostly have the same divisor: one long vector.
        many = 1
        if pitch == channels and y_pitch == channels:
            many = min(alike[w], width - w)
        divide_by(x + w * pitch, many * channels, <real>(outer * counts[w]), y + w * y_pitch)
        w += many


cdef void stage_which(
    Tile *tile,
    Py_ssize_t plane,
    Py_ssize_t d,
    Py_ssize_t h,
    Py_ssize_t low,
    Py_ssize_t high,
    Py_ssize_t front,
    Py_ssize_t back,
    Py_ssize_t at,           # where in the stage
    Space *space,
) noexcept nogil:
    """Copy a row of the argmax, with padding that points nowhere."""
    cdef const Spot *which = &space.which
    cdef Py_ssize_t item = which.item, cell = tile.channels * item, w
    cdef char *to = space.stage_argmax + at * item
    cdef const char *source = which.at + item * (
        (plane - which.origin[0]) * which.pitch[0] + (d - which.origin[1]) * which.pitch[1]
        + (h - which.origin[2]) * which.pitch[2] + low * which.cell
    )
    if high <= low:
        memset(to, -1, (front + back) * cell)
        return
    memset(to, -1, front * cell)
    to += front * cell
    if which.cell == tile.channels:
        memcpy(to, source, (high - low) * cell)
    else:
        for w in range(high - low):
            memcpy(to + w * cell, source + w * which.cell * item, cell)
    memset(to + (high - low) * cell, -1, back * cell)


cdef bint prepare(
    Kind kind,
    bint exact,
    const Py_ssize_t *program,
    const real *x,       # IN
    Tile *tile,
    Py_ssize_t plane,
    Py_ssize_t d,
    Py_ssize_t h,
    Space *space,
    real *stage,         # OUT: a row, if it has to be copied
    const real **row,    # OUT: where the row is now, at the cell that windows count from
    Py_ssize_t *pitch,   # OUT: elements from cell to cell there
) noexcept nogil:
    """Make a row of the source ready; False if a maximum has to be exact."""
    cdef const Py_ssize_t *field = program + AXES
    cdef Py_ssize_t depth = (program + field[TAPS_AT])[SIZE]
    cdef Py_ssize_t height = (program + field[AXIS_FIELDS + TAPS_AT])[SIZE]
    cdef Py_ssize_t width = (program + field[2 * AXIS_FIELDS + TAPS_AT])[SIZE]
    cdef Py_ssize_t channels = program[CHANNELS]
    cdef Py_ssize_t low = max(0, space.low[2]), high = min(width, space.high[2]), c
    cdef Py_ssize_t front = low - space.low[2], back = space.high[2] - high
    cdef bint checked, good = True
    cdef const real *source = (
        x + (((plane * depth + d) * height + h) * width + low) * channels + tile.channel
    )
    if program[ADJOINT] or program[PADDED] and not exact:
        row[0] = stage
        pitch[0] = tile.channels
        if kind >= ROUTE_BYTES:
            stage_which(tile, plane, d, h, low, high, front, back, stage - space.stage, space)
        if high <= low:  # windows in the padding only
            for c in range((space.high[2] - space.low[2]) * tile.channels):
                stage[c] = blank(kind)
            return True
        for c in range(front * tile.channels):
            stage[c] = blank(kind)
        stage += front * tile.channels
        checked = kind >= SUM
        if program[ADJOINT]:
            divide(source, channels, space.counts[0][d - space.low[0]]
                   * space.counts[1][h - space.low[1]], space.counts[2] + front,
                   space.alike + front, high - low, tile.channels, stage, tile.channels)
        elif space.apart.x != NULL:
            put_together(
                space.apart.x + (d * height + h) * width + low, program[CELLS_IN], high - low,
                space.apart.planes, stage
            )
        elif tile.channels != channels:
            spread(source, channels, high - low, tile.channels, stage, tile.channels)
        elif checked:
            memcpy(stage, source, (high - low) * channels * sizeof(real))
        else:
            checked = True
            good = plain_copy(source, (high - low) * channels, stage)
        for c in range((high - low) * tile.channels, (high - low + back) * tile.channels):
            stage[c] = blank(kind)
        return good if checked else plain(stage, (high - low) * tile.channels)
    row[0] = source
    pitch[0] = channels
    if kind >= SUM or exact:
        return True
    if tile.channels == channels:
        return plain(source, (high - low) * channels)
    for c in range(high - low):
        if not plain(source + c * channels, tile.channels):
            return False
    return True
