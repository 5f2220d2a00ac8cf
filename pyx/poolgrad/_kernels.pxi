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
   in registers (`apart`); or, with few channels, as many windows as there would be if they moved
   by one cell, of which every so many-th is kept.
c) Small windows are boxes as they are. Larger ones, which share most of their taps, are reduced
   along the width first, to rows that the workspace keeps, then along height and depth. Much
   larger ones are put together from windows of 4, 16, ... taps along the width (`ladder`), and
   from the tails and heads of blocks along the height (`slide`), at about the same cost whatever
   their size. Rows of one channel are read once for all the small windows a cell apart that they
   are in (`roll`). An average of a whole plane has a loop of its own (`reduce_whole`).
d) The vector instructions for a maximum forget NaNs, and padding with -inf could tie with a real
   -inf. So the source is looked at first, and planes with either are done by slower loops that
   know the rules. Width first, and a strict comparison, keep the first of equal values in
   row-major order exactly.
e) Results are cut into tiles that threads take from a common counter. A tile's owner alone writes
   it, and the order of every sum follows from the geometry, so the bits of a result depend
   neither on the number of threads, nor on the tiles, nor on the instruction set.
f) The gradient of a maximum goes where the argmax points: a cell compares the argmax of the
   windows that cover it, which is a reduction too (`ROUTE_BYTES`, `ROUTE_INTS`), or, where these
   are many or the channels few, each window adds to its cell (`scatter`). Both add in the same
   order. Where each cell is under one window at most, it may just be written (`route_apart`).

Nothing here checks, allocates or raises: `plan` has compared every shape before.
"""

cdef extern from *:
    """
    #include <math.h>
    #include <stddef.h>
    #include <stdint.h>
    #include <stdlib.h>
    #include <string.h>
    #if defined(__SSE2__)
    #include <immintrin.h>
    #endif

    /* Vectors as wide as the instruction set's, which GCC and Clang know on every CPU. */
    #if defined(POOLGRAD_BYTES)  /* as tests want it; what no CPU has takes long to compile */
    #if defined(__GNUC__) && !defined(__clang__)
    #pragma GCC optimize("O1")
    #endif
    #elif defined(__AVX512F__)
    #define POOLGRAD_BYTES 64
    #elif defined(__AVX2__)
    #define POOLGRAD_BYTES 32
    #else
    #define POOLGRAD_BYTES 16
    #endif
    #define LANES ((Py_ssize_t)(POOLGRAD_BYTES / sizeof(REAL)))
    typedef REAL vec __attribute__((vector_size(POOLGRAD_BYTES)));
    typedef BITS mask __attribute__((vector_size(POOLGRAD_BYTES)));
    typedef UNSIGNED_BITS unsigned_mask __attribute__((vector_size(POOLGRAD_BYTES)));
    typedef vec loose_vec __attribute__((aligned(sizeof(REAL)), may_alias));
    typedef mask loose_mask __attribute__((aligned(sizeof(BITS)), may_alias));

    #define AVX512 (POOLGRAD_BYTES == 64 && defined(__AVX512F__))
    #define AVX2 (POOLGRAD_BYTES == 32 && defined(__AVX2__))
    #define SSE2 (POOLGRAD_BYTES == 16 && defined(__SSE2__))
    #define FLOATS (sizeof(REAL) == 4)
    #define INLINE static inline __attribute__((always_inline))
    /* Of the inline functions below too, whose constants choose what is compiled. */
    #undef CYTHON_INLINE
    #define CYTHON_INLINE inline __attribute__((always_inline))
    INLINE vec load(const REAL *x) { return *(const loose_vec *)x; }
    INLINE void store(REAL *y, vec v) { *(loose_vec *)y = v; }
    INLINE mask load_bits(const BITS *x) { return *(const loose_mask *)x; }
    INLINE void store_bits(BITS *y, mask v) { *(loose_mask *)y = v; }
    INLINE vec splat(REAL value) { return value - (vec){0}; }  /* 0 + -0 would be 0 */
    INLINE mask splat_bits(BITS value) { return (mask){0} + value; }
    INLINE mask larger(vec v, vec best) { return (mask)(v > best); }
    /* Larger, or the first NaN. */
    INLINE mask beats(vec v, vec best) { return ~(mask)(best >= v) & (mask)(best == best); }
    /* What was read too far may be anything, and overflow; it is thrown away. */
    INLINE mask add_bits(mask a, mask b) {
        return (mask)((unsigned_mask)a + (unsigned_mask)b);
    }
    INLINE mask equal_bits(mask a, mask b) { return (mask)(a == b); }
    /* Each of `a` where all bits of the mask are set, of `b` where none is. */
    INLINE mask choose_bits(mask m, mask a, mask b) {
    #if AVX2
        return (mask)_mm256_blendv_epi8((__m256i)b, (__m256i)a, (__m256i)m);
    #else
        return (m & a) | (~m & b);
    #endif
    }
    INLINE vec choose(mask m, vec a, vec b) { return (vec)choose_bits(m, (mask)a, (mask)b); }
    INLINE vec where(mask m, vec v) { return (vec)(m & (mask)v); }
    INLINE mask numbers(vec v) { return (mask)(v == v); }
    INLINE mask above(vec v, vec least) { return (mask)(v > least); }
    INLINE int all_set(mask m) {
    #if AVX2
        return _mm256_movemask_epi8((__m256i)m) == -1;
    #elif SSE2
        return _mm_movemask_epi8((__m128i)m) == 0xFFFF;
    #else
        BITS every = -1;
        for (Py_ssize_t i = 0; i < LANES; i++) every &= m[i];
        return every != 0;
    #endif
    }
    /* max(v, best) of the CPU: `best` unless v is larger. Any NaN is up to the caller. */
    INLINE vec maximum(vec v, vec best) {
    #if AVX512
        return FLOATS ? (vec)_mm512_max_ps((__m512)v, (__m512)best)
                      : (vec)_mm512_max_pd((__m512d)v, (__m512d)best);
    #elif AVX2
        return FLOATS ? (vec)_mm256_max_ps((__m256)v, (__m256)best)
                      : (vec)_mm256_max_pd((__m256d)v, (__m256d)best);
    #elif SSE2
        return FLOATS ? (vec)_mm_max_ps((__m128)v, (__m128)best)
                      : (vec)_mm_max_pd((__m128d)v, (__m128d)best);
    #else
        return choose(larger(v, best), v, best);
    #endif
    }

    /* Every other element of two vectors, the first one's first: those with even numbers, those
       with odd ones, or even ones of the first and odd ones of the second. With wide vectors they
       are out of order, until `in_order` mends that. */
    #if AVX512
    #define HALVES(name, ps, pd)                                                         \
        INLINE vec name(vec a, vec b) {                                                  \
            return FLOATS ? (vec)_mm512_shuffle_ps((__m512)a, (__m512)b, ps)             \
                          : (vec)_mm512_shuffle_pd((__m512d)a, (__m512d)b, pd);          \
        }
    HALVES(evens, 0x88, 0x00) HALVES(odds, 0xDD, 0xFF) HALVES(ends, 0xD8, 0xAA)
    INLINE vec in_order(vec v) {
        const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
        return (vec)_mm512_permutexvar_pd(order, (__m512d)v);
    }
    #elif AVX2
    #define HALVES(name, ps, pd)                                                         \
        INLINE vec name(vec a, vec b) {                                                  \
            return FLOATS ? (vec)_mm256_shuffle_ps((__m256)a, (__m256)b, ps)             \
                          : (vec)_mm256_shuffle_pd((__m256d)a, (__m256d)b, pd);          \
        }
    HALVES(evens, 0x88, 0x0) HALVES(odds, 0xDD, 0xF) HALVES(ends, 0xD8, 0xA)
    INLINE vec in_order(vec v) { return (vec)_mm256_permute4x64_pd((__m256d)v, 0xD8); }
    #elif SSE2
    #define HALVES(name, ps, pd)                                                         \
        INLINE vec name(vec a, vec b) {                                                  \
            return FLOATS ? (vec)_mm_shuffle_ps((__m128)a, (__m128)b, ps)                \
                          : (vec)_mm_shuffle_pd((__m128d)a, (__m128d)b, pd);             \
        }
    HALVES(evens, 0x88, 0x0) HALVES(odds, 0xDD, 0x3) HALVES(ends, 0xD8, 0x2)
    INLINE vec in_order(vec v) { return v; }
    #else
    #define HALVES(name, first, second)                                                  \
        INLINE vec name(vec a, vec b) {                                                  \
            vec v = {0};                                                                 \
            for (Py_ssize_t i = 0; i < LANES / 2; i++)                                   \
                v[i] = a[2 * i + first], v[LANES / 2 + i] = b[2 * i + second];           \
            return v;                                                                    \
        }
    HALVES(evens, 0, 0) HALVES(odds, 1, 1) HALVES(ends, 0, 1)
    INLINE vec in_order(vec v) { return v; }
    #endif

    /* The first, or the second, half of the elements of two vectors in turn: a, b, a, b, ... */
    #if AVX512
    #define IN_TURN(name, place)                                                         \
        INLINE vec name(vec a, vec b) {                                                  \
            const __m512i order = _mm512_setr_epi64(place, place + 1, place + 8, place + 9,  \
                place + 2, place + 3, place + 10, place + 11);                           \
            return FLOATS                                                                \
                ? (vec)_mm512_permutex2var_pd(                                           \
                    (__m512d)_mm512_unpacklo_ps((__m512)a, (__m512)b), order,            \
                    (__m512d)_mm512_unpackhi_ps((__m512)a, (__m512)b))                   \
                : (vec)_mm512_permutex2var_pd(                                           \
                    _mm512_unpacklo_pd((__m512d)a, (__m512d)b), order,                   \
                    _mm512_unpackhi_pd((__m512d)a, (__m512d)b));                         \
        }
    IN_TURN(first_in_turn, 0) IN_TURN(second_in_turn, 4)
    #elif AVX2
    #define IN_TURN(name, halves)                                                        \
        INLINE vec name(vec a, vec b) {                                                  \
            return FLOATS                                                                \
                ? (vec)_mm256_permute2f128_ps(_mm256_unpacklo_ps((__m256)a, (__m256)b),  \
                                              _mm256_unpackhi_ps((__m256)a, (__m256)b), halves) \
                : (vec)_mm256_permute2f128_pd(_mm256_unpacklo_pd((__m256d)a, (__m256d)b), \
                                              _mm256_unpackhi_pd((__m256d)a, (__m256d)b), halves); \
        }
    IN_TURN(first_in_turn, 0x20) IN_TURN(second_in_turn, 0x31)
    #elif SSE2
    #define IN_TURN(name, half)                                                          \
        INLINE vec name(vec a, vec b) {                                                  \
            return FLOATS ? (vec)_mm_unpack##half##_ps((__m128)a, (__m128)b)             \
                          : (vec)_mm_unpack##half##_pd((__m128d)a, (__m128d)b);          \
        }
    IN_TURN(first_in_turn, lo) IN_TURN(second_in_turn, hi)
    #else
    #define IN_TURN(name, first)                                                         \
        INLINE vec name(vec a, vec b) {                                                  \
            vec v = {0};                                                                 \
            for (Py_ssize_t i = 0; i < LANES / 2; i++)                                   \
                v[2 * i] = a[first + i], v[2 * i + 1] = b[first + i];                    \
            return v;                                                                    \
        }
    IN_TURN(first_in_turn, 0) IN_TURN(second_in_turn, LANES / 2)
    #endif

    /* So many bytes or ints, each in a lane of its own. */
    INLINE mask widen_bytes(const unsigned char *x) {
    #if AVX512
        return FLOATS ? (mask)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)x))
                      : (mask)_mm512_cvtepu8_epi64(_mm_loadl_epi64((const __m128i *)x));
    #elif AVX2
        int32_t four;
        if (FLOATS) return (mask)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)x));
        memcpy(&four, x, 4);
        return (mask)_mm256_cvtepu8_epi64(_mm_cvtsi32_si128(four));
    #elif SSE2
        int32_t few = 0;
        __m128i v;
        memcpy(&few, x, LANES);
        v = _mm_unpacklo_epi8(_mm_cvtsi32_si128(few), _mm_setzero_si128());
        v = _mm_unpacklo_epi16(v, _mm_setzero_si128());
        return (mask)(FLOATS ? v : _mm_unpacklo_epi32(v, _mm_setzero_si128()));
    #else
        mask v;
        for (Py_ssize_t i = 0; i < LANES; i++) v[i] = x[i];
        return v;
    #endif
    }
    INLINE mask widen_ints(const int *x) {
        mask v;
        if (sizeof(BITS) == sizeof(int)) return *(const loose_mask *)x;
        for (Py_ssize_t i = 0; i < LANES; i++) v[i] = x[i];
        return v;
    }

    /* Store the low bytes of 16 numbers up to 255. */
    INLINE void narrow_bytes(const BITS *x, unsigned char *y) {
    #if defined(__SSE2__)
        __m128i v[4];
        for (int k = 0; k < 4; k++)
            v[k] = FLOATS ? _mm_loadu_si128((const __m128i *)(x + 4 * k))
                : (__m128i)_mm_shuffle_ps(_mm_loadu_ps((const float *)(x + 4 * k)),
                                          _mm_loadu_ps((const float *)(x + 4 * k + 2)), 0x88);
        _mm_storeu_si128((__m128i *)y, _mm_packus_epi16(_mm_packs_epi32(v[0], v[1]),
                                                        _mm_packs_epi32(v[2], v[3])));
    #else
        for (int k = 0; k < 16; k++) y[k] = (unsigned char)x[k];
    #endif
    }

    /* Squares of elements of so many bytes that `turn` turns about: their side, or 0. */
    #if defined(__AVX2__)
    #define SIDE(size) ((size) == 1 ? 16 : 32 / (size))
    #elif defined(__SSE2__)
    #define SIDE(size) (16 / (size))
    #else
    #define SIDE(size) 0
    #endif
    /* Copy a square, its rows so many elements apart, to columns: the first so many, at least. */
    INLINE void turn(
        const void *from, Py_ssize_t gap, void *to, Py_ssize_t step, int size, Py_ssize_t columns
    ) {
    #if defined(__SSE2__)
        if (size == 1) {
            const char *x = (const char *)from;
            char *y = (char *)to;
            __m128i a[16], b[16];
            for (int i = 0; i < 16; i++) a[i] = _mm_loadu_si128((const __m128i *)(x + i * gap));
            /* Rows 8 apart are woven together, four times: then rows are columns. */
            for (int round = 0; round < 4; round++) {
                for (int i = 0; i < 8; i++) {
                    b[2 * i] = _mm_unpacklo_epi8(a[i], a[i + 8]);
                    b[2 * i + 1] = _mm_unpackhi_epi8(a[i], a[i + 8]);
                }
                for (int i = 0; i < 16; i++) a[i] = b[i];
            }
            for (int i = 0; i < 16; i++) _mm_storeu_si128((__m128i *)(y + i * step), a[i]);
            return;
        }
        if (size == 8) {
            const double *x = (const double *)from;
            double *y = (double *)to;
    #if defined(__AVX2__)
            __m256d a = _mm256_loadu_pd(x), b = _mm256_loadu_pd(x + gap);
            __m256d c = _mm256_loadu_pd(x + 2 * gap), d = _mm256_loadu_pd(x + 3 * gap);
            __m256d p = _mm256_unpacklo_pd(a, b), q = _mm256_unpackhi_pd(a, b);
            __m256d r = _mm256_unpacklo_pd(c, d), s = _mm256_unpackhi_pd(c, d);
            _mm256_storeu_pd(y, _mm256_permute2f128_pd(p, r, 0x20));
            _mm256_storeu_pd(y + step, _mm256_permute2f128_pd(q, s, 0x20));
            _mm256_storeu_pd(y + 2 * step, _mm256_permute2f128_pd(p, r, 0x31));
            _mm256_storeu_pd(y + 3 * step, _mm256_permute2f128_pd(q, s, 0x31));
    #else
            __m128d a = _mm_loadu_pd(x), b = _mm_loadu_pd(x + gap);
            _mm_storeu_pd(y, _mm_unpacklo_pd(a, b));
            _mm_storeu_pd(y + step, _mm_unpackhi_pd(a, b));
    #endif
            return;
        }
        const float *x = (const float *)from;
        float *y = (float *)to;
    #if defined(__AVX2__)
        __m256 a[4], b[4];
        /* Rows 4 apart share a vector, in two halves; then each half is turned by itself. */
        for (int k = 0; k < columns && k < 8; k += 4) {
            for (int i = 0; i < 4; i++)
                a[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(x + i * gap + k)),
                                            _mm_loadu_ps(x + (i + 4) * gap + k), 1);
            b[0] = _mm256_unpacklo_ps(a[0], a[1]), b[1] = _mm256_unpackhi_ps(a[0], a[1]);
            b[2] = _mm256_unpacklo_ps(a[2], a[3]), b[3] = _mm256_unpackhi_ps(a[2], a[3]);
            _mm256_storeu_ps(y + k * step, _mm256_shuffle_ps(b[0], b[2], 0x44));
            _mm256_storeu_ps(y + (k + 1) * step, _mm256_shuffle_ps(b[0], b[2], 0xEE));
            _mm256_storeu_ps(y + (k + 2) * step, _mm256_shuffle_ps(b[1], b[3], 0x44));
            _mm256_storeu_ps(y + (k + 3) * step, _mm256_shuffle_ps(b[1], b[3], 0xEE));
        }
    #else
        __m128 a = _mm_loadu_ps(x), b = _mm_loadu_ps(x + gap);
        __m128 c = _mm_loadu_ps(x + 2 * gap), d = _mm_loadu_ps(x + 3 * gap);
        _MM_TRANSPOSE4_PS(a, b, c, d);
        _mm_storeu_ps(y, a), _mm_storeu_ps(y + step, b);
        _mm_storeu_ps(y + 2 * step, c), _mm_storeu_ps(y + 3 * step, d);
    #endif
    #endif
    }

    INLINE int is_power_of_two(REAL value) {
        BITS pattern;
        memcpy(&pattern, &value, sizeof(value));
        return (pattern & (((BITS)1 << (FLOATS ? 23 : 52)) - 1)) == 0;
    }

    /* Add n elements: every fourth, then these sums, then those that are left. */
    INLINE REAL add_up(const REAL *x, Py_ssize_t n) {
        typedef REAL four __attribute__((vector_size(4 * sizeof(REAL)), aligned(sizeof(REAL)),
                                      may_alias));
        four sums = {-0.0, -0.0, -0.0, -0.0};  /* adding 0 would change -0 */
        REAL sum;
        Py_ssize_t i = 0;
        for (; i + 4 <= n; i += 4) sums += *(const four *)(x + i);
        sum = (sums[0] + sums[2]) + (sums[1] + sums[3]);
        for (; i < n; i++) sum += x[i];
        return sum;
    }

    /* Copy to memory that is not needed soon: lines that are written as a whole go past the caches,
       which would read each one before it is written. */
    INLINE void write_past(const REAL *x, Py_ssize_t n, REAL *y) {
        Py_ssize_t i = 0;
    #if defined(__SSE2__)
        const Py_ssize_t line = 64 / sizeof(REAL), step = 16 / sizeof(REAL);
        for (; i < n && (uintptr_t)(y + i) % 64; i++) y[i] = x[i];
        for (; i + line <= n; i += line)
            for (Py_ssize_t k = i; k < i + line; k += step)
                _mm_stream_ps((float *)(y + k), _mm_loadu_ps((const float *)(x + k)));
    #endif
        for (; i < n; i++) y[i] = x[i];
    }
    /* What went past the caches is seen by whoever sees what is written from here on. */
    INLINE void settle(void) {
    #if defined(__SSE2__)
        _mm_sfence();
    #endif
    }

    #define poolgrad_prefetch(p) __builtin_prefetch(p)
    #define poolgrad_fetch_add(p, n) __atomic_fetch_add((p), (n), __ATOMIC_RELAXED)
    """
    ctypedef real vec
    ctypedef bits mask
    const Py_ssize_t LANES
    vec load(const real *x) noexcept nogil
    void store(real *y, vec v) noexcept nogil
    mask load_bits(const bits *x) noexcept nogil
    void store_bits(bits *y, mask v) noexcept nogil
    vec splat(real value) noexcept nogil
    mask splat_bits(bits value) noexcept nogil
    mask larger(vec v, vec best) noexcept nogil
    mask beats(vec v, vec best) noexcept nogil
    mask add_bits(mask a, mask b) noexcept nogil
    mask equal_bits(mask a, mask b) noexcept nogil
    mask choose_bits(mask m, mask a, mask b) noexcept nogil
    vec choose(mask m, vec a, vec b) noexcept nogil
    vec where(mask m, vec v) noexcept nogil
    mask numbers(vec v) noexcept nogil
    mask above(vec v, vec least) noexcept nogil
    bint all_set(mask m) noexcept nogil
    vec maximum(vec v, vec best) noexcept nogil
    vec evens(vec a, vec b) noexcept nogil
    vec odds(vec a, vec b) noexcept nogil
    vec ends(vec a, vec b) noexcept nogil
    vec in_order(vec v) noexcept nogil
    vec first_in_turn(vec a, vec b) noexcept nogil
    vec second_in_turn(vec a, vec b) noexcept nogil
    mask widen_bytes(const unsigned char *x) noexcept nogil
    mask widen_ints(const int *x) noexcept nogil
    void narrow_bytes(const bits *x, unsigned char *y) noexcept nogil
    int SIDE(int size) noexcept nogil
    void turn(
        const void *x, Py_ssize_t gap, void *y, Py_ssize_t step, int size, Py_ssize_t columns
    ) noexcept nogil
    bint is_power_of_two(real value) noexcept nogil
    real add_up(const real *x, Py_ssize_t n) noexcept nogil
    void write_past(const real *x, Py_ssize_t n, real *y) noexcept nogil
    void settle() noexcept nogil
    void poolgrad_prefetch(const void *p) noexcept nogil
    Py_ssize_t poolgrad_fetch_add(Py_ssize_t *p, Py_ssize_t n) noexcept nogil

from poolgrad cimport _crew

from libc.stdint cimport uint16_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

cdef extern from "math.h":
    const float INFINITY

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
    PAST            # ADJOINT: whether results are written past the caches
    SCATTER         # gradient of a maximum: whether windows look for cells, else cells for windows
    SLAB            # the same: windows, times channels, whose argmax is found at a time
    SLAB_DEPTH
    SLAB_HEIGHT
    SLAB_WIDTH
    STAGE           # elements of the workspace for copied rows
    WORK            # elements of the workspace for reduced rows
    LINE            # elements of one row
    WHOLE           # average: whether each plane is one window
    TOGETHER        # planes that are made as channels of one, 16 at a time; or 0
    CELLS_IN        # then, cells of a plane of the source, and of the result
    CELLS_OUT
    ROWS            # the most windows, or cells, that a tile needs of an axis
    AXES            # from here on, for each axis: the fields below

cdef enum:
    TAPS_AT         # where in the program the table of taps is
    DIVISORS_AT     # where the table is whose counts make the divisors
    BOX             # taps of the largest window, of the forward
    BEFORE          # how the forward's windows lie, for the gradient of a maximum
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
    real divisor            # SUM: what `apart`, and `boxes` of several, divide by; or 0

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
    bint empty[3]           # whether any window along an axis has no taps
    bint framed             # ROLL: whether the stage has padding on either side
    Spot which              # ROUTE: where the argmax is


# ------------------------------------------------------------------------------------ the box


cdef inline void fold(
    Kind kind, Care care, vec v, mask place, vec *best, mask *kept
) noexcept nogil:
    """Take one more tap into account."""
    cdef mask replace
    if kind == SUM:
        best[0] = best[0] + v
    elif kind >= ROUTE_BYTES:
        best[0] = best[0] + where(place, v)
    elif care != EXACT:
        if kind == ARGMAX:
            kept[0] = choose_bits(larger(v, best[0]), place, kept[0])
        best[0] = maximum(v, best[0])
    else:
        replace = beats(v, best[0])
        if kind == ARGMAX:
            kept[0] = choose_bits(replace, place, kept[0])
        best[0] = choose(replace, v, best[0])


cdef inline real blank(Kind kind) noexcept nogil:
    """Return what changes no result: adding 0 would change -0."""
    return <real>-0.0 if kind >= SUM else -INFINITY


cdef inline void box_chunk(
    Kind kind, Care care, int vectors, Py_ssize_t deep, Py_ssize_t high, Py_ssize_t wide,
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
    cdef Py_ssize_t d, h, w = 1, place, i
    cdef mask place_of
    cdef int u
    cdef const real *plane = x + at
    cdef const real *row
    cdef const real *cell
    for u in range(vectors):
        if kind >= ROUTE_BYTES:
            best[u] = splat(0)
            w = 0
        else:
            best[u] = load(x + at + u * LANES)
            sums[u] = best[u]
        if kind == ARGMAX:
            kept[u] = splat_bits(<bits>b.place)
            if b.carried != NULL:
                kept[u] = add_bits(kept[u], load_bits(b.carried + at + u * LANES))
    for d in range(deep):
        row = plane
        for h in range(high):
            cell = row + w * b.pitch[2]
            while w < wide:
                if vectors == 4 and (deep > 1 or high > 3):
                    # What comes next is not next in memory.
                    poolgrad_prefetch(cell + 4 * LANES)
                    poolgrad_prefetch(cell + 6 * LANES)
                if kind != MAX and kind != SUM:
                    place = b.place + d * b.hop[0] + h * b.hop[1] + w * b.hop[2]
                    place_of = splat_bits(<bits>place)
                for u in range(vectors):
                    i = cell - x + u * LANES
                    v = load(cell + u * LANES)
                    if care == WATCH:
                        sums[u] = sums[u] + v
                    if kind == ROUTE_BYTES:
                        fold(kind, care, v, equal_bits(
                            place_of, widen_bytes(<const unsigned char *>b.which + i)),
                            &best[u], &kept[u])
                    elif kind == ROUTE_INTS:
                        fold(kind, care, v, equal_bits(
                            place_of, widen_ints(<const int *>b.which + i)), &best[u], &kept[u])
                    elif kind == ARGMAX and b.carried != NULL:
                        fold(kind, care, v,
                             add_bits(place_of, load_bits(b.carried + i)), &best[u], &kept[u])
                    else:
                        fold(kind, care, v, place_of, &best[u], &kept[u])
                cell += b.pitch[2]
                w += 1
            w = 0
            row += b.pitch[1]
        plane += b.pitch[0]
    if b.tail != NULL:
        for u in range(vectors):
            if kind == ARGMAX:
                place_of = splat_bits(<bits>b.tail_place)
                if b.tail_carried != NULL:
                    place_of = add_bits(place_of, load_bits(b.tail_carried + at + u * LANES))
            fold(kind, care, load(b.tail + at + u * LANES), place_of, &best[u], &kept[u])
    for u in range(vectors):
        store(y + at + u * LANES, best[u])
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
    if b.count[0] != 1:
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
    while i + 4 * LANES <= n:
        box_chunk(kind, care, 4, deep, high, wide, x, i, b, y, places, &looked)
        i += 4 * LANES
    if i + 2 * LANES <= n:
        box_chunk(kind, care, 2, deep, high, wide, x, i, b, y, places, &looked)
        i += 2 * LANES
    while i < n:
        # The last vector may overlap the one before, and make some elements twice.
        i = min(i, n - LANES)
        box_chunk(kind, care, 1, deep, high, wide, x, i, b, y, places, &looked)
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
        if kind == SUM and b.divisor != 0:
            divide_by(y + w * y_pitch, n, b.divisor, y + w * y_pitch)
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
    b.divisor = 0
    return b


# ------------------------------------------------------------------------------- windows apart


cdef inline void fetch_ahead(
    Py_ssize_t high, const real *x, const Box *b, Py_ssize_t hop, Py_ssize_t i, Py_ssize_t h
) noexcept nogil:
    """Prefetch what windows of the next rows need, while LANES windows from `i` on are made.

    Line after line, though these windows are rows upon rows: CPUs foresee such a stream best.
    """
    cdef const real *line = x + max(high * b.pitch[1], 1024) + (high * i + h * LANES) * hop
    cdef Py_ssize_t k
    for k in range(hop * LANES * <Py_ssize_t>sizeof(real) // 64):
        poolgrad_prefetch(<const char *>line + 64 * k)


cdef inline void take_tap(
    Kind kind, Care care, const Box *b, Py_ssize_t place, vec v, vec *best, mask *kept, vec *sums
) noexcept nogil:
    fold(kind, care, v, splat_bits(<bits>(b.place + place)), best, kept)
    if care == WATCH:
        sums[0] = sums[0] + v


cdef inline void every_other_as(
    Kind kind, Care care, Py_ssize_t deep, Py_ssize_t high, Py_ssize_t wide,
    const real *x, const Box *b, Py_ssize_t n, const Run *run, real *y, bits *places
) noexcept nogil:
    """As `apart`, of windows two elements apart; the counts are the box's, to be constants."""
    cdef Py_ssize_t r, i = 0, d, h, w, place
    cdef vec best, one, two, sums, looked = splat(0)
    cdef mask kept
    cdef const real *row
    for r in range(run.rows):
        i = 0
        while i < n:
            # The last vector may overlap the one before, and make some elements twice.
            i = min(i, n - LANES)
            best = splat(blank(kind))  # which any first tap takes the place of, -inf itself aside
            sums = splat(0)
            kept = splat_bits(<bits>b.place)
            for d in range(deep):
                for h in range(high):
                    row = x + 2 * i + d * b.pitch[0] + h * b.pitch[1]
                    fetch_ahead(high, x + d * b.pitch[0], b, 2, i, h)
                    place = d * b.hop[0] + h * b.hop[1]
                    w = 0
                    while w < wide:
                        one = load(row + w)
                        if w + 1 < wide:
                            two = load(row + w + LANES)
                            take_tap(kind, care, b, place + w * b.hop[2], evens(one, two), &best,
                                     &kept, &sums)
                            take_tap(kind, care, b, place + (w + 1) * b.hop[2], odds(one, two),
                                     &best, &kept, &sums)
                        else:
                            # There may be nothing behind the last tap.
                            two = load(row + w + LANES - 1)
                            take_tap(kind, care, b, place + w * b.hop[2], ends(one, two), &best,
                                     &kept, &sums)
                        w += 2
            if care == WATCH:
                looked = looked + sums
            store(y + i, in_order(best))
            if kind == ARGMAX:
                store_bits(places + i, <mask>in_order(<vec>kept))
            i += LANES
        if kind == SUM and b.divisor != 0:
            divide_by(y, n, b.divisor, y)
        x += run.x_step
        y += run.y_step
        places += run.places_step
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
    cdef Py_ssize_t most = n - (behind + hop - 1) // hop
    cdef vec best, sums, looked = splat(0)
    cdef mask kept
    cdef real[64] square
    cdef const real *row
    for r in range(run.rows):
        i = 0
        while i < most and most >= LANES:
            i = min(i, most - LANES)
            best, sums = splat(blank(kind)), splat(0)
            kept = splat_bits(<bits>b.place)
            for d in range(b.count[0]):
                for h in range(b.count[1]):
                    row = x + i * hop + d * b.pitch[0] + h * b.pitch[1]
                    fetch_ahead(b.count[1], x + d * b.pitch[0], b, hop, i, h)
                    place = d * b.hop[0] + h * b.hop[1]
                    for w in range(wide):
                        if w % side == 0:
                            for k in range(LANES // side):
                                turn(row + k * side * hop + w, hop, square + k * side, LANES,
                                     sizeof(real), wide - w)
                        take_tap(kind, care, b, place + w * b.hop[2],
                                 load(square + w % side * LANES), &best, &kept, &sums)
            if care == WATCH:
                looked = looked + sums
            store(y + i, best)
            if kind == ARGMAX:
                store_bits(places + i, kept)
            i += LANES
        while i < n:
            box_element(kind, care, x + i * hop, 0, b, y + i, places + i)
            i += 1
        if kind == SUM and b.divisor != 0:
            divide_by(y, n, b.divisor, y)
        x += run.x_step
        y += run.y_step
        places += run.places_step
    if care == WATCH:
        store(b.seen, load(b.seen) + looked)


cdef inline void apart_as(
    Kind kind, Care care, const real *x, const Box *b, Py_ssize_t hop, Py_ssize_t n,
    const Run *run, real *y, bits *places
) noexcept nogil:
    if hop > 2 and b.count[2] == 4:
        every_few_as(kind, care, 4, x, b, hop, n, run, y, places)
    elif hop > 2 and b.count[2] == 3:
        every_few_as(kind, care, 3, x, b, hop, n, run, y, places)
    elif hop > 2:
        every_few_as(kind, care, b.count[2], x, b, hop, n, run, y, places)
    elif b.count[0] == 1 and b.count[1] == 2 and b.count[2] == 2:
        every_other_as(kind, care, 1, 2, 2, x, b, n, run, y, places)
    elif b.count[0] == 1 and b.count[1] == 3 and b.count[2] == 3:
        every_other_as(kind, care, 1, 3, 3, x, b, n, run, y, places)
    elif b.count[0] == 2 and b.count[1] == 2 and b.count[2] == 2:
        every_other_as(kind, care, 2, 2, 2, x, b, n, run, y, places)
    elif b.count[2] == 2:
        every_other_as(kind, care, b.count[0], b.count[1], 2, x, b, n, run, y, places)
    else:
        every_other_as(kind, care, b.count[0], b.count[1], b.count[2], x, b, n, run, y, places)


cdef void apart(
    Kind kind, bint exact, const real *x, const Box *b, Py_ssize_t hop, Py_ssize_t n,
    const Run *run, real *y, bits *places
) noexcept nogil:
    """As `box`, of rows of n windows of neighbouring taps, `hop` elements apart: LANES or more."""
    if kind == SUM:
        apart_as(SUM, QUICK, x, b, hop, n, run, y, places)
    elif kind == MAX:
        if exact:
            apart_as(MAX, EXACT, x, b, hop, n, run, y, places)
        elif b.seen != NULL:
            apart_as(MAX, WATCH, x, b, hop, n, run, y, places)
        else:
            apart_as(MAX, QUICK, x, b, hop, n, run, y, places)
    elif exact:
        apart_as(ARGMAX, EXACT, x, b, hop, n, run, y, places)
    elif b.seen != NULL:
        apart_as(ARGMAX, WATCH, x, b, hop, n, run, y, places)
    else:
        apart_as(ARGMAX, QUICK, x, b, hop, n, run, y, places)


# ---------------------------------------------------------------------------------- tap tables


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
            space.empty[axis] = True
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


# -------------------------------------------------------------------------------------- a row


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


cdef void ladder(
    Kind kind,
    const real *x,       # IN: where the first tap's vector is
    Py_ssize_t pitch,    # elements from tap to tap
    Py_ssize_t taps,
    Py_ssize_t radix,
    Py_ssize_t n,
    real *lines,         # WORK: three rows, each of n + (taps - 1) * pitch elements
    bits *places,        # WORK, ARGMAX
    Py_ssize_t line,     # elements from row to row there
    const real **y,      # OUT: in which of them the results are
    const bits **argmax,
) noexcept nogil:
    """As `box`, for many taps in a line: windows of radix, radix squared, ... taps come first.

    A maximum ends with two windows that may overlap. A sum adds disjoint ones, the small ones
    at the end of the window first.
    """
    cdef Py_ssize_t span = 1, used = 0, digit, to, tail = -1
    cdef const real *now = x
    cdef const bits *carried = NULL
    cdef Box b
    cdef int into = 0
    cdef bint last
    while True:
        # Row `into` is free; `now` and the tail are in the other two.
        last = taps // span <= MOST_DIGIT
        digit = taps // span if last else taps // span % radix
        if kind == SUM or last:
            used += digit * span
            to = into
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
            if digit:
                box(kind, False, now + (taps - used) * pitch if kind == SUM else now, &b, n,
                    lines + to * line, places + to * line)
                tail = to
                into = free_row(now, lines, line, tail)
            if last:
                y[0] = lines + tail * line
                argmax[0] = places + tail * line if kind == ARGMAX else NULL
                return
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


cdef inline void roll_strip(
    Kind kind, bint by_rows, int vectors, int high, Py_ssize_t wide, const real *x,
    const void *which, const Box *b, Py_ssize_t rows, real *y, Py_ssize_t y_step, bits *places
) noexcept nogil:
    """As `roll`, for so many vectors of a row; the counts are the box's, to be constants."""
    cdef vec[5][2] best
    cdef mask[5][2] kept
    cdef vec v
    cdef mask place
    cdef Py_ssize_t row, w, i
    # To the compiler, what is stored might be part of the box.
    cdef Py_ssize_t down = b.pitch[1], across = b.pitch[2], first = b.place
    cdef Py_ssize_t hop_down = b.hop[1], hop_across = b.hop[2]
    cdef int u, t
    for t in range(high):
        for u in range(vectors):
            best[t][u], kept[t][u] = splat(blank(kind)), splat_bits(0)
    for row in range(rows + high - 1):
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
                if kind == ROUTE_BYTES:
                    place = widen_bytes(<const unsigned char *>which + i)
                elif kind == ROUTE_INTS:
                    place = widen_ints(<const int *>which + i)
                for t in range(high):
                    if kind == SUM and t == high - 1 and w == 0:
                        best[t][u] = v  # the first tap of that one
                        continue
                    fold(kind, QUICK, v, equal_bits(place, splat_bits(<bits>(
                        first + (high - 1 - t) * hop_down + w * hop_across
                    ))), &best[t][u], &kept[t][u])
                i += across
        for u in range(vectors):
            if row >= high - 1:
                store(y + u * LANES, best[0][u])
                if kind == ARGMAX:
                    store_bits(places + u * LANES, kept[0][u])
            for t in range(high - 1):
                best[t][u], kept[t][u] = best[t + 1][u], kept[t + 1][u]
            best[high - 1][u], kept[high - 1][u] = splat(blank(kind)), splat_bits(0)
        if row >= high - 1:
            y += y_step
            places += y_step


cdef inline void roll_as(
    Kind kind, bint by_rows, int high, Py_ssize_t wide, const real *x, const void *which,
    const Box *b, Py_ssize_t rows, Py_ssize_t n, real *y, Py_ssize_t y_step, bits *places
) noexcept nogil:
    cdef Py_ssize_t i = 0
    while i + 2 * LANES <= n and kind != ARGMAX and kind < ROUTE_BYTES:
        roll_strip(kind, by_rows, 2, high, wide, x + i, further(kind, which, i), b, rows, y + i,
                   y_step, places + i)
        i += 2 * LANES
    while i < n:
        # The last vector may overlap the one before.
        i = min(i, n - LANES)
        roll_strip(kind, by_rows, 1, high, wide, x + i, further(kind, which, i), b, rows, y + i,
                   y_step, places + i)
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
        roll_as(kind, by_rows, 2, b.count[2], x, which, b, rows, n, y, y_step, places)
    elif b.count[1] == 3 and b.count[2] == 3:
        roll_as(kind, by_rows, 3, 3, x, which, b, rows, n, y, y_step, places)
    elif b.count[1] == 3:
        roll_as(kind, by_rows, 3, b.count[2], x, which, b, rows, n, y, y_step, places)
    elif b.count[2] == 5:
        roll_as(kind, by_rows, 5, 5, x, which, b, rows, n, y, y_step, places)
    else:
        roll_as(kind, by_rows, 5, b.count[2], x, which, b, rows, n, y, y_step, places)


cdef enum:
    FEW_ROWS = 4  # of windows that share rows, made at once; those with an argmax are half as many


cdef inline Py_ssize_t share_rows_as(
    Kind kind, const real *x, const Box *b, const Run *run, Py_ssize_t n, real *y, bits *places
) noexcept nogil:
    cdef Py_ssize_t rows = FEW_ROWS // 2 if kind == ARGMAX else FEW_ROWS
    if run.rows < rows:
        return 0
    if b.count[1] == 2:
        roll_as(kind, kind != SUM, 2, 2, x, NULL, b, rows, n, y, run.y_step, places)
    else:
        roll_as(kind, kind != SUM, 3, 3, x, NULL, b, rows, n, y, run.y_step, places)
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


cdef inline bint all_one_tap(const Space *space) noexcept nogil:
    """Whether windows in turn, as many as there are segments, have the same tap, and only that."""
    cdef const Segment *segment = space.segments
    cdef Py_ssize_t k
    if segment.every != space.n_segments or segment.every == 1 or segment.hop != 1 or (
        segment.window.count != 1
    ):
        return False
    for k in range(1, space.n_segments):
        if not same(&segment.window, &segment[k].window):
            return False
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
    # Windows that are every other one have the same taps, and those between them others.
    cdef bint paired = (
        space.n_segments == 2 and space.segments.every == 2 and space.segments.hop == 1
        and channels == y_pitch == pitch == run.rows == 1 and not program[LADDER]
    )
    space.divided = False
    if kind == SUM and channels == y_pitch == pitch == 1 and b.count[0] * b.count[1] == 1 and (
        all_one_tap(space)
    ):
        repeat(x + space.segments.window.start, width, space.n_segments, y)
        return
    # Those that `apart` makes come first: it reads the rows in order, and the rest finds them near.
    for k in range(2 * space.n_segments):
        segment = space.segments + k % space.n_segments
        window = &segment.window
        if channels == y_pitch == pitch == segment.every == 1 and (
            segment.hop == 2 or segment.hop > 2 and 0 < SIDE(sizeof(real)) <= LANES
        ) and (
            1 < window.count <= MOST_DIGIT and window.step == 1
            and kind < ROUTE_BYTES and segment.many >= LANES and b.count[0] * b.count[1]
        ):
            if k < space.n_segments:
                b.count[2], b.pitch[2], b.hop[2] = window.count, 1, window.hop
                b.place = place + window.place
                apart(kind, exact, x + window.start, b, segment.hop, segment.many, run,
                      y + segment.first, places + segment.first)
                space.divided = b.divisor != 0
            continue
        if k < space.n_segments:
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
            if program[LADDER] and not exact and window.count > 1 and b.count[0] * b.count[1]:
                ladder(kind, source, b.pitch[2], window.count, segment.radix, n,
                       space.lines, space.places, space.line, &found, &found_places)
            elif y_pitch == channels and segment.every == 1 and (
                segment.hop == 1 or segment.many == 1
            ):
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


cdef inline bint plain_row(const real *x, Py_ssize_t n, real *y, mask *good) noexcept nogil:
    """Whether the few elements that are no vector are plain; `good` tells it of the others."""
    cdef Py_ssize_t i = 0, k
    cdef vec least = splat(-INFINITY), v
    cdef bint every = True
    while i + 4 * LANES <= n:
        for k in range(4):
            v = load(x + i + k * LANES)
            good[0] &= above(v, least)
            if y != NULL:
                store(y + i + k * LANES, v)
        i += 4 * LANES
    while i < n and n >= LANES:
        # The last vector may overlap the one before.
        i = min(i, n - LANES)
        v = load(x + i)
        good[0] &= above(v, least)
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
    cdef mask good = splat_bits(-1)
    return plain_row(x, n, NULL, &good) and all_set(good)


cdef bint plain_copy(const real *x, Py_ssize_t n, real *y) noexcept nogil:
    """As `plain`, but the elements are copied as well, be they plain or not."""
    cdef mask good = splat_bits(-1)
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


# ------------------------------------------------------------------------------------- a tile


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
        while i < n and n >= 16:
            # The last ones may overlap those before.
            i = min(i, n - 16)
            narrow_bytes(places + i, argmax + i)
            i += 16
    while i < n:
        argmax[i] = <index>places[i]
        i += 1


cdef void finish(
    Kind kind,
    const Py_ssize_t *program,
    const bits *places,      # IN, ARGMAX: a row, cell beside cell
    Tile *tile,
    Target *target,
    Py_ssize_t plane,
    Py_ssize_t d,
    Py_ssize_t h,
    Space *space,
    index _argmax,           # only its type is used
) noexcept nogil:
    """Store the argmax of a row of results, or divide the row."""
    cdef Py_ssize_t width = tile.high[2] - tile.low[2], w
    cdef Py_ssize_t at = (
        (plane - tile.plane) * target.plane + (d - tile.low[0]) * target.depth
        + (h - tile.low[1]) * target.height
    )
    if program[MEAN] and not space.divided:
        divide(target.y + at, target.cell, space.counts[0][d - tile.low[0]]
               * space.counts[1][h - tile.low[1]], space.counts[2], space.alike, width,
               tile.channels,
               target.y + at, target.cell)
    if kind == ARGMAX:
        if target.cell == tile.channels:
            narrow(places, width * tile.channels, <index *>target.argmax + at)
        else:
            for w in range(width):
                narrow(places + w * tile.channels, tile.channels,
                       <index *>target.argmax + at + w * target.cell)
    if space.empty[0] or space.empty[1] or space.empty[2]:
        blot_out(kind, program, tile, target, at, d, h, <index>0)


cdef void blot_out(
    Kind kind,
    const Py_ssize_t *program,
    Tile *tile,
    Target *target,
    Py_ssize_t at,           # where in the target
    Py_ssize_t d,
    Py_ssize_t h,
    index _argmax,           # only its type is used
) noexcept nogil:
    """Forget what was found in windows of a row that have no taps: it means nothing."""
    cdef Py_ssize_t w, c
    cdef bint empty = clip_at(program, 0, d).count == 0 or clip_at(program, 1, h).count == 0
    for w in range(tile.high[2] - tile.low[2]):
        if empty or clip_at(program, 2, tile.low[2] + w).count == 0:
            for c in range(tile.channels):
                if kind == SUM:
                    target.y[at + w * target.cell + c] = 0
                elif kind == ARGMAX:
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
    cdef Py_ssize_t length = (n + 15) // 16 * 16, at
    cdef Py_ssize_t h = tile.low[1]
    cdef Py_ssize_t block = h * every // rows * rows   # where the tails' block starts
    cdef Py_ssize_t front = h * every - block, i
    cdef real *tails = space.work
    cdef real *head = tails + rows * length
    cdef real *other = head + length
    cdef bits *tails_places = space.carry
    cdef bits *head_places = tails_places + rows * length
    cdef bits *other_places = head_places + length
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
            box(kind, False, tails + i * length, &b, length, tails + i * length,
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
                emit(kind, False, tails + i * length, &b, tile, row_in(target, at),
                     pitch_in(target, tile), space.places)
                finish(kind, program, space.places, tile, target, plane, d, h, space, argmax)
                h += 1
                if h == tile.high[1]:
                    return True
            if not reduced_row(kind, program, x, tile, plane, d, base + block + rows + i, n, space,
                               tails + i * length, tails_places + i * length):
                return False
            b = line_of(1, 0)
            if i == 0:
                b.carried = tails_places if kind == ARGMAX else NULL
                box(kind, False, tails, &b, length, head, head_places)
            else:
                b.carried = head_places if kind == ARGMAX else NULL
                b.tail = tails + i * length
                b.tail_carried = tails_places + i * length
                b.tail_place = i * weight
                box(kind, False, head, &b, length, other, other_places)
                head, other = other, head
                head_places, other_places = other_places, head_places
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
    cdef mask good = splat_bits(-1)
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
    roll(kind, program[SEPARABLE], x, which, &b, rows, out,
         target.y + at if target.kept else space.lines, out, space.places)
    # Rows of results lie side by side.
    if kind == ARGMAX:
        narrow(space.places, rows * out, <index *>target.argmax + at)
    h = 0 if program[MEAN] else rows
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
    if space.empty[0] or space.empty[1] or space.empty[2]:
        for h in range(rows):
            blot_out(kind, program, tile, target, at + h * out, d, tile.low[1] + h, <index>0)
    return True


cdef enum:
    MOST_ROWS = 16  # that are made in a run: so few that they are near when they are divided


cdef inline Py_ssize_t rows_alike(const Window *along, Py_ssize_t most) noexcept nogil:
    """Return how many windows, from one on, have as many taps, the same distance further each."""
    cdef Py_ssize_t n = 1
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
    Space *space,
    index argmax,
) noexcept nogil:
    """Make the results of one plane of a tile; False if a maximum has to be exact."""
    cdef const Py_ssize_t *field = program + AXES
    cdef Py_ssize_t depth = (program + field[TAPS_AT])[SIZE]
    cdef Py_ssize_t height = (program + field[AXIS_FIELDS + TAPS_AT])[SIZE]
    cdef Py_ssize_t width = (program + field[2 * AXIS_FIELDS + TAPS_AT])[SIZE]
    cdef Py_ssize_t channels = program[CHANNELS]
    cdef Py_ssize_t across = field[2 * AXIS_FIELDS + BOX]
    cdef Py_ssize_t down = field[AXIS_FIELDS + BOX]
    cdef Py_ssize_t out = tile.high[2] - tile.low[2], columns, d, h, i, at, pitch
    cdef Py_ssize_t many = space.high[1] - space.low[1]
    cdef bint copied = program[ADJOINT] or program[PADDED] and not exact, checked, watched
    cdef const Window *over
    cdef const Window *along
    cdef const real *row
    cdef bits *places = space.places + 3 * space.line
    cdef real *made = space.lines + 3 * space.line  # a row that goes past the caches
    cdef real *to
    cdef Py_ssize_t to_pitch
    cdef const double *down_counts
    cdef const char *which = NULL
    cdef Box b
    cdef Rows rows
    cdef Run run
    run.rows = 1
    run.x_step = run.y_step = run.places_step = 0
    if program[ROLL] and not exact and (
        out == (program + field[2 * AXIS_FIELDS + TAPS_AT])[WINDOWS]
    ):
        return roll_plane(kind, program, x, tile, target, plane, space, argmax)
    space.framed = False
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
        space.low[2] == 0 and space.high[2] == width and (space.high[0] - space.low[0] == 1
                                                          or many == height)
    ):
        # One stretch of memory.
        i = ((plane * depth + space.low[0]) * height + space.low[1]) * width * channels
        if not plain(x + i, (space.high[0] - space.low[0]) * many * width * channels):
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
                        write_past(made, out * target.cell, to)  # the row made last
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
                emit(kind, exact, rows.x + i, &b, tile, to, to_pitch, places)
            else:
                if kind >= ROUTE_BYTES:
                    b.which = which + i * space.which.item
                if kind < ROUTE_BYTES and target.kept and not program[ADJOINT]:
                    run.y_step, run.places_step = target.height, out * tile.channels
                    run.rows = min(MOST_ROWS, space.line // run.places_step)
                    if kind != ARGMAX:
                        run.rows = max(FEW_ROWS, run.rows)  # which need no line
                    run.rows = min(tile.high[1] - h, run.rows)
                    run.rows = rows_alike(along, run.rows)
                    run.x_step = (along[run.rows > 1].start - along.start) * rows.height
                b.divisor = 0
                row = rows.x + i
                if program[MEAN] and space.n_segments == 1 and space.alike[0] >= out:
                    # Rows with one divisor are best divided soon after they are written.
                    down_counts = space.counts[1] + h - tile.low[1]
                    i = 1
                    while i < run.rows and down_counts[i] == down_counts[0]:
                        i += 1
                    if i == run.rows:
                        b.divisor = <real>(space.counts[0][d - tile.low[0]] * down_counts[0]
                                           * space.counts[2][0])
                sweep(kind, exact, program, row, rows.pitch, &b, tile.channels, out, space,
                      to, to_pitch, places, &run)
            if program[PAST] and to == made:
                write_past(made, out * target.cell, target.y + at)
            for i in range(run.rows):
                finish(kind, program, places + i * run.places_step, tile, target, plane, d, h + i,
                       space, argmax)
    return all_set(numbers(load(space.seen)))


cdef void set_up(
    const Py_ssize_t *program, Tile *tile, bint exact, bint covering, Space *space
) noexcept nogil:
    """Unfold the windows of a tile, unless those of the last tile will do."""
    cdef int axis
    cdef Py_ssize_t w, low, high
    cdef bint padded = program[PADDED] and not exact, whole = False, short = False
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
        space.empty[axis] = False
        if axis == 2:
            # Of narrow cells, `sweep` needs windows by themselves only where they are far apart.
            short = (
                program[CHANNELS] < LANES and taps[ADVANCE] < LANES
                and all_inside(taps, low, high)
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
    # Windows count from the first cell that is used, or from the row's, not copied.
    high = tile.high[2] - tile.low[2]
    for w in range(min(high, taps[PERIOD]) if short else high):
        space.windows[2][w].start -= space.low[2] if padded else max(0, space.low[2])
    find_segments(
        program, tile.low[2], tile.high[2] - tile.low[2],
        taps[PARTS] == 1 and (padded or whole and program[CHANNELS] < LANES), space,
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
    cdef const Py_ssize_t *taps = program + program[AXES + AXIS_FIELDS + TAPS_AT]
    cdef Py_ssize_t plane, at, deep = tile.high[0], high = tile.high[1], wide = tile.high[2]
    cdef Tile piece
    cdef Target there
    for plane in range(tile.plane, tile.plane + tile.planes):
        set_up(program, tile, False, False, space)
        if reduce_plane(kind, False, program, x, tile, target, plane, space, argmax):
            continue
        piece, there = tile[0], target[0]
        if program[SLIDE]:
            # The workspace has room for the rows of one window and two more; so, of half the
            # width, for those of as many windows as a block has.
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
                    reduce_plane(kind, True, program, x, &piece, &there, plane, space, argmax)


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


cdef inline Ticket alone_at(Queue *queue) noexcept nogil:
    """Return the ticket of the only thread at a queue, which is new."""
    cdef Ticket ticket
    queue.taken = queue.front = queue.back = 0
    ticket.queue, ticket.from_back = queue, False
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


cdef void *lay_out(
    const Py_ssize_t *program, Py_ssize_t carried, Py_ssize_t item, Space *space
) noexcept nogil:
    """Allocate one thread's workspace; NULL if there is no memory.

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
    block = <char *>malloc(size)
    if block == NULL:
        return NULL
    at = block + 64 - <Py_ssize_t>block % 64
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
    return block


cdef enum:
    MOST_TOGETHER = 16


cdef inline void turn_about(
    const item *x,           # IN
    Py_ssize_t rows,
    Py_ssize_t columns,
    Py_ssize_t gap,          # elements from row to row of x
    item *y,                 # OUT
    Py_ssize_t step,         # and from row to row of y, which are the columns of x
) noexcept nogil:
    """Turn rows to columns."""
    cdef Py_ssize_t side = SIDE(sizeof(item)), r, c, i, k
    if side == 0 or rows < side or columns < side:
        for c in range(columns):
            for r in range(rows):
                y[c * step + r] = x[r * gap + c]
        return
    # Squares; the last ones may overlap those before.
    c = 0
    while c < columns:
        i = min(c, columns - side)
        r = 0
        while r < rows:
            k = min(r, rows - side)
            turn(x + k * gap + i, gap, y + i * step + k, step, sizeof(item), side)
            r += side
        c += side


cdef inline void fetch_behind(const item *x, Py_ssize_t n) noexcept nogil:
    """Prefetch what lies behind n elements: as many, which come after all else done with these."""
    cdef Py_ssize_t i
    for i in range(n * <Py_ssize_t>sizeof(item) // 64):
        poolgrad_prefetch(<const char *>(x + n) + 64 * i)


cdef void put_together(
    const item *x, Py_ssize_t cells, Py_ssize_t planes, item *y
) noexcept nogil:
    """Copy planes to the channels of one plane, and 0 to the channels that are left."""
    cdef Py_ssize_t c, k
    fetch_behind(x, planes * cells)
    turn_about(x, planes, cells, cells, y, MOST_TOGETHER)
    if planes < MOST_TOGETHER:
        for c in range(cells):
            for k in range(planes, MOST_TOGETHER):
                y[c * MOST_TOGETHER + k] = 0


cdef void take_apart(
    const item *x, Py_ssize_t cells, Py_ssize_t planes, item *y
) noexcept nogil:
    """Copy the channels of one plane to planes."""
    fetch_behind(y, planes * cells)
    turn_about(x, cells, planes, MOST_TOGETHER, y, cells)


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
    MOST_SHARES = 512  # planes whose gradients are divided at a time
    FAR = 4096         # bytes


cdef inline void add_cells_up(
    const real *x, Py_ssize_t cells, Py_ssize_t channels, Py_ssize_t n, real divisor, real *y
) noexcept nogil:
    """As `add_up`, of the first n channels of each cell."""
    cdef real[4 * MOST_SUMS] sums
    cdef const real *cell
    cdef real *to
    cdef Py_ssize_t i, k, done, c = 0
    for i in range(4 * n):
        sums[i] = blank(SUM)
    while c + 4 <= cells:
        done = 0
        # Memory is read sooner at four places far apart at once than at one, or at four near ones.
        while n * <Py_ssize_t>sizeof(real) >= FAR and done + 2 * LANES <= n:
            for k in range(4):
                cell, to = x + (c + k) * channels + done, sums + k * n + done
                store(to, load(to) + load(cell))
                store(to + LANES, load(to + LANES) + load(cell + LANES))
            done += 2 * LANES
        for k in range(4):
            cell, to = x + (c + k) * channels, sums + k * n
            for i in range(done, n):
                to[i] = to[i] + cell[i]
        c += 4
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
    cdef Py_ssize_t channels = p[CHANNELS], c
    if not p[ADJOINT]:
        add_cells_up(x, cells, channels, n, divisor, y)
        return
    divide_by(x, n, divisor, y)
    for c in range(1, cells):
        if p[PAST]:
            write_past(y, n, y + c * channels)
        else:
            memcpy(y + c * channels, y, n * sizeof(real))


cdef void reduce_whole(
    const Py_ssize_t *p,               # IN: the program
    const real *x,                     # IN
    real *y,                           # OUT
    const Ticket *ticket,
) noexcept nogil:
    """Make averages of whole planes, or their gradients, until none is left."""
    cdef const Py_ssize_t *field = p + AXES
    cdef Py_ssize_t axis, plane, last, cells = 1, channels = p[CHANNELS], many, half
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
            # Two halves at once: memory is read sooner at two places than at one.
            half = tile.planes // 2
            for plane in range(plane, plane + half):
                y[plane] = add_up(x + plane * cells, cells) / divisor
                y[plane + half] = add_up(x + (plane + half) * cells, cells) / divisor
            if tile.planes % 2:
                y[last - 1] = add_up(x + (last - 1) * cells, cells) / divisor
    settle()


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
    cdef real *together = NULL
    cdef real *result
    cdef index *which
    cdef void *block
    if p[WHOLE]:
        reduce_whole(p, x, y, ticket)
        return True
    block = lay_out(p, kind == ARGMAX, 0, &space)
    if p[TOGETHER]:
        together = <real *>malloc(
            (n + m) * MOST_TOGETHER * sizeof(real) + m * MOST_TOGETHER * sizeof(index)
        )
    if block == NULL or p[TOGETHER] and together == NULL:
        free(block)
        free(together)
        return False
    if not p[TOGETHER]:
        reduce_tiles(kind, p, x, y, argmax, ticket, &space)
        settle()
    else:
        result = together + n * MOST_TOGETHER
        which = <index *>(result + m * MOST_TOGETHER)
        while next_group(ticket, p, &first, &planes):
            put_together(x + first * n, n, planes, together)
            inner = alone_at(&queue)
            reduce_tiles(kind, p, together, result, which, &inner, &space)
            take_apart(result, m, planes, y + first * m)
            if kind == ARGMAX:
                take_apart(which, m, planes, argmax + first * m)
    free(block)
    free(together)
    return True


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
    cdef Ticket ticket
    cdef unsigned char *none = NULL
    cdef bint done
    ticket.queue, ticket.from_back = &job.queue, who % 2
    if job.kind == MAX:
        done = reduce(MAX, job.p, job.x, job.y, none, &ticket)
    elif job.kind == SUM:
        done = reduce(SUM, job.p, job.x, job.y, none, &ticket)
    elif job.item == 1:
        done = reduce(ARGMAX, job.p, job.x, job.y, <unsigned char *>job.argmax, &ticket)
    else:
        done = reduce(ARGMAX, job.p, job.x, job.y, <int *>job.argmax, &ticket)
    if not done:
        job.failed = True


cdef bint make(
    Kind kind, const Py_ssize_t *p, const real *x, real *y, void *argmax, int item, int helpers
) noexcept nogil:
    """Make a result, with so many other threads; False if one had no memory for its workspace."""
    cdef Job job
    job.kind, job.p, job.x, job.y, job.argmax, job.item = kind, p, x, y, argmax, item
    alone_at(&job.queue)
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


# ------------------------------------------------------------------------ gradient of a maximum


cdef enum:
    MOST_OFFSETS = 65536  # of a table; windows with more taps do without
    SMALL = 4096          # elements that become 0 in one go


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
    for the last one. Those of other planes need not.
    """
    cdef Py_ssize_t i
    for i in range(n):
        add_apart(dx + base + i * step, cells, offsets, which + i, dy + i, windows)


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


cdef bint share_none(const Py_ssize_t *forward, Py_ssize_t channels) noexcept nogil:
    """Whether windows share no cell, and lie side by side in a row; of one channel, in pairs."""
    cdef const Py_ssize_t *taps = NULL
    cdef int axis
    for axis in range(3):
        taps = forward + forward[AXES + axis * AXIS_FIELDS + TAPS_AT]
        if not (
            taps[PARTS] == taps[PERIOD] == taps[STRIDE] == 1 and taps[BASE] == 0
            and taps[TAPS] <= taps[ADVANCE]
            and (taps[WINDOWS] - 1) * taps[ADVANCE] + taps[TAPS] <= taps[SIZE]
        ):
            return False
    return taps[TAPS] == taps[ADVANCE] and (
        channels > 1 or taps[TAPS] == 2 and taps[WINDOWS] >= LANES
    )


cdef inline mask widen(const index *x) noexcept nogil:
    """Return so many values, each in a lane of its own."""
    if index is int:
        return widen_ints(x)
    else:
        return widen_bytes(x)


cdef inline void route_row_of_pairs(
    const real *dy, const index *argmax, Py_ssize_t n, Py_ssize_t place, real *dx
) noexcept nogil:
    """Write the row of dx that has tap `place` of each of n windows, and the next one."""
    cdef Py_ssize_t i = 0
    cdef vec v, one, two
    cdef mask which, even = splat_bits(<bits>place), odd = splat_bits(<bits>(place + 1))
    while i < n:
        # The last vector may overlap the one before.
        i = min(i, n - LANES)
        v = load(dy + i)
        which = widen(argmax + i)
        # 0 is added, here too: then no -0.0 is left.
        one = splat(0) + where(equal_bits(which, even), v)
        two = splat(0) + where(equal_bits(which, odd), v)
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
    cdef Py_ssize_t w, c, t, last = max(0, n if more else n - 1 - (LANES - 1) // channels)
    cdef real share
    for w in range(last):
        for t in range(taps):
            c = 0
            while c < channels:
                store(dx + c, splat(0) + where(
                    equal_bits(widen(argmax + c), splat_bits(<bits>(place + t))), load(dy + c)
                ))
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


cdef inline void route_apart_as(
    const Py_ssize_t *forward,         # IN: the program of the windows
    Py_ssize_t channels,
    const real *dy,                    # IN: a plane
    const index *argmax,               # IN
    real *dx,                          # OUT
) noexcept nogil:
    """Write a plane of dx, each cell of which is under one window at most."""
    cdef const Py_ssize_t *deep = forward + forward[AXES + TAPS_AT]
    cdef const Py_ssize_t *high = forward + forward[AXES + AXIS_FIELDS + TAPS_AT]
    cdef const Py_ssize_t *wide = forward + forward[AXES + 2 * AXIS_FIELDS + TAPS_AT]
    cdef Py_ssize_t n = wide[WINDOWS], length = wide[SIZE] * channels, d, h, k, row, place
    # To the compiler, what is stored might be part of the program.
    cdef Py_ssize_t bands = high[WINDOWS], rows = high[TAPS], across = wide[TAPS]
    cdef real *to
    cdef bint more
    cdef bint covered = (
        deep[WINDOWS] * deep[TAPS] == deep[SIZE] and high[WINDOWS] * high[TAPS] == high[SIZE]
        and n * wide[TAPS] == wide[SIZE]
    )
    # A vector that reaches behind a row must end in the next one.
    cdef bint long_enough = covered and n * channels >= LANES
    if not covered:
        memset(dx, 0, deep[SIZE] * high[SIZE] * length * sizeof(real))
    for d in range(deep[WINDOWS]):
        for h in range(bands):
            more = long_enough and (h < bands - 1 or deep[TAPS] == 1 and d < deep[WINDOWS] - 1)
            place = 0
            for k in range(deep[TAPS]):
                to = dx + length * ((d * deep[ADVANCE] + k) * high[SIZE] + h * high[ADVANCE])
                # Row after row: memory that is written in order is written sooner.
                for row in range(rows):
                    if channels == 1:
                        route_row_of_pairs(dy, argmax, n, place, to)
                    else:
                        route_row(dy, argmax, n, channels, across, place, more, to)
                    place += across
                    to += length
            dy += n * channels
            argmax += n * channels


cdef void route_apart(
    const Py_ssize_t *forward, Py_ssize_t channels, const real *dy, const index *argmax, real *dx
) noexcept nogil:
    if channels == 1:
        route_apart_as(forward, 1, dy, argmax, dx)
    else:
        route_apart_as(forward, channels, dy, argmax, dx)


cdef enum:
    MOST_ABOVE = 8  # rows of windows above a row of cells, of those that `route_twos` makes
    IN_A_GO = 512   # elements of a row that it makes before they are put in their places


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
        LANES >= 8 and 2 * channels <= LANES and above <= MOST_ABOVE
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
        sum = sum + where(
            equal_bits(widen(argmax + starts[k] + at), splat_bits(<bits>(places[k] + tap))),
            load(dy + starts[k] + at)
        )
    return sum


cdef inline void alternate(
    const real *ones, const real *twos, Py_ssize_t n, Py_ssize_t channels, real *y, real *end
) noexcept nogil:
    """Store n cells of each in turn, and nothing from `end` on."""
    cdef Py_ssize_t i = 0, c
    cdef bits[16] lanes  # of 64 bytes
    cdef mask first
    for c in range(LANES):
        lanes[c] = <bits>-1 if c < channels else 0
    first = load_bits(lanes)
    # What is too much of a vector is overwritten.
    while i < n and y + LANES <= end:
        store(y, choose(first, load(ones), load(twos - channels)))
        ones, twos, y = ones + channels, twos + channels, y + 2 * channels
        i += 1
    while i < n:
        for c in range(channels):
            y[c], y[channels + c] = ones[c], twos[c]
        ones, twos, y = ones + channels, twos + channels, y + 2 * channels
        i += 1


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
    real *dx,                          # OUT: a row
) noexcept nogil:
    """Write a row of dx: tap 1 of a window and tap 2, which is tap 0 of the next, in turn."""
    cdef Py_ssize_t i, k, c, low = 0, high, last = (n - 1) * channels
    cdef Py_ssize_t go = last if channels == 1 else IN_A_GO // channels * channels
    cdef vec v, one, two
    cdef mask which
    # To the compiler, what is stored might be part of what these are made of.
    cdef mask[MOST_ABOVE] zeroth
    cdef mask[MOST_ABOVE] first
    cdef mask[MOST_ABOVE] second
    cdef Py_ssize_t[MOST_ABOVE] begin
    cdef real[32] ends  # two vectors of 64 bytes
    cdef real[IN_A_GO + 32] ones
    cdef real[IN_A_GO + 32] twos
    cdef real *to = dx + (1 - front) * channels
    for k in range(rows):
        begin[k] = starts[k]
        zeroth[k] = splat_bits(<bits>places[k])
        first[k] = splat_bits(<bits>(places[k] + 1))
        second[k] = splat_bits(<bits>(places[k] + 2))
    # Without a look at single values, which are hard to foretell: what is too much of a vector is
    # overwritten.
    if front == 0:
        store(dx, routed(dy, argmax, rows, starts, places, 0, 0))
    while low < last:
        high = min(low + go, last)
        i = low
        while i < high:
            # The last vector may overlap the one before.
            i = min(i, high - LANES)
            one = two = splat(0)
            for k in range(rows):
                v = load(dy + begin[k] + i)
                which = widen(argmax + begin[k] + i)
                one = one + where(equal_bits(which, first[k]), v)
                two = two + where(equal_bits(which, second[k]), v)
                v = load(dy + begin[k] + i + channels)
                which = widen(argmax + begin[k] + i + channels)
                two = two + where(equal_bits(which, zeroth[k]), v)
            if channels == 1:
                store(to + 2 * i, first_in_turn(one, two))
                store(to + 2 * i + LANES, second_in_turn(one, two))
            else:
                store(ones + 16 + i - low, one)
                store(twos + 16 + i - low, two)
            i += LANES
        if channels > 1:
            alternate(ones + 16, twos + 16, (high - low) // channels, channels, to + 2 * low,
                      dx + size * channels)
        low = high
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
    cdef real *row
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
                route_row_of_twos(dy, argmax, 1, starts, places, n, channels, front, size, row)
            elif rows == 2:
                route_row_of_twos(dy, argmax, 2, starts, places, n, channels, front, size, row)
            else:
                route_row_of_twos(dy, argmax, rows, starts, places, n, channels, front, size, row)


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
    const Py_ssize_t *forward, Py_ssize_t cell, Py_ssize_t taps
) noexcept nogil:
    """Allocate and write the offsets of so many taps, and -1 for none; or return NULL.

    None is -1 or 255. What is returned lies behind the first element that was allocated.
    """
    cdef Py_ssize_t place
    cdef Py_ssize_t *offsets = <Py_ssize_t *>malloc((1 + max(taps, 256)) * sizeof(Py_ssize_t))
    if offsets == NULL:
        return NULL
    offsets += 1
    offsets[-1] = offsets[255] = -1
    for place in range(taps):
        offsets[place] = offset_of(forward, cell, place)
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
    cdef Py_ssize_t axis, plane, planes, next_plane
    cdef bint whole, apart, twos
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
    twos = p[SCATTER] and x == NULL and lap_by_one(f, p[CHANNELS])
    while take(ticket, p, &tile):
        one = tile
        one.planes = 1
        next_plane = tile.plane
        whole = (f + f[AXES + 2 * AXIS_FIELDS + TAPS_AT])[PARTS] == 1
        for axis in range(3):
            whole = whole and tile.low[axis] == 0 and (
                tile.high[axis] == (p + p[AXES + axis * AXIS_FIELDS + TAPS_AT])[WINDOWS]
            )
            if p[SCATTER]:
                taps = f + f[AXES + axis * AXIS_FIELDS + TAPS_AT]
                least[axis] = first_beyond(taps, tile.low[axis], True)
                most[axis] = first_beyond(taps, tile.high[axis], False)
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
                reduce_plane(kind, False, p, dy, &one, &target, plane, space, <index>0)
            elif x == NULL:
                if next_plane > plane:
                    continue  # it was one of four
                if whole and apart and tile.channels == p[CHANNELS]:
                    route_apart(f, p[CHANNELS], dy + plane * which.pitch[0],
                                saved + plane * which.pitch[0], dx + plane * target.plane)
                    continue
                if twos and (tile.high[2] - tile.low[2]) * target.cell == target.height:
                    route_twos(f, dy + plane * which.pitch[0], saved + plane * which.pitch[0],
                               &tile, p[CHANNELS], dx + plane * target.plane)
                    continue
                planes = 1
                if p[CHANNELS] == 1 and whole and plane + 4 <= tile.plane + tile.planes:
                    planes = 4
                next_plane = plane + planes
                scatter(p, f, offsets, dy, which, &tile, least, most, plane, planes, True, dx,
                        <index>0)
            else:
                # As many windows at a time as there is room for, in ascending order.
                scatter(p, f, offsets, dy, which, &tile, least, least, plane, 1, True, dx,
                        <index>0)
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
                                    1, False, dx, <index>0)


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
    cdef Queue queue
    cdef Ticket inner
    cdef Py_ssize_t first, planes
    cdef const Py_ssize_t *p = job.p
    cdef const Py_ssize_t *f = job.f
    cdef Py_ssize_t n = p[CELLS_IN], m = p[CELLS_OUT]
    cdef const real *source = job.x
    cdef const index *given = <const index *>job.saved
    cdef void *block = lay_out(p, 0, sizeof(index), &space)
    cdef void *again_block = NULL
    cdef Py_ssize_t *offsets = NULL
    cdef index *slab = NULL
    cdef real *together = NULL
    cdef real *result = NULL
    cdef real *source_together = NULL
    cdef index *which = NULL
    cdef bint done
    if source != NULL:
        again_block = lay_out(f, 1, 0, &again)
        slab = <index *>malloc((p[SLAB] + 64) * sizeof(index))
    if p[SCATTER] and taps_of(f) <= MOST_OFFSETS:
        offsets = offsets_of(f, p[CHANNELS], taps_of(f))
    if p[TOGETHER]:
        together = <real *>malloc(
            (n + 2 * m) * MOST_TOGETHER * sizeof(real) + n * MOST_TOGETHER * sizeof(index)
        )
    done = (
        block != NULL and (source == NULL or again_block != NULL and slab != NULL)
        and (not p[SCATTER] or offsets != NULL or taps_of(f) > MOST_OFFSETS)
        and (not p[TOGETHER] or together != NULL)
    )
    if done and not p[TOGETHER]:
        route_tiles(p, f, offsets, job.dy, source, given, job.dx, ticket, &space, &again,
                    slab)
    elif done:
        result = together + n * MOST_TOGETHER
        which = <index *>(result + 2 * m * MOST_TOGETHER)
        while next_group(ticket, p, &first, &planes):
            put_together(job.dy + first * n, n, planes, together)
            if source != NULL:
                source_together = result + m * MOST_TOGETHER
                put_together(source + first * m, m, planes, source_together)
            else:
                put_together(given + first * n, n, planes, which)
            inner = alone_at(&queue)
            route_tiles(p, f, offsets, together, source_together,
                        NULL if source != NULL else which, result, &inner, &space, &again,
                        slab)
            take_apart(result, m, planes, job.dx + first * m)
    free(block)
    free(again_block)
    free(slab)
    if offsets != NULL:
        free(offsets - 1)
    free(together)
    return done


cdef void take_part_in_route(void *of, int who) noexcept nogil:
    """Make a share of dx."""
    cdef Route *job = <Route *>of
    cdef Ticket ticket
    ticket.queue, ticket.from_back = &job.queue, who % 2
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
    alone_at(&job.queue)
    with nogil:
        _crew.run(take_part_in_route, &job, helpers)
    return not job.failed


# ------------------------------------------------------------------------------- argmax by itself


cdef inline bint is_tap(
    Py_ssize_t place, const Py_ssize_t *box, const Window *at
) noexcept nogil:
    """Whether a tap of the box is one of a clipped window's."""
    cdef Py_ssize_t row = place // box[2]
    return (
        place >= 0
        and at[2].first <= place % box[2] < at[2].first + at[2].count
        and at[1].first <= row % box[1] < at[1].first + at[1].count
        and at[0].first <= row // box[1] < at[0].first + at[0].count
    )


cdef inline bint below(const index *argmax, Py_ssize_t n, unsigned int taps) noexcept nogil:
    """Whether each value is none or one of so many taps."""
    cdef Py_ssize_t i
    cdef unsigned char byte, most_byte = 0
    cdef unsigned int one, most = 0
    # None is the largest value: one more than it is 0.
    if index is int:
        for i in range(n):
            one = <unsigned int>argmax[i] + 1
            most = max(most, one)
    else:
        for i in range(n):
            byte = argmax[i] + 1
            most_byte = max(most_byte, byte)
        most = most_byte
    return most <= taps


cdef inline bint all_byte_taps(
    const unsigned char *argmax, Py_ssize_t n, const Py_ssize_t *box, const Window *at,
    const int *first, const int *count
) noexcept nogil:
    """As `all_taps`, in numbers of 16 bits, of which a vector has twice as many."""
    cdef Py_ssize_t i
    cdef bint each = first != NULL
    cdef uint16_t bad = 0, place, row, d, h, w, front, many
    cdef uint16_t across = <uint16_t>box[2], down = <uint16_t>box[1]
    # Rounded up, these make no quotient of numbers below 256 wrong.
    cdef uint16_t by_across = <uint16_t>(65535 // across + 1)
    cdef uint16_t by_down = <uint16_t>(65535 // down + 1)
    cdef uint16_t upper = <uint16_t>at[1].first, rows = <uint16_t>at[1].count
    cdef uint16_t near = <uint16_t>at[0].first, deep = <uint16_t>at[0].count
    front, many = <uint16_t>at[2].first, <uint16_t>at[2].count
    for i in range(n):
        place = argmax[i]
        row = place if across == 1 else <uint16_t>((<uint32_t>place * by_across) >> 16)
        d = row if down == 1 else <uint16_t>((<uint32_t>row * by_down) >> 16)
        w = <uint16_t>(place - row * across - (<uint16_t>first[i] if each else front))
        h = <uint16_t>(row - d * down - upper)
        d = <uint16_t>(d - near)
        bad |= <uint16_t>((place != 255) & (
            (w >= (<uint16_t>count[i] if each else many)) | (h >= rows) | (d >= deep)
        ))
    return not bad


cdef inline bint all_taps(
    const index *argmax, Py_ssize_t n, const Py_ssize_t *box, const Window *at,
    const int *first, const int *count
) noexcept nogil:
    """Whether each value below 2**16 is none or a tap of a clipped window.

    Of the same window; or, with the first taps and the numbers of taps along the width of each, of
    windows of a row.
    """
    cdef Py_ssize_t i
    cdef bint each = first != NULL
    cdef int bad = 0, place, row, d, h, w, front = <int>at[2].first, many = <int>at[2].count
    cdef int across = <int>box[2], down = <int>box[1]
    # Half a tap more keeps quotients clear of whole numbers by more than they are rounded.
    cdef float by_across = <float>1 / across, by_down = <float>1 / down
    if index is not int:
        return all_byte_taps(argmax, n, box, at, first, count)
    else:
        for i in range(n):
            place = argmax[i]
            row = <int>((place + <float>0.5) * by_across)
            d = <int>((row + <float>0.5) * by_down)
            w = place - row * across - (first[i] if each else front)
            h = row - d * down - <int>at[1].first
            d -= <int>at[0].first
            bad |= (argmax[i] != <index>-1) & (
                (<unsigned int>w >= <unsigned int>(count[i] if each else many))
                | (<unsigned int>h >= <unsigned int>at[1].count)
                | (<unsigned int>d >= <unsigned int>at[0].count)
            )
        return not bad


cdef bint all_rows(
    const index *argmax, Py_ssize_t planes, const Py_ssize_t **taps, const Py_ssize_t *box
) noexcept nogil:
    """As `all_planes`, row by row, for windows of up to 2**16 taps."""
    cdef Py_ssize_t width = taps[2][WINDOWS], n, d, h, w
    cdef Window[3] at
    cdef bint good = True
    cdef int *first = <int *>malloc(2 * width * sizeof(int))
    if first == NULL:
        return False
    for w in range(width):
        at[2] = clip(taps[2], w)
        first[w], first[width + w] = <int>at[2].first, <int>at[2].count
    for n in range(planes):
        for d in range(taps[0][WINDOWS]):
            at[0] = clip(taps[0], d)
            for h in range(taps[1][WINDOWS]):
                at[1] = clip(taps[1], h)
                good = good and all_taps(argmax, width, box, at, first, first + width)
                argmax += width
    free(first)
    return good


cdef enum:
    MOST_RIGHT = 4194304  # bytes of a table of what is right where
    FEW_PLANES = 4        # for which no table is made
    # If of so many windows one is clipped, to look at all takes less, where rows are so long, or
    # bits can tell of each of so few taps whether it is right.
    MANY_CLIPPED = 8
    LONG_ROW = 32
    MOST_BITS = 31
    MOST_WORDS = 8192  # windows of a plane


cdef Py_ssize_t write_clipped(
    const Py_ssize_t **taps,
    const Py_ssize_t *box,
    int *clipped,                      # OUT: which windows of a plane are clipped; or NULL
    char *right,                       # OUT: for none and for each tap, if it is one of theirs
) noexcept nogil:
    """Return how many windows of a plane are clipped."""
    cdef Py_ssize_t limit = box[0] * box[1] * box[2], d, h, w, i, k, row, many = 0
    cdef Py_ssize_t wide = taps[2][WINDOWS], first = 0, last, skipped
    cdef bint inner
    cdef Window[3] at
    while first < wide and clip(taps[2], first).count < box[2]:
        first += 1
    last = first
    while last < wide and clip(taps[2], last).count == box[2]:
        last += 1
    for d in range(taps[0][WINDOWS]):
        at[0] = clip(taps[0], d)
        for h in range(taps[1][WINDOWS]):
            at[1] = clip(taps[1], h)
            inner = at[0].count == box[0] and at[1].count == box[1]
            if clipped == NULL and not inner:
                many += wide
                continue
            skipped = last - first if inner else 0
            for i in range(wide - skipped):
                w = i if i < first else i + skipped
                at[2] = clip(taps[2], w)
                if inner and at[2].count == box[2]:
                    continue
                many += 1
                if clipped == NULL:
                    continue
                clipped[0] = <int>((d * taps[1][WINDOWS] + h) * wide + w)
                clipped += 1
                memset(right, 0, limit + 1)
                right[0] = 1
                for k in range(at[0].count * at[1].count):
                    row = (at[0].first + k // at[1].count) * box[1] + at[1].first
                    row = (row + k % at[1].count) * box[2] + at[2].first
                    memset(right + 1 + row, 1, at[2].count)
                right += limit + 1
    return many


cdef uint32_t bits_of(Window at) noexcept nogil:
    """Return the taps of a clipped window along one axis, as bits."""
    return ((<uint32_t>1 << at.count) - 1) << at.first


cdef bint all_bits(
    const index *argmax, Py_ssize_t planes, const Py_ssize_t **taps, const Py_ssize_t *box
) noexcept nogil:
    """As `all_planes`, for windows of few taps: a word for each, with a bit for each tap."""
    cdef Py_ssize_t cells = 0, n, d, h, w, i, k
    cdef uint32_t[MOST_WORDS] words
    cdef uint32_t good = 1, rows, first
    for d in range(taps[0][WINDOWS]):
        for h in range(taps[1][WINDOWS]):
            # The first taps of the rows that are inside; those along the width follow each.
            rows = first = 0
            for i in range(box[0]):
                for k in range(box[1]):
                    first = bits_of(clip(taps[0], d)) >> i & bits_of(clip(taps[1], h)) >> k & 1
                    rows |= first << (i * box[1] + k) * box[2]
            for w in range(taps[2][WINDOWS]):
                # None has the bits of the largest value.
                words[cells] = rows * bits_of(clip(taps[2], w)) | <uint32_t>1 << MOST_BITS
                cells += 1
    for n in range(planes):
        for i in range(cells):
            good &= words[i] >> (argmax[i] & MOST_BITS)
        argmax += cells
    return good


cdef bint all_planes(
    const index *argmax,
    Py_ssize_t planes,
    const Py_ssize_t **taps,
    const Py_ssize_t *box,
    Py_ssize_t cells,
) noexcept nogil:
    """Whether all values, each a tap of the box or none, are right, in planes of one channel.

    False also if they cannot be looked at that fast.
    """
    cdef Py_ssize_t row = box[0] * box[1] * box[2] + 1, n, i
    cdef Py_ssize_t many = write_clipped(taps, box, NULL, NULL)
    cdef bint many_clipped = many * MANY_CLIPPED > cells
    cdef int *clipped
    cdef char *right
    cdef char good = 1
    if many == 0:
        return True
    if planes <= FEW_PLANES:
        return many_clipped and row <= 65536 and all_rows(argmax, planes, taps, box)
    if many_clipped and row <= MOST_BITS + 1 and cells <= MOST_WORDS:
        return all_bits(argmax, planes, taps, box)
    if many * row > MOST_RIGHT or many_clipped and taps[2][WINDOWS] >= LONG_ROW and row <= 65536:
        return row <= 65536 and all_rows(argmax, planes, taps, box)
    clipped = <int *>malloc(many * (sizeof(int) + row))
    if clipped == NULL:
        return False
    right = <char *>(clipped + many)
    write_clipped(taps, box, clipped, right)
    for n in range(planes):
        for i in range(many):
            # None is the largest value, or -1: one more is 0.
            if index is int:
                good &= right[i * row + argmax[clipped[i]] + 1]
            else:
                good &= right[i * row + <unsigned char>(argmax[clipped[i]] + 1)]
        argmax += cells
    free(clipped)
    return good


cdef Py_ssize_t find_bad(
    const index *argmax,
    Py_ssize_t first,                  # row of windows
    Py_ssize_t rows,                   # of one channel: those of whole planes
    Py_ssize_t channels,
    const Py_ssize_t **taps,
    const Py_ssize_t *box,
) noexcept nogil:
    """Return the flat place of the first value that is neither none nor a real tap, or -1."""
    cdef Py_ssize_t high = taps[1][WINDOWS], wide = taps[2][WINDOWS]
    cdef Py_ssize_t plane = taps[0][WINDOWS] * high
    cdef Py_ssize_t limit = box[0] * box[1] * box[2], r, w, c, last = -1
    cdef Py_ssize_t d = first % plane // high, h = first % high
    cdef Py_ssize_t cell = first * wide * channels
    cdef bint good = below(argmax + cell, rows * wide * channels, <unsigned int>limit), inner
    cdef Window[3] at
    if good and channels == 1 and plane * wide < 2147483647 and (
        all_planes(argmax + cell, rows // plane, taps, box, plane * wide)
    ):
        return -1  # else the first bad one is looked for
    # The last window along the width that is not clipped behind.
    if taps[2][PARTS] == 1 and taps[2][SIZE] > (box[2] - 1) * taps[2][STRIDE] + taps[2][BASE]:
        last = (taps[2][SIZE] - (box[2] - 1) * taps[2][STRIDE] - 1 - taps[2][BASE]) \
            // taps[2][ADVANCE]
        last = min(last, wide - 1)
    at[0] = clip(taps[0], d)
    for r in range(rows):
        at[1] = clip(taps[1], h)
        h += 1
        inner = at[0].count == box[0] and at[1].count == box[1]
        w = 0
        while w < wide:
            at[2] = clip(taps[2], w)
            if good and inner and at[2].count == box[2] and w <= last:
                # Nor is any up to that one, and all values are taps.
                cell += (last + 1 - w) * channels
                w = last + 1
                continue
            if not good or limit > 65536 or not all_taps(
                argmax + cell, channels, box, at, NULL, NULL
            ):
                for c in range(cell, cell + channels):
                    if argmax[c] != <index>-1 and not is_tap(argmax[c], box, at):
                        return c
            cell += channels
            w += 1
        if h == high:
            h, d = 0, d + 1 if d + 1 < taps[0][WINDOWS] else 0
            at[0] = clip(taps[0], d)
    return -1


cdef struct Check:
    # An argmax, for any number of threads to look at.
    const void *argmax
    int item                 # bytes of an element of it
    Py_ssize_t rows          # of windows
    Py_ssize_t size          # of a piece
    Py_ssize_t channels
    const Py_ssize_t *taps[3]
    Py_ssize_t[3] box
    Queue queue
    bint bad


cdef void take_part_in_check(void *of, int who) noexcept nogil:
    """Look at a share of an argmax."""
    cdef Check *job = <Check *>of
    cdef Ticket ticket
    cdef Py_ssize_t n = parts_of(job.rows, job.size), first, rows, bad
    ticket.queue, ticket.from_back = &job.queue, who % 2
    while True:
        first = next_of(&ticket, n) * job.size
        if first >= job.rows:
            return
        rows = min(job.size, job.rows - first)
        if job.item == 1:
            bad = find_bad(<const unsigned char *>job.argmax, first, rows, job.channels, job.taps,
                           job.box)
        else:
            bad = find_bad(<const int *>job.argmax, first, rows, job.channels, job.taps, job.box)
        if bad >= 0:
            job.bad = True


def first_bad(
    const Py_ssize_t[::1] program,     # IN: of y
    Py_ssize_t planes,
    Py_ssize_t channels,
    const index[::1] argmax,           # IN
    int helpers,
):
    """Return the flat place of the first value that is neither none nor a real tap, or -1."""
    cdef const Py_ssize_t *p = &program[0]
    cdef Check job
    cdef Py_ssize_t axis, plane, bad = -1
    for axis in range(3):
        job.taps[axis] = p + p[AXES + axis * AXIS_FIELDS + TAPS_AT]
        job.box[axis] = p[AXES + axis * AXIS_FIELDS + BOX]
    plane = job.taps[0][WINDOWS] * job.taps[1][WINDOWS]
    job.argmax, job.item, job.channels = &argmax[0], sizeof(index), channels
    job.rows = planes * plane
    job.size = parts_of(job.rows, helpers + 1)
    if channels == 1:
        job.size = parts_of(job.size, plane) * plane
    job.bad = False
    alone_at(&job.queue)
    with nogil:
        _crew.run(take_part_in_check, &job, helpers)
        if job.bad:
            bad = find_bad(&argmax[0], 0, job.rows, channels, job.taps, job.box)
    return bad


def let_zeros_take_part(
    const Py_ssize_t[::1] program,     # IN: of y
    Py_ssize_t planes,
    Py_ssize_t channels,
    real[::1] y,                       # INOUT
    index[::1] argmax,                 # INOUT
):
    """Turn the maximum over real taps into one in which taps outside the input are zeros.

    A zero wins over a smaller maximum, and over an equal one at a later position; then the
    result is 0 and nothing gets the gradient. A NaN wins over any zero.
    """
    cdef const Py_ssize_t *p = &program[0]
    cdef const Py_ssize_t *taps[3]
    cdef Py_ssize_t[3] box
    cdef Window[3] at
    cdef Py_ssize_t axis, n, d, h, w, c, zero, cell = 0
    cdef real value
    for axis in range(3):
        taps[axis] = p + p[AXES + axis * AXIS_FIELDS + TAPS_AT]
        box[axis] = p[AXES + axis * AXIS_FIELDS + BOX]
    with nogil:
        for n in range(planes):
            for d in range(taps[0][WINDOWS]):
                at[0] = clip(taps[0], d)
                for h in range(taps[1][WINDOWS]):
                    at[1] = clip(taps[1], h)
                    for w in range(taps[2][WINDOWS]):
                        at[2] = clip(taps[2], w)
                        cell += channels
                        # The position of the first tap, in row-major order, that is a zero.
                        if at[0].first or at[1].first or at[2].first:
                            zero = 0
                        elif at[2].count < box[2]:
                            zero = at[2].count
                        elif at[1].count < box[1]:
                            zero = at[1].count * box[2]
                        elif at[0].count < box[0]:
                            zero = at[0].count * box[1] * box[2]
                        else:
                            continue
                        for c in range(cell - channels, cell):
                            value = y[c]
                            if value < 0 or value == 0 and argmax[c] > zero:
                                y[c] = 0
                                argmax[c] = <index>-1
