# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""When this node polls the membership of its fleet, and the newest answer.

Rules of this file:
    * Polls are sent without Python, as refreshes are. So a node that is starved of the GIL stays a
      member.
    * At most one poll is in flight, and one more may be due. Two polls are at least `GAP_NS` apart,
      however often other nodes announce that the fleet has changed.
    * A refusal is reported once, until the server refuses in other words.
    * The last poll says that this node leaves the fleet. It is sent only while the node's entry
      lasts, and not again if the server refuses it. A stop waits no longer than that.
    * The newest answer is kept as it came. The core does not read it.
"""

from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from .slots cimport NEVER, hash_of

cdef int64_t GAP_NS = 20_000_000


cdef class MembershipPoll:
    """The time of the next poll, and the newest answer."""

    def __cinit__(self):
        self.due_ns = NEVER

    def __dealloc__(self):
        free(self.words)
        free(self.reply)

    cdef char *set_words(self, char *words, size_t length, int64_t word_count) noexcept nogil:
        """Poll with these keys and arguments. Returns the old ones, which the caller frees."""
        cdef char *old = self.words
        self.words = words
        self.length = length
        self.word_count = word_count
        return old

    cdef char *take_answer(self, size_t *length) noexcept nogil:
        """Return the answer, which the caller frees; NULL if there is no new one."""
        cdef char *answer = self.reply
        length[0] = self.reply_length
        self.reply = NULL
        return answer

    cdef bint is_due(self, int64_t now_ns) noexcept nogil:
        return not self.in_flight and self.due_ns <= now_ns

    cdef bint is_leaving(self) noexcept nogil:
        """Tell whether the last poll is still to be sent or answered."""
        return (self.last_until_ns != 0 and self.begun_ns != 0
                and (self.in_flight or self.due_ns != NEVER))

    cdef int64_t next_turn_ns(self, bint may_poll) noexcept nogil:
        """Return when to send a poll, if one may be sent, or to drop the last one."""
        cdef int64_t turn_ns = self.due_ns if may_poll and not self.in_flight else NEVER
        return min(turn_ns, self.last_until_ns) if self.is_leaving() else turn_ns

    cdef void on_timer(self, int64_t now_ns) noexcept nogil:
        """Drop the last poll when its time has passed."""
        if self.is_leaving() and now_ns >= self.last_until_ns:
            self.in_flight = False
            self.due_ns = NEVER

    cdef void begun(self, int64_t now_ns) noexcept nogil:
        """Take note that a poll is sent."""
        self.in_flight = True
        self.begun_ns = now_ns
        self.due_ns = NEVER if self.last_until_ns else now_ns + self.period_ns

    cdef int answered(self, Value *value) except -1 nogil:
        """Keep the answer."""
        cdef char *grown
        self.in_flight = False
        self.refusal_hash = 0
        grown = <char *>realloc(self.reply, value.length + 1)
        if grown == NULL:
            with gil:
                raise MemoryError
        self.reply = grown
        memcpy(self.reply, value.text, value.length)
        self.reply_length = value.length
        return 0

    cdef bint is_new(self, const char *refusal, size_t length) noexcept nogil:
        """Tell whether the server's previous refusal was in other words."""
        cdef uint32_t told = self.refusal_hash
        self.refusal_hash = hash_of(refusal, length, 0) | 1
        return self.refusal_hash != told

    cdef void failed(self, int64_t again_ns) noexcept nogil:
        """Poll again at `again_ns`, as the poll was refused; or at once if 0: its answer is lost.

        The last poll is not repeated if it was refused. This node's entry expires then.
        """
        if self.in_flight:
            self.in_flight = False
            if again_ns < self.due_ns and (again_ns == 0 or self.last_until_ns == 0):
                self.due_ns = again_ns

    cdef void poll_by(self, int64_t due_ns) noexcept nogil:
        """Poll no later than `due_ns`."""
        if self.period_ns != 0 and self.last_until_ns == 0 and due_ns < self.due_ns:
            self.due_ns = due_ns

    cdef void leave(self, int64_t lasts_ns) noexcept nogil:
        """Poll once more and never again; not even once if no poll was sent so far."""
        self.last_until_ns = self.begun_ns + lasts_ns
        if self.begun_ns == 0:
            self.due_ns = NEVER

    cdef void poll_soon(self, int64_t now_ns) noexcept nogil:
        """Poll soon, as a node announced that the fleet has changed."""
        self.poll_by(max(now_ns, self.begun_ns + GAP_NS))
