"""The private cluster of a command: it serves, and nothing of it is left; and clients of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from multielect.cli import cluster
from multielect.cli.client import connect, primaries_of, values
from multielect.cli.cluster import PrivateCluster
from multielect.cli.server import described, remove_keys
from multielect.embedded import EmbeddedServer, EmbeddedServerError

KEYS = [f"k{number}".encode() for number in range(20)]


@pytest.fixture(scope="module")
def running(binary: str) -> Iterator[PrivateCluster]:
    with PrivateCluster(binary=binary) as started:
        yield started


@pytest.mark.parametrize("which", ["all nodes", "the last node"])
def test_a_client_of_any_url_reaches_every_slot(running: PrivateCluster, which: str) -> None:
    url = running.url if which == "all nodes" else running.urls[-1]
    with connect(url, connect_timeout_s=5, timeout_s=5) as client:
        assert isinstance(client, redis.RedisCluster)
        assert len(primaries_of(client)) == len(running.urls) == 3
        assert described(client).startswith("a cluster of 3 primaries, ")
        for key in KEYS[1:]:
            client.set(key, key)

        assert values(client, KEYS) == [None, *KEYS[1:]]

        remove_keys(client, "k1*")
        assert sorted(client.scan_iter()) == sorted(key for key in KEYS[1:] if key[1:2] != b"1")
        remove_keys(client, "*")
        assert list(client.scan_iter()) == []


def test_a_client_sends_nothing_twice(running: PrivateCluster) -> None:
    with connect(running.url, connect_timeout_s=5, timeout_s=5) as client:
        assert isinstance(client, redis.RedisCluster)
        assert client.retry.get_retries() == 0
        for primary in primaries_of(client):
            connection = primary.connection_pool.get_connection()
            assert connection.retry.get_retries() == 0
            primary.connection_pool.release(connection)


def test_only_who_knows_the_password_may_use_it(running: PrivateCluster) -> None:
    login, _, nodes = running.urls[0].partition("@")
    assert len(login.rpartition(":")[2]) == 32
    with (
        redis.Redis.from_url(f"redis://{nodes}") as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


def test_nothing_is_left(binary: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    pids = pids_of_started(monkeypatch)
    with PrivateCluster(binary=binary):
        assert len(list(tmp_path.iterdir())) == 3

    assert list(tmp_path.iterdir()) == []
    assert not any(map(is_there, pids))


def test_an_interrupted_start_leaves_nothing(
    binary: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_node: redis.Redis) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(cluster, "_is_whole", interrupted)
    pids = pids_of_started(monkeypatch)
    with pytest.raises(KeyboardInterrupt), PrivateCluster(binary=binary):
        pass

    assert len(pids) == 3
    assert list(tmp_path.iterdir()) == []
    assert not any(map(is_there, pids))


def test_without_a_server_program_it_says_so() -> None:
    with (
        pytest.raises(EmbeddedServerError, match="no program 'nothing'"),
        PrivateCluster(binary="nothing"),
    ):
        pass


def pids_of_started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the process of each server that is started."""
    pids: list[int] = []
    start = EmbeddedServer.start

    def noted(server: EmbeddedServer) -> None:
        start(server)
        pids.append(server.pid)

    monkeypatch.setattr(EmbeddedServer, "start", noted)
    return pids


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
