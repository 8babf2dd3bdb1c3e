# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""What becomes of each election on this node: by its user, by time, by the server's answers.

Rules of this file:
    * It decides; how a state changes, and which changes there are, is in `states`.
    * A reply that comes when the term's deadline has passed changes nothing but that the term
      is over: a later reply cannot bring it back.
    * A lease is refreshed with its refresh group, in turn. Only where a refresh failed it is asked
      again alone; and only then, for a drain or for a watchdog, has a term a timer of its own.
    * A node that stops gives its terms up as their releases go out, and leads the rest until
      then: without a connection, all at once.
    * Elections that another node is to lead are not asked for, except when somebody says that
      they are free or `watch` is called for them. They come behind this node's own, and not at all
      while it may lead no more.
"""

from libc.string cimport memset

from .lateness cimport Lateness
from .queues cimport ACQUIRES, GRANTS, LOOKS, MAX_LANES, REFRESHES, RELEASES, TURNS
from .slots cimport NEVER, NONE, QUEUE, store_i64
from .states cimport (ACQUIRING, CANDIDATE, COOLDOWN, ELIGIBLE, FREED, GRANTED, IDLE, INELIGIBLE,
                      LEADING, REASON_LOST, REASON_REMOVED, REASON_RESIGNED, REASON_STOPPED,
                      REASON_SUPERSEDED, RELEASING, REMOVED, STANDBY)

cdef enum:
    MAX_DOUBLINGS = 2       # of the pause before what was refused is tried again


cdef class Terms(Drains):
    """The elections of a node and what becomes of them."""

    def __cinit__(self, **_):
        self.lateness = Lateness()

    # ---- what the user wants

    cdef int start(self) except -1 nogil:
        """Stand for all elections."""
        cdef uint32_t number
        self.running = True
        for number in range(self.slots.used):
            if self.slots.at(number).key != NULL and self.slots.at(number).state == IDLE:
                self._stand(number)
        return 0

    cdef int stop(self) except -1 nogil:
        """Stand for nothing any more; the terms are given up by `give_up`."""
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
        """End so many terms of a lane's elections, once this node stops."""
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
        """Take up an election that has just been given a slot."""
        self.slots.at(number).state = IDLE
        self.slots.at(number).serial += 1
        self.slots.at(number).eligibility = (INELIGIBLE if self.retiring
                                             else self.initial_eligibility)
        self.population[<int>IDLE] += 1
        if self.running:
            self._stand(number)
        return 0

    cdef int remove(self, uint32_t number, int64_t now_ns) except -1 nogil:
        """Give an election up for good: its term, its place in the index, its slot."""
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
        """Give the current term up. Returns whether there was one."""
        cdef Slot *slot = self.slots.at(number)
        if slot.state != LEADING:
            return 0
        if now_ns >= slot.deadline_ns:
            self._expire(number, now_ns)
            return 0
        self._demote(number, REASON_RESIGNED, now_ns)
        return 1

    cdef int campaign(self, uint32_t number) except -1 nogil:
        """Stand again without waiting for what is left of the abstention."""
        cdef Slot *slot = self.slots.at(number)
        if slot.state == COOLDOWN:
            self._stand(number)
        elif slot.state == RELEASING and slot.next_state == COOLDOWN:
            slot.next_state = CANDIDATE
        return 0

    cdef int learn_epoch(self, uint32_t number, int64_t epoch, int64_t now_ns) except -1 nogil:
        """Let the next term begin above `epoch`. Returns whether it ended a term for that."""
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

    # ---- what time and the server bring

    cdef int on_timers(self, int64_t now_ns) except -1 nogil:
        """Do what is due at `now_ns`."""
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
                self._stand(number)
            elif slot.state == RELEASING:
                # The lease has ended by itself.
                self._leave_release(number)

    cdef int _on_refresh_group_timer(self, uint32_t bucket, int64_t now_ns) except -1 nogil:
        """Refresh its leases if it is time, and end those terms whose time is up."""
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
            self._look_no_more()
        self.refresh_groups.suit(self.population[<int>LEADING], now_ns)
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

    cdef void _refresh_now(self, uint32_t number) noexcept nogil:
        """Have the lease refreshed out of turn, unless that is under way."""
        if not self.slots.at(number).refreshing and not self.queues.is_queued(number):
            self.queues.enqueue(REFRESHES, number)

    cdef bint _ask_now(self, uint32_t number) noexcept nogil:
        """Stand for it without waiting any longer. Returns whether it waited."""
        cdef Slot *slot = self.slots.at(number)
        if slot.state != CANDIDATE or slot.links[QUEUE].list == ACQUIRES:
            return False
        self.timers.cancel(number)
        self.queues.dequeue(number)
        self.queues.enqueue(ACQUIRES, number)
        return True

    cdef bint _look(self, uint32_t number) noexcept nogil:
        """Ask for what is not this node's own, if there is room. Returns whether it waited."""
        if (self.slots.at(number).state != CANDIDATE or self.queues.is_queued(number)
                or self.population[<int>LEADING] >= self.max_leases):
            return False
        self.queues.enqueue(LOOKS, number)
        return True

    cdef void _look_no_more(self) noexcept nogil:
        # By the time that there is room again they would be old.
        cdef uint32_t lane
        if self.queues.counts[<int>LOOKS] == 0:
            return
        for lane in range(<uint32_t>MAX_LANES + 1):
            while not self.queues.is_empty(lane, LOOKS):
                self.queues.dequeue(self.queues.peek(lane, LOOKS))

    cdef int wake(self, uint32_t number, bint granted) except -1 nogil:
        """An election was set free, or granted to this node: stand for it at once."""
        cdef Slot *slot = self.slots.at(number)
        # What was granted stands in this node's name, and nobody else can take it: so it is asked
        # for also where this node is to lead it no more, and then handed on.
        if not granted and (self.retiring or slot.eligibility == INELIGIBLE):
            return 0
        if slot.state == ACQUIRING:
            # Where announcements have a connection of their own, this one may have
            # overtaken the answer that another leads.
            slot.woken = max(slot.woken, <uint8_t>(GRANTED if granted else FREED))
            return 0
        if granted or slot.eligibility == ELIGIBLE:
            self.events.tally.wakeups += self._ask_now(number)
        else:
            self.events.tally.wakeups += self._look(number)
        if granted and slot.state == CANDIDATE:
            slot.woken = GRANTED
        return 0

    cdef int watch(self, uint32_t number) except -1 nogil:
        """See whether an election that another is to lead is free; if so, lead it."""
        if self.slots.at(number).eligibility == STANDBY:
            self._look(number)
        return 0

    cdef uint32_t count_own_waiting(self, uint32_t first, uint32_t beyond) noexcept nogil:
        """Return how many of these elections are this node's share, which it does not lead yet."""
        cdef uint32_t number, count = 0
        cdef Slot *slot
        for number in range(first, beyond):
            slot = self.slots.at(number)
            count += slot.state == CANDIDATE and slot.eligibility == ELIGIBLE
        return count

    cdef bint has_room_beside(self, uint32_t own_waiting) noexcept nogil:
        """Tell whether this node may lead more than what it leads, and so many more."""
        return (<uint64_t>self.population[<int>LEADING] + self.population[<int>ACQUIRING]
                + own_waiting < self.max_leases)

    cdef int64_t leases_shortened(self, uint32_t lane, int64_t by_ns,
                                  int64_t now_ns) except -1 nogil:
        """A lane's leases end earlier by `by_ns` than was counted on. Returns how many terms end.

        The others are refreshed at once: by the next time that is due they might be over.
        """
        cdef uint32_t bucket, number
        cdef int64_t given_up = 0
        cdef Slot *slot
        for bucket in range(self.queues.bucket_count):
            if self.queues.buckets[bucket].lane != lane or not self.queues.buckets[bucket].leading:
                continue
            number = self.slots.first_of(bucket)
            while number != NONE:
                slot = self.slots.at(number)
                if slot.state == LEADING and slot.deadline_ns - by_ns > now_ns:
                    store_i64(&slot.deadline_ns, slot.deadline_ns - by_ns)
                    self.refresh_groups.hurry(bucket, slot.deadline_ns)
                elif slot.state == LEADING:
                    # Until now it was believed.
                    store_i64(&slot.deadline_ns, min(slot.deadline_ns, now_ns))
                    self._expire(number, now_ns)
                    given_up += 1
                number = self.slots.after(number)
            self.refresh_groups.enqueue(bucket, 0)
        return given_up

    cdef int ask_again(self, uint32_t lane) except -1 nogil:
        """Ask a lane for all that another leads: it may have been set free without a word to us."""
        cdef uint32_t bucket, number
        cdef Slot *slot
        for bucket in range(self.queues.bucket_count):
            if self.queues.buckets[bucket].lane != lane:
                continue
            number = self.slots.first_of(bucket)
            while number != NONE:
                slot = self.slots.at(number)
                if slot.key == NULL or slot.eligibility != ELIGIBLE:
                    pass
                elif slot.state == ACQUIRING:
                    slot.woken = max(slot.woken, <uint8_t>FREED)
                else:
                    self._ask_now(number)
                number = self.slots.after(number)
        return 0

    cdef int ask_all_again(self) except -1 nogil:
        """Do as `ask_again` for every lane."""
        cdef uint32_t lane
        for lane in range(<uint32_t>MAX_LANES):
            self.ask_again(lane)
        return 0

    cdef int refresh_all(self, uint32_t lane) except -1 nogil:
        """A lane has a connection: wake-ups may have been missed, and leases lost."""
        cdef uint32_t bucket
        for bucket in range(self.queues.bucket_count):
            if self.queues.buckets[bucket].lane == lane:
                self._refresh_bucket(bucket)
        return 0

    cdef int change_lane(self, uint32_t bucket, uint32_t lane) except -1 nogil:
        """Another lane serves the bucket from now on: what is known of it may not hold there."""
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
                self._ask_now(number)
            number = self.slots.after(number)
        return 0

    cdef void reap(self) noexcept nogil:
        """Free the slots of the removed; what is to be told of them has been."""
        cdef uint32_t number = self.queues.reaped
        while number != NONE:
            self.queues.dequeue(number)
            self.population[<int>REMOVED] -= 1
            self.slots.give_back(number)
            number = self.queues.reaped

    # ---- what is to be sent

    cdef uint32_t next_refreshes(self, uint32_t lane, Asked *asked, uint32_t most,
                                 bint one_bucket, int64_t now_ns) except? NONE nogil:
        """Take leases of a lane to refresh, no more than `most`; returns how many.

        Those out of turn come first, then the buckets whose turn it is. An overdue term ends
        instead. With `one_bucket` all are of the same bucket.
        """
        cdef uint32_t count = 0, number, bucket = NONE
        while count < most:
            number = self.queues.peek(lane, REFRESHES)
            if number == NONE or (one_bucket and count and self.slots.at(number).bucket != bucket):
                break
            bucket = self.slots.at(number).bucket
            self.queues.dequeue(number)
            if self._goes_on(number, now_ns):
                self._ask_refresh(number, &asked[count])
                count += 1
        while count < most and not self.queues.is_empty(lane, TURNS):
            if one_bucket and count and self.queues.lanes[lane].ready[<int>TURNS] != bucket:
                break
            bucket = self.queues.lanes[lane].ready[<int>TURNS]
            count = self._next_of_bucket(bucket, asked, count, most, now_ns)
        return count

    cdef uint32_t _next_of_bucket(self, uint32_t bucket, Asked *asked, uint32_t count,
                                  uint32_t most, int64_t now_ns) except? NONE nogil:
        """Go on to take leases of a bucket whose turn it is; returns how many there are."""
        cdef uint32_t number = self.refresh_groups.items[bucket].cursor
        cdef uint32_t before = count
        cdef Slot *slot
        while number != NONE and count < most:
            self.slots.fetch_after(number)
            slot = self.slots.at(number)
            if slot.state == LEADING and not self.queues.is_queued(number):
                if slot.refreshing:
                    # Another would only burden a server that is slow: it follows on the answer.
                    slot.refreshing = 2
                elif self._goes_on(number, now_ns):
                    self._ask_refresh(number, &asked[count])
                    count += 1
            number = self.slots.after(number)
        self.lateness.sent(self.refresh_groups.items[bucket].owed_ns, now_ns, count - before)
        self.refresh_groups.items[bucket].cursor = number
        if number == NONE:
            self.refresh_groups.dequeue(bucket)
        return count

    cdef int begin_acquire(self, uint32_t number) except -1 nogil:
        """The acquire of an election is about to be sent."""
        return self._enter_acquiring(number)

    cdef bint is_giving_up(self, uint32_t lane) noexcept nogil:
        """Tell whether this node stops, and leads something of the lane still."""
        return not self.running and self.queues.lanes[lane].leading != 0

    cdef bint leads_still(self) noexcept nogil:
        """Tell whether this node stops, and leads something still."""
        return not self.running and self.population[<int>LEADING] != 0

    cdef int64_t next_due_ns(self) noexcept nogil:
        """Return when `on_timers` should be called next."""
        return min(self.timers.next_due_ns(), self.refresh_groups.next_due_ns())

    cdef int64_t retry_ns(self, int64_t now_ns) noexcept nogil:
        """Return when to try again what the server refused."""
        # Half the time between two refreshes: soon enough for a second and third try
        # before the deadline, seldom enough for a server that refuses everything.
        return self._together_ns(now_ns + self.refresh_ns // 2)

    cdef int64_t _together_ns(self, int64_t at_ns) noexcept nogil:
        """Return the next time after `at_ns` at which this node tries again what was refused."""
        # Each at a time of its own would be a script of its own.
        return at_ns + self.retry_step_ns - (at_ns - self.retry_phase_ns) % self.retry_step_ns

    cdef bint has_work(self, uint32_t lane) noexcept nogil:
        """Tell whether something may be there to be sent."""
        return self.refresh_due_ns(lane) != NEVER or self.has_other_work(lane)

    cdef bint has_other_work(self, uint32_t lane) noexcept nogil:
        """Tell whether something that is no refresh may be there to be sent."""
        return (not self.queues.is_empty(lane, RELEASES) or not self.queues.is_empty(lane, GRANTS)
                or self.peek_acquire(lane) != NONE)

    cdef int64_t refresh_due_ns(self, uint32_t lane) noexcept nogil:
        """Return by when refreshes that wait are to be sent; NEVER where none does."""
        if not self.queues.is_empty(lane, REFRESHES):
            return 0
        return self.refresh_groups.due_ns[lane]

    # ---- what became of it

    cdef int won(self, uint32_t number, int64_t epoch, uint32_t floors, int64_t sent_ns,
                 int64_t now_ns) except -1 nogil:
        """The server gave this node the lease, under `epoch`; it was told of so many floors."""
        cdef Slot *slot = self.slots.at(number)
        if (epoch > slot.epoch and epoch > slot.phase.floor and not slot.unwanted
                and not self.retiring and now_ns < sent_ns + self.ttl_ns - self.margin_ns):
            return self._enter_leading(number, epoch, sent_ns, now_ns)
        return self._won_oddly(number, epoch, floors, sent_ns, now_ns)

    cdef int _won_oddly(self, uint32_t number, int64_t epoch, uint32_t floors, int64_t sent_ns,
                        int64_t now_ns) except -1 nogil:
        """A lease was given that is not wanted any more, comes too late, or has a stale epoch."""
        cdef Slot *slot = self.slots.at(number)
        if self.by_time and epoch <= slot.epoch:
            # The counter was lost, and the server's clock is behind what it had been.
            self._raise_floor(number, slot.epoch)
        # The lease began at the server by now at the latest.
        if slot.unwanted or self.retiring:
            store_i64(&slot.epoch, epoch)
            self._enter_releasing(number, now_ns + self.ttl_ns, slot.next_state)
        elif now_ns >= sent_ns + self.ttl_ns - self.margin_ns:
            # Too late to lead by it: let the next try go to whoever is quicker.
            store_i64(&slot.epoch, epoch)
            self._enter_releasing(number, now_ns + self.ttl_ns, CANDIDATE)
        elif epoch > slot.phase.floor:
            self._enter_leading(number, epoch, sent_ns, now_ns)
        elif floors:
            # The server does not heed them, or it was asked before the latest was known.
            self._enter_candidate_at(number, self.retry_ns(now_ns))
        else:
            self._enter_candidate_now(number)
        return 0

    cdef int contested(self, uint32_t number, uint32_t holder, bint claimed,
                       int64_t again_ns) except -1 nogil:
        """Another holds the lease; it ends no later than `again_ns`. `claimed`: it was told."""
        cdef Slot *slot = self.slots.at(number)
        cdef bint was_granted
        slot.mark.refusals = 0
        self._see_holder(number, holder)
        # Where it was assigned to this node meanwhile, nobody has claimed it for this node yet.
        if (slot.woken or (self.balanced and not claimed and slot.eligibility == ELIGIBLE)) \
                and not slot.unwanted:
            was_granted = slot.woken == GRANTED
            self._enter_candidate_now(number)
            slot.woken = GRANTED if was_granted else 0
            return 0
        return self.not_acquired(number, again_ns)

    cdef bint is_first_seen_endless(self, uint32_t number, uint32_t holder) noexcept nogil:
        """Tell whether it is news that `holder`'s lease has no end; from now on it is none."""
        cdef Slot *slot = self.slots.at(number)
        cdef bint is_known = slot.endless and slot.holder == holder
        slot.endless = 1
        return not is_known

    cdef int acquire_refused(self, uint32_t number, int64_t now_ns) except -1 nogil:
        """The server refused the acquire: stand again, the later the more often it did."""
        cdef Slot *slot = self.slots.at(number)
        cdef int64_t pause_ns = self.refresh_ns // 2 << slot.mark.refusals
        if slot.mark.refusals < MAX_DOUBLINGS:
            slot.mark.refusals += 1
        return self.not_acquired(number, self._together_ns(now_ns + pause_ns))

    cdef int not_acquired(self, uint32_t number, int64_t again_ns) except -1 nogil:
        """The acquire failed or was lost; stand again at `again_ns`, or at once if 0."""
        cdef Slot *slot = self.slots.at(number)
        if slot.unwanted:
            if slot.next_state == REMOVED:
                return self._enter_removed(number)
            return self._enter_idle(number)
        if again_ns == 0:
            return self._stand(number)
        return self._enter_candidate_at(number, again_ns)

    cdef int mismatched(self, uint32_t number, int64_t now_ns) except -1 nogil:
        """The server says that the lease is not ours: the term is over."""
        if now_ns >= self.slots.at(number).deadline_ns:
            return self._expire(number, now_ns)
        self._demote(number, REASON_LOST, now_ns)
        return 0

    cdef int not_refreshed(self, uint32_t number, int64_t now_ns,
                           int64_t again_ns) except -1 nogil:
        """The refresh failed or was lost: the old deadline stands; try again at `again_ns`."""
        cdef Slot *slot = self.slots.at(number)
        slot.refreshing = 0
        if now_ns >= slot.deadline_ns:
            return self._expire(number, now_ns)
        if again_ns <= now_ns:
            self._refresh_now(number)
            return 0
        if again_ns >= slot.deadline_ns:
            # Once more while it may help.
            again_ns = slot.deadline_ns - self.retry_step_ns
        if again_ns > now_ns:
            self._set_lease_timer(number, again_ns)
        return 0

    cdef int released(self, uint32_t number) except -1 nogil:
        """The server ended the term, or had ended it before."""
        self.events.tally.released += 1
        return self._leave_release(number)

    cdef int not_ended(self, uint32_t number) except -1 nogil:
        """The server does not end it: go on as if it were, while the lease runs out."""
        return self._leave_release(number)

    cdef int not_released(self, uint32_t number) except -1 nogil:
        """The release was lost: send it again, unless the lease ends first."""
        if not self.queues.is_queued(number):
            self._enqueue_release(number)
        return 0

    cdef int moved_on(self, uint32_t number, int64_t epoch) except -1 nogil:
        """The lease to be released is this node's, but the counter is at another epoch."""
        # Where this node has no newer term, somebody raised the counter, as a fence does. Nobody
        # else could take the lease, so it is released under that epoch. An election that was
        # removed may have been added again meanwhile: then the lease is that one's.
        cdef Slot *slot = self.slots.at(number)
        cdef bint is_sole = (not slot.forgotten
                             or self.slots.find(slot.key, slot.key_length) == NONE)
        if is_sole and epoch > slot.epoch and epoch > slot.phase.floor:
            self._raise_floor(number, epoch)
            slot.mark.moved = 1
            return self.not_released(number)
        return self.released(number)
