"""A model of the nodes of a Redis Cluster, and a core that has a lane to each of them.

Rules of this file:
    * A node answers as real nodes of Redis 7.0 and Valkey do, as measured: MOVED for a slot that is
      elsewhere; of a slot that is being migrated ASK if it has no key of the script, TRYAGAIN if it
      has some; behind ASKING it runs what it has, and a script of one key in any case. It looks for
      the script after that.
    * Keys of one slot may be at two nodes, each key at one. The test moves them one by one.
    * A test may have a node say something else: `says` is asked first.
    * Nothing reads the slot map: the test does, by `read_map`.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any, NamedTuple

from multielect._core.slot_map import slot_of_key
from multielect._runtime.clock import ManualClock
from multielect.testing._model import Batch, RedisModel
from multielect.testing._resp import Push, Refusal, Reply

from .lanes import SLOTS, Lanes, names, slot_of
from .rig import DUE_MS, LAYOUT, MS

LOADING = "LOADING Redis is loading the dataset in memory"
IS_DOWN = "CLUSTERDOWN The cluster is down"
NOT_SERVED = "CLUSTERDOWN Hash slot not served"
TRYAGAIN = "TRYAGAIN Multiple keys request during rehashing of slot"


class Call(NamedTuple):
    """A script call that came to a node, and the code of the error that it got, if any."""

    at_ns: int
    batch: Batch
    is_asking: bool
    error: str | None

    @property
    def keys(self) -> list[bytes]:
        return list(self.batch.keys)

    @property
    def request(self) -> str:
        return self.batch.request


class ClusterNode(RedisModel):
    """A primary of a cluster.

    Attributes:
        address: where it is, as redirections have it.
        is_loading: whether it reads its data, and serves nothing.
        says: what it says of a slot, in place of what a real node would say.
        calls: the script calls that came to it.
        subscriptions: how many SUBSCRIBE it was sent.
        refuses_subscriptions: whether it refuses them, as without the right.
    """

    def __init__(self, cluster: Cluster, clock: ManualClock, address: str) -> None:
        super().__init__(clock)
        self.cluster = cluster
        self.address = address
        self.is_loading = False
        self.says: dict[int, str] = {}
        self.calls: list[Call] = []
        self.subscriptions = 0
        self.refuses_subscriptions = False
        self._is_asking = False

    def call(self, words: list[bytes]) -> Reply:
        if words == [b"ASKING"]:
            self._is_asking = True
            return b"OK"
        if words[0] == b"SUBSCRIBE":
            self.subscriptions += 1
            if self.refuses_subscriptions:
                return Refusal("NOPERM No permissions to access a channel")
            return Push((b"subscribe", words[1], 1))
        return super().call(words)

    def clear(self) -> None:
        """Forget what calls came."""
        self.calls.clear()
        self.batches.clear()

    def asked(self, request: str) -> list[Call]:
        """Return the calls of this kind so far."""
        return [call for call in self.calls if call.request == request]

    def has(self, key: bytes) -> bool:
        return self.store.find(key) is not None

    def _run(self, known: Any, batch: Batch) -> Reply:
        is_asking, self._is_asking = self._is_asking, False
        (slot,) = {slot_of_key(key) for key in batch.keys}
        text = self.says.get(slot) or self._redirection(slot, batch.keys, is_asking=is_asking)
        reply = Refusal(text) if text else super()._run(known, batch)
        error = reply.text.split()[0] if isinstance(reply, Refusal) else None
        assert isinstance(self.clock, ManualClock)
        self.calls.append(Call(self.clock.now_ns(), batch, is_asking, error))
        return reply

    def _redirection(self, slot: int, keys: Iterable[bytes], *, is_asking: bool) -> str:
        """Return what the node says in place of running a script; nothing if it runs it."""
        if self.is_loading:
            return LOADING
        owner = self.cluster.owners[slot]
        target = self.cluster.migrating.get(slot)
        if owner is None:
            return NOT_SERVED
        if self.cluster.is_down:
            return IS_DOWN
        there = [self.has(key) for key in keys]
        if self is owner and target is not None and not all(there):
            is_to_wait = any(there) and not self.cluster.asks_for_some
            return TRYAGAIN if is_to_wait else f"ASK {slot} {target.address}"
        if self is target and is_asking:
            return TRYAGAIN if len(there) > 1 and not all(there) else ""
        return "" if self is owner else f"MOVED {slot} {owner.address}"


class Cluster:
    """Which node serves which slot.

    Attributes:
        nodes: the primaries.
        owners: the node that serves each slot; None if the slot is not covered.
        migrating: the node that imports a slot from the one that serves it.
        is_down: whether all nodes refuse to serve.
        asks_for_some: whether a node that has some keys of a script, and not all, says ASK and not
            TRYAGAIN, as Redis 6.2 does.
    """

    def __init__(self, clock: ManualClock, count: int) -> None:
        self.nodes = [ClusterNode(self, clock, f"127.0.0.1:{7000 + at}") for at in range(count)]
        self.owners: list[ClusterNode | None] = [
            self.nodes[slot * count // SLOTS] for slot in range(SLOTS)
        ]
        self.migrating: dict[int, ClusterNode] = {}
        self.is_down = False
        self.asks_for_some = False

    def begin_migration(self, slot: int, target: ClusterNode) -> None:
        """Migrate a slot, of which no key has left yet."""
        self.migrating[slot] = target

    def move_key(self, key: bytes) -> None:
        """Move a key to the node that imports its slot, as MIGRATE does."""
        source, target = self.owners[slot_of_key(key)], self.migrating[slot_of_key(key)]
        assert source is not None
        stored = source.store.find(key)
        if stored is not None:
            target.store.put_until(key, *stored)
            source.store.delete(key)

    def end_migration(self, slot: int) -> None:
        """Move what is left, and have the importing node serve the slot."""
        source = self.owners[slot]
        assert source is not None
        for key in source.dump():
            if slot_of_key(key) == slot:
                self.move_key(key)
        self.owners[slot] = self.migrating.pop(slot)

    def hand_over(self, slots: Iterable[int], target: ClusterNode) -> None:
        """Have another node serve these slots, with all their keys, at once."""
        for slot in slots:
            self.begin_migration(slot, target)
            self.end_migration(slot)


class ClusterLanes(Lanes):
    """A core with a lane to each of so many primaries, which share the slots evenly."""

    def __init__(self, count: int = 2, **settings: Any) -> None:
        super().__init__(count, is_cluster=True, **settings)
        self.cluster = Cluster(self.clock, count)
        self.nodes = self.cluster.nodes
        for index, lane in enumerate(self.lanes):
            lane.server = self.nodes[index]
            self.core.name_lane(index, self.nodes[index].address.encode())

    def read_map(self) -> None:
        """Read the slot map, as the engine does."""
        first = 0
        for owner, slots in groupby(self.cluster.owners):
            beyond = first + len(list(slots))
            lane = None if owner is None else self.nodes.index(owner)
            self.core.map_slots(first, beyond - 1, lane)
            first = beyond

    def wants_map(self) -> bool:
        """Take whether the map is to be read again."""
        return self.take_report().wants_slots

    def send_refreshes(self) -> None:
        """Let time pass until all leases are due, and put their refreshes on their way."""
        self.clock.advance_ns(DUE_MS * MS)
        self.turn()

    def clear(self) -> None:
        """Forget what calls came to the nodes."""
        for node in self.nodes:
            node.clear()

    def errors(self) -> list[tuple[int, str]]:
        """Take the errors there are, each with its lane."""
        return [(error.lane, error.text) for error in self.take_report().errors]


def of_one_slot(count: int, *, but: int = -1) -> list[str]:
    """Return keys of one bucket, whose slot the second of two lanes serves at first."""
    slots: dict[int, list[str]] = {}
    for key in names(10_000):
        if but != slot_of(key) >= SLOTS // 2:
            keys = slots.setdefault(slot_of(key), [])
            keys.append(key)
            if len(keys) == count:
                return keys
    raise AssertionError("no bucket has so many")


def redis_keys(*keys: str) -> list[bytes]:
    """Return the Redis keys of these elections' leases and epochs."""
    raws = [key.encode() for key in keys]
    return [name for raw in raws for name in (LAYOUT.leader_key(raw), LAYOUT.epoch_key(raw))]
