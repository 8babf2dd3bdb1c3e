"""Who does not lead comes back when the lease would end, not at every third of a TTL."""

from __future__ import annotations

import pytest

from .rig import MS, WHEEL_TICK_NS, Rig

JITTER_NS = 10 * MS


def test_a_candidate_comes_back_when_the_lease_would_end(rig: Rig) -> None:
    leader = rig.leader("a", ttl_ms=3000)
    rig.advance_ms(700)
    node = rig.node("a", ttl_ms=3000)
    node.exchange()
    leader.lose()
    ends_ns = rig.clock.now_ns() + 2300 * MS
    assert rig.server.remaining_ms(rig.leader_key("a")) == 2300

    rig.clock.advance_ns(ends_ns - rig.clock.now_ns())
    node.turn()
    assert not node.requests, "the lease has a millisecond for rounding"
    rig.clock.advance_ns(JITTER_NS + MS + WHEEL_TICK_NS)
    node.exchange()
    assert node.leads("a")
    assert node.counted("checks") == 2


def test_a_crash_is_noticed_when_the_lease_ends(rig: Rig) -> None:
    keys = [f"k{n}" for n in range(500)]
    leader = rig.node(*keys, ttl_ms=3000)
    rig.settle()
    node = rig.node(*keys, ttl_ms=3000)
    rig.run_ms(10_000)
    rig.nodes.remove(leader)  # It does nothing any more.
    ends_ms = max(rig.server.remaining_ms(rig.leader_key(key)) for key in keys)
    rig.run_ms(ends_ms + (JITTER_NS + MS + WHEEL_TICK_NS) / MS)
    assert sum(map(node.leads, keys)) == len(keys)


def test_the_wait_is_jittered_within_its_bounds(rig: Rig) -> None:
    rig.leader("a", ttl_ms=10_000)
    waits = set()
    for _ in range(40):
        node = rig.node("a", ttl_ms=10_000)
        node.exchange()
        at_ns = rig.clock.now_ns()
        remaining_ns = rig.server.remaining_ms(rig.leader_key("a")) * MS
        while not node.requests:
            at_ns = max(node.next_turn_ns(), at_ns + 1)
            node.driver.turn(at_ns)
            node.requests.extend([[]] if node.driver.outgoing_bytes else [])
        waits.add(at_ns - rig.clock.now_ns() - remaining_ns)
    assert min(waits) >= MS
    assert max(waits) <= MS + JITTER_NS + WHEEL_TICK_NS
    assert max(waits) - min(waits) > JITTER_NS // 2
    assert len(waits) > 4


def test_standing_by_costs_fewer_than_one_and_a_half_checks_a_ttl(rig: Rig) -> None:
    # Small batches spread the leader's refreshes over all phases of a third of the TTL.
    keys = [f"k{n}" for n in range(100)]
    ttl_ms, ttls = 1000, 100
    leader = rig.node(*keys, ttl_ms=ttl_ms, batch_keys=10)
    rig.settle()
    node = rig.node(*keys, ttl_ms=ttl_ms, batch_keys=10)
    rig.settle()
    before = node.counted("checks")
    rig.run_ms(ttls * ttl_ms)

    checks = (node.counted("checks") - before) / len(keys) / ttls
    assert 0.9 < checks < 1.5
    assert leader.counted("demoted") == 0


def test_a_lease_that_seems_to_last_for_long_is_asked_for_once_a_ttl(rig: Rig) -> None:
    # The server's clock was set back by an hour, and the next refresh puts the lease right.
    rig.server.put(rig.leader_key("a"), b"other/1", 3_600_000)
    node = rig.node("a", ttl_ms=1000)
    rig.settle()
    rig.server.put(rig.leader_key("a"), b"other/1", 1000)
    rig.run_ms(1000 + 2 * (JITTER_NS + MS + WHEEL_TICK_NS) / MS)
    assert node.leads("a")
    assert node.counted("checks") <= 3


def test_a_bare_node_id_is_asked_for_every_third_of_a_ttl(rig: Rig) -> None:
    rig.server.put(rig.leader_key("a"), b"written-in-go", 30_000)
    node = rig.node("a", ttl_ms=3000)
    rig.settle()
    before = node.counted("checks")
    rig.run_ms(9 * 1000 + 20)
    assert node.counted("checks") - before == 9

    rig.server.delete(rig.leader_key("a"))
    rig.run_ms(1002)
    assert node.leads("a")


def test_a_bare_node_id_near_its_end_is_asked_for_then(rig: Rig) -> None:
    rig.server.put(rig.leader_key("a"), b"written-in-go", 50)
    node = rig.node("a", ttl_ms=3000)
    rig.settle()
    rig.run_ms(50 + (JITTER_NS + MS + WHEEL_TICK_NS) / MS)
    assert node.leads("a")


def test_a_lease_without_an_end_is_asked_for_once_a_ttl(rig: Rig) -> None:
    rig.server.put(rig.leader_key("a"), b"forever/1")
    node = rig.node("a", ttl_ms=1000)
    rig.settle()
    rig.run_ms(10_000)
    assert 10 <= node.counted("checks") <= 11


@pytest.mark.parametrize("holder", [b"other/1", b"other", b"", b"\xff\x00\r\n", b"x" * 1000])
def test_the_leader_is_known_by_its_holder(rig: Rig, holder: bytes) -> None:
    node = rig.node("a", "b")
    rig.server.put(rig.leader_key("a"), holder, 1000)
    assert node.seen_leader("a") is None
    rig.settle()
    assert node.seen_leader("a") == holder
    assert node.seen_leader("b") is None


def test_what_is_known_of_the_leader_follows_the_server(rig: Rig) -> None:
    node = rig.node("a", ttl_ms=1000)
    for holder in (b"first/1", b"second/1"):
        rig.server.put(rig.leader_key("a"), holder, 100)
        rig.settle()
        rig.run_ms(50)
        assert node.seen_leader("a") == holder
        rig.server.put(rig.leader_key("a"), b"second/1", 100)
        rig.run_ms(65)
    rig.run_ms(100)
    assert node.leads("a")
    assert node.seen_leader("a") is None


def test_a_holders_list_of_any_length_is_understood(rig: Rig) -> None:
    keys = [f"k{n}" for n in range(250)]
    for n, key in enumerate(keys):
        rig.server.put(rig.leader_key(key), b"holder-%d/1" % n, 1000)
    node = rig.node(*keys)
    rig.settle()
    assert [node.seen_leader(key) for key in keys] == [b"holder-%d/1" % n for n in range(250)]
