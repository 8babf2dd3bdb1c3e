cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from .drains cimport Drains
from .lateness cimport Lateness
from .slots cimport Slot


@cython.final
cdef class Terms(Drains):
    cdef bint running
    cdef Lateness lateness
    cdef uint8_t first_standing     # of an election that nobody has assigned yet

    cdef int start(self) except -1 nogil
    cdef int stop(self, int64_t now_ns) except -1 nogil
    cdef int add(self, uint32_t number) except -1 nogil
    cdef int remove(self, uint32_t number, int64_t now_ns) except -1 nogil
    cdef int resign(self, uint32_t number, int64_t now_ns) except -1 nogil
    cdef int campaign(self, uint32_t number) except -1 nogil
    cdef int on_timers(self, int64_t now_ns) except -1 nogil
    cdef int _on_lease_timer(self, uint32_t number, int64_t now_ns) except -1 nogil
    cdef int wake(self, uint32_t number, bint granted) except -1 nogil
    cdef int watch(self, uint32_t number) except -1 nogil
    cdef void _refresh_now(self, uint32_t number, int64_t next_ns,
                           int64_t due_ns) noexcept nogil
    cdef void _queue_refresh(self, uint32_t number, int64_t due_ns) noexcept nogil
    cdef bint _ask_now(self, uint32_t number) noexcept nogil
    cdef int64_t leases_shortened(self, int64_t by_ns, int64_t now_ns) except -1 nogil
    cdef int ask_again(self) except -1 nogil
    cdef int refresh_all(self) except -1 nogil
    cdef void reap(self) noexcept nogil

    cdef int next_refresh(self, int64_t now_ns, uint32_t *number) except -1 nogil
    cdef int next_release(self, int queue, uint32_t *number) except -1 nogil
    cdef int next_acquire(self, uint32_t *number) except -1 nogil
    cdef uint32_t peek_acquire(self) noexcept nogil
    cdef bint has_work(self) noexcept nogil

    cdef int won(self, uint32_t number, int64_t epoch, int64_t sent_ns,
                 int64_t now_ns) except -1 nogil
    cdef int contested(self, uint32_t number, uint32_t holder, int64_t again_ns) except -1 nogil
    cdef int not_acquired(self, uint32_t number, int64_t again_ns) except -1 nogil
    cdef int refreshed(self, uint32_t number, int64_t sent_ns, int64_t now_ns) except -1 nogil
    cdef int mismatched(self, uint32_t number, int64_t now_ns) except -1 nogil
    cdef int not_refreshed(self, uint32_t number, int64_t now_ns,
                           int64_t again_ns) except -1 nogil
    cdef int released(self, uint32_t number) except -1 nogil
    cdef int not_released(self, uint32_t number) except -1 nogil
