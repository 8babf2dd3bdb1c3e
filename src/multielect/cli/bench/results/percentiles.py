"""The durations of one round: their 50th and 99th percentiles, and the longest.

Rules of this file:
    * Percentiles are values that occurred (nearest rank), not values in between.
    * A round adds one value to each figure. The report shows the median of the rounds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .findings import Case, Findings, Quantity

P50, P99, MAX = Quantity("p50", "ms"), Quantity("p99", "ms"), Quantity("max", "ms")

_MS = 1e6


@dataclass(frozen=True)
class Tail:
    """Durations of one round, in milliseconds."""

    p50: float
    p99: float
    longest: float

    @classmethod
    def of(cls, values_ns: Iterable[int]) -> Tail:
        """Return the percentiles of durations in nanoseconds.

        Raises:
            ValueError: if there are no durations.
        """
        return cls.of_counts([(value_ns, 1) for value_ns in sorted(values_ns)])

    @classmethod
    def of_counts(cls, counts: Sequence[tuple[int, int]]) -> Tail:
        """Return the percentiles of durations that are given as counts.

        Args:
            counts: pairs of a duration in nanoseconds and how often it occurred, in rising order.

        Raises:
            ValueError: if there are no durations.
        """
        if not counts:
            raise ValueError("nothing was timed")
        return cls(_percentile(counts, 50), _percentile(counts, 99), counts[-1][0] / _MS)

    def add_to(self, findings: Findings, case: Case, subject: str) -> None:
        """Add these values to the findings of a round."""
        findings.add(case, subject, P50, self.p50)
        findings.add(case, subject, P99, self.p99)
        findings.add(case, subject, MAX, self.longest)

    def beyond(self, other: Tail) -> Tail:
        """Return by how much each of these values exceeds that of `other`."""
        return Tail(self.p50 - other.p50, self.p99 - other.p99, self.longest - other.longest)


def _percentile(counts: Sequence[tuple[int, int]], per_cent: int) -> float:
    left = math.ceil(per_cent * sum(count for _, count in counts) / 100)
    for value_ns, count in counts:
        left -= count
        if left <= 0:
            return value_ns / _MS
    raise AssertionError("a percentile is below the last")
