# What JSON is made of: numbers, strings and words, found in a text.

from libc.stdint cimport (
    int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t,
)
from libc.string cimport memcmp, memcpy

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
