# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""What the server's clock does against ours: promise 11 of the design.

Rules of this file:
    * Redis ends leases by its wall clock. Each answer tells the server's time, which was read
      between our sending and our receiving: so how far it is ahead of us lies between two bounds.
    * What two answers tell must overlap, but for what clocks drift. If the second is ahead of
      that, time has been skipped at the server (or lost here), and leases that were extended
      before end earlier than was counted on.
    * What lies within half the margin is no jump: that is what the margin is for.
    * It belongs to the node, not to a connection: a server that takes over from another is
      ahead of it by as much as the leases that it inherits end early.
"""

cdef enum:
    MS = 1_000_000
    DRIFT = 1000            # one part in so many, twice what ntpd slews at (RFC 5905: 500 ppm)


cdef class ServerClock:
    """Finds out when the server's clock jumps."""

    def __cinit__(self, int64_t margin_ns):
        self.tolerance_ns = margin_ns // 2

    cdef int64_t see(self, int64_t server_ms, int64_t sent_ns, int64_t now_ns) noexcept nogil:
        """Take note of what an answer says; returns by how much it jumped, or 0.

        A jump forward is told at its largest, which is what leases may have lost; one back,
        which is negative, at its smallest.
        """
        cdef int64_t low_ns = server_ms * MS - now_ns
        cdef int64_t high_ns = (server_ms + 1) * MS - sent_ns
        cdef int64_t drift_ns = (now_ns - self.seen_ns) // DRIFT
        cdef int64_t min_ns = self.low_ns - drift_ns
        cdef int64_t max_ns = self.high_ns + drift_ns
        cdef int64_t jump_ns = 0
        if self.is_known:
            if (low_ns > max_ns + self.tolerance_ns
                    or high_ns < min_ns - self.tolerance_ns):
                jump_ns = high_ns - min_ns
            elif low_ns <= max_ns and high_ns >= min_ns:
                low_ns = max(low_ns, min_ns)
                high_ns = min(high_ns, max_ns)
        self.low_ns = low_ns
        self.high_ns = high_ns
        self.seen_ns = now_ns
        self.is_known = True
        return jump_ns
