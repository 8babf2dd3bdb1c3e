"""`AsyncStreamConsumer`: for programs of asyncio.

Rules of this file:
    * All that changes the flow is done in the loop that started the consumer, between awaits.
    * Its tasks: one fetches, some wait for what is to come, one makes all fenced writes, one
      lists partitions; and one for each handler that runs, `handlers` of them at the most.
    * A handler that is cancelled, as by the end of the loop, has not handled its batch.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any

import redis

from .._settings import checked_timeout
from ..aio import ElectionGroup
from ..election import DemotionReason, Term
from ..errors import ClosedError, MultielectError
from ..fencing import AsyncFence
from ._batch import Batch
from ._clients import WATCH_MS, async_client_of
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
from ._settings import OnFailure, Partitions, checked_stream

_LEAST_STOP_S = 1.0
_MOST_TASKS = 100_000


class AsyncStreamConsumer(ConsumerFront[ElectionGroup, AsyncFence]):
    """The same for asyncio: see `StreamConsumer`.

    ::

        async def handle(batch):
            for entry in batch.entries:
                await charge(entry.fields)

        consumer = AsyncStreamConsumer("redis://localhost:6379/0", prefix="orders",
                                       partitions=streams, handler=handle)
        await consumer.run()            # until Ctrl-C or SIGTERM, then drains and stops

    The arguments are those of `StreamConsumer`, but that `handler` and a function for
    `partitions` may be coroutine functions, and that all of it runs in the loop in which the
    consumer was started: a handler that blocks the loop costs no lease, but all handlers their
    time. `handlers` is how many are awaited at once.

    Methods that are not coroutines are called in that loop.

    Raises:
        ConfigError: for any argument that is not allowed.
    """

    def __init__(
        self,
        redis: str | redis.Redis,
        *,
        prefix: str,
        partitions: Partitions,
        handler: Callable[[Batch[AsyncFence]], object],
        batch: int = 100,
        handlers: int = 100,
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
            most_handlers=_MOST_TASKS,
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
        self._client = async_client_of(redis)
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
        self._fence = AsyncFence(self._client, self._group)
        self._to_fetch = asyncio.Event()
        self._to_watch = asyncio.Event()
        self._to_write = asyncio.Event()
        self._at_rest = asyncio.Event()
        self._asked_to_stop = asyncio.Event()
        self._stopping = asyncio.Lock()
        self._has_ended = False
        self._tasks: list[asyncio.Task[None]] = []
        self._handling: set[asyncio.Task[None]] = set()

    # ---- life

    async def start(self) -> None:
        """Begin to stand for election and to consume; connecting goes on behind.

        Raises:
            ClosedError: if it was started before.
        """
        if self._tasks or self._has_ended:
            raise ClosedError("a consumer is started once: make a new one")
        loops = [self._fetch(), self._write()]
        loops += [self._discover()] if self._list is not None else []
        loops += [self._watch() for _ in range(self._settings.readers)]
        self._tasks = [asyncio.ensure_future(loop) for loop in loops]
        await self._group.start()

    async def stop(self, timeout: float | None = None) -> None:
        """Let handlers that run finish, commit what they did, and release all partitions.

        Handlers that have not finished in time are cancelled. Called by a handler, it returns
        at once and all this is done behind it. Stopping twice does nothing.

        Args:
            timeout: seconds after which it gives up in any case; `drain_timeout` by default.

        Raises:
            ConfigError: for a bad timeout.
        """
        timeout_s = self._drain_timeout_s if timeout is None else checked_timeout(timeout)
        self._asked_to_stop.set()
        if asyncio.current_task() in self._handling:
            self._tasks.append(asyncio.ensure_future(self._stop(timeout_s)))
        else:
            await self._stop(timeout_s)

    async def run(self) -> None:
        """Consume until `stop`, Ctrl-C or SIGTERM; then drain and stop.

        The same is done where the task is cancelled. Signals are looked after only in the main
        thread.

        Raises:
            ClosedError: if it was stopped before.
        """
        if not self._tasks:
            await self.start()
        try:
            with self._signals():
                await self._asked_to_stop.wait()
        finally:
            await asyncio.shield(asyncio.ensure_future(self._stop(self._drain_timeout_s)))

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
        """Drain and stop; to the end, also where the task is cancelled meanwhile."""
        await asyncio.shield(asyncio.ensure_future(self.stop()))

    # ---- partitions

    def add(self, key: str, stream: str | bytes | None = None) -> None:
        """Consume one more partition: see `StreamConsumer.add`."""
        self._flow.add(key, checked_stream(key if stream is None else stream))
        self._group.add(key)

    def remove(self, key: str) -> None:
        """Consume a partition no more: see `StreamConsumer.remove`."""
        self._group.remove(key)
        self._flow.remove(key)

    def resume(self, key: str) -> bool:
        """Have a partition that was halted go on: see `StreamConsumer.resume`."""
        resumed = self._flow.resume(key)
        self._call()
        return resumed

    async def lag(self, keys: Iterable[str] | None = None) -> dict[str, Lag]:
        """Ask Redis how far behind partitions are: see `StreamConsumer.lag`."""
        found: dict[str, Lag] = {}
        for part, names in self._lag_questions(keys):
            replies: Any = await self._client.eval(LAG.body.decode(), len(names), *names)
            found |= self._lags(part, replies)
        return found

    # ---- callbacks of the group

    def _on_elected(self, term: Term) -> None:
        self._flow.elected(term)
        self._call()

    def _on_draining(self, term: Term, _deadline: float) -> None:
        self._flow.draining(term)
        self._call()

    def _on_demoted(self, term: Term, _reason: DemotionReason) -> None:
        self._flow.demoted(term)
        self._call()

    # ---- the tasks

    def _call(self) -> None:
        """Wake who has something to do."""
        flow = self._flow
        if flow.may_fetch:
            self._to_fetch.set()
        if flow.may_watch:
            self._to_watch.set()
        if flow.has_writes or flow.has_handed_over:
            self._to_write.set()
        while len(self._handling) < self._handlers and (work := flow.take_work()) is not None:
            task = asyncio.ensure_future(self._handle_one(work))
            self._handling.add(task)
            task.add_done_callback(self._handled_one)
        if flow.is_closing and flow.is_at_rest:
            self._at_rest.set()

    async def _fetch(self) -> None:
        pauses = Pauses()
        while not self._has_ended:
            now_s = time.monotonic()
            self._flow.tick(now_s)
            if self._stall_s is not None:
                self._flow.keep_alive()
            ask = self._flow.take_fetch(now_s)
            self._call()
            if ask is None:
                # What `_call` has just set for this very task was looked after.
                await _called(self._to_fetch, self._idle_s(now_s))
            else:
                await self._read(ask, pauses)

    async def _watch(self) -> None:
        pauses = Pauses()
        while not self._has_ended:
            ask = self._flow.take_watch()
            if ask is None:
                await _called(self._to_watch, POLL_S if self._flow.may_watch else None)
            elif await self._read(ask, pauses):
                await asyncio.sleep(len(ask.readings) * PACE_S)

    async def _read(self, ask: Ask, pauses: Pauses) -> bool:
        """Make a request. Returns whether it brought anything."""
        try:
            reply: Any = await self._client.execute_command(  # type: ignore[no-untyped-call]
                *command_of(ask, WATCH_MS)
            )
        except redis.ResponseError as error:
            return await self._read_apart(ask, error, pauses)
        except NOT_REACHED as error:
            self._flow.unread(ask, time.monotonic())
            self._report_unread(error, pauses)
            await asyncio.sleep(pauses.take())
            return False
        pauses.reset()
        found = entries_of(reply)
        self._flow.fetched(ask, found, time.monotonic())
        self._call()
        return bool(found)

    async def _read_apart(self, ask: Ask, error: redis.ResponseError, pauses: Pauses) -> bool:
        """Find the stream that cannot be read, and read the others."""
        if len(ask.readings) == 1:
            self._flow.unreadable(ask, time.monotonic())
            self._report(unreadable(ask, error))
            return False
        # Both are read, whatever the first brings.
        brought = [await self._read(half, pauses) for half in self._flow.split(ask)]
        return any(brought)

    async def _write(self) -> None:
        while not self._has_ended:
            claims, works = self._flow.take_claims(), self._flow.take_commits()
            hand_over(self._flow.take_handed_over())
            if not claims and not works:
                await _called(self._to_write, None)
                continue
            try:
                outcomes = await self._fence.write_many(self._written(claims, works))
            # What the fence asks before its first write may fail in any way that redis-py has.
            except Exception as error:  # noqa: BLE001
                outcomes = self._all_failed(error, len(claims) + len(works))
            self._settled(claims, works, outcomes)
            self._call()

    async def _handle_one(self, work: Work) -> None:
        batch = Batch(work, self._fence)
        try:
            outcome = self._handler(batch)
            if inspect.isawaitable(outcome):
                await outcome
            commit = self._finished(work, batch)
        except asyncio.CancelledError as error:
            self._failed(work, error)
            raise
        except Exception as error:  # noqa: BLE001  # a user's function
            self._failed(work, error)
        else:
            self._flow.handled(work, commit)

    def _handled_one(self, task: asyncio.Task[None]) -> None:
        self._handling.discard(task)
        self._call()

    async def _discover(self) -> None:
        assert self._list is not None
        while not self._has_ended:
            try:
                found = self._list()
                if inspect.isawaitable(found):
                    found = await found
                self._group.add_many(self._new_partitions(found))
            except ClosedError:
                return
            except Exception as error:  # noqa: BLE001  # a user's function
                self._report_listing(error)
            await asyncio.sleep(self._discover_s)

    # ---- the end

    async def _stop(self, timeout_s: float) -> None:
        until_s = time.monotonic() + timeout_s
        async with self._stopping:
            if self._has_ended:
                return
            self._flow.drain_all()
            self._call()
            with contextlib.suppress(ClosedError):
                await self._group.drain(timeout_s)
            with contextlib.suppress(asyncio.TimeoutError):
                left_s = max(0.0, until_s - time.monotonic())
                await asyncio.wait_for(self._at_rest.wait(), left_s)
            await self._group.stop(max(_LEAST_STOP_S, until_s - time.monotonic()))
            self._has_ended = True
            ours = asyncio.current_task()
            left = {task for task in (*self._tasks, *self._handling) if task is not ours}
            for task in left:
                task.cancel()
            if left:
                await asyncio.wait(left, timeout=_LEAST_STOP_S)
            await self._client.aclose()
            await self._client.connection_pool.disconnect()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Have signals that end programs ask for a stop, until the block is left."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in before:
            loop.add_signal_handler(number, self._asked_to_stop.set)
        try:
            yield
        finally:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)


async def _called(event: asyncio.Event, timeout_s: float | None) -> None:
    """Wait until called, or for so long."""
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(event.wait(), timeout_s)
    event.clear()
