# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""Takes events, errors, clock jumps and the membership from a core, as one record.

Rules of this file:
    * Any thread may call these methods: see `mutex`.
    * Events are taken in parts, and the mutex is free after each. They become Python objects here.
      The modules below know only C structs.
"""

from libc.stdint cimport uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from .events cimport (DRAINING, MAX_CLOCK_JUMPS, MAX_ERROR_REPORTS, ClockJump as CClockJump,
                      ErrorReport as CErrorReport, Event)
from .redirects cimport LaneAddress
from .slots cimport NONE, Slot
from .records import ClockJump, ErrorReport, Report, TermEvent

DRAINING_REASON = DRAINING
REQUEST_NAMES = ("acquire", "refresh", "release", "grant", "membership",
                 "endless", "claim", "wake-up", "unended")

cdef enum:
    PART = 1024             # events that are taken under one hold of the mutex
    MAX_KEY_BYTES = 512


cdef class Reporter:
    """Takes reports from a core."""

    def __cinit__(self, Terms terms, MembershipPoll membership, Redirects redirects, Mutex mutex):
        self.terms = terms
        self.membership = membership
        self.redirects = redirects
        self.mutex = mutex

    cdef bint has_report(self) noexcept nogil:
        """Tell whether there is a report to take, or a removed election to free after it."""
        return (self.terms.events.count != 0 or self.terms.events.report_count != 0
                or self.terms.events.clock_jump_count != 0 or self.terms.queues.reaped != NONE
                or self.membership.reply != NULL or self.redirects.wants_slots
                or self.redirects.importing.length != 0)

    def take(self, *, bint with_events=True):
        """Return everything that happened since the last report, with one part of the events.

        Args:
            with_events: whether the report has events, and not only their counts.
        """
        cdef CErrorReport[MAX_ERROR_REPORTS] errors
        cdef CClockJump[MAX_CLOCK_JUMPS] jumps
        cdef int error_count, jump_count, i
        cdef bint wants_slots
        cdef LaneAddress importing
        cdef char *answer
        cdef size_t length
        with nogil:
            self.mutex.lock()
            error_count = self.terms.events.report_count
            memcpy(errors, self.terms.events.reports, error_count * sizeof(CErrorReport))
            self.terms.events.report_count = 0
            jump_count = self.terms.events.clock_jump_count
            memcpy(jumps, self.terms.events.clock_jumps, jump_count * sizeof(CClockJump))
            self.terms.events.clock_jump_count = 0
            answer = self.membership.take_answer(&length)
            wants_slots = self.redirects.wants_slots
            self.redirects.wants_slots = False
            importing = self.redirects.importing
            self.redirects.importing.length = 0
            self.mutex.unlock()
        try:
            membership = None if answer == NULL else answer[:length]
        finally:
            free(answer)
        events = self.take_events() if with_events else []
        return Report(
            events,
            _counts_of(events) if with_events else self._take_counts(),
            [ErrorReport(REQUEST_NAMES[errors[i].request], errors[i].elections,
                         errors[i].text[:errors[i].length].decode("utf-8", "replace"),
                         errors[i].key[:errors[i].key_length] if errors[i].has_key else None,
                         errors[i].lane)
             for i in range(error_count)],
            [ClockJump(jumps[i].lane, jumps[i].jump_ns, jumps[i].ended)
             for i in range(jump_count)],
            membership,
            wants_slots,
            importing.text[:importing.length].decode("utf-8", "replace"),
        )

    def take_events(self) -> list:
        """Take a part of the events, in order. An empty list says that none is left."""
        cdef uint32_t count, i
        cdef size_t start = 0
        cdef CopiedEvent *copied = <CopiedEvent *>malloc(PART * sizeof(CopiedEvent))
        cdef char *text = <char *>malloc(PART * <size_t>MAX_KEY_BYTES)
        taken = []
        try:
            if copied == NULL or text == NULL:
                raise MemoryError
            with nogil:
                self.mutex.lock()
                count = self._copy_events(copied, text)
                self.mutex.unlock()
            for i in range(count):
                # The same as TermEvent(...), without a Python call for each event.
                taken.append(tuple.__new__(TermEvent, (
                    text[start:copied[i].key_end], copied[i].number, copied[i].generation,
                    copied[i].epoch, copied[i].reason, copied[i].at_ns)))
                start = copied[i].key_end
            return taken
        finally:
            free(copied)
            free(text)

    def _take_counts(self) -> dict:
        """Take a part of the events. Returns their number by reason."""
        cdef uint32_t[256] counts
        with nogil:
            memset(counts, 0, sizeof(counts))
            self.mutex.lock()
            self._count_events(counts)
            self.mutex.unlock()
        return {reason: counts[<int>reason] for reason in range(256) if counts[<int>reason]}

    cdef void _count_events(self, uint32_t *counts) noexcept nogil:
        """Take one part of the events, and count them by reason."""
        cdef uint32_t place = self.terms.events.start
        cdef uint32_t count = 0
        cdef Event *event
        while place < self.terms.events.count and count < PART:
            event = &self.terms.events.items[place]
            place += 1
            if event.number != NONE:
                counts[event.reason] += 1
                count += 1
        self._take_to(place)

    cdef uint32_t _copy_events(self, CopiedEvent *copied, char *text) noexcept nogil:
        """Take one part of the events, and copy it."""
        cdef uint32_t place = self.terms.events.start
        cdef uint32_t count = 0
        cdef size_t end = 0
        cdef Event *event
        cdef Slot *slot
        while place < self.terms.events.count and count < PART:
            event = &self.terms.events.items[place]
            place += 1
            if event.number == NONE:
                continue
            slot = self.terms.slots.at(event.number)
            memcpy(text + end, slot.key, slot.key_length)
            end += slot.key_length
            copied[count].number = event.number
            copied[count].generation = slot.generation
            copied[count].epoch = event.epoch
            copied[count].reason = event.reason
            copied[count].at_ns = event.at_ns
            copied[count].key_end = end
            count += 1
        self._take_to(place)
        return count

    cdef void _take_to(self, uint32_t place) noexcept nogil:
        """Take all events before `place`. If none is left, free the slots of removed elections."""
        self.terms.events.taken_to(place)
        if self.terms.events.count == 0:
            self.terms.reap()


def _counts_of(list events):
    counts = {}
    for event in events:
        counts[event[4]] = counts.get(event[4], 0) + 1
    return counts
