"""`drain` in a loop: awaited by callbacks, by tasks, and by several at once."""

from __future__ import annotations

import asyncio

import pytest
from tests.aio.running import eventually, run
from tests.diary import WITHIN_S

from multielect import DemotionReason, Term
from multielect.aio import ElectionGroup

PREFIX = "aio-drain"
LONG_S = 10 * WITHIN_S


@pytest.mark.parametrize("where", ["on_elected", "on_draining", "on_demoted"])
def test_a_callback_begins_a_drain_and_does_not_wait(redis_url: str, where: str) -> None:
    answers: list[bool] = []
    reasons: list[DemotionReason] = []

    async def scenario() -> None:
        async def drain_from(place: str) -> None:
            if place == where and not answers:
                answers.append(await group.drain(LONG_S))

        async def on_elected(_term: Term) -> None:
            await drain_from("on_elected")

        async def on_draining(term: Term, _deadline: float) -> None:
            await drain_from("on_draining")
            term.finish_drain()

        async def on_demoted(_term: Term, reason: DemotionReason) -> None:
            reasons.append(reason)
            await drain_from("on_demoted")

        async with ElectionGroup(
            redis_url,
            prefix=PREFIX,
            balance=True,
            on_elected=on_elected,
            on_draining=on_draining,
            on_demoted=on_demoted,
        ) as group:
            group.add_many(["a", "b"])
            if where != "on_elected":
                await eventually(lambda: len(group.led) == 2)
            if where == "on_demoted":
                group.remove("b")
            elif where == "on_draining":
                assert await group.drain(LONG_S)
            await eventually(lambda: bool(answers) and not group.led)
            await eventually(lambda: DemotionReason.DRAINED in reasons)

    run(scenario)


def test_two_who_wait_for_a_drain_wait_for_the_same(redis_url: str) -> None:
    drains: list[str] = []

    async def scenario() -> None:
        gate = asyncio.Event()

        async def on_draining(term: Term, _deadline: float) -> None:
            drains.append(term.key)
            await gate.wait()
            term.finish_drain()

        async with ElectionGroup(redis_url, prefix=PREFIX, on_draining=on_draining) as group:
            group.add_many(["a", "b"])
            await eventually(lambda: len(group.led) == 2)
            calls = [asyncio.ensure_future(group.drain(LONG_S)) for _ in range(2)]
            await eventually(lambda: len(drains) == 2)
            assert not any(call.done() for call in calls)
            gate.set()
            assert await asyncio.gather(*calls) == [True, True]
        assert sorted(drains) == ["a", "b"]

    run(scenario)
