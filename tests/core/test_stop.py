"""Stopping ends every term as its release goes out, whatever was under way."""

from __future__ import annotations

from multielect.election import DemotionReason

from .rig import LAYOUT, MS, Rig

STOPPED = DemotionReason.STOPPED


BATCH = 125
MAX_AT_ONCE = 8 * BATCH


def in_order_of_buckets(count: int) -> list[str]:
    """Return keys in the order in which a node that stops ends their terms."""
    keys = [f"k{number}" for number in range(count)]
    return sorted(keys, key=lambda key: LAYOUT.bucket(key.encode()))


def test_terms_end_as_their_releases_go_out(rig: Rig) -> None:
    node = rig.leader("a", "b")
    rig.clock.advance_ns(5)
    node.core.elections.stop()
    assert node.leads("a")
    rig.clock.advance_ns(5)
    node.turn()
    assert len(node.requests) == 1
    assert not node.leads("a")
    assert not node.leads("b")
    assert node.core.elections.led(rig.clock.now_ns()) == []
    node.take()
    assert node.told("a") == [None, STOPPED]
    assert node.term_events[-1].at_ns == rig.clock.now_ns()


def test_what_is_not_released_yet_is_led_and_refreshed(rig: Rig) -> None:
    keys = in_order_of_buckets(2 * MAX_AT_ONCE + 3)
    node = rig.leader(*keys, ttl_ms=1000, margin_ms=100)
    node.core.elections.stop()
    node.turn()
    assert [node.leads(key) for key in keys] == [n >= MAX_AT_ONCE for n in range(len(keys))]
    assert not node.is_quiet()
    # Nothing is to be done before an answer comes, or a refresh is due.
    assert node.next_turn_ns() > rig.clock.now_ns()
    rig.advance_ms(340)
    refreshed = node.counted("refreshes")
    node.turn()
    assert node.counted("refreshes") == refreshed + len(keys) - MAX_AT_ONCE
    node.serve(1)
    node.deliver()
    node.turn()
    assert sum(node.leads(key) for key in keys) == len(keys) - MAX_AT_ONCE - BATCH
    node.serve()
    node.deliver()
    rig.advance_ms(600)
    assert node.leads(keys[-1]), "the refresh was answered"
    rig.settle()
    assert node.is_quiet()
    assert all(rig.holder_of(key) is None for key in keys)
    assert all(node.told(key) == [None, STOPPED] for key in keys)


def test_without_a_connection_all_terms_end_with_the_next_turn(rig: Rig) -> None:
    keys = in_order_of_buckets(MAX_AT_ONCE + 1)
    node = rig.leader(*keys)
    node.lose()
    node.core.elections.stop()
    node.turn()
    assert not any(node.leads(key) for key in keys)
    node.take()
    assert node.told(keys[-1]) == [None, STOPPED]


def test_a_connection_that_is_lost_ends_the_terms_that_are_left(rig: Rig) -> None:
    keys = in_order_of_buckets(MAX_AT_ONCE + 1)
    node = rig.leader(*keys)
    node.core.elections.stop()
    node.turn()
    assert node.leads(keys[-1])
    node.lose()
    node.turn()
    assert not node.leads(keys[-1])
    node.take()
    assert node.told(keys[-1]) == [None, STOPPED]


def test_whoever_cannot_wait_gives_up_what_is_left(rig: Rig) -> None:
    keys = in_order_of_buckets(MAX_AT_ONCE + 1)
    node = rig.leader(*keys)
    node.core.elections.stop()
    node.turn()
    node.driver.give_up(rig.clock.now_ns())
    assert not node.leads(keys[-1])
    node.take()
    assert all(node.told(key) == [None, STOPPED] for key in keys)


def test_a_term_that_ends_otherwise_while_the_node_stops_is_not_followed_by_another(
    rig: Rig,
) -> None:
    keys = in_order_of_buckets(MAX_AT_ONCE + 3)
    node = rig.leader(*keys, ttl_ms=1000, margin_ms=100)
    resigned, lost, expired = keys[-3:]
    node.core.elections.stop()
    node.turn()
    assert node.resign(resigned)
    rig.server.delete(rig.leader_key(lost))
    rig.advance_ms(340)
    node.turn()
    # All is done at the server, but the answers come when the last term is over.
    node.serve()
    rig.advance_ms(900)
    checks = node.counted("checks")
    node.deliver()
    rig.settle()
    rig.run_ms(3000)
    assert node.is_quiet()
    assert node.counted("checks") == checks, "it stands for nothing any more"
    assert node.told(resigned) == [None, DemotionReason.RESIGNED]
    assert node.told(expired) == [None, DemotionReason.EXPIRED]
    assert node.told(lost) == [None, DemotionReason.EXPIRED]


def test_a_term_that_is_lost_while_its_node_stops_is_the_last(rig: Rig) -> None:
    keys = in_order_of_buckets(1003)
    node = rig.leader(*keys, ttl_ms=3000)
    node.core.elections.stop()
    node.turn()
    assert node.leads(keys[-1])
    rig.server.delete(rig.leader_key(keys[-1]))
    node.core.refresh_all()
    checks = node.counted("checks")
    rig.settle()
    rig.run_ms(3000)
    assert node.is_quiet()
    assert node.counted("checks") == checks
    assert node.told(keys[-1]) == [None, DemotionReason.LOST]


def test_every_lease_is_released_in_batches(rig: Rig) -> None:
    keys = in_order_of_buckets(1000)
    node = rig.leader(*keys)
    rig.server.batches.clear()
    node.core.elections.stop()
    assert not node.is_quiet()
    node.exchange()

    assert node.is_quiet()
    assert [batch.elections for batch in rig.server.batches] == [125] * 8
    assert all(rig.holder_of(key) is None for key in keys)
    assert node.counted("released") == 1000


def test_what_was_being_asked_for_is_released_when_it_was_won(rig: Rig) -> None:
    node = rig.node("a")
    node.turn()
    node.core.elections.stop()
    assert not node.is_quiet()
    rig.settle()

    assert node.is_quiet()
    assert rig.holder_of("a") is None
    assert node.term_events == [], "a term that was never begun is not told"


def test_what_was_being_asked_for_and_was_lost_is_let_be(rig: Rig) -> None:
    other = rig.leader("a")
    node = rig.node("a")
    node.turn()
    node.core.elections.stop()
    rig.settle()
    assert node.is_quiet()
    assert other.leads("a")


def test_a_lost_connection_leaves_nothing_to_wait_for_once_the_leases_have_ended(rig: Rig) -> None:
    node = rig.leader("a", ttl_ms=1000)
    node.add("asked")
    node.turn()
    node.core.elections.stop()
    node.lose()
    assert not node.is_quiet()
    rig.run_ms(1002)
    assert node.is_quiet()


def test_a_release_under_way_is_finished(rig: Rig) -> None:
    node = rig.leader("a", "b")
    node.resign("a")
    node.turn()
    node.remove("b")
    node.core.elections.stop()
    rig.settle()
    assert node.is_quiet()
    assert rig.holder_of("a") is None
    assert rig.holder_of("b") is None


def test_a_refresh_under_way_does_not_outlive_the_release(rig: Rig) -> None:
    node = rig.leader("a", ttl_ms=1000)
    rig.advance_ms(340)
    node.turn()
    node.core.elections.stop()
    node.turn()
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
    node.core.elections.stop()
    node.add("late")
    rig.settle()
    other.core.elections.stop()
    rig.settle()
    rig.server.batches.clear()
    rig.run_ms(5000)
    assert rig.server.batches == []
    assert node.next_turn_ns() > rig.clock.now_ns() + 10**6 * MS


def test_stopping_after_the_deadline_tells_the_deadline(rig: Rig) -> None:
    node = rig.leader("a", ttl_ms=1000, margin_ms=100)
    began_ns = rig.clock.now_ns()
    rig.advance_ms(5000)
    node.core.elections.stop()
    node.turn()
    node.take()
    assert node.term_events[-1].at_ns == began_ns + 900 * MS


def test_stopping_before_anything_began_is_quiet(rig: Rig) -> None:
    node = rig.node("a")
    node.core.elections.stop()
    assert node.is_quiet()
    node.turn()
    assert not node.requests
