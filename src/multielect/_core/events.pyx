# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""Events of terms, errors of servers and clock jumps, until the reporter takes them.

Rules of this file:
    * Events keep their order. Each takes a few bytes, and becomes a Python object only when it is
      taken.
    * If other events of the same election wait, and a term ends before the event of its begin was
      taken, both its events are dropped. So at most four events of an election wait, however long
      nobody takes them.
    * The event that a term drains is dropped if the term ends before the event was taken.
    * Errors of one lane, one kind of request and one text share a report, which has the number of
      elections concerned and the key of one of them. At most `MAX_ERROR_REPORTS` reports wait, so
      a server that refuses everything cannot fill the memory with its reasons.
"""

from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy

from .slots cimport NONE, Slot


cdef class Events:
    """Events, error reports and clock jumps that wait to be taken, and counters."""

    def __cinit__(self, Slots slots):
        self.slots = slots

    def __dealloc__(self):
        free(self.items)

    cdef int elected(self, uint32_t number, int64_t epoch, int64_t at_ns) except -1 nogil:
        """Add the event that a term began at `at_ns`."""
        cdef Event *event = self._next()
        event.number = number
        event.epoch = epoch
        event.reason = 0
        event.at_ns = at_ns
        if self.slots.at(number).events_waiting:
            self.slots.at(number).undelivered = self.count
        self.slots.at(number).events_waiting += 1
        self.count += 1
        self.tally.elected += 1
        return 0

    cdef int demoted(self, uint32_t number, int64_t epoch, uint8_t reason,
                     int64_t at_ns) except -1 nogil:
        """Add the event that the latest term ended at `at_ns`."""
        cdef Slot *slot = self.slots.at(number)
        cdef Event *event
        self.tally.demoted += 1
        if slot.undelivered_drain != NONE:
            self._drop(slot, slot.undelivered_drain)
            slot.undelivered_drain = NONE
        if slot.undelivered != NONE:
            self._drop(slot, slot.undelivered)
            slot.undelivered = NONE
            return 0
        event = self._next()
        event.number = number
        event.epoch = epoch
        event.reason = reason
        event.at_ns = at_ns
        slot.events_waiting += 1
        self.count += 1
        return 0

    cdef int draining(self, uint32_t number, int64_t epoch, int64_t until_ns) except -1 nogil:
        """Add the event that the term drains, until `until_ns` at the latest."""
        cdef Event *event = self._next()
        event.number = number
        event.epoch = epoch
        event.reason = DRAINING
        event.at_ns = until_ns
        self.slots.at(number).undelivered_drain = self.count
        self.slots.at(number).events_waiting += 1
        self.count += 1
        return 0

    cdef void taken_to(self, uint32_t place) noexcept nogil:
        """Forget all events before `place`, which the reporter has taken."""
        cdef uint32_t i
        cdef Slot *slot
        for i in range(self.start, place):
            if self.items[i].number == NONE:
                self.dropped -= 1
                continue
            slot = self.slots.at(self.items[i].number)
            slot.events_waiting -= 1
            if slot.undelivered == i:
                slot.undelivered = NONE
            if slot.undelivered_drain == i:
                slot.undelivered_drain = NONE
        self.start = place
        if self.start == self.count:
            self.start = 0
            self.count = 0

    cdef void _drop(self, Slot *slot, uint32_t place) noexcept nogil:
        self.items[place].number = NONE
        slot.events_waiting -= 1
        self.dropped += 1

    cdef Event *_next(self) except NULL nogil:
        cdef Event *grown
        cdef uint32_t capacity
        if self.count == self.capacity and (self.start + self.dropped) * 2 > self.count:
            self._sweep()
        if self.count == self.capacity:
            capacity = self.capacity * 2 if self.capacity else 64
            grown = <Event *>realloc(self.items, capacity * sizeof(Event))
            if grown == NULL:
                with gil:
                    raise MemoryError
            self.items = grown
            self.capacity = capacity
        return &self.items[self.count]

    cdef void _sweep(self) noexcept nogil:
        """Close the gaps that taken and dropped events left."""
        cdef uint32_t i, kept = 0
        cdef Slot *slot
        for i in range(self.start, self.count):
            if self.items[i].number == NONE:
                continue
            self.items[kept] = self.items[i]
            slot = self.slots.at(self.items[kept].number)
            if slot.undelivered == i:
                slot.undelivered = kept
            if slot.undelivered_drain == i:
                slot.undelivered_drain = kept
            kept += 1
        self.start = 0
        self.count = kept
        self.dropped = 0

    cdef void report(self, uint32_t lane, uint8_t request, uint32_t elections, uint32_t number,
                     const char *text, size_t length) noexcept nogil:
        """Report an error of the lane's server that concerns `elections` elections.

        `number` is one of them; NONE if the report names none. It may have been freed since the
        batch was sent: then the report has no key.
        """
        cdef int i
        cdef ErrorReport *kept
        cdef Slot *slot
        if length > ERROR_REPORT_BYTES:
            length = ERROR_REPORT_BYTES
        for i in range(self.report_count):
            kept = &self.reports[i]
            if (kept.lane == lane and kept.request == request and kept.length == length
                    and memcmp(kept.text, text, length) == 0):
                kept.elections += elections
                return
        if self.report_count == MAX_ERROR_REPORTS:
            return
        kept = &self.reports[self.report_count]
        kept.lane = lane
        kept.request = request
        kept.elections = elections
        kept.length = <uint32_t>length
        memcpy(kept.text, text, length)
        kept.has_key = number != NONE and self.slots.at(number).key != NULL
        kept.key_length = 0
        if kept.has_key:
            slot = self.slots.at(number)
            kept.key_length = min(<uint32_t>slot.key_length, <uint32_t>KEY_BYTES)
            memcpy(kept.key, slot.key, kept.key_length)
        self.report_count += 1

    cdef void report_more(self, uint32_t lane, uint8_t request, uint32_t elections) noexcept nogil:
        """Add `elections` to the last report of the same lane and kind of request."""
        cdef int i
        for i in range(self.report_count - 1, -1, -1):
            if self.reports[i].lane == lane and self.reports[i].request == request:
                self.reports[i].elections += elections
                return

    cdef void clock_jumped(self, uint32_t lane, int64_t jump_ns, int64_t ended) noexcept nogil:
        """Report that the clock of a lane's server jumped, and that `ended` terms ended for it."""
        cdef ClockJump *kept = &self.clock_jumps[self.clock_jump_count]
        if self.clock_jump_count == MAX_CLOCK_JUMPS:
            # Another jump would be no news, but the terms that it ended count.
            self.clock_jumps[MAX_CLOCK_JUMPS - 1].ended += ended
            return
        kept.lane = lane
        kept.jump_ns = jump_ns
        kept.ended = ended
        self.clock_jump_count += 1
