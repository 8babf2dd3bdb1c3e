cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from .slots cimport NONE, QUEUE, TIMER, Link, Slot, Slots

cdef enum:
    REFRESHES = 0
    RELEASES = 1
    GRANTS = 2
    ACQUIRES = 3
    REAPED = 4
    LOOKS = 5               # what another, or nobody, is to lead: behind all acquires


@cython.final
cdef class Schedule:
    cdef Slots slots
    cdef int64_t tick
    cdef uint32_t wheel[12288]      # the first of each bucket: 3 levels of 4096
    cdef uint64_t filled[3][64]     # a bit for each bucket that is not empty
    cdef uint32_t queues[6]

    cdef void set_timer(self, uint32_t number, int64_t due_ns) noexcept nogil
    cdef void cancel_timer(self, uint32_t number) noexcept nogil
    cdef uint32_t pop_due(self, int64_t now_ns) noexcept nogil
    cdef int64_t next_due_ns(self) noexcept nogil
    cdef void enqueue(self, int queue, uint32_t number) noexcept nogil
    cdef void dequeue(self, uint32_t number) noexcept nogil

    cdef inline bint is_queued(self, uint32_t number) noexcept nogil:
        return self.slots.at(number).links[QUEUE].list != NONE

    cdef inline bint is_timed(self, uint32_t number) noexcept nogil:
        return self.slots.at(number).links[TIMER].list != NONE

    cdef inline uint32_t peek(self, int queue) noexcept nogil:
        """Return the first of a queue, or NONE."""
        return self.queues[queue]

    cdef int64_t _next_tick(self) noexcept nogil
    cdef void _place(self, uint32_t number) noexcept nogil
    cdef void _cascade(self) noexcept nogil
    cdef int _distance(self, int level, uint32_t place) noexcept nogil
    cdef void _append(self, int which, uint32_t *head, uint32_t list,
                      uint32_t number) noexcept nogil
    cdef void _unlink(self, int which, uint32_t *head, uint32_t number) noexcept nogil
