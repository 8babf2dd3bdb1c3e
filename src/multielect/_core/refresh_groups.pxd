cimport cython
from libc.stdint cimport int64_t, uint32_t


cdef struct RefreshGroup:
    int64_t timer_ns        # when it is to be looked at; NEVER: nobody waits for that
    int64_t refresh_ns      # when its timer is to have them refreshed; NEVER: it has none
    int64_t owed_ns         # when those that wait to be sent are due; 0: nobody's timer asked
    uint32_t phase          # its number, the lowest bit first: the upper bits say its phase
    uint32_t place          # in the heap
    uint32_t next           # in the queue
    bint queued


@cython.final
cdef class RefreshGroups:
    cdef uint32_t size              # slots in each
    cdef int64_t window_ns          # how long before they are due its leases may be sent
    cdef int64_t cycle_ns           # from one refresh of a refresh group to the next
    cdef int64_t offset_ns          # when the first phase begins
    cdef int64_t due_ns             # the first to be due in the queue; NEVER: it is empty
    cdef int phase_bits             # there are as many phases as these bits can number
    cdef uint32_t fewest            # with fewer leases there are to be fewer phases
    cdef uint32_t too_many          # with so many there are to be more
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
    cdef void _change_phases(self, uint32_t leases) noexcept nogil
    cdef void hurry(self, uint32_t group, int64_t at_ns) noexcept nogil
    cdef void set_timer(self, uint32_t group, int64_t at_ns) noexcept nogil
    cdef uint32_t pop_due(self, int64_t now_ns) noexcept nogil
    cdef int64_t next_due_ns(self) noexcept nogil
    cdef void advance(self, uint32_t group, int64_t now_ns, int64_t ends_ns) noexcept nogil
    cdef void enqueue(self, uint32_t group, int64_t owed_ns) noexcept nogil
    cdef void dequeue(self) noexcept nogil
    cdef int64_t _next_turn(self, RefreshGroup *group, int64_t sent_ns) noexcept nogil
    cdef void _remove(self, uint32_t group) noexcept nogil
    cdef void _rise(self, uint32_t place) noexcept nogil
    cdef void _sink(self, uint32_t place) noexcept nogil
    cdef void _put(self, uint32_t group, uint32_t place) noexcept nogil

    # Here, and not beside the others, so that it costs next to nothing where nothing changes.

    cdef inline void suit(self, uint32_t leases) noexcept nogil:
        """Have as many phases as so many leases fill."""
        if not self.fewest <= leases < self.too_many:
            self._change_phases(leases)
