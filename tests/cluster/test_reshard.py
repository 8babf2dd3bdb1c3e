"""Slots that move between primaries cost no lease: the classic way, at once, and left half done.

Rules of this file:
    * A group refreshes its leases all the while. What is asserted is that no term ended, and that
      each kept its epoch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from tests.clusters import Cluster, ClusterNode
from tests.diary import until
from tests.resharding import SlotMove, migrate_atomically, migrates_atomically, reshard

from multielect import DemotionReason, ElectionGroup

from .conftest import Stand
from .keys import LAYOUT, keys_at, leader_key, leases, slot_of

MANY = tuple(f"k{number}" for number in range(500))
TTL_S = 2.0


def same_bucket(count: int) -> list[str]:
    """Return so many elections of one bucket."""
    keys = (f"b{number}" for number in itertools.count())
    bucket = LAYOUT.bucket(b"b0")
    return list(itertools.islice((k for k in keys if LAYOUT.bucket(k.encode()) == bucket), count))


BUCKET = same_bucket(7)
LED, NEW = BUCKET[:6], BUCKET[6]
SLOT = slot_of(NEW)


def epochs(group: ElectionGroup) -> dict[str, int | None]:
    return {str(election.key): election.epoch for election in group.led}


def let_pass(ttls: int, group: ElectionGroup) -> None:
    """Wait until a group has refreshed all that it leads for so many TTLs."""
    refreshes = group.counters.refreshes + 3 * ttls * len(group.led)
    until(lambda: group.counters.refreshes >= refreshes)


def redis_keys(key: str) -> list[str]:
    """Return the two Redis keys of an election."""
    return [leader_key(key), LAYOUT.epoch_key(key.encode()).decode()]


@pytest.fixture
def source(cluster: Cluster, cluster_url: str) -> Iterator[ClusterNode]:
    """The primary of the elections of one bucket. Their slot is whole again behind the test."""
    yield cluster.node_of(SLOT)
    for primary in cluster.primaries:
        primary.call("CLUSTER", "SETSLOT", SLOT, "STABLE")
    cluster.wait_until_ok()


@pytest.fixture
def target(cluster: Cluster, source: ClusterNode) -> ClusterNode:
    """Another primary."""
    return next(node for node in cluster.primaries if node is not source)


def test_the_classic_way_and_back(
    cluster: Cluster, cluster_url: str, source: ClusterNode, target: ClusterNode, stand: Stand
) -> None:
    group, record = stand(cluster_url, *MANY, ttl=TTL_S)
    until(lambda: len(group.led) == len(MANY))
    before = epochs(group)
    # All slots of a primary that have elections: a third of them.
    slots = sorted({slot_of(key) for key in keys_at(source, MANY)})
    assert 60 < len(slots) < 110
    for giver, taker in ((source, target), (target, source)):
        reshard(cluster, slots, giver, taker, keys_a_batch=1)
        let_pass(1, group)
        assert epochs(group) == before
        assert {leader_key(key) for key in MANY} == set(leases(cluster))
    assert record.demotions() == []
    assert record.errors == []


def test_at_once_and_back(
    cluster: Cluster, cluster_url: str, source: ClusterNode, target: ClusterNode, stand: Stand
) -> None:
    if not migrates_atomically(source):
        pytest.skip("this server has no CLUSTER MIGRATESLOTS")
    group, record = stand(cluster_url, *MANY, ttl=TTL_S)
    until(lambda: len(group.led) == len(MANY))
    before = epochs(group)
    [(first, last)] = source.members()[source.id].slots
    for giver, taker in ((source, target), (target, source)):
        migrate_atomically(cluster, first, last, giver, taker)
        let_pass(1, group)
        assert epochs(group) == before
        assert {leader_key(key) for key in MANY} == set(leases(cluster))
    assert record.demotions() == []
    assert record.errors == []


def test_left_half_done_leases_go_on_and_free_elections_wait(
    cluster: Cluster, cluster_url: str, source: ClusterNode, target: ClusterNode, stand: Stand
) -> None:
    group, record = stand(cluster_url, *LED, ttl=TTL_S)
    until(lambda: len(group.led) == len(LED))
    before = epochs(group)
    move = SlotMove(cluster, SLOT, source, target)
    move.begin()
    # One whole, of one the lease alone, of one the epoch alone; three stay.
    for names in (redis_keys(LED[0]), redis_keys(LED[1])[:1], redis_keys(LED[2])[1:]):
        move.move(names)
    group.add(NEW)
    let_pass(2, group)
    assert epochs(group) == before
    assert not group[NEW].is_leader

    move.finish()
    record.wait_elected(NEW)
    let_pass(2, group)
    assert {key: epochs(group)[key] for key in LED} == before
    assert record.demotions() == []
    group.stop()
    assert leases(cluster) == {}
    reshard(cluster, [SLOT], target, source)


@pytest.fixture
def newcomer(cluster: Cluster, source: ClusterNode) -> Iterator[ClusterNode]:
    """A primary that has no slots, as when a cluster grows; else it replicates the source."""
    [replica] = cluster.replicas_of(source)
    replica.call("CLUSTER", "RESET", "SOFT")
    for primary in cluster.primaries:
        if primary is not replica:
            replica.call("CLUSTER", "MEET", *primary.address)
    cluster.wait_until_ok()
    yield replica
    replica.call("CLUSTER", "REPLICATE", source.id)
    cluster.wait_until_ok()


def test_a_primary_that_imports_its_first_slot_is_found_before_it_serves_any(
    cluster: Cluster, cluster_url: str, source: ClusterNode, newcomer: ClusterNode, stand: Stand
) -> None:
    group, record = stand(cluster_url, *LED, ttl=TTL_S)
    until(lambda: len(group.led) == len(LED))
    before = epochs(group)
    move = SlotMove(cluster, SLOT, source, newcomer)
    move.begin()
    for key in LED[:3]:
        move.move(redis_keys(key))
    let_pass(3, group)
    assert epochs(group) == before
    assert record.demotions() == []
    move.finish()
    let_pass(2, group)
    assert epochs(group) == before
    group.stop()
    assert leases(cluster) == {}
    reshard(cluster, [SLOT], newcomer, source)


def test_a_stop_in_the_midst_releases_what_it_can(
    cluster: Cluster, cluster_url: str, source: ClusterNode, target: ClusterNode, stand: Stand
) -> None:
    group, record = stand(cluster_url, *LED, ttl=2.0)
    until(lambda: len(group.led) == len(LED))
    move = SlotMove(cluster, SLOT, source, target)
    move.begin()
    move.move(redis_keys(LED[0])[:1])
    group.stop(timeout=1.0)
    assert {entry.reason for entry in record.demotions()} <= {
        DemotionReason.STOPPED,
        DemotionReason.EXPIRED,
    }
    # What could not be released ends by itself.
    until(lambda: not any(node.call("KEYS", "*:leader") for node in cluster.primaries))
    move.finish()
    reshard(cluster, [SLOT], target, source)


def test_cancelled_only_what_had_moved_begins_anew(
    cluster: Cluster, cluster_url: str, source: ClusterNode, target: ClusterNode, stand: Stand
) -> None:
    group, record = stand(cluster_url, *LED, ttl=TTL_S)
    until(lambda: len(group.led) == len(LED))
    before = epochs(group)
    move = SlotMove(cluster, SLOT, source, target)
    move.begin()
    move.move(redis_keys(LED[0]))
    group.add(NEW)
    let_pass(2, group)
    assert epochs(group) == before
    move.abandon()
    record.wait_elected(NEW)
    again = record.wait_elected(LED[0], above=before[LED[0]] or 0)
    let_pass(2, group)
    after = epochs(group)
    assert {key: after[key] for key in LED[1:]} == {key: before[key] for key in LED[1:]}
    assert after[LED[0]] == again.epoch
    assert {entry.key for entry in record.demotions()} == {LED[0]}
    record.terms()
