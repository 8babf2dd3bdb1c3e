"""A node believes that it leads until ttl - margin after it sent, and not a nanosecond longer."""

from __future__ import annotations

import pytest

from multielect.election import DemotionReason

from .rig import DUE_MS, MS, Rig

TTL_MS = 1000
MARGIN_MS = 100
TERM_MS = TTL_MS - MARGIN_MS
EXPIRED = DemotionReason.EXPIRED


def test_an_acquire_counts_from_when_it_was_sent(rig: Rig) -> None:
    node = rig.node("a", ttl_ms=TTL_MS, margin_ms=MARGIN_MS)
    node.turn()
    node.serve()
    rig.advance_ms(TERM_MS - 1)
    node.deliver()

    assert node.leads("a")
    assert node.candidacy("a").remaining == pytest.approx(0.001)
    rig.advance_ms(1)
    assert not node.leads("a")


def test_a_refresh_counts_from_when_it_was_sent(rig: Rig) -> None:
    node = rig.leader("a", ttl_ms=TTL_MS, margin_ms=MARGIN_MS)
    rig.advance_ms(DUE_MS)
    node.turn()
    assert node.requests, "the refresh is due within a third of the TTL"
    node.serve()
    rig.advance_ms(500)
    node.deliver()

    assert node.candidacy("a").remaining == pytest.approx((TERM_MS - 500) / 1000)


def test_time_before_the_server_ran_it_counts_too(rig: Rig) -> None:
    node = rig.node("a", ttl_ms=TTL_MS, margin_ms=MARGIN_MS)
    node.turn()
    rig.advance_ms(600)
    node.serve()
    node.deliver()

    assert node.candidacy("a").remaining == pytest.approx((TERM_MS - 600) / 1000)
    lease_ends_ms = rig.server.remaining_ms(rig.leader_key("a"))
    assert lease_ends_ms >= node.candidacy("a").remaining * 1000 + MARGIN_MS


def test_leadership_ends_by_the_clock_alone(rig: Rig) -> None:
    node = rig.leader("a", ttl_ms=TTL_MS, margin_ms=MARGIN_MS)
    candidacy = node.candidacy("a")
    rig.clock.advance_ns(TERM_MS * MS - 1)
    assert node.leads("a")
    rig.clock.advance_ns(1)
    assert not node.leads("a")
    assert candidacy.remaining == 0.0


def test_the_end_is_told_with_the_instant_of_the_deadline(rig: Rig) -> None:
    node = rig.leader("a", ttl_ms=TTL_MS, margin_ms=MARGIN_MS)
    began_ns = rig.clock.now_ns()
    node.lose()
    rig.advance_ms(10 * TTL_MS)
    node.turn()

    assert node.told("a") == [None, EXPIRED]
    assert node.term_events[-1].at_ns == began_ns + TERM_MS * MS


@pytest.mark.parametrize("delay_ms", [TERM_MS, TTL_MS - 1, TTL_MS + 400])
def test_a_win_that_is_told_too_late_gives_no_leadership_and_is_released(
    rig: Rig, delay_ms: int
) -> None:
    node = rig.node("a", ttl_ms=TTL_MS, margin_ms=MARGIN_MS)
    node.turn()
    rig.advance_ms(500)
    node.serve()
    rig.advance_ms(delay_ms - 500)
    node.deliver()
    assert not node.leads("a")
    assert rig.holder_of("a") == node.holder

    node.turn()
    node.serve()
    assert rig.holder_of("a") is None, "others need not wait for what it does not use"
    assert node.term_events == []


def test_a_refresh_that_is_told_too_late_does_not_revive_the_term(rig: Rig) -> None:
    node = rig.leader("a", ttl_ms=TTL_MS, margin_ms=MARGIN_MS)
    old = node.term_events[0].epoch
    rig.advance_ms(DUE_MS)
    node.turn()
    node.serve()
    rig.advance_ms(TERM_MS - DUE_MS)
    node.deliver()
    assert not node.leads("a")
    assert node.told("a") == [None, EXPIRED]

    node.exchange()
    assert node.told("a") == [None, EXPIRED, None], "its own lease is taken under a new epoch"
    assert node.term_events[-1].epoch > old
    assert not node.candidacy("a", term_epoch=old).is_leader
    assert node.candidacy("a", term_epoch=node.term_events[-1].epoch).is_leader


def test_a_refresh_that_is_told_just_in_time_extends_the_term(rig: Rig) -> None:
    node = rig.leader("a", ttl_ms=TTL_MS, margin_ms=MARGIN_MS)
    rig.advance_ms(DUE_MS)
    node.turn()
    node.serve()
    rig.clock.advance_ns((TERM_MS - DUE_MS) * MS - 1)
    node.deliver()

    assert node.leads("a")
    assert node.told("a") == [None]


def test_a_refresh_is_not_sent_after_the_deadline(rig: Rig) -> None:
    node = rig.leader("a", ttl_ms=TTL_MS, margin_ms=MARGIN_MS)
    rig.advance_ms(TERM_MS)
    node.turn()

    assert node.told("a") == [None, EXPIRED]
    node.serve()
    assert [batch.request for batch in rig.server.batches] == ["acquire", "acquire"]


def test_a_term_goes_on_as_long_as_it_is_refreshed(rig: Rig) -> None:
    node = rig.leader("a", ttl_ms=TTL_MS, margin_ms=MARGIN_MS)
    candidacy = node.candidacy("a")
    for _ in range(50 * TTL_MS // 20):
        rig.run_ms(20)
        assert candidacy.remaining > (TERM_MS - TTL_MS / 3) / 1000 - 0.002
    assert node.told("a") == [None]


def test_the_epoch_is_what_the_server_minted(rig: Rig) -> None:
    rig.server.put(rig.epoch_key("a"), b"%d" % (rig.server.now_ms() + 41))
    node = rig.leader("a")

    assert node.candidacy("a").epoch == rig.server.now_ms() + 42
    assert node.term_events[0].epoch == node.candidacy("a").epoch


def test_epochs_can_be_plain_counts(rig: Rig) -> None:
    node = rig.node("a", epochs="counter")
    node.exchange()
    assert node.candidacy("a").epoch == 1


def test_there_is_no_epoch_before_the_first_term(rig: Rig) -> None:
    node = rig.node("a")
    assert node.candidacy("a").epoch == 0
