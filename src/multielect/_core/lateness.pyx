# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""How late refreshes go out, against when they are due: for those who ask.

Rules of this file:
    * A refresh counts from when it was due until the batch that it goes out with was packed: a
      timer that rings late, a turn that comes late, a pipeline that is full. One that goes out
      before it is due is not late. One that goes out of turn does not count.
    * Until somebody asks it has no memory, and costs a refresh group one compare.
    * What is late by up to 63 ns is counted exactly, all else to a 32nd.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

cdef extern from *:
    """
    static inline int multielect_highest_bit(uint64_t x) { return 63 - __builtin_clzll(x); }
    """
    int highest_bit "multielect_highest_bit" (uint64_t bits) noexcept nogil

cdef enum:
    FINE_BITS = 5           # 32 places for each power of two


cdef class Lateness:
    """Counts of refreshes by how late they were."""

    def __dealloc__(self):
        free(self.counts)

    cdef int watch(self) except -1 nogil:
        """Count from nothing."""
        if self.counts == NULL:
            self.counts = <uint64_t *>calloc(PLACES, sizeof(uint64_t))
        if self.counts == NULL:
            with gil:
                raise MemoryError
        memset(self.counts, 0, PLACES * sizeof(uint64_t))
        self.worst_ns = 0
        return 0

    cdef void _count(self, int64_t late_ns, uint32_t leases) noexcept nogil:
        cdef uint64_t late = max(late_ns, <int64_t>0)
        cdef int shift = 0
        if late >> (FINE_BITS + 1):
            shift = highest_bit(late) - FINE_BITS
        self.counts[(shift << FINE_BITS) + (late >> shift)] += leases
        self.worst_ns = max(self.worst_ns, late_ns)

    cdef void copy(self, Counts *counts) noexcept nogil:
        """Give what was counted."""
        memset(counts, 0, sizeof(Counts))
        counts.worst_ns = self.worst_ns
        if self.counts != NULL:
            memcpy(counts.places, self.counts, PLACES * sizeof(uint64_t))


cdef list as_list(Counts *counts):
    """Return how late at the most, in nanoseconds, and how many were so late; rising.

    The last is exact: how late the latest was.
    """
    cdef uint64_t place, most
    cdef uint64_t worst = counts.worst_ns
    cdef int shift
    cdef list found = []
    for place in range(PLACES):
        if counts.places[place]:
            shift = max(<int>(place >> FINE_BITS) - 1, 0)
            most = ((place - (<uint64_t>shift << FINE_BITS) + 1) << shift) - 1
            found.append((min(most, worst), counts.places[place]))
    return found
