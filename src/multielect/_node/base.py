"""What a group and an elector offer, whichever way they wait and call back.

Rules of this file:
    * Threads and asyncio share all of this; what they do not share (starting, stopping,
      waiting, how a callback is run) is in `group`, `elector` and `aio`.
    * It says what users may do; how it is done is the node's affair.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Generic, NoReturn, TypeVar

from .._connection.health import Health
from .._settings.settings import Seconds
from ..balance import Member
from ..election import Candidacy
from .counters import Counters
from .node import Node

E = TypeVar("E", bound=Candidacy)


class BaseElectionGroup(Generic[E]):
    """The elections of a group."""

    _node: Node
    _prefix: str

    @abstractmethod
    def _make(self, key: str, number: int, generation: int) -> E:
        """Return the handle of an election."""

    # ---- elections

    def add(self, key: str | bytes, *, max_stall: Seconds | None = None) -> E:
        """Stand for the election `key`, or return it if the group does already.

        Args:
            key: any text or bytes, 1 to 512 bytes.
            max_stall: this election's own, in place of the group's. Of no effect if the
                group stands for the election already.

        Raises:
            ConfigError: for a key that is not allowed.
            ClosedError: if the group has stopped, or drains: it would never lead.
        """
        return self._make(*self._node.add(key, max_stall))

    def add_many(self, keys: Iterable[str | bytes]) -> int:
        """Stand for many elections, the first ones first. Returns how many were new.

        Args:
            keys: text or bytes, as a list, a generator, or whatever else can be iterated over.

        Raises:
            ConfigError: for what is no such thing, one text among them; or for a key that is not
                allowed: those before it have been added.
            ClosedError: if the group has stopped, or drains.
        """
        return self._node.add_many(keys)

    def remove(self, key: str | bytes) -> None:
        """Give the election `key` up for good; a term ends with reason ``REMOVED``.

        Raises:
            KeyError: if the group does not stand for it.
            ClosedError: if the group has stopped.
        """
        self._node.remove(key)

    def __getitem__(self, key: str | bytes) -> E:
        """Return the election `key`; a `KeyError` if the group does not stand for it."""
        place = self._node.find(key)
        if place is None:
            raise KeyError(key)
        return self._make(*place)

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
    def led(self) -> list[E]:
        """The elections that this node leads now."""
        return [self._make(*place) for place in self._node.led()]

    # ---- facts

    @property
    def members(self) -> list[Member]:
        """The members of the fleet, as last heard: only where the group balances."""
        return self._node.members

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

    @property
    def health(self) -> Health:
        """How the group is: connected to whom and since when, and what went wrong last.

        It may be read from any thread at any time, and waits neither for Redis nor for a thread.
        """
        return self._node.readiness.health

    @property
    def is_running(self) -> bool:
        """Whether the group was started and is at work.

        False before the start and from the beginning of a stop on, in a forked child, and where a
        thread of the group's has ended for a fault of multielect. It does not say that there is a
        connection: `health` does.
        """
        return self._node.is_running

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied."""
        raise TypeError(
            f"{type(self).__name__} cannot be pickled or copied: it holds a connection and"
            " threads of this process. Make another one in each process"
        )

    def __repr__(self) -> str:
        state = "running" if self._node.is_running else "not running"
        name = type(self).__name__
        return f"<{name} {self._prefix!r} on {self.node_id}: {len(self)} elections, {state}>"


class BaseElector(Generic[E]):
    """The one election of an elector."""

    _node: Node
    _prefix: str
    _election: E

    @property
    def is_leader(self) -> bool:
        """Whether this node leads now: a compare with the clock, no I/O."""
        return self._election.is_leader

    @property
    def epoch(self) -> int:
        """The fencing token of this node's current or latest term; 0 before the first."""
        return self._election.epoch

    @property
    def remaining(self) -> float:
        """Seconds of leadership that are left unless the lease is refreshed."""
        return self._election.remaining

    @property
    def leader_id(self) -> str | None:
        """The node id of whoever leads, as last seen; None where nobody was."""
        return self._election.leader_id

    @property
    def node_id(self) -> str:
        """This node's name."""
        return self._node.settings.node_id

    @property
    def counters(self) -> Counters:
        """What this node has done since it was made."""
        return self._node.counters

    @property
    def health(self) -> Health:
        """How the elector is: see `multielect.ElectionGroup.health`."""
        return self._node.readiness.health

    @property
    def is_running(self) -> bool:
        """Whether the elector is at work: see `multielect.ElectionGroup.is_running`."""
        return self._node.is_running

    def require_leader(self) -> int:
        """Return the epoch if this node leads now.

        Raises:
            NotLeaderError: if it does not.
        """
        return self._election.require_leader()

    def heartbeat(self) -> None:
        """Tell the watchdog (`max_stall`) that the worker goes on."""
        self._election.heartbeat()

    def resign(self) -> bool:
        """Give the current term up, and let other nodes go first for one TTL.

        Returns:
            Whether there was a term to give up.

        Raises:
            ClosedError: if the elector has stopped.
        """
        return self._election.resign()

    def campaign(self) -> None:
        """Stand again at once after `resign`.

        Raises:
            ClosedError: if the elector has stopped.
        """
        self._election.campaign()

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied."""
        raise TypeError(
            f"{type(self).__name__} cannot be pickled or copied: it holds a connection and"
            " threads of this process. Make another one in each process"
        )

    def __repr__(self) -> str:
        state = f"leading, epoch {self.epoch}" if self.is_leader else "not leading"
        return f"<{type(self).__name__} {self._prefix!r} on {self.node_id}: {state}>"
