from libc.stdint cimport int64_t, uint8_t, uint32_t

from .terms cimport Terms

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


cdef class Elections:
    cdef readonly Terms terms
    cdef pthread_mutex_t mutex

    cdef uint32_t _copy_elections(self, uint32_t *number, int64_t leading_at_ns,
                                  Copied *copied, char *text) noexcept nogil
    cdef uint32_t _copy_events(self, Copied *copied, char *text) noexcept nogil
    cdef void _take_to(self, uint32_t place) noexcept nogil
