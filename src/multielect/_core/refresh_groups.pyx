# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""When the leases of each bucket are refreshed, and which buckets wait to be sent.

Rules of this file:
    * The leases of a bucket are a refresh group. They share one timer, so a successful refresh
      moves no timer.
    * A lease is due one period, a third of the TTL, after its last refresh was sent.
    * A group is refreshed once in a cycle. A cycle is shorter than a period by a window, a 128th of
      the period. The timer rings a window before the leases are due. So the batches of all groups
      whose timers ring together can be sent one after another, and none is late.
    * A wake-up costs a node more than a batch. So groups share phases of the cycle. The number of
      phases is a power of two, at most 512, such that this node's leases fill at least
      `MIN_BATCHES` batches in each phase.
    * Phases are spread evenly over the cycle. The sequence of van der Corput (1935) says which
      phase a group has, so groups are spread evenly over any number of phases.
    * The first phase is at a different time on each node, so the nodes of a fleet take turns.
    * When the number of phases rises, a group moves to its new phase at once. When it falls, the
      group moves with its next refresh. Neither makes a refresh late.
    * The timer rings when the leases are to be refreshed, and no later than the first deadline of
      their terms. A lease that joins may bring it forward. A lease that leaves does not move it, so
      the timer may ring for nothing.
    * The timers are a binary heap, as there are few, and each group knows its place in it.
    * The code here keeps nothing about single leases.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from .queues cimport MAX_LANES, TURNS
from .slots cimport NEVER, NONE

cdef enum:
    MAX_PHASE_BITS = 9
    MIN_BATCHES = 4       # of each phase, if there is more than one
    WINDOW_BITS = 7


cdef uint32_t _phase_of(uint32_t group) noexcept nogil:
    cdef uint32_t phase = 0, bit
    for bit in range(MAX_PHASE_BITS):
        phase = phase << 1 | (group >> bit & 1)
    return phase


cdef class RefreshGroups:
    """The timers of the buckets of `queues`, and which buckets wait to be sent.

    Two refreshes of a lease are at most `period_ns` apart. A full batch refreshes `batch_keys`
    leases. `seed` shifts this node's phases against those of other nodes.
    """

    def __cinit__(self, Queues queues, uint32_t batch_keys, int64_t period_ns, uint64_t seed,
                  int64_t now_ns):
        cdef uint32_t group
        cdef uint32_t lane
        self.queues = queues
        self.slots = queues.slots
        self.batch_keys = batch_keys
        self.window_ns = period_ns >> WINDOW_BITS
        self.cycle_ns = period_ns - self.window_ns
        self.offset_ns = <int64_t>(seed % <uint64_t>self.cycle_ns)
        self.items = <RefreshGroup *>malloc(queues.bucket_count * sizeof(RefreshGroup))
        self.heap = <uint32_t *>malloc(queues.bucket_count * sizeof(uint32_t))
        if self.items == NULL or self.heap == NULL:
            raise MemoryError
        for group in range(queues.bucket_count):
            self.items[group].timer_ns = NEVER
            self.items[group].refresh_ns = NEVER
            self.items[group].latest_ns = NEVER
            self.items[group].owed_ns = 0
            self.items[group].phase = _phase_of(group)
            self.items[group].place = NONE
            self.items[group].cursor = NONE
        for lane in range(<uint32_t>MAX_LANES + 1):
            self.due_ns[lane] = NEVER
        self._change_phases(0, now_ns)

    def __dealloc__(self):
        free(self.items)
        free(self.heap)

    # ---- timers

    cdef int64_t join(self, uint32_t group, int64_t sent_ns) noexcept nogil:
        """Add a lease, acquired at `sent_ns`, to the group. Returns when to refresh it."""
        cdef RefreshGroup *item = &self.items[group]
        item.latest_ns = min(item.latest_ns, sent_ns + self.cycle_ns)
        item.refresh_ns = min(item.refresh_ns, self._turn_before(item, sent_ns + self.cycle_ns))
        return item.refresh_ns

    cdef void _change_phases(self, uint32_t leases, int64_t now_ns) noexcept nogil:
        """Change the number of phases, and compute for which numbers of leases it holds."""
        cdef int before = self.phase_bits
        cdef uint64_t least = MIN_BATCHES * <uint64_t>self.batch_keys
        while self.phase_bits < MAX_PHASE_BITS and leases >= least << (self.phase_bits + 1):
            self.phase_bits += 1
        # The number of phases falls only when a quarter of the leases is gone. So a lease that
        # comes and goes moves none of the others.
        while self.phase_bits and leases < (least << self.phase_bits) // 4 * 3:
            self.phase_bits -= 1
        self.fewest = 0
        self.too_many = NONE
        if self.phase_bits:
            self.fewest = <uint32_t>((least << self.phase_bits) // 4 * 3)
        if self.phase_bits < MAX_PHASE_BITS:
            self.too_many = <uint32_t>(least << (self.phase_bits + 1))
        if self.phase_bits > before:
            self._spread(now_ns)

    cdef void _spread(self, int64_t now_ns) noexcept nogil:
        """Refresh groups at their new phases, if these are still to come."""
        # When many leases are acquired together, the first ones join while there are few phases.
        # Without this, all of them would be refreshed together the first time.
        cdef uint32_t group
        cdef int64_t turn_ns
        cdef RefreshGroup *item
        for group in range(self.queues.bucket_count):
            item = &self.items[group]
            if item.refresh_ns == NEVER:
                continue
            turn_ns = self._turn_before(item, item.latest_ns)
            if turn_ns > now_ns:
                item.refresh_ns = turn_ns
                self.bring_forward(group, turn_ns)

    cdef void bring_forward(self, uint32_t group, int64_t at_ns) noexcept nogil:
        """Set the timer to `at_ns`, unless it rings before."""
        if at_ns < self.items[group].timer_ns:
            self.set_timer(group, at_ns)

    cdef void set_timer(self, uint32_t group, int64_t at_ns) noexcept nogil:
        """Set the timer to `at_ns`; NEVER cancels it."""
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

    cdef uint32_t peek_due(self, int64_t now_ns) noexcept nogil:
        """Return a group whose timer has rung by `now_ns`, or NONE.

        The group is returned again until `advance` or `set_timer` sets its timer anew.
        """
        if self.timed == 0 or self.items[self.heap[0]].timer_ns > now_ns:
            return NONE
        return self.heap[0]

    cdef int64_t next_due_ns(self) noexcept nogil:
        """Return when the next timer rings."""
        return self.items[self.heap[0]].timer_ns if self.timed else NEVER

    cdef void advance(self, uint32_t group, int64_t now_ns, int64_t ends_ns) noexcept nogil:
        """Enqueue the group if its leases are to be refreshed by now, and set its timer anew.

        `ends_ns` is the first deadline of its terms; NEVER if there is none.
        """
        cdef RefreshGroup *item = &self.items[group]
        if ends_ns == NEVER:
            item.refresh_ns = NEVER
            item.latest_ns = NEVER
        elif item.refresh_ns <= now_ns:
            self.enqueue(group, item.refresh_ns + self.window_ns)
            item.latest_ns = now_ns + self.cycle_ns
            item.refresh_ns = self._turn_before(item, item.latest_ns)
        self.set_timer(group, min(item.refresh_ns, ends_ns))

    # ---- groups that wait to be sent

    cdef void enqueue(self, uint32_t group, int64_t owed_ns) noexcept nogil:
        """Have the group's leases sent, which are due at `owed_ns`; 0: they are out of turn."""
        cdef RefreshGroup *item = &self.items[group]
        cdef uint32_t lane = self.queues.buckets[group].lane
        self.due_ns[lane] = min(self.due_ns[lane], owed_ns)
        # Leases that are sent already are sent again.
        item.cursor = self.slots.first_of(group)
        if not self.queues.is_ready(group, TURNS):
            item.owed_ns = owed_ns
            self.queues.join(group, TURNS)

    cdef void dequeue(self, uint32_t group) noexcept nogil:
        """Take the group out of the ring, as all its leases are sent."""
        cdef uint32_t lane = self.queues.buckets[group].lane
        self.queues.leave(group, TURNS)
        if self.queues.is_empty(lane, TURNS):
            self.due_ns[lane] = NEVER

    cdef void move(self, uint32_t group, uint32_t lane) noexcept nogil:
        """Have another lane serve the bucket."""
        cdef uint32_t before = self.queues.buckets[group].lane
        self.queues.move(group, lane)
        if self.queues.is_ready(group, TURNS):
            self.due_ns[lane] = min(self.due_ns[lane], self.items[group].owed_ns)
        if self.queues.is_empty(before, TURNS):
            self.due_ns[before] = NEVER

    cdef int64_t _turn_before(self, RefreshGroup *group, int64_t latest) noexcept nogil:
        """Return the last time of the group's phase that is no later than `latest`."""
        cdef uint32_t phase = group.phase >> (MAX_PHASE_BITS - self.phase_bits)
        cdef int64_t phase_ns = self.offset_ns + (phase * self.cycle_ns >> self.phase_bits)
        # Without this the remainder could be negative while the clock is near zero.
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
