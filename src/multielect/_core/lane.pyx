# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""One connection to one primary: what is in flight on it, in order.

Rules of this file:
    * `now_ns`, read before `pack`, is the `sent_ns` of all that `pack` writes: it is
      earlier than the moment when the bytes leave.
    * Redis answers in order, so the oldest batch in flight is the one that a reply
      answers. When the connection is lost all batches are forgotten: a reply can never
      be taken for another connection's.
    * A reply counts for an election only if its serial is still the one that asked.
    * What is in flight is bounded; what is due beyond that waits in the queues. Refreshes
      go first, then releases, then acquires.
    * Refreshes that are not due yet go one batch at a time, the next when the last is answered:
      another client's command waits for one script at most, and this node is awake anyway.
    * A reply that cannot be understood is an error of the connection: `take` then returns 1
      and `parse_error` says what was wrong. An election that the server refuses is an error of
      that election.
    * Nothing here needs the GIL: no exception but for memory, no return value that Cython
      would have to check with the interpreter.
"""

from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free
from libc.string cimport memchr, memcmp, memcpy

from .batches cimport MAX_KEYS
from .holders cimport MAX_NAME_BYTES
from .resp cimport read_value
from .schedule cimport GRANTS, RELEASES
from .slots cimport NEVER, NONE, hash_of
from .states cimport (ACQUIRE, CLAIM, CLOCK, ENDLESS, GRANT, MEMBERSHIP, REFRESH, RELEASE, UNENDED,
                      WAKE_UP)

# After this a claim is made again, however long leases last.
cdef int64_t MAX_CLAIM_NS = 5_000_000_000

cdef enum:
    WHOLE = 1
    MAX_WAIT_MS = 86_400_000            # what acquire.lua says of a lease at most
    NO_END_MS = 86_400_001              # and of one that has no end
    LATEST_MS = 9_000_000_000_000       # the year 2255: as many ns fit into 63 bits
    MS = 1_000_000
    TEXT_BYTES = 24

cdef enum:
    EXTENDED = 0
    NOT_OURS = 1
    FAILED = 2
    MOVED = 3


cdef inline bint _starts(Value *error, const char *word, size_t length) noexcept nogil:
    return error.length >= length and memcmp(error.text, word, length) == 0


cdef inline void _leave_out_place(Value *error) noexcept nogil:
    """Leave out what servers before 7.0 put before the code: `@user_script: 7: -`."""
    cdef const char *end
    if error.length == 0 or error.text[0] != c'@':
        return
    end = <const char *>memchr(error.text, c'-', error.length)
    if end != NULL:
        error.length -= end + 1 - error.text
        error.text = end + 1


cdef inline bint _is_for_all(Value *error) noexcept nogil:
    """Tell whether the server would refuse everything else as well."""
    return (_starts(error, b"READONLY", 8) or _starts(error, b"MASTERDOWN", 10)  # a replica
            or _starts(error, b"NOAUTH", 6)
            or _starts(error, b"MOVED", 5) or _starts(error, b"CROSSSLOT", 9)    # of a cluster
            or _starts(error, b"ASK ", 4) or _starts(error, b"CLUSTERDOWN", 11))


cdef inline bint _read_place(Cursor *frame, int64_t least, int64_t most,
                             uint32_t *place) noexcept nogil:
    """Read which key of a batch is meant, from `least` to `most`; False for anything else."""
    cdef Value value
    if (read_value(frame, &value) != WHOLE or value.kind != c':'
            or not least <= value.number <= most):
        return False
    place[0] = <uint32_t>value.number
    return True


cdef class Lane(Batches):
    """Sends what is due, and hands the replies to the terms."""

    def __cinit__(self, Terms terms, MembershipPoll membership, Wakeups wakeups, **_):
        self.wakeups = wakeups
        self.server_clock = ServerClock(terms.margin_ns)
        self.incoming = Incoming()
        self.ring = <ScriptBatch *>calloc(MAX_IN_FLIGHT, sizeof(ScriptBatch))
        if self.ring == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.ring)

    cdef int prepare(self, scripts) except -1:
        """Take the scripts that suit the next connection's server; there is none now."""
        if self.connected:
            raise RuntimeError("the lane is connected")
        self.take_scripts(scripts)
        return 0

    cdef int connection_made(self) except -1 nogil:
        """Begin on a fresh connection."""
        self.forget_loaded()
        self.connected = True
        self.refused = False
        self.terms.refresh_all()
        self.membership.poll_by(0)
        return 0

    cdef int connection_lost(self, int64_t now_ns) except -1 nogil:
        """Forget what is in flight: its outcome is unknown, so each is asked again."""
        cdef ScriptBatch *batch
        self.connected = False
        self.incoming.clear()
        self.outgoing.clear()
        while self.in_flight:
            batch = self._batch(0)
            self._end(batch)
            self._give_back(batch, now_ns, 0)
        return 0

    cdef int pack(self, int64_t now_ns) except -1 nogil:
        """Write batches of what is due, as many as may be in flight."""
        cdef ScriptBatch *batch
        if self.terms.is_giving_up() and not self.is_open():
            # What cannot be handed on is not kept either: nobody knows for how long.
            self.terms.give_up(NONE, now_ns)
        while self.has_room():
            batch = self._batch(self.in_flight)
            if (self._collect_refreshes(batch, now_ns) == 0
                    and self._collect(batch, MEMBERSHIP, now_ns) == 0
                    and self._collect_ended(batch, now_ns) == 0
                    and self._collect(batch, ACQUIRE, now_ns) == 0):
                return 0
            batch.sent_ns = now_ns
            self.in_flight += 1
            self.refreshing += batch.request == REFRESH
            self.releasing += batch.request == RELEASE or batch.request == GRANT
            self.terms.events.tally.batches += 1
            self._write(batch)
        return 0

    cdef int _collect_refreshes(self, ScriptBatch *batch, int64_t now_ns) except -1 nogil:
        return self._collect(batch, REFRESH, now_ns) if self._may_refresh(now_ns) else 0

    cdef int _collect_ended(self, ScriptBatch *batch, int64_t now_ns) except -1 nogil:
        """Fill the batch with terms that have ended; of a node that stops, with some that do."""
        if self._may_give_up():
            self.terms.give_up(min(self.terms.batch_keys, <uint32_t>MAX_KEYS // 2), now_ns)
        return (self._collect(batch, GRANT, now_ns)
                or self._collect(batch, RELEASE, now_ns))

    cdef int take(self, int64_t now_ns) except -1 nogil:
        """Act on every reply that has arrived whole. Returns 1 if one is malformed."""
        cdef Cursor frame
        cdef int outcome
        while True:
            outcome = self.incoming.next_frame(&frame)
            if outcome == 0:
                return 0
            if outcome != WHOLE:
                return self._malformed(b"it is not the Redis protocol")
            if frame.here[0] == c'>':
                self.wakeups.heed(&frame, now_ns)
                continue
            if self.in_flight == 0:
                return self._malformed(b"nothing had been asked")
            # It stays in the ring until it is understood: what of it is not must be given
            # back when the connection is given up.
            if self._answer(self._batch(0), &frame, now_ns):
                return 1
            self._end(self._batch(0))
            self.answered_ns = now_ns

    cdef int64_t owed_since_ns(self) noexcept nogil:
        """Return since when the server owes an answer; -1 where it owes none."""
        if self.in_flight == 0:
            return -1
        return max(self._batch(0).sent_ns, self.answered_ns)

    cdef bint has_room(self) noexcept nogil:
        """Tell whether another batch may be sent now."""
        return self.is_open() and self.in_flight < MAX_IN_FLIGHT

    cdef bint is_open(self) noexcept nogil:
        """Tell whether there is a server to send to."""
        return self.connected and not self.refused

    cdef int64_t next_pack_ns(self, int64_t now_ns) noexcept nogil:
        """Return when there is something to be sent, if nothing is answered before."""
        if not self.has_room():
            return NEVER
        if self.terms.has_other_work() or self._may_give_up():
            return now_ns
        return now_ns if self._may_refresh(now_ns) else self.terms.refresh_due_ns()

    cdef bint _may_refresh(self, int64_t now_ns) noexcept nogil:
        cdef int64_t due_ns = self.terms.refresh_due_ns()
        return due_ns <= now_ns or (due_ns != NEVER and self.refreshing == 0)

    cdef bint _may_give_up(self) noexcept nogil:
        # No more at once than the server ends soon: until then the rest goes on being led.
        return (self.terms.is_giving_up() and self.releasing < MAX_GIVING_UP
                and self.terms.schedule.peek(RELEASES) == NONE
                and self.terms.schedule.peek(GRANTS) == NONE)

    cdef void _end(self, ScriptBatch *batch) noexcept nogil:
        """Take the oldest batch off the ring."""
        self.ring_start = (self.ring_start + 1) % MAX_IN_FLIGHT
        self.in_flight -= 1
        self.refreshing -= batch.request == REFRESH
        self.releasing -= batch.request == RELEASE or batch.request == GRANT

    cdef ScriptBatch *_batch(self, uint32_t place) noexcept nogil:
        return &self.ring[(self.ring_start + place) % MAX_IN_FLIGHT]

    # ---- replies

    cdef int _answer(self, ScriptBatch *batch, Cursor *frame, int64_t now_ns) except -1 nogil:
        cdef Value head
        cdef Value time
        if read_value(frame, &head) != WHOLE:
            return self._malformed(b"an empty frame")
        if head.kind == c'-':
            return self._refused(batch, &head, now_ns)
        if not batch.by_digest:
            self.rejected[batch.request] = False
        if batch.request == MEMBERSHIP:
            return self._answer_membership(&head)
        if head.kind != c'*' or head.number < 1:
            return self._malformed(b"a script answered no table")
        if read_value(frame, &time) != WHOLE or time.kind != c':':
            return self._malformed(b"the server's time is missing")
        if not 0 <= time.number <= LATEST_MS:
            return self._malformed(b"the server's time is none")
        # Before the rest counts: what was extended before a jump must not outlast it.
        self._see_clock(batch, time.number, now_ns)
        if batch.request == ACQUIRE:
            # A claim that could not be made is told of after them.
            if not 0 <= head.number - 2 - <int64_t>batch.count <= batch.claims:
                return self._malformed(b"an acquire answered for another number of elections")
            return self._answer_acquire(batch, frame, head.number > 2 + <int64_t>batch.count,
                                        now_ns)
        if head.number != 3:
            return self._malformed(b"a script answered in another form")
        if batch.request == REFRESH:
            return self._answer_refresh(batch, frame, now_ns)
        return self._answer_release(batch, frame)

    cdef int _see_clock(self, ScriptBatch *batch, int64_t server_ms,
                        int64_t now_ns) except -1 nogil:
        cdef int64_t jump_ns = self.server_clock.see(server_ms, batch.sent_ns, now_ns)
        cdef char[TEXT_BYTES] text
        cdef uint32_t given_up = 0
        if jump_ns == 0:
            return 0
        if jump_ns > 0:
            given_up = self.terms.leases_shortened(jump_ns, now_ns)
            # The leases of others end earlier too.
            self.terms.ask_again()
        self.terms.events.report(CLOCK, given_up, NONE, text,
                                 snprintf(text, TEXT_BYTES, "%lld", <long long>(jump_ns // MS)))
        return 0

    cdef int _answer_membership(self, Value *head) except -1 nogil:
        if head.kind != c'$' or head.number < 0:
            return self._malformed(b"the answer to a membership poll is no text")
        self.membership.answered(head)
        return 0

    cdef int _answer_acquire(self, ScriptBatch *batch, Cursor *frame, bint has_error,
                             int64_t now_ns) except -1 nogil:
        cdef OtherLeaders others
        cdef Value error
        cdef uint32_t i
        cdef int outcome
        others.count = 0
        outcome = self._read_leaders(batch, frame, &others)
        if outcome == 0:
            outcome = self._read_outcomes(batch, frame, &others, now_ns)
        # Those that elections keep in view have been counted for them meanwhile.
        for i in range(others.count):
            self.terms.holders.drop(others.places[i])
        if outcome or not batch.claims or others.count == 0:
            return outcome
        if not has_error:
            self.claim_refused = 0
        elif read_value(frame, &error) != WHOLE or error.kind != c'-':
            return self._malformed(b"claims failed for no reason")
        else:
            self._report_once(CLAIM, &self.claim_refused, others.count, &error)
        return 0

    cdef void _report_once(self, uint8_t what, uint32_t *told, uint32_t elections,
                           Value *error) noexcept nogil:
        """Tell what is refused each time, until it is not: once. `told` says in which words."""
        cdef uint32_t words = hash_of(error.text, error.length, 0) | 1
        if words != told[0]:
            told[0] = words
            self.terms.events.report(what, elections, NONE, error.text, error.length)

    cdef int _read_leaders(self, ScriptBatch *batch, Cursor *frame,
                           OtherLeaders *others) except -1 nogil:
        cdef Value head
        cdef Value name
        cdef int64_t _i
        if (read_value(frame, &head) != WHOLE or head.kind != c'*' or head.number < 0
                or head.number > batch.count):
            return self._malformed(b"an acquire named no holders")
        for _i in range(head.number):
            if read_value(frame, &name) != WHOLE or name.kind != c'$' or name.number < 0:
                return self._malformed(b"a holder's name is missing")
            if name.length > MAX_NAME_BYTES:
                return self._malformed(b"a holder's name is longer than the script says of any")
            self.terms.holders.intern(name.text, name.length, &others.places[others.count])
            self.terms.holders.count_named(others.places[others.count])
            # A bare node id is a node that tells nobody when it releases.
            others.silent[others.count] = memchr(name.text, c'/', name.length) == NULL
            others.count += 1
        return 0

    cdef int _read_outcomes(self, ScriptBatch *batch, Cursor *frame, OtherLeaders *others,
                            int64_t now_ns) except -1 nogil:
        cdef Value value
        cdef Asked *entry
        cdef int64_t jitter_ns = 1_000_000 + self.terms.random_below(self.terms.jitter_ns)
        cdef int64_t other, remaining_ms, again_ns
        cdef uint32_t i
        for i in range(batch.count):
            entry = &batch.entries[i]
            if read_value(frame, &value) != WHOLE:
                return self._malformed(b"an outcome is missing")
            if value.kind == c':' and value.number > 0:
                if not self._is_void(entry):
                    self.terms.won(entry.number, value.number, batch.floors, batch.sent_ns, now_ns)
            elif value.kind == c'-':
                self.terms.events.report(ACQUIRE, 1, entry.number, value.text, value.length)
                self._see_refusal(&value)
                if not self._is_void(entry):
                    self.terms.acquire_refused(entry.number, now_ns)
            elif value.kind != c':' or value.number == 0:
                return self._malformed(b"an outcome is no number")
            elif not self._is_void(entry):
                other = (-value.number) % 256 - 1
                remaining_ms = (-value.number) // 256
                if not 0 <= other < others.count:
                    return self._malformed(b"an outcome names no holder")
                if remaining_ms == NO_END_MS:
                    self._see_endless(entry.number, others.places[other])
                elif remaining_ms > MAX_WAIT_MS:
                    return self._malformed(b"a lease lasts longer than the script says of any")
                else:
                    self.terms.slots.at(entry.number).endless = 0
                # What seems to last for long may end sooner: where the server's clock was set
                # back, the next refresh shortens it.
                again_ns = now_ns + min(remaining_ms * 1_000_000, self.terms.ttl_ns) + jitter_ns
                # A claim may have come before its leader could know whose it is to be, or as the
                # lease was on its way to another.
                if others.silent[other] or batch.claims:
                    again_ns = min(again_ns, now_ns + self.terms.refresh_ns)
                if batch.claims:
                    again_ns = min(again_ns, now_ns + MAX_CLAIM_NS)
                self.terms.contested(entry.number, others.places[other], batch.claims,
                                     again_ns)
        return 0

    cdef void _see_endless(self, uint32_t number, uint32_t holder) noexcept nogil:
        cdef char[MAX_NAME_BYTES] name
        if self.terms.is_first_seen_endless(number, holder):
            self.terms.events.report(ENDLESS, 1, number, name,
                                     self.terms.holders.copy(holder, name, MAX_NAME_BYTES))

    cdef int _answer_refresh(self, ScriptBatch *batch, Cursor *frame,
                             int64_t now_ns) except -1 nogil:
        cdef uint8_t marks[MAX_ENTRIES]
        cdef Value value
        cdef uint32_t place
        cdef Asked *entry
        cdef int64_t _i
        cdef uint32_t i
        for i in range(batch.count):
            marks[i] = 0
        if read_value(frame, &value) != WHOLE or value.kind != c'*' or value.number < 0:
            return self._malformed(b"a refresh does not say which keys are not ours")
        for _i in range(value.number):
            if not _read_place(frame, 1, batch.count, &place):
                return self._malformed(b"a refresh names a key that was not sent")
            marks[place - 1] = NOT_OURS
        if self._read_failures(batch, frame, marks):
            return 1
        for i in range(batch.count):
            entry = &batch.entries[i]
            if self._is_void(entry):
                continue
            if marks[i] == EXTENDED:
                self.terms.refreshed(entry.number, batch.sent_ns, now_ns)
            elif marks[i] == NOT_OURS:
                self.terms.mismatched(entry.number, now_ns)
            else:
                self.terms.not_refreshed(entry.number, now_ns, self.terms.retry_ns(now_ns))
        return 0

    cdef int _read_failures(self, ScriptBatch *batch, Cursor *frame,
                            uint8_t *marks) except -1 nogil:
        """Mark what could not be done, and tell why."""
        cdef Value value
        cdef uint32_t place
        cdef int64_t _i
        cdef bint is_refresh = batch.request == REFRESH
        if (read_value(frame, &value) != WHOLE or value.kind != c'*' or value.number < 0
                or value.number % 2):
            return self._malformed(b"a script does not say which keys failed")
        if not is_refresh and value.number == 0:
            self.wake_up_refused = 0
        for _i in range(value.number // 2):
            # At place 0 it is others that could not be told.
            if not _read_place(frame, is_refresh, batch.count, &place):
                return self._malformed(b"a script names a key that was not sent")
            if read_value(frame, &value) != WHOLE or value.kind != c'-':
                return self._malformed(b"a script failed for no reason")
            if place == 0:
                self._report_once(WAKE_UP, &self.wake_up_refused, batch.count, &value)
                continue
            marks[place - 1] = FAILED
            # A replica before 7.0 runs the script, and refuses each key.
            self._see_refusal(&value)
            self.terms.events.report(REFRESH if is_refresh else UNENDED, 1,
                                     batch.entries[place - 1].number,
                                     value.text, value.length)
        return 0

    cdef int _answer_release(self, ScriptBatch *batch, Cursor *frame) except -1 nogil:
        cdef uint8_t marks[MAX_ENTRIES]
        cdef int64_t epochs[MAX_ENTRIES]
        cdef Value value
        cdef uint32_t place
        cdef Asked *entry
        cdef int64_t _i
        cdef uint32_t i
        for i in range(batch.count):
            marks[i] = 0
        if (read_value(frame, &value) != WHOLE or value.kind != c'*' or value.number < 0
                or value.number % 2):
            return self._malformed(b"a release does not say which leases are under other epochs")
        for _i in range(value.number // 2):
            if not _read_place(frame, 1, batch.count, &place):
                return self._malformed(b"a release names a key that was not sent")
            if read_value(frame, &value) != WHOLE or value.kind != c':':
                return self._malformed(b"a release names no epoch")
            marks[place - 1] = MOVED
            epochs[place - 1] = value.number
        if self._read_failures(batch, frame, marks):
            return 1
        for i in range(batch.count):
            entry = &batch.entries[i]
            if self._is_void(entry):
                continue
            if marks[i] == MOVED:
                self.terms.moved_on(entry.number, epochs[i])
            elif marks[i] == FAILED:
                # It was told; the lease ends by itself.
                self.terms.not_ended(entry.number)
            else:
                # Released, or held by another since: this node has nothing there either way.
                self.terms.released(entry.number)
        return 0

    cdef int _refused(self, ScriptBatch *batch, Value *error, int64_t now_ns) except -1 nogil:
        """The server refused the whole batch."""
        if _starts(error, b"NOSCRIPT", 8):
            self.loaded[batch.request] = False
            # Of a batch that brought its script that would be in vain: to bring it again at once
            # would go on for as long as the server says so.
            if batch.by_digest and self.rejected[batch.request]:
                # It came behind one that was to bring the script, and is refused as that was.
                self.terms.events.report_more(batch.request, batch.count)
                return self._give_back(batch, now_ns, self.terms.retry_ns(now_ns))
            if batch.by_digest:
                return self._give_back(batch, now_ns, 0)
        if not batch.by_digest:
            # Whether the server has kept its text depends on why it was refused.
            self.loaded[batch.request] = False
            self.rejected[batch.request] = True
        if batch.request != MEMBERSHIP or self.membership.is_new(error.text, error.length):
            self.terms.events.report(batch.request, batch.count,
                                     batch.entries[0].number if batch.count else NONE,
                                     error.text, error.length)
        self._see_refusal(error)
        return self._give_back(batch, now_ns, self.terms.retry_ns(now_ns))

    cdef void _see_refusal(self, Value *error) noexcept nogil:
        """Keep what says that this server serves no election."""
        cdef Value said = error[0]
        _leave_out_place(&said)
        if _is_for_all(&said) and not self.refused:
            self.refused = True
            self.refusal_bytes = min(said.length, <size_t>MAX_REFUSAL_BYTES)
            memcpy(self.refusal, said.text, self.refusal_bytes)

    cdef int _give_back(self, ScriptBatch *batch, int64_t now_ns, int64_t again_ns) except -1 nogil:
        """Nothing is known of the batch's outcome: ask again at `again_ns`, or at once if 0."""
        cdef Asked *entry
        cdef uint32_t i
        if batch.request == MEMBERSHIP:
            self.membership.failed(again_ns)
        for i in range(batch.count):
            entry = &batch.entries[i]
            if self._is_void(entry):
                continue
            if batch.request == ACQUIRE and again_ns == 0:
                self.terms.not_acquired(entry.number, 0)
            elif batch.request == ACQUIRE:
                self.terms.acquire_refused(entry.number, now_ns)
            elif batch.request == REFRESH:
                self.terms.not_refreshed(entry.number, now_ns, again_ns)
            elif again_ns == 0 or self.refused:
                self.terms.not_released(entry.number)
            else:
                # Refused, and reported: the lease ends by itself.
                self.terms.not_ended(entry.number)
        return 0

    cdef int _malformed(self, const char *what) noexcept nogil:
        self.parse_error = what
        return 1

    cdef bint _is_void(self, Asked *entry) noexcept nogil:
        if self.terms.slots.at(entry.number).serial == entry.serial:
            return False
        self.terms.events.tally.stale_replies += 1
        return True
