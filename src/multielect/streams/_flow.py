"""What to read next, what is in hand, what to hand out, what to commit: decided, not done.

Rules of this file:
    * No I/O, no clock, no threads, no randomness of its own: the time is passed in, and two
      shells, one of threads and one of asyncio, do what is said here. They call one at a time.
    * Of a partition at most one batch is at the handler or being committed, whatever becomes of
      its term: entries are handled in order and never at once.
    * Entries in memory, with those that requests on their way may bring, never exceed
      `max_in_hand`, nor those of one partition `max_per_partition`. What has no room is not
      asked for.
    * A batch is forgotten only when its commit has been answered, or can do nothing any more. A
      commit without an answer is sent again: the checkpoint in it makes that harmless.
"""

from __future__ import annotations

import heapq
import random
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .._writes import Write
from ..errors import ConfigError
from ._entries import Entry
from ._reading import Ask, Leadership, Partition, Phase, Queue, Reading, State, Work
from ._settings import FlowSettings

MOST_STREAMS_A_FETCH = 250
"""One such request takes well under a tenth of a millisecond of the server's time."""

MOST_STREAMS_A_WATCH = 2_500
MOST_WRITES = 1_000
POLL_S = 0.05
"""How long a stream that no request waits for goes without being asked."""

_LONGEST_DOUBLING = 30

Verdict = Literal["retry", "dead-letter", "halt", "dropped"]
"""What becomes of a batch that failed."""


@dataclass
class Tally:
    """What a consumer has done since it was made.

    Attributes:
        handled: entries whose processing was committed.
        batches: batches committed.
        failures: batches that a handler failed on.
        dead_letters: entries set aside.
        dropped: batches that were handled and not committed, as another led by then.
    """

    handled: int = 0
    batches: int = 0
    failures: int = 0
    dead_letters: int = 0
    dropped: int = 0


class Flow:
    """The flow of entries from streams to handlers to checkpoints."""

    def __init__(self, settings: FlowSettings, randomness: random.Random) -> None:
        self._settings = settings
        self._random = randomness
        self.partitions: dict[str, Partition] = {}
        self._key_of_stream: dict[bytes, str] = {}
        self.tally = Tally()
        self.is_closing = False
        self.in_hand = 0
        self._reserved = 0
        self._reserved_by_watches = 0
        self._led = 0
        self._at_work = 0
        self._left_at_work: dict[str, Work] = {}
        self._to_claim: deque[Reading] = deque()
        self._behind: deque[Reading] = deque()
        self._caught_up: OrderedDict[Reading, float] = OrderedDict()
        self._ready: deque[Partition] = deque()
        self._to_commit: deque[Work] = deque()
        self._handed_over: list[Leadership] = []
        self._timers: list[tuple[float, int, Reading | Work]] = []
        self._timer_number = 0

    # ---- partitions and terms

    def add(self, key: str, stream: bytes) -> bool:
        """Know a partition. Returns whether it is new.

        Raises:
            ConfigError: if the key has another stream, or the stream another key.
        """
        known = self.partitions.get(key)
        if known is not None:
            if known.stream != stream:
                raise ConfigError(f"partition {key!r} has the stream {known.stream!r} already")
            return False
        other = self._key_of_stream.setdefault(stream, key)
        if other != key:
            raise ConfigError(f"the stream {stream!r} is that of partition {other!r} already")
        partition = Partition(key, stream)
        # A handler may still be at work from when the partition was known before.
        partition.work = self._left_at_work.get(key)
        self.partitions[key] = partition
        return True

    def remove(self, key: str) -> None:
        """Forget a partition.

        Raises:
            KeyError: if there is none with this key.
        """
        partition = self.partitions.pop(key)
        del self._key_of_stream[partition.stream]
        self._end(partition.reading)
        if partition.work is not None:
            self._left_at_work[key] = partition.work

    def elected(self, term: Leadership) -> None:
        """Begin to read a partition under a new term."""
        partition = self.partitions.get(term.key)
        if partition is None:
            return
        self._end(partition.reading)
        if self.is_closing:
            self._handed_over.append(term)
            return
        self._begin(partition, term)

    def draining(self, term: Leadership) -> None:
        """Hand a term over as soon as nothing of it is at work."""
        reading = self._reading_of(term)
        if reading is None:
            self._handed_over.append(term)
        else:
            self._drain(reading)

    def demoted(self, term: Leadership) -> None:
        """Read no more under a term that has ended. What is at work comes to its own end."""
        self._end(self._reading_of(term))

    def drain_all(self) -> None:
        """Begin nothing more; see `is_at_rest`."""
        self.is_closing = True
        for partition in self.partitions.values():
            if partition.reading is not None:
                self._drain(partition.reading)

    @property
    def is_at_rest(self) -> bool:
        """Whether no batch is at a handler or being committed."""
        return self._at_work == 0

    def resume(self, key: str) -> bool:
        """Have a halted partition go on. Returns whether it was halted.

        Raises:
            KeyError: if there is none with this key.
        """
        partition = self.partitions[key]
        reading = partition.reading
        if reading is None or reading.state is not State.HALTED:
            return False
        self._restart(reading)
        return True

    def take_handed_over(self) -> list[Leadership]:
        """Return the terms that may be handed over now."""
        taken, self._handed_over = self._handed_over, []
        return taken

    def keep_alive(self) -> None:
        """Tell the watchdog of all partitions that no handler is at work on that they go on."""
        for partition in self.partitions.values():
            work = partition.work
            if partition.reading is not None and (work is None or work.phase is not Phase.HANDLING):
                partition.reading.term.alive()

    def _reading_of(self, term: Leadership) -> Reading | None:
        partition = self.partitions.get(term.key)
        reading = None if partition is None else partition.reading
        return reading if reading is not None and reading.term.epoch == term.epoch else None

    def _begin(self, partition: Partition, term: Leadership) -> None:
        partition.reading = Reading(partition, term)
        self._led += 1
        self._to_claim.append(partition.reading)

    def _drain(self, reading: Reading) -> None:
        if reading.is_draining:
            return
        reading.is_draining = True
        # What was only read is left to whoever leads next.
        self._drop(reading)
        work = reading.partition.work
        if work is None or work.reading is not reading:
            self._hand_over(reading)

    def _hand_over(self, reading: Reading) -> None:
        self._end(reading)
        self._handed_over.append(reading.term)

    def _end(self, reading: Reading | None) -> None:
        if reading is None or reading.state is State.OVER:
            return
        self._drop(reading)
        reading.state = State.OVER
        self._led -= 1
        if reading.queue is Queue.CAUGHT_UP:
            del self._caught_up[reading]
        reading.queue = None
        reading.partition.reading = None

    def _restart(self, reading: Reading) -> None:
        """Begin again at the checkpoint, under the same term."""
        self._end(reading)
        self._begin(reading.partition, reading.term)

    def _drop(self, reading: Reading) -> None:
        self.in_hand -= len(reading.in_hand)
        reading.in_hand.clear()

    # ---- claims: where to begin

    def take_claims(self) -> list[Reading]:
        """Return the readings whose checkpoints are to be asked for now."""
        taken: list[Reading] = []
        while self._to_claim and len(taken) < MOST_WRITES:
            reading = self._to_claim.popleft()
            if reading.state is State.CLAIMING and not reading.is_draining:
                taken.append(reading)
        return taken

    def claimed(self, reading: Reading, checkpoint: str) -> None:
        """Read on from the checkpoint."""
        if reading.state is not State.CLAIMING or reading.is_draining:
            return
        reading.state = State.READING
        reading.trouble = 0
        reading.checkpoint = reading.position = checkpoint
        self._queue(reading, 0.0)

    def not_claimed(self, reading: Reading, now_s: float) -> None:
        """Ask for the checkpoint again, later."""
        self._stand_back(reading, now_s)

    def stale(self, reading: Reading) -> None:
        """Read no more: another was elected, which the term is yet to be told."""
        self._end(reading)

    # ---- reading

    def take_fetch(self, now_s: float) -> Ask | None:
        """Return what to ask for now, without waiting for it."""
        room = self._settings.max_in_hand - self.in_hand - self._reserved
        limit = min(MOST_STREAMS_A_FETCH, room)
        picked: list[Reading] = []
        while self._behind and len(picked) < limit:
            reading = self._behind.popleft()
            if reading.queue is Queue.BEHIND:
                picked.append(reading)
        while self._caught_up and len(picked) < limit:
            reading, due_s = next(iter(self._caught_up.items()))
            if due_s > now_s:
                break
            del self._caught_up[reading]
            picked.append(reading)
        return self._ask(picked, room, is_watch=False)

    def take_watch(self) -> Ask | None:
        """Return what to wait for, of what is caught up."""
        # Half of the room is kept for what is known to be there.
        room = self._settings.max_in_hand // 2 - self._reserved_by_watches
        room = min(room, self._settings.max_in_hand - self.in_hand - self._reserved)
        readers = self._settings.readers
        share = max(1, self._settings.max_in_hand // 2 // readers)
        limit = min(-(-self._led // readers), MOST_STREAMS_A_WATCH, room, share)
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

    def fetched(self, ask: Ask, found: Mapping[bytes, list[Entry]], now_s: float) -> None:
        """Take the entries that a request brought."""
        self._unreserve(ask)
        for reading, position in zip(ask.readings, ask.positions, strict=True):
            reading.is_asked = False
            if reading.state is not State.READING or reading.is_draining:
                continue
            if reading.position != position:
                # It went back to its checkpoint meanwhile.
                self._queue(reading, now_s)
                continue
            entries = found.get(reading.partition.stream)
            reading.trouble = 0
            reading.is_caught_up = entries is None or len(entries) < ask.count
            if entries:
                reading.in_hand.extend(entries)
                reading.position = entries[-1].id
                self.in_hand += len(entries)
                self._make_ready(reading)
            self._queue(reading, now_s + POLL_S)

    def split(self, ask: Ask) -> tuple[Ask, Ask]:
        """Return a request that failed as two, to find out which stream it was."""
        if ask.is_watch:
            self._reserved_by_watches -= ask.reserved
        return ask.halves()

    def unread(self, ask: Ask, now_s: float) -> None:
        """Ask again: nobody could be asked."""
        self._unreserve(ask)
        for reading in ask.readings:
            reading.is_asked = False
            self._queue(reading, now_s)

    def unreadable(self, ask: Ask, now_s: float) -> None:
        """Ask again later, for the one stream that cannot be read."""
        self._unreserve(ask)
        for reading in ask.readings:
            reading.is_asked = False
            reading.is_caught_up = False
            self._stand_back(reading, now_s)

    def _unreserve(self, ask: Ask) -> None:
        self._reserved -= ask.reserved
        self._reserved_by_watches -= ask.reserved if ask.is_watch else 0

    def _queue(self, reading: Reading, poll_s: float) -> None:
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
            self._behind.append(reading)

    # ---- handling

    def _make_ready(self, reading: Reading) -> None:
        partition = reading.partition
        if not partition.is_queued and partition.work is None and reading.in_hand:
            partition.is_queued = True
            self._ready.append(partition)

    def take_work(self) -> Work | None:
        """Return a batch to hand to the handler now."""
        while self._ready:
            partition = self._ready.popleft()
            partition.is_queued = False
            reading = partition.reading
            if (
                reading is None
                or reading.state is not State.READING
                or reading.is_draining
                or reading.is_waiting
                or partition.work is not None
                or not reading.in_hand
                # Its end is being told; what is in hand is dropped then.
                or not reading.term.is_leader
            ):
                continue
            size = min(1 if reading.alone else self._settings.batch, len(reading.in_hand))
            entries = [reading.in_hand.popleft() for _ in range(size)]
            partition.work = Work(reading, entries, reading.failures + 1, reading.checkpoint)
            self._at_work += 1
            return partition.work
        return None

    def handled(self, work: Work, commit: Write) -> None:
        """Commit a batch that the handler is done with."""
        work.phase = Phase.COMMITTING
        work.commit = commit
        self._to_commit.append(work)

    def failed(self, work: Work, error: BaseException, now_s: float) -> Verdict:
        """Decide what becomes of a batch that the handler failed on."""
        self.tally.failures += 1
        reading = work.reading
        if reading.state is not State.READING or reading.is_draining:
            self._forget(work)
            return "dropped"
        if len(work.entries) == 1:
            reading.failures += 1
            if reading.failures >= self._settings.attempts:
                if self._settings.on_failure == "halt":
                    self._forget(work)
                    self._halt(reading)
                    return "halt"
                work.phase = Phase.COMMITTING
                work.cause = error
                work.commit = None
                self._to_commit.append(work)
                return "dead-letter"
        else:
            # One of them is to blame: find out which, and let the others pass.
            reading.alone = len(work.entries)
        self._rewind(reading)
        self._forget(work)
        self._wait(reading, now_s + self._pause_s(reading.failures))
        return "retry"

    def _halt(self, reading: Reading) -> None:
        self._drop(reading)
        reading.state = State.HALTED
        if reading.queue is Queue.CAUGHT_UP:
            del self._caught_up[reading]
        reading.queue = None

    def _rewind(self, reading: Reading) -> None:
        """Go back to the checkpoint: what waits for another attempt takes no room meanwhile."""
        self._drop(reading)
        reading.position = reading.checkpoint
        reading.is_caught_up = False

    def _forget(self, work: Work) -> None:
        """Let go of a batch; the next of its partition may begin, be it of a newer term."""
        self.in_hand -= len(work.entries)
        self._at_work -= 1
        reading = work.reading
        if self._left_at_work.get(reading.partition.key) is work:
            del self._left_at_work[reading.partition.key]
        # Not always the one whose batch it is: it may have been removed and added since.
        partition = self.partitions.get(reading.partition.key, reading.partition)
        partition.work = None
        if reading.is_draining and reading.state is not State.OVER:
            self._hand_over(reading)
        current = partition.reading
        if current is not None and current.state is State.READING:
            self._make_ready(current)
            # There may have been no room for more of it until now.
            self._queue(current, 0.0)

    # ---- commits

    def take_commits(self) -> list[Work]:
        """Return the batches that are to be committed now."""
        size = min(MOST_WRITES, len(self._to_commit))
        return [self._to_commit.popleft() for _ in range(size)]

    def committed(self, work: Work) -> None:
        """Go on after a commit that was made."""
        reading = work.reading
        reading.checkpoint = work.through
        reading.failures = 0
        reading.trouble = 0
        reading.alone = max(0, reading.alone - len(work.entries))
        self.tally.batches += 1
        self.tally.handled += len(work.entries)
        self.tally.dead_letters += work.cause is not None
        self._forget(work)

    def refused(self, work: Work) -> None:
        """Drop a batch that another leader's epoch shut out."""
        self.tally.dropped += 1
        self._end(work.reading)
        self._forget(work)

    def moved(self, work: Work) -> None:
        """Begin again at a checkpoint that somebody has set meanwhile."""
        self.tally.dropped += 1
        reading = work.reading
        if reading.state is not State.OVER and not reading.is_draining:
            self._restart(reading)
        self._forget(work)

    def not_committed(self, work: Work, now_s: float) -> None:
        """Commit again, later: nobody can tell whether it was done, or the server takes none."""
        reading = work.reading
        if reading.state is State.OVER:
            # The next to lead learns from the checkpoint whether it was.
            self.tally.dropped += 1
            self._forget(work)
        else:
            reading.trouble += 1
            self._set_timer(work, now_s + self._pause_s(reading.trouble))

    # ---- time

    def tick(self, now_s: float) -> None:
        """Let whoever stood back until now go on."""
        while self._timers and self._timers[0][0] <= now_s:
            _, _, waited = heapq.heappop(self._timers)
            if isinstance(waited, Work):
                self._to_commit.append(waited)
            elif waited.state is not State.OVER:
                waited.is_waiting = False
                if waited.state is State.CLAIMING:
                    self._to_claim.append(waited)
                self._make_ready(waited)
                self._queue(waited, now_s)

    def next_due_s(self) -> float | None:
        """Return when `tick` or `take_fetch` have something to do at the latest."""
        due = [self._timers[0][0]] if self._timers else []
        due += [next(iter(self._caught_up.values()))] if self._caught_up else []
        return min(due, default=None)

    def _stand_back(self, reading: Reading, now_s: float) -> None:
        if reading.state is not State.OVER:
            reading.trouble += 1
            self._wait(reading, now_s + self._pause_s(reading.trouble))

    def _wait(self, reading: Reading, until_s: float) -> None:
        reading.is_waiting = True
        if reading.queue is Queue.CAUGHT_UP:
            del self._caught_up[reading]
        reading.queue = None
        self._set_timer(reading, until_s)

    def _set_timer(self, waiting: Reading | Work, until_s: float) -> None:
        self._timer_number += 1
        heapq.heappush(self._timers, (until_s, self._timer_number, waiting))

    def _pause_s(self, failures: int) -> float:
        doublings = min(max(failures - 1, 0), _LONGEST_DOUBLING)
        doubled = self._settings.retry_base_s * 2.0**doublings
        return min(doubled, self._settings.retry_max_s) * self._random.uniform(0.5, 1.0)

    # ---- who has something to do

    @property
    def has_writes(self) -> bool:
        """Whether there are claims or commits to be sent."""
        return bool(self._to_claim or self._to_commit)

    @property
    def has_handed_over(self) -> bool:
        """Whether there are terms to be handed over."""
        return bool(self._handed_over)

    @property
    def ready(self) -> int:
        """How many partitions have a batch for the handler, about."""
        return len(self._ready)

    @property
    def may_fetch(self) -> bool:
        """Whether there are streams known to hold more, and room for it."""
        room = self._settings.max_in_hand - self.in_hand - self._reserved
        return bool(self._behind) and room > 0

    @property
    def may_watch(self) -> bool:
        """Whether there are streams to wait for."""
        return bool(self._caught_up)
