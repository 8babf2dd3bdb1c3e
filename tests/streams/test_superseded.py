"""A consumer that a newer epoch shuts out says so, and goes on under one above it."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import redis
from tests.diary import until

from multielect import HandlerError, StaleEpochError
from multielect._protocol.keys import group_layout
from multielect.fencing import Fence, Writer
from multielect.streams import Batch

from .rig import KEYS, LONG_S, PREFIX, Begin, Consumer, Work, append, check_whole, done, written

LATER = 10_000_000
LAYOUT = group_layout(PREFIX)


def supersede(client: redis.Redis, key: str) -> int:
    """Write under an epoch that a primary gave which nobody follows. Returns that epoch."""
    counter: Any = client.get(LAYOUT.epoch_key(key.encode()))
    epoch = int(counter) + LATER
    Fence(client, PREFIX).set(Writer(key=key, epoch=epoch), f"orphan:{key}", "x")
    return epoch


def told(consumer: Consumer) -> list[str]:
    return [
        str(error)
        for error in list(consumer.errors)
        if isinstance(error.__cause__, StaleEpochError)
    ]


def test_the_partition_goes_on_under_an_epoch_above(
    begin: Begin, redis_client: redis.Redis
) -> None:
    append(redis_client, 3)
    consumer = begin(Work(), ttl=30.0, balance=False)
    until(lambda: done(redis_client, 3))
    until(lambda: all(lag.entries == 0 for lag in consumer.lag().values()))
    newest = supersede(redis_client, "s3")
    append(redis_client, 3, first=3)
    until(lambda: done(redis_client, 6))
    consumer.stop()
    check_whole(redis_client, 6)
    epochs = sorted({epoch for _, epoch in written(redis_client, "s3")})
    assert len(epochs) == 2
    assert epochs[1] > newest
    (why,) = told(consumer)
    assert "'s3'" in why
    assert str(newest) in why
    assert not [error for error in consumer.errors if isinstance(error, HandlerError)]


def test_all_partitions_at_once_are_told_of_at_once(
    begin: Begin, redis_client: redis.Redis
) -> None:
    append(redis_client, 3)
    consumer = begin(Work(), ttl=30.0, balance=False)
    until(lambda: done(redis_client, 3))
    until(lambda: all(lag.entries == 0 for lag in consumer.lag().values()))
    newest = {key: supersede(redis_client, key) for key in KEYS}
    append(redis_client, 3, first=3)
    until(lambda: done(redis_client, 6))
    consumer.stop()
    check_whole(redis_client, 6)
    assert all(written(redis_client, key)[-1][1] > newest[key] for key in KEYS)
    assert 1 <= len(told(consumer)) <= 3, told(consumer)


def test_a_claim_that_is_refused_is_made_again_above(
    begin: Begin, redis_client: redis.Redis
) -> None:
    append(redis_client, 3, keys=["s0"])
    seconds, _ = redis_client.time()
    newest = seconds * 1000 + LATER
    # The counter was lost since, as by an eviction: the election does not know yet.
    redis_client.set(LAYOUT.fence_key(b"s0"), newest)
    consumer = begin(Work(), partitions=["s0"], ttl=30.0, balance=False)
    until(lambda: done(redis_client, 3, ["s0"]))
    check_whole(redis_client, 3, ["s0"])
    assert {epoch > newest for _, epoch in written(redis_client, "s0")} == {True}
    assert len(told(consumer)) == 1


def test_a_handler_whose_own_write_is_refused_has_not_failed(
    begin: Begin, redis_client: redis.Redis
) -> None:
    append(redis_client, 2, keys=["s0"])
    work, fence = Work(), Fence(redis_client, PREFIX)
    newest: list[int] = []

    def handle(batch: Batch[Any]) -> None:
        if not newest:
            newest.append(supersede(redis_client, batch.key))
        fence.set(batch.writer, "own", batch.epoch)
        work(batch)

    consumer = begin(handle, partitions=["s0"], attempts=1, ttl=30.0, balance=False)
    until(lambda: done(redis_client, 2, ["s0"]))
    check_whole(redis_client, 2, ["s0"])
    assert not [error for error in consumer.errors if isinstance(error, HandlerError)]
    assert not redis_client.exists(f"{PREFIX}:dead-letters")
    assert len(told(consumer)) == 1


def test_what_a_handler_had_begun_is_handled_again_and_committed_once(
    begin: Begin, redis_client: redis.Redis
) -> None:
    append(redis_client, 3, keys=["s0"])
    entered, go_on = threading.Event(), threading.Event()
    work = Work()

    def handle(batch: Batch[Any]) -> None:
        entered.set()
        assert go_on.wait(LONG_S)
        work(batch)

    consumer: Any = begin(handle, partitions=["s0"], ttl=30.0, balance=False)
    assert entered.wait(LONG_S)
    supersede(redis_client, "s0")
    go_on.set()
    until(lambda: done(redis_client, 3, ["s0"]))
    consumer.stop()
    check_whole(redis_client, 3, ["s0"])
    assert work.seen["s0"] == [0, 1, 2, 0, 1, 2]
    assert consumer.consumer.tally.dropped == 1
    assert consumer.consumer.tally.handled == 3


@pytest.mark.parametrize("balance", [True, False])
def test_a_fleet_goes_on(begin: Begin, redis_client: redis.Redis, balance: bool) -> None:
    append(redis_client, 3)
    consumers = [begin(Work(), balance=balance, ttl=30.0) for _ in range(2)]
    until(lambda: done(redis_client, 3))
    for key in KEYS:
        supersede(redis_client, key)
    append(redis_client, 3, first=3)
    until(lambda: done(redis_client, 6))
    for consumer in consumers:
        consumer.stop()
    check_whole(redis_client, 6)
