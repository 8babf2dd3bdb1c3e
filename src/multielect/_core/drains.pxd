from libc.stdint cimport int64_t, uint8_t, uint32_t

from .states cimport States


cdef class Drains(States):
    cdef int64_t drain_ns           # how long a term may drain
    cdef int64_t move_ns            # the time between two moves; 0: no limit
    cdef int64_t moves_until_ns     # until when the moves begun so far use up that time
    cdef int64_t crowded_ns         # since when this node has no room for its own share; 0: it has
    cdef bint notifies_drains       # a worker finishes its work before a term is handed over
    cdef bint balanced              # a successor claims an election when it is ready to lead it
    cdef bint retiring              # this node campaigns for nothing any more
    cdef bint alone                 # no other node can claim anything

    cdef int assign(self, uint32_t number, uint8_t eligibility, uint32_t successor,
                    int64_t now_ns) except -1 nogil
    cdef int retire(self, bint alone, int64_t until_ns, int64_t now_ns) except -1 nogil
    cdef void _stop_campaigning(self, uint32_t number) noexcept nogil
    cdef int finish_drain(self, uint32_t number, int64_t now_ns) except -1 nogil
    cdef int claimed(self, uint32_t number, uint32_t claimant, int64_t now_ns) except -1 nogil
    cdef int consider_drain(self, uint32_t number, int64_t now_ns) except -1 nogil
    cdef int64_t count_crowded_out(self, int64_t now_ns) noexcept nogil
    cdef bint make_room(self, uint32_t number, int64_t now_ns) except -1 nogil
    cdef bint _may_end(self, uint32_t number) noexcept nogil
    cdef int _end_drain(self, uint32_t number, int64_t now_ns) except -1 nogil
    cdef int hand_over(self, uint32_t number, int64_t now_ns) except -1 nogil
    cdef int _begin_drain(self, uint32_t number, int64_t until_ns, int64_t now_ns) except -1 nogil
    cdef bint _may_move(self, int64_t now_ns) noexcept nogil
