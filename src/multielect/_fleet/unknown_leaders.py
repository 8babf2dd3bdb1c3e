"""Unknown leaders: nodes that lead this node's elections, and are not members of its fleet.

Rules of this file:
    * No I/O, no clock: the caller passes the leaders, the members and the time.
    * A leader that may be dead, or that may be a member which has not polled yet, is not reported.
      The server named a reported leader at each look, for longer than a dead node's leases last and
      longer than a member needs to poll the membership.
    * Each unknown leader is reported once for as long as it is seen.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from .._protocol.keys import decode_key

PATIENCE_TTLS = 2
"""For how many TTLs a leader must be seen before it is reported. A dead node's leases last one."""

MAX_GAP_TTLS = 2
"""After a longer gap between two looks, nothing is known of the time in between."""

MAX_NAMED = 3


@dataclass(frozen=True)
class OtherLeader:
    """A node that leads elections of this node.

    Attributes:
        holder: the value of its leases.
        named: how often the server has named it.
        elections: how many of this node's elections it leads.
    """

    holder: bytes
    named: int
    elections: int


@dataclass
class _Sight:
    since_ns: int
    named: int
    is_reported: bool = False


class UnknownLeaders:
    """Leaders that are not members of the fleet, and since when they have been seen."""

    def __init__(self, ttl_ns: int) -> None:
        self._ttl_ns = ttl_ns
        self._looked_ns: int | None = None
        self._seen: dict[bytes, _Sight] = {}

    def look(
        self, leaders: Iterable[OtherLeader], members: Container[bytes], now_ns: int
    ) -> Sequence[OtherLeader]:
        """Compare leaders and members. Call it about once a TTL.

        Args:
            leaders: all other nodes that lead elections of this node.
            members: the holders of all members.
            now_ns: the time.

        Returns:
            The leaders to report, those with the most elections first. Empty unless one is new.
        """
        looked_ns = self._looked_ns
        if looked_ns is not None and now_ns - looked_ns > MAX_GAP_TTLS * self._ttl_ns:
            self.forget()
        self._looked_ns = now_ns
        unknown = [leader for leader in leaders if leader.holder not in members]
        self._seen = {leader.holder: self._sight(leader, now_ns) for leader in unknown}
        due = [leader for leader in unknown if self._is_due(leader.holder, now_ns)]
        if all(self._seen[leader.holder].is_reported for leader in due):
            return ()
        for leader in due:
            self._seen[leader.holder].is_reported = True
        return sorted(due, key=lambda leader: (-leader.elections, leader.holder))

    def forget(self) -> None:
        """Begin anew, as the members of the time in between are not known."""
        self._seen = {}
        self._looked_ns = None

    def _sight(self, leader: OtherLeader, now_ns: int) -> _Sight:
        sight = self._seen.get(leader.holder)
        if sight is None or sight.named == leader.named:
            return _Sight(now_ns, leader.named)
        sight.named = leader.named
        return sight

    def _is_due(self, holder: bytes, now_ns: int) -> bool:
        return now_ns - self._seen[holder].since_ns > PATIENCE_TTLS * self._ttl_ns


def warning_about(unknown: Sequence[OtherLeader]) -> str:
    """Return a message that names the leaders and says what to do."""
    count = sum(leader.elections for leader in unknown)
    names = [
        f"{decode_key(leader.holder)[:100]!r} ({leader.elections})"
        for leader in unknown[:MAX_NAMED]
    ]
    if len(unknown) > len(names):
        names.append(f"{len(unknown) - len(names)} more")
    return (
        f"{count} election(s) of this node are led by nodes that are no members of its fleet:"
        f" {', '.join(names)}. Either all nodes of one prefix must be started with balance=True, or"
        " none: start those nodes with it, or give this fleet a prefix of its own"
    )
