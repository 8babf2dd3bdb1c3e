# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""The core as the engine sees it: time and bytes in, bytes and events out.

Rules of this file:
    * No sockets, no clock, no randomness but that of the seed: the same calls give the same
      answers.
    * Any thread may call in. One mutex guards all, and is held for C work alone: nobody
      waits for the GIL, nor runs Python code, while holding it. So a thread of Python that
      is starved of the GIL cannot hold up the pump.
    * What takes long with many elections is done a part at a time, the mutex free between.
    * Only one thread, the pump's, may send: the outgoing bytes are its own.
    * Elections become Python objects here and nowhere below.
"""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from ..errors import ProtocolError
from .events cimport DRAINING, MOST_NOTES, Event, Note, Tally
from .lane cimport MOST_ENTRIES
from .resp cimport Cursor, Incoming
from .schedule cimport REAPED
from .slots cimport NONE, Slot, load_u32, store_i64
from .states cimport ASKING, LEADING, RELEASING

DRAINING_REASON = DRAINING
REQUEST_NAMES = ("acquire", "refresh", "release", "grant", "roll")

cdef enum:
    PART = 1024             # elections or events that are copied out at once
    LONGEST_KEY = 512
    LONGEST_NAME = 2048


cdef class Core:
    """The elections of one node over one connection.

    Args:
        now_ns: the time.
        ttl_ns: how long a lease lasts.
        margin_ns: how long before a lease's end this node stops calling itself leader.
        max_leases: how many elections this node may lead at once.
        batch_keys: elections that one script refreshes.
        seed: where jitter comes from.
        heads: what precedes a key in Redis, one for each bucket.
        separator: what stands between the bucket's closing brace and the key.
        holder: the value of this node's leases.
        channel: where releases are announced.
        epochs: ``b"time"`` or ``b"counter"``.
    """

    def __init__(self, *, int64_t now_ns, int64_t ttl_ns, int64_t margin_ns, tuple heads,
                 bytes separator, bytes holder, bytes channel, bytes epochs=b"time",
                 uint32_t max_leases=NONE, uint32_t batch_keys=MOST_ENTRIES, uint64_t seed=0):
        if not 1 <= batch_keys <= MOST_ENTRIES:
            raise ValueError(f"batch_keys must be from 1 to {MOST_ENTRIES}, not {batch_keys}")
        self.terms = Terms(now_ns=now_ns, ttl_ns=ttl_ns, margin_ns=margin_ns,
                           batch_keys=batch_keys, max_leases=max_leases, seed=seed)
        self.roll = Roll()
        self.wakeups = Wakeups(self.terms, self.roll, holder=holder, separator=separator)
        self.lane = Lane(self.terms, self.wakeups, self.roll, heads=heads, holder=holder,
                         channel=channel, epochs=epochs)
        self.announcements = Incoming()

    def __cinit__(self):
        pthread_mutex_init(&self.mutex, NULL)

    def __dealloc__(self):
        pthread_mutex_destroy(&self.mutex)

    # ---- elections

    def __len__(self) -> int:
        # Without the mutex: a forked child may ask, and have inherited it locked.
        return load_u32(&self.terms.slots.count)

    def add(self, bytes key not None, uint16_t bucket,
            int64_t max_stall_ns=0) -> tuple[int, int, bool]:
        """Add an election, unless it is there. Returns number, generation, whether it is new.

        A leader of it that is not heard of for `max_stall_ns` gives its term up; 0: never.
        """
        cdef const char *text = key
        cdef size_t length = len(key)
        cdef uint32_t number, generation
        cdef bint is_new = False
        with nogil:
            pthread_mutex_lock(&self.mutex)
            try:
                number = self.terms.slots.find(text, length)
                if number == NONE:
                    is_new = True
                    self.terms.slots.insert(text, length, bucket, &number)
                    self.terms.slots.at(number).max_stall_ns = max_stall_ns
                    self.terms.add(number)
                generation = self.terms.slots.at(number).generation
            finally:
                pthread_mutex_unlock(&self.mutex)
        return number, generation, is_new

    def find(self, bytes key not None) -> tuple[int, int] | None:
        """Return number and generation of the election with this key."""
        cdef const char *text = key
        cdef size_t length = len(key)
        cdef uint32_t number, generation = 0
        with nogil:
            pthread_mutex_lock(&self.mutex)
            number = self.terms.slots.find(text, length)
            if number != NONE:
                generation = self.terms.slots.at(number).generation
            pthread_mutex_unlock(&self.mutex)
        return None if number == NONE else (number, generation)

    def remove(self, bytes key not None, int64_t now_ns) -> bool:
        """Give an election up; its lease is released by the next ticks. False if there is none."""
        cdef const char *text = key
        cdef size_t length = len(key)
        cdef uint32_t number
        with nogil:
            pthread_mutex_lock(&self.mutex)
            try:
                number = self.terms.slots.find(text, length)
                if number != NONE:
                    self.terms.remove(number, now_ns)
            finally:
                pthread_mutex_unlock(&self.mutex)
        return number != NONE

    def resign(self, uint32_t number, uint32_t generation, int64_t term_epoch,
               int64_t now_ns) -> bool:
        """End the current term, if it is of `term_epoch` (any, where 0)."""
        cdef Slot *slot = self.terms.slots.at(number)
        cdef int ended = 0
        with nogil:
            pthread_mutex_lock(&self.mutex)
            try:
                if slot.generation == generation and (term_epoch == 0
                                                      or slot.epoch == term_epoch):
                    ended = self.terms.resign(number, now_ns)
            finally:
                pthread_mutex_unlock(&self.mutex)
        return ended == 1

    def campaign(self, uint32_t number, uint32_t generation) -> None:
        """Stand again at once after a resignation."""
        with nogil:
            pthread_mutex_lock(&self.mutex)
            try:
                if self.terms.slots.at(number).generation == generation:
                    self.terms.campaign(number)
            finally:
                pthread_mutex_unlock(&self.mutex)

    def leader(self, uint32_t number, uint32_t generation) -> bytes | None:
        """Return who led the election when this node last asked and did not win."""
        cdef char[LONGEST_NAME] name
        cdef Py_ssize_t length = -1
        cdef Slot *slot = self.terms.slots.at(number)
        with nogil:
            pthread_mutex_lock(&self.mutex)
            if slot.generation == generation and slot.holder != NONE:
                length = self.terms.holders.copy(slot.holder, name, LONGEST_NAME)
            pthread_mutex_unlock(&self.mutex)
        return None if length < 0 else name[:length]

    def list_keys(self) -> list[bytes]:
        """Return the keys of all elections, in the order of their slots."""
        return [key for key, _, _ in self._listed(0)]

    def owned(self, int64_t now_ns) -> list[tuple[bytes, int, int]]:
        """Return key, number and generation of the elections that this node leads."""
        return self._listed(now_ns)

    def _listed(self, int64_t leading_at_ns) -> list[tuple[bytes, int, int]]:
        cdef uint32_t number = 0
        cdef uint32_t count, i
        cdef size_t start
        cdef Copied *copied = <Copied *>malloc(PART * sizeof(Copied))
        cdef char *text = <char *>malloc(PART * <size_t>LONGEST_KEY)
        listed = []
        try:
            if copied == NULL or text == NULL:
                raise MemoryError
            while True:
                with nogil:
                    pthread_mutex_lock(&self.mutex)
                    count = self._copy_elections(&number, leading_at_ns, copied, text)
                    pthread_mutex_unlock(&self.mutex)
                start = 0
                for i in range(count):
                    listed.append((text[start:copied[i].key_end], copied[i].number,
                                   copied[i].generation))
                    start = copied[i].key_end
                if number == NONE:
                    return listed
        finally:
            free(copied)
            free(text)

    cdef uint32_t _copy_elections(self, uint32_t *number, int64_t leading_at_ns,
                                  Copied *copied, char *text) noexcept nogil:
        """Copy one part of the elections out, those that lead if a time is given.

        Moves `number` on to the next part, or to NONE after the last.
        """
        cdef uint32_t last = min(number[0] + <uint32_t>PART, self.terms.slots.used)
        cdef uint32_t count = 0
        cdef size_t end = 0
        cdef Slot *slot
        while number[0] < last:
            slot = self.terms.slots.at(number[0])
            number[0] += 1
            if slot.key == NULL or slot.forgotten or (leading_at_ns != 0
                                                      and slot.deadline_ns <= leading_at_ns):
                continue
            memcpy(text + end, slot.key, slot.key_length)
            end += slot.key_length
            copied[count].number = number[0] - 1
            copied[count].generation = slot.generation
            copied[count].key_end = end
            count += 1
        if last == self.terms.slots.used:
            number[0] = NONE
        return count

    # ---- the node

    def start(self) -> None:
        """Stand for all elections."""
        with nogil:
            pthread_mutex_lock(&self.mutex)
            try:
                self.terms.start()
            finally:
                pthread_mutex_unlock(&self.mutex)

    def stop(self, int64_t now_ns) -> None:
        """End all terms; their leases are released by the next ticks."""
        with nogil:
            pthread_mutex_lock(&self.mutex)
            try:
                self.terms.stop(now_ns)
            finally:
                pthread_mutex_unlock(&self.mutex)

    def abandon(self) -> None:
        """Lead nothing any more, as seen by every `Seat`. Takes no mutex: safe after a fork."""
        store_i64(&self.terms.slots.open, 0)

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

    def receive(self, const unsigned char[::1] data, int64_t now_ns) -> None:
        """Take bytes from the server and act on the replies among them.

        Raises:
            ProtocolError: when they make no sense; the connection must be given up.
        """
        cdef int outcome = 0
        if data.shape[0]:
            with nogil:
                outcome = self.take_bytes(<const char *>&data[0], data.shape[0], now_ns)
        if outcome:
            raise ProtocolError(self.complaint)

    def receive_announcements(self, const unsigned char[::1] data, int64_t now_ns) -> None:
        """Take bytes from a second connection that does nothing but listen.

        Raises:
            ProtocolError: when they make no sense; the connection must be given up.
        """
        cdef int outcome = 0
        if data.shape[0]:
            with nogil:
                outcome = self.hear_bytes(<const char *>&data[0], data.shape[0], now_ns)
        if outcome:
            raise ProtocolError(self.complaint)

    @property
    def complaint(self) -> str:
        """What made no sense in what the server sent last."""
        cdef const char *what = self.lane.complaint
        return f"the server's reply makes no sense: {what.decode() if what != NULL else '?'}"

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

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is left that must still be released."""
        return self._facts().is_quiet

    @property
    def is_refused(self) -> bool:
        """Whether the server cannot serve us any more, so that another must be found."""
        return self._facts().is_refused

    @property
    def oldest_sent_ns(self) -> int | None:
        """When the oldest unanswered batch was sent."""
        cdef int64_t sent_ns = self._facts().oldest_sent_ns
        return None if sent_ns < 0 else sent_ns

    def next_tick_ns(self, int64_t now_ns) -> int:
        """Return when `tick` should be called next, if nothing happens before."""
        cdef Facts facts
        with nogil:
            self.tell(&facts, now_ns)
        return facts.next_turn_ns

    cdef Facts _facts(self) noexcept:
        cdef Facts facts
        with nogil:
            self.tell(&facts, 0)
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
            self.roll.on_timer(now_ns)
            self.lane.pack(now_ns)
            self._tell_facts(facts, now_ns)
        finally:
            pthread_mutex_unlock(&self.mutex)
        return 0

    cdef int take_bytes(self, const char *data, size_t length, int64_t now_ns) except -1 nogil:
        """Take bytes from the server. Returns 1 if they make no sense: see `complaint`."""
        pthread_mutex_lock(&self.mutex)
        try:
            self.lane.incoming.feed(data, length)
            return self.lane.take(now_ns)
        finally:
            pthread_mutex_unlock(&self.mutex)

    cdef int hear_bytes(self, const char *data, size_t length, int64_t now_ns) except -1 nogil:
        """Take bytes from a connection that only listens. Returns 1 if they make no sense."""
        cdef Cursor frame
        cdef int outcome
        pthread_mutex_lock(&self.mutex)
        try:
            self.announcements.feed(data, length)
            while True:
                outcome = self.announcements.next_frame(&frame)
                if outcome < 0:
                    self.lane.complaint = b"an announcement is not the Redis protocol"
                    return 1
                if outcome == 0:
                    return 0
                if self.wakeups.is_subscribed(frame):
                    # Batches that were sent meanwhile on the other connection may have
                    # been answered before anybody listened.
                    self.terms.ask_again()
                    self.roll.call_by(0)
                else:
                    self.wakeups.heed(&frame, now_ns)
        finally:
            pthread_mutex_unlock(&self.mutex)

    cdef void tell(self, Facts *facts, int64_t now_ns) noexcept nogil:
        """Tell how things stand."""
        pthread_mutex_lock(&self.mutex)
        self._tell_facts(facts, now_ns)
        pthread_mutex_unlock(&self.mutex)

    cdef void _tell_facts(self, Facts *facts, int64_t now_ns) noexcept nogil:
        cdef bint has_room = self.lane.has_room()
        facts.next_turn_ns = (now_ns if has_room and self.terms.has_work()
                              else self.terms.schedule.next_due_ns())
        facts.next_turn_ns = min(facts.next_turn_ns, self.roll.next_turn_ns(has_room))
        facts.oldest_sent_ns = self.lane._batch(0).sent_ns if self.lane.in_flight else -1
        facts.has_news = (self.terms.events.count != 0 or self.terms.events.note_count != 0
                          or self.terms.schedule.peek(REAPED) != NONE or self.roll.reply != NULL)
        facts.is_quiet = (self.terms.population[<int>RELEASING] == 0
                          and self.terms.population[<int>ASKING] == 0
                          and not self.roll.is_leaving())
        facts.is_refused = self.lane.refused

    # ---- what there is to tell

    def take_events(self) -> list[tuple[bytes, int, int, int, int, int]]:
        """Take terms begun and ended since, in order: a part of them, until none is left.

        Returns:
            For each: key, number, generation, epoch, reason and at_ns. Reason 0: elected;
            `DRAINING_REASON`: draining, until at_ns at the latest.
        """
        cdef uint32_t count, i
        cdef size_t start = 0
        cdef Copied *copied = <Copied *>malloc(PART * sizeof(Copied))
        cdef char *text = <char *>malloc(PART * <size_t>LONGEST_KEY)
        taken = []
        try:
            if copied == NULL or text == NULL:
                raise MemoryError
            with nogil:
                pthread_mutex_lock(&self.mutex)
                count = self._copy_events(copied, text)
                pthread_mutex_unlock(&self.mutex)
            for i in range(count):
                taken.append((text[start:copied[i].key_end], copied[i].number,
                              copied[i].generation, copied[i].epoch, copied[i].reason,
                              copied[i].at_ns))
                start = copied[i].key_end
            return taken
        finally:
            free(copied)
            free(text)

    cdef uint32_t _copy_events(self, Copied *copied, char *text) noexcept nogil:
        """Copy one part of the events out; free the slots of the removed if all are told."""
        cdef uint32_t place = self.terms.events.start
        cdef uint32_t count = 0
        cdef size_t end = 0
        cdef Event *event
        cdef Slot *slot
        while place < self.terms.events.count and count < PART:
            event = &self.terms.events.items[place]
            place += 1
            if event.number == NONE:
                continue
            slot = self.terms.slots.at(event.number)
            memcpy(text + end, slot.key, slot.key_length)
            end += slot.key_length
            copied[count].number = event.number
            copied[count].generation = slot.generation
            copied[count].epoch = event.epoch
            copied[count].reason = event.reason
            copied[count].at_ns = event.at_ns
            copied[count].key_end = end
            count += 1
        self.terms.events.taken_to(place)
        if self.terms.events.count == 0:
            self.terms.reap()
        return count

    def take_notes(self) -> list[tuple[str, int, str]]:
        """Take the server's refusals since: request, number of elections, its words."""
        cdef Note[MOST_NOTES] notes
        cdef int count, i
        with nogil:
            pthread_mutex_lock(&self.mutex)
            count = self.terms.events.note_count
            memcpy(notes, self.terms.events.notes, count * sizeof(Note))
            self.terms.events.note_count = 0
            pthread_mutex_unlock(&self.mutex)
        return [
            (REQUEST_NAMES[notes[i].request], notes[i].elections,
             notes[i].text[:notes[i].length].decode("utf-8", "replace"))
            for i in range(count)
        ]

    @property
    def counters(self) -> dict[str, int]:
        """What this core has done since it was made."""
        cdef Tally tally
        with nogil:
            pthread_mutex_lock(&self.mutex)
            tally = self.terms.events.tally
            pthread_mutex_unlock(&self.mutex)
        return tally

    @property
    def leading(self) -> int:
        """How many terms this node has now, overdue ones included."""
        cdef uint32_t count
        with nogil:
            pthread_mutex_lock(&self.mutex)
            count = self.terms.population[<int>LEADING]
            pthread_mutex_unlock(&self.mutex)
        return count

    @property
    def memory_bytes(self) -> int:
        """Bytes held for the elections: slots, index and keys."""
        cdef size_t count
        with nogil:
            pthread_mutex_lock(&self.mutex)
            count = self.terms.slots.memory_bytes()
            pthread_mutex_unlock(&self.mutex)
        return count
