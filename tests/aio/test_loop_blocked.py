"""An event loop that is blocked for three TTLs loses no lease, and hears of all afterwards.

Rules of this file:
    * Blocked is meant in both ways: by a call that frees the GIL, as most do, and by one
      that keeps it.
    * What is asserted is read in the very step of the loop that was blocked.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable

import pytest
import redis
from tests.aio.running import eventually, run
from tests.diary import Diary, until

from multielect import DemotionReason, Term
from multielect.aio import ElectionGroup

PREFIX = "loop-blocked"
WAYS = {
    "sleeping": time.sleep,
    "keeping the GIL": lambda seconds: ctypes.PyDLL(None).usleep(round(seconds * 1e6)),
}


def blocked_loop_keeps(
    url: str, *, leases: int, ttl: float, block: Callable[[float], None]
) -> None:
    diary = Diary()

    async def scenario() -> None:
        group = ElectionGroup(
            url, prefix=PREFIX, ttl=ttl, on_elected=diary.elected, on_demoted=diary.demoted
        )
        group.add_many(f"election-{number}" for number in range(leases))
        async with group:
            await eventually(lambda: len(diary.entries) == leases)
            epochs = {election.key: election.epoch for election in group.led}
            before = group.counters
            block(3 * ttl)
            after, led_now = group.counters, group.led
            assert {election.key: election.epoch for election in led_now} == epochs
            assert len(epochs) == leases
            assert (after.demoted, after.reconnects) == (0, 0)
            assert after.refreshes - before.refreshes >= 6 * leases
        assert [entry.reason for entry in diary.demotions()] == [DemotionReason.STOPPED] * leases

    run(scenario)


@pytest.mark.parametrize("way", WAYS)
def test_loses_nothing(redis_url: str, way: str) -> None:
    blocked_loop_keeps(redis_url, leases=50, ttl=1.0, block=WAYS[way])


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_loses_none_of_a_thousand(redis_url: str, way: str) -> None:
    blocked_loop_keeps(redis_url, leases=1000, ttl=2.0, block=WAYS[way])


def test_is_told_afterwards_in_order(redis_url: str, redis_client: redis.Redis) -> None:
    """A term is lost and won again behind the loop's back, by a lease that is deleted."""
    diary = Diary()
    led_when_told: list[tuple[int, bool]] = []

    async def on_elected(term: Term) -> None:
        diary.elected(term)
        led_when_told.append((term.epoch, term.is_leader))

    async def on_demoted(term: Term, reason: DemotionReason) -> None:
        diary.demoted(term, reason)

    async def scenario() -> None:
        group = ElectionGroup(
            redis_url, prefix=PREFIX, ttl=1.0, on_elected=on_elected, on_demoted=on_demoted
        )
        election = group.add("contested")
        async with group:
            await eventually(lambda: len(diary.entries) == 1)
            first = election.epoch
            meanwhile = threading.Thread(target=lose_lease, args=(group, 2))
            meanwhile.start()
            meanwhile.join()
            assert len(diary.entries) == 1
            assert election.is_leader
            last = election.epoch
            await eventually(lambda: len(diary.entries) == 3)
            assert diary.told("contested") == [None, DemotionReason.LOST, None]
            assert diary.terms() == {"contested": [first, last]}
            # Of the term between the two, over before it could be told, nothing is said.
            assert led_when_told == [(first, True), (last, True)]

    def lose_lease(group: ElectionGroup, times: int) -> None:
        for lost in range(1, times + 1):
            redis_client.delete(*redis_client.keys("*:leader"))
            until(lambda lost=lost: group.counters.elected == 1 + lost)  # type: ignore[misc]

    run(scenario)
