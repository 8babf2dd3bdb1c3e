"""The consumer's own Redis clients, with the connection settings of the user's.

Rules of this file:
    * The clients never repeat a request. The flow decides what is repeated.
    * They use RESP2 and bytes, because `_entries` reads such replies.
    * Every wait has a limit, which is longer than the server is asked to wait.
"""

from __future__ import annotations

from typing import Any, cast

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from .._connection.source import Target, address_of, cluster_nodes_of
from ..errors import ConfigError

WATCH_MS = 500
"""How long the server is asked to wait for a new entry."""

TIMEOUT_S = 5.0

_ASYNC = {
    redis.Connection: redis.asyncio.Connection,
    redis.SSLConnection: redis.asyncio.SSLConnection,
    redis.UnixDomainSocketConnection: redis.asyncio.UnixDomainSocketConnection,
}

# Settings that the connections of redis.asyncio do not know.
_SYNC_ONLY = frozenset({"socket_read_size", "command_packer"})


def client_of(source: str | redis.Redis) -> redis.Redis:
    """Return a client of the server of `source`.

    Raises:
        ConfigError: if `source` is a URL that cannot be read, or another kind of object.
    """
    connection, settings = _single_server(source)
    pool = redis.ConnectionPool(
        connection_class=connection, **_ours(settings, Retry(NoBackoff(), 0))
    )
    client = redis.Redis(connection_pool=pool)
    client.set_response_callback("XREAD", _as_it_is)
    return client


def async_client_of(source: str | redis.Redis) -> redis.asyncio.Redis:
    """Return a client for asyncio of the server of `source`.

    Raises:
        ConfigError: if `source` is a URL that cannot be read, or another kind of object or
            connection.
    """
    connection, settings = _single_server(source)
    twin = _ASYNC.get(connection)
    if twin is None:
        raise ConfigError(f"redis must connect by TCP, TLS or a unix socket, not by {connection!r}")
    settings = {name: value for name, value in settings.items() if name not in _SYNC_ONLY}
    pool = redis.asyncio.ConnectionPool(
        connection_class=twin, **_ours(settings, AsyncRetry(NoBackoff(), 0))
    )
    client = redis.asyncio.Redis(connection_pool=pool)
    client.response_callbacks["XREAD"] = cast("Any", _as_it_is)
    return client


def _single_server(source: str | redis.Redis) -> Target:
    if cluster_nodes_of(source):
        raise ConfigError(
            "stream consumers do not support Redis Cluster yet: use a single server, or an"
            " ElectionGroup on the cluster with a Fence for your writes"
        )
    return address_of(source)


def _ours(settings: dict[str, Any], retry: Any) -> dict[str, Any]:  # noqa: ANN401
    return settings | {
        "decode_responses": False,
        "health_check_interval": 0,
        "protocol": 2,
        "retry": retry,
        "retry_on_error": [],
        "socket_connect_timeout": TIMEOUT_S,
        "socket_timeout": TIMEOUT_S,
    }


def _as_it_is(reply: Any, **_options: Any) -> Any:  # noqa: ANN401
    return reply
