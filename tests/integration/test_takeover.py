"""Promise 7: a clean release wakes the others at once; a crash is noticed when the lease ends.

The bound for a busy machine is wide, and yet far below what a poll would take.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from tests.diary import until

from multielect._runtime.clock import Clock
from multielect.embedded import EmbeddedServer

from .conftest import Stand
from .lease import LAYOUT, PREFIX, Lease
from .process import Candidate

SOON_NS = 1_000_000_000
LONG_TTL_S = 30.0
NS_IN_MS = 1_000_000


@pytest.mark.parametrize("how", ["stop", "resign", "remove"])
def test_a_release_is_taken_up_at_once(how: str, redis_url: str, stand: Stand) -> None:
    first, told_first = stand(redis_url, "k", ttl=LONG_TTL_S)
    epoch = told_first.wait_elected("k").epoch
    second, told_second = stand(redis_url, "k", ttl=LONG_TTL_S)
    until(lambda: second["k"].leader_id == first.node_id)
    if how == "stop":
        first.stop()
    elif how == "resign":
        first["k"].resign()
    else:
        first.remove("k")
    began = told_second.wait_elected("k")
    ended = told_first.wait_demoted("k")
    assert began.epoch > epoch
    assert 0 <= began.at_ns - ended.at_ns < SOON_NS
    assert second.counters.wakeups == 1


@pytest.fixture
def resp2_server(binary: str) -> Iterator[EmbeddedServer]:
    """A server that has no HELLO, as those before 6: no connection to it speaks RESP3."""
    with EmbeddedServer(binary=binary, settings={"rename-command": 'HELLO ""'}) as running:
        yield running


def test_a_release_is_taken_up_at_once_over_resp2(
    resp2_server: EmbeddedServer, stand: Stand
) -> None:
    with redis.Redis.from_url(resp2_server.url, protocol=2) as client:
        first, told_first = stand(resp2_server.url, "k", ttl=LONG_TTL_S)
        epoch = told_first.wait_elected("k").epoch
        second, told_second = stand(resp2_server.url, "k", ttl=LONG_TTL_S)
        until(lambda: second["k"].leader_id == first.node_id)
        # Servers before 7.0 do not tell which protocol it is.
        listening = client.client_list(_type="pubsub")
        assert [each.get("resp", "2") for each in listening] == ["2", "2"]
    first.stop()
    began = told_second.wait_elected("k")
    ended = told_first.wait_demoted("k")
    assert began.epoch > epoch
    assert began.at_ns - ended.at_ns < SOON_NS
    assert second.counters.wakeups == 1
    assert told_second.errors == []


def test_all_that_a_node_released_is_taken_up_at_once(redis_url: str, stand: Stand) -> None:
    keys = [f"k{n}" for n in range(600)]
    first, told_first = stand(redis_url, *keys, ttl=LONG_TTL_S)
    until(lambda: len(first.led) == len(keys))
    second, told_second = stand(redis_url, *keys, ttl=LONG_TTL_S)
    until(lambda: second[keys[-1]].leader_id == first.node_id)
    first.stop()
    until(lambda: len(second.led) == len(keys))
    for key in keys:
        waited_ns = told_second.wait_elected(key).at_ns - told_first.wait_demoted(key).at_ns
        assert waited_ns < SOON_NS
    # Not one waited for a second try.
    assert second.counters.checks == 2 * len(keys)


def test_a_crash_is_noticed_when_the_lease_ends(
    redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    client: Any = redis_client
    lease = Lease(redis_client)
    with Candidate(redis_url, prefix=PREFIX, key="k", ttl=1.5) as crashing:
        epoch = crashing.wait("elected")["epoch"]
        group, told = stand(redis_url, "k", ttl=1.5)
        until(lambda: group["k"].leader_id is not None)
        crashing.kill()
        seen_ns = Clock().now_ns()
        ends_ns = seen_ns + client.pttl(lease.leader_key) * NS_IN_MS
    began = told.wait_elected("k")
    assert began.epoch > epoch
    # Redis counts in whole milliseconds.
    assert ends_ns - 2 * NS_IN_MS <= began.at_ns < ends_ns + SOON_NS // 4


def test_waiting_for_another_s_lease_to_end_costs_few_questions(
    redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    # Who polls three times a TTL has asked a hundred times by then.
    keys = [f"k{n}" for n in range(10)]
    leader, told = stand(redis_url, *keys, ttl=0.6)
    until(lambda: len(leader.led) == len(keys))
    standing_by, _ = stand(redis_url, *keys, ttl=0.6)
    refreshed = leader.counters.refreshes
    checked = standing_by.counters.checks
    until(lambda: leader.counters.refreshes >= refreshed + 10 * len(keys))
    ttls = (leader.counters.refreshes - refreshed) / len(keys) / 3
    checks = (standing_by.counters.checks - checked) / len(keys)
    assert 0 < checks / ttls < 2.0
    assert redis_client.exists(*(LAYOUT.leader_key(key.encode()) for key in keys)) == len(keys)
    assert told.demotions() == []
