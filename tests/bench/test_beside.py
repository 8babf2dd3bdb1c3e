"""Who stands by, who is a neighbour, and who is busy: beside leases that are held."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import cast

import pytest
import redis

from multielect.cli.bench.instruments.children import Child
from multielect.cli.bench.instruments.raw import RawConnection
from multielect.cli.bench.instruments.servers import Server
from multielect.cli.bench.suites import lateness, neighbours, standby

MAX_S = 60
TTL_S = 3.0


def test_scripts_are_told_apart_and_our_questions_are_none() -> None:
    counts = {"eval": 1, "evalsha": 20, "get": 300, "pexpire": 40, "info": 7}
    asked = standby.Asked.counted({name: {"calls": n} for name, n in counts.items()}, 1.5)

    assert asked == standby.Asked(commands=340, scripts=21, cpu_s=1.5)


def test_what_a_script_runs_counts_too(redis_url: str, redis_client: redis.Redis) -> None:
    with Server(redis_url, is_private=False) as server:
        before = standby.Asked.of(server)
        redis_client.eval("for i = 1, 5 do redis.call('GET', KEYS[1]) end", 1, "k")
        after = standby.Asked.of(server)

    assert after.scripts - before.scripts == 1
    assert after.commands - before.commands >= 5


def test_who_stands_by_asks_and_leads_nothing(redis_url: str) -> None:
    with (
        Child("the leader", standby.lead, redis_url, "standby", 20, TTL_S) as leader,
        Child("the others", standby.stand_by, redis_url, "standby", 20, TTL_S) as others,
    ):
        leader.receive(MAX_S)
        others.receive(MAX_S)
        for groups in (0, 3):
            others.send(groups)
            others.receive(MAX_S)
            if groups:
                # Each lease is looked for when it would end.
                time.sleep(TTL_S)
            others.send("end")
            checks, leading = others.receive(MAX_S)

            assert leading == 0
            assert (checks > 0) is (groups > 0)


class Timekeeper:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self._now_ns = 0

    def monotonic_ns(self) -> int:
        return self._now_ns

    def sleep(self, seconds: float) -> None:
        self._now_ns += round(seconds * 1e9)


class Slow:
    """A connection whose first answer takes long."""

    def __init__(self, timekeeper: Timekeeper, first_s: float) -> None:
        self.count = 0
        self._timekeeper = timekeeper
        self._first_s = first_s

    def exchange(self, _data: bytes, is_done: Callable[[bytes], bool]) -> None:
        self.count += 1
        if self.count == 1:
            self._timekeeper.sleep(self._first_s)
        assert not is_done(b"+PO")
        assert is_done(b"NG\r\n")


def test_who_was_to_ask_while_another_waited_has_waited_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timekeeper = Timekeeper()
    monkeypatch.setattr(neighbours, "time", timekeeper)
    slow = Slow(timekeeper, 0.1)
    took_ns = neighbours.asked(cast("RawConnection", slow), 0.05)

    assert slow.count == len(took_ns) == 50, "one each millisecond, however late"
    # The first waits for a tenth of a second, and the one that was due after 49 ms for the rest.
    assert min(took_ns) >= 50_000_000
    assert max(took_ns) == took_ns[0] == 100_000_000


def test_a_neighbour_asks_when_it_is_told_to(redis_url: str, redis_client: redis.Redis) -> None:
    with Child("the neighbour", neighbours.ask, redis_url) as child:
        child.receive(MAX_S)
        for milliseconds in (10, 30):
            before = redis_client.info("commandstats").get("cmdstat_ping", {}).get("calls", 0)
            child.send(milliseconds / 1000)
            took_ns = child.receive(MAX_S)

            asked = redis_client.info("commandstats")["cmdstat_ping"]["calls"] - before
            assert asked == len(took_ns) == milliseconds
            assert min(took_ns) > 0


def test_a_holder_leads_until_it_is_told_to_let_go(
    redis_url: str, redis_client: redis.Redis
) -> None:
    with Child("the holder", neighbours.hold, redis_url, 30) as child:
        for prefix in ("first", "second"):
            child.send(prefix)
            child.receive(MAX_S)
            leases = redis_client.keys(f"{prefix}:*:leader")
            assert len(leases) == 30
            assert all(redis_client.pttl(lease) > 0 for lease in leases)
            child.send("let go")
            assert child.receive(MAX_S) == "done"


@pytest.mark.parametrize("load", lateness.LOADS)
def test_every_lease_is_refreshed_however_busy_its_process_is(load: str, redis_url: str) -> None:
    with Child("the holder", lateness.hold, redis_url, "late", 600, TTL_S) as child:
        child.receive(MAX_S)
        child.send((load, 0.4 * TTL_S))
        counts, demoted, errors = child.receive(MAX_S)

    assert sum(count for _, count in counts) >= 600
    assert all(late_ns >= 0 for late_ns, _ in counts)
    assert demoted == 0
    assert errors == []


class Ticking(threading.Thread):
    """Notes the time whenever it may."""

    def __init__(self) -> None:
        super().__init__()
        self.ending = threading.Event()
        self.times_s: list[float] = []

    def run(self) -> None:
        while not self.ending.wait(0.001):
            self.times_s.append(time.monotonic())


def test_who_keeps_the_gil_lets_nobody_else_run() -> None:
    ticking = Ticking()
    ticking.start()
    try:
        while not ticking.times_s:
            time.sleep(0.001)
        began_s = time.monotonic()
        lateness.keep_gil(0.5)
        ended_s = time.monotonic()
    finally:
        ticking.ending.set()
        ticking.join()

    # It may have run once more before the call, and once before the clock was read again.
    during = [at_s for at_s in ticking.times_s if began_s + 0.2 < at_s < began_s + 0.4]
    assert ended_s - began_s >= 0.5
    assert during == []
