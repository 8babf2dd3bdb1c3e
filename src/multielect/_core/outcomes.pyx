# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""What the server's answers do to each election of this node.

Rules of this file:
    * `replies` reads an answer and calls one function here for each election that it concerns.
      `states` changes the election's state.
    * An answer that comes after a term's deadline ends the term. No later answer revives it.
    * A lease whose refresh failed is refreshed again out of turn, at a time of its own. All others
      are refreshed with their refresh group.
    * A node repeats what a server refused at common times, so that the repetitions share scripts.
"""

from .drains cimport Drains
from .queues cimport REFRESHES
from .slots cimport NONE, store_i64
from .states cimport CANDIDATE, ELIGIBLE, GRANTED, LARGEST_EPOCH, REASON_LOST, REMOVED

cdef enum:
    MAX_DOUBLINGS = 2       # of the pause before a refused acquire is repeated


cdef class Outcomes(Drains):
    """Drains, and what the server's answers do to each election."""

    cdef int won(self, uint32_t number, int64_t epoch, uint32_t floors, int64_t sent_ns,
                 int64_t now_ns) except -1 nogil:
        """The server gave this node the lease, under `epoch`.

        `floors` is how many elections of the batch were sent with a floor.
        """
        cdef Slot *slot = self.slots.at(number)
        if (epoch > slot.epoch and epoch > slot.phase.floor and not slot.unwanted
                and not self.retiring and now_ns < sent_ns + self.ttl_ns - self.margin_ns):
            return self._enter_leading(number, epoch, sent_ns, now_ns)
        return self._won_unexpectedly(number, epoch, floors, sent_ns, now_ns)

    cdef int _won_unexpectedly(self, uint32_t number, int64_t epoch, uint32_t floors,
                               int64_t sent_ns, int64_t now_ns) except -1 nogil:
        """Act on a lease that is not wanted any more, comes too late or has a stale epoch."""
        cdef Slot *slot = self.slots.at(number)
        if self.by_time and epoch <= slot.epoch < LARGEST_EPOCH:
            # The epoch's key was lost, and the server's clock is behind where it was.
            self._raise_floor(number, slot.epoch)
        # The server's lease began no later than now.
        if slot.unwanted or self.retiring:
            store_i64(&slot.epoch, epoch)
            self._enter_releasing(number, now_ns + self.ttl_ns, slot.next_state)
        elif now_ns >= sent_ns + self.ttl_ns - self.margin_ns:
            # It is too late to lead by this lease. The quickest candidate gets the next one.
            store_i64(&slot.epoch, epoch)
            self._enter_releasing(number, now_ns + self.ttl_ns, CANDIDATE)
        elif epoch > slot.phase.floor:
            self._enter_leading(number, epoch, sent_ns, now_ns)
        elif floors:
            # The server ignored the floor, or the acquire was sent before the floor was known.
            self._enter_candidate_at(number, self.retry_ns(now_ns))
        else:
            self._enter_candidate_now(number)
        return 0

    cdef int contested(self, uint32_t number, uint32_t holder, bint claimed,
                       int64_t again_ns) except -1 nogil:
        """Another node holds the lease. Campaign again at `again_ns`.

        `claimed` says whether the acquire told that node of this one's claim.
        """
        cdef Slot *slot = self.slots.at(number)
        cdef bint was_granted
        slot.mark.refusals = 0
        self._set_holder(number, holder)
        # If the election was assigned to this node while the acquire was in flight, that acquire
        # has not claimed it.
        if (slot.woken or (self.balanced and not claimed and slot.eligibility == ELIGIBLE)) \
                and not slot.unwanted:
            was_granted = slot.woken == GRANTED
            self._enter_candidate_now(number)
            slot.woken = GRANTED if was_granted else 0
            return 0
        return self.acquire_failed(number, again_ns)

    cdef bint is_first_seen_endless(self, uint32_t number, uint32_t holder) noexcept nogil:
        """Return whether this is the first report that `holder`'s lease has no end."""
        cdef Slot *slot = self.slots.at(number)
        cdef bint is_known = slot.endless and slot.holder == holder
        slot.endless = 1
        return not is_known

    cdef int acquire_refused(self, uint32_t number, int64_t now_ns) except -1 nogil:
        """The server refused the acquire. Repeat it, later the more often it was refused."""
        cdef Slot *slot = self.slots.at(number)
        cdef int64_t pause_ns = self.refresh_ns // 2 << slot.mark.refusals
        if slot.mark.refusals < MAX_DOUBLINGS:
            slot.mark.refusals += 1
        return self.acquire_failed(number, self._next_retry_ns(now_ns + pause_ns))

    cdef int acquire_failed(self, uint32_t number, int64_t again_ns) except -1 nogil:
        """The acquire failed, or its answer was lost: repeat it at `again_ns`; 0 is at once."""
        cdef Slot *slot = self.slots.at(number)
        if slot.unwanted:
            if slot.next_state == REMOVED:
                return self._enter_removed(number)
            return self._enter_idle(number)
        if again_ns == 0:
            return self._campaign(number)
        return self._enter_candidate_at(number, again_ns)

    cdef int lease_lost(self, uint32_t number, int64_t now_ns) except -1 nogil:
        """The server says that this node does not hold the lease: end the term."""
        if now_ns >= self.slots.at(number).deadline_ns:
            return self._expire(number, now_ns)
        self._demote(number, REASON_LOST, now_ns)
        return 0

    cdef int refresh_failed(self, uint32_t number, int64_t now_ns,
                            int64_t again_ns) except -1 nogil:
        """The refresh failed, or its answer was lost: repeat it at `again_ns`.

        The term keeps its deadline.
        """
        cdef Slot *slot = self.slots.at(number)
        slot.refreshing = 0
        if now_ns >= slot.deadline_ns:
            return self._expire(number, now_ns)
        if again_ns <= now_ns:
            self._refresh_now(number)
            return 0
        if again_ns >= slot.deadline_ns:
            # Repeat it once while the term lasts.
            again_ns = slot.deadline_ns - self.retry_step_ns
        if again_ns > now_ns:
            self._set_lease_timer(number, again_ns)
        return 0

    cdef int released(self, uint32_t number) except -1 nogil:
        """The server released the lease, or this node did not hold it any more."""
        self.events.tally.released += 1
        return self._leave_release(number)

    cdef int release_refused(self, uint32_t number) except -1 nogil:
        """The server refused the release: go on as if it were released, and let it expire."""
        return self._leave_release(number)

    cdef int release_unanswered(self, uint32_t number) except -1 nogil:
        """The release was not answered: send it again, unless the lease expires first."""
        if not self.queues.is_queued(number):
            self._enqueue_release(number)
        return 0

    cdef int epoch_moved(self, uint32_t number, int64_t epoch) except -1 nogil:
        """This node holds the lease to be released, but its epoch's key is at `epoch`."""
        # If this node has no newer term, somebody raised the epoch's key, as a fence does. No other
        # node can take the lease then, so it is released under that epoch. But an election that was
        # removed may have been added again, and then the lease belongs to the new election.
        cdef Slot *slot = self.slots.at(number)
        cdef bint is_sole = (not slot.forgotten
                             or self.slots.find(slot.key, slot.key_length) == NONE)
        if is_sole and epoch > slot.epoch and epoch > slot.phase.floor:
            self._raise_floor(number, epoch)
            slot.mark.moved = 1
            return self.release_unanswered(number)
        return self.released(number)

    # ---- when to try again

    cdef void _refresh_now(self, uint32_t number) noexcept nogil:
        """Have the lease refreshed out of turn, unless a refresh waits or is in flight."""
        if not self.slots.at(number).refreshing and not self.queues.is_queued(number):
            self.queues.enqueue(REFRESHES, number)

    cdef int64_t retry_ns(self, int64_t now_ns) noexcept nogil:
        """Return when to repeat a request that the server refused."""
        # After half the time between two refreshes: soon enough for a second and a third try before
        # the deadline, and seldom enough for a server that refuses everything.
        return self._next_retry_ns(now_ns + self.refresh_ns // 2)

    cdef int64_t _next_retry_ns(self, int64_t at_ns) noexcept nogil:
        """Return the next time after `at_ns` at which this node repeats refused requests."""
        # Requests that are repeated at the same time share a script.
        return at_ns + self.retry_step_ns - (at_ns - self.retry_phase_ns) % self.retry_step_ns
