"""Statistics over several rounds: medians, spread, ratios, bounds.

Rules of this file:
    * Pure functions of numbers.
    * A ratio is computed within one round, and then the median over all rounds. So a slow round is
      slow for both sides of its ratio.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """The spread of the values of several rounds: half of them are between `low` and `high`."""

    median: float
    low: float
    high: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of at least one value.

        Raises:
            ValueError: if there is none.
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
    """Return the ratio of each round that has both values, if the divisor is above 0."""
    # In a run that was interrupted, one side may have one round more.
    return [a / b for a, b in zip(over, under, strict=False) if b > 0]


@dataclass(frozen=True)
class Bound:
    """A bound to reach: at most, or at least, a number."""

    at_most: float | None = None
    at_least: float | None = None

    def __post_init__(self) -> None:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError("a bound needs either at_most or at_least")

    def holds(self, value: float) -> bool:
        """Return whether a value is within the bound."""
        if self.at_most is not None:
            return value <= self.at_most
        assert self.at_least is not None
        return value >= self.at_least

    def __str__(self) -> str:
        if self.at_most is not None:
            return f"at most {self.at_most:g}"
        assert self.at_least is not None
        return f"at least {self.at_least:g}"


def number(value: float) -> str:
    """Return a number as text, with three significant digits and separated thousands."""
    size = abs(value)
    if size >= 100 or value == int(value):
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size >= 1:
        return f"{value:.2f}"
    return f"{value:.3g}" if size >= 0.001 else f"{value:.1e}"
