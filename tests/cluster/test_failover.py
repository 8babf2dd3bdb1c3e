"""Primaries that are replaced, killed, frozen and restarted, under groups that lead.

Rules of this file:
    * Leases that the new primary knows go on. Others end cleanly and begin again under higher
      epochs. No election has two leaders.
    * A test that keeps all terms has a TTL far above the time of a failover, and a test that loses
      some has one far below it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from tests.clusters import Cluster, ClusterNode
from tests.diary import check_no_overlap, until
from tests.integration.record import Record

from multielect import DemotionReason, ElectionGroup

from .conftest import Stand
from .keys import KEYS, keys_at, leader_key, leases

ACKNOWLEDGED_MS = 15_000
LONG_TTL_S = 8.0
SHORT_TTL_S = 1.0

AGAIN_S = 1.0
"""How long after the new primary serves the last of its elections is led."""

FEW = 40
"""How many errors a failover may tell: attempts to connect, and no refused batches."""


def epochs(group: ElectionGroup) -> dict[str, int | None]:
    return {str(election.key): election.epoch for election in group.led}


def wait_refreshed(group: ElectionGroup) -> None:
    """Wait until a group has refreshed all that it leads."""
    refreshes = group.counters.refreshes + len(group.led)
    until(lambda: group.counters.refreshes >= refreshes)


def wait_all_led(*groups: ElectionGroup) -> None:
    until(lambda: sum(len(group.led) for group in groups) == len(KEYS))


def wait_told(records: tuple[Record, ...], count: int) -> None:
    """Wait until so many terms were told to have begun."""
    until(lambda: sum(len(record.elections()) for record in records) == count)


def wait_serving(node: ClusterNode) -> int:
    """Wait until a former replica serves. Returns the time."""
    until(
        lambda: node.members()[node.id].is_primary and node.info("cluster")["cluster_state"] == "ok"
    )
    return time.monotonic_ns()


@pytest.fixture
def primary(cluster: Cluster, cluster_url: str) -> ClusterNode:
    """A primary that some elections are on."""
    node = cluster.primaries[0]
    assert keys_at(node)
    return node


@pytest.fixture
def without_full_coverage(cluster: Cluster) -> Iterator[None]:
    """Have the other primaries serve while the slots of one are not served."""
    for node in cluster.nodes:
        node.call("CONFIG", "SET", "cluster-require-full-coverage", "no")
    yield
    for node in cluster.nodes:
        node.call("CONFIG", "SET", "cluster-require-full-coverage", "yes")


@pytest.mark.parametrize("how", ["", "FORCE", "TAKEOVER"])
def test_by_command_no_term_ends(
    cluster: Cluster, cluster_url: str, primary: ClusterNode, stand: Stand, how: str
) -> None:
    group, record = stand(cluster_url, ttl=3.0)
    wait_all_led(group)
    before = epochs(group)
    assert primary.call("WAIT", 1, ACKNOWLEDGED_MS) == 1
    [replica] = cluster.replicas_of(primary)
    cluster.failover(replica, how)
    for _ in range(3):
        wait_refreshed(group)
    assert epochs(group) == before
    assert record.demotions() == []
    assert set(leases(cluster)) == {leader_key(key) for key in KEYS}
    assert len(record.errors) <= FEW


def test_killed_no_term_ends_if_leases_last_longer(
    cluster: Cluster, cluster_url: str, primary: ClusterNode, stand: Stand
) -> None:
    group, record = stand(cluster_url, ttl=LONG_TTL_S)
    wait_all_led(group)
    before = epochs(group)
    assert primary.call("WAIT", 1, ACKNOWLEDGED_MS) == 1
    primary.kill()
    try:
        cluster.wait_until_ok()
        wait_refreshed(group)
        assert epochs(group) == before
        assert record.demotions() == []
        assert set(leases(cluster)) == {leader_key(key) for key in KEYS}
    finally:
        primary.restart()
        cluster.wait_until_ok()
    # It is a replica now, and the group minds it no more than any other.
    wait_refreshed(group)
    assert epochs(group) == before
    assert len(record.errors) <= FEW


def test_killed_its_elections_alone_begin_anew(
    cluster: Cluster,
    cluster_url: str,
    primary: ClusterNode,
    stand: Stand,
    without_full_coverage: None,
) -> None:
    nodes = [stand(cluster_url, ttl=SHORT_TTL_S) for _ in range(2)]
    groups, records = zip(*nodes, strict=True)
    wait_all_led(*groups)
    its_keys = set(keys_at(primary))
    [replica] = cluster.replicas_of(primary)
    primary.kill()
    try:
        served_ns = wait_serving(replica)
        wait_told(records, len(KEYS) + len(its_keys))
    finally:
        cluster.wait_until_ok()
        primary.restart()
        cluster.wait_until_ok()
    lost = [entry for record in records for entry in record.demotions()]
    assert {entry.key for entry in lost} == its_keys, "and none of the other primaries'"
    assert {entry.reason for entry in lost} == {DemotionReason.EXPIRED}
    again = [entry for record in records for entry in record.elections() if entry.at_ns > served_ns]
    assert max((entry.at_ns for entry in again), default=0) - served_ns < AGAIN_S * 1e9
    for group in groups:
        group.stop()
    check_no_overlap(*records)
    assert max(len(record.errors) for record in records) <= FEW


def test_frozen_until_it_was_replaced(
    cluster: Cluster,
    cluster_url: str,
    primary: ClusterNode,
    stand: Stand,
    without_full_coverage: None,
) -> None:
    nodes = [stand(cluster_url, ttl=SHORT_TTL_S) for _ in range(2)]
    groups, records = zip(*nodes, strict=True)
    wait_all_led(*groups)
    its_keys = set(keys_at(primary))
    [replica] = cluster.replicas_of(primary)
    primary.freeze()
    try:
        wait_serving(replica)
        wait_told(records, len(KEYS) + len(its_keys))
    finally:
        primary.thaw()
        cluster.wait_until_ok()
    for group in groups:
        wait_refreshed(group)
    wait_all_led(*groups)
    assert {entry.key for record in records for entry in record.demotions()} == its_keys
    for group in groups:
        group.stop()
    check_no_overlap(*records)
    assert leases(cluster) == {}


def test_frozen_for_less_than_a_lease_no_term_ends(
    cluster: Cluster, cluster_url: str, primary: ClusterNode, stand: Stand
) -> None:
    group, record = stand(cluster_url, ttl=LONG_TTL_S)
    wait_all_led(group)
    before = epochs(group)
    assert primary.call("WAIT", 1, ACKNOWLEDGED_MS) == 1
    [replica] = cluster.replicas_of(primary)
    primary.freeze()
    try:
        wait_serving(replica)
    finally:
        primary.thaw()
        cluster.wait_until_ok()
    wait_refreshed(group)
    assert epochs(group) == before
    assert record.demotions() == []


def test_restarted_empty_before_anybody_missed_it(
    cluster: Cluster, cluster_url: str, primary: ClusterNode, stand: Stand
) -> None:
    group, record = stand(cluster_url, ttl=LONG_TTL_S)
    wait_all_led(group)
    its_keys = set(keys_at(primary))
    before = epochs(group)
    primary.kill()
    primary.restart()
    cluster.wait_until_ok()
    wait_refreshed(group)
    wait_all_led(group)
    after = epochs(group)
    assert {key for key in KEYS if after[key] != before[key]} <= its_keys
    record.terms()
    assert {entry.key for entry in record.demotions()} <= its_keys


def test_all_of_it_restarted_empty(cluster: Cluster, cluster_url: str, stand: Stand) -> None:
    group, record = stand(cluster_url, ttl=SHORT_TTL_S)
    wait_all_led(group)
    for node in cluster.nodes:
        node.kill()
    until(lambda: group.led == [])
    for node in cluster.nodes:
        node.restart()
    cluster.wait_until_ok()
    record.wait_for(lambda: len(record.elections()) == 2 * len(KEYS))
    assert all(len(told) == 2 for told in record.terms().values())
    assert set(leases(cluster)) == {leader_key(key) for key in KEYS}
    # While nobody answers there are only attempts to connect, which grow rare.
    assert len(record.errors) <= 3 * FEW


def test_another_primary_takes_the_announcements_over(
    cluster: Cluster, cluster_url: str, stand: Stand
) -> None:
    def listened_to() -> list[ClusterNode]:
        return [node for node in cluster.up if node.client.client_list(_type="pubsub")]

    group, _ = stand(cluster_url, ttl=LONG_TTL_S)
    wait_all_led(group)
    until(lambda: len(listened_to()) == 1)
    [lost] = listened_to()
    [replica] = cluster.replicas_of(lost)
    lost.kill()
    try:
        until(lambda: len(listened_to()) == 1)
        assert not replica.members()[replica.id].is_primary, "it does not wait for the failover"
    finally:
        cluster.wait_until_ok()
        lost.restart()
        cluster.wait_until_ok()
    assert len(listened_to()) == 1
