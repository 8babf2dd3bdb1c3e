"""`examples/kinesis_consumer.py` on a real Redis and on moto's server."""

from __future__ import annotations

import logging
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

from multielect import Term
from multielect.fencing import Fence

from .kinesis import STREAM, Kinesis, serving
from .nodes import DRAIN_S, WITHIN_S, Node, forget_lease, outdate, shared, successor

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
    settings = {
        "endpoint-url": kinesis.url,
        "stream": STREAM,
        "redis": url,
        "ttl": 1.0,
        "drain-timeout": DRAIN_S,
        **more,
    }
    return [f"--{name}={value}" for name, value in settings.items()]


class Notes:
    """A handler that writes down what it is given: shard and number in it, in one order."""

    def __init__(self) -> None:
        self.handled: list[tuple[str, int]] = []

    def __call__(self, shard: str, record: dict[str, Any]) -> None:
        self.handled.append((shard, int(record["SequenceNumber"])))

    def of(self, shard: str) -> list[int]:
        return [number for name, number in list(self.handled) if name == shard]


class Watched(ShardConsumer):
    """A consumer that tells what it leads, and for which shards a drain was begun."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.told: list[str] = []

    def led(self) -> set[str]:
        return {election.key for election in self._group.led}

    def is_read(self, shard: str) -> bool:
        """Tell whether its latest reader still is at it."""
        return not self._readings[shard].over.is_set()

    def is_refreshed(self) -> None:
        """Wait until all that it leads was refreshed twice: for most of a TTL."""
        refreshes = self._group.counters.refreshes + 2 * len(self.led())
        until(lambda: self._group.counters.refreshes >= refreshes)

    def _drain(self, term: Term, deadline: float) -> None:
        super()._drain(term, deadline)
        self.told.append(term.key)


@contextmanager
def running(
    url: str, kinesis: Kinesis, handle: Callable[[str, dict[str, Any]], None], **settings: Any
) -> Iterator[Watched]:
    """Run a consumer on a thread meanwhile."""
    consumer = Watched(
        url,
        kinesis.client,
        STREAM,
        handle,
        **{
            "prefix": PREFIX,
            "ttl": 1.0,
            "look_every": 0.1,
            "drain_timeout": DRAIN_S,
            **settings,
        },
    )
    thread = threading.Thread(target=consumer.run)
    thread.start()
    try:
        yield consumer
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
    caplog.set_level(logging.INFO)
    held = kinesis.open_shards()[0]
    kinesis.append(20)
    notes, stuck, go_on = Notes(), threading.Event(), threading.Event()

    def sticks(shard: str, record: dict[str, Any]) -> None:
        notes(shard, record)
        if shard == held and record["SequenceNumber"] == "3":
            stuck.set()
            assert go_on.wait(WITHIN_S)

    with running(redis_url, kinesis, sticks):
        assert stuck.wait(WITHIN_S)
        with successor(redis_url, redis_client, PREFIX, held) as term:
            fence = Fence(redis_client, PREFIX)
            fence.set(term, fence.data_key(held, "position"), "20")
            until(lambda: "ended, LOST" in caplog.text)
            go_on.set()
            until(lambda: "not committed" in caplog.text)
            assert checkpoint(redis_client, held) == "20"
            assert notes.of(held) == [1, 2, 3], "it went on without a term"
    assert checkpoint(redis_client, held) == "20"


def test_a_term_that_is_lost_and_won_again_is_read_by_one_at_a_time(
    kinesis: Kinesis, redis_url: str, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    held = kinesis.open_shards()[0]
    kinesis.append(5)
    notes, stuck, go_on = Notes(), threading.Event(), threading.Event()

    def sticks(shard: str, record: dict[str, Any]) -> None:
        notes(shard, record)
        if shard == held and record["SequenceNumber"] == "3" and not stuck.is_set():
            stuck.set()
            assert go_on.wait(WITHIN_S)

    with running(redis_url, kinesis, sticks) as consumer:
        assert stuck.wait(WITHIN_S)
        forget_lease(redis_client, PREFIX, held)
        until(lambda: "ended, LOST" in caplog.text)
        until(lambda: held in consumer.led())
        consumer.is_refreshed()
        assert notes.of(held) == [1, 2, 3], "read by two at once"
        go_on.set()
        until(lambda: checkpoint(redis_client, held) == "5")
    assert notes.of(held) == [1, 2, 3, 1, 2, 3, 4, 5]


def test_a_reader_that_is_refused_gives_its_term_up(
    kinesis: Kinesis, redis_url: str, redis_client: redis.Redis
) -> None:
    """Else its node would lead on, and nobody would read."""
    held = kinesis.open_shards()[0]
    kinesis.append(1)
    outdated = threading.Event()

    def late(shard: str, _record: dict[str, Any]) -> None:
        if shard == held and not outdated.is_set():
            outdated.set()
            outdate(redis_client, PREFIX, held)

    # Long enough that it is not lost on a busy machine, and so by chance.
    with running(redis_url, kinesis, late, ttl=5.0):
        until(lambda: checkpoint(redis_client, held) == "1")
    assert outdated.is_set()


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
    assert notes.of(one) == list(range(1, 11)), "it did not go on with the record that failed"
    assert notes.of(other) == list(range(1, 11))


def test_two_nodes_share_the_shards_and_hand_over_between_two_records(
    redis_url: str, redis_client: redis.Redis, start: Callable[..., Node]
) -> None:
    """One joins another at work, and leaves it again; each record is handled by one of them."""
    with serving(6) as kinesis:
        shards = kinesis.open_shards()
        kinesis.append(200)
        first = start("kinesis_consumer.py", *options(kinesis, redis_url, work=0.01))
        first.wait_for(lambda handled: all(handled[shard] for shard in shards))
        second = start("kinesis_consumer.py", *options(kinesis, redis_url, work=0.01))
        # Where it is slow to start, the first may have handled all there was.
        until(lambda: second.told().count("begins") == 3)
        kinesis.append(100)
        second.wait_for(lambda handled: sum(len(run) > 10 for run in handled.values()) == 3)
        assert second.interrupt() == 0
        taken = {shard for shard, run in second.handled().items() if run}
        first.wait_for(lambda handled: all(300 in handled[shard] for shard in shards))
        assert len(taken) == 3
        for shard in shards:
            assert shared(300, 1, first.handled()[shard], second.handled()[shard])
            assert checkpoint(redis_client, shard) == "300"


def test_all_shards_that_move_are_handed_over_side_by_side(
    redis_url: str, redis_client: redis.Redis
) -> None:
    """More than the group has threads for callbacks, and each with a handler that is at work."""
    notes, other_notes = Notes(), Notes()
    busy, go_on = set[str](), threading.Event()

    def slow(shard: str, record: dict[str, Any]) -> None:
        busy.add(shard)
        assert go_on.wait(WITHIN_S)
        notes(shard, record)

    with serving(24) as kinesis:
        shards = set(kinesis.open_shards())
        kinesis.append(3)
        with running(redis_url, kinesis, slow) as first:
            until(lambda: busy == shards)
            with running(redis_url, kinesis, other_notes) as second:
                until(lambda: len(first.told) == 12)
                first.is_refreshed()
                assert first.led() == shards, "handed over under a handler that is at work"
                assert other_notes.handled == []
                moved = set(first.told)
                go_on.set()
                until(lambda: second.led() == moved)
                until(lambda: all(checkpoint(redis_client, shard) == "3" for shard in shards))
        for shard in shards:
            assert shared(3, 1, notes.of(shard), other_notes.of(shard))
            assert notes.of(shard) == ([1] if shard in moved else [1, 2, 3])


def test_a_node_that_is_stopped_hands_all_shards_over_side_by_side(
    redis_url: str, redis_client: redis.Redis
) -> None:
    notes, busy, go_on = Notes(), set[str](), threading.Event()

    def slow(shard: str, record: dict[str, Any]) -> None:
        busy.add(shard)
        assert go_on.wait(WITHIN_S)
        notes(shard, record)

    with serving(24) as kinesis:
        shards = set(kinesis.open_shards())
        kinesis.append(3)
        with running(redis_url, kinesis, slow) as consumer:
            until(lambda: busy == shards)
            consumer.stop()
            until(lambda: set(consumer.told) == shards)
            go_on.set()
    assert sorted(notes.handled) == sorted((shard, 1) for shard in shards)
    assert {checkpoint(redis_client, shard) for shard in shards} == {"1"}
    assert redis_client.keys("*:leader") == []


def test_a_shard_that_nobody_reads_any_more_is_handed_over_at_once(
    kinesis: Kinesis, redis_url: str, redis_client: redis.Redis
) -> None:
    """It was read to its end, and the node did not see yet that there is nothing to stand for."""
    left, _ = kinesis.open_shards()
    kinesis.append(3)
    with running(redis_url, kinesis, Notes(), look_every=DRAIN_S) as consumer:
        until(lambda: checkpoint(redis_client, left) == "3")
        kinesis.listing_fails = True
        kinesis.split(left)
        until(lambda: checkpoint(redis_client, left) == SHARD_END)
        until(lambda: not consumer.is_read(left))
        assert left in consumer.led()
    assert redis_client.keys("*:leader") == []


def test_a_closed_shard_that_is_handed_over_in_its_last_batch_is_not_at_its_end(
    kinesis: Kinesis, redis_url: str, redis_client: redis.Redis
) -> None:
    left, right = kinesis.open_shards()
    kinesis.append(5)
    kinesis.split(left)
    low, high = sorted(kinesis.shards().keys() - {left, right})
    kinesis.append(5)
    notes, busy, go_on = Notes(), threading.Event(), threading.Event()

    def slow(shard: str, record: dict[str, Any]) -> None:
        notes(shard, record)
        if shard == left and record["SequenceNumber"] == "3":
            busy.set()
            assert go_on.wait(WITHIN_S)

    with running(redis_url, kinesis, slow) as consumer:
        assert busy.wait(WITHIN_S)
        consumer.stop()
        until(lambda: left in consumer.told)
        go_on.set()
    assert checkpoint(redis_client, left) == "3"
    with running(redis_url, kinesis, notes):
        until(lambda: checkpoint(redis_client, low) == checkpoint(redis_client, high) == "5")
    assert notes.of(left) == [1, 2, 3, 4, 5]


def test_a_stream_whose_shards_are_listed_in_pages_is_read_whole(
    redis_url: str, redis_client: redis.Redis
) -> None:
    with serving(5) as kinesis:
        kinesis.page_size = 2
        shards = kinesis.open_shards()
        assert len(shards) == 5
        kinesis.append(1)
        with running(redis_url, kinesis, Notes()):
            until(lambda: all(checkpoint(redis_client, shard) == "1" for shard in shards))


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
    with running(redis_url, kinesis, notes) as consumer:
        until(lambda: checkpoint(redis_client, left) == "5")
        kinesis.split(left)
        kinesis.append(5)
        low, high = sorted(kinesis.shards().keys() - {left, right})
        until(lambda: notes.of(low) == notes.of(high) == [1, 2, 3, 4, 5])
        until(lambda: notes.of(right) == list(range(1, 11)))
        until(lambda: consumer.led() == {low, high, right})
    assert checkpoint(redis_client, left) == SHARD_END


def test_reads_keep_below_five_a_second_and_what_is_refused_is_read_later(
    kinesis: Kinesis, redis_url: str
) -> None:
    shard, other = kinesis.open_shards()
    kinesis.append(1)
    # boto3 itself tries what was throttled again: the example sees what is refused once more.
    kinesis.refusals[other] += ["ProvisionedThroughputExceededException"] * 6
    notes = Notes()
    with running(redis_url, kinesis, notes):
        until(lambda: notes.of(shard) == [1] and len(kinesis.reads[shard]) > 7)
        until(lambda: notes.of(other) == [1])
        kinesis.refusals[shard] += ["ExpiredIteratorException"]
        kinesis.append(1)
        until(lambda: notes.of(shard) == notes.of(other) == [1, 2])
        assert not any(kinesis.refusals.values())
    times = kinesis.reads[shard]
    for first, sixth in zip(times, times[5:], strict=False):
        assert sixth - first >= 1.0
