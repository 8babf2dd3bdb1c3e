"""A client of a Sentinel: the group asks it for the primary each time that it connects."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.sentinel import Sentinel
from tests.diary import until
from tests.ports import free_port

from .conftest import Stand

SERVICE = "orders-primary"


def answers(port: int) -> bool:
    with redis.Redis(port=port) as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[Any, int]]:
    """A primary, a replica and a sentinel that knows both: a client of it, and its port."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no redis-server is installed, and the bundled one knows no sentinels")
    primary, replica, port = free_port(), free_port(), free_port()
    common = ["--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    config = tmp_path / "sentinel.conf"
    config.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\nlogfile {tmp_path}/log\n"
        f"sentinel monitor {SERVICE} 127.0.0.1 {primary} 1\n"
        f"sentinel down-after-milliseconds {SERVICE} 1000\n"
    )
    commands = [
        [program, "--port", str(primary), *common],
        [program, "--port", str(replica), "--replicaof", f"127.0.0.1 {primary}", *common],
        [program, str(config), "--sentinel"],
    ]
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]
    try:
        for each in (primary, replica, port):
            until(lambda each=each: answers(each))  # type: ignore[misc]
        sentinel: Any = Sentinel  # redis-py does not type it
        yield sentinel([("127.0.0.1", port)]).master_for(SERVICE), port
    finally:
        for process in running:
            process.kill()
            process.wait()


def test_a_group_follows_the_primary_that_a_sentinel_names(
    watched: tuple[Any, int], stand: Stand
) -> None:
    client, port = watched
    group, told = stand(client, "k", ttl=2.0)
    epoch = told.wait_elected("k").epoch
    with redis.Redis(port=port) as plain:
        asked: Any = plain
        until(lambda: asked.sentinel_master(SERVICE)["num-slaves"] == 1)
        before = asked.sentinel_get_master_addr_by_name(SERVICE)
        # Until the replica has caught up there is none to be promoted.
        until(lambda: _fails_over(asked))
        until(lambda: asked.sentinel_get_master_addr_by_name(SERVICE) != before)
    until(lambda: group.counters.reconnects >= 1 and group.health.state == "connected")
    refreshes = group.counters.refreshes
    # The replica may have known the lease, or not.
    until(lambda: group["k"].is_leader and group.counters.refreshes >= refreshes + 3)
    assert group["k"].epoch >= epoch
    assert group.health.server == f"{SERVICE} (by Sentinel)"


def _fails_over(asked: Any) -> bool:
    try:
        asked.execute_command("SENTINEL", "FAILOVER", SERVICE)
    except redis.ResponseError:
        return False
    return True
