from libc.stdint cimport uint32_t

from .core cimport Core
from .lane cimport Lane


cdef class Driver:
    cdef Core core
    cdef Lane lane
    cdef uint32_t index
