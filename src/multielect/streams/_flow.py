"""The flow: decides what to hand out next, what to commit, and under which terms.

Rules of this file:
    * No I/O, no clock, no threads, no random numbers of its own. The caller passes the time. Two
      shells, one with threads and one for asyncio, carry out the decisions, one call at a time.
    * At most one batch of a partition is at the handler or being committed, even if its term ends
      meanwhile. So entries are handled in order and never at once.
    * `_intake` decides what to read and how much of it, and `_stalls` which handlers are stuck.
    * The flow forgets a batch only when its commit was answered, or can have no effect any more. A
      commit without an answer is sent again: the checkpoint in it makes that harmless.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal, NamedTuple

from .._connection.backoff import pause_s
from ..fencing._writes import Write
from ._entries import Entry
from ._intake import POLL_S, Intake
from ._known import Known
from ._reading import Ask, Leadership, Partition, Phase, Reading, State, Work
from ._settings import FlowSettings
from ._stalls import Stalls
from ._tally import Tally
from ._timers import Timers

MAX_WRITES = 1_000

TROUBLE_BASE_S = 0.05
TROUBLE_MAX_S = 2.0
"""The pauses before a claim or a commit without an answer is sent again."""

Verdict = Literal["retry", "dead-letter", "halt", "dropped"]
"""What to do with a batch that failed."""


class Writes(NamedTuple):
    """What to write to Redis now, for many partitions at once.

    Attributes:
        claims: the readings whose checkpoints to ask for.
        commits: the batches to commit.
        handed_over: the terms to hand over, if they drain.
    """

    claims: Sequence[Reading]
    commits: Sequence[Work]
    handed_over: Sequence[Leadership]


class Flow:
    """The flow of entries from streams to handlers to checkpoints."""

    def __init__(self, settings: FlowSettings, randomness: random.Random) -> None:
        self._settings = settings
        self._intake = Intake(settings)
        self._timers: Timers[Reading | Work] = Timers()
        self._pause_s = partial(pause_s, chance=randomness.random)
        self._known = Known()
        self.tally = Tally()
        self.is_closing = False
        self._stalls = Stalls()
        self._at_work = 0
        self._to_claim: deque[Reading] = deque()
        self._ready: deque[Partition] = deque()
        self._to_commit: deque[Work] = deque()
        self._handed_over: list[Leadership] = []

    # ---- partitions and terms

    @property
    def partitions(self) -> Mapping[str, Partition]:
        """The partitions that this node knows."""
        return self._known.partitions

    def add(self, key: str, stream: bytes) -> bool:
        """Add a partition. Returns whether it is new.

        Raises:
            ConfigError: if the key has another stream, or the stream another key.
        """
        return self._known.add(key, stream)

    def remove(self, key: str) -> None:
        """Remove a partition. Its batch, if one is at work, is still finished.

        Raises:
            KeyError: if no partition has this key.
        """
        self._end(self._known.remove(key).reading)

    def elected(self, term: Leadership) -> None:
        """Begin to read a partition under a new term."""
        partition = self.partitions.get(term.key)
        if partition is None:
            return
        current = partition.reading
        if current is not None and current.term.epoch > term.epoch:
            # The partition was added again, and this is a late event of its earlier election.
            return
        self._end(current)
        if self.is_closing:
            self._handed_over.append(term)
            return
        self._begin(partition, term)

    def draining(self, term: Leadership) -> None:
        """Hand a term over as soon as no batch of it is at work."""
        reading = self._reading_of(term)
        if reading is None:
            self._handed_over.append(term)
        else:
            self._drain(reading)

    def demoted(self, term: Leadership) -> None:
        """Stop to read under a term that has ended. A batch at work is still finished."""
        self._end(self._reading_of(term))

    def drain_all(self) -> None:
        """Begin no new batch, and hand over all terms. `is_at_rest` says when that is done."""
        self.is_closing = True
        for partition in self.partitions.values():
            if partition.reading is not None:
                self._drain(partition.reading)

    @property
    def is_at_rest(self) -> bool:
        """Whether no batch is at a handler or being committed."""
        return self._at_work == 0

    def resume(self, key: str) -> bool:
        """Let a halted partition go on. Returns whether it was halted.

        Raises:
            KeyError: if no partition has this key.
        """
        partition = self.partitions[key]
        reading = partition.reading
        if reading is None or reading.state is not State.HALTED:
            return False
        self._restart(reading)
        return True

    def send_heartbeats(self, now_s: float, stall_s: float) -> None:
        """Send the heartbeats of all terms, except those whose handlers run or are stuck.

        A running handler sends its own heartbeats. A partition that waits for a handler gets none
        while the handlers are stuck.
        """
        are_stuck = self._stalls.are_stuck(now_s, stall_s)
        for partition in self.partitions.values():
            work = partition.work
            if partition.reading is None or (work is not None and work.phase is Phase.HANDLING):
                continue
            if not (are_stuck and partition.is_queued):
                partition.reading.term.heartbeat()

    def _reading_of(self, term: Leadership) -> Reading | None:
        partition = self.partitions.get(term.key)
        reading = None if partition is None else partition.reading
        return reading if reading is not None and reading.term.epoch == term.epoch else None

    def _begin(self, partition: Partition, term: Leadership) -> None:
        partition.reading = Reading(partition, term)
        self._intake.led += 1
        self._to_claim.append(partition.reading)

    def _drain(self, reading: Reading) -> None:
        if reading.is_draining:
            return
        reading.is_draining = True
        # The next leader handles the entries that were read and not handed out.
        self._intake.drop(reading)
        work = reading.partition.work
        if work is None or work.reading is not reading:
            self._hand_over(reading)
        elif work.is_waiting:
            # The term may not last until its pause is over.
            work.is_waiting = False
            self._to_commit.append(work)

    def _hand_over(self, reading: Reading) -> None:
        self._end(reading)
        self._handed_over.append(reading.term)

    def _end(self, reading: Reading | None) -> None:
        if reading is None or reading.state is State.OVER:
            return
        self._intake.drop(reading)
        self._intake.unqueue(reading)
        self._intake.led -= 1
        reading.state = State.OVER
        reading.partition.reading = None

    def _restart(self, reading: Reading) -> None:
        """Begin anew at the checkpoint, under the same term."""
        self._end(reading)
        self._begin(reading.partition, reading.term)

    # ---- claims: where to begin

    def _take_claims(self) -> list[Reading]:
        taken: list[Reading] = []
        while self._to_claim and len(taken) < MAX_WRITES:
            reading = self._to_claim.popleft()
            if reading.state is State.CLAIMING and not reading.is_draining:
                taken.append(reading)
        return taken

    def claimed(self, reading: Reading, checkpoint: str) -> None:
        """Begin to read after the checkpoint."""
        if reading.state is not State.CLAIMING or reading.is_draining:
            return
        reading.state = State.READING
        reading.trouble = 0
        reading.checkpoint = reading.position = checkpoint
        self._intake.queue(reading, 0.0)

    def not_claimed(self, reading: Reading, now_s: float) -> None:
        """Ask for the checkpoint again later."""
        self._retry_later(reading, now_s, TROUBLE_BASE_S, TROUBLE_MAX_S)

    def stale(self, reading: Reading) -> None:
        """Stop to read, as a newer epoch is known. The node has not ended the term yet."""
        self._end(reading)

    # ---- reading

    def take_fetch(self) -> Ask | None:
        """Return a request for entries that are there, or None."""
        return self._intake.take_fetch()

    def take_watch(self) -> Ask | None:
        """Return a request that waits for new entries, or None."""
        return self._intake.take_watch()

    def split(self, ask: Ask) -> tuple[Ask, Ask]:
        """Return two halves of a failed request, to find out which stream made it fail."""
        return self._intake.split(ask)

    def fetched(self, ask: Ask, found: Mapping[bytes, list[Entry]], now_s: float) -> None:
        """Take the entries that a request brought."""
        self._intake.end(ask)
        for reading, position in zip(ask.readings, ask.positions, strict=True):
            if reading.state is not State.READING or reading.is_draining:
                continue
            if reading.position != position:
                # The reading went back to its checkpoint meanwhile.
                self._intake.queue(reading, now_s)
                continue
            reading.trouble = 0
            self._intake.take_in(reading, found.get(reading.partition.stream, []), ask.count)
            self._make_ready(reading)
            self._intake.queue(reading, now_s + POLL_S)

    def unread(self, ask: Ask, now_s: float) -> None:
        """Ask again, as the server could not be reached or refused for now."""
        self._intake.end(ask)
        for reading in ask.readings:
            self._intake.queue(reading, now_s)

    def unreadable(self, ask: Ask, now_s: float) -> None:
        """Ask again later for the one stream that cannot be read."""
        self._intake.end(ask)
        for reading in ask.readings:
            reading.is_caught_up = False
            settings = self._settings
            self._retry_later(reading, now_s, settings.retry_base_s, settings.retry_max_s)

    # ---- handling

    def _make_ready(self, reading: Reading) -> None:
        partition = reading.partition
        if not partition.is_queued and partition.work is None and reading.in_hand:
            partition.is_queued = True
            self._ready.append(partition)

    def take_work(self) -> Work | None:
        """Return a batch for the handler, or None."""
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
                # The term has ended; its demotion comes later and drops these entries.
                or not reading.term.is_leader
            ):
                continue
            size = min(1 if reading.alone else self._settings.batch, len(reading.in_hand))
            entries = [reading.in_hand.popleft() for _ in range(size)]
            partition.work = Work(reading, entries, reading.failures + 1, reading.checkpoint)
            self._at_work += 1
            self._stalls.at_handlers += 1
            return partition.work
        return None

    def handled(self, work: Work, commit: Write) -> None:
        """Commit a batch that the handler has finished."""
        work.commit = commit
        self._commit(work)

    def failed(self, work: Work, error: BaseException, now_s: float) -> Verdict:
        """Decide what to do with a batch on which the handler failed."""
        self.tally.failures += 1
        self._leave_handler(work)
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
                work.cause = error
                work.commit = None
                self._commit(work)
                return "dead-letter"
        else:
            # Hand the entries out one by one, to find the one that fails.
            reading.alone = len(work.entries)
        self._intake.rewind(reading)
        settings = self._settings
        wait_s = self._pause_s(
            reading.failures, first_s=settings.retry_base_s, max_s=settings.retry_max_s
        )
        self._wait(reading, now_s + wait_s)
        self._forget(work)
        return "retry"

    def _halt(self, reading: Reading) -> None:
        self._intake.drop(reading)
        self._intake.unqueue(reading)
        reading.state = State.HALTED

    def _commit(self, work: Work) -> None:
        self._leave_handler(work)
        work.phase = Phase.COMMITTING
        self._to_commit.append(work)

    def _leave_handler(self, work: Work) -> None:
        if work.phase is Phase.HANDLING:
            work.phase = Phase.DONE
            self._stalls.at_handlers -= 1
            self._stalls.returns += 1

    def _forget(self, work: Work) -> None:
        """Forget a batch. The next batch of its partition may begin, also under a newer term."""
        self._intake.in_hand -= len(work.entries)
        self._at_work -= 1
        reading = work.reading
        partition = self._known.let_go(work)
        if reading.is_draining and reading.state is not State.OVER:
            self._hand_over(reading)
        current = partition.reading
        if current is not None and current.state is State.READING:
            self._make_ready(current)
            # The partition may have had no room for more entries until now.
            self._intake.queue(current, 0.0)

    # ---- writes

    @property
    def has_writes(self) -> bool:
        """Whether `take_writes` probably has something to return."""
        return bool(self._to_claim or self._to_commit or self._handed_over)

    def take_writes(self) -> Writes | None:
        """Return what to write or hand over now, or None."""
        size = min(MAX_WRITES, len(self._to_commit))
        commits = [self._to_commit.popleft() for _ in range(size)]
        handed_over, self._handed_over = self._handed_over, []
        taken = Writes(self._take_claims(), commits, handed_over)
        return taken if any(taken) else None

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
        """Drop a batch that was refused for a newer epoch."""
        self.tally.dropped += 1
        self._leave_handler(work)
        self._end(work.reading)
        self._forget(work)

    def moved(self, work: Work) -> None:
        """Begin anew at the checkpoint, which another program has set meanwhile."""
        self.tally.dropped += 1
        reading = work.reading
        if reading.state is not State.OVER and not reading.is_draining:
            self._restart(reading)
        self._forget(work)

    def not_committed(self, work: Work, now_s: float) -> None:
        """Commit again later, as the outcome is unknown or the server takes no writes."""
        reading = work.reading
        if reading.state is State.OVER:
            # The next leader learns from the checkpoint whether the commit was made.
            self.tally.dropped += 1
            self._forget(work)
        else:
            reading.trouble += 1
            work.is_waiting = True
            wait_s = self._pause_s(reading.trouble, first_s=TROUBLE_BASE_S, max_s=TROUBLE_MAX_S)
            self._timers.set(work, now_s + wait_s)

    # ---- time

    def tick(self, now_s: float) -> None:
        """Resume the readings and commits whose pause is over."""
        for waited in self._timers.due(now_s):
            if isinstance(waited, Work):
                if waited.is_waiting:
                    waited.is_waiting = False
                    self._to_commit.append(waited)
            elif waited.state is not State.OVER:
                waited.is_waiting = False
                if waited.state is State.CLAIMING:
                    self._to_claim.append(waited)
                self._make_ready(waited)
                self._intake.queue(waited, now_s)
        self._intake.tick(now_s)

    def next_due_s(self) -> float | None:
        """Return when `tick` has something to do; None if nothing waits."""
        due = [at_s for at_s in (self._timers.next_s, self._intake.next_s) if at_s is not None]
        return min(due, default=None)

    def _retry_later(self, reading: Reading, now_s: float, base_s: float, max_s: float) -> None:
        if reading.state is not State.OVER:
            reading.trouble += 1
            wait_s = self._pause_s(reading.trouble, first_s=base_s, max_s=max_s)
            self._wait(reading, now_s + wait_s)

    def _wait(self, reading: Reading, until_s: float) -> None:
        reading.is_waiting = True
        self._intake.unqueue(reading)
        self._timers.set(reading, until_s)

    # ---- what there is to do

    @property
    def ready(self) -> int:
        """About how many partitions have a batch for the handler."""
        return len(self._ready)

    @property
    def may_fetch(self) -> bool:
        """Whether there are streams to fetch from, and room for their entries."""
        return self._intake.may_fetch

    @property
    def may_watch(self) -> bool:
        """Whether there are streams to wait for, and room for their entries."""
        return self._intake.may_watch

    @property
    def in_hand(self) -> int:
        """How many entries are in memory."""
        return self._intake.in_hand
