"""Nothing is done early, nothing more than a tick of the wheel late, and nothing by looking at all.

The wheel turns by 2^20 ns. Whoever turns when `next_turn_ns` says is on time for everything.
"""

from __future__ import annotations

import time

from hypothesis import given, settings
from hypothesis import strategies as st

from multielect.election import DemotionReason

from .rig import MS, WHEEL_TICK_NS, Node, Rig

DAY_MS = 86_400_000
YEAR_NS = 365 * DAY_MS * MS
JITTER_NS = 10 * MS

spans_ms = st.one_of(
    st.integers(1, 4),
    st.integers(1, 300),
    st.integers(200, 70_000),
    st.integers(65_000, 2 * 3_600_000),
    st.integers(1, DAY_MS),
)
jumps_ns = st.one_of(
    st.integers(0, 3 * WHEEL_TICK_NS),
    st.integers(0, 600 * WHEEL_TICK_NS),
    st.integers(0, 70_000 * WHEEL_TICK_NS),
    st.integers(0, 3 * DAY_MS * MS),
    st.integers(0, 3 * YEAR_NS),
)


class Waits:
    """One node, and when each of its elections is due, as a list kept by hand."""

    def __init__(self, remaining_ms: list[int]) -> None:
        self.rig = Rig()
        self.node = self.rig.node(
            # Nobody waits for longer than a TTL of their own.
            *(f"k{n}" for n in range(len(remaining_ms))),
            ttl_ms=DAY_MS,
            margin_ms=0,
        )
        self.due_ns: dict[bytes, int] = {}
        self.node.turn()
        self.answer(remaining_ms)
        assert len(self.due_ns) == len(remaining_ms)

    def answer(self, remaining_ms: list[int]) -> None:
        """Answer what is asked: another leads, for so long, one after the other."""
        now_ns = self.rig.clock.now_ns()
        for number, key in enumerate(asked(self.node)):
            span_ms = remaining_ms[number % len(remaining_ms)]
            self.rig.server.put(key, b"other/1", span_ms)
            self.due_ns[key] = now_ns + (span_ms + 1) * MS
        self.node.serve()
        self.node.deliver()

    def turn(self) -> None:
        """Tick, and see that just what is due is asked for."""
        now_ns = self.rig.clock.now_ns()
        self.node.turn()
        for key in asked(self.node):
            assert self.due_ns.pop(key) <= now_ns, "early"
        for due_ns in self.due_ns.values():
            assert now_ns < due_ns + JITTER_NS + WHEEL_TICK_NS, "late"

    def check_next_turn(self) -> None:
        now_ns, next_ns = self.rig.clock.now_ns(), self.node.next_turn_ns()
        assert next_ns > now_ns, "there is nothing to do now"
        assert next_ns < min(self.due_ns.values()) + JITTER_NS + WHEEL_TICK_NS


def asked(node: Node) -> list[bytes]:
    return [key for words in node.requests for key in words[3 : 3 + int(words[2]) : 2]]


@settings(max_examples=150)
@given(
    remaining_ms=st.lists(spans_ms, min_size=1, max_size=30),
    later_ms=st.lists(spans_ms, min_size=1, max_size=30),
    jumps=st.lists(jumps_ns, max_size=20),
)
def test_whatever_the_clock_does_nothing_is_early_or_late(
    remaining_ms: list[int], later_ms: list[int], jumps: list[int]
) -> None:
    waits = Waits(remaining_ms)
    for jump_ns in jumps:
        waits.check_next_turn()
        waits.rig.clock.advance_ns(jump_ns)
        waits.turn()
        waits.answer(later_ms)


@settings(max_examples=150)
@given(
    remaining_ms=st.lists(spans_ms, min_size=1, max_size=30),
    start_ns=st.integers(0, 2**40),
)
def test_turns_at_the_announced_times_are_on_time_and_few(
    remaining_ms: list[int], start_ns: int
) -> None:
    waits = Waits(remaining_ms)
    waits.rig.clock.advance_ns(start_ns)
    waits.turn()
    waits.answer(remaining_ms)
    due_ns = dict(waits.due_ns)
    turns = 0
    while waits.due_ns:
        waits.check_next_turn()
        waits.rig.clock.advance_ns(waits.node.next_turn_ns() - waits.rig.clock.now_ns())
        waits.turn()
        turns += 1
        waits.node.requests.clear()
        assert turns <= 4 * len(due_ns), "a timer moves down the wheel three times at most"


ttls_ms = st.one_of(st.integers(100, 5000), st.integers(100, 7 * DAY_MS))
pauses_in_ttls = st.lists(st.floats(0, 0.1), min_size=1, max_size=6)


def elected_one_by_one(ttl_ms: int, pauses: list[float]) -> tuple[Rig, Node, list[str]]:
    """Return a node that was elected with these pauses, parts of a TTL, in between."""
    rig = Rig()
    node = rig.node(ttl_ms=ttl_ms, margin_ms=ttl_ms // 10)
    keys = [f"k{number}" for number in range(len(pauses))]
    for key, pause in zip(keys, pauses, strict=True):
        rig.advance_ms(int(pause * ttl_ms))
        node.add(key)
        node.exchange()
    assert all(map(node.leads, keys))
    return rig, node, keys


def hop(node: Node) -> int:
    """Move the clock to when the node asked for a turn, and turn. Returns what it shows."""
    now_ns, next_ns = node.clock.now_ns(), node.next_turn_ns()
    node.clock.advance_ns(max(1, next_ns - now_ns))
    node.turn()
    return node.clock.now_ns()


@settings(max_examples=100)
@given(ttl_ms=ttls_ms, pauses=pauses_in_ttls)
def test_deadlines_of_any_ttl_are_told_in_time(ttl_ms: int, pauses: list[float]) -> None:
    rig, node, keys = elected_one_by_one(ttl_ms, pauses)
    now_ns = rig.clock.now_ns()
    ends_ns = {key: now_ns + round(node.candidacy(key).remaining * 1e9) for key in keys}
    node.lose()
    for _ in range(10 * len(keys)):
        told = len(node.term_events)
        now_ns = hop(node)
        for term_event in node.term_events[told:]:
            assert term_event.reason is DemotionReason.EXPIRED
            # `remaining` is a float: seven days in nanoseconds do not fit one exactly.
            assert abs(term_event.at_ns - ends_ns.pop(term_event.key)) < 1000
            assert term_event.at_ns <= now_ns < term_event.at_ns + WHEEL_TICK_NS
        if not ends_ns:
            return
    raise AssertionError("a deadline was missed")


@settings(max_examples=100)
@given(ttl_ms=ttls_ms, pauses=pauses_in_ttls)
def test_abstentions_of_any_ttl_end_in_time(ttl_ms: int, pauses: list[float]) -> None:
    rig, node, keys = elected_one_by_one(ttl_ms, pauses)
    again_ns = {}
    for key, pause in zip(keys, pauses, strict=True):
        rig.advance_ms(int(pause * ttl_ms / 10))
        assert node.resign(key)
        again_ns[rig.leader_key(key)] = rig.clock.now_ns() + ttl_ms * MS
    # The last releases are answered when the first abstention is almost over.
    node.exchange()
    for _ in range(20 * len(keys)):
        now_ns = hop(node)
        for leader_key in asked(node):
            due_ns = again_ns.pop(leader_key)
            assert due_ns <= now_ns < due_ns + WHEEL_TICK_NS
        node.requests.clear()
        if not again_ns:
            return
    raise AssertionError("an abstention did not end")


def far_ahead(count: int) -> tuple[Rig, Node]:
    """Return a node that waits for so many elections, none of them due for a long time."""
    rig = Rig()
    node = rig.node(ttl_ms=DAY_MS, margin_ms=0)
    for number in range(count):
        node.core.elections.add(b"k%d" % number, number % 16)
    answer = b"*127\r\n:1\r\n*1\r\n$3\r\nx/1\r\n" + b":-%d\r\n" % (DAY_MS * 256 + 1) * 125
    while node.core.elections.counters["checks"] < count:
        node.driver.turn(rig.clock.now_ns())
        node.take_outgoing()
        while node.owed_since_ns() is not None:
            node.driver.receive(answer, rig.clock.now_ns())
    return rig, node


def test_a_hundred_thousand_that_are_not_due_cost_a_turn_nothing() -> None:
    rig, node = far_ahead(100_000)
    before = node.core.elections.counters
    until_ns = rig.clock.now_ns() + DAY_MS * MS
    turns = 0
    while node.next_turn_ns() < until_ns:
        rig.clock.advance_ns(max(1, node.next_turn_ns() - rig.clock.now_ns()))
        node.driver.turn(rig.clock.now_ns())
        turns += 1
        if rig.clock.now_ns() < until_ns:
            assert node.driver.outgoing_bytes == 0
    assert node.core.elections.counters == before
    assert turns < 10
    assert until_ns <= node.next_turn_ns() <= until_ns + 12 * MS


def test_a_turn_costs_the_same_for_a_hundred_and_for_a_hundred_thousand() -> None:
    # A pass over all elections would cost a thousand times as much.
    spent = []
    for count in (125, 125_000):
        rig, node = far_ahead(count)
        turn, next_turn_ns = node.driver.turn, node.driver.next_turn_ns
        best = float("inf")
        for _ in range(5):
            began = time.process_time()
            for _ in range(2000):
                now_ns = rig.clock.advance_ns(2 * MS)
                turn(now_ns)
                next_turn_ns(now_ns)
            best = min(best, time.process_time() - began)
        spent.append(best)
        assert node.driver.outgoing_bytes == 0
    assert spent[1] < 30 * spent[0]


def test_a_clock_that_jumps_by_years_costs_a_turn_nothing() -> None:
    # Bucket by bucket a century would be ten thousand million steps, a minute and more.
    rig, node = far_ahead(1000)
    node.core.elections.add(b"nearer", 1)
    node.turn()
    began = time.process_time()
    rig.clock.advance_ns(100 * YEAR_NS)
    node.driver.turn(rig.clock.now_ns())
    assert time.process_time() - began < 1.0
    assert node.core.elections.counters["checks"] == 2001
    node.take_outgoing()
    began = time.process_time()
    rig.clock.advance_ns(100 * YEAR_NS)
    node.driver.turn(rig.clock.now_ns())
    assert time.process_time() - began < 1.0, "also with next to no timers"
