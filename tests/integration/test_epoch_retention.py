"""Epochs of elections that are gone for good do not stay for ever, where that is asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from multielect import DemotionReason, ElectionGroup, Elector, aio
from multielect._protocol.keys import elector_layout
from multielect._protocol.scripts import WITHOUT_FLAGS
from multielect._settings import settings as _settings
from multielect.fencing import Fence

from .conftest import Stand
from .lease import LAYOUT, PREFIX, Lease
from .record import Record

HOUR_MS = 3_600_000
SHORT_S = 0.2
WITHIN_S = 30.0
COUNT = 2_000
JOBS = [f"job-{number}" for number in range(COUNT)]


@pytest.fixture
def short_retention(monkeypatch: pytest.MonkeyPatch) -> float:
    """A retention that only a test may ask for."""
    monkeypatch.setattr(_settings, "MIN_RETENTION_S", 0.0)
    monkeypatch.setattr(_settings, "MIN_RETENTION_TTLS", 0)
    return SHORT_S


def remaining_ms(client: Any, names: list[bytes]) -> list[int]:
    with client.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.pttl(name)
        return list(pipeline.execute())


def polled(client: redis.Redis, name: bytes) -> Iterator[int]:
    """What is left of a key, until it is gone or time is up."""
    until = time.monotonic() + WITHIN_S
    while time.monotonic() < until:
        yield remaining_ms(client, [name])[0]


def wait_gone(client: redis.Redis, name: bytes) -> None:
    # A key with an expiry is looked up until the server has dropped it.
    assert -2 in polled(client, name), f"{name!r} stays"


def come_and_go(group: ElectionGroup, told: Record) -> dict[str, int]:
    """Lead each election once and remove it. Returns the epochs."""
    group.add_many(JOBS)
    epochs = {key: told.wait_elected(key).epoch for key in JOBS}
    for key in JOBS:
        group.remove(key)
    assert told.wait_demoted(JOBS[-1]).reason is DemotionReason.REMOVED
    return epochs


def test_elections_that_come_and_go_leave_nothing_that_stays(
    redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    group, told = stand(redis_url, "led", ttl=10.0, epoch_retention=3600)
    told.wait_elected("led")
    come_and_go(group, told)
    waiting = [LAYOUT.leader_key(key.encode()) for key in JOBS]
    for name in waiting[-300:]:
        wait_gone(redis_client, name)
    names = [LAYOUT.epoch_key(key.encode()) for key in JOBS]
    left = remaining_ms(redis_client, names)
    assert all(HOUR_MS - 60_000 < ms <= HOUR_MS for ms in left)
    assert remaining_ms(redis_client, [Lease(redis_client, "led").epoch_key]) == [-1]

    group.add(JOBS[0])
    told.wait_elected(JOBS[0], above=told.wait_elected(JOBS[0]).epoch)
    assert remaining_ms(redis_client, names[:1]) == [-1]


def test_they_are_gone_after_that_time_and_the_next_epoch_is_newer(
    redis_url: str, redis_client: redis.Redis, stand: Stand, short_retention: float
) -> None:
    group, told = stand(redis_url, "led", ttl=10.0, epoch_retention=short_retention)
    told.wait_elected("led")
    epochs = come_and_go(group, told)
    for key in JOBS:
        wait_gone(redis_client, LAYOUT.epoch_key(key.encode()))
    kept = {LAYOUT.buckets_key, *(name(b"led") for name in (LAYOUT.leader_key, LAYOUT.epoch_key))}
    assert set(redis_client.keys()) == kept

    group.add_many(JOBS[:100])
    for key in JOBS[:100]:
        assert told.wait_elected(key, above=epochs[key]).epoch > epochs[key]


def test_the_fence_goes_with_the_epoch(
    redis_url: str, redis_client: redis.Redis, stand: Stand, short_retention: float
) -> None:
    group, told = stand(redis_url, "k", ttl=10.0, epoch_retention=short_retention)
    before = told.wait_elected("k").epoch
    fence = Fence(redis_client, PREFIX)
    assert fence.set(group["k"], fence.data_key("k", "offset"), 1)
    fence_key = LAYOUT.fence_key(b"k")
    assert remaining_ms(redis_client, [fence_key]) == [-1]
    group["k"].resign()
    wait_gone(redis_client, fence_key)
    wait_gone(redis_client, LAYOUT.epoch_key(b"k"))
    group["k"].campaign()
    assert told.wait_elected("k", above=before).epoch > before
    assert fence.set(group["k"], fence.data_key("k", "offset"), 2)
    assert remaining_ms(redis_client, [fence_key]) == [-1]


def test_an_epoch_ahead_of_the_clock_outlives_its_retention(
    redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    seconds, _ = redis_client.time()
    epoch_key = Lease(redis_client).epoch_key
    # As after the server's clock was set back by ten hours.
    redis_client.set(epoch_key, seconds * 1000 + 10 * HOUR_MS)
    group, told = stand(redis_url, "k", ttl=10.0, epoch_retention=3600)
    told.wait_elected("k")
    group.stop()
    (left,) = remaining_ms(redis_client, [epoch_key])
    assert left > 10 * HOUR_MS


def test_who_asks_for_nothing_leaves_epochs_for_ever(
    redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    group, told = stand(redis_url, "k", ttl=10.0)
    told.wait_elected("k")
    group.stop()
    assert remaining_ms(redis_client, [Lease(redis_client).epoch_key]) == [-1]


def test_a_grant_lets_the_epoch_expire_until_the_successor_is_elected(
    redis_client: redis.Redis,
) -> None:
    client: Any = redis_client
    keys = [name(b"k") for name in (LAYOUT.leader_key, LAYOUT.epoch_key, LAYOUT.fence_key)]
    acquire, grant = WITHOUT_FLAGS.acquire.body, WITHOUT_FLAGS.expiring_grant.body
    epoch = client.eval(acquire, 2, *keys[:2], "a/1", 60_000, "time", "")[2]
    client.set(keys[2], epoch)
    words = ("a/1", LAYOUT.channel, 60_000, epoch, "b/2", HOUR_MS)
    assert client.eval(grant, 3, *keys, *words)[1:] == [[], []]
    assert client.get(keys[0]) == b"b/2"
    assert all(0 < left <= HOUR_MS for left in remaining_ms(client, keys[1:]))
    assert client.eval(acquire, 2, *keys[:2], "b/2", 60_000, "time", "")[2] > epoch
    assert remaining_ms(client, keys[1:2]) == [-1]


def test_an_elector_has_it_too(redis_url: str, redis_client: redis.Redis) -> None:
    with Elector(redis_url, prefix="one", epoch_retention=3600) as elector:
        assert elector.wait(WITHIN_S)
    (left,) = remaining_ms(redis_client, [elector_layout("one").epoch_key(b"")])
    assert 0 < left <= HOUR_MS


def test_both_have_it_in_an_event_loop(redis_url: str, redis_client: redis.Redis) -> None:
    async def come_and_go_again() -> None:
        async with aio.ElectionGroup(redis_url, prefix=PREFIX, epoch_retention=3600) as group:
            assert await group.add("k").wait(WITHIN_S)
        async with aio.Elector(redis_url, prefix="one", epoch_retention=3600) as elector:
            assert await elector.wait(WITHIN_S)

    asyncio.run(come_and_go_again())
    names = [Lease(redis_client).epoch_key, elector_layout("one").epoch_key(b"")]
    assert all(0 < left <= HOUR_MS for left in remaining_ms(redis_client, names))
