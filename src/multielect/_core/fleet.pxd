from libc.stdint cimport uint32_t

from .membership cimport MembershipPoll
from .mutex cimport Mutex
from .terms cimport Terms


cdef class Fleet:
    cdef Terms terms
    cdef MembershipPoll membership
    cdef Mutex mutex

    cdef uint32_t _intern(self, bytes holder) except *
    cdef bint _has_room_to_probe(self) except -1
