"""Groups for the tests on clusters, and an address of the cluster that a module shares.

Rules of this file:
    * A test that takes `cluster_url` finds the cluster without a key. It leaves it whole.
    * What a test starts here ends with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import pytest
import redis
from tests.clusters import Cluster
from tests.integration.record import Record

from multielect import ElectionGroup

from .keys import KEYS, PREFIX


class Stand(Protocol):
    """Starts a group that stands for `keys`, and a record of what it tells."""

    def __call__(
        self, source: str | redis.Redis | redis.RedisCluster, *keys: str, **settings: Any
    ) -> tuple[ElectionGroup, Record]: ...


@pytest.fixture
def cluster_url(cluster: Cluster) -> Iterator[str]:
    """The address of the shared cluster, which names all its nodes and holds no keys yet."""
    cluster.wait_until_ok()
    for primary in cluster.primaries:
        primary.call("FLUSHALL")
    yield "redis+cluster://" + ",".join(f"{host}:{port}" for host, port in cluster.startup_nodes())
    for node in cluster.nodes:
        if not node.is_up:
            raise AssertionError(f"the node of port {node.port} was left down")


@pytest.fixture
def stand() -> Iterator[Stand]:
    """Start groups, of all `KEYS` unless some are named; they are stopped when the test ends."""
    started: list[ElectionGroup] = []

    def start(
        source: str | redis.Redis | redis.RedisCluster, *keys: str, **settings: Any
    ) -> tuple[ElectionGroup, Record]:
        record = Record()
        group = ElectionGroup(
            source,
            **{
                "prefix": PREFIX,
                "ttl": 2.0,
                "on_elected": record.elected,
                "on_demoted": record.demoted,
                "on_error": record.error,
                **settings,
            },
        )
        group.add_many(keys or KEYS)
        started.append(group)
        group.start()
        return group, record

    yield start
    for group in started:
        group.stop(timeout=1.0)
