"""What a consumer and its batches refuse, and what they leave as it was then."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
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
        ("MOST_STAGED", 3, "3 writes"),
        ("MOST_STAGED_KEYS", 3, "3 keys"),
        ("MOST_STAGED_ARGUMENTS", 3, "3 arguments"),
        ("MOST_STAGED_BYTES", 40, "40 bytes"),
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
