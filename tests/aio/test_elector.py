"""`multielect.aio.Elector`: one election, in a loop.

Rules of this file:
    * Only what an elector does of its own is tested here; the rest it shares with the group.
"""

from __future__ import annotations

import asyncio

import pytest
from tests.aio.running import eventually, run

from multielect import ClosedError, DemotionReason, NotLeaderError, Term
from multielect import Elector as ThreadedElector
from multielect.aio import Elector

PREFIX = "aio-elector"


def test_leads_and_hands_over(redis_url: str) -> None:
    told: list[str] = []

    async def scenario() -> None:
        async def on_elected() -> None:
            await asyncio.sleep(0)
            told.append("elected")

        async def on_demoted(term: Term, reason: DemotionReason) -> None:
            await asyncio.sleep(0)
            told.append(f"{term.key!r} demoted: {reason.name}")

        two = Elector(redis_url, prefix=PREFIX, node_id="two", ttl=60)
        async with Elector(
            redis_url,
            prefix=PREFIX,
            node_id="one",
            ttl=60,
            on_elected=on_elected,
            on_demoted=on_demoted,
        ) as one:
            assert await one.wait(10)
            await two.start()
            assert one.require_leader() == one.epoch > 0
            assert 0 < one.remaining <= 60
            assert one.leader_id == one.node_id == "one"
            with pytest.raises(NotLeaderError):
                two.require_leader()
            assert await two.wait(0.05) is False
            assert one.counters.elected == 1
            first = one.epoch
            assert one.resign()
            assert await two.wait(10)
            assert two.epoch > first
            await eventually(lambda: len(told) == 2)
            await two.stop()
        assert not two.is_leader
        with pytest.raises(ClosedError, match="stopped"):
            await two.wait(1)

    run(scenario)
    assert told == ["elected", "'' demoted: RESIGNED"]


def test_contests_with_an_elector_of_threads(redis_url: str) -> None:
    async def scenario() -> None:
        with ThreadedElector(redis_url, prefix=PREFIX, ttl=60) as threaded:
            assert await asyncio.to_thread(threaded.wait, 10)
            async with Elector(redis_url, prefix=PREFIX, ttl=60) as elector:
                waiting = asyncio.create_task(elector.wait(10))
                await eventually(lambda: elector.leader_id == threaded.node_id)
                threaded.stop()
                assert await waiting

    run(scenario)


def test_is_demoted_when_it_stalls(redis_url: str) -> None:
    reasons: list[DemotionReason] = []

    async def scenario() -> None:
        async with Elector(
            redis_url,
            prefix=PREFIX,
            ttl=0.6,
            max_stall=0.5,
            on_demoted=lambda _, reason: reasons.append(reason),
        ) as elector:
            assert await elector.wait(10)
            elector.heartbeat()
            await eventually(lambda: reasons == [DemotionReason.STALLED])

    run(scenario)
