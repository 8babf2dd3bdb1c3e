"""A client of the server of a command, which may be a cluster.

Rules of this file:
    * A URL of any node of a cluster means the cluster, as it does for a group.
    * A client sends nothing twice, unless a node of a cluster sends it elsewhere.
    * Each function here does for a cluster what it does for one server.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.exceptions import RedisClusterException
from redis.retry import Retry

from multielect._connection.source import cluster_nodes_of

Client: TypeAlias = redis.Redis | redis.RedisCluster

FAILURES = (redis.RedisError, RedisClusterException)
"""What a call of a client may raise."""

_CLUSTER = re.compile(r"^(rediss?)\+cluster://([^/?]*@)?([^/?,]*)[^/?]*(.*)$")
"""The URL of a cluster: scheme, login, first node, and what is behind the nodes."""


def connect(url: str, *, connect_timeout_s: float, timeout_s: float) -> Client:
    """Return a client of a server or of a cluster.

    Args:
        url: the URL of the server, of the cluster, or of any node of the cluster.
        connect_timeout_s: how long to wait for a connection.
        timeout_s: how long to wait for an answer.

    Raises:
        ValueError: for a URL that cannot be understood.
        redis.RedisError: if it is a cluster's, and no node answers. A single server is not asked
            whether it answers.
    """
    nodes = [_node(*address) for address in cluster_nodes_of(url)]
    if not nodes:
        client = redis.Redis.from_url(
            url,
            retry=Retry(NoBackoff(), 0),
            socket_connect_timeout=connect_timeout_s,
            socket_timeout=timeout_s,
        )
        if not is_in_cluster(client):
            return client
        client.close()
    parts = _CLUSTER.match(url)
    try:
        return redis.RedisCluster(
            url="{}://{}{}{}".format(*parts.groups("")) if parts else url,
            startup_nodes=nodes,
            retry=Retry(NoBackoff(), 0),
            socket_connect_timeout=connect_timeout_s,
            socket_timeout=timeout_s,
        )
    except RedisClusterException as error:
        raise redis.ConnectionError(str(error)) from error


def primaries_of(client: redis.RedisCluster) -> list[redis.Redis]:
    """Return a client of each primary."""
    nodes: list[Any] = client.get_primaries()  # type: ignore[no-untyped-call]
    return [client.get_redis_connection(node) for node in nodes]


def _node(host: str, port: int) -> ClusterNode:
    return ClusterNode(host, port)  # type: ignore[no-untyped-call]


def is_in_cluster(client: redis.Redis) -> bool:
    """Return whether a server says that it is a node of a cluster."""
    try:
        return bool(client.info("cluster").get("cluster_enabled"))
    except redis.RedisError:
        # Whoever uses the client finds out why.
        return False


def values(client: Client, keys: Sequence[bytes]) -> list[bytes | None]:
    """Return the values of some keys, in their order; None for a key that is not there."""
    read = client.mget_nonatomic if isinstance(client, redis.RedisCluster) else client.mget
    return cast("list[bytes | None]", read(keys)) if keys else []
