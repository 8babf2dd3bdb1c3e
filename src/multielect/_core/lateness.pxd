cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef enum:
    PLACES = 1920           # more than 2^63 needs


cdef struct Counts:
    uint64_t[1920] places   # PLACES, which Cython does not take here
    int64_t worst_ns


cdef list told(Counts *counts)


@cython.final
cdef class Lateness:
    cdef int64_t *due_ns        # of each lease whose timer rang and whose refresh was not sent yet
    cdef uint64_t *counts
    cdef uint32_t watched       # leases there is room for; 0: nobody asked
    cdef int64_t worst_ns

    cdef int watch(self, uint32_t leases) except -1 nogil
    cdef void copy(self, Counts *counts) noexcept nogil
    cdef void _count(self, int64_t late_ns) noexcept nogil

    # Here, and not beside the others, so that they cost next to nothing where nobody asked.

    cdef inline void queued(self, uint32_t number, int64_t due_ns) noexcept nogil:
        """A refresh waits to be sent that was due at `due_ns`; 0 if no timer asked for it."""
        if number < self.watched:
            self.due_ns[number] = due_ns

    cdef inline void sent(self, uint32_t number, int64_t sent_ns) noexcept nogil:
        """It goes out."""
        if number < self.watched and self.due_ns[number] != 0:
            self._count(sent_ns - self.due_ns[number])
