# Tiles, the threads that take them, and the reductions that Python calls.

from poolgrad cimport _crew, _quick

from cpython.pycapsule cimport PyCapsule_New
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

cdef struct Queue:
    # Pieces of work: how many are taken, and of these, from either end.
    Py_ssize_t taken
    Py_ssize_t front
    Py_ssize_t back

cdef struct Ticket:
    # One thread's access to a queue. Those that come from the back find at the next call what they
    # made in this one near in their own cache.
    Queue *queue
    bint from_back


cdef inline void open_queue(Queue *queue) noexcept nogil:
    """Make a queue one of which nothing is taken."""
    queue.taken = queue.front = queue.back = 0


cdef inline Ticket ticket_of(Queue *queue, int who) noexcept nogil:
    """Return the ticket of a thread: they come from the front and from the back in turn."""
    cdef Ticket ticket
    ticket.queue, ticket.from_back = queue, who % 2
    return ticket


cdef inline Py_ssize_t next_of(const Ticket *ticket, Py_ssize_t n) noexcept nogil:
    """Take the next of n pieces of work, and return its number; or n, when none is left."""
    cdef Queue *queue = ticket.queue
    if poolgrad_fetch_add(&queue.taken, 1) >= n:
        return n
    if ticket.from_back:
        return n - 1 - poolgrad_fetch_add(&queue.back, 1)
    return poolgrad_fetch_add(&queue.front, 1)


cdef inline Py_ssize_t parts_of(Py_ssize_t n, Py_ssize_t size) noexcept nogil:
    """Return how many parts of one size an axis is cut into."""
    return 1 if size >= n else (n + size - 1) // size  # a division takes its time


cdef inline void part_of(
    Py_ssize_t *i,                     # INOUT: the number of a tile; of its part of other axes
    Py_ssize_t n,
    Py_ssize_t size,
    Py_ssize_t *low,                   # OUT
    Py_ssize_t *high,                  # OUT
) noexcept nogil:
    """Write which part of an axis of length n, cut into parts of one size, a tile has."""
    cdef Py_ssize_t parts
    low[0], high[0] = 0, n
    if size < n:
        parts = parts_of(n, size)
        low[0] = i[0] % parts * size
        high[0] = min(low[0] + size, n)
        i[0] //= parts


cdef inline bint take(
    const Ticket *ticket,
    const Py_ssize_t *program,
    Tile *tile,                        # OUT
) noexcept nogil:
    """Take the next tile of a result; False when none is left."""
    cdef const Py_ssize_t *field = program + AXES
    cdef Py_ssize_t axis, k, i, n = (
        parts_of(program[CHANNELS], program[TILE_CHANNELS])
        * parts_of(program[PLANES], program[GROUP])
    )
    for axis in range(3):
        n *= parts_of((program + field[TAPS_AT])[WINDOWS], program[TILE_DEPTH + axis])
        field += AXIS_FIELDS
    i = next_of(ticket, n)
    if i == n:
        return False
    # Channels vary fastest: neighbouring tiles are neighbours in memory. The part of the width
    # varies slowest, since its windows, which are many, are unfolded anew for each.
    part_of(&i, program[CHANNELS], program[TILE_CHANNELS], &tile.channel, &tile.channels)
    tile.channels -= tile.channel
    for k in range(3):
        axis = 1 - k if k < 2 else 2
        if axis == 2:
            part_of(&i, program[PLANES], program[GROUP], &tile.plane, &tile.planes)
            tile.planes -= tile.plane
        part_of(
            &i, (program + program[AXES + axis * AXIS_FIELDS + TAPS_AT])[WINDOWS],
            program[TILE_DEPTH + axis], &tile.low[axis], &tile.high[axis],
        )
    return True


cdef inline void *part(char **at, Py_ssize_t size) noexcept nogil:
    """Cut the next part off a block of memory, each from a multiple of 64 bytes on."""
    cdef void *found = at[0]
    at[0] += (size + 63) // 64 * 64
    return found


cdef inline void *next_line(void *at) noexcept nogil:
    """Return where the next line of the cache begins."""
    return <char *>at + 64 - <Py_ssize_t>at % 64


cdef void *lay_out(
    const Py_ssize_t *program, Py_ssize_t carried, Py_ssize_t item, Space *space
) noexcept nogil:
    """Make one thread's workspace; NULL if there is no memory.

    Each part has room behind it for a vector that reads or writes too far.
    """
    cdef Py_ssize_t rows = program[ROWS], stage = program[STAGE] + 64, axis
    cdef Py_ssize_t work = program[WORK] + 64, line = program[LINE] + 64
    # What each part is rounded up by, a vector for `seen`, and the tables.
    cdef Py_ssize_t size = 64 * 20 + 64 + 2 * rows + rows * sizeof(Py_ssize_t)
    cdef char *block
    cdef char *at
    size += 3 * rows * (sizeof(Window) + sizeof(double))
    size += rows * sizeof(Segment) + (stage + work + 4 * line) * sizeof(real)
    size += stage * item + carried * (work + 4 * line) * sizeof(bits)
    block = &space.own[0]
    if size > OWN:
        block = <char *>malloc(size)
        if block == NULL:
            return NULL
    at = <char *>next_line(block)
    for axis in range(3):
        space.windows[axis] = <Window *>part(&at, rows * sizeof(Window))
        space.counts[axis] = <double *>part(&at, rows * sizeof(double))
        space.done_low[axis] = space.done_high[axis] = -1
    space.alike = <Py_ssize_t *>part(&at, rows * sizeof(Py_ssize_t))
    space.needed[0] = <char *>part(&at, rows)
    space.needed[1] = <char *>part(&at, rows)
    space.segments = <Segment *>part(&at, rows * sizeof(Segment))
    space.seen = <real *>part(&at, 64)
    space.stage = <real *>part(&at, stage * sizeof(real))
    space.work = <real *>part(&at, work * sizeof(real))
    space.lines = <real *>part(&at, 4 * line * sizeof(real))
    space.stage_argmax = <char *>part(&at, stage * item)
    space.carry = <bits *>part(&at, carried * work * sizeof(bits))
    space.places = <bits *>part(&at, carried * 4 * line * sizeof(bits))
    space.line = line
    space.done_exact = -1
    space.framed = space.divided = False
    space.apart.x = NULL
    for axis in range(3):
        space.soon[axis].lines = space.soon[axis].share = 0
    return block


cdef inline void give_back(void *block, Space *space) noexcept nogil:
    """Free what `lay_out` returned."""
    if block != &space.own[0]:
        free(block)


cdef inline Py_ssize_t rows_made(const Py_ssize_t *p) noexcept nogil:
    """Return how many rows are made for a result, reduced rows of its source among them."""
    cdef const Py_ssize_t *wide = p + p[AXES + 2 * AXIS_FIELDS + TAPS_AT]
    cdef Py_ssize_t rows = p[CELLS_OUT] // wide[WINDOWS]
    return rows + p[CELLS_IN] // wide[SIZE] if p[SEPARABLE] or p[SLIDE] else rows


cdef inline void fetch_soon(
    const item *x, Py_ssize_t n, Py_ssize_t rows, Soon *soon
) noexcept nogil:
    """Have what lies behind n elements fetched, as many, while so many rows are made."""
    soon.at, soon.lines = <const char *>(x + n), n * <Py_ssize_t>sizeof(item) // 64
    soon.share = parts_of(soon.lines, rows)


cdef inline bint next_group(
    const Ticket *ticket, const Py_ssize_t *program, Py_ssize_t *first, Py_ssize_t *planes
) noexcept nogil:
    """Take the next planes that are made together; False when none are left."""
    cdef Py_ssize_t n = parts_of(program[TOGETHER], MOST_TOGETHER)
    first[0] = next_of(ticket, n) * MOST_TOGETHER
    planes[0] = min(program[TOGETHER] - first[0], MOST_TOGETHER)
    return planes[0] > 0


# ---------------------------------------------------------------------------- one window a plane


cdef enum:
    MOST_SUMS = 2048   # channels of a tile of whole planes
    LONG_COPY = 4096   # bytes
    ROUNDS = 6         # of four cells, for which each sum is read and written once
    MOST_SHARES = 512  # planes whose gradients are divided at a time


cdef inline void add_rounds(
    const real *x, Py_ssize_t rounds, Py_ssize_t channels, Py_ssize_t n, real *sums
) noexcept nogil:
    """Add every fourth cell, so many of them, to the first n sums; the next to the next n, ..."""
    cdef Py_ssize_t i, k, m
    cdef const real *cell
    cdef vec sum
    for k in range(4):
        # Memory is read sooner at several places far apart at once than at one.
        cell, i = x + k * channels, 0
        while i + LANES <= n:
            sum = load(sums + i)
            for m in range(rounds):
                sum = sum + load(cell + 4 * m * channels + i)
            store(sums + i, sum)
            i += LANES
        while i < n:
            for m in range(rounds):
                sums[i] = sums[i] + cell[4 * m * channels + i]
            i += 1
        sums += n


cdef inline void add_cells_up(
    const real *x, Py_ssize_t cells, Py_ssize_t channels, Py_ssize_t n, real divisor, real *y
) noexcept nogil:
    """As `add_up`, of the first n channels of each cell."""
    cdef real[4 * MOST_SUMS] sums
    cdef Py_ssize_t i, c = 0
    for i in range(4 * n):
        sums[i] = blank(SUM)
    while c + 4 * ROUNDS <= cells:
        add_rounds(x + c * channels, ROUNDS, channels, n, sums)
        c += 4 * ROUNDS
    add_rounds(x + c * channels, (cells - c) // 4, channels, n, sums)
    c += (cells - c) // 4 * 4
    for i in range(n):
        y[i] = (sums[i] + sums[2 * n + i]) + (sums[n + i] + sums[3 * n + i])
    while c < cells:
        for i in range(n):
            y[i] = y[i] + x[c * channels + i]
        c += 1
    divide_by(y, n, divisor, y)


cdef inline void reduce_cells(
    const Py_ssize_t *p, const real *x, Py_ssize_t cells, Py_ssize_t n, real divisor, real *y
) noexcept nogil:
    """Make n channels of the average of a plane, or of its gradient."""
    cdef Py_ssize_t channels = p[CHANNELS], c, many = n * <Py_ssize_t>sizeof(real)
    # A long copy from and to the same part of a line does not read what it writes either.
    cdef bint past = p[PAST] and (many < LONG_COPY or channels * <Py_ssize_t>sizeof(real) % 64)
    cdef Pending pending
    pending.n = 0
    if not p[ADJOINT]:
        add_cells_up(x, cells, channels, n, divisor, y)
        return
    divide_by(x, n, divisor, y)
    for c in range(1, cells):
        if past:
            write_past(y, n, y + c * channels, &pending)
        else:
            memcpy(y + c * channels, y, many)
    write_pending(&pending)


cdef void reduce_whole(
    const Py_ssize_t *p,               # IN: the program
    const real *x,                     # IN
    real *y,                           # OUT
    const Ticket *ticket,
) noexcept nogil:
    """Make averages of whole planes, or their gradients, until none is left."""
    cdef const Py_ssize_t *field = p + AXES
    cdef Py_ssize_t axis, plane, last, cells = 1, channels = p[CHANNELS], many, apart
    cdef Py_ssize_t from_plane, to_plane
    cdef double counted = 1
    cdef real divisor
    cdef real[MOST_SHARES] shares
    cdef Tile tile
    for axis in range(3):
        cells *= (p + field[TAPS_AT])[WINDOWS if p[ADJOINT] else SIZE]
        counted *= clip(p + field[DIVISORS_AT], 0).count
        field += AXIS_FIELDS
    divisor = <real>counted
    from_plane, to_plane = channels * cells, channels
    if p[ADJOINT]:
        from_plane, to_plane = to_plane, from_plane
    while take(ticket, p, &tile):
        plane, last = tile.plane, tile.plane + tile.planes
        if channels > 1:
            for plane in range(plane, last):
                reduce_cells(p, x + plane * from_plane + tile.channel, cells, tile.channels,
                             divisor, y + plane * to_plane + tile.channel)
        elif p[ADJOINT]:
            while plane < last:
                many = min(MOST_SHARES, last - plane)
                divide_by(x + plane, many, divisor, shares)
                repeat(shares, many * cells, cells, y + plane * cells)
                plane += many
        else:
            # Four planes at once, far apart: memory is read sooner at several places than at one.
            apart = tile.planes // 4
            for plane in range(plane, plane + apart):
                add_four_up(x + plane * cells, cells, apart * cells, divisor, y + plane, apart)
            for plane in range(tile.plane + 4 * apart, last):
                y[plane] = add_up(x + plane * cells, cells) / divisor


cdef void reduce_tiles(
    Kind kind,
    const Py_ssize_t *p,               # IN: the program
    const real *x,                     # IN
    real *y,                           # OUT
    index *argmax,                     # OUT, ARGMAX; else only its type is used
    const Ticket *ticket,
    Space *space,
) noexcept nogil:
    """Make tile after tile of a result until none is left."""
    cdef Tile tile
    cdef Target target
    cdef Py_ssize_t row
    describe(p, &target)
    if space.apart.x != NULL:
        target.depth = target.height = 0  # each row is taken apart before the next is made
    while take(ticket, p, &tile):
        row = (
            tile.plane * target.plane + tile.low[0] * target.depth
            + tile.low[1] * target.height + tile.low[2] * target.cell + tile.channel
        )
        target.y = y + row
        target.argmax = argmax + row
        reduce_tile(kind, p, x, &tile, &target, space, <index>0)


cdef void describe(const Py_ssize_t *p, Target *target) noexcept nogil:
    """Write how a program's result lies in memory."""
    target.cell = p[CHANNELS]
    target.height = (p + p[AXES + 2 * AXIS_FIELDS + TAPS_AT])[WINDOWS] * target.cell
    target.depth = (p + p[AXES + AXIS_FIELDS + TAPS_AT])[WINDOWS] * target.height
    target.plane = (p + p[AXES + TAPS_AT])[WINDOWS] * target.depth
    target.kept = True


cdef enum:
    NEAR = 1048576  # bytes of a group of planes that are still near when it is their turn


cdef inline void fetch_next_group(
    Kind kind, const Py_ssize_t *p, const real *x, const real *y, const index *argmax,
    Py_ssize_t planes, Space *space,
) noexcept nogil:
    """Have the planes behind so many fetched while these are made, if they will stay near."""
    cdef Py_ssize_t n = p[CELLS_IN] * planes, m = p[CELLS_OUT] * planes, rows = rows_made(p)
    if (n + m) * <Py_ssize_t>sizeof(real) > NEAR:
        return
    fetch_soon(x, n, rows, &space.soon[0])
    fetch_soon(y, m, rows, &space.soon[1])
    if kind == ARGMAX:
        fetch_soon(argmax, m, rows, &space.soon[2])


cdef bint reduce_by_rows(
    Kind kind,
    const Py_ssize_t *p,               # IN: the program
    const real *x,                     # IN
    real *y,                           # OUT
    index *argmax,                     # OUT, ARGMAX; else only its type is used
    const Ticket *ticket,
    Space *space,
) noexcept nogil:
    """As `reduce`, of planes that are put together, and taken apart, row by row."""
    cdef Space alone
    cdef Queue queue
    cdef Ticket inner
    cdef const Py_ssize_t *one = p + p[BY_ROWS]
    cdef Py_ssize_t first, planes, plane, n = p[CELLS_IN], m = p[CELLS_OUT]
    cdef Py_ssize_t width = (p + p[AXES + 2 * AXIS_FIELDS + TAPS_AT])[WINDOWS] * MOST_TOGETHER
    cdef void *block = malloc(64 + width * (sizeof(real) + sizeof(index)))
    cdef void *alone_block = NULL
    cdef real *row
    cdef bint done = block != NULL
    while done and next_group(ticket, p, &first, &planes):
        fetch_next_group(kind, p, x + first * n, y + first * m, argmax + first * m, planes, space)
        space.apart.x, space.apart.y = x + first * n, y + first * m
        space.apart.argmax, space.apart.planes = argmax + first * m, planes
        row = <real *>next_line(block)
        open_queue(&queue)
        inner = ticket_of(&queue, 0)
        reduce_tiles(kind, p, x, row, <index *>(row + width), &inner, space)
        if space.apart.x != NULL:
            continue
        # There is a NaN or -inf, and loops that are exact read rows more than once.
        if alone_block == NULL:
            alone_block = lay_out(one, kind == ARGMAX, 0, &alone)
            done = alone_block != NULL
        for plane in range(first, first + planes if done else 0):
            open_queue(&queue)
            inner = ticket_of(&queue, 0)
            reduce_tiles(kind, one, x + plane * n, y + plane * m, argmax + plane * m, &inner,
                         &alone)
    give_back(alone_block, &alone)
    free(block)
    return done


cdef bint reduce(
    Kind kind,
    const Py_ssize_t *p,               # IN: the program
    const real *x,                     # IN
    real *y,                           # OUT
    index *argmax,                     # OUT, ARGMAX; else only its type is used
    const Ticket *ticket,
) noexcept nogil:
    """Make a result, or a thread's share of it; False if there is no memory."""
    cdef Space space
    cdef Queue queue
    cdef Ticket inner
    cdef Py_ssize_t first, planes
    cdef Py_ssize_t n = p[CELLS_IN], m = p[CELLS_OUT]
    cdef bint whole_planes = p[TOGETHER] and not p[BY_ROWS], done = True
    cdef void *planes_block = NULL
    cdef real *together
    cdef real *result
    cdef index *which
    cdef void *block
    if p[WHOLE]:
        reduce_whole(p, x, y, ticket)
        return True
    block = lay_out(p, kind == ARGMAX, 0, &space)
    if whole_planes:
        planes_block = malloc(
            64 + (n + m) * MOST_TOGETHER * sizeof(real) + m * MOST_TOGETHER * sizeof(index)
        )
    if block == NULL or whole_planes and planes_block == NULL:
        done = False
    elif p[BY_ROWS]:
        done = reduce_by_rows(kind, p, x, y, argmax, ticket, &space)
    elif not p[TOGETHER]:
        reduce_tiles(kind, p, x, y, argmax, ticket, &space)
    else:
        together = <real *>next_line(planes_block)
        result = together + n * MOST_TOGETHER
        which = <index *>(result + m * MOST_TOGETHER)
        while next_group(ticket, p, &first, &planes):
            put_together(x + first * n, n, n, planes, together)
            fetch_next_group(kind, p, x + first * n, y + first * m, argmax + first * m, planes,
                             &space)
            open_queue(&queue)
            inner = ticket_of(&queue, 0)
            reduce_tiles(kind, p, together, result, which, &inner, &space)
            take_apart(result, m, planes, y + first * m, m)
            if kind == ARGMAX:
                take_apart(which, m, planes, argmax + first * m, m)
    give_back(block, &space)
    free(planes_block)
    return done


cdef struct Job:
    # A result, for any number of threads to make.
    Kind kind
    const Py_ssize_t *p      # the program
    const real *x            # IN
    real *y                  # OUT
    void *argmax             # OUT, ARGMAX
    int item                 # bytes of an element of it
    Queue queue
    bint failed


cdef void take_part(void *of, int who) noexcept nogil:
    """Make a share of a result."""
    cdef Job *job = <Job *>of
    cdef Ticket ticket = ticket_of(&job.queue, who)
    cdef unsigned char *none = NULL
    cdef bint done
    if job.kind == MAX:
        done = reduce(MAX, job.p, job.x, job.y, none, &ticket)
    elif job.kind == SUM:
        done = reduce(SUM, job.p, job.x, job.y, none, &ticket)
    elif job.item == 1:
        done = reduce(ARGMAX, job.p, job.x, job.y, <unsigned char *>job.argmax, &ticket)
    else:
        done = reduce(ARGMAX, job.p, job.x, job.y, <int *>job.argmax, &ticket)
    settle()
    if not done:
        job.failed = True


cdef bint make(
    Kind kind, const Py_ssize_t *p, const real *x, real *y, void *argmax, int item, int helpers
) noexcept nogil:
    """Make a result, with so many other threads; False if one had no memory for its workspace."""
    cdef Job job
    job.kind, job.p, job.x, job.y, job.argmax, job.item = kind, p, x, y, argmax, item
    open_queue(&job.queue)
    job.failed = False
    _crew.run(take_part, &job, helpers)
    return not job.failed


# Each of these returns False if there is no memory for the workspace.


def largest(
    const Py_ssize_t[::1] program,
    const real[::1] x,                 # IN
    real[::1] y,                       # OUT
    int helpers,
):
    """Find the largest element of each window."""
    cdef bint done
    with nogil:
        done = make(MAX, &program[0], &x[0], &y[0], NULL, 1, helpers)
    return done


def total(
    const Py_ssize_t[::1] program,
    const real[::1] x,                 # IN
    real[::1] y,                       # OUT
    int helpers,
):
    """Add the elements of each window, divided as the program says."""
    cdef bint done
    with nogil:
        done = make(SUM, &program[0], &x[0], &y[0], NULL, 1, helpers)
    return done


def largest_and_where(
    const Py_ssize_t[::1] program,
    const real[::1] x,                 # IN
    real[::1] y,                       # OUT
    index[::1] argmax,                 # OUT
    int helpers,
):
    """Find the largest element of each window, and which of its taps it is."""
    cdef bint done
    with nogil:
        done = make(ARGMAX, &program[0], &x[0], &y[0], &argmax[0], sizeof(index), helpers)
    return done
