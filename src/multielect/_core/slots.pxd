cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    #ifndef MULTIELECT_NONE
    #define MULTIELECT_NONE 0xFFFFFFFFu
    #define MULTIELECT_TIMER 0
    #define MULTIELECT_QUEUE 1
    static inline int64_t multielect_load_i64(const int64_t *p) {
        return __atomic_load_n(p, __ATOMIC_ACQUIRE);
    }
    static inline void multielect_store_i64(int64_t *p, int64_t v) {
        __atomic_store_n(p, v, __ATOMIC_RELEASE);
    }
    static inline uint8_t multielect_load_u8(const uint8_t *p) {
        return __atomic_load_n(p, __ATOMIC_ACQUIRE);
    }
    static inline void multielect_store_u8(uint8_t *p, uint8_t v) {
        __atomic_store_n(p, v, __ATOMIC_RELEASE);
    }
    static inline uint32_t multielect_load_u32(const uint32_t *p) {
        return __atomic_load_n(p, __ATOMIC_ACQUIRE);
    }
    static inline void multielect_store_u32(uint32_t *p, uint32_t v) {
        __atomic_store_n(p, v, __ATOMIC_RELEASE);
    }
    static inline void multielect_prefetch(const void *p) { __builtin_prefetch(p); }
    #endif
    """
    const uint32_t NONE "MULTIELECT_NONE"
    const int64_t NEVER "INT64_MAX"
    const int TIMER "MULTIELECT_TIMER"
    const int QUEUE "MULTIELECT_QUEUE"
    int64_t load_i64 "multielect_load_i64" (const int64_t *place) noexcept nogil
    void store_i64 "multielect_store_i64" (int64_t *place, int64_t value) noexcept nogil
    uint8_t load_u8 "multielect_load_u8" (const uint8_t *place) noexcept nogil
    void store_u8 "multielect_store_u8" (uint8_t *place, uint8_t value) noexcept nogil
    uint32_t load_u32 "multielect_load_u32" (const uint32_t *place) noexcept nogil
    void prefetch "multielect_prefetch" (const void *place) noexcept nogil
    void store_u32 "multielect_store_u32" (uint32_t *place, uint32_t value) noexcept nogil


cdef struct Link:
    uint32_t next
    uint32_t previous
    uint32_t list           # which list the slot is on, or NONE


cdef enum:
    CHUNK_BITS = 10
    CHUNK_SLOTS = 1 << 10
    BLOCK_BITS = 3
    BLOCK_SLOTS = 1 << 3    # neighbouring slots of one bucket
    CHUNK_BLOCKS = 1 << 7


# Fields that matter only while this node leads share their place with fields that matter only
# while it does not.
cdef union Phase:
    int64_t drain_ns        # leading: when the draining term ends at the latest; 0: no drain
    int64_t floor           # else: the next term's epoch must be above it; 0: there is no floor


cdef union Mark:
    uint8_t worker_done     # leading: the draining term's worker is done
    uint8_t moved           # releasing: the epoch's key is at `floor`, above this term's epoch
    uint8_t refusals        # else: how often an acquire was refused in a row


# 128 bytes: two cache lines, which processors fetch together. Fields that a refresh uses come
# first.
cdef struct Slot:
    int64_t deadline_ns     # shared with readers; 0 if this node does not lead
    int64_t max_stall_ns    # how long ago `heartbeat_ns` may be; 0: any time
    char *key
    Link links[2]           # TIMER, QUEUE
    uint32_t serial         # rises with each change of state
    uint16_t key_length
    uint16_t bucket
    uint8_t state
    uint8_t woken           # 1: a wake-up came during an acquire; 2: granted to this node
    uint8_t unwanted        # if the acquire in flight wins, release the lease at once
    uint8_t next_state      # the state after the release
    uint8_t eligibility     # whether this node is to lead it
    Mark mark
    uint8_t refreshing      # 1: a refresh is in flight; 2: another was due meanwhile
    uint8_t events_waiting  # how many of its events have not been taken
    int64_t due_ns          # when its timer rings
    Phase phase
    uint32_t successor      # the holder that is to lead it in place of this node
    uint32_t claimant       # the holder that claimed it while this node led
    int64_t epoch           # shared with readers; of the current or the latest term
    int64_t heartbeat_ns    # shared with readers; the last heartbeat of its worker
    uint32_t generation     # shared with readers; rises when the slot is freed
    uint32_t hash
    uint32_t holder         # the leader that the server named last
    uint32_t undelivered    # the place of the event that the term began, if it may be dropped
    uint32_t undelivered_drain  # the place of the event that the term drains
    uint8_t forgotten       # shared with readers; taken out of the index
    uint8_t unassigned      # no node is to lead it, neither this one nor another
    uint8_t again           # its timer has the lease refreshed out of turn
    uint8_t endless         # it was reported that `holder`'s lease has no end


cdef struct Chain:
    uint32_t first          # the bucket's first block; NONE: it has none
    uint32_t last
    uint32_t free           # the first free slot; NONE: all are in use


cdef inline size_t padded(size_t length) noexcept nogil:
    """Return the length rounded up to whole words of 8 bytes."""
    return (length + 7) & ~<size_t>7


cdef uint32_t hash_of(const char *text, size_t length, uint32_t seed) noexcept nogil


@cython.final
cdef class Slots:
    cdef Slot **chunks
    cdef uint32_t chunk_count
    cdef uint32_t used              # shared with readers; slots in all blocks so far
    cdef uint32_t buckets
    cdef Chain *chains              # the blocks of each bucket
    cdef uint32_t *next_block       # the block that follows each in its bucket; NONE for the last
    cdef uint32_t count             # shared with readers; elections in the index
    cdef uint32_t *index
    cdef uint32_t index_size
    cdef uint32_t index_filled      # entries in use, including tombstones
    cdef uint32_t seed
    cdef size_t key_bytes
    cdef size_t max_key_length      # of any key so far
    cdef int64_t open               # shared with readers; 0: this node leads nothing any more

    # Inline, as they run for each lease.
    cdef inline Slot *at(self, uint32_t number) noexcept nogil:
        return &self.chunks[number >> CHUNK_BITS][number & (CHUNK_SLOTS - 1)]

    cdef inline uint32_t first_of(self, uint32_t bucket) noexcept nogil:
        """Return the first slot of a bucket, which may be free; NONE if the bucket has none."""
        cdef uint32_t block = self.chains[bucket].first
        return NONE if block == NONE else block << BLOCK_BITS

    cdef inline uint32_t after(self, uint32_t number) noexcept nogil:
        """Return the slot that follows in the same bucket, which may be free; NONE at the end."""
        cdef uint32_t block
        if (number + 1) & (BLOCK_SLOTS - 1):
            return number + 1
        block = self.next_block[number >> BLOCK_BITS]
        return NONE if block == NONE else block << BLOCK_BITS

    cdef inline void fetch_after(self, uint32_t number) noexcept nogil:
        """Prefetch the next block of the same bucket into the cache; once a block."""
        # The blocks of a bucket lie apart, so each would cost a wait for memory.
        cdef uint32_t block, place
        if number & (BLOCK_SLOTS - 1):
            return
        block = self.next_block[number >> BLOCK_BITS]
        if block != NONE:
            for place in range(BLOCK_SLOTS):
                prefetch(self.at((block << BLOCK_BITS) + place))

    cdef uint32_t find(self, const char *key, size_t length) noexcept nogil
    cdef int insert(self, const char *key, size_t length, uint16_t bucket,
                    uint32_t *number) except -1 nogil
    cdef void forget(self, uint32_t number) noexcept nogil
    cdef void give_back(self, uint32_t number) noexcept nogil
    cdef void append(self, int which, uint32_t *head, uint32_t list,
                     uint32_t number) noexcept nogil
    cdef void unlink(self, int which, uint32_t *head, uint32_t number) noexcept nogil
    cdef size_t memory_bytes(self) noexcept nogil
    cdef int _add_block(self, uint32_t bucket) except -1 nogil
    cdef int _add_chunk(self) except -1 nogil
    cdef int _grow_index(self) except -1 nogil
