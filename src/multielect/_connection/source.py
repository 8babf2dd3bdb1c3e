"""The user's `redis` argument: how it is read, and when it is refused.

Rules of this file:
    * Every mistake that can be recognised is refused here, before anything is started. redis-py
      ignores what it does not understand, or fails at each attempt to connect.
    * No message has a password, or a part of a URL that may be one.
"""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import redis
import redis.asyncio
from redis.connection import AbstractConnection, ConnectionPool
from redis.sentinel import Sentinel

from ..errors import ConfigError
from .cluster import Address

_SCHEMES = ("redis://", "rediss://", "unix://")
_CLUSTER_SCHEMES = ("redis+cluster://", "rediss+cluster://")

_OPTIONS = frozenset(
    {
        *("client_name", "db", "decode_responses", "encoding", "encoding_errors"),
        *("health_check_interval", "legacy_responses", "max_connections", "password"),
        *("protocol", "retry_on_timeout", "socket_connect_timeout", "socket_keepalive"),
        *("socket_read_size", "socket_timeout", "username"),
    }
)
"""The options that a URL may have. Others need a `redis.Redis`."""

_TLS_OPTIONS = frozenset(
    {
        *("ssl_ca_certs", "ssl_ca_data", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile"),
        *("ssl_check_hostname", "ssl_ciphers", "ssl_exclude_verify_flags"),
        *("ssl_include_verify_flags", "ssl_keyfile", "ssl_min_version", "ssl_password"),
    }
)

_NOT_BY_UNIX = frozenset({"socket_keepalive"})

# Settings that a pool adds for its own clients, and that our connections do not use.
_NOT_FOR_US = (
    "maint_notifications_config",
    "maint_notifications_pool_handler",
    "oss_cluster_maint_notifications_handler",
    "event_dispatcher",
    "himport_registry",
)

_WHAT_IS_TAKEN = (
    "a URL (redis://, rediss://, unix://, redis+cluster://), a redis.Redis or a redis.RedisCluster"
)
_DEFAULT_PORT = 6379
_NO_SENTINEL = (
    "Sentinel is not fully supported yet: pass Sentinel.master_for(...), and read in the README"
    " what that does not cover"
)


class Target(NamedTuple):
    """The kind of connection to a server, and its settings."""

    kind: type[AbstractConnection]
    settings: dict[str, Any]


def address_of(source: str | redis.Redis | redis.RedisCluster) -> Target:
    """Return the kind of connection to a server, and its settings; of a cluster, to any node.

    Raises:
        ConfigError: if `source` is a URL that cannot be read in full, a client without a real
            server, or another kind of object.
    """
    if isinstance(source, str):
        url, _ = _first_of_cluster(source)
        _check_url(url)
        try:
            pool = ConnectionPool.from_url(url)
        # A bad value of an option.
        except ValueError as error:
            raise ConfigError(f"this Redis URL cannot be used: {error}") from None
    else:
        pool = _pool_of(source)
    settings = {
        name: value for name, value in pool.connection_kwargs.items() if name not in _NOT_FOR_US
    }
    _try_out(pool.connection_class, settings)
    return Target(pool.connection_class, settings)


def cluster_nodes_of(source: str | redis.Redis | redis.RedisCluster) -> tuple[Address, ...]:
    """Return the nodes of a cluster that `source` names; nothing if it names no cluster.

    A URL or client of a single node names no cluster: that node says so when it is asked.

    Raises:
        ConfigError: if `source` is a URL that cannot be read.
    """
    if isinstance(source, str):
        return _first_of_cluster(source)[1]
    if isinstance(source, redis.RedisCluster):
        return tuple(Address(str(node.host), int(node.port)) for node in _nodes_of(source))
    return ()


# ---- URLs


def _first_of_cluster(url: str) -> tuple[str, tuple[Address, ...]]:
    """Return the URL of the first node of a cluster's URL, and all nodes; the URL if it has none.

    Raises:
        ConfigError: if it is a cluster's, and cannot be read.
    """
    if not url.startswith(_CLUSTER_SCHEMES):
        return url, ()
    scheme, _, rest = url.partition("+cluster://")
    place, slash, tail = rest.partition("/")
    if not slash:
        place, question, tail = rest.partition("?")
        slash = question
    login, at, hosts = place.rpartition("@")
    nodes = tuple(_node_of(scheme, each) for each in hosts.split(","))
    if "@" in login:
        raise _no_nodes(scheme)
    if slash == "/" and tail.partition("?")[0] not in ("", "0"):
        raise ConfigError("a cluster has no databases but 0: leave the number out of its URL")
    return f"{scheme}://{login}{at}{hosts.split(',')[0]}{slash}{tail}", nodes


def _node_of(scheme: str, text: str) -> Address:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port == 0 or "@" in text:
        raise _no_nodes(scheme)
    return Address(host, port or _DEFAULT_PORT)


def _no_nodes(scheme: str) -> ConfigError:
    return ConfigError(
        f"a {scheme}+cluster:// URL must name nodes as HOST:PORT, separated by commas:"
        f" {scheme}+cluster://user:password@HOST:PORT,HOST:PORT, with special characters of a"
        " password written as %23 (#), %2F (/), %3F (?), %40 (@)"
    )


def _check_url(url: str) -> None:
    scheme = url.partition("://")[0] if "://" in url else ""
    if not url.startswith(_SCHEMES):
        if "sentinel" in scheme:
            raise ConfigError(_NO_SENTINEL)
        raise ConfigError(
            f"a Redis URL must begin with redis://, rediss://, unix:// or redis+cluster://"
            f"{f', not {scheme}://' if scheme.isalnum() else ''}"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # The error's text may have a password.
        raise _unreadable(scheme) from None
    # A password with unescaped characters may have become part of the path or query.
    behind = parts.query if scheme == "unix" else f"{parts.path}?{parts.query}"
    if "@" in behind or "#" in url:
        raise _unreadable(scheme)
    if scheme == "unix":
        _check_path(parts)
    else:
        _check_host(parts, port)
    _check_options(parts)


def _unreadable(scheme: str) -> ConfigError:
    return ConfigError(
        f"this {scheme}:// URL cannot be read: it must be {scheme}://user:password@host:port/0,"
        " with a port from 1 to 65535, and special characters of a password written as %23 (#),"
        " %2F (/), %3F (?), %40 (@)"
    )


def _check_path(parts: SplitResult) -> None:
    host = parts.netloc.rpartition("@")[2]
    if host or not parts.path.strip("/"):
        raise ConfigError(
            "a unix:// URL must have the full path of the socket, with three slashes:"
            " unix:///run/redis.sock?db=0"
        )


def _check_host(parts: SplitResult, port: int | None) -> None:
    if not parts.hostname:
        raise ConfigError(f"this {parts.scheme}:// URL names no host: {parts.scheme}://HOST:PORT/0")
    if port == 0:
        raise ConfigError("the port must be from 1 to 65535, not 0")
    database = _database(parts)
    if database and not _is_number(database):
        raise ConfigError(
            f"the path of a {parts.scheme}:// URL must be the number of a database, such as /0, and"
            " this one is not a whole number"
        )


def _check_options(parts: SplitResult) -> None:
    is_tls, is_unix = parts.scheme == "rediss", parts.scheme == "unix"
    allowed = _OPTIONS | (_TLS_OPTIONS if is_tls else frozenset())
    if is_unix:
        allowed -= _NOT_BY_UNIX
    seen = {
        "username": parts.username,
        "password": parts.password,
        "db": None if is_unix else _database(parts),
    }
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in _TLS_OPTIONS and not is_tls:
            raise ConfigError(
                f"{name} is an option of TLS, which {parts.scheme}:// does not use: write rediss://"
            )
        if name not in allowed:
            raise ConfigError(
                f"{parts.scheme}:// knows no option {name!r}; it knows {', '.join(sorted(allowed))}"
            )
        if seen.get(name) and seen[name] != value:
            raise ConfigError(f"this {parts.scheme}:// URL has {name} twice: use it once")
        if not value:
            raise ConfigError(f"the option {name} of this {parts.scheme}:// URL has no value")
        if name == "db" and not _is_number(value):
            raise ConfigError(f"db must be the number of a database, such as 0, not {value!r}")
        seen[name] = value


def _database(parts: SplitResult) -> str:
    return unquote(parts.path).removeprefix("/").removesuffix("/")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


# ---- clients


def _pool_of(source: object) -> ConnectionPool:
    if isinstance(source, redis.RedisCluster):
        source = _any_node_of(source)
    if not isinstance(source, redis.Redis) or isinstance(source, redis.client.Pipeline):
        _refuse(source)
    # A mock of a client may have neither attribute.
    pool: Any = getattr(source, "connection_pool", None)
    _check_connection_class(getattr(pool, "connection_class", None))
    found: ConnectionPool = pool
    return found


def _nodes_of(client: redis.RedisCluster) -> list[Any]:
    found: list[Any] = client.get_nodes()  # type: ignore[no-untyped-call]
    return found


def _any_node_of(client: redis.RedisCluster) -> redis.Redis:
    try:
        found: redis.Redis = client.get_redis_connection(_nodes_of(client)[0])
    # A client that was closed, or never connected.
    except Exception as error:
        raise ConfigError(f"this redis.RedisCluster knows no node: {error!r}") from error
    return found


def _check_connection_class(kind: object) -> None:
    if not isinstance(kind, type) or not issubclass(kind, AbstractConnection):
        raise ConfigError(
            f"this client connects by {kind!r}, which is not a connection class of redis-py"
        )
    if any(each.__module__.partition(".")[0] == "fakeredis" for each in kind.__mro__):
        raise ConfigError(
            "a FakeRedis has no socket, which elections need. In tests pass the URL of a real"
            " server (multielect.embedded starts one) or of fakeredis.TcpFakeServer, or a node of"
            " multielect.testing.SimulatedWorld"
        )


def _refuse(source: object) -> NoReturn:
    if isinstance(source, redis.client.Pipeline):
        raise ConfigError("redis must not be a pipeline: pass its client")
    if isinstance(source, (Sentinel, redis.asyncio.Sentinel)):
        raise ConfigError(_NO_SENTINEL)
    if isinstance(source, (redis.asyncio.Redis, redis.asyncio.RedisCluster)):
        name = type(source).__name__
        raise ConfigError(
            f"redis must not be a redis.asyncio.{name}, in multielect.aio either: the group"
            f" connects on its own threads. Pass the URL, or a redis.{name} of the same server"
        )
    if isinstance(source, ConnectionPool):
        raise ConfigError("redis must not be a pool: pass redis.Redis(connection_pool=...)")
    raise ConfigError(f"redis must be {_WHAT_IS_TAKEN}, not {_name(type(source))}")


def _try_out(kind: type[AbstractConnection], settings: dict[str, Any]) -> None:
    # This does not connect.
    try:
        kind(**settings)
    # redis-py, or a user's class, may raise anything.
    except Exception as error:
        raise ConfigError(f"these settings do not make a {_name(kind)}: {error}") from error


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
