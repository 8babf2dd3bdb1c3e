"""Each bucket's elections are asked for on the lane that serves its slot, and on no other.

What befalls one lane's connection or server concerns its own elections alone.
"""

from __future__ import annotations

import pytest

from multielect._core.driver import Driver
from multielect._core.slot_map import slot_of_key
from multielect._protocol.keys import group_layout
from multielect.election import DemotionReason

from .lanes import SLOTS, Lanes, names, slot_of
from .rig import LAYOUT, MS

KEYS = names(200)


def of_lane(lanes: Lanes, index: int) -> list[str]:
    return [key for key in KEYS if lanes.lane_of(key) == index]


def keys_of(batches: list[list[bytes]]) -> set[bytes]:
    return {key for keys in batches for key in keys}


# ---- where things are


@pytest.mark.parametrize(
    ("key", "slot"),
    # As `CLUSTER KEYSLOT` of Redis 7.0 says.
    [
        (b"123456789", 12739),
        (b"foo{hash_tag}", 2515),
        (b"app:{12}:key:leader", 8373),
        (b"foo{}{bar}", 8363),
        (b"foo{{bar}}zap", 4015),
        (b"", 0),
    ],
)
def test_a_keys_slot_is_the_clusters(key: bytes, slot: int) -> None:
    assert slot_of_key(key) == slot


def test_elections_of_one_bucket_stand_together() -> None:
    lanes = Lanes()
    lanes.lead(*KEYS)
    buckets_of_block: dict[int, set[int]] = {}
    for key in KEYS:
        place = lanes.core.elections.find(key.encode())
        assert place is not None
        buckets_of_block.setdefault(place[0] // 8, set()).add(LAYOUT.bucket(key.encode()))
    assert all(len(buckets) == 1 for buckets in buckets_of_block.values())
    assert len(buckets_of_block) < len(KEYS) / 4


def test_each_election_is_asked_for_and_refreshed_on_its_own_lane() -> None:
    lanes = Lanes(3)
    lanes.lead(*KEYS)
    lanes.run_ms(2000)
    for index, lane in enumerate(lanes.lanes):
        wanted = {LAYOUT.leader_key(key.encode()) for key in of_lane(lanes, index)}
        assert wanted
        assert keys_of(lane.asked("refresh")) == wanted
        assert {key for key in keys_of(lane.asked("acquire")) if key.endswith(b":leader")} == wanted
    lanes.core.elections.stop()
    lanes.settle()
    assert lanes.lanes[0].driver.is_quiet
    for lane in lanes.lanes:
        assert all(lane.server.get(LAYOUT.leader_key(key.encode())) is None for key in KEYS)


def test_a_script_for_a_cluster_has_keys_of_one_bucket() -> None:
    lanes = Lanes(2, is_cluster=True)
    lanes.lead(*KEYS)
    lanes.run_ms(1000)
    lanes.core.elections.stop()
    lanes.settle()
    for lane in lanes.lanes:
        for request in ("acquire", "refresh", "release"):
            batches = lane.asked(request)
            assert batches
            assert all(len({slot_of_key(key) for key in keys}) == 1 for keys in batches)


def test_a_script_for_one_server_spans_buckets() -> None:
    lanes = Lanes(1)
    lanes.lead(*KEYS)
    assert len(lanes.lanes[0].asked("acquire")) == 2


def test_a_bucket_that_is_not_empty_lets_the_others_go_first() -> None:
    lanes = Lanes(1)
    bucket = LAYOUT.bucket(b"k0")
    many = [key for key in names(20_000) if LAYOUT.bucket(key.encode()) == bucket][:500]
    other = next(key for key in KEYS if LAYOUT.bucket(key.encode()) != bucket)
    for key in [*many, other]:
        lanes.core.elections.add(key.encode(), LAYOUT.bucket(key.encode()))
    lanes.core.elections.start()
    lanes.turn()
    asked = [request[3::2] for request in lanes.lanes[0].requests]
    wanted = LAYOUT.leader_key(other.encode())
    # The first batch is full of the one bucket; the next begins with the other.
    assert [wanted in keys for keys in asked[:2]] == [False, True]


# ---- what befalls one lane


def test_a_connection_that_is_lost_costs_the_elections_of_its_lane_alone() -> None:
    lanes = Lanes()
    lanes.lead(*KEYS)
    lanes.lanes[1].lose()
    lanes.run_ms(2000)
    assert all(lanes.leads(key) for key in of_lane(lanes, 0))
    assert not any(lanes.leads(key) for key in of_lane(lanes, 1))
    lanes.take_report()
    assert lanes.ends == {key: [DemotionReason.EXPIRED] for key in of_lane(lanes, 1)}
    refreshed = len(lanes.lanes[0].asked("refresh"))
    lanes.lanes[1].connect()
    lanes.settle()
    assert all(lanes.leads(key) for key in KEYS)
    assert len(lanes.lanes[0].asked("refresh")) == refreshed, "the other lane is not concerned"


def test_a_server_that_refuses_is_refused_on_its_lane_alone() -> None:
    lanes = Lanes()
    lanes.lead(*KEYS)
    lanes.lanes[1].server.is_replica = True
    lanes.run_ms(400)
    assert [lane.driver.is_refused for lane in lanes.lanes] == [False, True]
    assert "READONLY" in lanes.lanes[1].driver.refusal
    assert lanes.lanes[0].driver.refusal == ""
    assert {error.lane for error in lanes.take_report().errors} == {1}


def test_a_jump_of_one_servers_clock_ends_the_terms_at_that_server_alone() -> None:
    lanes = Lanes(ttl_ms=10_000)
    lanes.lead(*KEYS)
    lanes.lanes[1].server.store.step_clock(60_000 * MS)
    # One refresh is answered before the other terms could be over.
    lanes.run_ms(3400)
    (jump,) = lanes.take_report().clock_jumps
    assert jump.lane == 1
    assert jump.jump_ns >= 59_000 * MS
    assert jump.ended == len(of_lane(lanes, 1))
    assert lanes.ends.keys() == set(of_lane(lanes, 1))


def test_an_answer_is_owed_by_the_server_that_was_asked() -> None:
    lanes = Lanes()
    lanes.lead(*KEYS)
    lanes.clock.advance_ns(350 * MS)
    lanes.turn()
    lanes.lanes[0].serve()
    since_ns = lanes.clock.now_ns()
    assert [lane.driver.owed_since_ns for lane in lanes.lanes] == [None, since_ns]


def test_what_is_malformed_is_said_of_its_lane() -> None:
    lanes = Lanes()
    lanes.lead(*KEYS)
    with pytest.raises(Exception, match="no batch is in flight"):
        lanes.lanes[1].driver.receive(b"+OK\r\n", lanes.clock.now_ns())
    assert "no batch is in flight" not in lanes.lanes[0].driver.parse_error


def test_a_stop_releases_on_the_lanes_that_are_there_and_ends_the_rest() -> None:
    lanes = Lanes()
    lanes.lead(*KEYS)
    lanes.lanes[1].lose()
    lanes.core.elections.stop()
    lanes.settle()
    assert lanes.core.elections.leading == 0
    assert lanes.core.elections.counters["released"] == len(of_lane(lanes, 0))
    for key in of_lane(lanes, 0):
        assert lanes.lanes[0].server.get(LAYOUT.leader_key(key.encode())) is None


# ---- slots that move


def move_leases(lanes: Lanes, source: int, target: int, keys: list[str]) -> None:
    """Have another server hold the leases and epochs, as after a migration of their slots."""
    for key in keys:
        raw = key.encode()
        for name in (LAYOUT.leader_key(raw), LAYOUT.epoch_key(raw)):
            value = lanes.lanes[source].server.get(name)
            assert value is not None
            lanes.lanes[target].server.put(name, value, 1000)
            lanes.lanes[source].server.delete(name)


def test_a_slot_that_moves_is_served_by_its_new_lane_within_one_turn() -> None:
    lanes = Lanes()
    lanes.lead(*KEYS)
    moving = of_lane(lanes, 1)
    move_leases(lanes, 1, 0, moving)
    lanes.lanes[1].server.batches.clear()
    lanes.core.map_slots(SLOTS // 2, SLOTS - 1, 0)
    lanes.turn()
    asked = {key for request in lanes.lanes[0].requests for key in request}
    assert {LAYOUT.leader_key(key.encode()) for key in moving} <= asked, (
        "they are refreshed at once"
    )
    lanes.run_ms(3000)
    assert all(lanes.leads(key) for key in KEYS)
    lanes.take_report()
    assert lanes.ends == {}
    assert not lanes.lanes[1].server.batches


def test_what_waits_to_be_released_is_released_on_the_new_lane() -> None:
    lanes = Lanes()
    lanes.lead(*KEYS)
    key = of_lane(lanes, 1)[0]
    move_leases(lanes, 1, 0, [key])
    assert lanes.core.elections.remove(key.encode(), lanes.clock.now_ns())
    lanes.core.map_slots(SLOTS // 2, SLOTS - 1, 0)
    lanes.settle()
    assert lanes.lanes[0].server.get(LAYOUT.leader_key(key.encode())) is None


def test_an_election_without_a_lane_waits_and_its_deadline_runs() -> None:
    lanes = Lanes()
    lanes.lead(*KEYS)
    lanes.core.map_slots(SLOTS // 2, SLOTS - 1, None)
    lanes.run_ms(600)
    assert all(lanes.leads(key) for key in KEYS), "until the deadline"
    lanes.run_ms(1400)
    assert [key for key in KEYS if not lanes.leads(key)] == of_lane(lanes, 1)
    lanes.take_report()
    assert lanes.ends == {key: [DemotionReason.EXPIRED] for key in of_lane(lanes, 1)}
    lanes.core.map_slots(SLOTS // 2, SLOTS - 1, 1)
    lanes.settle()
    assert all(lanes.leads(key) for key in KEYS)


def test_a_reply_that_comes_after_its_slot_has_moved_counts() -> None:
    lanes = Lanes()
    lanes.lead(*KEYS)
    lanes.clock.advance_ns(350 * MS)
    lanes.turn()
    lanes.core.map_slots(SLOTS // 2, SLOTS - 1, None)
    lanes.lanes[1].serve()
    key = of_lane(lanes, 1)[0]
    assert lanes.candidacy(key).remaining > 0.85, "it was refreshed"


def test_a_node_that_stops_leads_nothing_without_a_lane() -> None:
    lanes = Lanes()
    lanes.lead(*KEYS)
    lanes.core.map_slots(SLOTS // 2, SLOTS - 1, None)
    lanes.core.elections.stop()
    lanes.settle()
    assert lanes.core.elections.leading == 0


# ---- the fleet


def test_the_membership_is_polled_where_the_fleet_is_kept() -> None:
    lanes = Lanes()
    home = slot_of_key(LAYOUT.members_key) * 2 // SLOTS
    words = (LAYOUT.members_key, LAYOUT.plan_key, b"node/1", b"666", b"0", b"{}", b"c", b"0", b"")
    packed = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
    lanes.core.fleet.set_membership_poll(packed, len(words), period_ns=100 * MS)
    lanes.run_ms(250)
    assert [len(lane.asked("membership")) > 2 for lane in lanes.lanes] == [
        index == home for index in range(2)
    ]
    assert lanes.take_report().membership is not None
    lanes.lanes[home].server.batches.clear()
    lanes.core.map_slots(0, SLOTS - 1, 1 - home)
    lanes.settle()
    assert lanes.lanes[1 - home].asked("membership"), "it is polled there at once"
    assert not lanes.lanes[home].asked("membership")


def test_the_keys_of_a_fleet_and_of_its_buckets_have_slots_of_their_own() -> None:
    layout = group_layout("rig", 16)
    assert slot_of("k0") != slot_of_key(layout.members_key)


# ---- what cannot be


def test_bad_input_is_refused() -> None:
    lanes = Lanes(2)
    for first, last in ((-1, 0), (5, 4), (0, SLOTS)):
        with pytest.raises(ValueError, match="slots must be from 0 to 16383"):
            lanes.core.map_slots(first, last, 0)
    with pytest.raises(ValueError, match="there is no lane 2"):
        lanes.core.map_slots(0, 1, 2)
    with pytest.raises(IndexError, match="there is no lane 2"):
        Driver(lanes.core, 2)
    for _ in range(126):
        lanes.core.add_lane()
    with pytest.raises(ValueError, match="at most 128 lanes"):
        lanes.core.add_lane()
