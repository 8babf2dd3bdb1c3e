"""Elections that are assigned to nodes, claimed, drained and granted."""

from __future__ import annotations

from itertools import pairwise

import pytest

from multielect.election import DemotionReason

from .rig import LAYOUT, MS, Node, Rig

TTL_MS = 1000
REBALANCED, DRAINED = DemotionReason.REBALANCED, DemotionReason.DRAINED


def fleet(rig: Rig, *keys: str, drain_ms: int | None = None) -> tuple[Node, Node]:
    """Two balanced nodes, the first of which leads everything."""
    old = rig.node(*keys, balanced=True, drain_ms=drain_ms)
    successor = rig.node(*keys, balanced=True, drain_ms=drain_ms)
    old.assign(dict.fromkeys(keys, old))
    successor.assign(dict.fromkeys(keys, old))
    rig.settle()
    assert all(old.leads(key) for key in keys)
    return old, successor


def assign_to(node: Node, *all_nodes: Node, keys: tuple[str, ...] = ("a",)) -> None:
    for each in all_nodes:
        each.assign(dict.fromkeys(keys, node))


# ---- who stands for what


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
    successor.tick()
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


def third(rig: Rig, *keys: str) -> Node:
    node = rig.node(*keys, balanced=True)
    node.assign({})
    return node


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


# ---- while it drains


def test_a_draining_term_goes_on_and_is_refreshed(rig: Rig) -> None:
    old, successor = fleet(rig, "a", drain_ms=10_000)
    assign_to(successor, old, successor)
    rig.settle()
    (drain,) = old.drains
    assert drain.until_ns == rig.clock.now_ns() + 10_000 * MS
    assert drain.epoch == old.term_events[0].epoch
    rig.run_ms(6000)
    assert old.leads("a")
    assert old.told("a") == [None]
    assert old.finish_drain("a")
    rig.settle()
    assert old.told("a") == [None, REBALANCED]
    assert successor.leads("a")
    assert not old.finish_drain("a")


def test_a_drain_ends_at_its_deadline(rig: Rig) -> None:
    old, successor = fleet(rig, "a", drain_ms=2500)
    assign_to(successor, old, successor)
    rig.settle()
    until_ns = old.drains[0].until_ns
    rig.run_ms(2400)
    assert old.leads("a")
    rig.run_ms(110)
    assert old.told("a") == [None, REBALANCED]
    assert until_ns <= old.term_events[-1].at_ns <= until_ns + 5 * MS
    assert successor.leads("a")


def test_what_is_not_draining_cannot_be_drained(rig: Rig) -> None:
    old, _ = fleet(rig, "a", drain_ms=1000)
    assert not old.finish_drain("a")
    assert old.leads("a")


def test_the_word_of_an_older_term_drains_nothing(rig: Rig) -> None:
    old, successor = fleet(rig, "a", drain_ms=1000)
    assign_to(successor, old, successor)
    rig.settle()
    epoch = old.term_events[0].epoch
    assert not old.finish_drain("a", epoch - 1)
    assert old.leads("a")
    assert old.finish_drain("a", epoch)


def test_assigned_back_meanwhile_it_ends_and_begins_anew_on_the_same_node(rig: Rig) -> None:
    old, successor = fleet(rig, "a", drain_ms=1000)
    assign_to(successor, old, successor)
    rig.settle()
    assign_to(old, old, successor)
    checks = successor.counted("checks")
    assert old.finish_drain("a")
    rig.settle()
    assert old.told("a") == [None, REBALANCED, None]
    assert successor.counted("checks") == checks, "it was free for a moment"


def test_a_drain_that_is_over_is_not_told(rig: Rig) -> None:
    old, successor = fleet(rig, "a", drain_ms=1000)
    successor.assign({"a": successor})
    rig.settle()
    old.assign({"a": successor})
    assert old.finish_drain("a")
    old.take()
    assert old.drains == []
    assert old.told("a") == [None, REBALANCED]


def test_a_lease_that_is_lost_while_it_drains_is_lost(rig: Rig) -> None:
    old, successor = fleet(rig, "a", drain_ms=10_000)
    assign_to(successor, old, successor)
    rig.settle()
    rig.server.put(rig.leader_key("a"), b"thief/1", 60_000)
    rig.run_ms(1000)
    assert old.told("a") == [None, DemotionReason.LOST]


# ---- the grant


def test_a_grant_is_for_its_successor_alone(rig: Rig) -> None:
    old, successor = fleet(rig, "a")
    plain = rig.node("a")
    successor.assign({"a": successor})
    rig.settle()
    old.assign({"a": successor})
    old.tick()
    old.serve()
    # Granted and not yet taken: whoever asks is told of the successor.
    assert rig.holder_of("a") == successor.holder
    plain.core.elections.campaign(*plain.place("a"))
    rig.settle()
    assert not plain.leads("a")
    assert successor.leads("a")


def test_a_grant_to_a_successor_that_is_gone_runs_out(rig: Rig) -> None:
    old, successor = fleet(rig, "a")
    successor.assign({"a": successor})
    rig.settle()
    successor.lose()
    rig.nodes.remove(successor)
    old.assign({"a": successor})
    rig.settle()
    assert rig.holder_of("a") == successor.holder
    assert 0 < rig.server.remaining_ms(rig.leader_key("a")) <= 1000
    old.assign({"a": old})
    rig.run_ms(1100)
    assert old.leads("a")


def test_a_grant_that_was_lost_on_its_way_is_sent_again(rig: Rig) -> None:
    old, successor = fleet(rig, "a")
    successor.assign({"a": successor})
    rig.settle()
    old.assign({"a": successor})
    old.tick()
    assert old.requests
    old.lose()
    assert rig.holder_of("a") == old.holder
    old.connect()
    rig.settle()
    assert successor.leads("a")


def test_a_late_grant_ends_no_newer_term(rig: Rig) -> None:
    old, successor = fleet(rig, "a")
    successor.assign({"a": successor})
    rig.settle()
    old.assign({"a": successor})
    old.tick()
    late = list(old.requests)
    old.lose()
    old.assign({"a": old})
    old.connect()
    rig.run_ms(1500)
    assert old.leads("a")
    epoch = rig.server.get(rig.epoch_key("a"))
    for words in late:
        rig.server.call(words)
    assert rig.holder_of("a") == old.holder
    assert rig.server.get(rig.epoch_key("a")) == epoch


# ---- a whole node


@pytest.mark.parametrize("successor_first", [True, False])
def test_a_node_that_retires_hands_all_over_and_stands_for_nothing(
    rig: Rig, successor_first: bool
) -> None:
    old, successor = fleet(rig, "a", "b", drain_ms=5000)
    old.retire(2000)
    rig.settle()
    assert {drain.key for drain in old.drains} == {"a", "b"}
    assert old.finish_drain("a")
    rig.settle()
    # Nobody is there yet to take it: it goes on being led.
    assert old.leads("a")
    for node in (successor, old) if successor_first else (old, successor):
        assign_to(successor, node, keys=("a", "b"))
        rig.settle()
    assert old.told("a") == [None, DRAINED]
    assert successor.leads("a")
    assert old.leads("b")
    rig.run_ms(2005)
    assert old.told("b") == [None, DRAINED]
    assert successor.leads("b")
    assert not old.is_refused()
    checks = old.counted("checks")
    rig.run_ms(5000)
    assert old.counted("checks") == checks


def test_a_node_that_retires_alone_waits_for_nobody(rig: Rig) -> None:
    node = rig.node("a", balanced=True)
    node.assign({"a": node})
    rig.settle()
    node.retire(5000, alone=True)
    rig.settle()
    assert node.told("a") == [None, DRAINED]
    assert rig.holder_of("a") is None


def test_a_plain_node_that_retires_releases(rig: Rig) -> None:
    leader = rig.leader("a")
    waiting = rig.node("a")
    rig.settle()
    leader.retire(5000)
    rig.settle()
    assert leader.told("a") == [None, DRAINED]
    assert waiting.leads("a")


def test_at_a_stop_the_successors_are_granted_what_was_led(rig: Rig) -> None:
    old, successor = fleet(rig, "a")
    third = rig.node("a", balanced=True)
    third.assign({"a": successor})
    old.assign({"a": successor})
    old.core.elections.stop()
    rig.settle()
    # It was told before it knew of its assignment, and nobody else was.
    assert successor.leads("a")
    assert third.counted("checks") == 0


# ---- announcements that are none


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"1:",
        b"2:/x",
        b"9999999:/",
        b"17:/node-0/incarnation",
        b"19:/node-0/incarnation5:claim",
        b"19:/node-0/incarnation5:claim3:x/y",
        b"19:/node-0/incarnation5:claim3:x/y5:wrong",
        b"19:/node-0/incarnation5:claim3:x/y16:rig:{}:a:leaderx",
        b"19:/node-0/incarnation5:grant7::leader",
        b"19:/node-0/incarnation5:steal3:x/y",
    ],
)
def test_a_message_that_makes_no_sense_does_nothing(rig: Rig, message: bytes) -> None:
    old, _ = fleet(rig, "a")
    assert old.holder == b"node-0/incarnation"
    rig.server.publish(LAYOUT.channel, message)
    rig.run_ms(2000)
    assert old.told("a") == [None]
    assert old.leads("a")


def test_a_forged_grant_makes_no_leader(rig: Rig) -> None:
    old, successor = fleet(rig, "a")
    name = b"/" + successor.holder
    key = rig.leader_key("a")
    rig.server.publish(LAYOUT.channel, b"%d:%s5:grant%d:%s" % (len(name), name, len(key), key))
    rig.settle()
    assert successor.counted("checks") == 1
    assert not successor.leads("a")
    assert old.leads("a")
