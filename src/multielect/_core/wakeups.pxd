from .resp cimport Cursor
from .terms cimport Terms


cdef class Wakeups:
    cdef Terms terms
    cdef bytes holder
    cdef const char *holder_text
    cdef size_t holder_length
    cdef size_t separator_length

    cdef int heed(self, Cursor *frame) except -1 nogil
    cdef bint is_subscribed(self, Cursor frame) noexcept nogil
    cdef int _read(self, const char *text, size_t length) except -1 nogil
    cdef int _wake(self, const char *name, size_t length) except -1 nogil
