# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""What users, time and wake-ups do to each election of this node, and what is sent for it.

Rules of this file:
    * The methods here decide what happens to an election. `states` makes the change, and lists the
      changes that are allowed. `outcomes` does the same for the server's answers.
    * A lease is refreshed with its refresh group. A term has a timer of its own only while a failed
      refresh is to be repeated, while the term drains, or if a watchdog watches its worker.
    * A node that stops ends each of its terms when the release can be sent, and leads the others
      until then. If a lane has no connection, the node ends all terms of that lane at once.
    * This node sends no acquire for an election that another node is to lead, unless a wake-up says
      that the election is free or `probe` is called for it. Such acquires come after those for this
      node's own elections. None is sent while this node leads as many as it may.
"""

from libc.string cimport memset

from .lateness cimport Lateness
from .outcomes cimport Outcomes
from .queues cimport ACQUIRES, GRANTS, PROBES, MAX_LANES, REFRESHES, RELEASES, TURNS
from .slots cimport NEVER, NONE, QUEUE, store_i64
from .states cimport (ACQUIRING, CANDIDATE, COOLDOWN, ELIGIBLE, FREED, GRANTED, IDLE, INELIGIBLE,
                      LEADING, REASON_REMOVED, REASON_RESIGNED, REASON_STOPPED, REASON_SUPERSEDED,
                      RELEASING, REMOVED, STANDBY)


cdef class Terms(Outcomes):
    """The elections of a node, with all that changes them."""

    def __cinit__(self, **_):
        self.lateness = Lateness()

    # ---- what users ask for

    cdef int start(self) except -1 nogil:
        """Campaign for all elections."""
        cdef uint32_t number
        self.running = True
        for number in range(self.slots.used):
            if self.slots.at(number).key != NULL and self.slots.at(number).state == IDLE:
                self._campaign(number)
        return 0

    cdef int stop(self) except -1 nogil:
        """Campaign for nothing any more. `give_up` ends the terms that this node still has."""
        cdef uint32_t number
        cdef Slot *slot
        self.running = False
        memset(self.given_up, 0, sizeof(self.given_up))
        for number in range(self.slots.used):
            slot = self.slots.at(number)
            if slot.key == NULL:
                continue
            if slot.state == ACQUIRING:
                slot.unwanted = 1
                if slot.next_state != REMOVED:
                    slot.next_state = IDLE
            elif slot.state == RELEASING:
                if slot.next_state != REMOVED:
                    slot.next_state = IDLE
            elif slot.state == CANDIDATE or slot.state == COOLDOWN:
                self._enter_idle(number)
        return 0

    cdef int give_up(self, uint32_t lane, uint32_t most, int64_t now_ns) except -1 nogil:
        """End at most `most` terms of a lane, of a node that stops."""
        cdef uint32_t bucket
        while most and self.queues.lanes[lane].leading:
            bucket = self.given_up[lane]
            if self.queues.buckets[bucket].lane == lane and self.queues.buckets[bucket].leading:
                most -= self._give_up_bucket(bucket, most, now_ns)
            if most:
                self.given_up[lane] = (bucket + 1) % self.queues.bucket_count
        return 0

    cdef uint32_t _give_up_bucket(self, uint32_t bucket, uint32_t most,
                                  int64_t now_ns) except? NONE nogil:
        cdef uint32_t number = self.slots.first_of(bucket)
        cdef uint32_t ended = 0
        while number != NONE and ended < most:
            if self.slots.at(number).state == LEADING:
                self._demote(number, REASON_STOPPED, now_ns)
                ended += 1
            number = self.slots.after(number)
        return ended

    cdef int add(self, uint32_t number) except -1 nogil:
        """Begin with an election that has just been given a slot."""
        self.slots.at(number).state = IDLE
        self.slots.at(number).serial += 1
        self.slots.at(number).eligibility = (INELIGIBLE if self.retiring
                                             else self.initial_eligibility)
        self.population[<int>IDLE] += 1
        if self.running:
            self._campaign(number)
        return 0

    cdef int remove(self, uint32_t number, int64_t now_ns) except -1 nogil:
        """Remove an election: end its term, take it out of the index and free its slot."""
        cdef Slot *slot = self.slots.at(number)
        self.slots.forget(number)
        if slot.state == LEADING:
            self._demote(number, REASON_REMOVED, now_ns)
        elif slot.state == ACQUIRING:
            slot.unwanted = 1
            slot.next_state = REMOVED
        elif slot.state == RELEASING:
            slot.next_state = REMOVED
        else:
            self._enter_removed(number)
        return 0

    cdef int resign(self, uint32_t number, int64_t now_ns) except -1 nogil:
        """End the current term. Returns whether there was one."""
        cdef Slot *slot = self.slots.at(number)
        if slot.state != LEADING:
            return 0
        if now_ns >= slot.deadline_ns:
            self._expire(number, now_ns)
            return 0
        self._demote(number, REASON_RESIGNED, now_ns)
        return 1

    cdef int campaign(self, uint32_t number) except -1 nogil:
        """Campaign again without waiting for the end of the cooldown."""
        cdef Slot *slot = self.slots.at(number)
        if slot.state == COOLDOWN:
            self._campaign(number)
        elif slot.state == RELEASING and slot.next_state == COOLDOWN:
            slot.next_state = CANDIDATE
        return 0

    cdef int learn_epoch(self, uint32_t number, int64_t epoch, int64_t now_ns) except -1 nogil:
        """Let the next term begin above `epoch`. Returns whether a term ended for that."""
        cdef Slot *slot = self.slots.at(number)
        cdef int ended = 0
        if slot.state == LEADING:
            if epoch <= slot.epoch:
                return 0
            if now_ns >= slot.deadline_ns:
                self._expire(number, now_ns)
            else:
                self._demote(number, REASON_SUPERSEDED, now_ns)
                ended = 1
        self._raise_floor(number, epoch)
        return ended

    # ---- what time brings

    cdef int on_timers(self, int64_t now_ns) except -1 nogil:
        """Act on each timer that has rung by `now_ns`."""
        cdef uint32_t number, bucket
        cdef Slot *slot
        while True:
            bucket = self.refresh_groups.peek_due(now_ns)
            if bucket == NONE:
                break
            self._on_refresh_group_timer(bucket, now_ns)
        while True:
            number = self.timers.pop_due(now_ns)
            if number == NONE:
                return 0
            slot = self.slots.at(number)
            if slot.state == LEADING:
                self._on_lease_timer(number, now_ns)
            elif slot.state == CANDIDATE:
                self.queues.enqueue(ACQUIRES, number)
            elif slot.state == COOLDOWN:
                self._campaign(number)
            elif slot.state == RELEASING:
                # The lease has expired at the server.
                self._leave_release(number)

    cdef int _on_refresh_group_timer(self, uint32_t bucket, int64_t now_ns) except -1 nogil:
        """Have the group's leases refreshed if that is due, and end its overdue terms."""
        cdef int64_t ends_ns = NEVER
        cdef int64_t crowded_out = self.count_crowded_out(now_ns) if self.balanced else 0
        cdef uint32_t number = self.slots.first_of(bucket)
        cdef Slot *slot
        while number != NONE:
            self.slots.fetch_after(number)
            slot = self.slots.at(number)
            if slot.state == LEADING:
                if now_ns >= slot.deadline_ns:
                    self._expire(number, now_ns)
                else:
                    ends_ns = min(ends_ns, slot.deadline_ns)
                    if self.balanced and (slot.successor != NONE or slot.phase.drain_ns != 0):
                        self.consider_drain(number, now_ns)
            number = self.slots.after(number)
        number = self.slots.first_of(bucket)
        while crowded_out > 0 and number != NONE:
            crowded_out -= self.make_room(number, now_ns)
            number = self.slots.after(number)
        if self.population[<int>LEADING] >= self.max_leases:
            self._drop_probes()
        self.refresh_groups.fit_phases(self.population[<int>LEADING], now_ns)
        self.refresh_groups.advance(bucket, now_ns, ends_ns)
        return 0

    cdef int _on_lease_timer(self, uint32_t number, int64_t now_ns) except -1 nogil:
        cdef Slot *slot = self.slots.at(number)
        if not self._goes_on(number, now_ns):
            return 0
        if slot.phase.drain_ns != 0 and now_ns >= slot.phase.drain_ns:
            return self.hand_over(number, now_ns)
        if slot.again:
            self._refresh_now(number)
        self._set_lease_timer(number, NEVER)
        return 0

    # ---- what wake-ups and connections bring

    cdef bint _acquire_now(self, uint32_t number) noexcept nogil:
        """Send an acquire without waiting any longer. Returns whether the election waited."""
        cdef Slot *slot = self.slots.at(number)
        if slot.state != CANDIDATE or slot.links[QUEUE].list == ACQUIRES:
            return False
        self.timers.cancel(number)
        self.queues.dequeue(number)
        self.queues.enqueue(ACQUIRES, number)
        return True

    cdef bint _probe(self, uint32_t number) noexcept nogil:
        """Send an acquire for an election that is not this node's own, if this node has room.

        Returns whether the election waited.
        """
        if (self.slots.at(number).state != CANDIDATE or self.queues.is_queued(number)
                or self.population[<int>LEADING] >= self.max_leases):
            return False
        self.queues.enqueue(PROBES, number)
        return True

    cdef void _drop_probes(self) noexcept nogil:
        # They would be out of date by the time this node has room again.
        cdef uint32_t lane
        if self.queues.counts[<int>PROBES] == 0:
            return
        for lane in range(<uint32_t>MAX_LANES + 1):
            while not self.queues.is_empty(lane, PROBES):
                self.queues.dequeue(self.queues.peek(lane, PROBES))

    cdef int wake(self, uint32_t number, bint granted) except -1 nogil:
        """Act on a wake-up: the election is free, or is granted to this node."""
        cdef Slot *slot = self.slots.at(number)
        # A granted lease stands in this node's name, and no other node can take it. So this node
        # acquires it even if it is not to lead the election any more, and then hands it on.
        if not granted and (self.retiring or slot.eligibility == INELIGIBLE):
            return 0
        if slot.state == ACQUIRING:
            # If announcements have a connection of their own, this one may have overtaken the
            # answer that another node leads.
            slot.woken = max(slot.woken, <uint8_t>(GRANTED if granted else FREED))
            return 0
        if granted or slot.eligibility == ELIGIBLE:
            self.events.tally.wakeups += self._acquire_now(number)
        else:
            self.events.tally.wakeups += self._probe(number)
        if granted and slot.state == CANDIDATE:
            slot.woken = GRANTED
        return 0

    cdef int probe(self, uint32_t number) except -1 nogil:
        """Send an acquire for an election that another node is to lead, as it may be free."""
        if self.slots.at(number).eligibility == STANDBY:
            self._probe(number)
        return 0

    cdef uint32_t count_own_waiting(self, uint32_t first, uint32_t beyond) noexcept nogil:
        """Return how many of these elections this node is to lead and does not lead yet."""
        cdef uint32_t number, count = 0
        cdef Slot *slot
        for number in range(first, beyond):
            slot = self.slots.at(number)
            count += slot.state == CANDIDATE and slot.eligibility == ELIGIBLE
        return count

    cdef bint has_room_beside(self, uint32_t own_waiting) noexcept nogil:
        """Tell whether this node may lead yet another election beside `own_waiting` more."""
        return (<uint64_t>self.population[<int>LEADING] + self.population[<int>ACQUIRING]
                + own_waiting < self.max_leases)

    cdef int64_t shorten_leases(self, uint32_t lane, int64_t by_ns,
                                int64_t now_ns) except -1 nogil:
        """Shorten all leases of a lane by `by_ns`. Returns how many terms end for that.

        The other leases are refreshed at once: they might end before they are due.
        """
        cdef uint32_t bucket = self.queues.next_of_lane(lane, 0)
        cdef int64_t ended = 0
        while bucket != NONE:
            if self.queues.buckets[bucket].leading:
                ended += self.shorten_bucket(bucket, by_ns, now_ns)
            bucket = self.queues.next_of_lane(lane, bucket + 1)
        return ended

    cdef int64_t shorten_bucket(self, uint32_t bucket, int64_t by_ns,
                                int64_t now_ns) except -1 nogil:
        cdef uint32_t number = self.slots.first_of(bucket)
        cdef int64_t ended = 0
        cdef Slot *slot
        while number != NONE:
            slot = self.slots.at(number)
            if slot.state == LEADING and slot.deadline_ns - by_ns > now_ns:
                store_i64(&slot.deadline_ns, slot.deadline_ns - by_ns)
                self.refresh_groups.bring_forward(bucket, slot.deadline_ns)
            elif slot.state == LEADING:
                # This node believed in the term until now, so it ends now and no earlier.
                store_i64(&slot.deadline_ns, min(slot.deadline_ns, now_ns))
                self._expire(number, now_ns)
                ended += 1
            number = self.slots.after(number)
        self.refresh_groups.enqueue(bucket, 0)
        return ended

    cdef int acquire_all(self, uint32_t lane) except -1 nogil:
        """Send an acquire to a lane's server for each election that another node leads.

        That node may have released the lease, and this node may have missed the wake-up.
        """
        cdef uint32_t number, bucket = self.queues.next_of_lane(lane, 0)
        cdef Slot *slot
        while bucket != NONE:
            number = self.slots.first_of(bucket)
            while number != NONE:
                slot = self.slots.at(number)
                if slot.key == NULL or slot.eligibility != ELIGIBLE:
                    pass
                elif slot.state == ACQUIRING:
                    slot.woken = max(slot.woken, <uint8_t>FREED)
                else:
                    self._acquire_now(number)
                number = self.slots.after(number)
            bucket = self.queues.next_of_lane(lane, bucket + 1)
        return 0

    cdef int acquire_all_lanes(self) except -1 nogil:
        """Do as `acquire_all` for every lane."""
        cdef uint32_t lane
        for lane in range(<uint32_t>MAX_LANES):
            self.acquire_all(lane)
        return 0

    cdef int refresh_all(self, uint32_t lane) except -1 nogil:
        """Refresh all leases of a lane, and acquire what this node is to lead there.

        For a new connection: wake-ups may have been missed, and leases lost.
        """
        cdef uint32_t bucket = self.queues.next_of_lane(lane, 0)
        while bucket != NONE:
            self._refresh_bucket(bucket)
            bucket = self.queues.next_of_lane(lane, bucket + 1)
        return 0

    cdef int change_lane(self, uint32_t bucket, uint32_t lane) except -1 nogil:
        """Have another lane serve the bucket, and refresh and acquire anew at its server."""
        self.refresh_groups.move(bucket, lane)
        return self._refresh_bucket(bucket)

    cdef int _refresh_bucket(self, uint32_t bucket) except -1 nogil:
        cdef uint32_t number = self.slots.first_of(bucket)
        cdef Slot *slot
        if self.queues.buckets[bucket].leading:
            self.refresh_groups.enqueue(bucket, 0)
        while number != NONE:
            slot = self.slots.at(number)
            if (slot.key != NULL and slot.eligibility == ELIGIBLE
                    and not self.queues.is_queued(number)):
                self._acquire_now(number)
            number = self.slots.after(number)
        return 0

    cdef void reap(self) noexcept nogil:
        """Free the slots of removed elections, whose events have all been taken."""
        cdef uint32_t number = self.queues.reaped
        while number != NONE:
            self.queues.dequeue(number)
            self.population[<int>REMOVED] -= 1
            self.slots.give_back(number)
            number = self.queues.reaped

    # ---- sending

    cdef uint32_t next_refreshes(self, uint32_t lane, BatchEntry *entries, uint32_t most,
                                 bint one_bucket, int64_t now_ns) except? NONE nogil:
        """Put at most `most` leases of a lane that are to be refreshed into `entries`.

        Leases that are refreshed out of turn come first, then the buckets whose turn it is. An
        overdue term ends instead. With `one_bucket` all leases are of the same bucket. Returns how
        many there are.
        """
        cdef uint32_t count = 0, number, bucket = NONE
        while count < most:
            number = self.queues.peek(lane, REFRESHES)
            if number == NONE or (one_bucket and count and self.slots.at(number).bucket != bucket):
                break
            bucket = self.slots.at(number).bucket
            self.queues.dequeue(number)
            if self._goes_on(number, now_ns):
                self._begin_refresh(number, &entries[count])
                count += 1
        while count < most and not self.queues.is_empty(lane, TURNS):
            if one_bucket and count and self.queues.lanes[lane].ready[<int>TURNS] != bucket:
                break
            bucket = self.queues.lanes[lane].ready[<int>TURNS]
            count = self._next_of_bucket(bucket, entries, count, most, now_ns)
        return count

    cdef uint32_t _next_of_bucket(self, uint32_t bucket, BatchEntry *entries, uint32_t count,
                                  uint32_t most, int64_t now_ns) except? NONE nogil:
        """Add leases of a bucket whose turn it is to `count` entries. Returns the new count."""
        cdef uint32_t number = self.refresh_groups.items[bucket].cursor
        cdef uint32_t before = count
        cdef Slot *slot
        while number != NONE and count < most:
            self.slots.fetch_after(number)
            slot = self.slots.at(number)
            if slot.state == LEADING and not self.queues.is_queued(number):
                if slot.refreshing:
                    # A second refresh would only burden a slow server. It is sent when the first
                    # is answered.
                    slot.refreshing = 2
                elif self._goes_on(number, now_ns):
                    self._begin_refresh(number, &entries[count])
                    count += 1
            number = self.slots.after(number)
        self.lateness.sent(self.refresh_groups.items[bucket].owed_ns, now_ns, count - before)
        self.refresh_groups.items[bucket].cursor = number
        if number == NONE:
            self.refresh_groups.dequeue(bucket)
        return count

    cdef int begin_acquire(self, uint32_t number) except -1 nogil:
        """Take note that an acquire is about to be sent for the election."""
        return self._enter_acquiring(number)

    cdef bint has_to_give_up(self, uint32_t lane) noexcept nogil:
        """Tell whether this node stops, and still leads an election of the lane."""
        return not self.running and self.queues.lanes[lane].leading != 0

    cdef bint has_to_give_up_any(self) noexcept nogil:
        """Tell whether this node stops, and still leads an election of any lane."""
        return not self.running and self.population[<int>LEADING] != 0

    cdef int64_t next_due_ns(self) noexcept nogil:
        """Return when `on_timers` should be called next."""
        return min(self.timers.next_due_ns(), self.refresh_groups.next_due_ns())

    cdef bint has_work(self, uint32_t lane) noexcept nogil:
        """Tell whether a lane may have anything to send."""
        return self.refresh_due_ns(lane) != NEVER or self.has_other_work(lane)

    cdef bint has_other_work(self, uint32_t lane) noexcept nogil:
        """Tell whether a lane may have anything to send other than refreshes."""
        return (not self.queues.is_empty(lane, RELEASES) or not self.queues.is_empty(lane, GRANTS)
                or self.peek_acquire(lane) != NONE)

    cdef int64_t refresh_due_ns(self, uint32_t lane) noexcept nogil:
        """Return when the first waiting refresh is due; NEVER if none waits."""
        if not self.queues.is_empty(lane, REFRESHES):
            return 0
        return self.refresh_groups.due_ns[lane]
