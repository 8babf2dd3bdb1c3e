from libc.stdint cimport int64_t, uint8_t, uint32_t

from .resp cimport Outgoing
from .membership cimport MembershipPoll
from .terms cimport Asked, Terms

cdef enum:
    MAX_ENTRIES = 250       # elections a batch holds at most
    MAX_KEYS = 250          # Redis keys a script is given: promise 8 of the design


cdef struct Text:
    const char *data
    size_t length


cdef struct ScriptBatch:
    int64_t sent_ns
    uint32_t count
    uint8_t request
    bint claims             # an acquire that tells leaders whom they are in the way of
    bint by_digest          # it named its script, and did not bring it
    uint32_t floors         # how many of its elections have one
    Asked entries[250]


cdef class Batches:
    cdef Terms terms
    cdef MembershipPoll membership
    cdef Outgoing outgoing
    cdef bint loaded[5]         # the server knows the script by its digest, or will by then
    cdef bint rejected[5]       # the script's text came last with a batch that was refused
    cdef tuple kept             # the bytes objects that the texts below point into
    cdef tuple scripts
    cdef Text *key_prefixes     # each a multiple of 8 bytes long in memory
    cdef char *prefix_text
    cdef Text holder
    cdef Text ttl_ms
    cdef Text epochs
    cdef Text channel
    cdef Text grant_ms
    cdef Text retention_ms      # how long epochs are kept after a term
    cdef bint epochs_expire
    cdef Text bodies[5]
    cdef Text digests[5]

    cdef void take_scripts(self, scripts) except *
    cdef void forget_loaded(self) noexcept nogil
    cdef int _collect(self, ScriptBatch *batch, uint8_t request, int64_t now_ns) except -1 nogil
    cdef int _next_acquire(self, ScriptBatch *batch, uint32_t *number) except -1 nogil
    cdef uint32_t _count_floors(self, ScriptBatch *batch) noexcept nogil
    cdef int _write(self, ScriptBatch *batch) except -1 nogil
    cdef int _write_floors(self, ScriptBatch *batch) except -1 nogil
    cdef uint32_t _stride(self, uint8_t request) noexcept nogil
    cdef int64_t _argument_count(self, ScriptBatch *batch) noexcept nogil
    cdef int _write_membership(self, ScriptBatch *batch) except -1 nogil
    cdef int _write_successor(self, uint32_t number) except -1 nogil
    cdef int _write_script(self, ScriptBatch *batch) except -1 nogil
    cdef int _write_text(self, Text *text) except -1 nogil
