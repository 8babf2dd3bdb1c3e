from libc.stdint cimport int64_t, uint64_t

from multielect._core.core cimport Core


cdef int look_at(Core core, int64_t latest_ns) except -1
cdef uint64_t digest(Core core) except? 0
