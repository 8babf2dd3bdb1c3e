# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""The Redis protocol, RESP2 and RESP3: bytes to values, and commands to bytes.

Rules of this file:
    * The code here knows no elections. It reads the values of a frame and gives them no meaning.
    * `next_frame` returns complete frames only. A frame that arrives in many pieces is scanned
      once, not once a piece.
    * Every length that the server sends is checked against a bound before it is used. Bytes that
      are not RESP are an error.
"""

from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcpy, memmove

cdef enum:
    BAD = -1
    PARTIAL = 0
    WHOLE = 1
    MAX_LINE_BYTES = 65536
    MAX_ELEMENTS = 1 << 20
    LARGEST_FRAME = 1 << 24


cdef inline int _read_number(const char *text, const char *end, int64_t *number) noexcept nogil:
    cdef bint negative = text < end and text[0] == c'-'
    cdef int64_t value = 0
    if negative or (text < end and text[0] == c'+'):
        text += 1
    if text == end or end - text > 18:
        return BAD
    while text < end:
        if text[0] < c'0' or text[0] > c'9':
            return BAD
        value = value * 10 + (text[0] - c'0')
        text += 1
    number[0] = -value if negative else value
    return WHOLE


cdef int read_value(Cursor *cursor, Value *value) noexcept nogil:
    """Read the value at the cursor, or the head of an aggregate, and move the cursor behind it.

    Returns WHOLE, PARTIAL if more bytes are needed, or BAD.
    """
    cdef const char *line = cursor.here + 1
    cdef const char *stop
    cdef size_t left
    if cursor.here >= cursor.end:
        return PARTIAL
    left = cursor.end - cursor.here
    value.kind = cursor.here[0]
    value.number = 0
    value.text = line
    value.length = 0
    stop = <const char *>memchr(cursor.here, c'\n',
                                left if left < MAX_LINE_BYTES else MAX_LINE_BYTES)
    if stop == NULL:
        return BAD if left >= MAX_LINE_BYTES or not _is_kind(value.kind) else PARTIAL
    if stop <= line or (stop - 1)[0] != c'\r':
        return BAD
    value.length = stop - 1 - line
    if value.kind in (c'+', c'-', c'#', c',', c'('):
        cursor.here = stop + 1
        return WHOLE
    if value.kind == c'_':
        value.number = -1
        cursor.here = stop + 1
        return WHOLE if value.length == 0 else BAD
    if _read_number(line, stop - 1, &value.number) != WHOLE:
        return BAD
    if value.kind == c':':
        cursor.here = stop + 1
        return WHOLE
    if value.number < -1 or (value.number == -1 and value.kind not in (c'$', c'*')):
        return BAD
    if value.kind in (c'*', c'>', c'~', c'%', c'|'):
        if value.number > MAX_ELEMENTS:
            return BAD
        cursor.here = stop + 1
        return WHOLE
    if value.kind not in (c'$', c'!', c'=') or value.number > LARGEST_FRAME:
        return BAD
    value.text = stop + 1
    if value.number == -1:
        value.length = 0
        cursor.here = stop + 1
        return WHOLE
    value.length = <size_t>value.number
    if <size_t>(cursor.end - value.text) < value.length + 2:
        return PARTIAL
    if value.text[value.length] != c'\r' or value.text[value.length + 1] != c'\n':
        return BAD
    cursor.here = value.text + value.length + 2
    if value.kind == c'!':
        value.kind = c'-'
    return WHOLE


cdef inline bint _is_kind(char kind) noexcept nogil:
    return kind in (c'+', c'-', c':', c'$', c'*', c'_', c'#', c',', c'(', c'!', c'=',
                    c'%', c'~', c'>', c'|')


cdef inline int64_t _elements(Value *value) noexcept nogil:
    """Return how many more values belong to the one whose head was read."""
    if value.kind in (c'*', c'>', c'~'):
        return value.number if value.number > 0 else 0
    if value.kind == c'%':
        return 2 * value.number
    if value.kind == c'|':
        # Attributes come before the value that they describe.
        return 2 * value.number + 1
    return 0


cdef class Incoming:
    """Received bytes, and the frames in them. A frame has at most `largest` bytes."""

    def __cinit__(self, size_t largest=LARGEST_FRAME):
        self.largest = largest
        self.missing = 1

    def __dealloc__(self):
        free(self.data)

    cdef int feed(self, const char *data, size_t length) except -1 nogil:
        """Take bytes from the server."""
        cdef char *grown
        cdef size_t needed
        if self.start and (self.start == self.end or self.end + length > self.capacity):
            memmove(self.data, self.data + self.start, self.end - self.start)
            self.end -= self.start
            self.scanned -= self.start
            self.start = 0
        needed = self.end + length
        if needed > self.capacity:
            needed = needed * 2 if needed > 4096 else 4096
            grown = <char *>realloc(self.data, needed)
            if grown == NULL:
                with gil:
                    raise MemoryError
            self.data = grown
            self.capacity = needed
        memcpy(self.data + self.end, data, length)
        self.end += length
        return 0

    cdef int next_frame(self, Cursor *frame) noexcept nogil:
        """Point `frame` at the next complete frame, which is valid until the next `feed`.

        Returns WHOLE, PARTIAL if more bytes are needed, or BAD.
        """
        cdef Cursor cursor
        cdef Value value
        cdef int outcome
        cursor.here = self.data + self.scanned
        cursor.end = self.data + self.end
        while self.missing > 0:
            outcome = read_value(&cursor, &value)
            if outcome == PARTIAL:
                return BAD if self.end - self.start > self.largest else PARTIAL
            if outcome == BAD:
                return BAD
            self.missing += _elements(&value) - 1
            self.scanned = cursor.here - self.data
            if self.missing > MAX_ELEMENTS or self.scanned - self.start > self.largest:
                return BAD
        frame.here = self.data + self.start
        frame.end = self.data + self.scanned
        self.start = self.scanned
        self.missing = 1
        return WHOLE

    cdef void clear(self) noexcept nogil:
        """Drop all bytes, as the connection is lost, and free the buffer."""
        free(self.data)
        self.data = NULL
        self.capacity = 0
        self.start = 0
        self.end = 0
        self.scanned = 0
        self.missing = 1


cdef size_t _write_number(char *place, int64_t number) noexcept nogil:
    """Write a number at `place`. Returns how many bytes it has, at most 20."""
    cdef char digits[20]
    cdef uint64_t left = <uint64_t>number
    cdef size_t used = 0, length = 0
    if number < 0:
        left = -left
        place[0] = c'-'
        length = 1
    while True:
        digits[used] = <char>(c'0' + left % 10)
        used += 1
        left //= 10
        if left == 0:
            break
    while used:
        used -= 1
        place[length] = digits[used]
        length += 1
    return length


cdef class Outgoing:
    """Bytes to be sent, in order. The buffer protocol gives access to those that wait."""

    def __dealloc__(self):
        free(self.data)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        self.shape[0] = self.end - self.start
        buffer.buf = self.data + self.start if self.data != NULL else <char *>b""
        buffer.obj = self
        buffer.len = self.shape[0]
        buffer.itemsize = 1
        buffer.readonly = 1
        buffer.ndim = 1
        buffer.format = NULL
        buffer.shape = self.shape
        buffer.strides = NULL
        buffer.suboffsets = NULL
        buffer.internal = NULL

    cdef int _grow(self, size_t length) except -1 nogil:
        cdef char *grown
        cdef size_t needed
        if self.start:
            memmove(self.data, self.data + self.start, self.end - self.start)
            self.end -= self.start
            self.start = 0
        needed = self.end + length
        if needed <= self.capacity:
            return 0
        needed = needed * 2 if needed > 4096 else 4096
        grown = <char *>realloc(self.data, needed)
        if grown == NULL:
            with gil:
                raise MemoryError
        self.data = grown
        self.capacity = needed
        return 0

    cdef void put(self, const char *data, size_t length) noexcept nogil:
        memcpy(self.data + self.end, data, length)
        self.end += length

    cdef void _put_long_header(self, char kind, int64_t number) noexcept nogil:
        cdef char *here = self.data + self.end
        here[0] = kind
        here += 1 + _write_number(here + 1, number)
        here[0] = c'\r'
        here[1] = c'\n'
        self.end = here + 2 - self.data

    cdef int put_bulk(self, const char *data, size_t length) except -1 nogil:
        """Write one argument of a command."""
        self.reserve(length + 32)
        self.put_header(c'$', length)
        self.put(data, length)
        self.put(b"\r\n", 2)
        return 0

    cdef int put_integer(self, int64_t number) except -1 nogil:
        """Write a number as an argument of a command."""
        cdef char digits[20]
        return self.put_bulk(digits, _write_number(digits, number))

    cdef size_t waiting(self) noexcept nogil:
        return self.end - self.start

    cdef void drop(self, size_t length) noexcept nogil:
        """Drop the first `length` bytes, which are sent."""
        self.start += length
        if self.start == self.end:
            self.start = 0
            self.end = 0

    cdef void clear(self) noexcept nogil:
        """Drop all bytes, as the connection is lost, and free the buffer."""
        free(self.data)
        self.data = NULL
        self.capacity = 0
        self.start = 0
        self.end = 0
