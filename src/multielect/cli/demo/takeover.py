"""How long elections were without a leader after a crash, and in planned moves.

Rules of this file:
    * A takeover ends when the successor's callback runs, as its work can begin then.
    * After a crash it begins at the end of the lease at the server: no election could be won
      earlier. In a planned move it begins at the end of the predecessor's belief.
    * Percentiles are values that occurred (nearest rank).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

from multielect import DemotionReason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .beliefs import BelievedTerm
    from .leases import Lease

PLANNED = frozenset({DemotionReason.REBALANCED, DemotionReason.DRAINED})
"""The reasons of terms that end by a handover."""


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


@dataclass(frozen=True)
class Moves:
    """Elections that changed hands while a node came or left.

    Attributes:
        to: how many elections each node led next, without those that stayed with their node.
        lost: terms that ended and were not handed over.
        unfinished: elections of which a callback has not run yet: that of the next leader, or that
            of the one before, which must still say when its term ended.
        leads: how many elections each node leads by now, as it believes.
        takeovers: how long each election that moved had no leader.
    """

    to: Counter[str]
    lost: int
    unfinished: int
    leads: Counter[str]
    takeovers: Takeovers

    @property
    def moved(self) -> int:
        """How many moved."""
        return self.to.total()


def after_lease_ends(
    leases: Mapping[int, Lease], since_ns: int, terms: Iterable[BelievedTerm]
) -> Takeovers:
    """Return how long after its lease's end each election had a new leader.

    Elections without a new leader do not count yet.

    Args:
        leases: the leases that one node left behind, by election.
        since_ns: when that node died or froze.
        terms: the terms of all nodes.
    """
    gone = {lease.node for lease in leases.values()}
    successors = first_elected(
        term
        for term in terms
        if term.election in leases and term.node not in gone and term.elected_ns >= since_ns
    )
    return _takeovers(
        elected_ns - leases[election].ends_ns for election, elected_ns in successors.items()
    )


def moves_since(since_ns: int, terms: Iterable[BelievedTerm]) -> Moves:
    """Return the changes of the elections in which a term has ended since `since_ns`."""
    by_election: dict[int, list[BelievedTerm]] = defaultdict(list)
    for term in terms:
        by_election[term.election].append(term)
    to: Counter[str] = Counter()
    leads: Counter[str] = Counter()
    lost = unfinished = 0
    durations_ns = []
    for held in by_election.values():
        held.sort(key=lambda term: term.epoch)
        for term, successor in zip_longest(held, held[1:]):
            if term.ended_ns is None:
                if successor is None:
                    leads[term.node] += 1
                else:
                    unfinished += 1
                continue
            if term.ended_ns < since_ns:
                continue
            lost += term.reason is not None and term.reason not in PLANNED
            if successor is None:
                unfinished += 1
            elif successor.node != term.node:
                to[successor.node] += 1
                durations_ns.append(successor.elected_ns - term.ended_ns)
    return Moves(to, lost, unfinished, leads, _takeovers(durations_ns))


def first_elected(terms: Iterable[BelievedTerm]) -> dict[int, int]:
    """Return when the first callback of each election ran."""
    first: dict[int, int] = {}
    for term in terms:
        first[term.election] = min(term.elected_ns, first.get(term.election, term.elected_ns))
    return first


def _takeovers(durations_ns: Iterable[int]) -> Takeovers:
    return Takeovers(sorted(duration_ns / 1e6 for duration_ns in durations_ns))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
