"""`ElectionGroup` and `Elector` for asyncio.

Rules of this file:
    * The engine runs on its own threads, so a blocked loop costs no lease. The events of that time
      are delivered afterwards, in order.
    * Callbacks are plain or coroutine functions, and run in the loop that started the group.
      Callbacks of one election run in order and never at once. Callbacks of different elections
      run side by side.
    * Nothing in this file blocks the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Iterable
from types import TracebackType

import redis

from ._callbacks.asyncio_dispatcher import AsyncioDispatcher
from ._callbacks.asyncio_workers import WorkerTerm
from ._callbacks.callbacks import Callbacks
from ._node.base import BaseElectionGroup, BaseElector
from ._node.making import node_in_loop
from ._node.node import Node
from ._node.readiness import STOP_S
from ._protocol.keys import elector_layout, group_layout
from ._settings.settings import Epochs, Seconds, Settings, checked_timeout
from .balance import Only
from .election import Candidacy, Term

__all__ = ["Election", "ElectionGroup", "Elector", "WorkerTerm"]


class Election(Candidacy):
    """One election of a group."""

    __slots__ = ("_changes",)

    def __init__(
        self, node: Node, key: str, number: int, generation: int, changes: AsyncioDispatcher
    ) -> None:
        """Only a group or an elector makes elections."""
        super().__init__(node, key, number, generation)
        self._changes = changes

    async def wait(self, timeout: Seconds | None = None) -> bool:
        """Wait until this node leads.

        Args:
            timeout: seconds, or None to wait without a limit.

        Returns:
            True when this node leads, False if it does not after `timeout`.

        Raises:
            ClosedError: if the group was not started, or was started in another event loop, or if
                it stops or drains, or the election is removed, during the wait.
        """
        timeout_s = None if timeout is None else checked_timeout(timeout)
        self._changes.be_here()
        if self._node.leads_or_may(self):
            return True
        if await self._changes.wait_for(lambda: self._node.leads_or_may(self), timeout_s):
            return True
        return self.is_leader


class ElectionGroup(BaseElectionGroup[Election]):
    """Stands for many elections, each led by at most one node at a time.

    ::

        async with ElectionGroup("redis://localhost:6379/0", prefix="orders",
                                 on_elected=begin, on_demoted=end) as group:
            group.add_many(f"partition-{i}" for i in range(4096))
            async for term in group.events():
                ...

    The arguments are those of `multielect.ElectionGroup`, with these differences. Callbacks may be
    coroutine functions. All callbacks run in the loop in which the group was started, so there is
    no `callback_threads`. A `worker` is a coroutine function and runs in its own task, which is
    cancelled when its term has ended. Methods that are not coroutines never block, and may be
    called from any thread.

    Raises:
        ConfigError: if an argument is not allowed.
    """

    def __init__(
        self,
        redis: str | redis.Redis,
        *,
        prefix: str,
        ttl: Seconds = 10.0,
        node_id: str | None = None,
        margin: Seconds | None = None,
        max_leases: int | None = None,
        buckets: int | None = None,
        epochs: Epochs = "time",
        epoch_retention: Seconds | None = None,
        on_elected: Callable[..., object] | None = None,
        on_demoted: Callable[..., object] | None = None,
        on_draining: Callable[..., object] | None = None,
        on_error: Callable[..., object] | None = None,
        worker: Callable[..., object] | None = None,
        max_stall: Seconds | None = None,
        drain_timeout: Seconds = 10.0,
        balance: bool = False,
        weight: float = 1.0,
        labels: Iterable[str] = (),
        only: Only | None = None,
        join_delay: Seconds = 0.0,
        moves_per_second: float | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        self._prefix = prefix
        self._node, self._dispatcher = node_in_loop(
            redis,
            layout=group_layout(prefix, buckets),
            settings=Settings.checked(
                node_id=node_id,
                ttl=ttl,
                margin=margin,
                max_leases=max_leases,
                epochs=epochs,
                epoch_retention=epoch_retention,
                max_stall=max_stall,
                drain_timeout=drain_timeout,
                notifies_drains=on_draining is not None,
                balance=balance,
                weight=weight,
                labels=labels,
                only=only,
                join_delay=join_delay,
                moves_per_second=moves_per_second,
            ),
            callbacks=Callbacks.checked(
                on_elected=on_elected,
                on_demoted=on_demoted,
                on_draining=on_draining,
                on_error=on_error,
                worker=worker,
                may_await=True,
            ),
            logger=logger,
        )

    async def start(self, *, wait: Seconds | None = None) -> None:
        """Begin to stand for election. The group connects in the background.

        With `wait`, this method waits until there is a connection. If there is none after that many
        seconds, or if the task is cancelled, it stops the group: see
        `multielect.ElectionGroup.start`.

        Args:
            wait: seconds to wait for a connection. By default it does not wait.

        Raises:
            ClosedError: if the group was stopped, or made by the parent of a forked process.
            ConnectionLostError: if there is no connection after `wait` seconds.
            ServerUnusableError: if the server cannot serve elections.
            ConfigError: if `wait` is not allowed, or the prefix has another number of buckets.
        """
        await _start(self._node, self._dispatcher, wait)

    async def wait_connected(self, timeout: Seconds | None = None) -> bool:
        """Wait until there is a connection to Redis. Return False if there is none after `timeout`.

        Raises:
            ClosedError: if the group was not started, was started in another event loop, or stops
                during the wait.
            ConfigError: if `timeout` is not allowed.
        """
        return await _wait_for(self._node.readiness.is_connected, self._dispatcher, timeout)

    async def wait_balanced(self, timeout: Seconds | None = None) -> bool:
        """Wait until this node leads its share: see `multielect.ElectionGroup.wait_balanced`.

        Raises:
            ClosedError: if the group was not started, was started in another event loop, or stops
                during the wait.
            ConfigError: if `timeout` is not allowed, or the group does not balance.
        """
        readiness = self._node.readiness
        with readiness.watching_balance():
            return await _wait_for(readiness.is_balanced, self._dispatcher, timeout)

    async def stop(self, timeout: Seconds = 5.0) -> None:
        """End all terms, release their leases in batches, and wait for callbacks.

        See `multielect.ElectionGroup.stop`.

        Args:
            timeout: seconds after which the method returns in any case.

        Raises:
            ConfigError: if `timeout` is not allowed.
            ClosedError: if the group was started in another event loop that is still open.
        """
        await _stop(self._node, self._dispatcher, timeout)

    async def drain(self, timeout: Seconds | None = None) -> bool:
        """Hand over all elections that the group leads, and campaign for none: before a shutdown.

        See `multielect.ElectionGroup.drain`. The loop stays free. If a callback awaits it, or a
        task that the callback started and that runs while the callback runs, it returns at once.

        Args:
            timeout: seconds after which terms that still drain end in any case. `drain_timeout` by
                default.

        Returns:
            True if the group leads nothing any more. False in a callback means that the drain goes
            on in the background.

        Raises:
            ClosedError: if the group has stopped, or was started in another event loop.
            ConfigError: if `timeout` is not allowed.
        """
        self._dispatcher.be_here()
        wait_s = self._node.begin_drain(timeout)
        if self._node.is_inside_callback:
            return self._node.is_empty_handed
        await self._dispatcher.wait_for(lambda: self._node.is_empty_handed, wait_s)
        return self._node.is_empty_handed

    async def __aenter__(self) -> ElectionGroup:
        """Start the group."""
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the group. The stop is completed even if the task is cancelled meanwhile."""
        await asyncio.shield(asyncio.ensure_future(self.stop()))

    def events(self) -> AsyncGenerator[Term, None]:
        """Iterate over the terms that begin (`reason` is None) and end from now on.

        If the group has an `on_draining`, terms that drain come as well (`deadline` is set). The
        terms of one election come in order. A reader that falls behind misses the terms that began
        and ended meanwhile. It still gets the end of the last term that it saw, and the term that
        goes on now. The iteration ends when the group stops.

        Raises:
            ClosedError: during the iteration, if the group was started in another event loop.
        """
        return self._dispatcher.subscribe()

    def _make(self, key: str, number: int, generation: int) -> Election:
        return Election(self._node, key, number, generation, self._dispatcher)


class Elector(BaseElector[Election]):
    """Stands for the one election of a prefix: see `multielect.Elector`.

    ::

        async with Elector("redis://localhost:6379/0", prefix="billing") as elector:
            if await elector.wait(timeout=30):
                ...

    Callbacks may be coroutine functions. They run in the loop in which the elector was started.

    Raises:
        ConfigError: if an argument is not allowed.
    """

    def __init__(
        self,
        redis: str | redis.Redis,
        *,
        prefix: str,
        node_id: str | None = None,
        ttl: Seconds = 10.0,
        margin: Seconds | None = None,
        epoch_retention: Seconds | None = None,
        max_stall: Seconds | None = None,
        on_elected: Callable[..., object] | None = None,
        on_demoted: Callable[..., object] | None = None,
        on_error: Callable[..., object] | None = None,
        worker: Callable[..., object] | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        self._prefix = prefix
        self._node, self._dispatcher = node_in_loop(
            redis,
            layout=elector_layout(prefix),
            settings=Settings.checked(
                node_id=node_id,
                ttl=ttl,
                margin=margin,
                epoch_retention=epoch_retention,
                max_stall=max_stall,
            ),
            callbacks=Callbacks.checked(
                on_elected=on_elected,
                on_demoted=on_demoted,
                on_error=on_error,
                worker=worker,
                may_await=True,
            ),
            logger=logger,
        )
        self._election = Election(self._node, *self._node.add_sole(), self._dispatcher)

    async def start(self, *, wait: Seconds | None = None) -> None:
        """Begin to stand for election. The elector connects in the background.

        With `wait`, this method waits until there is a connection: see `ElectionGroup.start`.

        Args:
            wait: seconds to wait for a connection. By default it does not wait.

        Raises:
            ClosedError: if the elector was stopped, or made by the parent of a forked process.
            ConnectionLostError: if there is no connection after `wait` seconds.
            ServerUnusableError: if the server cannot serve elections.
            ConfigError: if `wait` is not allowed.
        """
        await _start(self._node, self._dispatcher, wait)

    async def wait_connected(self, timeout: Seconds | None = None) -> bool:
        """Wait until there is a connection to Redis. Return False if there is none after `timeout`.

        Raises:
            ClosedError: if the elector was not started, was started in another event loop, or stops
                during the wait.
            ConfigError: if `timeout` is not allowed.
        """
        return await _wait_for(self._node.readiness.is_connected, self._dispatcher, timeout)

    async def stop(self, timeout: Seconds = 5.0) -> None:
        """End the term if there is one, release the lease, and wait for callbacks.

        Args:
            timeout: seconds after which the method returns in any case.

        Raises:
            ConfigError: if `timeout` is not allowed.
            ClosedError: if the elector was started in another event loop that is still open.
        """
        await _stop(self._node, self._dispatcher, timeout)

    async def wait(self, timeout: Seconds | None = None) -> bool:
        """Wait until this node leads. Return False if it does not after `timeout` seconds.

        Raises:
            ClosedError: if the elector was not started, or stops during the wait.
        """
        return await self._election.wait(timeout)

    async def __aenter__(self) -> Elector:
        """Start the elector."""
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the elector. The stop is completed even if the task is cancelled meanwhile."""
        await asyncio.shield(asyncio.ensure_future(self.stop()))


async def _start(node: Node, dispatcher: AsyncioDispatcher, wait: Seconds | None) -> None:
    wait_s = None if wait is None else checked_timeout(wait)
    begun = node.start()
    if wait_s is None:
        return
    try:
        await dispatcher.wait_for(node.readiness.is_decided, wait_s)
        node.readiness.check_connected(wait_s)
    except BaseException:
        if begun:
            await asyncio.shield(asyncio.ensure_future(_stop(node, dispatcher, STOP_S)))
        raise


async def _wait_for(
    is_so: Callable[[], bool], dispatcher: AsyncioDispatcher, timeout: Seconds | None
) -> bool:
    timeout_s = None if timeout is None else checked_timeout(timeout)
    return is_so() or await dispatcher.wait_for(is_so, timeout_s)


async def _stop(node: Node, dispatcher: AsyncioDispatcher, timeout: Seconds) -> None:
    timeout_s = checked_timeout(timeout)
    dispatcher.be_here_to_stop()
    # Another thread waits for the node's threads. So the loop stays free for the callbacks that
    # the node waits for as well.
    clock = asyncio.get_running_loop().time
    until = clock() + timeout_s
    try:
        await _on_a_thread(lambda: node.stop(timeout_s))
        await dispatcher.finish(max(0.0, until - clock()))
    finally:
        # If this task is cancelled, the log writer closes in the background.
        dispatcher.log.close_behind(lambda: None)


async def _on_a_thread(function: Callable[[], None]) -> None:
    # The loop's executor will not do: the user's work may keep all its threads busy for longer
    # than the timeout, and it takes no work after the main thread has ended.
    loop = asyncio.get_running_loop()
    context = contextvars.copy_context()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        failure: BaseException | None = None
        try:
            context.run(function)
        except BaseException as error:  # noqa: BLE001  # raised again where the future is awaited
            failure = error
        # If the loop was closed meanwhile, nobody awaits the result.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, failure)

    try:
        threading.Thread(target=run, name="multielect-stop", daemon=True).start()
    except RuntimeError:
        # No thread can be started. It is better to block the loop than to leave leases unreleased.
        run()
    await done
