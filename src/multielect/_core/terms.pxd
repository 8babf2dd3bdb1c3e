cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from .lateness cimport Lateness
from .outcomes cimport Outcomes
from .queues cimport ACQUIRES, PROBES
from .slots cimport NEVER, NONE, Slot, prefetch, store_i64
from .states cimport ACQUIRING, LEADING, REASON_STALLED


cdef struct BatchEntry:     # an election in a batch
    uint32_t number
    uint32_t serial         # the slot's when the batch was packed


@cython.final
cdef class Terms(Outcomes):
    cdef uint32_t[129] given_up     # by lane, the bucket with which `give_up` continues
    cdef Lateness lateness
    cdef uint8_t initial_eligibility  # of an election that is not assigned yet

    cdef int start(self) except -1 nogil
    cdef int stop(self) except -1 nogil
    cdef int give_up(self, uint32_t lane, uint32_t most, int64_t now_ns) except -1 nogil
    cdef uint32_t _give_up_bucket(self, uint32_t bucket, uint32_t most,
                                  int64_t now_ns) except? NONE nogil
    cdef int add(self, uint32_t number) except -1 nogil
    cdef int remove(self, uint32_t number, int64_t now_ns) except -1 nogil
    cdef int resign(self, uint32_t number, int64_t now_ns) except -1 nogil
    cdef int campaign(self, uint32_t number) except -1 nogil
    cdef int learn_epoch(self, uint32_t number, int64_t epoch, int64_t now_ns) except -1 nogil
    cdef int on_timers(self, int64_t now_ns) except -1 nogil
    cdef int _on_refresh_group_timer(self, uint32_t refresh_group, int64_t now_ns) except -1 nogil
    cdef int _on_lease_timer(self, uint32_t number, int64_t now_ns) except -1 nogil
    cdef int wake(self, uint32_t number, bint granted) except -1 nogil
    cdef int probe(self, uint32_t number) except -1 nogil
    cdef bint _probe(self, uint32_t number) noexcept nogil
    cdef void _drop_probes(self) noexcept nogil
    cdef uint32_t count_own_waiting(self, uint32_t first, uint32_t beyond) noexcept nogil
    cdef bint has_room_beside(self, uint32_t own_waiting) noexcept nogil
    cdef bint _acquire_now(self, uint32_t number) noexcept nogil
    cdef int64_t shorten_leases(self, uint32_t lane, int64_t by_ns,
                                int64_t now_ns) except -1 nogil
    cdef int64_t shorten_bucket(self, uint32_t bucket, int64_t by_ns,
                                int64_t now_ns) except -1 nogil
    cdef int acquire_all(self, uint32_t lane) except -1 nogil
    cdef int acquire_all_lanes(self) except -1 nogil
    cdef int refresh_all(self, uint32_t lane) except -1 nogil
    cdef int _refresh_bucket(self, uint32_t bucket) except -1 nogil
    cdef void reap(self) noexcept nogil

    cdef uint32_t next_refreshes(self, uint32_t lane, BatchEntry *entries, uint32_t most,
                                 bint one_bucket, int64_t now_ns) except? NONE nogil
    cdef uint32_t _next_of_bucket(self, uint32_t bucket, BatchEntry *entries, uint32_t count,
                                  uint32_t most, int64_t now_ns) except? NONE nogil
    cdef int begin_acquire(self, uint32_t number) except -1 nogil
    cdef bint has_to_give_up(self, uint32_t lane) noexcept nogil
    cdef bint has_to_give_up_any(self) noexcept nogil
    cdef int change_lane(self, uint32_t bucket, uint32_t lane) except -1 nogil
    cdef int64_t next_due_ns(self) noexcept nogil
    cdef bint has_work(self, uint32_t lane) noexcept nogil
    cdef bint has_other_work(self, uint32_t lane) noexcept nogil
    cdef int64_t refresh_due_ns(self, uint32_t lane) noexcept nogil

    # Inline, as they run for each lease.

    cdef inline uint32_t peek_acquire(self, uint32_t lane) noexcept nogil:
        """Return the next election of a lane to be acquired, or NONE."""
        if self.population[<int>LEADING] + self.population[<int>ACQUIRING] >= self.max_leases:
            return NONE
        if not self.queues.is_empty(lane, ACQUIRES):
            return self.queues.peek(lane, ACQUIRES)
        return self.queues.peek(lane, PROBES)

    cdef inline int _goes_on(self, uint32_t number, int64_t now_ns) except -1 nogil:
        """End a term that is overdue or stalled. Returns whether the term goes on."""
        cdef Slot *slot = self.slots.at(number)
        if now_ns >= slot.deadline_ns:
            self._expire(number, now_ns)
            return 0
        if self._is_stalled(slot, now_ns):
            self._demote(number, REASON_STALLED, now_ns)
            return 0
        return 1

    cdef inline void _begin_refresh(self, uint32_t number, BatchEntry *entry) noexcept nogil:
        cdef Slot *slot = self.slots.at(number)
        slot.refreshing = 1
        # The key is written when the batch is complete.
        prefetch(slot.key)
        entry.number = number
        entry.serial = slot.serial
