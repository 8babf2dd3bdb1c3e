from .states cimport States

cdef extern from *:
    """
    #ifdef MULTIELECT_CHECKS
    #define MULTIELECT_CHECKED 1
    #else
    #define MULTIELECT_CHECKED 0
    #endif
    """
    const bint CHECKED "MULTIELECT_CHECKED"

cdef int check(States states) except -1 nogil
