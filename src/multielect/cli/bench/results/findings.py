"""What a suite has found: the values of every round, and what they are held against.

Rules of this file:
    * Whoever measures adds one value a round and says beforehand what is to be compared with what.
      So what was measured until an interruption can be told like the rest.
    * Nothing is thrown away: JSON has every value, and its medians and ratios follow from them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from .spread import Bound, Spread, ratios


@dataclass(frozen=True)
class Case:
    """Under what circumstances something was measured.

    Attributes:
        words: for people: ``10,000 leases``.
        size: for plots and comparisons: 10000.
    """

    words: str
    size: int

    @classmethod
    def of(cls, size: int, what: str = "leases") -> Case:
        """Return the case of so many of something."""
        return cls(f"{size:,} {what}", size)


@dataclass(frozen=True)
class Quantity:
    """What is measured, and in what: ``wall`` in ``us a lease``."""

    name: str
    unit: str


@dataclass(frozen=True)
class Key:
    """Which figure it is: of whom, in which case, what."""

    case: Case
    subject: str
    quantity: Quantity

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "case": self.case.words,
            "size": self.case.size,
            "subject": self.subject,
            "quantity": self.quantity.name,
            "unit": self.quantity.unit,
        }


@dataclass(frozen=True)
class Comparison:
    """One figure divided by another, round by round.

    Attributes:
        words: what is compared, for people.
        over: what is divided.
        under: by what.
        bound: what is to be reached, if that was said.
        column: where the table has it in a column of its own: its head, in the row of `over`.
    """

    words: str
    over: Key
    under: Key
    bound: Bound | None = None
    column: str | None = None


@dataclass(frozen=True)
class Expectation:
    """What one figure is to reach."""

    words: str
    key: Key
    bound: Bound


@dataclass
class Findings:
    """The values, comparisons and words of one suite.

    Attributes:
        series: the values of each figure, one a round, in the order in which they were begun.
        comparisons: what is held against what.
        expectations: what single figures are to reach.
        not_measured: who was not measured, and why.
        notes: what a reader must know besides.
        versions: of the libraries that were measured.
    """

    series: dict[Key, list[float]] = field(default_factory=dict)
    comparisons: list[Comparison] = field(default_factory=list)
    expectations: list[Expectation] = field(default_factory=list)
    not_measured: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    def add(self, case: Case, subject: str, quantity: Quantity, value: float) -> None:
        """Add what one round measured. Each round adds one value to each of its figures."""
        self.series.setdefault(Key(case, subject, quantity), []).append(value)

    def compare(self, comparison: Comparison) -> None:
        """Say what is to be held against what; before or after it is measured."""
        self.comparisons.append(comparison)

    def expect(self, words: str, key: Key, bound: Bound) -> None:
        """Say what a figure is to reach; before or after it is measured."""
        self.expectations.append(Expectation(words, key, bound))

    def rounds_of(self, what: Comparison | Expectation) -> list[float]:
        """Return the values, one a round, that are held against a bound; none if not measured."""
        if isinstance(what, Expectation):
            return self.series.get(what.key, [])
        return ratios(self.series.get(what.over, []), self.series.get(what.under, []))

    def verdicts(self) -> list[tuple[str, Bound, float, bool]]:
        """Return what was to be reached: in words, the bound, the median, and whether it holds."""
        found = []
        held: list[Comparison | Expectation] = [*self.comparisons, *self.expectations]
        for what in held:
            values = self.rounds_of(what)
            if what.bound is not None and values:
                median = Spread.of(values).median
                found.append((what.words, what.bound, median, what.bound.holds(median)))
        return found

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON has it."""
        return {
            "figures": [
                {**key.to_json(), **_summary(values)}
                for key, values in self.series.items()
                if values
            ],
            "ratios": [
                {
                    "what": one.words,
                    "over": one.over.to_json(),
                    "under": one.under.to_json(),
                    **_summary(values),
                    **_held(one.bound, values),
                }
                for one in self.comparisons
                if (values := self.rounds_of(one))
            ],
            "expected": [
                {
                    "what": one.words,
                    **one.key.to_json(),
                    **_summary(values),
                    **_held(one.bound, values),
                }
                for one in self.expectations
                if (values := self.rounds_of(one))
            ],
            "not_measured": self.not_measured,
            "notes": self.notes,
            "versions": self.versions,
        }


def _summary(values: list[float]) -> dict[str, Any]:
    return {**asdict(Spread.of(values)), "rounds": values}


def _held(bound: Bound | None, values: list[float]) -> dict[str, Any]:
    if bound is None:
        return {}
    return {"to_reach": str(bound), "reached": bound.holds(Spread.of(values).median)}
