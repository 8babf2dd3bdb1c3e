"""What is left of a plan is what the fault needs, and no more."""

from __future__ import annotations

from multielect.testing import SimulatedWorld

from .plan import Action, Plan, drawn
from .shrinking import MAX_TRIES, describe, shrunk


def kinds(plan: Plan) -> list[str]:
    return [action.kind for action in plan.actions]


def test_only_the_actions_that_matter_are_left() -> None:
    plan = drawn(4)
    first, second = plan.actions[7].kind, plan.actions[-9].kind
    assert first != second

    def breaks(tried: Plan) -> bool:
        return first in kinds(tried) and second in kinds(tried)

    short = shrunk(plan, breaks)
    assert sorted(kinds(short)) == sorted([first, second])
    assert short.nodes == 1 or short.nodes < plan.nodes
    assert short.keys == 1
    assert short.drifts == ()
    assert short.length_ms < plan.length_ms


def test_numbers_become_smaller_and_actions_come_sooner() -> None:
    plan = Plan(seed=1, actions=(Action(9000, "pause", 0, (2000,)),), length_ms=20_000)

    def breaks(tried: Plan) -> bool:
        return any(a.kind == "pause" and a.values[0] >= 300 for a in tried.actions)

    (left,) = shrunk(plan, breaks).actions
    assert left.at_ms == 0
    assert 300 <= left.values[0] < 600


def test_it_ends_though_nothing_helps() -> None:
    tries = 0

    def breaks(tried: Plan) -> bool:
        nonlocal tries
        tries += 1
        return False

    plan = drawn(9)
    assert shrunk(plan, breaks) == plan
    assert tries <= MAX_TRIES


def test_a_plan_survives_json() -> None:
    for seed in range(20):
        plan = drawn(seed)
        assert Plan.from_json(plan.to_json()) == plan


def test_a_plan_is_told_in_words() -> None:
    text = describe(Plan(seed=1, actions=(Action(1500, "pause", 2, (300,)),), length_ms=2000))
    assert "3 nodes, 3 elections" in text
    assert "1.500 s  node 2: pause 300" in text


def test_worlds_of_one_seed_are_one_world() -> None:
    digests = set()
    for _ in range(2):
        with SimulatedWorld(seed="same") as world:
            world.group("a", prefix="p", keys=["k"])
            world.run(seconds=5)
            digests.add(world.digest())
    assert len(digests) == 1
