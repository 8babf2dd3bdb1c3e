"""CLUSTERDOWN and LOADING: a node that serves nothing for now. And announcements of a cluster."""

from __future__ import annotations

import pytest

from multielect.election import DemotionReason

from .cluster_nodes import IS_DOWN, LOADING, NOT_SERVED, ClusterLanes, of_one_slot
from .lanes import SLOTS, names, slot_of
from .rig import LAYOUT, MS
from .test_redirects import polling

KEYS = names(60)
HOLD_MS = 50


def leading(**settings: int) -> ClusterLanes:
    """Return a core that leads elections on both lanes, with nothing on its way."""
    lanes = ClusterLanes(**settings)
    lanes.lead(*KEYS)
    lanes.take_report()
    lanes.clear()
    return lanes


def of_lane(lanes: ClusterLanes, index: int) -> list[str]:
    return [key for key in KEYS if lanes.lane_of(key) == index]


# ---- a node that serves nothing


@pytest.mark.parametrize("text", [LOADING, IS_DOWN, NOT_SERVED, "MASTERDOWN Link is down"])
def test_a_node_that_serves_nothing_is_tried_with_one_batch_at_a_time(text: str) -> None:
    lanes = leading(batch_keys=1)
    node = lanes.nodes[1]
    node.says = dict.fromkeys(range(SLOTS), text)
    lanes.send_refreshes()
    lanes.lanes[1].serve()
    burst = len(node.calls)
    assert 1 < burst <= 32
    begun_ns = lanes.clock.now_ns()
    lanes.run_ms(HOLD_MS - 1)
    assert len(node.calls) == burst, "the node is left alone"
    lanes.run_ms(251)
    tried = [(call.at_ns - begun_ns) // MS for call in node.calls[burst:]]
    assert tried == [50, 100, 150, 200, 250, 300]
    report = lanes.take_report()
    assert [(error.lane, error.text) for error in report.errors] == [(1, text)]
    assert report.wants_slots
    assert all(lanes.candidacy(key).remaining > 0.5 for key in of_lane(lanes, 0))
    node.says = {}
    lanes.run_ms(HOLD_MS)
    assert all(lanes.candidacy(key).remaining > 0.84 for key in of_lane(lanes, 1))
    lanes.take_report()
    assert lanes.ends == {}


def test_nothing_else_wakes_the_core_while_a_node_is_left_alone() -> None:
    lanes = leading()
    lanes.cluster.is_down = True
    lanes.send_refreshes()
    lanes.settle()
    begun_ns = lanes.clock.now_ns()
    for lane in lanes.lanes:
        assert lane.driver.next_turn_ns(begun_ns) == begun_ns + HOLD_MS * MS


def test_each_outage_is_reported_once() -> None:
    lanes = leading()
    for _ in range(3):
        lanes.cluster.is_down = True
        lanes.run_ms(500)
        assert lanes.errors() == [(0, IS_DOWN), (1, IS_DOWN)]
        lanes.run_ms(200)
        assert lanes.errors() == []
        lanes.cluster.is_down = False
        lanes.run_ms(400)
    assert lanes.errors() == []


@pytest.mark.parametrize("text", ["MOVED {} 127.0.0.1:7000", "TRYAGAIN no", "OOM no"])
def test_an_outage_ends_with_any_other_answer(text: str) -> None:
    key = of_one_slot(1)[0]
    lanes = ClusterLanes()
    lanes.lead(key)
    lanes.take_report()
    node = lanes.nodes[1]
    node.is_loading = True
    lanes.send_refreshes()
    lanes.settle()
    assert lanes.errors() == [(1, LOADING)]
    node.is_loading = False
    node.says[slot_of(key)] = text.format(slot_of(key))
    lanes.run_ms(HOLD_MS)
    lanes.take_report()
    node.says.clear()
    lanes.core.map_slots(SLOTS // 2, SLOTS - 1, 1)
    node.is_loading = True
    lanes.run_ms(400)
    assert lanes.errors() == [(1, LOADING)]


def test_all_requests_of_an_outage_are_answered_after_it() -> None:
    lanes = leading()
    lanes.cluster.is_down = True
    removed, resigned = KEYS[:5], KEYS[5:10]
    for key in removed:
        lanes.core.elections.remove(key.encode(), lanes.clock.now_ns())
    for key in resigned:
        place = lanes.core.elections.find(key.encode())
        assert place is not None
        lanes.core.elections.resign(*place, 0, lanes.clock.now_ns())
    new = [f"new-{number}" for number in range(20)]
    for key in new:
        lanes.core.elections.add(key.encode(), LAYOUT.bucket(key.encode()))
    lanes.run_ms(400)
    assert lanes.core.elections.counters["released"] == 0
    lanes.cluster.is_down = False
    lanes.run_ms(HOLD_MS)
    assert lanes.core.elections.counters["released"] == 10
    assert all(lanes.leads(key) for key in [*KEYS[10:], *new])
    lanes.take_report()
    assert set(lanes.ends) == {*removed, *resigned}


def test_terms_end_at_their_deadline_while_the_cluster_is_down() -> None:
    lanes = leading()
    lanes.cluster.is_down = True
    lanes.run_ms(901)
    assert not any(lanes.leads(key) for key in KEYS)
    lanes.take_report()
    assert lanes.ends == {key: [DemotionReason.EXPIRED] for key in KEYS}
    lanes.cluster.is_down = False
    lanes.run_ms(HOLD_MS)
    assert all(lanes.leads(key) for key in KEYS)


def test_a_node_that_stops_in_an_outage_releases_after_it() -> None:
    lanes = leading()
    lanes.cluster.is_down = True
    lanes.core.elections.stop()
    lanes.run_ms(400)
    assert all(len(node.calls) <= 9 + 8 for node in lanes.nodes), "one at a time after the first"
    assert lanes.core.elections.counters["released"] == 0
    lanes.cluster.is_down = False
    lanes.run_ms(HOLD_MS)
    assert lanes.lanes[0].driver.is_quiet
    assert lanes.core.elections.counters["released"] == len(KEYS)


def test_a_new_connection_is_not_left_alone() -> None:
    lanes = leading(batch_keys=1)
    lanes.nodes[1].is_loading = True
    lanes.send_refreshes()
    lanes.settle()
    lanes.nodes[1].is_loading = False
    lanes.lanes[1].lose()
    lanes.lanes[1].connect()
    lanes.turn()
    assert len(lanes.lanes[1].requests) > 1
    lanes.settle()
    assert all(lanes.candidacy(key).remaining == pytest.approx(0.9) for key in KEYS)


def test_a_membership_poll_is_repeated_after_an_outage() -> None:
    lanes, home = polling()
    lanes.cluster.is_down = True
    lanes.run_ms(400)
    refused = len(lanes.nodes[home].calls)
    assert 5 <= refused <= 8
    lanes.cluster.is_down = False
    lanes.run_ms(HOLD_MS)
    assert lanes.take_report().membership is not None
    assert len(lanes.nodes[home].calls) == refused + 1


# ---- a lane that goes


def test_what_is_in_flight_on_a_lane_that_goes_is_sent_on_the_one_that_serves_it() -> None:
    lanes = leading(batch_keys=2)
    lanes.send_refreshes()
    moved = range(SLOTS // 2, SLOTS)
    lanes.cluster.hand_over(moved, lanes.nodes[0])
    lanes.read_map()
    lanes.lanes[1].lose()
    lanes.settle()
    assert not lanes.nodes[1].calls
    assert all(lanes.candidacy(key).remaining == pytest.approx(0.9) for key in KEYS)
    lanes.run_ms(1500)
    assert all(lanes.leads(key) for key in KEYS)
    lanes.take_report()
    assert lanes.ends == {}


def test_a_node_that_stops_without_lanes_ends_when_its_leases_have() -> None:
    lanes = leading()
    lanes.core.map_slots(0, SLOTS - 1, None)
    lanes.core.elections.stop()
    lanes.settle()
    assert lanes.core.elections.leading == 0
    lanes.run_ms(1001)
    assert lanes.lanes[0].driver.is_quiet


def test_a_member_that_leaves_without_a_lane_waits_no_longer_than_its_entry_lasts() -> None:
    lanes, _ = polling()
    lanes.core.map_slots(0, SLOTS - 1, None)
    begun_ns = lanes.clock.now_ns()
    lanes.core.fleet.set_membership_poll(b"", 0, period_ns=100 * MS, last_ns=666 * MS)
    lanes.core.elections.stop()
    lanes.turn()
    driver = lanes.lanes[0].driver
    assert not driver.is_quiet
    due_ns = driver.next_turn_ns(lanes.clock.now_ns())
    assert begun_ns < due_ns <= begun_ns + 666 * MS
    lanes.clock.advance_ns(due_ns - begun_ns)
    lanes.turn()
    assert driver.is_quiet


# ---- announcements


def waiting() -> tuple[ClusterLanes, list[str]]:
    """Return a core that waits for elections on both lanes, which another node leads."""
    lanes = ClusterLanes()
    keys = [*of_one_slot(2), *(key for key in KEYS if slot_of(key) < SLOTS // 2)][:6]
    for key in keys:
        name = LAYOUT.leader_key(key.encode())
        lanes.nodes[lanes.lane_of(key)].put(name, b"you/1", 900)
        lanes.core.elections.add(key.encode(), LAYOUT.bucket(key.encode()))
    lanes.core.elections.start()
    lanes.settle()
    lanes.clear()
    return lanes, keys


def test_a_lane_subscribes_once_and_then_all_lanes_ask_again() -> None:
    lanes, keys = waiting()
    lanes.core.listen(0)
    lanes.settle()
    asked = {name for node in lanes.nodes for call in node.asked("acquire") for name in call.keys}
    assert {LAYOUT.leader_key(key.encode()) for key in keys} <= asked
    lanes.run_ms(300)
    assert [node.subscriptions for node in lanes.nodes] == [1, 0]


def test_a_lane_that_is_told_to_listen_again_subscribes_once() -> None:
    lanes, _ = waiting()
    lanes.nodes[0].refuses_subscriptions = True
    for _ in range(2):
        lanes.core.listen(0)
        lanes.turn()
    lanes.settle()
    assert lanes.nodes[0].subscriptions == 1


def test_a_lane_that_is_to_listen_before_it_is_connected_subscribes() -> None:
    lanes, _ = waiting()
    lanes.lanes[1].lose()
    lanes.core.listen(1)
    lanes.settle()
    lanes.lanes[1].connect()
    lanes.settle()
    assert [node.subscriptions for node in lanes.nodes] == [0, 1]


def test_a_connection_that_was_to_listen_takes_that_with_it() -> None:
    lanes, _ = waiting()
    lanes.core.listen(1)
    lanes.lanes[1].lose()
    lanes.lanes[1].connect()
    lanes.settle()
    assert [node.subscriptions for node in lanes.nodes] == [0, 0]


def test_a_subscription_that_is_refused_shifts_no_reply() -> None:
    lanes = leading()
    lanes.nodes[1].refuses_subscriptions = True
    lanes.send_refreshes()
    lanes.core.listen(1)
    lanes.turn()
    key = of_lane(lanes, 1)[0]
    lanes.core.elections.remove(key.encode(), lanes.clock.now_ns())
    lanes.turn()
    lanes.settle()
    assert lanes.nodes[1].subscriptions == 1
    assert lanes.core.elections.counters["released"] == 1
    assert lanes.errors() == []
    assert all(
        lanes.candidacy(each).remaining == pytest.approx(0.9) for each in KEYS if each != key
    )
    lanes.clear()
    lanes.run_ms(500)
    assert {call.error for call in lanes.nodes[1].calls} == {None}
    # What the node refuses from now on is not taken for the refusal of a subscription.
    lanes.nodes[1].says = dict.fromkeys(range(SLOTS), "OOM full")
    lanes.send_refreshes()
    lanes.settle()
    assert lanes.errors() == [(1, "OOM full")]
    assert lanes.lanes[1].driver.owed_since_ns is None


def test_a_subscription_is_refused_behind_what_was_sent_before_it() -> None:
    lanes = leading()
    lanes.nodes[1].refuses_subscriptions = True
    lanes.nodes[1].says = dict.fromkeys(range(SLOTS), "OOM full")
    lanes.send_refreshes()
    lanes.core.listen(1)
    lanes.turn()
    lanes.settle()
    assert lanes.errors() == [(1, "OOM full")]


def test_a_lane_of_a_node_that_serves_nothing_subscribes_when_it_is_tried() -> None:
    lanes = leading()
    lanes.nodes[1].is_loading = True
    lanes.send_refreshes()
    lanes.settle()
    lanes.core.listen(1)
    lanes.run_ms(HOLD_MS - 1)
    assert lanes.nodes[1].subscriptions == 0
    lanes.run_ms(1)
    assert lanes.nodes[1].subscriptions == 1
