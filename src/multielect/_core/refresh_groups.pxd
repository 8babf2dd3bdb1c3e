cimport cython
from libc.stdint cimport int64_t, uint32_t


cdef struct RefreshGroup:
    int64_t timer_ns        # when it is to be looked at; NEVER: nobody waits for that
    int64_t refresh_ns      # when its leases are to be refreshed next; NEVER: it has none
    int64_t phase_ns        # where its grid lies
    int64_t owed_ns         # when those that wait to be sent were due; 0: nobody's timer asked
    uint32_t place          # in the heap
    uint32_t next           # in the queue
    bint queued


@cython.final
cdef class RefreshGroups:
    cdef uint32_t size              # slots in each
    cdef int64_t period_ns
    cdef RefreshGroup *items
    cdef uint32_t *heap             # those with a timer, the first to ring at the top
    cdef uint32_t count             # of items
    cdef uint32_t capacity
    cdef uint32_t timed             # of those in the heap
    cdef uint32_t first             # in the queue
    cdef uint32_t last
    cdef uint32_t cursor            # the slot of the first from which it waits to be sent

    cdef int reserve(self, uint32_t number) except -1 nogil
    cdef int64_t join(self, uint32_t number, int64_t sent_ns) noexcept nogil
    cdef void hurry(self, uint32_t group, int64_t at_ns) noexcept nogil
    cdef void set_timer(self, uint32_t group, int64_t at_ns) noexcept nogil
    cdef uint32_t pop_due(self, int64_t now_ns) noexcept nogil
    cdef int64_t next_due_ns(self) noexcept nogil
    cdef void advance(self, uint32_t group, int64_t now_ns, int64_t ends_ns) noexcept nogil
    cdef void enqueue(self, uint32_t group, int64_t owed_ns) noexcept nogil
    cdef void dequeue(self) noexcept nogil
    cdef int64_t _due_after(self, RefreshGroup *group, int64_t sent_ns) noexcept nogil
    cdef void _remove(self, uint32_t group) noexcept nogil
    cdef void _rise(self, uint32_t place) noexcept nogil
    cdef void _sink(self, uint32_t place) noexcept nogil
    cdef void _put(self, uint32_t group, uint32_t place) noexcept nogil
