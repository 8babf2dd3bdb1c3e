"""`examples/kinesis_consumer.py` on a real Redis and on moto's server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from click.testing import CliRunner

pytest.importorskip("boto3", reason="the example needs boto3")
pytest.importorskip("moto", reason="the server of the tests is moto's")
pytest.importorskip("flask", reason="moto's server needs Flask")

from examples.kinesis_consumer import SHARD_END, ShardConsumer, main
from tests.diary import until

from multielect.fencing import Fence

from .kinesis import STREAM, Kinesis, serving
from .nodes import WITHIN_S, Node, successor

PREFIX = "kinesis-consumer"


@pytest.fixture
def kinesis() -> Iterator[Kinesis]:
    """A stream of two shards."""
    with serving(2) as served:
        yield served


def checkpoint(client: redis.Redis, shard: str) -> str:
    stored = client.get(Fence(client, PREFIX).data_key(shard, "position"))
    assert stored is None or isinstance(stored, bytes)
    return (stored or b"").decode()


def options(kinesis: Kinesis, url: str, **more: object) -> list[str]:
    settings = {"endpoint-url": kinesis.url, "stream": STREAM, "redis": url, "ttl": 1.0, **more}
    return [f"--{name}={value}" for name, value in settings.items()]


class Notes:
    """A handler that writes down what it is given: shard and number in it, in one order."""

    def __init__(self) -> None:
        self.handled: list[tuple[str, int]] = []

    def __call__(self, shard: str, record: dict[str, Any]) -> None:
        self.handled.append((shard, int(record["SequenceNumber"])))

    def of(self, shard: str) -> list[int]:
        return [number for name, number in list(self.handled) if name == shard]


@contextmanager
def running(
    url: str, kinesis: Kinesis, handle: Callable[[str, dict[str, Any]], None], **settings: Any
) -> Iterator[None]:
    """Run a consumer on a thread meanwhile."""
    consumer = ShardConsumer(
        url,
        kinesis.client,
        STREAM,
        handle,
        **{"prefix": PREFIX, "ttl": 1.0, "look_every": 0.1, **settings},
    )
    thread = threading.Thread(target=consumer.run)
    thread.start()
    try:
        yield
    finally:
        consumer.stop()
        thread.join(WITHIN_S)
        assert not thread.is_alive()


def test_help_teaches() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    for word in ("--stream", "--redis", "--prefix", "--endpoint-url", "Ctrl-C", "checkpoint"):
        assert word in result.output


def test_after_a_kill_another_goes_on_from_the_checkpoint(
    kinesis: Kinesis, redis_url: str, redis_client: redis.Redis, start: Callable[..., Node]
) -> None:
    shards = kinesis.open_shards()
    kinesis.append(50)
    first = start("kinesis_consumer.py", *options(kinesis, redis_url, work=0.01))
    first.wait_for(lambda handled: all(len(handled[shard]) == 50 for shard in shards))
    until(lambda: all(checkpoint(redis_client, shard) == "50" for shard in shards))
    kinesis.append(100)
    first.wait_for(lambda handled: all(len(handled[shard]) > 60 for shard in shards))
    first.kill()
    before = first.handled()
    second = start("kinesis_consumer.py", *options(kinesis, redis_url))
    second.wait_for(lambda handled: all(150 in handled[shard] for shard in shards))
    assert second.interrupt() == 0
    after = second.handled()
    for shard in shards:
        assert before[shard] == list(range(1, len(before[shard]) + 1))
        assert after[shard] == list(range(51, 151)), "not on from the checkpoint"
        assert checkpoint(redis_client, shard) == "150"


def test_ctrl_c_hands_over_with_nothing_handled_twice(
    kinesis: Kinesis, redis_url: str, redis_client: redis.Redis, start: Callable[..., Node]
) -> None:
    shards = kinesis.open_shards()
    kinesis.append(200)
    first = start("kinesis_consumer.py", *options(kinesis, redis_url, work=0.005))
    first.wait_for(lambda handled: all(len(handled[shard]) > 10 for shard in shards))
    assert first.interrupt() == 0
    before = first.handled()
    for shard in shards:
        assert 0 < len(before[shard]) < 200
        assert checkpoint(redis_client, shard) == str(before[shard][-1])
    assert redis_client.keys("*:leader") == []
    second = start("kinesis_consumer.py", *options(kinesis, redis_url))
    second.wait_for(lambda handled: all(200 in handled[shard] for shard in shards))
    after = second.handled()
    for shard in shards:
        assert before[shard] + after[shard] == list(range(1, 201))


def test_a_stale_node_cannot_move_the_checkpoint_back(
    kinesis: Kinesis, redis_url: str, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    held = kinesis.open_shards()[0]
    kinesis.append(20)
    stuck, go_on = threading.Event(), threading.Event()

    def sticks(shard: str, record: dict[str, Any]) -> None:
        if shard == held and record["SequenceNumber"] == "3":
            stuck.set()
            assert go_on.wait(WITHIN_S)

    with running(redis_url, kinesis, sticks):
        assert stuck.wait(WITHIN_S)
        with successor(redis_url, redis_client, PREFIX, held) as term:
            fence = Fence(redis_client, PREFIX)
            fence.set(term, fence.data_key(held, "position"), "20")
            go_on.set()
            until(lambda: "not committed" in caplog.text)
            assert checkpoint(redis_client, held) == "20"
    assert checkpoint(redis_client, held) == "20"


def test_a_handler_that_raises_gives_the_shard_up_and_loses_nothing(
    kinesis: Kinesis, redis_url: str
) -> None:
    one, other = kinesis.open_shards()
    kinesis.append(10)
    notes = Notes()
    refused = threading.Event()

    def refuses_once(shard: str, record: dict[str, Any]) -> None:
        if shard == one and record["SequenceNumber"] == "5" and not refused.is_set():
            refused.set()
            raise RuntimeError("this record is refused once")
        notes(shard, record)

    with running(redis_url, kinesis, refuses_once, ttl=0.5):
        until(lambda: notes.of(one)[-1:] == [10] and notes.of(other)[-1:] == [10])
    assert refused.is_set()
    assert notes.of(one) == [1, 2, 3, 4, *range(1, 11)]
    assert notes.of(other) == list(range(1, 11))


def test_children_are_read_after_their_parents(
    kinesis: Kinesis, redis_url: str, redis_client: redis.Redis
) -> None:
    """A split and a merge on the way: the tree is five shards in three generations."""
    left, right = kinesis.open_shards()
    kinesis.append(20)
    kinesis.split(left)
    low, high = sorted(kinesis.shards().keys() - {left, right})
    kinesis.append(20)
    kinesis.merge(high, right)
    (merged,) = kinesis.shards().keys() - {left, right, low, high}
    kinesis.append(20)
    notes, go_on = Notes(), threading.Event()

    def slow(shard: str, record: dict[str, Any]) -> None:
        notes(shard, record)
        if shard == left and record["SequenceNumber"] == "10":
            assert go_on.wait(WITHIN_S)

    with running(redis_url, kinesis, slow), running(redis_url, kinesis, slow):
        # All that has no parent, or whose parents are done, is read; nothing else.
        until(lambda: checkpoint(redis_client, right) == SHARD_END)
        until(lambda: len(notes.of(left)) == 10)
        reads = {name for name, times in kinesis.reads.items() if times}
        assert reads == {left, right}
        go_on.set()
        until(lambda: checkpoint(redis_client, merged) == "20")
        until(lambda: checkpoint(redis_client, low) == "40")
    for shard, size in ((left, 20), (right, 40), (low, 40), (high, 20), (merged, 20)):
        assert notes.of(shard) == list(range(1, size + 1))

    def ended(shard: str) -> int:
        return max(place for place, (name, _) in enumerate(notes.handled) if name == shard)

    def begun(shard: str) -> int:
        return min(place for place, (name, _) in enumerate(notes.handled) if name == shard)

    for parent, child in ((left, low), (left, high), (high, merged), (right, merged)):
        assert ended(parent) < begun(child)
    assert all(checkpoint(redis_client, shard) == SHARD_END for shard in (left, right, high))


def test_a_split_while_running_is_followed(
    kinesis: Kinesis, redis_url: str, redis_client: redis.Redis
) -> None:
    left, right = kinesis.open_shards()
    kinesis.append(5)
    notes = Notes()
    with running(redis_url, kinesis, notes):
        until(lambda: checkpoint(redis_client, left) == "5")
        kinesis.split(left)
        kinesis.append(5)
        low, high = sorted(kinesis.shards().keys() - {left, right})
        until(lambda: notes.of(low) == notes.of(high) == [1, 2, 3, 4, 5])
    assert checkpoint(redis_client, left) == SHARD_END
    assert notes.of(right) == list(range(1, 11))


def test_reads_keep_below_five_a_second_and_what_is_refused_is_read_later(
    kinesis: Kinesis, redis_url: str
) -> None:
    shard, other = kinesis.open_shards()
    kinesis.append(1)
    kinesis.refusals[shard] += ["ExpiredIteratorException"]
    # boto3 itself tries what was throttled again: the example sees what is refused once more.
    kinesis.refusals[other] += ["ProvisionedThroughputExceededException"] * 6
    notes = Notes()
    with running(redis_url, kinesis, notes):
        until(lambda: notes.of(shard) == [1] and len(kinesis.reads[shard]) > 7)
        until(lambda: notes.of(other) == [1])
    times = kinesis.reads[shard]
    for first, sixth in zip(times, times[5:], strict=False):
        assert sixth - first >= 1.0
