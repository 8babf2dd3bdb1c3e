# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""What the core has to tell: terms begun and ended, and errors of the server.

Rules of this file:
    * Events keep their order. They are few bytes each and become Python objects only
      when they are taken.
    * Errors of one text are told once, with the number of elections they concern, and no
      more than `MOST_NOTES` texts are kept: a server that refuses everything must not
      fill our memory with its reasons.
"""

from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy


cdef class Events:
    """Events and error notes that wait to be taken, and counts of what was done."""

    def __dealloc__(self):
        free(self.items)

    cdef int append(self, uint32_t number, int64_t epoch, uint8_t reason,
                    int64_t at_ns) except -1 nogil:
        """Tell that a term began (`reason` 0) or ended."""
        cdef Event *grown
        cdef size_t capacity
        if self.count == self.capacity:
            capacity = self.capacity * 2 if self.capacity else 64
            grown = <Event *>realloc(self.items, capacity * sizeof(Event))
            if grown == NULL:
                with gil:
                    raise MemoryError
            self.items = grown
            self.capacity = capacity
        self.items[self.count].number = number
        self.items[self.count].epoch = epoch
        self.items[self.count].reason = reason
        self.items[self.count].at_ns = at_ns
        self.count += 1
        return 0

    cdef void note(self, uint8_t request, uint32_t elections,
                   const char *text, size_t length) noexcept nogil:
        """Tell that the server refused `elections` of a batch, in its own words."""
        cdef int i
        cdef Note *kept
        if length > NOTE_BYTES:
            length = NOTE_BYTES
        for i in range(self.note_count):
            kept = &self.notes[i]
            if (kept.request == request and kept.length == length
                    and memcmp(kept.text, text, length) == 0):
                kept.elections += elections
                return
        if self.note_count == MOST_NOTES:
            return
        kept = &self.notes[self.note_count]
        kept.request = request
        kept.elections = elections
        kept.length = <uint32_t>length
        memcpy(kept.text, text, length)
        self.note_count += 1
