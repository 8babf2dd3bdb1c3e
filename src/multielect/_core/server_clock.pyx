# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""Compares the server's clock with this node's, and detects jumps: promise 11 of the design.

Rules of this file:
    * Redis expires leases by its wall clock. Each answer has the server's time, which the server
      read after this node sent the batch and before it received the answer. That bounds the
      difference of the two clocks from below and from above.
    * The bounds of two answers must overlap, but for the drift of clocks. If the bounds of the
      second are ahead, the server's clock skipped time, or this node's lost some. Leases that were
      extended before then end earlier than this node expected.
    * A difference within half the margin is no jump, as the margin covers it.
    * The servers of a cluster have a clock each. Leases that come with their slot from another
      server may end by either clock, so they are shortened if the new one is ahead. If nothing is
      known of it yet, its first answer is compared with the clock of the old one.
    * A `ServerClock` outlives connections. A server that takes over from another may have a clock
      that is ahead, and the leases that it inherits then end earlier by that much.
"""

cdef enum:
    MS = 1_000_000
    DRIFT = 1000            # clocks drift by 1 in 1000: twice what ntpd slews (RFC 5905: 500 ppm)


cdef class ServerClock:
    """Detects jumps of one server's clock."""

    def __cinit__(self, int64_t margin_ns):
        self.tolerance_ns = margin_ns // 2

    cdef void forget(self) noexcept nogil:
        """Know nothing of the clock, as the lane has another server."""
        self.is_known = False

    cdef void inherit(self, ServerClock other) noexcept nogil:
        """Expect the clock of another server, whose leases this one has now."""
        self.low_ns = other.low_ns
        self.high_ns = other.high_ns
        self.seen_ns = other.seen_ns
        self.is_known = other.is_known

    cdef int64_t lead_ns(self, ServerClock other, int64_t now_ns) noexcept nogil:
        """Return how far this clock is ahead of another at most; 0 if the margin covers it."""
        cdef int64_t drift_ns = (2 * now_ns - self.seen_ns - other.seen_ns) // DRIFT
        if not self.is_known or not other.is_known:
            return 0
        if self.low_ns <= other.high_ns + drift_ns + self.tolerance_ns:
            return 0
        return self.high_ns - other.low_ns + drift_ns

    cdef int64_t observe(self, int64_t server_ms, int64_t sent_ns, int64_t now_ns) noexcept nogil:
        """Take note of the server's time in an answer. Returns how far the clock jumped, or 0.

        A jump forward is returned at its largest possible size, as leases may have lost that much.
        A jump back is negative, and is returned at its smallest possible size.
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
