# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""The life of each election on this node.

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

        from \\ to      waiting  asking  leading  releasing  abstaining  idle  gone
        idle              x                                                     x
        waiting           x        x                                     x      x
        asking            x                 x         x                  x      x
        leading           x                           x
        releasing         x                                      x       x      x
        abstaining        x                                              x      x

    waiting     stands for election: until a timer, or in the queue of acquires
    asking      an acquire is in flight
    leading     holds the lease; a refresh may be queued or in flight
    releasing   has given the term up; the release is queued or in flight
    abstaining  has resigned and lets the others go first for one TTL
    idle        not started, or stopped
    gone        removed; its slot is freed once its events are taken
"""

from .schedule cimport ACQUIRES, REAPED, REFRESHES, RELEASES
from .slots cimport NONE, load_i64, store_i64

cdef enum:
    PHASES = 10

cdef uint8_t[7] ALLOWED
ALLOWED[<int>IDLE] = 1 << WAITING | 1 << GONE
ALLOWED[<int>WAITING] = 1 << WAITING | 1 << ASKING | 1 << IDLE | 1 << GONE
ALLOWED[<int>ASKING] = 1 << WAITING | 1 << LEADING | 1 << RELEASING | 1 << IDLE | 1 << GONE
ALLOWED[<int>LEADING] = 1 << WAITING | 1 << RELEASING
ALLOWED[<int>RELEASING] = 1 << WAITING | 1 << ABSTAINING | 1 << IDLE | 1 << GONE
ALLOWED[<int>ABSTAINING] = 1 << WAITING | 1 << IDLE | 1 << GONE
ALLOWED[<int>GONE] = 0

STATE_NAMES = ("idle", "waiting", "asking", "leading", "releasing", "abstaining", "gone")


cdef class Terms:
    """The elections of a node and what becomes of them."""

    def __cinit__(self, *, int64_t now_ns, int64_t ttl_ns, int64_t margin_ns,
                  uint32_t batch_keys, uint32_t max_leases, uint64_t seed):
        self.slots = Slots(<uint32_t>seed)
        self.schedule = Schedule(self.slots, now_ns)
        self.events = Events(self.slots)
        self.holders = Holders()
        self.ttl_ns = ttl_ns
        self.margin_ns = margin_ns
        self.refresh_ns = ttl_ns // 3
        # Enough to spread candidates apart, little beside a takeover.
        self.jitter_ns = min(ttl_ns // 20, 10_000_000)
        self.batch_keys = batch_keys
        self.max_leases = max_leases
        self.random_state = seed | 1

    # ---- what the user wants

    cdef int start(self) except -1 nogil:
        """Stand for all elections, in the order in which they were added."""
        cdef uint32_t number
        self.running = True
        for number in range(self.slots.used):
            if self.slots.at(number).key != NULL and self.slots.at(number).state == IDLE:
                self._become_candidate(number)
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
        self.population[<int>IDLE] += 1
        if self.running:
            self._become_candidate(number)
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
            self._become_candidate(number)
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
                self._become_candidate(number)
            elif slot.state == RELEASING:
                # The lease has ended by itself.
                self._leave_release(number)

    cdef int _on_lease_timer(self, uint32_t number, int64_t now_ns) except -1 nogil:
        cdef Slot *slot = self.slots.at(number)
        if now_ns >= slot.deadline_ns:
            return self._expire(number, now_ns)
        if self._is_stalled(number, now_ns):
            return self._demote(number, STALLED, now_ns)
        # It may ring for the watchdog while a refresh is queued or on its way; one more does
        # no harm.
        self._set_lease_timer(number, slot.deadline_ns)
        if not self.schedule.is_queued(number):
            self.schedule.enqueue(REFRESHES, number)
        return 0

    cdef int wake(self, const char *key, size_t length) except -1 nogil:
        """An election was set free: stand for it at once."""
        cdef uint32_t number = self.slots.find(key, length)
        if number == NONE:
            return 0
        if self.slots.at(number).state == ASKING:
            # Where announcements have a connection of their own, this one may have
            # overtaken the answer that another leads.
            self.slots.at(number).woken = 1
        elif (self.slots.at(number).state == WAITING
                and not self.schedule.is_queued(number)):
            self.schedule.cancel_timer(number)
            self.schedule.enqueue(ACQUIRES, number)
            self.events.tally.wakeups += 1
        return 0

    cdef int ask_again(self) except -1 nogil:
        """Wake-ups are heard from now on: what was asked for before may have been set free."""
        cdef uint32_t number
        cdef Slot *slot
        for number in range(self.slots.used):
            slot = self.slots.at(number)
            if slot.key == NULL:
                continue
            if slot.state == ASKING:
                slot.woken = 1
            elif slot.state == WAITING and not self.schedule.is_queued(number):
                self.schedule.cancel_timer(number)
                self.schedule.enqueue(ACQUIRES, number)
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
                self._set_lease_timer(number, slot.deadline_ns)
                self.schedule.enqueue(REFRESHES, number)
            elif slot.state == WAITING:
                self.schedule.cancel_timer(number)
                self.schedule.enqueue(ACQUIRES, number)
        return 0

    cdef void reap(self) noexcept nogil:
        """Free the slots of the removed; what is to be told of them has been."""
        cdef uint32_t number = self.schedule.peek(REAPED)
        while number != NONE:
            self.schedule.dequeue(number)
            self.population[<int>GONE] -= 1
            self.slots.give_back(number)
            number = self.schedule.peek(REAPED)

    cdef int64_t random_below(self, int64_t bound) noexcept nogil:
        # xorshift64* (Vigna, 2016), from the seed that the caller gave.
        self.random_state ^= self.random_state >> 12
        self.random_state ^= self.random_state << 25
        self.random_state ^= self.random_state >> 27
        if bound <= 0:
            return 0
        return <int64_t>((self.random_state * <uint64_t>0x2545F4914F6CDD1D >> 1) % <uint64_t>bound)

    # ---- what is to be sent

    cdef int next_refresh(self, int64_t now_ns, uint32_t *number) except -1 nogil:
        """Take the next lease to refresh; 0 if there is none. An overdue term ends instead."""
        while True:
            number[0] = self.schedule.peek(REFRESHES)
            if number[0] == NONE:
                return 0
            if now_ns >= self.slots.at(number[0]).deadline_ns:
                self._expire(number[0], now_ns)
                continue
            if self._is_stalled(number[0], now_ns):
                self._demote(number[0], STALLED, now_ns)
                continue
            self.schedule.dequeue(number[0])
            return 1

    cdef int next_release(self, uint32_t *number) except -1 nogil:
        """Take the next term to release; 0 if there is none."""
        number[0] = self.schedule.peek(RELEASES)
        if number[0] == NONE:
            return 0
        self.schedule.dequeue(number[0])
        return 1

    cdef int next_acquire(self, uint32_t *number) except -1 nogil:
        """Take the next election to stand for; 0 if there is none, or none may be led."""
        number[0] = self.schedule.peek(ACQUIRES)
        if (number[0] == NONE or self.population[<int>LEADING] + self.population[<int>ASKING]
                >= self.max_leases):
            return 0
        self._become_asking(number[0])
        return 1

    cdef bint has_work(self) noexcept nogil:
        """Tell whether one of the three above would give something."""
        return (self.schedule.queues[<int>REFRESHES] != NONE
                or self.schedule.queues[<int>RELEASES] != NONE
                or (self.schedule.queues[<int>ACQUIRES] != NONE
                    and self.population[<int>LEADING] + self.population[<int>ASKING]
                    < self.max_leases))

    # ---- what became of it

    cdef int won(self, uint32_t number, int64_t epoch, int64_t sent_ns,
                 int64_t now_ns) except -1 nogil:
        """The server gave this node the lease, under `epoch`."""
        cdef Slot *slot = self.slots.at(number)
        # The lease began at the server by now at the latest.
        if slot.unwanted:
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
        self._see_holder(number, holder)
        return self.not_acquired(number, 0 if self.slots.at(number).woken else again_ns)

    cdef int not_acquired(self, uint32_t number, int64_t again_ns) except -1 nogil:
        """The acquire failed or was lost; stand again at `again_ns`, or at once if 0."""
        cdef Slot *slot = self.slots.at(number)
        if slot.unwanted:
            if slot.next_state == GONE:
                return self._become_gone(number)
            return self._become_idle(number)
        if again_ns == 0:
            return self._become_candidate(number)
        return self._become_waiting(number, again_ns)

    cdef int refreshed(self, uint32_t number, int64_t sent_ns, int64_t now_ns) except -1 nogil:
        """The server extended the lease; it counts if the term is not over by now."""
        cdef Slot *slot = self.slots.at(number)
        if now_ns >= slot.deadline_ns:
            return self._expire(number, now_ns)
        store_i64(&slot.deadline_ns, sent_ns + self.ttl_ns - self.margin_ns)
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
        if now_ns >= slot.deadline_ns:
            return self._expire(number, now_ns)
        if again_ns <= now_ns:
            if not self.schedule.is_queued(number):
                self.schedule.enqueue(REFRESHES, number)
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
            self.schedule.enqueue(RELEASES, number)
        return 0

    # ---- the only writers of a state

    cdef int _enter(self, uint32_t number, uint8_t state) except -1 nogil:
        cdef Slot *slot = self.slots.at(number)
        if not ALLOWED[slot.state] & (1 << state):
            # A fault of ours: the owner thread ends, and with it all that this node leads.
            with gil:
                raise AssertionError(
                    f"an election cannot go from {STATE_NAMES[slot.state]} to {STATE_NAMES[state]}")
        self.schedule.cancel_timer(number)
        self.schedule.dequeue(number)
        self.population[slot.state] -= 1
        self.population[state] += 1
        slot.state = state
        slot.serial += 1
        slot.woken = 0
        slot.unwanted = 0
        return 0

    cdef int _become_candidate(self, uint32_t number) except -1 nogil:
        self._enter(number, WAITING)
        self.schedule.enqueue(ACQUIRES, number)
        return 0

    cdef int _become_waiting(self, uint32_t number, int64_t again_ns) except -1 nogil:
        self._enter(number, WAITING)
        self.schedule.set_timer(number, again_ns)
        return 0

    cdef int _become_asking(self, uint32_t number) except -1 nogil:
        self._enter(number, ASKING)
        self.slots.at(number).next_state = WAITING
        return 0

    cdef int _become_leader(self, uint32_t number, int64_t epoch, int64_t sent_ns,
                            int64_t now_ns) except -1 nogil:
        cdef Slot *slot = self.slots.at(number)
        self._enter(number, LEADING)
        self._see_holder(number, NONE)
        self.events.elected(number, epoch, now_ns)
        store_i64(&slot.alive_ns, now_ns)
        store_i64(&slot.epoch, epoch)
        store_i64(&slot.deadline_ns, sent_ns + self.ttl_ns - self.margin_ns)
        self._set_lease_timer(number, self._refresh_due(number, sent_ns))
        return 0

    cdef int _become_releasing(self, uint32_t number, int64_t lease_end_ns,
                               uint8_t next_state) except -1 nogil:
        self._enter(number, RELEASING)
        self.slots.at(number).next_state = next_state
        self.schedule.set_timer(number, lease_end_ns)
        self.schedule.enqueue(RELEASES, number)
        return 0

    cdef int _become_abstaining(self, uint32_t number, int64_t until_ns) except -1 nogil:
        self._enter(number, ABSTAINING)
        self.schedule.set_timer(number, until_ns)
        return 0

    cdef int _become_idle(self, uint32_t number) except -1 nogil:
        return self._enter(number, IDLE)

    cdef int _become_gone(self, uint32_t number) except -1 nogil:
        self._enter(number, GONE)
        self._see_holder(number, NONE)
        self.schedule.enqueue(REAPED, number)
        return 0

    # ---- common steps

    cdef int _leave_release(self, uint32_t number) except -1 nogil:
        cdef Slot *slot = self.slots.at(number)
        if slot.next_state == GONE:
            return self._become_gone(number)
        if slot.next_state == IDLE:
            return self._become_idle(number)
        if slot.next_state == WAITING:
            return self._become_candidate(number)
        # Where the release was sent, its term's end is the last timer that was set.
        return self._become_abstaining(number, slot.due_ns)

    cdef int _demote(self, uint32_t number, uint8_t reason, int64_t now_ns) except -1 nogil:
        """End the current term at `now_ns`, and go on as `reason` says."""
        cdef Slot *slot = self.slots.at(number)
        cdef int64_t deadline_ns = slot.deadline_ns
        cdef int64_t ended_ns = now_ns if now_ns < deadline_ns else deadline_ns
        store_i64(&slot.deadline_ns, 0)
        self.events.demoted(number, slot.epoch, reason, ended_ns)
        if reason == EXPIRED or reason == LOST:
            # The lease may still stand in our name: then acquire takes it over.
            return self._become_candidate(number)
        if reason == RESIGNED or reason == STALLED:
            return self._become_releasing(number, now_ns + self.ttl_ns, ABSTAINING)
        return self._become_releasing(number, deadline_ns + self.margin_ns,
                                      GONE if reason == REMOVED else IDLE)

    cdef bint _is_stalled(self, uint32_t number, int64_t now_ns) noexcept nogil:
        cdef Slot *slot = self.slots.at(number)
        return slot.max_stall_ns != 0 and now_ns - load_i64(&slot.alive_ns) >= slot.max_stall_ns

    cdef void _set_lease_timer(self, uint32_t number, int64_t due_ns) noexcept nogil:
        # A refresh that the watchdog brings forward does no harm, and needs no timer more.
        cdef Slot *slot = self.slots.at(number)
        cdef int64_t stalled_ns
        if slot.max_stall_ns != 0:
            stalled_ns = load_i64(&slot.alive_ns) + slot.max_stall_ns
            if stalled_ns < due_ns:
                due_ns = stalled_ns
        self.schedule.set_timer(number, due_ns)

    cdef int _expire(self, uint32_t number, int64_t now_ns) except -1 nogil:
        return self._demote(number, EXPIRED, now_ns)

    cdef void _see_holder(self, uint32_t number, uint32_t holder) noexcept nogil:
        cdef Slot *slot = self.slots.at(number)
        if holder != NONE:
            self.holders.keep(holder)
        self.holders.drop(slot.holder)
        slot.holder = holder

    cdef int64_t _refresh_due(self, uint32_t number, int64_t sent_ns) noexcept nogil:
        # The times at which a lease is refreshed form a grid of one third of the TTL, the
        # same grid for as many leases as fill a batch, and PHASES of them: batches are
        # full, ticks are even, and a node wakes PHASES times in a third of the TTL.
        cdef int64_t phase = number // self.batch_keys % PHASES * (self.refresh_ns // PHASES)
        cdef int64_t latest = sent_ns + self.refresh_ns
        return latest - (latest - phase) % self.refresh_ns
