"""Groups that come and go leave no thread, no descriptor and no connection behind.

Rules of this file:
    * It is counted before and after, in this process, and by the server.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import weakref
from pathlib import Path

import pytest
import redis
from tests.diary import WITHIN_S, until

from multielect import ElectionGroup, Elector, aio

PREFIX = "leftovers"
TIMES = 50


def descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def assert_back_to(threads: set[threading.Thread], open_before: int) -> None:
    # Threads of callbacks, and of attempts to connect, end by themselves a moment later.
    until(lambda: not set(threading.enumerate()) - threads)
    gc.collect()
    until(lambda: descriptors() <= open_before)


class Telling:
    """A callback that sets an event."""

    def __init__(self, event: threading.Event) -> None:
        self._event = event

    def __call__(self, _: object) -> None:
        self._event.set()


def one_group(url: str) -> None:
    with ElectionGroup(url, prefix=PREFIX, ttl=60, on_elected=lambda _: None) as group:
        assert group.add("a").wait(WITHIN_S)


def one_elector(url: str) -> None:
    with Elector(url, prefix=PREFIX, ttl=60) as elector:
        assert elector.wait(WITHIN_S)


def one_loop(url: str) -> None:
    async def scenario() -> None:
        async with aio.ElectionGroup(url, prefix=PREFIX, on_elected=lambda _: None) as group:
            assert await group.add("a").wait(WITHIN_S)

    asyncio.run(scenario())


def one_that_is_stopped_at_once(url: str) -> None:
    group = ElectionGroup(url, prefix=PREFIX, ttl=60)
    group.add("a")
    group.start()
    group.stop()


def one_that_never_starts(url: str) -> None:
    ElectionGroup(url, prefix=PREFIX).add("a")


@pytest.mark.parametrize(
    "come_and_go",
    [one_group, one_elector, one_loop, one_that_is_stopped_at_once, one_that_never_starts],
)
def test_of_fifty(redis_url: str, redis_client: redis.Redis, come_and_go: object) -> None:
    assert callable(come_and_go)
    come_and_go(redis_url)
    gc.collect()
    threads, open_before = set(threading.enumerate()), descriptors()
    clients = len(redis_client.client_list())
    for _ in range(TIMES):
        come_and_go(redis_url)
    assert_back_to(threads, open_before)
    until(lambda: len(redis_client.client_list()) <= clients)
    assert not redis_client.keys("*:leader")


def test_of_those_that_never_reach_a_server() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{unused.getsockname()[1]}"
        threads, open_before = set(threading.enumerate()), descriptors()
        for _ in range(10):
            failed = threading.Event()
            group = ElectionGroup(url, prefix=PREFIX, on_error=Telling(failed))
            group.add("a")
            with group:
                assert failed.wait(WITHIN_S)
        assert_back_to(threads, open_before)


def test_of_a_group_not_even_its_memory(redis_url: str) -> None:
    group = ElectionGroup(redis_url, prefix=PREFIX, ttl=60)
    with group:
        assert group.add("a").wait(WITHIN_S)
    node = weakref.ref(group._node)
    del group

    def is_gone() -> bool:
        gc.collect()
        return node() is None

    until(is_gone)
