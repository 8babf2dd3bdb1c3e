"""How a group is: connected to whom, since when, what went wrong last; and waiting for it."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import redis
from tests.diary import WITHIN_S, until
from tests.ports import free_port

from multielect import (
    ClosedError,
    ConfigError,
    ConnectionLostError,
    ElectionGroup,
    Elector,
    Health,
    ServerUnusableError,
)
from multielect._engine.engine import Engine
from multielect._engine.lanes import Lanes
from multielect.embedded import EmbeddedServer

from .conftest import Stand
from .lease import PREFIX


def make_group(url: str) -> ElectionGroup:
    return ElectionGroup(url, prefix=PREFIX, ttl=1.0)


def make_elector(url: str) -> Elector:
    return Elector(url, prefix=PREFIX, ttl=1.0)


Make = Callable[[str], Any]
MAKES = pytest.mark.parametrize("make", [make_group, make_elector], ids=["group", "elector"])


@contextmanager
def nobody() -> Iterator[str]:
    """An address where nobody listens, nor will."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"redis://127.0.0.1:{taken.getsockname()[1]}"


def threads_of(node: Any) -> list[threading.Thread]:
    name = f"multielect-{node.node_id}"
    return [each for each in threading.enumerate() if each.name.startswith(name)]


@MAKES
def test_health_from_the_making_to_the_stop(
    make: Make, server: EmbeddedServer, redis_url: str
) -> None:
    node = make(redis_url)
    fresh: Health = node.health
    assert (fresh.state, fresh.version, fresh.connected_since) == ("new", "", None)
    assert fresh.server == server.socket_path
    assert not node.is_running
    before = datetime.now(timezone.utc)
    node.start()
    try:
        assert node.is_running
        assert node.wait_connected(WITHIN_S)
        health: Health = node.health
        assert health.state == "connected"
        assert health.version == f"{server.name.capitalize()} {server.version}"
        assert health.connected_since is not None
        assert before <= health.connected_since <= datetime.now(timezone.utc)
        assert (health.last_error, health.last_error_at, health.is_permanent) == (None, None, False)
        assert (health.failed_attempts, health.reconnects) == (0, 0)
        with pytest.raises(AttributeError):
            health.state = "new"  # type: ignore[misc]
    finally:
        node.stop()
    assert not node.is_running
    assert node.health.state == "stopped"
    assert node.health.connected_since is None
    with pytest.raises(ClosedError):
        node.wait_connected(0.0)


def test_what_it_stands_for_and_leads(redis_url: str, stand: Stand) -> None:
    group, told = stand(redis_url, *"abc")
    for key in "abc":
        told.wait_elected(key)
    assert (group.health.elections, group.health.leading) == (3, 3)
    group.stop()
    assert (group.health.elections, group.health.leading) == (3, 0)


def test_a_connection_that_is_lost_and_made_anew(
    private_server: EmbeddedServer, stand: Stand
) -> None:
    group, told = stand(private_server.url, "k")
    told.wait_elected("k")
    connected_since = group.health.connected_since
    os.kill(private_server.pid, signal.SIGKILL)
    until(lambda: group.health.state == "connecting" and group.health.failed_attempts >= 2)
    away = group.health
    assert isinstance(away.last_error, ConnectionLostError)
    assert away.last_error_at is not None
    assert away.connected_since is None
    assert (away.is_permanent, away.reconnects) == (False, 1)
    assert not group.wait_connected(0.0)
    private_server.stop()
    private_server.start()
    assert group.wait_connected(WITHIN_S)
    health = group.health
    assert (health.state, health.failed_attempts) == ("connected", 0)
    assert health.connected_since is not None
    assert connected_since is not None
    assert health.connected_since > connected_since
    # What was wrong last can still be read.
    assert isinstance(health.last_error, ConnectionLostError)


def test_what_somebody_must_mend_is_permanent(private_server: EmbeddedServer, stand: Stand) -> None:
    with redis.Redis.from_url(private_server.url) as client:
        client.config_set("requirepass", "secret")
        group, _ = stand(private_server.url, "k")
        until(lambda: group.health.failed_attempts >= 1)
        health = group.health
        assert (health.state, health.is_permanent) == ("connecting", True)
        assert isinstance(health.last_error, ServerUnusableError)
        assert group.is_running
        client.config_set("requirepass", "")
        assert group.wait_connected(WITHIN_S)


def test_what_a_server_refuses_on_the_way_is_the_last_error(
    private_server: EmbeddedServer, stand: Stand
) -> None:
    with redis.Redis.from_url(private_server.url) as client:
        client.rpush(f"{PREFIX}:{{0}}:k:leader", "an element")
        group, _ = stand(private_server.url, "k", buckets=1)
        until(lambda: "WRONGTYPE" in str(group.health.last_error))
        assert (group.health.state, group.health.is_permanent) == ("connected", False)


def test_it_waits_for_nobody(private_server: EmbeddedServer, stand: Stand) -> None:
    group, told = stand(private_server.url, "k", ttl=60.0)
    told.wait_elected("k")
    os.kill(private_server.pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        for _ in range(100):
            assert group.health.state == "connected"
        assert time.monotonic() - started < WITHIN_S / 2
    finally:
        os.kill(private_server.pid, signal.SIGCONT)


def test_in_a_forked_child(redis_url: str, stand: Stand) -> None:
    group, told = stand(redis_url, "k")
    told.wait_elected("k")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            health = group.health
            words = f"{health.state} {health.leading} {health.connected_since} {group.is_running}"
            os.write(writing, words.encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told_by_child:
        assert told_by_child.read() == "forked 0 None False"
    os.waitpid(child, 0)
    assert group.is_running


@pytest.mark.parametrize(("part", "work"), [(Lanes, "take_losses"), (Engine, "_deliver")])
def test_a_thread_of_ours_that_has_died_is_told(
    part: type, work: str, redis_url: str, stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    group, told = stand(redis_url, "k")
    told.wait_elected("k")

    def fail(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(part, work, fail)
    group.add("another")
    with redis.Redis.from_url(redis_url) as client:
        client.client_kill_filter(_type="pubsub")
    until(lambda: not group.is_running)
    health = group.health
    assert health.state == "failed"
    assert "ZeroDivisionError" in str(health.last_error)
    monkeypatch.undo()


# ---- start(wait=)


@MAKES
def test_a_start_that_waits(make: Make, redis_url: str) -> None:
    node = make(redis_url)
    started = time.monotonic()
    node.start(wait=60)
    with node:
        assert time.monotonic() - started < 30, "it was not told when it was connected"
        assert node.health.state == "connected"
        node.start(wait=0)  # it is: nothing to wait for


@MAKES
def test_a_start_that_waits_in_vain_raises_the_cause_and_stops(make: Make) -> None:
    with nobody() as url:
        node = make(url)
        with pytest.raises(
            ConnectionLostError, match=r"cannot connect to 127\.0\.0\.1:.*no server listens"
        ):
            node.start(wait=timedelta(seconds=0.3))
    assert node.health.state == "stopped"
    assert not node.is_running
    until(lambda: not threads_of(node))
    with pytest.raises(ClosedError):
        node.start()


def test_a_start_does_not_wait_for_what_does_not_pass(private_server: EmbeddedServer) -> None:
    with redis.Redis.from_url(private_server.url) as client:
        client.config_set("requirepass", "secret")
        group = make_group(private_server.url)
        started = time.monotonic()
        with pytest.raises(ServerUnusableError, match="requires a password"):
            group.start(wait=600)
        assert time.monotonic() - started < 60
    assert not group.is_running


def test_a_start_waits_for_a_replica_to_be_promoted(private_server: EmbeddedServer) -> None:
    with redis.Redis.from_url(private_server.url) as client:
        replica: Any = client
        replica.execute_command("REPLICAOF", "127.0.0.1", "1")
        group = make_group(private_server.url)

        def promote() -> None:
            until(lambda: group.health.failed_attempts > 1)
            replica.execute_command("REPLICAOF", "NO", "ONE")

        promoting = threading.Thread(target=promote)
        promoting.start()
        group.start(wait=WITHIN_S)
        with group:
            promoting.join()


def test_another_number_of_buckets_is_the_cause(redis_url: str, stand: Stand) -> None:
    first, _ = stand(redis_url, buckets=16)
    assert first.wait_connected(WITHIN_S)
    with pytest.raises(ConfigError, match="divided into 16 buckets, not 256"):
        make_group(redis_url).start(wait=WITHIN_S)


def test_an_attempt_that_has_not_ended_is_told_as_such() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        group = ElectionGroup(f"redis://127.0.0.1:{silent.getsockname()[1]}", prefix=PREFIX)
        with pytest.raises(ConnectionLostError, match=r"no attempt has ended within 0\.05"):
            group.start(wait=0.05)
    assert not group.is_running


def test_who_ran_before_goes_on_after_a_wait_in_vain() -> None:
    port = free_port()
    group = make_group(f"redis://127.0.0.1:{port}")
    with group:
        with pytest.raises(ConnectionLostError):
            group.start(wait=0.2)
        assert group.is_running


@pytest.mark.parametrize("wait", [-1, float("nan"), "soon", True])
def test_a_bad_wait_starts_nothing(wait: Any, redis_url: str) -> None:
    group = make_group(redis_url)
    with pytest.raises(ConfigError):
        group.start(wait=wait)
    assert group.health.state == "new"
    group.stop()


def test_a_stop_ends_a_wait(redis_url: str) -> None:
    with nobody() as url:
        group = make_group(url)
        caught: list[BaseException] = []

        def start() -> None:
            try:
                group.start(wait=WITHIN_S)
            except ClosedError as error:
                caught.append(error)

        starting = threading.Thread(target=start)
        starting.start()
        until(lambda: group.health.failed_attempts > 0)
        group.stop()
        starting.join(WITHIN_S)
    assert [type(error) for error in caught] == [ClosedError]


# ---- waiting


@MAKES
def test_waiting_before_the_start_is_refused(make: Make, redis_url: str) -> None:
    with pytest.raises(ClosedError, match="not started"):
        make(redis_url).wait_connected(0.0)


def test_balanced(redis_url: str, stand: Stand) -> None:
    keys = [f"k{number}" for number in range(40)]
    first, _ = stand(redis_url, *keys, balance=True, node_id="first")
    assert first.wait_balanced(WITHIN_S)
    assert first.health.leading == 40
    first.add("late")
    assert first.wait_balanced(WITHIN_S)
    assert first.health.leading == 41
    first.remove("late")
    assert first.wait_balanced(WITHIN_S)
    second, _ = stand(redis_url, *keys, balance=True, node_id="second")
    assert second.wait_balanced(WITHIN_S)
    assert second.health.leading == 20
    assert first.wait_balanced(WITHIN_S)
    assert {e.key for e in first.led} | {e.key for e in second.led} == set(keys)
    second.stop()
    until(lambda: first.health.leading == 40)
    assert first.wait_balanced(WITHIN_S)


def test_who_joins_late_is_not_balanced_before(redis_url: str, stand: Stand) -> None:
    keys = [f"k{number}" for number in range(10)]
    first, _ = stand(redis_url, *keys, balance=True, node_id="first")
    assert first.wait_balanced(WITHIN_S)
    second, _ = stand(redis_url, *keys, balance=True, node_id="second", join_delay=1.0)
    assert second.wait_balanced(WITHIN_S)
    assert second.health.leading == 5


def test_who_has_no_weight_is_balanced_with_nothing(redis_url: str, stand: Stand) -> None:
    group, _ = stand(redis_url, "k", balance=True, weight=0)
    assert group.wait_balanced(WITHIN_S)
    assert group.health.leading == 0


def test_not_balanced_while_another_holds_what_is_this_nodes(
    redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    redis_client.set(f"{PREFIX}:{{0}}:k:leader", "other/1", px=60_000)
    group, _ = stand(redis_url, "k", balance=True, buckets=1)
    until(lambda: bool(group.members))
    assert not group.wait_balanced(0.5)
    redis_client.delete(f"{PREFIX}:{{0}}:k:leader")
    assert group.wait_balanced(WITHIN_S)


def test_a_group_that_does_not_balance(redis_url: str, stand: Stand) -> None:
    group, _ = stand(redis_url, "k")
    with pytest.raises(ConfigError, match="balance=True"):
        group.wait_balanced(0.0)
