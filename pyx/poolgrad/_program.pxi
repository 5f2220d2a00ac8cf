# What the loops are told: a program, and the state that goes from one to the next.

# One byte while 255 taps suffice; the largest value, or -1, says "none".
ctypedef fused index:
    unsigned char
    int

ctypedef fused element:
    real
    bits

ctypedef fused item:
    real
    unsigned char
    int

# What a reduction does with the taps of a window.
cdef enum Kind:
    MAX
    ARGMAX
    SUM
    ROUTE_BYTES   # gradient of a maximum: the sum of what is meant for this tap, by an argmax
    ROUTE_INTS    # of bytes or of ints

# How a maximum treats NaNs and -inf, which vector instructions do not treat as they should.
cdef enum Care:
    QUICK         # there are none
    EXACT         # there may be some
    WATCH         # as if there were none; but NaNs are noted, and -inf does no harm there

# A program: all that a plan knows, as integers. `Plan` writes it in this order.
cdef enum:
    PLANES
    CHANNELS
    GROUP           # planes of a tile
    TILE_DEPTH
    TILE_HEIGHT
    TILE_WIDTH
    TILE_CHANNELS
    SEPARABLE       # whether rows are reduced along the width first, and kept
    LADDER          # whether windows along the width are put together from smaller ones
    SLIDE           # whether windows along the height are put together from tails and heads
    ROLL            # whether rows are read once, and go into all windows that they are in
    PADDED          # whether rows are copied, with padding, to where windows need no clipping
    WATCHED         # whether a maximum looks out for NaNs itself, not a pass before it
    MEAN            # whether results are divided by their windows' divisors
    ADJOINT         # whether the source is, instead
    LONE            # ADJOINT: whether windows share no cell
    PAST            # ADJOINT: whether results are written past the caches
    SCATTER         # gradient of a maximum: whether windows look for cells, else cells for windows
    SLAB            # the same: windows, times channels, whose argmax is found at a time
    SLAB_DEPTH
    SLAB_HEIGHT
    SLAB_WIDTH
    STAGE           # elements of the workspace for copied rows
    WORK            # elements of the workspace for reduced rows
    LINE            # elements of one row, or of the rows whose argmax is narrowed at once
    WHOLE           # average: whether each plane is one window
    TOGETHER        # planes that are made as channels of one, 16 at a time; or 0
    CELLS_IN        # then, cells of a plane of the source, and of the result
    CELLS_OUT
    BY_ROWS         # if this is done row by row, where the program of one plane is; or 0
    LARGE           # whether source and result are too large for the caches
    SCAN            # maximum alone: whether large windows of one channel are made by `scan_plane`
    FOLLOW          # planes whose rows are made in one go, as if they were of one
    UPRIGHT         # forward, no argmax: whether windows are reduced along the height first
    TURNS           # UPRIGHT: whether rows that this leaves are turned to columns
    ROWS            # the most windows, or cells, that a tile needs of an axis
    AXES            # from here on, for each axis: the fields below

cdef enum:
    TAPS_AT         # where in the program the table of taps is
    DIVISORS_AT     # where the table is whose counts make the divisors
    BOX             # taps of the largest window, of the forward
    BEFORE          # how the forward's windows lie, for gradients
    EVERY
    APART
    AXIS_FIELDS

cdef enum:
    MOST_DIGIT = 9  # windows of the largest kind that a `ladder` ends with

# Columns of a tap table.
cdef enum:
    BASE      # first tap of the row's first window, unclipped
    TAPS      # taps of a window, unclipped
    ADVANCE   # from a window to the one a period later
    STRIDE    # between the taps of a window
    SIZE      # cells of the axis
    PERIOD    # rows of the table
    WINDOWS   # windows of the axis
    PARTS     # of a cell are the units of TAPS and ADVANCE
    COLUMNS

cdef struct Window:
    Py_ssize_t start    # first tap inside the axis
    Py_ssize_t count    # taps inside the axis
    Py_ssize_t step     # between them
    Py_ssize_t first    # taps cut off in front
    Py_ssize_t place    # what the first tap inside counts in an argmax, along this axis
    Py_ssize_t hop      # and each further one

cdef struct Segment:
    # Windows first, first + every, ... of a row: the same taps, `hop` cells further each time.
    # Or, with `every` 0, any neighbouring windows, each to be looked up.
    Py_ssize_t first
    Py_ssize_t every
    Py_ssize_t many
    Py_ssize_t hop
    Py_ssize_t radix        # of a `ladder`
    Window window

cdef struct Box:
    Py_ssize_t[3] count     # taps along depth, height and width
    Py_ssize_t[3] pitch     # elements from tap to tap
    Py_ssize_t[3] hop       # what a tap counts in an argmax
    Py_ssize_t place        # what the first one does
    const bits *carried     # ARGMAX: what each element counts by itself, or NULL
    const void *which       # ROUTE: the argmax of each element
    real *seen              # WATCH: a vector of sums, some of them NaN if a NaN was seen; or NULL
    const real *tail        # a last tap, or NULL
    const bits *tail_carried
    Py_ssize_t tail_place
    real divisor            # SUM: what results are divided by; or 0
    real factor             # its inverse, if that is exact, since to multiply takes less; or 0
    bint large              # whether the arrays are: results go past the caches, where they may
    const char *soon        # what is read next, fetched row by row meanwhile; or NULL
    const char *soon_too    # and what is written next

cdef struct Run:
    # Neighbouring rows of results, made alike.
    Py_ssize_t rows
    Py_ssize_t x_step       # elements from the taps of one to those of the next
    Py_ssize_t y_step
    Py_ssize_t places_step

cdef struct Tile:
    Py_ssize_t plane
    Py_ssize_t planes
    Py_ssize_t[3] low       # first index along depth, height, width
    Py_ssize_t[3] high      # one past the last
    Py_ssize_t channel
    Py_ssize_t channels

cdef struct Target:
    # Where a tile's results go. Either pointer may be NULL.
    real *y
    void *argmax
    Py_ssize_t plane        # elements from plane to plane, and so on
    Py_ssize_t depth
    Py_ssize_t height
    Py_ssize_t cell
    bint kept               # whether y is; else there is room for one row

cdef struct Spot:
    # An argmax, from some plane, depth and height on.
    const char *at
    Py_ssize_t item         # bytes of an element
    Py_ssize_t origin[3]
    Py_ssize_t pitch[3]     # elements from plane to plane, and so on
    Py_ssize_t cell         # and from cell to cell

cdef struct Soon:
    # Memory that is needed next, and is fetched line by line meanwhile.
    const char *at
    Py_ssize_t lines
    Py_ssize_t share        # of them, with each row that is made

cdef struct Apart:
    # Planes that are put together row by row.
    const real *x           # or NULL, if they are together
    real *y                 # where the results go
    void *argmax
    Py_ssize_t planes

cdef extern from *:
    """
    /* What is used of `own`: a sanitizer knows the bounds of what is allocated only. */
    #ifdef __SANITIZE_ADDRESS__
    #define POOLGRAD_OWN 0
    #else
    #define POOLGRAD_OWN 8192
    #endif
    """
    const Py_ssize_t OWN "POOLGRAD_OWN"

cdef struct Space:
    # One thread's workspace, and what of it is up to date.
    Window *windows[3]
    double *counts[3]
    Py_ssize_t *alike       # windows along the width, from each on, whose counts are equal
    char *needed[2]
    Py_ssize_t low[3]       # the cells that a tile's windows use, or would unclipped
    Py_ssize_t high[3]
    Py_ssize_t[3] done_low  # the windows that are unfolded
    Py_ssize_t[3] done_high
    int done_exact
    bint divided            # MEAN: whether the rows made last are
    real *seen
    Segment *segments
    Py_ssize_t n_segments
    real *stage
    real *work
    bits *carry
    real *lines             # four rows
    bits *places            # four rows
    char *stage_argmax
    Py_ssize_t line
    Py_ssize_t[3] empty_low   # windows without taps are among these, from the tile's first on
    Py_ssize_t[3] empty_high
    bint framed             # ROLL, SCAN: whether the stage has padding on either side
    Apart apart
    Soon[3] soon            # of the next planes: what is read, what is written, and the argmax
    Spot which              # ROUTE: where the argmax is
    char[8192] own          # more than small arrays need, so that nothing is allocated for them
