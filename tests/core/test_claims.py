"""Who campaigns for which elections in a balanced fleet, and which claims begin a handover."""

from __future__ import annotations

from itertools import pairwise

import pytest

from multielect.election import DemotionReason

from .balanced import assign_to, fleet, third
from .rig import Rig

TTL_MS = 1000
REBALANCED = DemotionReason.REBALANCED


# ---- who campaigns for what


def test_a_balanced_node_stands_for_nothing_until_it_is_told_to(rig: Rig) -> None:
    node = rig.node("a", "b", balanced=True)
    rig.run_ms(3000)
    assert node.counted("checks") == 0
    node.assign({"a": node, "b": None})
    rig.settle()
    assert node.leads("a")
    assert not node.leads("b")


def test_what_another_is_to_lead_is_not_asked_for(rig: Rig) -> None:
    old, successor = fleet(rig, "a")
    rig.run_ms(5000)
    assert successor.counted("checks") == 0
    assert old.told("a") == [None]


def test_an_election_that_is_taken_from_a_candidate_is_asked_for_no_more(rig: Rig) -> None:
    stranger = rig.leader("a")
    node = rig.node("a", balanced=True)
    node.assign({"a": node})
    rig.settle()
    assert node.counted("checks") == 1
    node.assign({"a": stranger})
    rig.run_ms(5000)
    assert node.counted("checks") == 1


def test_what_stays_free_is_found_by_whoever_watches(rig: Rig) -> None:
    keys = tuple(f"k{number}" for number in range(64))
    nodes = [rig.node(*keys, balanced=True) for _ in range(3)]
    absent = rig.node(balanced=True, holder="absent/1")
    for node in nodes:
        node.assign(dict.fromkeys(keys, absent))
    for turn in range(3):
        for number, node in enumerate(nodes):
            node.core.fleet.probe((turn + number) % 3, 3)
        before = sum(node.counted("checks") for node in nodes)
        rig.settle()
        # Each is looked at by exactly one; after the first turn, by one who does not lead it.
        assert sum(node.counted("checks") for node in nodes) - before == len(keys)
        assert all(sum(node.leads(key) for node in nodes) == 1 for key in keys)


def test_the_ineligible_do_not_watch_and_do_not_heed_a_release(rig: Rig) -> None:
    leader = rig.leader("a")
    ineligible = rig.node("a", balanced=True)
    ineligible.assign({"a": None}, ineligible=["a"])
    leader.remove("a")
    ineligible.core.fleet.probe(0, 1)
    rig.run_ms(3000)
    assert ineligible.counted("checks") == 0


def test_what_was_granted_is_taken_though_it_is_assigned_to_another_meanwhile(rig: Rig) -> None:
    old, successor = fleet(rig, "a")
    assign_to(successor, old, successor)
    for node in (successor, old, old):
        node.exchange()
    successor.deliver()
    # It knows of the grant, and has not asked for it yet.
    assert rig.holder_of("a") == successor.holder
    assign_to(old, old, successor)
    rig.settle()
    assert successor.told("a") == [None]
    rig.run_ms(400)
    assert old.leads("a")


def test_what_was_granted_to_a_node_that_retires_is_handed_on_at_once(rig: Rig) -> None:
    old, successor = fleet(rig, "a")
    assign_to(successor, old, successor)
    for node in (successor, old, old):
        node.exchange()
    assert rig.holder_of("a") == successor.holder
    assign_to(old, old, successor)
    successor.retire(1000)
    rig.settle()
    assert old.leads("a")
    assert successor.told("a") == []


# ---- a drain begins


def test_what_is_assigned_while_it_is_looked_at_is_claimed_at_once(rig: Rig) -> None:
    old, successor = fleet(rig, "a")
    successor.core.fleet.probe(0, 1)
    successor.turn()
    # The acquire is on its way, and claims nothing: the election was another's when it was sent.
    assign_to(successor, old, successor)
    rig.settle()
    assert successor.leads("a")
    assert old.told("a") == [None, REBALANCED]


def test_an_assignment_without_a_claim_moves_nothing(rig: Rig) -> None:
    old, successor = fleet(rig, "a")
    old.assign({"a": successor})
    rig.run_ms(5000)
    assert old.told("a") == [None]
    assert old.leads("a")


def test_a_claim_against_the_assignment_moves_nothing(rig: Rig) -> None:
    old, successor = fleet(rig, "a")
    successor.assign({"a": successor})
    rig.run_ms(5000)
    assert successor.counted("checks") >= 5
    assert old.told("a") == [None]
    assert old.leads("a")


def test_a_late_claim_of_another_does_not_take_the_place_of_the_successors(rig: Rig) -> None:
    old, successor = fleet(rig, "a", drain_ms=500)
    late = third(rig, "a")
    for node in (old, successor):
        node.assign({"a": successor})
    late.assign({"a": late})
    successor.exchange()
    late.exchange()
    assert old.deliver() == 2, "both claims are heard, that of the successor first"
    late.assign({"a": successor})
    assert old.finish_drain("a")
    rig.settle()
    assert successor.leads("a")
    assert late.told("a") == []


def test_a_claim_that_another_was_mistaken_for_is_made_again(rig: Rig) -> None:
    old, successor = fleet(rig, "a")
    late = third(rig, "a")
    successor.assign({"a": successor})
    late.assign({"a": late})
    successor.exchange()
    late.exchange()
    assert old.deliver() == 2
    for node in (old, late):
        node.assign({"a": successor})
    rig.run_ms(TTL_MS / 3 + 20)
    assert successor.leads("a")
    assert late.told("a") == []


def test_who_is_to_lead_says_so_again_before_the_lease_can_end(rig: Rig) -> None:
    old, successor = fleet(rig, "a")
    successor.assign({"a": successor})
    rig.settle()
    assert successor.counted("checks") == 1
    old.lose()
    old.connect()
    rig.run_ms(TTL_MS / 3 + 20)
    assert successor.counted("checks") == 2


@pytest.mark.parametrize("claim_first", [True, False])
def test_both_together_hand_it_over_at_once(rig: Rig, claim_first: bool) -> None:
    old, successor = fleet(rig, "a")
    (first, second) = (successor, old) if claim_first else (old, successor)
    first.assign({"a": successor})
    rig.settle()
    assert old.leads("a")
    second.assign({"a": successor})
    rig.settle()
    assert old.told("a") == [None, REBALANCED]
    assert successor.told("a") == [None]
    assert successor.leads("a")
    assert successor.term_events[-1].epoch > old.term_events[0].epoch
    assert successor.term_events[-1].at_ns >= old.term_events[-1].at_ns


def test_a_plain_node_heeds_no_claim(rig: Rig) -> None:
    plain = rig.leader("a")
    node = rig.node("a", balanced=True)
    node.assign({"a": node})
    rig.run_ms(3000)
    assert plain.told("a") == [None]


def test_a_claim_that_its_leader_never_heard_is_made_again_within_seconds(rig: Rig) -> None:
    # However long leases last: here a third of the TTL is 40 s.
    old, second, third = (rig.node("a", balanced=True, ttl_ms=120_000) for _ in range(3))
    assign_to(old, old, second, third)
    rig.settle()
    assert old.leads("a")
    third.assign({"a": third})
    third.exchange()
    assign_to(second, old, second)
    rig.settle()
    assert second.leads("a")
    assign_to(third, old, second)
    rig.settle()
    assert second.leads("a"), "the claim went to the leader before"
    rig.run_ms(6_000)
    assert third.leads("a")


def test_a_third_who_claims_gets_nothing(rig: Rig) -> None:
    old, successor = fleet(rig, "a")
    third = rig.node("a", balanced=True)
    old.assign({"a": successor})
    third.assign({"a": third})
    rig.run_ms(3000)
    assert old.told("a") == [None]


def test_only_so_many_moves_begin_in_a_second(rig: Rig) -> None:
    keys = tuple(f"k{number}" for number in range(100))
    old = rig.node(*keys, balanced=True, moves_per_second=20)
    successor = rig.node(*keys, balanced=True)
    assign_to(old, old, successor, keys=keys)
    rig.settle()
    assign_to(successor, old, successor, keys=keys)
    rig.settle()
    moved = [len(successor.term_events)]
    for _ in range(6):
        rig.run_ms(1000)
        moved.append(len(successor.term_events))
    steps = [after - before for before, after in pairwise(moved)]
    assert moved[0] <= 21
    assert all(step <= 21 for step in steps)
    assert moved[-1] == 100
