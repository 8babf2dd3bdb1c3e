"""`StreamConsumer`: for programs that use threads.

Rules of this file:
    * One mutex guards the flow. No thread holds it while it waits for Redis or runs a handler.
    * The threads: one keeps the time, one fetches entries that are there, some wait for new
      entries, one makes all fenced writes, one lists partitions, and some run handlers. Their
      number does not grow with the partitions.
    * The threads are daemons: a handler that never returns does not keep the interpreter alive.
    * If a thread fails by a fault of ours, the consumer stops, and others take its partitions.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import queue
import random
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import FrameType, TracebackType
from typing import Any, TypeVar

import redis

from .._connection.backoff import Pauses
from .._runtime.foreign import ordinary
from .._runtime.interruptible import join, take, wait_for
from .._runtime.thread_group import ThreadGroup
from .._settings.callables import fitted, refuse_unfinished
from .._settings.settings import Seconds, checked_timeout
from ..errors import ClosedError, MultielectError
from ..fencing import Fence
from ..group import ElectionGroup
from ._base import ENDING, MIN_STOP_S, BaseStreamConsumer, hand_over, signals_kept
from ._batch import Batch
from ._clients import client_of
from ._commits import LAG, message_of
from ._lag import Lag
from ._reading import Ask, Work
from ._settings import ASYNC, MAX_HANDLERS

T = TypeVar("T")


class StreamConsumer(BaseStreamConsumer[ElectionGroup, Fence]):
    """Consumes many Redis Streams. Only the leader of a partition reads its stream, in order.

    ::

        def handle(batch):
            for entry in batch.entries:
                batch.hset(f"total:{batch.key}", {"last": entry.fields[b"amount"]})

        consumer = StreamConsumer("redis://localhost:6379/0", prefix="orders",
                                  partitions=[f"orders:{i}" for i in range(4096)],
                                  handler=handle)
        consumer.run()                  # until Ctrl-C or SIGTERM, then drains and stops

    When the handler returns, one fenced script makes the staged writes and moves the partition's
    checkpoint past the batch. Whatever else the handler does may be done twice, if the process dies
    before that script, or another leader is elected meanwhile.

    All methods may be called from any thread.

    Args:
        redis: a URL, or a `redis.Redis` whose connection settings the consumer takes over. It must
            be one server, not a cluster, and holds the streams, the elections and the checkpoints.
        prefix: the namespace of elections and checkpoints. Consumers with the same prefix share
            the partitions.
        partitions: a mapping of keys to streams; or an iterable of streams, each of which is its
            own key; or a function that returns either. The consumer calls a function every
            `discover` seconds, on a thread of its own, to find new partitions. A partition stays
            when the function no longer lists it.
        handler: called with a `Batch`, on one of the consumer's threads. It handles the batches of
            one partition in order and never at once, and those of different partitions side by
            side. If it raises, the consumer tries the batch again, entry by entry.
        batch: the largest number of entries in a batch.
        handlers: how many handlers run at once. 8 by default.
        readers: how many connections wait for new entries.
        max_in_hand: the largest number of entries in memory for all partitions. For one partition
            it is two batches. The consumer reads no entry for which there is no room.
        start: where to begin in a partition that has no checkpoint. ``"0"``: at its oldest entry.
            ``"$"``: after the entries that exist when it is led for the first time. Or after the
            id given.
        attempts: how many attempts at a single entry the handler gets before the entry has failed.
        retry_base: about how many seconds after a failure the consumer tries again. The pause
            doubles with each further failure, and has jitter.
        retry_max: the longest such pause in seconds.
        on_failure: what the consumer does with an entry that has failed. ``"dead-letter"``: appends
            it to `dead_letters` together with the cause, and goes on. ``"halt"``: stops that
            partition until `resume` is called or the next term begins.
        dead_letters: the dead-letter stream; ``<prefix>:dead-letters`` by default. The consumer
            never trims it.
        discover: seconds between two calls of the function for `partitions`.
        drain_timeout: how many seconds a handler has to finish before its partition is handed to
            another node, and before `stop` gives up.
        max_stall: seconds after which the consumer gives up the term of a partition whose handler
            runs that long without a call of `Batch.heartbeat`. The same happens to partitions that
            wait for a handler, if no handler has returned for that long. Never by default.
        on_error: called with each error: a `HandlerError`, a connection error, a stream that
            cannot be read. The consumer also logs it.
        logger: where errors are logged.
        group: all other arguments go to the `ElectionGroup`: `ttl`, `node_id`, `max_leases` and so
            on.

    Raises:
        ConfigError: if an argument is not allowed.
    """

    _default_handlers = 8
    _max_handlers = MAX_HANDLERS
    _takes_coroutines = False

    def _connect(self, redis: str | redis.Redis, options: dict[str, Any]) -> None:
        self._client = client_of(redis)
        self._group = ElectionGroup(redis, **options)
        self._fence = Fence(self._client, self._group)
        self._ended = threading.Event()
        self._asked_to_stop: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._stopping = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._inside = threading.local()

    def _make_mutex(self) -> threading.Lock:
        mutex = threading.Lock()
        self._to_pass_time = threading.Condition(mutex)
        self._to_fetch = threading.Condition(mutex)
        self._to_watch = threading.Condition(mutex)
        self._to_write = threading.Condition(mutex)
        self._to_handle = threading.Condition(mutex)
        self._resting = threading.Condition(mutex)
        return mutex

    def _reporting(
        self, on_error: Callable[[MultielectError], object]
    ) -> Callable[[MultielectError], object]:
        call = fitted("on_error", on_error, 1)
        assert call is not None

        def report(error: MultielectError) -> object:
            with self._in_users_code():
                return call(error)

        return report

    # ---- life

    def start(self, *, wait: Seconds | None = None) -> None:
        """Begin to stand for election and to consume, and return at once.

        With `wait`, block until the group is connected. If there is no connection after so many
        seconds, or if somebody must mend something first (`ServerUnusableError`), the consumer is
        stopped, and the cause is raised.

        Args:
            wait: seconds; not at all by default.

        Raises:
            ClosedError: if the consumer was started before, or stops while waiting.
            ConnectionLostError: if there is no connection after `wait` seconds.
            ServerUnusableError: if the server cannot serve elections.
            ConfigError: for a bad `wait`, or if the namespace has another number of buckets.
            OSError: if no file descriptor is left.
            RuntimeError: if no thread can be started. The attempt is then undone, and the consumer
                may be started again.
        """
        wait_s = None if wait is None else checked_timeout(wait)
        self._start()
        if wait_s is None:
            return
        try:
            self._group.start(wait=wait_s)
        except BaseException:
            self._stop(0.0)
            raise

    def wait_connected(self, timeout: Seconds | None = None) -> bool:
        """Wait until the group is connected to Redis; False if it is not after `timeout`.

        Raises:
            ClosedError: if the consumer was not started, or stops while waiting.
            ConfigError: for a bad timeout.
        """
        return self._group.wait_connected(timeout)

    def _start(self) -> None:
        with self._changing():
            if self._threads or self._ended.is_set():
                raise ClosedError("a consumer is started once: make a new one")
            thread_group = self._made_thread_group()
            self._threads = thread_group.threads
        try:
            thread_group.start()
            try:
                self._group.start()
            except BaseException:
                thread_group.abort()
                raise
        except BaseException:
            self._threads = []
            raise
        thread_group.go()

    def stop(self, timeout: float | None = None) -> None:
        """Let running handlers finish, commit their batches, and release all partitions.

        No new batch begins after the call. In a handler or in `on_error`, the call returns at once
        and the consumer stops in the background. A second call does nothing, nor does a call in a
        forked child.

        Args:
            timeout: seconds after which it gives up in any case. `drain_timeout` by default.

        Raises:
            ConfigError: if `timeout` is not allowed.
        """
        timeout_s = self._drain_timeout_s if timeout is None else checked_timeout(timeout)
        if os.getpid() != self._pid:
            return
        self._asked_to_stop.put(None)
        if getattr(self._inside, "users_code", False):
            self._stop_behind(timeout_s)
        else:
            self._stop(timeout_s)

    def run(self) -> None:
        """Consume until `stop`, Ctrl-C or SIGTERM; then drain and stop.

        A second Ctrl-C interrupts the drain. The method handles signals only in the main thread,
        and restores their handlers when it returns.

        Raises:
            ClosedError: if the consumer was stopped before.
            Exception: if a fault of multielect made the consumer stop.
        """
        with signals_kept() as is_ours:
            if is_ours:
                for number in ENDING:
                    signal.signal(number, self._on_signal)
            if not self.is_running:
                self.start()
            take(self._asked_to_stop)
        self.stop()
        if self._broken is not None:
            raise self._broken

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

    def lag(self, keys: Iterable[str] | None = None) -> dict[str, Lag]:
        """Return how far behind partitions are, also those that other nodes lead.

        It makes one call to Redis for every 100 partitions.

        Args:
            keys: the partitions' keys; all partitions by default.

        Raises:
            KeyError: if a key is not known.
            redis.RedisError: if the call to Redis fails.
        """
        found: dict[str, Lag] = {}
        for part, names in self._lag_questions(keys):
            replies: Any = self._client.eval(LAG.body.decode(), len(names), *names)
            found |= self._lags(part, replies)
        return found

    # ---- the threads

    def _made_thread_group(self) -> ThreadGroup:
        thread_group = ThreadGroup()
        loops: list[tuple[str, Callable[[], None]]] = [("keep-time", self._keep_time)]
        loops += [("fetch", self._fetch), ("write", self._write)]
        loops += [("discover", self._discover)] if self._list is not None else []
        loops += [(f"watch-{n}", self._watch) for n in range(self._settings.readers)]
        loops += [(f"handle-{n}", self._handle) for n in range(self._handlers)]
        node_id = self._group.node_id
        for name, loop in loops:
            thread_group.add(partial(self._run_loop, name, loop), f"multielect-{node_id}-{name}")
        return thread_group

    def _run_loop(self, name: str, loop: Callable[[], None]) -> None:
        try:
            loop()
        except BaseException as error:  # noqa: BLE001  # a fault of ours
            self._break(name, ordinary(error))
            self._asked_to_stop.put(None)
            self._stop_behind(self._drain_timeout_s)

    def _wake(self) -> None:
        flow = self._flow
        if self._is_time_to_pass:
            self._to_pass_time.notify()
        if flow.may_fetch:
            self._to_fetch.notify()
        if flow.may_watch:
            self._to_watch.notify()
        if flow.has_writes:
            self._to_write.notify()
        if flow.ready:
            self._to_handle.notify(flow.ready)
        if flow.is_closing and flow.is_at_rest:
            self._resting.notify_all()

    def _taken(self, wakeup: threading.Condition, take: Callable[[], T | None]) -> T | None:
        """Wait for work and return it; None when the consumer has ended."""
        with self._changing():
            while not self._ended.is_set():
                found = take()
                if found is not None:
                    return found
                wakeup.wait()
        return None

    def _keep_time(self) -> None:
        with self._mutex:
            while not self._ended.is_set():
                idle_s = self._pass_time()
                self._wake()
                self._to_pass_time.wait(idle_s)

    def _fetch(self) -> None:
        pauses = Pauses(random.random)
        while (ask := self._taken(self._to_fetch, self._flow.take_fetch)) is not None:
            self._read(ask, pauses)

    def _watch(self) -> None:
        pauses = Pauses(random.random)
        while (ask := self._taken(self._to_watch, self._flow.take_watch)) is not None:
            self._read(ask, pauses)

    def _read(self, ask: Ask, pauses: Pauses) -> None:
        """Make a request, and the requests that follow from it."""
        try:
            reply: Any = self._client.execute_command(  # type: ignore[no-untyped-call]
                *self._exchange.command(ask)
            )
        # A connection may raise more than redis-py's errors: a credential provider is user code.
        except BaseException as error:  # noqa: BLE001
            with self._changing():
                then = self._exchange.unanswered(ask, ordinary(error), pauses)
        else:
            with self._changing():
                then = self._exchange.answered(ask, reply, pauses)
        if then.pause_s:
            self._ended.wait(then.pause_s)
        for part in then.asks:
            self._read(part, pauses)

    def _write(self) -> None:
        while (due := self._taken(self._to_write, self._flow.take_writes)) is not None:
            hand_over(due.handed_over)
            try:
                outcomes = self._fence.write_many(self._exchange.written(due))
            # The fence's questions before its first write may raise any of redis-py's errors.
            except BaseException as error:  # noqa: BLE001
                outcomes = self._exchange.unwritten(due, ordinary(error))
            with self._changing():
                self._exchange.settled(due, outcomes)

    def _handle(self) -> None:
        while (work := self._taken(self._to_handle, self._flow.take_work)) is not None:
            self._handle_one(work)

    def _handle_one(self, work: Work) -> None:
        batch = Batch(work, self._fence)
        try:
            with self._in_users_code():
                refuse_unfinished("handler", self._handler(batch), elsewhere=ASYNC)
        # SystemExit as well: in a thread it would end nothing but this thread.
        except BaseException as error:  # noqa: BLE001
            work.message = message_of(error)
            with self._changing():
                self._failed(work, batch, error)
        else:
            with self._changing():
                self._finished(work, batch)

    def _discover(self) -> None:
        assert self._list is not None
        while not self._ended.is_set():
            try:
                with self._in_users_code():
                    found = self._list()
                    if not inspect.isgenerator(found):
                        refuse_unfinished("partitions", found, elsewhere=ASYNC)
                    self._know_listed(found)
            except ClosedError:
                return
            except BaseException as error:  # noqa: BLE001  # a user's function
                self._report_no_listing(ordinary(error))
            self._ended.wait(self._discover_s)

    @contextlib.contextmanager
    def _in_users_code(self) -> Iterator[None]:
        self._inside.users_code = True
        try:
            yield
        finally:
            self._inside.users_code = False

    # ---- the end

    def _stop_behind(self, timeout_s: float) -> None:
        stopping = threading.Thread(target=self._stop, args=(timeout_s,), daemon=True)
        stopping.name = f"multielect-{self._group.node_id}-stop"
        stopping.start()

    def _stop(self, timeout_s: float) -> None:
        until_s = time.monotonic() + timeout_s
        with self._stopping:
            if self._ended.is_set():
                return
            try:
                self._drain(until_s)
            except BaseException:
                # An interrupt: end at once.
                until_s = time.monotonic()
                raise
            finally:
                self._group.stop(max(MIN_STOP_S, until_s - time.monotonic()))
                self._end(until_s)

    def _drain(self, until_s: float) -> None:
        with self._changing():
            self._flow.drain_all()
        with contextlib.suppress(ClosedError):
            self._group.drain(max(0.0, until_s - time.monotonic()))
        with self._mutex:
            left_s = max(0.0, until_s - time.monotonic())
            wait_for(self._resting, lambda: self._flow.is_at_rest, left_s)

    def _end(self, until_s: float) -> None:
        self._exchange.is_over = True
        self._ended.set()
        with self._mutex:
            for condition in (
                self._to_pass_time,
                self._to_fetch,
                self._to_watch,
                self._to_write,
                self._to_handle,
            ):
                condition.notify_all()
        # The readers would otherwise wait for new entries for up to half a second more.
        self._client.connection_pool.disconnect()
        # One limit for all threads, as each may run a handler that never returns.
        until_s = max(until_s, time.monotonic() + MIN_STOP_S)
        for thread in self._threads:
            if thread is not threading.current_thread() and thread.is_alive():
                join(thread, max(0.0, until_s - time.monotonic()))
        self._client.close()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        # A signal handler may put into a SimpleQueue.
        self._asked_to_stop.put(None)
