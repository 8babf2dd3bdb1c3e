cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t

from .batch_writer cimport BatchWriter
from .membership cimport MembershipPoll
from .redirects cimport Redirects
from .resp cimport Cursor, Value
from .script_batch cimport ScriptBatch
from .server_clock cimport ServerClock
from .terms cimport BatchEntry, Terms

cdef enum:
    MAX_REFUSAL_BYTES = 256


cdef struct OtherLeaders:       # the leaders that the reply to an acquire names
    uint32_t count
    uint32_t places[250]
    bint silent[250]            # the leader announces no release


@cython.final
cdef class Replies:
    cdef uint32_t lane
    cdef Terms terms
    cdef MembershipPoll membership
    cdef BatchWriter writer
    cdef Redirects redirects
    cdef ServerClock server_clock
    cdef const char *parse_error    # what was malformed in the last malformed reply
    cdef uint32_t claim_refused     # the hash of the last reported refusal of claims; 0: none since
    cdef uint32_t asking_refused    # likewise
    cdef uint32_t wake_up_refused   # the same for wake-ups
    cdef int64_t held_until_ns      # until when nothing is sent, as the server serves nothing
    cdef bint is_held               # it served nothing the last time
    cdef bint refused               # the server serves no election: connect to another
    cdef size_t refusal_bytes       # the length of `refusal`, of this connection or the last
    cdef char refusal[256]

    cdef int answer(self, ScriptBatch *batch, Cursor *frame, int64_t now_ns) except -1 nogil
    cdef int give_back(self, ScriptBatch *batch, int64_t now_ns, int64_t again_ns) except -1 nogil
    cdef bint is_void(self, BatchEntry *entry) noexcept nogil
    cdef int asking_answered(self, ScriptBatch *batch, Cursor *frame) noexcept nogil
    cdef int malformed(self, const char *what) noexcept nogil
    cdef int _check_clock(self, ScriptBatch *batch, int64_t server_ms,
                          int64_t now_ns) except -1 nogil
    cdef int _answer_membership(self, Value *head) except -1 nogil
    cdef int _answer_acquire(self, ScriptBatch *batch, Cursor *frame, bint has_error,
                             int64_t now_ns) except -1 nogil
    cdef void _report_once(self, uint8_t what, uint32_t *told, uint32_t elections,
                           Value *error) noexcept nogil
    cdef void _report_endless(self, uint32_t number, uint32_t holder) noexcept nogil
    cdef int _read_failures(self, ScriptBatch *batch, Cursor *frame, uint8_t *marks) except -1 nogil
    cdef int _read_leaders(self, ScriptBatch *batch, Cursor *frame,
                           OtherLeaders *others) except -1 nogil
    cdef int _read_outcomes(self, ScriptBatch *batch, Cursor *frame, OtherLeaders *others,
                            int64_t now_ns) except -1 nogil
    cdef int _answer_refresh(self, ScriptBatch *batch, Cursor *frame,
                             int64_t now_ns) except -1 nogil
    cdef int _answer_release(self, ScriptBatch *batch, Cursor *frame) except -1 nogil
    cdef void _keep_refusal(self, Value *error) noexcept nogil
    cdef int _redirected(self, ScriptBatch *batch, Value *error, int64_t now_ns) except -1 nogil
    cdef int _asked_elsewhere(self, ScriptBatch *batch, Value *error,
                              int64_t now_ns) except -1 nogil
    cdef int _split(self, ScriptBatch *batch, int64_t now_ns) except -1 nogil
    cdef int _hold(self, ScriptBatch *batch, Value *error, int64_t now_ns) except -1 nogil
    cdef int _refused(self, ScriptBatch *batch, Value *error, int64_t now_ns) except -1 nogil
