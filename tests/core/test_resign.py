"""Resigning gives the others one TTL to go first; campaigning cuts that short."""

from __future__ import annotations

from multielect.election import DemotionReason

from .rig import Rig

RESIGNED = DemotionReason.RESIGNED


def test_resigning_ends_the_term_at_once_and_releases_the_lease(rig: Rig) -> None:
    node = rig.leader("a")
    rig.advance_ms(10)
    assert node.resign("a")
    assert not node.leads("a")
    rig.settle()

    assert rig.holder_of("a") is None
    assert node.told("a") == [None, RESIGNED]
    assert node.term_events[-1].at_ns == rig.clock.now_ns()


def test_a_node_that_resigned_cools_down_for_one_ttl(rig: Rig) -> None:
    node = rig.leader("a", ttl_ms=1000)
    node.resign("a")
    rig.run_ms(999)
    assert rig.holder_of("a") is None
    rig.run_ms(3)
    assert node.leads("a")


def test_another_node_leads_in_the_same_instant(rig: Rig) -> None:
    node = rig.leader("a", ttl_ms=1000)
    other = rig.node("a", ttl_ms=1000)
    rig.settle()
    rig.run_ms(10)
    node.resign("a")
    rig.settle()
    assert other.leads("a")

    rig.run_ms(5000)
    assert other.leads("a")
    assert not node.leads("a")


def test_campaigning_ends_the_abstention(rig: Rig) -> None:
    node = rig.leader("a", ttl_ms=1000)
    node.resign("a")
    rig.settle()
    node.campaign("a")
    rig.settle()
    assert node.leads("a")


def test_campaigning_before_the_release_was_answered_follows_it(rig: Rig) -> None:
    node = rig.leader("a", ttl_ms=1000)
    node.resign("a")
    node.turn()
    node.campaign("a")
    rig.settle()

    assert node.leads("a")
    assert node.told("a") == [None, RESIGNED, None]


def test_campaigning_elsewhere_does_nothing(rig: Rig) -> None:
    leader = rig.leader("a")
    other = rig.node("a")
    rig.settle()
    rig.server.batches.clear()
    leader.campaign("a")
    other.campaign("a")
    rig.settle()
    assert rig.server.batches == []


def test_there_is_nothing_to_resign_without_a_term(rig: Rig) -> None:
    rig.leader("a")
    other = rig.node("a")
    rig.settle()
    assert not other.resign("a")
    assert other.term_events == []


def test_resigning_after_the_deadline_is_an_end_by_the_deadline(rig: Rig) -> None:
    node = rig.leader("a", ttl_ms=1000, margin_ms=100)
    rig.advance_ms(900)
    assert not node.resign("a")
    node.take()
    assert node.told("a") == [None, DemotionReason.EXPIRED]


def test_resigning_an_earlier_term_does_not_end_the_newer_one(rig: Rig) -> None:
    node = rig.leader("a")
    old = node.candidacy("a").epoch
    node.resign("a")
    rig.settle()
    node.campaign("a")
    rig.settle()

    assert not node.resign("a", epoch=old)
    assert node.leads("a")
    assert node.resign("a", epoch=node.candidacy("a").epoch)
    assert not node.leads("a")


def test_events_are_counted_where_nobody_wants_them_one_by_one(rig: Rig) -> None:
    node = rig.node("a", "b", "c")
    counted: dict[int, int] = {}

    def count() -> None:
        while counts := node.core.reporter.take(with_events=False).counts:
            for reason, number in counts.items():
                counted[reason] = counted.get(reason, 0) + number

    node.take = count  # type: ignore[method-assign]
    rig.settle()
    assert counted == {0: 3}
    for key in ("a", "b"):
        assert node.resign(key)
    rig.settle()
    assert counted == {0: 3, RESIGNED.value: 2}
    assert node.core.reporter.take(with_events=False).counts == {}
