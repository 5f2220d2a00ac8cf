# A plane of a tile's results, or several.

from libc.string cimport memcpy, memset

cdef struct Rows:
    # The rows that a plane's results are made of: of the source itself, copied, or reduced.
    const real *x
    const bits *places
    Py_ssize_t depth      # elements from plane to plane
    Py_ssize_t height     # and from row to row
    Py_ssize_t pitch      # and from cell to cell


cdef inline void narrow(const bits *places, Py_ssize_t n, index *argmax) noexcept nogil:
    """Store a row of an argmax."""
    cdef Py_ssize_t i = 0
    if index is not int:
        while i + 16 <= n:
            narrow_bytes(places + i, argmax + i)
            i += 16
        if i < n and n >= 16:
            # The last ones overlap those before.
            narrow_bytes(places + n - 16, argmax + n - 16)
            i = n
    while i < n:
        argmax[i] = <index>places[i]
        i += 1


cdef inline bint any_empty(const Space *space) noexcept nogil:
    """Return whether there are windows without a tap."""
    return space.empty_high[0] + space.empty_high[1] + space.empty_high[2] > 0


cdef void finish(
    Kind kind,
    const Py_ssize_t *program,
    const bits *places,      # IN, ARGMAX: so many rows, cell beside cell
    Tile *tile,
    Target *target,
    Py_ssize_t plane,
    Py_ssize_t d,
    Py_ssize_t h,
    Py_ssize_t rows,
    Space *space,
    index _argmax,           # only its type is used
) noexcept nogil:
    """Store the argmax of rows of results, or divide them."""
    cdef Py_ssize_t width = tile.high[2] - tile.low[2], out = width * tile.channels, w
    cdef Py_ssize_t at = (
        (plane - tile.plane) * target.plane + (d - tile.low[0]) * target.depth
        + (h - tile.low[1]) * target.height
    )
    cdef Py_ssize_t high = tile.high[1] - tile.low[1]  # rows may be of several planes
    cdef bint empty = any_empty(space), divides = program[MEAN] and not space.divided
    if kind == ARGMAX and target.height == out and not empty:
        narrow(places, rows * out, <index *>target.argmax + at)
        return
    for h in range(h, h + rows):
        if divides:
            divide(target.y + at, target.cell, space.counts[0][d - tile.low[0]]
                   * space.counts[1][(h - tile.low[1]) % high], space.counts[2], space.alike,
                   width, tile.channels, target.y + at, target.cell)
        if kind == ARGMAX and target.cell == tile.channels:
            narrow(places, out, <index *>target.argmax + at)
        elif kind == ARGMAX:
            for w in range(width):
                narrow(places + w * tile.channels, tile.channels,
                       <index *>target.argmax + at + w * target.cell)
        if empty:
            blot_out(kind, program, tile, target, at, d, h, space, <index>0)
        at += target.height
        places += out


cdef inline void divide_alike(
    const Py_ssize_t *program, Tile *tile, Py_ssize_t d, Py_ssize_t h, Py_ssize_t rows,
    Space *space, Box *b
) noexcept nogil:
    """Have a box divide what it makes of rows before it stores it, if they have one divisor."""
    cdef const double *counts = space.counts[1] + h - tile.low[1]
    cdef Py_ssize_t r = 1
    b.divisor = b.factor = 0
    if program[MEAN] and space.alike[0] >= tile.high[2] - tile.low[2]:
        while r < rows and counts[r] == counts[0]:
            r += 1
        if r == rows:
            divide_box(b, space.counts[0][d - tile.low[0]] * counts[0] * space.counts[2][0])
    space.divided = b.divisor != 0


cdef void blot_out(
    Kind kind,
    const Py_ssize_t *program,
    Tile *tile,
    Target *target,
    Py_ssize_t at,           # where in the target
    Py_ssize_t d,
    Py_ssize_t h,
    const Space *space,
    index _argmax,           # only its type is used
) noexcept nogil:
    """Forget what was found in windows of a row that have no taps: it means nothing."""
    cdef Py_ssize_t w, c, low = space.empty_low[2], high = space.empty_high[2]
    cdef bint empty
    if kind != SUM and kind != ARGMAX:
        return
    empty = clip_at(program, 0, d).count == 0 or clip_at(program, 1, h).count == 0
    if empty:
        low, high = 0, tile.high[2] - tile.low[2]
    for w in range(low, high):
        if empty or clip_at(program, 2, tile.low[2] + w).count == 0:
            for c in range(tile.channels):
                if kind == SUM:
                    target.y[at + w * target.cell + c] = 0
                else:
                    (<index *>target.argmax)[at + w * target.cell + c] = <index>-1


cdef inline Window clip_at(const Py_ssize_t *program, int axis, Py_ssize_t o) noexcept nogil:
    """Return the taps of a window that lie inside an axis."""
    return clip(program + program[AXES + axis * AXIS_FIELDS + TAPS_AT], o)


cdef inline real *row_in(const Target *target, Py_ssize_t at) noexcept nogil:
    """Return where a row of results goes."""
    return target.y + at if target.kept else target.y


cdef inline Py_ssize_t pitch_in(const Target *target, const Tile *tile) noexcept nogil:
    """Return how many elements there are from cell to cell of it."""
    return target.cell if target.kept else tile.channels


cdef void emit(
    Kind kind,
    bint exact,
    const real *x,           # IN: reduced rows, cell beside cell
    Box *b,                  # IN: those to reduce
    Tile *tile,
    real *y,                 # OUT: a row
    Py_ssize_t pitch,        # elements from cell to cell of it
    bits *places,            # OUT, ARGMAX: a row
) noexcept nogil:
    """Make a row of results out of reduced rows."""
    cdef Py_ssize_t width = tile.high[2] - tile.low[2], w
    cdef Box cell
    if pitch == tile.channels:
        box(kind, exact, x, b, width * tile.channels, y, places)
        return
    cell = b[0]
    for w in range(width):
        box(kind, exact, x, &cell, tile.channels, y, places)
        x += tile.channels
        y += pitch
        places += tile.channels
        if cell.carried != NULL:
            cell.carried += tile.channels
        if cell.tail != NULL:
            cell.tail += tile.channels
        if cell.tail_carried != NULL:
            cell.tail_carried += tile.channels


cdef inline void fetch_share(Py_ssize_t rows, Space *space) noexcept nogil:
    """Fetch a share of what is needed next: all at once, it would have to be waited for."""
    cdef int k
    cdef Py_ssize_t i, lines
    cdef Soon *soon
    for k in range(3):
        soon = &space.soon[k]
        lines = min(rows * soon.share, soon.lines)
        for i in range(lines):
            poolgrad_prefetch(soon.at + 64 * i)
        soon.at += 64 * lines
        soon.lines -= lines


cdef bint slide(
    Kind kind,
    const Py_ssize_t *program,
    const real *x,
    Tile *tile,
    Target *target,
    Py_ssize_t plane,
    Py_ssize_t d,            # the plane of the source, and of the result
    Space *space,
    index argmax,
) noexcept nogil:
    """Reduce a plane by windows that are large along the height; False if it has to be exact.

    Blocks of as many rows as a window has follow each other, from the first window of all on. A
    window is the tail of a block and the head of the next one, which are both kept up to date
    row by row: van Herk's algorithm. Where a tail was, that is no longer needed, the next block's
    row of the same number is kept.
    """
    cdef const Py_ssize_t *taps = program + program[AXES + AXIS_FIELDS + TAPS_AT]
    cdef Py_ssize_t rows = taps[TAPS], every = taps[ADVANCE], base = taps[BASE]
    cdef Py_ssize_t weight = program[AXES + 2 * AXIS_FIELDS + BOX]
    cdef Py_ssize_t n = (tile.high[2] - tile.low[2]) * tile.channels
    # Vectors end where rows do; and rows that lie a page apart would wait for one another.
    cdef Py_ssize_t whole = (n + 15) // 16 * 16, length = whole + 16, at
    cdef Py_ssize_t h = tile.low[1]
    cdef Py_ssize_t block = h * every // rows * rows   # where the tails' block starts
    cdef Py_ssize_t front = h * every - block, i
    cdef real *tails = space.work
    cdef real *head = tails + rows * length
    cdef bits *tails_places = space.carry
    cdef bits *head_places = tails_places + rows * length
    cdef Box b
    for i in range(rows - 1, front - 1, -1):
        if not reduced_row(kind, program, x, tile, plane, d, base + block + i, n, space,
                           tails + i * length, tails_places + i * length):
            return False
    while True:
        # The tails, from the last one up.
        for i in range(rows - 1, front - 1, -1):
            b = line_of(1, 0)
            b.place = i * weight
            b.carried = tails_places + i * length if kind == ARGMAX else NULL
            if i < rows - 1:
                b.tail = tails + (i + 1) * length
                b.tail_carried = tails_places + (i + 1) * length
            box(kind, False, tails + i * length, &b, whole, tails + i * length,
                tails_places + i * length)
        front = 0
        for i in range(rows):
            if block + i == h * every:
                b = line_of(1, 0)
                b.place = -i * weight
                b.carried = tails_places + i * length if kind == ARGMAX else NULL
                if i:
                    b.tail = head
                    b.tail_carried = head_places
                    b.tail_place = (rows - i) * weight
                at = (
                    (plane - tile.plane) * target.plane + (d - tile.low[0]) * target.depth
                    + (h - tile.low[1]) * target.height
                )
                divide_alike(program, tile, d, h, 1, space, &b)
                emit(kind, False, tails + i * length, &b, tile, row_in(target, at),
                     pitch_in(target, tile), space.places)
                finish(kind, program, space.places, tile, target, plane, d, h, 1, space, argmax)
                if space.apart.x != NULL:
                    at = (d * taps[WINDOWS] + h) * tile.high[2]
                    take_apart(target.y, tile.high[2], space.apart.planes, space.apart.y + at,
                               program[CELLS_OUT])
                    if kind == ARGMAX:
                        take_apart(<const index *>target.argmax, tile.high[2], space.apart.planes,
                                   <index *>space.apart.argmax + at, program[CELLS_OUT])
                fetch_share(1, space)
                h += 1
                if h == tile.high[1]:
                    return True
            fetch_share(1, space)
            if not reduced_row(kind, program, x, tile, plane, d, base + block + rows + i, n, space,
                               tails + i * length, tails_places + i * length):
                return False
            b = line_of(1, 0)
            if i == 0:
                b.carried = tails_places if kind == ARGMAX else NULL
                box(kind, False, tails, &b, whole, head, head_places)
            else:
                b.carried = head_places if kind == ARGMAX else NULL
                b.tail = tails + i * length
                b.tail_carried = tails_places + i * length
                b.tail_place = i * weight
                box(kind, False, head, &b, whole, head, head_places)
        block += rows


cdef bint reduced_row(
    Kind kind,
    const Py_ssize_t *program,
    const real *x,
    Tile *tile,
    Py_ssize_t plane,
    Py_ssize_t d,
    Py_ssize_t h,
    Py_ssize_t n,
    Space *space,
    real *y,                 # OUT
    bits *places,            # OUT
) noexcept nogil:
    """Reduce a row along the width, be it inside the source or not."""
    cdef const Py_ssize_t *taps = program + program[AXES + AXIS_FIELDS + TAPS_AT]
    cdef const real *row
    cdef Py_ssize_t pitch
    cdef Box b
    cdef Run run
    if not 0 <= h < taps[SIZE]:
        fill(kind, n, y, places)
        return True
    if not prepare(kind, False, program, x, tile, plane, d, h, space, space.stage, &row, &pitch):
        return False
    b = line_of(1, 0)
    run.rows = 1
    run.x_step = run.y_step = run.places_step = 0
    sweep(kind, False, program, row, pitch, &b, tile.channels, tile.high[2] - tile.low[2], space,
          y, tile.channels, places, &run)
    return True


# ------------------------------------------------------------------------------ rows read once


cdef inline void copy_row(const item *x, Py_ssize_t n, item *y) noexcept nogil:
    """Copy a row that may be short: in pieces of fixed length, the last of which may overlap."""
    cdef Py_ssize_t i = 0
    if item is real:
        while i < n and n >= LANES:
            i = min(i, n - LANES)
            store(y + i, load(x + i))
            i += LANES
    while i < n and n >= 8:
        i = min(i, n - 8)
        memcpy(y + i, x + i, 8 * sizeof(item))
        i += 8
    if 4 <= n - i < 8:
        memcpy(y, x, 4 * sizeof(item))
        memcpy(y + n - 4, x + n - 4, 4 * sizeof(item))
        i = n
    while i < n:
        y[i] = x[i]
        i += 1


cdef inline void write_frame(
    Kind kind, Py_ssize_t n, Py_ssize_t at, Space *space, index _argmax
) noexcept nogil:
    """Write padding to the stage; that of an argmax points nowhere."""
    cdef Py_ssize_t i
    for i in range(at, at + n):
        space.stage[i] = blank(kind)
    if kind >= ROUTE_BYTES:
        memset(<index *>space.stage_argmax + at, -1, n * sizeof(index))


cdef inline bint frame_rows(
    Kind kind,
    const Py_ssize_t *program,
    const real *x,           # IN: a plane
    const index *which,      # IN, ROUTE: its argmax, from the row numbered 0 on
    Py_ssize_t top,          # the first row that windows reach, inside or not, and behind the last
    Py_ssize_t bottom,
    Space *space,            # OUT: stage
) noexcept nogil:
    """Copy rows to the stage, in a frame of padding; False if a maximum has to be exact."""
    cdef Py_ssize_t width = (program + program[AXES + 2 * AXIS_FIELDS + TAPS_AT])[SIZE]
    cdef Py_ssize_t low = max(0, space.low[2]), n = min(width, space.high[2]) - low
    cdef Py_ssize_t columns = space.high[2] - space.low[2], h
    # The rows inside, if any.
    cdef Py_ssize_t first = min(max(top, space.low[1]), bottom)
    cdef Py_ssize_t last = max(first, min(bottom, space.high[1]))
    cdef Py_ssize_t at = (first - top) * columns + low - space.low[2]
    cdef flags good = every_lane()
    cdef bint every = True
    if not space.framed:
        # What is beside the rows stays as it is from tile to tile.
        write_frame(kind, program[STAGE], 0, space, <index>0)
        space.framed = True
    write_frame(kind, (first - top) * columns, 0, space, <index>0)
    write_frame(kind, (bottom - last) * columns, (last - top) * columns, space, <index>0)
    for h in range(first, last):
        if program[ADJOINT]:
            divide(x + h * width + low, 1, space.counts[0][0] * space.counts[1][h - space.low[1]],
                   space.counts[2] + low - space.low[2], space.alike + low - space.low[2], n, 1,
                   space.stage + at, 1)
        elif kind >= SUM:
            copy_row(x + h * width + low, n, space.stage + at)
        elif not plain_row(x + h * width + low, n, space.stage + at, &good):
            every = False
        if kind >= ROUTE_BYTES:
            copy_row(which + h * space.which.pitch[2] + low, n, <index *>space.stage_argmax + at)
        at += columns
    return every and all_set(good)


cdef bint roll_plane(
    Kind kind,
    const Py_ssize_t *program,
    const real *x,           # IN
    Tile *tile,              # of whole rows, in one plane along the depth
    Target *target,          # OUT
    Py_ssize_t plane,
    Space *space,
    index _argmax,           # only its type is used
) noexcept nogil:
    """Make a plane of a tile by `roll`; False if a maximum has to be exact."""
    cdef const Py_ssize_t *field = program + AXES + AXIS_FIELDS
    cdef const Py_ssize_t *taps = program + field[TAPS_AT]
    cdef Py_ssize_t width = (program + field[AXIS_FIELDS + TAPS_AT])[SIZE], h, d = tile.low[0]
    cdef Py_ssize_t rows = tile.high[1] - tile.low[1], out = tile.high[2], many
    cdef Py_ssize_t top = first_tap(taps, tile.low[1]), bottom = top + rows + taps[TAPS] - 1
    cdef Py_ssize_t at = (plane - tile.plane) * target.plane
    cdef const Window *window = space.windows[2]
    cdef const char *which = NULL
    cdef bint inside
    cdef Box b = line_of(window.count, window.step)
    x += (plane * (program + program[AXES + TAPS_AT])[SIZE] + d) * taps[SIZE] * width
    if kind >= ROUTE_BYTES:
        which = space.which.at + space.which.item * (
            (plane - space.which.origin[0]) * space.which.pitch[0]
            + (d - space.which.origin[1]) * space.which.pitch[1]
            - space.which.origin[2] * space.which.pitch[2]
        )
    b.count[1] = taps[TAPS]
    b.hop[1], b.hop[2] = field[AXIS_FIELDS + BOX], window.hop
    if kind >= ROUTE_BYTES:
        # The first row of the windows that a cell is under has it as their last.
        b.place = (taps[TAPS] - 1) * b.hop[1] + window.place
        b.hop[1] = -b.hop[1]
    if program[LARGE] and target.kept:
        b.soon = <const char *>(x + min(bottom, taps[SIZE]) * width)
        b.soon_too = <const char *>(target.y + at + rows * out)
    inside = not program[ADJOINT] and top >= 0 and bottom <= taps[SIZE] and (
        space.low[2] == 0 and space.high[2] == width
        and (kind < ROUTE_BYTES or space.which.pitch[2] == width)
    )
    if inside:
        b.pitch[1] = width
        x += top * width
        if kind >= ROUTE_BYTES:
            which += top * width * space.which.item
        if kind < SUM and not plain(x, (bottom - top) * width):
            return False
    else:
        b.pitch[1] = space.high[2] - space.low[2]
        if not (
            frame_rows(kind, program, x, <const unsigned char *>which, top, bottom, space)
            if kind != ROUTE_INTS
            else frame_rows(kind, program, x, <const int *>which, top, bottom, space)
        ):
            return False
        x, which = space.stage, space.stage_argmax
    divide_alike(program, tile, tile.low[0], tile.low[1], rows, space, &b)
    roll(kind, program[SEPARABLE], x, which, &b, rows, out,
         target.y + at if target.kept else space.lines, out, space.places)
    # Rows of results lie side by side.
    if kind == ARGMAX:
        narrow(space.places, rows * out, <index *>target.argmax + at)
    h = 0 if program[MEAN] and b.divisor == 0 else rows
    while h < rows:
        many = 1
        if space.alike[0] >= out:
            # So have the rows below, as a rule: one long vector.
            while h + many < rows and space.counts[1][h + many] == space.counts[1][h]:
                many += 1
            divide_by(
                target.y + at + h * out, many * out,
                <real>(space.counts[0][0] * space.counts[1][h] * space.counts[2][0]),
                target.y + at + h * out
            )
        else:
            divide(target.y + at + h * out, 1, space.counts[0][0] * space.counts[1][h],
                   space.counts[2], space.alike, out, 1, target.y + at + h * out, 1)
        h += many
    if any_empty(space):
        for h in range(rows):
            blot_out(kind, program, tile, target, at + h * out, d, tile.low[1] + h, space,
                     <index>0)
    return True


cdef bint scan_plane(
    const Py_ssize_t *program,
    const real *x,           # IN
    Tile *tile,              # in one plane along the depth
    Target *target,          # OUT
    Py_ssize_t plane,
    Space *space,
) noexcept nogil:
    """Make the maxima of large windows of one channel, a cell apart; False if they must be exact.

    Rows are laid into a frame of padding, so many at a time as stay near, and reduced along the
    width as one long row; then, all of the tile, along the height.
    """
    cdef const Py_ssize_t *field = program + AXES + AXIS_FIELDS
    cdef const Py_ssize_t *taps = program + field[TAPS_AT]
    cdef const Segment *segment = space.segments
    cdef Py_ssize_t width = (program + field[AXIS_FIELDS + TAPS_AT])[SIZE], rows, d = tile.low[0]
    cdef Py_ssize_t row = first_tap(taps, tile.low[1]), at
    cdef Py_ssize_t bottom = first_tap(taps, tile.high[1] - 1) + taps[TAPS]
    cdef Py_ssize_t columns = space.high[2] - space.low[2], most = program[STAGE] // columns
    cdef real *made = space.work
    x += (plane * (program + program[AXES + TAPS_AT])[SIZE] + d) * taps[SIZE] * width
    while row < bottom:
        if space.low[1] <= row < space.high[1]:
            rows = min(most, space.high[1] - row)
            if not frame_rows(MAX, program, x, <const unsigned char *>NULL, row, row + rows, space):
                return False
            # As one long row: windows that reach from one row into the next are not used.
            ladder(MAX, space.stage, 1, segment.window.count, segment.radix,
                   rows * columns - segment.window.count + 1, space.lines, NULL, space.line, made,
                   NULL)
        else:
            rows = (min(space.low[1], bottom) if row < space.low[1] else bottom) - row
            fill(MAX, rows * columns, made, NULL)
        row += rows
        made += rows * columns
    at = (plane - tile.plane) * target.plane
    scan(MAX, space.work, columns, tile.high[2] - tile.low[2], taps[TAPS],
         tile.high[1] - tile.low[1], space.lines, NULL, target.y + at, target.height, NULL)
    return True


# ------------------------------------------------------------- averages that share no cell, back


cdef enum:
    PIECE = 4096  # elements that are made at a time; `program` knows it


cdef inline void spread_shares(
    const real *shares,      # IN: windows, cell beside cell
    Py_ssize_t windows,
    Py_ssize_t channels,
    Py_ssize_t taps,         # cells of each
    Py_ssize_t every,        # cells from one to the next: those between are 0
    real *y,                 # OUT
) noexcept nogil:
    """Write each window's share to all its cells."""
    cdef Py_ssize_t w, k
    if channels == 1 and taps == every:
        repeat(shares, windows * taps, taps, y)
        return
    for w in range(windows):
        for k in range(taps):
            copy_row(shares, channels, y)
            y += channels
        memset(y, 0, (every - taps) * channels * sizeof(real))
        y += (every - taps) * channels
        shares += channels


cdef inline void write_row(
    const Py_ssize_t *program, const real *x, Py_ssize_t cells, Py_ssize_t channels,
    Py_ssize_t cell, real *y, Pending *pending
) noexcept nogil:
    """Copy cells to where they lie `cell` elements apart."""
    cdef Py_ssize_t i
    if channels == cell:
        channels, cells = cells * channels, 1
    for i in range(cells):
        if program[PAST]:
            write_past(x + i * channels, channels, y + i * cell, pending)
        else:
            memcpy(y + i * cell, x + i * channels, channels * sizeof(real))


cdef inline Py_ssize_t share_row(
    const Py_ssize_t *axis,  # IN: its fields
    Py_ssize_t size,         # windows along it
    Py_ssize_t i,            # a row of cells
    Py_ssize_t *window,      # OUT: the one that it is under; or -1
) noexcept nogil:
    """Return how many rows, from this one on, are under the same window, or under none."""
    cdef Py_ssize_t w = (i + axis[BEFORE]) // axis[EVERY], tap = i + axis[BEFORE] - w * axis[EVERY]
    cdef bint inside = tap < axis[BOX]
    window[0] = w if inside and w < size else -1
    return (axis[BOX] if inside else axis[EVERY]) - tap


cdef void share_tile(
    const Py_ssize_t *program,
    const real *x,           # IN: the gradient of averages that share no cell
    Tile *tile,
    Target *target,          # OUT
    Space *space,            # WORK
) noexcept nogil:
    """Make a tile of an average's gradient: rows under the same window are alike, and made once."""
    cdef const Py_ssize_t *field[3]
    cdef Py_ssize_t[3] size
    cdef Py_ssize_t[3] first
    cdef Py_ssize_t axis, channels = tile.channels, every, before, most, plane, d, h, w, k
    cdef Py_ssize_t deep, high, rows, many, shared, low, end, at
    cdef real[PIECE] shares
    cdef real[PIECE] made
    cdef Pending pending
    pending.n = 0
    for axis in range(3):
        field[axis] = program + AXES + axis * AXIS_FIELDS
        size[axis] = (program + field[axis][TAPS_AT])[SIZE]
        every, before = field[axis][EVERY], field[axis][BEFORE]
        first[axis] = (tile.low[axis] + before) // every
        end = min(size[axis], (tile.high[axis] - 1 + before) // every + 1)
        if first[axis] < end:
            count_taps(program, axis, first[axis], end, space.counts[axis],
                       space.alike if axis == 2 else NULL)
    most = PIECE // (every * channels)
    if most >= 16:
        most = most // 16 * 16  # pieces that end where lines of the cache do
    for plane in range(tile.plane, tile.plane + tile.planes):
        for d in range(tile.low[0], tile.high[0]):
            share_row(field[0], size[0], d, &deep)
            h = tile.low[1]
            while h < tile.high[1]:
                rows = min(share_row(field[1], size[1], h, &high), tile.high[1] - h)
                w = first[2]
                while w * every - before < tile.high[2]:
                    many = min(most, (tile.high[2] + before + every - 1) // every - w)
                    shared = 0
                    if deep >= 0 and high >= 0:
                        shared = max(0, min(many, size[2] - w))
                    if shared:
                        at = ((plane * size[0] + deep) * size[1] + high) * size[2] + w
                        divide(x + at * program[CHANNELS] + tile.channel, program[CHANNELS],
                               space.counts[0][deep - first[0]] * space.counts[1][high - first[1]],
                               space.counts[2] + w - first[2], space.alike + w - first[2],
                               shared, channels, shares, channels)
                    memset(shares + shared * channels, 0, (many - shared) * channels * sizeof(real))
                    spread_shares(shares, many, channels, field[2][BOX], every, made)
                    low = max(tile.low[2], w * every - before)
                    end = min(tile.high[2], (w + many) * every - before)
                    at = (
                        (plane - tile.plane) * target.plane + (d - tile.low[0]) * target.depth
                        + (h - tile.low[1]) * target.height + (low - tile.low[2]) * target.cell
                    )
                    for k in range(rows):
                        write_row(program, made + (low + before - w * every) * channels, end - low,
                                  channels, target.cell, target.y + at + k * target.height,
                                  &pending)
                    w += many
                h += rows
    write_pending(&pending)


# -------------------------------------------------------------------------- along the height first


cdef enum:
    FORESEEN = 2048  # elements of a row, from which on CPUs foresee what is read next


cdef void take_turned(
    const real *x,           # IN: cells of MOST_TOGETHER rows
    Py_ssize_t width,
    double outer,            # of a row, the divisor but for its factor along the width
    const double *counts,    # IN: of each cell, that factor; or NULL
    real *y,                 # OUT: that row
) noexcept nogil:
    """Copy a row that is turned about to where it belongs, divided."""
    cdef Py_ssize_t w
    if counts == NULL:
        for w in range(width):
            y[w] = x[w * MOST_TOGETHER]
    else:
        for w in range(width):
            y[w] = x[w * MOST_TOGETHER] / <real>(outer * counts[w])


cdef inline real first_zero(const real *x, const Box *b) noexcept nogil:
    """Return the first of a window's taps that is a zero, of either sign; one is."""
    cdef Py_ssize_t d, h, w
    cdef const real *row
    for d in range(b.count[0]):
        for h in range(b.count[1]):
            row = x + d * b.pitch[0] + h * b.pitch[1]
            for w in range(b.count[2]):
                if row[w * b.pitch[2]] == 0:
                    return row[w * b.pitch[2]]
    return 0


cdef void mend_zeros(
    const Py_ssize_t *program,
    const real *x,           # IN: the first row of the windows, at the cell numbered `low`
    const Box *b,            # IN: the windows, but for their width
    const Tile *tile,
    Py_ssize_t low,
    Py_ssize_t cell,         # elements from cell to cell of y
    real *y,                 # INOUT: a row of maxima
) noexcept nogil:
    """Give maxima that are zeros the sign of their windows' first one."""
    cdef Py_ssize_t channels = program[CHANNELS], o, c
    cdef Window window
    cdef Box of = b[0]
    for o in range(tile.low[2], tile.high[2]):
        window = clip_at(program, 2, o)
        of.count[2], of.pitch[2] = window.count, window.step * channels
        for c in range(channels):
            if y[c] == 0:
                y[c] = first_zero(x + (window.start - low) * channels + c, &of)
        y += cell


cdef struct Stack:
    # The rows of the source that a row of results is made of.
    const real *x            # the first one, at the first cell that is used
    Box b                    # all of them, one tap wide
    double outer             # the divisor of the windows, but for its factor along the width
    Py_ssize_t at            # where the row of results is
    Py_ssize_t d             # and which one it is
    Py_ssize_t h


cdef bint reduce_upright(
    Kind kind,
    const Py_ssize_t *program,
    const real *x,           # IN
    Tile *tile,
    Target *target,          # OUT
    Py_ssize_t plane,
    Py_ssize_t planes,       # that are made
    Space *space,
) noexcept nogil:
    """Reduce windows along the height first; False if a maximum has to be exact.

    This leaves one row for each row of results. A few of these are reduced along the width at a
    time: as they are or, if that would not be done by vectors, turned about. Of equal elements a
    window's first one counts, whichever column it is in: that matters for zeros, and if what a
    column comes to is -0.
    """
    cdef const Py_ssize_t *field = program + AXES
    cdef const Py_ssize_t *taps = program + field[AXIS_FIELDS + TAPS_AT]
    cdef Py_ssize_t depth = (program + field[TAPS_AT])[SIZE], height = taps[SIZE]
    cdef Py_ssize_t width = (program + field[2 * AXIS_FIELDS + TAPS_AT])[SIZE]
    cdef Py_ssize_t cell = program[CHANNELS], channels = tile.channels
    cdef Py_ssize_t low = max(0, space.low[2]), cells = max(0, min(width, space.high[2]) - low)
    cdef Py_ssize_t n = cells * channels, front = 0, length = n
    cdef Py_ssize_t out = tile.high[2] - tile.low[2], deep = tile.high[0] - tile.low[0]
    cdef Py_ssize_t high = tile.high[1] - tile.low[1], left = planes * deep * high, rows
    cdef Py_ssize_t d = 0, h = 0, r, i
    cdef Py_ssize_t fresh = taps[ADVANCE] if width * cell <= FORESEEN else 0
    cdef bint joined = target.height * high == target.depth, alike, signed
    cdef const double *counts = space.counts[2] if program[MEAN] else NULL
    cdef const Window *over
    cdef const Window *along
    cdef Stack[MOST_TOGETHER] stacks
    cdef Stack *s
    cdef real *row
    cdef Box b
    cdef Run run
    if channels == cell:
        cells = min(cells, 1)  # one long vector
    if program[PADDED]:
        front, length = (low - space.low[2]) * channels, (space.high[2] - space.low[2]) * channels
    store(space.seen, splat(0))
    while left:
        rows = min(left, MOST_TOGETHER, program[WORK] // max(1, length))
        if not joined:
            rows = min(rows, high - h)  # that lie one behind the other
        left -= rows
        alike, signed = True, False
        for r in range(rows):
            s, row = &stacks[r], space.work + r * length
            over, along = space.windows[0] + d, space.windows[1] + h
            s.b = line_of(1, 0)
            s.b.seen = space.seen
            s.b.count[0], s.b.count[1] = over.count, along.count
            s.b.pitch[0] = over.step * height * width * cell
            s.b.pitch[1] = along.step * width * cell
            s.x = x + tile.channel
            if over.count and along.count:
                s.x += (
                    (((plane * depth + over.start) * height + along.start) * width + low) * cell
                )
            for i in range(front):
                row[i] = blank(kind)
            for i in range(front + n, length):
                row[i] = blank(kind)
            for i in range(cells):
                if stack(kind, s.x + i * cell, &s.b, n // cells, min(fresh, along.count),
                         row + front + i * channels):
                    signed = True
            s.at = (plane - tile.plane) * target.plane + d * target.depth + h * target.height
            s.d, s.h = tile.low[0] + d, tile.low[1] + h
            s.outer = space.counts[0][d] * space.counts[1][h] if program[MEAN] else 0
            alike = alike and s.outer == stacks[0].outer
            h += 1
            if h == high:
                h = 0
                d += 1
                if d == deep:
                    d = 0
                    plane += 1
        b = line_of(1, 0)
        run.rows = rows
        run.x_step, run.y_step, run.places_step = length, target.height, out * channels
        if program[TURNS]:
            put_together(space.work, length, length, rows, space.stage)
            run.rows = 1
            sweep(kind, False, program, space.stage, MOST_TOGETHER, &b, MOST_TOGETHER, out, space,
                  space.lines, MOST_TOGETHER, NULL, &run)
            for r in range(rows):
                take_turned(space.lines + r, out, stacks[r].outer, counts, target.y + stacks[r].at)
        else:
            if program[MEAN] and alike and space.n_segments == 1 and space.alike[0] >= out:
                divide_box(&b, stacks[0].outer * counts[0])
            b.large = program[LARGE] and (
                LANES * <Py_ssize_t>sizeof(real) <= 32 and not (program[MEAN] and b.divisor == 0)
            )
            sweep(kind, False, program, space.work, channels, &b, channels, out, space,
                  target.y + stacks[0].at, target.cell, NULL, &run)
            for r in range(rows if program[MEAN] and not space.divided else 0):
                row = target.y + stacks[r].at
                divide(row, target.cell, stacks[r].outer, counts, space.alike, out, channels, row,
                       target.cell)
        for r in range(rows):
            s = &stacks[r]
            if signed:
                mend_zeros(program, s.x, &s.b, tile, low, target.cell, target.y + s.at)
            if any_empty(space):
                blot_out(kind, program, tile, target, s.at, s.d, s.h, space,
                         <unsigned char>0)
    return all_set(numbers(load(space.seen)))


# ---------------------------------------------------------------------------------- other planes


cdef enum:
    MOST_ROWS = 16  # that are made in a run: so few that they are near when they are divided


cdef inline Py_ssize_t rows_alike(
    const Py_ssize_t *taps, const Window *along, Py_ssize_t most
) noexcept nogil:
    """Return how many windows, from one on, have as many taps, the same distance further each."""
    cdef Py_ssize_t n = 1
    if taps[PERIOD] == taps[PARTS] == 1 and along.count == along[most - 1].count == taps[TAPS]:
        return most  # neither is clipped, so none between them is
    while n < most and along[n].count == along.count and along[n].place == along.place and (
        along[n].step == along.step
        and along[n].start - along[n - 1].start == along[1].start - along.start
    ):
        n += 1
    return n


cdef bint reduce_plane(
    Kind kind,
    bint exact,
    const Py_ssize_t *program,
    const real *x,           # IN
    Tile *tile,
    Target *target,          # OUT
    Py_ssize_t plane,
    Py_ssize_t planes,       # that are made: several, if their rows are alike
    Space *space,
    index argmax,
) noexcept nogil:
    """Make the results of a plane of a tile, or of several; False if a maximum has to be exact."""
    cdef const Py_ssize_t *field = program + AXES
    cdef Py_ssize_t depth = (program + field[TAPS_AT])[SIZE]
    cdef const Py_ssize_t *taps = program + field[AXIS_FIELDS + TAPS_AT]
    cdef Py_ssize_t height = taps[SIZE]
    cdef Py_ssize_t width = (program + field[2 * AXIS_FIELDS + TAPS_AT])[SIZE]
    cdef Py_ssize_t channels = program[CHANNELS]
    cdef Py_ssize_t across = field[2 * AXIS_FIELDS + BOX]
    cdef Py_ssize_t down = field[AXIS_FIELDS + BOX]
    cdef Py_ssize_t out = tile.high[2] - tile.low[2], columns, d, h, i, n, at, pitch
    cdef Py_ssize_t many = space.high[1] - space.low[1]
    cdef bint copied = program[ADJOINT] or program[PADDED] and not exact, checked, watched
    cdef bint empty = any_empty(space)
    cdef const Window *over
    cdef const Window *along
    cdef const real *row
    cdef bits *places = space.places + 3 * space.line
    cdef real *made = space.lines + 3 * space.line  # a row that goes past the caches
    cdef real *to
    cdef Py_ssize_t to_pitch
    cdef const char *which = NULL
    cdef Box b
    cdef Rows rows
    cdef Run run
    cdef Pending pending
    cdef Target there
    pending.n = 0
    run.rows = 1
    run.x_step = run.y_step = run.places_step = 0
    if program[ROLL] and not exact and (
        out == (program + field[2 * AXIS_FIELDS + TAPS_AT])[WINDOWS]
    ):
        return roll_plane(kind, program, x, tile, target, plane, space, argmax)
    if kind == MAX and program[SCAN] and not exact:
        return scan_plane(program, x, tile, target, plane, space)
    if program[UPRIGHT] and kind != ARGMAX and not exact:
        return reduce_upright(kind, program, x, tile, target, plane, planes, space)
    if program[SLIDE] and not exact:
        for d in range(tile.low[0], tile.high[0]):
            if not slide(kind, program, x, tile, target, plane, d, space, argmax):
                return False
        return True
    columns = (space.high[2] - space.low[2]) * tile.channels
    watched = program[WATCHED] and not exact and kind < SUM
    checked = exact or kind >= SUM or watched
    store(space.seen, splat(0))
    if not checked and not copied and not program[SEPARABLE] and tile.channels == channels and (
        planes > 1 or space.low[2] == 0 and space.high[2] == width and (
            space.high[0] - space.low[0] == 1 or many == height
        )
    ):
        # One stretch of memory, though not all of several planes may be used.
        i = ((plane * depth + space.low[0]) * height + space.low[1]) * width * channels
        n = planes * height if planes > 1 else (space.high[0] - space.low[0]) * many
        if not plain(x + i, n * width * channels):
            return False
        checked = True
    for d in range(space.low[0], space.high[0]):
        if checked and not copied and not program[SEPARABLE]:
            break  # there is nothing to prepare
        if not space.needed[0][d - space.low[0]]:
            continue
        for h in range(space.low[1], space.high[1]):
            if not space.needed[1][h - space.low[1]]:
                continue
            i = (d - space.low[0]) * many + h - space.low[1]
            if not prepare(
                kind, exact, program, x, tile, plane, d, h, space,
                space.stage + (0 if program[SEPARABLE] else i * columns), &row, &pitch,
            ):
                return False
            if program[SEPARABLE]:
                fetch_share(1, space)
                b = line_of(1, 0)
                sweep(kind, exact, program, row, pitch, &b, tile.channels, out, space,
                      space.work + i * out * tile.channels, tile.channels,
                      space.carry + i * out * tile.channels, &run)
    rows.places = NULL
    if program[SEPARABLE]:
        rows.x, rows.height = space.work, out * tile.channels
        rows.depth, rows.pitch = many * rows.height, tile.channels
        rows.places = space.carry
    elif copied:
        rows.x, rows.height = space.stage, columns
        rows.depth, rows.pitch = many * columns, tile.channels
    else:
        rows.pitch, rows.height = channels, width * channels
        rows.depth = height * rows.height
        rows.x = (
            x + plane * depth * rows.depth + space.low[0] * rows.depth
            + space.low[1] * rows.height + max(0, space.low[2]) * channels + tile.channel
        )
    if kind >= ROUTE_BYTES:
        which = space.stage_argmax
        if not copied:
            which = space.which.at + (rows.x - x - tile.channel) * space.which.item
    b = line_of(1, 0)
    if watched:
        b.seen = space.seen
    for d in range(tile.low[0], tile.high[0]):
        over = space.windows[0] + (d - tile.low[0])
        h = tile.low[1] - 1
        run.rows = 1
        while h + run.rows < tile.high[1]:
            h += run.rows
            fetch_share(run.rows, space)
            run.rows = 1
            along = space.windows[1] + (h - tile.low[1])
            at = (
                (plane - tile.plane) * target.plane + (d - tile.low[0]) * target.depth
                + (h - tile.low[1]) * target.height
            )
            to, to_pitch = row_in(target, at), pitch_in(target, tile)
            if program[ADJOINT] and tile.channels == target.cell:
                # Cells under the same windows have the same gradient.
                i = -1
                if h > tile.low[1] and same(along, along - 1):
                    i = target.height
                elif d > tile.low[0] and same(over, over - 1) and not program[PAST]:
                    i = target.depth
                if i > 0:
                    if program[PAST]:
                        write_past(made, out * target.cell, to, &pending)  # the row made last
                    else:
                        memcpy(to, to - i, out * target.cell * sizeof(real))
                    continue
                if program[PAST]:
                    to = made
            b.count[0], b.count[1] = over.count, along.count
            b.pitch[0], b.pitch[1] = over.step * rows.depth, along.step * rows.height
            b.hop[0], b.hop[1] = over.hop * down * across, along.hop * across
            b.place = (over.place * down + along.place) * across
            i = 0
            if over.count and along.count:
                i = ((over.start - space.low[0]) * rows.depth
                     + (along.start - space.low[1]) * rows.height)
            if program[SEPARABLE]:
                if kind == ARGMAX:
                    b.carried = rows.places + i
                divide_alike(program, tile, d, h, 1, space, &b)
                emit(kind, exact, rows.x + i, &b, tile, to, to_pitch, places)
            else:
                row = rows.x + i
                if kind >= ROUTE_BYTES:
                    b.which = which + i * space.which.item
                if kind < ROUTE_BYTES and target.kept and not program[ADJOINT]:
                    run.y_step, run.places_step = target.height, out * tile.channels
                    run.rows = tile.high[1] - h
                    if planes > 1:
                        run.rows *= planes
                        run.x_step = taps[ADVANCE] * rows.height
                    else:
                        i = min(MOST_ROWS, space.line // run.places_step)
                        if kind != ARGMAX:
                            i = max(FEW_ROWS, i)  # which need no line
                        # `apart` finishes what it makes.
                        if kind == ARGMAX or not (
                            space.n_segments == channels == 1 < space.segments.hop
                        ):
                            run.rows = min(run.rows, i)
                        run.rows = rows_alike(taps, along, run.rows)
                        run.x_step = (along[run.rows > 1].start - along.start) * rows.height
                b.divisor = b.factor = 0
                # With vectors of 64 bytes, rows that are read in their order do as well.
                b.large = program[LARGE] and target.kept and not program[ADJOINT] and (
                    not exact and LANES * <Py_ssize_t>sizeof(real) <= 32
                )
                if space.n_segments == 1:
                    divide_alike(program, tile, d, h, run.rows if planes == 1 else 1, space, &b)
                if kind == SUM and b.divisor == 0:
                    b.large = False  # `finish` reads it again
                sweep(kind, exact, program, row, rows.pitch, &b, tile.channels, out, space,
                      to, to_pitch, places, &run)
            if program[PAST] and to == made:
                if empty:
                    there = target[0]
                    there.y = made
                    blot_out(kind, program, tile, &there, 0, d, h, space, <index>0)
                write_past(made, out * target.cell, target.y + at, &pending)
                continue
            if kind != ARGMAX and not empty and (space.divided or not program[MEAN]):
                continue  # they are finished
            finish(kind, program, places, tile, target, plane, d, h, run.rows, space, argmax)
    write_pending(&pending)
    return all_set(numbers(load(space.seen)))


cdef void set_up(
    const Py_ssize_t *program, Tile *tile, bint exact, bint covering, Space *space
) noexcept nogil:
    """Unfold the windows of a tile, unless those of the last tile will do."""
    cdef int axis
    cdef Py_ssize_t w, low, high
    cdef bint padded = program[PADDED] and not exact, whole = False, short = False, side_by_side
    cdef const Py_ssize_t *taps = NULL
    for axis in range(3):
        low, high = tile.low[axis], tile.high[axis]
        taps = program + program[AXES + axis * AXIS_FIELDS + TAPS_AT]
        if (
            space.done_low[axis] == low and space.done_high[axis] == high
            and (axis < 2 or space.done_exact == exact)
        ):
            if axis == 2:
                return
            continue
        space.done_low[axis], space.done_high[axis] = low, high
        space.empty_low[axis] = space.empty_high[axis] = 0
        if axis == 2:
            # `sweep` makes one long vector of windows that lie side by side, of whole cells, and
            # of narrow cells unless they are far apart.
            side_by_side = (
                taps[ADVANCE] == taps[PERIOD] == 1 and tile.channels == program[CHANNELS]
            )
            short = not program[TURNS] and all_inside(taps, low, high) and (
                side_by_side or program[CHANNELS] < LANES and taps[ADVANCE] < LANES
            )
        whole = unfold(program, axis, low, high, padded and axis == 2, covering, short, space)
        if program[MEAN]:
            count_taps(program, axis, low, high, space.counts[axis],
                       space.alike if axis == 2 else NULL)
        elif program[ADJOINT]:
            count_taps(program, axis, max(0, space.low[axis]),
                       min(taps[SIZE], space.high[axis]),
                       space.counts[axis] + max(0, -space.low[axis]),
                       space.alike + max(0, -space.low[axis]) if axis == 2 else NULL)
    space.done_exact = exact
    space.framed = False
    # Windows count from the first cell that is used, or from the row's, not copied.
    high = tile.high[2] - tile.low[2]
    for w in range(min(high, taps[PERIOD]) if short else high):
        space.windows[2][w].start -= space.low[2] if padded else max(0, space.low[2])
    find_segments(
        program, tile.low[2], tile.high[2] - tile.low[2],
        taps[PARTS] == 1 and (padded or short or whole and program[CHANNELS] < LANES), space,
    )


cdef inline bint next_piece(
    const Tile *tile, int axis, Py_ssize_t size, Tile *piece
) noexcept nogil:
    """Go on to the next piece of a tile along an axis, of at most so many windows, if any."""
    piece.low[axis] = piece.high[axis]
    piece.high[axis] = min(tile.high[axis], piece.low[axis] + size)
    return piece.low[axis] < tile.high[axis]


cdef void reduce_tile(
    Kind kind, const Py_ssize_t *program, const real *x, Tile *tile, Target *target, Space *space,
    index argmax,
) noexcept nogil:
    """Make the results of a tile."""
    cdef Py_ssize_t plane, first = tile.plane, planes
    if kind == SUM and program[LONE]:
        share_tile(program, x, tile, target, space)
        return
    while first < tile.plane + tile.planes:
        planes = min(program[FOLLOW], tile.plane + tile.planes - first)
        set_up(program, tile, False, False, space)
        if not reduce_plane(kind, False, program, x, tile, target, first, planes, space, argmax):
            if space.apart.x != NULL:
                space.apart.x = NULL  # which tells the caller to do them by themselves
                return
            for plane in range(first, first + planes):
                reduce_exactly(kind, program, x, tile, target, plane, space, argmax)
        first += planes


cdef void reduce_exactly(
    Kind kind, const Py_ssize_t *program, const real *x, Tile *tile, Target *target,
    Py_ssize_t plane, Space *space, index argmax,
) noexcept nogil:
    """Make the results of one plane of a tile by loops that know what NaNs and -inf are."""
    cdef const Py_ssize_t *taps = program + program[AXES + AXIS_FIELDS + TAPS_AT]
    cdef Py_ssize_t at, deep = tile.high[0], high = tile.high[1], wide = tile.high[2]
    cdef Tile piece = tile[0]
    cdef Target there = target[0]
    if program[SLIDE]:
        # The workspace has room for the rows of one window and one more; so, of half the width,
        # for those of as many windows as a block has.
        deep = 1
        wide = (tile.high[2] - tile.low[2]) // 2
        high = max(1, taps[TAPS] // taps[ADVANCE]) if wide else 1
        wide = max(1, wide)
    piece.high[0] = tile.low[0]
    while next_piece(tile, 0, deep, &piece):
        piece.high[1] = tile.low[1]
        while next_piece(tile, 1, high, &piece):
            piece.high[2] = tile.low[2]
            while next_piece(tile, 2, wide, &piece):
                at = (
                    (piece.low[0] - tile.low[0]) * target.depth
                    + (piece.low[1] - tile.low[1]) * target.height
                    + (piece.low[2] - tile.low[2]) * target.cell
                )
                there.y = row_in(target, at)
                there.argmax = <index *>target.argmax + at
                set_up(program, &piece, True, False, space)
                reduce_plane(kind, True, program, x, &piece, &there, plane, 1, space, argmax)
