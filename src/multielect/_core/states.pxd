cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from .refresh_groups cimport RefreshGroups
from .events cimport Events
from .holders cimport Holders
from .queues cimport Queues
from .slots cimport Slot, Slots, load_i64
from .timers cimport Timers

cdef enum State:
    IDLE = 0
    CANDIDATE = 1
    ACQUIRING = 2
    LEADING = 3
    RELEASING = 4
    COOLDOWN = 5
    REMOVED = 6
    STATES = 7

cdef enum Request:
    ACQUIRE = 0
    REFRESH = 1
    RELEASE = 2
    GRANT = 3
    MEMBERSHIP = 4
    REQUESTS = 5
    # No requests, but of what is reported:
    ENDLESS = 5             # another's lease has no end
    CLAIM = 6               # leaders cannot be told of claims
    WAKE_UP = 7             # nobody can be told that leases were given up
    UNENDED = 8             # a lease could not be given up

cdef enum Reason:
    NO_REASON = 0
    REASON_RESIGNED = 1
    REASON_REMOVED = 2
    REASON_EXPIRED = 3
    REASON_LOST = 4
    REASON_STOPPED = 5
    REASON_STALLED = 6
    REASON_REBALANCED = 7
    REASON_DRAINED = 8
    REASON_SUPERSEDED = 9

cdef enum Woken:
    FREED = 1               # it was set free while an acquire was in flight
    GRANTED = 2             # its lease stands in this node's name

cdef enum Eligibility:
    ELIGIBLE = 0            # this node is to lead it, and stands for it
    STANDBY = 1             # another is to lead it: looks now and then whether it is free
    INELIGIBLE = 2          # this node is not to lead it, whoever does


cdef class States:
    cdef Slots slots
    cdef Timers timers
    cdef Queues queues
    cdef RefreshGroups refresh_groups
    cdef Events events
    cdef Holders holders
    cdef int64_t ttl_ns
    cdef int64_t margin_ns
    cdef int64_t refresh_ns
    cdef int64_t jitter_ns
    cdef int64_t retry_step_ns      # what is refused is tried again together, so often
    cdef int64_t retry_phase_ns     # and not when other nodes do
    cdef int64_t grant_ns           # how long a grant lasts, and a claim is waited for
    cdef uint32_t batch_keys
    cdef uint32_t max_leases
    cdef bint running
    cdef bint by_time               # epochs rise with the server's time
    cdef bint has_floors            # some election may have one
    cdef uint32_t population[7]
    cdef uint32_t draining          # terms that are
    cdef uint64_t random_state

    cdef int _enter(self, uint32_t number, uint8_t state) except -1 nogil
    cdef int _enter_candidate_now(self, uint32_t number) except -1 nogil
    cdef int _enter_candidate_holding(self, uint32_t number) except -1 nogil
    cdef int _enter_candidate_at(self, uint32_t number, int64_t again_ns) except -1 nogil
    cdef int _enter_acquiring(self, uint32_t number) except -1 nogil
    cdef int _enter_leading(self, uint32_t number, int64_t epoch, int64_t sent_ns,
                            int64_t now_ns) except -1 nogil
    cdef int _enter_releasing(self, uint32_t number, int64_t lease_end_ns,
                              uint8_t next_state) except -1 nogil
    cdef int _enter_cooldown(self, uint32_t number, int64_t until_ns) except -1 nogil
    cdef int _enter_idle(self, uint32_t number) except -1 nogil
    cdef int _enter_removed(self, uint32_t number) except -1 nogil
    cdef int _campaign(self, uint32_t number) except -1 nogil
    cdef int _leave_release(self, uint32_t number) except -1 nogil
    cdef int _demote(self, uint32_t number, uint8_t reason, int64_t now_ns) except -1 nogil
    cdef int _expire(self, uint32_t number, int64_t now_ns) except -1 nogil
    cdef void _raise_floor(self, uint32_t number, int64_t epoch) noexcept nogil
    cdef void _set_lease_timer(self, uint32_t number, int64_t again_ns) noexcept nogil
    cdef void _advance_lease_timer(self, uint32_t number) noexcept nogil
    cdef bint _is_claimed(self, uint32_t number) noexcept nogil
    cdef void _enqueue_release(self, uint32_t number) noexcept nogil
    cdef void _set_holder(self, uint32_t number, uint32_t holder) noexcept nogil
    cdef void _set_reference(self, uint32_t *place, uint32_t holder) noexcept nogil
    cdef int64_t random_below(self, int64_t bound) noexcept nogil

    # Here, and not beside the others, so that it costs no call: it is asked for each refresh.

    @cython.final
    cdef inline bint _is_stalled(self, Slot *slot, int64_t now_ns) noexcept nogil:
        return slot.max_stall_ns != 0 and now_ns - load_i64(&slot.heartbeat_ns) >= slot.max_stall_ns
