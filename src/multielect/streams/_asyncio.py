"""`AsyncStreamConsumer`: for programs that use asyncio.

Rules of this file:
    * Every change of the flow is made in the loop that started the consumer, between two awaits.
    * The tasks: one keeps the time, one fetches entries that are there, some wait for new entries,
      one makes all fenced writes, one lists partitions. Each running handler has a task, at most
      `handlers` of them.
    * However a handler's task ends, its batch is then handled or failed. That holds for a task that
      is cancelled, as by the end of the loop, and for one that never began.
    * If another task fails by a fault of ours, the consumer stops, and others take its partitions.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import random
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from types import TracebackType
from typing import Any, TypeAlias, TypeVar

import redis

from .._connection.backoff import Pauses
from .._settings.callables import refuse_unfinished
from .._settings.settings import Seconds, checked_timeout
from ..aio import ElectionGroup
from ..errors import ClosedError
from ..fencing import AsyncFence
from ._base import ENDING, MIN_STOP_S, BaseStreamConsumer, hand_over, signals_kept
from ._batch import Batch
from ._clients import async_client_of
from ._commits import LAG, message_of
from ._lag import Lag
from ._reading import Ask, Work

T = TypeVar("T")

AsyncBatch: TypeAlias = Batch[AsyncFence]
"""The `Batch` of an `AsyncStreamConsumer`."""


class AsyncStreamConsumer(BaseStreamConsumer[ElectionGroup, AsyncFence]):
    """A `StreamConsumer` for asyncio.

    ::

        async def handle(batch):
            for entry in batch.entries:
                await charge(entry.fields)

        consumer = AsyncStreamConsumer("redis://localhost:6379/0", prefix="orders",
                                       partitions=streams, handler=handle)
        await consumer.run()            # until Ctrl-C or SIGTERM, then drains and stops

    The arguments are those of `StreamConsumer`, with these differences. `handler`, and a function
    for `partitions`, may be coroutine functions. Everything runs in the loop in which the consumer
    was started. A handler that blocks this loop costs no lease, but delays all other handlers.
    `handlers` is how many handlers are awaited at once; 100 by default.

    Call the methods that are not coroutines in that loop too.

    Raises:
        ConfigError: if an argument is not allowed.
    """

    _default_handlers = 100
    _max_handlers = 100_000
    _takes_coroutines = True

    def _connect(self, redis: str | redis.Redis, options: dict[str, Any]) -> None:
        self._client = async_client_of(redis)
        self._group = ElectionGroup(redis, **options)
        self._fence = AsyncFence(self._client, self._group)
        self._to_pass_time = asyncio.Event()
        self._to_fetch = asyncio.Event()
        self._to_watch = asyncio.Event()
        self._to_write = asyncio.Event()
        self._at_rest = asyncio.Event()
        self._asked_to_stop = asyncio.Event()
        self._stopping = asyncio.Lock()
        self._has_ended = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._handling: set[asyncio.Task[None]] = set()

    def _make_mutex(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    # ---- life

    async def start(self, *, wait: Seconds | None = None) -> None:
        """Begin to stand for election and to consume. It connects in the background.

        With `wait`, until the group is connected. If there is no connection after so many seconds,
        or the task is cancelled, the consumer is stopped: see `StreamConsumer.start`.

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
        await self._start()
        if wait_s is None:
            return
        try:
            await self._group.start(wait=wait_s)
        except BaseException:
            await asyncio.shield(asyncio.ensure_future(self._stop(0.0)))
            raise

    async def wait_connected(self, timeout: Seconds | None = None) -> bool:
        """Wait until the group is connected to Redis; False if it is not after `timeout`.

        Raises:
            ClosedError: if the consumer was not started, was started in another event loop, or
                stops while waiting.
            ConfigError: for a bad timeout.
        """
        return await self._group.wait_connected(timeout)

    async def _start(self) -> None:
        if self._tasks or self._has_ended:
            raise ClosedError("a consumer is started once: make a new one")
        await self._group.start()
        loops = {"keep time": self._keep_time(), "fetch": self._fetch(), "write": self._write()}
        if self._list is not None:
            loops["discover"] = self._discover()
        loops |= {f"watch-{n}": self._watch() for n in range(self._settings.readers)}
        self._tasks = {asyncio.ensure_future(self._run_loop(*item)) for item in loops.items()}

    async def stop(self, timeout: float | None = None) -> None:
        """Let running handlers finish, commit their batches, and release all partitions.

        Handlers that have not finished in time are cancelled. In a handler, the call returns at
        once and the consumer stops in the background. A second call does nothing, nor does a call
        in a forked child.

        Args:
            timeout: seconds after which it gives up in any case. `drain_timeout` by default.

        Raises:
            ConfigError: if `timeout` is not allowed.
        """
        timeout_s = self._drain_timeout_s if timeout is None else checked_timeout(timeout)
        if os.getpid() != self._pid:
            return
        self._asked_to_stop.set()
        if asyncio.current_task() in self._handling:
            self._stop_behind(timeout_s)
        else:
            await self._stop(timeout_s)

    async def run(self) -> None:
        """Consume until `stop`, Ctrl-C or SIGTERM; then drain and stop.

        It also drains and stops if the task is cancelled. It handles signals only in the main
        thread.

        Raises:
            ClosedError: if the consumer was stopped before.
            Exception: if a fault of multielect made the consumer stop.
        """
        try:
            with self._signals():
                if not self.is_running:
                    await self.start()
                await self._asked_to_stop.wait()
        finally:
            await asyncio.shield(asyncio.ensure_future(self._stop(self._drain_timeout_s)))
        if self._broken is not None:
            raise self._broken

    async def __aenter__(self) -> AsyncStreamConsumer:
        """Start to consume."""
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drain and stop. The stop is completed even if the task is cancelled meanwhile."""
        await asyncio.shield(asyncio.ensure_future(self.stop()))

    async def lag(self, keys: Iterable[str] | None = None) -> dict[str, Lag]:
        """Return how far behind partitions are: see `StreamConsumer.lag`."""
        found: dict[str, Lag] = {}
        for part, names in self._lag_questions(keys):
            replies: Any = await self._client.eval(LAG.body.decode(), len(names), *names)
            found |= self._lags(part, replies)
        return found

    # ---- the tasks

    async def _run_loop(self, name: str, loop: Coroutine[Any, Any, None]) -> None:
        try:
            await loop
        except Exception as error:  # noqa: BLE001  # a fault of ours
            self._break(name, error)
            self._asked_to_stop.set()
            self._stop_behind(self._drain_timeout_s)

    def _wake(self) -> None:
        flow = self._flow
        if self._is_time_to_pass:
            self._to_pass_time.set()
        if flow.may_fetch:
            self._to_fetch.set()
        if flow.may_watch:
            self._to_watch.set()
        while len(self._handling) < self._handlers and (work := flow.take_work()) is not None:
            self._begin(work)
        if flow.has_writes:
            self._to_write.set()
        if flow.is_closing and flow.is_at_rest:
            self._at_rest.set()

    async def _taken(self, wakeup: asyncio.Event, take: Callable[[], T | None]) -> T | None:
        """Wait for work and return it; None when the consumer has ended."""
        while not self._has_ended:
            with self._changing():
                found = take()
            if found is not None:
                return found
            await wakeup.wait()
            wakeup.clear()
        return None

    async def _keep_time(self) -> None:
        while not self._has_ended:
            with self._changing():
                idle_s = self._pass_time()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._to_pass_time.wait(), idle_s)
            self._to_pass_time.clear()

    async def _fetch(self) -> None:
        pauses = Pauses(random.random)
        while (ask := await self._taken(self._to_fetch, self._flow.take_fetch)) is not None:
            await self._read(ask, pauses)

    async def _watch(self) -> None:
        pauses = Pauses(random.random)
        while (ask := await self._taken(self._to_watch, self._flow.take_watch)) is not None:
            await self._read(ask, pauses)

    async def _read(self, ask: Ask, pauses: Pauses) -> None:
        """Make a request, and the requests that follow from it."""
        try:
            reply: Any = await self._client.execute_command(  # type: ignore[no-untyped-call]
                *self._exchange.command(ask)
            )
        # A connection may raise more than redis-py's errors.
        except Exception as error:  # noqa: BLE001
            with self._changing():
                then = self._exchange.unanswered(ask, error, pauses)
        else:
            with self._changing():
                then = self._exchange.answered(ask, reply, pauses)
        if then.pause_s:
            await asyncio.sleep(then.pause_s)
        for part in then.asks:
            await self._read(part, pauses)

    async def _write(self) -> None:
        while (due := await self._taken(self._to_write, self._flow.take_writes)) is not None:
            hand_over(due.handed_over)
            try:
                outcomes = await self._fence.write_many(self._exchange.written(due))
            # The fence's questions before its first write may raise any of redis-py's errors.
            except Exception as error:  # noqa: BLE001
                outcomes = self._exchange.unwritten(due, error)
            with self._changing():
                self._exchange.settled(due, outcomes)

    def _begin(self, work: Work) -> None:
        batch = Batch(work, self._fence)
        task = asyncio.ensure_future(self._handle(batch))

        def end(task: asyncio.Task[None]) -> None:
            self._handling.discard(task)
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            with self._changing():
                if error is None:
                    self._finished(work, batch)
                else:
                    work.message = message_of(error)
                    self._failed(work, batch, error)

        self._handling.add(task)
        task.add_done_callback(end)

    async def _handle(self, batch: AsyncBatch) -> None:
        outcome = self._handler(batch)
        refuse_unfinished("handler", outcome, may_await=True)
        if inspect.isawaitable(outcome):
            refuse_unfinished("handler", await outcome, elsewhere="code that awaits them")

    async def _discover(self) -> None:
        assert self._list is not None
        while not self._has_ended:
            try:
                found = self._list()
                if inspect.isawaitable(found):
                    found = await found
                self._know_listed(found)
            except ClosedError:
                return
            except Exception as error:  # noqa: BLE001  # a user's function
                self._report_no_listing(error)
            await asyncio.sleep(self._discover_s)

    # ---- the end

    def _stop_behind(self, timeout_s: float) -> None:
        task = asyncio.ensure_future(self._stop(timeout_s))
        self._tasks.add(task)

    async def _stop(self, timeout_s: float) -> None:
        until_s = time.monotonic() + timeout_s
        async with self._stopping:
            if self._has_ended:
                return
            try:
                await self._drain(until_s)
            finally:
                await self._group.stop(max(MIN_STOP_S, until_s - time.monotonic()))
                await self._end()

    async def _drain(self, until_s: float) -> None:
        with self._changing():
            self._flow.drain_all()
        with contextlib.suppress(ClosedError):
            await self._group.drain(max(0.0, until_s - time.monotonic()))
        with contextlib.suppress(asyncio.TimeoutError):
            left_s = max(0.0, until_s - time.monotonic())
            await asyncio.wait_for(self._at_rest.wait(), left_s)

    async def _end(self) -> None:
        self._exchange.is_over = True
        self._has_ended = True
        ours = asyncio.current_task()
        left = {task for task in (*self._tasks, *self._handling) if task is not ours}
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=MIN_STOP_S)
        await self._client.aclose()
        await self._client.connection_pool.disconnect()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Let the signals that end programs ask for a stop, within the block."""
        with signals_kept() as is_ours:
            loop = asyncio.get_running_loop()
            numbers = ENDING if is_ours else ()
            for number in numbers:
                loop.add_signal_handler(number, self._asked_to_stop.set)
            try:
                yield
            finally:
                for number in numbers:
                    loop.remove_signal_handler(number)
