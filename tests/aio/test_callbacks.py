"""Callbacks in the loop: plain or coroutine, in order, and one that fails harms nobody.

Rules of this file:
    * Callbacks block on events that the test sets; nothing sleeps to be late.
"""

from __future__ import annotations

import asyncio
import threading

import pytest
import redis
from tests.aio.running import eventually, run
from tests.diary import Diary

from multielect import CallbackError, DemotionReason, MultielectError, Term
from multielect.aio import ElectionGroup

PREFIX = "aio-callbacks"


def lose_lease(client: redis.Redis, key: str) -> None:
    """Delete the lease of an election: at the next refresh its term is found lost."""
    client.delete(*client.keys(f"*:{key}:leader"))


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_run_in_the_loop(redis_url: str, kind: str) -> None:
    diary = Diary()
    places: list[tuple[int, asyncio.AbstractEventLoop]] = []

    def on_elected(term: Term) -> None:
        places.append((threading.get_ident(), asyncio.get_running_loop()))
        diary.elected(term)

    def on_demoted(term: Term, reason: DemotionReason) -> None:
        places.append((threading.get_ident(), asyncio.get_running_loop()))
        diary.demoted(term, reason)

    async def on_elected_later(term: Term) -> None:
        await asyncio.sleep(0)
        on_elected(term)

    async def on_demoted_later(term: Term, reason: DemotionReason) -> None:
        await asyncio.sleep(0)
        on_demoted(term, reason)

    async def scenario() -> None:
        group = ElectionGroup(
            redis_url,
            prefix=PREFIX,
            on_elected=on_elected if kind == "plain" else on_elected_later,
            on_demoted=on_demoted if kind == "plain" else on_demoted_later,
        )
        group.add_many(["a", "b"])
        async with group:
            await eventually(lambda: len(diary.entries) == 2)
            assert all(entry.term.is_leader for entry in diary.entries)
        assert set(places) == {(threading.get_ident(), asyncio.get_running_loop())}

    run(scenario)
    for key in ("a", "b"):
        assert diary.told(key) == [None, DemotionReason.STOPPED]
    assert [len(epochs) for epochs in diary.terms().values()] == [1, 1]


def test_of_one_election_never_run_at_once(redis_url: str, redis_client: redis.Redis) -> None:
    diary = Diary()
    running: list[str] = []
    crowds: list[int] = []

    async def scenario() -> None:
        gate = asyncio.Event()

        async def inside(key: str) -> None:
            running.append(key)
            crowds.append(running.count("slow"))
            if key == "slow":
                await gate.wait()
            running.remove(key)

        async def on_elected(term: Term) -> None:
            diary.elected(term)
            await inside(term.key)

        async def on_demoted(term: Term, reason: DemotionReason) -> None:
            diary.demoted(term, reason)
            await inside(term.key)

        group = ElectionGroup(
            redis_url, prefix=PREFIX, ttl=0.6, on_elected=on_elected, on_demoted=on_demoted
        )
        group.add_many(["slow", "quick"])
        async with group:
            await eventually(lambda: len(diary.entries) == 2)
            for key in ("slow", "quick"):
                lose_lease(redis_client, key)
            # The other election's callbacks do not wait for those of the slow one.
            await eventually(lambda: len(diary.told("quick")) == 3 and group["slow"].is_leader)
            assert diary.told("slow") == [None]
            gate.set()
            await eventually(lambda: len(diary.told("slow")) == 3)
            assert diary.told("slow") == [None, DemotionReason.LOST, None]

    run(scenario)
    assert max(crowds) == 1
    assert [len(epochs) for epochs in diary.terms().values()] == [2, 2]


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_that_raise_are_reported_and_harm_nobody(
    redis_url: str, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    diary = Diary()

    async def on_error(error: MultielectError) -> None:
        # Told in full, also while the group stops.
        await asyncio.sleep(0.05)
        diary.error(error)

    def fail(term: Term, *_: object) -> None:
        if term.key == "bad":
            raise LookupError(f"planted: {term.reason}")

    async def fail_later(term: Term, *_: object) -> None:
        await asyncio.sleep(0)
        fail(term)

    epochs: dict[str, int] = {}

    async def scenario() -> None:
        group = ElectionGroup(
            redis_url,
            prefix=PREFIX,
            on_elected=fail if kind == "plain" else fail_later,
            on_demoted=fail if kind == "plain" else fail_later,
            on_error=diary.error if kind == "plain" else on_error,
        )
        group.add_many(["bad", "good"])
        async with group:
            await eventually(lambda: len(diary.errors) == 1)
            assert await group["bad"].wait(5)
            assert await group["good"].wait(5)
            epochs.update({election.key: election.epoch for election in group.led})
            assert group.counters.demoted == 0
        assert len(epochs) == 2

    run(scenario)
    assert len(diary.errors) == 2
    for error, reason in zip(diary.errors, ["None", "DemotionReason.STOPPED"], strict=True):
        assert isinstance(error, CallbackError)
        assert isinstance(error.__cause__, LookupError)
        assert str(error.__cause__) == f"planted: {reason}"
        assert (error.key, error.epoch) == ("bad", epochs["bad"])
        which = "on_elected" if reason == "None" else "on_demoted"
        assert error.callback == which
        words = f"{which} failed for election 'bad' at epoch {error.epoch}: LookupError("
        assert str(error).startswith(words)
        assert str(error) in caplog.text


def test_on_error_that_raises_is_logged(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    told: list[MultielectError] = []

    def fail(_: Term) -> None:
        raise LookupError("planted")

    def on_error(error: MultielectError) -> None:
        told.append(error)
        raise RuntimeError("planted as well")

    async def scenario() -> None:
        group = ElectionGroup(redis_url, prefix=PREFIX, on_elected=fail, on_error=on_error)
        group.add_many(["a", "b"])
        async with group:
            await eventually(lambda: len(told) == 2)
            assert len(group.led) == 2

    run(scenario)
    assert caplog.text.count("on_error failed") == 2


def test_that_hang_are_cancelled_when_the_stop_times_out(redis_url: str) -> None:
    ended: list[str] = []

    async def scenario() -> None:
        begun = asyncio.Event()

        async def hang(_: Term) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("cancelled")

        group = ElectionGroup(redis_url, prefix=PREFIX, on_elected=hang)
        group.add("a")
        await group.start()
        await asyncio.wait_for(begun.wait(), 10)
        clock = asyncio.get_running_loop().time
        before = clock()
        await group.stop(timeout=0.3)
        assert 0.3 <= clock() - before < 5
        assert ended == ["cancelled"]

    run(scenario)


def test_a_callback_is_given_as_many_arguments_as_it_takes(redis_url: str) -> None:
    told: list[object] = []

    async def on_demoted(term: Term) -> None:
        told.append(term.reason)

    async def on_error() -> None:
        told.append("error")

    async def scenario() -> None:
        async with ElectionGroup(
            redis_url,
            prefix=PREFIX,
            on_elected=lambda: told.append("elected"),
            on_demoted=on_demoted,
            on_error=on_error,
        ) as group:
            group.add("k")
            await eventually(lambda: told == ["elected"])
            group._node.report(MultielectError("planted"))
            await eventually(lambda: told == ["elected", "error"])

    run(scenario)
    assert told[2:] == [DemotionReason.STOPPED]
