from libc.stdint cimport int64_t


cdef class ServerClock:
    cdef int64_t tolerance_ns
    cdef int64_t low_ns         # the server's clock is ahead of this node's by at least this
    cdef int64_t high_ns        # and by at most this
    cdef int64_t seen_ns        # when the bounds were computed
    cdef bint is_known

    cdef void forget(self) noexcept nogil
    cdef void inherit(self, ServerClock other) noexcept nogil
    cdef int64_t lead_ns(self, ServerClock other, int64_t now_ns) noexcept nogil
    cdef int64_t observe(self, int64_t server_ms, int64_t sent_ns, int64_t now_ns) noexcept nogil
