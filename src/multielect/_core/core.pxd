from libc.stdint cimport int64_t, uint32_t

from .batch_writer cimport KeyPrefixes
from .elections cimport Elections
from .fleet cimport Fleet
from .lane cimport Lane
from .membership cimport MembershipPoll
from .mutex cimport Mutex
from .redirects cimport Redirects
from .reporter cimport Reporter
from .slot_map cimport SlotMap
from .terms cimport Terms
from .wakeups cimport Wakeups


cdef struct Turn:           # what the pump needs to know between two turns
    int64_t next_turn_ns    # when the next turn is due, if nothing happens before
    bint has_report         # the reporter has something to take
    bint is_quiet           # no term, acquire or release is left that a stop must wait for


cdef struct LaneState:      # what the pump needs to know of one lane
    int64_t owed_since_ns   # since when the server owes an answer; -1: it owes none
    bint is_refused         # the server serves no election: connect to another


cdef class Core:
    cdef readonly Elections elections
    cdef readonly Fleet fleet
    cdef readonly Reporter reporter
    cdef Terms terms
    cdef MembershipPoll membership
    cdef Wakeups wakeups
    cdef SlotMap slot_map
    cdef Redirects redirects
    cdef Mutex mutex
    cdef KeyPrefixes prefixes
    cdef dict wording           # what the batch writers of all lanes write
    cdef list lanes
    cdef void *lane_at[128]     # the same lanes, for code without the GIL
    cdef uint32_t lane_count
    cdef int64_t turned_ns      # the time of the last turn
    cdef int64_t quiet_ns       # since when nothing is due or in flight; -1: something is due

    cdef Lane lane(self, uint32_t index)
    cdef int connect(self, uint32_t lane) except -1 nogil
    cdef int disconnect(self, uint32_t lane, int64_t now_ns) except -1 nogil
    cdef int receive(self, uint32_t lane, const char *data, size_t length,
                     int64_t now_ns) except -1 nogil
    cdef int hear(self, uint32_t lane, const char *data, size_t length,
                  int64_t now_ns) except -1 nogil
    cdef int turn(self, int64_t now_ns, Turn *turn) except -1 nogil
    cdef int give_up(self, int64_t now_ns) except -1 nogil
    cdef void read(self, Turn *turn, int64_t now_ns) noexcept nogil
    cdef void read_lane(self, uint32_t lane, LaneState *state) noexcept nogil
    cdef int _map_slots(self, uint32_t first, uint32_t last, uint32_t lane) except -1 nogil
    cdef int _act_on_map(self) except -1 nogil
    cdef void _compare_clocks(self, uint32_t bucket, uint32_t before, uint32_t lane) noexcept nogil
    cdef int _shorten_moved(self, int64_t now_ns) except -1 nogil
    cdef void _update_membership_lane(self, uint32_t index) noexcept nogil
    cdef void _read(self, Turn *turn, int64_t now_ns) noexcept nogil
    cdef bint _has_work(self) noexcept nogil
