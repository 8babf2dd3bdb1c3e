# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""The states of an election on this node, and the functions that change them.

Rules of this file:
    * One function enters each state. All of them call `_enter`, which raises for a change that the
      table below does not allow. No code outside this file changes a state.
    * Each change of state raises the slot's serial. `replies` compares serials, so a reply to a
      request of an older state changes nothing.
    * The deadline is `sent_ns + ttl - margin`. The caller reads `sent_ns` before the bytes of the
      request are written. A term whose deadline has passed is over, whatever is in flight. No later
      reply revives it.
    * When a term begins, its epoch is stored first and its deadline after that. So a reader that
      sees the deadline sees the epoch as well.
    * An election has a floor once an epoch above its term's is known. The floor stays until a term
      begins above it.

        from \\ to      candidate  acquiring  leading  releasing  cooldown  idle  removed
        idle               x                                                       x
        candidate          x          x                                     x      x
        acquiring          x                     x         x                x      x
        leading            x                               x                x
        releasing          x                                         x      x      x
        cooldown           x                                                x      x

    candidate   the election waits for a timer, or in a queue of acquires
    acquiring   an acquire is in flight
    leading     this node has a term; a refresh may be queued or in flight
    releasing   the term has ended; its release is queued or in flight
    cooldown    this node has resigned, and lets other nodes go first for one TTL
    idle        this node is not started, or is stopped
    removed     the election is removed; its slot is freed once its events are taken

    Beside its state a slot has flags. The debug build checks at each turn (`checks`) that no flag
    is set in a state that this table does not name:

        flag               set in                    meaning
        woken              acquiring, candidate      1: a wake-up came while the acquire was in
                                                     flight; 2: the lease stands in this node's
                                                     name, by a grant or as a term ended without a
                                                     release, so this node acquires it even if
                                                     another node is to lead the election
        unwanted           acquiring                 if the acquire wins, release the lease at once
        refreshing         leading                   1: a refresh is in flight; 2: another was due
        again              leading                   the timer has the lease refreshed out of turn
        worker_done        leading, with drain_ns    the draining term's worker is done
        moved              releasing                 the epoch's key is at `floor`, above this epoch
        refusals           all others                how often an acquire was refused in a row
        drain_ns           leading                   when the draining term ends at the latest
        floor              all others                the next term's epoch must be above it
        next_state         acquiring, releasing      the state after an unwanted acquire, or after
                                                     the release
        claimant           all but removed           the node that claimed the latest term's lease
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


LARGEST_EPOCH = (1 << 53) - 1


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
        # Long enough to spread candidates, and short beside a takeover.
        self.jitter_ns = min(ttl_ns // 20, 10_000_000)
        # Long enough for a successor that is alive, and short if it is not.
        self.grant_ns = min(ttl_ns, max(ttl_ns // 3, <int64_t>1_000_000_000))
        self.batch_keys = batch_keys
        self.max_leases = max_leases
        self.by_time = by_time
        self.retry_step_ns = max(self.refresh_ns // 8, <int64_t>1)
        self.retry_phase_ns = <int64_t>(seed % <uint64_t>self.retry_step_ns)
        self.random_state = seed | 1

    # ---- the only functions that write a state

    cdef int _enter(self, uint32_t number, uint8_t state) except -1 nogil:
        cdef Slot *slot = self.slots.at(number)
        if not ALLOWED[slot.state] & (1 << state):
            # A fault of this library: the owner thread ends, and all terms of this node with it.
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
        slot.again = 0
        return 0

    cdef int _enter_candidate_now(self, uint32_t number) except -1 nogil:
        self._enter(number, CANDIDATE)
        self.queues.enqueue(ACQUIRES, number)
        return 0

    cdef int _enter_candidate_holding(self, uint32_t number) except -1 nogil:
        """Have an acquire take over the lease in this node's name, as if it were granted."""
        self._enter_candidate_now(number)
        # So it stays in the queue even if the election is assigned to another node meanwhile.
        self.slots.at(number).woken = GRANTED
        return 0

    cdef int _enter_candidate_at(self, uint32_t number, int64_t again_ns) except -1 nogil:
        self._enter(number, CANDIDATE)
        # An election that another node is to lead waits without a timer, until it is probed.
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
        """Become a candidate again, or idle if this node does not run."""
        if not self.running:
            return self._enter_idle(number)
        if self.slots.at(number).eligibility == ELIGIBLE:
            return self._enter_candidate_now(number)
        return self._enter_candidate_at(number, 0)

    cdef int _leave_release(self, uint32_t number) except -1 nogil:
        cdef Slot *slot = self.slots.at(number)
        slot.mark.refusals = 0
        if slot.phase.floor == LARGEST_EPOCH:
            # No epoch is above it, so somebody set the key by mistake, and may delete it.
            slot.phase.floor = 0
        if slot.next_state == REMOVED:
            return self._enter_removed(number)
        if slot.next_state == IDLE or not self.running:
            return self._enter_idle(number)
        if slot.next_state == CANDIDATE:
            return self._campaign(number)
        # The last timer was set for the end of the lease, which is when the cooldown ends.
        return self._enter_cooldown(number, slot.due_ns)

    cdef int _demote(self, uint32_t number, uint8_t reason, int64_t now_ns) except -1 nogil:
        """End the current term at `now_ns`, and enter the state that follows `reason`."""
        cdef Slot *slot = self.slots.at(number)
        cdef int64_t deadline_ns = slot.deadline_ns
        cdef int64_t ended_ns = now_ns if now_ns < deadline_ns else deadline_ns
        store_i64(&slot.deadline_ns, 0)
        self.draining -= slot.phase.drain_ns != 0
        slot.phase.floor = 0
        slot.mark.refusals = 0
        self.events.demoted(number, slot.epoch, reason, ended_ns)
        if reason == REASON_EXPIRED or reason == REASON_LOST:
            # The lease may still stand in this node's name. The acquire takes it over then.
            return self._campaign(number)
        if reason == REASON_SUPERSEDED and self.running:
            # The lease may stand in this node's name for long, and no other node can take it. The
            # server would not release it under the old epoch. So an acquire takes it over, even if
            # another node is to lead the election.
            return self._enter_candidate_holding(number)
        if reason == REASON_RESIGNED or reason == REASON_STALLED:
            return self._enter_releasing(number, now_ns + self.ttl_ns, COOLDOWN)
        if reason == REASON_REBALANCED and slot.eligibility == ELIGIBLE:
            # The election was assigned to this node again. The acquire takes over its lease.
            return self._enter_candidate_holding(number)
        if reason == REASON_REBALANCED or reason == REASON_DRAINED:
            return self._enter_releasing(number, deadline_ns + self.margin_ns, CANDIDATE)
        return self._enter_releasing(number, deadline_ns + self.margin_ns,
                                     REMOVED if reason == REASON_REMOVED else IDLE)

    cdef void _set_lease_timer(self, uint32_t number, int64_t again_ns) noexcept nogil:
        """Set the slot's own timer for what its refresh group does not do.

        That is: refresh the lease out of turn at `again_ns` (NEVER: not at all), check for a stall
        of the worker, and end a drain.
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
        """Set the slot's timer for the end of the drain, if it does not ring before."""
        # A timer that was set for another purpose may then ring for nothing.
        cdef Slot *slot = self.slots.at(number)
        if not self.timers.is_set(number) or slot.phase.drain_ns < slot.due_ns:
            self.timers.set(number, slot.phase.drain_ns)

    cdef int _expire(self, uint32_t number, int64_t now_ns) except -1 nogil:
        return self._demote(number, REASON_EXPIRED, now_ns)

    cdef void _raise_floor(self, uint32_t number, int64_t epoch) noexcept nogil:
        """Have the next term begin above `epoch`. The election has no term now."""
        cdef Slot *slot = self.slots.at(number)
        slot.phase.floor = max(slot.phase.floor, epoch)
        self.has_floors = True

    cdef void _enqueue_release(self, uint32_t number) noexcept nogil:
        # If the successor has not claimed the election, it may not be alive to take a grant. A node
        # that stops grants all the same: else all nodes would contest all its elections at once.
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
