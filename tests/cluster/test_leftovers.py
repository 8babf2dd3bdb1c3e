"""Groups on a cluster leave no thread, no descriptor and no connection behind.

Rules of this file:
    * It is counted before and after, in this process, and by the nodes.
"""

from __future__ import annotations

import gc
import threading
import time
from pathlib import Path

import pytest
from tests.clusters import HOST, Cluster
from tests.diary import WITHIN_S, until
from tests.ports import free_port

from multielect import ConfigError, ConnectionLostError, ElectionGroup, ServerUnusableError

from .keys import KEYS, PREFIX, leases

TIMES = 10


def descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def clients(cluster: Cluster) -> int:
    return sum(len(node.client.client_list(_type="normal")) for node in cluster.nodes) + sum(
        len(node.client.client_list(_type="pubsub")) for node in cluster.nodes
    )


class Count:
    """What there is of this process before a test, and must be again behind it."""

    def __init__(self) -> None:
        gc.collect()
        self._threads = set(threading.enumerate())
        self._descriptors = descriptors()

    def check(self) -> None:
        # Threads of attempts to connect, and of readings of the slot map, end a moment later.
        until(lambda: not set(threading.enumerate()) - self._threads)
        gc.collect()
        until(lambda: descriptors() <= self._descriptors)


def test_of_groups_that_led(cluster: Cluster, cluster_url: str) -> None:
    connected = clients(cluster)
    count = Count()
    for _ in range(TIMES):
        with ElectionGroup(cluster_url, prefix=PREFIX, ttl=60) as group:
            group.add_many(KEYS)
            until(lambda group=group: len(group.led) == len(KEYS))  # type: ignore[misc]
    count.check()
    until(lambda: clients(cluster) <= connected)
    assert leases(cluster) == {}


@pytest.mark.parametrize("names", ["the cluster", "a node"])
def test_of_groups_that_are_stopped_in_the_midst_of_connecting(
    cluster: Cluster, cluster_url: str, names: str
) -> None:
    url = cluster_url if names == "the cluster" else f"redis://{HOST}:{cluster.nodes[-1].port}"
    connected = clients(cluster)
    count = Count()
    for number in range(2 * TIMES):
        with ElectionGroup(url, prefix=PREFIX, ttl=60) as group:
            group.add_many(KEYS)
            # Each stops a little later than the one before.
            time.sleep(0.002 * number)
    count.check()
    until(lambda: clients(cluster) <= connected)
    until(lambda: leases(cluster) == {})


def test_of_groups_that_never_reach_a_node() -> None:
    count = Count()
    for _ in range(3):
        url = f"redis+cluster://{HOST}:{free_port()},{HOST}:{free_port()}"
        group = ElectionGroup(url, prefix=PREFIX, ttl=60)
        group.add("a")
        with pytest.raises((ConnectionLostError, ServerUnusableError)):
            group.start(wait=0.2)
    count.check()


def test_of_groups_with_another_number_of_buckets(cluster: Cluster, cluster_url: str) -> None:
    with ElectionGroup(cluster_url, prefix=PREFIX, ttl=60) as group:
        assert group.add("a").wait(WITHIN_S)
    connected = clients(cluster)
    count = Count()
    for _ in range(3):
        refused = ElectionGroup(cluster_url, prefix=PREFIX, ttl=60, buckets=2)
        refused.add("a")
        with pytest.raises(ConfigError):
            refused.start(wait=WITHIN_S)
    count.check()
    until(lambda: clients(cluster) <= connected)
