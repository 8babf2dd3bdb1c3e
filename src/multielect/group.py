"""`ElectionGroup`: many elections over one connection.

Rules of this file:
    * It says what users may do; how it is done is the node's affair.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType

import redis

from ._keys import DEFAULT_BUCKETS, group_layout
from ._node import Counters, Node
from ._settings import Epochs, Settings
from .election import DemotionReason, Election, Term
from .errors import MultielectError


class ElectionGroup:
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
            connection settings are taken over. The group opens a connection of its own.
        prefix: the namespace in Redis, without braces, at most 512 bytes. Nodes of one prefix
            contest the same elections.
        ttl: seconds that a lease lasts without a refresh, at least 0.1: how long an election
            stays without a leader after a crash. Leases are refreshed every third of it.
        node_id: this node's name, as others see it; made from the hostname by default.
        margin: seconds before a lease's end at which this node stops calling itself leader,
            against clocks that run at different speeds: by default the larger of 10 % of
            `ttl` and 0.02.
        max_leases: how many elections this node leads at the most; it campaigns only while it
            leads fewer. No limit by default.
        buckets: into how many hash tags the elections are divided; the first node of a prefix
            decides, and a node with another number is refused.
        epochs: ``"time"`` mints `max(counter + 1, server time in ms)`, which rises even where
            Redis lost the counter; ``"counter"`` mints `counter + 1`, small numbers that start
            again where it did.
        max_stall: seconds after which a term is given up, with reason ``STALLED``, if the
            worker has not called `Election.alive` in between; then the other nodes go first
            for one TTL. So a wedged worker does not lead for ever because its refreshes are
            good. Never by default.
        on_elected: called with the `Term` that began.
        on_demoted: called with the `Term` that ended, and why. Behind a callback that
            blocks, a term that ended before its `on_elected` was called is not told at all.
        on_error: called with what went wrong: the connection, the server, a callback. It is
            logged in any case.
        callback_threads: how many callbacks may run at once. As many that block hold up the
            others' callbacks, though no lease.
        logger: where errors are logged; ``logging.getLogger("multielect")`` by default.

    Raises:
        ConfigError: for any argument that is not allowed.
    """

    def __init__(
        self,
        redis: str | redis.Redis,
        *,
        prefix: str,
        ttl: float = 10.0,
        node_id: str | None = None,
        margin: float | None = None,
        max_leases: int | None = None,
        buckets: int | None = None,
        epochs: Epochs = "time",
        on_elected: Callable[[Term], object] | None = None,
        on_demoted: Callable[[Term, DemotionReason], object] | None = None,
        on_error: Callable[[MultielectError], object] | None = None,
        callback_threads: int = 8,
        max_stall: float | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        self._on_elected = on_elected
        self._on_demoted = on_demoted
        self._prefix = prefix
        self._node = Node(
            redis,
            layout=group_layout(prefix, DEFAULT_BUCKETS if buckets is None else buckets),
            settings=Settings.checked(
                node_id=node_id,
                ttl=ttl,
                margin=margin,
                max_leases=max_leases,
                epochs=epochs,
                callback_threads=callback_threads,
                max_stall=max_stall,
            ),
            tell=self._tell if on_elected or on_demoted else None,
            tell_error=on_error,
            logger=logger or logging.getLogger("multielect"),
        )

    # ---- life

    def start(self) -> None:
        """Begin to stand for election, and return at once: connecting goes on behind.

        Where Redis cannot be reached, that is reported through `on_error` and tried again.

        Raises:
            ClosedError: if the group was stopped, or made by the parent of a forked process.
        """
        self._node.start()

    def stop(self, timeout: float = 5.0) -> None:
        """End all terms, release their leases in batches, and wait for callbacks.

        `is_leader` is False everywhere from the first moment on, and the other nodes are
        told. A stopped group cannot be started again. Stopping twice does nothing.

        Args:
            timeout: seconds after which it returns in any case; leases not released by then
                end by themselves.

        Raises:
            ConfigError: for a bad timeout.
        """
        self._node.stop(timeout)

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

    # ---- elections

    def add(self, key: str | bytes, *, max_stall: float | None = None) -> Election:
        """Stand for the election `key`, or return it if the group does already.

        Args:
            key: any text or bytes, 1 to 512 bytes.
            max_stall: this election's own, in place of the group's. Of no effect if the
                group stands for the election already.

        Raises:
            ConfigError: for a key that is not allowed.
            ClosedError: if the group has stopped.
        """
        return self._node.add(key, max_stall)

    def add_many(self, keys: Iterable[str | bytes]) -> int:
        """Stand for many elections, the first ones first. Returns how many were new.

        Raises:
            ConfigError: for a key that is not allowed; those before it have been added.
            ClosedError: if the group has stopped.
        """
        return self._node.add_many(keys)

    def remove(self, key: str | bytes) -> None:
        """Give the election `key` up for good; a term ends with reason ``REMOVED``.

        Raises:
            KeyError: if the group does not stand for it.
            ClosedError: if the group has stopped.
        """
        self._node.remove(key)

    def __getitem__(self, key: str | bytes) -> Election:
        """Return the election `key`; a `KeyError` if the group does not stand for it."""
        election = self._node.find(key)
        if election is None:
            raise KeyError(key)
        return election

    def __contains__(self, key: object) -> bool:
        """Tell whether the group stands for the election `key`."""
        return isinstance(key, (str, bytes)) and bool(key) and self._node.find(key) is not None

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys there are at this moment."""
        return iter(self._node.keys())

    def __len__(self) -> int:
        """Return how many elections the group stands for."""
        return len(self._node)

    @property
    def owned(self) -> list[Election]:
        """The elections that this node leads now."""
        return self._node.owned()

    # ---- facts

    @property
    def node_id(self) -> str:
        """This node's name."""
        return self._node.settings.node_id

    @property
    def holder(self) -> str:
        """The value of this node's leases: its name and its incarnation."""
        return self._node.holder

    @property
    def prefix(self) -> str:
        """The namespace in Redis."""
        return self._prefix

    @property
    def ttl(self) -> float:
        """Seconds that a lease lasts without a refresh."""
        return self._node.settings.ttl_ns / 1e9

    @property
    def counters(self) -> Counters:
        """What this node has done since it was made."""
        return self._node.counters

    def __repr__(self) -> str:
        state = "running" if self._node.is_running else "not running"
        return f"<ElectionGroup {self._prefix!r} on {self.node_id}: {len(self)} elections, {state}>"

    def _tell(self, term: Term) -> None:
        if term.reason is None:
            if self._on_elected is not None:
                self._on_elected(term)
        elif self._on_demoted is not None:
            self._on_demoted(term, term.reason)
