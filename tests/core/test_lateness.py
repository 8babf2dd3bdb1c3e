"""How late refreshes go out, on a fake clock: from when they are due until they are packed."""

from __future__ import annotations

import pytest

from .rig import Node, Rig

MS = 1_000_000
TTL_MS = 9_000
PERIOD_MS = TTL_MS // 3
PERIOD_NS = PERIOD_MS * MS
# Timers ring so long before refreshes are due.
WINDOW_NS = PERIOD_NS >> 7
ONE_BATCH = [f"k{number}" for number in range(250)]


def go_to_the_next(rig: Rig, node: Node) -> None:
    """Go to when the next refreshes are due, and do nothing yet."""
    rig.clock.advance_ns(node.next_turn_ns() + WINDOW_NS - rig.clock.now_ns())


def counted(node: Node) -> int:
    return sum(count for _, count in node.core.lateness_ns)


def test_nothing_is_counted_until_it_is_watched(rig: Rig) -> None:
    node = rig.leader(*ONE_BATCH, ttl_ms=TTL_MS)
    rig.run_ms(2 * PERIOD_MS)

    assert node.counted("refreshes") >= len(ONE_BATCH)
    assert node.core.lateness_ns == []


def test_what_is_in_time_is_not_late(rig: Rig) -> None:
    node = rig.leader(*ONE_BATCH, ttl_ms=TTL_MS)
    node.core.watch_lateness()
    before = node.counted("refreshes")
    rig.run_ms(3 * PERIOD_MS)

    assert node.core.lateness_ns == [(0, node.counted("refreshes") - before)]
    assert counted(node) >= 3 * len(ONE_BATCH)


@pytest.mark.parametrize("late_ms", [0, 1, 7, 250, PERIOD_MS + 5, 2 * PERIOD_MS - 500])
def test_a_turn_that_comes_late_is_counted_in_full(rig: Rig, late_ms: int) -> None:
    node = rig.leader(*ONE_BATCH, ttl_ms=TTL_MS)
    node.core.watch_lateness()
    go_to_the_next(rig, node)
    rig.advance_ms(late_ms)
    node.exchange()

    assert node.core.lateness_ns == [(late_ms * MS, len(ONE_BATCH))]


def test_what_goes_out_before_it_is_due_is_not_late(rig: Rig) -> None:
    node = rig.leader(*ONE_BATCH, ttl_ms=TTL_MS)
    node.core.watch_lateness()
    go_to_the_next(rig, node)
    node.exchange()
    rig.clock.advance_ns(node.next_turn_ns() - rig.clock.now_ns())
    node.exchange()
    assert node.core.lateness_ns == [(0, 2 * len(ONE_BATCH))]


def test_a_refresh_that_waits_for_room_is_late_when_it_goes_out(rig: Rig) -> None:
    keys = [f"k{number}" for number in range(40)]
    # A refresh group each; where all are due together, 32 fill the pipeline.
    node = rig.node(*keys, ttl_ms=TTL_MS, batch_keys=1)
    rig.settle()
    node.core.watch_lateness()
    rig.advance_ms(PERIOD_MS)
    node.turn()
    assert counted(node) == 32
    in_time_ns = node.core.lateness_ns[-1][0]
    rig.advance_ms(50)
    node.serve()
    node.deliver()
    node.turn()

    told = node.core.lateness_ns
    assert counted(node) == 40
    late = [count for late_ns, count in told if late_ns >= 50 * MS]
    assert sum(late) >= 8
    assert told[-1][0] <= in_time_ns + 50 * MS


def test_what_no_timer_asked_for_is_not_counted(rig: Rig) -> None:
    node = rig.leader(*ONE_BATCH, ttl_ms=TTL_MS)
    node.core.watch_lateness()
    rig.advance_ms(500)
    node.core.refresh_all()
    node.exchange()
    assert node.core.lateness_ns == []

    # What was in flight is sent again over a new connection, and no timer asked for that.
    rig.run_ms(2 * PERIOD_MS)
    before = counted(node)
    node.core.refresh_all()
    node.turn()
    node.lose()
    node.connect()
    node.exchange()
    assert counted(node) == before > 0


def test_a_refresh_that_was_never_sent_does_not_make_another_late(rig: Rig) -> None:
    node = rig.leader("k", ttl_ms=TTL_MS)
    node.core.watch_lateness()
    node.lose()
    rig.advance_ms(PERIOD_MS + 2)
    node.turn()
    # It waits to be sent until the term is over; then there is another.
    rig.advance_ms(2 * PERIOD_MS)
    node.turn()
    assert node.told("k")[-1] is not None
    node.connect()
    rig.settle()
    assert node.leads("k")
    node.core.refresh_all()
    node.exchange()
    assert node.core.lateness_ns == []


def test_it_counts_from_nothing_when_asked_again(rig: Rig) -> None:
    node = rig.leader(*ONE_BATCH, ttl_ms=TTL_MS)
    node.core.watch_lateness()
    go_to_the_next(rig, node)
    rig.advance_ms(500)
    node.exchange()
    assert node.core.lateness_ns
    node.core.watch_lateness()
    assert node.core.lateness_ns == []

    go_to_the_next(rig, node)
    rig.clock.advance_ns(1_234_567)
    node.exchange()
    # The worst of before is none of now.
    assert node.core.lateness_ns[-1][0] == 1_234_567


def test_it_is_told_to_a_32nd_and_the_worst_exactly(rig: Rig) -> None:
    node = rig.leader("k", ttl_ms=TTL_MS)
    node.core.watch_lateness()
    exact_ns = [0, 1, 63, 64, 65, 1000, 999_999, 3_141_592, 1_234_567_891]
    for extra_ns in exact_ns:
        go_to_the_next(rig, node)
        rig.clock.advance_ns(extra_ns)
        node.exchange()
    told = [late_ns for late_ns, count in node.core.lateness_ns for _ in range(count)]

    assert len(told) == len(exact_ns)
    for late_ns, exactly_ns in zip(told, exact_ns, strict=True):
        assert exactly_ns <= late_ns <= exactly_ns * 33 / 32
    assert told[-1] == exact_ns[-1]
