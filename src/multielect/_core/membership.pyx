# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""When this node polls the membership of its group, and what the last answer was.

Rules of this file:
    * A poll goes out without Python being run, as refreshes do: a node that is starved of the
      GIL stays a member.
    * At most one poll is in flight, and one more may be due. However often others say that the
      fleet has changed, polls are `GAP_NS` apart at the least.
    * What the server refuses is reported once, until it says something else.
    * The last poll, which says that this node leaves, is made for as long as it would otherwise
      be missed: a stop does not wait for it any longer, nor for a server that refuses it.
    * The answer is kept as it came, the newest only. What it means is not the core's affair.
"""

from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from .slots cimport NEVER, hash_of

cdef int64_t GAP_NS = 20_000_000


cdef class MembershipPoll:
    """When the next poll is due, and the newest answer."""

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
        """Tell whether the last poll has still to be made or answered."""
        return (self.last_until_ns != 0 and self.begun_ns != 0
                and (self.in_flight or self.due_ns != NEVER))

    cdef int64_t next_turn_ns(self, bint may_poll) noexcept nogil:
        """Return when there is something to do: a poll, if one may be made, or to give it up."""
        cdef int64_t turn_ns = self.due_ns if may_poll and not self.in_flight else NEVER
        return min(turn_ns, self.last_until_ns) if self.is_leaving() else turn_ns

    cdef void on_timer(self, int64_t now_ns) noexcept nogil:
        """Give the last poll up when its time has passed."""
        if self.is_leaving() and now_ns >= self.last_until_ns:
            self.in_flight = False
            self.due_ns = NEVER

    cdef void begun(self, int64_t now_ns) noexcept nogil:
        """The poll goes out."""
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
        """Tell whether the server has not refused in these words just before."""
        cdef uint32_t told = self.refusal_hash
        self.refusal_hash = hash_of(refusal, length, 0) | 1
        return self.refusal_hash != told

    cdef void failed(self, int64_t again_ns) noexcept nogil:
        """The poll was refused: poll again at `again_ns`; or at once, where its answer is lost: 0.

        The last poll is not made again where it was refused: then the entry ends by itself.
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
        """Poll once more and never again; not even once if no poll went out so far."""
        self.last_until_ns = self.begun_ns + lasts_ns
        if self.begun_ns == 0:
            self.due_ns = NEVER

    cdef void poll_soon(self, int64_t now_ns) noexcept nogil:
        """Somebody says that the fleet has changed."""
        self.poll_by(max(now_ns, self.begun_ns + GAP_NS))
