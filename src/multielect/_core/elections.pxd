from libc.stdint cimport int64_t, uint32_t

from .mutex cimport Mutex
from .terms cimport Terms


cdef struct Copied:         # a copy of an election, taken under the mutex
    size_t key_end          # where its key ends in the text that holds all keys
    uint32_t number
    uint32_t generation


cdef class Elections:
    cdef Terms terms
    cdef Mutex mutex

    cdef uint32_t _copy_elections(self, uint32_t *number, int64_t leading_at_ns,
                                  Copied *copied, char *text) noexcept nogil
