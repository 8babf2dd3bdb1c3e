# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""When this node calls the roll of its group, and what the last answer was.

Rules of this file:
    * The call goes out without Python being run, as refreshes do: a node that is starved of the
      GIL stays a member.
    * At most one call is in flight, and one more may be due.
    * The answer is kept as it came, the newest only. What it means is not the core's affair.
"""

from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

cdef int64_t NEVER = 0x7FFFFFFFFFFFFFFF


cdef class Roll:
    """The calls of the roll, and the newest answer."""

    def __cinit__(self):
        self.due_ns = NEVER

    def __dealloc__(self):
        free(self.words)
        free(self.reply)

    cdef char *set_words(self, char *words, size_t length, int64_t word_count) noexcept nogil:
        """Say these words from now on: keys and arguments. Returns the old ones, to be freed."""
        cdef char *old = self.words
        self.words = words
        self.length = length
        self.word_count = word_count
        return old

    cdef char *take_answer(self, size_t *length) noexcept nogil:
        """Give the answer away, to be freed; NULL if there is none that was not taken."""
        cdef char *answer = self.reply
        length[0] = self.reply_length
        self.reply = NULL
        return answer

    cdef bint is_due(self, int64_t now_ns) noexcept nogil:
        return not self.in_flight and self.due_ns <= now_ns

    cdef bint is_leaving(self) noexcept nogil:
        """Tell whether the last call has still to be made or answered."""
        return self.last and (self.in_flight or self.due_ns != NEVER)

    cdef void begun(self, int64_t now_ns) noexcept nogil:
        """The call goes out."""
        self.in_flight = True
        self.was_called = True
        self.due_ns = NEVER if self.last else now_ns + self.period_ns

    cdef int answered(self, Value *value) except -1 nogil:
        """Keep the answer."""
        cdef char *grown
        self.in_flight = False
        grown = <char *>realloc(self.reply, value.length + 1)
        if grown == NULL:
            with gil:
                raise MemoryError
        self.reply = grown
        memcpy(self.reply, value.text, value.length)
        self.reply_length = value.length
        return 0

    cdef void failed(self, int64_t again_ns) noexcept nogil:
        """The call was refused, or its answer is lost: call again at `again_ns`."""
        if self.in_flight:
            self.in_flight = False
            if again_ns < self.due_ns:
                self.due_ns = again_ns

    cdef void call_by(self, int64_t due_ns) noexcept nogil:
        """Call no later than `due_ns`."""
        if self.period_ns != 0 and not self.last and due_ns < self.due_ns:
            self.due_ns = due_ns

    cdef void leave(self) noexcept nogil:
        """Call once more and never again; not even once if no call went out so far."""
        self.last = True
        self.due_ns = 0 if self.was_called else NEVER
