"""Both consumers where something goes wrong: handlers, streams, the server, a part of their own."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from tests.diary import until
from tests.integration.proxy import Proxy

from multielect.embedded import EmbeddedServer
from multielect.errors import ClosedError, HandlerError
from multielect.streams import Batch, StreamConsumer

from .rig import KEYS, LONG_S, PREFIX, Begin, Work, append, check_whole, done, written

ONE = ["s0"]


class StopThisError(BaseException):
    """What a handler may raise that is no Exception."""


class WordlessError(Exception):
    """An error that cannot be told."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.fixture
def full_server(private_server: EmbeddedServer) -> Iterator[redis.Redis]:
    """A client of a server of our own, which can be told to take no writes."""
    with redis.Redis.from_url(private_server.url) as client:
        yield client


def all_are_waited_for(client: redis.Redis) -> bool:
    info: Any = client.info("clients")
    return int(info["blocked_clients"]) > 0


def test_a_failure_while_all_streams_are_waited_for_is_tried_again(
    begin: Begin, redis_client: redis.Redis
) -> None:
    append(redis_client, 1, keys=ONE)
    work, fails = Work(), [True, True]

    def handle(batch: Batch[Any]) -> None:
        if fails:
            fails.pop()
            # By now there is nothing to fetch, and whoever fetches sleeps.
            until(lambda: all_are_waited_for(redis_client))
            time.sleep(0.2)
            raise ValueError("not yet")
        work(batch)

    begin(handle, partitions=ONE)
    until(lambda: done(redis_client, 1, ONE))


def test_a_commit_that_the_server_refuses_is_made_once_it_takes_writes(
    begin: Begin, full_server: redis.Redis, private_server: EmbeddedServer
) -> None:
    append(full_server, 3, keys=ONE)

    def handle(batch: Batch[Any]) -> None:
        work(batch)
        full_server.config_set("maxmemory", 1)

    work = Work()
    consumer = begin(handle, partitions=ONE, ttl=5.0, url=private_server.url)
    until(lambda: any("maxmemory" in str(error) for error in consumer.errors))
    until(lambda: all_are_waited_for(full_server))
    full_server.config_set("maxmemory", 0)
    until(lambda: done(full_server, 3, ONE))
    consumer.stop()
    check_whole(full_server, 3, ONE)
    assert work.seen["s0"] == [0, 1, 2], "it was committed again, not handled again"


def test_a_commit_whose_answer_is_lost_is_sent_again_and_made_once(
    begin: Begin, server: EmbeddedServer, redis_client: redis.Redis
) -> None:
    append(redis_client, 3, keys=ONE)
    lost: list[bytes] = []

    def lose(command: list[bytes]) -> None:
        # The first EVALSHA is only told that the server does not have the script.
        is_made = command[0] == b"EVAL" or bool(lost)
        if b"out:s0" in command and is_made and len(lost) < 3:
            wire.lose_reply()
            lost.append(command[0])

    work = Work()
    assert server.socket_path is not None
    with Proxy(server.socket_path) as wire:
        wire.on_command = lose
        consumer = begin(work, partitions=ONE, ttl=30.0, url=wire.url)
        until(lambda: len(lost) == 3 and consumer.lag()["s0"].entries == 0)
        append(redis_client, 3, first=3, keys=ONE)
        until(lambda: done(redis_client, 6, ONE))
        consumer.stop()
    check_whole(redis_client, 6, ONE)
    assert work.seen["s0"] == list(range(6))


def test_an_older_leader_commits_nothing_though_the_newer_has_not_yet(
    begin: Begin, redis_client: redis.Redis
) -> None:
    append(redis_client, 3, keys=ONE)
    events = [threading.Event() for _ in range(4)]
    old_entered, old_goes_on, new_entered, new_goes_on = events

    def waiting(entered: threading.Event, goes_on: threading.Event, work: Work) -> Any:
        def handle(batch: Batch[Any]) -> None:
            entered.set()
            assert goes_on.wait(LONG_S)
            work(batch)

        return handle

    settings = {"partitions": ONE, "balance": False}
    old: Any = begin(waiting(old_entered, old_goes_on, Work("old")), **settings)
    assert old_entered.wait(LONG_S)
    new = begin(waiting(new_entered, new_goes_on, Work("new")), **settings)
    # The lease is the other's now, as if this node had been away for longer than its TTL.
    (leader,) = redis_client.keys(f"{PREFIX}:*:leader")
    redis_client.set(leader, new.holder(), px=5_000)
    assert new_entered.wait(LONG_S)
    old_goes_on.set()
    until(lambda: old.consumer.tally.dropped == 1)
    assert redis_client.xlen("out:s0") == 0
    new_goes_on.set()
    until(lambda: done(redis_client, 3, ONE))
    client: Any = redis_client
    assert {fields[b"by"] for _, fields in client.xrange("out:s0")} == {b"new"}


def raising(error: BaseException, work: Work) -> Any:
    """Return a handler that raises for the second entry of s0."""

    def handle(batch: Batch[Any]) -> None:
        if any(batch.key == "s0" and entry.fields[b"n"] == b"1" for entry in batch.entries):
            raise error
        work(batch)

    return handle


def check_that_one_was_set_aside(client: redis.Redis) -> None:
    until(lambda: done(client, 2, ONE) and done(client, 3, ["s1"]))
    assert [number for number, _ in written(client, "s0")] == [0, 2]
    assert client.xlen(f"{PREFIX}:dead-letters") == 1


@pytest.mark.parametrize("error", [StopThisError("no"), asyncio.CancelledError()])
def test_whatever_a_handler_raises_it_has_failed(
    begin: Begin, redis_client: redis.Redis, error: BaseException
) -> None:
    append(redis_client, 3, keys=["s0", "s1"])
    handler = raising(error, Work())
    begin(handler, partitions=["s0", "s1"], attempts=2, retry_base=0.01, handlers=1)
    check_that_one_was_set_aside(redis_client)


def test_an_error_without_words_is_set_aside_as_well(
    begin: Begin, redis_client: redis.Redis
) -> None:
    append(redis_client, 3, keys=["s0", "s1"])
    work = Work()

    def handle(batch: Batch[Any]) -> None:
        if batch.key == "s0" and batch.entries[0].fields[b"n"] == b"0":
            raise WordlessError
        work(batch)

    begin(handle, partitions=["s0", "s1"], batch=1, attempts=1)
    until(lambda: done(redis_client, 2, ONE) and done(redis_client, 3, ["s1"]))
    client: Any = redis_client
    ((_, aside),) = client.xrange(f"{PREFIX}:dead-letters")
    assert aside[b"error"].endswith(b"WordlessError")
    assert b"RuntimeError" in aside[b"message"]


def test_what_cannot_be_staged_is_set_aside_with_the_cause(
    begin: Begin, redis_client: redis.Redis
) -> None:
    append(redis_client, 2, keys=ONE)
    redis_client.set("no-stream", "x")

    def handle(batch: Batch[Any]) -> None:
        for entry in batch.entries:
            number = int(entry.fields[b"n"])
            batch.xadd("out:s0" if number else "no-stream", {"n": number, "epoch": batch.epoch})

    begin(handle, partitions=ONE, attempts=1)
    until(lambda: done(redis_client, 1, ONE))
    client: Any = redis_client
    ((_, aside),) = client.xrange(f"{PREFIX}:dead-letters")
    assert aside[b"field:n"] == b"0"
    assert aside[b"message"].startswith(b"WRONGTYPE")


def test_a_partition_is_removed_while_its_handler_runs(
    begin: Begin, redis_client: redis.Redis
) -> None:
    append(redis_client, 2, keys=["s0", "s1"])
    entered, go_on = threading.Event(), threading.Event()
    work = Work()

    def handle(batch: Batch[Any]) -> None:
        if batch.key == "s0":
            entered.set()
            assert go_on.wait(LONG_S)
        work(batch)

    consumer = begin(handle, partitions=["s0", "s1"])
    assert entered.wait(LONG_S)
    consumer.remove("s0")
    assert consumer.keys() == {"s1"}
    go_on.set()
    until(lambda: done(redis_client, 2, ["s0", "s1"]))
    append(redis_client, 2, first=2, keys=["s0", "s1"])
    until(lambda: done(redis_client, 4, ["s1"]))
    assert work.seen["s0"] == [0, 1]
    consumer.add("s0")
    until(lambda: done(redis_client, 4, ["s0"]))
    check_whole(redis_client, 4, ["s0", "s1"])
    assert work.seen["s0"] == [0, 1, 2, 3]


def test_a_partition_is_removed_while_it_drains(begin: Begin, redis_client: redis.Redis) -> None:
    append(redis_client, 2)
    entered, go_on = threading.Semaphore(0), threading.Event()
    slow, quick = Work("slow"), Work("quick")

    def handle(batch: Batch[Any]) -> None:
        entered.release()
        assert go_on.wait(LONG_S)
        slow(batch)

    one: Any = begin(handle, handlers=len(KEYS), drain_timeout=60.0)
    for _ in KEYS:
        assert entered.acquire(timeout=LONG_S)

    def draining() -> list[str]:
        known = one.consumer._flow.partitions.values()
        return [held.key for held in known if held.reading and held.reading.is_draining]

    begin(quick, drain_timeout=60.0)
    until(lambda: len(draining()) == len(KEYS) // 2)
    for key in draining():
        one.remove(key)
    go_on.set()
    until(lambda: done(redis_client, 2))
    check_whole(redis_client, 2)


def test_a_key_of_another_type_keeps_no_other_back(begin: Begin, redis_client: redis.Redis) -> None:
    others = [key for key in KEYS if key != "s3"]
    redis_client.set("s3", "no stream")
    append(redis_client, 3, keys=others)
    consumer = begin(Work(), retry_base=0.05, retry_max=0.1)
    until(lambda: done(redis_client, 3, others))
    until(lambda: any("s3" in str(error) for error in consumer.errors))
    assert consumer.lag()["s3"].entries == 0
    assert not consumer.lag()["s3"].is_exact
    redis_client.delete("s3")
    append(redis_client, 3, keys=["s3"])
    until(lambda: done(redis_client, 3))
    check_whole(redis_client, 3)


def test_a_stream_that_is_not_there_yet_has_no_lag_and_is_read_once_it_is(
    begin: Begin, redis_client: redis.Redis
) -> None:
    consumer = begin(Work(), partitions=ONE)
    until(lambda: consumer.loads() == 1)
    lag = consumer.lag()["s0"]
    assert (lag.entries, lag.is_exact, lag.behind_ms) == (0, True, 0)
    append(redis_client, 3, keys=ONE)
    until(lambda: done(redis_client, 3, ONE))


def test_a_stream_that_was_trimmed_beyond_the_checkpoint_goes_on_at_its_first_entry(
    begin: Begin, redis_client: redis.Redis
) -> None:
    append(redis_client, 5, keys=ONE)
    first = begin(Work(), partitions=ONE)
    until(lambda: done(redis_client, 5, ONE))
    first.stop()
    append(redis_client, 5, first=5, keys=ONE)
    redis_client.xtrim("s0", maxlen=2, approximate=False)
    second = begin(Work(), partitions=ONE, weight=0)
    lag = second.lag()["s0"]
    assert (lag.entries, lag.is_exact) == (2, True)
    begin(Work(), partitions=ONE)
    until(lambda: done(redis_client, 7, ONE))
    numbers = [number for number, _ in written(redis_client, "s0")]
    assert numbers == [0, 1, 2, 3, 4, 8, 9]


def test_a_stop_is_bounded_for_all_handlers_together(
    begin: Begin, redis_client: redis.Redis
) -> None:
    keys = [f"k{number}" for number in range(30)]
    append(redis_client, 1, keys=keys)
    go_on, entered = threading.Event(), threading.Semaphore(0)

    def handle(batch: Batch[Any]) -> None:
        entered.release()
        go_on.wait(2 * LONG_S)

    consumer = begin(handle, partitions=keys, handlers=30)
    for _ in keys:
        assert entered.acquire(timeout=LONG_S)
    began_s = time.monotonic()
    try:
        consumer.stop(0.2)
        assert time.monotonic() - began_s < 15.0, "it waited for one after another"
    finally:
        go_on.set()


def test_a_reader_outlives_what_no_connection_should_raise(
    begin: Begin, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer: Any = begin(Work(), partitions=ONE, readers=1)
    client = consumer.consumer._client
    ask, left = client.execute_command, [ValueError("odd")] * 3

    def fail(*arguments: Any, **options: Any) -> Any:
        if arguments[0] == "XREAD" and left:
            raise left.pop()
        return ask(*arguments, **options)

    monkeypatch.setattr(client, "execute_command", fail)
    until(lambda: not left)
    append(redis_client, 3, keys=ONE)
    until(lambda: done(redis_client, 3, ONE))
    assert any("odd" in str(error) for error in consumer.errors)


def test_a_part_that_fails_stops_the_consumer(
    begin: Begin, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(redis_client, 3)
    consumer: Any = begin(Work())
    until(lambda: done(redis_client, 3))

    def fail(*_: Any) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(consumer.consumer._flow, "fetched", fail)
    until(lambda: not redis_client.keys(f"{PREFIX}:*:leader"))
    assert any("a mistake of ours" in str(error) for error in consumer.errors)
    assert isinstance(consumer.consumer._broken, RuntimeError)


class TestThreads:
    """What only the consumer of threads can be done."""

    @pytest.fixture
    def settings(self, redis_url: str) -> dict[str, Any]:
        return {"redis": redis_url, "prefix": PREFIX, "partitions": ONE, "ttl": 1.0}

    def test_who_is_told_of_an_error_may_stop_the_consumer(
        self, settings: dict[str, Any], redis_client: redis.Redis
    ) -> None:
        append(redis_client, 1, keys=ONE)
        stopped = threading.Event()

        def fail(batch: Batch[Any]) -> None:
            raise ValueError("no")

        def stop(error: Exception) -> None:
            if isinstance(error, HandlerError):
                consumer.stop()
                stopped.set()

        consumer = StreamConsumer(
            **settings, handler=fail, on_error=stop, on_failure="halt", drain_timeout=100.0
        )
        with consumer:
            assert stopped.wait(LONG_S), "it waits for itself"
            consumer._ended.wait(LONG_S)
        assert not redis_client.keys(f"{PREFIX}:*:leader")

    def test_who_is_told_of_an_error_may_use_the_consumer(
        self,
        settings: dict[str, Any],
        redis_client: redis.Redis,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        append(redis_client, 1, keys=ONE)
        resumed = threading.Event()

        class Resuming(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if "the handler failed" in record.getMessage():
                    consumer.resume("s0")
                    resumed.set()

        logger = logging.getLogger("tests.streams.resuming")
        monkeypatch.setattr(logger, "handlers", [Resuming()])

        def fail(batch: Batch[Any]) -> None:
            if not resumed.is_set():
                raise ValueError("no")
            work(batch)

        work = Work()
        consumer = StreamConsumer(
            **settings, handler=fail, logger=logger, on_failure="halt", attempts=1
        )
        with consumer:
            until(lambda: done(redis_client, 1, ONE))

    def test_what_cannot_start_leaves_nothing_behind(
        self, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail() -> None:
            raise RuntimeError("no threads")

        consumer = StreamConsumer(**settings, handler=print)
        monkeypatch.setattr(consumer.group, "start", fail)
        with pytest.raises(RuntimeError, match="no threads"):
            consumer.start()
        assert not [thread for thread in consumer._threads if thread.is_alive()]
        consumer.stop()

    def test_a_handler_that_would_exit_has_failed(
        self, settings: dict[str, Any], redis_client: redis.Redis
    ) -> None:
        append(redis_client, 3, keys=["s0", "s1"])
        more = {"partitions": ["s0", "s1"], "attempts": 2, "retry_base": 0.01, "handlers": 1}
        with StreamConsumer(**settings | more, handler=raising(SystemExit(3), Work())):
            check_that_one_was_set_aside(redis_client)

    def test_what_was_stopped_cannot_be_run(self, settings: dict[str, Any]) -> None:
        consumer = StreamConsumer(**settings, handler=print)
        with consumer:
            pass
        with pytest.raises(ClosedError):
            consumer.run()

    def test_what_made_it_fail_is_raised_by_run(
        self, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        consumer = StreamConsumer(**settings, handler=print)

        def fail(*_: Any) -> None:
            raise RuntimeError("a mistake of ours")

        monkeypatch.setattr(consumer._flow, "fetched", fail)
        with pytest.raises(RuntimeError, match="a mistake of ours"):
            consumer.run()
