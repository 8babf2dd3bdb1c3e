cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef enum:
    SLOTS = 16384           # hash slots of a Redis Cluster


@cython.final
cdef class SlotMap:
    cdef uint16_t *slot_of      # by bucket
    cdef uint32_t buckets
    cdef uint8_t[16384] lane_of  # by slot

    cdef void give(self, uint32_t first, uint32_t last, uint32_t lane) noexcept nogil

    cdef inline uint32_t lane_of_bucket(self, uint32_t bucket) noexcept nogil:
        return self.lane_of[self.slot_of[bucket]]
