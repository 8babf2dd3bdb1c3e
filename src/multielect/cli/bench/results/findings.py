"""The findings of a suite: the values of every round, and their comparisons.

Rules of this file:
    * A suite adds one value in each round, and declares its comparisons beforehand. So the values
      until an interruption can be reported like all others.
    * Nothing is thrown away: the JSON has every value, from which its medians and ratios follow.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from .spread import Bound, Spread, ratios


@dataclass(frozen=True)
class Case:
    """The circumstances of a measurement.

    Attributes:
        label: the text for tables, such as ``10,000 leases``.
        size: the number for plots and comparisons, such as 10000.
    """

    label: str
    size: int

    @classmethod
    def of(cls, size: int, what: str = "leases") -> Case:
        """Return the case of so many of something."""
        return cls(f"{size:,} {what}", size)


@dataclass(frozen=True)
class Quantity:
    """A quantity and its unit, such as ``wall`` in ``us a lease``."""

    name: str
    unit: str


@dataclass(frozen=True)
class Key:
    """The key of a figure: the case, the subject and the quantity."""

    case: Case
    subject: str
    quantity: Quantity

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "case": self.case.label,
            "size": self.case.size,
            "subject": self.subject,
            "quantity": self.quantity.name,
            "unit": self.quantity.unit,
        }


@dataclass(frozen=True)
class Comparison:
    """One figure divided by another, round by round.

    Attributes:
        label: the text for the report.
        over: the dividend.
        under: the divisor.
        bound: the bound to reach, if there is one.
        column: the heading of its column in the table, in the row of `over`; None without one.
    """

    label: str
    over: Key
    under: Key
    bound: Bound | None = None
    column: str | None = None


@dataclass(frozen=True)
class Expectation:
    """A bound that one figure should reach."""

    label: str
    key: Key
    bound: Bound


@dataclass
class Findings:
    """The values, comparisons and notes of one suite.

    Attributes:
        series: the values of each figure, one for each round, in the order of their first values.
        comparisons: the ratios to report.
        expectations: the bounds of single figures.
        not_measured: the subjects that were not measured, and why.
        notes: further facts for the reader.
        versions: the versions of the libraries that were measured.
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
        """Declare a comparison, before or after its figures are measured."""
        self.comparisons.append(comparison)

    def expect(self, label: str, key: Key, bound: Bound) -> None:
        """Declare the bound of a figure, before or after it is measured."""
        self.expectations.append(Expectation(label, key, bound))

    def rounds_of(self, what: Comparison | Expectation) -> list[float]:
        """Return the values of a comparison or an expectation: one a round, if it was measured."""
        if isinstance(what, Expectation):
            return self.series.get(what.key, [])
        return ratios(self.series.get(what.over, []), self.series.get(what.under, []))

    def verdicts(self) -> list[tuple[str, Bound, float, bool]]:
        """Return for each bound its label, the bound, the median, and whether the bound holds."""
        found = []
        held: list[Comparison | Expectation] = [*self.comparisons, *self.expectations]
        for what in held:
            values = self.rounds_of(what)
            if what.bound is not None and values:
                median = Spread.of(values).median
                found.append((what.label, what.bound, median, what.bound.holds(median)))
        return found

    def to_json(self) -> dict[str, Any]:
        """Return all findings for JSON."""
        return {
            "figures": [
                {**key.to_json(), **_summary(values)}
                for key, values in self.series.items()
                if values
            ],
            "ratios": [
                {
                    "what": one.label,
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
                    "what": one.label,
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
