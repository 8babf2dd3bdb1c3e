cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t

from .batches cimport MAX_ENTRIES, Batches, ScriptBatch
from .resp cimport Cursor, Incoming, Outgoing, Value
from .membership cimport MembershipPoll
from .server_clock cimport ServerClock
from .terms cimport Asked, Terms
from .wakeups cimport Wakeups

cdef enum:
    MAX_IN_FLIGHT = 32      # batches sent and not answered
    MAX_GIVING_UP = 8       # of them, those that end the terms of a node that stops
    MAX_REFUSAL_BYTES = 256


cdef struct OtherLeaders:       # who leads what an acquire did not win
    uint32_t count
    uint32_t places[250]
    bint silent[250]


@cython.final
cdef class Lane(Batches):
    cdef Wakeups wakeups
    cdef ServerClock server_clock
    cdef Incoming incoming
    cdef ScriptBatch *ring
    cdef uint32_t ring_start
    cdef uint32_t in_flight
    cdef uint32_t refreshing    # how many of them refresh
    cdef uint32_t releasing     # how many release or grant
    cdef int64_t answered_ns    # when a batch was last answered
    cdef const char *parse_error  # what was malformed, after `take` returned 1
    cdef bint connected
    cdef uint32_t claim_refused     # the hash of the words that were told; 0 since it was not
    cdef uint32_t wake_up_refused   # likewise
    cdef bint refused           # the server cannot serve us any more: connect anew
    cdef size_t refusal_bytes   # what it said, on this connection or the last
    cdef char refusal[256]

    cdef int prepare(self, scripts) except -1
    cdef int connection_made(self) except -1 nogil
    cdef int connection_lost(self, int64_t now_ns) except -1 nogil
    cdef int pack(self, int64_t now_ns) except -1 nogil
    cdef int take(self, int64_t now_ns) except -1 nogil

    cdef bint is_open(self) noexcept nogil
    cdef bint has_room(self) noexcept nogil
    cdef int64_t next_pack_ns(self, int64_t now_ns) noexcept nogil
    cdef bint _may_refresh(self, int64_t now_ns) noexcept nogil
    cdef int _collect_refreshes(self, ScriptBatch *batch, int64_t now_ns) except -1 nogil
    cdef int _collect_ended(self, ScriptBatch *batch, int64_t now_ns) except -1 nogil
    cdef bint _may_give_up(self) noexcept nogil
    cdef void _end(self, ScriptBatch *batch) noexcept nogil
    cdef int64_t owed_since_ns(self) noexcept nogil

    cdef ScriptBatch *_batch(self, uint32_t place) noexcept nogil
    cdef int _answer(self, ScriptBatch *batch, Cursor *frame, int64_t now_ns) except -1 nogil
    cdef int _see_clock(self, ScriptBatch *batch, int64_t server_ms, int64_t now_ns) except -1 nogil
    cdef int _answer_membership(self, Value *head) except -1 nogil
    cdef int _answer_acquire(self, ScriptBatch *batch, Cursor *frame, bint has_error,
                             int64_t now_ns) except -1 nogil
    cdef void _report_once(self, uint8_t what, uint32_t *told, uint32_t elections,
                           Value *error) noexcept nogil
    cdef void _see_endless(self, uint32_t number, uint32_t holder) noexcept nogil
    cdef int _read_failures(self, ScriptBatch *batch, Cursor *frame, uint8_t *marks) except -1 nogil
    cdef int _read_leaders(self, ScriptBatch *batch, Cursor *frame,
                           OtherLeaders *others) except -1 nogil
    cdef int _read_outcomes(self, ScriptBatch *batch, Cursor *frame, OtherLeaders *others,
                            int64_t now_ns) except -1 nogil
    cdef int _answer_refresh(self, ScriptBatch *batch, Cursor *frame,
                             int64_t now_ns) except -1 nogil
    cdef int _answer_release(self, ScriptBatch *batch, Cursor *frame) except -1 nogil
    cdef void _see_refusal(self, Value *error) noexcept nogil
    cdef int _refused(self, ScriptBatch *batch, Value *error, int64_t now_ns) except -1 nogil
    cdef int _give_back(self, ScriptBatch *batch, int64_t now_ns, int64_t again_ns) except -1 nogil
    cdef int _malformed(self, const char *what) noexcept nogil
    cdef bint _is_void(self, Asked *entry) noexcept nogil
