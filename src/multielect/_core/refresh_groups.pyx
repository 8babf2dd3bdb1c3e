# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""Leases that are refreshed together: when it is each group's turn, and which wait to be sent.

Rules of this file:
    * A refresh group is as many neighbouring slots as one batch refreshes. It has one timer for all
      its leases, so that a refresh that goes well moves no timer at all.
    * A lease is refreshed again within a period, a third of the TTL, after its last refresh was
      sent: that is when it is due.
    * A group is refreshed once in a cycle, which is shorter than a period by a window of a 128th.
      Its timer rings a window before its leases are due, so that the batches of all groups whose
      timers ring together may go out one after another, and none is late.
    * To wake up costs a node more than to send a batch does. So groups share phases of the cycle:
      as many phases, a power of two, as have at least `MIN_BATCHES` full batches each, with the
      leases that are led, and 512 at the most.
    * Phases lie evenly in the cycle. The sequence of van der Corput (1935) says which phase a group
      has: so groups are spread evenly, however many phases there are.
    * The first phase lies at another time for each node: the nodes of a fleet take turns.
    * When the number of phases changes, a group moves with its next refresh. That refresh then
      comes earlier than it would have, never later.
    * The timer rings when the leases are to be refreshed, and no later than the first of their
      terms ends. It may ring for nothing: who joins brings it forward, who leaves lets it be.
    * Timers are a binary heap in which each refresh group knows its place: there are few of them.
    * What is known of a single lease is not known here.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc

from .slots cimport NEVER, NONE

cdef enum:
    MAX_PHASE_BITS = 9
    MIN_BATCHES = 4       # of each phase, where there are more than one
    WINDOW_BITS = 7


cdef uint32_t _phase_of(uint32_t group) noexcept nogil:
    cdef uint32_t phase = 0, bit
    for bit in range(MAX_PHASE_BITS):
        phase = phase << 1 | (group >> bit & 1)
    return phase


cdef class RefreshGroups:
    """Timers and the send queue of refresh groups of `size` slots.

    No lease waits for more than `period_ns` between two refreshes. `seed` tells this node's times
    from those of others.
    """

    def __cinit__(self, uint32_t size, int64_t period_ns, uint64_t seed):
        self.size = size
        self.window_ns = period_ns >> WINDOW_BITS
        self.cycle_ns = period_ns - self.window_ns
        self.offset_ns = <int64_t>(seed % <uint64_t>self.cycle_ns)
        self.due_ns = NEVER
        self.first = NONE
        self._change_phases(0)

    def __dealloc__(self):
        free(self.items)
        free(self.heap)

    cdef int reserve(self, uint32_t number) except -1 nogil:
        """Have a refresh group for this slot."""
        cdef uint32_t wanted = number // self.size + 1
        cdef uint32_t capacity = max(wanted, self.capacity * 2)
        cdef RefreshGroup *group
        cdef void *grown
        if wanted > self.capacity:
            grown = realloc(self.items, capacity * sizeof(RefreshGroup))
            if grown != NULL:
                self.items = <RefreshGroup *>grown
                grown = realloc(self.heap, capacity * sizeof(uint32_t))
            if grown == NULL:
                with gil:
                    raise MemoryError
            self.heap = <uint32_t *>grown
            self.capacity = capacity
        while self.count < wanted:
            group = &self.items[self.count]
            group.timer_ns = NEVER
            group.refresh_ns = NEVER
            group.phase = _phase_of(self.count)
            group.owed_ns = 0
            group.place = NONE
            group.next = NONE
            group.queued = False
            self.count += 1
        return 0

    # ---- timers

    cdef int64_t join(self, uint32_t number, int64_t sent_ns) noexcept nogil:
        """Refresh the slot's lease, got at `sent_ns`, with the others. Returns when."""
        cdef RefreshGroup *group = &self.items[number // self.size]
        cdef int64_t turn_ns = self._next_turn(group, sent_ns)
        group.refresh_ns = min(group.refresh_ns, turn_ns)
        return group.refresh_ns

    cdef void _change_phases(self, uint32_t leases) noexcept nogil:
        """Have fewer phases or more, and say for which numbers of leases they will do."""
        cdef uint64_t least = MIN_BATCHES * <uint64_t>self.size
        while self.phase_bits < MAX_PHASE_BITS and leases >= least << (self.phase_bits + 1):
            self.phase_bits += 1
        # Not before a quarter is gone: a lease that comes and goes is to move none of the others.
        while self.phase_bits and leases < (least << self.phase_bits) // 4 * 3:
            self.phase_bits -= 1
        self.fewest = 0
        self.too_many = NONE
        if self.phase_bits:
            self.fewest = <uint32_t>((least << self.phase_bits) // 4 * 3)
        if self.phase_bits < MAX_PHASE_BITS:
            self.too_many = <uint32_t>(least << (self.phase_bits + 1))

    cdef void hurry(self, uint32_t group, int64_t at_ns) noexcept nogil:
        """Let the timer ring at `at_ns` at the latest."""
        if at_ns < self.items[group].timer_ns:
            self.set_timer(group, at_ns)

    cdef void set_timer(self, uint32_t group, int64_t at_ns) noexcept nogil:
        """Let the timer ring at `at_ns`; NEVER takes it off."""
        cdef RefreshGroup *item = &self.items[group]
        item.timer_ns = at_ns
        if at_ns == NEVER:
            if item.place != NONE:
                self._remove(group)
            return
        if item.place == NONE:
            self._put(group, self.timed)
            self.timed += 1
        self._rise(item.place)
        self._sink(item.place)

    cdef uint32_t pop_due(self, int64_t now_ns) noexcept nogil:
        """Return a refresh group whose timer has rung by `now_ns`, the timer taken off, or NONE."""
        cdef uint32_t group
        if self.timed == 0 or self.items[self.heap[0]].timer_ns > now_ns:
            return NONE
        group = self.heap[0]
        self.set_timer(group, NEVER)
        return group

    cdef int64_t next_due_ns(self) noexcept nogil:
        """Return when the next timer rings."""
        return self.items[self.heap[0]].timer_ns if self.timed else NEVER

    cdef void advance(self, uint32_t group, int64_t now_ns, int64_t ends_ns) noexcept nogil:
        """Have its leases sent if they are to be refreshed by now, and set the timer anew.

        `ends_ns` is when the first of their terms ends; NEVER where there is none.
        """
        cdef RefreshGroup *item = &self.items[group]
        if ends_ns == NEVER:
            item.refresh_ns = NEVER
        elif item.refresh_ns <= now_ns:
            self.enqueue(group, item.refresh_ns + self.window_ns)
            item.refresh_ns = self._next_turn(item, now_ns)
        self.set_timer(group, min(item.refresh_ns, ends_ns))

    # ---- what waits to be sent

    cdef void enqueue(self, uint32_t group, int64_t owed_ns) noexcept nogil:
        """Have its leases sent; `owed_ns` is when they are due, 0 if it is out of turn."""
        cdef RefreshGroup *item = &self.items[group]
        self.due_ns = min(self.due_ns, owed_ns)
        if item.queued:
            if group == self.first:
                # Some of them are sent already, and may be to be sent anew.
                self.cursor = group * self.size
            return
        item.queued = True
        item.owed_ns = owed_ns
        item.next = NONE
        if self.first == NONE:
            self.first = group
            self.cursor = group * self.size
        else:
            self.items[self.last].next = group
        self.last = group

    cdef void dequeue(self) noexcept nogil:
        """Take off the first of the queue."""
        cdef RefreshGroup *item = &self.items[self.first]
        item.queued = False
        self.first = item.next
        if self.first == NONE:
            self.due_ns = NEVER
        else:
            self.cursor = self.first * self.size

    cdef int64_t _next_turn(self, RefreshGroup *group, int64_t sent_ns) noexcept nogil:
        """Return the last time at its phase that is no more than a cycle after `sent_ns`."""
        cdef int64_t latest = sent_ns + self.cycle_ns
        cdef uint32_t phase = group.phase >> (MAX_PHASE_BITS - self.phase_bits)
        cdef int64_t phase_ns = self.offset_ns + (phase * self.cycle_ns >> self.phase_bits)
        # The remainder would be negative where the clock has only begun.
        if phase_ns >= self.cycle_ns:
            phase_ns -= self.cycle_ns
        return latest - (latest - phase_ns) % self.cycle_ns

    # ---- the heap

    cdef void _remove(self, uint32_t group) noexcept nogil:
        cdef uint32_t place = self.items[group].place
        cdef uint32_t moved = self.heap[self.timed - 1]
        self.timed -= 1
        self.items[group].place = NONE
        if moved != group:
            self._put(moved, place)
            self._rise(place)
            self._sink(self.items[moved].place)

    cdef void _rise(self, uint32_t place) noexcept nogil:
        cdef uint32_t group = self.heap[place], above
        cdef int64_t timer_ns = self.items[group].timer_ns
        while place:
            above = (place - 1) >> 1
            if self.items[self.heap[above]].timer_ns <= timer_ns:
                break
            self._put(self.heap[above], place)
            place = above
        self._put(group, place)

    cdef void _sink(self, uint32_t place) noexcept nogil:
        cdef uint32_t group = self.heap[place], below
        cdef int64_t timer_ns = self.items[group].timer_ns
        while True:
            below = 2 * place + 1
            if below >= self.timed:
                break
            if (below + 1 < self.timed and self.items[self.heap[below + 1]].timer_ns
                    < self.items[self.heap[below]].timer_ns):
                below += 1
            if self.items[self.heap[below]].timer_ns >= timer_ns:
                break
            self._put(self.heap[below], place)
            place = below
        self._put(group, place)

    cdef void _put(self, uint32_t group, uint32_t place) noexcept nogil:
        self.heap[place] = group
        self.items[group].place = place
