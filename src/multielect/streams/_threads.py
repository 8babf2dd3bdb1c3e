"""`StreamConsumer`: for programs of threads.

Rules of this file:
    * One mutex guards the flow, and is never held while waiting for Redis or for a handler.
    * The threads: one fetches what is known to be there, some wait for what is to come, one
      makes all fenced writes, one lists partitions, and some run handlers. Their number does
      not grow with the partitions.
    * They are daemons: a handler that never returns does not keep the interpreter from ending.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType, TracebackType
from typing import Any

import redis

from .._settings import checked_timeout
from ..election import DemotionReason, Term
from ..errors import ClosedError, MultielectError
from ..fencing import Fence
from ..group import ElectionGroup
from ._batch import Batch
from ._clients import WATCH_MS, client_of
from ._commits import LAG
from ._entries import entries_of
from ._flow import POLL_S
from ._front import (
    NOT_REACHED,
    PACE_S,
    ConsumerFront,
    Pauses,
    command_of,
    hand_over,
    unreadable,
)
from ._lag import Lag
from ._reading import Ask, Work
from ._settings import MOST_HANDLERS, OnFailure, Partitions, checked_stream

_LEAST_JOIN_S = 1.0


class StreamConsumer(ConsumerFront[ElectionGroup, Fence]):
    """Consumes many Redis Streams, each read in order by the leader of its partition only.

    ::

        def handle(batch):
            for entry in batch.entries:
                batch.hset(f"total:{batch.key}", {"last": entry.fields[b"amount"]})

        consumer = StreamConsumer("redis://localhost:6379/0", prefix="orders",
                                  partitions=[f"orders:{i}" for i in range(4096)],
                                  handler=handle)
        consumer.run()                  # until Ctrl-C or SIGTERM, then drains and stops

    When the handler returns, the partition's checkpoint moves past the batch, in one fenced
    script with what the handler staged. What else the handler does may be done twice, if the
    process dies before that, or another leader is elected meanwhile.

    All methods may be called from any thread.

    Args:
        redis: a URL, or a `redis.Redis` whose connection settings are taken over; one server,
            not a cluster. Streams, elections and checkpoints are all there.
        prefix: the namespace of elections and checkpoints. Consumers of one prefix share the
            partitions.
        partitions: a mapping of keys to streams; or streams, each of which is its own key; or a
            function that returns either, and is called again every `discover` seconds, on a
            thread of its own, for partitions that are new. One that it no longer lists stays.
        handler: called with a `Batch`, on one of the consumer's threads: for one partition in
            order and never at once, for others side by side. If it raises, the batch is tried
            again, entry by entry.
        batch: how many entries it is given at once, at the most.
        handlers: how many handlers run at once.
        readers: how many connections wait for new entries.
        max_in_hand: how many entries are in memory at once, of all partitions; of one, two
            batches. What has no room is not read.
        start: where a partition begins that has no checkpoint: ``"0"``, at its oldest entry;
            ``"$"``, after those that are there when it is led for the first time; or after an
            id.
        attempts: how often an entry is given to the handler on its own before it has failed.
        retry_base: about how many seconds after a failure the next attempt is made; twice as
            many after the next, and so on, with jitter.
        retry_max: the longest that this grows to, in seconds.
        on_failure: what becomes of an entry that has failed: ``"dead-letter"`` appends it to
            `dead_letters`, with the cause, and goes on; ``"halt"`` goes no further in that
            partition until `resume`, or the next term.
        dead_letters: the stream for such entries; ``<prefix>:dead-letters`` by default. It is
            never trimmed.
        discover: seconds.
        drain_timeout: how many seconds a handler is given to finish before its partition is
            handed to another node, and before `stop` gives up.
        max_stall: gives up the terms of partitions whose handler runs for longer, in seconds,
            unless it calls `Batch.alive`. Never by default.
        on_error: called with what went wrong: a `HandlerError`, the connection, a stream that
            cannot be read. It is logged in any case.
        logger: where errors are logged.
        group: all else goes to the `ElectionGroup`: `ttl`, `node_id`, `max_leases` and so on.

    Raises:
        ConfigError: for any argument that is not allowed.
    """

    def __init__(
        self,
        redis: str | redis.Redis,
        *,
        prefix: str,
        partitions: Partitions,
        handler: Callable[[Batch[Fence]], object],
        batch: int = 100,
        handlers: int = 8,
        readers: int = 4,
        max_in_hand: int = 10_000,
        start: str = "0",
        attempts: int = 5,
        retry_base: float = 0.1,
        retry_max: float = 30.0,
        on_failure: OnFailure = "dead-letter",
        dead_letters: str | bytes | None = None,
        discover: float = 5.0,
        drain_timeout: float = 10.0,
        max_stall: float | None = None,
        on_error: Callable[[MultielectError], object] | None = None,
        logger: logging.Logger | None = None,
        **group: Any,  # noqa: ANN401  # the group checks them
    ) -> None:
        super().__init__(
            prefix=prefix,
            partitions=partitions,
            handler=handler,
            batch=batch,
            handlers=handlers,
            most_handlers=MOST_HANDLERS,
            readers=readers,
            max_in_hand=max_in_hand,
            start=start,
            attempts=attempts,
            retry_base=retry_base,
            retry_max=retry_max,
            on_failure=on_failure,
            dead_letters=dead_letters,
            discover=discover,
            drain_timeout=drain_timeout,
            max_stall=max_stall,
            group=group,
        )
        self._client = client_of(redis)
        self._group = ElectionGroup(
            redis,
            prefix=prefix,
            max_stall=max_stall,
            on_elected=self._on_elected,
            on_demoted=self._on_demoted,
            on_draining=self._on_draining,
            drain_timeout=drain_timeout,
            on_error=on_error,
            logger=logger,
            **group,
        )
        self._group.add_many(self._known)
        self._fence = Fence(self._client, self._group)
        self._mutex = threading.Lock()
        self._to_fetch = threading.Condition(self._mutex)
        self._to_watch = threading.Condition(self._mutex)
        self._to_write = threading.Condition(self._mutex)
        self._to_handle = threading.Condition(self._mutex)
        self._resting = threading.Condition(self._mutex)
        self._ended = threading.Event()
        self._asked_to_stop: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._stopping = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._inside = threading.local()

    # ---- life

    def start(self) -> None:
        """Begin to stand for election and to consume, and return at once.

        Raises:
            ClosedError: if it was started before.
        """
        with self._mutex:
            if self._threads or self._ended.is_set():
                raise ClosedError("a consumer is started once: make a new one")
            self._threads = list(self._made_threads())
        for thread in self._threads:
            thread.start()
        self._group.start()

    def stop(self, timeout: float | None = None) -> None:
        """Let handlers that run finish, commit what they did, and release all partitions.

        Nothing more is begun from the first moment on. Called by a handler, it returns at once
        and all this is done behind it. Stopping twice does nothing.

        Args:
            timeout: seconds after which it gives up in any case; `drain_timeout` by default.

        Raises:
            ConfigError: for a bad timeout.
        """
        timeout_s = self._drain_timeout_s if timeout is None else checked_timeout(timeout)
        self._asked_to_stop.put(None)
        if getattr(self._inside, "handler", False):
            threading.Thread(target=self._stop, args=(timeout_s,), daemon=True).start()
        else:
            self._stop(timeout_s)

    def run(self) -> None:
        """Consume until `stop`, Ctrl-C or SIGTERM; then drain and stop.

        A second Ctrl-C interrupts that. Signals are looked after only in the main thread, and
        are what they were before when it returns.

        Raises:
            ClosedError: if it was stopped before.
        """
        if not self._threads:
            self.start()
        with self._signals():
            self._asked_to_stop.get()
        self.stop()

    def __enter__(self) -> StreamConsumer:
        """Start to consume."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drain and stop."""
        self.stop()

    # ---- partitions

    def add(self, key: str, stream: str | bytes | None = None) -> None:
        """Consume one more partition; of none that is there already.

        Args:
            key: its key.
            stream: its stream; named as the key by default.

        Raises:
            ConfigError: for a key or stream that is not allowed, or is another's.
            ClosedError: if the consumer has stopped.
        """
        with self._mutex:
            self._flow.add(key, checked_stream(key if stream is None else stream))
        self._group.add(key)

    def remove(self, key: str) -> None:
        """Consume a partition no more; a batch that is at the handler is still committed.

        Raises:
            KeyError: if there is none with this key.
            ClosedError: if the consumer has stopped.
        """
        self._group.remove(key)
        with self._mutex:
            self._flow.remove(key)

    def resume(self, key: str) -> bool:
        """Have a partition that was halted go on. Returns whether it was halted.

        Raises:
            KeyError: if there is none with this key.
        """
        with self._mutex:
            resumed = self._flow.resume(key)
            self._call()
        return resumed

    def lag(self, keys: Iterable[str] | None = None) -> dict[str, Lag]:
        """Ask Redis how far behind partitions are, whoever leads them: one call for each 100.

        Args:
            keys: which; all that are known by default.

        Raises:
            KeyError: for a key that is not known.
            redis.RedisError: where Redis cannot be asked.
        """
        found: dict[str, Lag] = {}
        for part, names in self._lag_questions(keys):
            replies: Any = self._client.eval(LAG.body.decode(), len(names), *names)
            found |= self._lags(part, replies)
        return found

    # ---- callbacks of the group

    def _on_elected(self, term: Term) -> None:
        with self._mutex:
            self._flow.elected(term)
            self._call()

    def _on_draining(self, term: Term, _deadline: float) -> None:
        with self._mutex:
            self._flow.draining(term)
            self._call()

    def _on_demoted(self, term: Term, _reason: DemotionReason) -> None:
        with self._mutex:
            self._flow.demoted(term)
            self._call()

    # ---- the threads

    def _made_threads(self) -> Iterator[threading.Thread]:
        loops: list[tuple[str, Callable[[], None]]] = [("fetch", self._fetch)]
        loops += [("write", self._write)]
        loops += [("discover", self._discover)] if self._list is not None else []
        loops += [(f"watch-{n}", self._watch) for n in range(self._settings.readers)]
        loops += [(f"handler-{n}", self._handle) for n in range(self._handlers)]
        for name, loop in loops:
            yield threading.Thread(
                target=loop, name=f"multielect-{self._group.node_id}-{name}", daemon=True
            )

    def _call(self) -> None:
        """Wake who has something to do. With the mutex held."""
        flow = self._flow
        if flow.may_fetch:
            self._to_fetch.notify()
        if flow.may_watch:
            self._to_watch.notify()
        if flow.has_writes or flow.has_handed_over:
            self._to_write.notify()
        if flow.ready:
            self._to_handle.notify(flow.ready)
        if flow.is_closing and flow.is_at_rest:
            self._resting.notify_all()

    def _fetch(self) -> None:
        pauses = Pauses()
        while True:
            with self._mutex:
                if self._ended.is_set():
                    return
                now_s = time.monotonic()
                self._flow.tick(now_s)
                if self._stall_s is not None:
                    self._flow.keep_alive()
                ask = self._flow.take_fetch(now_s)
                self._call()
                if ask is None:
                    self._to_fetch.wait(self._idle_s(now_s))
            if ask is not None:
                self._read(ask, pauses)

    def _watch(self) -> None:
        pauses = Pauses()
        while True:
            with self._mutex:
                if self._ended.is_set():
                    return
                ask = self._flow.take_watch()
                if ask is None:
                    # Without room it is looked at again; nobody calls for that.
                    self._to_watch.wait(POLL_S if self._flow.may_watch else None)
            if ask is not None and self._read(ask, pauses):
                self._ended.wait(len(ask.readings) * PACE_S)

    def _read(self, ask: Ask, pauses: Pauses) -> bool:
        """Make a request. Returns whether it brought anything."""
        try:
            reply: Any = self._client.execute_command(  # type: ignore[no-untyped-call]
                *command_of(ask, WATCH_MS)
            )
        except redis.ResponseError as error:
            return self._read_apart(ask, error, pauses)
        except NOT_REACHED as error:
            with self._mutex:
                self._flow.unread(ask, time.monotonic())
            if not self._ended.is_set():
                self._report_unread(error, pauses)
                self._ended.wait(pauses.take())
            return False
        pauses.reset()
        found = entries_of(reply)
        with self._mutex:
            self._flow.fetched(ask, found, time.monotonic())
            self._call()
        return bool(found)

    def _read_apart(self, ask: Ask, error: redis.ResponseError, pauses: Pauses) -> bool:
        """Find the stream that cannot be read, and read the others."""
        if len(ask.readings) == 1:
            with self._mutex:
                self._flow.unreadable(ask, time.monotonic())
            self._report(unreadable(ask, error))
            return False
        with self._mutex:
            halves = self._flow.split(ask)
        # Both are read, whatever the first brings.
        brought = [self._read(half, pauses) for half in halves]
        return any(brought)

    def _write(self) -> None:
        while True:
            with self._mutex:
                while not (self._flow.has_writes or self._flow.has_handed_over):
                    if self._ended.is_set():
                        return
                    self._to_write.wait()
                claims, works = self._flow.take_claims(), self._flow.take_commits()
                handed_over = self._flow.take_handed_over()
            hand_over(handed_over)
            if not claims and not works:
                continue
            try:
                outcomes = self._fence.write_many(self._written(claims, works))
            # What the fence asks before its first write may fail in any way that redis-py has.
            except Exception as error:  # noqa: BLE001
                outcomes = self._all_failed(error, len(claims) + len(works))
            with self._mutex:
                self._settled(claims, works, outcomes)
                self._call()

    def _handle(self) -> None:
        self._inside.handler = True
        while True:
            with self._mutex:
                while (work := self._flow.take_work()) is None:
                    if self._ended.is_set():
                        return
                    self._to_handle.wait()
            self._handle_one(work)

    def _handle_one(self, work: Work) -> None:
        batch = Batch(work, self._fence)
        try:
            self._handler(batch)
            commit = self._finished(work, batch)
        # Also SystemExit and its like: there is nothing here for them to end.
        except BaseException as error:  # noqa: BLE001
            with self._mutex:
                self._failed(work, error)
                self._call()
            return
        with self._mutex:
            self._flow.handled(work, commit)
            self._call()

    def _discover(self) -> None:
        assert self._list is not None
        while not self._ended.is_set():
            try:
                found = self._list()
                with self._mutex:
                    new = self._new_partitions(found)
                self._group.add_many(new)
            except ClosedError:
                return
            except Exception as error:  # noqa: BLE001  # a user's function
                self._report_listing(error)
            self._ended.wait(self._discover_s)

    # ---- the end

    def _stop(self, timeout_s: float) -> None:
        until_s = time.monotonic() + timeout_s
        with self._stopping:
            if self._ended.is_set():
                return
            with self._mutex:
                self._flow.drain_all()
                self._call()
            with contextlib.suppress(ClosedError):
                self._group.drain(timeout_s)
            with self._mutex:
                left_s = max(0.0, until_s - time.monotonic())
                self._resting.wait_for(lambda: self._flow.is_at_rest, left_s)
            self._group.stop(max(_LEAST_JOIN_S, until_s - time.monotonic()))
            self._end(until_s)

    def _end(self, until_s: float) -> None:
        self._ended.set()
        with self._mutex:
            for condition in (self._to_fetch, self._to_watch, self._to_write, self._to_handle):
                condition.notify_all()
        pool = self._client.connection_pool
        # Who waits for new entries would do so for up to half a second more.
        pool.disconnect()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(_LEAST_JOIN_S, until_s - time.monotonic()))
        self._client.close()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Have signals that end programs ask for a stop, until the block is left."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: signal.signal(number, self._on_signal)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        # A queue of this kind may be put into by a signal's handler.
        self._asked_to_stop.put(None)
