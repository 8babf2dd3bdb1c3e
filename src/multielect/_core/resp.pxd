cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef struct Value:
    char kind               # the type byte of RESP: + - : $ * > _ ...
    int64_t number          # of an integer; elements of an aggregate; -1 for a null
    const char *text        # of a string or an error
    size_t length


cdef struct Cursor:
    const char *here
    const char *end


cdef int read_value(Cursor *cursor, Value *value) noexcept nogil


@cython.final
cdef class Incoming:
    cdef char *data
    cdef size_t capacity
    cdef size_t start           # where the current frame begins
    cdef size_t end             # where the received bytes end
    cdef size_t scanned         # how far the current frame is scanned
    cdef int64_t missing        # elements of the current frame that are not scanned yet
    cdef size_t largest

    cdef int feed(self, const char *data, size_t length) except -1 nogil
    cdef int next_frame(self, Cursor *frame) noexcept nogil
    cdef void clear(self) noexcept nogil


@cython.final
cdef class Outgoing:
    cdef char *data
    cdef size_t capacity
    cdef size_t start
    cdef size_t end
    cdef Py_ssize_t shape[1]

    # Inline, as they run for each key.
    cdef inline int reserve(self, size_t length) except -1 nogil:
        """Make room for `length` more bytes, for `put` and `put_header`."""
        return 0 if self.end + length <= self.capacity else self._grow(length)

    cdef inline void put_header(self, char kind, int64_t number) noexcept nogil:
        """Write a type byte, a number and a line's end: at most 23 bytes."""
        cdef char *here = self.data + self.end
        cdef uint32_t small = <uint32_t>number
        if not 10 <= number < 100:
            self._put_long_header(kind, number)
            return
        # The length of most keys has two digits.
        here[0] = kind
        here[1] = <char>(c'0' + small // 10)
        here[2] = <char>(c'0' + small % 10)
        here[3] = c'\r'
        here[4] = c'\n'
        self.end += 5

    cdef int _grow(self, size_t length) except -1 nogil
    cdef void put(self, const char *data, size_t length) noexcept nogil
    cdef void _put_long_header(self, char kind, int64_t number) noexcept nogil
    cdef int put_bulk(self, const char *data, size_t length) except -1 nogil
    cdef int put_integer(self, int64_t number) except -1 nogil
    cdef size_t waiting(self) noexcept nogil
    cdef void drop(self, size_t length) noexcept nogil
    cdef void clear(self) noexcept nogil
