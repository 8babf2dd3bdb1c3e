cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

cdef enum:
    SLOTS = 16384           # hash slots of a Redis Cluster


@cython.final
cdef class SlotMap:
    cdef uint16_t *slot_of      # by bucket
    cdef uint32_t buckets
    cdef uint8_t[16384] lane_of  # by slot
    cdef uint8_t *last_lane     # by bucket: the lane that served it last
    cdef int64_t *shorten_ns    # by bucket: by how much its leases are still to be shortened
    cdef bint is_to_shorten     # there is such a bucket

    cdef void give(self, uint32_t first, uint32_t last, uint32_t lane) noexcept nogil

    cdef inline uint32_t lane_of_bucket(self, uint32_t bucket) noexcept nogil:
        return self.lane_of[self.slot_of[bucket]]
