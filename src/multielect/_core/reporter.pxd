from libc.stdint cimport int64_t, uint8_t, uint32_t

from .membership cimport MembershipPoll
from .mutex cimport Mutex
from .redirects cimport Redirects
from .terms cimport Terms


cdef struct CopiedEvent:    # a copy of an event, taken under the mutex
    int64_t epoch
    int64_t at_ns
    size_t key_end          # where its key ends in the text that holds all keys
    uint32_t number
    uint32_t generation
    uint8_t reason


cdef class Reporter:
    cdef Terms terms
    cdef MembershipPoll membership
    cdef Redirects redirects
    cdef Mutex mutex

    cdef bint has_report(self) noexcept nogil
    cdef void _count_events(self, uint32_t *counts) noexcept nogil
    cdef uint32_t _copy_events(self, CopiedEvent *copied, char *text) noexcept nogil
    cdef void _take_to(self, uint32_t place) noexcept nogil
