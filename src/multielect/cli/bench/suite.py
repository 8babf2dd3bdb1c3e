"""What a suite is, and what it is given.

Rules of this file:
    * A suite answers one question, says it, and measures nothing else.
    * It tells what it is about to do by `Progress`, adds every value to `Findings` the moment that
      it is measured, and says what is compared before that: when it is interrupted, by
      `KeyboardInterrupt` in whatever line, what was measured until then is told.
    * It ends what it started, also then: groups, connections, processes. Its keys are below
      a prefix of `Server.fresh_prefix`, and are removed by whoever runs it.
    * Its shortest run, `Scale.quick`, takes seven seconds at the most.
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
    """How much is to be measured.

    Attributes:
        quick: whether it must end within seconds.
        rounds: how many rounds there are, or None for what the scale has.
        sizes: the numbers of leases, or None for what the suite has.
    """

    quick: bool = False
    rounds: int | None = None
    sizes: tuple[int, ...] | None = None

    def pick(self, *, quick: T, full: T) -> T:
        """Return what suits the scale."""
        return quick if self.quick else full

    def round_count(self) -> int:
        """Return how many rounds to measure."""
        return self.rounds or self.pick(quick=QUICK_ROUNDS, full=FULL_ROUNDS)

    def sizes_or(self, *, quick: tuple[int, ...], full: tuple[int, ...]) -> tuple[int, ...]:
        """Return the sizes that the user asked for, else those that suit the scale."""
        return self.sizes or self.pick(quick=quick, full=full)


@dataclass(frozen=True)
class Bench:
    """What a suite is given.

    Attributes:
        server: where to measure.
        scale: how much.
        progress: whom to tell what is being done.
        peers: the folder of the adapters to others, if there is one.
        findings: where everything measured goes.
    """

    server: Server
    scale: Scale
    progress: Progress
    peers: Path | None = None
    findings: Findings = field(default_factory=Findings)


class Suite(Protocol):
    """One question, and how it is answered.

    Attributes:
        name: what the user types.
        question: what is asked, in a sentence.
    """

    name: str
    question: str

    def run(self, bench: Bench) -> None:
        """Measure, and add all of it to `bench.findings`.

        Calls `bench.progress.begin` once with the number of steps, and `step` before each.

        Raises:
            BenchError: where it cannot be measured; the others are.
        """


class BenchError(Exception):
    """Something cannot be measured. The message says why, and what to do."""
