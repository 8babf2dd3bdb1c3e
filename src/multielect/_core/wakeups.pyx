# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""Announcements that elections were set free.

Rules of this file:
    * A wake-up is a hint, not a fact: it makes a node ask sooner, nothing else. One that
      is lost, forged or cut off costs a wait or an idle question.
    * A node does not heed its own announcements: it gave those terms up on purpose.
    * The form is that of release.lua: netstrings (length ':' bytes), first the holder
      that released, then leader keys.
"""

from libc.string cimport memchr, memcmp

from .resp cimport Value, read_value

cdef enum:
    WHOLE = 1


cdef class Wakeups:
    """Reads announcements and wakes the elections that they name."""

    def __cinit__(self, Terms terms, *, bytes holder, bytes separator):
        self.terms = terms
        self.holder = holder
        self.holder_text = holder
        self.holder_length = len(holder)
        self.separator_length = len(separator)

    cdef int heed(self, Cursor *frame) except -1 nogil:
        """Act on a published message; anything else that is pushed is let be."""
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
        return self._read(value.text, value.length)

    cdef bint is_subscribed(self, Cursor frame) noexcept nogil:
        """Tell whether the frame says that announcements are heard from now on."""
        cdef Value value
        return (read_value(&frame, &value) == WHOLE and value.number == 3
                and read_value(&frame, &value) == WHOLE and value.kind == c'$'
                and value.length == 9 and memcmp(value.text, b"subscribe", 9) == 0)

    cdef int _read(self, const char *text, size_t length) except -1 nogil:
        cdef const char *end = text + length
        cdef size_t size
        cdef int digits
        cdef bint first = True
        while text < end:
            size = 0
            digits = 0
            while text < end and c'0' <= text[0] <= c'9' and digits < 7:
                size = size * 10 + (text[0] - c'0')
                text += 1
                digits += 1
            if digits == 0 or text == end or text[0] != c':' or <size_t>(end - text - 1) < size:
                return 0
            text += 1
            if first:
                if size == self.holder_length and memcmp(text, self.holder_text, size) == 0:
                    return 0
                first = False
            else:
                self._wake(text, size)
            text += size
        return 0

    cdef int _wake(self, const char *name, size_t length) except -1 nogil:
        cdef const char *brace
        cdef const char *key
        cdef size_t tail = 7
        if length < tail or memcmp(name + length - tail, b":leader", tail) != 0:
            return 0
        brace = <const char *>memchr(name, c'}', length - tail)
        if brace == NULL:
            return 0
        key = brace + 1 + self.separator_length
        if key > name + length - tail:
            return 0
        return self.terms.wake(key, name + length - tail - key)
