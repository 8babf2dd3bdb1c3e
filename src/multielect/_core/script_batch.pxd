from libc.stdint cimport int64_t, uint8_t, uint32_t

from .terms cimport BatchEntry

cdef enum:
    MAX_ENTRIES = 250       # elections in a batch
    MAX_KEYS = 250          # Redis keys of a script: promise 8 of the design


cdef struct ScriptBatch:    # the elections of one script call
    int64_t sent_ns
    uint32_t count
    uint8_t request
    bint claims             # an acquire that announces this node's claims to the leaders
    uint8_t asking          # sent behind ASKING: 2: that is not answered yet; 1: it is; 0: no
    bint by_digest          # it named the script's digest, and did not bring its text
    uint32_t floors         # how many of its elections have a floor
    BatchEntry entries[250]
