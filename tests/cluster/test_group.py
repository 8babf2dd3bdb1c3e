"""Groups on a cluster keep what they keep on one server, however the cluster was named."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
import redis
from tests.clusters import HOST, Cluster
from tests.diary import WITHIN_S, until
from tests.ports import free_port

from multielect import ConfigError, DemotionReason, ElectionGroup, Elector, aio

from .conftest import Stand
from .keys import KEYS, LAYOUT, PREFIX, keys_at, leader_key, leases


def led(group: ElectionGroup) -> set[str]:
    return {str(election.key) for election in group.led}


def url_with_a_dead_node(cluster: Cluster) -> str:
    return f"redis+cluster://{HOST}:{free_port()},{HOST}:{cluster.nodes[0].port}"


def url_of_a_primary(cluster: Cluster) -> str:
    return f"redis://{HOST}:{cluster.primaries[-1].port}"


def url_of_a_replica(cluster: Cluster) -> str:
    return f"redis://{HOST}:{cluster.replicas[0].port}"


def client_of_a_replica(cluster: Cluster) -> redis.Redis:
    return redis.Redis(host=HOST, port=cluster.replicas[0].port)


def client_of_the_cluster(cluster: Cluster) -> redis.RedisCluster:
    return redis.RedisCluster(host=HOST, port=cluster.nodes[0].port)


@pytest.mark.parametrize(
    "source",
    [
        url_with_a_dead_node,
        url_of_a_primary,
        url_of_a_replica,
        client_of_a_replica,
        client_of_the_cluster,
    ],
)
def test_it_leads_all_elections_until_it_stops(
    cluster: Cluster,
    cluster_url: str,
    stand: Stand,
    source: Callable[[Cluster], str | redis.Redis | redis.RedisCluster],
) -> None:
    assert all(keys_at(primary) for primary in cluster.primaries), "each has some"
    given = source(cluster)
    group, record = stand(given)
    until(lambda: led(group) == set(KEYS))
    assert set(leases(cluster)) == {leader_key(key) for key in KEYS}
    before = group.counters.refreshes
    until(lambda: group.counters.refreshes >= before + 6 * len(KEYS))
    assert group.counters.demoted == 0
    group.stop()
    assert leases(cluster) == {}
    assert {entry.reason for entry in record.demotions()} == {DemotionReason.STOPPED}
    if not isinstance(given, str):
        given.close()


def test_two_nodes_share_none(cluster: Cluster, cluster_url: str, stand: Stand) -> None:
    first, _ = stand(cluster_url)
    second, _ = stand(cluster_url)
    until(lambda: led(first) | led(second) == set(KEYS))
    assert not led(first) & led(second)
    first.stop()
    until(lambda: led(second) == set(KEYS))
    second.stop()
    assert leases(cluster) == {}


def test_a_release_at_any_primary_wakes_a_standby_at_once(
    cluster: Cluster, cluster_url: str, stand: Stand
) -> None:
    leader, _ = stand(cluster_url, ttl=60.0)
    until(lambda: led(leader) == set(KEYS))
    standby, record = stand(cluster_url, ttl=60.0)
    until(lambda: all(standby[key].leader_id == leader.node_id for key in KEYS))
    for primary in cluster.primaries:
        key = keys_at(primary)[0]
        since_ns = time.monotonic_ns()
        leader[key].resign()
        entry = record.wait_elected(key)
        # A standby that is not woken looks again after a TTL.
        assert entry.at_ns - since_ns < 5_000_000_000
    assert standby.counters.wakeups >= len(cluster.primaries)
    leader.stop()
    until(lambda: led(standby) == set(KEYS))


def test_the_announcements_are_heard_on_one_connection(
    cluster: Cluster, cluster_url: str, stand: Stand
) -> None:
    def listening() -> int:
        return sum(len(node.client.client_list(_type="pubsub")) for node in cluster.nodes)

    group, _ = stand(cluster_url)
    until(lambda: led(group) == set(KEYS) and listening() == 1)
    before = group.counters.refreshes
    until(lambda: group.counters.refreshes >= before + 3 * len(KEYS))
    assert listening() == 1
    lost = [node for node in cluster.nodes if node.client.client_list(_type="pubsub")]
    for node in lost:
        node.client.client_kill_filter(_type="pubsub")
    until(lambda: group.counters.reconnects == 1 and listening() == 1)
    assert led(group) == set(KEYS)
    assert group.counters.demoted == 0


def test_an_elector(cluster: Cluster, cluster_url: str) -> None:
    with Elector(cluster_url, prefix=PREFIX, ttl=60) as first:
        assert first.wait(WITHIN_S)
        with Elector(url_of_a_replica(cluster), prefix=PREFIX, ttl=60) as second:
            assert not second.wait(0.0)
            first.stop()
            assert second.wait(WITHIN_S)
    assert leases(cluster) == {}


def test_from_a_loop(cluster: Cluster, cluster_url: str) -> None:
    async def scenario() -> None:
        async with aio.ElectionGroup(cluster_url, prefix=PREFIX, ttl=60) as group:
            group.add_many(KEYS)
            for key in KEYS:
                assert await group[key].wait(WITHIN_S)

    asyncio.run(scenario(), debug=True)
    assert leases(cluster) == {}


def test_a_fleet_shares_out_and_hands_over(
    cluster: Cluster, cluster_url: str, stand: Stand
) -> None:
    groups = [stand(cluster_url, balance=True)[0] for _ in range(2)]

    def is_settled(share: int) -> bool:
        return all(len(led(each)) == share and each.wait_balanced(0.0) for each in groups)

    until(lambda: is_settled(30))
    groups.append(stand(url_of_a_replica(cluster), balance=True)[0])
    until(lambda: is_settled(20))
    assert set().union(*map(led, groups)) == set(KEYS)
    groups.pop(0).stop()
    until(lambda: is_settled(30))
    assert set().union(*map(led, groups)) == set(KEYS)


def test_another_number_of_buckets_is_refused(cluster: Cluster, cluster_url: str) -> None:
    with ElectionGroup(cluster_url, prefix=PREFIX, ttl=60) as group:
        assert group.add("a").wait(WITHIN_S)
    other = ElectionGroup(url_of_a_replica(cluster), prefix=PREFIX, buckets=16, ttl=60)
    other.add("a")
    with pytest.raises(ConfigError, match=r"divided into 256 buckets, not 16"):
        other.start(wait=WITHIN_S)
    name = LAYOUT.buckets_key.decode()
    [holder] = [node for node in cluster.primaries if node.call("KEYS", name)]
    assert holder.call("GET", name) == "256"


def test_a_single_bucket(cluster: Cluster, cluster_url: str, stand: Stand) -> None:
    group, record = stand(cluster_url, buckets=1)
    until(lambda: led(group) == set(KEYS))
    assert len({node for node in cluster.primaries if node.call("KEYS", "*:leader")}) == 1
    group.stop()
    assert record.errors == []
    assert leases(cluster) == {}
