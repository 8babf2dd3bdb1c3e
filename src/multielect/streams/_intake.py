"""The intake: decides which streams to read next, and how many entries.

Rules of this file:
    * The entries in memory, together with those that requests in flight may bring, never exceed
      `max_in_hand`. Those of one partition never exceed `max_per_partition`. The intake asks for no
      entry for which there is no room.
    * Streams take turns: a stream that was asked goes to the end of the queue. A stream that is
      caught up, and for which no request waits, is asked every `POLL_S`, however many others have
      entries.
    * No I/O, no clock: the caller passes the time.
"""

from __future__ import annotations

from collections import OrderedDict

from ._entries import Entry
from ._reading import Ask, Queue, Reading, State
from ._settings import FlowSettings

MAX_STREAMS_PER_FETCH = 250
"""Such a request takes the server well under a tenth of a millisecond."""

MAX_STREAMS_PER_WATCH = 2_500

POLL_S = 0.05
"""How often a caught-up stream is asked while no request waits for it."""


class Intake:
    """The readings to read, and the room for their entries.

    Attributes:
        in_hand: how many entries are in memory.
        led: how many partitions this node leads. The readers divide them among themselves.
    """

    def __init__(self, settings: FlowSettings) -> None:
        self._settings = settings
        self.in_hand = 0
        self.led = 0
        self._reserved = 0
        self._reserved_by_watches = 0
        self._behind: OrderedDict[Reading, None] = OrderedDict()
        self._caught_up: OrderedDict[Reading, float] = OrderedDict()

    @property
    def _room(self) -> int:
        return self._settings.max_in_hand - self.in_hand - self._reserved

    @property
    def _room_to_watch(self) -> int:
        # Half of the room is kept for entries that are there already.
        return min(self._settings.max_in_hand // 2 - self._reserved_by_watches, self._room)

    # ---- the queues

    def queue(self, reading: Reading, poll_s: float) -> None:
        """Queue a reading to be read, if there is room for its entries.

        Args:
            reading: the reading.
            poll_s: when to ask a caught-up stream at the latest; 0 to ask it next.
        """
        if (
            reading.state is not State.READING
            or reading.is_draining
            or reading.is_asked
            or reading.is_waiting
            or reading.queue is not None
            or reading.held > self._settings.max_per_partition - self._settings.batch
        ):
            return
        if reading.is_caught_up:
            reading.queue = Queue.CAUGHT_UP
            self._caught_up[reading] = poll_s
            if poll_s == 0.0:
                self._caught_up.move_to_end(reading, last=False)
        else:
            reading.queue = Queue.BEHIND
            self._behind[reading] = None

    def unqueue(self, reading: Reading) -> None:
        """Take a reading out of its queue."""
        if reading.queue is Queue.CAUGHT_UP:
            del self._caught_up[reading]
        elif reading.queue is Queue.BEHIND:
            del self._behind[reading]
        reading.queue = None

    def tick(self, now_s: float) -> None:
        """Queue the caught-up streams for which no request has waited until now."""
        while self._caught_up:
            reading, due_s = next(iter(self._caught_up.items()))
            if due_s > now_s:
                return
            self.unqueue(reading)
            reading.queue = Queue.BEHIND
            self._behind[reading] = None

    @property
    def next_s(self) -> float | None:
        """When `tick` has something to do; None if no stream waits."""
        return next(iter(self._caught_up.values()), None)

    # ---- requests

    @property
    def may_fetch(self) -> bool:
        """Whether there are streams to fetch from, and room for their entries."""
        return bool(self._behind) and self._room > 0

    @property
    def may_watch(self) -> bool:
        """Whether there are streams to wait for, and room for their entries."""
        return bool(self._caught_up) and self._room_to_watch > 0

    def take_fetch(self) -> Ask | None:
        """Return a request for entries that are there, or None."""
        room = self._room
        limit = min(MAX_STREAMS_PER_FETCH, room)
        picked: list[Reading] = []
        while self._behind and len(picked) < limit:
            picked.append(self._behind.popitem(last=False)[0])
        return self._ask(picked, room, is_watch=False)

    def take_watch(self) -> Ask | None:
        """Return a request that waits for entries of caught-up streams, or None."""
        room = self._room_to_watch
        readers = self._settings.readers
        share = max(1, self._settings.max_in_hand // 2 // readers)
        limit = min(-(-self.led // readers), MAX_STREAMS_PER_WATCH, room, share)
        picked: list[Reading] = []
        while self._caught_up and len(picked) < limit:
            picked.append(self._caught_up.popitem(last=False)[0])
        return self._ask(picked, min(room, share), is_watch=True)

    def _ask(self, picked: list[Reading], room: int, *, is_watch: bool) -> Ask | None:
        if not picked:
            return None
        for reading in picked:
            reading.queue = None
            reading.is_asked = True
        count = min(self._settings.batch, room // len(picked))
        ask = Ask(picked, [reading.position for reading in picked], count, is_watch)
        self._reserved += ask.reserved
        self._reserved_by_watches += ask.reserved if is_watch else 0
        return ask

    def split(self, ask: Ask) -> tuple[Ask, Ask]:
        """Return two halves of a failed request, to find out which stream made it fail."""
        if ask.is_watch:
            self._reserved_by_watches -= ask.reserved
        return ask.halves()

    def end(self, ask: Ask) -> None:
        """End a request, and free the room that was reserved for it."""
        self._reserved -= ask.reserved
        self._reserved_by_watches -= ask.reserved if ask.is_watch else 0
        for reading in ask.readings:
            reading.is_asked = False

    # ---- entries

    def take_in(self, reading: Reading, entries: list[Entry], asked: int) -> None:
        """Keep the entries that a request brought; `asked` is how many it asked for."""
        reading.is_caught_up = len(entries) < asked
        if entries:
            reading.in_hand.extend(entries)
            reading.position = entries[-1].id
            self.in_hand += len(entries)

    def rewind(self, reading: Reading) -> None:
        """Go back to the checkpoint, so that entries take no room before their next attempt."""
        self.drop(reading)
        reading.position = reading.checkpoint
        reading.is_caught_up = False

    def drop(self, reading: Reading) -> None:
        """Forget the entries that were read and not handed out."""
        self.in_hand -= len(reading.in_hand)
        reading.in_hand.clear()
