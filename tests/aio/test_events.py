"""`async for term in group.events()`: all that happens, in order, bounded, to each reader.

Rules of this file:
    * A reader is told of everything from `events()` on, not from its first step.
    * Terms come and go by resigning and standing again, which takes no TTL.
"""

from __future__ import annotations

import asyncio
import gc
from contextlib import aclosing

from tests.aio.running import eventually, run

from multielect import DemotionReason, Term
from multielect.aio import ElectionGroup

PREFIX = "aio-events"

Told = list[tuple[str, DemotionReason | None]]


async def change_terms(group: ElectionGroup, key: str, times: int) -> None:
    """Have the group's term of an election end and begin anew, so many times."""
    election = group[key]
    assert await election.wait(10)
    for _ in range(times):
        assert election.resign()
        election.campaign()
        assert await election.wait(10)


def test_tell_all_in_order_to_each_reader(redis_url: str) -> None:
    async def scenario() -> None:
        told: list[list[Term]] = [[], []]

        async def read(which: int) -> None:
            async for term in group.events():
                told[which].append(term)

        group = ElectionGroup(redis_url, prefix=PREFIX)
        group.add_many(["a", "b"])
        readers = [asyncio.create_task(read(which)) for which in range(2)]
        await asyncio.sleep(0)
        async with group:
            for change in range(3):
                await change_terms(group, "a", 1)
                await eventually(
                    lambda change=change: all(  # type: ignore[misc]
                        [term.key for term in terms].count("a") == 3 + 2 * change for terms in told
                    )
                )
            assert await group["b"].wait(10)
        # Stopping ends the iterations, and not before the last is told.
        await asyncio.wait_for(asyncio.gather(*readers), 10)
        for terms in told:
            of_a = [term for term in terms if term.key == "a"]
            resigned, stopped = DemotionReason.RESIGNED, DemotionReason.STOPPED
            reasons = [None, resigned, None, resigned, None, resigned, None, stopped]
            assert [term.reason for term in of_a] == reasons
            epochs = [term.epoch for term in of_a]
            assert epochs[::2] == epochs[1::2]
            assert epochs[::2] == sorted(set(epochs))
            assert [term.reason for term in terms if term.key == "b"] == [None, stopped]
            instants = [term.began_ns or term.ended_ns for term in of_a]
            assert instants == sorted(instants)  # type: ignore[type-var]

    run(scenario)


def test_of_a_slow_reader_are_bounded_and_true(redis_url: str) -> None:
    async def scenario() -> None:
        group = ElectionGroup(redis_url, prefix=PREFIX)
        group.add("a")
        async with group, aclosing(group.events()) as events:
            await change_terms(group, "a", 1)
            first = await anext(events)
            assert first.reason is None
            await change_terms(group, "a", 100)
            await eventually(lambda: group.counters.elected == 102)
            (reader,) = group._dispatcher._present_readers()
            assert sum(len(queue) for queue in reader.mailbox._waiting.values()) <= 3
            assert len(reader.ready) <= 1
            told = [first]
            while not told[-1].is_leader:
                told.append(await asyncio.wait_for(anext(events), 10))
            assert len(told) <= 5
            reasons = [None, DemotionReason.RESIGNED] * 2 + [None]
            assert [term.reason for term in told] == reasons[-len(told) :]
            assert told[-1].epoch == group["a"].epoch
            begun = [term.epoch for term in told if term.reason is None]
            assert begun == sorted(set(begun))

    run(scenario)


def test_are_told_from_the_call_on(redis_url: str) -> None:
    async def scenario() -> None:
        group = ElectionGroup(redis_url, prefix=PREFIX)
        group.add("a")
        events = group.events()
        async with group:
            assert await group["a"].wait(10)
        told = [term.reason async for term in events]
        assert told == [None, DemotionReason.STOPPED]
        # Over is over: who asks now is told nothing, and does not wait.
        assert [term async for term in group.events()] == []

    run(scenario)


def test_end_where_the_group_was_never_started(redis_url: str) -> None:
    async def scenario() -> None:
        group = ElectionGroup(redis_url, prefix=PREFIX)

        async def read() -> Told:
            return [(term.key, term.reason) async for term in group.events()]

        reader = asyncio.create_task(read())
        await asyncio.sleep(0)
        await group.stop()
        assert await asyncio.wait_for(reader, 10) == []

    run(scenario)


def test_closed_early_hold_nothing_back(redis_url: str) -> None:
    async def scenario() -> None:
        async with ElectionGroup(redis_url, prefix=PREFIX) as group:
            begun, left, never_begun, dropped = (group.events() for _ in range(4))
            group.add("a")
            assert (await anext(begun)).reason is None
            async for _ in left:
                break
            assert len(group._dispatcher._present_readers()) == 4
            await begun.aclose()
            await never_begun.aclose()
            del begun, left, never_begun, dropped
            gc.collect()
            await eventually(lambda: not group._dispatcher._present_readers())
            assert not group._dispatcher._readers
            assert group["a"].is_leader

    run(scenario)


def test_cancelled_reader_is_no_reader_any_more(redis_url: str) -> None:
    async def scenario() -> None:
        async with ElectionGroup(redis_url, prefix=PREFIX) as group:
            read = asyncio.create_task(_first(group))
            await eventually(lambda: len(group._dispatcher._present_readers()) == 1)
            read.cancel()
            await asyncio.wait([read])
            assert read.cancelled()
            del read
            gc.collect()
            await eventually(lambda: not group._dispatcher._readers)

    run(scenario)


async def _first(group: ElectionGroup) -> None:
    async for _ in group.events():
        return
