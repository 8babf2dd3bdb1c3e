"""Promise 3: only the holder of a lease refreshes or ends it, and only the term it means."""

from __future__ import annotations

from typing import Any

import redis
from tests.diary import until

from multielect._protocol.scripts import WITHOUT_FLAGS

from .conftest import Stand
from .lease import LAYOUT, Lease
from .proxy import Proxy

OTHER = "other/0123456789abcdef"
LONG_MS = 60_000


def test_the_lease_of_another_is_neither_refreshed_nor_released(
    redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    lease = Lease(redis_client)
    lease.overwrite(OTHER, px=LONG_MS)
    ends_ms = lease.ends_ms
    group, told = stand(redis_url, "k", "mine", ttl=0.3)
    told.wait_elected("mine")
    refreshed = group.counters.refreshes
    until(lambda: group.counters.refreshes >= refreshed + 3)
    assert group["k"].leader_id == "other"
    group.stop()
    assert lease.holder == OTHER.encode()
    assert lease.ends_ms == ends_ms
    assert told.of("k") == []


def test_a_refresh_leaves_the_lease_of_a_successor_alone(
    redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    lease = Lease(redis_client)
    _, told = stand(redis_url, "k", ttl=0.6)
    told.wait_elected("k")
    lease.overwrite(OTHER, px=LONG_MS)
    ends_ms = lease.ends_ms
    told.wait_demoted("k")
    assert lease.ends_ms == ends_ms


def test_stop_leaves_the_lease_of_a_successor_alone(
    redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    # The epoch is the leader's own, so that nothing but the holder tells the two apart.
    group, told = stand(redis_url, "k", "mine", ttl=10.0)
    told.wait_elected("k")
    told.wait_elected("mine")
    Lease(redis_client).overwrite(OTHER)
    group.stop()
    assert Lease(redis_client).holder == OTHER.encode()
    assert not Lease(redis_client, "mine").is_held


def test_stop_releases_a_lease_whose_counter_somebody_raised(
    redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    # As a fence does. No other node could take the lease before its end.
    group, told = stand(redis_url, "k", "mine", ttl=10.0)
    told.wait_elected("k")
    told.wait_elected("mine")
    redis_client.incr(Lease(redis_client).epoch_key)
    group.stop()
    assert not Lease(redis_client).is_held
    assert not Lease(redis_client, "mine").is_held


def test_a_release_that_comes_late_does_not_end_a_newer_term(
    proxy: Proxy, redis_client: redis.Redis, stand: Stand
) -> None:
    client: Any = redis_client
    group, told = stand(proxy.url, "k", ttl=10.0)
    epoch = told.wait_elected("k").epoch
    group["k"].resign()
    group["k"].campaign()
    newer = told.wait_elected("k", above=epoch).epoch
    (release,) = proxy.scripts("release")
    with client.pubsub() as listening:
        listening.subscribe(LAYOUT.channel)
        assert listening.get_message(timeout=5.0)["type"] == "subscribe"
        _, elsewhere, failed = client.execute_command(*release)
        assert (elsewhere, failed) == ([1, newer], [])
        # Nothing comes before what is published now.
        client.publish(LAYOUT.channel, b"0:")
        assert listening.get_message(timeout=5.0)["data"] == b"0:"
    assert Lease(redis_client).holder == group.holder.encode()
    assert group["k"].require_leader() == newer


def test_the_same_release_in_time_does_end_the_term(
    redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    client: Any = redis_client
    lease = Lease(redis_client)
    group, told = stand(redis_url, "k", ttl=10.0)
    epoch = told.wait_elected("k").epoch
    keys = [lease.leader_key, lease.epoch_key]
    reply = client.eval(WITHOUT_FLAGS.release.body, 2, *keys, group.holder, LAYOUT.channel, epoch)
    assert reply[1:] == [[], []]
    assert not lease.is_held


def test_a_grant_ends_the_term_that_it_means_and_no_newer_one(
    redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    client: Any = redis_client
    lease = Lease(redis_client)
    group, told = stand(redis_url, "k", ttl=10.0)
    epoch = told.wait_elected("k").epoch
    keys = [lease.leader_key, lease.epoch_key]
    script, words = WITHOUT_FLAGS.grant.body, (group.holder, LAYOUT.channel, LONG_MS)
    late = client.eval(script, 2, *keys, *words, epoch - 1, OTHER)
    assert late[1:] == [[1, epoch], []]
    assert lease.holder == group.holder.encode()
    meant = client.eval(script, 2, *keys, *words, epoch, OTHER)
    assert meant[1:] == [[], []]
    assert lease.holder == OTHER.encode()
