from libc.stdint cimport int64_t, uint32_t

from .resp cimport Cursor
from .membership cimport MembershipPoll
from .terms cimport Terms


cdef struct Words:          # the netstrings of an announcement that are not read yet
    const char *here
    const char *end


cdef class Wakeups:
    cdef Terms terms
    cdef MembershipPoll membership
    cdef bytes holder
    cdef const char *holder_text
    cdef size_t holder_length
    cdef size_t separator_length

    cdef int handle(self, Cursor *frame, int64_t now_ns) except -1 nogil
    cdef bint is_subscribed(self, Cursor frame) noexcept nogil
    cdef int _read(self, const char *text, size_t length, int64_t now_ns) except -1 nogil
    cdef int _read_directed(self, Words *words, const char *to, size_t length,
                            int64_t now_ns) except -1 nogil
    cdef int _wake_all(self, Words *words, bint granted) except -1 nogil
    cdef uint32_t _find(self, const char *name, size_t length) noexcept nogil
