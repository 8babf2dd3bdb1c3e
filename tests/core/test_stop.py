"""Stopping ends all terms at once and releases every lease, whatever was under way."""

from __future__ import annotations

from multielect.election import DemotionReason

from .rig import MS, Rig

STOPPED = DemotionReason.STOPPED


def test_all_terms_end_in_the_first_instant(rig: Rig) -> None:
    node = rig.leader("a", "b")
    rig.clock.advance_ns(5)
    node.core.stop(rig.clock.now_ns())
    assert not node.leads("a")
    assert not node.leads("b")
    assert node.core.owned(rig.clock.now_ns()) == []
    node.take()
    assert node.told("a") == [None, STOPPED]
    assert node.happenings[-1].at_ns == rig.clock.now_ns()


def test_every_lease_is_released_in_batches(rig: Rig) -> None:
    keys = [f"k{n}" for n in range(1000)]
    node = rig.leader(*keys)
    rig.server.batches.clear()
    node.core.stop(rig.clock.now_ns())
    assert not node.is_quiet()
    node.exchange()

    assert node.is_quiet()
    assert [batch.elections for batch in rig.server.batches] == [125] * 8
    assert all(rig.holder_of(key) is None for key in keys)
    assert node.counted("released") == 1000


def test_what_was_being_asked_for_is_released_when_it_was_won(rig: Rig) -> None:
    node = rig.node("a")
    node.tick()
    node.core.stop(rig.clock.now_ns())
    assert not node.is_quiet()
    rig.settle()

    assert node.is_quiet()
    assert rig.holder_of("a") is None
    assert node.happenings == [], "a term that was never begun is not told"


def test_what_was_being_asked_for_and_was_lost_is_let_be(rig: Rig) -> None:
    other = rig.leader("a")
    node = rig.node("a")
    node.tick()
    node.core.stop(rig.clock.now_ns())
    rig.settle()
    assert node.is_quiet()
    assert other.leads("a")


def test_a_lost_connection_leaves_nothing_to_wait_for_once_the_leases_have_ended(rig: Rig) -> None:
    node = rig.leader("a", ttl_ms=1000)
    node.add("asked")
    node.tick()
    node.core.stop(rig.clock.now_ns())
    node.lose()
    assert not node.is_quiet()
    rig.run_ms(1002)
    assert node.is_quiet()


def test_a_release_under_way_is_finished(rig: Rig) -> None:
    node = rig.leader("a", "b")
    node.resign("a")
    node.tick()
    node.remove("b")
    node.core.stop(rig.clock.now_ns())
    rig.settle()
    assert node.is_quiet()
    assert rig.holder_of("a") is None
    assert rig.holder_of("b") is None


def test_a_refresh_under_way_does_not_outlive_the_release(rig: Rig) -> None:
    node = rig.leader("a", ttl_ms=1000)
    rig.advance_ms(340)
    node.tick()
    node.core.stop(rig.clock.now_ns())
    node.tick()
    assert len(node.requests) == 2
    rig.settle()
    assert rig.holder_of("a") is None
    assert not node.leads("a")
    assert node.told("a") == [None, STOPPED]


def test_nothing_is_stood_for_any_more(rig: Rig) -> None:
    node = rig.leader("a", ttl_ms=1000)
    other = rig.leader("b", ttl_ms=1000)
    node.add("b")
    rig.settle()
    node.core.stop(rig.clock.now_ns())
    node.add("late")
    rig.settle()
    other.core.stop(rig.clock.now_ns())
    rig.settle()
    rig.server.batches.clear()
    rig.run_ms(5000)
    assert rig.server.batches == []
    assert node.next_tick_ns() > rig.clock.now_ns() + 10**6 * MS


def test_stopping_after_the_deadline_tells_the_deadline(rig: Rig) -> None:
    node = rig.leader("a", ttl_ms=1000, margin_ms=100)
    began_ns = rig.clock.now_ns()
    rig.advance_ms(5000)
    node.core.stop(rig.clock.now_ns())
    node.take()
    assert node.happenings[-1].at_ns == began_ns + 900 * MS


def test_stopping_before_anything_began_is_quiet(rig: Rig) -> None:
    node = rig.node("a")
    node.core.stop(rig.clock.now_ns())
    assert node.is_quiet()
    node.tick()
    assert not node.requests
