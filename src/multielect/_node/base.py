"""What all groups and electors offer, on threads and in an event loop.

Rules of this file:
    * The classes for threads and for asyncio share all of this. What differs (starting, stopping,
      waiting, running callbacks) is in `group`, `elector` and `aio`.
    * This file declares what users may do. The node does it.
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
        """Stand for the election `key`, and return it. Any thread.

        If the group already stands for it, this only returns it.

        Args:
            key: text or bytes, 1 to 512 bytes.
            max_stall: seconds for this election, in place of the group's `max_stall`. Ignored if
                the group already stands for the election.

        Raises:
            ConfigError: if the key is not allowed.
            ClosedError: if the group has stopped, or drains: it would never lead the election.
        """
        return self._make(*self._node.add(key, max_stall))

    def add_many(self, keys: Iterable[str | bytes]) -> int:
        """Stand for many elections, in any order. Any thread. Returns how many were new.

        Args:
            keys: an iterable of text or bytes, such as a list or a generator.

        Raises:
            ConfigError: if `keys` is not such an iterable (a single text is not), or if a key is
                not allowed. The keys before that one have been added.
            ClosedError: if the group has stopped, or drains.
        """
        return self._node.add_many(keys)

    def remove(self, key: str | bytes) -> None:
        """Stop to stand for the election `key`. Its term ends with reason ``REMOVED``. Any thread.

        Raises:
            KeyError: if the group does not stand for it.
            ClosedError: if the group has stopped.
        """
        self._node.remove(key)

    def __getitem__(self, key: str | bytes) -> E:
        """Return the election `key`. Raise `KeyError` if the group does not stand for it."""
        place = self._node.find(key)
        if place is None:
            raise KeyError(key)
        return self._make(*place)

    def __contains__(self, key: object) -> bool:
        """Return whether the group stands for the election `key`."""
        return isinstance(key, (str, bytes)) and bool(key) and self._node.find(key) is not None

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys that the group has at this moment."""
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
        """The members of the fleet that this node saw last; empty if the group does not balance."""
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
        """The group's connection: to which server, since when, and the last error.

        It may be read from any thread at any time. Reading it waits neither for Redis nor for
        another thread.
        """
        return self._node.readiness.health

    @property
    def is_running(self) -> bool:
        """Whether the group was started and works.

        False before the start, from the beginning of a stop on, in a forked child, and if a fault
        of multielect has ended one of the group's threads. `health` says whether there is a
        connection.
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
        """The node id of the leader that this node saw last; None if it saw none."""
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
        """The elector's connection: see `multielect.ElectionGroup.health`."""
        return self._node.readiness.health

    @property
    def is_running(self) -> bool:
        """Whether the elector works: see `multielect.ElectionGroup.is_running`."""
        return self._node.is_running

    def require_leader(self) -> int:
        """Return the epoch if this node leads now.

        Raises:
            NotLeaderError: if this node does not lead.
        """
        return self._election.require_leader()

    def heartbeat(self) -> None:
        """Report to the watchdog (`max_stall`) that the worker makes progress."""
        self._election.heartbeat()

    def resign(self) -> bool:
        """Give up the current term, and let other nodes go first for one TTL.

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
