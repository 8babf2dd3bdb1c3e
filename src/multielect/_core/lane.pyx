# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""The connection to one server: sends batches and takes replies, in order.

Rules of this file:
    * A lane serves the buckets that the slot map gives it, and no others.
    * The caller reads `now_ns` before it calls `pack`. It becomes the `sent_ns` of all batches that
      `pack` writes, so it is earlier than the moment when their bytes leave.
    * Redis answers in order, so a reply answers the oldest batch in flight. When the connection is
      lost, the lane forgets all batches in flight, so no reply is taken for that of another
      connection.
    * A script gets at most `MAX_KEYS` Redis keys. On a server of a cluster they are all of one
      bucket, and so of one hash slot. Elsewhere a batch takes from as many buckets as it needs to
      be full.
    * The number of batches in flight is bounded. Requests beyond that wait in the queues. Refreshes
      go first, then releases, then acquires.
    * Refreshes that are not due yet are sent one batch at a time, the next when the last is
      answered. So another client's command waits for one script at most.
    * No function here needs the GIL. None raises but for lack of memory.
"""

from libc.stdlib cimport calloc, free

from .queues cimport ACQUIRES, GRANTS, PROBES, REFRESHES, RELEASES, TURNS
from .script_batch cimport MAX_KEYS
from .slots cimport NEVER, NONE
from .states cimport ACQUIRE, ELIGIBLE, GRANT, MEMBERSHIP, REFRESH, RELEASE

cdef enum:
    WHOLE = 1


cdef class Lane:
    """Sends requests that are due to one server, and takes its replies.

    Args:
        index: the lane's number in the core.
    """

    def __cinit__(self, uint32_t index, Terms terms, MembershipPoll membership, Wakeups wakeups,
                  BatchWriter writer, Redirects redirects):
        self.index = index
        self.terms = terms
        self.membership = membership
        self.wakeups = wakeups
        self.writer = writer
        self.redirects = redirects
        self.replies = Replies(index, terms, membership, writer, redirects)
        self.incoming = Incoming()
        self.announcements = Incoming()
        self.ring = <ScriptBatch *>calloc(MAX_IN_FLIGHT, sizeof(ScriptBatch))
        if self.ring == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.ring)

    # ---- the connection

    cdef int prepare(self, scripts) except -1:
        """Take the scripts for the server of the next connection. The lane is not connected."""
        if self.connected:
            raise RuntimeError("the lane is connected")
        self.writer.take_scripts(scripts)
        return 0

    cdef int connect(self) except -1 nogil:
        """Begin to use a new connection."""
        self.writer.forget_loaded()
        self.connected = True
        self.replies.refused = False
        self.replies.held_until_ns = 0
        self.replies.is_held = False
        self.redirects.opened(self.index, True)
        self.terms.refresh_all(self.index)
        if self.polls_membership:
            self.membership.poll_by(0)
        return 0

    cdef int disconnect(self, int64_t now_ns) except -1 nogil:
        """Forget the batches in flight, and repeat their requests: their outcome is unknown."""
        cdef ScriptBatch *batch
        self.connected = False
        # The next connection may be asked to listen before it is made.
        self.is_to_listen = False
        self.is_subscribing = False
        self.redirects.opened(self.index, False)
        self.incoming.clear()
        self.announcements.clear()
        self.writer.outgoing.clear()
        while self.in_flight:
            batch = self._batch(0)
            self._end(batch)
            self.replies.give_back(batch, now_ns, 0)
        while self.redirects.take(self.index, self._batch(0)):
            self.replies.give_back(self._batch(0), now_ns, 0)
        return 0

    # ---- sending

    cdef int pack(self, int64_t now_ns) except -1 nogil:
        """Write batches of requests that are due, as many as may be in flight."""
        cdef ScriptBatch *batch
        if self.terms.has_to_give_up(self.index) and not self.is_open():
            # No release can be sent, and nobody knows when one can be. So the terms end now.
            self.terms.give_up(self.index, NONE, now_ns)
        if now_ns < self.replies.held_until_ns:
            return 0
        if self.is_to_listen and self.is_open():
            self.is_to_listen = False
            if not self.is_subscribing:
                self.is_subscribing = True
                self.before_subscribe = self.in_flight
                self.writer.write_subscribe()
        while self.has_room() and self.redirects.take(self.index, self._batch(self.in_flight)):
            # The election may have gone on while it waited. What is written is what it is now, so a
            # release would then be one of a newer term.
            if not self.replies.is_void(&self._batch(self.in_flight).entries[0]):
                self._send(self._batch(self.in_flight), now_ns)
        while self.has_room():
            batch = self._batch(self.in_flight)
            batch.asking = 0
            if (self._collect_refreshes(batch, now_ns) == 0
                    and self._collect(batch, MEMBERSHIP, now_ns) == 0
                    and self._collect_ended(batch, now_ns) == 0
                    and self._collect(batch, ACQUIRE, now_ns) == 0):
                return 0
            self._send(batch, now_ns)
        return 0

    cdef int _send(self, ScriptBatch *batch, int64_t now_ns) except -1 nogil:
        """Write the batch, which stands behind those in flight."""
        batch.sent_ns = now_ns
        self.in_flight += 1
        self.refreshing += batch.request == REFRESH
        self.releasing += batch.request == RELEASE or batch.request == GRANT
        self.terms.events.tally.batches += 1
        return self.writer.write(batch)

    cdef int _collect_refreshes(self, ScriptBatch *batch, int64_t now_ns) except -1 nogil:
        return self._collect(batch, REFRESH, now_ns) if self._may_refresh(now_ns) else 0

    cdef int _collect_ended(self, ScriptBatch *batch, int64_t now_ns) except -1 nogil:
        """Fill the batch with grants or releases. A node that stops ends some terms for it."""
        if self._may_give_up():
            self.terms.give_up(
                self.index, min(self.terms.batch_keys, <uint32_t>MAX_KEYS // 2), now_ns)
        return (self._collect(batch, GRANT, now_ns)
                or self._collect(batch, RELEASE, now_ns))

    cdef int _collect(self, ScriptBatch *batch, uint8_t request, int64_t now_ns) except -1 nogil:
        """Fill the batch with due requests of one kind. Returns how many there are."""
        cdef uint32_t most = self.terms.batch_keys
        batch.request = request
        batch.count = 0
        if request == MEMBERSHIP:
            if not self.polls_membership or not self.membership.is_due(now_ns):
                return 0
            self.membership.begun(now_ns)
            return 1
        if request == REFRESH:
            if self.redirects.is_cluster and self.redirects.is_split(
                    self._first_of_refreshes(), now_ns):
                most = 1
            batch.count = self.terms.next_refreshes(self.index, batch.entries, most,
                                                    self.redirects.is_cluster, now_ns)
            self.terms.events.tally.refreshes += batch.count
            return batch.count
        most = min(most, <uint32_t>MAX_KEYS // self.writer.keys_of_each(request))
        if request == ACQUIRE:
            self._collect_acquires(batch, most, now_ns)
            self.terms.events.tally.checks += batch.count
            batch.floors = self._count_floors(batch) if self.terms.has_floors else 0
        else:
            self._collect_releases(batch, GRANTS if request == GRANT else RELEASES, most, now_ns)
        return batch.count

    cdef uint32_t _first_of_refreshes(self) noexcept nogil:
        """Return the bucket of the leases that are refreshed next; there must be some."""
        cdef uint32_t number = self.terms.queues.peek(self.index, REFRESHES)
        if number != NONE:
            return self._bucket(number)
        return self.terms.queues.lanes[self.index].ready[<int>TURNS]

    cdef int _collect_releases(self, ScriptBatch *batch, int queue, uint32_t most,
                               int64_t now_ns) except -1 nogil:
        cdef uint32_t number
        while batch.count < most:
            number = self.terms.queues.peek(self.index, queue)
            if number == NONE or not self._may_join(batch, number, now_ns):
                break
            self.terms.queues.dequeue(number)
            self._append(batch, number)
        self._rotate(batch, queue)
        return 0

    cdef int _collect_acquires(self, ScriptBatch *batch, uint32_t most,
                               int64_t now_ns) except -1 nogil:
        # An acquire of an election that is not this node's own claims nothing. It shares no batch
        # with acquires that claim.
        cdef bint claims
        cdef uint32_t number
        while batch.count < most:
            number = self.terms.peek_acquire(self.index)
            if number == NONE or not self._may_join(batch, number, now_ns):
                break
            claims = self.terms.balanced and self.terms.slots.at(number).eligibility == ELIGIBLE
            if batch.count == 0:
                batch.claims = claims
            elif batch.claims != claims:
                break
            self.terms.begin_acquire(number)
            self._append(batch, number)
        self._rotate(batch, ACQUIRES)
        self._rotate(batch, PROBES)
        return 0

    cdef void _rotate(self, ScriptBatch *batch, int queue) noexcept nogil:
        """Let other buckets go first, if the batch did not empty the bucket it took last."""
        cdef uint32_t number = self.terms.queues.peek(self.index, queue)
        if number != NONE and batch.count and self._bucket(number) == self._bucket(
                batch.entries[batch.count - 1].number):
            self.terms.queues.rotate(self.index, queue)

    cdef uint32_t _bucket(self, uint32_t number) noexcept nogil:
        return self.terms.slots.at(number).bucket

    cdef bint _may_join(self, ScriptBatch *batch, uint32_t number, int64_t now_ns) noexcept nogil:
        """Tell whether one script may have the election and those of the batch."""
        if batch.count == 0 or not self.redirects.is_cluster:
            return True
        return (self._bucket(number) == self._bucket(batch.entries[0].number)
                and not self.redirects.is_split(self._bucket(number), now_ns))

    cdef uint32_t _count_floors(self, ScriptBatch *batch) noexcept nogil:
        cdef uint32_t i, count = 0
        for i in range(batch.count):
            count += self.terms.slots.at(batch.entries[i].number).phase.floor != 0
        return count

    # ---- receiving

    cdef int receive(self, const char *data, size_t length, int64_t now_ns) except -1 nogil:
        """Take bytes, and act on each complete reply. Returns 1 if one is malformed."""
        self.incoming.feed(data, length)
        return self.act(now_ns)

    cdef int act(self, int64_t now_ns) except -1 nogil:
        """Act on each complete reply. Returns 1 if one is malformed."""
        cdef Cursor frame
        cdef int outcome
        while True:
            outcome = self.incoming.next_frame(&frame)
            if outcome == 0:
                return 0
            if outcome != WHOLE:
                return self.replies.malformed(b"the bytes are not the Redis protocol")
            if frame.here[0] == c'>':
                if self.redirects.is_cluster and self.wakeups.is_subscribed(frame):
                    self.is_subscribing = False
                    # Until now this node did not hear which elections were set free.
                    self.terms.acquire_all_lanes()
                    self.membership.poll_by(0)
                else:
                    self.wakeups.handle(&frame, now_ns)
                continue
            if self.is_subscribing and self.before_subscribe == 0 and frame.here[0] == c'-':
                # The refusal stands among the replies, and answers no batch. The lane's connection
                # was refused the same when it was made, and that was reported.
                self.is_subscribing = False
                continue
            if self.in_flight == 0:
                return self.replies.malformed(b"no batch is in flight")
            if self._batch(0).asking == 2:
                self.replies.asking_answered(self._batch(0), &frame)
                self._batch(0).asking = 1
                continue
            # The batch stays in the ring until its reply is read to the end. If the reply is
            # malformed, `disconnect` repeats the requests whose outcome was not read.
            if self.replies.answer(self._batch(0), &frame, now_ns):
                return 1
            self._end(self._batch(0))
            self.answered_ns = now_ns

    cdef int hear(self, const char *data, size_t length, int64_t now_ns) except -1 nogil:
        """Take bytes from a connection that only subscribes. Returns 1 if malformed."""
        cdef Cursor frame
        cdef int outcome
        self.announcements.feed(data, length)
        while True:
            outcome = self.announcements.next_frame(&frame)
            if outcome < 0:
                return self.replies.malformed(b"an announcement is not the Redis protocol")
            if outcome == 0:
                return 0
            if self.wakeups.is_subscribed(frame):
                # The server may have answered acquires of the other connection before this
                # subscription began, so this node may have missed a wake-up.
                self.terms.acquire_all(self.index)
                self.membership.poll_by(0)
            else:
                self.wakeups.handle(&frame, now_ns)

    # ---- state

    cdef int64_t owed_since_ns(self) noexcept nogil:
        """Return since when the server owes an answer; -1 if it owes none."""
        if self.in_flight == 0:
            return -1
        return max(self._batch(0).sent_ns, self.answered_ns)

    cdef bint has_room(self) noexcept nogil:
        """Tell whether another batch may be sent now."""
        return self.is_open() and self.in_flight < self._max_in_flight()

    cdef uint32_t _max_in_flight(self) noexcept nogil:
        # A server that has just served nothing is tried with one batch.
        return 1 if self.replies.is_held else <uint32_t>MAX_IN_FLIGHT

    cdef bint is_open(self) noexcept nogil:
        """Tell whether the lane is connected to a server that serves elections."""
        return self.connected and not self.replies.refused

    cdef int64_t next_pack_ns(self, int64_t now_ns) noexcept nogil:
        """Return when the lane next has something to send, unless a reply comes before."""
        if not self.has_room():
            return NEVER
        if now_ns < self.replies.held_until_ns:
            return self.replies.held_until_ns
        if self.redirects.has_asks(self.index) or self.is_to_listen:
            return now_ns
        if self.terms.has_other_work(self.index) or self._may_give_up():
            return now_ns
        return now_ns if self._may_refresh(now_ns) else self.terms.refresh_due_ns(self.index)

    cdef bint _may_refresh(self, int64_t now_ns) noexcept nogil:
        cdef int64_t due_ns = self.terms.refresh_due_ns(self.index)
        return due_ns <= now_ns or (due_ns != NEVER and self.refreshing == 0)

    cdef bint _may_give_up(self) noexcept nogil:
        # Only as many at once as the server soon releases. This node leads the others until then.
        return (self.terms.has_to_give_up(self.index) and self.releasing < MAX_GIVING_UP
                and self.terms.queues.is_empty(self.index, RELEASES)
                and self.terms.queues.is_empty(self.index, GRANTS))

    cdef void _end(self, ScriptBatch *batch) noexcept nogil:
        """Take the oldest batch off the ring."""
        self.ring_start = (self.ring_start + 1) % MAX_IN_FLIGHT
        self.in_flight -= 1
        if self.before_subscribe:
            self.before_subscribe -= 1
        self.refreshing -= batch.request == REFRESH
        self.releasing -= batch.request == RELEASE or batch.request == GRANT

    cdef ScriptBatch *_batch(self, uint32_t place) noexcept nogil:
        return &self.ring[(self.ring_start + place) % MAX_IN_FLIGHT]
