"""What both consumers share: settings, properties, partitions, terms. Only waiting is left out.

Rules of this file:
    * Nothing here waits. Every change of the flow is made inside `_changing`, one at a time. At the
      end of a change, `_wake` wakes each part of the consumer that has work now.
    * An error of a user's function is reported through `on_error`, and harms nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import random
import signal
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import redis

from .._connection.health import Health
from .._node.base import BaseElectionGroup
from .._node.interface import node_of
from .._protocol.keys import KeyLayout, decode_key, encode_key
from .._runtime.foreign import in_words
from .._settings.settings import Seconds, checked_count, checked_stall_ns
from ..election import DemotionReason, Term
from ..errors import ClosedError, ConfigError, MultielectError
from ..fencing import AsyncFence, Fence
from ._batch import Batch
from ._commits import commit
from ._exchange import Exchange
from ._flow import Flow
from ._lag import Lag, chunks, lag_of
from ._reading import Leadership, Work
from ._settings import (
    FlowSettings,
    OnFailure,
    Partitions,
    check_input,
    check_not_ours,
    checked_group_options,
    checked_handler,
    checked_lister,
    checked_pause,
    checked_stream,
    listed,
)
from ._tally import Tally
from ._troubles import Troubles

ENDING = (signal.SIGINT, signal.SIGTERM)
MIN_STOP_S = 1.0
"""A stop gives threads and tasks this time to notice it, even if its timeout has passed."""

_GRAIN_S = 0.005
"""The thread or task that keeps the time sleeps at least this long."""

F = TypeVar("F", bound=Fence | AsyncFence)
G = TypeVar("G", bound=BaseElectionGroup[Any])


class BaseStreamConsumer(Generic[G, F]):
    """A consumer of streams, without the parts that wait."""

    _default_handlers: ClassVar[int]
    _max_handlers: ClassVar[int]
    _takes_coroutines: ClassVar[bool]

    _group: G
    _fence: F

    def __init__(
        self,
        redis: str | redis.Redis,
        *,
        prefix: str,
        partitions: Partitions,
        handler: Callable[[Batch[F]], object],
        batch: int = 100,
        handlers: int | None = None,
        readers: int = 4,
        max_in_hand: int = 10_000,
        start: str = "0",
        attempts: int = 5,
        retry_base: Seconds = 0.1,
        retry_max: Seconds = 30.0,
        on_failure: OnFailure = "dead-letter",
        dead_letters: str | bytes | None = None,
        discover: Seconds = 5.0,
        drain_timeout: Seconds = 10.0,
        max_stall: Seconds | None = None,
        on_error: Callable[[MultielectError], object] | None = None,
        logger: logging.Logger | None = None,
        **group: Any,  # noqa: ANN401  # the group checks them
    ) -> None:
        self._handler = checked_handler(handler, takes_coroutines=self._takes_coroutines)
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
        given = self._default_handlers if handlers is None else handlers
        self._handlers = checked_count("handlers", given, self._max_handlers)
        self._discover_s = checked_pause("discover", discover)
        self._drain_timeout_s = checked_pause("drain_timeout", drain_timeout)
        self._stall_s = checked_stall_ns(max_stall) / 1e9 or None
        self._dead_letters = checked_stream(
            f"{prefix}:dead-letters" if dead_letters is None else dead_letters, "dead_letters"
        )
        self._flow = Flow(self._settings, random.Random())  # noqa: S311
        self._list: Callable[[], Any] | None = None
        known: dict[str, bytes] = {}
        if callable(partitions):
            self._list = checked_lister(partitions, takes_coroutines=self._takes_coroutines)
        else:
            known = listed(partitions)
        options = {
            **checked_group_options(group),
            "prefix": prefix,
            "max_stall": max_stall,
            "drain_timeout": drain_timeout,
            "on_elected": self._on_elected,
            "on_demoted": self._on_demoted,
            "on_draining": self._on_draining,
            "on_error": None if on_error is None else self._reporting(on_error),
            "logger": logger,
        }
        self._connect(redis, options)
        check_not_ours(self._dead_letters, self._layout)
        for key, stream in known.items():
            self._add(key, stream)
        self._group.add_many(known)
        self._to_report: list[MultielectError] = []
        self._exchange = Exchange(
            self._flow,
            prefix=prefix,
            start=self._settings.start,
            dead_letters=self._dead_letters,
            checkpoint_key=self.checkpoint_key,
            report=self._to_report.append,
        )
        self._mutex = self._make_mutex()
        self._pid = os.getpid()
        self._asleep_until_s = -math.inf
        self._heartbeat_due_s = 0.0
        self._broken: Exception | None = None
        self._listing_troubles = Troubles()

    @abstractmethod
    def _connect(self, redis: str | redis.Redis, options: dict[str, Any]) -> None:
        """Make client, group and fence. Sends nothing."""

    @abstractmethod
    def _make_mutex(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context manager that guards the flow."""

    @abstractmethod
    def _wake(self) -> None:
        """Wake the threads or tasks that have work. Called inside `_changing`."""

    def _reporting(
        self, on_error: Callable[[MultielectError], object]
    ) -> Callable[[MultielectError], object]:
        """Return the function that the group calls with errors."""
        return on_error

    # ---- what users see

    @property
    def group(self) -> G:
        """The group that elects a leader for each partition. The consumer starts and stops it."""
        return self._group

    @property
    def fence(self) -> F:
        """The fence through which the consumer writes the checkpoints."""
        return self._fence

    @property
    def health(self) -> Health:
        """How the consumer's group is: see `multielect.ElectionGroup.health`.

        Streams are read over connections of their own. `on_error` reports what is wrong with those.
        """
        return self._group.health

    @property
    def is_running(self) -> bool:
        """Whether the consumer was started and its group is at work.

        A consumer that stops is running until it has handed its partitions over. See
        `multielect.ElectionGroup.is_running`.
        """
        return self._group.is_running

    @property
    def partitions(self) -> dict[str, bytes]:
        """The stream of each partition that the consumer knows now."""
        return {key: known.stream for key, known in tuple(self._flow.partitions.items())}

    @property
    def dead_letters(self) -> bytes:
        """The dead-letter stream, to which failed entries are appended."""
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

        Its field ``id`` is the id of the last entry that was processed. Its field ``epoch`` is the
        epoch under which that was done.

        Raises:
            ConfigError: if the key is not allowed.
        """
        return self._fence.data_key(key, "checkpoint")

    def __repr__(self) -> str:
        count = len(self._flow.partitions)
        return f"<{type(self).__name__} {self._group.prefix!r}: {count} partitions>"

    # ---- partitions

    def add(self, key: str, stream: str | bytes | None = None) -> None:
        """Consume one more partition. Does nothing if the consumer knows it already.

        Args:
            key: the partition's key.
            stream: the partition's stream. By default it has the same name as the key.

        Raises:
            ConfigError: if the key or stream is not allowed, or belongs to another partition.
            ClosedError: if the consumer has stopped.
        """
        for refusal in self._know(listed({key: key if stream is None else stream})):
            raise refusal

    def remove(self, key: str) -> None:
        """Stop to consume a partition.

        A batch that is at the handler is still committed, unless another node leads by then. If
        `partitions` is a function that still lists the partition, the partition comes back.

        Raises:
            KeyError: if no partition has this key.
            ClosedError: if the consumer has stopped.
        """
        self._group.remove(key)
        with self._changing():
            self._flow.remove(decode_key(encode_key(key)))

    def resume(self, key: str) -> bool:
        """Let a halted partition go on. Returns whether it was halted.

        Raises:
            KeyError: if no partition has this key.
            ClosedError: in a forked child.
        """
        with self._changing():
            return self._flow.resume(key)

    @property
    def _layout(self) -> KeyLayout:
        return node_of(self._group).layout

    def _add(self, key: str, stream: bytes) -> bool:
        """Add a partition. Returns whether it is new. Call it inside `_changing`."""
        check_input(stream, dead_letters=self._dead_letters, layout=self._layout)
        return self._flow.add(key, stream)

    def _know(self, pairs: Mapping[str, bytes]) -> list[ConfigError]:
        """Consume these partitions. Returns an error for each that is refused."""
        refused: list[ConfigError] = []
        new = []
        with self._changing():
            for key, stream in pairs.items():
                try:
                    if self._add(key, stream):
                        new.append(key)
                except ConfigError as error:
                    refused.append(error)
        # After the flow: it must know a partition whose election this node wins.
        self._group.add_many(new)
        return refused

    def _know_listed(self, found: Any) -> None:  # noqa: ANN401  # from a user's function
        """Consume the partitions of a listing. Report those that are refused."""
        refused: list[ConfigError] = []
        pairs = listed(found, refused)
        refused += self._know(pairs)
        if refused:
            more = f" ({len(refused) - 1} more are refused)" if len(refused) > 1 else ""
            self._report_listing(f"a listed partition is left out: {refused[0]}{more}")

    def _lag_questions(
        self, keys: Iterable[str] | None
    ) -> Iterator[tuple[Sequence[str], list[bytes]]]:
        """Divide keys into portions for one script each. Yields the keys and the script's KEYS.

        Raises:
            KeyError: if a key is not known.
        """
        streams = self.partitions
        for part in chunks(list(streams if keys is None else keys)):
            yield part, [name for key in part for name in (self.checkpoint_key(key), streams[key])]

    def _lags(self, keys: Sequence[str], replies: Sequence[Any]) -> dict[str, Lag]:
        pairs = zip(keys, replies, strict=True)
        return {key: lag_of(reply, self._settings.start) for key, reply in pairs}

    # ---- terms

    def _on_elected(self, term: Term) -> None:
        with self._changing():
            self._flow.elected(term)

    def _on_draining(self, term: Term, _deadline: float) -> None:
        with self._changing():
            self._flow.draining(term)

    def _on_demoted(self, term: Term, _reason: DemotionReason) -> None:
        with self._changing():
            self._flow.demoted(term)

    # ---- changes

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Guard a change of the flow. At its end, wake the parts that have work, and report.

        Raises:
            ClosedError: in a forked child, as the mutex may have been locked at the fork.
        """
        if os.getpid() != self._pid:
            raise ClosedError(
                f"this consumer belongs to process {self._pid}: a forked child must make its own"
            )
        with self._mutex:
            yield
            self._wake()
            reports = self._to_report.copy()
            self._to_report.clear()
        # Outside the mutex: `on_error` may call the consumer.
        for report in reports:
            self._report(report)

    def _pass_time(self) -> float | None:
        """Do what is due at this time. Called inside `_changing`.

        Returns:
            After how many seconds to call this again; None to wait for a wake-up.
        """
        now_s = time.monotonic()
        self._asleep_until_s = -math.inf
        self._flow.tick(now_s)
        waits = []
        if self._stall_s is not None:
            if now_s >= self._heartbeat_due_s:
                self._heartbeat_due_s = now_s + self._stall_s / 4
                self._flow.send_heartbeats(now_s, self._stall_s)
            waits.append(self._heartbeat_due_s - now_s)
        due_s = self._flow.next_due_s()
        if due_s is not None:
            waits.append(max(due_s - now_s, _GRAIN_S))
        idle_s = min(waits, default=None)
        self._asleep_until_s = math.inf if idle_s is None else now_s + idle_s
        return idle_s

    @property
    def _is_time_to_pass(self) -> bool:
        """Whether something is due before the thread or task that keeps the time wakes up."""
        due_s = self._flow.next_due_s()
        return due_s is not None and due_s + _GRAIN_S < self._asleep_until_s

    def _finished(self, work: Work, batch: Batch[F]) -> None:
        """Commit a batch that was handled. Called inside `_changing`."""
        steps = batch._close()
        work.has_steps = bool(steps)
        self._flow.handled(work, commit(work, self.checkpoint_key(batch.key), steps))

    def _failed(self, work: Work, batch: Batch[F], error: BaseException) -> None:
        """Decide what to do with a batch that failed. Called inside `_changing`."""
        batch._close()
        self._exchange.failed(work, error)

    # ---- errors

    def _report(self, error: MultielectError) -> None:
        node_of(self._group).report(error)

    def _report_listing(self, what: str, cause: Exception | None = None) -> None:
        """Report an error of a listing, unless the same error was reported a moment ago."""
        if self._listing_troubles.report(what, (), time.monotonic()) is None:
            return
        report = MultielectError(what)
        report.__cause__ = cause
        self._report(report)

    def _report_no_listing(self, error: Exception) -> None:
        self._report_listing(f"cannot list the partitions: {in_words(error)}", error)

    def _break(self, what: str, error: Exception) -> None:
        """Report that a part of the consumer ended by a fault of ours. The caller stops the rest.

        Args:
            what: the task of that part, as a verb.
            error: the fault.
        """
        self._broken = error
        report = MultielectError(f"the consumer's part that must {what} failed: {in_words(error)}")
        report.__cause__ = error
        self._report(report)


@contextlib.contextmanager
def signals_kept() -> Iterator[bool]:
    """Restore the handlers of the signals that end programs, at the end of the block.

    Yields whether this is the main thread, the only one that may set such handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield False
        return
    before = {number: signal.getsignal(number) for number in ENDING}
    try:
        yield True
    finally:
        for number, handler in before.items():
            # None means that Python did not set the handler, so it cannot restore it.
            if handler is not None:
                signal.signal(number, handler)


def hand_over(terms: Iterable[Leadership]) -> None:
    """Hand over those of the terms that drain."""
    for term in terms:
        with contextlib.suppress(ClosedError):
            term.finish_drain()
