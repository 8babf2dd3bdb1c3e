"""An election as users see it, and one term of it as callbacks see it.

Rules of this file:
    * The attributes that programs read most (`is_leader`, `epoch`, `remaining`) come from the
      compiled `BaseCandidacy`. They take no lock, do no I/O, and may be read on any thread.
    * These classes are handles. They hold no state, and two handles of one election are equal.
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
    """The node behind the handles of its elections. Each method may be called on any thread.

    Attributes:
        slots: the state of its elections.
        clock: the clock of their deadlines.
        layout: the names of their Redis keys.
    """

    slots: Slots
    clock: Clock
    layout: KeyLayout

    def leader_id(self, election: Candidacy) -> str | None:
        """Return the node id of the leader that this node saw last."""

    def resign(self, election: Candidacy) -> bool:
        """Give up the current term. Returns whether there was one."""

    def finish_drain(self, election: Candidacy) -> bool:
        """Hand a draining term over. Returns whether there was one."""

    def learn_epoch(self, number: int, generation: int, term_epoch: int, newest_epoch: int) -> bool:
        """Record an epoch, and end the term if its own epoch is lower. Returns whether it ended."""

    def campaign(self, election: Candidacy) -> None:
        """Stand for election again."""

    def leads_or_may(self, election: Candidacy) -> bool:
        """Return whether this node leads. Raise `ClosedError` if it can never lead again."""

    def wait(self, election: Candidacy, timeout: Seconds | None) -> bool:
        """Wait until this node leads. Returns whether it does."""


class DemotionReason(enum.Enum):
    """Why a term ended."""

    RESIGNED = 1
    """`resign` was called."""
    REMOVED = 2
    """The election was removed from its group."""
    EXPIRED = 3
    """The deadline passed without a refresh: Redis did not answer, or this process did not run."""
    LOST = 4
    """Redis answered that the lease is not this node's."""
    STOPPED = 5
    """The group or elector stopped."""
    STALLED = 6
    """`heartbeat` was not called for `max_stall` seconds. This node does not stand for one TTL."""
    REBALANCED = 7
    """The election was handed to the node to which it is assigned, or the node ended the term to
    make room for its own share (`max_leases`)."""
    DRAINED = 8
    """`drain` was called."""
    SUPERSEDED = 9
    """This node learned of a newer epoch than the term's: another node was elected meanwhile, or
    wrote under that epoch. This node stands again at once, for an epoch above it."""


class Candidacy(BaseCandidacy):
    """A node's place in an election: whether it leads, under which epoch, and who leads instead.

    All attributes and methods may be used from any thread.

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
        """The node id of the leader that this node saw last; None if it saw none.

        A node learns who leads when it asks for the lease, so the answer may be as old as the
        lease. A node that leads `max_leases` elections asks for no others, and learns nothing
        about them.
        """
        return self._node.leader_id(self)

    def require_leader(self) -> int:
        """Return the epoch if this node leads now.

        Raises:
            NotLeaderError: if this node does not lead.
        """
        # Read the epoch first: a node that leads after that leads under this epoch or a newer one.
        epoch = self.epoch
        if not self.is_leader:
            raise NotLeaderError(f"this node does not lead {self.key!r}")
        return epoch

    def resign(self) -> bool:
        """Give up the current term, and let other nodes go first for one TTL.

        `is_leader` is False when this returns. The node releases the lease in the background, which
        wakes the other nodes. This node stands again after one TTL, or when `campaign` is called.

        Returns:
            Whether there was a term to give up.

        Raises:
            ClosedError: if the group has stopped.
        """
        return self._node.resign(self)

    def finish_drain(self) -> bool:
        """Hand over a draining term now, as the work under it is done.

        Call this after `on_draining`, from any thread, when the program will do nothing more under
        this term. `is_leader` is False when this returns, unless the successor has not claimed the
        election yet. The node then waits for that claim, at most a third of the TTL or one second,
        whichever is longer, and never longer than the TTL. After that it releases the lease for
        all nodes.

        Returns:
            Whether the term was draining, and this was the first call for it.

        Raises:
            ClosedError: if the group has stopped.
        """
        return self._node.finish_drain(self)

    def learn_epoch(self, newest_epoch: int) -> bool:
        """Report a newer epoch that a fenced store has seen.

        If the term's epoch is lower, the term ends at once, with reason ``SUPERSEDED``: the store
        would refuse all its writes. This node stands again, and leads under an epoch above
        `newest_epoch`. A `Fence` calls this itself. It may be called from any thread.

        Args:
            newest_epoch: the newest epoch that the store has seen for this election.

        Returns:
            Whether a term ended.

        Raises:
            ConfigError: if `newest_epoch` is not an epoch.
        """
        return learn_epoch(self, term_epoch=self.term_epoch, newest_epoch=newest_epoch)

    def campaign(self) -> None:
        """Stand for election again at once after `resign`. Otherwise this does nothing.

        Raises:
            ClosedError: if the group has stopped, or drains.
        """
        self._node.campaign(self)

    def __eq__(self, other: object) -> bool:
        """Return whether both stand for the same election, and for the same term if for one."""
        if not isinstance(other, Candidacy):
            return NotImplemented
        return self._identity() == other._identity() and self._node is other._node

    def __hash__(self) -> int:
        return hash(self._identity())

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied."""
        raise TypeError(
            f"{type(self).__name__} cannot be pickled or copied: it belongs to the leases of this"
            " process. Pass on its key and epoch"
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
            timeout: seconds, or None to wait without a limit.

        Returns:
            True when this node leads, False if it does not after `timeout`.

        Raises:
            ClosedError: if the group was not started, or if it stops or drains, or the election is
                removed, during the wait.
        """
        return self._node.wait(self, timeout)


class Term(Candidacy):
    """One term of an election, as callbacks receive it.

    Its `epoch` is always the epoch of this term. Its `is_leader` is True only while this very term
    goes on.

    Attributes:
        began_ns: when this node began to call itself leader, on the clock of the deadlines
            (CLOCK_BOOTTIME if there is one); None in a demotion.
        ended_ns: when this node ceased to call itself leader; None while the term goes on.
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


# ---- for fences and workers: the node behind a handle, which is no concern of users


def layout_of(candidacy: Candidacy) -> KeyLayout:
    """Return the key names of an election's node."""
    return candidacy._node.layout


def learn_epoch(candidacy: Candidacy, *, term_epoch: int, newest_epoch: int) -> bool:
    """Report an epoch to an election's node. May be called from any thread.

    Args:
        candidacy: the election.
        term_epoch: the epoch of the term that may have to end; 0 for the current term.
        newest_epoch: the newest epoch that is known.

    Returns:
        Whether the term ended, as its epoch is lower.

    Raises:
        ConfigError: if `newest_epoch` is not an epoch.
    """
    return candidacy._node.learn_epoch(
        candidacy.number, candidacy.generation, term_epoch, newest_epoch
    )


def begun_as(kind: type[T], term: Term) -> T:
    """Return a term that has begun as an instance of `kind`, a subclass of `Term`."""
    return kind(
        term._node,
        term.key,
        term.number,
        term.generation,
        term.term_epoch,
        began_ns=term.began_ns,
    )
