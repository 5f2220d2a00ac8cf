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
b) The numbers of a list are its commas and one, unless there are lists without elements, which
   need no more room. So the array is allocated once.
c) Numbers themselves are read and written by `_numbers.pxi`, built for each instruction set as the
   library's kernels are, of which the same is used.
"""

from libc.string cimport memchr

import importlib
import json
import math

import numpy as np

from poolgrad import dispatch
from poolgrad.arrays import empty
from poolgrad.errors import show
from poolgrad_service.errors import over_limit, refused, unreadable

__all__ = ["ENVELOPE", "LONGEST", "Span", "escape", "scan", "write"]

include "_tokens.pxi"

cdef extern from "Python.h":
    str PyUnicode_DecodeLatin1(const char *, Py_ssize_t, const char *)
    str PyUnicode_DecodeUTF8(const char *, Py_ssize_t, const char *)

#: Bytes that the text outside of spans may have.
ENVELOPE = _ENVELOPE

cdef enum:
    EXACT = 15  # characters up to which a float64 is the very integer that is written

#: Characters that one number may have. The longest exact float64 takes 1078.
LONGEST = _LONGEST

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

    cdef object source
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
        shape, fault = reader(array, self.source, self.start, self.end, tokens)
        if fault is not None:
            raise self.problem(name, dtype, *fault)
        return array[:math.prod(shape)].reshape(shape)

    def problem(self, name, dtype, fault, at, stop, place, has, before):
        """Return the problem of what `read_into` found."""
        pointer = "/".join([self.pointer, *map(str, place)])
        there = name + "".join(f"[{i}]" for i in place)
        if fault == RAGGED:
            return refused(
                pointer,
                f"{name}: ragged: {there} has length {has}, and a list before it "
                f"{before}",
            )
        if fault == UNEVEN:
            more = "more" if has > before else "less"
            return refused(
                pointer, f"{name}: ragged: {there} is nested {more} deeply than what is before it"
            )
        if fault > BARE:
            return broken(self.text, at, WANTED[fault])
        length = stop - at
        text = bytes(self.text[at:at + min(length, 100)]).decode(errors="replace")
        if fault == BARE:
            return bare(text)
        if length > 40:
            text = f"{text[:30]}... ({length} characters)"
        if fault == LONG:
            return refused(pointer, f"{name}: {text} is longer than {LONGEST} characters")
        if fault == RANGE:
            return refused(pointer, f"{name}: {text} is out of the range of {dtype}")
        if text[0] == '"':
            shown = show(text.strip('"'))
            text = f"the string {shown}"
        if dtype.kind != "f":
            return refused(pointer, f"{name}: {text} is no integer")
        names = '; of strings, only "NaN", "Infinity" and "-Infinity" are' if '"' in text else ""
        return refused(pointer, f"{name}: {text} is no number{names}")


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


cdef inline bint is_integer(const char *at, const char *stop) noexcept nogil:
    """Return whether a number has neither point nor exponent."""
    while at < stop and (is_digit(at[0]) or at[0] == c'-'):
        at += 1
    return at == stop


cdef class Scanner:
    """One walk over the envelope of a text.

    A place is None for the whole text, else a pair: of what it is in, and its name or number there.
    """

    cdef object source
    cdef const unsigned char[::1] text
    cdef object spans
    cdef Py_ssize_t max_depth
    cdef const char *start
    cdef const char *at
    cdef const char *end  # of the text
    cdef const char *stop  # where the envelope has become too long

    def __init__(self, source, spans, Py_ssize_t max_depth):
        cdef const unsigned char[::1] text = source
        self.source = source
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
        if not fault and stop - self.at <= EXACT and is_integer(self.at, stop):
            self.at = stop
            return <long long> number
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
        found.source, found.text = self.source, self.text
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
    return writer(array.ravel(), shape, bound)


# -------------------------------------------------------------------------------------- dtypes

def kinds_of(build):
    """Return what reads and writes numbers of each dtype in a build.

    It is found here once, since finding it by the array at hand would take longer than a few
    numbers. Third are the characters that a number takes at most, a comma included.
    """
    numbers = importlib.import_module(f"poolgrad_service._numbers_{build.name}")
    return {
        np.dtype(name): (numbers.read_into[c_name], numbers.write_from[c_name], length)
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


KINDS = kinds_of(dispatch.active())


def kind_of(dtype, name):
    """Return the entry of `KINDS` of a dtype."""
    try:
        return KINDS[dtype]
    except KeyError:
        known = ", ".join(map(str, KINDS))
        raise TypeError(f"{name}: {dtype} is not one of {known}") from None
