# Vectors of the instruction set, and what is done with them.

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
    /* The same address, of which the compiler does not know where it comes from: so it is kept in
       a register, and not worked out anew in each round of a loop from what is on the stack. */
    INLINE const REAL *at_hand(const REAL *x) { __asm__("" : "+r"(x)); return x; }
    INLINE REAL *to_hand(REAL *y) { __asm__("" : "+r"(y)); return y; }
    INLINE vec load(const REAL *x) { return *(const loose_vec *)x; }
    INLINE void store(REAL *y, vec v) { *(loose_vec *)y = v; }
    /* The same at a multiple of its size, past the caches, which would read the line first. */
    INLINE void store_past(REAL *y, vec v) {
    #if AVX512
        _mm512_stream_ps((float *)y, (__m512)v);
    #elif AVX2
        _mm256_stream_ps((float *)y, (__m256)v);
    #elif SSE2
        _mm_stream_ps((float *)y, (__m128)v);
    #else
        store(y, v);
    #endif
    }
    INLINE mask load_bits(const BITS *x) { return *(const loose_mask *)x; }
    INLINE void store_bits(BITS *y, mask v) { *(loose_mask *)y = v; }
    INLINE vec splat(REAL value) { return value - (vec){0}; }  /* 0 + -0 would be 0 */
    INLINE mask splat_bits(BITS value) { return (mask){0} + value; }
    /* What was read too far may be anything, and overflow; it is thrown away. */
    INLINE mask add_bits(mask a, mask b) {
        return (mask)((unsigned_mask)a + (unsigned_mask)b);
    }
    /* Yes or no for each lane: with AVX-512 a bit, else all bits of the lane. */
    #if AVX512
    typedef __mmask16 flags;
    #define COMPARED(v, how, other)                                                      \
        (FLOATS ? (flags)_mm512_cmp_ps_mask((__m512)(v), (__m512)(other), how)            \
                : (flags)_mm512_cmp_pd_mask((__m512d)(v), (__m512d)(other), how))
    INLINE flags every_lane(void) { return (flags)((1 << LANES) - 1); }
    INLINE flags larger(vec v, vec best) { return COMPARED(v, _CMP_GT_OQ, best); }
    /* Larger, or the first NaN. */
    INLINE flags beats(vec v, vec best) {
        return COMPARED(best, _CMP_NGE_UQ, v) & COMPARED(best, _CMP_ORD_Q, best);
    }
    INLINE flags numbers(vec v) { return COMPARED(v, _CMP_ORD_Q, v); }
    INLINE int all_set(flags f) { return f == every_lane(); }
    /* Each of `a` where a flag is set, of `b` where it is not. */
    INLINE mask choose_bits(flags f, mask a, mask b) {
        return FLOATS ? (mask)_mm512_mask_mov_epi32((__m512i)b, f, (__m512i)a)
                      : (mask)_mm512_mask_mov_epi64((__m512i)b, (__mmask8)f, (__m512i)a);
    }
    /* sum + v where a flag is set; a sum that is not -0.0 does not change where none is. */
    INLINE vec add_where(flags f, vec v, vec sum) {
        return FLOATS
            ? (vec)_mm512_mask_add_ps((__m512)sum, f, (__m512)sum, (__m512)v)
            : (vec)_mm512_mask_add_pd((__m512d)sum, (__mmask8)f, (__m512d)sum, (__m512d)v);
    }
    INLINE flags equal_bits(mask a, mask b) {
        return FLOATS ? (flags)_mm512_cmpeq_epi32_mask((__m512i)a, (__m512i)b)
                      : (flags)_mm512_cmpeq_epi64_mask((__m512i)a, (__m512i)b);
    }
    /* A lane for each of so many bytes, or ints. */
    INLINE mask widen_bytes(const unsigned char *x) {
        return FLOATS ? (mask)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)x))
                      : (mask)_mm512_cvtepu8_epi64(_mm_loadl_epi64((const __m128i *)x));
    }
    INLINE mask widen_ints(const int *x) {
        return FLOATS ? (mask)_mm512_loadu_si512(x)
                      : (mask)_mm512_cvtepi32_epi64(_mm256_loadu_si256((const __m256i *)x));
    }
    /* The lanes in another order. */
    INLINE mask permute_bits(mask v, mask order) {
        return FLOATS ? (mask)_mm512_permutexvar_epi32((__m512i)order, (__m512i)v)
                      : (mask)_mm512_permutexvar_epi64((__m512i)order, (__m512i)v);
    }
    /* Which of so many bytes or ints, a lane each, are equal to a number: that of a tap, up to 254
       for bytes, since they say "none" with 255. */
    INLINE flags equal_bytes(const unsigned char *x, Py_ssize_t number) {
        __m128i all = _mm_set1_epi8((char)number);
        return FLOATS
            ? (flags)_mm_cmpeq_epi8_mask(_mm_loadu_si128((const __m128i *)x), all)
            : (flags)_mm_mask_cmpeq_epi8_mask(0xFF, _mm_loadl_epi64((const __m128i *)x), all);
    }
    INLINE flags equal_ints(const int *x, Py_ssize_t number) {
        return FLOATS ? (flags)_mm512_cmpeq_epi32_mask(_mm512_loadu_si512(x),
                                                       _mm512_set1_epi32((int)number))
                      : (flags)_mm256_cmpeq_epi32_mask(_mm256_loadu_si256((const __m256i *)x),
                                                       _mm256_set1_epi32((int)number));
    }
    #else
    typedef mask flags;
    INLINE flags every_lane(void) { return splat_bits(-1); }
    INLINE flags larger(vec v, vec best) { return (flags)(v > best); }
    INLINE flags beats(vec v, vec best) { return ~(flags)(best >= v) & (flags)(best == best); }
    INLINE flags numbers(vec v) { return (flags)(v == v); }
    INLINE int all_set(flags f) {
    #if AVX2
        return _mm256_movemask_epi8((__m256i)f) == -1;
    #elif SSE2
        return _mm_movemask_epi8((__m128i)f) == 0xFFFF;
    #else
        BITS every = -1;
        for (Py_ssize_t i = 0; i < LANES; i++) every &= f[i];
        return every != 0;
    #endif
    }
    INLINE mask choose_bits(flags f, mask a, mask b) {
    #if AVX2
        return (mask)_mm256_blendv_epi8((__m256i)b, (__m256i)a, (__m256i)f);
    #else
        return (f & a) | (~f & b);
    #endif
    }
    INLINE vec add_where(flags f, vec v, vec sum) { return sum + (vec)(f & (mask)v); }
    INLINE flags equal_bits(mask a, mask b) { return (flags)(a == b); }
    INLINE mask widen_bytes(const unsigned char *x) {
        mask v;
    #if AVX2
        int32_t four;
        if (FLOATS) v = (mask)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)x));
        else {
            memcpy(&four, x, 4);
            v = (mask)_mm256_cvtepu8_epi64(_mm_cvtsi32_si128(four));
        }
    #elif SSE2
        int32_t few = 0;
        __m128i wide;
        memcpy(&few, x, LANES);
        wide = _mm_unpacklo_epi8(_mm_cvtsi32_si128(few), _mm_setzero_si128());
        wide = _mm_unpacklo_epi16(wide, _mm_setzero_si128());
        v = (mask)(FLOATS ? wide : _mm_unpacklo_epi32(wide, _mm_setzero_si128()));
    #else
        for (Py_ssize_t i = 0; i < LANES; i++) v[i] = x[i];
    #endif
        return v;
    }
    INLINE mask widen_ints(const int *x) {
        mask v;
        if (sizeof(BITS) == sizeof(int)) v = *(const loose_mask *)x;
        else for (Py_ssize_t i = 0; i < LANES; i++) v[i] = x[i];
        return v;
    }
    INLINE mask permute_bits(mask v, mask order) {
        mask y;
    #if AVX2
        if (FLOATS) return (mask)_mm256_permutevar8x32_epi32((__m256i)v, (__m256i)order);
    #endif
        for (Py_ssize_t i = 0; i < LANES; i++) y[i] = v[order[i] & (LANES - 1)];
        return y;
    }
    INLINE flags equal_bytes(const unsigned char *x, Py_ssize_t number) {
        return equal_bits(widen_bytes(x), splat_bits((BITS)number));
    }
    INLINE flags equal_ints(const int *x, Py_ssize_t number) {
        return equal_bits(widen_ints(x), splat_bits((BITS)number));
    }
    #endif
    INLINE vec permute(vec v, mask order) { return (vec)permute_bits((mask)v, order); }
    INLINE vec choose(flags f, vec a, vec b) { return (vec)choose_bits(f, (mask)a, (mask)b); }
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

    /* Lanes of two vectors, in any order, which counts those of the second behind the first's; and
       the most channels of a cell for which that pays: two cells a vector, at least. */
    #define MOST_PICKED (LANES >= 8 ? LANES / 2 : 0)
    INLINE vec pick(vec a, vec b, mask order) {
        vec y;
    #if AVX512
        y = FLOATS
            ? (vec)_mm512_permutex2var_ps((__m512)a, (__m512i)order, (__m512)b)
            : (vec)_mm512_permutex2var_pd((__m512d)a, (__m512i)order, (__m512d)b);
    #elif AVX2  /* floats */
        y = (vec)_mm256_blendv_ps((__m256)permute(a, order), (__m256)permute(b, order),
                                  (__m256)_mm256_slli_epi32((__m256i)order, 28));
    #else
        for (Py_ssize_t i = 0; i < LANES; i++)
            y[i] = order[i] < LANES ? a[order[i]] : b[order[i] - LANES];
    #endif
        return y;
    }

    /* The taps of LANES windows that lie side by side, 3 or 4 taps each. `windows_in_order` puts in
       order what comes of them, or of `evens` and `odds`. */
    INLINE void sort_taps(int many, const REAL *x, vec *taps) {
        vec a = load(x), b = load(x + LANES), c = load(x + 2 * LANES), d, e;
        if (many == 3) {
            for (int k = 0; k < 3; k++) {
                mask first, second;
                for (Py_ssize_t i = 0; i < LANES; i++) {
                    Py_ssize_t at = 3 * i + k;
                    first[i] = at < 2 * LANES ? at : 0;
                    second[i] = at < 2 * LANES ? i : at - LANES;
                }
                taps[k] = pick(pick(a, b, first), c, second);
            }
            return;
        }
        d = load(x + 3 * LANES);
        e = evens(a, b), a = odds(a, b), b = evens(c, d), c = odds(c, d);
        if (!FLOATS) e = in_order(e), a = in_order(a), b = in_order(b), c = in_order(c);
        taps[0] = evens(e, b), taps[1] = evens(a, c), taps[2] = odds(e, b), taps[3] = odds(a, c);
    }
    INLINE vec windows_in_order(int apart, vec v) {
        if (apart == 3) return v;
        if (apart == 2 || !FLOATS) return in_order(v);
    #if AVX512
        return permute(v, (mask)_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13,
                                                  2, 6, 10, 14, 3, 7, 11, 15));
    #elif AVX2
        return permute(v, (mask)_mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    #else
        return v;
    #endif
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
            const float *p = x + k, *q = p + 4 * gap;
            float *r = y + k * step;
            __asm__("" : "+r"(p), "+r"(q), "+r"(r));  /* as `at_hand` */
            for (int i = 0; i < 4; i++)
                a[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p + i * gap)),
                                            _mm_loadu_ps(q + i * gap), 1);
            b[0] = _mm256_unpacklo_ps(a[0], a[1]), b[1] = _mm256_unpackhi_ps(a[0], a[1]);
            b[2] = _mm256_unpacklo_ps(a[2], a[3]), b[3] = _mm256_unpackhi_ps(a[2], a[3]);
            _mm256_storeu_ps(r, _mm256_shuffle_ps(b[0], b[2], 0x44));
            _mm256_storeu_ps(r + step, _mm256_shuffle_ps(b[0], b[2], 0xEE));
            _mm256_storeu_ps(r + 2 * step, _mm256_shuffle_ps(b[1], b[3], 0x44));
            _mm256_storeu_ps(r + 3 * step, _mm256_shuffle_ps(b[1], b[3], 0xEE));
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

    /* The same of 16 by 16 elements of 4 bytes, or not at all. */
    #if AVX512
    #define WIDE_SIDE(size) ((size) == 4 ? 16 : 0)
    INLINE void turn_wide(const void *from, Py_ssize_t gap, void *to, Py_ssize_t step) {
        const float *x = (const float *)from;
        float *y = (float *)to;
        __m512 a[16], b[16];
        for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_ps(x + i * gap);
        /* Four rows are turned within each quarter of a vector, then the quarters change places. */
        for (int i = 0; i < 16; i += 4) {
            __m512 p = _mm512_unpacklo_ps(a[i], a[i + 1]), q = _mm512_unpackhi_ps(a[i], a[i + 1]);
            __m512 r = _mm512_unpacklo_ps(a[i + 2], a[i + 3]);
            __m512 s = _mm512_unpackhi_ps(a[i + 2], a[i + 3]);
            b[i] = _mm512_shuffle_ps(p, r, 0x44), b[i + 1] = _mm512_shuffle_ps(p, r, 0xEE);
            b[i + 2] = _mm512_shuffle_ps(q, s, 0x44), b[i + 3] = _mm512_shuffle_ps(q, s, 0xEE);
        }
        for (int i = 0; i < 4; i++) {
            __m512 p = _mm512_shuffle_f32x4(b[i], b[i + 4], 0x88);
            __m512 q = _mm512_shuffle_f32x4(b[i], b[i + 4], 0xDD);
            __m512 r = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0x88);
            __m512 s = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0xDD);
            _mm512_storeu_ps(y + i * step, _mm512_shuffle_f32x4(p, r, 0x88));
            _mm512_storeu_ps(y + (i + 4) * step, _mm512_shuffle_f32x4(q, s, 0x88));
            _mm512_storeu_ps(y + (i + 8) * step, _mm512_shuffle_f32x4(p, r, 0xDD));
            _mm512_storeu_ps(y + (i + 12) * step, _mm512_shuffle_f32x4(q, s, 0xDD));
        }
    }
    #else
    #define WIDE_SIDE(size) 0
    INLINE void turn_wide(const void *from, Py_ssize_t gap, void *to, Py_ssize_t step) {
        (void)from, (void)gap, (void)to, (void)step;
    }
    #endif

    INLINE int is_power_of_two(REAL value) {
        BITS pattern;
        memcpy(&pattern, &value, sizeof(value));
        return (pattern & (((BITS)1 << (FLOATS ? 23 : 52)) - 1)) == 0;
    }

    /* Add n elements: every fourth, then these sums, then those that are left. */
    typedef REAL four __attribute__((vector_size(4 * sizeof(REAL)), aligned(sizeof(REAL)),
                                     may_alias));
    INLINE REAL add_up(const REAL *x, Py_ssize_t n) {
        four sums = {-0.0, -0.0, -0.0, -0.0};  /* adding 0 would change -0 */
        REAL sum;
        Py_ssize_t i = 0;
        for (; i + 4 <= n; i += 4) sums += *(const four *)(x + i);
        sum = (sums[0] + sums[2]) + (sums[1] + sums[3]);
        for (; i < n; i++) sum += x[i];
        return sum;
    }
    /* The same four times, of elements and of sums that are so far apart; and divide these. */
    INLINE void add_four_up(
        const REAL *x, Py_ssize_t n, Py_ssize_t gap, REAL divisor, REAL *y, Py_ssize_t step
    ) {
        four sums[4], turned[4], sum;
        Py_ssize_t i = 0;
        for (int k = 0; k < 4; k++) sums[k] = (four){-0.0, -0.0, -0.0, -0.0};
        for (; i + 4 <= n; i += 4)
            for (int k = 0; k < 4; k++) sums[k] += *(const four *)(x + k * gap + i);
        for (int k = 0; k < 4; k++)
            turned[k] = (four){sums[0][k], sums[1][k], sums[2][k], sums[3][k]};
        sum = (turned[0] + turned[2]) + (turned[1] + turned[3]);
        for (; i < n; i++) sum += (four){x[i], x[gap + i], x[2 * gap + i], x[3 * gap + i]};
        sum /= divisor;
        for (int k = 0; k < 4; k++) y[k * step] = sum[k];
    }

    /* Elements that begin a line of the cache, at a multiple of 64 bytes, and wait for the rest. */
    typedef struct {
        REAL *at;
        Py_ssize_t n;
        REAL line[64 / sizeof(REAL)];
    } Pending;
    INLINE void write_line(const REAL *x, REAL *y) {
        for (Py_ssize_t k = 0; k < 64 / (Py_ssize_t)sizeof(REAL); k += LANES)
            store_past(y + k, load(x + k));
    }
    INLINE void write_pending(Pending *pending) {
        for (Py_ssize_t k = 0; k < pending->n; k++) pending->at[k] = pending->line[k];
        pending->n = 0;
    }
    /* Copy to memory that is not needed soon: lines that are written as a whole go past the caches,
       which would read each one before it is written. Where the last write ended in a line, which
       is begun only, and this one goes on from there, that is one line, too: to write it in two
       pieces would take many times as long. */
    INLINE void write_past(const REAL *x, Py_ssize_t n, REAL *y, Pending *pending) {
        const Py_ssize_t line = 64 / sizeof(REAL);
        Py_ssize_t i = 0;
        if (pending->n && pending->at + pending->n == y) {
            while (i < n && pending->n < line) pending->line[pending->n++] = x[i++];
            if (pending->n == line) write_line(pending->line, pending->at), pending->n = 0;
            else return;
        }
        write_pending(pending);
        for (; i < n && (uintptr_t)(y + i) % 64; i++) y[i] = x[i];
        for (; i + line <= n; i += line) write_line(x + i, y + i);
        pending->at = y + i;
        while (i < n) pending->line[pending->n++] = x[i++];
    }
    /* What went past the caches is seen by whoever sees what is written from here on. */
    INLINE void settle(void) {
    #if defined(__SSE2__)
        _mm_sfence();
    #endif
    }

    #define poolgrad_prefetch(p) __builtin_prefetch(p)
    /* What is read before this in the source is read before it by the program, too. */
    #define poolgrad_in_turn() __asm__ volatile("" ::: "memory")
    /* And what is worked out before this is, too: else what it is made of waits in registers. */
    #if AVX512 || AVX2 || SSE2
    #define poolgrad_by_now(v) __asm__ volatile("" : "+v"(*(v)))
    #else
    #define poolgrad_by_now(v) ((void)(v))
    #endif
    #define poolgrad_fetch_add(p, n) __atomic_fetch_add((p), (n), __ATOMIC_RELAXED)
    """
    ctypedef real vec
    ctypedef bits mask
    ctypedef bits flags
    const Py_ssize_t LANES
    const real *at_hand(const real *x) noexcept nogil
    real *to_hand(real *y) noexcept nogil
    vec load(const real *x) noexcept nogil
    void store(real *y, vec v) noexcept nogil
    void store_past(real *y, vec v) noexcept nogil
    mask load_bits(const bits *x) noexcept nogil
    void store_bits(bits *y, mask v) noexcept nogil
    vec splat(real value) noexcept nogil
    mask splat_bits(bits value) noexcept nogil
    mask add_bits(mask a, mask b) noexcept nogil
    flags every_lane() noexcept nogil
    flags larger(vec v, vec best) noexcept nogil
    flags beats(vec v, vec best) noexcept nogil
    flags numbers(vec v) noexcept nogil
    bint all_set(flags f) noexcept nogil
    mask choose_bits(flags f, mask a, mask b) noexcept nogil
    vec choose(flags f, vec a, vec b) noexcept nogil
    vec add_where(flags f, vec v, vec sum) noexcept nogil
    flags equal_bits(mask a, mask b) noexcept nogil
    mask widen_bytes(const unsigned char *x) noexcept nogil
    mask widen_ints(const int *x) noexcept nogil
    mask permute_bits(mask v, mask order) noexcept nogil
    vec permute(vec v, mask order) noexcept nogil
    flags equal_bytes(const unsigned char *x, Py_ssize_t number) noexcept nogil
    flags equal_ints(const int *x, Py_ssize_t number) noexcept nogil
    vec maximum(vec v, vec best) noexcept nogil
    vec evens(vec a, vec b) noexcept nogil
    vec odds(vec a, vec b) noexcept nogil
    vec ends(vec a, vec b) noexcept nogil
    vec in_order(vec v) noexcept nogil
    vec first_in_turn(vec a, vec b) noexcept nogil
    vec second_in_turn(vec a, vec b) noexcept nogil
    const Py_ssize_t MOST_PICKED
    vec pick(vec a, vec b, mask order) noexcept nogil
    void sort_taps(int many, const real *x, vec *taps) noexcept nogil
    vec windows_in_order(int apart, vec v) noexcept nogil
    void narrow_bytes(const bits *x, unsigned char *y) noexcept nogil
    int SIDE(int size) noexcept nogil
    void turn(
        const void *x, Py_ssize_t gap, void *y, Py_ssize_t step, int size, Py_ssize_t columns
    ) noexcept nogil
    int WIDE_SIDE(int size) noexcept nogil
    void turn_wide(const void *x, Py_ssize_t gap, void *y, Py_ssize_t step) noexcept nogil
    bint is_power_of_two(real value) noexcept nogil
    real add_up(const real *x, Py_ssize_t n) noexcept nogil
    void add_four_up(
        const real *x, Py_ssize_t n, Py_ssize_t gap, real divisor, real *y, Py_ssize_t step
    ) noexcept nogil
    ctypedef struct Pending:
        Py_ssize_t n
    void write_pending(Pending *pending) noexcept nogil
    void write_past(const real *x, Py_ssize_t n, real *y, Pending *pending) noexcept nogil
    void settle() noexcept nogil
    void poolgrad_prefetch(const void *p) noexcept nogil
    void poolgrad_in_turn() noexcept nogil
    void poolgrad_by_now(vec *v) noexcept nogil
    Py_ssize_t poolgrad_fetch_add(Py_ssize_t *p, Py_ssize_t n) noexcept nogil

cdef extern from "math.h":
    const float INFINITY
