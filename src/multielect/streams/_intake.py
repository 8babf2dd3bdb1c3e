"""Which streams to read next, and how much: decided, not done.

Rules of this file:
    * Entries in memory, with those that requests on their way may bring, never exceed
      `max_in_hand`, nor those of one partition `max_per_partition`. What has no room is not
      asked for.
    * Streams take turns: whoever is asked again goes to the end. One that is caught up, and that
      no request waits for, takes its turn every `POLL_S`, however many others lie behind.
    * No I/O, no clock: the time is passed in.
"""

from __future__ import annotations

from collections import OrderedDict

from ._entries import Entry
from ._reading import Ask, Queue, Reading, State
from ._settings import FlowSettings

MAX_STREAMS_PER_FETCH = 250
"""One such request takes well under a tenth of a millisecond of the server's time."""

MAX_STREAMS_PER_WATCH = 2_500

POLL_S = 0.05
"""How long a stream that no request waits for goes without being asked."""


class Intake:
    """The readings that are to be read, and the room that there is for entries.

    Attributes:
        in_hand: how many entries are in memory.
        led: how many partitions are led: the readers share them out.
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
        # Half is kept for what is known to be there.
        return min(self._settings.max_in_hand // 2 - self._reserved_by_watches, self._room)

    # ---- who is to be read

    def queue(self, reading: Reading, poll_s: float) -> None:
        """Have a reading wait to be read, if there is room for what that brings."""
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
        """Have it wait no more."""
        if reading.queue is Queue.CAUGHT_UP:
            del self._caught_up[reading]
        elif reading.queue is Queue.BEHIND:
            del self._behind[reading]
        reading.queue = None

    def tick(self, now_s: float) -> None:
        """Let those take their turn that no request has waited for until now."""
        while self._caught_up:
            reading, due_s = next(iter(self._caught_up.items()))
            if due_s > now_s:
                return
            self.unqueue(reading)
            reading.queue = Queue.BEHIND
            self._behind[reading] = None

    @property
    def next_s(self) -> float | None:
        """When `tick` has something to do."""
        return next(iter(self._caught_up.values()), None)

    # ---- requests

    @property
    def may_fetch(self) -> bool:
        """Whether there are streams to ask, and room for what they hold."""
        return bool(self._behind) and self._room > 0

    @property
    def may_watch(self) -> bool:
        """Whether there are streams to wait for, and room for what comes."""
        return bool(self._caught_up) and self._room_to_watch > 0

    def take_fetch(self) -> Ask | None:
        """Return what to ask for now, without waiting for it."""
        room = self._room
        limit = min(MAX_STREAMS_PER_FETCH, room)
        picked: list[Reading] = []
        while self._behind and len(picked) < limit:
            picked.append(self._behind.popitem(last=False)[0])
        return self._ask(picked, room, is_watch=False)

    def take_watch(self) -> Ask | None:
        """Return what to wait for, of what is caught up."""
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
        """Return a request that failed as two, to find out which stream it was."""
        if ask.is_watch:
            self._reserved_by_watches -= ask.reserved
        return ask.halves()

    def end(self, ask: Ask) -> None:
        """Give back the room of a request that is over."""
        self._reserved -= ask.reserved
        self._reserved_by_watches -= ask.reserved if ask.is_watch else 0
        for reading in ask.readings:
            reading.is_asked = False

    # ---- entries

    def take_in(self, reading: Reading, entries: list[Entry], asked: int) -> None:
        """Keep what a request has brought, of so many that it asked for."""
        reading.is_caught_up = len(entries) < asked
        if entries:
            reading.in_hand.extend(entries)
            reading.position = entries[-1].id
            self.in_hand += len(entries)

    def rewind(self, reading: Reading) -> None:
        """Go back to the checkpoint: what waits for another attempt takes no room meanwhile."""
        self.drop(reading)
        reading.position = reading.checkpoint
        reading.is_caught_up = False

    def drop(self, reading: Reading) -> None:
        """Forget what was read and is not at work."""
        self.in_hand -= len(reading.in_hand)
        reading.in_hand.clear()
