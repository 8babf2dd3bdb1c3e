"""The report of many rounds, and the evidence of rounds with violations.

Rules of this file:
    * The evidence of a violation is kept in its own folder: the journals and logs of all processes,
      and the checker's view.
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
    """A round that went wrong, and its evidence.

    Attributes:
        round: the number of the round.
        faults: the names of its faults.
        words: the violation or the error, for people.
        folder: the folder with the evidence.
        replay: the command that runs the same round again.
    """

    round: int
    faults: list[str]
    words: str
    folder: str
    replay: str


@dataclass
class FaultReport:
    """The results of the rounds with one fault.

    Attributes:
        rounds: the number of rounds.
        led_again_ms: count, p50, p99 and max of the time from the heal until an election was led.
        gaps_ms: the same for the time that an election had no leader when its leader changed.
        excused: the number of violations that the design excuses under this fault.
    """

    rounds: int
    led_again_ms: dict[str, float | int | None]
    gaps_ms: dict[str, float | int | None]
    excused: int


@dataclass
class Report:
    """The results of many rounds.

    Attributes:
        seed: the seed of all choices.
        rounds: the number of rounds.
        servers: the number of rounds on each server.
        overlaps: pairs of beliefs that shared an instant without an excuse.
        excused_overlaps: pairs that are excused, as the server lost data or its clock jumped.
        faults: the results of each fault, by name.
        violations: the rounds that went wrong.
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
    """Collects the results of rounds, and makes the report."""

    def __init__(self, seed: int, keep: Path | None) -> None:
        """Begin a report. `keep` is the folder for evidence, by default a new one."""
        self.report = Report(seed)
        self._keep = keep
        self._tallies: dict[str, _Tally] = defaultdict(_Tally)

    def add(self, fleet: Fleet, number: int, result: Round, replay: str) -> None:
        """Add the results of a round."""
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
        """Add a round that went wrong, and keep its evidence."""
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
        """Return the report of all rounds that were added."""
        tallies = sorted(self._tallies.items())
        self.report.faults = {name: tally.report() for name, tally in tallies}
        return self.report


def _copy(source: str, target: str) -> None:
    # Journals are long and almost empty. The copy leaves out the parts that were never written.
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
