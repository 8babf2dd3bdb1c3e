"""Promise 6: how a node reaches its server, and what it says where it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from tests.diary import until

from multielect import ConfigError, ConnectionLostError, MultielectError, ServerUnusableError
from multielect.embedded import EmbeddedServer

from .conftest import Stand
from .lease import LAYOUT, PREFIX, Lease
from .proxy import Proxy


@pytest.fixture
def private_proxy(private_server: EmbeddedServer) -> Iterator[Proxy]:
    """A TCP port that leads to the private server."""
    assert private_server.socket_path is not None
    with Proxy(private_server.socket_path) as wire:
        yield wire


def with_password(url: str, login: str) -> str:
    return url.replace("://", f"://{login}@")


def test_a_wrong_password_is_reported_and_may_come_right(
    private_server: EmbeddedServer, private_proxy: Proxy, stand: Stand
) -> None:
    with redis.Redis.from_url(private_server.url) as client:
        client.config_set("requirepass", "old secret")
        _, told = stand(with_password(private_proxy.url, ":new%20secret"), "k")
        _, told_none = stand(private_proxy.url, "k")
        wrong = told.wait_error(ServerUnusableError, "does not accept the password")
        none = told_none.wait_error(
            ServerUnusableError, "requires a password, and this node has none"
        )
        assert isinstance(wrong.__cause__, redis.AuthenticationError)
        assert isinstance(none.__cause__, redis.AuthenticationError)
        assert "secret" not in str(wrong)
        client.config_set("requirepass", "new secret")
        told.wait_elected("k")
        assert told_none.entries == []


@pytest.mark.parametrize("mget", ["+mget", "-mget"])
def test_a_user_with_just_the_rights_that_it_takes(
    private_server: EmbeddedServer, private_proxy: Proxy, stand: Stand, mget: str
) -> None:
    with redis.Redis.from_url(private_server.url) as client:
        # fmt: off
        client.execute_command(
            "ACL", "SETUSER", "node", "on", ">secret", f"~{PREFIX}:*", "resetchannels",
            f"&{PREFIX}:*", "-@all",
            "+hello", "+eval", "+evalsha", "+get", mget, "+set", "+incr", "+del", "+pttl",
            "+pexpireat",
            "+time", "+subscribe", "+unsubscribe", "+publish", "+role", "+client",
        )
        # fmt: on
        url = with_password(private_proxy.url, "node:secret")
        first, told_first = stand(url, "k", ttl=1.0)
        epoch = told_first.wait_elected("k").epoch
        until(lambda: first.counters.refreshes >= 3)
        _, told_second = stand(url, "k", ttl=10.0)
        first.stop()
        assert told_second.wait_elected("k").epoch > epoch
        users = {each["user"] for each in client.client_list(_type="pubsub")}
        assert users == {"node"}
        assert told_first.errors == []


def test_a_user_without_rights_is_told_so(private_server: EmbeddedServer, stand: Stand) -> None:
    with redis.Redis.from_url(private_server.url) as client:
        client.execute_command("ACL", "SETUSER", "node", "on", ">secret", "~other:*", "&*", "+@all")
        _, told = stand(with_password(private_server.url, "node:secret"), "k", ttl=0.6)
        error = told.wait_error(ServerUnusableError, "its user 'node' may not run GET")
        assert isinstance(error.__cause__, redis.exceptions.NoPermissionError)
        client.execute_command("ACL", "SETUSER", "node", f"~{PREFIX}:*")
        told.wait_elected("k")


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("form", ["url", "client", "client that decodes"])
def test_a_node_stands_where_it_is_told_to(
    kind: str, form: str, server: EmbeddedServer, proxy: Proxy, stand: Stand
) -> None:
    url = f"{proxy.url}/3" if kind == "tcp" else f"{server.url}?db=3"
    with (
        redis.Redis.from_url(url) as here,
        redis.Redis.from_url(server.url) as elsewhere,
        redis.Redis.from_url(url, decode_responses=form == "client that decodes") as given,
    ):
        group, told = stand(url if form == "url" else given, "k")
        told.wait_elected("k")
        assert Lease(here).holder == group.holder.encode()
        assert elsewhere.keys("*") == []
        # The node opens connections of its own, and leaves the client's alone.
        assert given.ping()
        group.stop()
        assert given.ping()
        assert not Lease(here).is_held


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_client_set_up_for_either_protocol_will_do(
    protocol: int, redis_url: str, stand: Stand
) -> None:
    with redis.Redis.from_url(redis_url, protocol=protocol) as given:
        _, told = stand(given, "k")
        told.wait_elected("k")


def test_a_server_that_is_not_there_is_reported_with_a_cause(redis_url: str, stand: Stand) -> None:
    group, told = stand(redis_url.replace("server.sock", "nowhere.sock"), "k", ttl=0.6)
    error = told.wait_error(ConnectionLostError, "cannot connect")
    assert isinstance(error.__cause__, redis.ConnectionError)
    assert not group["k"].is_leader
    assert group["k"].leader_id is None


def test_a_replica_is_refused(private_server: EmbeddedServer, stand: Stand) -> None:
    with redis.Redis.from_url(private_server.url) as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        _, told = stand(private_server.url, "k", ttl=0.6)
        told.wait_error(ServerUnusableError, "can only be held on a primary")
        assert told.entries == []
        client.execute_command("REPLICAOF", "NO", "ONE")
        told.wait_elected("k")
        assert client.exists(LAYOUT.buckets_key)


@pytest.mark.parametrize(
    ("policy", "what"),
    [("volatile-ttl", "may evict leases when"), ("allkeys-lru", "may evict leases and epochs")],
)
def test_a_server_that_may_evict_leases_is_warned_of(
    policy: str, what: str, private_server: EmbeddedServer, stand: Stand
) -> None:
    with redis.Redis.from_url(private_server.url) as client:
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", policy)
        _, told = stand(private_server.url, "k")
        error = told.wait_error(MultielectError, what)
        assert f"maxmemory-policy {policy}" in str(error)
        told.wait_elected("k")


@pytest.mark.parametrize(
    ("limit", "policy"), [("100mb", "noeviction"), ("0", "allkeys-lru")], ids=["kept", "unlimited"]
)
def test_a_server_that_evicts_nothing_is_not(
    limit: str, policy: str, private_server: EmbeddedServer, stand: Stand
) -> None:
    with redis.Redis.from_url(private_server.url) as client:
        client.config_set("maxmemory", limit)
        client.config_set("maxmemory-policy", policy)
        _, told = stand(private_server.url, "k")
        told.wait_elected("k")
        assert told.errors == []


class InMemory(redis.Connection):
    """A connection of somebody's tests: what it calls its socket is none."""

    def _connect(self) -> Any:
        return object()


def test_a_connection_without_a_real_socket_is_told_of(stand: Stand) -> None:
    client = redis.Redis(connection_pool=redis.ConnectionPool(connection_class=InMemory))
    _, told = stand(client, "k")
    told.wait_error(ConfigError, "InMemory connects by a object: elections need a real socket")
