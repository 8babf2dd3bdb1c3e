cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from .slots cimport NONE, TIMER, Slot, Slots


@cython.final
cdef class Timers:
    cdef Slots slots
    cdef int64_t tick
    cdef uint32_t wheel[12288]      # the first slot of each place: 3 levels of 4096
    cdef uint64_t filled[3][64]     # a bit for each place that is not empty

    cdef void set(self, uint32_t number, int64_t due_ns) noexcept nogil
    cdef void cancel(self, uint32_t number) noexcept nogil
    cdef uint32_t pop_due(self, int64_t now_ns) noexcept nogil
    cdef int64_t next_due_ns(self) noexcept nogil

    cdef inline bint is_set(self, uint32_t number) noexcept nogil:
        return self.slots.at(number).links[TIMER].list != NONE

    cdef int64_t _next_tick(self) noexcept nogil
    cdef void _place(self, uint32_t number) noexcept nogil
    cdef void _cascade(self) noexcept nogil
    cdef int _distance(self, int level, uint32_t place) noexcept nogil
