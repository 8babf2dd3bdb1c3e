from libc.stdint cimport int64_t, uint32_t

from .._runtime.clock cimport Clock
from .slots cimport Slots


cdef class BaseCandidacy:
    cdef Slots slots
    cdef Clock clock
    cdef readonly uint32_t number
    cdef readonly uint32_t generation
    cdef readonly int64_t term_epoch

    cdef int64_t _deadline_ns(self) noexcept nogil
