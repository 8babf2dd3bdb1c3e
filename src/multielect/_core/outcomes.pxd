cimport cython
from libc.stdint cimport int64_t, uint32_t

from .drains cimport Drains
from .slots cimport NEVER, Slot, store_i64


cdef class Outcomes(Drains):
    cdef int won(self, uint32_t number, int64_t epoch, uint32_t floors, int64_t sent_ns,
                 int64_t now_ns) except -1 nogil
    cdef int _won_unexpectedly(self, uint32_t number, int64_t epoch, uint32_t floors,
                               int64_t sent_ns, int64_t now_ns) except -1 nogil
    cdef int contested(self, uint32_t number, uint32_t holder, bint claimed,
                       int64_t again_ns) except -1 nogil
    cdef bint is_first_seen_endless(self, uint32_t number, uint32_t holder) noexcept nogil
    cdef int acquire_refused(self, uint32_t number, int64_t now_ns) except -1 nogil
    cdef int acquire_failed(self, uint32_t number, int64_t again_ns) except -1 nogil
    cdef int lease_lost(self, uint32_t number, int64_t now_ns) except -1 nogil
    cdef int refresh_failed(self, uint32_t number, int64_t now_ns,
                            int64_t again_ns) except -1 nogil
    cdef int released(self, uint32_t number) except -1 nogil
    cdef int release_refused(self, uint32_t number) except -1 nogil
    cdef int release_unanswered(self, uint32_t number) except -1 nogil
    cdef int epoch_moved(self, uint32_t number, int64_t epoch) except -1 nogil
    cdef void _refresh_now(self, uint32_t number) noexcept nogil
    cdef int64_t retry_ns(self, int64_t now_ns) noexcept nogil
    cdef int64_t _next_retry_ns(self, int64_t at_ns) noexcept nogil

    # Inline, as it runs for each refresh.

    @cython.final
    cdef inline int refreshed(self, uint32_t number, int64_t sent_ns,
                              int64_t now_ns) except -1 nogil:
        """Extend a term whose lease the server extended; end the term if it is overdue."""
        cdef Slot *slot = self.slots.at(number)
        cdef bint was_due
        if now_ns >= slot.deadline_ns:
            return self._expire(number, now_ns)
        store_i64(&slot.deadline_ns, sent_ns + self.ttl_ns - self.margin_ns)
        was_due = slot.refreshing == 2
        slot.refreshing = 0
        if was_due:
            self._refresh_now(number)
        if self.timers.is_set(number) and slot.again:
            self._set_lease_timer(number, NEVER)
        return 0
