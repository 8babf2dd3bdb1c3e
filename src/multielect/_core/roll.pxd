from libc.stdint cimport int64_t

from .resp cimport Value


cdef class Roll:
    cdef char *words            # what follows the script's name, as it goes out
    cdef size_t length
    cdef int64_t word_count
    cdef int64_t period_ns      # 0: this node is no member
    cdef int64_t due_ns
    cdef bint in_flight
    cdef bint last              # no call follows this one
    cdef bint was_called        # this node may be a member, whether it was answered or not
    cdef char *reply            # NULL where it was taken
    cdef size_t reply_length

    cdef char *set_words(self, char *words, size_t length, int64_t word_count) noexcept nogil
    cdef char *take_answer(self, size_t *length) noexcept nogil
    cdef bint is_leaving(self) noexcept nogil
    cdef bint is_due(self, int64_t now_ns) noexcept nogil
    cdef void begun(self, int64_t now_ns) noexcept nogil
    cdef int answered(self, Value *value) except -1 nogil
    cdef void failed(self, int64_t again_ns) noexcept nogil
    cdef void call_by(self, int64_t due_ns) noexcept nogil
    cdef void leave(self) noexcept nogil
