"""Only the holder refreshes and releases: a mismatch ends a term, a late release ends none."""

from __future__ import annotations

import pytest

from multielect._protocol.scripts import WITH_FLAGS
from multielect.election import DemotionReason

from .rig import DUE_MS, Rig

LOST = DemotionReason.LOST


@pytest.mark.parametrize("found", [None, b"other/1", [b"a", b"list"]], ids=["none", "other", "odd"])
def test_a_mismatch_demotes_at_once(rig: Rig, found: bytes | list[bytes] | None) -> None:
    node = rig.leader("a", "b")
    rig.server.delete(rig.leader_key("a"))
    if found is not None:
        rig.server.put(rig.leader_key("a"), found)
    rig.advance_ms(DUE_MS)
    node.turn()
    node.serve()
    rig.advance_ms(1)
    now_ns = rig.clock.now_ns()
    assert node.leads("a")
    node.deliver()

    assert not node.leads("a")
    assert node.told("a") == [None, LOST]
    assert node.term_events[-1].at_ns == now_ns
    assert node.leads("b"), "nothing else suffers"


def test_a_term_that_was_lost_is_stood_for_again(rig: Rig) -> None:
    node = rig.leader("a")
    rig.server.delete(rig.leader_key("a"))
    rig.run_ms(350)

    assert node.told("a") == [None, LOST, None]
    first, _, second = node.term_events
    assert second.epoch > first.epoch


def test_two_incarnations_of_one_node_are_two_holders(rig: Rig) -> None:
    old = rig.node("a", holder="same/1")
    old.exchange()
    new = rig.node("a", holder="same/2")
    new.exchange()

    assert old.leads("a")
    assert not new.leads("a")


def test_a_late_release_of_an_older_epoch_ends_no_newer_term(rig: Rig) -> None:
    node = rig.leader("a")
    rig.advance_ms(1)
    node.core.elections.resign(node.number("a"), 0, 0, rig.clock.now_ns())
    node.turn()
    late = node.requests.pop()
    node.lose()
    node.connect()
    node.campaign("a")
    rig.run_ms(1100)
    assert node.leads("a")

    rig.server.call([b"EVAL", WITH_FLAGS.release.body, *late[2:]])
    assert rig.holder_of("a") == node.holder
    rig.run_ms(3000)
    assert node.leads("a")
    assert node.told("a") == [None, DemotionReason.RESIGNED, None]


def test_a_release_names_the_epoch_of_the_term_it_ends(rig: Rig) -> None:
    node = rig.leader("a", "b")
    epochs = [b"%d" % node.candidacy(key).epoch for key in ("a", "b")]
    node.core.elections.stop()
    node.exchange()

    batch = rig.server.batches[-1]
    assert batch.request == "release"
    assert batch.keys[::2] == (rig.leader_key("a"), rig.leader_key("b"))
    assert list(batch.arguments) == [node.holder, node.layout.channel, *epochs]


def test_a_release_leaves_anothers_lease_alone(rig: Rig) -> None:
    node = rig.leader("a", "b")
    rig.server.put(rig.leader_key("a"), b"other/1", 1000)
    node.core.elections.stop()
    node.exchange()

    assert rig.holder_of("a") == b"other/1"
    assert rig.holder_of("b") is None
    assert node.is_quiet()


def test_an_election_removed_and_added_again_is_released_before_it_is_acquired(rig: Rig) -> None:
    node = rig.leader("a")
    old = node.candidacy("a").epoch
    node.remove("a")
    node.add("a")
    rig.server.batches.clear()
    node.exchange()

    assert [batch.request for batch in rig.server.batches] == ["release", "acquire"]
    assert node.leads("a")
    assert rig.holder_of("a") == node.holder
    assert node.candidacy("a").epoch > old
    assert node.told("a") == [None, DemotionReason.REMOVED, None]


def test_an_election_removed_while_asked_for_and_added_again_keeps_its_new_term(rig: Rig) -> None:
    node = rig.node("a")
    node.turn()
    node.remove("a")
    node.add("a")
    rig.settle()

    assert node.leads("a")
    assert rig.holder_of("a") == node.holder
    rig.run_ms(3000)
    assert node.told("a") == [None], "one term, and what the first acquire won was never told"


def test_an_election_removed_while_asked_for_is_released_when_won(rig: Rig) -> None:
    node = rig.node("a")
    node.turn()
    node.remove("a")
    rig.settle()

    assert rig.holder_of("a") is None
    assert node.term_events == []
    assert node.is_quiet()
