"""Promise 6: what the server refuses fails alone, is reported, and is asked again."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import redis
from tests.diary import until

from multielect import ConfigError, DemotionReason, ServerError
from multielect.embedded import EmbeddedServer

from .conftest import Stand
from .lease import LAYOUT, Lease

GOOD = [f"good{n}" for n in range(10)]


class Spoilt(NamedTuple):
    """A key that nobody can lead by: what it holds (None: a list), and what the server says."""

    kind: str
    value: str | None
    words: str


@pytest.mark.parametrize(
    "spoilt",
    [
        Spoilt("leader", None, "WRONGTYPE"),
        Spoilt("epoch", None, "WRONGTYPE"),
        Spoilt("epoch", str(2**63 - 1), "overflow"),
        Spoilt("epoch", str(2**53), "overflow"),
        Spoilt("epoch", "9" * 30, "overflow"),
        Spoilt("epoch", "not a number", "not an integer"),
    ],
    ids=lambda spoilt: f"{spoilt.kind}-{spoilt.value or 'list'}",
)
@pytest.mark.parametrize("epochs", ["time", "counter"])
def test_a_bad_key_fails_alone(
    spoilt: Spoilt, epochs: str, redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    leader = LAYOUT.leader_key(b"bad")
    bad = leader if spoilt.kind == "leader" else LAYOUT.epoch_key(b"bad")
    if spoilt.value is None:
        redis_client.rpush(bad, "an element")
    else:
        redis_client.set(bad, spoilt.value)
    # In one batch with the good ones, in the midst of them.
    keys = [*GOOD[:5], "bad", *GOOD[5:]]
    group, told = stand(redis_url, *keys, ttl=0.6, epochs=epochs)
    error = told.wait_error(ServerError, spoilt.words)
    assert isinstance(error, ServerError)
    assert (error.request, error.elections) == ("acquire", 1)
    assert [told.wait_elected(key).reason for key in GOOD] == [None] * len(GOOD)
    assert group.counters.batches < len(keys)
    # An election that cannot be numbered is not led by anybody.
    assert spoilt.kind == "leader" or not redis_client.exists(leader)
    assert told.of("bad") == []
    redis_client.delete(bad)
    told.wait_elected("bad")


def test_a_lease_that_became_something_else_ends_its_term_alone(
    redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    group, told = stand(redis_url, *GOOD, "bad", ttl=0.6)
    for key in [*GOOD, "bad"]:
        told.wait_elected(key)
    leader = LAYOUT.leader_key(b"bad")
    redis_client.eval("redis.call('DEL', KEYS[1]) redis.call('RPUSH', KEYS[1], 'x')", 1, leader)
    assert told.wait_demoted("bad").reason is DemotionReason.LOST
    told.wait_error(ServerError, "WRONGTYPE")
    group.stop()
    assert redis_client.lrange(leader, 0, -1) == [b"x"]
    assert [told.wait_demoted(key).reason for key in GOOD] == [DemotionReason.STOPPED] * len(GOOD)


def test_a_full_server_refreshes_but_grants_nothing(
    private_server: EmbeddedServer, stand: Stand
) -> None:
    # Lost for want of a processor, the lease could not be had again: time enough for that.
    group, told = stand(private_server.url, "led", ttl=2.0)
    epoch = told.wait_elected("led").epoch
    with redis.Redis.from_url(private_server.url) as client:
        fill(client)
        group.add("late")
        error = told.wait_error(ServerError, "OOM")
        assert isinstance(error, ServerError)
        assert (error.code, error.request) == ("OOM", "acquire")
        led, late = Lease(client, "led"), Lease(client, "late")
        ends_ms = led.ends_ms
        until(lambda: led.ends_ms > ends_ms + 2 * 2000)
        assert group["led"].require_leader() == epoch
        assert not late.is_held
        client.config_set("maxmemory", 0)
    told.wait_elected("late")
    assert [entry.reason for entry in told.of("led")] == [None]


def test_a_full_server_releases(private_server: EmbeddedServer, stand: Stand) -> None:
    group, told = stand(private_server.url, "k", ttl=60.0)
    told.wait_elected("k")
    with redis.Redis.from_url(private_server.url) as client:
        fill(client)
        group.stop()
        assert not Lease(client).is_held


def fill(client: redis.Redis) -> None:
    """Leave the server no memory for anything that would take some."""
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", 1)


def test_a_node_connects_to_a_server_that_is_full_already(
    private_server: EmbeddedServer, stand: Stand
) -> None:
    with redis.Redis.from_url(private_server.url) as client:
        fill(client)
        _, told = stand(private_server.url, "k", ttl=0.6)
        told.wait_error(ServerError, "OOM")
        client.config_set("maxmemory", 0)
    told.wait_elected("k")


def test_another_number_of_buckets_is_refused(
    redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    _, told = stand(redis_url, "k", buckets=16, ttl=0.6)
    told.wait_elected("k")
    assert redis_client.get(LAYOUT.buckets_key) == b"16"
    other, told_other = stand(redis_url, "k", ttl=0.6)
    told_other.wait_error(ConfigError, "divided into 16 buckets, not 256")
    assert not other["k"].is_leader
    assert redis_client.get(LAYOUT.buckets_key) == b"16"
    same, _ = stand(redis_url, "another", buckets=16, ttl=0.6)
    assert same["another"].wait(5.0)
