"""A group finds the nodes of a cluster however they name each other.

Rules of this file:
    * The nodes of the shared cluster are told by CONFIG SET how to name each other, and told back.
    * Each way of naming is tried with the slot map, with MOVED and with ASK.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import redis
from tests.clusters import HOST, Cluster
from tests.diary import until
from tests.resharding import SlotMove

from multielect import ElectionGroup, MultielectError

from .conftest import Stand
from .keys import KEYS, keys_at, leader_key, leases, slot_of

NAME = "localhost"
Configure = Callable[[str, str], None]


def hosts(cluster: Cluster) -> set[str | None]:
    """Return how the nodes name each other in their slot maps."""
    maps = [node.call("CLUSTER", "SLOTS") for node in cluster.nodes]
    return {each[0] for ranges in maps for _, _, *nodes in ranges for each in nodes}


def epochs(group: ElectionGroup) -> dict[str, int | None]:
    return {str(election.key): election.epoch for election in group.led}


@pytest.fixture
def configure(cluster: Cluster, cluster_url: str) -> Iterator[Configure]:
    """Set something of all nodes, until the test ends."""
    # These two alone would make redis-py's own client read the answers as something else.
    before: dict[str, str] = {}

    def set_all(name: str, value: str) -> None:
        for node in cluster.nodes:
            try:
                before.setdefault(name, node.client.config_get(name)[name])
                node.call("CONFIG", "SET", name, value)
            except (KeyError, redis.ResponseError):
                pytest.skip(f"this server has no {name}")

    yield set_all
    for name, value in before.items():
        for node in cluster.nodes:
            node.call("CONFIG", "SET", name, value)
    until(lambda: hosts(cluster) == {HOST})


def go_through_all(cluster: Cluster, url: str, stand: Stand) -> None:
    """Lead, follow MOVED behind a failover, and ASK into a slot that migrates."""
    group, record = stand(url, ttl=3.0)
    until(lambda: len(group.led) == len(KEYS))
    before = epochs(group)
    giver = cluster.primaries[0]
    [replica] = cluster.replicas_of(giver)
    cluster.failover(replica)
    taker = next(node for node in cluster.primaries if node is not replica)
    key = keys_at(replica)[0]
    move = SlotMove(cluster, slot_of(key), replica, taker)
    move.begin()
    move.move_batch(100)
    # Four rounds: one more than fit into a TTL, so that each lease was refreshed where it is.
    refreshes = group.counters.refreshes + 4 * len(KEYS)
    until(lambda: group.counters.refreshes >= refreshes)
    move.finish()
    cluster.wait_until_ok()
    refreshes = group.counters.refreshes + len(KEYS)
    until(lambda: group.counters.refreshes >= refreshes)
    assert epochs(group) == before
    assert record.demotions() == []
    assert record.errors == []
    assert set(leases(cluster)) == {leader_key(key) for key in KEYS}


def test_by_no_host_at_all(
    cluster: Cluster, cluster_url: str, configure: Configure, stand: Stand
) -> None:
    configure("cluster-preferred-endpoint-type", "unknown-endpoint")
    until(lambda: hosts(cluster) == {None})
    go_through_all(cluster, f"redis+cluster://{HOST}:{cluster.nodes[0].port}", stand)


def test_by_their_names(
    cluster: Cluster, cluster_url: str, configure: Configure, stand: Stand
) -> None:
    configure("cluster-announce-hostname", NAME)
    configure("cluster-preferred-endpoint-type", "hostname")
    until(lambda: hosts(cluster) == {NAME})
    go_through_all(cluster, f"redis://{HOST}:{cluster.nodes[-1].port}", stand)


def test_by_names_that_they_have_not_got_yet(
    cluster: Cluster, cluster_url: str, configure: Configure, stand: Stand
) -> None:
    configure("cluster-preferred-endpoint-type", "hostname")
    until(lambda: hosts(cluster) == {"?"})
    group, record = stand(cluster_url)
    record.wait_error(MultielectError, "serves slot")
    assert group.led == []
    configure("cluster-announce-hostname", NAME)
    until(lambda: len(group.led) == len(KEYS))
