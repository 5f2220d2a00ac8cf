# The primitive: boxes of vectors, each reduced to one vector.

from libc.string cimport memcpy

cdef inline void fold(
    Kind kind, Care care, vec v, mask place, vec *best, mask *kept
) noexcept nogil:
    """Take one more tap into account."""
    cdef flags replace
    if kind == SUM:
        best[0] = best[0] + v
    elif care != EXACT:
        if kind == ARGMAX:
            kept[0] = choose_bits(larger(v, best[0]), place, kept[0])
        best[0] = maximum(v, best[0])
    else:
        replace = beats(v, best[0])
        if kind == ARGMAX:
            kept[0] = choose_bits(replace, place, kept[0])
        best[0] = choose(replace, v, best[0])


cdef inline flags meant(
    Kind kind, const void *which, Py_ssize_t i, Py_ssize_t place
) noexcept nogil:
    """Return which gradients are meant for a tap, by their argmax from element i on."""
    if kind == ROUTE_BYTES:
        return equal_bytes(<const unsigned char *>which + i, place)
    return equal_ints(<const int *>which + i, place)


cdef inline real blank(Kind kind) noexcept nogil:
    """Return what changes no result: adding 0 would change -0."""
    return <real>-0.0 if kind >= SUM else -INFINITY


cdef inline vec divided(vec sum, real divisor, real factor) noexcept nogil:
    """Return sums divided as a box says."""
    if factor != 0:
        return sum * splat(factor)
    return sum / splat(divisor) if divisor != 0 else sum


cdef inline void divide_box(Box *b, double divisor) noexcept nogil:
    """Have a box's results divided."""
    b.divisor, b.factor = <real>divisor, 0
    if is_power_of_two(b.divisor):
        b.factor = 1 / b.divisor


cdef inline bint goes_past(
    const Box *b, const real *y, Py_ssize_t n, Py_ssize_t step
) noexcept nogil:
    """Whether rows of n results go past the caches: if all of them are whole vectors in place."""
    return b.large and (
        (<Py_ssize_t>y // <Py_ssize_t>sizeof(real) | n | step) % LANES == 0
    )


cdef inline void put(real *y, vec v, bint past) noexcept nogil:
    """Store a vector, past the caches or not."""
    if past:
        store_past(y, v)
    else:
        store(y, v)


cdef enum:
    # How results are stored.
    AS_IT_IS = 0
    GOES_PAST = 1  # past the caches
    DIVIDED = 2    # once they are divided


cdef inline void box_chunk(
    Kind kind, Care care, int vectors, int way, Py_ssize_t deep, Py_ssize_t high, Py_ssize_t wide,
    const real *x, Py_ssize_t at, const Box *b, real *y, bits *places, vec *looked
) noexcept nogil:
    """As `box`, for so many vectors, whose results stay in registers until they are stored.

    The counts are the box's, apart so that they can be constants to the compiler. `looked` is
    what `seen` grows by: to add is less work than to compare, and a NaN stays in a sum.
    """
    cdef vec[4] best
    cdef mask[4] kept
    cdef vec[4] sums
    cdef vec v
    cdef Py_ssize_t d, h, w = 1, place = 0, i
    cdef mask place_of
    cdef int u
    cdef const real *plane = x + at
    # To the compiler, what is stored might be part of the box.
    cdef Py_ssize_t back = b.pitch[0], down = b.pitch[1], across = b.pitch[2]
    cdef Py_ssize_t hop_back = b.hop[0], hop_down = b.hop[1], hop_across = b.hop[2]
    cdef Py_ssize_t first = b.place
    cdef const void *which = b.which
    cdef const bits *carried = b.carried
    cdef const real *row
    cdef const real *cell
    for u in range(vectors):
        if kind >= ROUTE_BYTES:
            best[u] = splat(0)
            w = 0
        else:
            best[u] = load(x + at + u * LANES)
            sums[u] = best[u]
            if u == vectors - 1:
                poolgrad_in_turn()
        if kind == ARGMAX:
            kept[u] = splat_bits(<bits>first)
            if carried != NULL:
                kept[u] = add_bits(kept[u], load_bits(carried + at + u * LANES))
    for d in range(deep):
        row = plane
        for h in range(high):
            cell = row + w * across
            while w < wide:
                if kind != MAX and kind != SUM:
                    place = first + d * hop_back + h * hop_down + w * hop_across
                    place_of = splat_bits(<bits>place)
                for u in range(vectors):
                    i = cell - x + u * LANES
                    v = load(cell + u * LANES)
                    if care == WATCH:
                        sums[u] = sums[u] + v
                    if kind >= ROUTE_BYTES:
                        best[u] = add_where(meant(kind, which, i, place), v, best[u])
                    elif kind == ARGMAX and carried != NULL:
                        fold(kind, care, v,
                             add_bits(place_of, load_bits(carried + i)), &best[u], &kept[u])
                    else:
                        fold(kind, care, v, place_of, &best[u], &kept[u])
                    if care == WATCH and kind == MAX:
                        poolgrad_by_now(&sums[u])
                if kind < ROUTE_BYTES:
                    poolgrad_in_turn()
                cell += across
                w += 1
            w = 0
            row += down
        plane += back
    if b.tail != NULL:
        for u in range(vectors):
            if kind == ARGMAX:
                place_of = splat_bits(<bits>b.tail_place)
                if b.tail_carried != NULL:
                    place_of = add_bits(place_of, load_bits(b.tail_carried + at + u * LANES))
            fold(kind, care, load(b.tail + at + u * LANES), place_of, &best[u], &kept[u])
    if kind == SUM and way & DIVIDED:  # asked once, not for each vector
        for u in range(vectors):
            best[u] = divided(best[u], b.divisor, b.factor)
    for u in range(vectors):
        if way == AS_IT_IS:  # as most are; so that it takes one test for all of them
            store(y + at + u * LANES, best[u])
        else:
            put(y + at + u * LANES, best[u], way & GOES_PAST)
        if kind == ARGMAX:
            store_bits(places + at + u * LANES, kept[u])
        if care == WATCH:
            looked[0] = looked[0] + sums[u]


cdef inline bint wins(Kind kind, Care care, real value, real best) noexcept nogil:
    if care == EXACT:
        return (not best >= value) and best == best
    return value > best


cdef inline void box_element(
    Kind kind, Care care, const real *x, Py_ssize_t at, const Box *b, real *y, bits *places
) noexcept nogil:
    """As `box`, for one element."""
    cdef real best = x[at], value
    cdef Py_ssize_t kept = b.place + (b.carried[at] if kind == ARGMAX and b.carried != NULL else 0)
    cdef Py_ssize_t d, h, w = 1, i, place
    if kind >= ROUTE_BYTES:
        best, w = 0, 0
    elif care == WATCH:
        b.seen[0] += best
    for d in range(b.count[0]):
        for h in range(b.count[1]):
            i = at + d * b.pitch[0] + h * b.pitch[1] + w * b.pitch[2]
            while w < b.count[2]:
                value = x[i]
                if care == WATCH:
                    b.seen[0] += value
                place = b.place + d * b.hop[0] + h * b.hop[1] + w * b.hop[2]
                if kind == SUM:
                    best = best + value
                elif kind == ROUTE_BYTES:
                    if (<const unsigned char *>b.which)[i] == place:
                        best = best + value
                elif kind == ROUTE_INTS:
                    if (<const int *>b.which)[i] == place:
                        best = best + value
                elif wins(kind, care, value, best):
                    best = value
                    if kind == ARGMAX:
                        kept = place
                        if b.carried != NULL:
                            kept += b.carried[i]
                i += b.pitch[2]
                w += 1
            w = 0
    if b.tail != NULL:
        value = b.tail[at]
        if kind == SUM:
            best = best + value
        elif wins(kind, care, value, best):
            best = value
            if kind == ARGMAX:
                kept = b.tail_place + (b.tail_carried[at] if b.tail_carried != NULL else 0)
    if kind == SUM and b.divisor != 0:
        best = best * b.factor if b.factor != 0 else best / b.divisor
    y[at] = best
    if kind == ARGMAX:
        places[at] = <bits>kept


cdef inline void box_as(
    Kind kind, Care care, const real *x, const Box *b, Py_ssize_t n, real *y, bits *places
) noexcept nogil:
    cdef Py_ssize_t i = 0
    if b.count[0] * b.count[1] * b.count[2] == 0:
        for i in range(n):
            y[i] = 0 if kind >= SUM else -INFINITY
            if kind == ARGMAX:
                places[i] = 0
        return
    if n < LANES:
        for i in range(n):
            box_element(kind, care, x, i, b, y, places)
        return
    if b.count[0] == 2 and b.count[1] == 2 and b.count[2] == 2:
        box_vectors(kind, care, 2, 2, 2, x, b, n, y, places)
    elif b.count[0] != 1:
        box_vectors(kind, care, b.count[0], b.count[1], b.count[2], x, b, n, y, places)
    elif b.count[1] == 1 and b.count[2] == 1:
        box_vectors(kind, care, 1, 1, 1, x, b, n, y, places)
    elif b.count[1] == 1 and b.count[2] == 4:
        box_vectors(kind, care, 1, 1, 4, x, b, n, y, places)
    elif b.count[1] == 2 and b.count[2] == 2:
        box_vectors(kind, care, 1, 2, 2, x, b, n, y, places)
    elif b.count[1] == 3 and b.count[2] == 3:
        box_vectors(kind, care, 1, 3, 3, x, b, n, y, places)
    else:
        box_vectors(kind, care, 1, b.count[1], b.count[2], x, b, n, y, places)


cdef inline void box_vectors(
    Kind kind, Care care, Py_ssize_t deep, Py_ssize_t high, Py_ssize_t wide,
    const real *x, const Box *b, Py_ssize_t n, real *y, bits *places
) noexcept nogil:
    cdef Py_ssize_t i = 0
    cdef vec looked = splat(0)
    cdef int way = AS_IT_IS
    if kind < ROUTE_BYTES and goes_past(b, y, n, 0):
        way |= GOES_PAST
    if kind == SUM and b.divisor != 0:
        way |= DIVIDED
    while i + 4 * LANES <= n:
        box_chunk(kind, care, 4, way, deep, high, wide, x, i, b, y, places, &looked)
        i += 4 * LANES
    if i + 2 * LANES <= n:
        box_chunk(kind, care, 2, way, deep, high, wide, x, i, b, y, places, &looked)
        i += 2 * LANES
    while i < n:
        # The last vector may overlap the one before, and make some elements twice.
        i = min(i, n - LANES)
        box_chunk(kind, care, 1, way, deep, high, wide, x, i, b, y, places, &looked)
        i += LANES
    if care == WATCH:
        store(b.seen, load(b.seen) + looked)


cdef inline void boxes_as(
    Kind kind, Care care, const real *x, Box *b, const Window *windows, Py_ssize_t many,
    Py_ssize_t every, Py_ssize_t pitch, Py_ssize_t n, real *y, Py_ssize_t y_pitch, bits *places
) noexcept nogil:
    cdef Py_ssize_t i, w, at, place = b.place
    # Memory is read sooner at two places than at one, so of one row two halves are made at once.
    cdef Py_ssize_t half = (many + 1) // 2 if b.count[0] * b.count[1] == 1 else 0
    cdef const void *which = b.which
    cdef const Window *window
    if windows == NULL:
        box_as(kind, care, x, b, n, y, places)
        return
    for i in range(many):
        w = i
        if half:
            w = i // 2 + (half if i % 2 else 0)
        w *= every
        window = windows + w
        b.count[2] = window.count
        b.pitch[2] = window.step * pitch
        b.hop[2] = window.hop
        b.place = place + window.place
        at = window.start * pitch
        b.which = further(kind, which, at)
        box_as(kind, care, x + at, b, n, y + w * y_pitch, places + w * n)
    b.place = place
    b.which = which


cdef void boxes(
    Kind kind,
    bint exact,          # whether NaNs are possible
    const real *x,       # IN: where the first tap's vector is
    Box *b,              # IN: where the others are
    const Window *windows,  # IN: along the width, if there are several boxes; or NULL
    Py_ssize_t many,
    Py_ssize_t every,    # of these windows, which are so many apart
    Py_ssize_t pitch,    # elements from cell to cell of x
    Py_ssize_t n,        # elements of a vector
    real *y,             # OUT: the largest of each, or their sum; apart from all that is read
    Py_ssize_t y_pitch,  # elements from cell to cell of y
    bits *places,        # OUT, ARGMAX: which it was
) noexcept nogil:
    """Reduce boxes of vectors to one vector each."""
    if kind == SUM:
        boxes_as(SUM, QUICK, x, b, windows, many, every, pitch, n, y, y_pitch, places)
    elif kind == ROUTE_BYTES:
        boxes_as(ROUTE_BYTES, QUICK, x, b, windows, many, every, pitch, n, y, y_pitch, places)
    elif kind == ROUTE_INTS:
        boxes_as(ROUTE_INTS, QUICK, x, b, windows, many, every, pitch, n, y, y_pitch, places)
    elif kind == MAX:
        if exact:
            boxes_as(MAX, EXACT, x, b, windows, many, every, pitch, n, y, y_pitch, places)
        elif b.seen != NULL:
            boxes_as(MAX, WATCH, x, b, windows, many, every, pitch, n, y, y_pitch, places)
        else:
            boxes_as(MAX, QUICK, x, b, windows, many, every, pitch, n, y, y_pitch, places)
    elif exact:
        boxes_as(ARGMAX, EXACT, x, b, windows, many, every, pitch, n, y, y_pitch, places)
    elif b.seen != NULL:
        boxes_as(ARGMAX, WATCH, x, b, windows, many, every, pitch, n, y, y_pitch, places)
    else:
        boxes_as(ARGMAX, QUICK, x, b, windows, many, every, pitch, n, y, y_pitch, places)


cdef inline void box(
    Kind kind, bint exact, const real *x, Box *b, Py_ssize_t n, real *y, bits *places
) noexcept nogil:
    """Reduce one box of vectors to a vector."""
    boxes(kind, exact, x, b, NULL, 1, 1, 0, n, y, 0, places)


cdef inline const void *further(Kind kind, const void *which, Py_ssize_t n) noexcept nogil:
    """Return the place of the argmax `n` elements on."""
    if kind == ROUTE_BYTES:
        return <const unsigned char *>which + n
    if kind == ROUTE_INTS:
        return <const int *>which + n
    return NULL


cdef inline Box line_of(Py_ssize_t count, Py_ssize_t pitch) noexcept nogil:
    """Return the box of so many vectors in a line."""
    cdef Box b
    b.count[0] = b.count[1] = 1
    b.count[2] = count
    b.pitch[0] = b.pitch[1] = 0
    b.pitch[2] = pitch
    b.hop[0] = b.hop[1] = 0
    b.hop[2] = 1
    b.place = 0
    b.carried = b.which = NULL
    b.seen = NULL
    b.tail = NULL
    b.tail_carried = NULL
    b.tail_place = 0
    b.divisor = b.factor = 0
    b.large = False
    b.soon = b.soon_too = NULL
    return b


# ------------------------------------------------------------------------------- windows apart


cdef inline Py_ssize_t distance(Py_ssize_t high, Py_ssize_t down) noexcept nogil:
    """Return how many elements ahead of windows of so many rows memory is fetched."""
    return max(high * down, 1024) if high > 1 else 1024


cdef inline void fetch_ahead(
    Py_ssize_t high, const real *x, Py_ssize_t hop, Py_ssize_t i
) noexcept nogil:
    """Prefetch what windows of the next rows need, while LANES windows from `i` on are made.

    Line after line, though these windows are rows upon rows: CPUs foresee such a stream best.
    """
    cdef const char *line = <const char *>(x + high * i * hop)
    cdef Py_ssize_t k
    for k in range(high * hop * LANES * <Py_ssize_t>sizeof(real) // 64):
        poolgrad_prefetch(line + 64 * k)


cdef enum:
    PLACES = 4        # that memory is fetched from in turn
    FETCHED = 256     # lines at each of them, which lie behind one another, at most
    NEXT = 16384      # elements of two planes whose windows are made while the next two are fetched

cdef struct Ahead:
    # Memory that is read in its order, so much further on.
    const char *at
    Py_ssize_t gap       # from place to place
    Py_ssize_t left      # lines at each
    Py_ssize_t due       # lines at any
    Py_ssize_t share     # lines for each vector of windows


cdef inline Ahead ahead_of(
    const real *x, Py_ssize_t deep, Py_ssize_t hop, Py_ssize_t n, const Run *run
) noexcept nogil:
    """Return how the memory behind what rows of n windows read is fetched meanwhile.

    CPUs foresee one stream only so fast; it is read sooner at several places in turn.
    """
    cdef Py_ssize_t elements = deep * (run.x_step if run.rows > 1 else hop * n)
    cdef Py_ssize_t bytes = elements * <Py_ssize_t>sizeof(real)
    cdef Ahead ahead
    ahead.left = min((run.rows * bytes // 64 + PLACES) // PLACES, FETCHED)
    ahead.gap = 64 * ahead.left
    ahead.at, ahead.due = <const char *>x + PLACES * ahead.gap, 0
    ahead.share = (bytes // ((n + LANES - 1) // LANES) + 63) // 64
    return ahead


cdef inline void fetch_further(Py_ssize_t lines, Ahead *ahead) noexcept nogil:
    """Prefetch so many lines, on average: one at each place, or none, or several."""
    cdef Py_ssize_t k
    ahead.due += lines
    while ahead.due >= PLACES:
        ahead.due -= PLACES
        for k in range(PLACES):
            poolgrad_prefetch(ahead.at + ahead.gap * k)
        ahead.at += 64
        ahead.left -= 1
        if ahead.left == 0:
            ahead.left = ahead.gap // 64
            ahead.at += ahead.gap * (PLACES - 1)


cdef inline void take_tap(
    Kind kind, Care care, Py_ssize_t place, vec v, vec *best, mask *kept, vec *sums
) noexcept nogil:
    fold(kind, care, v, splat_bits(<bits>place), best, kept)
    if care == WATCH:
        sums[0] = sums[0] + v


cdef inline void take_twos(
    Kind kind, Care care, Py_ssize_t wide, const real *row, Py_ssize_t place, Py_ssize_t hop,
    vec *best, mask *kept, vec *sums
) noexcept nogil:
    """Take a row of taps into account, of LANES windows two elements apart, out of order."""
    cdef vec one, two
    cdef Py_ssize_t w = 0
    while w < wide:
        one = load(row + w)
        if w + 1 < wide:
            two = load(row + w + LANES)
            take_tap(kind, care, place + w * hop, evens(one, two), best, kept, sums)
            take_tap(kind, care, place + (w + 1) * hop, odds(one, two), best, kept, sums)
        else:
            # There may be nothing behind the last tap.
            two = load(row + w + LANES - 1)
            take_tap(kind, care, place + w * hop, ends(one, two), best, kept, sums)
        w += 2


cdef enum:
    LEAST_HELD = 4  # vectors of windows
    MOST_HELD = 1024  # windows
    LEAST_FETCHED = 48  # windows


cdef inline void part_after_part_as(
    Kind kind, Care care, bint planes, Py_ssize_t parts, Py_ssize_t high, Py_ssize_t wide,
    const real *x, const Box *b, Py_ssize_t n, const Run *run, real *y
) noexcept nogil:
    """As `sorted_as`, but memory is read as it lies, which CPUs foresee best.

    Windows have so many parts: planes of so many rows, or rows. What these come to is held until
    the next ones are read: of a row of windows, or of as many rows as there is room for.
    """
    cdef Py_ssize_t length = (n + LANES - 1) // LANES * LANES, top = 0, part, r, h, i, at
    cdef Py_ssize_t block = MOST_HELD // length if planes else 1
    cdef Py_ssize_t step = b.pitch[0 if planes else 1]
    cdef real divisor = b.divisor, factor = b.factor
    cdef vec best, sums, looked = splat(0)
    cdef mask kept = splat_bits(0)
    cdef real[MOST_HELD + 16] held
    cdef const real *row
    cdef real *to
    cdef real *so_far
    while top < run.rows:
        for part in range(parts):
            for r in range(min(block, run.rows - top)):
                row = at_hand(x + part * step + (top + r) * run.x_step)
                to = to_hand(y + (top + r) * run.y_step)
                so_far = to_hand(held + r * length)
                i = 0
                while i < n:
                    # The last vector may overlap the one before, and make some elements twice.
                    at = min(i, n - LANES)
                    best = load(so_far + i) if part else splat(blank(kind))
                    sums = splat(0)
                    for h in range(high):
                        take_twos(kind, care, wide, row + h * b.pitch[1] + 2 * at, 0, 0, &best,
                                  &kept, &sums)
                    if care == WATCH:
                        looked = looked + sums
                    if part < parts - 1:
                        store(so_far + i, best)
                    elif kind == SUM:
                        store(to + at, divided(in_order(best), divisor, factor))
                    else:
                        store(to + at, in_order(best))
                    i += LANES
        top += block
    if care == WATCH:
        store(b.seen, load(b.seen) + looked)


cdef inline bint sorts(Py_ssize_t hop, Py_ssize_t wide) noexcept nogil:
    """Whether taps of windows more than two apart are sorted in registers."""
    return hop == wide and (hop == 4 or hop == 3 and LANES >= 8)


cdef inline Py_ssize_t to_line(const real *x, Py_ssize_t hop) noexcept nogil:
    """Return how many windows of the first vector come before one whose taps are lines."""
    cdef Py_ssize_t rest = LANES - <Py_ssize_t>x // <Py_ssize_t>sizeof(real) % LANES
    return rest // hop if rest < LANES and rest % hop == 0 else LANES


cdef inline void sorted_as(
    Kind kind, Care care, bint ahead, bint past, int hop, Py_ssize_t deep, Py_ssize_t high,
    Py_ssize_t wide, const real *x, const Box *b, Py_ssize_t n, const Run *run, real *y,
    bits *places
) noexcept nogil:
    """As `apart`, of windows two elements apart, or side by side and 3 or 4 elements wide.

    The counts are the box's, to be constants. A row shorter than a vector reaches into the next
    one, which is made after it; the last one is made with the end of the one before, and copied.
    """
    cdef Py_ssize_t r, i = 0, at, d, h, place, rows = run.rows, places_step = run.places_step
    # To the compiler, what is stored might be part of them.
    cdef Py_ssize_t x_step = run.x_step, y_step = run.y_step, back = b.pitch[0], down = b.pitch[1]
    cdef Py_ssize_t hop_back = b.hop[0], hop_down = b.hop[1], hop_across = b.hop[2]
    cdef Py_ssize_t first = b.place, far = distance(high, down)
    cdef vec best, sums, looked = splat(0)
    cdef mask kept
    cdef vec[4] taps
    cdef const real *row
    cdef const real *source
    cdef real *to
    cdef real[16] last  # a vector, of as many elements at most
    cdef bits[16] last_places
    cdef real divisor = b.divisor, factor = b.factor
    cdef int w
    # CPUs foresee short rows themselves, if they are not too many.
    cdef bint fetch = not ahead and n >= LANES and (
        deep * high > 1 if hop > 2 else n >= LEAST_FETCHED or kind == ARGMAX and deep * high > 2
    )
    cdef Ahead further
    if ahead:
        further = ahead_of(x, deep, hop, n, run)
    for r in range(rows):
        source, to = at_hand(x + r * x_step), to_hand(y + r * y_step)
        i = 0
        while i < n:
            at = i
            # The last vector may overlap the one before, and make some elements twice; so may the
            # second, to begin with a line.
            if n >= LANES or r == rows - 1:
                at = min(i, n - LANES)
            best = splat(blank(kind))  # which any first tap takes the place of, -inf itself aside
            sums = splat(0)
            kept = splat_bits(<bits>first)
            if ahead:
                fetch_further(further.share, &further)
            if fetch:
                for d in range(deep):
                    fetch_ahead(high, source + far + d * back, hop, at)
            for d in range(deep):
                for h in range(high):
                    row = source + hop * at + d * back + h * down
                    place = first + d * hop_back + h * hop_down
                    if hop == 2:
                        take_twos(kind, care, wide, row, place, hop_across, &best, &kept, &sums)
                        continue
                    sort_taps(hop, row, taps)
                    for w in range(hop):
                        take_tap(kind, care, place + w * hop_across, taps[w], &best, &kept, &sums)
            if care == WATCH:
                looked = looked + sums
            best, kept = windows_in_order(hop, best), <mask>windows_in_order(hop, <vec>kept)
            if kind == SUM:
                best = divided(best, divisor, factor)
            if at < 0:
                store(last, best)
                memcpy(to, last - at, n * sizeof(real))
                if kind == ARGMAX:
                    store_bits(last_places, kept)
                    memcpy(places + r * places_step, last_places - at, n * sizeof(bits))
                break
            put(to + at, best, past)
            if kind == ARGMAX:
                store_bits(places + r * places_step + at, kept)
            if hop == 4 and i == 0 and n >= LANES and not past:
                i += to_line(source, hop)
            else:
                i += LANES
    if care == WATCH:
        store(b.seen, load(b.seen) + looked)


cdef inline void every_few_as(
    Kind kind, Care care, Py_ssize_t wide, const real *x, const Box *b, Py_ssize_t hop,
    Py_ssize_t n, const Run *run, real *y, bits *places
) noexcept nogil:
    """As `apart`: of as many windows as a vector has lanes, squares of taps are turned about."""
    cdef Py_ssize_t side = SIDE(sizeof(real)), r, i = 0, d, h, w, k, place
    # A square may reach behind the last tap; windows whose squares reach behind the row's are last.
    cdef Py_ssize_t behind = (wide + 3) // 4 * 4 - wide
    cdef Py_ssize_t most = n - (behind + hop - 1) // hop, far = distance(b.count[1], b.pitch[1])
    cdef vec best, sums, looked = splat(0)
    cdef mask kept
    cdef real[128] square  # of `side` rows, LANES long: 8 of 16, with AVX-512
    cdef const real *row
    for r in range(run.rows):
        i = 0
        while i < most and most >= LANES:
            i = min(i, most - LANES)
            best, sums = splat(blank(kind)), splat(0)
            kept = splat_bits(<bits>b.place)
            for d in range(b.count[0]):
                fetch_ahead(b.count[1], x + far + d * b.pitch[0], hop, i)
                for h in range(b.count[1]):
                    row = x + i * hop + d * b.pitch[0] + h * b.pitch[1]
                    place = b.place + d * b.hop[0] + h * b.hop[1]
                    for w in range(wide):
                        if w % side == 0:
                            for k in range(LANES // side):
                                turn(row + k * side * hop + w, hop, square + k * side, LANES,
                                     sizeof(real), wide - w)
                        take_tap(kind, care, place + w * b.hop[2],
                                 load(square + w % side * LANES), &best, &kept, &sums)
            if care == WATCH:
                looked = looked + sums
            store(y + i, divided(best, b.divisor, b.factor) if kind == SUM else best)
            if kind == ARGMAX:
                store_bits(places + i, kept)
            i += LANES
        while i < n:
            box_element(kind, care, x + i * hop, 0, b, y + i, places + i)
            i += 1
        x += run.x_step
        y += run.y_step
        places += run.places_step
    if care == WATCH:
        store(b.seen, load(b.seen) + looked)


cdef inline void take_pairs(
    Kind kind, Care care, Py_ssize_t wide, const real *row, Py_ssize_t pitch, Py_ssize_t place,
    Py_ssize_t hop, Py_ssize_t second, mask even, mask odd, vec *best, mask *kept, vec *sums
) noexcept nogil:
    """Take a row of taps into account: each pair of them is in two vectors of the row."""
    cdef vec one, two
    cdef Py_ssize_t w = 0
    while w < wide:
        if w + 1 < wide:
            one, two = load(row), load(row + second)
            take_tap(kind, care, place, pick(one, two, even), best, kept, sums)
            take_tap(kind, care, place + hop, pick(one, two, odd), best, kept, sums)
        else:
            # There may be nothing behind the last tap.
            one, two = load(row - pitch), load(row - pitch + second)
            take_tap(kind, care, place, pick(one, two, odd), best, kept, sums)
        row += 2 * pitch
        place += 2 * hop
        w += 2


cdef inline void every_other_cell_as(
    Kind kind, Care care, Py_ssize_t deep, Py_ssize_t high, Py_ssize_t wide, const real *x,
    const Box *b, Py_ssize_t many, const Run *run, real *y, bits *places
) noexcept nogil:
    """As `apart`, of cells of a few channels, up to MOST_PICKED: windows two of these apart.

    The counts are the box's, to be constants. As many windows as a vector has room for are made at
    a time.
    """
    cdef Py_ssize_t channels = b.pitch[2], group = LANES // channels, n = group * channels
    cdef Py_ssize_t second = 2 * n - LANES, r, i, at, d, h, lane, from_
    cdef Py_ssize_t rows = run.rows, x_step = run.x_step, y_step = run.y_step
    cdef Py_ssize_t back = b.pitch[0], down = b.pitch[1], places_step = run.places_step
    cdef Py_ssize_t hop_back = b.hop[0], hop_down = b.hop[1], hop_across = b.hop[2]
    cdef Py_ssize_t first = b.place
    cdef vec best, sums, looked = splat(0)
    cdef mask kept, even, odd
    cdef bits[16] evens_of
    cdef bits[16] odds_of
    cdef real[16] last
    cdef bits[16] last_places
    cdef real divisor = b.divisor, factor = b.factor
    cdef const real *row
    cdef const real *source
    cdef real *to
    for lane in range(LANES):
        # Lanes that are no element of a window are some other element.
        from_ = 2 * lane - lane % channels if lane < n else 0
        evens_of[lane] = <bits>(from_ if from_ < LANES else from_ - second + LANES)
        from_ += channels
        odds_of[lane] = <bits>(from_ if from_ < LANES else from_ - second + LANES)
    even, odd = load_bits(evens_of), load_bits(odds_of)
    for r in range(rows):
        source, to = at_hand(x + r * x_step), to_hand(y + r * y_step)
        i = 0
        while i < many:
            # The last vector may overlap the one before, and make some elements twice.
            at = min(i, many - group) * channels
            best, sums = splat(blank(kind)), splat(0)
            kept = splat_bits(<bits>first)
            for d in range(deep):
                for h in range(high):
                    row = source + 2 * at + d * back + h * down
                    take_pairs(kind, care, wide, row, channels, first + d * hop_back + h * hop_down,
                               hop_across, second, even, odd, &best, &kept, &sums)
            if care == WATCH:
                looked = looked + sums
            if kind == SUM:
                best = divided(best, divisor, factor)
            i += group
            if i < many:
                # What is behind these windows is written next.
                store(to + at, best)
                if kind == ARGMAX:
                    store_bits(places + r * places_step + at, kept)
                continue
            store(last, best)
            memcpy(to + at, last, n * sizeof(real))
            if kind == ARGMAX:
                store_bits(last_places, kept)
                memcpy(places + r * places_step + at, last_places, n * sizeof(bits))
    if care == WATCH:
        store(b.seen, load(b.seen) + looked)


cdef inline void cell_by_cell_as(
    Kind kind, Care care, Py_ssize_t deep, Py_ssize_t high, Py_ssize_t wide, const real *x,
    const Box *b, Py_ssize_t hop, Py_ssize_t many, const Run *run, real *y, bits *places
) noexcept nogil:
    """As `apart`, of cells of fewer channels than a vector has lanes: a window at a time.

    The counts are the box's, to be constants. Lanes beyond a cell's channels are some of the cells
    behind it; what becomes of them is stored too, and written over by the windows that follow.
    """
    cdef Py_ssize_t channels = b.pitch[2], n = many * channels, far = hop * channels
    cdef Py_ssize_t r, i, d, h, w, c, place, safe
    cdef Py_ssize_t rows = run.rows, x_step = run.x_step, y_step = run.y_step
    cdef Py_ssize_t back = b.pitch[0], down = b.pitch[1], places_step = run.places_step
    cdef Py_ssize_t hop_back = b.hop[0], hop_down = b.hop[1], hop_across = b.hop[2]
    cdef Py_ssize_t first = b.place
    cdef bint joined = n == y_step == places_step
    cdef vec best, v, sums, looked = splat(0)
    cdef mask kept
    cdef real[16] last  # a vector, of as many elements at most
    cdef bits[16] last_places
    cdef real divisor = b.divisor, factor = b.factor
    cdef const real *row
    cdef const real *source
    cdef real *to
    cdef bits *to_places
    for r in range(rows):
        source, to = at_hand(x + r * x_step), to_hand(y + r * y_step)
        to_places = places + r * places_step
        safe = ((rows - r) * n if joined else n) - LANES
        i = 0
        while i < n:
            if i > safe and r == rows - 1:
                # There may be nothing behind the last tap.
                for c in range(channels):
                    box_element(kind, care, source, c, b, to + i, to_places + i)
                source += far
                i += channels
                continue
            best, sums = splat(blank(kind)), splat(0)
            kept = splat_bits(<bits>first)
            for d in range(deep):
                for h in range(high):
                    row = source + d * back + h * down
                    place = first + d * hop_back + h * hop_down
                    for w in range(wide):
                        v = load(row + w * channels)
                        take_tap(kind, care, place + w * hop_across, v, &best, &kept, &sums)
            if care == WATCH:
                looked = looked + sums
            if kind == SUM:
                best = divided(best, divisor, factor)
            if i <= safe:
                store(to + i, best)
                if kind == ARGMAX:
                    store_bits(to_places + i, kept)
            else:
                store(last, best)
                store_bits(last_places, kept)
                for c in range(channels):
                    to[i + c] = last[c]
                    if kind == ARGMAX:
                        to_places[i + c] = last_places[c]
            source += far
            i += channels
    if care == WATCH:
        store(b.seen, load(b.seen) + looked)


cdef inline bint apart_ahead_as(
    Kind kind, Care care, bint past, const real *x, const Box *b, Py_ssize_t hop, Py_ssize_t n,
    const Run *run, real *y, bits *places
) noexcept nogil:
    """As `apart_as`, of windows that take less time than to read memory; False if these do not."""
    if not b.large or n < LANES or care == EXACT:
        return False
    if b.count[0] == b.count[1] == 1 and hop == b.count[2] == 4:
        sorted_as(kind, care, True, past, 4, 1, 1, 4, x, b, n, run, y, places)
    elif b.count[0] == b.count[1] == 1 and hop == b.count[2] == 2:
        sorted_as(kind, care, True, past, 2, 1, 1, 2, x, b, n, run, y, places)
    elif kind == ARGMAX or hop != 2 or b.count[1] != b.count[2]:
        return False
    elif b.count[0] == 1 and b.count[1] == 3:
        sorted_as(kind, care, True, past, 2, 1, 3, 3, x, b, n, run, y, places)
    elif b.count[1] != 2:
        return False
    elif b.count[0] == 1 and past:
        sorted_as(kind, care, True, past, 2, 1, 2, 2, x, b, n, run, y, places)
    elif b.count[0] == 2 and 2 * run.rows * run.x_step <= NEXT:
        sorted_as(kind, care, True, past, 2, 2, 2, 2, x, b, n, run, y, places)
    else:
        return False
    return True


cdef inline void apart_as(
    Kind kind, Care care, const real *x, const Box *b, Py_ssize_t hop, Py_ssize_t n,
    const Run *run, real *y, bits *places
) noexcept nogil:
    cdef bint past = goes_past(b, y, n, run.y_step)
    if b.pitch[2] == 1 and apart_ahead_as(kind, care, past, x, b, hop, n, run, y, places):
        return
    if b.pitch[2] > 1 and (
        hop > 2 or b.pitch[2] > MOST_PICKED
        or kind != ARGMAX and b.count[0] * b.count[1] == 1 and b.pitch[2] > 2
    ):
        if b.count[0] == 1 and b.count[1] == 2 and b.count[2] == 2:
            cell_by_cell_as(kind, care, 1, 2, 2, x, b, hop, n, run, y, places)
        elif b.count[0] == 1 and b.count[1] == 3 and b.count[2] == 3:
            cell_by_cell_as(kind, care, 1, 3, 3, x, b, hop, n, run, y, places)
        elif b.count[0] == b.count[1] == 1 and b.count[2] == 3:
            cell_by_cell_as(kind, care, 1, 1, 3, x, b, hop, n, run, y, places)
        elif b.count[0] == b.count[1] == 1 and b.count[2] == 2:
            cell_by_cell_as(kind, care, 1, 1, 2, x, b, hop, n, run, y, places)
        else:
            cell_by_cell_as(kind, care, b.count[0], b.count[1], b.count[2], x, b, hop, n, run, y,
                            places)
    elif b.pitch[2] > 1 and b.count[0] == 1 and b.count[1] == 2 and b.count[2] == 2:
        every_other_cell_as(kind, care, 1, 2, 2, x, b, n, run, y, places)
    elif b.pitch[2] > 1 and b.count[0] == 1 and b.count[1] == 3 and b.count[2] == 3:
        every_other_cell_as(kind, care, 1, 3, 3, x, b, n, run, y, places)
    elif b.pitch[2] > 1:
        every_other_cell_as(kind, care, b.count[0], b.count[1], b.count[2], x, b, n, run, y, places)
    elif hop == 4 and sorts(hop, b.count[2]) and b.count[0] * b.count[1] == 1:
        sorted_as(kind, care, False, past, 4, 1, 1, 4, x, b, n, run, y, places)
    elif hop == 4 and sorts(hop, b.count[2]):
        sorted_as(kind, care, False, past, 4, b.count[0], b.count[1], 4, x, b, n, run, y, places)
    elif sorts(hop, b.count[2]):
        sorted_as(kind, care, False, past, 3, b.count[0], b.count[1], 3, x, b, n, run, y, places)
    elif hop > 2 and b.count[2] == 4:
        every_few_as(kind, care, 4, x, b, hop, n, run, y, places)
    elif hop > 2 and b.count[2] == 3:
        every_few_as(kind, care, 3, x, b, hop, n, run, y, places)
    elif hop > 2:
        every_few_as(kind, care, b.count[2], x, b, hop, n, run, y, places)
    elif kind != ARGMAX and b.count[0] == 1 < b.count[1] and not past and (
        LEAST_HELD * LANES < n <= MOST_HELD
    ):
        if b.count[1] == 2 and b.count[2] == 2:
            part_after_part_as(kind, care, False, 2, 1, 2, x, b, n, run, y)
        elif b.count[1] == 3 and b.count[2] == 3:
            part_after_part_as(kind, care, False, 3, 1, 3, x, b, n, run, y)
        else:
            part_after_part_as(kind, care, False, b.count[1], 1, b.count[2], x, b, n, run, y)
    elif kind != ARGMAX and b.count[0] > 1 and not past and LANES <= n <= MOST_HELD - LANES:
        if b.count[0] == 2 and b.count[1] == 2 and b.count[2] == 2:
            part_after_part_as(kind, care, True, 2, 2, 2, x, b, n, run, y)
        else:
            part_after_part_as(kind, care, True, b.count[0], b.count[1], b.count[2], x, b,
                               n, run, y)
    elif b.count[0] == 1 and b.count[1] == 2 and b.count[2] == 2:
        sorted_as(kind, care, False, past, 2, 1, 2, 2, x, b, n, run, y, places)
    elif b.count[0] == 1 and b.count[1] == 3 and b.count[2] == 3:
        sorted_as(kind, care, False, past, 2, 1, 3, 3, x, b, n, run, y, places)
    elif b.count[0] == b.count[1] == 1 and b.count[2] == 3:
        sorted_as(kind, care, False, past, 2, 1, 1, 3, x, b, n, run, y, places)
    elif b.count[0] == 2 and b.count[1] == 2 and b.count[2] == 2:
        sorted_as(kind, care, False, past, 2, 2, 2, 2, x, b, n, run, y, places)
    elif b.count[2] == 2:
        sorted_as(kind, care, False, past, 2, b.count[0], b.count[1], 2, x, b, n, run, y, places)
    else:
        sorted_as(kind, care, False, past, 2, b.count[0], b.count[1], b.count[2], x, b, n, run, y,
                  places)


# Functions of their own, since loops of a large one have too few registers.


cdef void apart_sum(
    const real *x, const Box *b, Py_ssize_t hop, Py_ssize_t n, const Run *run, real *y, bits *places
) noexcept nogil:
    apart_as(SUM, QUICK, x, b, hop, n, run, y, places)


cdef void apart_max_exact(
    const real *x, const Box *b, Py_ssize_t hop, Py_ssize_t n, const Run *run, real *y, bits *places
) noexcept nogil:
    apart_as(MAX, EXACT, x, b, hop, n, run, y, places)


cdef void apart_max_watch(
    const real *x, const Box *b, Py_ssize_t hop, Py_ssize_t n, const Run *run, real *y, bits *places
) noexcept nogil:
    apart_as(MAX, WATCH, x, b, hop, n, run, y, places)


cdef void apart_max_quick(
    const real *x, const Box *b, Py_ssize_t hop, Py_ssize_t n, const Run *run, real *y, bits *places
) noexcept nogil:
    apart_as(MAX, QUICK, x, b, hop, n, run, y, places)


cdef void apart_argmax_exact(
    const real *x, const Box *b, Py_ssize_t hop, Py_ssize_t n, const Run *run, real *y, bits *places
) noexcept nogil:
    apart_as(ARGMAX, EXACT, x, b, hop, n, run, y, places)


cdef void apart_argmax_watch(
    const real *x, const Box *b, Py_ssize_t hop, Py_ssize_t n, const Run *run, real *y, bits *places
) noexcept nogil:
    apart_as(ARGMAX, WATCH, x, b, hop, n, run, y, places)


cdef void apart_argmax_quick(
    const real *x, const Box *b, Py_ssize_t hop, Py_ssize_t n, const Run *run, real *y, bits *places
) noexcept nogil:
    apart_as(ARGMAX, QUICK, x, b, hop, n, run, y, places)


cdef void apart(
    Kind kind, bint exact, const real *x, const Box *b, Py_ssize_t hop, Py_ssize_t n,
    const Run *run, real *y, bits *places
) noexcept nogil:
    """As `box`, of rows of n windows of neighbouring taps, `hop` cells apart: `enough`, `picks`."""
    if kind == SUM:
        apart_sum(x, b, hop, n, run, y, places)
    elif kind == MAX:
        if exact:
            apart_max_exact(x, b, hop, n, run, y, places)
        elif b.seen != NULL:
            apart_max_watch(x, b, hop, n, run, y, places)
        else:
            apart_max_quick(x, b, hop, n, run, y, places)
    elif exact:
        apart_argmax_exact(x, b, hop, n, run, y, places)
    elif b.seen != NULL:
        apart_argmax_watch(x, b, hop, n, run, y, places)
    else:
        apart_argmax_quick(x, b, hop, n, run, y, places)


# ---------------------------------------------------------------------------------- rows on rows


cdef inline void stack_strip(
    Kind kind, int pieces, int vectors, Py_ssize_t deep, Py_ssize_t high, const real *x,
    Py_ssize_t gap, Py_ssize_t back, Py_ssize_t down, real *y, vec *looked, flags *signed
) noexcept nogil:
    """As `stack`, for one or two pieces of a row, `gap` elements apart, of so many vectors."""
    cdef vec[2][4] best
    cdef vec v
    cdef mask none = splat_bits(0)
    cdef Py_ssize_t d, h = 1
    cdef const real *row
    cdef int u, k
    for k in range(pieces):
        for u in range(vectors):
            best[k][u] = load(x + k * gap + u * LANES)
            if kind == MAX:
                looked[u] = looked[u] + best[k][u]
    for d in range(deep):
        row = x + d * back + h * down
        while h < high:
            for k in range(pieces):
                for u in range(vectors):
                    v = load(row + k * gap + u * LANES)
                    if kind == MAX:
                        looked[u] = looked[u] + v
                    fold(kind, QUICK, v, none, &best[k][u], &none)
            row += down
            h += 1
        h = 0
    for k in range(pieces):
        for u in range(vectors):
            store(y + k * gap + u * LANES, best[k][u])
            if kind == MAX:
                signed[0] |= equal_bits(<mask>best[k][u], <mask>splat(<real>-0.0))


cdef inline bint stack_as(
    Kind kind, Py_ssize_t deep, Py_ssize_t high, const real *x, const Box *b, Py_ssize_t n,
    Py_ssize_t fresh, real *y
) noexcept nogil:
    cdef Py_ssize_t i = 0, back = b.pitch[0], down = b.pitch[1], far = distance(high, down), d, k
    cdef Py_ssize_t gap
    cdef vec[4] looked
    cdef flags signed = larger(splat(0), splat(0))
    cdef const char *soon
    for k in range(4):
        looked[k] = splat(0)
    while i < n:
        # The last vectors may overlap those before, and make some elements twice.
        if n - i > 4 * LANES:
            # Of rows that fit in registers, all of one is read before the next.
            gap = min(n - i - 4 * LANES, 4 * LANES)
            for d in range(deep):
                soon = <const char *>(x + far + d * back + fresh * i)
                for k in range(fresh * (gap + 4 * LANES) * <Py_ssize_t>sizeof(real) // 64):
                    poolgrad_prefetch(soon + 64 * k)
            stack_strip(kind, 2, 4, deep, high, x + i, gap, back, down, y + i, looked, &signed)
            i += gap + 4 * LANES
        elif n >= 4 * LANES:
            i = min(i, n - 4 * LANES)
            stack_strip(kind, 1, 4, deep, high, x + i, 0, back, down, y + i, looked, &signed)
            i += 4 * LANES
        elif n >= 2 * LANES:
            i = min(i, n - 2 * LANES)
            stack_strip(kind, 1, 2, deep, high, x + i, 0, back, down, y + i, looked, &signed)
            i += 2 * LANES
        else:
            i = min(i, n - LANES)
            stack_strip(kind, 1, 1, deep, high, x + i, 0, back, down, y + i, looked, &signed)
            i += LANES
    if kind == MAX:
        store(b.seen, load(b.seen) + (looked[0] + looked[1]) + (looked[2] + looked[3]))
    return not all_set(every_lane() & ~signed)


cdef inline bint stack_rows(
    Kind kind, const real *x, const Box *b, Py_ssize_t n, Py_ssize_t fresh, real *y
) noexcept nogil:
    if b.count[0] == 1 and b.count[1] == 3:
        return stack_as(kind, 1, 3, x, b, n, fresh, y)
    return stack_as(kind, b.count[0], b.count[1], x, b, n, fresh, y)


cdef bint stack(
    Kind kind,
    const real *x,       # IN: the first row of the box
    Box *b,              # IN: one tap wide
    Py_ssize_t n,        # elements of a row
    Py_ssize_t fresh,    # rows from this box to the next one below
    real *y,             # OUT: the largest of each column, or their sum
) noexcept nogil:
    """As `box`, of rows that are read in their order; return whether a maximum is -0, or may be."""
    if n < LANES or b.count[0] * b.count[1] == 0:
        box(kind, False, x, b, n, y, NULL)
        return kind == MAX
    if kind == MAX:
        return stack_rows(MAX, x, b, n, fresh, y)
    return stack_rows(SUM, x, b, n, fresh, y)
