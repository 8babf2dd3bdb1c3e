# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""Which lane serves which bucket: bucket, slot of the cluster, lane.

Rules of this file:
    * A bucket's slot is the one that Redis Cluster computes for its keys: CRC16 of the hash tag,
      which is what stands between the first brace and the next, modulo 16,384.
    * Which lane serves a slot is what the engine last said. It is all there is to know: nothing
      here asks a server.
    * One server that is no cluster serves all slots on lane 0.
"""

from libc.stdlib cimport free, malloc
from libc.string cimport memset

from binascii import crc_hqx


def slot_of_key(bytes key not None) -> int:
    """Return the slot of a Redis Cluster that a key belongs to."""
    start = key.find(b"{")
    end = key.find(b"}", start + 1) if start >= 0 else -1
    tag = key[start + 1 : end] if end > start + 1 else key
    # XMODEM's CRC, as the specification of Redis Cluster has it.
    return crc_hqx(tag, 0) % SLOTS


cdef class SlotMap:
    """The lanes of the buckets whose keys begin with `key_prefixes`; all are on lane 0 at first."""

    def __cinit__(self, tuple key_prefixes):
        cdef Py_ssize_t bucket
        self.buckets = len(key_prefixes)
        self.slot_of = <uint16_t *>malloc(self.buckets * sizeof(uint16_t))
        if self.slot_of == NULL:
            raise MemoryError
        for bucket in range(len(key_prefixes)):
            self.slot_of[bucket] = slot_of_key(key_prefixes[bucket])
        memset(self.lane_of, 0, sizeof(self.lane_of))

    def __dealloc__(self):
        free(self.slot_of)

    cdef void give(self, uint32_t first, uint32_t last, uint32_t lane) noexcept nogil:
        """Have `lane` serve the slots from `first` to `last`, both included."""
        memset(&self.lane_of[first], <int>lane, last - first + 1)
