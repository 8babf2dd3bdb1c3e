"""The cluster that other tests run on does what its operations say, as plain redis-py sees it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.crc import key_slot
from tests.clusters import SLOTS, Cluster, ClusterNode
from tests.resharding import SlotMove, migrate_atomically, migrates_atomically, reshard

TAG = "{t}"
SLOT = key_slot(b"t")
KEYS = [f"{TAG}{number}" for number in range(10)]
# On Redis 6.2 a primary that gave way to FORCE acknowledged nothing for more than five seconds.
ACKNOWLEDGED_MS = 15_000
GET_ALL = "return redis.call('MGET', unpack(KEYS))"


@pytest.fixture
def source(cluster: Cluster) -> Iterator[ClusterNode]:
    """The primary that serves `SLOT`, in which `KEYS` are and nothing else."""
    node = cluster.node_of(SLOT)
    node.call("FLUSHALL")
    for key in KEYS:
        node.call("SET", key, "there")
    yield node
    for primary in cluster.primaries:
        primary.call("CLUSTER", "SETSLOT", SLOT, "STABLE")
    cluster.wait_until_ok()


@pytest.fixture
def target(cluster: Cluster, source: ClusterNode) -> ClusterNode:
    """Another primary."""
    return next(node for node in cluster.primaries if node is not source)


def says(ask: Callable[[], Any]) -> Any:
    """Return an answer, or the first word of an error."""
    try:
        return ask()
    except redis.ResponseError as error:
        return type(error).__name__.removesuffix("Error").upper()


def get(node: ClusterNode, *keys: str) -> Any:
    return says(lambda: node.call("EVAL", GET_ALL, len(keys), *keys))


def get_asking(node: ClusterNode, *keys: str) -> Any:
    """Return what the node says behind ASKING, on one connection."""
    with node.client.client() as connection:
        connection.execute_command("ASKING")
        return says(lambda: connection.execute_command("EVAL", GET_ALL, len(keys), *keys))


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_is_formed_and_every_slot_is_served(cluster: Cluster) -> None:
    assert len(cluster.primaries) == len(cluster.replicas) == 3
    assert [len(cluster.replicas_of(primary)) for primary in cluster.primaries] == [1, 1, 1]
    host, port = cluster.startup_nodes()[0]
    with redis.RedisCluster(host=host, port=port) as client:
        for number in range(100):
            client.set(f"key-{number}", number)
        assert client.get("key-42") == b"42"
        assert client.dbsize(target_nodes=redis.RedisCluster.PRIMARIES) >= 100
    assert len({cluster.node_of(slot).id for slot in (0, SLOTS // 2, SLOTS - 1)}) == 3


def test_a_reshard_moves_slots_with_their_keys(
    cluster: Cluster, source: ClusterNode, target: ClusterNode
) -> None:
    reshard(cluster, [SLOT], source, target, keys_a_batch=3)
    assert cluster.node_of(SLOT) is target
    assert get(target, *KEYS) == ["there"] * len(KEYS)
    assert all(get(node, *KEYS) == "MOVED" for node in cluster.nodes if node is not target)


def test_a_slot_in_migration_answers_by_where_the_keys_are(
    cluster: Cluster, source: ClusterNode, target: ClusterNode
) -> None:
    move = SlotMove(cluster, SLOT, source, target)
    move.begin()
    assert get(source, *KEYS) == ["there"] * len(KEYS)
    move.move(KEYS[:4])

    assert get(source, *KEYS[4:]) == ["there"] * 6, "all there: it runs"
    # Redis 6.2 sends to the target, which says TRYAGAIN.
    one_is_gone = "ASK" if source.info("server")["redis_version"] < "7" else "TRYAGAIN"
    assert get(source, KEYS[3], KEYS[4]) == one_is_gone
    assert get(source, *KEYS[:4]) == "ASK", "all are gone"
    assert get(source, f"{TAG}new", f"{TAG}newer") == "ASK", "none was there"
    assert get(target, *KEYS[:4]) == "MOVED", "without ASKING"
    assert get_asking(target, *KEYS[:4]) == ["there"] * 4
    assert get_asking(target, KEYS[3], KEYS[4]) == "TRYAGAIN"
    assert get_asking(target, f"{TAG}new") == [None], "one key need not be there"
    assert get_asking(target, KEYS[4]) == [None], "nor is it looked for at the source"
    assert cluster.node_of(SLOT) is source

    assert move.move_batch(2) == 2
    assert source.call("CLUSTER", "COUNTKEYSINSLOT", SLOT) == 4
    move.finish()
    cluster.wait_until_ok()
    assert get(source, KEYS[0]) == "MOVED"
    assert get(target, *KEYS) == ["there"] * len(KEYS)


def test_an_abandoned_move_leaves_the_slot(
    cluster: Cluster, source: ClusterNode, target: ClusterNode
) -> None:
    move = SlotMove(cluster, SLOT, source, target)
    move.begin()
    assert get(source, f"{TAG}new") == "ASK"
    move.abandon()
    assert get(source, f"{TAG}new") == [None]
    assert get_asking(target, KEYS[0]) == "MOVED"


def test_slots_that_migrate_at_once(
    cluster: Cluster, source: ClusterNode, target: ClusterNode
) -> None:
    if not migrates_atomically(source):
        pytest.skip("this server has no CLUSTER MIGRATESLOTS")
    migrate_atomically(cluster, SLOT, SLOT, source, target)
    assert cluster.node_of(SLOT) is target
    assert get(target, *KEYS) == ["there"] * len(KEYS)
    assert get(source, KEYS[0]) == "MOVED"


@pytest.mark.parametrize("how", ["", "FORCE", "TAKEOVER"])
def test_a_failover_has_the_replica_serve(cluster: Cluster, source: ClusterNode, how: str) -> None:
    [replica] = cluster.replicas_of(source)
    assert source.call("WAIT", 1, ACKNOWLEDGED_MS) == 1
    cluster.failover(replica, how)
    assert cluster.node_of(SLOT) is replica
    assert cluster.replicas_of(replica) == [source]
    assert get(replica, *KEYS) == ["there"] * len(KEYS)
    assert get(source, KEYS[0]) == "MOVED"


def test_a_killed_primary_is_replaced_and_comes_back_as_a_replica(
    cluster: Cluster, source: ClusterNode
) -> None:
    [replica] = cluster.replicas_of(source)
    assert source.call("WAIT", 1, ACKNOWLEDGED_MS) == 1
    source.kill()
    cluster.wait_until_ok()
    assert cluster.node_of(SLOT) is replica
    assert get(replica, *KEYS) == ["there"] * len(KEYS)
    source.restart()
    cluster.wait_until_ok()
    assert cluster.replicas_of(replica) == [source]


def test_a_frozen_primary_is_replaced_and_steps_down_when_it_wakes(
    cluster: Cluster, source: ClusterNode
) -> None:
    [replica] = cluster.replicas_of(source)
    source.freeze()
    cluster.wait_until_ok()
    assert cluster.node_of(SLOT) is replica
    source.thaw()
    cluster.wait_until_ok()
    assert cluster.replicas_of(replica) == [source]


def test_nothing_of_it_is_left(binary: str, tmp_path: Path) -> None:
    with Cluster(tmp_path, binary, primaries=1, replicas=1) as running:
        pids = [node.pid for node in running.nodes]
        running.nodes[0].freeze()
    assert not any(runs(pid) for pid in pids)
    assert all("Ready to accept connections" in node.log for node in running.nodes), "logs stay"


def test_nothing_is_left_if_forming_it_is_interrupted(
    binary: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids: list[int] = []

    def interrupted(cluster: Cluster) -> None:
        pids.extend(node.pid for node in cluster.nodes)
        raise KeyboardInterrupt

    monkeypatch.setattr(Cluster, "_form", interrupted)
    # It is kept, as a server that nobody holds ends by itself.
    broken = Cluster(tmp_path, binary, primaries=1, replicas=1)
    with pytest.raises(KeyboardInterrupt), broken:
        pass
    assert len(pids) == 2
    assert not any(runs(pid) for pid in pids)
