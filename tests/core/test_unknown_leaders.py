"""A fleet beside nodes that are none of its members, on the manual clock."""

from __future__ import annotations

import random

import pytest

from .fleet import Fleet, FleetNode
from .rig import Rig

TTL_MS = 1000
KEYS = [f"k{number}" for number in range(24)]


def told(node: FleetNode) -> list[str]:
    return [str(error) for error in node.errors if "no members of its fleet" in str(error)]


def test_a_fleet_tells_of_a_node_that_does_not_balance_and_takes_over_from_it(rig: Rig) -> None:
    stranger = rig.node(*KEYS, holder="stranger/1", ttl_ms=TTL_MS)
    rig.run_ms(TTL_MS)
    fleet = Fleet(rig, KEYS, ttl_ms=TTL_MS)
    node = fleet.join()
    rig.run_ms(2 * TTL_MS)
    assert not told(node), "a dead node would be seen for as long"
    rig.run_ms(20 * TTL_MS)
    assert node.leads_now == set()
    (why,) = told(node)
    assert f"{len(KEYS)} election(s)" in why
    assert f"'stranger/1' ({len(KEYS)})" in why
    stranger.core.elections.stop()
    fleet.settle(3 * TTL_MS)
    assert node.leads_now == set(KEYS)


def test_of_its_rivals_a_node_knows_those_that_lead_what_is_its_own(rig: Rig) -> None:
    rig.node(*KEYS[:5], holder="stranger/1", ttl_ms=TTL_MS)
    rig.run_ms(TTL_MS)
    fleet = Fleet(rig, KEYS, ttl_ms=TTL_MS)
    nodes = [fleet.join(), fleet.join()]
    rig.run_ms(5 * TTL_MS)
    seen = {}
    for node in nodes:
        assignment = node.balancer.assignment
        assert assignment is not None
        holders = assignment.holders()
        own = [key for key in KEYS[:5] if holders[key] == node.holder.decode()]
        before = {holder: named for holder, named, _ in node.core.fleet.other_leaders()}
        rig.run_ms(2 * TTL_MS)
        after = {holder: (named, count) for holder, named, count in node.core.fleet.other_leaders()}
        assert {holder: count for holder, (_, count) in after.items()} == (
            {b"stranger/1": len(own)} if own else {}
        )
        assert all(named > before[holder] for holder, (named, _) in after.items())
        seen[node] = own
    assert sorted(key for own in seen.values() for key in own) == sorted(KEYS[:5])


@pytest.mark.parametrize("seed", range(8))
def test_a_fleet_of_its_own_is_never_suspected(rig: Rig, seed: int) -> None:
    chance = random.Random(seed)
    fleet = Fleet(rig, KEYS, ttl_ms=TTL_MS)
    for _ in range(2):
        fleet.join()
    for _ in range(60):
        what = chance.random()
        if what < 0.35 and len(fleet.members) < 6:
            fleet.join(weight=chance.choice([0, 1, 3]))
        elif what < 0.5 and len(fleet.members) > 1:
            fleet.leave(chance.choice(fleet.members))
        elif what < 0.65 and len(fleet.members) > 1:
            fleet.kill(chance.choice(fleet.members))
        elif what < 0.75:
            # One that does not act on what it hears leads on as it did.
            node = chance.choice(fleet.members)
            node.is_hung = not node.is_hung
        rig.run_ms(chance.choice([50, 300, 1_000, 4_000]))
    assert [why for node in fleet.all for why in told(node)] == []
