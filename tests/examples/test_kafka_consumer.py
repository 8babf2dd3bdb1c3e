"""`examples/kafka_consumer.py` on a real Redis and a mock of Kafka that speaks its protocol."""

from __future__ import annotations

import asyncio
import logging
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

from examples import kafka_consumer
from multielect import Term
from multielect.fencing import Fence

from .brokers import PARTITIONS, MockKafka
from .nodes import (
    DRAIN_S,
    WITHIN_S,
    Handled,
    Node,
    forget_lease,
    in_order,
    outdate,
    shared,
    successor,
)

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
    settings = {
        "kafka": kafka.address,
        "topic": TOPIC,
        "redis": url,
        "ttl": 1.0,
        "drain-timeout": DRAIN_S,
        **more,
    }
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


def test_two_nodes_share_the_partitions_and_hand_over_between_two_records(
    kafka: MockKafka, redis_url: str, redis_client: redis.Redis, start: Callable[..., Node]
) -> None:
    """One joins another at work, and leaves it again; each record is handled by one of them."""
    count = 600
    kafka.append(TOPIC, count - 200)
    first = start("kafka_consumer.py", *options(kafka, redis_url, work=0.005))
    first.wait_for(lambda handled: all(handled[key] for key in KEYS))
    second = start("kafka_consumer.py", *options(kafka, redis_url, work=0.005))
    # Where it is slow to start, the first may have handled all there was.
    until(lambda: second.told().count("begins") == 2)
    kafka.append(TOPIC, 200)
    second.wait_for(lambda handled: sum(len(run) > 10 for run in handled.values()) == 2)
    assert second.interrupt() == 0
    taken = {key for key, run in second.handled().items() if run}
    first.wait_for(lambda handled: all(count - 1 in handled[key] for key in KEYS))
    assert len(taken) == 2
    for key in KEYS:
        assert shared(count, 0, first.handled()[key], second.handled()[key])
    until(lambda: checkpoints(redis_client) == dict.fromkeys(KEYS, count))


# ---- in one loop, where a handler can be held


class Watched(PartitionConsumer):
    """A consumer that tells what it leads, and for which partitions a drain was begun."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.stop = asyncio.Event()
        self.told: list[str] = []

    def led(self) -> set[str]:
        return {election.key for election in self._group.led}

    async def is_refreshed(self) -> None:
        """Wait until all that it leads was refreshed twice: for most of a TTL."""
        refreshes = self._group.counters.refreshes + 2 * len(self.led())
        await eventually(lambda: self._group.counters.refreshes >= refreshes)

    async def _drain(self, term: Term, deadline: float) -> None:
        self.told.append(term.key)
        await super()._drain(term, deadline)


async def eventually(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(until, condition)


@asynccontextmanager
async def running(
    url: str, kafka: MockKafka, handle: Callable[[Any], Awaitable[None]], **settings: Any
) -> AsyncIterator[Watched]:
    """Run a consumer meanwhile."""
    client = AIOKafkaConsumer(
        bootstrap_servers=kafka.address, group_id=None, auto_offset_reset="earliest"
    )
    consumer = Watched(
        url,
        client,
        TOPIC,
        handle,
        **{"prefix": PREFIX, "ttl": 1.0, "drain_timeout": DRAIN_S, **settings},
    )
    task = asyncio.create_task(consumer.run(consumer.stop))
    try:
        yield consumer
    finally:
        consumer.stop.set()
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
    caplog.set_level(logging.INFO)
    kafka.append(TOPIC, 20)
    held, newer = KEYS[0], 20

    async def scene() -> None:
        notes, stuck, go_on = Notes(), asyncio.Event(), asyncio.Event()

        async def sticks(record: Any) -> None:
            notes.note(record)
            if f"{record.topic}-{record.partition}" == held and record.offset == 3:
                stuck.set()
                await go_on.wait()

        async with running(redis_url, kafka, sticks):
            await asyncio.wait_for(stuck.wait(), WITHIN_S)
            with successor(redis_url, redis_client, PREFIX, held) as term:
                fence = Fence(redis_client, PREFIX)
                fence.set(term, fence.data_key(held, "offset"), newer)
                await eventually(lambda: "ended, LOST" in caplog.text)
                go_on.set()
                await eventually(lambda: "not committed" in caplog.text)
                assert checkpoints(redis_client)[held] == newer
                assert notes.handled[held] == [0, 1, 2, 3], "it went on without a term"

    asyncio.run(asyncio.wait_for(scene(), 2 * WITHIN_S))
    assert checkpoints(redis_client)[held] == newer


@pytest.mark.parametrize("together_s", [0.0, 1.0], ids=["assigned at once", "assigned late"])
def test_a_term_that_is_lost_and_won_again_is_read_by_one_at_a_time(
    *,
    kafka: MockKafka,
    redis_url: str,
    redis_client: redis.Redis,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    together_s: float,
) -> None:
    # Late: the next reader begins while the client still holds what follows, fetched for this one.
    monkeypatch.setattr(kafka_consumer, "ASSIGN_TOGETHER_S", together_s)
    monkeypatch.setattr(kafka_consumer, "RECORDS_A_COMMIT", 8)
    caplog.set_level(logging.INFO)
    kafka.append(TOPIC, 10)
    held = KEYS[0]

    async def scene() -> tuple[Handled, int]:
        notes, stuck, go_on = Notes(), asyncio.Event(), asyncio.Event()

        async def sticks(record: Any) -> None:
            notes.note(record)
            if record.partition == 0 and record.offset == 3 and not stuck.is_set():
                stuck.set()
                await go_on.wait()

        async with running(redis_url, kafka, sticks) as consumer:
            await asyncio.wait_for(stuck.wait(), WITHIN_S)
            # The broker may hold the records in batches of its own, and give one at a time.
            begun_at = checkpoints(redis_client)[held]
            forget_lease(redis_client, PREFIX, held)
            await eventually(lambda: "ended, LOST" in caplog.text)
            await eventually(lambda: held in consumer.led())
            await consumer.is_refreshed()
            assert notes.handled[held] == [0, 1, 2, 3], "read by two at once"
            go_on.set()
            await eventually(lambda: checkpoints(redis_client)[held] == 10)
        return notes.handled, begun_at

    handled, begun_at = asyncio.run(scene())
    assert handled[held] == [0, 1, 2, 3, *range(begun_at, 10)]


def test_a_reader_that_is_refused_gives_its_term_up(
    kafka: MockKafka, redis_url: str, redis_client: redis.Redis
) -> None:
    """Else its node would lead on, and nobody would read."""
    kafka.append(TOPIC, 1)
    held = KEYS[0]

    async def scene() -> None:
        outdated = asyncio.Event()

        async def late(record: Any) -> None:
            if record.partition == 0 and not outdated.is_set():
                outdated.set()
                outdate(redis_client, PREFIX, held)

        # Long enough that it is not lost on a busy machine, and so by chance.
        async with running(redis_url, kafka, late, ttl=5.0):
            await eventually(lambda: checkpoints(redis_client)[held] == 1)
        assert outdated.is_set()

    asyncio.run(asyncio.wait_for(scene(), 2 * WITHIN_S))


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
    assert handled[KEYS[1]] == list(range(10)), "it did not go on with the record that failed"


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


def test_all_partitions_that_move_are_handed_over_side_by_side(
    kafka: MockKafka, redis_url: str, redis_client: redis.Redis
) -> None:
    """Each with a handler that is at work, and none to the other node before that is done."""
    kafka.append(TOPIC, 10)

    async def scene() -> tuple[Handled, Handled, set[str]]:
        notes, others, busy, go_on = Notes(), Notes(), set[int](), asyncio.Event()

        async def slow(record: Any) -> None:
            busy.add(record.partition)
            await go_on.wait()
            notes.note(record)

        async with running(redis_url, kafka, slow) as first:
            await eventually(lambda: len(busy) == PARTITIONS)
            async with running(redis_url, kafka, others) as second:
                await eventually(lambda: len(first.told) == PARTITIONS // 2)
                await first.is_refreshed()
                assert first.led() == set(KEYS), "handed over under a handler that is at work"
                assert not any(others.handled.values())
                moved = set(first.told)
                go_on.set()
                await eventually(lambda: second.led() == moved)
                await eventually(lambda: set(checkpoints(redis_client).values()) == {10})
        return notes.handled, others.handled, moved

    handled, elsewhere, moved = asyncio.run(scene())
    for key in KEYS:
        assert shared(10, 0, handled[key], elsewhere[key])
        assert len(handled[key]) == (1 if key in moved else 10)


def test_a_node_that_is_stopped_hands_all_partitions_over_side_by_side(
    kafka: MockKafka, redis_url: str, redis_client: redis.Redis
) -> None:
    kafka.append(TOPIC, 10)

    async def scene() -> Handled:
        notes, busy, go_on = Notes(), set[int](), asyncio.Event()

        async def slow(record: Any) -> None:
            busy.add(record.partition)
            await go_on.wait()
            notes.note(record)

        async with running(redis_url, kafka, slow) as consumer:
            await eventually(lambda: len(busy) == PARTITIONS)
            consumer.stop.set()
            await eventually(lambda: set(consumer.told) == set(KEYS))
            go_on.set()
        return notes.handled

    assert asyncio.run(scene()) == {key: [0] for key in KEYS}
    assert checkpoints(redis_client) == dict.fromkeys(KEYS, 1)
    assert redis_client.keys("*:leader") == []
