"""What is measured with: our group, the limit, raw connections, children, the server's own word."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import redis

from multielect._protocol.keys import group_layout
from multielect.cli.bench.instruments.children import Child, Parent
from multielect.cli.bench.instruments.raw import RawConnection, packed
from multielect.cli.bench.instruments.servers import Server
from multielect.cli.bench.subjects import ours
from multielect.cli.bench.subjects.contenders import Contender, Cost, measure, passes_of
from multielect.cli.bench.subjects.floor import Floor
from multielect.cli.bench.suite import BenchError
from multielect.cli.bench.suites.memory import resident_bytes

LEASES = 700
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc"
)


def test_our_round_refreshes_every_lease_once(redis_url: str, redis_client: redis.Redis) -> None:
    layout = group_layout("ours")
    keys = [layout.leader_key(ours.KEY.format(number).encode()) for number in range(LEASES)]
    with ours.led(redis_url, "ours", LEASES) as group:
        for key in keys:
            assert redis_client.pexpire(key, 100_000)
        before = group.group.counters.refreshes

        cost = group.refresh()

        assert group.group.counters.refreshes == before + LEASES
        assert min(map(redis_client.pttl, keys)) > 100_000
        assert cost.wall_s > 0
        assert cost.client_s > 0


def test_a_lost_lease_is_no_round(redis_url: str, redis_client: redis.Redis) -> None:
    with ours.led(redis_url, "ours", LEASES) as group:
        redis_client.flushall()

        with pytest.raises(BenchError, match="leases were lost"):
            group.refresh()


def test_the_limit_extends_every_lease(redis_url: str, redis_client: redis.Redis) -> None:
    limit = Floor(redis_url, "limit", LEASES)
    try:
        keys = redis_client.keys()
        assert len(keys) == LEASES
        for key in keys:
            redis_client.pexpire(key, 100_000)
        limit.refresh()
        assert min(map(redis_client.pttl, keys)) > 100_000

        redis_client.delete(keys[0])
        with pytest.raises(BenchError, match="only 699 of 700"):
            limit.refresh()
    finally:
        limit.close()


def test_more_can_be_sent_than_any_buffer_holds(redis_url: str) -> None:
    data = packed(b"ECHO", b"x" * 1_000_000) * 8
    left = 8 * len(b"$1000000\r\n" + b"x" * 1_000_000 + b"\r\n")

    def is_done(received: bytes) -> bool:
        nonlocal left
        left -= len(received)
        return left <= 0

    with RawConnection(redis_url) as connection:
        connection.exchange(data, is_done)
    assert left == 0


def test_a_connection_that_ends_is_an_error(redis_url: str) -> None:
    with (
        RawConnection(redis_url) as connection,
        pytest.raises(ConnectionError, match="the server closed the connection"),
    ):
        connection.exchange(packed(b"QUIT"), lambda _: False)


class Told(Contender):
    """Takes as long as it is told."""

    name, leases = "told", 10

    def __init__(self, wall_s: float) -> None:
        self.wall_s = wall_s
        self.count = 0

    def refresh(self) -> Cost:
        self.count += 1
        return Cost(self.wall_s, self.wall_s / 2)

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("wall_s", "passes"), [(1.0, 1), (0.05, 1), (0.01, 5), (1e-9, 200)])
def test_what_is_quick_is_repeated_within_a_round(wall_s: float, passes: int) -> None:
    assert passes_of(Told(wall_s)) == passes


def test_costs_are_those_of_one_lease(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    contender = Told(0.5)
    with Server(redis_url, is_private=False) as server:
        used_s = iter((7.0, 9.0))
        monkeypatch.setattr(server, "cpu_s", lambda: next(used_s))
        costs = measure(contender, 4, server)

    assert contender.count == 4
    assert (costs.wall_s, costs.client_s, costs.server_s) == (0.05, 0.025, 0.05)


def test_the_server_counts_its_own_cpu(redis_url: str, redis_client: redis.Redis) -> None:
    with Server(redis_url, is_private=False) as server:
        cpu_s, calls = server.cpu_s(), server.commands().get("eval", {}).get("calls", 0)
        redis_client.eval("for i = 1, 3000000 do local x = i * i end return 1", 0)

        assert server.cpu_s() > cpu_s
        assert server.commands()["eval"]["calls"] == calls + 1


def test_it_removes_its_own_keys_and_no_others(redis_url: str, redis_client: redis.Redis) -> None:
    with Server(redis_url, is_private=False) as server:
        first, second = server.fresh_prefix(), server.fresh_prefix()
        assert first != second
        redis_client.mset({f"{first}:a": 1, f"lock:{second}:b": 1, "of somebody else": 1})

    assert redis_client.keys() == [b"of somebody else"]


def echo(parent: Parent, greeting: str) -> None:
    """Say what it hears."""
    parent.send((greeting, os.getpid(), os.getsid(0)))
    while True:
        parent.send(parent.receive())


def fail(parent: Parent) -> None:
    """Fail."""
    raise RuntimeError("on purpose")


def end(parent: Parent) -> None:
    """End without a word."""


def hush(parent: Parent) -> None:
    """Say nothing."""
    parent.receive()


def test_a_child_is_talked_to_and_ended() -> None:
    with Child("the child", echo, "hello") as child:
        greeting, pid, session = child.receive(30)
        assert (greeting, pid) == ("hello", child.pid)
        assert session == pid, "Ctrl-C is for the parent to hear"
        child.send({"a": 1})
        assert child.receive(30) == {"a": 1}
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (fail, "the child failed: RuntimeError: on purpose"),
        (end, "the child has ended"),
        (hush, "the child sent nothing for 0 seconds"),
    ],
)
def test_a_child_that_fails_is_reported(target: object, message: str) -> None:
    assert callable(target)
    with Child("the child", target) as child, pytest.raises(BenchError, match=message):
        child.receive(0 if target is hush else 30)


def test_a_killed_child_is_reported() -> None:
    with Child("the child", echo, "hello") as child:
        child.receive(30)
        child.kill()
        child.send("anybody there?")
        with pytest.raises(BenchError, match="has ended"):
            child.receive(30)


def parent_of_a_child(parent: Parent) -> None:
    """Have a child, tell who it is, and wait."""
    with Child("the grandchild", echo, "hello") as child:
        parent.send(child.receive(30)[1])
        parent.receive()


@needs_proc
def test_a_child_does_not_outlive_a_parent_that_was_killed() -> None:
    with Child("the child", parent_of_a_child) as child:
        pid = child.receive(60)
        child.kill()
        give_up = time.monotonic() + 30
        while _is_running(pid):
            assert time.monotonic() < give_up, "it outlived its parent"
            time.sleep(0.01)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_resident_memory_grows_with_what_is_held() -> None:
    before = resident_bytes()
    held = bytearray(os.urandom(1)) * 50_000_000

    assert resident_bytes() - before > 40_000_000
    assert len(held) == 50_000_000
