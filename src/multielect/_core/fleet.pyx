# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""What a balanced fleet tells its node: membership polls, and assignments of elections.

Rules of this file:
    * Any thread may call these methods: see `mutex`. A method that walks through all elections does
      so in parts.
    * The caller computes which node is to lead which election. The methods here make this node
      campaign for its own elections, and hand over those of others.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from .holders cimport MAX_NAME_BYTES
from .slots cimport NONE, Slot, hash_of, load_u32
from .states cimport ACQUIRING, CANDIDATE, ELIGIBLE, INELIGIBLE, STANDBY

cdef enum:
    PART = 1024             # elections that are handled under one hold of the mutex
    SAME_FOR_ALL = 0        # a seed with which all nodes compute the same hashes


cdef class Fleet:
    """The membership poll and the assignments of one node."""

    def __cinit__(self, Terms terms, MembershipPoll membership, Mutex mutex):
        self.terms = terms
        self.membership = membership
        self.mutex = mutex

    # ---- the membership

    def set_membership_poll(self, bytes words not None, int64_t word_count, *, int64_t period_ns,
                            bint at_once=True, int64_t last_ns=0) -> None:
        """Poll the membership every `period_ns` from now on, with these keys and arguments.

        Args:
            words: keys and arguments of membership.lua, packed as they are sent.
            word_count: the number of keys and arguments.
            period_ns: the time between two polls.
            at_once: whether this node polls at once.
            last_ns: if this node leaves the fleet, how long its entry lasts. The next poll is the
                last, and this node waits for it no longer than that. 0: this node does not leave.
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

    # ---- assignments

    def assign(self, list keys not None, const int[::1] owners, list holders not None, int own,
               const uint8_t[::1] ineligible, int64_t now_ns) -> None:
        """Campaign for this node's elections, and hand over those that another node claims.

        Args:
            keys: elections, in any order. Elections that this node does not have are ignored.
            owners: for each election the node that is to lead it: an index of `holders`, or -1.
            holders: the holders of the members.
            own: this node's index in `holders`; -1 if it is no member.
            ineligible: 1 for each election that this node may not lead even if no node leads it.
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

    def probe(self, uint32_t turn, uint32_t turns) -> None:
        """Send acquires for those elections of other nodes whose turn it is, as they may be free.

        The hash of the key says in which of `turns` turns an election is probed, so that nodes can
        take turns. A node that has room for its own share only probes none.
        """
        cdef uint32_t number = 0, last
        cdef Slot *slot
        if not self._has_room_to_probe():
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
                            self.terms.probe(number)
                        number += 1
                finally:
                    self.mutex.unlock()

    cdef bint _has_room_to_probe(self) except -1:
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
        """Return which other holders lead elections that this node is to lead.

        Returns:
            For each such holder: its name, how often the server has named it in all, and how many
            of these elections it leads. While the second number does not rise, the server has not
            named the holder again.
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
                            # Keeps the holder's place from being reused before all are counted.
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
