"""A node leads no more elections than it may, at no moment, and all that it may."""

from __future__ import annotations

from .rig import Rig

KEYS = [f"k{n}" for n in range(10)]


def test_no_more_are_asked_for_than_may_be_led(rig: Rig) -> None:
    node = rig.node(*KEYS, max_leases=3)
    node.turn()
    assert [(len(words) - 6) // 2 for words in node.requests] == [3], "in flight they count"
    rig.settle()
    assert node.core.elections.leading == 3
    rig.run_ms(20_000)
    assert node.core.elections.leading == 3
    assert node.counted("checks") == 3


def test_it_is_idle_while_it_may_lead_no_more(rig: Rig) -> None:
    node = rig.node(*KEYS, max_leases=3)
    rig.settle()
    assert node.next_turn_ns() > rig.clock.now_ns()


def test_elections_are_taken_in_the_order_in_which_they_were_added(rig: Rig) -> None:
    node = rig.node(*KEYS, max_leases=3)
    rig.settle()
    assert [key for key in KEYS if node.leads(key)] == KEYS[:3]


def test_what_is_contested_leaves_room_for_the_next(rig: Rig) -> None:
    other = rig.leader(*KEYS[:2])
    node = rig.node(*KEYS, max_leases=3)
    rig.settle()
    assert [key for key in KEYS if node.leads(key)] == KEYS[2:5]
    assert all(map(other.leads, KEYS[:2]))


def test_capacity_that_is_freed_is_used(rig: Rig) -> None:
    node = rig.node(*KEYS, max_leases=3)
    rig.settle()
    node.resign(KEYS[0])
    rig.settle()
    assert [key for key in KEYS if node.leads(key)] == KEYS[1:4]
    node.remove(KEYS[1])
    rig.settle()
    assert [key for key in KEYS[2:] if node.leads(key)] == KEYS[2:5]
    rig.server.delete(rig.leader_key(KEYS[2]))
    rig.server.put(rig.leader_key(KEYS[2]), b"other/1", 60_000)
    rig.run_ms(700)
    assert [key for key in KEYS[2:] if node.leads(key)] == KEYS[3:6]


def test_a_wake_up_finds_no_room(rig: Rig) -> None:
    first = rig.leader(*KEYS)
    node = rig.node(*KEYS, max_leases=3)
    rig.settle()
    first.core.elections.stop()
    rig.settle()
    assert node.core.elections.leading == 3
    assert len(node.core.elections.led(rig.clock.now_ns())) == 3


def test_three_nodes_share_what_one_may_not_lead_alone(rig: Rig) -> None:
    nodes = [rig.node(*KEYS, max_leases=4) for _ in range(3)]
    rig.run_ms(5000)
    assert sorted(node.core.elections.leading for node in nodes) == [2, 4, 4]


def test_a_lost_acquire_gives_its_place_back(rig: Rig) -> None:
    node = rig.node(*KEYS, max_leases=3)
    node.turn()
    node.lose()
    node.connect()
    rig.settle()
    assert node.core.elections.leading == 3
