from libc.stdint cimport int64_t, uint32_t

from .resp cimport Value


cdef class MembershipPoll:
    cdef char *words            # the keys and arguments of the script, as they are sent
    cdef size_t length
    cdef int64_t word_count
    cdef int64_t period_ns      # 0: this node is no member
    cdef int64_t due_ns
    cdef int64_t begun_ns       # when the latest poll was sent
    cdef int64_t last_until_ns  # the next poll is the last, and is dropped then; 0: it is not
    cdef bint in_flight
    cdef uint32_t refusal_hash  # the hash of the last reported refusal; 0: none since an answer
    cdef char *reply            # the newest answer; NULL once it is taken
    cdef size_t reply_length

    cdef char *set_words(self, char *words, size_t length, int64_t word_count) noexcept nogil
    cdef char *take_answer(self, size_t *length) noexcept nogil
    cdef bint is_leaving(self) noexcept nogil
    cdef int64_t next_turn_ns(self, bint may_poll) noexcept nogil
    cdef void on_timer(self, int64_t now_ns) noexcept nogil
    cdef bint is_due(self, int64_t now_ns) noexcept nogil
    cdef void begun(self, int64_t now_ns) noexcept nogil
    cdef int answered(self, Value *value) except -1 nogil
    cdef bint is_new(self, const char *refusal, size_t length) noexcept nogil
    cdef void failed(self, int64_t again_ns) noexcept nogil
    cdef void poll_by(self, int64_t due_ns) noexcept nogil
    cdef void leave(self, int64_t lasts_ns) noexcept nogil
    cdef void poll_soon(self, int64_t now_ns) noexcept nogil
