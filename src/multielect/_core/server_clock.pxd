from libc.stdint cimport int64_t


cdef class ServerClock:
    cdef int64_t tolerance_ns
    cdef int64_t low_ns         # the server's clock is ahead of ours by this at the least
    cdef int64_t high_ns        # and by this at the most
    cdef int64_t seen_ns        # when that was found
    cdef bint is_known

    cdef int64_t see(self, int64_t server_ms, int64_t sent_ns, int64_t now_ns) noexcept nogil
