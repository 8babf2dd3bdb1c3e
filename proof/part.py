"""The result of each part of the proof: a verdict, a summary and tables.

Rules of this file:
    * The report and the docs show the same tables.
    * A part that could not be run says why. It never counts as successful.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


class Advance(Protocol):
    """Shows the progress of a part."""

    def __call__(self, done: float, total: float, now: str = "") -> None:
        """Show that `done` of `total` is done, and `now`, the current step."""


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        name: its name in the marks of the docs.
        head: the heads of the columns. A head that begins with '>' aligns its column to the right.
        rows: the rows, with a cell for each column.
    """

    name: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """Return the table as Markdown."""
        heads = [head.removeprefix(">") for head in self.head]
        rule = ["---:" if head.startswith(">") else "---" for head in self.head]
        lines = [heads, rule, *(list(map(_escaped, row)) for row in self.rows)]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


@dataclass
class Part:
    """The result of one part of the proof.

    Attributes:
        name: its name on the command line.
        title: its title in the report.
        ok: whether everything that it checks holds.
        seconds: how long it took.
        summary: one or two sentences.
        tables: its figures, for people.
        trouble: each failure, with the command that repeats it.
        skipped: why it could not be run; empty if it was run.
        figures: its figures, for programs.
    """

    name: str
    title: str
    ok: bool = False
    seconds: float = 0.0
    summary: str = ""
    tables: list[Table] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)
    skipped: str = ""
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """The verdict, in one or two words."""
        if self.skipped:
            return "not run"
        return "holds" if self.ok else "BROKEN"


@dataclass(frozen=True)
class Scale:
    """How much each part does.

    Attributes:
        long_model: whether the model is also searched within larger bounds.
        simulated_events: the least number of events in simulated stories.
        machine_examples: the number of examples for the stateful machine.
        chaos_rounds: the number of rounds of faults against real processes.
        fuzzer_executions: the number of inputs that the fuzzers try.
        sanitized: the sanitizers and their tests, as arguments of `tests/sanitize/run`.
        planted: the number of faults that are planted; None for all.
        cluster_runs: for each run on a cluster, the number of elections and the TTL in seconds.
        soak_minutes: how long the soak lasts.
        soak_elections: the number of elections in the soak.
        seed: the seed of all random choices.
    """

    long_model: bool = True
    simulated_events: int = 1_000_000
    machine_examples: int = 2_000
    chaos_rounds: int = 500
    fuzzer_executions: int = 10_000_000
    sanitized: Sequence[tuple[str, Sequence[str]]] = (
        ("memory", ()),
        ("debug", ()),
        ("threads", ()),
    )
    planted: int | None = None
    cluster_runs: Sequence[tuple[int, float]] = ((100_000, 5.0), (1_000_000, 30.0))
    soak_minutes: float = 10.0
    soak_elections: int = 10_000
    seed: int = 1


QUICK = Scale(
    long_model=False,
    simulated_events=20_000,
    machine_examples=20,
    chaos_rounds=10,
    fuzzer_executions=200_000,
    sanitized=(("memory", ("tests/core/test_malformed.py",)),),
    planted=2,
    cluster_runs=((2_000, 2.0),),
    soak_minutes=0.5,
    soak_elections=1_000,
)
"""A few minutes for all parts. This shows that they run, and proves little."""

Run = Callable[[Scale, Advance], Part]


def milliseconds(value: float | None) -> str:
    """Return a time in ms for a table; '-' for None."""
    return "-" if value is None else f"{value:,.0f}"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
