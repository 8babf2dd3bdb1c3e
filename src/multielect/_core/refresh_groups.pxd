cimport cython
from libc.stdint cimport int64_t, uint32_t

from .queues cimport Queues
from .slots cimport Slots


cdef struct RefreshGroup:
    int64_t timer_ns        # when it is to be looked at; NEVER: nobody waits for that
    int64_t refresh_ns      # when its timer is to have them refreshed; NEVER: it has none
    int64_t latest_ns       # when its timer must have them refreshed; NEVER: it has none
    int64_t owed_ns         # when those that wait to be sent are due; 0: nobody's timer asked
    uint32_t phase          # its number, the lowest bit first: the upper bits say its phase
    uint32_t place          # in the heap
    uint32_t cursor         # the slot from which it waits to be sent; NONE: it has no slot


@cython.final
cdef class RefreshGroups:
    cdef Queues queues
    cdef Slots slots
    cdef uint32_t batch_keys
    cdef int64_t window_ns          # how long before they are due its leases may be sent
    cdef int64_t cycle_ns           # from one refresh of a refresh group to the next
    cdef int64_t offset_ns          # when the first phase begins
    cdef int64_t due_ns[129]        # by lane, the first that is due of what waits; NEVER: none does
    cdef int phase_bits             # there are as many phases as these bits can number
    cdef uint32_t fewest            # with fewer leases there are to be fewer phases
    cdef uint32_t too_many          # with so many there are to be more
    cdef RefreshGroup *items        # one a bucket
    cdef uint32_t *heap             # those with a timer, the first to ring at the top
    cdef uint32_t timed             # of those in the heap

    cdef int64_t join(self, uint32_t group, int64_t sent_ns) noexcept nogil
    cdef void _change_phases(self, uint32_t leases, int64_t now_ns) noexcept nogil
    cdef void _spread(self, int64_t now_ns) noexcept nogil
    cdef void bring_forward(self, uint32_t group, int64_t at_ns) noexcept nogil
    cdef void set_timer(self, uint32_t group, int64_t at_ns) noexcept nogil
    cdef uint32_t peek_due(self, int64_t now_ns) noexcept nogil
    cdef int64_t next_due_ns(self) noexcept nogil
    cdef void advance(self, uint32_t group, int64_t now_ns, int64_t ends_ns) noexcept nogil
    cdef void enqueue(self, uint32_t group, int64_t owed_ns) noexcept nogil
    cdef void dequeue(self, uint32_t group) noexcept nogil
    cdef void move(self, uint32_t group, uint32_t lane) noexcept nogil
    cdef int64_t _turn_before(self, RefreshGroup *group, int64_t latest) noexcept nogil
    cdef void _remove(self, uint32_t group) noexcept nogil
    cdef void _rise(self, uint32_t place) noexcept nogil
    cdef void _sink(self, uint32_t place) noexcept nogil
    cdef void _put(self, uint32_t group, uint32_t place) noexcept nogil

    # Here, and not beside the others, so that it costs next to nothing where nothing changes.

    cdef inline void fit_phases(self, uint32_t leases, int64_t now_ns) noexcept nogil:
        """Have as many phases as so many leases fill."""
        if not self.fewest <= leases < self.too_many:
            self._change_phases(leases, now_ns)
