from libc.stdint cimport int64_t


cdef class Clock:
    cdef int64_t manual_ns
    cdef int64_t now(self) noexcept nogil
