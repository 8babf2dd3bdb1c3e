"""Runs rounds of faults against one fleet after another, with one or many faults in a round.

    python -m tests.faults.rounds --count 500 --seed 1
    python -m tests.faults.rounds --count 100 --fault primary-orphaned

Rules of this file:
    * The faults of a round depend only on the seed and the round's number. So
      `run_rounds(1, seed, first=number)` repeats a round, except for the exact moments of faults.
    * A fleet is not used again after a round that went wrong.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from .checker import Findings
from .fault import Fault, Rank
from .fleet import Fleet, FleetPlan
from .registry import FAULTS, MAX_AT_ONCE, choose
from .report import MANY, Recorder, Report
from .round import run_round
from .server import faketime_library

ROUNDS_A_FLEET = 25


def run_rounds(
    count: int,
    seed: int,
    progress: Callable[[str], None] = lambda _: None,
    *,
    first: int = 0,
    binaries: Sequence[str | None] = (None,),
    keep: Path | None = None,
    fault: str | None = None,
) -> Report:
    """Run rounds over all faults, on one fleet after another.

    Args:
        count: the number of rounds.
        seed: the seed of all choices.
        progress: called with a line about each round.
        first: the number of the first round.
        binaries: the server programs, one for each fleet in turn. None is the one that comes with
            the package.
        keep: the folder for evidence of violations; a new folder by default.
        fault: the name of the one fault that strikes in each round; all faults by default.
    """
    recorder = Recorder(seed, keep)
    number = first
    while number < first + count:
        last = min(first + count, (number // ROUNDS_A_FLEET + 1) * ROUNDS_A_FLEET)
        plan = _plan(number, binaries, fault)
        number = _run_fleet(plan, range(number, last), seed, recorder, progress, fault=fault)
    return recorder.finished()


def _run_fleet(
    plan: FleetPlan,
    numbers: range,
    seed: int,
    recorder: Recorder,
    progress: Callable[[str], None],
    *,
    fault: str | None,
) -> int:
    """Run rounds until one goes wrong. Returns the number of the next round."""
    number, names = numbers[0], ["the start"]
    with tempfile.TemporaryDirectory(prefix="multielect-fleet-") as folder:
        fleet = Fleet(plan, Path(folder) / "fleet")
        try:
            with fleet:
                for number in numbers:
                    faults = chosen(seed, number, plan) if fault is None else [FAULTS[fault]]
                    names = [fault.name for fault in faults]
                    progress(f"round {number}: {', '.join(names)}")
                    result = run_round(fleet, faults, random.Random(f"{seed}/{number}"))
                    recorder.add(fleet, number, result, _replay(seed, number, fault))
                    if result.findings.violations:
                        return number + 1
                names = ["the end"]
                findings = fleet.stop()
                if findings.violations:
                    recorder.keep(fleet, number, names, findings, _replay(seed, number, fault))
        # Any error is reported, and the other rounds still run.
        except Exception as error:  # noqa: BLE001
            recorder.keep(
                fleet,
                number,
                names,
                Findings(),
                _replay(seed, number, fault),
                went_wrong=repr(error),
            )
    return number + 1


def chosen(seed: int, number: int, plan: FleetPlan) -> list[Fault]:
    """Return the faults of a round. Most rounds have one fault, and each fault has its round."""
    chance = random.Random(f"{seed}/{number}/faults")
    if plan.fakes_clock:
        # No fault here loses counters: epochs would fall while the server's clock is set back.
        ranks = chance.choice([(Rank.TURNS_CLOCK,), (Rank.ENDS_NODE, Rank.HURTS_NODE)])
        return [chance.choice([fault for fault in FAULTS.values() if fault.rank in ranks])]
    names = [*sorted(FAULTS), *([MANY] * (len(FAULTS) // 4))]
    random.Random(f"{seed}/{number // len(names)}/order").shuffle(names)
    name = names[number % len(names)]
    if name == MANY or FAULTS[name].rank is Rank.TURNS_CLOCK:
        return choose(chance, plan.nodes, chance.randint(2, MAX_AT_ONCE))
    return [FAULTS[name]]


def _plan(number: int, binaries: Sequence[str | None], fault: str | None) -> FleetPlan:
    index = number // ROUNDS_A_FLEET
    plan = FleetPlan(balance=index % 3 == 1, binary=binaries[index % len(binaries)])
    needs_clock = index % 4 == 3 if fault is None else FAULTS[fault].rank is Rank.TURNS_CLOCK
    if needs_clock and faketime_library():
        return replace(plan, fakes_clock=True)
    return plan


def _replay(seed: int, number: int, fault: str | None) -> str:
    alone = "" if fault is None else f" --fault {fault}"
    return f"python -m tests.faults.rounds --seed {seed} --first {number} --count 1{alone}"


def main() -> int:
    """Run rounds and print the report. Returns 1 if a round went wrong."""
    parser = argparse.ArgumentParser(description="Chaos on real processes.")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--fault", choices=sorted(FAULTS), help="strikes alone in each round")
    parser.add_argument("--binary", action="append", help="a server program; may be repeated")
    wanted = parser.parse_args()
    report = run_rounds(
        wanted.count,
        wanted.seed,
        lambda line: print(line, flush=True),  # noqa: T201
        first=wanted.first,
        binaries=wanted.binary or (None,),
        fault=wanted.fault,
    )
    print(json.dumps(asdict(report), indent=1))  # noqa: T201
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
