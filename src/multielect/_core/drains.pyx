# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""Terms that this node hands over to another: when it does so, and to which node.

Rules of this file:
    * A term begins to drain when this node's assignment names a successor and that same successor
      has claimed the election. So this node hands nothing to a node that would not take it, and
      nodes that see different fleets for a moment move no term.
    * A term that drains goes on and is refreshed. It ends when its worker is done or its time is
      up, whichever comes first, and never before the drain was reported.
    * When the worker is done, nobody works on the election any more. So the term then waits only
      for its successor's claim, and no longer than a grant lasts. If no other node is to lead the
      election, it does not wait at all.
    * This node grants the lease of a term that it hands over to the successor: see grant.lua. If
      the successor has not claimed the election, this node tells all nodes that it is free.
    * A node's own share comes first. If the node has no room for it, a term that is no node's share
      drains without a claim. So does a term that is another node's share, if that node has not
      claimed it within a TTL: that node may have no room either.
    * No drain is cancelled. If the election is assigned to this node again, the term ends all the
      same, and this node leads the next term as well.
"""

from .queues cimport ACQUIRES
from .slots cimport NONE, QUEUE, Slot
from .states cimport (CANDIDATE, ELIGIBLE, GRANTED, INELIGIBLE, LEADING, REASON_DRAINED,
                      REASON_REBALANCED)

cdef int64_t BURST_NS = 1_000_000_000


cdef class Drains(States):
    """States, and the handover of terms."""

    cdef int assign(self, uint32_t number, uint8_t eligibility, uint32_t successor,
                    int64_t now_ns) except -1 nogil:
        """Take note of which node is to lead: this node, `successor`, or no node."""
        cdef Slot *slot = self.slots.at(number)
        slot.eligibility = INELIGIBLE if self.retiring else eligibility
        # An assignment to this node may be older than its retirement, so it leaves the election
        # assigned.
        slot.unassigned = successor == NONE and eligibility != ELIGIBLE
        self._set_reference(&slot.successor, successor)
        if slot.state == CANDIDATE:
            if slot.eligibility != ELIGIBLE:
                self._stop_campaigning(number)
            elif slot.links[QUEUE].list != ACQUIRES and not self.timers.is_set(number):
                return self._enter_candidate_now(number)
        elif slot.state == LEADING:
            return self.consider_drain(number, now_ns)
        return 0

    cdef int claimed(self, uint32_t number, uint32_t claimant, int64_t now_ns) except -1 nogil:
        """Take note that `claimant` claimed the election while this node leads it."""
        cdef Slot *slot = self.slots.at(number)
        if slot.state != LEADING:
            return 0
        # A node that sees an old membership may claim an election after its successor did. The
        # successor's claim stays.
        if claimant == slot.successor or not self._is_claimed(number):
            self._set_reference(&slot.claimant, claimant)
        return self.consider_drain(number, now_ns)

    cdef int retire(self, bint alone, int64_t until_ns, int64_t now_ns) except -1 nogil:
        """Campaign for nothing any more, and drain all terms, until `until_ns` at the latest."""
        cdef uint32_t number
        cdef Slot *slot
        self.retiring = True
        self.alone = alone
        for number in range(self.slots.used):
            slot = self.slots.at(number)
            if slot.key == NULL:
                continue
            slot.eligibility = INELIGIBLE
            if slot.state == CANDIDATE:
                self._stop_campaigning(number)
            elif slot.state == LEADING and slot.phase.drain_ns == 0:
                self._begin_drain(number, until_ns, now_ns)
            elif slot.state == LEADING and until_ns < slot.phase.drain_ns:
                slot.phase.drain_ns = until_ns
                self._advance_lease_timer(number)
        return 0

    cdef void _stop_campaigning(self, uint32_t number) noexcept nogil:
        self.timers.cancel(number)
        if self.slots.at(number).woken != GRANTED:
            self.queues.dequeue(number)

    cdef int finish_drain(self, uint32_t number, int64_t now_ns) except -1 nogil:
        """Take note that the worker is done. Returns whether the term was draining."""
        cdef Slot *slot = self.slots.at(number)
        if slot.state != LEADING or slot.phase.drain_ns == 0 or slot.mark.worker_done:
            return 0
        if now_ns >= slot.deadline_ns:
            self._expire(number, now_ns)
            return 0
        slot.mark.worker_done = 1
        self._end_drain(number, now_ns)
        return 1

    cdef int consider_drain(self, uint32_t number, int64_t now_ns) except -1 nogil:
        """Begin the drain of a term that its successor has claimed, or end its drain."""
        cdef Slot *slot = self.slots.at(number)
        if slot.phase.drain_ns != 0:
            # The worker may have been done before the successor claimed the election or was known.
            return self._end_drain(number, now_ns) if slot.mark.worker_done else 0
        if (slot.eligibility != ELIGIBLE and self._is_claimed(number)
                and now_ns < slot.deadline_ns and self._may_move(now_ns)):
            return self._begin_drain(number, now_ns + self.drain_ns, now_ns)
        return 0

    cdef int64_t count_crowded_out(self, int64_t now_ns) noexcept nogil:
        """Return how many of this node's waiting acquires it has no room for."""
        cdef int64_t room = (<int64_t>self.max_leases - self.population[<int>LEADING]
                             + self.draining)
        cdef int64_t count = <int64_t>self.queues.counts[<int>ACQUIRES] - room
        if count <= 0:
            self.crowded_ns = 0
        elif self.crowded_ns == 0:
            self.crowded_ns = now_ns
        return count

    cdef bint make_room(self, uint32_t number, int64_t now_ns) except -1 nogil:
        """Begin the drain of a term that is not this node's share. Returns whether it did."""
        cdef Slot *slot = self.slots.at(number)
        if (slot.state != LEADING or slot.eligibility == ELIGIBLE or slot.phase.drain_ns != 0
                or not (slot.unassigned or now_ns - self.crowded_ns >= self.ttl_ns)
                or not self._may_move(now_ns)):
            return False
        self._begin_drain(number, now_ns + self.drain_ns, now_ns)
        return True

    cdef int hand_over(self, uint32_t number, int64_t now_ns) except -1 nogil:
        """End a draining term, so that its successor can lead."""
        return self._demote(number, REASON_DRAINED if self.retiring else REASON_REBALANCED, now_ns)

    cdef int _begin_drain(self, uint32_t number, int64_t until_ns, int64_t now_ns) except -1 nogil:
        cdef Slot *slot = self.slots.at(number)
        slot.phase.drain_ns = until_ns
        self.draining += 1
        if self.notifies_drains:
            self.events.draining(number, slot.epoch, until_ns)
            self._advance_lease_timer(number)
            return 0
        slot.mark.worker_done = 1
        return self._end_drain(number, now_ns)

    cdef int _end_drain(self, uint32_t number, int64_t now_ns) except -1 nogil:
        """The worker is done: hand the term over, now or when its successor claims it."""
        cdef Slot *slot = self.slots.at(number)
        if self._may_end(number):
            return self.hand_over(number, now_ns)
        if slot.successor != NONE and now_ns + self.grant_ns < slot.phase.drain_ns:
            slot.phase.drain_ns = now_ns + self.grant_ns
        self._advance_lease_timer(number)
        return 0

    cdef bint _may_end(self, uint32_t number) noexcept nogil:
        # Without the successor's claim, the election would only be longer without a leader.
        cdef Slot *slot = self.slots.at(number)
        return (not self.balanced or self.alone or slot.unassigned or self._is_claimed(number)
                or slot.eligibility == ELIGIBLE)

    cdef bint _may_move(self, int64_t now_ns) noexcept nogil:
        # The generic cell rate algorithm (ITU-T I.371) spreads moves evenly, and allows those of
        # one second at once. A move that must wait is tried again with the next refresh.
        if self.move_ns == 0:
            return True
        if self.moves_until_ns < now_ns - BURST_NS:
            self.moves_until_ns = now_ns - BURST_NS
        if self.moves_until_ns > now_ns:
            return False
        self.moves_until_ns += self.move_ns
        return True
