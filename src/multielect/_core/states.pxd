cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from .refresh_groups cimport RefreshGroups
from .events cimport Events
from .holders cimport Holders
from .queues cimport Queues
from .slots cimport Slot, Slots, load_i64
from .timers cimport Timers

cdef int64_t LARGEST_EPOCH      # the largest number that Lua counts exactly

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
    # These are no requests. Error reports use them in place of one:
    ENDLESS = 5             # the lease of another holder has no end
    CLAIM = 6               # the server refused to publish claims
    WAKE_UP = 7             # the server refused to publish wake-ups
    UNENDED = 8             # the server refused to release or grant a lease

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
    FREED = 1               # a wake-up came while an acquire was in flight
    GRANTED = 2             # the lease stands in this node's name

cdef enum Eligibility:
    ELIGIBLE = 0            # this node is to lead the election, and campaigns for it
    STANDBY = 1             # another node is to lead it; this one leads it if it is free
    INELIGIBLE = 2          # this node may not lead it


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
    cdef int64_t retry_step_ns      # the time between two common times for repeated requests
    cdef int64_t retry_phase_ns     # an offset of those times, which differs between nodes
    cdef int64_t grant_ns           # how long a grant lasts, and how long a drain waits for a claim
    cdef uint32_t batch_keys
    cdef uint32_t max_leases
    cdef bint running
    cdef bint by_time               # epochs rise with the server's time
    cdef bint has_floors            # an election may have a floor
    cdef uint32_t population[7]     # the number of elections in each state
    cdef uint32_t draining          # the number of terms that drain
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

    # Inline, as it runs for each refresh.

    @cython.final
    cdef inline bint _is_stalled(self, Slot *slot, int64_t now_ns) noexcept nogil:
        return slot.max_stall_ns != 0 and now_ns - load_i64(&slot.heartbeat_ns) >= slot.max_stall_ns
