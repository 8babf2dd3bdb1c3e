"""Promise 10, of stopping: all is given up at once, and released in as few words as that takes.

How long it takes where something is in the way is in `test_stop_bounded.py`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
from tests.diary import WITHIN_S, until

from multielect import ClosedError, ConfigError, DemotionReason, ElectionGroup

from .conftest import Stand
from .lease import LAYOUT, PREFIX, Lease
from .proxy import Command, Proxy, script_name

TIMEOUT_S = 0.3
# The design gives a machine that is too busy to run our threads a second more.
MAX_S = TIMEOUT_S + 1.5


def seconds(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def test_stop_releases_all_and_announces_a_batch_at_once(
    redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    client: Any = redis_client
    keys = [f"k{number}" for number in range(300)]
    leaders = {LAYOUT.leader_key(key.encode()) for key in keys}
    group, told = stand(redis_url, *keys, ttl=10.0)
    until(lambda: len(group.led) == len(keys))
    with client.pubsub(ignore_subscribe_messages=True) as listening:
        listening.subscribe(LAYOUT.channel)
        listening.get_message(timeout=5.0)
        batches = group.counters.batches
        group.stop()
        assert client.exists(*leaders) == 0
        client.publish(LAYOUT.channel, b"end")
        messages: list[bytes] = []
        while not messages or messages[-1] != b"end":
            message = listening.get_message(timeout=5.0)
            assert message is not None
            messages.append(message["data"])
    announced = messages[:-1]
    assert len(announced) == 3
    assert group.counters.batches - batches == 3
    assert all(text.count(group.holder.encode()) == 1 for text in announced)
    assert sum(text.count(b":leader") for text in announced) == len(keys)
    assert group.counters.released == len(keys)
    # It waits for the callbacks too.
    assert [entry.reason for entry in told.demotions()] == [DemotionReason.STOPPED] * len(keys)


def test_nothing_is_led_from_the_first_moment_of_stop_on(proxy: Proxy, stand: Stand) -> None:
    group, told = stand(proxy.url, "k", ttl=10.0)
    term = told.wait_elected("k").term
    proxy.hold_replies()
    stopping = threading.Thread(target=group.stop, args=(WITHIN_S,))
    stopping.start()
    try:
        ended = told.wait_demoted("k")
        assert ended.reason is DemotionReason.STOPPED
        assert not term.is_leader
        assert not group["k"].is_leader
        assert group.led == []
        assert stopping.is_alive()
    finally:
        proxy.pass_replies()
        stopping.join()


def test_stop_is_bounded_where_nothing_gets_through(proxy: Proxy, stand: Stand) -> None:
    group, told = stand(proxy.url, "k", ttl=60.0, node_id="unheard")
    told.wait_elected("k")
    proxy.drops_requests = True
    assert TIMEOUT_S <= seconds(lambda: group.stop(timeout=TIMEOUT_S)) < MAX_S
    assert told.wait_demoted("k").reason is DemotionReason.STOPPED
    # Its threads have given up too, rather than go on for as long as the lease.
    until(lambda: not [each for each in threading.enumerate() if "unheard" in each.name])


def test_a_release_whose_answer_was_lost_is_sent_again(
    proxy: Proxy, redis_client: redis.Redis, stand: Stand
) -> None:
    def lose(command: Command) -> None:
        if script_name(command) == "release" and len(proxy.scripts("release")) == 1:
            proxy.lose_reply()

    group, told = stand(proxy.url, "k", ttl=10.0)
    told.wait_elected("k")
    proxy.on_command = lose
    group.stop()
    assert not Lease(redis_client).is_held
    assert len(proxy.scripts("release")) == 2


def test_a_group_that_lost_its_connection_connects_anew_to_release(
    proxy: Proxy, redis_client: redis.Redis, stand: Stand
) -> None:
    group, told = stand(proxy.url, "k", ttl=10.0)
    told.wait_elected("k")
    proxy.cut()
    group.stop()
    assert not Lease(redis_client).is_held


def test_a_group_that_was_never_started_can_be_stopped(redis_url: str) -> None:
    group = ElectionGroup(redis_url, prefix=PREFIX)
    group.add("k")
    group.stop()
    assert list(group) == ["k"]
    with pytest.raises(ClosedError, match="was stopped"):
        group.start()


def test_starting_twice_is_starting_once(
    redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    group, told = stand(redis_url, "k")
    told.wait_elected("k")
    group.start()
    clients: Any = redis_client
    assert len(clients.client_list(_type="pubsub")) == 1
    assert group.counters.elected == 1


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), "1", None])
def test_a_bad_timeout_stops_nothing(timeout: Any, redis_url: str, stand: Stand) -> None:
    group, told = stand(redis_url, "k")
    told.wait_elected("k")
    with pytest.raises(ConfigError, match="timeout must"):
        group.stop(timeout)
    assert group["k"].is_leader
