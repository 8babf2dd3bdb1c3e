cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t

from .batch_writer cimport BatchWriter
from .membership cimport MembershipPoll
from .redirects cimport Redirects
from .replies cimport Replies
from .resp cimport Cursor, Incoming
from .script_batch cimport ScriptBatch
from .slots cimport prefetch
from .terms cimport Terms
from .wakeups cimport Wakeups

cdef enum:
    MAX_IN_FLIGHT = 32      # batches that are sent and not answered
    MAX_GIVING_UP = 8       # releases and grants in flight, while a node stops


@cython.final
cdef class Lane:
    cdef uint32_t index
    cdef Terms terms
    cdef MembershipPoll membership
    cdef Wakeups wakeups
    cdef BatchWriter writer
    cdef Redirects redirects
    cdef Replies replies
    cdef Incoming incoming
    cdef Incoming announcements
    cdef ScriptBatch *ring
    cdef uint32_t ring_start
    cdef uint32_t in_flight
    cdef uint32_t refreshing    # how many batches in flight refresh
    cdef uint32_t releasing     # how many batches in flight release or grant
    cdef int64_t answered_ns    # when a batch was last answered
    cdef bint is_to_listen      # SUBSCRIBE is to be sent
    cdef bint is_subscribing    # it is sent, and not answered
    cdef uint32_t before_subscribe  # how many batches in flight were sent before it
    cdef bint polls_membership  # the lane's server has the keys of the fleet
    cdef bint connected

    cdef int prepare(self, scripts) except -1
    cdef int connect(self) except -1 nogil
    cdef int disconnect(self, int64_t now_ns) except -1 nogil
    cdef int pack(self, int64_t now_ns) except -1 nogil
    cdef int receive(self, const char *data, size_t length, int64_t now_ns) except -1 nogil
    cdef int act(self, int64_t now_ns) except -1 nogil
    cdef int hear(self, const char *data, size_t length, int64_t now_ns) except -1 nogil

    cdef bint is_open(self) noexcept nogil
    cdef bint has_room(self) noexcept nogil
    cdef uint32_t _max_in_flight(self) noexcept nogil
    cdef uint32_t _first_of_refreshes(self) noexcept nogil
    cdef int _send(self, ScriptBatch *batch, int64_t now_ns) except -1 nogil
    cdef int64_t next_pack_ns(self, int64_t now_ns) noexcept nogil
    cdef int64_t owed_since_ns(self) noexcept nogil
    cdef bint _may_refresh(self, int64_t now_ns) noexcept nogil
    cdef int _collect_refreshes(self, ScriptBatch *batch, int64_t now_ns) except -1 nogil
    cdef int _collect_ended(self, ScriptBatch *batch, int64_t now_ns) except -1 nogil
    cdef int _collect(self, ScriptBatch *batch, uint8_t request, int64_t now_ns) except -1 nogil
    cdef int _collect_releases(self, ScriptBatch *batch, int queue, uint32_t most,
                               int64_t now_ns) except -1 nogil
    cdef int _collect_acquires(self, ScriptBatch *batch, uint32_t most,
                               int64_t now_ns) except -1 nogil
    cdef void _rotate(self, ScriptBatch *batch, int queue) noexcept nogil
    cdef uint32_t _bucket(self, uint32_t number) noexcept nogil
    cdef bint _may_join(self, ScriptBatch *batch, uint32_t number, int64_t now_ns) noexcept nogil
    cdef uint32_t _count_floors(self, ScriptBatch *batch) noexcept nogil
    cdef bint _may_give_up(self) noexcept nogil
    cdef void _end(self, ScriptBatch *batch) noexcept nogil
    cdef ScriptBatch *_batch(self, uint32_t place) noexcept nogil

    cdef inline void _append(self, ScriptBatch *batch, uint32_t number) noexcept nogil:
        batch.entries[batch.count].number = number
        batch.entries[batch.count].serial = self.terms.slots.at(number).serial
        prefetch(self.terms.slots.at(number).key)
        batch.count += 1
