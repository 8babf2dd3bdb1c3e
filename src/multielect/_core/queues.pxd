cimport cython
from libc.stdint cimport uint32_t

from .slots cimport NONE, QUEUE, Slot, Slots

cdef enum:
    # Queues of elections.
    REFRESHES = 0           # leases to be refreshed out of turn
    RELEASES = 1
    GRANTS = 2
    ACQUIRES = 3
    PROBES = 4              # acquires of elections that are not this node's own; sent last
    QUEUES = 5
    # A ring without a queue: all leases of the bucket are to be refreshed, as it is their turn.
    TURNS = 5
    RINGS = 6
    # A queue from which nothing is sent: removed elections, freed once their events are taken.
    REAPED = 6

cdef enum:
    MAX_LANES = 128
    NO_LANE = 128           # the lane number of buckets that no lane serves


cdef struct RingLink:       # a bucket's place in a ring
    uint32_t next           # NONE: the bucket is not in the ring
    uint32_t previous


cdef struct Bucket:
    uint32_t heads[5]       # the first election of each queue
    RingLink ring[6]
    uint32_t lane
    uint32_t leading        # how many of its elections this node leads


cdef struct LaneQueues:
    uint32_t ready[6]       # the first ready bucket of each ring
    uint32_t leading


@cython.final
cdef class Queues:
    cdef Slots slots
    cdef Bucket *buckets
    cdef uint32_t bucket_count
    cdef LaneQueues lanes[129]
    cdef uint32_t[5] counts     # how many elections wait in each queue, at all lanes
    cdef uint32_t reaped

    cdef void enqueue(self, int queue, uint32_t number) noexcept nogil
    cdef void dequeue(self, uint32_t number) noexcept nogil
    cdef void rotate(self, uint32_t lane, int ring) noexcept nogil
    cdef void join(self, uint32_t bucket, int ring) noexcept nogil
    cdef void leave(self, uint32_t bucket, int ring) noexcept nogil
    cdef void move(self, uint32_t bucket, uint32_t lane) noexcept nogil

    cdef inline bint is_queued(self, uint32_t number) noexcept nogil:
        return self.slots.at(number).links[QUEUE].list != NONE

    cdef inline bint is_ready(self, uint32_t bucket, int ring) noexcept nogil:
        return self.buckets[bucket].ring[ring].next != NONE

    cdef inline bint is_empty(self, uint32_t lane, int ring) noexcept nogil:
        return self.lanes[lane].ready[ring] == NONE

    cdef inline uint32_t peek(self, uint32_t lane, int queue) noexcept nogil:
        """Return the first election of a lane's queue, or NONE."""
        cdef uint32_t bucket = self.lanes[lane].ready[queue]
        return NONE if bucket == NONE else self.buckets[bucket].heads[queue]

    cdef inline uint32_t next_of_lane(self, uint32_t lane, uint32_t bucket) noexcept nogil:
        """Return the first bucket of a lane from number `bucket` on; NONE at the end."""
        while bucket < self.bucket_count and self.buckets[bucket].lane != lane:
            bucket += 1
        return bucket if bucket < self.bucket_count else NONE

    cdef inline void count_leading(self, uint32_t bucket, int change) noexcept nogil:
        self.buckets[bucket].leading += change
        self.lanes[self.buckets[bucket].lane].leading += change
