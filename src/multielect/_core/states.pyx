# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""The states of an election on this node, and who changes them.

Rules of this file:
    * One function writes each state, all through `_enter`, which knows the changes there
      are; any other change raises. Nothing outside this file changes a state.
    * A change of state raises the slot's serial, so that a reply to what was asked in an
      older state is recognised as void by whoever sent it.
    * The deadline is `sent_ns + ttl - margin`, `sent_ns` having been read before the bytes
      of the request were written. A term whose deadline has passed is over, whatever is
      still in flight: a later reply cannot bring it back.
    * A term begins with the epoch stored first and the deadline after it, so that a
      reader who sees the deadline sees its epoch.
    * Once an epoch is known to be newer than a term's, the election has a floor. It stays until a
      term begins above it.

        from \\ to      candidate  acquiring  leading  releasing  cooldown  idle  removed
        idle               x                                                       x
        candidate          x          x                                     x      x
        acquiring          x                     x         x                x      x
        leading            x                               x                x
        releasing          x                                         x      x      x
        cooldown           x                                                x      x

    candidate   waits to be elected: until a timer, or in the queue of acquires
    acquiring   an acquire is in flight
    leading     holds the lease; a refresh may be queued or in flight
    releasing   has given the term up; the release is queued or in flight
    cooldown    has resigned, and lets other nodes go first for one TTL
    idle        not started, or stopped
    removed     taken out of the group; its slot is freed once its events are taken

    Beside its state a slot has flags. The debug build checks at each turn (`checks`) that none is
    set in another state than here:

        flag               set in                    meaning
        woken              acquiring, candidate      1: it was set free while the acquire was in
                                                     flight; 2: the lease stands in this node's
                                                     name, as it was granted to it or its term was
                                                     ended without a release: this node asks for it
                                                     whoever is to lead it
        unwanted           acquiring                 the acquire is to be released if it wins
        refreshing         leading                   1: a refresh is in flight; 2: another was due
        again              leading                   its timer is to have it refreshed out of turn
        drained            leading, with drain_ns    the draining term's worker is done
        moved              releasing                 the counter is at `floor`, not at this epoch
        refusals           all others                how often an acquire was refused in a row
        drain_ns           leading                   when the draining term ends at the latest
        floor              all others                the next term's epoch must be above it
        next_state         acquiring, releasing      what follows an acquire that is not wanted, or
                                                     a release
        claimant           all but removed           who asked in vain for the latest term's lease
        undelivered_drain  leading                   the event that it drains has not been taken
        endless            any                       the lease of `holder` was reported as endless
        unassigned         any, without a successor  no node is to lead it
        forgotten          removed, or on its way    it is not in the index any more
"""

from .queues cimport ACQUIRES, GRANTS, REAPED, RELEASES
from .slots cimport NEVER, NONE, load_i64, store_i64

cdef uint8_t[7] ALLOWED
ALLOWED[<int>IDLE] = 1 << CANDIDATE | 1 << REMOVED
ALLOWED[<int>CANDIDATE] = 1 << CANDIDATE | 1 << ACQUIRING | 1 << IDLE | 1 << REMOVED
ALLOWED[<int>ACQUIRING] = 1 << CANDIDATE | 1 << LEADING | 1 << RELEASING | 1 << IDLE | 1 << REMOVED
ALLOWED[<int>LEADING] = 1 << CANDIDATE | 1 << RELEASING | 1 << IDLE
ALLOWED[<int>RELEASING] = 1 << CANDIDATE | 1 << COOLDOWN | 1 << IDLE | 1 << REMOVED
ALLOWED[<int>COOLDOWN] = 1 << CANDIDATE | 1 << IDLE | 1 << REMOVED
ALLOWED[<int>REMOVED] = 0

STATE_NAMES = ("idle", "candidate", "acquiring", "leading", "releasing", "cooldown", "removed")


cdef class States:
    """The elections of a node, each in one state."""

    def __cinit__(self, *, int64_t now_ns, int64_t ttl_ns, int64_t margin_ns, bint by_time,
                  uint32_t batch_keys, uint32_t max_leases, uint64_t seed, uint32_t buckets):
        self.slots = Slots(<uint32_t>seed, buckets)
        self.timers = Timers(self.slots, now_ns)
        self.queues = Queues(self.slots, buckets)
        self.events = Events(self.slots)
        self.holders = Holders()
        self.ttl_ns = ttl_ns
        self.margin_ns = margin_ns
        self.refresh_ns = ttl_ns // 3
        self.refresh_groups = RefreshGroups(self.queues, batch_keys, self.refresh_ns, seed, now_ns)
        # Enough to spread candidates apart, little beside a takeover.
        self.jitter_ns = min(ttl_ns // 20, 10_000_000)
        # Long enough for a successor that is there, short for one that is not.
        self.grant_ns = min(ttl_ns, max(ttl_ns // 3, <int64_t>1_000_000_000))
        self.batch_keys = batch_keys
        self.max_leases = max_leases
        self.by_time = by_time
        self.retry_step_ns = max(self.refresh_ns // 8, <int64_t>1)
        self.retry_phase_ns = <int64_t>(seed % <uint64_t>self.retry_step_ns)
        self.random_state = seed | 1

    # ---- the only writers of a state

    cdef int _enter(self, uint32_t number, uint8_t state) except -1 nogil:
        cdef Slot *slot = self.slots.at(number)
        if not ALLOWED[slot.state] & (1 << state):
            # A fault of ours: the owner thread ends, and with it all that this node leads.
            with gil:
                raise AssertionError(
                    f"an election cannot go from {STATE_NAMES[slot.state]} to {STATE_NAMES[state]}")
        if self.timers.is_set(number):
            self.timers.cancel(number)
        if self.queues.is_queued(number):
            self.queues.dequeue(number)
        self.population[slot.state] -= 1
        self.population[state] += 1
        if slot.state == LEADING or state == LEADING:
            self.queues.count_leading(slot.bucket, 1 if state == LEADING else -1)
        slot.state = state
        slot.serial += 1
        slot.woken = 0
        slot.unwanted = 0
        slot.refreshing = 0
        return 0

    cdef int _enter_candidate_now(self, uint32_t number) except -1 nogil:
        self._enter(number, CANDIDATE)
        self.queues.enqueue(ACQUIRES, number)
        return 0

    cdef int _enter_candidate_holding(self, uint32_t number) except -1 nogil:
        """Have an acquire take over the lease that stands in this node's name, as if granted."""
        self._enter_candidate_now(number)
        # So it stays in the queue where it is assigned to another meanwhile.
        self.slots.at(number).woken = GRANTED
        return 0

    cdef int _enter_candidate_at(self, uint32_t number, int64_t again_ns) except -1 nogil:
        self._enter(number, CANDIDATE)
        # What another is to lead waits without a timer, until somebody looks.
        if self.slots.at(number).eligibility == ELIGIBLE:
            self.timers.set(number, again_ns)
        return 0

    cdef int _enter_acquiring(self, uint32_t number) except -1 nogil:
        self._enter(number, ACQUIRING)
        self.slots.at(number).next_state = CANDIDATE
        return 0

    cdef int _enter_leading(self, uint32_t number, int64_t epoch, int64_t sent_ns,
                            int64_t now_ns) except -1 nogil:
        cdef Slot *slot = self.slots.at(number)
        cdef int64_t deadline_ns = sent_ns + self.ttl_ns - self.margin_ns
        self._enter(number, LEADING)
        self._set_holder(number, NONE)
        self.events.elected(number, epoch, now_ns)
        slot.phase.drain_ns = 0
        slot.mark.worker_done = 0
        self._set_reference(&slot.claimant, NONE)
        store_i64(&slot.heartbeat_ns, now_ns)
        store_i64(&slot.epoch, epoch)
        store_i64(&slot.deadline_ns, deadline_ns)
        self.refresh_groups.fit_phases(self.population[<int>LEADING], now_ns)
        self.refresh_groups.bring_forward(slot.bucket, min(
            self.refresh_groups.join(slot.bucket, sent_ns), deadline_ns))
        self._set_lease_timer(number, NEVER)
        return 0

    cdef int _enter_releasing(self, uint32_t number, int64_t lease_end_ns,
                              uint8_t next_state) except -1 nogil:
        self._enter(number, RELEASING)
        self.slots.at(number).next_state = next_state
        self.slots.at(number).mark.moved = 0
        self.timers.set(number, lease_end_ns)
        self._enqueue_release(number)
        return 0

    cdef int _enter_cooldown(self, uint32_t number, int64_t until_ns) except -1 nogil:
        self._enter(number, COOLDOWN)
        self.timers.set(number, until_ns)
        return 0

    cdef int _enter_idle(self, uint32_t number) except -1 nogil:
        return self._enter(number, IDLE)

    cdef int _enter_removed(self, uint32_t number) except -1 nogil:
        self._enter(number, REMOVED)
        self._set_holder(number, NONE)
        self._set_reference(&self.slots.at(number).successor, NONE)
        self._set_reference(&self.slots.at(number).claimant, NONE)
        self.queues.enqueue(REAPED, number)
        return 0

    # ---- common steps

    cdef int _campaign(self, uint32_t number) except -1 nogil:
        """Stand for election again, if this node is to."""
        if not self.running:
            return self._enter_idle(number)
        if self.slots.at(number).eligibility == ELIGIBLE:
            return self._enter_candidate_now(number)
        return self._enter_candidate_at(number, 0)

    cdef int _leave_release(self, uint32_t number) except -1 nogil:
        cdef Slot *slot = self.slots.at(number)
        slot.mark.refusals = 0
        if slot.next_state == REMOVED:
            return self._enter_removed(number)
        if slot.next_state == IDLE or not self.running:
            return self._enter_idle(number)
        if slot.next_state == CANDIDATE:
            return self._campaign(number)
        # Where the release was sent, its term's end is the last timer that was set.
        return self._enter_cooldown(number, slot.due_ns)

    cdef int _demote(self, uint32_t number, uint8_t reason, int64_t now_ns) except -1 nogil:
        """End the current term at `now_ns`, and go on as `reason` says."""
        cdef Slot *slot = self.slots.at(number)
        cdef int64_t deadline_ns = slot.deadline_ns
        cdef int64_t ended_ns = now_ns if now_ns < deadline_ns else deadline_ns
        store_i64(&slot.deadline_ns, 0)
        self.draining -= slot.phase.drain_ns != 0
        slot.phase.floor = 0
        slot.mark.refusals = 0
        self.events.demoted(number, slot.epoch, reason, ended_ns)
        if reason == REASON_EXPIRED or reason == REASON_LOST:
            # The lease may still stand in our name: then acquire takes it over.
            return self._campaign(number)
        if reason == REASON_SUPERSEDED and self.running:
            # The lease may be ours for long, and nobody else could take it. It cannot be released
            # under the old epoch: so acquire takes it over, whoever is to lead it.
            return self._enter_candidate_holding(number)
        if reason == REASON_RESIGNED or reason == REASON_STALLED:
            return self._enter_releasing(number, now_ns + self.ttl_ns, COOLDOWN)
        if reason == REASON_REBALANCED and slot.eligibility == ELIGIBLE:
            # It was assigned to this node again: acquire takes over what stands in its name.
            return self._enter_candidate_holding(number)
        if reason == REASON_REBALANCED or reason == REASON_DRAINED:
            return self._enter_releasing(number, deadline_ns + self.margin_ns, CANDIDATE)
        return self._enter_releasing(number, deadline_ns + self.margin_ns,
                                     REMOVED if reason == REASON_REMOVED else IDLE)

    cdef void _set_lease_timer(self, uint32_t number, int64_t again_ns) noexcept nogil:
        """Let the slot's own timer ring when there is something that its refresh group does not do.

        That is: ask the server again at `again_ns` (NEVER: not out of turn), see whether the
        worker goes on, end a drain.
        """
        cdef Slot *slot = self.slots.at(number)
        cdef int64_t due_ns = again_ns
        slot.again = again_ns != NEVER
        if slot.max_stall_ns != 0:
            due_ns = min(due_ns, load_i64(&slot.heartbeat_ns) + slot.max_stall_ns)
        if slot.phase.drain_ns != 0:
            due_ns = min(due_ns, slot.phase.drain_ns)
        if due_ns == NEVER:
            self.timers.cancel(number)
        elif slot.due_ns != due_ns or not self.timers.is_set(number):
            self.timers.set(number, due_ns)

    cdef void _advance_lease_timer(self, uint32_t number) noexcept nogil:
        """The term drains, or is to for less long: set its timer accordingly."""
        # One that was set for something else may ring for nothing.
        cdef Slot *slot = self.slots.at(number)
        if not self.timers.is_set(number) or slot.phase.drain_ns < slot.due_ns:
            self.timers.set(number, slot.phase.drain_ns)

    cdef int _expire(self, uint32_t number, int64_t now_ns) except -1 nogil:
        return self._demote(number, REASON_EXPIRED, now_ns)

    cdef void _raise_floor(self, uint32_t number, int64_t epoch) noexcept nogil:
        """Have the next term begin above `epoch`; there is none now."""
        cdef Slot *slot = self.slots.at(number)
        slot.phase.floor = max(slot.phase.floor, epoch)
        self.has_floors = True

    cdef void _enqueue_release(self, uint32_t number) noexcept nogil:
        # Without a claim nobody may be there to take a grant; at a stop it is tried all the same,
        # as all of its elections would else be contested by all nodes at once.
        cdef Slot *slot = self.slots.at(number)
        if self._is_claimed(number) or (slot.successor != NONE and slot.next_state == IDLE):
            self.queues.enqueue(GRANTS, number)
        else:
            self.queues.enqueue(RELEASES, number)

    cdef bint _is_claimed(self, uint32_t number) noexcept nogil:
        cdef Slot *slot = self.slots.at(number)
        return slot.successor != NONE and slot.claimant == slot.successor

    cdef void _set_holder(self, uint32_t number, uint32_t holder) noexcept nogil:
        self._set_reference(&self.slots.at(number).holder, holder)

    cdef void _set_reference(self, uint32_t *place, uint32_t holder) noexcept nogil:
        if holder != NONE:
            self.holders.keep(holder)
        self.holders.drop(place[0])
        place[0] = holder

    cdef int64_t random_below(self, int64_t bound) noexcept nogil:
        # xorshift64* (Vigna, 2016), from the seed that the caller gave.
        self.random_state ^= self.random_state >> 12
        self.random_state ^= self.random_state << 25
        self.random_state ^= self.random_state >> 27
        if bound <= 0:
            return 0
        return <int64_t>((self.random_state * <uint64_t>0x2545F4914F6CDD1D >> 1) % <uint64_t>bound)
