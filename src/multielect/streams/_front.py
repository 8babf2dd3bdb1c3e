"""What both consumers are, but for waiting: settings, what users see, the steps of the flow.

Rules of this file:
    * Nothing here waits. A shell calls what changes the flow one at a time: the one of threads
      with its mutex held, the one of asyncio in its loop.
    * What a user's function did is told through `on_error`, and harms nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import redis

from .._front import GroupFront
from .._settings import checked_count, checked_timeout
from .._writes import Outcome, Write
from ..errors import (
    ClosedError,
    ConfigError,
    ConnectionLostError,
    HandlerError,
    MultielectError,
    ServerError,
)
from ..fencing import AsyncFence, Fence
from ._batch import Batch
from ._commits import Answer, answer_to_claim, answer_to_commit, claim, commit, dead_letter
from ._flow import POLL_S, Flow, Tally
from ._lag import Lag, chunks, lag_of
from ._reading import Ask, Leadership, Reading, Work
from ._settings import (
    FlowSettings,
    OnFailure,
    Partitions,
    checked_group_options,
    checked_pause,
    checked_stream,
    listed,
)

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0

PACE_S = 20e-6
"""How long to stand back a stream, after waiting for many brought something of few."""

NOT_REACHED = (redis.ConnectionError, redis.TimeoutError, OSError)

F = TypeVar("F", bound=Fence | AsyncFence)
G = TypeVar("G", bound=GroupFront[Any])


class Pauses:
    """How long to wait after each failure in a row."""

    def __init__(self) -> None:
        self._next_s = FIRST_PAUSE_S

    @property
    def is_first(self) -> bool:
        """Whether nothing has failed since `reset`."""
        return self._next_s == FIRST_PAUSE_S

    def reset(self) -> None:
        """Begin again: it worked."""
        self._next_s = FIRST_PAUSE_S

    def take(self) -> float:
        """Return the next pause, in seconds."""
        pause_s = self._next_s * random.uniform(0.5, 1.0)  # noqa: S311
        self._next_s = min(2 * self._next_s, LONGEST_PAUSE_S)
        return pause_s


class ConsumerFront(Generic[G, F]):
    """What a consumer of streams is, whichever way it waits."""

    _group: G
    _fence: F

    def __init__(
        self,
        *,
        prefix: str,
        partitions: Partitions,
        handler: Any,  # noqa: ANN401
        batch: int,
        handlers: int,
        most_handlers: int,
        readers: int,
        max_in_hand: int,
        start: str,
        attempts: int,
        retry_base: float,
        retry_max: float,
        on_failure: OnFailure,
        dead_letters: str | bytes | None,
        discover: float,
        drain_timeout: float,
        max_stall: float | None,
        group: Mapping[str, Any],
    ) -> None:
        if not callable(handler):
            raise ConfigError(f"handler must be a function that takes a Batch, not {handler!r}")
        self._handler = handler
        self._settings = FlowSettings.checked(
            batch=batch,
            max_in_hand=max_in_hand,
            readers=readers,
            attempts=attempts,
            retry_base=retry_base,
            retry_max=retry_max,
            on_failure=on_failure,
            start=start,
        )
        self._handlers = checked_count("handlers", handlers, most_handlers)
        self._discover_s = checked_pause("discover", discover)
        self._drain_timeout_s = checked_timeout(drain_timeout)
        self._stall_s = max_stall
        self._dead_letters = checked_stream(
            f"{prefix}:dead-letters" if dead_letters is None else dead_letters
        )
        checked_group_options(group)
        self._flow = Flow(self._settings, random.Random())  # noqa: S311
        self._list = partitions if callable(partitions) else None
        self._known = {} if callable(partitions) else listed(partitions)
        for key, stream in self._known.items():
            self._flow.add(key, stream)
        self._logger = logging.getLogger("multielect")

    # ---- what users see

    @property
    def group(self) -> G:
        """The elections: who leads which partition. The consumer starts and stops it."""
        return self._group

    @property
    def fence(self) -> F:
        """The fence that the checkpoints are written through."""
        return self._fence

    @property
    def partitions(self) -> dict[str, bytes]:
        """The stream of each partition known now."""
        return {key: known.stream for key, known in tuple(self._flow.partitions.items())}

    @property
    def dead_letters(self) -> bytes:
        """The stream in which entries are set aside."""
        return self._dead_letters

    @property
    def tally(self) -> Tally:
        """What this consumer has done so far."""
        return self._flow.tally

    @property
    def in_hand(self) -> int:
        """How many entries are in memory now."""
        return self._flow.in_hand

    def checkpoint_key(self, key: str) -> bytes:
        """Return the Redis key of a partition's checkpoint, a hash.

        Its field ``id`` is that of the last entry that was processed, ``epoch`` the epoch that
        did so.

        Raises:
            ConfigError: for a key that is not allowed.
        """
        return self._fence.data_key(key, "checkpoint")

    def __repr__(self) -> str:
        count = len(self._flow.partitions)
        return f"<{type(self).__name__} {self._group.prefix!r}: {count} partitions>"

    # ---- steps of the flow; those that change it are marked

    def _new_partitions(self, found: Any) -> list[str]:  # noqa: ANN401
        """Know what was listed; returns the new keys. Changes the flow."""
        new = []
        for key, stream in listed(found).items():
            try:
                if self._flow.add(key, stream):
                    new.append(key)
            except ConfigError as error:
                self._report(error)
        return new

    def _lag_questions(
        self, keys: Iterable[str] | None
    ) -> Iterator[tuple[Sequence[str], list[bytes]]]:
        """Divide keys into what one script serves, each part with the names it is given.

        Raises:
            KeyError: for a key that is not known.
        """
        streams = self.partitions
        for part in chunks(list(streams if keys is None else keys)):
            yield part, [name for key in part for name in (self.checkpoint_key(key), streams[key])]

    def _lags(self, keys: Sequence[str], replies: Sequence[Any]) -> dict[str, Lag]:
        pairs = zip(keys, replies, strict=True)
        return {key: lag_of(reply, self._settings.start) for key, reply in pairs}

    def _idle_s(self, now_s: float) -> float | None:
        """Return how long there is nothing to fetch and nobody to be kept alive."""
        due_s = self._flow.next_due_s()
        waits = [] if due_s is None else [max(due_s - now_s, POLL_S / 10)]
        waits += [] if self._stall_s is None else [self._stall_s / 4]
        return min(waits, default=None)

    def _finished(self, work: Work, batch: Batch[F]) -> Write:
        """Return the commit of a batch that was handled.

        Raises:
            ConfigError: for more than a commit can hold.
        """
        steps = batch._close()
        work.has_steps = bool(steps)
        return commit(work, self.checkpoint_key(batch.key), steps)

    def _failed(self, work: Work, error: BaseException) -> None:
        """Decide what becomes of a batch that failed. Changes the flow."""
        reading = work.reading
        outcome = self._flow.failed(work, error, time.monotonic())
        ids = work.entries[0].id, work.through
        report = HandlerError(reading.partition.key, ids, work.attempt, outcome)
        report.__cause__ = error
        self._report(report)

    def _written(self, claims: Sequence[Reading], works: Sequence[Work]) -> list[Write]:
        """Return the writes that make these claims and commits."""
        start = self._settings.start
        writes = [
            claim(reading, self.checkpoint_key(reading.partition.key), start) for reading in claims
        ]
        for work in works:
            if work.commit is None:
                aside = dead_letter(work, self._dead_letters)
                key = self.checkpoint_key(work.reading.partition.key)
                work.commit = commit(work, key, [aside])
                work.has_steps = True
            writes.append(work.commit)
        return writes

    def _settled(
        self, claims: Sequence[Reading], works: Sequence[Work], outcomes: Sequence[Outcome]
    ) -> None:
        """Go on after claims and commits were answered. Changes the flow."""
        now_s = time.monotonic()
        unknown: list[Exception] = []
        for reading, outcome in zip(claims, outcomes, strict=False):
            answer, checkpoint = answer_to_claim(outcome)
            if answer is Answer.DONE:
                self._flow.claimed(reading, checkpoint)
            elif answer is Answer.STALE:
                self._flow.stale(reading)
            else:
                unknown += [outcome.error] if outcome.error else []
                self._flow.not_claimed(reading, now_s)
        for work, outcome in zip(works, outcomes[len(claims) :], strict=True):
            self._settle(work, outcome, unknown, now_s)
        if unknown:
            self._report(_as_ours(unknown[0], "commit", len(unknown)))

    def _settle(self, work: Work, outcome: Outcome, unknown: list[Exception], now_s: float) -> None:
        answer = answer_to_commit(outcome, has_steps=work.has_steps)
        if answer is Answer.DONE:
            self._flow.committed(work)
        elif answer is Answer.STALE:
            self._flow.refused(work)
        elif answer is Answer.MOVED:
            self._flow.moved(work)
            key = work.reading.partition.key
            self._report(
                MultielectError(f"the checkpoint of {key!r} was moved by others: reading it again")
            )
        elif answer is Answer.BLAMED and work.cause is None:
            assert outcome.error is not None
            self._failed(work, outcome.error)
        else:
            unknown += [outcome.error] if outcome.error else []
            self._flow.not_committed(work, now_s)

    def _report(self, error: MultielectError) -> None:
        self._group._node.report(error)

    def _report_listing(self, error: Exception) -> None:
        ours = MultielectError(f"cannot list the partitions: {error!r}")
        ours.__cause__ = error
        self._report(ours)

    def _all_failed(self, error: Exception, count: int) -> list[Outcome]:
        return [Outcome(error=error)] * count

    def _report_unread(self, error: Exception, pauses: Pauses) -> None:
        if pauses.is_first:
            self._report(_as_ours(error, "read", 0))


def hand_over(terms: Iterable[Leadership]) -> None:
    """Hand over the terms that drain; of others there is nothing to do yet."""
    for term in terms:
        with contextlib.suppress(ClosedError):
            term.drained()


def command_of(ask: Ask, wait_ms: int) -> tuple[Any, ...]:
    """Return the command that makes a request."""
    waiting = ("BLOCK", wait_ms) if ask.is_watch else ()
    return ("XREAD", "COUNT", ask.count, *waiting, "STREAMS", *ask.streams, *ask.positions)


def unreadable(ask: Ask, error: redis.ResponseError) -> MultielectError:
    """Return the error that says that a stream cannot be read."""
    ours = MultielectError(f"cannot read the stream {ask.streams[0]!r}: {error}")
    ours.__cause__ = error
    return ours


def _as_ours(error: Exception, request: str, elections: int) -> MultielectError:
    ours: MultielectError
    if isinstance(error, NOT_REACHED):
        ours = ConnectionLostError(f"cannot {request}: {error}")
    elif isinstance(error, redis.ResponseError):
        ours = ServerError(str(error), request=request, elections=elections)
    else:
        ours = MultielectError(f"cannot {request}: {error!r}")
    ours.__cause__ = error
    return ours
