# Python objects are indexed here, from their ends, too.
# cython: wraparound=True
"""JSON text to arrays of numbers and back, without the interpreter's lock.

    scan(text, spans, *, max_depth) -> dict
        Read a JSON object. Its members are Python objects, but lists and strings under one of the
        names in `spans`, at any depth, are each left unread, as a `Span`.
    Span.read(name, dtype, *, tokens=False) -> ndarray
        Read a list of numbers, however nested, in one pass and straight into the dtype.
    write(array) -> bytes or memoryview
        Write an array as nested lists.

What is refused raises a `Problem`: 400 if the text is no JSON, else 422, with a JSON Pointer.

Design
------
a) A body is an envelope, a few hundred bytes that become Python objects, around a few arrays that
   must not. `scan` bounds the former, and of the latter finds where they end, how deep they are,
   and how many commas they have, at the speed of memory. So an array may come before the member
   that tells its dtype, and too many numbers can be refused before anything is allocated.
b) `fill` checks the grammar of an array's text, its shape and its values as it goes over it, once.
   A text that is no JSON is told from one that is ragged, or has values that are no numbers: after
   the first such fault it goes on to check the grammar alone.
c) Numbers are converted by the C++ standard library: `std::from_chars` reads the nearest value of
   the very type, `std::to_chars` writes the shortest digits that read back the same. Before each
   are short ways for the usual numbers, exact where they answer and silent where they could not
   be: see `take_short`, `take` and `shortest`. The tests hold both against the library's answers.
d) The numbers of a list are its commas and one, unless there are lists without elements, which
   need no more room. So the array is allocated once.
"""

from libc.stdint cimport (
    int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t,
)
from libc.string cimport memchr, memcmp, memcpy

import json
import math

import numpy as np

from poolgrad.arrays import empty
from poolgrad.errors import show
from poolgrad_service.errors import over_limit, refused, unreadable

__all__ = ["ENVELOPE", "LONGEST", "Span", "escape", "scan", "write"]

cdef extern from "Python.h":
    ctypedef struct PyObject
    PyObject *PyBytes_FromStringAndSize(const char *, Py_ssize_t) except NULL
    char *PyBytes_AS_STRING(PyObject *)
    int _PyBytes_Resize(PyObject **, Py_ssize_t) except -1
    void Py_DECREF(object)
    str PyUnicode_DecodeLatin1(const char *, Py_ssize_t, const char *)
    str PyUnicode_DecodeUTF8(const char *, Py_ssize_t, const char *)

cdef extern from *:
    """
    #include <charconv>
    #include <system_error>

    /* Whether a number could be read; the grammar of its text has been checked. */
    template <class T> static inline bool from_text(const char *at, const char *end, T *to) {
        return std::from_chars(at, end, *to).ec == std::errc();
    }
    template <class T> static inline char *to_text(char *to, T value) {
        return std::to_chars(to, to + 32, value).ptr;
    }
    /* Eight characters 0. */
    #define ZEROS 0x3030303030303030ULL
    /* Eight characters as a number whose lowest byte is the first one. */
    static inline uint64_t load_8(const char *at) {
        uint64_t word;
        memcpy(&word, at, 8);
        return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? word : __builtin_bswap64(word);
    }
    static inline void store_8(char *to, uint64_t word) {
        if (__BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__) word = __builtin_bswap64(word);
        memcpy(to, &word, 8);
    }
    typedef unsigned __int128 wide;

    typedef uint8_t characters __attribute__((vector_size(16)));
    /* A bit for each of sixteen comparisons, the first one's lowest. */
    static inline unsigned each(characters equal) {
    #if defined(__SSE2__)
        typedef char vector __attribute__((vector_size(16)));
        return __builtin_ia32_pmovmskb128((vector)equal);
    #else
        char bytes[16];
        memcpy(bytes, &equal, 16);
        const uint64_t ones = 0x0101010101010101, gather = 0x0102040810204080;
        uint64_t first = load_8(bytes) & ones, second = load_8(bytes + 8) & ones;
        return first * gather >> 56 | second * gather >> 56 << 8;
    #endif
    }
    static inline characters load_characters(const char *at) {
        characters block;
        memcpy(&block, at, 16);
        return block;
    }
    /* Where sixteen characters are digits, which of these are zeros, and where points are. */
    struct Marks { unsigned digits, zeros, points; };
    static inline Marks marks(const char *at) {
        typedef signed char numbers __attribute__((vector_size(16)));
        characters block = load_characters(at);
        return Marks{
            each((characters)((numbers)(block + (128 - '9' - 1)) > 127 - 10)),
            each((characters)(block == '0')),
            each((characters)(block == '.')),
        };
    }
    /* The value of eight digits, each less '0', the first in the lowest byte. */
    static inline uint64_t eight_value(uint64_t chunk) {
        /* Pairs of digits, then of pairs, then of those. */
        chunk = chunk * 10 + (chunk >> 8);
        return ((chunk & 0x000000FF000000FF) * 0x000F424000000064
                + (chunk >> 16 & 0x000000FF000000FF) * 0x0000271000000001) >> 32;
    }
    /* The value of n digits that end at a place, of which `fraction` are behind a point, or -1 if
       there is none. Seventeen bytes before the place are read. */
    static inline uint64_t digits_before(const char *stop, ptrdiff_t n, ptrdiff_t fraction) {
        static const unsigned char none_then_all[32] = {
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
        };
        const char *none = (const char *)none_then_all;
        /* As if the point were not there: what is before it is a byte further on. */
        characters behind = load_characters(stop - 16), before = load_characters(stop - 17);
        characters is_behind = load_characters(none + (fraction < 0 ? 16 : fraction));
        characters digits = ((behind ^ before) & is_behind) ^ before;
        digits = (digits ^ '0') & load_characters(none + n);
    #if defined(__SSE2__)
        /* Pairs: of a + 256 b, (2561 a + 2561 * 256 b) mod 65536 = 256 (10 a + b) + a. */
        typedef uint16_t shorts __attribute__((vector_size(16)));
        typedef short pairs __attribute__((vector_size(16)));
        typedef int fours __attribute__((vector_size(16)));
        typedef long long eights __attribute__((vector_size(16)));
        const pairs hundreds = {100, 1, 100, 1, 100, 1, 100, 1};
        const pairs myriads = {10000, 1, 10000, 1, 10000, 1, 10000, 1};
        shorts factor = {2561, 2561, 2561, 2561, 2561, 2561, 2561, 2561};
        __asm__("" : "+x"(factor));  /* or the compiler would shift and add for it */
        pairs two = (pairs)((shorts)digits * factor >> 8);
        fours four = __builtin_ia32_pmaddwd128(two, hundreds);
        eights eight = (eights)__builtin_ia32_pmaddwd128(
            __builtin_ia32_packssdw128(four, four), myriads);
        uint64_t both = eight[0];
        return (both & 0xFFFFFFFF) * 100000000 + (both >> 32);
    #else
        char bytes[16];
        memcpy(bytes, &digits, 16);
        return eight_value(load_8(bytes)) * 100000000 + eight_value(load_8(bytes + 8));
    #endif
    }

    /* How often characters are in a block of at most 15 times 16. */
    struct Tally { int opened, closed, commas, others; };
    static inline int total(characters n) {
        uint64_t halves[2];
        memcpy(halves, &n, 16);
        return (int)((halves[0] + halves[1]) * 0x0101010101010101 >> 56);
    }
    static inline Tally tally(const char *at, int size) {
        characters opened = {0}, closed = {0}, commas = {0}, others = {0}, block;
        for (int i = 0; i < size; i += 16) {
            memcpy(&block, at + i, 16);
            /* Where they are equal, all bits are set, as in -1. */
            opened -= (characters)(block == '[');
            closed -= (characters)(block == ']');
            commas -= (characters)(block == ',');
            others -= (characters)(block == '"') | (characters)(block == '{');
        }
        return Tally{total(opened), total(closed), total(commas), total(others)};
    }
    """
    bint from_text[T](const char *, const char *, T *) nogil
    char *to_text[T](char *, T) nogil
    uint64_t ZEROS
    uint64_t load_8(const char *) nogil
    void store_8(char *, uint64_t) nogil
    unsigned lowest_bit "(unsigned)__builtin_ctzll"(uint64_t) nogil
    int highest_bit "__builtin_clzll"(uint64_t) nogil  # from the top
    ctypedef unsigned long long wide
    ctypedef struct Marks:
        unsigned digits, zeros, points
    Marks marks(const char *) nogil
    uint64_t eight_value(uint64_t) nogil
    uint64_t digits_before(const char *, Py_ssize_t, Py_ssize_t) nogil
    ctypedef struct Tally:
        int opened, closed, commas, others
    Tally tally(const char *, int) nogil
    double INFINITY
    double NAN

ctypedef fused floating:
    float
    double

ctypedef fused integer:
    int8_t
    int16_t
    int32_t
    int64_t
    uint8_t
    uint16_t
    uint32_t
    uint64_t

ctypedef fused number:
    floating
    integer

cdef enum:
    DEPTH = 32  # the axes that an array may have in every NumPy
    _ENVELOPE = 16 * 1024
    _LONGEST = 8 * 1024
    DIGITS = 1000  # characters that a number of the envelope may have
    LONG_TEXT = 2 << 20  # from which on `empty` has memory that is used again
    SLACK = 32  # bytes that `put` may write behind a text, and more
    BEFORE = 17  # bytes that `take_short` may read, before a number
    BEHIND = 17  # and from its first one on

#: Bytes that the text outside of spans may have.
ENVELOPE = _ENVELOPE

#: Characters that one number may have. The longest exact float64 takes 1078.
LONGEST = _LONGEST

cdef double[23] EXACT_TENS  # powers of ten, exact as doubles up to 10**22
cdef double[2][16] SHIFTS  # nearest to 10**-fraction and its negative, from a fraction of -1 on
cdef uint64_t[28] FIVES  # and of five, exact as integers up to 5**27
cdef uint64_t[20] TENS
cdef object power
for power in range(23):
    EXACT_TENS[power] = float(10 ** power)
for power in range(16):
    SHIFTS[0][power] = 1 / 10 ** max(power - 1, 0)
    SHIFTS[1][power] = -SHIFTS[0][power]
for power in range(28):
    FIVES[power] = 5 ** power
for power in range(20):
    TENS[power] = 10 ** power

cdef enum Fault:
    NONE
    RAGGED
    UNEVEN  # ragged too, in depth
    RANGE  # a number that the dtype does not reach
    KIND  # a value that is no number, or of integers, no integer
    LONG
    # From here on the text is no JSON.
    BARE  # NaN and the infinities without quotes
    BROKEN_VALUE
    BROKEN_NUMBER
    BROKEN_STRING
    BROKEN_LIST

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


# ------------------------------------------------------------------------------------- tokens


cdef inline const char *space(const char *at, const char *end) noexcept nogil:
    """Return where the space at a place ends."""
    while at < end and <unsigned char> at[0] <= c' ' and (
        at[0] == c' ' or at[0] == c'\n' or at[0] == c'\r' or at[0] == c'\t'
    ):
        at += 1
    return at


cdef inline bint is_digit(char c) noexcept nogil:
    return <unsigned char> (c - c'0') < 10


cdef inline bint begins_number(const char *at, const char *end) noexcept nogil:
    """Return whether a number is at a place, unless it is broken; -Infinity is none."""
    return is_digit(at[0]) or at[0] == c'-' and end - at > 1 and at[1] != c'I'


cdef inline uint64_t eight_digits(const char *at, uint64_t *n) noexcept nogil:
    """Return the value of the digits that eight characters begin with, and their number."""
    cdef uint64_t chunk = load_8(at) ^ ZEROS  # digits are below 10
    cdef uint64_t others = ((chunk + 0x7676767676767676ULL) | chunk) & 0x8080808080808080ULL
    n[0] = lowest_bit(others) >> 3 if others else 8
    # The first is in the lowest byte: it is as if zeros came first. No shift is by 64.
    chunk <<= 32 - 4 * n[0]
    chunk <<= 32 - 4 * n[0]
    return eight_value(chunk)


cdef inline const char *digits(const char *at, const char *end, uint64_t *value) noexcept nogil:
    """Read digits and return their end; the value is theirs modulo 2**64."""
    cdef uint64_t first, n
    while end - at >= 8:
        first = eight_digits(at, &n)
        value[0] = value[0] * TENS[n] + first
        at += n
        if n < 8:
            return at
    while at < end and is_digit(at[0]):
        value[0] = value[0] * 10 + <uint64_t> (at[0] - c'0')
        at += 1
    return at


cdef inline bint vanishes(const char *at, const char *end, int64_t exponent) noexcept nogil:
    """Return whether a number that no float can hold, of this exponent, is too small."""
    cdef int64_t leading = -1  # the exponent of the first digit that is not 0
    cdef const char *first
    at += at[0] == c'-'
    first = at
    while at < end and is_digit(at[0]):
        at += 1
    if first[0] != c'0':
        leading = at - first - 1
    else:
        at += 1  # the point
        while at < end and at[0] == c'0':
            at += 1
            leading -= 1
    return leading + exponent < 0


cdef inline bint nearest(double near, floating *to) noexcept nogil:
    """Write the nearest number of a text from a double that is near it, and return if that tells.

    For a double it must be the nearest one. The nearest float32 is that of any double two units
    away, too, unless half-way between two of them is as near: the text may be on either side.
    It is never subnormal, nor an overflow.
    """
    cdef uint64_t bits
    memcpy(&bits, &near, 8)
    to[0] = <floating> near
    return floating is double or (bits & 0x1FFFFFFF) - 0x0FFFFFFE > 4


cdef inline uint64_t most_of(bint negative, integer *to) noexcept nogil:
    """Return the largest magnitude of an integer of this sign."""
    cdef uint64_t most = ~0ULL >> (64 - 8 * sizeof(integer))
    if <integer> -1 < 0:
        return (most >> 1) + negative
    return 0 if negative else most


cdef const char *take(
    const char *start, const char *end, number *to, Fault *fault,
) noexcept nogil:
    """Read a number and return the end of its text, or where it is broken."""
    cdef const char *at = start
    cdef const char *mark
    cdef uint64_t value = 0
    cdef int64_t exponent = 0, fraction = 0
    cdef Py_ssize_t n_digits
    cdef bint negative = at[0] == c'-', negative_exponent, whole = True
    cdef double near
    at += negative
    fault[0] = BROKEN_NUMBER
    if at == end or not is_digit(at[0]):
        return at
    mark = at
    value = <uint64_t> (at[0] - c'0')
    at += 1
    if at < end and is_digit(at[0]):
        if not value:
            return at  # a zero leads
        at = digits(at, end, &value)
    n_digits = at - mark
    if at < end and at[0] == c'.':
        whole = False
        at += 1
        mark = at
        at = digits(at, end, &value)
        fraction = at - mark
        if not fraction:
            return at
        n_digits += fraction
    if at < end and (at[0] | 0x20) == c'e':
        whole = False
        at += 1
        negative_exponent = at < end and at[0] == c'-'
        at += at < end and (at[0] == c'-' or at[0] == c'+')
        if at == end or not is_digit(at[0]):
            return at
        while at < end and is_digit(at[0]):
            if exponent < 1000000:  # far beyond what digits could make up for
                exponent = exponent * 10 + (at[0] - c'0')
            at += 1
        if negative_exponent:
            exponent = -exponent
    if at - start > _LONGEST:
        fault[0] = LONG
        return at
    fault[0] = NONE
    if number is float or number is double:
        # With a significand and a power of ten that doubles hold exactly, one operation gives the
        # nearest double (Clinger 1990).
        exponent -= fraction
        if n_digits <= 19 and value <= 1ULL << 53 and -22 <= exponent <= 22:
            near = <double> <int64_t> value
            if exponent < 0:
                near /= EXACT_TENS[-exponent]
            else:
                near *= EXACT_TENS[exponent]
            if nearest(-near if negative else near, to):
                return at
        if not from_text(start, at, to):
            to[0] = -0.0 if negative else 0.0
            if not vanishes(start, at, exponent + fraction):
                fault[0] = RANGE
    else:
        if not whole:
            fault[0] = KIND
            return at
        if (
            n_digits > 19 and not from_text(start + negative, at, &value)
            or value > most_of(negative, to)
        ):
            fault[0] = RANGE
        to[0] = <number> ((value ^ (0 - <uint64_t> negative)) + negative)
    return at


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


cdef const char *string_end(
    const char *at, const char *end, bint *is_plain,
) noexcept nogil:
    """Return the end of a string, or null if it has none; plain ones are their own bytes."""
    is_plain[0] = True
    at += 1
    while at < end:
        if at[0] == c'"':
            return at + 1
        if at[0] == c'\\':
            is_plain[0] = False
            at += 1
        elif <unsigned char> at[0] < 0x20:
            is_plain[0] = False
        at += 1
    return NULL


cdef inline bint begins(const char *at, const char *end, const char *word, int size) noexcept nogil:
    return end - at >= size and memcmp(at, word, size) == 0


cdef inline const char *name(const char *at, const char *end, double *to) noexcept nogil:
    """Return the end of the name of a number that is not finite, or null."""
    cdef bint negative
    if begins(at, end, "NaN", 3):
        to[0] = NAN
        return at + 3
    negative = at < end and at[0] == c'-'
    at += negative
    if begins(at, end, "Infinity", 8):
        to[0] = -INFINITY if negative else INFINITY
        return at + 8
    return NULL


cdef const char *take_word(
    const char *at, const char *end, bint tokens, double *to, Fault *fault,
) noexcept nogil:
    """Read a value of a list that is neither number nor list, as `take` does."""
    cdef const char *stop
    cdef bint is_plain
    if at[0] == c'"':
        fault[0] = NONE
        stop = name(at + 1, end, to)
        if stop and stop < end and stop[0] == c'"':
            return stop + 1
        fault[0] = BROKEN_STRING
        stop = string_end(at, end, &is_plain)
        if not stop:
            return at
        fault[0] = KIND
        return stop
    stop = name(at, end, to)
    if stop:
        fault[0] = NONE if tokens else BARE
        return stop
    fault[0] = KIND
    if begins(at, end, "true", 4) or begins(at, end, "null", 4):
        return at + 4
    if begins(at, end, "false", 5):
        return at + 5
    fault[0] = BROKEN_VALUE
    return at


# -------------------------------------------------------------------------------------- arrays


cdef inline bint passes(
    const char *at, int size, Py_ssize_t most, Py_ssize_t *depth, Py_ssize_t *commas,
) noexcept nogil:
    """Count brackets and commas, unless a list might end there, or there is something else."""
    cdef Tally n = tally(at, size)
    if n.others or depth[0] <= n.closed or depth[0] + n.opened > most:
        return False
    depth[0] += n.opened - n.closed
    commas[0] += n.commas
    return True


cdef const char *list_end(
    const char *at, const char *end, Py_ssize_t most, Py_ssize_t *commas,
) noexcept nogil:
    """Return the end of a list in which no more than so many lists lie within each other.

    If it is nested more deeply or has an object, commas is left as it is, and that is where it
    ends. If it has no end, null is returned.
    """
    cdef Py_ssize_t depth = 0, n_commas = 0
    cdef bint is_plain
    cdef const char *stop
    cdef const char *small = at  # where larger blocks are tried again
    while at < end:
        if at >= small and end - at > 64:
            if passes(at, 64, most, &depth, &n_commas):
                at += 64
                continue
            small = at + 64
        if end - at > 16 and passes(at, 16, most, &depth, &n_commas):
            at += 16
            continue
        stop = min(end, at + 16)
        while at < stop:
            if at[0] == c'[':
                if depth == most:
                    return at
                depth += 1
            elif at[0] == c']':
                depth -= 1
                if not depth:
                    commas[0] = n_commas
                    return at + 1
            elif at[0] == c',':
                n_commas += 1
            elif at[0] == c'{':
                return at
            elif at[0] == c'"':
                at = string_end(at, end, &is_plain)
                if not at:
                    return NULL
                continue
            at += 1
    return NULL


cdef const char *long_string_end(
    const char *at, const char *end, bint *has_escapes,
) noexcept nogil:
    """Return the end of a string, however long, or null if it has none."""
    cdef const char *quote = at
    cdef const char *before
    while True:
        quote = <const char *> memchr(quote + 1, c'"', end - quote - 1)
        if not quote:
            return NULL
        has_escapes[0] = memchr(at, c'\\', quote - at) != NULL
        before = quote
        while before[-1] == c'\\':
            before -= 1
        if not (quote - before) & 1:
            return quote + 1


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
    cdef Py_ssize_t n, gap
    cdef number value = 0, value_there = 0
    cdef double special = 0
    cdef const char *stop
    cdef const char *following
    cdef Fault fault = NONE
    cdef bint is_list
    found.fault, found.depth = NONE, 0
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
                    if joins(stop, gap):
                        to[0] = value
                        n = 0
                        stop = take_run(stop, end - BEHIND - 4, gap, to + 1, room - 1, &n)
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


cdef class Span:
    """A list or a string that a text has, found but not read.

    Attributes
    ----------
    pointer : str
        Its JSON Pointer.
    is_string : bool
        Whether it is a string; else it is a list.
    has_escapes : bool
        Whether it is a string with a backslash.
    start, end : int
        Where it begins and ends in the text, brackets or quotes included.
    count : int
        Numbers that it has at most; exactly as many if it has no empty lists.
    """

    cdef const unsigned char[::1] text
    cdef readonly str pointer
    cdef readonly bint is_string, has_escapes
    cdef readonly Py_ssize_t start, end, count

    def __repr__(self):
        return '"..."' if self.is_string else "[...]"

    @property
    def raw(self):
        """The bytes between its brackets or quotes."""
        return memoryview(self.text)[self.start + 1:self.end - 1]

    def read(self, str name, dtype, *, bint tokens=False):
        """Read a list of numbers.

        Parameters
        ----------
        name : str
            What messages call it.
        dtype : dtype-like
            float32, float64, or an integer one.
        tokens : bool
            Whether NaN and the infinities may come without quotes, which is no JSON.

        Returns
        -------
        ndarray
            The array, without elements if a list has none.

        Raises
        ------
        Problem
            400 if the list is no JSON; 422 if it is ragged, or has a value that is no number, or
            that the dtype does not reach.
        """
        dtype = np.dtype(dtype)
        reader, _, _ = kind_of(dtype, "dtype")
        if self.is_string:
            raise refused(self.pointer, f"{name}: a list of numbers is needed")
        array = empty(self.count, dtype)
        shape = reader(array, self, tokens, name)
        return array[:math.prod(shape)].reshape(shape)

    cdef object problem(self, str name, object dtype, Found *found):
        """Return the problem of a fault."""
        cdef const char *start = <const char *> &self.text[0]
        place = [found.place[i] for i in range(found.depth)]
        pointer = "/".join([self.pointer, *map(str, place)])
        there = name + "".join(f"[{i}]" for i in place)
        if found.fault == RAGGED:
            return refused(
                pointer,
                f"{name}: ragged: {there} has length {found.has}, and a list before it "
                f"{found.before}",
            )
        if found.fault == UNEVEN:
            more = "more" if found.has > found.before else "less"
            return refused(
                pointer, f"{name}: ragged: {there} is nested {more} deeply than what is before it"
            )
        at = found.at - start
        if found.fault > BARE:
            return broken(self.text, at, WANTED[found.fault])
        length = found.stop - found.at
        text = bytes(self.text[at:at + min(length, 100)]).decode(errors="replace")
        if found.fault == BARE:
            return bare(text)
        if length > 40:
            text = f"{text[:30]}... ({length} characters)"
        if found.fault == LONG:
            return refused(pointer, f"{name}: {text} is longer than {LONGEST} characters")
        if found.fault == RANGE:
            return refused(pointer, f"{name}: {text} is out of the range of {dtype}")
        if text[0] == '"':
            shown = show(text.strip('"'))
            text = f"the string {shown}"
        if dtype.kind != "f":
            return refused(pointer, f"{name}: {text} is no integer")
        names = '; of strings, only "NaN", "Infinity" and "-Infinity" are' if '"' in text else ""
        return refused(pointer, f"{name}: {text} is no number{names}")


def read_into(number[::1] to, Span span, bint tokens, str name):
    """Read a span's list into a flat array, and return its shape."""
    cdef Found found
    cdef const char *text = <const char *> &span.text[0]
    with nogil:
        fill(text, text + span.start, text + span.end, &to[0], to.shape[0], tokens, &found)
    if found.fault:
        raise span.problem(name, np.asarray(to).dtype, &found)
    return tuple([found.sizes[i] for i in range(found.rank)])


WANTED = {
    BROKEN_VALUE: "a value",
    BROKEN_NUMBER: "a digit of a number",
    BROKEN_STRING: "a string with an end",
    BROKEN_LIST: "a comma or a closing bracket",
}


def broken(const unsigned char[::1] text, Py_ssize_t at, wanted):
    """Return the problem of a text that is no JSON at a place."""
    if at >= text.shape[0]:
        return unreadable(f"the body ends where {wanted} is needed")
    found = bytes(text[at:at + 4]).decode(errors="replace")[0]
    if found == "\N{REPLACEMENT CHARACTER}":
        return unreadable(f"the body is not UTF-8: byte {at}")
    return unreadable(f"{wanted} is needed at byte {at}, where {show(found)} is")


def bare(text):
    """Return the problem of a number that is not finite and has no quotes."""
    return unreadable(f'{text} is not JSON; write the string "{text}"')


# ------------------------------------------------------------------------------------ envelope


cdef class Scanner:
    """One walk over the envelope of a text.

    A place is None for the whole text, else a pair: of what it is in, and its name or number there.
    """

    cdef const unsigned char[::1] text
    cdef object spans
    cdef Py_ssize_t max_depth
    cdef const char *start
    cdef const char *at
    cdef const char *end  # of the text
    cdef const char *stop  # where the envelope has become too long

    def __init__(self, const unsigned char[::1] text, spans, Py_ssize_t max_depth):
        self.text = text
        self.spans = spans
        self.max_depth = max_depth
        self.start = self.at = <const char *> &text[0]
        self.end = self.start + text.shape[0]
        self.stop = min(self.end, self.start + _ENVELOPE)

    cdef object problem(self, object place, str wanted):
        """Return the problem of a text that has not what is wanted where the walk is."""
        if self.at >= self.stop and self.stop < self.end:
            return refused(pointer_to(place), f"more than {ENVELOPE} bytes beside the arrays")
        return broken(self.text, self.at - self.start, wanted)

    cdef char next(self) noexcept:
        """Go to the next character that is no space, and return it; 0 if there is none."""
        self.at = space(self.at, self.stop)
        return self.at[0] if self.at < self.stop else 0

    cdef object body(self):
        """Return the object that is the whole text."""
        cdef const char *at
        cdef const char *end = self.end
        if begins(self.at, self.end, b"\xef\xbb\xbf", 3):
            raise unreadable("the body begins with a byte order mark; JSON has none")
        first = self.next()
        if first == c"[":
            raise refused("", "the body is a list; an object is needed")
        found = self.value(None, 1)
        if first != c"{":
            raise refused("", "the body is a single value; an object is needed")
        at = self.at
        with nogil:
            at = space(at, end)
        if at < end:
            place = at - self.start
            raise unreadable(f"the JSON object ends, but the body goes on at byte {place}")
        return found

    cdef object value(self, object place, Py_ssize_t depth):
        """Return the value that comes next; a list or an object is at this depth."""
        cdef char first = self.next()
        cdef Fault fault = NONE
        cdef double number = 0
        cdef const char *stop
        if first == c"{" or first == c"[":
            if depth > self.max_depth:
                raise self.too_deep(place)
            self.at += 1
            if first == c"{":
                return self.members(place, depth)
            return self.items(place, depth)
        if first == c'"':
            return self.string(place)
        if not first:
            raise self.problem(place, "a value")
        # These may go on where the envelope may not, lest they be taken for broken ones.
        if begins_number(self.at, self.end):
            stop = take(self.at, self.end, &number, &fault)
        else:
            stop = take_word(self.at, self.end, False, &number, &fault)
        text = PyUnicode_DecodeLatin1(self.at, stop - self.at, NULL)
        if fault > BARE:
            self.at = stop
            raise self.problem(place, WANTED[fault])
        self.at = stop
        if fault == BARE:
            raise bare(text)
        if fault == KIND:
            return {"true": True, "false": False, "null": None}[text]
        if len(text) > DIGITS:
            raise refused(pointer_to(place), f"a number of more than {DIGITS} characters")
        if text.lstrip("-").isdigit():
            return int(text)
        if fault == RANGE:
            raise refused(pointer_to(place), f"{show(text)[1:-1]} is out of the range of float64")
        return number

    cdef str string(self, object place):
        """Return the string that comes next."""
        cdef bint is_plain
        cdef const char *stop = string_end(self.at, self.stop, &is_plain)
        cdef Py_ssize_t begin = self.at - self.start
        if not stop:
            self.at = self.stop
            raise self.problem(place, f"the end of the string at byte {begin}")
        self.at = stop
        try:
            found = PyUnicode_DecodeUTF8(self.start + begin, stop - self.start - begin, NULL)
        except UnicodeDecodeError as error:
            raise unreadable(f"the body is not UTF-8: byte {begin + error.start}") from None
        if is_plain:
            return found[1:-1]
        try:
            return json.loads(found)
        except json.JSONDecodeError as error:
            place = begin + len(found[:error.pos].encode())
            raise unreadable(f"{error.msg} at byte {place}") from None

    cdef bint ended(self, char closing, object place, str needed) except -1:
        """Go past a comma, or the end of a list or an object; return which it was."""
        cdef char following = self.next()
        if following != closing and following != c",":
            raise self.problem(place, needed)
        self.at += 1
        return following == closing

    cdef list items(self, object place, Py_ssize_t depth):
        """Return the list whose bracket has come."""
        found = []
        if self.next() == c"]":
            self.at += 1
            return found
        while True:
            found.append(self.value((place, len(found)), depth + 1))
            if self.ended(c"]", place, "a comma or a closing bracket"):
                return found

    cdef dict members(self, object place, Py_ssize_t depth):
        """Return the object whose brace has come."""
        found = {}
        if self.next() == c"}":
            self.at += 1
            return found
        while True:
            if self.next() != c'"':
                raise self.problem(place, "a member's name")
            name = self.string(place)
            where = (place, name)
            if name in found:
                text = f"the member {show(name)} is there more than once"
                raise refused(pointer_to(where), text)
            if self.next() != c":":
                raise self.problem(where, "a colon")
            self.at += 1
            following = self.next()
            if name in self.spans and (following == c"[" or following == c'"'):
                found[name] = self.span(where, depth + 1)
            else:
                found[name] = self.value(where, depth + 1)
            if self.ended(c"}", place, "a comma or a closing brace"):
                return found

    cdef Span span(self, object place, Py_ssize_t depth):
        """Return the list of this depth, or the string, that comes next."""
        cdef Span found = Span()
        cdef const char *at = self.at
        cdef const char *end = self.end
        cdef const char *stop
        cdef Py_ssize_t most = min(self.max_depth - depth + 1, DEPTH), n_commas = -1
        cdef bint is_string = at[0] == c'"'
        if most < 1 and not is_string:
            raise self.too_deep(place)
        with nogil:
            if is_string:
                n_commas = 0
                stop = long_string_end(at, end, &found.has_escapes)
            else:
                stop = list_end(at, end, most, &n_commas)
        if not stop:
            kind = "string" if is_string else "list"
            raise unreadable(f"the {kind} at byte {at - self.start} is not closed")
        if n_commas < 0:
            if stop[0] == c"{":
                raise refused(pointer_to(place), "an object is in a list of numbers")
            raise self.too_deep(place)
        found.text = self.text
        found.pointer, found.is_string = pointer_to(place), is_string
        found.start, found.end = at - self.start, stop - self.start
        found.count = n_commas + 1
        self.at = stop
        # The envelope goes on as if the span were not there.
        self.stop = min(self.end, self.stop + (stop - at))
        return found

    cdef object too_deep(self, object place):
        """Return the problem of too many lists and objects within each other."""
        pointer, most = pointer_to(place), self.max_depth
        return over_limit(pointer, "nesting", most + 1, "max_depth", most)


cdef str pointer_to(object place):
    """Return a place as a JSON Pointer."""
    pointer = ""
    while place is not None:
        place, key = place
        pointer = f"/{escape(key) if isinstance(key, str) else key}{pointer}"
    return pointer


def escape(name):
    """Return a name as it stands in a JSON Pointer, short and printable."""
    if name.isidentifier() and name.isascii() and len(name) < 64:
        return name
    return show(name)[1:-1].replace("~", "~0").replace("/", "~1")


def scan(text, spans, *, Py_ssize_t max_depth):
    """Read a JSON object, but leave lists and strings of some names unread.

    Parameters
    ----------
    text : bytes-like
        The text. It must not change for as long as there are spans of it.
    spans : collection of str
        Names of the members, at any depth, that become a `Span` where they are lists or strings.
    max_depth : int
        Lists and objects that may lie within each other, the text's own object included.

    Returns
    -------
    dict
        The object.

    Raises
    ------
    Problem
        400 if the text is no JSON; 422 if it is no object, has a member twice, is nested too
        deeply, or has more than `ENVELOPE` bytes outside of the spans. Of a span no more is known
        than that it has an end, no object, and no more than that depth.
    """
    if not len(text):
        raise unreadable("the body ends where an object is needed")
    return Scanner(text, spans, max_depth).body()


# ------------------------------------------------------------------------------------- writing


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
    cdef Py_ssize_t axis, i, _
    for axis in range(rank):
        done[axis] = 0
        to[0] = c'['
        to += 1
    while True:
        for i in range(shape[rank - 1]):
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


def write(array):
    """Write an array as nested lists of numbers.

    Parameters
    ----------
    array : ndarray
        Of float32, float64, or integers. What is not finite becomes the strings ``"NaN"``,
        ``"Infinity"`` and ``"-Infinity"``.

    Returns
    -------
    bytes or memoryview
        The text, of a large array in memory that is used again: of floats the shortest that reads
        back as the same float of that type.
    """
    _, writer, width = kind_of(array.dtype, "array")
    shape = array.shape
    if 0 in shape:
        shape = shape[:shape.index(0) + 1]  # what is in no list has no text
    n_lists, elements = 0, 1
    for size in shape:
        n_lists += elements
        elements *= size
    bound = elements * width + 3 * n_lists + SLACK
    return writer(np.ascontiguousarray(array).reshape(-1), shape, bound)


# -------------------------------------------------------------------------------------- dtypes

#: What reads and writes numbers of a dtype, since finding it by the array at hand would take longer
#: than a few numbers; and the characters that one takes at most, a comma included.
KINDS = {
    np.dtype(name): (read_into[c_name], write_from[c_name], length)
    for name, c_name, length in (
        ("float32", "float", 20),
        ("float64", "double", 28),
        ("int8", "int8_t", 5),
        ("int16", "int16_t", 7),
        ("int32", "int32_t", 12),
        ("int64", "int64_t", 21),
        ("uint8", "uint8_t", 4),
        ("uint16", "uint16_t", 6),
        ("uint32", "uint32_t", 11),
        ("uint64", "uint64_t", 21),
    )
}


def kind_of(dtype, name):
    """Return the entry of `KINDS` of a dtype."""
    try:
        return KINDS[dtype]
    except KeyError:
        known = ", ".join(map(str, KINDS))
        raise TypeError(f"{name}: {dtype} is not one of {known}") from None
