"""`ElectionGroup`: many elections over one connection, for programs of threads.

Rules of this file:
    * Callbacks run on threads of the group's own, and waiting blocks the caller's.
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

    All methods may be called from any thread, callbacks included. Callbacks run on threads
    of the group's own, never on the one that refreshes: for one election in order and never
    at once, for different elections side by side.

    Args:
        redis: a URL (``redis://``, ``rediss://``, ``unix://``), or a `redis.Redis` whose
            connection settings are taken over. The group opens a connection of its own. In tests,
            a node of `multielect.testing.SimulatedWorld`. A URL must be understood to its last
            option: what redis-py would drop or trip over is refused.
        prefix: the namespace in Redis, without braces, at most 512 bytes. Nodes of one prefix
            contest the same elections.
        ttl: seconds that a lease lasts without a refresh, at least 0.1: how long an election
            stays without a leader after a crash. Leases are refreshed every third of it. Wherever
            seconds are taken, so is a `datetime.timedelta`.
        node_id: this node's name, as others see it; made from the hostname by default.
        margin: seconds before a lease's end at which this node stops calling itself leader,
            against clocks that run at different speeds: by default the larger of 10 % of
            `ttl` and 0.02.
        max_leases: how many elections this node leads at the most; it campaigns only while it
            leads fewer. At least 1 and at most 2,147,483,647; no limit by default.
        buckets: into how many hash tags the elections are divided; the first node of a prefix
            decides, and a node with another number is refused.
        epochs: ``"time"`` mints `max(counter + 1, server time in ms)`, which rises even where
            Redis lost the counter; ``"counter"`` mints `counter + 1`, small numbers that start
            again where it did.
        epoch_retention: seconds for which the epoch of an election stays in Redis after a term that
            was released or handed over, so that elections which are gone for good leave nothing
            behind; for ever by default. Whoever is elected meanwhile keeps it on. At least an hour
            and ten times `ttl`. It must be longer than any writer of an old epoch can be late (a
            paused machine, a write held up on its way), as after that no fence knows a newer one,
            and longer than the server's clock could be set back, as the next epoch is the time. It
            is for ``epochs="time"`` only, on all nodes of the prefix. See docs/fencing.md.
        max_stall: seconds after which a term is given up, with reason ``STALLED``, if the
            worker has not called `Election.heartbeat` in between; then the other nodes go first
            for one TTL. So a wedged worker does not lead for ever because its refreshes are
            good. Never by default.
        on_elected: called with the `Term` that began. It, and the callbacks below, are given as
            many of their arguments as they take; coroutine functions are for `multielect.aio`.
        on_demoted: called with the `Term` that ended, and why. Behind a callback that
            blocks, a term that ended before its `on_elected` was called is not told at all.
        on_draining: called with a `Term` that is to be handed to another node, and the time of
            `time.monotonic` at which it ends at the latest. The term goes on until
            `Term.finish_drain` is called, which may be after the callback has returned. Without
            this callback a term is handed over at once. Terms that are lost otherwise end without
            it. Terms drain where the group balances, and everywhere while it is drained by `drain`.
        on_error: called with what went wrong: the connection, the server, a callback. It is
            logged in any case.
        worker: called with a `WorkerTerm` for each term, on a thread of its own: where the work
            of a leader belongs. It is to return when `WorkerTerm.stopping` is set, as the term has
            ended or drains. A term whose worker returns or raises before is given up, with reason
            ``RESIGNED``: the other nodes go first for one TTL. One that drains is handed over when
            its worker returns, so there is no `on_draining` beside it; the other callbacks are
            told as ever, and wait for no worker. There are as many threads as terms (`max_leases`);
            a term for which there is none is given up. For one election no worker begins before
            the one before has ended: a term waits for that for one TTL, and is given up then.
        callback_threads: how many callbacks may run at once. As many that block hold up the
            others' callbacks, though no lease.
        drain_timeout: seconds that a term may drain.
        balance: whether the nodes share the elections out among themselves: each stands for its
            share, and looks in turns with the others whether something else stays without a
            leader. An election that is assigned to another node, and that this one claims, is
            handed over. Nodes that do not balance, in the same prefix, contest everything.
        weight: this node's share against that of the others, 0.001 to 1,000,000; 0 for none.
        labels: what `only` goes by.
        only: for some keys, the labels of which a node needs one to lead it; or a function of key
            and `multielect.balance.Member` that tells whether this member may lead that key. It
            must be the same on all nodes. A function runs on a thread of its own, once for each
            pair; while it takes its time nothing is moved. What it raises is told through
            `on_error`, once, and the shares stay as they were until it answers.
        join_delay: seconds that this node is a member before it is given anything, so that nodes
            that come one after another are taken in together.
        moves_per_second: how many terms this node begins to hand over in a second at most. No
            limit by default.
        logger: where errors are logged, a `logging.Logger` or what has its methods;
            ``logging.getLogger("multielect")`` by default.

    Raises:
        ConfigError: for any argument that is not allowed.
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
        """Begin to stand for election, and return at once: connecting goes on behind.

        Where Redis cannot be reached, that is reported through `on_error` and tried again.

        With `wait`, block until there is a connection. If there is none after so many seconds, or
        if somebody must mend something first (`ServerUnusableError`), the group is stopped, and
        the cause is raised: a program that cannot do without ends there and then, and one that can
        does not give `wait`. A group that ran before goes on all the same.

        Args:
            wait: seconds; not at all by default.

        Raises:
            ClosedError: if the group was stopped or drained, or made by the parent of a forked
                process.
            ConnectionLostError: if there is no connection after `wait` seconds.
            ServerUnusableError: if the server cannot serve elections.
            ConfigError: for a bad `wait`, or if the namespace has another number of buckets.
        """
        self._node.readiness.start(wait)

    def wait_connected(self, timeout: Seconds | None = None) -> bool:
        """Wait until there is a connection to Redis; False if there is none after `timeout`.

        Raises:
            ClosedError: if the group was not started, or stops while waiting.
            ConfigError: for a bad timeout.
        """
        return self._node.wait_for(self._node.readiness.is_connected, timeout)

    def wait_balanced(self, timeout: Seconds | None = None) -> bool:
        """Wait until this node leads its share of the fleet's elections, and nothing else.

        As far as it can know: it has heard who is in the fleet, has worked out the shares, and
        leads all that is assigned to it. The others may not have come to that yet.

        Args:
            timeout: seconds, or None to wait for as long as it takes.

        Returns:
            True once it is so, False if it is not after `timeout`.

        Raises:
            ClosedError: if the group was not started, or stops while waiting.
            ConfigError: for a bad timeout, or a group that does not balance.
        """
        return self._node.readiness.wait_balanced(timeout)

    def stop(self, timeout: Seconds = 5.0) -> None:
        """End all terms, release their leases in batches, and wait for callbacks.

        Nothing new is led from the first moment on. Each term ends as its release goes out, a
        thousand at once: what the server has not come to yet goes on being led and refreshed,
        so that no election waits without a leader for all that are before it. Without a
        connection all terms end at once. The other nodes are told. A stopped group cannot be
        started again. Stopping twice does nothing.

        Args:
            timeout: seconds after which it returns in any case; terms that are left by then end,
                and leases not released end by themselves.

        Raises:
            ConfigError: for a bad timeout.
        """
        self._node.stop(timeout)

    def drain(self, timeout: Seconds | None = None) -> bool:
        """Hand over all that the group leads, and stand for nothing any more: before a shutdown.

        Each leading term drains: `on_draining` is called, and the term goes on until `finish_drain`
        is called for it or the time is up. In a balanced fleet the others take over what is
        assigned to them meanwhile, each election the moment that it is handed over. Terms end with
        reason ``DRAINED``. Afterwards there is nothing left to do but `stop`.

        Blocks the calling thread, but not that of a callback: called by one, whichever it is, it
        begins the drain and returns at once, as what is to be handed over may be waiting for that
        very callback. Further calls, of any thread, join the drain that goes on; each can bring its
        end forward, none can put it off.

        Args:
            timeout: seconds until the terms that still drain end in any case; `drain_timeout` by
                default.

        Returns:
            Whether nothing is led any more. False means that the drain goes on behind, where a
            callback called; else that the group was not able to end its terms in time, as this
            process had no time to run.

        Raises:
            ClosedError: if the group has stopped.
            ConfigError: for a bad timeout.
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
