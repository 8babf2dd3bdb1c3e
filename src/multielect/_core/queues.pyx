# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""The send queues of each bucket, and the ready buckets of each lane.

Rules of this file:
    * A slot is in at most one queue. The queues of a bucket hold elections of that bucket only.
      They link the slots themselves, so no function here allocates.
    * A bucket is in a ring of its lane while its queue of that name is not empty. So a lane finds
      its next request without looking at buckets that have none.
    * A lane takes from the first ready bucket until that is empty. `rotate` puts that bucket last
      after each batch, so no bucket waits for ever behind one that keeps filling.
    * Queues and rings are first in, first out.
    * A bucket that no lane serves is in the rings of `NO_LANE`, from which nothing is sent. `move`
      takes a bucket to another lane, with everything that waits in it.
"""

from libc.stdlib cimport free, malloc
from libc.string cimport memset


cdef class Queues:
    """The send queues of `bucket_count` buckets. Lane 0 serves all of them at first."""

    def __cinit__(self, Slots slots, uint32_t bucket_count):
        cdef uint32_t bucket
        self.slots = slots
        self.bucket_count = bucket_count
        self.buckets = <Bucket *>malloc(bucket_count * sizeof(Bucket))
        if self.buckets == NULL:
            raise MemoryError
        memset(self.buckets, 0xFF, bucket_count * sizeof(Bucket))
        for bucket in range(bucket_count):
            self.buckets[bucket].lane = 0
            self.buckets[bucket].leading = 0
        for lane in range(<int>MAX_LANES + 1):
            memset(self.lanes[<int>lane].ready, 0xFF, sizeof(self.lanes[<int>lane].ready))
        self.reaped = NONE

    def __dealloc__(self):
        free(self.buckets)

    cdef void enqueue(self, int queue, uint32_t number) noexcept nogil:
        """Put a slot that is in no queue at the end of this one."""
        cdef uint32_t bucket
        if queue == REAPED:
            self.slots.append(QUEUE, &self.reaped, queue, number)
            return
        bucket = self.slots.at(number).bucket
        if self.buckets[bucket].heads[queue] == NONE:
            self.join(bucket, queue)
        self.counts[queue] += 1
        self.slots.append(QUEUE, &self.buckets[bucket].heads[queue], queue, number)

    cdef void dequeue(self, uint32_t number) noexcept nogil:
        """Take the slot out of its queue, if it is in one."""
        cdef Slot *slot = self.slots.at(number)
        cdef uint32_t queue = slot.links[QUEUE].list
        cdef Bucket *bucket = &self.buckets[slot.bucket]
        if queue == NONE:
            return
        if queue == REAPED:
            self.slots.unlink(QUEUE, &self.reaped, number)
            return
        self.counts[queue] -= 1
        self.slots.unlink(QUEUE, &bucket.heads[queue], number)
        if bucket.heads[queue] == NONE:
            self.leave(slot.bucket, queue)

    cdef void rotate(self, uint32_t lane, int ring) noexcept nogil:
        """Make the first ready bucket of a ring the last."""
        cdef uint32_t bucket = self.lanes[lane].ready[ring]
        if bucket != NONE:
            self.lanes[lane].ready[ring] = self.buckets[bucket].ring[ring].next

    cdef void join(self, uint32_t bucket, int ring) noexcept nogil:
        """Put a bucket that is not in the ring at the end of the ring of its lane."""
        cdef RingLink *link = &self.buckets[bucket].ring[ring]
        cdef uint32_t *first = &self.lanes[self.buckets[bucket].lane].ready[ring]
        cdef uint32_t last
        if first[0] == NONE:
            link.next = bucket
            link.previous = bucket
            first[0] = bucket
            return
        last = self.buckets[first[0]].ring[ring].previous
        link.next = first[0]
        link.previous = last
        self.buckets[last].ring[ring].next = bucket
        self.buckets[first[0]].ring[ring].previous = bucket

    cdef void leave(self, uint32_t bucket, int ring) noexcept nogil:
        """Take a bucket out of the ring."""
        cdef RingLink *link = &self.buckets[bucket].ring[ring]
        cdef uint32_t *first = &self.lanes[self.buckets[bucket].lane].ready[ring]
        if link.next == bucket:
            first[0] = NONE
        else:
            self.buckets[link.previous].ring[ring].next = link.next
            self.buckets[link.next].ring[ring].previous = link.previous
            if first[0] == bucket:
                first[0] = link.next
        link.next = NONE

    cdef void move(self, uint32_t bucket, uint32_t lane) noexcept nogil:
        """Have another lane serve the bucket and everything that waits in it."""
        cdef bint[6] ready
        cdef int ring
        for ring in range(<int>RINGS):
            ready[ring] = self.is_ready(bucket, ring)
            if ready[ring]:
                self.leave(bucket, ring)
        self.lanes[self.buckets[bucket].lane].leading -= self.buckets[bucket].leading
        self.buckets[bucket].lane = lane
        self.lanes[lane].leading += self.buckets[bucket].leading
        for ring in range(<int>RINGS):
            if ready[ring]:
                self.join(bucket, ring)
