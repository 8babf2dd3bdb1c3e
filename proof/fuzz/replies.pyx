# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""Fuzzes the parser of the Redis protocol.

An input has two bytes of options (the largest frame, and where the bytes are cut). The server's
bytes follow. The fuzzer checks:

    * The same bytes give the same frames, or the same error, however they are cut.
    * A frame has one value, and ends where its value ends.
    * The parser keeps at most as many bytes as a frame may have.
    * The parser reads only bytes that it received. The rest of the buffer is poisoned meanwhile.
    * A number that was read can be written and read again.
"""

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from faults cimport fail, hide, show
from multielect._core.resp cimport Cursor, Incoming, Outgoing, Value, read_value

cdef enum:
    BAD = -1
    WHOLE = 1
    MAX_VALUES = 1 << 20

cdef size_t[4] LARGEST
LARGEST[0] = 1 << 24
LARGEST[1] = 1 << 10
LARGEST[2] = 64
LARGEST[3] = 1

cdef struct Heard:          # what a parser made of some bytes
    uint32_t frames
    uint64_t digest
    int outcome


cdef class Parsers:
    """Two parsers, and the writer of numbers."""

    cdef Incoming whole
    cdef Incoming cut
    cdef Outgoing numbers

    def __cinit__(self):
        self.whole = Incoming()
        self.cut = Incoming()
        self.numbers = Outgoing()

    cdef int compare(self, const uint8_t *data, size_t size) except -1 nogil:
        cdef Heard whole, pieces
        cdef size_t at = 2, step
        cdef uint64_t chance
        if size < 3:
            return 0
        self.begin(self.whole, data[0], &whole)
        self.begin(self.cut, data[0], &pieces)
        self.hear(self.whole, <const char *>data + 2, size - 2, &whole)
        chance = data[1]
        while at < size and pieces.outcome != BAD:
            # With 0, each byte is a piece. Otherwise the pieces have random lengths.
            step = 1
            if data[1]:
                chance = chance * <uint64_t>6364136223846793005 + <uint64_t>1442695040888963407
                step += (chance >> 33) % (1 + data[1])
            step = min(step, size - at)
            self.hear(self.cut, <const char *>data + at, step, &pieces)
            at += step
        if whole.outcome != pieces.outcome:
            fail(b"cut differently, the bytes are malformed for one parser only")
        if whole.frames != pieces.frames or whole.digest != pieces.digest:
            fail(b"cut differently, the bytes give other frames")
        return 0

    cdef void begin(self, Incoming incoming, uint8_t choice, Heard *heard) noexcept nogil:
        if incoming.data != NULL:
            show(incoming.data, incoming.capacity)
        incoming.clear()
        incoming.largest = LARGEST[choice & 3]
        heard.frames = 0
        heard.digest = 14695981039346656037u
        heard.outcome = 0

    cdef int hear(self, Incoming incoming, const char *data, size_t size,
                  Heard *heard) except -1 nogil:
        cdef Cursor frame
        if incoming.data != NULL:
            show(incoming.data, incoming.capacity)
        incoming.feed(data, size)
        hide(incoming.data + incoming.end, incoming.capacity - incoming.end)
        while True:
            heard.outcome = incoming.next_frame(&frame)
            if heard.outcome != WHOLE:
                break
            heard.frames += 1
            self.look_at(&frame, heard, incoming.largest)
        if heard.outcome != BAD and incoming.end - incoming.start > incoming.largest:
            fail(b"the parser keeps more bytes than a frame may have")
        if incoming.capacity > 2 * (incoming.largest + size) + 4096:
            fail(b"the buffer is larger than necessary")
        return 0

    cdef int look_at(self, Cursor *frame, Heard *heard, size_t largest) except -1 nogil:
        """Read all values of a frame, as the core does."""
        cdef const char *at
        cdef Value value
        cdef int64_t missing = 1
        cdef uint32_t values = 0
        if <size_t>(frame.end - frame.here) > largest:
            fail(b"a frame is longer than it may be")
        at = frame.here
        while at < frame.end:
            heard.digest = (heard.digest ^ <uint8_t>at[0]) * <uint64_t>1099511628211
            at += 1
        heard.digest = (heard.digest ^ 0x100) * <uint64_t>1099511628211
        while missing:
            at = frame.here
            if read_value(frame, &value) != WHOLE:
                fail(b"a frame is incomplete")
            if frame.here <= at or frame.here > frame.end:
                fail(b"a value exceeds its frame")
            if value.length and (value.text <= at or value.text + value.length > frame.here):
                fail(b"a text exceeds its value")
            values += 1
            missing -= 1
            if value.kind in (c'*', c'>', c'~'):
                missing += max(value.number, <int64_t>0)
            elif value.kind == c'%':
                missing += 2 * value.number
            elif value.kind == c'|':
                missing += 2 * value.number + 1
            elif value.kind == c':':
                self.write(value.number)
            if missing > MAX_VALUES or values > 64 * MAX_VALUES:
                fail(b"a frame holds more values than it may")
        if frame.here != frame.end:
            fail(b"a frame goes on after its value")
        return 0

    cdef int write(self, int64_t number) except -1 nogil:
        cdef Cursor cursor
        cdef Value word, again
        cdef char[32] line
        cdef size_t i
        self.numbers.put_integer(number)
        cursor.here = self.numbers.data + self.numbers.start
        cursor.end = self.numbers.data + self.numbers.end
        if read_value(&cursor, &word) != WHOLE or word.kind != c'$' or word.length > 20:
            fail(b"a written number is not an argument")
        line[0] = c':'
        for i in range(word.length):
            line[i + 1] = word.text[i]
        line[word.length + 1] = c'\r'
        line[word.length + 2] = c'\n'
        cursor.here = line
        cursor.end = line + word.length + 3
        if read_value(&cursor, &again) != WHOLE or again.number != number:
            fail(b"a written number is read as another number")
        self.numbers.drop(self.numbers.waiting())
        return 0


cdef Parsers parsers = Parsers()


cdef int one(const uint8_t *data, size_t size) noexcept nogil:
    parsers.compare(data, size)
    return 0


TARGET = PyCapsule_New(<void *>one, NULL, NULL)
