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
    BLOCK_SLOTS = 1 << 3    # neighbours, all of one bucket
    CHUNK_BLOCKS = 1 << 7


# What is of use only while this node leads shares its place with what is only while it does not.
cdef union Phase:
    int64_t drain_ns        # leading: when it ends at the latest, as it drains; 0: it does not
    int64_t floor           # else: the next term's epoch must be above it; 0: any will do


cdef union Mark:
    uint8_t worker_done     # leading: the draining term's worker is done
    uint8_t moved           # releasing: the counter is at `floor`, not at this term's epoch
    uint8_t refusals        # else: how often an acquire was refused in a row


# 128 bytes, two lines of the cache that processors fetch together: what a refresh touches comes
# first.
cdef struct Slot:
    int64_t deadline_ns     # shared with readers; 0 where this node does not lead
    int64_t max_stall_ns    # how long `heartbeat_ns` may be ago; 0: no matter how long
    char *key
    Link links[2]           # TIMER, QUEUE
    uint32_t serial         # rises with each change of state: a reply to an older one is void
    uint16_t key_length
    uint16_t bucket
    uint8_t state
    uint8_t woken           # 1: set free while an acquire was in flight; 2: granted to this node
    uint8_t unwanted        # an acquire in flight is to be released if it wins
    uint8_t next_state      # what follows a release
    uint8_t eligibility     # whether this node is to stand for it
    Mark mark
    uint8_t refreshing      # a refresh is in flight; 2: and another was due meanwhile
    uint8_t events_waiting  # how many events of it have not been taken
    int64_t due_ns          # when its timer rings
    Phase phase
    uint32_t successor      # who is to lead it in place of this node
    uint32_t claimant       # who asked for it in vain while this node led
    int64_t epoch           # shared with readers; of the current or the latest term
    int64_t heartbeat_ns    # shared with readers; when its worker last said it goes on
    uint32_t generation     # shared with readers; rises when the slot is freed
    uint32_t hash
    uint32_t holder         # who leads, as last seen
    uint32_t undelivered    # the place of the event that the term began, if it may be dropped
    uint32_t undelivered_drain  # the place of the event that the term drains
    uint8_t forgotten       # shared with readers; taken out of the index
    uint8_t unassigned      # no node is to lead it, neither this one nor another
    uint8_t again           # its timer is to have it refreshed out of turn
    uint8_t endless         # it was told that `holder`'s lease has no end


cdef struct Chain:
    uint32_t first          # block of the bucket; NONE: it has none
    uint32_t last
    uint32_t free           # the first free slot; NONE: all are in use


cdef inline size_t padded(size_t length) noexcept nogil:
    """Return how many bytes a text takes that is copied in words of 8."""
    return (length + 7) & ~<size_t>7


cdef uint32_t hash_of(const char *text, size_t length, uint32_t seed) noexcept nogil


@cython.final
cdef class Slots:
    cdef Slot **chunks
    cdef uint32_t chunk_count
    cdef uint32_t used              # shared with readers; slots in blocks ever handed out
    cdef uint32_t buckets
    cdef Chain *chains              # the blocks of each bucket
    cdef uint32_t *next_block       # the block that follows each in its bucket; NONE for the last
    cdef uint32_t count             # shared with readers; elections in the index
    cdef uint32_t *index
    cdef uint32_t index_size
    cdef uint32_t index_filled      # with tombstones
    cdef uint32_t seed
    cdef size_t key_bytes
    cdef size_t max_key_length      # of any key so far
    cdef int64_t open               # shared with readers; 0 once nothing here leads any more

    # Here, and not beside the others, so that they cost their users no call.
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
        """Have the block that follows in the same bucket come into the cache, once a block."""
        # The blocks of a bucket lie apart: without this each costs a wait for the memory.
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
