"""Slots that move between the primaries of a cluster: the classic way, step by step, and at once.

Rules of this file:
    * The classic way is that of redis-cli: IMPORTING, MIGRATING, GETKEYSINSLOT and MIGRATE, and
      SETSLOT NODE at the target, at the source, and then at the other primaries.
    * A slot is as far as the test took it: nothing moves between two steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .clusters import Cluster, ClusterNode
from .diary import WITHIN_S, until

MIGRATE_TIMEOUT_MS = 5_000
KEYS_A_BATCH = 100


class SlotMove:
    """One slot on its way from one primary to another, the classic way."""

    def __init__(
        self, cluster: Cluster, slot: int, source: ClusterNode, target: ClusterNode
    ) -> None:
        self.slot = slot
        self.source = source
        self.target = target
        self._cluster = cluster

    def begin(self) -> None:
        """Mark the slot: from here on it migrates."""
        self.target.call("CLUSTER", "SETSLOT", self.slot, "IMPORTING", self.source.id)
        self.source.call("CLUSTER", "SETSLOT", self.slot, "MIGRATING", self.target.id)

    def move(self, keys: Sequence[str]) -> None:
        """Move these keys, in one MIGRATE. A key that is gone meanwhile is no error."""
        place = (*self.target.address, "", 0, MIGRATE_TIMEOUT_MS)
        self.source.call("MIGRATE", *place, "KEYS", *keys)

    def move_batch(self, count: int) -> int:
        """Move up to so many keys, in one MIGRATE; returns how many there were."""
        keys = self.source.call("CLUSTER", "GETKEYSINSLOT", self.slot, count)
        if keys:
            self.move(keys)
        return len(keys)

    def finish(self, keys_a_batch: int = KEYS_A_BATCH) -> None:
        """Move what is left, and give the slot to the target."""
        while self.move_batch(keys_a_batch):
            pass
        others = [
            node for node in self._cluster.primaries if node not in {self.source, self.target}
        ]
        # If the source knew it first and the target ended then, nobody would have the slot.
        for node in (self.target, self.source, *others):
            node.call("CLUSTER", "SETSLOT", self.slot, "NODE", self.target.id)

    def abandon(self) -> None:
        """Give up: the slot stays at the source, and so do the keys that are still there."""
        for node in (self.source, self.target):
            node.call("CLUSTER", "SETSLOT", self.slot, "STABLE")


def reshard(
    cluster: Cluster,
    slots: Iterable[int],
    source: ClusterNode,
    target: ClusterNode,
    *,
    keys_a_batch: int = KEYS_A_BATCH,
) -> None:
    """Move slots the classic way, one after the other. Returns when all nodes agree."""
    for slot in slots:
        move = SlotMove(cluster, slot, source, target)
        move.begin()
        move.finish(keys_a_batch)
    cluster.wait_until_ok()


def migrates_atomically(node: ClusterNode) -> bool:
    """Return whether the server can move slots at once (Valkey from 9.0 on)."""
    return any(line.startswith("MIGRATESLOTS") for line in node.call("CLUSTER", "HELP"))


def migrate_atomically(
    cluster: Cluster,
    first_slot: int,
    last_slot: int,
    source: ClusterNode,
    target: ClusterNode,
    *,
    within_s: float = WITHIN_S,
) -> None:
    """Move a range of slots by one `CLUSTER MIGRATESLOTS`. Returns when all nodes agree."""
    asked = ("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", first_slot, last_slot, "NODE", target.id)
    source.call(*asked)
    until(
        lambda: _newest_migration(source)["state"] in {"success", "failed", "cancelled"}, within_s
    )
    migration = _newest_migration(source)
    assert migration["state"] == "success", migration
    cluster.wait_until_ok()


def _newest_migration(node: ClusterNode) -> dict[str, str]:
    newest = node.call("CLUSTER", "GETSLOTMIGRATIONS")[0]
    return dict(zip(newest[::2], newest[1::2], strict=True))
