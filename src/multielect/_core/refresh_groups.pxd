cimport cython
from libc.stdint cimport int64_t, uint32_t

from .queues cimport Queues
from .slots cimport Slots


cdef struct RefreshGroup:
    int64_t timer_ns        # when the timer rings; NEVER: it is not set
    int64_t refresh_ns      # when to refresh the leases; NEVER: the group has none
    int64_t latest_ns       # when to refresh them at the latest; NEVER: the group has none
    int64_t owed_ns         # when the leases that wait to be sent are due; 0: they are out of turn
    uint32_t phase          # the group's number, its bits reversed: the upper bits are its phase
    uint32_t place          # in the heap
    uint32_t cursor         # the first slot that is not sent yet; NONE: the bucket has no slot


@cython.final
cdef class RefreshGroups:
    cdef Queues queues
    cdef Slots slots
    cdef uint32_t batch_keys
    cdef int64_t window_ns          # how long before they are due leases may be sent
    cdef int64_t cycle_ns           # the time between two refreshes of a group
    cdef int64_t offset_ns          # the time of the first phase in a cycle
    cdef int64_t due_ns[129]        # by lane, when the first waiting group is due; NEVER: none
    cdef int phase_bits             # the binary logarithm of the number of phases
    cdef uint32_t fewest            # with fewer leases than this there are fewer phases
    cdef uint32_t too_many          # with this many leases there are more phases
    cdef RefreshGroup *items        # one for each bucket
    cdef uint32_t *heap             # the groups with a timer, the next to ring at the top
    cdef uint32_t timed             # the number of groups in the heap

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

    # Inline, so that it costs next to nothing while nothing changes.

    cdef inline void fit_phases(self, uint32_t leases, int64_t now_ns) noexcept nogil:
        """Have as many phases as this number of leases fills."""
        if not self.fewest <= leases < self.too_many:
            self._change_phases(leases, now_ns)
