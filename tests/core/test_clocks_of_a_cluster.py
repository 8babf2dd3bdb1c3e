"""Leases that come with their slot to another server may end by that server's clock.

A replica that takes over ends the leases that it inherits at the times that its primary wrote, but
by its own clock. So does a server that gets a slot at once.
"""

from __future__ import annotations

import pytest

from multielect.election import DemotionReason

from .lanes import SLOTS, Lanes
from .rig import LAYOUT, MS

TTL_MS = 1000
HALF_MARGIN_MS = TTL_MS // 20
KEYS = [f"k{number}" for number in range(20)]


def led(ahead_ms: int, lane_count: int = 2) -> Lanes:
    """A node that leads on lane 0 alone; the clock of lane 1's server is ahead of lane 0's."""
    lanes = Lanes(lane_count, ttl_ms=TTL_MS, is_cluster=True)
    lanes.lanes[1].server.store.step_clock(ahead_ms * MS)
    lanes.core.map_slots(0, SLOTS - 1, 0)
    lanes.lead(*KEYS)
    lanes.take_report()
    return lanes


def move(lanes: Lanes) -> None:
    """Have the leases at the other server, as a replica has them, and the slots too."""
    source, target = (lane.server.store for lane in lanes.lanes[:2])
    for key in map(str.encode, KEYS):
        for name in (LAYOUT.leader_key(key), LAYOUT.epoch_key(key)):
            found = source.find(name)
            assert found is not None
            target.put_until(name, found[0], found[1])
    lanes.core.map_slots(0, SLOTS - 1, 1)


@pytest.mark.parametrize("through_no_lane", [False, True])
def test_a_new_servers_first_answer_is_compared_with_the_old_servers_clock(
    through_no_lane: bool,
) -> None:
    lanes = led(ahead_ms=2 * TTL_MS)
    if through_no_lane:
        lanes.core.map_slots(0, SLOTS - 1, None)
        lanes.turn()
    move(lanes)
    assert all(map(lanes.leads, KEYS)), "nothing is known of its clock yet"
    lanes.settle()
    (jump,) = lanes.take_report().clock_jumps
    assert (jump.lane, jump.ended) == (1, len(KEYS))
    assert 2 * TTL_MS <= jump.jump_ns // MS <= 2 * TTL_MS + 5
    assert set(map(tuple, lanes.ends.values())) == {(DemotionReason.EXPIRED,)}


@pytest.mark.parametrize(
    ("ahead_ms", "deadline_moves_by_ms"),
    [(HALF_MARGIN_MS + 5, HALF_MARGIN_MS + 5), (HALF_MARGIN_MS - 5, 0), (-500, 0), (0, 0)],
)
def test_leases_that_come_to_a_server_whose_clock_is_known_are_shortened_if_it_is_ahead(
    ahead_ms: int, deadline_moves_by_ms: int
) -> None:
    lanes = led(ahead_ms)
    other = next(key for key in map(str, range(1000)) if lanes.lane_of(key) == 1)
    lanes.core.map_slots(SLOTS // 2, SLOTS - 1, 1)
    lanes.lead(other)
    lanes.take_report()
    key = next(key for key in KEYS if lanes.lane_of(key) == 0)
    before = lanes.candidacy(key).remaining
    move(lanes)
    lanes.lanes[0].driver.turn(lanes.clock.now_ns())
    shorter_ms = round((before - lanes.candidacy(key).remaining) * 1000)
    assert deadline_moves_by_ms <= shorter_ms <= (deadline_moves_by_ms and deadline_moves_by_ms + 5)
    jumps = lanes.take_report().clock_jumps
    assert len(jumps) == (1 if deadline_moves_by_ms else 0)
    # They are refreshed there at once, and last as long as any.
    lanes.settle()
    assert lanes.leads(key)


def test_a_lane_that_gets_another_server_forgets_the_old_ones_clock() -> None:
    lanes = led(ahead_ms=2 * TTL_MS)
    lanes.core.name_lane(0, b"another:1")
    move(lanes)
    lanes.settle()
    assert lanes.take_report().clock_jumps == []


def test_the_clock_of_the_server_that_had_the_slot_last_counts() -> None:
    lanes = led(ahead_ms=2 * TTL_MS, lane_count=3)
    lanes.lanes[2].server.store.step_clock(2 * TTL_MS * MS)
    move(lanes)
    lanes.settle()
    assert len(lanes.take_report().clock_jumps) == 1
    lanes.core.map_slots(0, SLOTS - 1, 2)
    lanes.settle()
    assert lanes.take_report().clock_jumps == []
