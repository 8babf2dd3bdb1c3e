"""Tells many stories, and reports what happened in them.

Rules of this file:
    * The first story that breaks a promise ends it: what is reported is the shortest history
      found that breaks the same one, and a line by which it is told again.
    * It prints nothing by itself.
"""

from __future__ import annotations

import shlex
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from multielect import DemotionReason

from .plan import Plan, drawn
from .shrinking import describe, shrunk
from .story import Outcome, Story

LAST_LINES = 40


@dataclass
class Broken:
    """A story that broke a promise.

    Attributes:
        seed: which was told first.
        plan: the shortest that was found.
        outcome: what came of that one.
        tries: how many stories were told to find it.
    """

    seed: int
    plan: Plan
    outcome: Outcome
    tries: int

    @property
    def replay(self) -> str:
        """The line that tells the story again, in the project's directory."""
        return f"python -m tests.simulation.replay {shlex.quote(self.plan.to_json())}"

    def __str__(self) -> str:
        lines = self.outcome.history[-LAST_LINES:]
        return "\n".join(
            [
                f"seed {self.seed}: {self.outcome.broken}",
                "",
                f"The shortest history found, of {self.tries} tried:",
                "",
                describe(self.plan),
                "",
                *lines,
                "",
                "Tell it again:",
                "",
                self.replay,
            ]
        )


@dataclass
class Report:
    """What happened in all stories.

    Attributes:
        seeds: how many were told.
        happened: how many things happened: turns, deliveries, callbacks, faults.
        simulated_s: how much time passed in them.
        wall_s: how much passed outside.
        faults: how many were injected, for each kind.
        terms: how many terms began.
        demoted: how many ended, for each reason.
        excused: how often more than one believed, where the design excuses it.
        overlaps: how often where it does not.
        writes: what became of the fenced writes.
        takeovers_ms: how long elections were without a leader, for each kind of fault.
        broken: the first story that broke a promise.
    """

    seeds: int = 0
    happened: int = 0
    simulated_s: float = 0.0
    wall_s: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    terms: int = 0
    demoted: Counter[DemotionReason] = field(default_factory=Counter)
    excused: int = 0
    overlaps: int = 0
    writes: Counter[str] = field(default_factory=Counter)
    takeovers_ms: dict[str, list[float]] = field(default_factory=dict)
    broken: Broken | None = None

    def add(self, outcome: Outcome) -> None:
        """Count one more."""
        self.seeds += 1
        self.happened += outcome.happened
        self.simulated_s += outcome.plan.length_ms / 1000
        self.faults += outcome.faults
        self.terms += outcome.terms
        self.demoted += outcome.demoted
        self.excused += outcome.excused
        self.overlaps += outcome.broken is not None and outcome.broken.promise in {"I1", "I4"}
        self.writes += outcome.writes
        for kind, times_ms in outcome.takeovers_ms.items():
            self.takeovers_ms.setdefault(kind, []).extend(times_ms)

    def takeovers(self) -> dict[str, tuple[int, float, float]]:
        """Return, for each kind of fault: how many takeovers, their median and longest, in ms."""
        return {
            kind: (len(times_ms), statistics.median(times_ms), max(times_ms))
            for kind, times_ms in sorted(self.takeovers_ms.items())
        }


def simulate(
    seeds: Iterable[int],
    length_ms: int = 60_000,
    *,
    max_events: int | None = None,
    shrinks: bool = True,
    told: Callable[[Report], None] = lambda _: None,
) -> Report:
    """Tell a story for each seed, until one breaks a promise.

    Args:
        seeds: which.
        length_ms: how much time passes in each, about.
        max_events: after how many things that happened to begin no other.
        shrinks: whether to look for a shorter story where one breaks a promise.
        told: called after each story with what there is so far.
    """
    report = Report()
    began = time.monotonic()
    for seed in seeds:
        outcome = Story(drawn(seed, length_ms)).play()
        report.add(outcome)
        report.wall_s = time.monotonic() - began
        if outcome.broken is not None:
            report.broken = (
                shortest(seed, outcome) if shrinks else Broken(seed, outcome.plan, outcome, tries=0)
            )
        told(report)
        if report.broken or (max_events is not None and report.happened >= max_events):
            break
    return report


def shortest(seed: int, outcome: Outcome) -> Broken:
    """Return the shortest story found that breaks the promise which this one broke."""
    assert outcome.broken is not None
    promise, tries = outcome.broken.promise, 0

    def breaks(plan: Plan) -> bool:
        nonlocal tries
        tries += 1
        broken = Story(plan).play().broken
        return broken is not None and broken.promise == promise

    plan = shrunk(outcome.plan, breaks)
    return Broken(seed, plan, Story(plan).play(), tries)
