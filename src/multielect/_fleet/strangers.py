"""Who leads what is this node's, and is no member of its fleet: as a node that does not balance.

Rules of this file:
    * Pure: it is told who was seen, who is a member, and the time.
    * Nobody is suspected who may be gone, or a member that is not heard of yet: whoever is told of
      was named by the server in each look for longer than it takes a dead node's leases to end,
      and a member to call the roll.
    * Whoever is told of is told of once, for as long as it is seen.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from .._protocol.keys import decode_key

PATIENCE_TTLS = 2
"""For how many TTLs a holder is seen before it is told of: after one its leases would end."""

LONGEST_GAP_TTLS = 2
"""A look that comes later than this after the last says nothing of the time in between."""

MOST_NAMED = 3


@dataclass(frozen=True)
class Rival:
    """Somebody who leads what this node is to lead.

    Attributes:
        holder: its leases' value.
        named: how often the server has named it.
        elections: how many of them it leads.
    """

    holder: bytes
    named: int
    elections: int


@dataclass
class _Sight:
    since_ns: int
    named: int
    is_told: bool = False


class Strangers:
    """Those who lead what they should not, and since when they have been seen."""

    def __init__(self, ttl_ns: int) -> None:
        self._ttl_ns = ttl_ns
        self._looked_ns: int | None = None
        self._seen: dict[bytes, _Sight] = {}

    def look(
        self, rivals: Iterable[Rival], members: Container[bytes], now_ns: int
    ) -> Sequence[Rival]:
        """Take a look, once a TTL or so.

        Args:
            rivals: all who lead what this node is to lead.
            members: the holders of all who call the roll.
            now_ns: the time.

        Returns:
            Those that are to be told of, who lead most first; nothing unless one of them is new.
        """
        looked_ns = self._looked_ns
        if looked_ns is not None and now_ns - looked_ns > LONGEST_GAP_TTLS * self._ttl_ns:
            self.forget()
        self._looked_ns = now_ns
        strangers = [rival for rival in rivals if rival.holder not in members]
        self._seen = {rival.holder: self._sight(rival, now_ns) for rival in strangers}
        due = [rival for rival in strangers if self._is_due(rival.holder, now_ns)]
        if all(self._seen[rival.holder].is_told for rival in due):
            return ()
        for rival in due:
            self._seen[rival.holder].is_told = True
        return sorted(due, key=lambda rival: (-rival.elections, rival.holder))

    def forget(self) -> None:
        """Begin anew: it is not known who was a member meanwhile."""
        self._seen = {}
        self._looked_ns = None

    def _sight(self, rival: Rival, now_ns: int) -> _Sight:
        sight = self._seen.get(rival.holder)
        if sight is None or sight.named == rival.named:
            return _Sight(now_ns, rival.named)
        sight.named = rival.named
        return sight

    def _is_due(self, holder: bytes, now_ns: int) -> bool:
        return now_ns - self._seen[holder].since_ns > PATIENCE_TTLS * self._ttl_ns


def told_of(strangers: Sequence[Rival]) -> str:
    """Say who they are, what they lead, and what to do."""
    count = sum(rival.elections for rival in strangers)
    names = [
        f"{decode_key(rival.holder)[:100]!r} ({rival.elections})"
        for rival in strangers[:MOST_NAMED]
    ]
    if len(strangers) > len(names):
        names.append(f"{len(strangers) - len(names)} more")
    return (
        f"{count} election(s) that this node is to lead are led by nodes that are no members of its"
        f" fleet: {', '.join(names)}. All nodes of one prefix must be started with balance=True, or"
        " none: start those with it, or give this fleet a prefix of its own"
    )
