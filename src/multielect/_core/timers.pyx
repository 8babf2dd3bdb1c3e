# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""One timer for each election.

Rules of this file:
    * A slot has at most one timer. Timers in the same place of the wheel are a list that links the
      slots themselves, so no function here allocates.
    * Timers are a hierarchical wheel (Varghese and Lauck, 1987): three levels of 4,096 places each.
      The finest places are 2^20 ns (1.05 ms) apart. To set or cancel a timer costs the same for ten
      elections and for a million. A timer moves down at most twice, and not at all if it rings
      within 4.3 s.
    * A timer never rings early, and at most one tick late.
    * Empty places cost nothing. When the clock jumps by a year, the wheel takes no more steps than
      there are timers to ring or to move down.
"""

from libc.string cimport memset

from .slots cimport NEVER, NONE, TIMER

cdef extern from *:
    """
    static inline int multielect_lowest_bit(uint64_t x) { return __builtin_ctzll(x); }
    """
    int lowest_bit "multielect_lowest_bit" (uint64_t bits) noexcept nogil

cdef enum:
    TICK_BITS = 20
    LEVELS = 3
    PLACE_BITS = 12         # of each level
    PLACES = 1 << 12
    PLACE_MASK = (1 << 12) - 1
    WORDS = 1 << 6          # words of 64 bits for the bits of all places


cdef class Timers:
    """Timers over the slots of `slots`, from `now_ns` on."""

    def __cinit__(self, Slots slots, int64_t now_ns):
        self.slots = slots
        self.tick = now_ns >> TICK_BITS
        memset(self.wheel, 0xFF, sizeof(self.wheel))

    cdef void set(self, uint32_t number, int64_t due_ns) noexcept nogil:
        """Set the slot's only timer to `due_ns`."""
        self.cancel(number)
        self.slots.at(number).due_ns = due_ns
        self._place(number)

    cdef void cancel(self, uint32_t number) noexcept nogil:
        cdef uint32_t list = self.slots.at(number).links[TIMER].list
        if list == NONE:
            return
        self.slots.unlink(TIMER, &self.wheel[list], number)
        if self.wheel[list] == NONE:
            self.filled[list >> PLACE_BITS][(list & PLACE_MASK) >> 6] &= ~(
                <uint64_t>1 << (list & 63))

    cdef uint32_t pop_due(self, int64_t now_ns) noexcept nogil:
        """Cancel a timer that has rung by `now_ns`, and return its slot; NONE if there is none.

        The caller repeats the call until it returns NONE.
        """
        cdef int64_t until = now_ns >> TICK_BITS
        cdef int64_t tick
        cdef uint32_t number
        while True:
            number = self.wheel[self.tick & PLACE_MASK]
            if number != NONE:
                self.cancel(number)
                return number
            if self.tick >= until:
                return NONE
            tick = self._next_tick()
            self.tick = tick if tick < until else until
            if self.tick & PLACE_MASK == 0:
                self._cascade()

    cdef int64_t next_due_ns(self) noexcept nogil:
        """Return when to call `pop_due` next. It may return NONE then."""
        cdef int64_t tick = self.tick
        if self.wheel[tick & PLACE_MASK] == NONE:
            tick = self._next_tick()
        return NEVER if tick == NEVER else tick << TICK_BITS

    cdef int64_t _next_tick(self) noexcept nogil:
        """Return the next tick at which a timer rings or moves down, or NEVER."""
        cdef int64_t nearest = NEVER, tick, base
        cdef int level, distance
        for level in range(LEVELS):
            base = self.tick >> (PLACE_BITS * level)
            distance = self._distance(level, <uint32_t>(base & PLACE_MASK))
            if distance <= PLACES:
                tick = (base + distance) << (PLACE_BITS * level)
                if tick < nearest:
                    nearest = tick
        return nearest

    cdef void _place(self, uint32_t number) noexcept nogil:
        cdef int64_t due = (self.slots.at(number).due_ns + (1 << TICK_BITS) - 1) >> TICK_BITS
        cdef int64_t ahead
        cdef uint32_t list
        cdef int level = 0
        if due < self.tick:
            due = self.tick
        ahead = due - self.tick
        if ahead >= <int64_t>1 << (PLACE_BITS * LEVELS):
            # Two years ahead, beyond the horizon. It is placed again when it comes up.
            ahead = (<int64_t>1 << (PLACE_BITS * LEVELS)) - 1
            due = self.tick + ahead
        while ahead >= PLACES:
            ahead >>= PLACE_BITS
            level += 1
        list = <uint32_t>(level * PLACES + ((due >> (PLACE_BITS * level)) & PLACE_MASK))
        self.slots.append(TIMER, &self.wheel[list], list, number)
        self.filled[level][(list & PLACE_MASK) >> 6] |= <uint64_t>1 << (list & 63)

    cdef void _cascade(self) noexcept nogil:
        # The coarsest level that turns at this tick comes first, as its timers may move to a place
        # of the next level that turns at this tick as well.
        cdef int level, top = 1
        cdef uint32_t list, number, last
        while top < LEVELS - 1 and (self.tick >> (PLACE_BITS * top)) & PLACE_MASK == 0:
            top += 1
        for level in range(top, 0, -1):
            list = <uint32_t>(
                level * PLACES + ((self.tick >> (PLACE_BITS * level)) & PLACE_MASK))
            if self.wheel[list] == NONE:
                continue
            # A timer beyond the horizon comes back to this very place, behind `last`.
            last = self.slots.at(self.wheel[list]).links[TIMER].previous
            while True:
                number = self.wheel[list]
                self.cancel(number)
                self._place(number)
                if number == last:
                    break

    cdef int _distance(self, int level, uint32_t place) noexcept nogil:
        """Return how many places after `place` the next filled one is; PLACES + 1 if none is."""
        cdef uint32_t start = (place + 1) & PLACE_MASK
        cdef uint64_t word = self.filled[level][start >> 6] & (~<uint64_t>0 << (start & 63))
        cdef int step
        cdef uint32_t found
        for step in range(<int>WORDS + 1):
            if word:
                found = (((start >> 6) + step) & (WORDS - 1)) * 64 + lowest_bit(word)
                return <int>((found - start) & PLACE_MASK) + 1
            word = self.filled[level][((start >> 6) + step + 1) & (WORDS - 1)]
        return PLACES + 1
