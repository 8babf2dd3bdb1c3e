"""Callbacks that end by a cancellation, or by what would end the program: the rest is still told.

Rules of this file:
    * What is awaited is cancelled by the application; the group cancels nothing.
"""

from __future__ import annotations

import asyncio
import time
from typing import NoReturn

import pytest
from tests.aio.running import eventually, run
from tests.diary import Diary

from multielect import CallbackError, DemotionReason, MultielectError, Term
from multielect.aio import ElectionGroup

PREFIX = "aio-cancelled"


class ExitError(BaseException):
    """What is no `Exception`, and none of those that end a loop."""


class Workers:
    """Workers that wait for ever, each awaited by a callback."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[bool]] = []

    async def work(self) -> None:
        self.tasks.append(asyncio.create_task(asyncio.Event().wait()))
        await self.tasks[-1]

    async def cancel(self, number: int) -> None:
        """Cancel a worker, once it is there."""
        await eventually(lambda: len(self.tasks) > number)
        self.tasks[number].cancel()


def check_failures(diary: Diary, count: int) -> None:
    assert len(diary.errors) == count
    for error in diary.errors:
        assert isinstance(error, CallbackError)
        assert isinstance(error.__cause__, asyncio.CancelledError)


def test_on_elected_whose_worker_is_cancelled_ends_alone(redis_url: str) -> None:
    diary, workers = Diary(), Workers()

    async def on_elected(term: Term) -> None:
        diary.elected(term)
        if term.key == "bad":
            await workers.work()

    async def scenario() -> None:
        group = ElectionGroup(
            redis_url,
            prefix=PREFIX,
            on_elected=on_elected,
            on_demoted=diary.demoted,
            on_error=diary.error,
        )
        group.add_many(["bad", "good"])
        async with group:
            await workers.cancel(0)
            await eventually(lambda: len(diary.errors) == 1)
            group["bad"].resign()
            group["bad"].campaign()
            await workers.cancel(1)
            await eventually(lambda: len(diary.errors) == 2)
            began = time.monotonic()
        # It waited for nobody who was never to come: five seconds, before.
        assert time.monotonic() - began < 4

    run(scenario)
    reasons = [None, DemotionReason.RESIGNED, None, DemotionReason.STOPPED]
    assert diary.told("bad") == reasons
    assert diary.told("good") == [None, DemotionReason.STOPPED]
    check_failures(diary, 2)


def test_on_demoted_whose_worker_is_cancelled_ends_alone(redis_url: str) -> None:
    diary, workers = Diary(), Workers()

    async def on_demoted(term: Term, reason: DemotionReason) -> None:
        diary.demoted(term, reason)
        await workers.work()

    async def scenario() -> None:
        group = ElectionGroup(
            redis_url,
            prefix=PREFIX,
            on_elected=diary.elected,
            on_demoted=on_demoted,
            on_error=diary.error,
        )
        group.add("bad")
        async with group:
            await eventually(lambda: len(diary.entries) == 1)
            group["bad"].resign()
            group["bad"].campaign()
            await workers.cancel(0)
            await eventually(lambda: len(diary.told("bad")) == 3)
            stopping = asyncio.create_task(group.stop())
            await workers.cancel(1)
            await stopping

    run(scenario)
    reasons = [None, DemotionReason.RESIGNED, None, DemotionReason.STOPPED]
    assert diary.told("bad") == reasons
    check_failures(diary, 2)


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
@pytest.mark.parametrize("raised", [ExitError, asyncio.CancelledError])
def test_what_is_no_exception_ends_its_callback_alone(
    redis_url: str, kind: str, raised: type[BaseException]
) -> None:
    diary = Diary()

    def fail(term: Term) -> NoReturn:
        diary.elected(term)
        raise raised

    async def fail_later(term: Term) -> NoReturn:
        await asyncio.sleep(0)
        fail(term)

    async def scenario() -> None:
        group = ElectionGroup(
            redis_url,
            prefix=PREFIX,
            on_elected=fail if kind == "plain" else fail_later,
            on_demoted=diary.demoted,
            on_error=diary.error,
        )
        group.add_many(["a", "b"])
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)  # it tells of the task as well
        async with group:
            await eventually(lambda: len(diary.errors) == 2)

    run(scenario)
    for key in ("a", "b"):
        assert diary.told(key) == [None, DemotionReason.STOPPED]


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_loops_run_ends_no_more_than_that(
    redis_url: str, raised: type[BaseException]
) -> None:
    diary = Diary()

    def fail(term: Term) -> NoReturn:
        diary.elected(term)
        raise raised

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # it tells of the task as well

    async def begin() -> ElectionGroup:
        group = ElectionGroup(
            redis_url,
            prefix=PREFIX,
            on_elected=fail,
            on_demoted=diary.demoted,
            on_error=diary.error,
        )
        group.add("a")
        await group.start()
        return group

    group = loop.run_until_complete(begin())
    with pytest.raises(raised):
        loop.run_until_complete(asyncio.wait_for(asyncio.Event().wait(), 20))
    # The program thinks better of it, and the loop runs on.
    loop.run_until_complete(eventually(lambda: len(diary.errors) == 1))
    loop.run_until_complete(group.stop())
    assert diary.told("a") == [None, DemotionReason.STOPPED]
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def test_on_error_that_is_cancelled_is_called_again(redis_url: str) -> None:
    told: list[MultielectError] = []

    def fail(term: Term) -> NoReturn:
        raise LookupError(term.key)

    async def on_error(error: MultielectError) -> None:
        told.append(error)
        raise asyncio.CancelledError

    async def scenario() -> None:
        group = ElectionGroup(redis_url, prefix=PREFIX, on_elected=fail, on_error=on_error)
        group.add_many(["a", "b", "c"])
        async with group:
            await eventually(lambda: len(told) == 3)

    run(scenario)
