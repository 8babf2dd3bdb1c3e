# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""What becomes of each election on this node: by its user, by time, by the server's answers.

Rules of this file:
    * It decides; how a state changes, and which changes there are, is in `states`.
    * A reply that comes when the term's deadline has passed changes nothing but that the term
      is over: a later reply cannot bring it back.
    * Elections that another node is to lead are not asked for, except when somebody says that
      they are free or `watch` is called for them.
"""

from .lateness cimport Lateness
from .schedule cimport ACQUIRES, GRANTS, REAPED, REFRESHES, RELEASES
from .slots cimport NONE, store_i64
from .states cimport (ABSTAINING, ASKING, BARRED, CAMPAIGNS, GONE, IDLE, LEADING, LOST, RELEASING,
                      REMOVED, RESIGNED, STALLED, STOPPED, WAITING, WATCHES)


cdef class Terms(Drains):
    """The elections of a node and what becomes of them."""

    def __cinit__(self, **_):
        self.lateness = Lateness()

    # ---- what the user wants

    cdef int start(self) except -1 nogil:
        """Stand for all elections, in the order in which they were added."""
        cdef uint32_t number
        self.running = True
        for number in range(self.slots.used):
            if self.slots.at(number).key != NULL and self.slots.at(number).state == IDLE:
                self._stand(number)
        return 0

    cdef int stop(self, int64_t now_ns) except -1 nogil:
        """End all terms and stand for none any more."""
        cdef uint32_t number
        cdef Slot *slot
        self.running = False
        store_i64(&self.slots.open, 0)
        for number in range(self.slots.used):
            slot = self.slots.at(number)
            if slot.key == NULL:
                continue
            if slot.state == LEADING:
                self._demote(number, STOPPED, now_ns)
            elif slot.state == ASKING:
                slot.unwanted = 1
                if slot.next_state != GONE:
                    slot.next_state = IDLE
            elif slot.state == RELEASING:
                if slot.next_state != GONE:
                    slot.next_state = IDLE
            elif slot.state == WAITING or slot.state == ABSTAINING:
                self._become_idle(number)
        return 0

    cdef int add(self, uint32_t number) except -1 nogil:
        """Take up an election that has just been given a slot."""
        self.slots.at(number).state = IDLE
        self.slots.at(number).serial += 1
        self.slots.at(number).standing = BARRED if self.retiring else self.first_standing
        self.population[<int>IDLE] += 1
        if self.running:
            self._stand(number)
        return 0

    cdef int remove(self, uint32_t number, int64_t now_ns) except -1 nogil:
        """Give an election up for good: its term, its place in the index, its slot."""
        cdef Slot *slot = self.slots.at(number)
        self.slots.forget(number)
        if slot.state == LEADING:
            self._demote(number, REMOVED, now_ns)
        elif slot.state == ASKING:
            slot.unwanted = 1
            slot.next_state = GONE
        elif slot.state == RELEASING:
            slot.next_state = GONE
        else:
            self._become_gone(number)
        return 0

    cdef int resign(self, uint32_t number, int64_t now_ns) except -1 nogil:
        """Give the current term up. Returns whether there was one."""
        cdef Slot *slot = self.slots.at(number)
        if slot.state != LEADING:
            return 0
        if now_ns >= slot.deadline_ns:
            self._expire(number, now_ns)
            return 0
        self._demote(number, RESIGNED, now_ns)
        return 1

    cdef int campaign(self, uint32_t number) except -1 nogil:
        """Stand again without waiting for what is left of the abstention."""
        cdef Slot *slot = self.slots.at(number)
        if slot.state == ABSTAINING:
            self._stand(number)
        elif slot.state == RELEASING and slot.next_state == ABSTAINING:
            slot.next_state = WAITING
        return 0

    # ---- what time and the server bring

    cdef int on_timers(self, int64_t now_ns) except -1 nogil:
        """Do what is due at `now_ns`."""
        cdef uint32_t number
        cdef Slot *slot
        while True:
            number = self.schedule.pop_due(now_ns)
            if number == NONE:
                return 0
            slot = self.slots.at(number)
            if slot.state == LEADING:
                self._on_lease_timer(number, now_ns)
            elif slot.state == WAITING:
                self.schedule.enqueue(ACQUIRES, number)
            elif slot.state == ABSTAINING:
                self._stand(number)
            elif slot.state == RELEASING:
                # The lease has ended by itself.
                self._leave_release(number)

    cdef int _on_lease_timer(self, uint32_t number, int64_t now_ns) except -1 nogil:
        cdef Slot *slot = self.slots.at(number)
        cdef int64_t due_ns = slot.due_ns
        if now_ns >= slot.deadline_ns:
            return self._expire(number, now_ns)
        if self._is_stalled(slot, now_ns):
            return self._demote(number, STALLED, now_ns)
        if slot.drain_ns != 0 and now_ns >= slot.drain_ns:
            return self.hand_over(number, now_ns)
        if slot.drain_ns != 0 or slot.heir != NONE:
            self.consider_drain(number, now_ns)
            if slot.state != LEADING:
                return 0
        # If it goes well the timer has then been set for the next one already.
        self._refresh_now(number, self._refresh_due(number, now_ns), due_ns)
        return 0

    cdef void _refresh_now(self, uint32_t number, int64_t next_ns,
                           int64_t due_ns) noexcept nogil:
        """Have the lease refreshed; its timer rings at `next_ns`, or when the term ends.

        `due_ns` is when it was due; 0 if it was not.
        """
        cdef Slot *slot = self.slots.at(number)
        if slot.refreshing or self.schedule.is_queued(number):
            # Another would only burden a server that is slow.
            self._set_lease_timer(number, slot.deadline_ns)
            return
        self._set_lease_timer(number, min(next_ns, slot.deadline_ns))
        self._queue_refresh(number, due_ns)

    cdef void _queue_refresh(self, uint32_t number, int64_t due_ns) noexcept nogil:
        self.lateness.queued(number, due_ns)
        self.schedule.enqueue(REFRESHES, number)

    cdef bint _ask_now(self, uint32_t number) noexcept nogil:
        """Stand for it without waiting any longer. Returns whether it waited."""
        if self.slots.at(number).state != WAITING or self.schedule.is_queued(number):
            return False
        self.schedule.cancel_timer(number)
        self.schedule.enqueue(ACQUIRES, number)
        return True

    cdef int wake(self, uint32_t number, bint granted) except -1 nogil:
        """An election was set free, or granted to this node: stand for it at once."""
        if self.retiring or (self.slots.at(number).standing == BARRED and not granted):
            return 0
        if self.slots.at(number).state == ASKING:
            # Where announcements have a connection of their own, this one may have
            # overtaken the answer that another leads.
            self.slots.at(number).woken = 1
        elif self._ask_now(number):
            self.events.tally.wakeups += 1
        return 0

    cdef int watch(self, uint32_t number) except -1 nogil:
        """See whether an election that another is to lead is free; if so, lead it."""
        cdef Slot *slot = self.slots.at(number)
        if (slot.standing == WATCHES and slot.state == WAITING
                and not self.schedule.is_queued(number)):
            self.schedule.enqueue(ACQUIRES, number)
        return 0

    cdef int64_t leases_shortened(self, int64_t by_ns, int64_t now_ns) except -1 nogil:
        """All leases end earlier by `by_ns` than was counted on. Returns how many terms end now.

        The others are refreshed at once: by the next time that is due they might be over.
        """
        cdef uint32_t number
        cdef int64_t given_up = 0
        cdef Slot *slot
        for number in range(self.slots.used):
            slot = self.slots.at(number)
            if slot.key == NULL or slot.state != LEADING:
                continue
            if slot.deadline_ns - by_ns > now_ns:
                store_i64(&slot.deadline_ns, slot.deadline_ns - by_ns)
                self._refresh_now(number, slot.deadline_ns, 0)
                continue
            # Until now it was believed.
            store_i64(&slot.deadline_ns, min(slot.deadline_ns, now_ns))
            self._expire(number, now_ns)
            given_up += 1
        return given_up

    cdef int ask_again(self) except -1 nogil:
        """Ask for all that another leads: it may have been set free without a word to us."""
        cdef uint32_t number
        cdef Slot *slot
        for number in range(self.slots.used):
            slot = self.slots.at(number)
            if slot.key == NULL or slot.standing != CAMPAIGNS:
                continue
            if slot.state == ASKING:
                slot.woken = 1
            else:
                self._ask_now(number)
        return 0

    cdef int refresh_all(self) except -1 nogil:
        """A connection was made: wake-ups may have been missed, and leases lost."""
        cdef uint32_t number
        cdef Slot *slot
        for number in range(self.slots.used):
            slot = self.slots.at(number)
            if slot.key == NULL or self.schedule.is_queued(number):
                continue
            if slot.state == LEADING:
                self._refresh_now(number, slot.deadline_ns, 0)
            elif slot.standing == CAMPAIGNS:
                self._ask_now(number)
        return 0

    cdef void reap(self) noexcept nogil:
        """Free the slots of the removed; what is to be told of them has been."""
        cdef uint32_t number = self.schedule.peek(REAPED)
        while number != NONE:
            self.schedule.dequeue(number)
            self.population[<int>GONE] -= 1
            self.slots.give_back(number)
            number = self.schedule.peek(REAPED)

    # ---- what is to be sent

    cdef int next_refresh(self, int64_t now_ns, uint32_t *number) except -1 nogil:
        """Take the next lease to refresh; 0 if there is none. An overdue term ends instead."""
        cdef Slot *slot
        while True:
            number[0] = self.schedule.peek(REFRESHES)
            if number[0] == NONE:
                return 0
            slot = self.slots.at(number[0])
            if now_ns >= slot.deadline_ns:
                self._expire(number[0], now_ns)
                continue
            if self._is_stalled(slot, now_ns):
                self._demote(number[0], STALLED, now_ns)
                continue
            self.schedule.dequeue(number[0])
            slot.refreshing = 1
            self.lateness.sent(number[0], now_ns)
            return 1

    cdef int next_release(self, int queue, uint32_t *number) except -1 nogil:
        """Take the next term to release or to grant, as the queue says; 0 if there is none."""
        number[0] = self.schedule.peek(queue)
        if number[0] == NONE:
            return 0
        self.schedule.dequeue(number[0])
        return 1

    cdef int next_acquire(self, uint32_t *number) except -1 nogil:
        """Take the next election to stand for; 0 if there is none, or none may be led."""
        number[0] = self.peek_acquire()
        if number[0] == NONE:
            return 0
        self._become_asking(number[0])
        return 1

    cdef uint32_t peek_acquire(self) noexcept nogil:
        """Return the next election to stand for, or NONE."""
        if self.population[<int>LEADING] + self.population[<int>ASKING] >= self.max_leases:
            return NONE
        return self.schedule.peek(ACQUIRES)

    cdef bint has_work(self) noexcept nogil:
        """Tell whether one of the three above would give something."""
        return (self.schedule.queues[<int>REFRESHES] != NONE
                or self.schedule.queues[<int>RELEASES] != NONE
                or self.schedule.queues[<int>GRANTS] != NONE
                or self.peek_acquire() != NONE)

    # ---- what became of it

    cdef int won(self, uint32_t number, int64_t epoch, int64_t sent_ns,
                 int64_t now_ns) except -1 nogil:
        """The server gave this node the lease, under `epoch`."""
        cdef Slot *slot = self.slots.at(number)
        # The lease began at the server by now at the latest.
        if slot.unwanted or self.retiring:
            store_i64(&slot.epoch, epoch)
            self._become_releasing(number, now_ns + self.ttl_ns, slot.next_state)
        elif now_ns >= sent_ns + self.ttl_ns - self.margin_ns:
            # Too late to lead by it: let the next try go to whoever is quicker.
            store_i64(&slot.epoch, epoch)
            self._become_releasing(number, now_ns + self.ttl_ns, WAITING)
        else:
            self._become_leader(number, epoch, sent_ns, now_ns)
        return 0

    cdef int contested(self, uint32_t number, uint32_t holder, int64_t again_ns) except -1 nogil:
        """Another holds the lease; it ends no later than `again_ns`."""
        cdef Slot *slot = self.slots.at(number)
        self._see_holder(number, holder)
        if slot.woken and not slot.unwanted:
            return self._become_candidate(number)
        return self.not_acquired(number, again_ns)

    cdef int not_acquired(self, uint32_t number, int64_t again_ns) except -1 nogil:
        """The acquire failed or was lost; stand again at `again_ns`, or at once if 0."""
        cdef Slot *slot = self.slots.at(number)
        if slot.unwanted:
            if slot.next_state == GONE:
                return self._become_gone(number)
            return self._become_idle(number)
        if again_ns == 0:
            return self._stand(number)
        return self._become_waiting(number, again_ns)

    cdef int refreshed(self, uint32_t number, int64_t sent_ns, int64_t now_ns) except -1 nogil:
        """The server extended the lease; it counts if the term is not over by now."""
        cdef Slot *slot = self.slots.at(number)
        if now_ns >= slot.deadline_ns:
            return self._expire(number, now_ns)
        store_i64(&slot.deadline_ns, sent_ns + self.ttl_ns - self.margin_ns)
        slot.refreshing = 0
        if self.schedule.is_queued(number):
            self.schedule.dequeue(number)
        self._set_lease_timer(number, self._refresh_due(number, sent_ns))
        return 0

    cdef int mismatched(self, uint32_t number, int64_t now_ns) except -1 nogil:
        """The server says that the lease is not ours: the term is over."""
        if now_ns >= self.slots.at(number).deadline_ns:
            return self._expire(number, now_ns)
        self._demote(number, LOST, now_ns)
        return 0

    cdef int not_refreshed(self, uint32_t number, int64_t now_ns,
                           int64_t again_ns) except -1 nogil:
        """The refresh failed or was lost: the old deadline stands; try again at `again_ns`."""
        cdef Slot *slot = self.slots.at(number)
        slot.refreshing = 0
        if now_ns >= slot.deadline_ns:
            return self._expire(number, now_ns)
        if again_ns <= now_ns:
            if not self.schedule.is_queued(number):
                self._queue_refresh(number, 0)
        elif again_ns < slot.deadline_ns:
            self._set_lease_timer(number, again_ns)
        return 0

    cdef int released(self, uint32_t number) except -1 nogil:
        """The server ended the term, or had ended it before."""
        self.events.tally.released += 1
        return self._leave_release(number)

    cdef int not_released(self, uint32_t number) except -1 nogil:
        """The release was lost: send it again, unless the lease ends first."""
        if not self.schedule.is_queued(number):
            self._enqueue_release(number)
        return 0
