"""`await election.wait()`: it ends when the election is led, when time is up, or when all is over.

Rules of this file:
    * Nothing is polled here: a wait that misses its news runs into its timeout, and fails.
"""

from __future__ import annotations

import asyncio

import pytest
from tests.aio.running import run

from multielect import ClosedError, ConfigError
from multielect.aio import Election, ElectionGroup

PREFIX = "aio-waiting"


def test_ends_when_led(redis_url: str) -> None:
    async def scenario() -> None:
        async with ElectionGroup(redis_url, prefix=PREFIX) as group:
            election = group.add("a")
            assert await election.wait(10)
            assert election.is_leader
            assert await election.wait(0)
            assert await election.wait()

    run(scenario)


def test_ends_when_another_makes_room(redis_url: str) -> None:
    async def scenario() -> None:
        async with (
            ElectionGroup(redis_url, prefix=PREFIX, ttl=60) as leader,
            ElectionGroup(redis_url, prefix=PREFIX, ttl=60) as follower,
        ):
            assert await leader.add("a").wait(10)
            follower.add("a")
            waits = [asyncio.create_task(follower["a"].wait(10)) for _ in range(3)]
            assert not await follower["a"].wait(0.1)
            assert leader["a"].resign()
            assert await asyncio.gather(*waits) == [True] * 3
            assert follower["a"].is_leader

    run(scenario)


def test_ends_when_time_is_up(redis_url: str) -> None:
    async def scenario() -> None:
        async with (
            ElectionGroup(redis_url, prefix=PREFIX) as leader,
            ElectionGroup(redis_url, prefix=PREFIX) as follower,
        ):
            assert await leader.add("a").wait(10)
            election = follower.add("a")
            before = asyncio.get_running_loop().time()
            assert await election.wait(0.2) is False
            assert 0.2 <= asyncio.get_running_loop().time() - before < 5
            assert await election.wait(0) is False
            for timeout in (-1, float("nan"), float("inf"), "1", True):
                with pytest.raises(ConfigError, match="timeout"):
                    await election.wait(timeout)  # type: ignore[arg-type]

    run(scenario)


async def _stop(group: ElectionGroup) -> None:
    await group.stop()


async def _remove(group: ElectionGroup) -> None:
    group.remove("a")


@pytest.mark.parametrize(("end", "why"), [(_stop, "stopped"), (_remove, "removed")])
def test_ends_when_it_will_never_be_led(redis_url: str, end: object, why: str) -> None:
    assert callable(end)

    async def scenario() -> None:
        async with (
            ElectionGroup(redis_url, prefix=PREFIX) as leader,
            ElectionGroup(redis_url, prefix=PREFIX) as follower,
        ):
            assert await leader.add("a").wait(10)
            election = follower.add("a")
            waits = [asyncio.create_task(election.wait(limit)) for limit in (None, 10)]
            await asyncio.sleep(0)
            await end(follower)
            for wait in waits:
                with pytest.raises(ClosedError, match=why):
                    await wait
            for limit in (None, 0, 1):
                with pytest.raises(ClosedError, match=why):
                    await election.wait(limit)

    run(scenario)


def test_hears_of_it_also_where_the_group_was_changed_before_its_start(redis_url: str) -> None:
    async def scenario() -> None:
        group = ElectionGroup(redis_url, prefix=PREFIX)
        group.add_many(["a", "b"])
        group.remove("b")
        group["a"].resign()
        async with group:
            before = asyncio.get_running_loop().time()
            assert await group["a"].wait(10)
            # It was told, rather than found out when time was up.
            assert asyncio.get_running_loop().time() - before < 5

    run(scenario)


def test_cancelled_leaves_nothing(redis_url: str) -> None:
    async def scenario() -> None:
        async with (
            ElectionGroup(redis_url, prefix=PREFIX) as leader,
            ElectionGroup(redis_url, prefix=PREFIX) as follower,
        ):
            assert await leader.add("a").wait(10)
            wait = asyncio.create_task(_waiting(follower.add("a")))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert len(follower._dispatcher._watchers) == 1
            wait.cancel()
            with pytest.raises(asyncio.CancelledError):
                await wait
            assert not follower._dispatcher._watchers

    run(scenario)


async def _waiting(election: Election) -> None:
    await election.wait()
