cimport cython
from libc.stdint cimport uint32_t

cdef enum:
    MAX_NAME_BYTES = 2048   # of a holder that a server or an announcement names


cdef struct Holder:
    char *text
    size_t length
    uint32_t hash
    uint32_t uses
    uint32_t named          # how often the server has named it as a leader


@cython.final
cdef class Holders:
    cdef Holder *items
    cdef uint32_t used
    cdef uint32_t capacity

    cdef int intern(self, const char *text, size_t length, uint32_t *place) except -1 nogil
    cdef void count_named(self, uint32_t place) noexcept nogil
    cdef uint32_t named(self, uint32_t place) noexcept nogil
    cdef void keep(self, uint32_t place) noexcept nogil
    cdef void drop(self, uint32_t place) noexcept nogil
    cdef Py_ssize_t copy(self, uint32_t place, char *into, size_t most) noexcept nogil
