# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""Fuzzes the code that acts on replies: two cores get the same bytes, cut into different pieces.

An input has two bytes of options. The steps follow, with a byte for each: its low half is the kind
(see `Step`), and its high half is a parameter. If a step has bytes of a server, the next byte is
their number. The fuzzer checks:

    * Both cores get the same bytes at the same time, and so reach the same state.
    * The invariants of a core hold after each step: see soundness.pyx.
    * If the server works again, a core leads again, and can be stopped.

An option makes the server a node of a cluster, and the only one with a lane. It redirects to itself
and to others, and serves nothing at times. Who takes the events reads the slot map as well.
"""

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport malloc
from libc.string cimport memcpy

from types import SimpleNamespace

from faults cimport fail, hide, show
from multielect._core.core cimport Core, Turn
from multielect._core.lane cimport Lane
from multielect._core.resp cimport Incoming
from multielect._core.script_batch cimport ScriptBatch
from multielect._core.slot_map cimport SLOTS
from multielect._core.slots cimport NONE, Slot
from multielect._core.states cimport (ACQUIRE, ELIGIBLE, INELIGIBLE, LEADING, MEMBERSHIP, REFRESH,
                                      STANDBY)
from soundness cimport digest, look_at

cdef enum Step:
    TURN = 0                # send what is due
    WAIT = 1                # time passes
    ANSWER = 2              # the server answers as it should
    SAY = 3                 # the server sends the bytes that follow
    ANNOUNCE = 4            # the same, on the connection for announcements
    LOSE = 5                # the connection is lost, and there is a new one
    PUBLISH = 6             # a well-formed announcement
    RESIGN = 7
    CAMPAIGN = 8
    REMOVE = 9              # or add, if the election is not there
    ASSIGN = 10
    DRAINED = 11
    RETIRE = 12
    CALL = 13               # poll the membership
    TAKE = 14               # take some of the events that wait
    SENT = 15               # the socket takes some of the bytes that wait

cdef enum:
    MAX_ELECTIONS = 8
    MAX_STEPS = 48
    MAX_ROUNDS = 64
    MAX_REPLY = 4096

cdef int64_t MS = 1_000_000
cdef int64_t BEGIN_NS = 1_000_000_000
cdef int64_t TTL_NS = 1_000_000_000
cdef int64_t MARGIN_NS = 100_000_000
cdef int64_t[16] WAITS_MS
WAITS_MS[:] = [0, 1, 2, 5, 10, 20, 50, 100, 200, 335, 500, 700, 900, 1000, 5000, 90_000_000]

ME, OTHER, BARE = b"me/1", b"you/1", b"go"
SCRIPTS = SimpleNamespace(**{
    name: SimpleNamespace(body=name.upper().encode(), sha=name.encode())
    for name in ("acquire", "refresh", "release", "grant", "membership")
})
KEY_PREFIXES = (b"fuzz:{0}:", b"fuzz:{1}:")


def _announcement(how):
    """Return a well-formed announcement of one of four kinds, for RESP3 or RESP2."""
    form = b"*3" if how & 8 else b">3"
    if how & 7 == 7:
        return form + b"\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"
    words = (b"5:you/1", b"5:/me/15:grant", b"5:/me/15:claim5:you/1", b"1:/")[how & 3]
    for number in range(MAX_ELECTIONS):
        if how & 3 != 3 and (how & 4 or number % 2):
            words += b"18:fuzz:{%d}:k%d:leader" % (number % 2, number)
    return form + b"\r\n$7\r\nmessage\r\n$1\r\nc\r\n$%d\r\n%b\r\n" % (len(words), words)


# The errors of a node of a cluster.
cdef tuple REDIRECTIONS = (
    b"-MOVED 1 me:1\r\n", b"-MOVED 1 you:1\r\n", b"-ASK 1 :1\r\n", b"-ASK 1 you:1\r\n",
    b"-TRYAGAIN no\r\n", b"-CLUSTERDOWN no\r\n", b"-NOSCRIPT none\r\n", b"-ERR no\r\n",
)
cdef list ANNOUNCEMENTS = [_announcement(how) for how in range(16)]


cdef class Play:
    """Two cores, and their clock."""

    cdef Core whole
    cdef Core cut
    cdef int64_t now_ns
    cdef int64_t epoch
    cdef uint64_t chance
    cdef uint8_t elections
    cdef uint32_t max_leases
    cdef bint stopped
    cdef char[4096] reply
    cdef size_t reply_length

    def __cinit__(self, uint8_t manner, uint8_t size):
        cdef uint32_t i
        self.now_ns = BEGIN_NS
        self.chance = size | 1
        self.elections = 1 + size % MAX_ELECTIONS
        self.max_leases = 2 if manner & 4 else NONE
        self.whole = self.make(manner)
        self.cut = self.make(manner)
        for i in range(self.elections):
            self.add(self.whole, i)
            self.add(self.cut, i)
        for core in (self.whole, self.cut):
            core.elections.start()
            self.begin(core)

    cdef int begin(self, Core core) except -1:
        core.lane(0).prepare(SCRIPTS)
        core.connect(0)
        return 0

    cdef Core make(self, uint8_t manner):
        cdef Core core = Core(
            now_ns=BEGIN_NS, ttl_ns=TTL_NS, margin_ns=MARGIN_NS, key_prefixes=KEY_PREFIXES,
            separator=b":",
            holder=ME, channel=b"fuzz:released", epochs=b"counter",
            max_leases=self.max_leases, batch_keys=250 if manner & 8 else 3, seed=1,
            is_cluster=bool(manner & 64))
        core.name_lane(0, b"me:1")
        core.terms.balanced = bool(manner & 1)
        core.terms.notifies_drains = bool(manner & 2)
        core.terms.drain_ns = 300 * MS
        core.terms.move_ns = 100 * MS if manner & 16 else 0
        core.membership.set_words(<char *>malloc(1), 0, 0)
        core.terms.initial_eligibility = <uint8_t>(INELIGIBLE if manner & 32 else ELIGIBLE)
        return core

    cdef int add(self, Core core, uint32_t place) except -1:
        cdef char[2] key
        cdef uint32_t number
        key[0] = c'k'
        key[1] = <char>(c'0' + place)
        if core.terms.slots.find(key, 2) == NONE:
            core.terms.slots.insert(key, 2, place % 2, &number)
            core.terms.add(number)
        return 0

    cdef uint32_t find(self, Core core, uint32_t place):
        cdef char[2] key
        key[0] = c'k'
        key[1] = <char>(c'0' + place % MAX_ELECTIONS)
        return core.terms.slots.find(key, 2)

    # ---- steps

    cdef size_t step(self, const uint8_t *data, size_t left) except 0:
        """Do one step. Returns how many bytes of the input it used."""
        cdef uint8_t what = data[0] & 15
        cdef uint8_t how = data[0] >> 4
        cdef size_t length = 0
        if what in (SAY, ANNOUNCE):
            if left < 2:
                return left
            length = min(<size_t>data[1], left - 2)
            self.say(<const char *>data + 2, length, what == ANNOUNCE)
            return 2 + length
        if what == WAIT:
            self.now_ns += WAITS_MS[how] * MS
        elif what == ANSWER:
            self.answer(how)
            self.say(self.reply, self.reply_length, False)
        elif what == PUBLISH:
            self.publish(how)
            self.say(self.reply, self.reply_length, how & 8 != 0)
        else:
            self.act(self.whole, what, how)
            self.act(self.cut, what, how)
        return 1

    cdef int act(self, Core core, uint8_t what, uint8_t how) except -1:
        cdef Turn turn
        cdef Lane lane = core.lane(0)
        cdef uint32_t number = self.find(core, how)
        if what == TURN:
            core.turn(self.now_ns, &turn)
        elif what == LOSE:
            self.lose(core)
        elif what == RESIGN and number != NONE:
            core.terms.resign(number, self.now_ns)
        elif what == CAMPAIGN and number != NONE:
            core.terms.campaign(number)
        elif what == REMOVE:
            if number != NONE:
                core.terms.remove(number, self.now_ns)
            else:
                self.add(core, how % MAX_ELECTIONS)
        elif what == ASSIGN and number != NONE:
            self.assign(core, number, how)
        elif what == DRAINED and number != NONE:
            core.terms.finish_drain(number, self.now_ns)
        elif what == RETIRE:
            # Rarely, because little happens to a core after that.
            if how == 15:
                core.terms.retire(False, self.now_ns + 200 * MS, self.now_ns)
            elif how == 14:
                core.terms.retire(True, self.now_ns, self.now_ns)
            elif how == 13:
                core.terms.stop()
                self.stopped = True
            elif number != NONE:
                core.terms.probe(number)
        elif what == CALL:
            core.membership.period_ns = 160 * MS
            core.membership.poll_by(self.now_ns + WAITS_MS[how % 8] * MS)
            if how >= 12 and core.redirects.is_cluster:
                lane.is_to_listen = True
        elif what == TAKE:
            core.terms.events.taken_to(core.terms.events.start + min(
                <uint32_t>how + 1, core.terms.events.count - core.terms.events.start))
            if core.terms.events.count == 0:
                core.terms.reap()
            core.terms.events.report_count = 0
            core.terms.events.clock_jump_count = 0
            if core.redirects.wants_slots:
                self.read_map(core)
        elif what == SENT:
            lane.writer.outgoing.drop(lane.writer.outgoing.waiting() * (how + 1) // 16)
        return 0

    cdef int assign(self, Core core, uint32_t number, uint8_t how) except -1:
        cdef uint32_t successor = NONE
        cdef uint8_t eligibility = (ELIGIBLE, STANDBY, INELIGIBLE, STANDBY)[how >> 2]
        if eligibility != ELIGIBLE and how & 1:
            core.terms.holders.intern(OTHER, len(OTHER), &successor)
        core.terms.assign(number, eligibility, successor, self.now_ns)
        core.terms.holders.drop(successor)
        return 0

    cdef int lose(self, Core core) except -1:
        self.reveal(core.lane(0).incoming)
        self.reveal(core.lane(0).announcements)
        core.disconnect(0, self.now_ns)
        core.connect(0)
        return 0

    cdef int read_map(self, Core core) except -1:
        core.redirects.wants_slots = False
        core._map_slots(0, SLOTS - 1, 0)
        return 0

    # ---- bytes of the server

    cdef int say(self, const char *data, size_t length, bint listens) except -1:
        cdef size_t at = 0, piece
        cdef bint made_no_sense, too
        if length == 0:
            return 0
        made_no_sense = self.hear(self.whole, data, length, listens)
        too = False
        while at < length and not too:
            self.chance = (self.chance * <uint64_t>6364136223846793005
                           + <uint64_t>1442695040888963407)
            piece = min(1 + (self.chance >> 33) % 16, length - at)
            too = self.hear(self.cut, data + at, piece, listens)
            at += piece
        if made_no_sense != too:
            fail(b"cut differently, the bytes are malformed for one core only")
        if made_no_sense:
            if self.whole.lane(0).replies.parse_error == NULL:
                fail(b"bytes are malformed, and there is no parse error")
            if (self.whole.lane(0).replies.parse_error
                    != self.cut.lane(0).replies.parse_error):
                fail(b"cut differently, the bytes give another parse error")
            self.lose(self.whole)
            self.lose(self.cut)
        return 0

    cdef bint hear(self, Core core, const char *data, size_t length, bint listens) except -1:
        cdef Lane lane = core.lane(0)
        cdef Incoming incoming = lane.announcements if listens else lane.incoming
        if listens:
            # This call parses and acts in one step, so the rest of the buffer cannot be hidden.
            self.reveal(incoming)
            return core.hear(0, data, length, self.now_ns)
        self.reveal(incoming)
        incoming.feed(data, length)
        hide(incoming.data + incoming.end, incoming.capacity - incoming.end)
        try:
            return lane.act(self.now_ns)
        finally:
            if core.redirects.has_moved:
                core._act_on_map()

    cdef int reveal(self, Incoming incoming) except -1:
        if incoming.data != NULL:
            show(incoming.data, incoming.capacity)
        return 0

    cdef int put(self, const char *form, int64_t number) except -1:
        self.reply_length += snprintf(self.reply + self.reply_length,
                                      MAX_REPLY - self.reply_length, form, number)
        return 0

    cdef int put_netstring(self, const char *text) except -1:
        self.reply_length += snprintf(self.reply + self.reply_length,
                                      MAX_REPLY - self.reply_length, b"%zu:%s", len(text), text)
        return 0

    cdef int answer(self, uint8_t how) except -1:
        """Answer the oldest batch, as a server does or with an error that servers send."""
        cdef Lane lane = self.whole.lane(0)
        cdef ScriptBatch *batch = lane._batch(0)
        self.reply_length = 0
        if lane.in_flight == 0:
            return 0
        if batch.asking == 2:
            self.put(b"+OK\r\n", 0)
        if how >= 8 and self.whole.redirects.is_cluster:
            self.put(REDIRECTIONS[how - 8], 0)
        elif how >= 12:
            self.put((b"-OOM full\r\n", b"-NOSCRIPT none\r\n", b"-READONLY replica\r\n",
                      b"-ERR no\r\n")[how - 12], 0)
        elif batch.request == MEMBERSHIP:
            self.put(b"$25\r\n13:17000000000001:14:xxxx\r\n", 0)
        elif batch.request == ACQUIRE:
            self.answer_acquire(batch, how)
        elif batch.request == REFRESH:
            self.answer_refresh(batch, how)
        else:
            self.answer_release(batch, how)
        return 0

    cdef int answer_release(self, ScriptBatch *batch, uint8_t how) except -1:
        self.put(b"*3\r\n:1700000000000\r\n", 0)
        if how & 1:
            # Another client raised the counter.
            self.epoch += 1
            self.put(b"*2\r\n:1\r\n", 0)
            self.put(b":%ld\r\n", self.epoch)
        else:
            self.put(b"*0\r\n", 0)
        self.put(b"*%ld\r\n", (2 if how & 2 else 0) + (2 if how & 4 else 0))
        if how & 2:
            self.put(b":%ld\r\n-NOPERM del\r\n", batch.count)
        if how & 4:
            self.put(b":0\r\n-NOPERM publish\r\n", 0)
        return 0

    cdef int answer_acquire(self, ScriptBatch *batch, uint8_t how) except -1:
        cdef uint32_t i
        cdef bint is_untold = batch.claims and how == 3
        self.put(b"*%ld\r\n:1700000000000\r\n", 2 + batch.count + is_untold)
        self.put(b"*2\r\n$5\r\nyou/1\r\n$2\r\ngo\r\n" if how else b"*0\r\n", 0)
        for i in range(batch.count):
            self.epoch += 1
            if how == 0 or (how & 3 == 1 and i % 2):
                self.put(b":%ld\r\n", self.epoch)
            elif how & 4 and i == 0:
                self.put(b"-WRONGTYPE bad\r\n", 0)
            else:
                # With 11, the lease has no TTL.
                self.put(b":-%ld\r\n", (86400001 if how == 11 else 300 * how) * 256
                         + 1 + (how >> 3))
        if is_untold:
            self.put(b"-NOPERM publish\r\n", 0)
        return 0

    cdef int answer_refresh(self, ScriptBatch *batch, uint8_t how) except -1:
        cdef uint32_t i, lost = min(<uint32_t>how & 3, batch.count)
        self.put(b"*3\r\n:1700000000000\r\n*%ld\r\n", lost)
        for i in range(lost):
            self.put(b":%ld\r\n", i + 1)
        if how & 4:
            self.put(b"*2\r\n:%ld\r\n-OOM full\r\n", batch.count)
        else:
            self.put(b"*0\r\n", 0)
        return 0

    cdef int publish(self, uint8_t how) except -1:
        cdef bytes words = ANNOUNCEMENTS[how]
        self.reply_length = len(words)
        memcpy(self.reply, <const char *>words, self.reply_length)
        return 0

    cdef int compare(self) except -1:
        look_at(self.cut, self.now_ns + TTL_NS - MARGIN_NS)
        if digest(self.whole) != digest(self.cut):
            fail(b"cut differently, the bytes lead to another state")
        return 0

    # ---- the end

    cdef int recover(self) except -1:
        """Let the server work again. The core must lead all eligible elections."""
        cdef int _i
        self.lose(self.whole)
        self.read_map(self.whole)
        for _i in range(MAX_ROUNDS):
            self.serve()
            if self.is_settled():
                return 0
            self.now_ns += 200 * MS
        fail(b"an eligible election is not led again")

    cdef bint is_settled(self) except -1:
        cdef uint32_t number, wanted = 0, led = 0
        cdef Slot *slot
        if self.stopped or self.whole.terms.retiring:
            return True
        for number in range(self.whole.terms.slots.used):
            slot = self.whole.terms.slots.at(number)
            if slot.key != NULL and not slot.forgotten:
                wanted += slot.eligibility == ELIGIBLE
                led += slot.state == LEADING and slot.eligibility == ELIGIBLE
        # A core at its cap may lead elections that were granted to it in place of eligible ones.
        return led == wanted or self.whole.terms.population[<int>LEADING] == self.max_leases

    cdef int end(self) except -1:
        cdef Turn turn
        cdef int _i
        self.whole.terms.stop()
        for _i in range(MAX_ROUNDS):
            self.serve()
            self.whole.read(&turn, self.now_ns)
            if turn.is_quiet:
                look_at(self.whole, self.now_ns + TTL_NS - MARGIN_NS)
                return 0
            self.now_ns += 200 * MS
        fail(b"the core does not stop")

    cdef int serve(self) except -1:
        """Do one turn, and answer all its batches."""
        cdef Turn turn
        cdef Lane lane = self.whole.lane(0)
        cdef int _i
        self.whole.turn(self.now_ns, &turn)
        for _i in range(MAX_ROUNDS):
            if lane.in_flight == 0:
                break
            self.answer(0)
            if self.hear(self.whole, self.reply, self.reply_length, False):
                fail(b"a well-formed reply counts as malformed")
        lane.writer.outgoing.drop(lane.writer.outgoing.waiting())
        return 0

    cdef int close(self) except -1:
        for core in (self.whole, self.cut):
            self.reveal((<Core>core).lane(0).incoming)
            self.reveal((<Core>core).lane(0).announcements)
        return 0


cdef int play(const uint8_t *data, size_t size) except -1:
    cdef Play game = Play(data[0], data[1])
    cdef size_t at = 2
    cdef int steps = 0
    while at < size and steps < MAX_STEPS:
        at += game.step(data + at, size - at)
        look_at(game.whole, game.now_ns + TTL_NS - MARGIN_NS)
        steps += 1
    game.compare()
    game.recover()
    game.end()
    game.close()
    return 0


cdef int one(const uint8_t *data, size_t size) noexcept with gil:
    if size < 3:
        return 0
    try:
        play(data, size)
    except BaseException:
        import traceback
        traceback.print_exc()
        fail(b"an exception")
    return 0


TARGET = PyCapsule_New(<void *>one, NULL, NULL)
