# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""The core as the engine sees it: time and bytes in, bytes and events out.

Rules of this file:
    * No sockets, no clock, no randomness but that of the seed: the same calls give the same
      answers.
    * The rules of `elections` hold: any thread may call in, and one mutex guards all.
    * Only one thread, the pump's, may send: the outgoing bytes are its own.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from ..errors import ProtocolError
from .batches cimport MAX_ENTRIES
from .checks cimport CHECKED, check
from .elections cimport Elections, pthread_mutex_lock, pthread_mutex_unlock
from .lateness cimport Counts, as_list
from .resp cimport Cursor, Incoming
from .schedule cimport REAPED
from .slots cimport NONE
from .states cimport ACQUIRING, RELEASING


cdef class Core(Elections):
    """The elections of one node over one connection.

    Args:
        now_ns: the time.
        ttl_ns: how long a lease lasts.
        margin_ns: how long before a lease's end this node stops calling itself leader.
        max_leases: how many elections this node may lead at once.
        batch_keys: elections that one script refreshes.
        seed: where jitter comes from.
        key_prefixes: what precedes a key in Redis, one for each bucket.
        separator: what stands between the bucket's closing brace and the key.
        holder: the value of this node's leases.
        channel: where releases are announced.
        epochs: ``b"time"`` or ``b"counter"``.
        retention_ms: how long epochs are kept in Redis after a term; 0: for ever.
    """

    def __init__(self, *, int64_t now_ns, int64_t ttl_ns, int64_t margin_ns, tuple key_prefixes,
                 bytes separator, bytes holder, bytes channel, bytes epochs=b"time",
                 uint32_t max_leases=NONE, uint32_t batch_keys=MAX_ENTRIES, uint64_t seed=0,
                 int64_t retention_ms=0):
        if not 1 <= batch_keys <= MAX_ENTRIES:
            raise ValueError(f"batch_keys must be from 1 to {MAX_ENTRIES}, not {batch_keys}")
        self.terms = Terms(now_ns=now_ns, ttl_ns=ttl_ns, margin_ns=margin_ns,
                           by_time=epochs == b"time", batch_keys=batch_keys,
                           max_leases=max_leases, seed=seed)
        self.membership = MembershipPoll()
        self.wakeups = Wakeups(self.terms, self.membership, holder=holder, separator=separator)
        self.lane = Lane(self.terms, self.membership, self.wakeups, key_prefixes=key_prefixes,
                         holder=holder, channel=channel, epochs=epochs,
                         retention_ms=retention_ms)
        self.announcements = Incoming()
        self.quiet_ns = -1

    # ---- the connection

    def connection_made(self, scripts) -> None:
        """Begin on a fresh connection, with the scripts that suit its server."""
        self.prepare(scripts)
        self.begin()

    def prepare(self, scripts) -> None:
        """Take the scripts for the connection that `begin` will be called for."""
        self.lane.prepare(scripts)

    def connection_lost(self, int64_t now_ns) -> None:
        """Forget what was in flight. Bytes not yet sent are not sent any more."""
        self.lose(now_ns)

    def tick(self, int64_t now_ns) -> int:
        """Do what is due at `now_ns`, the time read before the bytes packed now are sent.

        Returns when to call it next, if nothing happens before.
        """
        cdef Facts facts
        with nogil:
            self.turn(now_ns, &facts)
        return facts.next_turn_ns

    def give_up(self, int64_t now_ns) -> None:
        """End what terms are left of a node that stops, without a word to the server."""
        with nogil:
            self.finish(now_ns)

    def receive(self, const unsigned char[::1] data, int64_t now_ns) -> None:
        """Take bytes from the server and act on the replies among them.

        Raises:
            ProtocolError: when they are malformed; the connection must be given up.
        """
        cdef int outcome = 0
        if data.shape[0]:
            with nogil:
                outcome = self.take_bytes(<const char *>&data[0], data.shape[0], now_ns)
        if outcome:
            raise ProtocolError(self.parse_error)

    def receive_announcements(self, const unsigned char[::1] data, int64_t now_ns) -> None:
        """Take bytes from a second connection that does nothing but listen.

        Raises:
            ProtocolError: when they are malformed; the connection must be given up.
        """
        cdef int outcome = 0
        if data.shape[0]:
            with nogil:
                outcome = self.hear_bytes(<const char *>&data[0], data.shape[0], now_ns)
        if outcome:
            raise ProtocolError(self.parse_error)

    @property
    def parse_error(self) -> str:
        """What was malformed in what the server sent last."""
        cdef const char *what = self.lane.parse_error
        return f"the server's reply is malformed: {what.decode() if what != NULL else '?'}"

    @property
    def outgoing(self):
        """The bytes that wait to be sent, as a buffer; release views before other calls."""
        return self.lane.outgoing

    @property
    def outgoing_bytes(self) -> int:
        """How many bytes wait to be sent."""
        return self.lane.outgoing.waiting()

    def sent(self, size_t count) -> None:
        """The first `count` of the outgoing bytes have been sent."""
        if count > self.lane.outgoing.waiting():
            raise ValueError("more was sent than there was")
        self.lane.outgoing.drop(count)

    def refresh_all(self) -> None:
        """Have the next ticks refresh every lease, due or not: what a benchmark measures."""
        with nogil:
            pthread_mutex_lock(&self.mutex)
            try:
                self.terms.refresh_all()
                self.quiet_ns = -1
            finally:
                pthread_mutex_unlock(&self.mutex)

    def watch_lateness(self) -> None:
        """Count from now on how late refreshes go out."""
        with nogil:
            pthread_mutex_lock(&self.mutex)
            try:
                self.terms.lateness.watch()
            finally:
                pthread_mutex_unlock(&self.mutex)

    @property
    def lateness_ns(self) -> list[tuple[int, int]]:
        """How late refreshes were since `watch_lateness`, rising, and how many were so late.

        Each is the most that those counted with it were late, a 32nd more at the most; the last
        is how late the latest was.
        """
        cdef Counts counts
        with nogil:
            pthread_mutex_lock(&self.mutex)
            self.terms.lateness.copy(&counts)
            pthread_mutex_unlock(&self.mutex)
        return as_list(&counts)

    @property
    def quiet_since_ns(self) -> int | None:
        """The tick that found all sent and answered, nothing more being due; None before it."""
        cdef int64_t since_ns
        with nogil:
            pthread_mutex_lock(&self.mutex)
            since_ns = self.quiet_ns
            pthread_mutex_unlock(&self.mutex)
        return None if since_ns < 0 else since_ns

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is left that must still be released."""
        return self._facts().is_quiet

    @property
    def is_refused(self) -> bool:
        """Whether the server cannot serve us any more, so that another must be found."""
        return self._facts().is_refused

    @property
    def refusal(self) -> str:
        """In which words the server refused to serve us any more; empty if none did."""
        cdef bytes words
        pthread_mutex_lock(&self.mutex)
        try:
            words = self.lane.refusal[:self.lane.refusal_bytes]
        finally:
            pthread_mutex_unlock(&self.mutex)
        return words.decode(errors="replace")

    @property
    def owed_since_ns(self) -> int | None:
        """Since when the server owes an answer.

        It is when the oldest unanswered batch was sent, or when another was answered since: a
        server that is slow is not silent.
        """
        cdef int64_t since_ns = self._facts().owed_since_ns
        return None if since_ns < 0 else since_ns

    def next_tick_ns(self, int64_t now_ns) -> int:
        """Return when `tick` should be called next, if nothing happens before."""
        cdef Facts facts
        with nogil:
            self.read_facts(&facts, now_ns)
        return facts.next_turn_ns

    cdef Facts _facts(self) noexcept:
        cdef Facts facts
        with nogil:
            self.read_facts(&facts, 0)
        return facts

    # ---- the same for the pump, which has no GIL

    cdef int begin(self) except -1 nogil:
        """Begin on a fresh connection."""
        pthread_mutex_lock(&self.mutex)
        try:
            self.lane.connection_made()
        finally:
            pthread_mutex_unlock(&self.mutex)
        return 0

    cdef int lose(self, int64_t now_ns) except -1 nogil:
        """Forget what was in flight."""
        pthread_mutex_lock(&self.mutex)
        try:
            self.lane.connection_lost(now_ns)
            self.announcements.clear()
        finally:
            pthread_mutex_unlock(&self.mutex)
        return 0

    cdef int turn(self, int64_t now_ns, Facts *facts) except -1 nogil:
        """Do what is due, and tell what comes next."""
        pthread_mutex_lock(&self.mutex)
        try:
            self.terms.on_timers(now_ns)
            self.membership.on_timer(now_ns)
            self.lane.pack(now_ns)
            if self.lane.in_flight or self.terms.has_work():
                self.quiet_ns = -1
            elif self.quiet_ns < 0:
                self.quiet_ns = now_ns
            self._fill_facts(facts, now_ns)
            if CHECKED:
                check(self.terms)
        finally:
            pthread_mutex_unlock(&self.mutex)
        return 0

    cdef int finish(self, int64_t now_ns) except -1 nogil:
        """End what terms are left of a node that stops, without a word to the server."""
        pthread_mutex_lock(&self.mutex)
        try:
            self.terms.give_up(NONE, now_ns)
        finally:
            pthread_mutex_unlock(&self.mutex)
        return 0

    cdef int take_bytes(self, const char *data, size_t length, int64_t now_ns) except -1 nogil:
        """Take bytes from the server. Returns 1 if they are malformed: see `parse_error`."""
        cdef int outcome
        pthread_mutex_lock(&self.mutex)
        try:
            self.lane.incoming.feed(data, length)
            outcome = self.lane.take(now_ns)
            if CHECKED:
                check(self.terms)
            return outcome
        finally:
            pthread_mutex_unlock(&self.mutex)

    cdef int hear_bytes(self, const char *data, size_t length, int64_t now_ns) except -1 nogil:
        """Take bytes from a connection that only listens. Returns 1 if they are malformed."""
        cdef Cursor frame
        cdef int outcome
        pthread_mutex_lock(&self.mutex)
        try:
            self.announcements.feed(data, length)
            while True:
                outcome = self.announcements.next_frame(&frame)
                if outcome < 0:
                    self.lane.parse_error = b"an announcement is not the Redis protocol"
                    return 1
                if outcome == 0:
                    return 0
                if self.wakeups.is_subscribed(frame):
                    # Batches that were sent meanwhile on the other connection may have
                    # been answered before anybody listened.
                    self.terms.ask_again()
                    self.membership.poll_by(0)
                else:
                    self.wakeups.heed(&frame, now_ns)
        finally:
            pthread_mutex_unlock(&self.mutex)

    cdef void read_facts(self, Facts *facts, int64_t now_ns) noexcept nogil:
        """Tell how things stand."""
        pthread_mutex_lock(&self.mutex)
        self._fill_facts(facts, now_ns)
        pthread_mutex_unlock(&self.mutex)

    cdef void _fill_facts(self, Facts *facts, int64_t now_ns) noexcept nogil:
        cdef bint has_room = self.lane.has_room()
        facts.next_turn_ns = min(self.lane.next_pack_ns(now_ns), self.terms.next_due_ns())
        facts.next_turn_ns = min(facts.next_turn_ns, self.membership.next_turn_ns(has_room))
        facts.owed_since_ns = self.lane.owed_since_ns()
        facts.has_events = (self.terms.events.count != 0 or self.terms.events.report_count != 0
                            or self.terms.schedule.peek(REAPED) != NONE
                            or self.membership.reply != NULL)
        facts.is_quiet = (self.terms.population[<int>RELEASING] == 0
                          and self.terms.population[<int>ACQUIRING] == 0
                          and not self.terms.is_giving_up()
                          and not self.membership.is_leaving())
        facts.is_refused = self.lane.refused
