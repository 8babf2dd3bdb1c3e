# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""A core whose node is one of a fleet: its members, who is to lead what, and what is handed over.

Rules of this file:
    * The rules of `core` hold: one mutex, C work alone while it is held, a part at a time.
    * Who is to lead what is worked out elsewhere. Here it becomes what this node stands for, and
      to whom it hands over what it leads.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from .core cimport Core
from .elections cimport pthread_mutex_lock, pthread_mutex_unlock
from .holders cimport MAX_NAME_BYTES
from .slots cimport NONE, Slot, hash_of, load_u32
from .states cimport ACQUIRING, CANDIDATE, ELIGIBLE, INELIGIBLE, STANDBY

cdef enum:
    PART = 1024             # elections that are seen to while the mutex is held
    SAME_FOR_ALL = 0        # the seed by which all nodes come to the same hashes


cdef class FleetCore(Core):
    """A core that hands elections over.

    Args:
        drain_ns: how long a term may drain before it is handed over.
        notifies_drains: whether somebody wants to finish his work before a term is handed over;
            else it is handed over at once.
        balanced: whether this node stands only for what `assign` gives it.
        move_ns: the time between two moves of a term to another node; 0: no limit.
        settings: those of `Core`.
    """

    def __init__(self, *, int64_t drain_ns=0, bint notifies_drains=False, bint balanced=False,
                 int64_t move_ns=0, **settings):
        super().__init__(**settings)
        self.terms.drain_ns = drain_ns
        self.terms.notifies_drains = notifies_drains
        self.terms.balanced = balanced
        self.terms.move_ns = move_ns
        self.terms.initial_eligibility = INELIGIBLE if balanced else ELIGIBLE

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
            pthread_mutex_lock(&self.mutex)
            copy = self.membership.set_words(copy, length, word_count)
            self.membership.period_ns = period_ns
            if at_once:
                self.membership.poll_by(0)
            if last_ns:
                self.membership.leave(last_ns)
            pthread_mutex_unlock(&self.mutex)
            free(copy)

    def poll_membership_by(self, int64_t due_ns) -> None:
        """Poll the membership no later than `due_ns`."""
        with nogil:
            pthread_mutex_lock(&self.mutex)
            self.membership.poll_by(due_ns)
            pthread_mutex_unlock(&self.mutex)

    def take_membership(self) -> bytes | None:
        """Take the newest answer to a membership poll; None if it was taken."""
        cdef char *answer
        cdef size_t length
        with nogil:
            pthread_mutex_lock(&self.mutex)
            answer = self.membership.take_answer(&length)
            pthread_mutex_unlock(&self.mutex)
        if answer == NULL:
            return None
        try:
            return answer[:length]
        finally:
            free(answer)

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
                pthread_mutex_lock(&self.mutex)
                try:
                    number = self.terms.slots.find(text, length)
                    if number != NONE:
                        self.terms.assign(number, eligibility, successor, now_ns)
                finally:
                    pthread_mutex_unlock(&self.mutex)
        with nogil:
            pthread_mutex_lock(&self.mutex)
        for place in places:
            self.terms.holders.drop(place)
        pthread_mutex_unlock(&self.mutex)

    cdef uint32_t _intern(self, bytes holder) except *:
        cdef const char *text = holder
        cdef size_t length = len(holder)
        cdef uint32_t place = NONE
        with nogil:
            pthread_mutex_lock(&self.mutex)
            try:
                self.terms.holders.intern(text, length, &place)
            finally:
                pthread_mutex_unlock(&self.mutex)
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
                pthread_mutex_lock(&self.mutex)
                try:
                    last = min(number + <uint32_t>PART, self.terms.slots.used)
                    while number < last:
                        slot = self.terms.slots.at(number)
                        if (slot.key != NULL and not slot.forgotten and turn
                                == hash_of(slot.key, slot.key_length, SAME_FOR_ALL) % turns):
                            self.terms.watch(number)
                        number += 1
                finally:
                    pthread_mutex_unlock(&self.mutex)

    cdef bint _has_room_to_look(self) except -1:
        cdef uint32_t number = 0, last, own_waiting = 0
        cdef bint has_room = True
        if self.terms.max_leases >= load_u32(&self.terms.slots.used):
            return True
        while has_room and number < load_u32(&self.terms.slots.used):
            with nogil:
                pthread_mutex_lock(&self.mutex)
                last = min(number + <uint32_t>PART, self.terms.slots.used)
                own_waiting += self.terms.count_own_waiting(number, last)
                has_room = self.terms.has_room_beside(own_waiting)
                number = last
                pthread_mutex_unlock(&self.mutex)
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
            pthread_mutex_lock(&self.mutex)
            size = self.terms.holders.used
            pthread_mutex_unlock(&self.mutex)
        counts = <uint32_t *>calloc(size + 1, sizeof(uint32_t))
        if counts == NULL:
            raise MemoryError
        try:
            while number < load_u32(&self.terms.slots.used):
                with nogil:
                    pthread_mutex_lock(&self.mutex)
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
                    pthread_mutex_unlock(&self.mutex)
            for place in range(size):
                if counts[place] == 0:
                    continue
                with nogil:
                    pthread_mutex_lock(&self.mutex)
                    length = self.terms.holders.copy(place, name, MAX_NAME_BYTES)
                    last = self.terms.holders.named(place)
                    self.terms.holders.drop(place)
                    pthread_mutex_unlock(&self.mutex)
                found.append((name[:length], last, counts[place]))
        finally:
            free(counts)
        return found

    # ---- drains

    def retire(self, bint alone, int64_t until_ns, int64_t now_ns) -> None:
        """Stand for nothing any more, and hand over what is led, by `until_ns` at the latest.

        Where this node is `alone`, it waits for no successor.
        """
        with nogil:
            pthread_mutex_lock(&self.mutex)
            try:
                self.terms.retire(alone, until_ns, now_ns)
            finally:
                pthread_mutex_unlock(&self.mutex)

    def finish_drain(self, uint32_t number, uint32_t generation, int64_t term_epoch,
                     int64_t now_ns) -> bool:
        """Hand over a term whose worker is done, if it drains and is of `term_epoch` (any if 0)."""
        cdef Slot *slot = self.terms.slots.at(number)
        cdef int found = 0
        with nogil:
            pthread_mutex_lock(&self.mutex)
            try:
                if slot.generation == generation and (term_epoch == 0
                                                      or slot.epoch == term_epoch):
                    found = self.terms.finish_drain(number, now_ns)
            finally:
                pthread_mutex_unlock(&self.mutex)
        return found == 1
