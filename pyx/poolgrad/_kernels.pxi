"""All loops over array elements, for one dtype and one instruction set.

The files that include this one define `real`, and in C `REAL` and `BITS`, an integer of its size.

Design
------
a) Arrays are rows of cells of C neighbouring elements, in planes and volumes: (planes, depth,
   height, width, C). Channels-first data has N * C planes and one channel; missing axes have one
   cell. A *reduction* makes each cell of its result out of a box of cells of its source, which
   windows say, one an axis, from a tap table (see `geometry`). So forward and backward are
   one: the gradient of a sum is a sum whose windows are the transposed ones.
b) One primitive does all arithmetic: `box` reduces a box of vectors to one vector, in registers.
   What is a vector depends on the row: the channels of a cell; a whole run of neighbouring cells
   where windows move by one cell; with one channel, neighbouring windows whose taps are sorted
   in registers (`apart`); with few channels, the same by permutations, or a window and what lies
   behind its channels; or as many windows as there would be if they moved by one cell, of which
   every so many-th is kept.
c) Small windows are boxes as they are. Larger ones, which share most of their taps, are reduced
   along the width first, to rows that the workspace keeps, then along height and depth. Much
   larger ones are put together from windows of 4, 16, ... taps along the width (`ladder`), or, of
   cells that are vectors, from the tails and heads of blocks (`scan`), and from those of rows along
   the height (`slide`), at about the same cost whatever their size; of one channel, a maximum's
   rows are such cells (`scan_plane`). Rows of one channel are read once for all the small windows
   a cell apart that they are in (`roll`). An average of a whole plane has a loop of its own
   (`reduce_whole`), and so has the gradient of one whose windows share no cell (`share_tile`).
   Windows that lie apart along the width may be reduced along the height first, since columns that
   are side by side are vectors; what is left is one row (`reduce_upright`).
d) The vector instructions for a maximum forget NaNs, and padding with -inf could tie with a real
   -inf. So the source is looked at first, and planes with either are done by slower loops that
   know the rules. Width first, and a strict comparison, keep the first of equal values in
   row-major order exactly; height first, the sign of a zero may have to be mended (`mend_zeros`).
e) Results are cut into tiles that threads take from a common counter. A tile's owner alone writes
   it, and the order of every sum follows from the geometry, so the bits of a result depend
   neither on the number of threads, nor on the tiles, nor on the instruction set.
f) The gradient of a maximum goes where the argmax points: a cell compares the argmax of the
   windows that cover it, which is a reduction too (`ROUTE_BYTES`, `ROUTE_INTS`), or, where these
   are many or the channels few, each window adds to its cell (`scatter`). Both add in the same
   order. Where each cell is under one window at most, it may just be written (`route_apart`).

Nothing here checks, allocates or raises: `plan`, or `_quick`, has compared every shape before.
"""

# Each knows those before it.
include "_vectors.pxi"   # C: vectors of the instruction set
include "_program.pxi"   # what the loops are told, and the state that they share
include "_box.pxi"       # the primitive
include "_taps.pxi"      # which windows there are
include "_rows.pxi"      # rows of results, made of boxes
include "_planes.pxi"    # planes, made of rows
include "_tiles.pxi"     # tiles of planes, for threads; all reductions but the next
include "_gradient.pxi"  # of a maximum
include "_argmax.pxi"    # by itself
