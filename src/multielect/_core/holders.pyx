# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""The names of other holders. Each name is stored once, however many elections it leads.

Rules of this file:
    * A slot refers to a holder by its place in this table, which takes four bytes.
    * A name that is not used any more gives its place to a new one. Nodes come and go for years
      under new incarnations, and the table must not grow with them.
"""

from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy

from .slots cimport NONE, hash_of


cdef class Holders:
    """Names of holders, counted by use."""

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self.used):
            free(self.items[i].text)
        free(self.items)

    cdef int intern(self, const char *text, size_t length, uint32_t *place) except -1 nogil:
        """Write the name's place in the table to `place`, and count one use of it."""
        cdef uint32_t hashed = hash_of(text, length, 0)
        cdef uint32_t i, vacant = NONE, capacity
        cdef Holder *item
        cdef Holder *grown
        cdef char *copy
        for i in range(self.used):
            item = &self.items[i]
            if item.uses == 0:
                vacant = i
            elif (item.hash == hashed and item.length == length
                    and memcmp(item.text, text, length) == 0):
                item.uses += 1
                place[0] = i
                return 0
        copy = <char *>malloc(length if length else 1)
        if copy == NULL:
            with gil:
                raise MemoryError
        memcpy(copy, text, length)
        if vacant == NONE:
            if self.used == self.capacity:
                capacity = self.capacity * 2 if self.capacity else 8
                grown = <Holder *>realloc(self.items, capacity * sizeof(Holder))
                if grown == NULL:
                    free(copy)
                    with gil:
                        raise MemoryError
                self.items = grown
                self.capacity = capacity
            vacant = self.used
            self.used += 1
        else:
            free(self.items[vacant].text)
        item = &self.items[vacant]
        item.text = copy
        item.length = length
        item.hash = hashed
        item.uses = 1
        item.named = 0
        place[0] = vacant
        return 0

    cdef void count_named(self, uint32_t place) noexcept nogil:
        """Count that the server named the holder as a leader once more."""
        self.items[place].named += 1

    cdef uint32_t named(self, uint32_t place) noexcept nogil:
        return self.items[place].named

    cdef void keep(self, uint32_t place) noexcept nogil:
        self.items[place].uses += 1

    cdef void drop(self, uint32_t place) noexcept nogil:
        if place != NONE:
            self.items[place].uses -= 1

    cdef Py_ssize_t copy(self, uint32_t place, char *into, size_t most) noexcept nogil:
        """Copy the name at `place`, or as much of it as fits. Returns its length."""
        cdef size_t length = min(self.items[place].length, most)
        memcpy(into, self.items[place].text, length)
        return length
