# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""The core as the engine sees it: time and bytes in, bytes and events out.

Rules of this file:
    * No sockets, no clock, no threads, no randomness but that of the seed: the same calls
      give the same answers.
    * One caller at a time: the engine's mutex sees to that. Only `abandon` and what
      `Seat` reads may be called without it.
    * Elections become Python objects here and nowhere below.
"""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from ..errors import ProtocolError
from .events cimport Event, Note
from .lane cimport MOST_ENTRIES
from .resp cimport Cursor, Incoming
from .schedule cimport REAPED
from .slots cimport NONE, Slot, store_i64
from .terms cimport ASKING, GONE, LEADING, RELEASING

REQUEST_NAMES = ("acquire", "refresh", "release")


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
        self.wakeups = Wakeups(self.terms, holder=holder, separator=separator)
        self.lane = Lane(self.terms, self.wakeups, heads=heads, holder=holder,
                         channel=channel, epochs=epochs)
        self.announcements = Incoming()

    # ---- elections

    def __len__(self) -> int:
        return self.terms.slots.count

    def add(self, bytes key not None, uint16_t bucket) -> tuple[int, bool]:
        """Add an election, unless it is there. Returns its number and whether it is new."""
        cdef uint32_t number = self.terms.slots.find(key, len(key))
        if number != NONE:
            return number, False
        self.terms.slots.insert(key, len(key), bucket, &number)
        self.terms.add(number)
        return number, True

    def find(self, bytes key not None) -> int | None:
        """Return the number of the election with this key."""
        cdef uint32_t number = self.terms.slots.find(key, len(key))
        return None if number == NONE else number

    def generation(self, uint32_t number) -> int:
        """Return the generation of the slot, which tells its election from earlier ones."""
        return self.terms.slots.at(number).generation

    def remove(self, uint32_t number, int64_t now_ns) -> None:
        """Give an election up; its lease is released by the next ticks."""
        self.terms.remove(number, now_ns)

    def resign(self, uint32_t number, uint32_t generation, int64_t term_epoch,
               int64_t now_ns) -> bool:
        """End the current term, if it is of `term_epoch` (any, where 0)."""
        cdef Slot *slot = self.terms.slots.at(number)
        if slot.generation != generation or (term_epoch and slot.epoch != term_epoch):
            return False
        return self.terms.resign(number, now_ns) == 1

    def campaign(self, uint32_t number, uint32_t generation) -> None:
        """Stand again at once after a resignation."""
        if self.terms.slots.at(number).generation == generation:
            self.terms.campaign(number)

    def leader(self, uint32_t number, uint32_t generation) -> bytes | None:
        """Return who led the election when this node last asked and did not win."""
        cdef Slot *slot = self.terms.slots.at(number)
        if slot.generation != generation or slot.holder == NONE:
            return None
        return self.terms.holders.text_of(slot.holder)

    def list_keys(self) -> list[bytes]:
        """Return the keys of all elections, in the order of their slots."""
        return [key for key, _, _ in self._listed(0)]

    def owned(self, int64_t now_ns) -> list[tuple[bytes, int, int]]:
        """Return key, number and generation of the elections that this node leads."""
        return self._listed(now_ns)

    def _listed(self, int64_t leading_at_ns) -> list[tuple[bytes, int, int]]:
        cdef uint32_t number
        cdef Slot *slot
        listed = []
        for number in range(self.terms.slots.used):
            slot = self.terms.slots.at(number)
            if slot.key == NULL or slot.state == GONE:
                continue
            if leading_at_ns:
                if slot.deadline_ns <= leading_at_ns:
                    continue
            elif slot.forgotten:
                continue
            listed.append((slot.key[:slot.key_length], number, slot.generation))
        return listed

    # ---- the node

    def start(self) -> None:
        """Stand for all elections."""
        self.terms.start()

    def stop(self, int64_t now_ns) -> None:
        """End all terms; their leases are released by the next ticks."""
        self.terms.stop(now_ns)

    def abandon(self) -> None:
        """Lead nothing any more, as seen by every `Seat`. Takes no lock: safe after a fork."""
        store_i64(&self.terms.slots.open, 0)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is left that must still be released."""
        return (self.terms.population[<int>RELEASING] == 0
                and self.terms.population[<int>ASKING] == 0)

    @property
    def leading(self) -> int:
        """How many terms this node has now, overdue ones included."""
        return self.terms.population[<int>LEADING]

    # ---- the connection

    def connection_made(self, scripts) -> None:
        """Begin on a fresh connection, with the scripts that suit its server."""
        self.lane.connection_made(scripts)

    def connection_lost(self, int64_t now_ns) -> None:
        """Forget what was in flight. Bytes not yet sent are not sent any more."""
        self.lane.connection_lost(now_ns)
        self.announcements.clear()

    def tick(self, int64_t now_ns) -> None:
        """Do what is due at `now_ns`, the time read before the bytes packed now are sent."""
        with nogil:
            self.terms.on_timers(now_ns)
            self.lane.pack(now_ns)

    def receive(self, const unsigned char[::1] data, int64_t now_ns) -> None:
        """Take bytes from the server and act on the replies among them.

        Raises:
            ProtocolError: when they make no sense; the connection must be given up.
        """
        if data.shape[0] == 0:
            return
        with nogil:
            self.lane.incoming.feed(<const char *>&data[0], data.shape[0])
            self.lane.take(now_ns)

    def receive_announcements(self, const unsigned char[::1] data) -> None:
        """Take bytes from a second connection that does nothing but listen.

        Raises:
            ProtocolError: when they make no sense; the connection must be given up.
        """
        cdef Cursor frame
        cdef int outcome
        if data.shape[0] == 0:
            return
        self.announcements.feed(<const char *>&data[0], data.shape[0])
        while True:
            outcome = self.announcements.next_frame(&frame)
            if outcome < 0:
                raise ProtocolError("an announcement makes no sense: it is not the Redis protocol")
            if outcome == 0:
                return
            self.wakeups.heed(&frame)

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
    def is_refused(self) -> bool:
        """Whether the server cannot serve us any more, so that another must be found."""
        return self.lane.refused

    @property
    def oldest_sent_ns(self) -> int | None:
        """When the oldest unanswered batch was sent."""
        return self.lane._batch(0).sent_ns if self.lane.in_flight else None

    def next_tick_ns(self, int64_t now_ns) -> int:
        """Return when `tick` should be called next, if nothing happens before."""
        if self.lane.has_room() and self.terms.has_work():
            return now_ns
        return self.terms.schedule.next_due_ns()

    # ---- what there is to tell

    def take_events(self) -> list[tuple[bytes, int, int, int, int, int]]:
        """Take the terms begun and ended since, in order.

        Returns:
            For each: key, number, generation, epoch, reason (0: elected) and at_ns.
        """
        cdef size_t i
        cdef Event *event
        cdef Slot *slot
        cdef uint32_t number
        taken = []
        for i in range(self.terms.events.count):
            event = &self.terms.events.items[i]
            slot = self.terms.slots.at(event.number)
            taken.append((slot.key[:slot.key_length], event.number, slot.generation,
                          event.epoch, event.reason, event.at_ns))
        self.terms.events.count = 0
        while True:
            number = self.terms.schedule.peek(REAPED)
            if number == NONE:
                return taken
            self.terms.schedule.dequeue(number)
            self.terms.population[<int>GONE] -= 1
            self.terms.slots.give_back(number)

    def take_notes(self) -> list[tuple[str, int, str]]:
        """Take the server's refusals since: request, number of elections, its words."""
        cdef int i
        cdef Note *note
        taken = []
        for i in range(self.terms.events.note_count):
            note = &self.terms.events.notes[i]
            taken.append((REQUEST_NAMES[note.request], note.elections,
                          note.text[:note.length].decode("utf-8", "replace")))
        self.terms.events.note_count = 0
        return taken

    @property
    def counters(self) -> dict[str, int]:
        """What this core has done since it was made."""
        return self.terms.events.tally

    @property
    def memory_bytes(self) -> int:
        """Bytes held for the elections: slots, index and keys."""
        return self.terms.slots.memory_bytes()
