cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from .drains cimport Drains
from .lateness cimport Lateness
from .queues cimport ACQUIRES, LOOKS
from .slots cimport NEVER, NONE, Slot, prefetch, store_i64
from .states cimport ACQUIRING, LEADING, REASON_STALLED


cdef struct Asked:          # for whom something was asked of the server
    uint32_t number
    uint32_t serial


@cython.final
cdef class Terms(Drains):
    cdef uint32_t[129] given_up     # by lane, the bucket at which a node that stops goes on
    cdef Lateness lateness
    cdef uint8_t initial_eligibility  # of an election that nobody has assigned yet

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
    cdef int watch(self, uint32_t number) except -1 nogil
    cdef bint _look(self, uint32_t number) noexcept nogil
    cdef void _look_no_more(self) noexcept nogil
    cdef uint32_t count_own_waiting(self, uint32_t first, uint32_t beyond) noexcept nogil
    cdef bint has_room_beside(self, uint32_t own_waiting) noexcept nogil
    cdef void _refresh_now(self, uint32_t number) noexcept nogil
    cdef bint _ask_now(self, uint32_t number) noexcept nogil
    cdef int64_t leases_shortened(self, uint32_t lane, int64_t by_ns,
                                  int64_t now_ns) except -1 nogil
    cdef int ask_again(self, uint32_t lane) except -1 nogil
    cdef int ask_all_again(self) except -1 nogil
    cdef int refresh_all(self, uint32_t lane) except -1 nogil
    cdef int _refresh_bucket(self, uint32_t bucket) except -1 nogil
    cdef void reap(self) noexcept nogil

    cdef uint32_t next_refreshes(self, uint32_t lane, Asked *asked, uint32_t most,
                                 bint one_bucket, int64_t now_ns) except? NONE nogil
    cdef uint32_t _next_of_bucket(self, uint32_t bucket, Asked *asked, uint32_t count,
                                  uint32_t most, int64_t now_ns) except? NONE nogil
    cdef int begin_acquire(self, uint32_t number) except -1 nogil
    cdef bint is_giving_up(self, uint32_t lane) noexcept nogil
    cdef bint leads_still(self) noexcept nogil
    cdef int change_lane(self, uint32_t bucket, uint32_t lane) except -1 nogil
    cdef int64_t next_due_ns(self) noexcept nogil
    cdef int64_t retry_ns(self, int64_t now_ns) noexcept nogil
    cdef int64_t _together_ns(self, int64_t at_ns) noexcept nogil
    cdef bint has_work(self, uint32_t lane) noexcept nogil
    cdef bint has_other_work(self, uint32_t lane) noexcept nogil
    cdef int64_t refresh_due_ns(self, uint32_t lane) noexcept nogil

    cdef int won(self, uint32_t number, int64_t epoch, uint32_t floors, int64_t sent_ns,
                 int64_t now_ns) except -1 nogil
    cdef int _won_oddly(self, uint32_t number, int64_t epoch, uint32_t floors, int64_t sent_ns,
                        int64_t now_ns) except -1 nogil
    cdef int contested(self, uint32_t number, uint32_t holder, bint claimed,
                       int64_t again_ns) except -1 nogil
    cdef bint is_first_seen_endless(self, uint32_t number, uint32_t holder) noexcept nogil
    cdef int acquire_refused(self, uint32_t number, int64_t now_ns) except -1 nogil
    cdef int not_acquired(self, uint32_t number, int64_t again_ns) except -1 nogil
    cdef int mismatched(self, uint32_t number, int64_t now_ns) except -1 nogil
    cdef int not_refreshed(self, uint32_t number, int64_t now_ns,
                           int64_t again_ns) except -1 nogil
    cdef int released(self, uint32_t number) except -1 nogil
    cdef int not_ended(self, uint32_t number) except -1 nogil
    cdef int not_released(self, uint32_t number) except -1 nogil
    cdef int moved_on(self, uint32_t number, int64_t epoch) except -1 nogil

    # Here, and not beside the others, so that they cost no call: they are for each lease.

    cdef inline uint32_t peek_acquire(self, uint32_t lane) noexcept nogil:
        """Return the next election of a lane to stand for, or NONE."""
        if self.population[<int>LEADING] + self.population[<int>ACQUIRING] >= self.max_leases:
            return NONE
        if not self.queues.is_empty(lane, ACQUIRES):
            return self.queues.peek(lane, ACQUIRES)
        return self.queues.peek(lane, LOOKS)

    cdef inline int _goes_on(self, uint32_t number, int64_t now_ns) except -1 nogil:
        """Tell whether a term is to go on; one that is not to is ended."""
        cdef Slot *slot = self.slots.at(number)
        if now_ns >= slot.deadline_ns:
            self._expire(number, now_ns)
            return 0
        if self._is_stalled(slot, now_ns):
            self._demote(number, REASON_STALLED, now_ns)
            return 0
        return 1

    cdef inline void _ask_refresh(self, uint32_t number, Asked *asked) noexcept nogil:
        cdef Slot *slot = self.slots.at(number)
        slot.refreshing = 1
        # It is written once all of the batch are taken.
        prefetch(slot.key)
        asked.number = number
        asked.serial = slot.serial

    cdef inline int refreshed(self, uint32_t number, int64_t sent_ns,
                              int64_t now_ns) except -1 nogil:
        """The server extended the lease; it counts if the term is not over by now."""
        cdef Slot *slot = self.slots.at(number)
        cdef bint was_due
        if now_ns >= slot.deadline_ns:
            return self._expire(number, now_ns)
        store_i64(&slot.deadline_ns, sent_ns + self.ttl_ns - self.margin_ns)
        was_due = slot.refreshing == 2
        slot.refreshing = 0
        if was_due:
            self._refresh_now(number)
        if self.timers.is_set(number) and slot.again:
            self._set_lease_timer(number, NEVER)
        return 0
