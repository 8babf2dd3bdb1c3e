# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""Stores elections: one C struct each, found by key or by number.

Rules of this file:
    * A slot never moves, so other threads may read its shared fields at any time without a lock.
      The shared fields are read and written atomically. All other fields belong to the thread that
      holds the core's mutex.
    * The elections of a bucket are stored in blocks of `BLOCK_SLOTS` neighbouring slots, which no
      other bucket shares. The blocks of a bucket are a list.
    * A freed slot is used again by another election of the same bucket, under the same number. The
      slot's generation rises before that, and tells the old election from the new one.
    * `forget` takes an election out of the index, and `give_back` frees its slot. They are apart,
      as an election that is removed may still have a release in flight.
"""

from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

cdef enum:
    MAX_CHUNKS = 1 << 14
    FIRST_INDEX = 64

cdef extern from "stdlib.h":
    int posix_memalign(void **place, size_t alignment, size_t size) nogil

cdef extern from *:
    """
    #define MULTIELECT_TOMBSTONE 0xFFFFFFFEu
    """
    const uint32_t TOMBSTONE "MULTIELECT_TOMBSTONE"


cdef class Slots:
    """The slots of all elections, and the index from key to slot."""

    def __cinit__(self, uint32_t seed=0, uint32_t buckets=1):
        cdef uint32_t bucket
        self.chunks = <Slot **>calloc(MAX_CHUNKS, sizeof(Slot *))
        self.index = <uint32_t *>malloc(FIRST_INDEX * sizeof(uint32_t))
        self.chains = <Chain *>malloc(buckets * sizeof(Chain))
        if self.chunks == NULL or self.index == NULL or self.chains == NULL:
            raise MemoryError
        self.buckets = buckets
        for bucket in range(buckets):
            self.chains[bucket].first = NONE
            self.chains[bucket].last = NONE
            self.chains[bucket].free = NONE
        memset(self.index, 0xFF, FIRST_INDEX * sizeof(uint32_t))
        self.index_size = FIRST_INDEX
        self.seed = seed
        self.open = 1

    def __dealloc__(self):
        cdef uint32_t number
        if self.chunks != NULL:
            for number in range(self.used):
                free(self.at(number).key)
            for number in range(self.chunk_count):
                free(self.chunks[number])
            free(self.chunks)
        free(self.index)
        free(self.chains)
        free(self.next_block)

    cdef uint32_t find(self, const char *key, size_t length) noexcept nogil:
        """Return the slot of the election with this key, or NONE."""
        cdef uint32_t hashed = hash_of(key, length, self.seed)
        cdef uint32_t place = hashed & (self.index_size - 1)
        cdef uint32_t number
        cdef Slot *slot
        while True:
            number = self.index[place]
            if number == NONE:
                return NONE
            if number != TOMBSTONE:
                slot = self.at(number)
                if (slot.hash == hashed and slot.key_length == length
                        and memcmp(slot.key, key, length) == 0):
                    return number
            place = (place + 1) & (self.index_size - 1)

    cdef int insert(self, const char *key, size_t length, uint16_t bucket,
                    uint32_t *number) except -1 nogil:
        """Add a key that is not in the index, and write its slot's number to `number`."""
        cdef char *copy
        cdef Slot *slot
        cdef uint32_t place
        if (self.index_filled + 1) * 4 > self.index_size * <uint64_t>3:
            self._grow_index()
        if self.chains[bucket].free == NONE:
            self._add_block(bucket)
        copy = <char *>calloc(1, padded(length) if length else 8)
        if copy == NULL:
            with gil:
                raise MemoryError
        memcpy(copy, key, length)
        number[0] = self.chains[bucket].free
        slot = self.at(number[0])
        self.chains[bucket].free = slot.links[QUEUE].next
        self.key_bytes += length
        self.max_key_length = max(self.max_key_length, length)
        slot.key = copy
        slot.key_length = <uint16_t>length
        slot.bucket = bucket
        slot.hash = hash_of(key, length, self.seed)
        slot.holder = NONE
        slot.successor = NONE
        slot.claimant = NONE
        slot.undelivered = NONE
        slot.undelivered_drain = NONE
        slot.events_waiting = 0
        slot.max_stall_ns = 0
        slot.links[TIMER].list = NONE
        slot.links[QUEUE].list = NONE
        slot.due_ns = 0
        slot.phase.floor = 0
        slot.mark.refusals = 0
        slot.endless = 0
        slot.unassigned = 0
        slot.eligibility = 0
        slot.woken = 0
        slot.unwanted = 0
        slot.refreshing = 0
        slot.again = 0
        store_u8(&slot.forgotten, 0)
        store_i64(&slot.epoch, 0)
        store_i64(&slot.deadline_ns, 0)
        place = slot.hash & (self.index_size - 1)
        while self.index[place] < TOMBSTONE:
            place = (place + 1) & (self.index_size - 1)
        if self.index[place] == NONE:
            self.index_filled += 1
        self.index[place] = number[0]
        store_u32(&self.count, self.count + 1)
        return 0

    cdef void forget(self, uint32_t number) noexcept nogil:
        """Take an election out of the index. Its slot stays in use."""
        cdef uint32_t place = self.at(number).hash & (self.index_size - 1)
        while self.index[place] != number:
            place = (place + 1) & (self.index_size - 1)
        self.index[place] = TOMBSTONE
        store_u32(&self.count, self.count - 1)
        store_u8(&self.at(number).forgotten, 1)

    cdef void give_back(self, uint32_t number) noexcept nogil:
        """Free the slot of a forgotten election."""
        cdef Slot *slot = self.at(number)
        self.key_bytes -= slot.key_length
        free(slot.key)
        slot.key = NULL
        slot.serial += 1
        store_u32(&slot.generation, slot.generation + 1)
        slot.links[QUEUE].next = self.chains[slot.bucket].free
        self.chains[slot.bucket].free = number

    cdef void append(self, int which, uint32_t *head, uint32_t list,
                     uint32_t number) noexcept nogil:
        """Put the slot at the end of the list that begins at `head` and has the number `list`."""
        cdef Link *link = &self.at(number).links[which]
        cdef Link *first
        link.list = list
        if head[0] == NONE:
            link.next = number
            link.previous = number
            head[0] = number
            return
        first = &self.at(head[0]).links[which]
        link.next = head[0]
        link.previous = first.previous
        self.at(first.previous).links[which].next = number
        first.previous = number

    cdef void unlink(self, int which, uint32_t *head, uint32_t number) noexcept nogil:
        """Take the slot off the list that begins at `head`."""
        cdef Link *link = &self.at(number).links[which]
        link.list = NONE
        if link.next == number:
            head[0] = NONE
            return
        self.at(link.previous).links[which].next = link.next
        self.at(link.next).links[which].previous = link.previous
        if head[0] == number:
            head[0] = link.next

    cdef size_t memory_bytes(self) noexcept nogil:
        """Return the bytes of slots, index and keys, without what malloc adds to each key."""
        return (self.chunk_count * (CHUNK_SLOTS * sizeof(Slot) + CHUNK_BLOCKS * sizeof(uint32_t))
                + MAX_CHUNKS * sizeof(Slot *) + self.buckets * sizeof(Chain)
                + self.index_size * sizeof(uint32_t) + self.key_bytes)

    cdef int _add_block(self, uint32_t bucket) except -1 nogil:
        """Give the bucket a block of free slots."""
        cdef Chain *chain = &self.chains[bucket]
        cdef uint32_t block = self.used >> BLOCK_BITS
        cdef uint32_t place
        if self.used == self.chunk_count * CHUNK_SLOTS:
            self._add_chunk()
        self.next_block[block] = NONE
        if chain.last == NONE:
            chain.first = block
        else:
            self.next_block[chain.last] = block
        chain.last = block
        for place in range(BLOCK_SLOTS):
            self.at(self.used + place).links[QUEUE].next = self.used + place + 1
        self.at(self.used + BLOCK_SLOTS - 1).links[QUEUE].next = chain.free
        chain.free = self.used
        store_u32(&self.used, self.used + BLOCK_SLOTS)
        return 0

    cdef int _add_chunk(self) except -1 nogil:
        cdef size_t blocks = <size_t>(self.chunk_count + 1) * CHUNK_BLOCKS
        cdef uint32_t *grown
        if self.chunk_count == MAX_CHUNKS:
            with gil:
                raise MemoryError(f"a node holds at most {MAX_CHUNKS * CHUNK_SLOTS} elections")
        grown = <uint32_t *>realloc(self.next_block, blocks * sizeof(uint32_t))
        if grown == NULL:
            with gil:
                raise MemoryError
        self.next_block = grown
        cdef void *chunk = NULL
        if posix_memalign(&chunk, sizeof(Slot), CHUNK_SLOTS * sizeof(Slot)):
            with gil:
                raise MemoryError
        memset(chunk, 0, CHUNK_SLOTS * sizeof(Slot))
        self.chunks[self.chunk_count] = <Slot *>chunk
        self.chunk_count += 1
        return 0

    cdef int _grow_index(self) except -1 nogil:
        # The number of elections decides the size: an index full of tombstones is only swept.
        cdef uint32_t size = self.index_size
        cdef uint32_t *fresh
        cdef uint32_t i, place, number
        if self.count * <uint64_t>2 >= size:
            size *= 2
        fresh = <uint32_t *>malloc(size * sizeof(uint32_t))
        if fresh == NULL:
            with gil:
                raise MemoryError
        memset(fresh, 0xFF, size * sizeof(uint32_t))
        for i in range(self.index_size):
            number = self.index[i]
            if number < TOMBSTONE:
                place = self.at(number).hash & (size - 1)
                while fresh[place] != NONE:
                    place = (place + 1) & (size - 1)
                fresh[place] = number
        free(self.index)
        self.index = fresh
        self.index_size = size
        self.index_filled = self.count
        return 0


cdef uint32_t hash_of(const char *text, size_t length, uint32_t seed) noexcept nogil:
    # FNV-1a, then the finish of MurmurHash3, as the index uses the low bits only.
    cdef uint32_t value = <uint32_t>2166136261 ^ seed
    cdef size_t i
    for i in range(length):
        value = (value ^ <uint8_t>text[i]) * <uint32_t>16777619
    value ^= value >> 16
    value *= <uint32_t>0x85EBCA6B
    value ^= value >> 13
    value *= <uint32_t>0xC2B2AE35
    value ^= value >> 16
    return value
