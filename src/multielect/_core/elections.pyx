# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""What users may ask of a node's elections.

Rules of this file:
    * Any thread may call these methods: see `mutex`.
    * A method that walks through all elections does so in parts, and frees the mutex after each.
    * Elections become Python objects here. The modules below know only C structs.
"""

from libc.stdint cimport int64_t, uint16_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from .events cimport Tally
from .holders cimport MAX_NAME_BYTES
from .slots cimport NONE, Slot, load_u32, store_i64
from .states cimport LEADING

cdef enum:
    PART = 1024             # elections that are copied under one hold of the mutex
    MAX_KEY_BYTES = 512


cdef class Elections:
    """The elections of one node."""

    def __cinit__(self, Terms terms, Mutex mutex):
        self.terms = terms
        self.mutex = mutex

    @property
    def slots(self):
        """The slots of the elections, for a `BaseCandidacy`."""
        return self.terms.slots

    # ---- elections

    def __len__(self) -> int:
        # Without the mutex, as a forked child may have inherited it locked.
        return load_u32(&self.terms.slots.count)

    def add(self, bytes key not None, uint16_t bucket,
            int64_t max_stall_ns=0) -> tuple[int, int, bool]:
        """Add an election, unless it exists. Returns number, generation, whether it is new.

        A term ends if its worker sends no heartbeat for `max_stall_ns`; 0: it needs none.
        """
        cdef const char *text = key
        cdef size_t length = len(key)
        cdef uint32_t number, generation
        cdef bint is_new = False
        with nogil:
            self.mutex.lock()
            try:
                number = self.terms.slots.find(text, length)
                if number == NONE:
                    is_new = True
                    self.terms.slots.insert(text, length, bucket, &number)
                    self.terms.slots.at(number).max_stall_ns = max_stall_ns
                    self.terms.add(number)
                generation = self.terms.slots.at(number).generation
            finally:
                self.mutex.unlock()
        return number, generation, is_new

    def find(self, bytes key not None) -> tuple[int, int] | None:
        """Return number and generation of the election with this key."""
        cdef const char *text = key
        cdef size_t length = len(key)
        cdef uint32_t number, generation = 0
        with nogil:
            self.mutex.lock()
            number = self.terms.slots.find(text, length)
            if number != NONE:
                generation = self.terms.slots.at(number).generation
            self.mutex.unlock()
        return None if number == NONE else (number, generation)

    def remove(self, bytes key not None, int64_t now_ns) -> bool:
        """Remove an election. The next turns release its lease. Returns False if there is none."""
        cdef const char *text = key
        cdef size_t length = len(key)
        cdef uint32_t number
        with nogil:
            self.mutex.lock()
            try:
                number = self.terms.slots.find(text, length)
                if number != NONE:
                    self.terms.remove(number, now_ns)
            finally:
                self.mutex.unlock()
        return number != NONE

    def resign(self, uint32_t number, uint32_t generation, int64_t term_epoch,
               int64_t now_ns) -> bool:
        """End the current term, if its epoch is `term_epoch`; 0 is any. Returns whether it did."""
        cdef Slot *slot = self.terms.slots.at(number)
        cdef int ended = 0
        with nogil:
            self.mutex.lock()
            try:
                if slot.generation == generation and (term_epoch == 0
                                                      or slot.epoch == term_epoch):
                    ended = self.terms.resign(number, now_ns)
            finally:
                self.mutex.unlock()
        return ended == 1

    def campaign(self, uint32_t number, uint32_t generation) -> None:
        """Campaign again at once after a resignation."""
        with nogil:
            self.mutex.lock()
            try:
                if self.terms.slots.at(number).generation == generation:
                    self.terms.campaign(number)
            finally:
                self.mutex.unlock()

    def learn_epoch(self, uint32_t number, uint32_t generation, int64_t term_epoch,
                    int64_t newest_epoch, int64_t now_ns) -> bool:
        """End a term that is below `newest_epoch`, and let the next one begin above it.

        Nothing happens if `newest_epoch` is not above `term_epoch`, the epoch that the caller knows
        as its own. If there is no term, the next one begins above `newest_epoch` all the same.

        Returns whether a term ended.
        """
        cdef Slot *slot = self.terms.slots.at(number)
        cdef int ended = 0
        with nogil:
            self.mutex.lock()
            try:
                if slot.generation == generation and newest_epoch > term_epoch:
                    ended = self.terms.learn_epoch(number, newest_epoch, now_ns)
            finally:
                self.mutex.unlock()
        return ended == 1

    def leader(self, uint32_t number, uint32_t generation) -> bytes | None:
        """Return which holder the server named when it last refused this node the lease."""
        cdef char[MAX_NAME_BYTES] name
        cdef Py_ssize_t length = -1
        cdef Slot *slot = self.terms.slots.at(number)
        with nogil:
            self.mutex.lock()
            if slot.generation == generation and slot.holder != NONE:
                length = self.terms.holders.copy(slot.holder, name, MAX_NAME_BYTES)
            self.mutex.unlock()
        return None if length < 0 else name[:length]

    def list_keys(self) -> list[bytes]:
        """Return the keys of all elections, in the order of their slots."""
        return [key for key, _, _ in self._listed(0)]

    def led(self, int64_t now_ns) -> list[tuple[bytes, int, int]]:
        """Return key, number and generation of the elections that this node leads."""
        return self._listed(now_ns)

    def _listed(self, int64_t leading_at_ns) -> list[tuple[bytes, int, int]]:
        cdef uint32_t number = 0
        cdef uint32_t count, i
        cdef size_t start
        cdef Copied *copied = <Copied *>malloc(PART * sizeof(Copied))
        cdef char *text = <char *>malloc(PART * <size_t>MAX_KEY_BYTES)
        listed = []
        try:
            if copied == NULL or text == NULL:
                raise MemoryError
            while True:
                with nogil:
                    self.mutex.lock()
                    count = self._copy_elections(&number, leading_at_ns, copied, text)
                    self.mutex.unlock()
                start = 0
                for i in range(count):
                    listed.append((text[start:copied[i].key_end], copied[i].number,
                                   copied[i].generation))
                    start = copied[i].key_end
                if number == NONE:
                    return listed
        finally:
            free(copied)
            free(text)

    cdef uint32_t _copy_elections(self, uint32_t *number, int64_t leading_at_ns,
                                  Copied *copied, char *text) noexcept nogil:
        """Copy one part of the elections; if a time is given, only those led at that time.

        Moves `number` on to the next part, or to NONE after the last.
        """
        cdef uint32_t last = min(number[0] + <uint32_t>PART, self.terms.slots.used)
        cdef uint32_t count = 0
        cdef size_t end = 0
        cdef Slot *slot
        while number[0] < last:
            slot = self.terms.slots.at(number[0])
            number[0] += 1
            if slot.key == NULL or slot.forgotten or (leading_at_ns != 0
                                                      and slot.deadline_ns <= leading_at_ns):
                continue
            memcpy(text + end, slot.key, slot.key_length)
            end += slot.key_length
            copied[count].number = number[0] - 1
            copied[count].generation = slot.generation
            copied[count].key_end = end
            count += 1
        if last == self.terms.slots.used:
            number[0] = NONE
        return count

    # ---- the node

    def start(self) -> None:
        """Campaign for all elections."""
        with nogil:
            self.mutex.lock()
            try:
                self.terms.start()
            finally:
                self.mutex.unlock()

    def stop(self) -> None:
        """Campaign for nothing any more. The next turns end each term when its release is sent."""
        with nogil:
            self.mutex.lock()
            try:
                self.terms.stop()
            finally:
                self.mutex.unlock()

    def abandon(self) -> None:
        """Lead nothing any more; each `BaseCandidacy` says so. No mutex: safe after a fork."""
        store_i64(&self.terms.slots.open, 0)

    # ---- drains

    def retire(self, bint alone, int64_t until_ns, int64_t now_ns) -> None:
        """Campaign for nothing any more, and hand over all terms, by `until_ns` at the latest.

        If this node is `alone`, it waits for no successor.
        """
        with nogil:
            self.mutex.lock()
            try:
                self.terms.retire(alone, until_ns, now_ns)
            finally:
                self.mutex.unlock()

    def finish_drain(self, uint32_t number, uint32_t generation, int64_t term_epoch,
                     int64_t now_ns) -> bool:
        """Hand over a draining term whose worker is done, if its epoch is `term_epoch`; 0 is any.

        Returns whether there was one.
        """
        cdef Slot *slot = self.terms.slots.at(number)
        cdef int found = 0
        with nogil:
            self.mutex.lock()
            try:
                if slot.generation == generation and (term_epoch == 0
                                                      or slot.epoch == term_epoch):
                    found = self.terms.finish_drain(number, now_ns)
            finally:
                self.mutex.unlock()
        return found == 1

    # ---- counts

    @property
    def counters(self) -> dict[str, int]:
        """Counts of what this core has done so far."""
        cdef Tally tally
        with nogil:
            self.mutex.lock()
            tally = self.terms.events.tally
            self.mutex.unlock()
        return tally

    @property
    def leading(self) -> int:
        """How many terms this node has, including overdue ones that no turn has ended yet."""
        cdef uint32_t count
        with nogil:
            self.mutex.lock()
            count = self.terms.population[<int>LEADING]
            self.mutex.unlock()
        return count

    @property
    def memory_bytes(self) -> int:
        """Bytes held for the elections: slots, index and keys."""
        cdef size_t count
        with nogil:
            self.mutex.lock()
            count = self.terms.slots.memory_bytes()
            self.mutex.unlock()
        return count
