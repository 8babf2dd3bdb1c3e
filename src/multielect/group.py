"""`ElectionGroup`: many elections over one connection, for programs that use threads.

Rules of this file:
    * Callbacks run on the group's own threads. A method that waits blocks its caller.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from types import TracebackType

from ._callbacks.callbacks import Callbacks
from ._node.base import BaseElectionGroup
from ._node.environment import Source
from ._node.making import node_on_threads
from ._protocol.keys import group_layout
from ._settings.settings import Epochs, Seconds, Settings
from .balance import Only
from .election import Election


class ElectionGroup(BaseElectionGroup[Election]):
    """Stands for many elections, each led by at most one node at a time.

    ::

        group = ElectionGroup("redis://localhost:6379/0", prefix="orders",
                              on_elected=lambda term: start(term.key, term.epoch),
                              on_demoted=lambda term, reason: stop(term.key))
        group.add_many(f"partition-{i}" for i in range(4096))
        with group:
            ...

    All methods may be called from any thread, and from callbacks. Callbacks run on the group's
    own threads, never on the one that refreshes leases. Callbacks of one election run in order
    and never at once. Callbacks of different elections run side by side.

    Args:
        redis: a URL (``redis://``, ``rediss://``, ``unix://``, ``redis+cluster://``,
            ``rediss+cluster://``), or a `redis.Redis` or `redis.RedisCluster` whose connection
            settings the group takes over. The group opens its own connections. In tests,
            pass a node of `multielect.testing.SimulatedWorld`. The group refuses a URL with an
            option that redis-py would ignore or could not read.
        prefix: the namespace in Redis, without braces, at most 512 bytes. Nodes with the same
            prefix contest the same elections.
        ttl: seconds that a lease lasts without a refresh, at least 0.1. After a crash an election
            has no leader for that long. The group refreshes each lease every third of the TTL.
            Every argument in seconds may also be a `datetime.timedelta`.
        node_id: this node's name, as other nodes see it. By default it is made from the hostname.
        margin: seconds before a lease's end at which this node stops calling itself leader, as
            clocks run at different speeds. By default the larger of 10 % of `ttl` and 0.02.
        max_leases: the largest number of elections that this node leads. It campaigns only while
            it leads fewer. At least 1 and at most 2,147,483,647; no limit by default.
        buckets: into how many hash tags the elections are divided. The first node of a prefix
            decides; a node with another number is refused.
        epochs: ``"time"`` mints `max(counter + 1, server time in ms)`, which rises even if Redis
            lost the counter. ``"counter"`` mints `counter + 1`: small numbers, which start again
            if Redis lost the counter.
        epoch_retention: seconds for which the epoch of an election stays in Redis after a term was
            released or handed over. So elections that no longer exist leave nothing behind. A new
            term keeps the epoch. For ever by default; otherwise at least an hour and ten times
            `ttl`. It must be longer than the write of an old leader can be late (a paused
            machine, a delayed packet), as after it no fence knows a newer epoch. It must also be
            longer than the server's clock can be set back, as the next epoch is the time. Use it
            with ``epochs="time"`` only, and on all nodes of the prefix. See docs/fencing.md.
        max_stall: seconds after which the group gives up a term, with reason ``STALLED``, unless
            the worker has called `Election.heartbeat` meanwhile. The other nodes then go first for
            one TTL. So a worker that hangs does not stay leader. Never by default.
        on_elected: called with the `Term` that began. This callback and those below receive as
            many of their arguments as they take. Coroutine functions are for `multielect.aio`.
        on_demoted: called with the `Term` that ended, and the reason. If other callbacks block,
            and a term ends before its `on_elected` was called, neither callback is called.
        on_draining: called with a `Term` that is to be handed to another node, and the time of
            `time.monotonic` at which the term ends at the latest. The term goes on until
            `Term.finish_drain` is called, which may be after the callback has returned. Without
            this callback, the group hands a term over at once. Terms drain while the group
            balances or `drain` runs. Terms that end for another reason end without this callback.
        on_error: called with each error of the connection, the server or a callback. The group
            also logs it.
        worker: called with a `WorkerTerm` for each term, on a thread of its own. It does the work
            of a leader. It must return when `WorkerTerm.stopping` is set: the term has ended or
            drains. If it returns or raises earlier, the group gives the term up, with reason
            ``RESIGNED``, and the other nodes go first for one TTL. A term that drains is handed
            over when its worker returns, so `on_draining` cannot be given as well. The other
            callbacks are called as usual and do not wait for workers. There are as many threads as
            terms (`max_leases`); a term is given up if no thread can be started for it. An
            election has one worker at a time: a new term waits up to one TTL for the worker of the
            previous term, and is then given up.
        callback_threads: how many callbacks may run at once. If that many block, all other
            callbacks wait. No lease waits.
        drain_timeout: seconds that a term may drain.
        balance: whether the nodes share the elections out among themselves. Each node stands for
            its share. The nodes also take turns in looking for other elections that have no
            leader. A leader hands an election over when the node to which it is assigned claims
            it. Nodes of the same prefix that do not balance contest every election.
        weight: this node's share compared with that of the others, 0.001 to 1,000,000, or 0 for no
            share.
        labels: this node's labels, which `only` looks at.
        only: a mapping from some keys to labels, of which a node needs at least one to lead that
            key. Or a function of a key and a `multielect.balance.Member` that returns whether the
            member may lead the key. It must be the same on all nodes. A function is called once
            for each pair, on a thread of its own; nothing moves while it runs. If it raises, the
            group reports the error once through `on_error`, and the shares stay as they are until
            the function answers.
        join_delay: seconds for which this node is a member before it is assigned anything. So
            several nodes that start one after another get their shares together.
        moves_per_second: how many terms this node begins to hand over in one second at most. No
            limit by default.
        logger: where errors are logged: a `logging.Logger` or an object with its methods.
            ``logging.getLogger("multielect")`` by default.

    Raises:
        ConfigError: if an argument is not allowed.
    """

    def __init__(
        self,
        redis: Source,
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
        callback_threads: int = 8,
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
        self._node = node_on_threads(
            redis,
            layout=group_layout(prefix, buckets),
            settings=Settings.checked(
                node_id=node_id,
                ttl=ttl,
                margin=margin,
                max_leases=max_leases,
                epochs=epochs,
                epoch_retention=epoch_retention,
                callback_threads=callback_threads,
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
            ),
            logger=logger,
        )

    # ---- life

    def start(self, *, wait: Seconds | None = None) -> None:
        """Begin to stand for election, and return at once. The group connects in the background.

        If it cannot reach Redis, it reports that through `on_error` and tries again.

        With `wait`, this method blocks until there is a connection. If there is none after that
        many seconds, or if somebody must mend something first (`ServerUnusableError`), it stops
        the group and raises the cause. A program that can run without Redis does not pass `wait`.
        A group that was already running goes on in any case.

        Args:
            wait: seconds to wait for a connection. By default it does not wait.

        Raises:
            ClosedError: if the group was stopped or drained, or made by the parent of a forked
                process.
            ConnectionLostError: if there is no connection after `wait` seconds.
            ServerUnusableError: if the server cannot serve elections.
            ConfigError: if `wait` is not allowed, or the prefix has another number of buckets.
        """
        self._node.readiness.start(wait)

    def wait_connected(self, timeout: Seconds | None = None) -> bool:
        """Wait until there is a connection to Redis. Return False if there is none after `timeout`.

        Raises:
            ClosedError: if the group was not started, or stops during the wait.
            ConfigError: if `timeout` is not allowed.
        """
        return self._node.wait_for(self._node.readiness.is_connected, timeout)

    def wait_balanced(self, timeout: Seconds | None = None) -> bool:
        """Wait until this node leads its share of the fleet's elections, and nothing else.

        The node decides this by what it knows: it has received the list of members, has worked out
        the shares, and leads each election that is assigned to it. Other nodes may need longer.

        Args:
            timeout: seconds, or None to wait without a limit.

        Returns:
            True when the node leads its share, False if it does not after `timeout`.

        Raises:
            ClosedError: if the group was not started, or stops during the wait.
            ConfigError: if `timeout` is not allowed, or the group does not balance.
        """
        return self._node.readiness.wait_balanced(timeout)

    def stop(self, timeout: Seconds = 5.0) -> None:
        """End all terms, release their leases in batches, and wait for callbacks.

        No new term begins after the call. The group sends the releases in portions of about a
        thousand, and a term ends when its release is sent. Until then it goes on, and its lease is
        refreshed, so no election is without a leader while the others are released. Without a
        connection all terms end at once. The release wakes the other nodes. A stopped group cannot
        be started again. A second call does nothing.

        Args:
            timeout: seconds after which the method returns in any case. Terms that still go on
                then end at once, and leases that were not released expire.

        Raises:
            ConfigError: if `timeout` is not allowed.
        """
        self._node.stop(timeout)

    def drain(self, timeout: Seconds | None = None) -> bool:
        """Hand over all elections that the group leads, and campaign for none: before a shutdown.

        Each term drains: `on_draining` is called, and the term goes on until `finish_drain` is
        called for it or the time is up. In a balanced fleet each other node takes over the
        elections that are assigned to it as soon as they are handed over. Terms end with reason
        ``DRAINED``. After a drain, call `stop`.

        The method blocks the calling thread, unless that is in a callback. A callback only begins
        the drain, and the call returns at once, because a term may be waiting for that very
        callback. Further calls, from any thread, join the drain that goes on. Each can bring its
        end forward; none can put it off.

        Args:
            timeout: seconds after which terms that still drain end in any case. `drain_timeout` by
                default.

        Returns:
            True if the group leads nothing any more. False in a callback means that the drain goes
            on in the background. False elsewhere means that this process was not given the time
            to end all terms.

        Raises:
            ClosedError: if the group has stopped.
            ConfigError: if `timeout` is not allowed.
        """
        return self._node.drain(timeout)

    def __enter__(self) -> ElectionGroup:
        """Start the group."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the group."""
        self.stop()

    # ---- inside

    def _make(self, key: str, number: int, generation: int) -> Election:
        return Election(self._node, key, number, generation)
