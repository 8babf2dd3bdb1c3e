"""Callbacks in the loop that call back into their group: nothing deadlocks, nobody is forgotten.

Rules of this file:
    * Every scenario ends long before the time after which a stop gives up: a stop that waits
      for the callback it is called from would be seen.
"""

from __future__ import annotations

import asyncio

import pytest
from tests.aio.running import eventually, run
from tests.diary import Diary

from multielect import DemotionReason, Term
from multielect.aio import ElectionGroup

PREFIX = "aio-reentering"
STOP_GIVES_UP_S = 30.0


async def _await_stop(group: ElectionGroup) -> None:
    await group.stop(timeout=STOP_GIVES_UP_S)


async def _await_stop_in_a_task(group: ElectionGroup) -> None:
    await asyncio.wait_for(group.stop(timeout=STOP_GIVES_UP_S), STOP_GIVES_UP_S)


@pytest.mark.parametrize("stop", [_await_stop, _await_stop_in_a_task])
def test_stop(redis_url: str, stop: object) -> None:
    assert callable(stop)
    diary = Diary()
    slow_ends: list[str] = []

    async def scenario() -> None:
        stopped = asyncio.Event()

        async def on_elected(term: Term) -> None:
            diary.elected(term)
            if term.key == "first":
                await eventually(lambda: len(diary.entries) == 3)
                await stop(group)
                stopped.set()

        async def on_demoted(term: Term, reason: DemotionReason) -> None:
            # A stop from inside waits for no callback, and cuts none off.
            await asyncio.sleep(0.05)
            diary.demoted(term, reason)
            slow_ends.append(term.key)

        group = ElectionGroup(
            redis_url, prefix=PREFIX, on_elected=on_elected, on_demoted=on_demoted
        )
        group.add_many(["first", "second", "third"])
        await group.start()
        before = asyncio.get_running_loop().time()
        await asyncio.wait_for(stopped.wait(), 10)
        await eventually(lambda: len(diary.entries) == 6)
        await group.stop()
        assert asyncio.get_running_loop().time() - before < STOP_GIVES_UP_S / 2

    run(scenario)
    assert sorted(slow_ends) == ["first", "second", "third"]
    for key in slow_ends:
        assert diary.told(key) == [None, DemotionReason.STOPPED]


def test_stop_by_a_task_that_a_callback_began_waits_for_callbacks(redis_url: str) -> None:
    diary = Diary()

    async def scenario() -> None:
        workers: list[asyncio.Task[None]] = []
        leads_both = asyncio.Event()

        async def work() -> None:
            await leads_both.wait()
            await group.stop()
            # Not called from the callback, which is long over.
            assert len(diary.demotions()) == 2

        async def on_elected(term: Term) -> None:
            diary.elected(term)
            if not workers:
                workers.append(asyncio.create_task(work()))

        async def on_demoted(term: Term, reason: DemotionReason) -> None:
            await asyncio.sleep(0.05)
            diary.demoted(term, reason)

        group = ElectionGroup(
            redis_url, prefix=PREFIX, on_elected=on_elected, on_demoted=on_demoted
        )
        group.add_many(["a", "b"])
        await group.start()
        await eventually(lambda: len(diary.entries) == 2)
        leads_both.set()
        await asyncio.wait_for(workers[0], 10)

    run(scenario)


def test_remove(redis_url: str) -> None:
    diary = Diary()

    async def scenario() -> None:
        def on_elected(term: Term) -> None:
            diary.elected(term)
            group.remove(term.key)

        group = ElectionGroup(
            redis_url, prefix=PREFIX, on_elected=on_elected, on_demoted=diary.demoted
        )
        group.add_many(["a", "b"])
        async with group:
            await eventually(lambda: len(diary.entries) == 4)
            assert len(group) == 0

    run(scenario)
    assert diary.told("a") == diary.told("b") == [None, DemotionReason.REMOVED]


def test_resign_and_campaign(redis_url: str) -> None:
    diary = Diary()

    async def scenario() -> None:
        async def on_elected(term: Term) -> None:
            diary.elected(term)
            if len(diary.entries) == 1:
                assert term.resign()
                assert not term.is_leader
                term.campaign()

        group = ElectionGroup(
            redis_url, prefix=PREFIX, on_elected=on_elected, on_demoted=diary.demoted
        )
        group.add("a")
        async with group:
            await eventually(lambda: len(diary.entries) == 3)
            assert group["a"].is_leader

    run(scenario)
    reasons = [None, DemotionReason.RESIGNED, None, DemotionReason.STOPPED]
    assert diary.told("a") == reasons
    assert len(diary.terms()["a"]) == 2
