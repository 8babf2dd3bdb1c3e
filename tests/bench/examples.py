"""Findings as a suite might have them, and a suite that found them."""

from __future__ import annotations

from multielect.cli.bench.results.findings import Case, Comparison, Findings, Key, Quantity
from multielect.cli.bench.results.spread import Bound
from multielect.cli.bench.suite import Bench

WALL = Quantity("wall", "us a lease")
CASE = Case.of(10_000)
OURS, LIMIT = Key(CASE, "multielect", WALL), Key(CASE, "the limit", WALL)


class Example:
    """A suite that has run."""

    name = "example"
    question = "What would it cost?"

    def run(self, bench: Bench) -> None:
        raise NotImplementedError


def found() -> Findings:
    """Three rounds of two contenders, in the last of which the machine was slow."""
    findings = Findings()
    findings.compare(Comparison("wall against the limit", OURS, LIMIT, Bound(at_most=1.5)))
    findings.compare(Comparison("the limit against ours", LIMIT, OURS, column="wall, times ours"))
    findings.expect("wall, us a lease", OURS, Bound(at_most=2))
    for ours, limit in ((1.2, 1.0), (1.4, 1.0), (13.0, 10.0)):
        findings.add(CASE, "multielect", WALL, ours)
        findings.add(CASE, "the limit", WALL, limit)
    return findings
