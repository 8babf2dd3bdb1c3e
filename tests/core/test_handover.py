"""How a term is handed over: drains, grants, and nodes that retire."""

from __future__ import annotations

import pytest

from multielect.election import DemotionReason

from .balanced import assign_to, fleet
from .rig import LAYOUT, MS, Rig

REBALANCED, DRAINED = DemotionReason.REBALANCED, DemotionReason.DRAINED


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
    old.turn()
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
    old.turn()
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
    old.turn()
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


# ---- malformed and forged announcements


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
