# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""What the nodes of a cluster say about slots that are not, or not only, theirs.

Rules of this file:
    * MOVED: another node serves the slot now. The core follows at once if a lane leads there, and
      wants a new map in any case. If another lane serves the slot by now, the answer is old, and
      changes nothing.
    * Two nodes may each send us to the other. So a redirection of a slot is followed
      `MAX_FOLLOWED` times; after that its elections wait for a new map.
    * ASK: the slot is being migrated, and the importing node has all keys of the script. Only this
      script is sent there, behind ASKING. At that node a script would find no key that is still at
      the source: so ASKING goes there only for an election for which the source has said ASK.
    * TRYAGAIN: one node has some keys of the script, and another node has the others. The elections
      of a bucket that is being migrated are asked about one by one: then only those whose own keys
      are at two nodes must wait.

The redirections are described in the Redis Cluster specification, in "MOVED redirection" and below.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memchr, memcmp, memcpy, memset

from .queues cimport MAX_LANES, NO_LANE
from .slot_map cimport SLOTS

cdef enum:
    MAX_FOLLOWED = 5


cdef class Redirects:
    """Follows the redirections of a cluster, if the servers are nodes of one."""

    def __cinit__(self, SlotMap slot_map, uint32_t fleet_slot, bint is_cluster):
        self.slot_map = slot_map
        self.fleet_slot = fleet_slot
        if is_cluster:
            self.enter_cluster()

    def __dealloc__(self):
        free(self.split_until_ns)
        free(self.followed)
        free(self.addresses)
        free(self.asks)

    cdef int enter_cluster(self) except -1 nogil:
        """Take the servers for nodes of a cluster. Only then is there memory for what they say."""
        if self.is_cluster:
            return 0
        self.split_until_ns = <int64_t *>calloc(self.slot_map.buckets, sizeof(int64_t))
        self.followed = <uint8_t *>calloc(SLOTS, 1)
        self.addresses = <LaneAddress *>calloc(MAX_LANES, sizeof(LaneAddress))
        self.asks = <AskQueue *>calloc(MAX_LANES, sizeof(AskQueue))
        if (self.split_until_ns == NULL or self.followed == NULL or self.addresses == NULL
                or self.asks == NULL):
            with gil:
                raise MemoryError
        self.is_cluster = True
        return 0

    cdef void opened(self, uint32_t lane, bint is_open) noexcept nogil:
        """Keep whether a lane has a connection."""
        if self.is_cluster:
            self.addresses[lane].is_open = is_open

    cdef bint has_asks(self, uint32_t lane) noexcept nogil:
        """Tell whether a lane has elections to ask about behind ASKING."""
        return self.is_cluster and self.asks[lane].count != 0

    cdef void name_lane(self, uint32_t lane, const char *text, size_t length) noexcept nogil:
        """Keep the address of a lane's server, as the cluster writes it: ``host:port``."""
        if not self.is_cluster:
            return
        self.addresses[lane].length = <uint32_t>length
        memcpy(self.addresses[lane].text, text, length)

    cdef void trust(self, uint32_t first, uint32_t last) noexcept nogil:
        """Follow redirections of these slots again, as the map is new."""
        if self.is_cluster:
            memset(&self.followed[first], 0, last - first + 1)

    # ---- MOVED

    cdef void moved(self, uint32_t lane, uint32_t slot, Value *error) noexcept nogil:
        """Follow a redirection that a lane's server answered for a slot."""
        cdef LaneAddress address
        cdef uint32_t to = NO_LANE
        if self._read_address(lane, error, &address):
            to = self._find(&address)
        if self.slot_map.lane_of[slot] != lane:
            # The answer is older than what is known by now.
            return
        self.wants_slots = True
        if to == lane or self.followed[slot] == MAX_FOLLOWED:
            to = NO_LANE
        else:
            self.followed[slot] += 1
        self.slot_map.give(slot, slot, to)
        self.has_moved = True

    # ---- ASK

    cdef uint32_t asking_lane(self, uint32_t lane, Value *error) noexcept nogil:
        """Return the lane of the node that imports a slot; NO_LANE if there is none yet."""
        cdef LaneAddress address
        cdef uint32_t to = NO_LANE
        if self._read_address(lane, error, &address):
            to = self._find(&address)
            if to == NO_LANE:
                # It may be new, and have no slot of its own yet. Then no slot map names it.
                self.importing = address
        if to == NO_LANE:
            self.wants_slots = True
            return NO_LANE
        # What is put before a connection that never comes would wait for ever.
        return to if self.addresses[to].is_open else NO_LANE

    cdef bint put(self, uint32_t lane, ScriptBatch *batch) noexcept nogil:
        """Have a lane ask about the only election of a batch. Returns False if it has no room."""
        cdef AskQueue *queue = &self.asks[lane]
        cdef Ask *item = &queue.items[(queue.first + queue.count) % MAX_ASKS]
        if queue.count == MAX_ASKS:
            return False
        item.entry = batch.entries[0]
        item.request = batch.request
        item.claims = batch.claims
        item.floors = batch.floors
        queue.count += 1
        return True

    cdef bint take(self, uint32_t lane, ScriptBatch *batch) noexcept nogil:
        """Fill the batch with the next election to ask about. Returns False if there is none."""
        cdef AskQueue *queue
        cdef Ask *item
        if not self.has_asks(lane):
            return False
        queue = &self.asks[lane]
        item = &queue.items[queue.first]
        batch.request = item.request
        batch.claims = item.claims
        batch.floors = item.floors
        batch.count = 1
        batch.entries[0] = item.entry
        batch.asking = 2
        queue.first = (queue.first + 1) % MAX_ASKS
        queue.count -= 1
        return True

    # ---- addresses

    cdef bint _read_address(self, uint32_t lane, Value *error, LaneAddress *address) noexcept nogil:
        """Read the address in a redirection from `lane`. Returns False if there is none."""
        cdef const char *end = error.text + error.length
        cdef const char *here = <const char *>memchr(error.text, c' ', error.length)
        cdef const char *host
        cdef const char *colon
        cdef const char *end_of_host
        cdef LaneAddress *own = &self.addresses[lane]
        # Behind the code and the slot.
        if here != NULL:
            here = <const char *>memchr(here + 1, c' ', end - here - 1)
        if here == NULL:
            return False
        host = here + 1
        colon = _last_colon(host, end)
        end_of_host = colon
        if colon == host:
            # Without a host it is the host of the node that answered.
            host = own.text
            end_of_host = _last_colon(own.text, own.text + own.length)
        if (colon == NULL or end_of_host == NULL
                or (end_of_host - host) + (end - colon) > MAX_ADDRESS_BYTES):
            return False
        memcpy(address.text, host, end_of_host - host)
        memcpy(address.text + (end_of_host - host), colon, end - colon)
        address.length = <uint32_t>((end_of_host - host) + (end - colon))
        return True

    cdef uint32_t _find(self, LaneAddress *address) noexcept nogil:
        """Return the lane that leads to an address; NO_LANE if none does."""
        cdef uint32_t lane
        for lane in range(<uint32_t>MAX_LANES):
            if (self.addresses[lane].length == address.length
                    and memcmp(self.addresses[lane].text, address.text, address.length) == 0):
                return lane
        return NO_LANE


cdef const char *_last_colon(const char *here, const char *end) noexcept nogil:
    while end > here:
        end -= 1
        if end[0] == c':':
            return end
    return NULL
