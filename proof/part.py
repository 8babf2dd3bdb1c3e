"""What each part of the proof gives back: a verdict, and tables for a person to read.

Rules of this file:
    * A table is made once, here, and shown on the terminal, in the report and in the docs alike.
    * A part that could not be run says why; it never counts as one that went well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


class Advance(Protocol):
    """Is told how far a part has come."""

    def __call__(self, done: float, total: float, now: str = "") -> None:
        """Show that `done` of `total` is done, and what is being done now."""


@dataclass(frozen=True)
class Table:
    """Rows under a head, all of them text.

    Attributes:
        name: what it is called where the docs take it in.
        head: of each column. One that begins with '>' is for numbers, and set to the right.
        rows: as many cells each as the head has.
    """

    name: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """Return it as Markdown."""
        heads = [head.removeprefix(">") for head in self.head]
        rule = ["---:" if head.startswith(">") else "---" for head in self.head]
        lines = [heads, rule, *(list(map(_escaped, row)) for row in self.rows)]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


@dataclass
class Part:
    """What came of one part of the proof.

    Attributes:
        name: as on the command line.
        title: as in the report.
        ok: whether all that it shows holds.
        seconds: how long it took.
        summary: a sentence or two.
        tables: its figures.
        trouble: what does not hold, each with how to see it again.
        skipped: why it could not be run; empty if it was.
        figures: the same for programs.
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
        """One word for it."""
        if self.skipped:
            return "not run"
        return "holds" if self.ok else "BROKEN"


@dataclass(frozen=True)
class Scale:
    """How much of each is done.

    Attributes:
        long_model: whether the model is searched within larger bounds as well.
        simulated_events: how many things happen in simulated stories at the least.
        machine_examples: how many examples the stateful machine is given.
        chaos_rounds: how many rounds of faults strike real processes.
        fuzzer_executions: how many inputs the fuzzers try.
        sanitized: which tests are run under which sanitizers, as `tests/sanitize/run` takes them.
        planted: how many of the deliberate faults are planted; None for all.
        soak_minutes: how long the soak lasts.
        soak_elections: how many elections there are in it.
        seed: where chance begins.
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
    soak_minutes=0.5,
    soak_elections=1_000,
)
"""A few minutes of all of it: to see that it runs, not to believe it."""

Run = Callable[[Scale, Advance], Part]


def milliseconds(value: float | None) -> str:
    """Return a time in ms for a table; '-' where there is none."""
    return "-" if value is None else f"{value:,.0f}"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
