"""Promise 2: the epoch of a term is greater than that of every earlier term of its election."""

from __future__ import annotations

import pytest
import redis

from multielect import DemotionReason

from .conftest import Stand
from .lease import PREFIX, Lease
from .process import Candidate


def test_an_epoch_is_greater_after_a_release(redis_url: str, stand: Stand) -> None:
    first, told_first = stand(redis_url, "k", ttl=10.0)
    before = told_first.wait_elected("k").epoch
    _, told_second = stand(redis_url, "k", ttl=10.0)
    first.stop()
    assert told_second.wait_elected("k").epoch > before


def test_an_epoch_is_greater_after_a_crash(redis_url: str, stand: Stand) -> None:
    with Candidate(redis_url, prefix=PREFIX, key="k", ttl=0.5) as crashing:
        before = crashing.wait("elected")["epoch"]
        crashing.kill()
    _, told = stand(redis_url, "k", ttl=0.5)
    assert told.wait_elected("k").epoch > before


@pytest.mark.parametrize("lost", ["everything", "the counter"])
def test_an_epoch_is_greater_after_redis_forgot(
    lost: str, redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    # Deleting the counter is all that an eviction of it does.
    lease = Lease(redis_client)
    _, told = stand(redis_url, "k", ttl=0.5)
    before = told.wait_elected("k").epoch
    assert lease.epoch == before
    if lost == "everything":
        redis_client.flushall()
    else:
        redis_client.delete(lease.epoch_key, lease.leader_key)
    assert told.wait_demoted("k").reason is DemotionReason.LOST
    after = told.wait_elected("k", above=before).epoch
    assert lease.epoch == after
    epochs = [entry.epoch for entry in told.of("k") if entry.reason is None]
    assert epochs == sorted(set(epochs))


def test_an_epoch_is_greater_than_a_counter_that_is_ahead_of_the_clock(
    redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    seconds, _ = redis_client.time()
    ahead = (seconds + 3600) * 1000
    redis_client.set(Lease(redis_client).epoch_key, ahead)
    group, told = stand(redis_url, "k")
    assert told.wait_elected("k").epoch == ahead + 1
    group["k"].resign()
    group["k"].campaign()
    assert told.wait_elected("k", above=ahead + 1).epoch == ahead + 2


def test_an_epoch_is_the_time_of_the_server(
    redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    def now_ms() -> int:
        seconds, microseconds = redis_client.time()
        return int(seconds * 1000 + microseconds // 1000)

    before_ms = now_ms()
    _, told = stand(redis_url, "k")
    assert before_ms <= told.wait_elected("k").epoch <= now_ms()


def test_counted_epochs_are_one_two_three(redis_url: str, stand: Stand) -> None:
    group, told = stand(redis_url, "k", epochs="counter")
    for epoch in (1, 2, 3):
        assert told.wait_elected("k", above=epoch - 1).epoch == epoch
        assert group["k"].epoch == epoch
        group["k"].resign()
        group["k"].campaign()
