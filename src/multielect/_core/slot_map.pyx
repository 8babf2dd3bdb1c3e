# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""Maps each bucket to a hash slot of Redis Cluster, and each hash slot to a lane.

Rules of this file:
    * A bucket has the slot that Redis Cluster computes for its keys: the CRC16 of the hash tag, the
      text between the first opening brace and the next closing one, modulo 16,384.
    * The engine says which lane serves a slot. No function here asks a server.
    * A server that is not part of a cluster serves all slots on lane 0.
"""

from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from binascii import crc_hqx


def slot_of_key(bytes key not None) -> int:
    """Return a key's hash slot in Redis Cluster."""
    start = key.find(b"{")
    end = key.find(b"}", start + 1) if start >= 0 else -1
    tag = key[start + 1 : end] if end > start + 1 else key
    # The specification of Redis Cluster names this CRC: XMODEM's.
    return crc_hqx(tag, 0) % SLOTS


cdef class SlotMap:
    """The lanes of the buckets with these key prefixes. Lane 0 serves all of them at first."""

    def __cinit__(self, tuple key_prefixes):
        cdef Py_ssize_t bucket
        self.buckets = len(key_prefixes)
        self.slot_of = <uint16_t *>malloc(self.buckets * sizeof(uint16_t))
        self.last_lane = <uint8_t *>calloc(self.buckets, 1)
        self.shorten_ns = <int64_t *>calloc(self.buckets, sizeof(int64_t))
        if self.slot_of == NULL or self.last_lane == NULL or self.shorten_ns == NULL:
            raise MemoryError
        for bucket in range(len(key_prefixes)):
            self.slot_of[bucket] = slot_of_key(key_prefixes[bucket])
        memset(self.lane_of, 0, sizeof(self.lane_of))

    def __dealloc__(self):
        free(self.slot_of)
        free(self.last_lane)
        free(self.shorten_ns)

    cdef void give(self, uint32_t first, uint32_t last, uint32_t lane) noexcept nogil:
        """Have `lane` serve the slots from `first` to `last`, both included."""
        memset(&self.lane_of[first], <int>lane, last - first + 1)
