from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from .core cimport Core


cdef class FleetCore(Core):
    cdef uint32_t _intern(self, bytes holder) except *
    cdef bint _has_room_to_look(self) except -1
