"""One round of every fault, on real processes and a real server: `-k NAME` runs one alone.

Rules of this file:
    * The faults share a fleet: what one left behind is there when the next strikes, and a fleet
      that a fault broke is not used again.
    * What is asserted is what the checker finds: I1 to I7 with the excuses of the design.
"""

from __future__ import annotations

import random

import pytest

from .conftest import Fleets
from .fault import Fault, Rank
from .fleet import FleetPlan
from .registry import FAULTS, choose
from .round import Round, run_round

PLAN = FleetPlan()


def assert_all_holds(fleets: Fleets, plan: FleetPlan, *faults: Fault) -> Round:
    fleet = fleets.get(plan)
    try:
        result = run_round(fleet, faults, random.Random(0))
        assert list(map(str, result.findings.violations)) == []
    except BaseException:
        fleets.drop()
        raise
    return result


CLOCK = [name for name, fault in FAULTS.items() if fault.rank is Rank.TURNS_CLOCK]


@pytest.mark.parametrize("name", [name for name in FAULTS if name not in CLOCK])
def test_all_holds_under(name: str, fleets: Fleets) -> None:
    result = assert_all_holds(fleets, PLAN, FAULTS[name])
    assert len(result.led_again_ms) == PLAN.elections


@pytest.mark.parametrize("seed", range(5))
def test_all_holds_under_many_at_once(seed: int, fleets: Fleets) -> None:
    faults = choose(random.Random(seed), PLAN.nodes, 3)
    assert_all_holds(fleets, PLAN, *faults)


@pytest.mark.parametrize("name", CLOCK)
def test_all_holds_under_a_clock(name: str, fleets: Fleets, faketime: str) -> None:
    assert_all_holds(fleets, FleetPlan(fakes_clock=True), FAULTS[name])
