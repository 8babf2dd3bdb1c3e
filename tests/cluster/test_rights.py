"""A user of a cluster needs the rights of one server, and to ask for the slot map.

Rules of this file:
    * Each node has users of its own. A user is made on all of them, and dismissed behind the test.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis.crc import key_slot
from tests.clusters import HOST, Cluster
from tests.diary import until
from tests.resharding import SlotMove, reshard
from tests.rights import OF_ELECTIONS, PASSWORD, USER

from multielect import ServerError, ServerUnusableError

from .conftest import Stand
from .keys import KEYS, LAYOUT, PREFIX, keys_at, leader_key, leases, slot_of

OF_CLUSTERS = ("cluster|slots", "asking")
"""What a user needs besides, to find the primaries and to follow a slot that migrates."""

OF_FLEETS = ("hget", "hset", "hdel", "hgetall", "getrange", "strlen")


def allow(cluster: Cluster, *rights: str) -> None:
    """Let the user do this, on the elections' keys and channel, and nothing else."""
    rules = [f"+{right}" for right in rights]
    for node in cluster.nodes:
        node.call("ACL", "SETUSER", USER, "reset", "on", f">{PASSWORD}", *rules,
                  f"~{PREFIX}:*", f"&{PREFIX}:*")  # fmt: skip


@pytest.fixture
def user_url(cluster: Cluster, cluster_url: str) -> Iterator[str]:
    """The address of the cluster for a user who may do nothing yet."""
    allow(cluster)
    yield cluster_url.replace("://", f"://{USER}:{PASSWORD}@")
    for node in cluster.nodes:
        node.call("ACL", "DELUSER", USER)


def test_they_suffice(cluster: Cluster, user_url: str, stand: Stand) -> None:
    allow(cluster, *OF_ELECTIONS, *OF_CLUSTERS, *OF_FLEETS)
    nodes = [stand(user_url, balance=True) for _ in range(2)]
    groups, records = zip(*nodes, strict=True)
    until(lambda: [len(group.led) for group in groups] == [30, 30])
    for group in groups:
        group.stop()
    # A node that leaves before it knows that another one left hands its leases to that one, and
    # they end by themselves.
    until(lambda: leases(cluster) == {})
    assert [record.errors for record in records] == [[], []]


def test_a_slot_that_migrates_is_followed(cluster: Cluster, user_url: str, stand: Stand) -> None:
    allow(cluster, *OF_ELECTIONS, *OF_CLUSTERS)
    group, record = stand(user_url, ttl=2.0)
    until(lambda: len(group.led) == len(KEYS))
    source, target, _ = cluster.primaries
    slot = slot_of(keys_at(source)[0])
    move = SlotMove(cluster, slot, source, target)
    move.begin()
    move.move_batch(100)
    refreshes = group.counters.refreshes + 6 * len(KEYS)
    until(lambda: group.counters.refreshes >= refreshes)
    move.finish()
    cluster.wait_until_ok()
    reshard(cluster, [slot], target, source)
    assert record.demotions() == []
    assert record.errors == []


@pytest.mark.parametrize("names", ["the cluster", "a node"])
def test_without_the_slot_map_the_error_says_so(
    cluster: Cluster, user_url: str, stand: Stand, names: str
) -> None:
    allow(cluster, *OF_ELECTIONS)
    node_url = f"redis://{USER}:{PASSWORD}@{HOST}:{cluster.nodes[0].port}"
    group, record = stand(user_url if names == "the cluster" else node_url)
    error = record.wait_error(ServerUnusableError, f"its user {USER!r} may not run CLUSTER SLOTS")
    assert isinstance(error, ServerUnusableError)
    assert error.reason == "acl"
    assert group.led == []
    # It goes on by itself when the right is there.
    allow(cluster, *OF_ELECTIONS, *OF_CLUSTERS)
    until(lambda: len(group.led) == len(KEYS), 40.0)


def test_a_wrong_password(cluster: Cluster, cluster_url: str, stand: Stand) -> None:
    group, record = stand(cluster_url.replace("://", f"://{USER}:{PASSWORD}@"))
    error = record.wait_error(ServerUnusableError, f"user {USER!r}")
    assert isinstance(error, ServerUnusableError)
    assert error.reason == "auth"
    assert group.led == []
    assert PASSWORD not in str(error)


def test_a_user_whom_one_primary_does_not_know(
    cluster: Cluster, user_url: str, stand: Stand
) -> None:
    allow(cluster, *OF_ELECTIONS, *OF_CLUSTERS)
    # The one that has the number of buckets is asked for it before anything is led.
    asked_first = cluster.node_of(key_slot(LAYOUT.buckets_key))
    without = next(node for node in cluster.primaries if node is not asked_first)
    without.call("ACL", "DELUSER", USER)
    group, record = stand(user_url)
    error = record.wait_error(ServerUnusableError, f"{HOST}:{without.port}")
    assert isinstance(error, ServerUnusableError)
    assert error.reason == "auth"
    others = {leader_key(key) for key in set(KEYS) - set(keys_at(without))}
    until(lambda: {leader_key(str(each.key)) for each in group.led} == others)


def test_without_asking_the_error_says_so(cluster: Cluster, user_url: str, stand: Stand) -> None:
    allow(cluster, *OF_ELECTIONS, "cluster|slots")
    group, record = stand(user_url, ttl=1.0)
    until(lambda: len(group.led) == len(KEYS))
    source, target, _ = cluster.primaries
    slot = slot_of(keys_at(source)[0])
    move = SlotMove(cluster, slot, source, target)
    move.begin()
    move.move_batch(100)
    error = record.wait_error(ServerError, "the user needs")
    assert isinstance(error, ServerError)
    assert (error.code, error.request) == ("NOPERM", "refresh")
    assert "+asking" in str(error)
    move.finish()
    cluster.wait_until_ok()
    reshard(cluster, [slot], target, source)
    until(lambda: len(group.led) == len(KEYS))
