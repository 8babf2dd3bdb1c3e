"""Rounds of faults against a fleet, one or many at a time, and a report of what came of them.

    python -m tests.faults.rounds --count 500 --seed 1

Rules of this file:
    * What strikes is a function of seed and number alone: `run_rounds(1, seed, first=number)`
      does the same again, as far as a fault's moment can be the same.
    * A round begins when all is led, ends when all is led again, and is checked then, with all
      that was believed and granted meanwhile.
    * What belongs to a violation is kept: journals, logs, and what the checker saw.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from multielect.cli.demo.takeover import Takeovers

from .checker import Excuse, Findings, Heal, Violation, first_led_ns, gaps_ms
from .fault import Fault, Rank, Scene
from .fleet import Fleet, FleetPlan, Node
from .registry import FAULTS, MOST_AT_ONCE, choose
from .server import faketime_library

START_S = 20.0
AFTERWARDS_TTLS = 0.5
ROUNDS_A_FLEET = 25
MANY = "many at once"

_S = 1_000_000_000


@dataclass(frozen=True)
class Round:
    """What one round brought.

    Attributes:
        faults: what struck.
        findings: what did not hold.
        led_again_ms: from the heal, until each election was led.
        gaps_ms: how long elections were without a leader, each time that one changed hands.
    """

    faults: list[str]
    findings: Findings
    led_again_ms: list[float]
    gaps_ms: list[float]


def run_round(fleet: Fleet, faults: Sequence[Fault], chance: random.Random) -> Round:
    """Strike, heal, wait until all is led again, and check.

    Raises:
        AssertionError: when the fleet is not led to begin with, or a fault cannot strike.
    """
    began_ns = fleet.now_ns()
    ttl_ns = fleet.plan.ttl_ns
    assert fleet.wait_led(began_ns, began_ns + round(START_S * _S)), "not all is led at the start"
    struck: list[tuple[Fault, Scene, int]] = []
    taken: set[Node] = set()
    with ExitStack() as stack:
        for fault in sorted(faults, key=lambda fault: fault.rank):
            scene = Scene(fleet, chance, taken)
            struck_ns = fleet.now_ns()
            stack.callback(_excuse, fleet, fault, scene, struck_ns)
            stack.enter_context(contextmanager(fault.happen)(scene))
            struck.append((fault, scene, struck_ns))
        struck[-1][1].wait(max(fault.lasts_ttls for fault in faults))
    healed_ns = fleet.now_ns()
    # A balanced node looks for what nobody takes once in a TTL.
    patience_ns = ttl_ns * (2 if fleet.plan.balance else 1)
    bound_ns = round(max(fault.bound_s for fault in faults) * _S)
    heal = Heal(healed_ns, healed_ns + patience_ns + bound_ns)
    fleet.wait_led(healed_ns, heal.by_ns)
    # What a late request did shows when the next one finds it.
    struck[-1][1].wait(AFTERWARDS_TTLS)
    findings = fleet.check([heal])
    terms = fleet.terms()
    led_ns = [first_led_ns(terms[number], healed_ns) for number in terms]
    result = Round(
        faults=[fault.name for fault in faults],
        findings=findings,
        led_again_ms=[(at_ns - healed_ns) / 1e6 for at_ns in led_ns if at_ns is not None],
        gaps_ms=[gap for each in terms.values() for gap in gaps_ms(each, began_ns)],
    )
    if not findings.violations:
        fleet.forget(began_ns)
    return result


def _excuse(fleet: Fleet, fault: Fault, scene: Scene, struck_ns: int) -> None:
    if fault.excuses:
        until_ns = fleet.now_ns() + fleet.plan.ttl_ns
        fleet.excuse(Excuse(fault.name, fault.excuses, struck_ns, until_ns, scene.struck))


# ---- many rounds


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


def run_rounds(
    count: int,
    seed: int,
    progress: Callable[[str], None] = lambda _: None,
    *,
    first: int = 0,
    binaries: Sequence[str | None] = (None,),
    keep: Path | None = None,
) -> Report:
    """Run so many rounds over all faults, on one fleet after another.

    Args:
        count: how many.
        seed: of what strikes.
        progress: told of each round, in a line.
        first: the number of the first round; those before it are left out.
        binaries: the server programs, used in turns.
        keep: where to keep what belongs to violations; a new folder by default.
    """
    report = Report(seed)
    tallies: dict[str, _Tally] = defaultdict(_Tally)
    keep = Path(tempfile.mkdtemp(prefix="multielect-faults-")) if keep is None else keep
    number = first
    while number < first + count:
        plan = _plan(seed, number, binaries)
        last = min(first + count, (number // ROUNDS_A_FLEET + 1) * ROUNDS_A_FLEET)
        number = _run_fleet(plan, range(number, last), report, tallies, progress, keep)
    report.faults = {name: tally.report() for name, tally in sorted(tallies.items())}
    return report


def _run_fleet(
    plan: FleetPlan,
    numbers: range,
    report: Report,
    tallies: dict[str, _Tally],
    progress: Callable[[str], None],
    keep: Path,
) -> int:
    """Run rounds on one fleet, up to the first that leaves it unsound; returns the next number."""
    with tempfile.TemporaryDirectory(prefix="multielect-fleet-") as name:
        folder = Path(name) / "fleet"
        fleet = Fleet(plan, folder)
        faults: list[Fault] = []
        number = numbers[0]
        try:
            with fleet:
                for number in numbers:
                    chance = random.Random(f"{report.seed}/{number}")
                    faults = chosen(report.seed, number, plan)
                    progress(f"round {number}: {', '.join(fault.name for fault in faults)}")
                    result = run_round(fleet, faults, chance)
                    _add(report, tallies, fleet, result)
                    if result.findings.violations:
                        _keep(report, fleet, number, result.faults, result.findings, keep)
                        return number + 1
                findings = fleet.stop()
                if findings.violations:
                    _keep(report, fleet, number, ["the end"], findings, keep)
        except Exception as error:  # noqa: BLE001
            names = [fault.name for fault in faults]
            _keep(report, fleet, number, names, Findings(), keep, repr(error))
        return number + 1


def chosen(seed: int, number: int, plan: FleetPlan) -> list[Fault]:
    """Return what strikes in a round: each fault once in as many rounds as there are, or many."""
    chance = random.Random(f"{seed}/{number}/faults")
    if plan.fakes_clock:
        # What loses counters is left out: a clock set back makes that a loss for good.
        turning = chance.random() < 0.5
        rank = Rank.TURNS_CLOCK if turning else Rank.HURTS_NODE
        return [chance.choice([fault for fault in FAULTS.values() if fault.rank is rank])]
    names = [*sorted(FAULTS), *([MANY] * (len(FAULTS) // 4))]
    random.Random(f"{seed}/{number // len(names)}/order").shuffle(names)
    name = names[number % len(names)]
    if name == MANY or FAULTS[name].rank is Rank.TURNS_CLOCK:
        return choose(chance, plan.nodes, chance.randint(2, MOST_AT_ONCE))
    return [FAULTS[name]]


def _plan(seed: int, number: int, binaries: Sequence[str | None]) -> FleetPlan:
    index = number // ROUNDS_A_FLEET
    plan = FleetPlan(balance=index % 3 == 1, binary=binaries[index % len(binaries)])
    if index % 4 == 3 and faketime_library():
        return replace(plan, fakes_clock=True)
    return plan


def _add(report: Report, tallies: dict[str, _Tally], fleet: Fleet, result: Round) -> None:
    report.rounds += 1
    server = fleet.server.description
    report.servers[server] = report.servers.get(server, 0) + 1
    report.overlaps += _overlaps(result.findings.violations)
    report.excused_overlaps += _overlaps(result.findings.excused)
    tallies[result.faults[0] if len(result.faults) == 1 else MANY].add(result)


def _overlaps(violations: Sequence[Violation]) -> int:
    return sum(violation.invariant == "I1" for violation in violations)


def _keep(
    report: Report,
    fleet: Fleet,
    number: int,
    faults: list[str],
    findings: Findings,
    keep: Path,
    went_wrong: str = "",
) -> None:
    folder = keep / f"round-{number}"
    shutil.copytree(fleet.folder, folder, ignore=shutil.ignore_patterns("data"), dirs_exist_ok=True)
    seen = {
        "faults": faults,
        "plan": asdict(fleet.plan),
        "violations": [asdict(violation) for violation in findings.violations],
        "excused": [asdict(violation) for violation in findings.excused],
        "terms": {number: [asdict(term) for term in terms] for number, terms in fleet.terms().items()},
        "grants": {
            number: [asdict(grant) for grant in fleet.server.ledger.grants(number)]
            for number in range(fleet.plan.elections)
        },
        "leases": {
            number: [asdict(lease) for lease in fleet.server.ledger.leases(number)]
            for number in range(fleet.plan.elections)
        },
    }
    (folder / "seen.json").write_text(json.dumps(seen, indent=1, default=str))
    replay = f"python -m tests.faults.rounds --seed {report.seed} --first {number} --count 1"
    for words in [*map(str, findings.violations), *([went_wrong] if went_wrong else [])]:
        report.violations.append(Kept(number, faults, words, str(folder), replay))


def main() -> int:
    """Run rounds and print the report; 1 if something did not hold."""
    parser = argparse.ArgumentParser(description="Chaos on real processes.")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--binary", action="append", help="a server program; may be repeated")
    wanted = parser.parse_args()
    report = run_rounds(
        wanted.count,
        wanted.seed,
        lambda line: print(line, flush=True),  # noqa: T201
        first=wanted.first,
        binaries=wanted.binary or (None,),
    )
    print(json.dumps(asdict(report), indent=1))  # noqa: T201
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
