"""A group belongs to the loop that it was started in: elsewhere it says so, and does not wait."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from tests.diary import until

from multielect import ClosedError
from multielect.aio import ElectionGroup, Elector

PREFIX = "aio-loops"
LONG_S = 20.0

Waits = Callable[[ElectionGroup], Coroutine[Any, Any, object]]


async def wait(group: ElectionGroup) -> None:
    await group["a"].wait(LONG_S)


async def wait_led(group: ElectionGroup) -> None:
    await group["led"].wait(LONG_S)


async def drain(group: ElectionGroup) -> None:
    await group.drain(LONG_S)


async def stop(group: ElectionGroup) -> None:
    await group.stop(LONG_S)


async def events(group: ElectionGroup) -> None:
    async for _ in group.events():
        pass


ALL = [wait, wait_led, drain, stop, events]


async def begin(url: str) -> ElectionGroup:
    """Start a group that leads one of its two elections."""
    group = ElectionGroup(url, prefix=PREFIX, max_leases=1)
    group.add("led")
    await group.start()
    assert await group["led"].wait(LONG_S)
    group.add("a")
    return group


def refused(group: ElectionGroup, waits: Waits, why: str) -> None:
    began = time.monotonic()
    with pytest.raises(ClosedError, match=why):
        asyncio.run(asyncio.wait_for(waits(group), LONG_S))
    assert time.monotonic() - began < LONG_S / 2


@pytest.mark.parametrize("waits", [each for each in ALL if each is not stop])
def test_after_its_loop_has_closed_it_says_so_at_once(redis_url: str, waits: Waits) -> None:
    group = asyncio.run(begin(redis_url))
    try:
        assert group["led"].is_leader
        refused(group, waits, "event loop that has closed")
    finally:
        # Where nobody is left to be told, leases are released all the same.
        asyncio.run(group.stop())
    assert group.led == []
    assert group.counters.released == 1


@pytest.mark.parametrize("waits", ALL)
def test_in_another_loop_that_runs_it_says_so_at_once(redis_url: str, waits: Waits) -> None:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        group = asyncio.run_coroutine_threadsafe(begin(redis_url), loop).result(LONG_S)
        refused(group, waits, "tasks of another loop")
        assert group["led"].is_leader
        asyncio.run_coroutine_threadsafe(group.stop(), loop).result(LONG_S)
        assert group.counters.released == 1
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(LONG_S)
        loop.close()


def test_an_elector_does_the_same(redis_url: str) -> None:
    async def main() -> Elector:
        elector = Elector(redis_url, prefix=PREFIX)
        await elector.start()
        assert await elector.wait(LONG_S)
        return elector

    elector = asyncio.run(main())
    with pytest.raises(ClosedError, match="event loop that has closed"):
        asyncio.run(elector.wait(LONG_S))
    asyncio.run(elector.stop())
    until(lambda: not elector.is_leader)


def test_what_was_stopped_in_its_loop_is_stopped(redis_url: str) -> None:
    async def main() -> ElectionGroup:
        group = await begin(redis_url)
        await group.stop()
        return group

    group = asyncio.run(main())
    asyncio.run(group.stop())
    refused(group, wait, "event loop that has closed")
