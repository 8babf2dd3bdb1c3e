# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""The fleet that a node is one of: its members, and who is to lead what.

Rules of this file:
    * Any thread may call in: see `mutex`. What takes long is done a part at a time.
    * Who is to lead what is worked out elsewhere. Here it becomes what this node stands for, and
      to whom it hands over what it leads.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from .holders cimport MAX_NAME_BYTES
from .slots cimport NONE, Slot, hash_of, load_u32
from .states cimport ACQUIRING, CANDIDATE, ELIGIBLE, INELIGIBLE, STANDBY

cdef enum:
    PART = 1024             # elections that are seen to while the mutex is held
    SAME_FOR_ALL = 0        # the seed by which all nodes come to the same hashes


cdef class Fleet:
    """What a node says to its fleet, and what it is given."""

    def __cinit__(self, Terms terms, MembershipPoll membership, Mutex mutex):
        self.terms = terms
        self.membership = membership
        self.mutex = mutex

    # ---- the membership

    def set_membership_poll(self, bytes words not None, int64_t word_count, *, int64_t period_ns,
                            bint at_once=True, int64_t last_ns=0) -> None:
        """Poll the membership in these words from now on, every `period_ns`.

        Args:
            words: keys and arguments of membership.lua, packed as they are sent.
            word_count: how many they are.
            period_ns: the time between two polls.
            at_once: whether the first of these polls is made now.
            last_ns: where this node leaves, how long its entry lasts: no poll follows the next, and
                nobody waits for it longer than that. 0: it does not leave.
        """
        cdef size_t length = len(words)
        cdef char *copy = <char *>malloc(length + 1)
        if copy == NULL:
            raise MemoryError
        memcpy(copy, <const char *>words, length)
        with nogil:
            self.mutex.lock()
            copy = self.membership.set_words(copy, length, word_count)
            self.membership.period_ns = period_ns
            if at_once:
                self.membership.poll_by(0)
            if last_ns:
                self.membership.leave(last_ns)
            self.mutex.unlock()
            free(copy)

    def poll_membership_by(self, int64_t due_ns) -> None:
        """Poll the membership no later than `due_ns`."""
        with nogil:
            self.mutex.lock()
            self.membership.poll_by(due_ns)
            self.mutex.unlock()

    # ---- who is to lead what

    def assign(self, list keys not None, const int[::1] owners, list holders not None, int own,
               const uint8_t[::1] ineligible, int64_t now_ns) -> None:
        """Stand for what is this node's, and hand over what another is to lead and claims.

        Args:
            keys: elections, in any order; those that this node does not know do not matter.
            owners: who is to lead each: a position in `holders`, or -1 for nobody.
            holders: the holders of the members.
            own: this node's position among them; -1 where it is no member.
            ineligible: 1 for each election that this node may not lead even if nobody does.
            now_ns: the time.
        """
        cdef Py_ssize_t i, count = len(keys)
        cdef uint32_t number
        cdef uint8_t eligibility
        cdef uint32_t successor
        cdef bytes key
        cdef const char *text
        cdef size_t length
        cdef list places = [self._intern(holder) for holder in holders]
        cdef uint32_t place
        if owners.shape[0] != count or ineligible.shape[0] != count:
            raise ValueError("there must be an owner and a mark for each key")
        for i in range(count):
            key = keys[i]
            text = key
            length = len(key)
            successor = NONE
            eligibility = INELIGIBLE if ineligible[i] else STANDBY
            if owners[i] >= 0 and owners[i] == own:
                eligibility = ELIGIBLE
            elif owners[i] >= 0:
                successor = places[owners[i]]
            with nogil:
                self.mutex.lock()
                try:
                    number = self.terms.slots.find(text, length)
                    if number != NONE:
                        self.terms.assign(number, eligibility, successor, now_ns)
                finally:
                    self.mutex.unlock()
        with nogil:
            self.mutex.lock()
        for place in places:
            self.terms.holders.drop(place)
        self.mutex.unlock()

    cdef uint32_t _intern(self, bytes holder) except *:
        cdef const char *text = holder
        cdef size_t length = len(holder)
        cdef uint32_t place = NONE
        with nogil:
            self.mutex.lock()
            try:
                self.terms.holders.intern(text, length, &place)
            finally:
                self.mutex.unlock()
        return place

    def watch(self, uint32_t turn, uint32_t turns) -> None:
        """See whether elections that others are to lead are free: those whose turn it is.

        Which those are goes by their keys alone, so that nodes can take turns. A node that has room
        for its own share alone looks at none.
        """
        cdef uint32_t number = 0, last
        cdef Slot *slot
        if not self._has_room_to_look():
            return
        while number < load_u32(&self.terms.slots.used):
            with nogil:
                self.mutex.lock()
                try:
                    last = min(number + <uint32_t>PART, self.terms.slots.used)
                    while number < last:
                        slot = self.terms.slots.at(number)
                        if (slot.key != NULL and not slot.forgotten and turn
                                == hash_of(slot.key, slot.key_length, SAME_FOR_ALL) % turns):
                            self.terms.watch(number)
                        number += 1
                finally:
                    self.mutex.unlock()

    cdef bint _has_room_to_look(self) except -1:
        cdef uint32_t number = 0, last, own_waiting = 0
        cdef bint has_room = True
        if self.terms.max_leases >= load_u32(&self.terms.slots.used):
            return True
        while has_room and number < load_u32(&self.terms.slots.used):
            with nogil:
                self.mutex.lock()
                last = min(number + <uint32_t>PART, self.terms.slots.used)
                own_waiting += self.terms.count_own_waiting(number, last)
                has_room = self.terms.has_room_beside(own_waiting)
                number = last
                self.mutex.unlock()
        return has_room

    def other_leaders(self) -> list[tuple[bytes, int, int]]:
        """Tell who leads what this node is to lead, and waits for.

        Returns:
            Of each such holder its name, how often the server has named it so far, and of how many
            elections. A number that does not rise is of one that nobody has seen since.
        """
        cdef char[MAX_NAME_BYTES] name
        cdef uint32_t number = 0, last, place, size
        cdef uint32_t *counts
        cdef Slot *slot
        cdef Py_ssize_t length
        cdef list found = []
        with nogil:
            self.mutex.lock()
            size = self.terms.holders.used
            self.mutex.unlock()
        counts = <uint32_t *>calloc(size + 1, sizeof(uint32_t))
        if counts == NULL:
            raise MemoryError
        try:
            while number < load_u32(&self.terms.slots.used):
                with nogil:
                    self.mutex.lock()
                    last = min(number + <uint32_t>PART, self.terms.slots.used)
                    while number < last:
                        slot = self.terms.slots.at(number)
                        number += 1
                        place = slot.holder
                        if (slot.key == NULL or slot.forgotten or slot.eligibility != ELIGIBLE
                                or (slot.state != CANDIDATE and slot.state != ACQUIRING)
                                or place >= size):
                            continue
                        if counts[place] == 0:
                            # Its place must not become another's before all are counted.
                            self.terms.holders.keep(place)
                        counts[place] += 1
                    self.mutex.unlock()
            for place in range(size):
                if counts[place] == 0:
                    continue
                with nogil:
                    self.mutex.lock()
                    length = self.terms.holders.copy(place, name, MAX_NAME_BYTES)
                    last = self.terms.holders.named(place)
                    self.terms.holders.drop(place)
                    self.mutex.unlock()
                found.append((name[:length], last, counts[place]))
        finally:
            free(counts)
        return found
