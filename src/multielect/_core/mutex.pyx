# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""The one mutex of a core.

Rules of this file:
    * A thread that holds the mutex runs C code only. It runs no Python code and does not wait for
      the GIL. So a thread that is starved of the GIL cannot delay the pump.
    * A thread that waits for the mutex has released the GIL, as the thread that holds the mutex may
      need the GIL to raise `MemoryError`.
"""


cdef class Mutex:
    """A mutex that threads lock without the GIL."""

    def __cinit__(self):
        pthread_mutex_init(&self.mutex, NULL)

    def __dealloc__(self):
        pthread_mutex_destroy(&self.mutex)
