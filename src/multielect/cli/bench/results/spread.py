"""What follows from the values of several rounds: medians, spread, ratios, verdicts.

Rules of this file:
    * Pure: numbers in, numbers and words out.
    * A ratio is taken within one round, and only then the median of all rounds: what slowed a
      whole round down slowed both sides of its ratio.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Where the values of several rounds lie: half of them between `low` and `high`."""

    median: float
    low: float
    high: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of at least one value.

        Raises:
            ValueError: for none.
        """
        if not values:
            raise ValueError("no values, no spread")
        if len(values) == 1:
            return cls(*(values[0],) * 5)
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high, min(values), max(values))

    @property
    def percent(self) -> float:
        """Half of the distance from `low` to `high`, in per cent of the median."""
        return 0.0 if self.median == 0 else 50 * (self.high - self.low) / abs(self.median)


def ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """Return the ratio of each round that has both values, the second of them above 0."""
    # Where it was interrupted, one side may have a round more.
    return [a / b for a, b in zip(over, under, strict=False) if b > 0]


@dataclass(frozen=True)
class Bound:
    """What is to be reached: at most, or at least, so much."""

    most: float | None = None
    least: float | None = None

    def __post_init__(self) -> None:
        if (self.most is None) == (self.least is None):
            raise ValueError("a bound has one end, and not two")

    def holds(self, value: float) -> bool:
        """Tell whether a value is within it."""
        if self.most is not None:
            return value <= self.most
        assert self.least is not None
        return value >= self.least

    def __str__(self) -> str:
        if self.most is not None:
            return f"at most {self.most:g}"
        assert self.least is not None
        return f"at least {self.least:g}"


def number(value: float) -> str:
    """Return a number as people read it: three digits that count, thousands apart."""
    size = abs(value)
    if size >= 100 or value == int(value):
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size >= 1:
        return f"{value:.2f}"
    return f"{value:.3g}" if size >= 0.001 else f"{value:.1e}"
