"""`StreamConsumer`: for programs of threads.

Rules of this file:
    * One mutex guards the flow, and is never held while waiting for Redis or for a handler.
    * The threads: one passes the time, one fetches what is known to be there, some wait for what
      is to come, one makes all fenced writes, one lists partitions, and some run handlers. Their
      number does not grow with the partitions.
    * They are daemons: a handler that never returns does not keep the interpreter from ending.
    * If one of them fails, which it must not, the consumer stops: others take its partitions.
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
        handlers: how many handlers run at once; 8 by default.
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
            unless it calls `Batch.heartbeat`; and of those that wait for a handler, if none has
            returned for as long. Never by default.
        on_error: called with what went wrong: a `HandlerError`, the connection, a stream that
            cannot be read. It is logged in any case.
        logger: where errors are logged.
        group: all else goes to the `ElectionGroup`: `ttl`, `node_id`, `max_leases` and so on.

    Raises:
        ConfigError: for any argument that is not allowed.
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

        def tell(error: MultielectError) -> object:
            with self._in_users_code():
                return call(error)

        return tell

    # ---- life

    def start(self, *, wait: Seconds | None = None) -> None:
        """Begin to stand for election and to consume, and return at once.

        With `wait`, block until the group is connected. If there is no connection after so many
        seconds, or if somebody must mend something first (`ServerUnusableError`), the consumer is
        stopped, and the cause is raised.

        Args:
            wait: seconds; not at all by default.

        Raises:
            ClosedError: if it was started before, or stops while waiting.
            ConnectionLostError: if there is no connection after `wait` seconds.
            ServerUnusableError: if the server cannot serve elections.
            ConfigError: for a bad `wait`, or if the namespace has another number of buckets.
            OSError: if there are no descriptors left.
            RuntimeError: if there are no threads to be had. Nothing is left of the attempt then,
                and it may be started again.
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
        """Let handlers that run finish, commit what they did, and release all partitions.

        Nothing more is begun from the first moment on. Called by a handler, or by `on_error`, it
        returns at once and all this is done behind it. Stopping twice does nothing, and neither
        does stopping in a forked child.

        Args:
            timeout: seconds after which it gives up in any case; `drain_timeout` by default.

        Raises:
            ConfigError: for a bad timeout.
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

        A second Ctrl-C interrupts that. Signals are looked after only in the main thread, and
        are what they were before when it returns.

        Raises:
            ClosedError: if it was stopped before.
            Exception: what made the consumer fail and stop of itself, which nothing should.
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
        except BaseException as error:  # noqa: BLE001  # a mistake of ours
            self._break(name, ordinary(error))
            self._asked_to_stop.put(None)
            self._stop_behind(self._drain_timeout_s)

    def _call(self) -> None:
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

    def _taken(self, called: threading.Condition, take: Callable[[], T | None]) -> T | None:
        """Return what there is to do, once there is anything; None at the end."""
        with self._changing():
            while not self._ended.is_set():
                found = take()
                if found is not None:
                    return found
                called.wait()
        return None

    def _keep_time(self) -> None:
        with self._mutex:
            while not self._ended.is_set():
                idle_s = self._pass_time()
                self._call()
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
        """Make a request, and those that follow from it."""
        try:
            reply: Any = self._client.execute_command(  # type: ignore[no-untyped-call]
                *self._exchange.command(ask)
            )
        # Connections fail in any way that redis-py has, and sometimes in others: a credential
        # provider is the user's.
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
            # What the fence asks before its first write may fail in any way that redis-py has.
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
        # Also SystemExit and its like: there is nothing here for them to end.
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
                # Somebody is in a hurry.
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
        # Who waits for new entries would do so for up to half a second more.
        self._client.connection_pool.disconnect()
        # One bound for all of them: each may be at a handler that never returns.
        until_s = max(until_s, time.monotonic() + MIN_STOP_S)
        for thread in self._threads:
            if thread is not threading.current_thread() and thread.is_alive():
                join(thread, max(0.0, until_s - time.monotonic()))
        self._client.close()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        # A queue of this kind may be put into by a signal's handler.
        self._asked_to_stop.put(None)
