"""Arrays of numbers out of JSON text and into it, for one instruction set.

Design
------
a) `fill` checks the grammar of an array's text, its shape and its values as it goes over it, once.
   A text that is no JSON is told from one that is ragged, or has values that are no numbers: after
   the first such fault it goes on to check the grammar alone.
b) Numbers are converted by the C++ standard library: `std::from_chars` reads the nearest value of
   the very type, `std::to_chars` writes the shortest digits that read back the same. Before each
   are short ways for the usual numbers, exact where they answer and silent where they could not
   be: see `take_short`, `take` and `shortest`. The tests hold both against the library's answers.
c) With wide vectors there are shorter ways yet, bound as these are by the number of instructions:
   `take_fours` looks at 64 characters at a time, in a bit each, and `convert` finds the digits of
   as many float32 numbers as a vector has lanes of 64 bits.
"""

from libc.string cimport memcpy

import numpy as np

from poolgrad.arrays import empty

__all__ = ["read_into", "write_from"]

cdef extern from "Python.h":
    ctypedef struct PyObject
    PyObject *PyBytes_FromStringAndSize(const char *, Py_ssize_t) except NULL
    char *PyBytes_AS_STRING(PyObject *)
    int _PyBytes_Resize(PyObject **, Py_ssize_t) except -1
    void Py_DECREF(object)

cdef extern from *:
    """
    #if defined(__AVX2__)
    #include <immintrin.h>
    #define WINDOW 64

    /* A bit for each of 64 characters, the first one's lowest: which are such. */
    struct Seen { uint64_t digits, zeros, points, minus, commas, opened, closed, spaces; };
    static inline Seen look(const char *at) {
        /* Of AVX-512, whose comparisons have such bits, it takes as long to fetch them. */
        const __m256i low = _mm256_loadu_si256((const __m256i *)at);
        const __m256i high = _mm256_loadu_si256((const __m256i *)(at + 32));
    #define BITS_OF(low, high) ((uint32_t)_mm256_movemask_epi8(low)                      \
                                | (uint64_t)(uint32_t)_mm256_movemask_epi8(high) << 32)
    #define ARE(c) BITS_OF(_mm256_cmpeq_epi8(low, _mm256_set1_epi8(c)),                  \
                           _mm256_cmpeq_epi8(high, _mm256_set1_epi8(c)))
        const __m256i shift = _mm256_set1_epi8(128 - '9' - 1), least = _mm256_set1_epi8(127 - 10);
        const uint64_t digits = BITS_OF(_mm256_cmpgt_epi8(_mm256_add_epi8(low, shift), least),
                                        _mm256_cmpgt_epi8(_mm256_add_epi8(high, shift), least));
        return Seen{digits, ARE('0'), ARE('.'), ARE('-'), ARE(','), ARE('['), ARE(']'), ARE(' ')};
    }

    static const double POWERS_OF_TEN[16] = {
        1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
    };
    static const double TENTHS[16] = {
        1, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-11, 1e-12, 1e-13,
        1e-14, 1e-15,
    };
    /* Read numbers with a point and of less than 16 characters, four at a time, from the end of the
       number before them on: each behind a comma, or first in a list behind one that is as long as
       it should be. There may be a space behind each comma. Return where the last one ends.

       Numbers of a list before the one that ends here are counted, as are lists that end. */
    template <class T> __attribute__((noinline)) static const char *take_fours(
        const char *stop, const char *end, T *to, ptrdiff_t room, ptrdiff_t *n,
        ptrdiff_t *in_list, ptrdiff_t *lists, ptrdiff_t size
    ) {
        T *const begin = to;
        for (; end - stop > WINDOW + 32 && room >= 4; room -= 4) {
            const Seen seen = look(stop);
            const uint64_t number = seen.digits | seen.points | seen.minus;
            const uint64_t behind = number << 1 | 1;
            uint64_t ends = ~number & number << 1;
            uint64_t fourth = ends & (ends - 1);
            fourth &= fourth - 1;
            fourth &= fourth - 1;
            if (!fourth) break;
            const uint64_t with_end = fourth ^ (fourth - 1), four = with_end >> 1;
            const uint64_t starts = number & ~(number << 1);
            const uint64_t first = starts + (starts & seen.minus);  /* digits */
            uint64_t bad =
                (seen.minus & ~starts) | (first & ~seen.digits)
                | (seen.points & ~(seen.digits << 1)) | (seen.points & ~(seen.digits >> 1))
                | ((first & seen.zeros) << 1 & seen.digits);
            uint64_t others = ~(number | seen.commas);
            ptrdiff_t before = 0, listed = *in_list, ended = 0;
            if (!(others & with_end)) {
                bad |= seen.commas & ~behind;
            } else {
                /* Between two numbers: a comma, that is the end of a list and followed by the next
                   one or neither; what it is followed by is at the place behind it, or a space. */
                const uint64_t turns = seen.commas & seen.closed << 1;
                const uint64_t spaced = seen.spaces & seen.commas << 1;
                const uint64_t next = (seen.commas << 1 & ~seen.spaces) | spaced << 1;
                const uint64_t next_list = (turns << 1 & ~seen.spaces) | (spaced & turns << 1) << 1;
                bad |=
                    (seen.spaces & ~spaced)
                    | (seen.closed & ~behind) | (seen.closed << 1 & ~seen.commas)
                    | (seen.commas & ~(behind | seen.closed << 1))
                    | (seen.opened ^ next_list) | (next & ~next_list & ~number)
                    | (seen.opened << 1 & ~number);
                others &= ~(seen.opened | seen.closed | seen.spaces);
                /* Lists that end here: one has the numbers that end before that, of which the one
                   before this window is the first. */
                uint64_t closed = seen.closed & four;
                while (closed) {
                    const uint64_t so_far = closed ^ (closed - 1);
                    const ptrdiff_t there = __builtin_popcountll((ends | 1) & so_far);
                    if (listed + there - before != size) break;
                    listed = 0, before = there, ended += 1;
                    closed &= closed - 1;
                }
                if (closed) break;
            }
            /* Behind the last one, an exponent may be. */
            if ((bad & four) | (others & with_end)) break;
            uint64_t points = seen.points;
            unsigned wrong = 0, at = 0;
            _Pragma("GCC unroll 4")
            for (int k = 0; k < 4; k++) {
                const unsigned start = (unsigned)__builtin_ctzll(starts >> at) + at;
                at = (unsigned)__builtin_ctzll(ends);
                ends &= ends - 1;
                const unsigned point = (unsigned)__builtin_ctzll(points | 1ULL << 63);
                points &= points - 1;
                const unsigned sign = seen.minus >> start & 1, length = at - start;
                const unsigned fraction = (at - 1 - point) & 15;
                wrong |= (point - start >= length) | (length > 15);
                const uint64_t value =
                    digits_before(stop + at, (length - sign - 1) & 15, fraction);
                /* As `nearest` does it. */
                uint64_t bits;
                double near = (double)(int64_t)value;
                if (sizeof(T) == 4) near *= TENTHS[fraction];
                else near /= POWERS_OF_TEN[fraction];
                memcpy(&bits, &near, 8);
                wrong |= sizeof(T) == 4 && (bits & 0x1FFFFFFF) - 0x0FFFFFFE <= 4;
                bits |= (uint64_t)sign << 63;
                memcpy(&near, &bits, 8);
                to[k] = (T)near;
            }
            if (wrong) break;
            *in_list = listed + 4 - before;
            *lists += ended;
            to += 4;
            stop += at;
        }
        *n = to - begin;
        return stop;
    }

    /* Decimals of so many float32 numbers, as `shortest` finds each: what is before the point, the
       characters of 16 digits behind it, and which of them are of the usual kind. */
    #if defined(__AVX512F__)
    #define WIDE 8
    #define WIDE_OF(name) _mm512_##name
    #define SPLAT(value) (longs)_mm512_set1_epi64((long long)(value))
    #define LOOK_UP(table, k) (longs)_mm512_i64gather_epi64((__m512i)(k), table, 8)
    #define SIGNS(v) _mm512_movepi64_mask((__m512i)(v))
    typedef __m512i wide_bits;
    #else
    #define WIDE 4
    #define WIDE_OF(name) _mm256_##name
    #define SPLAT(value) (longs)_mm256_set1_epi64x((long long)(value))
    #define LOOK_UP(table, k) (longs)_mm256_i64gather_epi64(table, (__m256i)(k), 8)
    #define SIGNS(v) (unsigned)_mm256_movemask_pd((__m256d)(v))
    typedef __m256i wide_bits;
    #endif
    typedef long long longs __attribute__((vector_size(8 * WIDE)));
    typedef uint32_t ints __attribute__((vector_size(4 * WIDE)));
    struct Decimals { uint64_t part[WIDE], first[WIDE], second[WIDE]; unsigned usual; };

    #define TIMES(a, b) (longs)WIDE_OF(mul_epu32)((wide_bits)(a), (wide_bits)(b))
    #define RIGHT(a, n) (longs)WIDE_OF(srlv_epi64)((wide_bits)(a), (wide_bits)(n))
    #define LEFT(a, n) (longs)WIDE_OF(sllv_epi64)((wide_bits)(a), (wide_bits)(n))
    /* As `eight`, in each lane. */
    static inline longs eight_each(longs value) {
        longs fours = TIMES(value, SPLAT(3518437209)) >> 45;  /* value // 10000 */
        fours |= (value - TIMES(fours, SPLAT(10000))) << 32;
        longs hundreds = (longs)WIDE_OF(mullo_epi32)(
            (wide_bits)fours, (wide_bits)SPLAT(0x000028F6000028F6)) >> 20;
        hundreds &= SPLAT(0x0000007F0000007F);
        const longs twos = hundreds + ((fours - (longs)WIDE_OF(mullo_epi32)(
            (wide_bits)hundreds, (wide_bits)SPLAT(0x0000006400000064))) << 16);
        longs tens = (longs)WIDE_OF(mullo_epi16)(
            (wide_bits)twos, (wide_bits)SPLAT(0x0067006700670067)) >> 10;
        tens &= SPLAT(0x000F000F000F000F);
        return SPLAT(ZEROS) + tens + ((twos - (longs)WIDE_OF(mullo_epi16)(
            (wide_bits)tens, (wide_bits)SPLAT(0x000A000A000A000A))) << 8);
    }
    /* Of k digits of a fraction, at most 11 and less than 2**28 in all, the first eight are
       fraction * FACTOR[k] >> SHIFT[k]; the rest, times 10**(16 - k), are the next eight. */
    static const long long FIVE_POWERS[16] = {
        1, 5, 25, 125, 625, 3125, 15625, 78125, 390625, 1953125, 9765625, 48828125,
    };
    static const long long TEN_POWERS[16] = {
        1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000, 1000000000, 10000000000,
        100000000000,
    };
    static const long long FACTOR[16] = {
        100000000, 10000000, 1000000, 100000, 10000, 1000, 100, 10, 1,
        0xCCCCCCCD, 0x51EB851F, 0x10624DD3,
    };
    static const long long SHIFT[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 35, 37, 38};
    static const long long UNIT[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 100, 1000};
    static const long long REST[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 10000000, 1000000, 100000};
    static inline void convert(const float *x, Decimals *to) {
        ints raw;
        memcpy(&raw, x, sizeof raw);
        const longs bits = __builtin_convertvector(raw, longs);
        longs exponent = (bits >> 23 & 0xFF) - 150;
        const longs usual = (exponent > -37) & (exponent < 0) & ((bits & 0x7FFFFF) != 0);
        exponent = (usual & exponent) | (~usual & -23);
        const longs significand = (bits & 0x7FFFFF) | 1 << 23;
        const longs k = (TIMES(-exponent, SPLAT(78913)) >> 18) + 1, shift = 2 - exponent - k;
        const longs five = LOOK_UP(FIVE_POWERS, k);
        const longs ten = LOOK_UP(TEN_POWERS, k);
        const longs reach = 2 * five - (significand & 1), unit = LEFT(SPLAT(1), shift);
        const longs low = TIMES(significand << 2, five), rest = low & (unit - 1);
        longs whole = RIGHT(low, shift);
        const longs last = whole - 10 * (TIMES(whole, SPLAT(0xCCCCCCCD)) >> 35);
        /* Comparisons are -1 where they hold. */
        const longs below = LEFT(last, shift) + rest <= reach;
        const longs above = LEFT(10 - last, shift) - rest <= reach;
        const longs up = (2 * rest > unit) | ((2 * rest == unit) & -(whole & 1));
        const longs is_ten = below | above;
        longs part = RIGHT(significand, -exponent);
        whole = (is_ten & (whole - last + (above & 10))) | (~is_ten & (whole - up));
        whole -= TIMES(part, ten);  /* from 2**32 on a power is times 0 */
        const longs carry = whole == ten;
        part -= carry;
        whole &= ~carry;
        const longs eighth = RIGHT(TIMES(whole, LOOK_UP(FACTOR, k)), LOOK_UP(SHIFT, k));
        const longs first = eight_each(eighth);
        const longs second = eight_each(
            TIMES(whole - TIMES(eighth, LOOK_UP(UNIT, k)), LOOK_UP(REST, k)));
        memcpy(to->part, &part, sizeof part);
        memcpy(to->first, &first, sizeof first);
        memcpy(to->second, &second, sizeof second);
        to->usual = SIGNS(usual);
    }
    /* Write one of them, or return null if it is not of the usual kind. */
    static inline char *put_converted(char *to, const Decimals *from, int i, float value) {
        uint32_t bits;
        memcpy(&bits, &value, 4);
        if (!(from->usual >> i & 1) || from->part[i] > 9) return NULL;
        *to = '-';
        to += bits >> 31;
        to[0] = (char)('0' + from->part[i]);
        to[1] = '.';
        store_8(to + 2, from->first[i]);
        store_8(to + 10, from->second[i]);
        const uint64_t in_second = 0 - (uint64_t)(from->second[i] != ZEROS);
        const int in_first = 10 - (__builtin_clzll((from->first[i] ^ ZEROS) | 1) >> 3);
        const int in_both = 18 - (__builtin_clzll((from->second[i] ^ ZEROS) | 1) >> 3);
        return to + (in_second ? in_both : in_first);
    }
    #else
    #define WINDOW 0
    #define WIDE 0
    struct Decimals { char none; };
    template <class T> static inline const char *take_fours(
        const char *stop, const char *, T *, ptrdiff_t, ptrdiff_t *, ptrdiff_t *, ptrdiff_t *,
        ptrdiff_t
    ) { return stop; }
    static inline void convert(const float *, Decimals *) {}
    static inline char *put_converted(char *, const Decimals *, int, float) { return NULL; }
    #endif
    """
    const int WINDOW
    const int WIDE
    ctypedef struct Decimals:
        pass
    const char *take_fours[T](
        const char *, const char *, T *, Py_ssize_t, Py_ssize_t *, Py_ssize_t *, Py_ssize_t *,
        Py_ssize_t
    ) nogil
    void convert(const float *, Decimals *) nogil
    char *put_converted(char *, const Decimals *, int, float) nogil

cdef enum:
    TURNS = 4  # without `take_fours` where it read nothing, until it is tried again
    MOST_TURNS = 64  # where it reads nothing each time

cdef struct Found:
    # The first fault, its text, and the place of the value or the list among the lists.
    Fault fault
    const char *at
    const char *stop
    Py_ssize_t depth
    Py_ssize_t[DEPTH] place
    # Of a ragged list: the elements, or the depth, that it has; and what is before it.
    Py_ssize_t has, before
    # The shape.
    Py_ssize_t rank
    Py_ssize_t[DEPTH] sizes


cdef inline bint has_exponent(const char *stop) noexcept nogil:
    """Return whether a number goes on where `take_short` has ended, so that it was not read."""
    return (stop[0] | 0x20) == c'e'


cdef inline const char *take_short(const char *start, number *to) noexcept nogil:
    """Read a number of less than 16 characters without exponent; return its end, or null.

    Null is returned for whatever else is there, too. There must be `BEFORE` bytes of text before
    it, and `BEHIND` from it on; whether it `has_exponent` is the caller's to see. Lengths and signs
    are as chance has it, so that nothing depends on them but data: a branch that is not foreseen
    takes as long as all of this.
    """
    cdef Marks found = marks(start)
    cdef unsigned sign = start[0] == c'-'
    cdef unsigned of_number = found.digits | found.points | sign
    cdef Py_ssize_t length = lowest_bit(~of_number), fraction
    cdef unsigned mask = of_number ^ (of_number + 1)  # of its characters and the next one
    cdef unsigned points = found.points & mask
    cdef uint64_t value
    cdef double near
    # A digit first, no zero that leads, at most one point, and a digit behind that.
    if (
        (length > 15)
        | (~found.digits | found.zeros & found.digits >> 1) >> sign & 1
        | points & (points - 1) | points & ~(found.digits >> 1)
    ):
        return NULL
    if number is float or number is double:
        fraction = length - 1 - <Py_ssize_t> lowest_bit(points | mask ^ mask >> 1)
        value = digits_before(start + length, length - sign - (fraction >= 0), fraction)
        near = <double> <int64_t> value
        if number is float:
            near *= SHIFTS[sign][fraction + 1]
        else:
            near /= EXACT_TENS[max(fraction, 0)]
            near = -near if sign else near
        if not nearest(near, to):
            return NULL
    else:
        value = digits_before(start + length, length - sign, -1)
        if points or value > most_of(sign, to):
            return NULL
        to[0] = <number> ((value ^ (0 - <uint64_t> sign)) + sign)
    return start + length


cdef inline bint joins(const char *at, Py_ssize_t gap) noexcept nogil:
    """Return whether a comma is at a place and, in a gap of two, a space behind it."""
    return at[0] == c',' and (gap == 1 or at[1] == c' ')


cdef const char *take_run(
    const char *stop, const char *last, Py_ssize_t gap, number *to, Py_ssize_t room, Py_ssize_t *n,
) noexcept nogil:
    """Read numbers that `take_short` can, each behind a comma; return where the last one ends."""
    cdef const char *before = stop
    cdef const char *following
    cdef Py_ssize_t i = 0
    while joins(stop, gap) and i < room and stop < last:
        following = take_short(stop + gap, &to[i])
        if not following:
            break
        before = stop
        stop = following
        i += 1
    if has_exponent(stop):
        stop = before
        i -= 1
    n[0] = i
    return stop


cdef inline void note(
    Found *found, Fault fault, const Py_ssize_t *place, Py_ssize_t depth, Py_ssize_t has,
    Py_ssize_t before
) noexcept nogil:
    """Keep a fault and its place, if it is the first."""
    cdef Py_ssize_t i
    if found.fault:
        return
    found.fault, found.depth, found.has, found.before = fault, depth, has, before
    for i in range(depth):
        found.place[i] = place[i]


cdef void fill(
    const char *text, const char *at, const char *end, number *to, Py_ssize_t room, bint tokens,
    Found *found,
) noexcept nogil:
    """Read the list of numbers at a place of a text.

    It has an end, so that at least one bracket more is closed than opened in what follows any
    place in it, and is nested at most `DEPTH` deep: `list_end` has seen to both.
    """
    cdef Py_ssize_t depth = 0, rank = 0, i
    cdef Py_ssize_t[DEPTH] counts
    cdef Py_ssize_t n, gap, lists = 0, turns = 0, wait = TURNS
    cdef number value = 0, value_there = 0
    cdef double special = 0
    cdef const char *stop
    cdef const char *following
    cdef Fault fault = NONE
    cdef bint is_list
    found.fault, found.depth = NONE, 0
    found.at = found.stop = at
    for i in range(DEPTH):
        found.sizes[i] = -1
    while True:
        at = space(at, end)
        if at == end:
            found.fault, found.at = BROKEN_LIST, at
            return
        is_list = at[0] == c'['
        stop = at + 1
        fault = NONE
        if is_list:
            if depth == DEPTH:
                found.fault, found.at = BROKEN_LIST, at
                return
            if rank and depth >= rank:
                note(found, UNEVEN, counts, depth, depth + 1, rank)
            counts[depth] = 0
            depth += 1
            at = space(stop, end)
            if at == end or at[0] != c']':
                continue
        else:
            stop = NULL
            if at - text >= BEFORE and end - at >= BEHIND:
                stop = take_short(at, &value)
                if stop and has_exponent(stop):
                    stop = NULL
            if not stop and begins_number(at, end):
                stop = take(at, end, &value, &fault)
            if stop:
                # A shorter way through the numbers that follow, in this list and those after it.
                gap = 1 + (stop[0] == c',' and stop[1] == c' ')  # and so between most of them
                while (
                    not fault and not found.fault and depth == rank
                    and room > 1 and stop - text >= BEFORE and end - stop > BEHIND + 4
                ):
                    if number is float or number is double:
                        if WINDOW and turns == 0 and end - stop > WINDOW + 32:
                            to[0] = value
                            n = 0
                            stop = take_fours(
                                stop, end, to + 1, room - 1, &n, &counts[depth - 1],
                                &counts[depth - 2] if depth > 1 else &lists,
                                found.sizes[depth - 1] if depth > 1 else -1,
                            )
                            value = to[n]
                            to += n
                            room -= n
                            if room <= 1:
                                break
                            if n == 0:
                                turns = wait
                                wait = min(2 * wait, MOST_TURNS)
                            else:
                                wait = TURNS
                        turns -= turns > 0
                    if joins(stop, gap):
                        to[0] = value
                        n = 0
                        stop = take_run(
                            stop, end - BEHIND - 4, gap, to + 1,
                            min(room - 1, TURNS) if WINDOW else room - 1, &n,
                        )
                        value = to[n]
                        if not n:
                            if not begins_number(stop + gap, end):
                                break
                            at = stop + gap
                            stop = take(at, end, &value, &fault)
                            n = 1
                        to += n
                        room -= n
                        counts[depth - 1] += n
                    elif (
                        depth > 1 and stop[0] == c']' and stop[1] == c','
                        and counts[depth - 1] + 1 == found.sizes[depth - 1]
                    ):
                        following = stop + 2 + (stop[2] == c' ')
                        if following[0] != c'[':
                            break
                        following = take_short(following + 1, &value_there)
                        if not following or has_exponent(following):
                            break
                        to[0] = value
                        value = value_there
                        to += 1
                        room -= 1
                        counts[depth - 1] = 0
                        counts[depth - 2] += 1
                        stop = following
                    else:
                        break
            else:
                stop = take_word(at, end, tokens, &special, &fault)
                if number is float or number is double:
                    value = <number> special
                elif not fault:
                    fault = KIND
            if fault >= BARE:
                found.fault, found.at = fault, at if fault == BARE else stop
                found.stop = stop
                return
        # An empty list is as deep as a number in it would be.
        if depth != rank:
            if rank:
                note(found, UNEVEN, counts, depth - is_list, depth, rank)
            rank = depth
        if fault:
            if not found.fault:
                found.at, found.stop = at, stop
            note(found, fault, counts, depth, 0, 0)
        elif not is_list:
            if room > 0:
                to[0] = value
                to += 1
            room -= 1
        if not is_list:
            at = stop
            counts[depth - 1] += 1
        while True:
            at = space(at, end)
            if at == end or at[0] != c']':
                break
            at += 1
            if found.sizes[depth - 1] < 0:
                found.sizes[depth - 1] = counts[depth - 1]
            elif found.sizes[depth - 1] != counts[depth - 1]:
                note(found, RAGGED, counts, depth - 1, counts[depth - 1], found.sizes[depth - 1])
            depth -= 1
            if not depth:
                found.rank = rank
                return
            counts[depth - 1] += 1
        if at == end or at[0] != c',':
            found.fault, found.at = BROKEN_LIST, at
            return
        at += 1


cdef inline uint64_t eight(uint64_t value) noexcept nogil:
    """Return eight digits as characters, the first in the lowest byte."""
    cdef uint64_t fours = value // 10000 | (value % 10000) << 32
    cdef uint64_t hundreds = (fours * 10486) >> 20 & 0x0000007F0000007FULL
    cdef uint64_t twos = ((fours - 100 * hundreds) << 16) + hundreds
    cdef uint64_t tens = (twos * 103) >> 10 & 0x000F000F000F000FULL
    return tens + ((twos - 10 * tens) << 8) + ZEROS


cdef inline char *put_small(char *to, uint64_t value) noexcept nogil:
    """Write a whole number of at most eight digits."""
    cdef uint64_t characters = eight(value)
    cdef int zeros = lowest_bit((characters ^ ZEROS) | 1ULL << 56) >> 3
    store_8(to, characters >> 8 * zeros)
    return to + 8 - zeros


cdef inline int trailing(uint64_t characters) noexcept nogil:
    """Return how many of eight digits are zeros at the end, at most seven."""
    return highest_bit(characters ^ ZEROS | 1) >> 3


cdef inline char *shortest(
    char *to, uint64_t significand, int exponent, floating kind,
) noexcept nogil:
    """Write significand * 2**exponent, which has a fraction and is no power of two, as of its kind.

    Its neighbours are then at the same distance on both sides. Scaled by 10**k, which is chosen so,
    the numbers that read back as it are a whole one or more apart and less than ten: one of them
    is whole, and at most one a multiple of ten, which has fewer digits than the others (Giulietti
    2018). Here all of them are multiples of 2**-shift, so that nothing is rounded.
    """
    cdef int k = (-exponent * 78913 >> 18) + 1  # by the logarithm of 2
    cdef int shift = 2 - exponent - k
    cdef uint64_t reach = 2 * FIVES[k] - (significand & 1)  # an even significand wins ties
    cdef uint64_t unit = 1ULL << shift
    # Of a float32 it has 26 + 26 bits: k is at most 11.
    cdef uint64_t low = 4 * significand * FIVES[k]
    cdef uint64_t whole = (
        low >> shift if floating is float
        else <uint64_t> (<wide> (4 * significand) * FIVES[k] >> shift)
    )
    cdef uint64_t rest = low & (unit - 1), last = whole % 10
    # Nobody could foresee which of these holds, the processor's branch predictor included.
    cdef uint64_t below = (last << shift) + rest <= reach
    cdef uint64_t above = ((10 - last) << shift) - rest <= reach
    cdef uint64_t up = (2 * rest > unit) | (2 * rest == unit) & <bint> (whole & 1)
    cdef uint64_t is_ten = 0 - (below | above)
    cdef uint64_t part = significand >> -exponent, first, second
    whole = whole - last + 10 * above & is_ten | whole + up & ~is_ten
    whole -= part * TENS[k]
    if whole == TENS[k]:
        whole = 0
        part += 1
    if part < 10:  # as a rule
        to[0] = <char> (c'0' + part)
        to += 1
    else:
        to = to_text(to, part)
    to[0] = c'.'
    to += 1
    # The fraction has k digits; zeros at its end are left out, but for the first.
    if k <= 8:
        first = eight(whole * TENS[8 - k])
        store_8(to, first)
        return to + 8 - trailing(first)
    if k > 16:
        first = whole // TENS[16]
        whole -= first * TENS[16]
        store_8(to, eight(first * TENS[24 - k]))
        to += k - 16
        k = 16
    whole *= TENS[16 - k]
    first = eight(whole // 100000000)
    second = eight(whole % 100000000)
    store_8(to, first)
    store_8(to + 8, second)
    if second != ZEROS:
        return to + 16 - trailing(second)
    if first != ZEROS:
        return to + 8 - trailing(first)
    while (to - 1)[0] == c'0':
        to -= 1
    return to + ((to - 1)[0] == c'.')


cdef char *put_unusual(char *to, floating value) noexcept nogil:
    """Write a float that `shortest` cannot."""
    cdef char *stop
    cdef uint64_t bits = 0
    if value != value:
        memcpy(to, b'"NaN"', 5)
        return to + 5
    if value - value != 0:
        memcpy(to, b'"-Infinity"', 11)
        if value > 0:
            memcpy(to, b'"Infinity"', 10)
        return to + (10 if value > 0 else 11)
    memcpy(&bits, &value, sizeof(floating))
    if bits >> (8 * sizeof(floating) - 1):
        to[0] = c'-'
        to += 1
        value = -value
    if value == 0:
        memcpy(to, b"0.0", 3)
        return to + 3
    if floating is float and bits & 0x7FFFFFFF == 0x15AE43FD:  # 7.038531e-26
        # The one magnitude of all 2**31 whose shortest text reads back as its neighbour where a
        # reader goes through a double, as Python's and JavaScript's do.
        memcpy(to, b"7.0385307e-26", 13)
        return to + 13
    stop = to_text(to, value)
    while to < stop and is_digit(to[0]):
        to += 1
    if to == stop:
        memcpy(stop, b".0", 2)
        stop += 2
    return stop


cdef inline char *put(char *to, number value) noexcept nogil:
    """Write a number and return where its text ends; what is behind is overwritten."""
    cdef uint64_t bits = 0
    cdef int sign, exponent
    if number is float or number is double:
        memcpy(&bits, &value, sizeof(number))
        sign = bits >> (8 * sizeof(number) - 1)
        # Above, there may be no fraction; below, a text with an exponent may be shorter.
        if number is float:
            exponent = <int> (bits >> 23 & 0xFF) - 150
            bits &= 0x7FFFFF
            if -37 < exponent < 0 and bits:
                to[0] = c'-'
                return shortest(to + sign, bits | 1 << 23, exponent, value)
        else:
            exponent = <int> (bits >> 52 & 0x7FF) - 1075
            bits &= 0xFFFFFFFFFFFFFULL
            if -64 < exponent < 0 and bits:
                to[0] = c'-'
                return shortest(to + sign, bits | 1ULL << 52, exponent, value)
        return put_unusual(to, value)
    else:
        to[0] = c'-'
        to += value < 0
        bits = 0 - <uint64_t> value if value < 0 else <uint64_t> value
        return put_small(to, bits) if bits < 100000000 else to_text(to, bits)


cdef char *put_lists(
    char *to, const number *at, const Py_ssize_t *shape, Py_ssize_t rank,
) noexcept nogil:
    """Write an array of at least one axis as nested lists, of which only the last may be empty."""
    cdef Py_ssize_t[64] done
    cdef Py_ssize_t axis, i, _, left = 1
    cdef Decimals decimals
    cdef int ready = 0  # of them
    cdef char *stop
    for axis in range(rank):
        done[axis] = 0
        left *= shape[axis]
        to[0] = c'['
        to += 1
    while True:
        for i in range(shape[rank - 1]):
            if number is float:
                stop = NULL
                if WIDE and ready == 0 and left >= WIDE:
                    convert(at + i, &decimals)
                    ready = WIDE
                left -= 1
                if ready > 0:
                    stop = put_converted(to, &decimals, WIDE - ready, at[i])
                    ready -= 1
                to = stop if stop else put(to, at[i])
            else:
                to = put(to, at[i])
            to[0] = c','
            to += 1
        at += shape[rank - 1]
        to -= shape[rank - 1] > 0  # the last comma
        axis = rank - 1
        while True:
            to[0] = c']'
            to += 1
            if not axis:
                return to
            axis -= 1
            done[axis] += 1
            if done[axis] < shape[axis]:
                break
            done[axis] = 0
        to[0] = c','
        to += 1
        for _ in range(axis + 1, rank):
            to[0] = c'['
            to += 1


BYTE = np.dtype(np.uint8)


def write_from(const number[::1] array, tuple shape, Py_ssize_t bound):
    """Return the text of a flat array that has a shape, whose length has a bound."""
    cdef Py_ssize_t[64] sizes
    cdef Py_ssize_t rank = len(shape), i
    cdef const number *at = &array[0] if array.shape[0] else NULL
    cdef PyObject *text
    cdef unsigned char[::1] room
    cdef char *to
    cdef char *stop
    for i in range(rank):
        sizes[i] = shape[i]
    if bound >= LONG_TEXT:
        found = empty(bound, BYTE)
        room = found
        to = <char *> &room[0]
        with nogil:
            stop = put_lists(to, at, sizes, rank)
        return found.data[:stop - to]
    text = PyBytes_FromStringAndSize(NULL, bound)
    to = PyBytes_AS_STRING(text)
    with nogil:
        stop = put_lists(to, at, sizes, rank) if rank else put(to, at[0])
    _PyBytes_Resize(&text, stop - to)
    found = <object> text
    Py_DECREF(found)
    return found


def read_into(
    number[::1] to, const unsigned char[::1] text, Py_ssize_t start, Py_ssize_t end, bint tokens
):
    """Read the list at a place of a text into a flat array.

    Return its shape and None, or None and what is wrong: which fault, where in the text its value
    begins and ends, its place among the lists, and what these have, and have before it.
    """
    cdef Found found
    cdef const char *at = <const char *> &text[0]
    with nogil:
        fill(at, at + start, at + end, &to[0], to.shape[0], tokens, &found)
    if found.fault:
        place = [found.place[i] for i in range(found.depth)]
        return None, (
            found.fault, found.at - at, found.stop - at, place, found.has, found.before
        )
    return tuple([found.sizes[i] for i in range(found.rank)]), None
