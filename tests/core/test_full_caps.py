"""A fleet whose caps leave less room than there are elections: its own share comes first."""

from __future__ import annotations

import random

import pytest

from multielect.election import DemotionReason

from .fleet import Fleet
from .rig import DUE_MS, Node, Rig

TTL_MS = 1000
GRANT_MS = 1000  # how long a term waits for its successor's claim once its work is done
REBALANCED = DemotionReason.REBALANCED


def full_node(rig: Rig, *keys: str, drain_ms: int | None = None, batch_keys: int = 250) -> Node:
    """A node that leads `keys`, its share, and has no room for more."""
    node = rig.node(
        *keys,
        balanced=True,
        max_leases=len(keys),
        drain_ms=drain_ms,
        batch_keys=batch_keys,
    )
    node.assign(dict.fromkeys(keys, node))
    rig.settle()
    assert node.core.elections.leading == len(keys)
    return node


def led(node: Node) -> set[str]:
    return {key.decode() for key, _, _ in node.core.elections.led(node.clock.now_ns())}


def test_what_is_nobodys_share_makes_room_for_the_nodes_own(rig: Rig) -> None:
    node = full_node(rig, "a", "b")
    node.add("c", "d")
    node.assign({"a": None, "b": node, "c": node, "d": None})
    rig.settle()
    assert led(node) == {"a", "b"}, "it moves when its lease is refreshed"
    rig.run_ms(DUE_MS)
    assert led(node) == {"b", "c"}
    assert node.told("a") == [None, REBALANCED]
    assert rig.holder_of("a") is None
    rig.run_ms(10 * TTL_MS)
    assert [node.told(key) for key in "abcd"] == [[None, REBALANCED], [None], [None], []]


def test_what_is_nobodys_share_is_kept_where_there_is_room(rig: Rig) -> None:
    node = rig.node("a", "b", balanced=True, max_leases=2)
    node.assign({"a": node, "b": None})
    rig.settle()
    node.add("c")
    node.assign({"a": None, "b": None, "c": node})
    rig.run_ms(10 * TTL_MS)
    assert led(node) == {"a", "c"}
    assert node.told("a") == [None]


def test_what_is_nobodys_share_is_kept_while_nothing_else_is_the_nodes(rig: Rig) -> None:
    node = full_node(rig, "a", "b")
    node.add("c")
    node.assign(dict.fromkeys("abc"))
    node.core.fleet.probe(0, 1)
    rig.run_ms(10 * TTL_MS)
    assert led(node) == {"a", "b"}
    assert node.told("a") == node.told("b") == [None]


@pytest.mark.parametrize("drain_ms", [None, 5 * TTL_MS])
@pytest.mark.parametrize("batch_keys", [2, 250])
def test_no_more_is_given_up_than_its_own_need(
    rig: Rig, drain_ms: int | None, batch_keys: int
) -> None:
    node = full_node(rig, *"abcdef", drain_ms=drain_ms, batch_keys=batch_keys)
    node.add("x", "y")
    node.assign(dict.fromkeys("abcdef") | {"x": node, "y": node})
    rig.run_ms(3 * TTL_MS)
    if drain_ms is not None:
        assert len(node.drains) == 2
        assert led(node) == set("abcdef")
        for drain in node.drains:
            node.finish_drain(drain.key)
        rig.run_ms(3 * TTL_MS)
    assert len(led(node)) == 6
    assert led(node) > {"x", "y"}
    assert sum(node.told(key) == [None, REBALANCED] for key in "abcdef") == 2


def test_its_own_comes_before_what_it_only_looks_at(rig: Rig) -> None:
    node = full_node(rig, "a")
    node.add("x", "y", "own")
    node.assign({"a": node, "x": None, "y": None})
    node.core.fleet.probe(0, 1)
    node.assign({"a": None, "x": None, "y": None, "own": node})
    rig.run_ms(2 * DUE_MS)
    assert led(node) == {"own"}
    assert node.told("x") == node.told("y") == []


def test_what_was_looked_at_is_asked_for_as_its_own_from_then_on(rig: Rig) -> None:
    node = rig.node("x", "y", "own", balanced=True, max_leases=1)
    node.assign(dict.fromkeys(["x", "y", "own"]))
    node.core.fleet.probe(0, 1)
    node.assign({"own": node})
    rig.settle()
    assert led(node) == {"own"}


def test_a_node_without_room_for_more_than_its_own_looks_at_nothing(rig: Rig) -> None:
    """Or it would take again, for a moment, what it has just given up."""
    other = rig.leader("own", ttl_ms=TTL_MS)
    node = full_node(rig, "a")
    node.add("own")
    node.assign({"a": None, "own": node})
    for _ in range(20):
        rig.run_ms(TTL_MS / 4)
        node.core.fleet.probe(0, 1)
    assert node.told("a") == [None, REBALANCED]
    assert other.leads("own")
    other.core.elections.stop()
    rig.settle()
    assert led(node) == {"own"}


def test_what_it_looked_at_before_does_not_take_that_room_either(rig: Rig) -> None:
    other = rig.leader("own", ttl_ms=TTL_MS)
    node = rig.node("x", "y", "own", balanced=True, max_leases=1)
    node.assign({"x": None, "y": None})
    node.core.fleet.probe(0, 1)
    rig.run_ms(TTL_MS)
    assert led(node) == {"x"}
    node.assign({"x": None, "own": node})
    rig.run_ms(5 * TTL_MS)
    assert node.told("x") == [None, REBALANCED]
    assert node.told("y") == []
    assert other.leads("own")


def test_what_is_anothers_share_makes_room_if_the_other_does_not_claim_it_in_time(
    rig: Rig,
) -> None:
    absent = rig.node(balanced=True)
    node = full_node(rig, "a", "b")
    node.add("c")
    node.assign({"a": absent, "b": node, "c": node})
    rig.run_ms(TTL_MS)
    assert led(node) == {"a", "b"}
    rig.run_ms(DUE_MS + GRANT_MS + DUE_MS)
    assert led(node) == {"b", "c"}
    # The next time that it has no room it gives as much time again.
    node.add("d")
    node.assign({"b": absent, "d": node})
    rig.run_ms(TTL_MS)
    assert led(node) == {"b", "c"}
    absent.add("b")
    absent.assign({"b": absent})
    rig.settle()
    assert led(node) == {"c", "d"}
    assert absent.leads("b")


def test_only_so_many_make_room_in_a_second(rig: Rig) -> None:
    keys = [f"k{number}" for number in range(60)]
    node = rig.node(*keys, balanced=True, max_leases=30, moves_per_second=2)
    node.assign(dict.fromkeys(keys[:30], node))
    rig.settle()
    node.assign(dict.fromkeys(keys[:30]) | dict.fromkeys(keys[30:], node))
    rig.run_ms(5000)
    moved = len(led(node) & set(keys[30:]))
    assert 5 <= moved <= 12
    rig.run_ms(15_000)
    assert led(node) == set(keys[30:])


def test_two_full_nodes_that_lead_each_others_share_swap(rig: Rig) -> None:
    one, other = full_node(rig, "a"), full_node(rig, "b")
    one.add("b")
    other.add("a")
    for node in (one, other):
        node.assign({"a": other, "b": one})
    rig.run_ms(TTL_MS + DUE_MS + GRANT_MS)
    assert led(one) == {"b"}
    assert led(other) == {"a"}


def check_settled(fleet: Fleet) -> None:
    """Settle, and see that nothing moves any more."""
    fleet.settle(12 * TTL_MS)
    told = fleet.count_ended()
    fleet.rig.run_ms(4 * TTL_MS)
    assert fleet.is_settled()
    assert fleet.count_ended() == told


@pytest.mark.parametrize("size", [20, 60])
@pytest.mark.parametrize("seed", range(20))
def test_a_fleet_of_full_nodes_leads_what_is_assigned(rig: Rig, seed: int, size: int) -> None:
    chance = random.Random(f"{seed} {size}")
    fleet = Fleet(rig, [f"k{number}" for number in range(size)], ttl_ms=TTL_MS)
    for _ in range(10):
        what = chance.random()
        if what < 0.6 or len(fleet.members) < 2:
            fleet.join(max_leases=chance.choice([1, 5, 10, 20]), drain_ms=chance.choice([None, 1]))
        elif what < 0.8:
            fleet.leave(chance.choice(fleet.members))
        else:
            fleet.kill(chance.choice(fleet.members))
        if chance.random() < 0.5:
            check_settled(fleet)
        else:
            rig.run_ms(chance.choice([0, 50, 400, 1500]))
    check_settled(fleet)
    fleet.check_terms()


@pytest.mark.parametrize("seed", range(10))
def test_a_fleet_without_a_plan_does_so_too(
    rig: Rig, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one with too many elections for a plan: what it assigns moves about more."""
    monkeypatch.setattr("multielect._fleet.plan.MAX_NEW_KEYS", 0)
    chance = random.Random(seed)
    fleet = Fleet(rig, [f"k{number}" for number in range(60)], ttl_ms=TTL_MS)
    for _ in range(6):
        fleet.join(max_leases=chance.choice([5, 10, 20]), drain_ms=chance.choice([None, 1]))
        rig.run_ms(chance.choice([0, 50, 400, 4000]))
    check_settled(fleet)
    fleet.leave(chance.choice(fleet.members))
    check_settled(fleet)
    fleet.check_terms()
