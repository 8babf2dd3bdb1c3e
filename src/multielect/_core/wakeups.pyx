# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""Announcements: elections are free, granted or claimed, or the membership has changed.

Rules of this file:
    * An announcement is a hint. It makes a node send an acquire sooner, or begin a drain that it
      was to begin anyway. A lost, forged or truncated announcement costs a wait or an acquire in
      vain, and nothing else.
    * Whatever announcements contain, they take bounded memory, and cause no more acquires than the
      server answers.
    * A node ignores its own announcements, as it gave up those terms on purpose.
    * The scripts write announcements as netstrings (length ':' bytes). The first is the holder that
      released; or '/' and the holder that is addressed; or '/' alone, which addresses all members.
"""

from libc.string cimport memchr, memcmp

from .holders cimport MAX_NAME_BYTES
from .resp cimport Value, read_value
from .slots cimport NONE

cdef enum:
    WHOLE = 1


cdef class Wakeups:
    """Reads announcements and wakes the elections that they name."""

    def __cinit__(self, Terms terms, MembershipPoll membership, *, bytes holder, bytes separator):
        self.terms = terms
        self.membership = membership
        self.holder = holder
        self.holder_text = holder
        self.holder_length = len(holder)
        self.separator_length = len(separator)

    cdef int handle(self, Cursor *frame, int64_t now_ns) except -1 nogil:
        """Act on a published message, and ignore all other pushes."""
        cdef Value value
        if (read_value(frame, &value) != WHOLE or value.number != 3
                or value.kind not in (c'>', c'*')):
            return 0
        if (read_value(frame, &value) != WHOLE or value.kind != c'$' or value.length != 7
                or memcmp(value.text, b"message", 7) != 0):
            return 0
        if read_value(frame, &value) != WHOLE:
            return 0
        if read_value(frame, &value) != WHOLE or value.kind != c'$':
            return 0
        return self._read(value.text, value.length, now_ns)

    cdef bint is_subscribed(self, Cursor frame) noexcept nogil:
        """Tell whether the frame confirms a subscription."""
        cdef Value value
        return (read_value(&frame, &value) == WHOLE and value.number == 3
                and read_value(&frame, &value) == WHOLE and value.kind == c'$'
                and value.length == 9 and memcmp(value.text, b"subscribe", 9) == 0)

    cdef int _read(self, const char *text, size_t length, int64_t now_ns) except -1 nogil:
        cdef Words words
        cdef const char *word
        cdef size_t size
        words.here = text
        words.end = text + length
        if not _next_word(&words, &word, &size):
            return 0
        if size and word[0] == c'/':
            return self._read_directed(&words, word + 1, size - 1, now_ns)
        if size == self.holder_length and memcmp(word, self.holder_text, size) == 0:
            return 0
        return self._wake_all(&words, False)

    cdef int _read_directed(self, Words *words, const char *to, size_t length,
                            int64_t now_ns) except -1 nogil:
        """Act on an announcement for this node, or for all members."""
        cdef const char *word
        cdef size_t size
        cdef uint32_t claimant, number
        if length == 0:
            self.membership.poll_soon(now_ns)
            return 0
        if (length != self.holder_length or memcmp(to, self.holder_text, length) != 0
                or not _next_word(words, &word, &size)):
            return 0
        if size == 5 and memcmp(word, b"grant", 5) == 0:
            return self._wake_all(words, True)
        if (not self.terms.balanced or size != 5 or memcmp(word, b"claim", 5) != 0
                or not _next_word(words, &word, &size) or size > MAX_NAME_BYTES):
            return 0
        self.terms.holders.intern(word, size, &claimant)
        while _next_word(words, &word, &size):
            number = self._find(word, size)
            if number != NONE:
                self.terms.claimed(number, claimant, now_ns)
        self.terms.holders.drop(claimant)
        return 0

    cdef int _wake_all(self, Words *words, bint granted) except -1 nogil:
        cdef const char *word
        cdef size_t size
        cdef uint32_t number
        while _next_word(words, &word, &size):
            number = self._find(word, size)
            if number != NONE:
                self.terms.wake(number, granted)
        return 0

    cdef uint32_t _find(self, const char *name, size_t length) noexcept nogil:
        """Return the election with this leader key, or NONE."""
        cdef const char *brace
        cdef const char *key
        cdef size_t tail = 7
        if length < tail or memcmp(name + length - tail, b":leader", tail) != 0:
            return NONE
        brace = <const char *>memchr(name, c'}', length - tail)
        if brace == NULL:
            return NONE
        key = brace + 1 + self.separator_length
        if key > name + length - tail:
            return NONE
        return self.terms.slots.find(key, name + length - tail - key)


cdef bint _next_word(Words *words, const char **word, size_t *length) noexcept nogil:
    """Read the next netstring. Returns False at the end, and at anything else."""
    cdef size_t size = 0
    cdef int digits = 0
    cdef const char *here = words.here
    while here < words.end and c'0' <= here[0] <= c'9' and digits < 7:
        size = size * 10 + (here[0] - c'0')
        here += 1
        digits += 1
    if (digits == 0 or here == words.end or here[0] != c':'
            or <size_t>(words.end - here - 1) < size):
        words.here = words.end
        return False
    word[0] = here + 1
    length[0] = size
    words.here = here + 1 + size
    return True
