"""How long elections were without a leader after a crash or a release.

Rules of this file:
    * A takeover ends when the successor's callback runs: that is when its work can begin.
    * After a crash it is counted from the end of the lease at the server: no election could
      be won earlier. After a release, from the end of the predecessor's belief.
    * Percentiles are values that occurred (nearest rank).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from .beliefs import BelievedTerm
    from .leases import Lease


@dataclass(frozen=True)
class Takeovers:
    """Durations in milliseconds, in rising order."""

    durations_ms: list[float]

    def __len__(self) -> int:
        return len(self.durations_ms)

    def percentile(self, per_cent: float) -> float | None:
        """Return the duration that so many per cent do not exceed; None if there are none."""
        if not self.durations_ms:
            return None
        rank = max(1, math.ceil(per_cent / 100 * len(self.durations_ms)))
        return self.durations_ms[rank - 1]

    def to_json(self) -> dict[str, float | int | None]:
        """Return the figures that describe them."""
        return {
            "count": len(self),
            "p50": _rounded(self.percentile(50)),
            "p99": _rounded(self.percentile(99)),
            "max": _rounded(self.percentile(100)),
        }


def after_lease_ends(
    leases: Mapping[int, Lease], since_ns: int, terms: Iterable[BelievedTerm]
) -> Takeovers:
    """Return how long after its lease's end each election had a new leader.

    Elections that have none yet are not among them.

    Args:
        leases: those that one node left behind, by election.
        since_ns: when that node died or froze.
        terms: of all nodes.
    """
    gone = {lease.node for lease in leases.values()}
    successors = _first_elected(dict.fromkeys(leases, since_ns), gone, terms)
    return _takeovers(
        elected_ns - leases[election].ends_ns for election, elected_ns in successors.items()
    )


def release_times(node: str, since_ns: int, terms: Iterable[BelievedTerm]) -> dict[int, int]:
    """Return when `node` ceased to believe that it led, for each election it led at `since_ns`."""
    return {
        term.election: term.ended_ns
        for term in terms
        if term.node == node and term.ended_ns is not None and term.ended_ns >= since_ns
    }


def after_release(
    node: str, released: Mapping[int, int], terms: Iterable[BelievedTerm]
) -> Takeovers:
    """Return how long after its release by `node` each election had a new leader.

    Elections that have none yet are not among them.

    Args:
        node: the one that was stopped.
        released: what `release_times` returned for it.
        terms: of all nodes.
    """
    successors = _first_elected(released, {node}, terms)
    return _takeovers(
        elected_ns - released[election] for election, elected_ns in successors.items()
    )


def _first_elected(
    after_ns: Mapping[int, int], gone: Collection[str], terms: Iterable[BelievedTerm]
) -> dict[int, int]:
    first: dict[int, int] = {}
    for term in terms:
        election = term.election
        if term.node not in gone and term.elected_ns >= after_ns.get(election, math.inf):
            first[election] = min(term.elected_ns, first.get(election, term.elected_ns))
    return first


def _takeovers(durations_ns: Iterable[int]) -> Takeovers:
    return Takeovers(sorted(duration_ns / 1e6 for duration_ns in durations_ns))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
