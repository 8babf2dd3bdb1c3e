from libc.stdint cimport int64_t

from .elections cimport Elections
from .lane cimport Lane
from .resp cimport Incoming
from .membership cimport MembershipPoll
from .terms cimport Terms
from .wakeups cimport Wakeups


cdef struct Facts:          # what the pump needs to know between two turns
    int64_t next_turn_ns
    int64_t owed_since_ns   # -1: nothing is in flight
    bint has_events
    bint is_quiet
    bint is_refused


cdef class Core(Elections):
    cdef Lane lane
    cdef Wakeups wakeups
    cdef MembershipPoll membership
    cdef Incoming announcements
    cdef int64_t quiet_ns       # since when nothing is due or in flight; -1: something is

    cdef int begin(self) except -1 nogil
    cdef int lose(self, int64_t now_ns) except -1 nogil
    cdef int turn(self, int64_t now_ns, Facts *facts) except -1 nogil
    cdef int finish(self, int64_t now_ns) except -1 nogil
    cdef int take_bytes(self, const char *data, size_t length, int64_t now_ns) except -1 nogil
    cdef int hear_bytes(self, const char *data, size_t length, int64_t now_ns) except -1 nogil
    cdef void read_facts(self, Facts *facts, int64_t now_ns) noexcept nogil
    cdef Facts _facts(self) noexcept
    cdef void _fill_facts(self, Facts *facts, int64_t now_ns) noexcept nogil
