# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""Checks the invariants of a core, from outside, between two calls.

    * No deadline is later than that of a lease that begins now.
    * An eligible election always has a timer, or is in a queue or in flight.
    * The timer of a leader's refresh group fires before the term ends, and the refresh groups form
      a heap.
    * Terms begin and end in turn, and the last event agrees with the election's state.
    * The counts of elections and of holders' names are right. Buffers and queues are bounded.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from faults cimport fail
from multielect._core.refresh_groups cimport RefreshGroup
from multielect._core.core cimport Core
from multielect._core.events cimport DRAINING
from multielect._core.lane cimport Lane
from multielect._core.queues cimport NO_LANE, QUEUES, REFRESHES, RINGS, TURNS, Bucket
from multielect._core.redirects cimport MAX_ASKS, Ask
from multielect._core.script_batch cimport ScriptBatch
from multielect._core.slots cimport NEVER, NONE, QUEUE, TIMER, Slot
from multielect._core.states cimport (ACQUIRE, ACQUIRING, CANDIDATE, COOLDOWN, ELIGIBLE, LEADING,
                                      REFRESH, RELEASING)

cdef enum:
    MAX_BUFFER = 1 << 20


cdef int look_at(Core core, int64_t latest_ns) except -1:
    """Check all invariants. No deadline may be later than `latest_ns`."""
    cdef uint32_t number, i
    cdef Slot *slot
    cdef Lane lane = core.lane(0)
    cdef uint32_t[7] found
    memset(found, 0, sizeof(found))
    for number in range(core.terms.slots.used):
        slot = core.terms.slots.at(number)
        if slot.key == NULL:
            continue
        found[slot.state] += 1
        if (slot.state == LEADING) != (slot.deadline_ns != 0):
            fail(b"there is a deadline without a term, or a term without a deadline")
        if slot.deadline_ns > latest_ns:
            fail(b"a term lasts longer than a lease")
        _look_after(core, number)
    for i in range(7):
        if found[i] != core.terms.population[i]:
            fail(b"the count of elections in a state is wrong")
    _look_at_refresh_groups(core)
    _look_at_buckets(core)
    _look_at_holders(core)
    _look_at_events(core)
    if core.redirects.asks[0].count > MAX_ASKS:
        fail(b"too many elections wait to be asked about")
    if lane.in_flight > 32 or core.terms.events.report_count > 16:
        fail(b"too many batches are in flight, or too many errors wait")
    if (lane.incoming.capacity > MAX_BUFFER or lane.announcements.capacity > MAX_BUFFER
            or lane.writer.outgoing.capacity > MAX_BUFFER):
        fail(b"a buffer is larger than necessary")
    return 0


cdef int _look_after(Core core, uint32_t number) except -1:
    """Check that the election is not forgotten."""
    cdef Slot *slot = core.terms.slots.at(number)
    cdef bint timed = slot.links[TIMER].list != NONE
    cdef bint queued = slot.links[QUEUE].list != NONE
    if slot.state in (RELEASING, COOLDOWN) and not timed:
        fail(b"an election is forgotten")
    if (slot.state == LEADING
            and core.terms.refresh_groups.items[slot.bucket].timer_ns > slot.deadline_ns):
        fail(b"a term may outlast its deadline")
    if slot.state == LEADING and slot.refreshing and not _is_asked(core, number, REFRESH):
        fail(b"a lease waits for a refresh that is not in flight")
    if slot.state == CANDIDATE and slot.eligibility == ELIGIBLE and not timed and not queued:
        fail(b"an eligible election is forgotten")
    if slot.state == LEADING and queued and slot.links[QUEUE].list != REFRESHES:
        fail(b"a leader is in another queue than that of refreshes")
    if slot.state == ACQUIRING and not _is_asked(core, number, ACQUIRE):
        fail(b"an election waits for an acquire that is not in flight")
    return 0


cdef bint _is_asked(Core core, uint32_t number, uint8_t request) except -1:
    cdef Slot *slot = core.terms.slots.at(number)
    cdef ScriptBatch *batch
    cdef Ask *ask
    cdef Lane lane = core.lane(0)
    cdef uint32_t i, j
    for i in range(lane.in_flight):
        batch = lane._batch(i)
        for j in range(batch.count):
            if (batch.request == request and batch.entries[j].number == number
                    and batch.entries[j].serial == slot.serial):
                return True
    for i in range(core.redirects.asks[0].count):
        ask = &core.redirects.asks[0].items[(core.redirects.asks[0].first + i) % MAX_ASKS]
        if (ask.request == request and ask.entry.number == number
                and ask.entry.serial == slot.serial):
            return True
    return False


cdef int _look_at_refresh_groups(Core core) except -1:
    cdef RefreshGroup *items = core.terms.refresh_groups.items
    cdef uint32_t *heap = core.terms.refresh_groups.heap
    cdef uint32_t place
    if core.terms.queues.is_empty(0, TURNS) != (core.terms.refresh_groups.due_ns[0] == NEVER):
        fail(b"refreshes wait and have no time at which they are sent")
    for place in range(core.terms.refresh_groups.timed):
        if items[heap[place]].place != place:
            fail(b"a refresh group has a wrong place in the heap")
        if place and items[heap[place]].timer_ns < items[heap[(place - 1) // 2]].timer_ns:
            fail(b"a refresh group's timer is earlier than that of its parent in the heap")
    return 0


cdef int _look_at_buckets(Core core) except -1:
    """Check that a bucket is ready while an election waits in it, and has only its elections."""
    cdef uint32_t bucket, number, leading, of_lane = 0, of_none = 0
    cdef int ring
    cdef Bucket *item
    for bucket in range(core.terms.queues.bucket_count):
        item = &core.terms.queues.buckets[bucket]
        for ring in range(<int>QUEUES):
            if (item.heads[ring] != NONE) != core.terms.queues.is_ready(bucket, ring):
                fail(b"a bucket is ready and empty, or not ready and not empty")
        for ring in range(<int>RINGS):
            if (core.terms.queues.is_ready(bucket, ring)
                    and core.terms.queues.buckets[item.ring[ring].next].ring[ring].previous
                    != bucket):
                fail(b"a ring of ready buckets is broken")
        leading = 0
        number = core.terms.slots.first_of(bucket)
        while number != NONE:
            if core.terms.slots.at(number).key != NULL:
                if core.terms.slots.at(number).bucket != bucket:
                    fail(b"an election is in another bucket's list")
                leading += core.terms.slots.at(number).deadline_ns != 0
            number = core.terms.slots.after(number)
        if leading != item.leading:
            fail(b"the count of a bucket's terms is wrong")
        if item.lane == NO_LANE:
            of_none += leading
        else:
            of_lane += leading
    if (of_lane != core.terms.queues.lanes[0].leading
            or of_none != core.terms.queues.lanes[<int>NO_LANE].leading):
        fail(b"the count of a lane's terms is wrong")
    return 0


cdef int _look_at_holders(Core core) except -1:
    cdef uint32_t i, number, uses
    cdef Slot *slot
    for i in range(core.terms.holders.used):
        uses = 0
        for number in range(core.terms.slots.used):
            slot = core.terms.slots.at(number)
            if slot.key != NULL:
                uses += (slot.holder == i) + (slot.successor == i) + (slot.claimant == i)
        if uses != core.terms.holders.items[i].uses:
            fail(b"the count of the uses of a holder's name is wrong")
    return 0


cdef int _look_at_events(Core core) except -1:
    cdef uint32_t place, number, waiting
    cdef int last
    cdef Slot *slot
    for number in range(core.terms.slots.used):
        slot = core.terms.slots.at(number)
        last = -1
        waiting = 0
        for place in range(core.terms.events.start, core.terms.events.count):
            if core.terms.events.items[place].number != number:
                continue
            waiting += 1
            if core.terms.events.items[place].reason == DRAINING:
                continue
            if last >= 0 and (last == 0) == (core.terms.events.items[place].reason == 0):
                fail(b"a term began twice, or ended twice")
            last = core.terms.events.items[place].reason
        if waiting > 4 or (slot.key != NULL and waiting != slot.events_waiting):
            fail(b"too many events of an election wait, or their count is wrong")
        if last >= 0 and (last == 0) != (slot.state == LEADING):
            fail(b"the last event does not agree with the election's state")
    return 0


cdef uint64_t digest(Core core) except? 0:
    """Return a digest of a core's state."""
    cdef uint64_t mixed = 14695981039346656037u
    cdef uint64_t *tally = <uint64_t *>&core.terms.events.tally
    cdef uint32_t number, i
    cdef size_t at
    cdef Slot *slot
    cdef Lane lane = core.lane(0)
    for number in range(core.terms.slots.used):
        slot = core.terms.slots.at(number)
        mixed = mix(mixed, <uint64_t>slot.deadline_ns)
        mixed = mix(mixed, <uint64_t>slot.epoch)
        mixed = mix(mixed, <uint64_t>slot.due_ns)
        mixed = mix(mixed, <uint64_t>slot.phase.drain_ns)
        mixed = mix(mixed, <uint64_t>slot.serial << 32 | slot.generation)
        mixed = mix(mixed, <uint64_t>slot.holder << 32 | slot.successor)
        mixed = mix(mixed, <uint64_t>slot.claimant << 32 | slot.state << 8 | slot.next_state)
        mixed = mix(mixed, slot.refreshing << 8 | slot.again)
        mixed = mix(mixed, slot.woken << 24 | slot.unwanted << 16 | slot.mark.worker_done << 8
                    | slot.eligibility)
    for number in range(core.terms.queues.bucket_count):
        mixed = mix(mixed, <uint64_t>core.terms.refresh_groups.items[number].timer_ns)
        mixed = mix(mixed, <uint64_t>core.terms.refresh_groups.items[number].refresh_ns)
    for i in range(sizeof(core.terms.events.tally) // sizeof(uint64_t)):
        mixed = mix(mixed, tally[i])
    for i in range(core.terms.events.start, core.terms.events.count):
        mixed = mix(mixed, core.terms.events.items[i].epoch)
        mixed = mix(mixed, core.terms.events.items[i].at_ns)
        mixed = mix(mixed, core.terms.events.items[i].reason)
    for at in range(lane.writer.outgoing.start, lane.writer.outgoing.end):
        mixed = mix(mixed, <uint8_t>lane.writer.outgoing.data[at])
    mixed = mix(mixed, core.terms.events.report_count)
    mixed = mix(mixed, lane.in_flight)
    mixed = mix(mixed, lane.replies.refused)
    mixed = mix(mixed, lane.replies.held_until_ns)
    mixed = mix(mixed, core.redirects.asks[0].count << 8 | core.redirects.wants_slots << 4
                | lane.is_subscribing << 2 | lane.replies.is_held)
    mixed = mix(mixed, core.membership.due_ns)
    mixed = mix(mixed, core.membership.in_flight)
    mixed = mix(mixed, core.terms.random_state)
    return mixed


cdef inline uint64_t mix(uint64_t mixed, uint64_t value) noexcept nogil:
    return (mixed ^ value) * <uint64_t>1099511628211 ^ (mixed >> 29)
