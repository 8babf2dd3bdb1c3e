"""Processes the events of the elections that this node leads.

Rules of this file:
    * The worker reads `is_leader` of the term before it processes a partition. That saves work. The
      fence at the commit makes it safe.
    * A term begins with the checkpoint that is read after the election. From then on, only this
      term's own commits move it. A refused commit ends the term here.
    * A term that drains is handed over at the end of a pass, when all available events are
      committed. No event of it is begun after that.
    * A commit without a reply may have been made, or may still be made. Reading the checkpoint does
      not tell, so the worker resigns the term: only a newer epoch makes the late commit fail.
    * Callbacks only append to a queue. This thread does all work, for many partitions in one call.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, Protocol

from multielect.fencing import Outcome

from ..client import FAILURES
from .checkpoint import Commit
from .stream import handle

if TYPE_CHECKING:
    from collections.abc import Callable

    from .checkpoint import CheckpointStore
    from .stream import EventStream, Replay

MAX_COMMITS_PER_CALL = 100
"""Keeps a call below a millisecond of the server's time."""

_PASS_SECONDS = 0.05
_FREEZE_WITHIN_SECONDS = 1.0

_logger = logging.getLogger(__name__)


class Leadership(Protocol):
    """The part of a term that the worker uses."""

    @property
    def is_leader(self) -> bool:
        """Whether this node leads now."""

    @property
    def epoch(self) -> int:
        """The fencing token."""

    def resign(self) -> object:
        """Give the term up."""

    def finish_drain(self) -> object:
        """Hand the term over."""


class _Partition:
    """A partition that is being processed under one term."""

    __slots__ = ("digest", "next_event", "term")

    def __init__(self, term: Leadership, next_event: int, digest: int) -> None:
        self.term = term
        self.next_event = next_event
        self.digest = digest


class Worker:
    """One pass after another over the partitions that are led and have events available.

    Any thread may call `elected` and `draining`. Everything else belongs to the thread of `run`.
    """

    def __init__(
        self,
        node: str,
        stream: EventStream,
        replay: Replay,
        store: CheckpointStore,
        *,
        now_ns: Callable[[], int],
        freeze: Freeze,
    ) -> None:
        self._node = node
        self._stream = stream
        self._replay = replay
        self._store = store
        self._now_ns = now_ns
        self._freeze = freeze
        self._elected: deque[tuple[int, Leadership]] = deque()
        self._draining: deque[tuple[int, Leadership]] = deque()
        self._led: dict[int, _Partition] = {}
        self._due: dict[int, None] = {}
        self._available = 0
        self._stopping = threading.Event()

    def elected(self, partition: int, term: Leadership) -> None:
        """Take a partition over, from its checkpoint on. Returns at once."""
        self._elected.append((partition, term))

    def draining(self, partition: int, term: Leadership) -> None:
        """Commit the available events of a term, and then hand it over. Returns at once."""
        self._draining.append((partition, term))

    def stop(self) -> None:
        """Let `run` return after the reply to its current call."""
        self._stopping.set()

    def run(self) -> None:
        """Process events until `stop` is called."""
        while not self._stopping.wait(_PASS_SECONDS):
            self.pass_once()

    def pass_once(self) -> None:
        """Process and commit what is available now, and hand over what was draining before."""
        # Counted first, because a term's election comes before its drain.
        draining = len(self._draining)
        try:
            self._take_over()
        except FAILURES as error:
            _logger.warning("could not read checkpoints: %s", error)
            return
        self._find_due()
        while self._due and not self._stopping.is_set():
            self._process_some()
        for _ in range(draining):
            self._hand_over(*self._draining.popleft())
        self._freeze.without_commits()

    def _take_over(self) -> None:
        arrived = [self._elected[place] for place in range(len(self._elected))]
        checkpoints = self._store.read([partition for partition, _ in arrived])
        for (partition, term), checkpoint in zip(arrived, checkpoints, strict=True):
            self._led[partition] = _Partition(term, checkpoint.next_event, checkpoint.digest)
            self._due[partition] = None
            self._elected.popleft()

    def _hand_over(self, partition: int, term: Leadership) -> None:
        state = self._led.get(partition)
        if state is not None and state.term.epoch == term.epoch:
            del self._led[partition]
        term.finish_drain()

    def _find_due(self) -> None:
        available = self._replay.available(self._now_ns())
        partition_of = self._stream.partition_of
        for position in range(self._available, available):
            partition = partition_of[position]
            if partition in self._led:
                self._due[partition] = None
        self._available = available

    def _process_some(self) -> None:
        commits: list[Commit] = []
        while self._due and len(commits) < MAX_COMMITS_PER_CALL:
            partition, _ = self._due.popitem()
            state = self._led[partition]
            if not state.term.is_leader:
                del self._led[partition]
                continue
            commit = self._process(partition, state)
            if commit is not None:
                commits.append(commit)
        if not commits:
            return
        frozen = self._freeze.before_commit(len(commits))
        outcomes = self._commit(commits)
        if frozen:
            self._freeze.after_commit(outcomes)

    def _commit(self, commits: list[Commit]) -> list[Outcome]:
        outcomes = self._store.commit(self._node, commits)
        for commit, outcome in zip(commits, outcomes, strict=True):
            if outcome.is_written:
                self._led[commit.partition].next_event = commit.after
                self._led[commit.partition].digest = commit.digest
                continue
            term = self._led.pop(commit.partition).term
            if not outcome.is_stale:
                term.resign()
        failed = [o.error for o in outcomes if o.error is not None and not o.is_stale]
        if failed:
            _logger.warning("%d commits failed, the first of them: %r", len(failed), failed[0])
        return outcomes

    def _process(self, partition: int, state: _Partition) -> Commit | None:
        stream = self._stream
        first_slot = stream.starts[partition]
        end = stream.count(partition)
        number, digest = state.next_event, state.digest
        while number < end and stream.positions[first_slot + number] < self._available:
            digest = handle(stream.event(first_slot + number), digest)
            number += 1
        if number == state.next_event:
            return None
        return Commit(partition, state.term.epoch, state.next_event, number, digest)


class Freeze:
    """Stops this process on request, at the worst moment.

    That moment is after a leader has processed events and before it sends their commits. When the
    process goes on, it sends the commits as if nothing had happened. If there is nothing to commit
    within a second, the process stops without commits.
    """

    def __init__(
        self,
        now_ns: Callable[[], int],
        stop_process: Callable[[int], None],
        went_on: Callable[[list[Outcome]], None],
    ) -> None:
        """Prepare.

        Args:
            now_ns: reads the clock.
            stop_process: called with the number of commits that wait; returns once the process
                goes on.
            went_on: called with the outcomes of those commits.
        """
        self._now_ns = now_ns
        self._stop_process = stop_process
        self._went_on = went_on
        self._asked = threading.Event()
        self._asked_ns = 0

    def ask(self) -> None:
        """Stop this process soon. Any thread may ask."""
        self._asked_ns = self._now_ns()
        self._asked.set()

    def before_commit(self, commits: int) -> bool:
        """Stop now if asked to, and return whether that was so."""
        if not self._asked.is_set():
            return False
        self._asked.clear()
        self._stop_process(commits)
        return True

    def after_commit(self, outcomes: list[Outcome]) -> None:
        """Report the outcomes of the commits that waited."""
        self._went_on(outcomes)

    def without_commits(self) -> None:
        """Stop now if asked to and there has been nothing to commit for a second."""
        if not self._asked.is_set():
            return
        if self._now_ns() - self._asked_ns > _FREEZE_WITHIN_SECONDS * 1e9:
            self.before_commit(0)
            self.after_commit([])
