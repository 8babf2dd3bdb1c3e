"""Slots move, nodes go down and connections are lost, drawn by a seed: no term outlasts its lease.

After each step, each term ends no later than the lease that a node of the cluster holds for it.
When all is well again, all elections are led, and a stop releases them.
"""

from __future__ import annotations

import random

import pytest

from .cluster_nodes import ClusterLanes, redis_keys
from .lanes import SLOTS, names, slot_of
from .rig import LAYOUT, MS

KEYS = names(24)
STEPS = 250


class Story:
    """One story."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.lanes = ClusterLanes(3, seed=seed, batch_keys=self.chance.choice([1, 3, 250]))
        self.cluster = self.lanes.cluster
        self.cluster.asks_for_some = self.chance.random() < 0.3
        for key in KEYS:
            self.add(key)
        self.lanes.core.elections.start()

    def add(self, key: str) -> None:
        self.lanes.core.elections.add(key.encode(), LAYOUT.bucket(key.encode()))

    def step(self) -> None:
        actions = [self.wait] * 6 + [self.exchange] * 8 + [self.read_map] * 2
        actions += [self.move_keys] * 3 + [self.migrate, self.end_migration, self.hand_over]
        actions += [self.lose, self.go_down, self.forget_scripts, self.listen]
        actions += [self.remove_or_add, self.resign]
        self.chance.choice(actions)()

    # ---- time and messages

    def wait(self) -> None:
        self.lanes.clock.advance_ns(self.chance.choice([1, 5, 20, 50, 120]) * MS)

    def exchange(self) -> None:
        """One turn, and some of the lanes' servers answer."""
        self.lanes.turn()
        for lane in self.lanes.lanes:
            if lane.is_connected and self.chance.random() < 0.8:
                lane.serve()

    # ---- slots

    def slot(self) -> int:
        return slot_of(self.chance.choice(KEYS))

    def read_map(self) -> None:
        if self.lanes.wants_map():
            self.lanes.read_map()

    def migrate(self) -> None:
        slot = self.slot()
        others = [node for node in self.lanes.nodes if node is not self.cluster.owners[slot]]
        if slot not in self.cluster.migrating:
            self.cluster.begin_migration(slot, self.chance.choice(others))
            self.move_keys()

    def move_keys(self) -> None:
        for name in redis_keys(*KEYS):
            if self.chance.random() < 0.2 and slot_of_name(name) in self.cluster.migrating:
                self.cluster.move_key(name)

    def end_migration(self) -> None:
        if self.cluster.migrating:
            self.cluster.end_migration(self.chance.choice(sorted(self.cluster.migrating)))

    def hand_over(self) -> None:
        self.migrate()
        self.end_migration()

    # ---- faults

    def lose(self) -> None:
        lane = self.chance.choice(self.lanes.lanes)
        if lane.is_connected:
            lane.lose()
        else:
            lane.connect()

    def go_down(self) -> None:
        if self.chance.random() < 0.5:
            self.cluster.is_down = not self.cluster.is_down
        else:
            node = self.chance.choice(self.lanes.nodes)
            node.is_loading = not node.is_loading

    def forget_scripts(self) -> None:
        self.chance.choice(self.lanes.nodes).forget_scripts()

    def listen(self) -> None:
        self.chance.choice(self.lanes.nodes).refuses_subscriptions = self.chance.random() < 0.5
        self.lanes.core.listen(self.chance.randrange(3))

    # ---- users

    def remove_or_add(self) -> None:
        key = self.chance.choice(KEYS)
        if not self.lanes.core.elections.remove(key.encode(), self.lanes.clock.now_ns()):
            self.add(key)

    def resign(self) -> None:
        place = self.lanes.core.elections.find(self.chance.choice(KEYS).encode())
        if place is not None:
            self.lanes.core.elections.resign(*place, 0, self.lanes.clock.now_ns())

    # ---- what must hold

    def check(self) -> None:
        for key in KEYS:
            if self.lanes.core.elections.find(key.encode()) is None:
                continue
            term_s = self.lanes.candidacy(key).remaining
            name = LAYOUT.leader_key(key.encode())
            leases_ms = [
                node.remaining_ms(name) for node in self.lanes.nodes if node.get(name) == b"node/1"
            ]
            assert term_s == 0 or [left_ms / 1000 >= term_s for left_ms in leases_ms] == [True]

    def heal(self) -> None:
        for slot in list(self.cluster.migrating):
            self.cluster.end_migration(slot)
        self.cluster.is_down = False
        for node, lane in zip(self.lanes.nodes, self.lanes.lanes, strict=True):
            node.is_loading = False
            if not lane.is_connected:
                lane.connect()
        self.lanes.read_map()
        for key in KEYS:
            if self.lanes.core.elections.find(key.encode()) is None:
                self.add(key)


def slot_of_name(name: bytes) -> int:
    return SLOT_OF_NAME[name]


SLOT_OF_NAME = {name: slot_of(key) for key in KEYS for name in redis_keys(key)}


@pytest.mark.parametrize("seed", range(60))
def test_no_term_outlasts_its_lease_and_all_are_led_in_the_end(seed: int) -> None:
    story = Story(seed)
    for _ in range(STEPS):
        story.step()
        story.check()
    story.heal()
    story.lanes.run_ms(2500)
    assert all(story.lanes.leads(key) for key in KEYS)
    story.check()
    story.lanes.core.elections.stop()
    story.lanes.run_ms(100)
    assert story.lanes.lanes[0].driver.is_quiet
    assert not [
        name for node in story.lanes.nodes for name in node.dump() if name.endswith(b":leader")
    ]
    assert sum(len(node.calls) for node in story.lanes.nodes) < SLOTS
