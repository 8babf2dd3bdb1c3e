cimport cython

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *, void *)
    int pthread_mutex_destroy(pthread_mutex_t *)
    int pthread_mutex_lock(pthread_mutex_t *)
    int pthread_mutex_unlock(pthread_mutex_t *)


@cython.final
cdef class Mutex:
    cdef pthread_mutex_t mutex

    cdef inline void lock(self) noexcept nogil:
        pthread_mutex_lock(&self.mutex)

    cdef inline void unlock(self) noexcept nogil:
        pthread_mutex_unlock(&self.mutex)
