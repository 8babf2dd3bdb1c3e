from libc.stdint cimport int64_t, uint8_t, uint32_t

from .terms cimport Asked

cdef enum:
    MAX_ENTRIES = 250       # elections a batch holds at most
    MAX_KEYS = 250          # Redis keys a script is given: promise 8 of the design


cdef struct ScriptBatch:    # elections of which one script asks the server
    int64_t sent_ns
    uint32_t count
    uint8_t request
    bint claims             # an acquire that tells leaders whom they are in the way of
    uint8_t asking          # sent behind ASKING: 2: that is not answered yet; 1: it is; 0: no
    bint by_digest          # it named its script, and did not bring it
    uint32_t floors         # how many of its elections have one
    Asked entries[250]
