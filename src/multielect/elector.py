"""`Elector`: one election.

Rules of this file:
    * An elector and the Go elector that it descends from can stand in the same election. They use
      the same two keys, and their scripts respect each other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType

from ._callbacks.callbacks import Callbacks
from ._node.base import BaseElector
from ._node.environment import Source
from ._node.making import node_on_threads
from ._protocol.keys import elector_layout
from ._settings.settings import Seconds, Settings
from .election import Election


class Elector(BaseElector[Election]):
    """Stands for the one election of a prefix.

    ::

        with Elector("redis://localhost:6379/0", prefix="billing") as elector:
            if elector.is_leader:
                ...

    Its methods may be called from any thread. Callbacks run one after the other on the elector's
    own thread, never on the one that refreshes the lease.

    A node written in Go may stand in the same election. It leaves its lease in Redis when it stops,
    and announces nothing. So this elector follows it when the lease ends, up to the Go node's TTL
    after the stop. While a Go node leads, this elector also asks every third of its own TTL, as Go
    nodes do: somebody may delete the lease. A Go node takes over from this elector at its next
    question.

    Args:
        redis: a URL, or a `redis.Redis` whose connection settings the elector takes over.
        prefix: the namespace in Redis, without braces, at most 512 bytes.
        node_id: this node's name, as other nodes see it. `generate_node_id()` by default.
        ttl: seconds that the lease lasts without a refresh, at least 0.1.
        margin: see `ElectionGroup`.
        epoch_retention: see `ElectionGroup`. Do not use it if nodes written in Go stand in the
            election: they only count their epochs up, and leave the expiry on the counter.
        max_stall: see `ElectionGroup`.
        on_elected: called when this node is elected, with the `Term` if it takes an argument.
        on_demoted: called when a term ends, with as many of `Term` and `DemotionReason` as it
            takes. Coroutine functions are for `multielect.aio`.
        on_error: called with each error, if it takes an argument. The elector also logs the error.
        worker: called with a `WorkerTerm` for each term, on a thread of its own: see
            `ElectionGroup`.
        logger: where errors are logged. ``logging.getLogger("multielect")`` by default.

    Raises:
        ConfigError: if an argument is not allowed.
    """

    def __init__(
        self,
        redis: Source,
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
        self._node = node_on_threads(
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
                on_elected=on_elected, on_demoted=on_demoted, on_error=on_error, worker=worker
            ),
            logger=logger,
        )
        self._election = Election(self._node, *self._node.add_sole())

    def start(self, *, wait: Seconds | None = None) -> None:
        """Begin to stand for election, and return at once. The elector connects in the background.

        With `wait`, this method blocks until there is a connection: see `ElectionGroup.start`.

        Args:
            wait: seconds to wait for a connection. By default it does not wait.

        Raises:
            ClosedError: if the elector was stopped, or made by the parent of a forked process.
            ConnectionLostError: if there is no connection after `wait` seconds.
            ServerUnusableError: if the server cannot serve elections.
            ConfigError: if `wait` is not allowed.
        """
        self._node.readiness.start(wait)

    def wait_connected(self, timeout: Seconds | None = None) -> bool:
        """Wait until there is a connection to Redis. Return False if there is none after `timeout`.

        Raises:
            ClosedError: if the elector was not started, or stops during the wait.
            ConfigError: if `timeout` is not allowed.
        """
        return self._node.wait_for(self._node.readiness.is_connected, timeout)

    def stop(self, timeout: Seconds = 5.0) -> None:
        """End the term if there is one, release the lease, and wait for callbacks.

        A stopped elector cannot be started again. A second call does nothing.

        Args:
            timeout: seconds after which the method returns in any case.

        Raises:
            ConfigError: if `timeout` is not allowed.
        """
        self._node.stop(timeout)

    def __enter__(self) -> Elector:
        """Start the elector."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the elector."""
        self.stop()

    def wait(self, timeout: Seconds | None = None) -> bool:
        """Wait until this node leads. Return False if it does not after `timeout` seconds.

        Raises:
            ClosedError: if the elector was not started, or stops during the wait.
        """
        return self._election.wait(timeout)
