# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""Counts how late refreshes are sent, for a benchmark.

Rules of this file:
    * The delay of a refresh is the time from when it was due until its batch was packed. A late
      timer, a late turn or a full pipeline cause it. A refresh that is sent before it is due has no
      delay. A refresh out of turn is not counted.
    * Before `watch` is called, this takes no memory, and costs each refresh group one comparison.
    * Delays up to 63 ns are counted exactly, longer ones to a 32nd.
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
    """The number of refreshes by delay."""

    def __dealloc__(self):
        free(self.counts)

    cdef int watch(self) except -1 nogil:
        """Begin to count, from zero."""
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
        """Copy the counts."""
        memset(counts, 0, sizeof(Counts))
        counts.worst_ns = self.worst_ns
        if self.counts != NULL:
            memcpy(counts.places, self.counts, PLACES * sizeof(uint64_t))


cdef list as_list(Counts *counts):
    """Return pairs in rising order: a delay in nanoseconds, and how many were at most that late.

    The last delay is exact.
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
