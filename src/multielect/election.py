"""An election as users see it, and one term of it as callbacks see it.

Rules of this file:
    * What is asked most (`is_leader`, `epoch`, `remaining`) is inherited from the compiled
      `BaseCandidacy`: no lock, no I/O, any thread.
    * These are handles: they hold no state of their own, and two for one election are equal.
"""

from __future__ import annotations

import enum
from typing import NoReturn, Protocol, TypeVar

from ._core.candidacy import BaseCandidacy
from ._core.slots import Slots
from ._protocol.keys import KeyLayout
from ._runtime.clock import Clock
from ._settings.settings import Seconds
from .errors import NotLeaderError

T = TypeVar("T", bound="Term")


class ElectionNode(Protocol):
    """What a node does for the handles of its elections; each method may be called on any thread.

    Attributes:
        slots: where the state of its elections is.
        clock: the clock of their deadlines.
        layout: where their keys lie.
    """

    slots: Slots
    clock: Clock
    layout: KeyLayout

    def leader_id(self, election: Candidacy) -> str | None:
        """Return the node id of whoever leads, as last seen."""

    def resign(self, election: Candidacy) -> bool:
        """Give the current term up. Returns whether there was one."""

    def finish_drain(self, election: Candidacy) -> bool:
        """Hand a draining term over. Returns whether there was one."""

    def learn_epoch(self, number: int, generation: int, term_epoch: int, newest_epoch: int) -> bool:
        """Take note of an epoch. Returns whether a term ended that is not above it."""

    def campaign(self, election: Candidacy) -> None:
        """Stand for election again."""

    def leads_or_may(self, election: Candidacy) -> bool:
        """Return whether this node leads; raise `ClosedError` if it never will any more."""

    def wait(self, election: Candidacy, timeout: Seconds | None) -> bool:
        """Wait until this node leads. Returns whether it does."""


class DemotionReason(enum.Enum):
    """Why a term ended."""

    RESIGNED = 1
    """`resign` was called."""
    REMOVED = 2
    """The election was removed from its group."""
    EXPIRED = 3
    """The deadline passed without a refresh: Redis was away, or this process was."""
    LOST = 4
    """Redis said that the lease is not this node's."""
    STOPPED = 5
    """The group or elector stopped."""
    STALLED = 6
    """`heartbeat` was not called for `max_stall` seconds. This node stands back for one TTL."""
    REBALANCED = 7
    """The election was handed to the node that it is assigned to, or had to make room for this
    node's own share (`max_leases`)."""
    DRAINED = 8
    """`drain` gave up what the group led."""
    SUPERSEDED = 9
    """A newer epoch than the term's is known: another node was elected meanwhile, or wrote under
    it. This node stands again at once, under an epoch above it."""


class Candidacy(BaseCandidacy):
    """A node's place in an election: whether it leads, by what epoch, and who leads if not.

    All of it may be used from any thread.

    Attributes:
        key: the election's key in its group; empty for an `Elector`.
    """

    __slots__ = ("_node", "key")

    key: str

    def __init__(
        self, node: ElectionNode, key: str, number: int, generation: int, term_epoch: int = 0
    ) -> None:
        """Only a group or an elector makes elections."""
        super().__init__(node.slots, node.clock, number, generation, term_epoch)
        self._node = node
        self.key = key

    @property
    def leader_id(self) -> str | None:
        """The node id of whoever leads, as last seen; None where nobody was seen leading.

        This node learns who leads whenever it stands for the election, so the answer may be
        as old as the lease. A node that leads `max_leases` stands for no others and learns
        nothing of them.
        """
        return self._node.leader_id(self)

    def require_leader(self) -> int:
        """Return the epoch if this node leads now.

        Raises:
            NotLeaderError: if it does not.
        """
        # The epoch first: if this node leads after it was read, it led under it or newer.
        epoch = self.epoch
        if not self.is_leader:
            raise NotLeaderError(f"this node does not lead {self.key!r}")
        return epoch

    def resign(self) -> bool:
        """Give the current term up, and let other nodes go first for one TTL.

        `is_leader` is False when this returns; the lease is released in the background and
        the others are told. After the TTL, or `campaign`, this node stands again.

        Returns:
            Whether there was a term to give up.

        Raises:
            ClosedError: if the group has stopped.
        """
        return self._node.resign(self)

    def finish_drain(self) -> bool:
        """Say that the work on a draining term is done: it is handed over at once.

        To be called after `on_draining`, from any thread, when nothing more will be done in this
        term's name. `is_leader` is False when this returns, unless its successor has still to say
        that it is there: that is waited for, but for no longer than a third of the TTL, or a second
        (the TTL, if that is shorter) where that is more. After that it is free for all.

        Returns:
            Whether there was a draining term, and it was not said before.

        Raises:
            ClosedError: if the group has stopped.
        """
        return self._node.finish_drain(self)

    def learn_epoch(self, newest_epoch: int) -> bool:
        """Say that a newer epoch is known, as a store of yours that is fenced found out.

        A term that is not above it ends at once, with reason ``SUPERSEDED``: nothing would be
        written under it any more. This node stands again, and leads under an epoch above
        `newest_epoch`. A `Fence` calls this itself. Any thread.

        Args:
            newest_epoch: the newest epoch that the store has seen for this election.

        Returns:
            Whether a term ended.

        Raises:
            ConfigError: if that is no epoch.
        """
        return learn_epoch(self, term_epoch=self.term_epoch, newest_epoch=newest_epoch)

    def campaign(self) -> None:
        """Stand for election again at once after `resign`; else there is nothing to do.

        Raises:
            ClosedError: if the group has stopped, or drains.
        """
        self._node.campaign(self)

    def __eq__(self, other: object) -> bool:
        """Compare what is viewed: the same election, and the same term of it if bound to one."""
        if not isinstance(other, Candidacy):
            return NotImplemented
        return self._identity() == other._identity() and self._node is other._node

    def __hash__(self) -> int:
        return hash(self._identity())

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied."""
        raise TypeError(
            f"{type(self).__name__} cannot be pickled or copied: it is a view of this process's"
            " leases. Pass on its key and epoch"
        )

    def _identity(self) -> tuple[int, int, int]:
        return self.number, self.generation, self.term_epoch

    def __repr__(self) -> str:
        state = f"leading, epoch {self.epoch}" if self.is_leader else "not leading"
        return f"<{type(self).__name__} {self.key!r}: {state}>"


class Election(Candidacy):
    """One election of a group."""

    __slots__ = ()

    def wait(self, timeout: Seconds | None = None) -> bool:
        """Wait until this node leads. Blocks the calling thread.

        Args:
            timeout: seconds, or None to wait for as long as it takes.

        Returns:
            True once it leads, False if it does not after `timeout`.

        Raises:
            ClosedError: if the group was not started; if it stops or drains, or the election is
                removed, while waiting.
        """
        return self._node.wait(self, timeout)


class Term(Candidacy):
    """One term of an election, as callbacks are given it.

    Its `epoch` is that term's, whatever has happened since, and its `is_leader` is True only
    while that very term goes on.

    Attributes:
        began_ns: when this node began to call itself leader, on the clock of the deadlines
            (CLOCK_BOOTTIME where there is one); None in a demotion.
        ended_ns: when it ceased to; None while the term goes on.
        reason: why the term ended; None while it goes on.
        deadline: when the term ends at the latest, by `time.monotonic`; None unless it drains.
    """

    __slots__ = ("began_ns", "deadline", "ended_ns", "reason")

    began_ns: int | None
    ended_ns: int | None
    reason: DemotionReason | None
    deadline: float | None

    def __init__(
        self,
        node: ElectionNode,
        key: str,
        number: int,
        generation: int,
        term_epoch: int,
        *,
        began_ns: int | None = None,
        ended_ns: int | None = None,
        reason: DemotionReason | None = None,
        deadline: float | None = None,
    ) -> None:
        super().__init__(node, key, number, generation, term_epoch)
        self.began_ns = began_ns
        self.ended_ns = ended_ns
        self.reason = reason
        self.deadline = deadline


# ---- for fences and workers: what a handle knows of its node, and users need not


def layout_of(candidacy: Candidacy) -> KeyLayout:
    """Return where the keys of an election's node lie."""
    return candidacy._node.layout


def learn_epoch(candidacy: Candidacy, *, term_epoch: int, newest_epoch: int) -> bool:
    """Have an election's node take note of an epoch. Any thread.

    Args:
        candidacy: the election.
        term_epoch: the epoch of the term that this concerns; 0 for the current one.
        newest_epoch: the newest epoch that is known.

    Returns:
        Whether a term ended that is not above it.

    Raises:
        ConfigError: if `newest_epoch` is no epoch.
    """
    return candidacy._node.learn_epoch(
        candidacy.number, candidacy.generation, term_epoch, newest_epoch
    )


def begun_as(kind: type[T], term: Term) -> T:
    """Return a term that has begun as another class of handle, which is made as a `Term` is."""
    return kind(
        term._node,
        term.key,
        term.number,
        term.generation,
        term.term_epoch,
        began_ns=term.began_ns,
    )
