"""What is asked of Redis for a flow, and what follows from each answer.

Rules of this file:
    * Nothing here waits, or knows who does. What changes the flow is marked, and is called by one
      at a time.
    * Whatever comes back, or does not, the flow goes on: nobody else answers for what was asked.
    * What goes wrong again and again is reported at the 1st, 2nd, 4th, 8th ... time.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import redis

from .._writes import Outcome, Write
from ..errors import ConnectionLostError, HandlerError, MultielectError, ServerError
from ._clients import WATCH_MS
from ._commits import (
    Answer,
    answer_to_claim,
    answer_to_commit,
    claim,
    commit,
    dead_letter,
    is_of_the_server,
)
from ._entries import entries_of
from ._flow import Flow, Writes
from ._reading import Ask, Reading, Work

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0

PACE_S = 20e-6
"""How long to stand back a stream, after waiting for many brought something of few."""

_NOT_REACHED = (redis.ConnectionError, redis.TimeoutError, OSError)


class Pauses:
    """How long one reader waits after each failure in a row."""

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


class Next(NamedTuple):
    """What a reader does after a request.

    Attributes:
        pause_s: how long it waits.
        asks: what it asks for then.
    """

    pause_s: float = 0.0
    asks: Sequence[Ask] = ()


class Exchange:
    """Requests for a flow, and their answers."""

    def __init__(
        self,
        flow: Flow,
        *,
        start: str,
        dead_letters: bytes,
        checkpoint_key: Callable[[str], bytes],
        report: Callable[[MultielectError], None],
    ) -> None:
        self._flow = flow
        self._start = start
        self._dead_letters = dead_letters
        self._checkpoint_key = checkpoint_key
        self._report = report
        self.is_over = False

    # ---- reading

    @staticmethod
    def command(ask: Ask) -> tuple[Any, ...]:
        """Return the command that makes a request."""
        waiting = ("BLOCK", WATCH_MS) if ask.is_watch else ()
        return ("XREAD", "COUNT", ask.count, *waiting, "STREAMS", *ask.streams, *ask.positions)

    def answered(self, ask: Ask, reply: Any, pauses: Pauses) -> Next:  # noqa: ANN401
        """Take what a request brought. Changes the flow."""
        try:
            found = entries_of(reply)
        except Exception as error:  # noqa: BLE001  # no reply that XREAD gives
            return self.unanswered(ask, error, pauses)
        pauses.reset()
        self._flow.fetched(ask, found, time.monotonic())
        return Next(len(ask.readings) * PACE_S if ask.is_watch and found else 0.0)

    def unanswered(self, ask: Ask, error: Exception, pauses: Pauses) -> Next:
        """Go on after a request that failed. Changes the flow."""
        if isinstance(error, redis.ResponseError) and not is_of_the_server(error):
            return self._find_unreadable(ask, error)
        self._flow.unread(ask, time.monotonic())
        if pauses.is_first and not self.is_over:
            self._report(_as_ours(error, "read", 0))
        return Next(pauses.take())

    def _find_unreadable(self, ask: Ask, error: redis.ResponseError) -> Next:
        """Read the others: one stream that cannot be read keeps none of them back."""
        if len(ask.readings) > 1:
            return Next(asks=self._flow.split(ask))
        self._flow.unreadable(ask, time.monotonic())
        if _is_told(ask.readings[0]):
            ours = MultielectError(f"cannot read the stream {ask.streams[0]!r}: {error}")
            ours.__cause__ = error
            self._report(ours)
        return Next()

    # ---- handlers

    def failed(self, work: Work, error: BaseException) -> None:
        """Decide what becomes of a batch that failed. Changes the flow."""
        reading = work.reading
        outcome = self._flow.failed(work, error, time.monotonic())
        ids = work.entries[0].id, work.through
        report = HandlerError(reading.partition.key, reading.term.epoch, ids, work.attempt, outcome)
        report.__cause__ = error
        self._report(report)

    # ---- writing

    def written(self, due: Writes) -> list[Write]:
        """Return the writes that make these claims and commits."""
        writes = [
            claim(reading, self._checkpoint_key(reading.partition.key), self._start)
            for reading in due.claims
        ]
        for work in due.commits:
            if work.commit is None:
                aside = dead_letter(work, self._dead_letters)
                key = self._checkpoint_key(work.reading.partition.key)
                work.commit = commit(work, key, [aside])
                work.has_steps = True
            writes.append(work.commit)
        return writes

    @staticmethod
    def unwritten(due: Writes, error: Exception) -> list[Outcome]:
        """Return the outcomes where nobody can tell."""
        return [Outcome(error=error)] * (len(due.claims) + len(due.commits))

    def settled(self, due: Writes, outcomes: Sequence[Outcome]) -> None:
        """Go on after claims and commits were answered. Changes the flow."""
        now_s = time.monotonic()
        unknown: list[Exception] = []
        for reading, outcome in zip(due.claims, outcomes, strict=False):
            answer, checkpoint = answer_to_claim(outcome)
            if answer is Answer.DONE:
                self._flow.claimed(reading, checkpoint)
            elif answer is Answer.STALE:
                self._flow.stale(reading)
            else:
                self._flow.not_claimed(reading, now_s)
                unknown += self._in_common(reading, outcome)
        for work, outcome in zip(due.commits, outcomes[len(due.claims) :], strict=True):
            self._settle(work, outcome, unknown, now_s)
        if unknown and not self.is_over:
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
            self.failed(work, outcome.error)
        else:
            self._flow.not_committed(work, now_s)
            unknown += self._in_common(work.reading, outcome)

    def _in_common(self, reading: Reading, outcome: Outcome) -> list[Exception]:
        """Report what is wrong with one partition; return what is told of all at once."""
        error = outcome.error
        if error is None or not _is_told(reading):
            return []
        if type(error) is not redis.ResponseError or is_of_the_server(error):
            return [error]
        ours = MultielectError(f"cannot go on with partition {reading.partition.key!r}: {error}")
        ours.__cause__ = error
        self._report(ours)
        return []


def _is_told(reading: Reading) -> bool:
    """Whether what has gone wrong so often in a row is reported this time."""
    return reading.trouble.bit_count() == 1


def _as_ours(error: Exception, request: str, elections: int) -> MultielectError:
    ours: MultielectError
    if isinstance(error, _NOT_REACHED):
        ours = ConnectionLostError(f"cannot {request}: {error}")
    elif isinstance(error, redis.ResponseError):
        ours = ServerError(str(error), request=request, elections=elections)
    else:
        ours = MultielectError(f"cannot {request}: {error!r}")
    ours.__cause__ = error
    return ours
