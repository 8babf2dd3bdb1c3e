from libc.stdint cimport int64_t, uint8_t, uint32_t

from .lane cimport Lane
from .resp cimport Incoming
from .roll cimport Roll
from .terms cimport Terms
from .wakeups cimport Wakeups

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *, void *)
    int pthread_mutex_destroy(pthread_mutex_t *)
    int pthread_mutex_lock(pthread_mutex_t *)
    int pthread_mutex_unlock(pthread_mutex_t *)


cdef struct Copied:         # an event, or an election, on its way out
    int64_t epoch
    int64_t at_ns
    size_t key_end          # where its key ends in the text beside
    uint32_t number
    uint32_t generation
    uint8_t reason


cdef struct Facts:          # what the pump needs to know between two turns
    int64_t next_turn_ns
    int64_t oldest_sent_ns  # -1: nothing is in flight
    bint has_news
    bint is_quiet
    bint is_refused


cdef class Core:
    cdef readonly Terms terms
    cdef Lane lane
    cdef Wakeups wakeups
    cdef Roll roll
    cdef Incoming announcements
    cdef pthread_mutex_t mutex

    cdef int begin(self) except -1 nogil
    cdef int lose(self, int64_t now_ns) except -1 nogil
    cdef int turn(self, int64_t now_ns, Facts *facts) except -1 nogil
    cdef int take_bytes(self, const char *data, size_t length, int64_t now_ns) except -1 nogil
    cdef int hear_bytes(self, const char *data, size_t length, int64_t now_ns) except -1 nogil
    cdef void tell(self, Facts *facts, int64_t now_ns) noexcept nogil
    cdef Facts _facts(self) noexcept
    cdef uint32_t _copy_elections(self, uint32_t *number, int64_t leading_at_ns,
                                  Copied *copied, char *text) noexcept nogil
    cdef uint32_t _copy_events(self, Copied *copied, char *text) noexcept nogil
    cdef void _tell_facts(self, Facts *facts, int64_t now_ns) noexcept nogil
