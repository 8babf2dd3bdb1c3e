"""The address of Redis at the door: what is refused, in words that hold no password."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args
from unittest.mock import MagicMock

import fakeredis
import pytest
import redis
import redis.asyncio
from redis.sentinel import Sentinel

from multielect import ElectionGroup, Elector, Source, aio
from multielect._connection.source import address_of, cluster_nodes_of
from multielect.errors import ConfigError
from multielect.streams import AsyncStreamConsumer, StreamConsumer
from multielect.testing import SimulatedNode

PUBLIC_CLASSES = [ElectionGroup, Elector, aio.ElectionGroup, aio.Elector]

REFUSED = {
    "localhost:6379": r"must begin with redis://, rediss://, unix:// or redis\+cluster://$",
    " redis://h": r"must begin with redis://",
    "": r"must begin with redis://",
    "http://h": r"must begin with .*, not http://",
    "valkey://h": r"must begin with .*, not valkey://",
    "REDIS://h": r"must begin with .*, not REDIS://",
    "redis+cluster://": "must name nodes as HOST:PORT, separated by commas",
    "redis+cluster://h:1,": "must name nodes as HOST:PORT",
    "redis+cluster://h:1,:2": "must name nodes as HOST:PORT",
    "redis+cluster://h:1,h:0": "must name nodes as HOST:PORT",
    "redis+cluster://h:1,h:x": "must name nodes as HOST:PORT",
    "redis+cluster://u:secret@h:1,u:secret@h:2": "must name nodes as HOST:PORT",
    "redis+cluster://h:1/1": "a cluster has no databases but 0",
    "redis+cluster://h:1,h:2?foo=1": "redis:// knows no option 'foo'",
    "rediss+cluster://h:1?foo=1": "rediss:// knows no option 'foo'",
    "redis+sentinel://h": "pass Sentinel.master_for",
    "sentinel://h:26379/mymaster": "pass Sentinel.master_for",
    "redis://": "names no host",
    "redis://:6379/0": "names no host",
    "redis://:secret@/0": "names no host",
    "redis://h:0": "the port must be from 1 to 65535, not 0",
    "redis://h:65536": "with a port from 1 to 65535",
    "redis://h:-1": "with a port from 1 to 65535",
    "redis://h:port": "with a port from 1 to 65535",
    "redis://[::1": "cannot be read",
    "redis://h/prod": "the number of a database, such as /0",
    "redis://h/1/2": "the number of a database, such as /0",
    "redis://h/-1": "the number of a database, such as /0",
    "redis://h/1.5": "the number of a database, such as /0",
    "redis://h?db=prod": "db must be the number of a database, such as 0, not 'prod'",
    "redis://h?db=-1": "db must be the number of a database, such as 0, not '-1'",
    "unix:///run/redis.sock?db=prod": "db must be the number of a database",
    "redis://h/1?db=2": "has db twice",
    "redis://h?db=1&db=2": "has db twice",
    "redis://u:secret@h?password=other": "has password twice",
    "redis://u:secret@h?username=other": "has username twice",
    "redis://h?db=": "the option db of this redis:// URL has no value",
    "redis://h?foo=1": "redis:// knows no option 'foo'; it knows client_name, db, ",
    "redis://h?foo": "knows no option 'foo'",
    "redis://h?port=7000": "knows no option 'port'",
    "redis://h?credential_provider=x": "knows no option 'credential_provider'",
    "redis://h?retry=3": "knows no option 'retry'",
    "unix:///run/redis.sock?socket_keepalive=yes": "unix:// knows no option 'socket_keepalive'",
    "redis://h?ssl_cert_reqs=none": "ssl_cert_reqs is an option of TLS, which redis:// does not",
    "unix:///x?ssl_ca_certs=/ca": "ssl_ca_certs is an option of TLS, which unix:// does not use",
    "rediss://h?ssl_cert_reqs=perhaps": "perhaps",
    "redis://h?socket_timeout=soon": "socket_timeout",
    "redis://h?protocol=7": "protocol",
    "unix://": "with three slashes",
    "unix:///": "with three slashes",
    "unix://run/redis.sock": "with three slashes",
    # Passwords that are not written as a URL wants them.
    "redis://:secret#more@h/0": "%23",
    "redis://:12#secret": "%23",
    "redis://:secret/more@h/0": "%2F",
    "redis://u:12/secret@h/0": "%2F",
    "redis://:secret?more@h/0": "%3F",
    "redis://u:12?secret@h/0": "%3F",
    "rediss://u:12?secret=more@h/0": "%3F",
}

TAKEN = {
    "redis://h": ("h", None),
    "redis://h:7000": ("h", None),
    "redis://h/": ("h", None),
    "redis://h/3": ("h", 3),
    "redis://h/3/": ("h", 3),
    "redis://h/3?db=3": ("h", 3),
    "redis://h?db=3&client_name=me&socket_timeout=1.5&max_connections=7": ("h", 3),
    "redis://u:p%40%23%2F%3Fss@h/3": ("h", 3),
    "redis://[::1]:6379/3": ("::1", 3),
    "rediss://h/3?ssl_cert_reqs=none&ssl_ca_certs=/ca.pem": ("h", 3),
    "unix:///run/redis.sock?db=3": (None, 3),
    "unix://:secret@/run/redis.sock": (None, None),
}


def test_what_is_taken_has_a_name_for_annotations() -> None:
    assert get_args(Source) == (str, redis.Redis, redis.RedisCluster, SimulatedNode.__base__)


@pytest.mark.parametrize("url", REFUSED)
def test_a_url_that_is_not_wholly_understood_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=REFUSED[url]) as refused:
        address_of(url)
    error: BaseException | None = refused.value
    while error is not None:
        assert "secret" not in str(error)
        assert error.__suppress_context__ or error.__context__ is None
        error = error.__cause__


@pytest.mark.parametrize("url", TAKEN)
def test_any_other_url_is_taken(url: str) -> None:
    _, settings = address_of(url)
    assert (settings.get("host"), settings.get("db")) == TAKEN[url]


def bare(kind: type) -> Any:
    """A client that was never given a server to ask."""
    made: Any = object.__new__(kind)
    return made


def sentinel() -> Any:
    made: Any = Sentinel  # redis-py does not type it
    return made([("h", 1)])


def blocking_pool() -> redis.ConnectionPool:
    made: Any = redis.BlockingConnectionPool
    pool: redis.ConnectionPool = made()
    return pool


OBJECTS: list[tuple[Callable[[], Any], str]] = [
    (lambda: None, "must be a URL .* or a redis.RedisCluster, not NoneType"),
    (lambda: b"redis://h", "not bytes"),
    (lambda: 6379, "not int"),
    (lambda: MagicMock(spec=redis.Redis), "which is not a connection class of redis-py"),
    (fakeredis.FakeRedis, "a FakeRedis has no socket.*multielect.embedded.*multielect.testing"),
    (fakeredis.FakeStrictRedis, "a FakeRedis has no socket"),
    (lambda: bare(redis.RedisCluster), "this redis.RedisCluster knows no node"),
    (
        lambda: bare(redis.asyncio.RedisCluster),
        "must not be a redis.asyncio.RedisCluster.* a redis.RedisCluster of the same server",
    ),
    (sentinel, "pass Sentinel.master_for"),
    (redis.asyncio.Redis, "must not be a redis.asyncio.Redis.* Pass the URL, or a redis.Redis"),
    (lambda: redis.Redis().pipeline(), "must not be a pipeline: pass its client"),
    (redis.ConnectionPool, r"must not be a pool: pass redis.Redis\(connection_pool=...\)"),
    (
        lambda: redis.Redis(connection_pool=redis.ConnectionPool(foo=1)),
        "these settings do not make a redis.connection.Connection: .*'foo'",
    ),
]


@pytest.mark.parametrize(("make", "words"), OBJECTS)
def test_a_client_without_a_real_server_of_its_own_is_refused(
    make: Callable[[], Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        address_of(make())


@pytest.mark.parametrize(
    "client",
    [
        redis.Redis(),
        redis.Redis(ssl=True),
        sentinel().master_for("x"),
        sentinel().master_for("x", ssl=True),
        redis.Redis(unix_socket_path="/run/redis.sock"),
        redis.Redis(connection_pool=blocking_pool()),
    ],
)
def test_a_client_of_one_server_is_taken(client: redis.Redis) -> None:
    kind, _ = address_of(client)
    assert kind is client.connection_pool.connection_class


@pytest.mark.parametrize("kind", PUBLIC_CLASSES)
@pytest.mark.parametrize("source", ["redis://h/prod", "redis://h?foo=1", fakeredis.FakeRedis()])
def test_each_public_class_refuses_it_before_anything_is_started(kind: Any, source: Any) -> None:
    with pytest.raises(ConfigError):
        kind(source, prefix="p")


@pytest.mark.parametrize("kind", [StreamConsumer, AsyncStreamConsumer])
def test_so_do_consumers(kind: Any) -> None:
    with pytest.raises(ConfigError, match="the number of a database"):
        kind("redis://h/prod", prefix="p", partitions=["a"], handler=print)


@pytest.mark.parametrize("kind", [StreamConsumer, AsyncStreamConsumer])
def test_a_stream_consumer_takes_no_cluster_yet(kind: Any) -> None:
    with pytest.raises(ConfigError, match="do not support Redis Cluster yet"):
        kind("redis+cluster://h:1", prefix="p", partitions=["a"], handler=print)


def test_the_nodes_of_a_cluster() -> None:
    assert cluster_nodes_of("redis://h:1") == ()
    assert cluster_nodes_of("redis+cluster://h:1,i,[::1]:3/0?client_name=c") == (
        ("h", 1),
        ("i", 6379),
        ("::1", 3),
    )
    _, settings = address_of("rediss+cluster://u:p%40@h:1,i:2?client_name=c")
    found = {name: settings[name] for name in ("host", "port", "username", "password")}
    assert found == {"host": "h", "port": 1, "username": "u", "password": "p@"}
    assert settings["client_name"] == "c"
