"""What strikes in many rounds, and what is told and kept of one that goes wrong."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from .fault import Fault, Rank, Scene
from .fleet import FleetPlan
from .registry import FAULTS, MAX_AT_ONCE, are_compatible, choose
from .report import MANY
from .rounds import chosen, run_rounds


def test_rounds_are_a_function_of_seed_and_number() -> None:
    plan = FleetPlan()
    first = [[fault.name for fault in chosen(5, number, plan)] for number in range(100)]
    again = [[fault.name for fault in chosen(5, number, plan)] for number in range(100)]
    others = [[fault.name for fault in chosen(6, number, plan)] for number in range(100)]
    assert first == again != others


def test_every_fault_strikes_alone_before_one_does_twice() -> None:
    wanted = {name for name, fault in FAULTS.items() if fault.rank is not Rank.TURNS_CLOCK}
    rounds = len(FAULTS) + len(FAULTS) // 4
    alone = [faults[0].name for n in range(rounds) if len(faults := chosen(1, n, FleetPlan())) == 1]
    assert sorted(alone) == sorted(wanted)
    clock = {fault.name for n in range(60) for fault in chosen(1, n, FleetPlan(fakes_clock=True))}
    assert clock > FAULTS.keys() - wanted


@pytest.mark.parametrize("count", range(1, MAX_AT_ONCE + 1))
def test_what_strikes_at_once_does_not_get_in_each_others_way(count: int) -> None:
    for seed in range(100):
        faults = choose(random.Random(seed), 3, count, spared=2)
        assert len(faults) == count
        assert are_compatible(faults, 3)
        assert sum(fault.rank is Rank.ENDS_NODE for fault in faults) <= 1
        assert sum(fault.rank is Rank.STOPS_SERVER for fault in faults) <= 1


def test_no_fault_is_called_many() -> None:
    assert MANY not in FAULTS
    assert all(fault.about for fault in FAULTS.values())


# ---- the report


def test_rounds_are_told_and_counted(tmp_path: Path) -> None:
    told: list[str] = []
    report = run_rounds(2, 5, told.append, keep=tmp_path / "kept")
    assert [kept.words for kept in report.violations] == []
    assert report.ok
    assert len(told) == report.rounds == sum(each.rounds for each in report.faults.values()) == 2
    assert not (tmp_path / "kept").exists()


def test_one_fault_strikes_alone_where_it_is_named(tmp_path: Path) -> None:
    told: list[str] = []
    report = run_rounds(2, 5, told.append, first=24, keep=tmp_path / "kept", fault="terms-resigned")
    assert report.ok
    assert told == ["round 24: terms-resigned", "round 25: terms-resigned"]
    assert {name: each.rounds for name, each in report.faults.items()} == {"terms-resigned": 2}


def test_what_goes_wrong_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forge(scene: Scene) -> Iterator[None]:
        # A lease that nobody was asked for: who believes in it outlasts it.
        key = scene.fleet.leader_key(0)
        scene.fleet.server.admin.set(key, "forger/1", px=round(scene.ttl_s * 1000))
        yield

    planted = Fault("planted", "a forged lease", forge, Rank.TAMPERS, 0.5, frozenset(), 5.0)
    monkeypatch.setattr("tests.faults.rounds.chosen", lambda *_: [planted])
    report = run_rounds(1, 5, first=3, keep=tmp_path)
    assert not report.ok
    (kept,) = report.violations
    assert kept.words.startswith("I4 in k0")
    assert kept.faults == ["planted"]
    assert kept.replay == "python -m tests.faults.rounds --seed 5 --first 3 --count 1"
    folder = Path(kept.folder)
    assert len(list(folder.glob("*.journal"))) == FleetPlan().nodes
    seen = json.loads((folder / "seen.json").read_text())
    assert list(seen["terms"]) == list(seen["leases"]) == ["0"]
    assert "forger/1" in {lease["holder"] for lease in seen["leases"]["0"]}


def test_a_fault_that_cannot_strike_is_no_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(scene: Scene) -> Iterator[None]:
        scene.fleet.wait_until(lambda: False, 0.0, "what never comes")
        yield

    planted = Fault("planted", "nothing", fail, Rank.TAMPERS, 0.5, frozenset(), 5.0)
    monkeypatch.setattr("tests.faults.rounds.chosen", lambda *_: [planted])
    report = run_rounds(1, 5, keep=tmp_path)
    assert (report.rounds, report.ok) == (0, False)
    words = [kept.words for kept in report.violations]
    assert words == ["AssertionError('timed out waiting for what never comes')"]
