"""Refreshes fill scripts where there are leases for it, share wake-ups, and are never late.

Time moves by the fake clock alone. Where it matters how long the server takes, a test says so.
"""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multielect._protocol.keys import KeyLayout, group_layout

from .rig import LAYOUT, MS, Node, Rig

TTL_MS = 9_000
PERIOD_NS = TTL_MS * MS // 3
WINDOW_NS = PERIOD_NS >> 7
CYCLE_NS = PERIOD_NS - WINDOW_NS
MAX_STEPS = 10_000


class Sent(dict[bytes, int]):
    """When each lease was refreshed last, and how many each refresh of a script was about."""

    def __init__(self, rig: Rig) -> None:
        super().__init__()
        self.rig = rig
        self.scripts: list[tuple[int, int]] = []
        self.max_latency_ns = 0
        self.look()
        self.scripts.clear()

    def look(self) -> None:
        """Take note of what was sent at this instant."""
        now_ns = self.rig.clock.now_ns()
        for batch in self.rig.server.batches:
            if batch.request == "refresh":
                self.scripts.append((now_ns, batch.elections))
                for key in batch.keys:
                    self.max_latency_ns = max(self.max_latency_ns, now_ns - self.get(key, now_ns))
            if batch.request in {"acquire", "refresh"}:
                self.update(dict.fromkeys(batch.keys, now_ns))
        self.rig.server.batches.clear()

    def run(self, span_ns: int) -> None:
        """Play so much time, and look each time that something happens."""
        until_ns = self.rig.clock.now_ns() + span_ns
        for _ in range(MAX_STEPS):
            self.rig.settle()
            self.look()
            now_ns = self.rig.clock.now_ns()
            if now_ns >= until_ns:
                return
            next_ns = min(node.next_turn_ns() for node in self.rig.nodes)
            self.rig.clock.advance_ns(min(max(next_ns, now_ns + 1), until_ns) - now_ns)
        raise AssertionError("there is no end to what is to be done")

    def instants(self) -> list[int]:
        """Return when something was refreshed."""
        return sorted({at_ns for at_ns, _ in self.scripts})


def names(count: int) -> list[str]:
    return [f"k{number}" for number in range(count)]


def lead(
    rig: Rig, count: int, of: int = 0, batch_keys: int = 250, layout: KeyLayout = LAYOUT
) -> tuple[Node, Sent]:
    """Return a node that leads so many elections, evenly spread among so many, for a while now."""
    keys = names(max(count, of))
    for number, key in enumerate(keys):
        if number * count // len(keys) == (number + 1) * count // len(keys):
            rig.server.put(rig.leader_key(key), b"other/1", 86_400_000)
    node = rig.node(*keys, ttl_ms=TTL_MS, margin_ms=900, batch_keys=batch_keys, layout=layout)
    rig.settle()
    assert node.core.elections.leading == count
    sent = Sent(rig)
    sent.run(2 * PERIOD_NS)
    sent.scripts.clear()
    return node, sent


@pytest.mark.parametrize(
    ("leases", "of"),
    [(250, 250), (1000, 1000), (64, 4000), (250, 2000), (1000, 4000), (3000, 12_000)],
)
def test_scripts_are_full_where_there_are_leases_for_it(rig: Rig, leases: int, of: int) -> None:
    _, sent = lead(rig, leases, of)
    sent.run(CYCLE_NS)
    counts = [count for _, count in sent.scripts]
    assert sum(counts) == leases
    phases = len(sent.instants())
    # One for each phase is what is left over.
    assert sum(count < 250 for count in counts) <= phases
    assert len(counts) <= leases // 250 + phases
    assert phases == (2 if leases >= 2000 else 1)


@pytest.mark.parametrize("leases", [4000, 10_000, 20_000])
def test_many_leases_are_spread_evenly_in_trains_of_few_scripts(rig: Rig, leases: int) -> None:
    _, sent = lead(rig, leases)
    sent.run(CYCLE_NS)
    trains = Counter(at_ns for at_ns, _ in sent.scripts)
    counts = [count for _, count in sent.scripts]
    assert sum(counts) == leases
    assert sum(count < 250 for count in counts) <= len(trains), "what is left over in each"
    assert len(trains) in {4, 8, 16}
    assert all(4 <= scripts <= 9 for scripts in trains.values())
    gaps = [after - before for before, after in itertools.pairwise(sorted(trains))]
    assert max(gaps) - min(gaps) < MS
    assert max(gaps) < CYCLE_NS // len(trains) + MS


def test_leases_that_were_acquired_together_are_not_refreshed_together(rig: Rig) -> None:
    node = rig.node(*names(20_000), ttl_ms=TTL_MS, margin_ms=900)
    rig.settle()
    assert node.core.elections.leading == 20_000
    sent = Sent(rig)
    sent.run(PERIOD_NS)
    at_once: Counter[int] = Counter()
    for at_ns, count in sent.scripts:
        at_once[at_ns] += count
    assert len(at_once) == 16
    assert max(at_once.values()) < 20_000 * 0.3
    assert sent.max_latency_ns <= PERIOD_NS


def test_there_are_no_more_than_512_phases(rig: Rig) -> None:
    # So that each phase has a dozen buckets, and none is empty.
    layout = group_layout("rig", 8 * 1024)
    _, sent = lead(rig, 16 * 1024, batch_keys=1, layout=layout)
    sent.run(CYCLE_NS)
    assert len(sent.instants()) == 512


def test_there_are_no_more_phases_than_buckets(rig: Rig) -> None:
    _, sent = lead(rig, 4 * 512 + 600, batch_keys=1)
    sent.run(CYCLE_NS)
    assert len(sent.instants()) == 16


def test_leases_that_come_one_by_one_share_scripts(rig: Rig) -> None:
    node = rig.node(ttl_ms=TTL_MS, margin_ms=900)
    sent = Sent(rig)
    for key in names(60):
        node.add(key)
        sent.run(40 * MS)
    sent.run(PERIOD_NS)
    sent.scripts.clear()
    sent.run(10 * CYCLE_NS)
    assert [count for _, count in sent.scripts] == [60] * 10
    assert sent.max_latency_ns <= PERIOD_NS


def test_phases_follow_the_number_of_leases_and_no_refresh_is_late(rig: Rig) -> None:
    # 4 batches of 2 leases fill a phase.
    keys = names(128)
    node = rig.node(ttl_ms=TTL_MS, margin_ms=900, batch_keys=2)
    sent = Sent(rig)
    phases = []
    for led in (7, 15, 16, 64, 128):
        node.add(*keys[len(node.core.elections.list_keys()) : led])
        sent.run(2 * PERIOD_NS)
        sent.scripts.clear()
        sent.run(CYCLE_NS)
        phases.append(len(sent.instants()))
    for led in (96, 95, 50, 6):
        for key in keys[led : len(node.core.elections.list_keys())]:
            node.remove(key)
        sent.run(2 * PERIOD_NS)
        sent.scripts.clear()
        sent.run(CYCLE_NS)
        phases.append(len(sent.instants()))
        assert node.core.elections.leading == led
    assert phases == [1, 1, 2, 8, 16, 16, 8, 8, 1]
    assert sent.max_latency_ns <= PERIOD_NS


def test_a_lease_that_comes_and_goes_moves_no_others(rig: Rig) -> None:
    node, sent = lead(rig, 16, batch_keys=2)
    before = node.counted("refreshes")
    for _ in range(20):
        node.remove("k15")
        sent.run(CYCLE_NS // 2)
        node.add("k15")
        sent.run(CYCLE_NS // 2)
    # The others share refresh groups with it, so that it may bring one of them forward.
    assert node.counted("refreshes") - before <= 20 * 17 + 2


def test_a_move_brings_a_refresh_forward_and_is_no_refresh_of_its_own(rig: Rig) -> None:
    node, sent = lead(rig, 15, batch_keys=2)
    before = node.counted("refreshes")
    node.add("one more")
    sent.run(0)
    assert node.core.elections.leading == 16
    assert node.counted("refreshes") == before, "nobody moves before it is refreshed"
    sent.run(2 * CYCLE_NS)
    # Half of them move, by half a cycle, once.
    assert node.counted("refreshes") - before <= 2 * 16 + 16 // 2 + 2


# ---- one batch after another


def to_the_next_turn(rig: Rig, node: Node) -> int:
    """Go to when the next timers ring, and turn. Returns when what they ask for is due."""
    rig.clock.advance_ns(node.next_turn_ns() - rig.clock.now_ns())
    node.turn()
    return rig.clock.now_ns() + WINDOW_NS


def test_refreshes_that_are_not_due_yet_go_one_batch_at_a_time(rig: Rig) -> None:
    node, _ = lead(rig, 7, batch_keys=1)
    due_ns = to_the_next_turn(rig, node)
    for _ in range(7):
        assert len(node.requests) == 1
        assert node.next_turn_ns() >= due_ns, "nothing is to be done before it is answered"
        rig.advance_ms(1)
        node.serve()
        node.deliver()
        node.turn()
    assert rig.clock.now_ns() < due_ns
    assert not node.requests
    assert node.next_turn_ns() > due_ns


def test_what_is_due_goes_out_though_nothing_was_answered(rig: Rig) -> None:
    node, _ = lead(rig, 7, batch_keys=1)
    due_ns = to_the_next_turn(rig, node)
    assert node.next_turn_ns() == due_ns
    rig.clock.advance_ns(due_ns - 1 - rig.clock.now_ns())
    node.turn()
    assert len(node.requests) == 1
    rig.clock.advance_ns(1)
    node.turn()
    assert len(node.requests) == 7


def test_a_connection_that_is_made_refreshes_all_at_once(rig: Rig) -> None:
    node, _ = lead(rig, 7, batch_keys=1)
    to_the_next_turn(rig, node)
    node.lose()
    node.connect()
    node.turn()
    assert len(node.requests) == 7


def test_what_is_out_of_turn_waits_for_none_that_is_early(rig: Rig) -> None:
    node, _ = lead(rig, 7, batch_keys=1)
    to_the_next_turn(rig, node)
    assert len(node.requests) == 1
    node.core.refresh_all()
    node.turn()
    assert len(node.requests) == 7


def test_early_refreshes_hold_up_no_acquire(rig: Rig) -> None:
    node, _ = lead(rig, 7, batch_keys=1)
    to_the_next_turn(rig, node)
    node.add("another")
    assert node.next_turn_ns() <= rig.clock.now_ns()
    node.turn()
    assert len(node.requests) == 2


@settings(max_examples=30)
@given(
    served_us=st.lists(st.integers(0, 40_000), min_size=1, max_size=5),
    leases=st.integers(1, 40),
)
def test_however_slow_the_server_two_refreshes_are_no_further_apart_than_a_period(
    served_us: list[int], leases: int
) -> None:
    rig = Rig()
    node, sent = lead(rig, leases, batch_keys=2)
    until_ns = rig.clock.now_ns() + 4 * PERIOD_NS
    served = itertools.cycle(served_us)
    answer_ns = None
    max_at_once = 0
    for _ in range(MAX_STEPS):
        now_ns = rig.clock.now_ns()
        if now_ns >= until_ns:
            break
        before = len(node.requests)
        node.turn()
        max_at_once = max(max_at_once, len(node.requests) - before)
        for words in list(node.requests)[before:]:
            for key in words[3 : 3 + int(words[2])]:
                assert now_ns - sent[key] <= PERIOD_NS
                sent[key] = now_ns
        if node.requests and answer_ns is None:
            answer_ns = now_ns + next(served) * 1000
        if answer_ns is not None and now_ns >= answer_ns:
            node.serve(most=1)
            node.deliver()
            answer_ns = now_ns + next(served) * 1000 if node.requests else None
            continue
        next_ns = node.next_turn_ns() if answer_ns is None else min(node.next_turn_ns(), answer_ns)
        rig.clock.advance_ns(max(next_ns - now_ns, 1))
    assert rig.clock.now_ns() >= until_ns, "there is no end to what is to be done"
    assert node.core.elections.leading == leases
    if max(served_us) < 500:
        assert max_at_once == 1


# ---- nodes do not act in lockstep


def test_nodes_refresh_at_times_of_their_own(rig: Rig) -> None:
    moments = []
    for seed in (3, 1 << 40, 12345678901234567, (1 << 64) - 1):
        node = Node(rig.server, holder=f"n{seed}/1", ttl_ms=TTL_MS, margin_ms=900, seed=seed)
        node.add(f"only of {seed}")
        node.core.elections.start()
        node.connect()
        node.exchange()
        moments.append(node.next_turn_ns() - rig.clock.now_ns())
    assert all(0 < moment <= CYCLE_NS for moment in moments)
    nearest = min(after - before for before, after in itertools.pairwise(sorted(moments)))
    assert nearest > WINDOW_NS
