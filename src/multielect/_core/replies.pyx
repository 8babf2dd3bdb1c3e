# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""Reads a server's replies to batches, and passes the outcomes on to the elections.

Rules of this file:
    * A reply applies to an election only if the slot's serial has not changed since the batch was
      packed.
    * A malformed reply is an error of the connection: `answer` returns 1, and `parse_error` says
      what was wrong. If the server refuses one election, that is an error of that election.
    * A server that refuses all requests, or whose clock jumps, affects the elections of its own
      lane only.
    * No function here needs the GIL. None raises but for lack of memory, and none returns a value
      that Cython would have to check with the interpreter.
"""

from libc.string cimport memchr, memcmp, memcpy

from .holders cimport MAX_NAME_BYTES
from .queues cimport NO_LANE
from .resp cimport read_value
from .script_batch cimport MAX_ENTRIES
from .slots cimport NONE, hash_of
from .states cimport ACQUIRE, CLAIM, ENDLESS, MEMBERSHIP, REFRESH, UNENDED, WAKE_UP

# A claim is repeated after this time, however long leases last.
cdef int64_t MAX_CLAIM_NS = 5_000_000_000

# How long a server that serves nothing is left alone.
cdef int64_t HOLD_NS = 50_000_000

cdef enum:
    WHOLE = 1
    MAX_WAIT_MS = 86_400_000            # the longest remaining time that acquire.lua reports
    NO_END_MS = 86_400_001              # what it reports for a lease without an end
    LATEST_MS = 9_000_000_000_000       # in the year 2255; in ns it still fits into 63 bits

cdef enum:
    EXTENDED = 0
    NOT_OURS = 1
    FAILED = 2
    MOVED = 3


cdef inline bint _starts(Value *error, const char *word, size_t length) noexcept nogil:
    return error.length >= length and memcmp(error.text, word, length) == 0


cdef inline void _skip_place(Value *error) noexcept nogil:
    """Skip the place in the script, which servers before 7.0 name first: `@user_script: 7: -`."""
    cdef const char *end
    if error.length == 0 or error.text[0] != c'@':
        return
    end = <const char *>memchr(error.text, c'-', error.length)
    if end != NULL:
        error.length -= end + 1 - error.text
        error.text = end + 1


cdef inline bint _concerns_all(Value *error) noexcept nogil:
    """Tell whether the server would refuse all other requests as well."""
    return (_starts(error, b"READONLY", 8) or _starts(error, b"MASTERDOWN", 10)  # of a replica
            or _starts(error, b"NOAUTH", 6)
            or _starts(error, b"MOVED", 5) or _starts(error, b"CROSSSLOT", 9)    # of a cluster
            or _starts(error, b"ASK ", 4) or _starts(error, b"CLUSTERDOWN", 11))


cdef inline bint _read_place(Cursor *frame, int64_t least, int64_t most,
                             uint32_t *place) noexcept nogil:
    """Read the number of a key in a batch, from `least` to `most`; False if it is malformed."""
    cdef Value value
    if (read_value(frame, &value) != WHOLE or value.kind != c':'
            or not least <= value.number <= most):
        return False
    place[0] = <uint32_t>value.number
    return True


cdef class Replies:
    """Reads the replies of one lane's server to its batches."""

    def __cinit__(self, uint32_t lane, Terms terms, MembershipPoll membership, BatchWriter writer,
                  Redirects redirects):
        self.lane = lane
        self.terms = terms
        self.membership = membership
        self.writer = writer
        self.redirects = redirects
        self.server_clock = ServerClock(terms.margin_ns)

    cdef int answer(self, ScriptBatch *batch, Cursor *frame, int64_t now_ns) except -1 nogil:
        """Act on the reply to a batch. Returns 1 if the reply is malformed."""
        cdef Value head
        cdef Value time
        if read_value(frame, &head) != WHOLE:
            return self.malformed(b"the frame is empty")
        if head.kind == c'-':
            if self.redirects.is_cluster and self._redirected(batch, &head, now_ns):
                if not batch.by_digest:
                    # The script did not run, so the server has not kept it.
                    self.writer.loaded[batch.request] = False
                return 0
            return self._refused(batch, &head, now_ns)
        self.is_held = False
        if not batch.by_digest:
            self.writer.rejected[batch.request] = False
        if batch.request == MEMBERSHIP:
            return self._answer_membership(&head)
        if head.kind != c'*' or head.number < 1:
            return self.malformed(b"a script's reply is no array")
        if read_value(frame, &time) != WHOLE or time.kind != c':':
            return self.malformed(b"the server's time is missing")
        if not 0 <= time.number <= LATEST_MS:
            return self.malformed(b"the server's time is out of range")
        # First, as leases that were extended before a jump of the clock end earlier.
        self._check_clock(batch, time.number, now_ns)
        if batch.request == ACQUIRE:
            # An error of the claims follows the outcomes.
            if not 0 <= head.number - 2 - <int64_t>batch.count <= batch.claims:
                return self.malformed(b"an acquire's reply has the wrong number of outcomes")
            return self._answer_acquire(batch, frame, head.number > 2 + <int64_t>batch.count,
                                        now_ns)
        if head.number != 3:
            return self.malformed(b"a script's reply has the wrong number of elements")
        if batch.request == REFRESH:
            return self._answer_refresh(batch, frame, now_ns)
        return self._answer_release(batch, frame)

    cdef int _check_clock(self, ScriptBatch *batch, int64_t server_ms,
                          int64_t now_ns) except -1 nogil:
        cdef int64_t jump_ns = self.server_clock.observe(server_ms, batch.sent_ns, now_ns)
        cdef int64_t ended = 0
        if jump_ns == 0:
            return 0
        if jump_ns > 0:
            ended = self.terms.shorten_leases(self.lane, jump_ns, now_ns)
            # The leases of other nodes end earlier as well.
            self.terms.acquire_all(self.lane)
        self.terms.events.clock_jumped(self.lane, jump_ns, ended)
        return 0

    cdef int _answer_membership(self, Value *head) except -1 nogil:
        if head.kind != c'$' or head.number < 0:
            return self.malformed(b"the reply to a membership poll is no string")
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
        # Each election that refers to a leader has counted a use of its own by now.
        for i in range(others.count):
            self.terms.holders.drop(others.places[i])
        if outcome or not batch.claims or others.count == 0:
            return outcome
        if not has_error:
            self.claim_refused = 0
        elif read_value(frame, &error) != WHOLE or error.kind != c'-':
            return self.malformed(b"claims failed without an error")
        else:
            self._report_once(CLAIM, &self.claim_refused, others.count, &error)
        return 0

    cdef void _report_once(self, uint8_t what, uint32_t *told, uint32_t elections,
                           Value *error) noexcept nogil:
        """Report a refusal that repeats with each batch once. `told` is its hash."""
        cdef uint32_t words = hash_of(error.text, error.length, 0) | 1
        if words != told[0]:
            told[0] = words
            self.terms.events.report(self.lane, what, elections, NONE, error.text, error.length)

    cdef int _read_leaders(self, ScriptBatch *batch, Cursor *frame,
                           OtherLeaders *others) except -1 nogil:
        cdef Value head
        cdef Value name
        cdef int64_t _i
        if (read_value(frame, &head) != WHOLE or head.kind != c'*' or head.number < 0
                or head.number > batch.count):
            return self.malformed(b"an acquire's reply has no list of holders")
        for _i in range(head.number):
            if read_value(frame, &name) != WHOLE or name.kind != c'$' or name.number < 0:
                return self.malformed(b"a holder's name is missing")
            if name.length > MAX_NAME_BYTES:
                return self.malformed(b"a holder's name is too long")
            self.terms.holders.intern(name.text, name.length, &others.places[others.count])
            self.terms.holders.count_named(others.places[others.count])
            # A holder without an incarnation is a node that announces no release.
            others.silent[others.count] = memchr(name.text, c'/', name.length) == NULL
            others.count += 1
        return 0

    cdef int _read_outcomes(self, ScriptBatch *batch, Cursor *frame, OtherLeaders *others,
                            int64_t now_ns) except -1 nogil:
        cdef Value value
        cdef BatchEntry *entry
        cdef int64_t jitter_ns = 1_000_000 + self.terms.random_below(self.terms.jitter_ns)
        cdef int64_t other, remaining_ms, again_ns
        cdef uint32_t i
        for i in range(batch.count):
            entry = &batch.entries[i]
            if read_value(frame, &value) != WHOLE:
                return self.malformed(b"an outcome is missing")
            if value.kind == c':' and value.number > 0:
                if not self.is_void(entry):
                    self.terms.won(entry.number, value.number, batch.floors, batch.sent_ns, now_ns)
            elif value.kind == c'-':
                self.terms.events.report(self.lane, ACQUIRE, 1, entry.number, value.text,
                                         value.length)
                self._keep_refusal(&value)
                if not self.is_void(entry):
                    self.terms.acquire_refused(entry.number, now_ns)
            elif value.kind != c':' or value.number == 0:
                return self.malformed(b"an outcome is neither a number nor an error")
            elif not self.is_void(entry):
                other = (-value.number) % 256 - 1
                remaining_ms = (-value.number) // 256
                if not 0 <= other < others.count:
                    return self.malformed(b"an outcome names a holder that is not listed")
                if remaining_ms == NO_END_MS:
                    self._report_endless(entry.number, others.places[other])
                elif remaining_ms > MAX_WAIT_MS:
                    return self.malformed(b"a lease's remaining time is out of range")
                else:
                    self.terms.slots.at(entry.number).endless = 0
                # A lease that seems to last long may end sooner: if the server's clock was set
                # back, the leader's next refresh shortens it.
                again_ns = now_ns + min(remaining_ms * 1_000_000, self.terms.ttl_ns) + jitter_ns
                # The claim may have come before the leader knew its successor, or while the lease
                # was on its way from one node to another.
                if others.silent[other] or batch.claims:
                    again_ns = min(again_ns, now_ns + self.terms.refresh_ns)
                if batch.claims:
                    again_ns = min(again_ns, now_ns + MAX_CLAIM_NS)
                self.terms.contested(entry.number, others.places[other], batch.claims,
                                     again_ns)
        return 0

    cdef void _report_endless(self, uint32_t number, uint32_t holder) noexcept nogil:
        cdef char[MAX_NAME_BYTES] name
        if self.terms.is_first_seen_endless(number, holder):
            self.terms.events.report(self.lane, ENDLESS, 1, number, name,
                                     self.terms.holders.copy(holder, name, MAX_NAME_BYTES))

    cdef int _answer_refresh(self, ScriptBatch *batch, Cursor *frame,
                             int64_t now_ns) except -1 nogil:
        cdef uint8_t marks[MAX_ENTRIES]
        cdef Value value
        cdef uint32_t place
        cdef BatchEntry *entry
        cdef int64_t _i
        cdef uint32_t i
        for i in range(batch.count):
            marks[i] = 0
        if read_value(frame, &value) != WHOLE or value.kind != c'*' or value.number < 0:
            return self.malformed(b"a refresh's reply has no list of lost leases")
        for _i in range(value.number):
            if not _read_place(frame, 1, batch.count, &place):
                return self.malformed(b"a refresh's reply names a key that was not sent")
            marks[place - 1] = NOT_OURS
        if self._read_failures(batch, frame, marks):
            return 1
        for i in range(batch.count):
            entry = &batch.entries[i]
            if self.is_void(entry):
                continue
            if marks[i] == EXTENDED:
                self.terms.refreshed(entry.number, batch.sent_ns, now_ns)
            elif marks[i] == NOT_OURS:
                self.terms.lease_lost(entry.number, now_ns)
            else:
                self.terms.refresh_failed(entry.number, now_ns, self.terms.retry_ns(now_ns))
        return 0

    cdef int _read_failures(self, ScriptBatch *batch, Cursor *frame,
                            uint8_t *marks) except -1 nogil:
        """Mark the elections for which the script failed, and report the errors."""
        cdef Value value
        cdef uint32_t place
        cdef int64_t _i
        cdef bint is_refresh = batch.request == REFRESH
        if (read_value(frame, &value) != WHOLE or value.kind != c'*' or value.number < 0
                or value.number % 2):
            return self.malformed(b"a script's reply has no list of failed keys")
        if not is_refresh and value.number == 0:
            self.wake_up_refused = 0
        for _i in range(value.number // 2):
            # Place 0 stands for the wake-up, which could not be published.
            if not _read_place(frame, is_refresh, batch.count, &place):
                return self.malformed(b"a script's reply names a key that was not sent")
            if read_value(frame, &value) != WHOLE or value.kind != c'-':
                return self.malformed(b"a key failed without an error")
            if place == 0:
                self._report_once(WAKE_UP, &self.wake_up_refused, batch.count, &value)
                continue
            marks[place - 1] = FAILED
            # A replica before Redis 7.0 runs the script and refuses each key.
            self._keep_refusal(&value)
            self.terms.events.report(self.lane, REFRESH if is_refresh else UNENDED, 1,
                                     batch.entries[place - 1].number,
                                     value.text, value.length)
        return 0

    cdef int _answer_release(self, ScriptBatch *batch, Cursor *frame) except -1 nogil:
        cdef uint8_t marks[MAX_ENTRIES]
        cdef int64_t epochs[MAX_ENTRIES]
        cdef Value value
        cdef uint32_t place
        cdef BatchEntry *entry
        cdef int64_t _i
        cdef uint32_t i
        for i in range(batch.count):
            marks[i] = 0
        if (read_value(frame, &value) != WHOLE or value.kind != c'*' or value.number < 0
                or value.number % 2):
            return self.malformed(b"a release's reply has no list of other epochs")
        for _i in range(value.number // 2):
            if not _read_place(frame, 1, batch.count, &place):
                return self.malformed(b"a release's reply names a key that was not sent")
            if read_value(frame, &value) != WHOLE or value.kind != c':':
                return self.malformed(b"a release's reply has no epoch for a key")
            marks[place - 1] = MOVED
            epochs[place - 1] = value.number
        if self._read_failures(batch, frame, marks):
            return 1
        for i in range(batch.count):
            entry = &batch.entries[i]
            if self.is_void(entry):
                continue
            if marks[i] == MOVED:
                self.terms.epoch_moved(entry.number, epochs[i])
            elif marks[i] == FAILED:
                # The error is reported already. The lease will expire.
                self.terms.release_refused(entry.number)
            else:
                # The lease is released, or another node holds it. This node has none either way.
                self.terms.released(entry.number)
        return 0

    cdef int _refused(self, ScriptBatch *batch, Value *error, int64_t now_ns) except -1 nogil:
        """Act on an error that the server returned for the whole batch."""
        if _starts(error, b"NOSCRIPT", 8):
            self.writer.loaded[batch.request] = False
            # Of a batch that brought its script this would be an endless loop, so it is not sent
            # again at once.
            if batch.by_digest and self.writer.rejected[batch.request]:
                # It was sent behind a batch that brought the script and was refused.
                self.terms.events.report_more(self.lane, batch.request, batch.count)
                return self.give_back(batch, now_ns, self.terms.retry_ns(now_ns))
            if batch.asking and batch.by_digest and self.redirects.put(self.lane, batch):
                # The source said ASK, and this answer has used up ASKING.
                return 0
            if batch.by_digest:
                return self.give_back(batch, now_ns, 0)
        if not batch.by_digest:
            # The reason of the refusal decides whether the server has kept the script.
            self.writer.loaded[batch.request] = False
            self.writer.rejected[batch.request] = True
        if batch.request != MEMBERSHIP or self.membership.is_new(error.text, error.length):
            self.terms.events.report(self.lane, batch.request, batch.count,
                                     batch.entries[0].number if batch.count else NONE,
                                     error.text, error.length)
        self._keep_refusal(error)
        return self.give_back(batch, now_ns, self.terms.retry_ns(now_ns))

    # ---- clusters

    cdef int _redirected(self, ScriptBatch *batch, Value *error, int64_t now_ns) except -1 nogil:
        """Act on what only a node of a cluster answers. Returns 0 if it is something else."""
        cdef uint32_t bucket
        if _starts(error, b"CLUSTERDOWN", 11) or _starts(error, b"LOADING", 7) \
                or _starts(error, b"MASTERDOWN", 10):
            return self._hold(batch, error, now_ns)
        # Whatever else it says, it serves again.
        self.is_held = False
        if _starts(error, b"TRYAGAIN", 8):
            return self._split(batch, now_ns)
        if not _starts(error, b"MOVED ", 6) and not _starts(error, b"ASK ", 4):
            return 0
        if batch.asking:
            # The migration was given up, or it has ended: the source knows. Two nodes that ask for
            # each other would have this core ask without end.
            self.give_back(batch, now_ns, self.terms.retry_ns(now_ns))
            return 1
        if _starts(error, b"ASK ", 4):
            return self._asked_elsewhere(batch, error, now_ns)
        if batch.request == MEMBERSHIP:
            self.redirects.moved(self.lane, self.redirects.fleet_slot, error)
        else:
            bucket = self.terms.slots.at(batch.entries[0].number).bucket
            self.redirects.moved(self.lane, self.redirects.slot_map.slot_of[bucket], error)
        self.give_back(batch, now_ns, 0)
        return 1

    cdef int asking_answered(self, ScriptBatch *batch, Cursor *frame) noexcept nogil:
        """Act on the reply to ASKING. If it is refused, the script behind it is sent back."""
        cdef Value said
        if read_value(frame, &said) != WHOLE or said.kind != c'-':
            self.asking_refused = 0
        else:
            self._report_once(batch.request, &self.asking_refused, batch.count, &said)
        return 0

    cdef int _asked_elsewhere(self, ScriptBatch *batch, Value *error,
                              int64_t now_ns) except -1 nogil:
        """Ask the node that imports the slot: its keys have left this one."""
        cdef uint32_t lane
        if batch.count != 1:
            return self._split(batch, now_ns)
        lane = self.redirects.asking_lane(self.lane, error)
        if lane == NO_LANE or not self.redirects.put(lane, batch):
            self.give_back(batch, now_ns, self.terms.retry_ns(now_ns))
        return 1

    cdef int _split(self, ScriptBatch *batch, int64_t now_ns) except -1 nogil:
        """Some keys of the batch are at another node: ask about its elections one by one."""
        if batch.count <= 1:
            # The keys of one election are at two nodes. They will be at one soon.
            self.give_back(batch, now_ns, self.terms.retry_ns(now_ns))
            return 1
        # Now and then a whole batch is tried: the migration may have ended.
        self.redirects.split_until_ns[
            self.terms.slots.at(batch.entries[0].number).bucket] = now_ns + self.terms.refresh_ns
        self.give_back(batch, now_ns, 0)
        return 1

    cdef int _hold(self, ScriptBatch *batch, Value *error, int64_t now_ns) except -1 nogil:
        """The server serves nothing for now: try it again soon, with one batch."""
        if not self.is_held:
            self.terms.events.report(self.lane, batch.request, batch.count,
                                     batch.entries[0].number if batch.count else NONE,
                                     error.text, error.length)
        self.is_held = True
        self.held_until_ns = now_ns + HOLD_NS
        self.redirects.wants_slots = True
        self.give_back(batch, now_ns, 0)
        return 1

    cdef void _keep_refusal(self, Value *error) noexcept nogil:
        """Keep an error that says that this server serves no election."""
        cdef Value said = error[0]
        _skip_place(&said)
        if _concerns_all(&said) and not self.refused:
            self.refused = True
            self.refusal_bytes = min(said.length, <size_t>MAX_REFUSAL_BYTES)
            memcpy(self.refusal, said.text, self.refusal_bytes)

    cdef int give_back(self, ScriptBatch *batch, int64_t now_ns, int64_t again_ns) except -1 nogil:
        """Repeat the requests of a batch at `again_ns`, or at once if 0.

        The server refused the batch, or its outcome is unknown.
        """
        cdef BatchEntry *entry
        cdef uint32_t i
        if batch.request == MEMBERSHIP:
            self.membership.failed(again_ns)
        for i in range(batch.count):
            entry = &batch.entries[i]
            if self.is_void(entry):
                continue
            if batch.request == ACQUIRE and again_ns == 0:
                self.terms.acquire_failed(entry.number, 0)
            elif batch.request == ACQUIRE:
                self.terms.acquire_refused(entry.number, now_ns)
            elif batch.request == REFRESH:
                self.terms.refresh_failed(entry.number, now_ns, again_ns)
            elif again_ns == 0 or self.refused:
                self.terms.release_unanswered(entry.number)
            else:
                # The refusal is reported already. The lease will expire.
                self.terms.release_refused(entry.number)
        return 0

    cdef int malformed(self, const char *what) noexcept nogil:
        self.parse_error = what
        return 1

    cdef bint is_void(self, BatchEntry *entry) noexcept nogil:
        """Tell whether the election has changed its state since the batch was packed."""
        if self.terms.slots.at(entry.number).serial == entry.serial:
            return False
        self.terms.events.tally.stale_replies += 1
        return True
