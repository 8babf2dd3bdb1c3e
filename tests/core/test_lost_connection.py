"""After a connection is lost the outcome of what was in flight is unknown, and unknown means no."""

from __future__ import annotations

import pytest

from multielect.election import DemotionReason

from .rig import DUE_MS, Rig

EXECUTED = pytest.mark.parametrize("executed", [True, False], ids=["executed", "not executed"])


@EXECUTED
def test_a_lost_refresh_keeps_the_old_deadline(rig: Rig, executed: bool) -> None:
    node = rig.leader("a", ttl_ms=1000, margin_ms=100)
    rig.advance_ms(DUE_MS)
    node.turn()
    node.serve(most=int(executed))
    node.lose()

    assert node.leads("a")
    assert node.candidacy("a").remaining == pytest.approx(0.9 - DUE_MS / 1000)
    rig.advance_ms(900 - DUE_MS)
    assert not node.leads("a")


def test_a_lost_refresh_is_sent_again_on_the_next_connection(rig: Rig) -> None:
    node = rig.leader("a", ttl_ms=1000, margin_ms=100)
    rig.advance_ms(DUE_MS)
    node.turn()
    node.lose()
    rig.advance_ms(100)
    node.connect()
    node.exchange()

    assert node.candidacy("a").remaining == pytest.approx(0.9)
    assert node.told("a") == [None]


@EXECUTED
def test_a_lost_acquire_gives_no_leadership(rig: Rig, executed: bool) -> None:
    node = rig.node("a")
    node.turn()
    node.serve(most=int(executed))
    node.lose()

    assert not node.leads("a")
    assert (rig.holder_of("a") == node.holder) is executed


def test_a_lease_found_to_be_ones_own_is_taken_under_a_higher_epoch(rig: Rig) -> None:
    node = rig.node("a", epochs="counter")
    node.turn()
    node.serve()
    node.lose()
    node.connect()
    node.exchange()

    assert node.leads("a")
    assert node.candidacy("a").epoch == 2


def test_a_reply_of_an_earlier_connection_cannot_be_taken_for_a_later_ones(rig: Rig) -> None:
    node = rig.node("a", "b")
    node.turn()
    node.serve()
    half = node.replies[0][:40]
    node.driver.receive(half, rig.clock.now_ns())
    node.lose()
    node.connect()
    node.exchange()

    assert node.leads("a")
    assert node.leads("b")


def test_bytes_not_yet_sent_are_not_sent_on_the_next_connection(rig: Rig) -> None:
    node = rig.node("a")
    node.driver.turn(rig.clock.now_ns())
    node.lose()
    assert node.driver.outgoing_bytes == 0
    node.connect()
    node.turn()
    assert len(node.requests) == 1


def test_without_a_connection_nothing_is_sent_and_terms_end_in_time(rig: Rig) -> None:
    node = rig.leader("a", ttl_ms=1000, margin_ms=100)
    node.lose()
    rig.run_ms(5000)

    assert node.driver.outgoing_bytes == 0
    assert node.told("a") == [None, DemotionReason.EXPIRED]


def test_a_new_connection_refreshes_and_asks_at_once(rig: Rig) -> None:
    leader = rig.leader("a", ttl_ms=1000)
    other = rig.node("a", "b", ttl_ms=1000)
    other.exchange()
    for node in (leader, other):
        node.lose()
    rig.server.batches.clear()
    for node in (leader, other):
        node.connect()
        node.exchange()

    assert [batch.request for batch in rig.server.batches] == ["refresh", "refresh", "acquire"]


@EXECUTED
def test_a_lost_release_is_sent_again(rig: Rig, executed: bool) -> None:
    node = rig.leader("a")
    node.core.elections.stop()
    node.turn()
    node.serve(most=int(executed))
    node.lose()
    assert not node.is_quiet()
    node.connect()
    node.exchange()

    assert rig.holder_of("a") is None
    assert node.is_quiet()


def test_a_release_is_not_sent_any_more_when_the_lease_has_ended(rig: Rig) -> None:
    node = rig.leader("a", ttl_ms=1000)
    node.core.elections.stop()
    node.lose()
    rig.advance_ms(1002)
    node.turn()

    assert node.is_quiet()
    node.connect()
    node.turn()
    assert not node.requests
