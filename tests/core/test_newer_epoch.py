"""Who learns of a newer epoch gives the term up, and leads again under one that is above it."""

from __future__ import annotations

import pytest

from multielect._protocol.scripts import LARGEST_EPOCH
from multielect.election import DemotionReason
from multielect.testing._resp import encode

from .rig import DUE_MS, LAYOUT, Node, Rig

SUPERSEDED = DemotionReason.SUPERSEDED
EPOCHS = pytest.mark.parametrize("epochs", ["time", "counter"])


def epoch_of(node: Node, key: str = "a") -> int:
    return node.candidacy(key).epoch


def leading(rig: Rig, epochs: str, *keys: str) -> Node:
    node = rig.node(*(keys or ("a",)), epochs=epochs)
    node.exchange()
    return node


def acquires(rig: Rig) -> list[list[bytes]]:
    """Return the arguments of the acquires that the server was asked."""
    return [list(batch.arguments) for batch in rig.server.batches if batch.request == "acquire"]


@EPOCHS
def test_a_term_ends_at_once_and_the_next_is_above(rig: Rig, epochs: str) -> None:
    node = leading(rig, epochs)
    first = epoch_of(node)
    newest = first + 5_000_000
    assert node.learn("a", newest, first)

    assert not node.leads("a")
    node.take()
    assert node.told("a") == [None, SUPERSEDED]
    node.exchange()
    assert node.leads("a")
    assert epoch_of(node) == newest + 1
    assert rig.server.get(rig.epoch_key("a")) == b"%d" % (newest + 1)
    assert [batch.request for batch in rig.server.batches] == ["acquire", "acquire"], (
        "a lease that is ours still is taken over, not released"
    )


def test_nobody_else_leads_meanwhile(rig: Rig) -> None:
    node, other = rig.leader("a"), rig.node("a")
    rig.settle()
    node.learn("a", epoch_of(node) + 1)
    other.turn()
    rig.settle()
    assert node.leads("a")
    assert other.told("a") == []


@EPOCHS
def test_a_floor_is_sent_for_that_election_alone_and_once(rig: Rig, epochs: str) -> None:
    node = leading(rig, epochs, "a", "b", "c")
    newest = epoch_of(node, "b") + 9_000
    node.learn("b", newest)
    node.learn("c", newest + 1)
    rig.settle()
    assert acquires(rig)[-1][4:] == [b"1", b"%d" % newest, b"2", b"%d" % (newest + 1)]
    assert [epoch_of(node, key) > newest for key in "abc"] == [False, True, True]

    node.resign("b")
    rig.settle()
    node.campaign("b")
    rig.settle()
    assert node.leads("b")
    assert len(acquires(rig)[-1]) == 4


@EPOCHS
@pytest.mark.parametrize("newer", [0, -1])
def test_what_is_not_newer_ends_nothing(rig: Rig, epochs: str, newer: int) -> None:
    node = leading(rig, epochs)
    epoch = epoch_of(node)
    assert not node.learn("a", epoch + newer, 0)
    assert not node.learn("a", epoch, epoch)
    assert node.leads("a")


def test_what_a_term_finds_out_too_late_ends_no_newer_one(rig: Rig) -> None:
    node = rig.leader("a")
    first = epoch_of(node)
    node.learn("a", first + 5, first)
    rig.settle()
    assert epoch_of(node) > first + 5
    assert not node.learn("a", first + 5, first)
    assert node.leads("a")


def test_a_later_term_that_is_not_above_either_ends_too(rig: Rig) -> None:
    node = rig.leader("a")
    first = epoch_of(node)
    node.learn("a", first + 5, first)
    rig.settle()
    second = epoch_of(node)
    assert node.learn("a", second + 5, first)
    assert not node.leads("a")


def test_an_election_that_came_in_the_place_of_another_learns_nothing(rig: Rig) -> None:
    node = rig.leader("a")
    number, generation = node.place("a")
    node.remove("a")
    rig.settle()
    node.take()
    other = rig.another_of_its_bucket("a")
    node.add(other)
    rig.settle()
    assert node.number(other) == number
    epoch = epoch_of(node, other)
    assert not node.core.elections.learn_epoch(number, generation, 0, epoch + 9, rig.clock.now_ns())
    assert node.leads(other)


def test_a_term_whose_deadline_has_passed_expired(rig: Rig) -> None:
    node = rig.leader("a", ttl_ms=1000, margin_ms=100)
    epoch = epoch_of(node)
    rig.advance_ms(950)
    assert not node.learn("a", epoch + 7_000)
    rig.settle()
    assert node.told("a") == [None, DemotionReason.EXPIRED, None]
    assert epoch_of(node) == epoch + 7_001


@EPOCHS
def test_who_waits_remembers_it_until_he_leads(rig: Rig, epochs: str) -> None:
    leader = leading(rig, epochs)
    waiting = rig.node("a", epochs=epochs)
    rig.settle()
    newest = epoch_of(leader) + 9_000_000
    assert not waiting.learn("a", newest)
    leader.core.elections.stop()
    rig.settle()
    assert waiting.leads("a")
    assert epoch_of(waiting) == newest + 1


@EPOCHS
def test_an_acquire_in_flight_that_is_not_above_gives_no_leadership(rig: Rig, epochs: str) -> None:
    node = rig.node("a", epochs=epochs)
    node.turn()
    node.serve()
    newest = rig.server.now_ms() + 9_000
    node.learn("a", newest)
    node.deliver()
    assert not node.leads("a")
    assert node.told("a") == []
    node.exchange()
    assert node.leads("a")
    assert epoch_of(node) == newest + 1


def test_an_acquire_in_flight_that_is_above_leads(rig: Rig) -> None:
    node = rig.node("a")
    node.turn()
    node.serve()
    node.learn("a", rig.server.now_ms() - 1)
    node.deliver()
    assert node.leads("a")


def test_a_server_that_does_not_heed_floors_is_not_overrun(rig: Rig) -> None:
    node = rig.leader("a", ttl_ms=1000)
    node.learn("a", epoch_of(node) + 5)
    asked = 0
    for _ in range(1000):
        node.turn()
        asked += len(node.requests)
        for words in node.requests:
            assert words[0] in {b"EVAL", b"EVALSHA"}
            node.replies.append(encode([rig.server.now_ms(), [], 1]))
        node.requests.clear()
        node.deliver()
        rig.advance_ms(10)
    assert not node.leads("a")
    assert asked <= 61, "no more often than what is refused"


def test_one_that_is_not_to_lead_takes_over_what_stands_in_its_name(rig: Rig) -> None:
    # Nobody else could take it, and it cannot be released under the old epoch.
    node, successor = rig.node("a", balanced=True), rig.node("a", balanced=True)
    for one in (node, successor):
        one.assign({"a": node})
    rig.settle()
    node.assign({"a": successor})
    node.learn("a", epoch_of(node) + 9_000)
    rig.settle()
    assert node.told("a") == [None, SUPERSEDED, None]
    successor.assign({"a": successor})
    rig.run_ms(DUE_MS)
    assert successor.leads("a")
    assert epoch_of(successor) > epoch_of(node)


def test_a_node_that_stops_does_not_stand_again(rig: Rig) -> None:
    node = rig.leader("a")
    node.core.elections.stop()
    assert node.learn("a", epoch_of(node) + 1)
    rig.settle()
    assert node.told("a") == [None, SUPERSEDED]
    assert node.is_quiet()
    assert rig.holder_of("a") is None


def test_an_epoch_is_above_those_of_ones_own_though_counter_and_clock_fell_back(rig: Rig) -> None:
    node = rig.leader("a", ttl_ms=1000)
    first = epoch_of(node)
    rig.server.delete(rig.epoch_key("a"))
    rig.server.delete(rig.leader_key("a"))
    rig.server.store.step_clock(-3_600_000_000_000)
    rig.advance_ms(DUE_MS)
    rig.settle()
    assert node.leads("a")
    assert node.told("a")[:2] == [None, DemotionReason.LOST]
    assert epoch_of(node) == first + 1


def test_a_counter_that_was_lost_begins_again_where_that_was_asked_for(rig: Rig) -> None:
    node = leading(rig, "counter")
    node.resign("a")
    rig.settle()
    rig.run_ms(1100)
    assert epoch_of(node) == 2
    rig.server.delete(rig.epoch_key("a"))
    rig.server.delete(rig.leader_key("a"))
    rig.run_ms(DUE_MS)
    assert node.leads("a")
    assert epoch_of(node) == 1


@EPOCHS
def test_the_highest_of_several_counts(rig: Rig, epochs: str) -> None:
    node = leading(rig, epochs)
    epoch = epoch_of(node)
    node.learn("a", epoch + 9_000)
    node.learn("a", epoch + 5_000)
    node.learn("a", epoch + 7_000)
    rig.settle()
    assert epoch_of(node) == epoch + 9_001


def test_a_floor_that_no_epoch_can_be_above_is_refused_and_told(rig: Rig) -> None:
    node = rig.leader("a", ttl_ms=1000)
    node.learn("a", LARGEST_EPOCH)
    rig.settle()
    assert not node.leads("a")
    assert node.error_reports() == [("acquire", 1, "ERR epoch counter would overflow")]
    assert rig.server.get(rig.epoch_key("a")) == b"%d" % epoch_of(node)


def test_the_counter_counts_where_it_is_above_the_floor(rig: Rig) -> None:
    node = leading(rig, "counter")
    rig.server.put(rig.epoch_key("a"), b"50")
    node.learn("a", 20)
    rig.settle()
    assert epoch_of(node) == 51


@pytest.mark.parametrize("what", ["floor", "drain"])
def test_a_drain_and_a_floor_do_not_touch_each_other(rig: Rig, what: str) -> None:
    node = rig.node("a", balanced=True, drain_ms=5_000)
    node.assign({"a": node})
    rig.settle()
    node.retire(3_000)
    node.take()
    assert [drain.key for drain in node.drains] == ["a"]
    if what == "floor":
        node.learn("a", epoch_of(node) + 1)
        rig.settle()
        assert node.told("a") == [None, SUPERSEDED]
        assert rig.holder_of("a") is None, "taken over, and given back as the node retires"
    else:
        node.finish_drain("a")
        rig.settle()
        rig.run_ms(3_100)
        assert node.told("a") == [None, DemotionReason.DRAINED]
        assert all(len(words) == 4 for words in acquires(rig))


def test_floors_name_the_place_in_their_own_batch(rig: Rig) -> None:
    keys = [f"k{n}" for n in range(300)]
    node = leading(rig, "counter", *keys)
    for place in (0, 130, 299):
        node.learn(keys[place], 1000 + place)
    rig.settle()
    epochs = {key: epoch_of(node, key) for key in keys}
    assert {key: epoch for key, epoch in epochs.items() if epoch != 1} == {
        "k0": 1001,
        "k130": 1131,
        "k299": 1300,
    }
    assert rig.server.get(LAYOUT.epoch_key(b"k1")) == b"1"


@EPOCHS
def test_a_counter_at_its_maximum_is_no_floor_once_it_is_deleted(rig: Rig, epochs: str) -> None:
    """The release finds the counter there. Who kept it as a floor could never lead again."""
    node = leading(rig, epochs)
    rig.server.store.put(rig.epoch_key("a"), b"%d" % LARGEST_EPOCH)
    node.resign("a")
    rig.settle()
    assert rig.server.get(rig.leader_key("a")) is None, "it is released all the same"

    assert rig.server.store.delete(rig.epoch_key("a"))
    rig.advance_ms(5)
    node.campaign("a")
    rig.settle()
    assert node.leads("a")
    assert len(acquires(rig)[-1]) == 4, "no floor is sent"


def test_a_term_under_the_largest_epoch_is_not_the_last(rig: Rig) -> None:
    rig.server.store.put(rig.epoch_key("a"), b"%d" % (LARGEST_EPOCH - 1))
    node = leading(rig, "time")
    assert epoch_of(node) == LARGEST_EPOCH
    node.resign("a")
    rig.settle()
    assert rig.server.store.delete(rig.epoch_key("a"))
    node.campaign("a")
    rig.settle()
    assert node.leads("a")
    assert epoch_of(node) < LARGEST_EPOCH
