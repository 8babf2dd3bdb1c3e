"""Both consumers of streams, on real servers."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import redis
from tests.diary import until

from multielect import ConfigError
from multielect.errors import HandlerError
from multielect.streams import AsyncStreamConsumer, Batch, StreamConsumer

from .rig import KEYS, LONG_S, PREFIX, Begin, Work, append, check_whole, done, written


def test_each_partition_is_handled_in_order(begin: Begin, redis_client: redis.Redis) -> None:
    append(redis_client, 50)
    work = Work()
    begin(work, batch=7)
    until(lambda: done(redis_client, 50))
    append(redis_client, 50, first=50)
    until(lambda: done(redis_client, 100))
    check_whole(redis_client, 100)
    assert all(work.seen[key] == list(range(100)) for key in KEYS)


def test_what_moves_is_handled_once(begin: Begin, redis_client: redis.Redis) -> None:
    first, second, third = Work("1"), Work("2"), Work("3")
    one = begin(first, batch=5)
    until(lambda: one.loads() == 8)
    writer_goes_on = True

    def write() -> None:
        number = 0
        while writer_goes_on:
            append(redis_client, 5, first=number)
            number += 5
        written_total.append(number)

    written_total: list[int] = []
    writer = threading.Thread(target=write)
    writer.start()
    two = begin(second, batch=5)
    until(lambda: one.loads() == two.loads() == 4)
    begin(third, batch=5)
    until(lambda: one.loads() + two.loads() <= 6)
    two.stop()
    until(lambda: one.loads() == 4)
    writer_goes_on = False
    writer.join()
    (count,) = written_total
    until(lambda: done(redis_client, count))
    check_whole(redis_client, count)
    for key in KEYS:
        handled = [n for work in (first, second, third) for n in work.seen.get(key, [])]
        assert sorted(handled) == list(range(count)), "a planned move had something done twice"


def test_a_stop_hands_over_once_the_handler_is_done_and_its_batch_is_committed(
    begin: Begin, redis_client: redis.Redis
) -> None:
    append(redis_client, 5, keys=["s0"])
    entered, go_on = threading.Event(), threading.Event()
    first, second = Work("1"), Work("2")

    def handle(batch: Batch[Any]) -> None:
        entered.set()
        assert go_on.wait(LONG_S)
        first(batch)

    settings = {"partitions": ["s0"], "drain_timeout": 60.0}
    one: Any = begin(handle, **settings)
    assert entered.wait(LONG_S)
    two = begin(second, **settings)
    stopper = threading.Thread(target=one.stop)
    stopper.start()
    until(lambda: one.consumer._flow.is_closing)
    # Long enough for the other to begin, if it were let; otherwise nothing is waited for.
    time.sleep(0.3)
    assert two.loads() == 0
    go_on.set()
    stopper.join()
    append(redis_client, 5, first=5, keys=["s0"])
    until(lambda: done(redis_client, 10, ["s0"]))
    check_whole(redis_client, 10, ["s0"])
    held = len(first.seen["s0"])
    assert first.seen["s0"] == list(range(held))
    assert second.seen["s0"] == list(range(held, 10))


def test_a_node_whose_lease_is_over_commits_nothing(
    begin: Begin, redis_client: redis.Redis
) -> None:
    append(redis_client, 10, keys=["s0"])
    stuck, go_on = threading.Event(), threading.Event()

    def sticks(batch: Batch[Any]) -> None:
        stuck.set()
        assert go_on.wait(LONG_S)
        for entry in batch.entries:
            batch.xadd("out:s0", {"n": int(entry.fields[b"n"]), "epoch": batch.epoch})

    begin(sticks, partitions=["s0"], balance=False)
    assert stuck.wait(LONG_S)
    # The lease is another's now, as if this one had been away for longer than its TTL.
    other = begin(Work("other"), partitions=["s0"], balance=False)
    (leader,) = redis_client.keys(f"{PREFIX}:*:leader")
    redis_client.set(leader, other.holder(), px=5_000)
    until(lambda: done(redis_client, 10, ["s0"]), LONG_S)
    go_on.set()
    append(redis_client, 10, first=10, keys=["s0"])
    until(lambda: done(redis_client, 20, ["s0"]))
    check_whole(redis_client, 20, ["s0"])


def test_what_fails_is_tried_again_and_then_set_aside(
    begin: Begin, redis_client: redis.Redis
) -> None:
    append(redis_client, 10, keys=["s0"])
    tries: list[int] = []

    def handle(batch: Batch[Any]) -> None:
        for entry in batch.entries:
            if int(entry.fields[b"n"]) == 4:
                tries.append(batch.attempt)
                raise ValueError("this one is bad")
            batch.xadd("out:s0", {"n": int(entry.fields[b"n"]), "epoch": batch.epoch})

    consumer = begin(handle, partitions=["s0"], attempts=3, retry_base=0.01)
    until(lambda: done(redis_client, 9, ["s0"]))
    assert [number for number, _ in written(redis_client, "s0")] == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    client: Any = redis_client
    ((_, aside),) = client.xrange(f"{PREFIX}:dead-letters")
    bad_id, _ = client.xrange("s0")[4]
    assert aside[b"stream"] == b"s0"
    assert aside[b"id"] == bad_id
    assert aside[b"error"] == b"builtins.ValueError"
    assert aside[b"message"] == b"this one is bad"
    assert aside[b"attempts"] == b"3"
    assert aside[b"field:n"] == b"4"
    assert tries[-3:] == [1, 2, 3]
    until(lambda: any(isinstance(error, HandlerError) for error in consumer.errors))


def test_a_partition_that_is_halted_goes_on_when_told(
    begin: Begin, redis_client: redis.Redis
) -> None:
    append(redis_client, 3)
    bad = threading.Event()
    bad.set()
    work = Work()

    def handle(batch: Batch[Any]) -> None:
        if bad.is_set() and batch.key == "s3":
            raise ValueError("not yet")
        work(batch)

    consumer = begin(handle, on_failure="halt", attempts=1, retry_base=0.01)
    others = [key for key in KEYS if key != "s3"]
    until(lambda: done(redis_client, 3, others))
    until(lambda: any("(halt" in str(error) for error in consumer.errors))
    assert redis_client.xlen("out:s3") == 0
    bad.clear()
    until(lambda: consumer.resume("s3"))
    until(lambda: done(redis_client, 3))
    check_whole(redis_client, 3)


def test_no_more_is_read_than_there_is_room_for(begin: Begin, redis_client: redis.Redis) -> None:
    append(redis_client, 200)
    go_on = threading.Event()
    work = Work()

    def handle(batch: Batch[Any]) -> None:
        assert go_on.wait(LONG_S)
        work(batch)

    consumer = begin(handle, batch=10, max_in_hand=40, handlers=4)
    until(lambda: consumer.in_hand() >= 30)
    for _ in range(50):
        assert consumer.in_hand() <= 40
        time.sleep(0.002)
    go_on.set()
    until(lambda: done(redis_client, 200))
    check_whole(redis_client, 200)


def test_new_partitions_are_picked_up(begin: Begin, redis_client: redis.Redis) -> None:
    listed = ["s0"]
    append(redis_client, 5)
    begin(Work(), partitions=lambda: list(listed), discover=0.05)
    until(lambda: done(redis_client, 5, ["s0"]))
    assert redis_client.xlen("out:s1") == 0
    listed[:] = KEYS
    until(lambda: done(redis_client, 5))
    check_whole(redis_client, 5)


def test_lag_is_what_was_not_handled(begin: Begin, redis_client: redis.Redis) -> None:
    append(redis_client, 10)
    consumer = begin(Work())
    until(lambda: done(redis_client, 10))
    until(lambda: all(lag.entries == 0 for lag in consumer.lag().values()))
    consumer.stop()
    append(redis_client, 7, first=10, keys=["s1"])
    later = begin(Work(), weight=0)
    # Before 7.0 a server does not count what was added: then all that it holds is behind.
    major = int(redis_client.info("server")["redis_version"].split(".")[0])
    assert later.lag()["s1"].entries == (7 if major >= 7 else 17)
    assert later.lag()["s2"].entries == 0


def test_who_takes_over_goes_on_at_the_checkpoint(begin: Begin, redis_client: redis.Redis) -> None:
    append(redis_client, 20)
    first = begin(Work("1"))
    until(lambda: done(redis_client, 20))
    first.stop()
    append(redis_client, 20, first=20)
    second = Work("2")
    begin(second)
    until(lambda: done(redis_client, 40))
    check_whole(redis_client, 40)
    assert all(min(numbers) == 20 for numbers in second.seen.values())


@pytest.mark.parametrize(
    "bad",
    [
        {"batch": 0},
        {"batch": 10, "max_in_hand": 5},
        {"attempts": 0},
        {"retry_base": -1},
        {"retry_base": "1"},
        {"retry_base": float("inf")},
        {"retry_base": 10**400},
        {"on_failure": "ignore"},
        {"start": "yesterday"},
        {"discover": 0},
        {"partitions": [""]},
        {"on_elected": print},
        {"weight": -1},
    ],
)
@pytest.mark.parametrize("kind", [StreamConsumer, AsyncStreamConsumer])
def test_bad_input_is_refused(kind: Any, bad: dict[str, Any]) -> None:
    settings = {"prefix": PREFIX, "partitions": KEYS, "balance": True, **bad}
    with pytest.raises((ConfigError, TypeError)):
        kind("redis://localhost", handler=print, **settings)
