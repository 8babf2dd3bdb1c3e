# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""The one mutex of a core.

Rules of this file:
    * It is held for C work alone: nobody waits for the GIL, nor runs Python code, while holding it.
      So a thread of Python that is starved of the GIL cannot hold up the pump.
    * Whoever waits for it has let go of the GIL: the one who holds it may need the GIL to raise
      `MemoryError`.
"""


cdef class Mutex:
    """A mutex that is taken without the GIL."""

    def __cinit__(self):
        pthread_mutex_init(&self.mutex, NULL)

    def __dealloc__(self):
        pthread_mutex_destroy(&self.mutex)
