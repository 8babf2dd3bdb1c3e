"""`examples/kafka_consumer.py` on a real Redis and a mock of Kafka that speaks its protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis
from click.testing import CliRunner

pytest.importorskip("aiokafka", reason="the example needs aiokafka")
pytest.importorskip("confluent_kafka", reason="the mock of Kafka comes with confluent-kafka")

from aiokafka import AIOKafkaConsumer
from examples.kafka_consumer import RECORDS_A_COMMIT, PartitionConsumer, main
from tests.diary import until

from multielect.fencing import Fence

from .brokers import PARTITIONS, MockKafka
from .nodes import WITHIN_S, Handled, Node, in_order, successor

PREFIX = "kafka-consumer"
TOPIC = "orders"
KEYS = [f"{TOPIC}-{number}" for number in range(PARTITIONS)]


@pytest.fixture
def kafka() -> MockKafka:
    return MockKafka()


def checkpoints(client: redis.Redis) -> dict[str, int]:
    fence = Fence(client, PREFIX)
    return {key: int(client.get(fence.data_key(key, "offset")) or 0) for key in KEYS}


def options(kafka: MockKafka, url: str, **more: object) -> list[str]:
    settings = {"kafka": kafka.address, "topic": TOPIC, "redis": url, "ttl": 1.0, **more}
    return [f"--{name}={value}" for name, value in settings.items()]


def test_help_teaches() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    for word in ("--kafka", "--topic", "--redis", "--prefix", "Ctrl-C", "checkpoint"):
        assert word in result.output


def test_after_a_kill_another_goes_on_from_the_checkpoint(
    kafka: MockKafka, redis_url: str, redis_client: redis.Redis, start: Callable[..., Node]
) -> None:
    count = 400
    kafka.append(TOPIC, count)
    first = start("kafka_consumer.py", *options(kafka, redis_url, work=0.005))
    first.wait_for(lambda handled: all(len(handled[key]) > RECORDS_A_COMMIT + 10 for key in KEYS))
    # Kafka may give fewer records at once than were asked for, so commits are not at every 100.
    until(lambda: min(checkpoints(redis_client).values()) >= RECORDS_A_COMMIT)
    second = start("kafka_consumer.py", *options(kafka, redis_url))
    first.kill()
    before = first.handled()
    second.wait_for(lambda handled: all(count - 1 in handled[key] for key in KEYS))
    assert second.interrupt() == 0
    after = second.handled()
    for key in KEYS:
        assert in_order(before[key], after[key])
        assert after[key][0] >= RECORDS_A_COMMIT, "it began at the start, not at the checkpoint"
    assert checkpoints(redis_client) == dict.fromkeys(KEYS, count)


def test_ctrl_c_hands_over_with_nothing_handled_twice(
    kafka: MockKafka, redis_url: str, redis_client: redis.Redis, start: Callable[..., Node]
) -> None:
    count = 200
    kafka.append(TOPIC, count)
    first = start("kafka_consumer.py", *options(kafka, redis_url, work=0.005))
    first.wait_for(lambda handled: all(len(handled[key]) > 10 for key in KEYS))
    assert first.interrupt() == 0
    before = first.handled()
    assert checkpoints(redis_client) == {key: len(before[key]) for key in KEYS}
    assert redis_client.keys("*:leader") == []
    second = start("kafka_consumer.py", *options(kafka, redis_url))
    second.wait_for(lambda handled: all(count - 1 in handled[key] for key in KEYS))
    after = second.handled()
    for key in KEYS:
        assert before[key] + after[key] == list(range(count))


# ---- in one loop, where a handler can be held


@asynccontextmanager
async def running(
    url: str, kafka: MockKafka, handle: Callable[[Any], Awaitable[None]], **settings: Any
) -> AsyncIterator[asyncio.Event]:
    """Run a consumer meanwhile; give the event that stops it."""
    client = AIOKafkaConsumer(
        bootstrap_servers=kafka.address, group_id=None, auto_offset_reset="earliest"
    )
    stop = asyncio.Event()
    consumer = PartitionConsumer(
        url, client, TOPIC, handle, **{"prefix": PREFIX, "ttl": 1.0, **settings}
    )
    task = asyncio.create_task(consumer.run(stop))
    try:
        yield stop
    finally:
        stop.set()
        await asyncio.wait_for(task, WITHIN_S)


class Notes:
    """A handler that writes down what it is given."""

    def __init__(self) -> None:
        self.handled: Handled = {key: [] for key in KEYS}
        self.changed = asyncio.Event()

    async def __call__(self, record: Any) -> None:
        self.note(record)

    def note(self, record: Any) -> None:
        self.handled[f"{record.topic}-{record.partition}"].append(record.offset)
        self.changed.set()

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        async def wait() -> None:
            while not condition():
                await self.changed.wait()
                self.changed.clear()

        await asyncio.wait_for(wait(), WITHIN_S)


def test_a_stale_node_cannot_move_the_checkpoint_back(
    kafka: MockKafka, redis_url: str, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    kafka.append(TOPIC, 20)
    held, newer = KEYS[0], 20

    async def scene() -> None:
        stuck, go_on = asyncio.Event(), asyncio.Event()

        async def sticks(record: Any) -> None:
            if f"{record.topic}-{record.partition}" == held and record.offset == 3:
                stuck.set()
                await go_on.wait()

        async with running(redis_url, kafka, sticks):
            await asyncio.wait_for(stuck.wait(), WITHIN_S)
            with successor(redis_url, redis_client, PREFIX, held) as term:
                fence = Fence(redis_client, PREFIX)
                fence.set(term, fence.data_key(held, "offset"), newer)
                go_on.set()
                await asyncio.to_thread(until, lambda: "not committed" in caplog.text)
                assert checkpoints(redis_client)[held] == newer

    asyncio.run(asyncio.wait_for(scene(), 2 * WITHIN_S))
    assert checkpoints(redis_client)[held] == newer


def test_a_handler_that_raises_gives_the_partition_up_and_loses_nothing(
    kafka: MockKafka, redis_url: str
) -> None:
    kafka.append(TOPIC, 10)

    async def scene() -> Handled:
        notes = Notes()
        refused = False

        async def refuses_once(record: Any) -> None:
            nonlocal refused
            if record.partition == 1 and record.offset == 5 and not refused:
                refused = True
                raise RuntimeError("this record is refused once")
            notes.note(record)

        async with running(redis_url, kafka, refuses_once, ttl=0.5):
            await notes.wait_for(lambda: refused and all(9 in notes.handled[key] for key in KEYS))
        return notes.handled

    handled = asyncio.run(scene())
    assert handled[KEYS[0]] == list(range(10))
    assert in_order([-1], handled[KEYS[1]][:5], handled[KEYS[1]][5:])
    assert set(handled[KEYS[1]]) == set(range(10))


def test_a_slow_partition_holds_up_no_other(kafka: MockKafka, redis_url: str) -> None:
    kafka.append(TOPIC, 10)

    async def scene() -> Handled:
        notes, go_on = Notes(), asyncio.Event()

        async def slow(record: Any) -> None:
            if record.partition == 0:
                await go_on.wait()
            notes.note(record)

        async with running(redis_url, kafka, slow):
            await notes.wait_for(lambda: all(len(notes.handled[key]) == 10 for key in KEYS[1:]))
            assert notes.handled[KEYS[0]] == []
            go_on.set()
            await notes.wait_for(lambda: len(notes.handled[KEYS[0]]) == 10)
        return notes.handled

    assert all(run == list(range(10)) for run in asyncio.run(scene()).values())
