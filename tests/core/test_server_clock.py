"""Leases end by the server's wall clock, so a jump of it is noticed, told, and acted upon.

Rules of this file:
    * A jump cannot be noticed before the next answer. What follows from it then is at once.
"""

from __future__ import annotations

import pytest

from multielect.election import DemotionReason

from .rig import DUE_MS, MS, Node, Rig

TTL_MS = 1000
MARGIN_MS = 100
HALF_MARGIN_MS = MARGIN_MS // 2
EXPIRED, LOST = DemotionReason.EXPIRED, DemotionReason.LOST


def jumps(node: Node) -> list[tuple[int, int]]:
    """Return the jumps told since: by how many ms, and how many terms were given up."""
    report = node.take_report()
    assert report.errors == []
    return [(int(jump.jump_ns / MS), jump.ended) for jump in report.clock_jumps]


def two_phases(rig: Rig) -> Node:
    """Return a node that leads 'early' and 'late', which are refreshed in turns."""
    node = rig.node("early", ttl_ms=TTL_MS, margin_ms=MARGIN_MS)
    node.exchange()
    rig.advance_ms(150)
    node.add("late")
    node.exchange()
    assert node.leads("early")
    assert node.leads("late")
    assert jumps(node) == []
    return node


def exchange_for(node: Node, key: str) -> None:
    """Have one answer come from the server without a refresh of the others."""
    node.add(key)
    node.exchange()


def test_a_jump_beyond_the_lease_ends_the_terms_it_endangers(rig: Rig) -> None:
    node = two_phases(rig)
    rig.server.store.step_clock(15_000 * MS)
    exchange_for(node, "new")

    assert not node.leads("early")
    assert not node.leads("late")
    assert node.leads("new"), "it was taken after the jump"
    ((jump_ms, terms),) = jumps(node)
    assert 15_000 <= jump_ms <= 15_000 + 5
    assert terms == 2
    assert node.told("early") == node.told("late") == [None, EXPIRED]


def test_the_end_is_told_as_of_when_it_was_believed_until(rig: Rig) -> None:
    node = two_phases(rig)
    rig.server.store.step_clock(15_000 * MS)
    exchange_for(node, "new")
    now_ns = rig.clock.now_ns()
    ended = [each for each in node.term_events if each.reason is EXPIRED]
    assert [each.at_ns for each in ended] == [now_ns, now_ns]


def test_nothing_is_led_twice_after_the_jump_was_noticed(rig: Rig) -> None:
    node = two_phases(rig)
    rig.server.store.step_clock(15_000 * MS)
    exchange_for(node, "new")
    other = rig.node("early", "late", ttl_ms=TTL_MS, margin_ms=MARGIN_MS)
    other.exchange()
    for key in ("early", "late"):
        assert other.leads(key)
        assert not node.leads(key)


def test_terms_that_outlast_the_jump_are_shortened_by_it_and_refreshed_at_once(rig: Rig) -> None:
    node = two_phases(rig)
    left_ms = {key: node.candidacy(key).remaining * 1000 for key in ("early", "late")}
    jump_ms = 300
    rig.server.store.step_clock(jump_ms * MS)
    exchange_for(node, "new")

    for key, before_ms in left_ms.items():
        lease_left_ms = rig.server.remaining_ms(rig.leader_key(key))
        believed_ms = node.candidacy(key).remaining * 1000
        assert before_ms - jump_ms - 5 <= believed_ms <= before_ms - jump_ms
        assert believed_ms + MARGIN_MS <= lease_left_ms + 1
    node.exchange()
    assert node.candidacy("early").remaining == pytest.approx((TTL_MS - MARGIN_MS) / 1000)
    assert [terms for _, terms in jumps(node)] == [0]
    assert node.told("early") == node.told("late") == [None]


def test_a_jump_back_is_told_and_ends_nothing(rig: Rig) -> None:
    node = two_phases(rig)
    rig.server.store.step_clock(-5_000 * MS)
    exchange_for(node, "new")
    ((jump_ms, terms),) = jumps(node)
    assert -5_000 <= jump_ms <= -5_000 + 5
    assert terms == 0
    assert node.leads("early")
    assert node.leads("late")


def test_within_half_the_margin_there_is_no_jump(rig: Rig) -> None:
    node = two_phases(rig)
    rig.server.store.step_clock((HALF_MARGIN_MS - 1) * MS)
    exchange_for(node, "new")
    rig.advance_ms(10)
    rig.server.store.step_clock(-(HALF_MARGIN_MS - 1) * MS)
    exchange_for(node, "newer")
    assert jumps(node) == []
    assert node.counted("demoted") == 0


def test_just_beyond_half_the_margin_there_is(rig: Rig) -> None:
    node = two_phases(rig)
    rig.server.store.step_clock((HALF_MARGIN_MS + 3) * MS)
    exchange_for(node, "new")
    assert len(jumps(node)) == 1


def test_an_answer_that_is_late_is_no_jump(rig: Rig) -> None:
    node = two_phases(rig)
    node.add("slow")
    node.turn()
    rig.advance_ms(200)
    node.serve()
    rig.advance_ms(150)
    node.deliver()
    rig.run_ms(2 * TTL_MS)
    assert jumps(node) == []
    assert node.leads("slow")


def test_a_jump_behind_a_late_answer_is_noticed_all_the_same(rig: Rig) -> None:
    node = two_phases(rig)
    rig.server.store.step_clock(15_000 * MS)
    node.add("slow")
    node.turn()
    rig.advance_ms(100)
    node.serve()
    rig.advance_ms(100)
    node.deliver()
    ((jump_ms, terms),) = jumps(node)
    assert jump_ms >= 15_000
    assert terms == 2


def test_clocks_that_drift_do_not_jump(rig: Rig) -> None:
    node = rig.leader("a", ttl_ms=TTL_MS, margin_ms=MARGIN_MS)
    for step in range(1000):
        rig.run_ms(100)
        if step % 10 == 0:
            rig.server.store.step_clock(1 * MS)
    assert jumps(node) == []
    assert node.told("a") == [None]


def test_it_is_the_same_clock_behind_another_connection(rig: Rig) -> None:
    node = two_phases(rig)
    node.lose()
    rig.server.store.step_clock(15_000 * MS)
    node.connect()
    node.exchange()
    assert [terms for _, terms in jumps(node)] == [2]


def test_the_leases_of_others_are_not_waited_for_as_long(rig: Rig) -> None:
    gone = rig.leader("a", ttl_ms=TTL_MS, margin_ms=MARGIN_MS)
    node = rig.node("a", "b", ttl_ms=TTL_MS, margin_ms=MARGIN_MS)
    node.exchange()
    gone.lose()
    rig.nodes.remove(gone)
    rig.server.store.step_clock(15_000 * MS)
    exchange_for(node, "new")
    node.exchange()
    assert node.leads("a")


def test_once_told_it_is_told_no_more(rig: Rig) -> None:
    node = two_phases(rig)
    rig.server.store.step_clock(15_000 * MS)
    exchange_for(node, "new")
    assert len(jumps(node)) == 1
    rig.run_ms(5 * TTL_MS)
    assert jumps(node) == []
    assert node.leads("early")


def test_a_term_the_refresh_of_which_is_on_its_way_is_shortened_too(rig: Rig) -> None:
    node = rig.leader("a", ttl_ms=TTL_MS, margin_ms=MARGIN_MS)
    rig.advance_ms(DUE_MS)
    node.turn()
    rig.server.store.step_clock(15_000 * MS)
    node.serve()
    node.deliver()
    assert node.told("a")[:2] == [None, EXPIRED]
    assert not node.leads("a")


@pytest.mark.parametrize("time_ms", [-1, 9_000_000_000_001, 2**53 - 1], ids=str)
def test_a_time_that_is_none_is_malformed(rig: Rig, time_ms: int) -> None:
    node = rig.node("a")
    node.turn()
    with pytest.raises(Exception, match="the server's time is out of range"):
        node.driver.receive(b"*3\r\n:%d\r\n*0\r\n:1\r\n" % time_ms, rig.clock.now_ns())


def test_the_latest_time_there_is_does_no_harm(rig: Rig) -> None:
    node = two_phases(rig)
    node.add("new")
    node.turn()
    node.driver.receive(b"*3\r\n:9000000000000\r\n*0\r\n:9000000000000\r\n", rig.clock.now_ns())
    node.take()
    assert [terms for _, terms in jumps(node)] == [2]
    assert rig.clock.now_ns() < 10_000 * MS
