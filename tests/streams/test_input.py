"""What a consumer and its batches refuse, and what they leave as it was then."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis
from tests.diary import WITHIN_S

from multielect import ClosedError, ConfigError
from multielect.streams import AsyncStreamConsumer, Batch, StreamConsumer
from multielect.streams import _batch as bounds
from multielect.streams._entries import Entry
from multielect.streams._reading import Partition, Reading, Work

from .rig import KEYS, PREFIX
from .test_flow import Term

BOTH = pytest.mark.parametrize("kind", [StreamConsumer, AsyncStreamConsumer])


def made(kind: Any, **settings: Any) -> Any:
    given = {"prefix": PREFIX, "partitions": KEYS, "handler": print, **settings}
    return kind("redis://localhost", **given)


async def coroutine(batch: Any) -> None: ...


def generator(batch: Any) -> Iterator[None]:
    yield


async def async_generator(batch: Any) -> AsyncIterator[None]:
    yield


class Called:
    """An object that is called as a handler, and would be awaited."""

    async def __call__(self, batch: Any) -> None: ...


@BOTH
@pytest.mark.parametrize("handler", [generator, async_generator, None])
def test_a_handler_that_would_not_be_done_is_refused(kind: Any, handler: Any) -> None:
    with pytest.raises(ConfigError, match="handler"):
        made(kind, handler=handler)


@pytest.mark.parametrize("handler", [coroutine, Called()])
def test_a_coroutine_is_a_handler_for_asyncio_only(handler: Any) -> None:
    made(AsyncStreamConsumer, handler=handler)
    with pytest.raises(ConfigError, match="AsyncStreamConsumer"):
        made(StreamConsumer, handler=handler)


class Two:
    """An object whose method wants more than a batch."""

    def handle(self, batch: Any, more: Any) -> None: ...


@BOTH
@pytest.mark.parametrize(
    "handler",
    [lambda: None, Two().handle, lambda batch, *, wanted: None, "f", 7, []],
    ids=["no argument", "two arguments", "by name", "text", "number", "list"],
)
def test_a_handler_that_cannot_be_given_a_batch_is_refused(kind: Any, handler: Any) -> None:
    with pytest.raises(ConfigError, match="handler must"):
        made(kind, handler=handler)


@BOTH
@pytest.mark.parametrize(
    "handler",
    [
        lambda batch, more=None: None,
        lambda *batches: None,
        functools.partial(Two().handle, more=1),
        Two,
        print,
    ],
    ids=["more by default", "any number", "partial", "class", "built in"],
)
def test_a_handler_may_have_more_that_it_does_not_need(kind: Any, handler: Any) -> None:
    if handler is Two:
        with pytest.raises(ConfigError, match="must take a Batch"):
            made(kind, handler=handler)
    else:
        made(kind, handler=handler)


@pytest.mark.parametrize(
    "handler",
    [functools.partial(coroutine), functools.partial(Called()), Called().__call__],
    ids=["partial", "partial of an object", "method"],
)
def test_a_coroutine_is_seen_below_what_it_is_wrapped_in(handler: Any) -> None:
    made(AsyncStreamConsumer, handler=handler)
    with pytest.raises(ConfigError, match="AsyncStreamConsumer"):
        made(StreamConsumer, handler=handler)


async def listing() -> list[str]:
    return KEYS


async def listing_that_yields() -> AsyncIterator[str]:
    yield "s0"


@BOTH
def test_a_function_for_partitions_returns_them(kind: Any) -> None:
    for bad in (listing_that_yields, lambda key: [key]):
        with pytest.raises(ConfigError, match="partitions"):
            made(kind, partitions=bad)
    made(kind, partitions=lambda: KEYS)
    made(AsyncStreamConsumer, partitions=listing)
    with pytest.raises(ConfigError, match="AsyncStreamConsumer"):
        made(StreamConsumer, partitions=listing)


@BOTH
@pytest.mark.parametrize(
    ("partitions", "words"),
    [
        ("orders", "not 'orders'"),
        (b"orders", "not b'orders'"),
        (7, "not 7"),
        (None, "not None"),
        (["s0", "s1", "s0"], "'s0' is named twice"),
        (["s0", b"s0"], "'s0' is named twice"),
        ({"s0": "a", b"s0": "b"}, "'s0' is named twice"),
        ({"s0": "a", "s1": "a"}, "b'a' already belongs to partition 's0'"),
        ({"s0": ["a"]}, "a stream must be a key"),
        ({"s0": None}, "a stream must be a key"),
        (["s0", 7], "not int"),
        ([("s0", "a")], "not tuple"),
    ],
    ids=str,
)
def test_partitions_that_cannot_be_meant_are_refused(
    kind: Any, partitions: Any, words: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        made(kind, partitions=partitions)


DEAD = f"{PREFIX}:dead-letters"


@BOTH
@pytest.mark.parametrize(
    "settings",
    [
        {"partitions": ["s0", DEAD]},
        {"partitions": [DEAD.encode()]},
        {"partitions": {"s0": DEAD}},
        {"partitions": ["s0", "s1"], "dead_letters": "s1"},
        {"partitions": {"a": "s0"}, "dead_letters": b"s0"},
    ],
    ids=str,
)
def test_where_dead_letters_go_is_no_input(kind: Any, settings: Any) -> None:
    with pytest.raises(ConfigError, match="dead-letter stream, and cannot be a partition's stream"):
        made(kind, **settings)


@BOTH
def test_where_dead_letters_go_is_no_input_later_either(kind: Any) -> None:
    consumer = made(kind)
    for given in ((DEAD,), ("p", DEAD.encode())):
        with pytest.raises(ConfigError, match="dead-letter stream"):
            consumer.add(*given)
    assert set(consumer.partitions) == set(KEYS) == set(consumer.group)


@BOTH
@pytest.mark.parametrize(
    "name",
    [
        f"{PREFIX}:{{7}}:s0:leader",
        f"{PREFIX}:{{7}}:s0:epoch",
        f"{PREFIX}:{{7}}:s0:fence",
        f"{PREFIX}:{{7}}:s0:checkpoint",
        f"{PREFIX}:buckets",
        f"{PREFIX}:{{fleet}}:members",
        f"{PREFIX}:{{fleet}}:plan",
    ],
)
def test_what_the_elections_keep_is_no_stream(kind: Any, name: str) -> None:
    with pytest.raises(ConfigError, match="a key that the elections use"):
        made(kind, partitions=[name])
    with pytest.raises(ConfigError, match="a key that the elections use"):
        made(kind, dead_letters=name)


@BOTH
def test_a_stream_may_lie_beside_its_election(kind: Any) -> None:
    consumer = made(kind)
    beside = consumer.fence.data_key("s0", "orders")
    assert made(kind, partitions={"s0": beside}).partitions == {"s0": beside}


@BOTH
@pytest.mark.parametrize(
    "settings",
    [
        {"on_error": "f"},
        {"logger": "x"},
        {"drain_timeout": 0},
        {"drain_timeout": -1},
        {"max_stall": 0},
        {"dead_letters": ""},
        {"dead_letters": 7},
        {"on_failure": "ignore"},
        {"discover": 0},
        {"on_elected": print},
    ],
    ids=str,
)
def test_other_settings_that_cannot_be_are_refused(kind: Any, settings: Any) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings)).partition("_")[0]):
        made(kind, **settings)


def test_a_coroutine_that_is_told_of_errors_is_for_asyncio_only() -> None:
    made(AsyncStreamConsumer, on_error=coroutine)
    with pytest.raises(ConfigError, match="on_error must be a plain function"):
        made(StreamConsumer, on_error=coroutine)


@BOTH
def test_seconds_may_be_a_timedelta(kind: Any) -> None:
    second = timedelta(seconds=1)
    names = ("ttl", "retry_base", "retry_max", "discover", "drain_timeout", "max_stall")
    consumer = made(kind, **dict.fromkeys(names, second))
    assert (consumer._stall_s, consumer._drain_timeout_s, consumer._discover_s) == (1, 1, 1)


@BOTH
@pytest.mark.parametrize(
    "bad", [("",), ("x" * 600,), ("s0", "other"), ("new", "s0"), ("new", ""), ("new", 7)]
)
def test_a_partition_that_is_refused_leaves_nothing_behind(kind: Any, bad: Any) -> None:
    consumer = made(kind)
    before = consumer.partitions
    with pytest.raises(ConfigError):
        consumer.add(*bad)
    assert consumer.partitions == before
    assert set(consumer.group) == set(KEYS)


def batch_of(count: int) -> Batch[Any]:
    reading = Reading(Partition("p", b"p"), Term("p"))
    entries = [Entry(f"{number}-0", [b"n", b"1"]) for number in range(1, count + 1)]
    return Batch(Work(reading, entries, 1, "0-0"), None)


@pytest.mark.parametrize(
    ("bound", "most", "what"),
    [
        ("MAX_STAGED", 3, "3 writes"),
        ("MAX_STAGED_KEYS", 3, "3 keys"),
        ("MAX_STAGED_ARGUMENTS", 3, "3 arguments"),
        ("MAX_STAGED_BYTES", 40, "40 bytes"),
    ],
)
def test_what_is_too_much_is_refused_where_it_is_staged(
    monkeypatch: pytest.MonkeyPatch, bound: str, most: int, what: str
) -> None:
    monkeypatch.setattr(bounds, bound, most)
    batch = batch_of(1)
    for number in range(3):
        batch.set(f"key-{number}", "value")
    with pytest.raises(ConfigError, match=what):
        batch.set("key-3", "value and more")
    assert len(batch._close()) == 3
    with pytest.raises(ClosedError):
        batch.set("key-0", "value")


FORKS = """
import os, sys, threading, time, warnings
from multielect import ClosedError
from multielect.streams import StreamConsumer

warnings.simplefilter("ignore", DeprecationWarning)     # fork beside threads: the subject here
entered, go_on = threading.Event(), threading.Event()

def handle(batch):
    entered.set()
    go_on.wait(60)

consumer = StreamConsumer(sys.argv[1], prefix="fork", partitions=["s0"], handler=handle, ttl=5,
                          drain_timeout=60)
with consumer:
    assert entered.wait(30)
    with consumer._mutex:                   # as any of its threads may have it just then
        child = os.fork()
    if child == 0:
        began = time.monotonic()
        consumer.stop()
        refused = 0
        for call in (consumer.start, lambda: consumer.add("s1"), lambda: consumer.remove("s0"),
                     lambda: consumer.resume("s0")):
            try:
                call()
            except ClosedError:
                refused += 1
        os._exit(0 if refused == 4 and time.monotonic() - began < 20 else 1)
    _, status = os.waitpid(child, 0)
    go_on.set()
print(os.waitstatus_to_exitcode(status), consumer.tally.handled)
"""


def test_a_forked_child_owns_nothing(redis_url: str, redis_client: redis.Redis) -> None:
    redis_client.xadd("s0", {"n": 0})
    told = subprocess.run(
        [sys.executable, "-c", FORKS, redis_url],
        capture_output=True,
        text=True,
        timeout=4 * WITHIN_S,
        check=True,
    )
    assert told.stdout.split() == ["0", "1"], told.stderr
