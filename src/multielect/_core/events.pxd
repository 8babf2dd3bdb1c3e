cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from .slots cimport Slot, Slots

cdef enum:
    MAX_CLOCK_JUMPS = 16
    ERROR_REPORT_BYTES = 200
    MAX_ERROR_REPORTS = 16
    KEY_BYTES = 512
    DRAINING = 255          # stands in for a reason: the term goes on, and drains


cdef struct Event:
    int64_t epoch
    int64_t at_ns
    uint32_t number         # NONE: the event was dropped
    uint8_t reason          # 0: elected; DRAINING; else why the term ended


cdef struct ClockJump:
    uint32_t lane
    int64_t jump_ns         # how far the server's clock jumped; negative if it was set back
    int64_t ended           # how many terms ended for that


cdef struct ErrorReport:
    uint32_t lane
    uint8_t request
    uint32_t elections
    uint32_t length
    uint32_t key_length
    bint has_key            # `key` names one of the elections
    char text[200]
    char key[512]


cdef struct Tally:
    uint64_t refreshes
    uint64_t checks
    uint64_t elected
    uint64_t demoted
    uint64_t released
    uint64_t batches
    uint64_t wakeups
    uint64_t stale_replies


@cython.final
cdef class Events:
    cdef Slots slots
    cdef Event *items
    cdef uint32_t start         # the place of the first event that was not taken yet
    cdef uint32_t count
    cdef uint32_t dropped       # the number of dropped events among the items
    cdef uint32_t capacity
    cdef ErrorReport reports[16]
    cdef int report_count
    cdef ClockJump clock_jumps[16]
    cdef int clock_jump_count
    cdef Tally tally

    cdef int elected(self, uint32_t number, int64_t epoch, int64_t at_ns) except -1 nogil
    cdef int demoted(self, uint32_t number, int64_t epoch, uint8_t reason,
                     int64_t at_ns) except -1 nogil
    cdef int draining(self, uint32_t number, int64_t epoch, int64_t until_ns) except -1 nogil
    cdef void report(self, uint32_t lane, uint8_t request, uint32_t elections, uint32_t number,
                     const char *text, size_t length) noexcept nogil
    cdef void report_more(self, uint32_t lane, uint8_t request, uint32_t elections) noexcept nogil
    cdef void clock_jumped(self, uint32_t lane, int64_t jump_ns, int64_t ended) noexcept nogil
    cdef void taken_to(self, uint32_t place) noexcept nogil
    cdef void _drop(self, Slot *slot, uint32_t place) noexcept nogil
    cdef Event *_next(self) except NULL nogil
    cdef void _sweep(self) noexcept nogil
