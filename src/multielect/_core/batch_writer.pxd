from libc.stdint cimport int64_t, uint8_t, uint32_t

from .membership cimport MembershipPoll
from .resp cimport Outgoing
from .script_batch cimport ScriptBatch
from .terms cimport Terms


cdef struct Text:
    const char *data
    size_t length


cdef class KeyPrefixes:
    cdef Text *items            # by bucket; each is padded to a multiple of 8 bytes
    cdef char *text
    cdef size_t max_length


cdef class BatchWriter:
    cdef Terms terms
    cdef MembershipPoll membership
    cdef KeyPrefixes prefixes
    cdef Outgoing outgoing
    cdef bint loaded[5]         # the text was sent on this connection and not refused so far
    cdef bint rejected[5]       # the server refused the last batch that sent the text
    cdef tuple kept             # the bytes objects that the texts below point into
    cdef tuple scripts
    cdef Text holder
    cdef Text ttl_ms
    cdef Text epochs
    cdef Text channel
    cdef Text grant_ms
    cdef Text retention_ms      # how long Redis keeps an epoch after a term
    cdef bint epochs_expire
    cdef Text bodies[5]
    cdef Text digests[5]

    cdef void take_scripts(self, scripts) except *
    cdef void forget_loaded(self) noexcept nogil
    cdef int write(self, ScriptBatch *batch) except -1 nogil
    cdef uint32_t keys_of_each(self, uint8_t request) noexcept nogil
    cdef int write_subscribe(self) except -1 nogil
    cdef int _write_floors(self, ScriptBatch *batch) except -1 nogil
    cdef int64_t _argument_count(self, ScriptBatch *batch) noexcept nogil
    cdef int _write_membership(self, ScriptBatch *batch) except -1 nogil
    cdef int _write_successor(self, uint32_t number) except -1 nogil
    cdef int _write_script(self, ScriptBatch *batch) except -1 nogil
    cdef int _write_text(self, Text *text) except -1 nogil
