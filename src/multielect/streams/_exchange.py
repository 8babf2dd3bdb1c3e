"""The requests of a flow to Redis, and what follows from each reply.

Rules of this file:
    * Nothing here waits. Methods that change the flow say so; callers make one such call at a time.
    * The flow goes on after every reply, error and lost reply. Nothing else would resume it.
    * An error is reported once for all partitions that it concerns, and less and less often while
      it lasts: see `_troubles`.
    * If the server refuses a request for a missing right or for lack of memory, the handler has not
      failed. The request is repeated until the server takes it.
    * When a newer epoch is known, the term is given up. Otherwise its node would go on to lead, and
      nobody would read. The next term begins at the checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import redis

from .._connection.backoff import Pauses
from .._protocol.refusals import refusal_in
from .._runtime.foreign import in_words
from ..errors import (
    ConnectionLostError,
    HandlerError,
    MultielectError,
    ServerError,
    StaleEpochError,
)
from ..fencing._writes import Outcome, Write
from ._clients import WATCH_MS
from ._commits import (
    Answer,
    answer_to_claim,
    answer_to_commit,
    claim,
    commit,
    dead_letter,
    is_of_the_server,
    server_text,
)
from ._entries import entries_of
from ._flow import Flow, Writes
from ._reading import Ask, Reading, Work
from ._troubles import Troubles, partitions

PACE_S = 20e-6
"""The pause for each stream after a request that waited for many streams brought entries."""

_NOT_REACHED = (redis.ConnectionError, redis.TimeoutError, OSError)


class _MovedError(Exception):
    """Another program set the checkpoint."""


class Next(NamedTuple):
    """What a reader does after a request.

    Attributes:
        pause_s: how long the reader pauses.
        asks: the requests that it makes then.
    """

    pause_s: float = 0.0
    asks: Sequence[Ask] = ()


class Exchange:
    """The requests of a flow, and their replies."""

    def __init__(
        self,
        flow: Flow,
        *,
        prefix: str,
        start: str,
        dead_letters: bytes,
        checkpoint_key: Callable[[str], bytes],
        report: Callable[[MultielectError], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._flow = flow
        self._prefix = prefix
        self._start = start
        self._dead_letters = dead_letters
        self._checkpoint_key = checkpoint_key
        self._report = report
        self._now_s = clock
        self._troubles = Troubles()
        self.is_over = False

    # ---- reading

    @staticmethod
    def command(ask: Ask) -> tuple[Any, ...]:
        """Return the command that makes a request."""
        waiting = ("BLOCK", WATCH_MS) if ask.is_watch else ()
        return ("XREAD", "COUNT", ask.count, *waiting, "STREAMS", *ask.streams, *ask.positions)

    def answered(self, ask: Ask, reply: Any, pauses: Pauses) -> Next:  # noqa: ANN401
        """Take the reply to a request. Changes the flow."""
        try:
            found = entries_of(reply)
        except Exception as error:  # noqa: BLE001  # not a reply to XREAD
            return self.unanswered(ask, error, pauses)
        pauses.reset()
        self._flow.fetched(ask, found, self._now_s())
        return Next(len(ask.readings) * PACE_S if ask.is_watch and found else 0.0)

    def unanswered(self, ask: Ask, error: Exception, pauses: Pauses) -> Next:
        """Go on after a request that failed. Changes the flow."""
        if isinstance(error, redis.ResponseError) and not is_of_the_server(error):
            return self._find_unreadable(ask, error)
        self._flow.unread(ask, self._now_s())
        self._report_trouble("read", error, [reading.partition.key for reading in ask.readings])
        return Next(pauses.take())

    def _find_unreadable(self, ask: Ask, error: redis.ResponseError) -> Next:
        """Divide the request, so that one stream that cannot be read stops no other stream."""
        if len(ask.readings) > 1:
            return Next(asks=self._flow.split(ask))
        self._flow.unreadable(ask, self._now_s())
        self._report_trouble("read", error, [ask.readings[0].partition.key])
        return Next()

    # ---- handlers

    def failed(self, work: Work, error: BaseException) -> None:
        """Decide what to do with a batch that failed. Changes the flow."""
        reading = work.reading
        if isinstance(error, StaleEpochError) and _is_of(error, reading):
            # A fence that the handler used raised this. Any further attempt would fail too.
            self._flow.refused(work)
            self._supersede([(reading, error)])
            return
        outcome = self._flow.failed(work, error, self._now_s())
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
        """Return the outcomes of writes after an error: all are unknown."""
        return [Outcome(error=error)] * (len(due.claims) + len(due.commits))

    def settled(self, due: Writes, outcomes: Sequence[Outcome]) -> None:
        """Go on after claims and commits were answered. Changes the flow."""
        now_s = self._now_s()
        troubles: list[tuple[str, Reading, Exception]] = []
        stale: list[tuple[Reading, StaleEpochError]] = []
        for reading, outcome in zip(due.claims, outcomes, strict=False):
            answer, checkpoint = answer_to_claim(outcome)
            if answer is Answer.DONE:
                self._flow.claimed(reading, checkpoint)
            elif answer is Answer.STALE:
                self._flow.stale(reading)
                stale += _stale(reading, outcome)
            else:
                self._flow.not_claimed(reading, now_s)
                troubles += _trouble("claim", reading, outcome)
        for work, outcome in zip(due.commits, outcomes[len(due.claims) :], strict=True):
            self._settle(work, outcome, troubles, now_s)
            stale += _stale(work.reading, outcome)
        self._supersede(stale)
        self._report_all(troubles)

    def _settle(
        self,
        work: Work,
        outcome: Outcome,
        troubles: list[tuple[str, Reading, Exception]],
        now_s: float,
    ) -> None:
        answer = answer_to_commit(outcome, has_steps=work.has_steps)
        if answer is Answer.DONE:
            self._flow.committed(work)
        elif answer is Answer.STALE:
            self._flow.refused(work)
        elif answer is Answer.MOVED:
            self._flow.moved(work)
            troubles.append(("commit", work.reading, _MovedError()))
        elif answer is Answer.BLAMED and work.cause is None:
            assert outcome.error is not None
            self.failed(work, outcome.error)
        else:
            self._flow.not_committed(work, now_s)
            troubles += _trouble("commit", work.reading, outcome)

    def _supersede(self, stale: Iterable[tuple[Reading, StaleEpochError]]) -> None:
        """End the terms that have a stale epoch, and report those that went on until now."""
        ended = [
            (reading.term.key, error)
            for reading, error in stale
            if reading.term.learn_epoch(error.newest_epoch)
        ]
        if ended:
            keys, errors = zip(*ended, strict=True)
            self._report_trouble("commit", errors[0], keys)

    # ---- errors

    def _report_all(self, troubles: Iterable[tuple[str, Reading, Exception]]) -> None:
        """Report each kind of error once."""
        by_kind: dict[tuple[str, Hashable], tuple[Exception, list[str]]] = {}
        for request, reading, error in troubles:
            _, keys = by_kind.setdefault((request, _kind(error)), (error, []))
            keys.append(reading.partition.key)
        for (request, _), (error, keys) in by_kind.items():
            self._report_trouble(request, error, keys)

    def _report_trouble(self, request: str, error: Exception, keys: Sequence[str]) -> None:
        """Report an error of these partitions, unless it was reported a moment ago."""
        if self.is_over:
            return
        to_report = self._troubles.report((request, _kind(error)), keys, self._now_s())
        if to_report is None:
            return
        report = self._as_report(request, error, to_report)
        report.__cause__ = None if isinstance(error, _MovedError) else error
        self._report(report)

    def _as_report(self, request: str, error: Exception, keys: Sequence[str]) -> MultielectError:
        if isinstance(error, _NOT_REACHED):
            return ConnectionLostError(f"cannot {request}: {error}")
        if isinstance(error, _MovedError):
            return MultielectError(
                f"another program moved the checkpoint of {partitions(keys)}: this node reads from"
                " there"
            )
        if isinstance(error, StaleEpochError):
            return MultielectError(
                f"another node was elected, or wrote, under a newer epoch for {partitions(keys)}"
                f" ({error.newest_epoch}, not {error.epoch}, for {error.key!r}). The last batches"
                " are dropped, and the next leader reads them again; this node has given up its"
                " terms, and stands again for a newer epoch"
            )
        if not isinstance(error, redis.ResponseError):
            return MultielectError(f"cannot {request} for {partitions(keys)}: {in_words(error)}")
        refusal = refusal_in(error)
        if refusal is None and not is_of_the_server(error):
            what = "read" if request == "read" else "go on with"
            return MultielectError(f"cannot {what} {partitions(keys)}: {error}")
        text = f"{server_text(error)}; not done for {partitions(keys)}, and tried again"
        if refusal is not None:
            text += f": {self._keys_to_grant(request) if refusal.is_of_keys else refusal.remedy}"
        return ServerError(text, request=request, elections=len(keys))

    def _keys_to_grant(self, request: str) -> str:
        keys = f"the streams, ~{self._prefix}:* for checkpoints"
        if request == "commit":
            dead_letters = self._dead_letters.decode(errors="replace")
            keys += f", the keys that the handler writes, {dead_letters!r} for dead letters"
        return f"grant this user its keys (ACL SETUSER): {keys}"


def _stale(reading: Reading, outcome: Outcome) -> list[tuple[Reading, StaleEpochError]]:
    return [(reading, outcome.error)] if isinstance(outcome.error, StaleEpochError) else []


def _is_of(error: StaleEpochError, reading: Reading) -> bool:
    return (error.key, error.epoch) == (reading.term.key, reading.term.epoch)


def _trouble(
    request: str, reading: Reading, outcome: Outcome
) -> list[tuple[str, Reading, Exception]]:
    return [] if outcome.error is None else [(request, reading, outcome.error)]


def _kind(error: Exception) -> Hashable:
    """Return what distinguishes errors that are reported together from others."""
    if isinstance(error, _NOT_REACHED):
        return ConnectionLostError.__name__
    if not isinstance(error, redis.ResponseError):
        return type(error).__name__
    refusal = refusal_in(error)
    if refusal is not None:
        return refusal.command, refusal.is_of_keys
    return server_text(error)
