from libc.stdint cimport int64_t, uint8_t, uint32_t

from .terms cimport BatchEntry

cdef enum:
    MAX_ENTRIES = 250       # elections a batch holds at most
    MAX_KEYS = 250          # Redis keys a script is given: promise 8 of the design


cdef struct ScriptBatch:    # elections of which one script asks the server
    int64_t sent_ns
    uint32_t count
    uint8_t request
    bint claims             # an acquire that tells leaders whom they are in the way of
    bint by_digest          # it named its script, and did not bring it
    uint32_t floors         # how many of its elections have one
    BatchEntry entries[250]
