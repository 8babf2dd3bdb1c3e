"""The interface of a suite, and what a suite receives.

Rules of this file:
    * A suite states one question, answers it, and measures nothing else.
    * It shows each step with `Progress`. It declares its comparisons first, and adds each value to
      `Findings` as soon as it is measured. So a `KeyboardInterrupt` in any line loses no value.
    * It ends all groups, connections and processes that it started, also when it is interrupted.
      Its keys have a prefix of `Server.fresh_prefix`; its caller removes them.
    * Its shortest run, `Scale.quick`, takes at most seven seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from .instruments.servers import Server
from .progress import Progress
from .results.findings import Findings

T = TypeVar("T")

QUICK_ROUNDS, FULL_ROUNDS = 5, 9


@dataclass(frozen=True)
class Scale:
    """How much to measure.

    Attributes:
        quick: whether the run must end within seconds.
        rounds: the number of rounds, or None for that of the scale.
        sizes: the numbers of leases, or None for those of the suite.
    """

    quick: bool = False
    rounds: int | None = None
    sizes: tuple[int, ...] | None = None

    def pick(self, *, quick: T, full: T) -> T:
        """Return the value for this scale."""
        return quick if self.quick else full

    def round_count(self) -> int:
        """Return how many rounds to measure."""
        return self.rounds or self.pick(quick=QUICK_ROUNDS, full=FULL_ROUNDS)

    def sizes_or(self, *, quick: tuple[int, ...], full: tuple[int, ...]) -> tuple[int, ...]:
        """Return the user's sizes, or else those for this scale."""
        return self.sizes or self.pick(quick=quick, full=full)


@dataclass(frozen=True)
class Bench:
    """What a suite receives.

    Attributes:
        server: the server to measure.
        scale: how much to measure.
        progress: shows what the suite does.
        peers: the folder of the adapters to other libraries, if there is one.
        findings: takes every value.
    """

    server: Server
    scale: Scale
    progress: Progress
    peers: Path | None = None
    findings: Findings = field(default_factory=Findings)


class Suite(Protocol):
    """One question, and how to answer it.

    Attributes:
        name: the name on the command line.
        question: the question, in one sentence.
    """

    name: str
    question: str

    def run(self, bench: Bench) -> None:
        """Measure, and add every value to `bench.findings`.

        Calls `bench.progress.begin` once with the number of steps, and `step` before each.

        Raises:
            BenchError: if the suite cannot be measured; the other suites still run.
        """


class BenchError(Exception):
    """Something cannot be measured. The message says why, and what to do."""
