"""A start that fails half way leaves nothing: no thread, no descriptor, and it can be tried again.

Rules of this file:
    * What is refused is refused at each place where it can be, one after the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from tests.diary import WITHIN_S, until

from multielect import ElectionGroup, Elector, aio
from multielect.embedded import EmbeddedServer
from multielect.streams import AsyncStreamConsumer, StreamConsumer

PREFIX = "whole"
MAX_FILES = 256


class Threads:
    """A public class of threads: how it is started, stopped and asked."""

    def __init__(self, subject: Any, node: Any) -> None:
        self.subject = subject
        self.node = node

    def start(self) -> None:
        self.subject.start()

    def stop(self) -> None:
        self.subject.stop()

    def leads(self) -> bool:
        return bool(self.node._core.elections.leading)

    def close(self) -> None:
        """It needs nothing more."""


class Loop(Threads):
    """A public class of asyncio, in a loop that runs when it is asked for something."""

    def __init__(self, make: Callable[[], tuple[Any, Any]]) -> None:
        self.loop = asyncio.new_event_loop()
        super().__init__(*self.run(_made(make)))

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    def start(self) -> None:
        self.run(self.subject.start())

    def stop(self) -> None:
        self.run(self.subject.stop())

    def close(self) -> None:
        self.loop.close()


async def _made(make: Callable[[], tuple[Any, Any]]) -> tuple[Any, Any]:
    return make()


def group(url: str) -> Threads:
    made = ElectionGroup(url, prefix=PREFIX, balance=True, on_elected=lambda _: None)
    made.add("a")
    return Threads(made, made._node)


def elector(url: str) -> Threads:
    made = Elector(url, prefix=PREFIX, on_elected=lambda _: None)
    return Threads(made, made._node)


def consumer(url: str) -> Threads:
    made = StreamConsumer(
        url, prefix=PREFIX, partitions=lambda: ["s"], handler=print, readers=1, handlers=2
    )
    return Threads(made, made.group._node)


def aio_group(url: str) -> Threads:
    def make() -> tuple[Any, Any]:
        made = aio.ElectionGroup(url, prefix=PREFIX, balance=True, on_elected=lambda _: None)
        made.add("a")
        return made, made._node

    return Loop(make)


def aio_elector(url: str) -> Threads:
    def make() -> tuple[Any, Any]:
        made = aio.Elector(url, prefix=PREFIX)
        return made, made._node

    return Loop(make)


def aio_consumer(url: str) -> Threads:
    def make() -> tuple[Any, Any]:
        made = AsyncStreamConsumer(url, prefix=PREFIX, partitions=["s"], handler=print, readers=1)
        return made, made.group._node

    return Loop(make)


THREADS = {group: 6, elector: 5, consumer: 11, aio_group: 5, aio_elector: 4, aio_consumer: 4}
"""How many threads each public class starts with, the log's among them."""


@pytest.fixture
def url(backing: EmbeddedServer) -> str:
    with redis.Redis.from_url(backing.url) as client:
        client.flushall()
    return backing.url


def state() -> tuple[set[threading.Thread], int]:
    # What an earlier test has left to the collector must not go in the middle of this one.
    gc.collect()
    return set(threading.enumerate()), len(list(Path("/proc/self/fd").iterdir()))


def check_whole(subject: Threads, before: tuple[set[threading.Thread], int]) -> None:
    """See that nothing is left of the attempt, and that another works."""
    until(lambda: state()[0] == before[0])
    assert state() == before
    assert not subject.node.is_running
    with contextlib.suppress(BaseException):
        subject.start()
    until(subject.leads)
    assert subject.node.is_running
    subject.stop()
    until(lambda: state()[0] == before[0])
    subject.close()


@pytest.mark.parametrize(
    ("make", "refused"),
    [(make, number) for make, count in THREADS.items() for number in range(1, count + 1)],
    ids=lambda given: getattr(given, "__name__", str(given)),
)
def test_a_thread_is_refused(
    make: Callable[[str], Threads], refused: int, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = make(url)
    before = state()
    start = threading.Thread.start
    asked: list[str] = []

    def refuse(thread: threading.Thread) -> None:
        asked.append(thread.name)
        if len(asked) == refused:
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as refusing:
        refusing.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            subject.start()
    assert len(asked) == refused
    check_whole(subject, before)


@pytest.fixture
def crowd() -> Iterator[Callable[[int], contextlib.AbstractContextManager[None]]]:
    """Return what leaves this process so many descriptors, for a while."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    @contextlib.contextmanager
    def leave(count: int) -> Iterator[None]:
        held: list[int] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_FILES, limits[1]))
        try:
            with contextlib.suppress(OSError):
                while True:
                    held.append(os.open(os.devnull, os.O_RDONLY))
            for _ in range(count):
                os.close(held.pop())
            yield
        finally:
            for descriptor in held:
                os.close(descriptor)
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    yield leave
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("left", [0, 1, 2, 3])
@pytest.mark.parametrize("make", THREADS, ids=lambda make: make.__name__)
def test_there_are_no_descriptors(
    make: Callable[[str], Threads], left: int, url: str, crowd: Any
) -> None:
    subject = make(url)
    before = state()
    with crowd(left), pytest.raises(OSError, match="Too many open files"):
        subject.start()
    check_whole(subject, before)


@pytest.mark.parametrize("make", THREADS, ids=lambda make: make.__name__)
def test_what_could_not_be_started_can_be_stopped(
    make: Callable[[str], Threads], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = make(url)
    before = state()

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as refusing:
        refusing.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            subject.start()
        subject.stop()
    subject.stop()
    until(lambda: state()[0] == before[0], WITHIN_S)
    subject.close()
