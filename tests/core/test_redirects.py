"""MOVED: a slot is at another node now. The core follows at once, or waits for a new slot map."""

from __future__ import annotations

import pytest

from multielect._core.slot_map import slot_of_key
from multielect.election import DemotionReason

from .cluster_nodes import ClusterLanes, of_one_slot
from .lanes import SLOTS, names, slot_of
from .rig import LAYOUT, MS

KEYS = of_one_slot(5)
SLOT = slot_of(KEYS[0])
ELSEWHERE = f"MOVED {SLOT} 10.9.9.9:7009"


def leading(*keys: str, lanes: int = 2, **settings: int) -> ClusterLanes:
    """Return a core that leads these elections, with nothing on its way."""
    cluster = ClusterLanes(lanes, **settings)
    cluster.lead(*(keys or KEYS))
    cluster.take_report()
    cluster.clear()
    return cluster


# ---- a lane leads there


def test_a_refresh_that_is_redirected_goes_there_at_once_and_counts_from_then() -> None:
    lanes = leading()
    lanes.send_refreshes()
    lanes.cluster.hand_over([SLOT], lanes.nodes[0])
    lanes.clock.advance_ns(40 * MS)
    lanes.lanes[1].serve()
    lanes.turn()
    lanes.clock.advance_ns(30 * MS)
    assert lanes.lanes[0].serve() == 1
    (call,) = lanes.nodes[0].asked("refresh")
    assert set(call.keys) == {LAYOUT.leader_key(key.encode()) for key in KEYS}
    assert [lanes.candidacy(key).remaining for key in KEYS] == [pytest.approx(0.87)] * len(KEYS)
    lanes.run_ms(2000)
    assert len(lanes.nodes[1].calls) == 1, "the first node is not asked again"
    assert all(lanes.leads(key) for key in KEYS)
    assert lanes.ends == {}


def test_an_acquire_and_a_release_that_are_redirected_go_there() -> None:
    lanes = ClusterLanes()
    lanes.cluster.hand_over([SLOT], lanes.nodes[0])
    lanes.lead(*KEYS)
    lanes.cluster.hand_over([SLOT], lanes.nodes[1])
    lanes.core.elections.stop()
    lanes.settle()
    assert lanes.core.elections.counters["released"] == len(KEYS)
    assert not lanes.nodes[0].dump().keys() | {
        name for name in lanes.nodes[1].dump() if name.endswith(b":leader")
    }


def test_a_map_is_wanted_once_however_many_batches_are_redirected() -> None:
    lanes = leading(batch_keys=1)
    lanes.send_refreshes()
    lanes.cluster.hand_over([SLOT], lanes.nodes[0])
    first, *others = lanes.lanes[1].requests
    assert len(others) == len(KEYS) - 1
    lanes.lanes[1].requests.clear()
    lanes.lanes[1].requests.append(first)
    lanes.lanes[1].serve()
    assert lanes.wants_map()
    assert not lanes.wants_map(), "it is taken"
    lanes.lanes[1].requests.extend(others)
    lanes.lanes[1].serve()
    lanes.settle()
    assert not lanes.wants_map()
    assert all(lanes.candidacy(key).remaining == pytest.approx(0.9) for key in KEYS)


def test_an_answer_that_is_older_than_the_map_changes_nothing() -> None:
    lanes = leading(lanes=3)
    source = lanes.lane_of(KEYS[0])
    home, stranger = (index for index in range(3) if index != source)
    lanes.send_refreshes()
    lanes.cluster.hand_over([SLOT], lanes.nodes[home])
    lanes.read_map()
    lanes.nodes[source].says[SLOT] = f"MOVED {SLOT} {lanes.nodes[stranger].address}"
    lanes.lanes[source].serve()
    lanes.settle()
    assert not lanes.wants_map()
    assert not lanes.nodes[stranger].calls
    assert all(lanes.candidacy(key).remaining == pytest.approx(0.9) for key in KEYS)


def test_a_script_that_was_redirected_with_its_text_is_brought_again() -> None:
    lanes = ClusterLanes()
    lanes.cluster.hand_over([SLOT], lanes.nodes[0])
    lanes.lead(KEYS[0])
    other = next(key for key in names(99) if SLOT != slot_of(key) >= SLOTS // 2)
    lanes.core.elections.add(other.encode(), LAYOUT.bucket(other.encode()))
    lanes.settle()
    assert lanes.leads(other)
    assert [call.error for call in lanes.nodes[1].calls] == ["MOVED", None]


# ---- no lane leads there


def test_elections_without_a_lane_wait_for_the_map_and_go_on() -> None:
    lanes = leading()
    lanes.nodes[1].says[SLOT] = ELSEWHERE
    lanes.send_refreshes()
    lanes.settle()
    assert lanes.wants_map()
    lanes.run_ms(300)
    assert len(lanes.nodes[1].calls) == 1, "nothing is sent meanwhile"
    assert all(lanes.candidacy(key).remaining == pytest.approx(0.265) for key in KEYS)
    lanes.cluster.hand_over([SLOT], lanes.nodes[0])
    lanes.read_map()
    lanes.settle()
    assert all(lanes.candidacy(key).remaining == pytest.approx(0.9) for key in KEYS)


def test_elections_without_a_lane_expire_and_are_led_again_with_the_map() -> None:
    lanes = leading()
    lanes.nodes[1].says[SLOT] = ELSEWHERE
    lanes.run_ms(2000)
    assert not any(lanes.leads(key) for key in KEYS)
    assert len(lanes.nodes[1].calls) == 1
    lanes.take_report()
    assert lanes.ends == {key: [DemotionReason.EXPIRED] for key in KEYS}
    lanes.nodes[1].says.clear()
    lanes.read_map()
    lanes.settle()
    assert all(lanes.leads(key) for key in KEYS)


def test_a_node_that_names_itself_is_not_asked_again_before_the_map() -> None:
    lanes = leading()
    lanes.nodes[1].says[SLOT] = f"MOVED {SLOT} {lanes.nodes[1].address}"
    lanes.send_refreshes()
    lanes.settle()
    assert len(lanes.nodes[1].calls) == 1
    assert lanes.wants_map()


def test_two_nodes_that_name_each_other_are_followed_a_few_times_a_map() -> None:
    lanes = leading()
    for node, other in (lanes.nodes, reversed(lanes.nodes)):
        node.says[SLOT] = f"MOVED {SLOT} {other.address}"
    lanes.send_refreshes()
    lanes.settle()
    assert sum(len(node.calls) for node in lanes.nodes) == 6
    assert lanes.wants_map()
    lanes.run_ms(100)
    assert sum(len(node.calls) for node in lanes.nodes) == 6
    lanes.read_map()
    lanes.settle()
    assert sum(len(node.calls) for node in lanes.nodes) == 12
    for node in lanes.nodes:
        node.says.clear()
    lanes.read_map()
    lanes.settle()
    assert all(lanes.candidacy(key).remaining == pytest.approx(0.9) for key in KEYS)


# ---- addresses


@pytest.mark.parametrize(
    ("own", "other", "named"),
    [
        ("127.0.0.1:7001", "127.0.0.1:7000", "127.0.0.1:7000"),
        ("127.0.0.1:7001", "127.0.0.1:7000", ":7000"),
        ("::1:7001", "::1:7000", "::1:7000"),
        ("::1:7001", "::1:7000", ":7000"),
        ("b.example:7001", "a.example:7000", "a.example:7000"),
        ("b.example:7000", "a.example:7000", "a.example:7000"),
    ],
)
def test_the_lane_that_is_named_is_found(own: str, other: str, named: str) -> None:
    lanes = leading()
    lanes.core.name_lane(1, own.encode())
    lanes.core.name_lane(0, other.encode())
    lanes.cluster.hand_over([SLOT], lanes.nodes[0])
    lanes.nodes[1].says[SLOT] = f"MOVED {SLOT} {named}"
    lanes.send_refreshes()
    lanes.settle()
    assert lanes.nodes[0].asked("refresh")
    assert all(lanes.candidacy(key).remaining == pytest.approx(0.9) for key in KEYS)


@pytest.mark.parametrize(
    "text",
    [
        "MOVED 1 ?:7000",
        "MOVED 1 127.0.0.2:7000",
        "MOVED 1 127.0.0.1:700",
        "MOVED 1 127.0.0.1:70000",
        "MOVED 1 27.0.0.1:7000",
        "MOVED 1 a127.0.0.1:7000",
        "MOVED 1 127.0.0.1:7000 ",
        "MOVED 1 127.0.0.1 7000",
        "MOVED 127.0.0.1:7000",
        "MOVED 1 127.0.0.1:",
        "MOVED 1 :",
        "MOVED 1 ",
        "MOVED 1",
        "MOVED ",
        "MOVED  ",
        "MOVED  :",
        f"MOVED 1 {'a' * 60_000}:7000",
        f"MOVED 1 127.0.0.1:{'7' * 60_000}",
        f"MOVED {'1' * 60_000}",
    ],
    ids=lambda text: text[:24],
)
def test_an_address_that_names_no_lane_is_followed_nowhere(text: str) -> None:
    lanes = leading()
    lanes.nodes[1].says[SLOT] = text
    lanes.send_refreshes()
    lanes.settle()
    assert not lanes.nodes[0].calls
    assert len(lanes.nodes[1].calls) == 1
    assert lanes.wants_map()
    assert all(lanes.leads(key) for key in KEYS)


def test_a_node_whose_own_address_is_not_known_names_no_lane_by_a_port() -> None:
    lanes = leading()
    lanes.core.name_lane(1, b"")
    lanes.nodes[1].says[SLOT] = f"MOVED {SLOT} :7000"
    lanes.send_refreshes()
    lanes.settle()
    assert not lanes.nodes[0].calls


def test_an_address_that_is_too_long_is_refused() -> None:
    lanes = ClusterLanes()
    lanes.core.name_lane(1, b"a" * 270)
    with pytest.raises(ValueError, match="an address has at most 270 bytes, not 271"):
        lanes.core.name_lane(1, b"a" * 271)
    with pytest.raises(IndexError, match="there is no lane 2"):
        lanes.core.name_lane(2, b"a")


# ---- the membership


def polling(**settings: int) -> tuple[ClusterLanes, int]:
    """Return a core that polls the membership, and the lane by which it does."""
    lanes = ClusterLanes(**settings)
    words = (LAYOUT.members_key, LAYOUT.plan_key, b"node/1", b"666", b"0", b"{}", b"c", b"0", b"")
    packed = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
    lanes.core.fleet.set_membership_poll(packed, len(words), period_ns=100 * MS)
    lanes.run_ms(250)
    lanes.clear()
    lanes.take_report()
    return lanes, slot_of_key(LAYOUT.members_key) * len(lanes.nodes) // SLOTS


def test_a_membership_poll_that_is_redirected_goes_there_at_once() -> None:
    lanes, home = polling()
    fleet_slot = slot_of_key(LAYOUT.members_key)
    lanes.cluster.hand_over([fleet_slot], lanes.nodes[1 - home])
    lanes.run_ms(100)
    assert [call.error for call in lanes.nodes[home].calls] == ["MOVED"]
    (poll,) = lanes.nodes[1 - home].asked("membership")
    assert poll.error is None
    assert poll.at_ns == lanes.nodes[home].calls[0].at_ns
    report = lanes.take_report()
    assert report.wants_slots
    assert report.membership is not None
    lanes.run_ms(1000)
    assert len(lanes.nodes[home].calls) == 1


def test_a_membership_poll_without_a_lane_waits_for_the_map() -> None:
    lanes, home = polling()
    lanes.nodes[home].says[slot_of_key(LAYOUT.members_key)] = ELSEWHERE
    lanes.run_ms(1000)
    assert len(lanes.nodes[home].calls) == 1
    lanes.nodes[home].says.clear()
    lanes.read_map()
    lanes.settle()
    assert lanes.nodes[home].calls[-1].error is None


def test_a_membership_poll_in_a_slot_that_is_migrated_is_repeated_later() -> None:
    lanes, home = polling()
    fleet_slot = slot_of_key(LAYOUT.members_key)
    for text in (f"ASK {fleet_slot} {lanes.nodes[1 - home].address}", "TRYAGAIN Multiple keys"):
        lanes.clear()
        lanes.nodes[home].says[fleet_slot] = text
        lanes.run_ms(1000)
        assert 4 <= len(lanes.nodes[home].calls) <= 11
        assert not lanes.nodes[1 - home].calls
    lanes.nodes[home].says.clear()
    lanes.run_ms(400)
    assert lanes.take_report().membership is not None
