cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from .resp cimport Value
from .script_batch cimport ScriptBatch
from .slot_map cimport SlotMap
from .terms cimport BatchEntry

cdef enum:
    MAX_ADDRESS_BYTES = 270     # host, colon and port: a host name has 255 at most
    MAX_ASKS = 64               # of one lane


cdef struct LaneAddress:
    bint is_open                # the lane has a connection
    uint32_t length             # 0: the lane has none
    char text[270]


cdef struct Ask:                # an election to ask the importing node about
    BatchEntry entry
    uint8_t request
    bint claims
    uint32_t floors


cdef struct AskQueue:           # those of one lane
    uint32_t first
    uint32_t count
    Ask items[64]


@cython.final
cdef class Redirects:
    cdef SlotMap slot_map
    cdef uint32_t fleet_slot        # the slot of the keys of the fleet
    cdef bint is_cluster            # the servers are nodes of a cluster
    cdef bint wants_slots           # somebody must read the slot map again
    cdef LaneAddress importing      # a node that imports a slot, and has no lane; empty: none
    cdef bint has_moved             # the slot map has changed, and the core has not acted on it
    cdef int64_t *split_until_ns    # by bucket: until when its elections are asked one by one
    cdef uint8_t *followed          # by slot: redirections that were followed since the last map
    cdef LaneAddress *addresses     # by lane
    cdef AskQueue *asks             # by lane

    cdef int enter_cluster(self) except -1 nogil
    cdef void opened(self, uint32_t lane, bint is_open) noexcept nogil
    cdef bint has_asks(self, uint32_t lane) noexcept nogil
    cdef void name_lane(self, uint32_t lane, const char *text, size_t length) noexcept nogil
    cdef void trust(self, uint32_t first, uint32_t last) noexcept nogil
    cdef void moved(self, uint32_t lane, uint32_t slot, Value *error) noexcept nogil
    cdef uint32_t asking_lane(self, uint32_t lane, Value *error) noexcept nogil
    cdef bint put(self, uint32_t lane, ScriptBatch *batch) noexcept nogil
    cdef bint take(self, uint32_t lane, ScriptBatch *batch) noexcept nogil
    cdef bint _read_address(self, uint32_t lane, Value *error, LaneAddress *address) noexcept nogil
    cdef uint32_t _find(self, LaneAddress *address) noexcept nogil

    cdef inline bint is_split(self, uint32_t bucket, int64_t now_ns) noexcept nogil:
        return self.is_cluster and self.split_until_ns[bucket] > now_ns
