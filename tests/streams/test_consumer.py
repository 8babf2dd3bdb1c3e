"""Both consumers of streams, on real servers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import pytest
import redis
from tests.diary import until

from multielect import ConfigError, MultielectError
from multielect.errors import HandlerError
from multielect.streams import AsyncStreamConsumer, Batch, StreamConsumer

PREFIX = "test-streams"
KEYS = [f"s{number}" for number in range(8)]
LONG_S = 20.0

Handler = Callable[[Batch[Any]], None]


class Consumer(Protocol):
    """What the tests need of either consumer."""

    errors: list[MultielectError]

    def stop(self) -> None: ...
    def holder(self) -> str: ...
    def loads(self) -> int: ...
    def lag(self) -> Mapping[str, Any]: ...
    def resume(self, key: str) -> bool: ...
    def in_hand(self) -> int: ...


class Threads:
    """The consumer of threads."""

    def __init__(self, url: str, handler: Handler, settings: dict[str, Any]) -> None:
        self.errors: list[MultielectError] = []
        self._consumer = StreamConsumer(
            url, handler=handler, on_error=self.errors.append, **settings
        )
        self._consumer.start()

    def stop(self) -> None:
        self._consumer.stop()

    def holder(self) -> str:
        return self._consumer.group.holder

    def loads(self) -> int:
        return len(self._consumer.group.owned)

    def lag(self) -> Mapping[str, Any]:
        return self._consumer.lag()

    def resume(self, key: str) -> bool:
        return self._consumer.resume(key)

    def in_hand(self) -> int:
        return self._consumer.in_hand


class Loop:
    """The consumer of asyncio, in a loop on a thread of its own."""

    def __init__(self, url: str, handler: Handler, settings: dict[str, Any]) -> None:
        self.errors: list[MultielectError] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

        async def handle(batch: Batch[Any]) -> None:
            # Handlers of these tests block, and a loop must not.
            await asyncio.to_thread(handler, batch)

        async def start() -> AsyncStreamConsumer:
            consumer = AsyncStreamConsumer(
                url, handler=handle, on_error=self.errors.append, **settings
            )
            await consumer.start()
            return consumer

        self._consumer = self._run(start())
        self._is_over = False

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(LONG_S)

    def stop(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._run(self._consumer.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def holder(self) -> str:
        return str(self._consumer.group.holder)

    def loads(self) -> int:
        return len(self._consumer.group.owned)

    def lag(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._run(self._consumer.lag())
        return found

    def resume(self, key: str) -> bool:
        async def resume() -> bool:
            return bool(self._consumer.resume(key))

        return bool(self._run(resume()))

    def in_hand(self) -> int:
        return int(self._consumer.in_hand)


class Begin(Protocol):
    """Starts a consumer."""

    def __call__(self, handler: Handler, **settings: Any) -> Consumer: ...


@pytest.fixture(params=[Threads, Loop], ids=["threads", "asyncio"])
def begin(request: pytest.FixtureRequest, redis_url: str) -> Iterator[Begin]:
    """Start consumers of either kind; they are stopped when the test ends."""
    started: list[Consumer] = []

    def start(handler: Handler, **settings: Any) -> Consumer:
        given = {"prefix": PREFIX, "partitions": KEYS, "ttl": 1.0, "balance": True, **settings}
        consumer: Consumer = request.param(redis_url, handler, given)
        started.append(consumer)
        return consumer

    yield start
    for consumer in started:
        consumer.stop()


class Work:
    """A handler that stages what it saw, beside the checkpoint, and remembers it."""

    def __init__(self, name: str = "work") -> None:
        self.name = name
        self.seen: dict[str, list[int]] = {}

    def __call__(self, batch: Batch[Any]) -> None:
        for entry in batch.entries:
            number = int(entry.fields[b"n"])
            self.seen.setdefault(batch.key, []).append(number)
            batch.xadd(f"out:{batch.key}", {"n": number, "epoch": batch.epoch, "by": self.name})


def append(client: redis.Redis, count: int, *, first: int = 0, keys: list[str] = KEYS) -> None:
    pipeline = client.pipeline(transaction=False)
    for number in range(first, first + count):
        for key in keys:
            pipeline.xadd(key, {"n": number})
    pipeline.execute()


def written(client: Any, key: str) -> list[tuple[int, int]]:
    """What was staged for a partition and made: number and epoch, in order."""
    return [(int(f[b"n"]), int(f[b"epoch"])) for _, f in client.xrange(f"out:{key}")]


def done(client: redis.Redis, count: int, keys: list[str] = KEYS) -> bool:
    return all(client.xlen(f"out:{key}") >= count for key in keys)


def check_whole(client: redis.Redis, count: int, keys: list[str] = KEYS) -> None:
    """Nothing lost, doubled or out of order, and no older epoch after a newer one."""
    for key in keys:
        found = written(client, key)
        assert [number for number, _ in found] == list(range(count)), key
        epochs = [epoch for _, epoch in found]
        assert epochs == sorted(epochs), key


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
    assert later.lag()["s1"].entries == 7
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
