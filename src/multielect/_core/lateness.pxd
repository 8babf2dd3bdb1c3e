cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef enum:
    PLACES = 1920           # more than enough for delays up to 2^63 ns


cdef struct Counts:
    uint64_t[1920] places   # PLACES, which Cython does not allow here
    int64_t worst_ns


cdef list as_list(Counts *counts)


@cython.final
cdef class Lateness:
    cdef uint64_t *counts
    cdef int64_t worst_ns

    cdef int watch(self) except -1 nogil
    cdef void copy(self, Counts *counts) noexcept nogil
    cdef void _count(self, int64_t late_ns, uint32_t leases) noexcept nogil

    # Inline, so that it costs next to nothing while nobody watches.

    cdef inline void sent(self, int64_t due_ns, int64_t sent_ns, uint32_t leases) noexcept nogil:
        """Count refreshes that are sent now and were due at `due_ns`; 0: they are out of turn."""
        if self.counts != NULL and due_ns != 0 and leases != 0:
            self._count(sent_ns - due_ns, leases)
