"""The elections of the tests on clusters, and where in a cluster they are."""

from __future__ import annotations

from collections.abc import Iterable

from redis.crc import key_slot
from tests.clusters import Cluster, ClusterNode

from multielect._protocol.keys import group_layout

PREFIX = "cl"
LAYOUT = group_layout(PREFIX)
KEYS = tuple(f"k{number}" for number in range(60))


def leader_key(key: str) -> str:
    """Return the Redis key of an election's lease."""
    return LAYOUT.leader_key(key.encode()).decode()


def slot_of(key: str) -> int:
    """Return the hash slot of an election."""
    return key_slot(leader_key(key).encode())


def keys_at(node: ClusterNode, keys: Iterable[str] = KEYS) -> list[str]:
    """Return the elections that a primary serves."""
    served = node.members()[node.id]
    return [key for key in keys if served.serves(slot_of(key))]


def leases(cluster: Cluster) -> dict[str, str]:
    """Return the holders of all leases, by the Redis key, as the primaries have them."""
    found: dict[str, str] = {}
    for node in cluster.primaries:
        for name in node.call("KEYS", "*:leader"):
            holder = node.call("GET", name)
            if holder is not None:
                found[name] = holder
    return found
