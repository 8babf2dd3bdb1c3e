"""What came of many rounds, and what is kept of those that went wrong.

Rules of this file:
    * What belongs to a violation is kept in a folder of its own: the journals and logs of all
      processes, and what the checker saw.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from multielect.cli.demo.takeover import Takeovers

from .checker import Findings, Violation
from .fleet import Fleet
from .round import Round

MANY = "many at once"


@dataclass(frozen=True)
class Kept:
    """Something that did not hold, and where to look.

    Attributes:
        round: its number.
        faults: what had struck.
        words: what did not hold, or what went wrong.
        folder: journals, logs and what the checker saw.
        replay: how to have the same strike again.
    """

    round: int
    faults: list[str]
    words: str
    folder: str
    replay: str


@dataclass
class FaultReport:
    """What came of the rounds of one fault.

    Attributes:
        rounds: how many there were.
        led_again_ms: count, p50, p99 and max of the time from the heal until an election was led.
        gaps_ms: the same of the time that elections were without a leader when they changed hands.
        excused: violations that the design names as the price of this fault.
    """

    rounds: int
    led_again_ms: dict[str, float | int | None]
    gaps_ms: dict[str, float | int | None]
    excused: int


@dataclass
class Report:
    """What came of many rounds. All is well if `ok`.

    Attributes:
        seed: of all that was chosen.
        rounds: how many there were.
        servers: which, and how many rounds each.
        overlaps: pairs of beliefs that shared an instant and that nothing excuses.
        excused_overlaps: the same, where the server had lost data or its clock had jumped.
        faults: by name.
        violations: everything that did not hold, or went wrong.
    """

    seed: int
    rounds: int = 0
    servers: dict[str, int] = field(default_factory=dict)
    overlaps: int = 0
    excused_overlaps: int = 0
    faults: dict[str, FaultReport] = field(default_factory=dict)
    violations: list[Kept] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything held."""
        return not self.violations


@dataclass
class _Tally:
    rounds: int = 0
    excused: int = 0
    led_again_ms: list[float] = field(default_factory=list)
    gaps_ms: list[float] = field(default_factory=list)

    def add(self, result: Round) -> None:
        self.rounds += 1
        self.excused += len(result.findings.excused)
        self.led_again_ms += result.led_again_ms
        self.gaps_ms += result.gaps_ms

    def report(self) -> FaultReport:
        return FaultReport(
            self.rounds,
            Takeovers(sorted(self.led_again_ms)).to_json(),
            Takeovers(sorted(self.gaps_ms)).to_json(),
            self.excused,
        )


class Recorder:
    """Makes a report of rounds, one after another."""

    def __init__(self, seed: int, keep: Path | None) -> None:
        """Begin; `keep` is where to keep what belongs to violations, by default a new folder."""
        self.report = Report(seed)
        self._keep = keep
        self._tallies: dict[str, _Tally] = defaultdict(_Tally)

    def add(self, fleet: Fleet, number: int, result: Round, replay: str) -> None:
        """Take up what a round brought."""
        report, findings = self.report, result.findings
        report.rounds += 1
        server = fleet.server.description
        report.servers[server] = report.servers.get(server, 0) + 1
        report.overlaps += _overlaps(findings.violations)
        report.excused_overlaps += _overlaps(findings.excused)
        self._tallies[result.faults[0] if len(result.faults) == 1 else MANY].add(result)
        if findings.violations:
            self.keep(fleet, number, result.faults, findings, replay)

    def keep(
        self,
        fleet: Fleet,
        number: int,
        faults: list[str],
        findings: Findings,
        replay: str,
        *,
        went_wrong: str = "",
    ) -> None:
        """Keep a round that went wrong."""
        if self._keep is None:
            self._keep = Path(tempfile.mkdtemp(prefix="multielect-faults-"))
        folder = self._keep / f"round-{number}"
        shutil.copytree(
            fleet.folder,
            folder,
            ignore=shutil.ignore_patterns("data-*"),
            copy_function=_copy,
            dirs_exist_ok=True,
        )
        (folder / "seen.json").write_text(json.dumps(_seen(fleet, faults, findings), default=str))
        for words in [*map(str, findings.violations), *filter(None, [went_wrong])]:
            self.report.violations.append(Kept(number, faults, words, str(folder), replay))

    def finished(self) -> Report:
        """Return the report of all that was added."""
        tallies = sorted(self._tallies.items())
        self.report.faults = {name: tally.report() for name, tally in tallies}
        return self.report


def _copy(source: str, target: str) -> None:
    # Journals are long and almost empty; what is not written takes no room in the copy either.
    with Path(source).open("rb") as old, Path(target).open("wb") as new:
        while block := old.read(1 << 20):
            if any(block):
                new.write(block)
            else:
                new.seek(len(block), os.SEEK_CUR)
        new.truncate()


def _overlaps(violations: Sequence[Violation]) -> int:
    return sum(violation.invariant == "I1" for violation in violations)


def _seen(fleet: Fleet, faults: list[str], findings: Findings) -> dict[str, object]:
    elections = sorted({violation.election for violation in findings.violations})
    terms, ledger = fleet.terms(), fleet.server.ledger
    return {
        "faults": faults,
        "plan": asdict(fleet.plan),
        "findings": asdict(findings),
        "terms": {number: list(map(asdict, terms[number])) for number in elections},
        "grants": {number: list(map(asdict, ledger.grants(number))) for number in elections},
        "leases": {number: list(map(asdict, ledger.leases(number))) for number in elections},
    }
