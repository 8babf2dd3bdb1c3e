"""Workers in a loop: one task a term, begun and cancelled with it, never two for one election.

Rules of this file:
    * A worker waits for its term's `stopping`, for its cancellation, or for events that the test
      sets; none sleeps to be late.
    * `run` sees to it that no task and no thread is left.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import redis
from tests.aio.running import eventually, run
from tests.diary import Diary

from multielect import CallbackError, ConfigError, DemotionReason, MultielectError
from multielect.aio import ElectionGroup, Elector, WorkerTerm

PREFIX = "aio-workers"
LONG_S = 200.0
TTL_S = 0.5


async def for_ever(_term: WorkerTerm) -> None:
    await asyncio.Event().wait()


class Work:
    """A worker that writes down when it runs, and how it ended."""

    def __init__(self, act: Callable[[WorkerTerm], Awaitable[object]] = for_ever) -> None:
        self.terms: list[WorkerTerm] = []
        self.ended: list[tuple[WorkerTerm, str]] = []
        self.at_once: list[str] = []
        self._act = act
        self._working: Counter[str] = Counter()

    async def __call__(self, term: WorkerTerm) -> None:
        self._working[term.key] += 1
        if self._working[term.key] > 1:
            self.at_once.append(term.key)
        self.terms.append(term)
        how = "returned"
        try:
            await self._act(term)
        except BaseException as error:
            how = type(error).__name__
            raise
        finally:
            self._working[term.key] -= 1
            self.ended.append((term, how))

    @property
    def running(self) -> int:
        return sum(self._working.values())

    async def begun(self, count: int) -> WorkerTerm:
        """Wait for the so many-th worker."""
        await eventually(lambda: len(self.terms) >= count)
        return self.terms[count - 1]

    async def over(self, count: int) -> tuple[WorkerTerm, str]:
        """Wait for the so many-th to have ended."""
        await eventually(lambda: len(self.ended) >= count)
        return self.ended[count - 1]


def a_group(url: str, work: Any, diary: Diary, *keys: str, **given: Any) -> ElectionGroup:
    group = ElectionGroup(
        url,
        prefix=PREFIX,
        worker=work,
        on_elected=diary.elected,
        on_demoted=diary.demoted,
        on_error=diary.error,
        **{"ttl": 30.0, **given},
    )
    group.add_many(keys)
    return group


def lose_lease(client: redis.Redis, key: str) -> None:
    client.delete(*client.keys(f"*:{key}:leader"))


def test_a_worker_is_a_task_that_lasts_as_long_as_its_term(redis_url: str) -> None:
    async def scenario() -> None:
        diary, work = Diary(), Work()
        async with a_group(redis_url, work, diary, "k") as group:
            term = await work.begun(1)
            assert term.epoch == term.require_leader() == group["k"].epoch
            assert [term.reason, term.deadline, term.stopping.is_set()] == [None, None, False]
            names = [task.get_name() for task in asyncio.all_tasks()]
            assert names.count(f"multielect-{group.node_id}-worker-'k'") == 1
            group["k"].resign()
            assert await work.over(1) == (term, "CancelledError")
            assert term.reason is DemotionReason.RESIGNED
            assert term.stopping.is_set()
            assert not term.is_leader
            group["k"].campaign()
            second = await work.begun(2)
            assert second.epoch > term.epoch
        assert work.ended[1] == (second, "CancelledError")
        assert second.reason is DemotionReason.STOPPED
        assert diary.errors == []

    run(scenario)


def test_never_two_at_once_for_one_election_however_leases_come_and_go(
    redis_url: str, redis_client: redis.Redis
) -> None:
    async def act(term: WorkerTerm) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            # Until the next has had time to overtake it.
            await asyncio.sleep(0.05)

    async def scenario() -> None:
        diary, work = Diary(), Work(act)
        keys = [f"k{number}" for number in range(10)]
        async with a_group(redis_url, work, diary, *keys, ttl=TTL_S) as group:
            for turn in range(10):
                await eventually(lambda: len(group.led) == len(keys))
                demotions = group.counters.demoted
                for key in keys[turn % 3 :: 3]:
                    lose_lease(redis_client, key)
                group[keys[turn]].resign()
                group[keys[turn]].campaign()
                await eventually(lambda: group.counters.demoted >= demotions + 3)  # noqa: B023
            await eventually(lambda: len(group.led) == len(keys))
        assert work.running == 0
        assert work.at_once == []
        assert len(work.terms) == len(work.ended) > 2 * len(keys)
        for key in keys:
            epochs = [term.epoch for term in work.terms if term.key == key]
            assert epochs == sorted(set(epochs))
        assert diary.errors == []

    run(scenario)


def test_a_worker_that_returns_gives_its_term_up_and_another_node_takes_it(redis_url: str) -> None:
    async def at_once(_term: WorkerTerm) -> None: ...

    async def scenario() -> None:
        diary, returning, staying = Diary(), Work(at_once), Work()
        async with a_group(redis_url, returning, diary, "k") as first:
            await eventually(lambda: len(diary.demotions()) == 1)
            assert diary.demotions()[0].reason is DemotionReason.RESIGNED
            async with a_group(redis_url, staying, Diary(), "k"):
                assert (await staying.begun(1)).epoch > returning.terms[0].epoch
                assert not first["k"].is_leader
        assert diary.errors == []

    run(scenario)


async def fail(_term: WorkerTerm) -> None:
    raise LookupError("planted")


async def await_what_is_cancelled(_term: WorkerTerm) -> None:
    inner = asyncio.ensure_future(asyncio.Event().wait())
    asyncio.get_running_loop().call_soon(inner.cancel)
    await inner


def return_nothing(_term: WorkerTerm) -> None: ...


@pytest.mark.parametrize(
    ("act", "cause", "words"),
    [
        (fail, LookupError, "LookupError('planted')"),
        (await_what_is_cancelled, asyncio.CancelledError, "CancelledError()"),
        (return_nothing, TypeError, "worker must be a coroutine function; it returned None"),
    ],
)
def test_a_worker_that_fails_is_told_of_and_its_term_is_given_up(
    redis_url: str, act: Any, cause: type[BaseException], words: str
) -> None:
    def by_key(term: WorkerTerm) -> Any:
        return act(term) if term.key == "bad" else for_ever(term)

    async def scenario() -> None:
        diary = Diary()
        async with a_group(redis_url, by_key, diary, "bad", "good") as group:
            await eventually(lambda: len(diary.demotions()) == 1)
            (error,) = diary.errors
            assert isinstance(error, CallbackError)
            assert isinstance(error.__cause__, cause)
            assert words in str(error)
            told = (error.callback, error.key, error.epoch)
            assert told == ("worker", "bad", group["bad"].epoch)
            (ended,) = diary.demotions()
            assert (ended.key, ended.reason) == ("bad", DemotionReason.RESIGNED)
            await eventually(lambda: [each.key for each in group.led] == ["good"])

    run(scenario)


def test_a_worker_that_resists_holds_up_the_next_and_is_told_of(redis_url: str) -> None:
    async def scenario() -> None:
        go_on = asyncio.Event()

        async def act(term: WorkerTerm) -> None:
            while not go_on.is_set():
                try:
                    await go_on.wait()
                except asyncio.CancelledError:
                    continue
            await term.stopping.wait()

        diary, work = Diary(), Work(act)
        async with a_group(redis_url, work, diary, "k", ttl=TTL_S) as group:
            first = await work.begun(1)
            group["k"].resign()
            group["k"].campaign()
            await eventually(lambda: len(diary.errors) >= 2)
            words = " ".join(map(str, diary.errors))
            assert "the worker of election 'k' still runs 0.5 s after its term ended" in words
            assert f"given up: the worker of the previous term (epoch {first.epoch})" in words
            assert work.terms == [first]
            go_on.set()
            second = await work.begun(2)
            assert second.epoch > first.epoch
            assert work.at_once == []

    run(scenario)


def test_a_term_that_drains_is_handed_over_when_its_worker_returns(redis_url: str) -> None:
    async def scenario() -> None:
        go_on = asyncio.Event()

        async def act(term: WorkerTerm) -> None:
            await term.stopping.wait()
            await go_on.wait()
            assert term.is_leader

        diary, work = Diary(), Work(act)
        async with a_group(redis_url, work, diary, "k") as group:
            term = await work.begun(1)
            drain = asyncio.ensure_future(group.drain(LONG_S))
            await eventually(term.stopping.is_set)
            assert term.is_leader
            assert term.reason is None
            assert term.deadline is not None
            assert 0 < term.deadline - time.monotonic() <= LONG_S
            assert diary.demotions() == []
            go_on.set()
            assert await drain
            await eventually(lambda: len(diary.demotions()) == 1)
            assert diary.demotions()[0].reason is DemotionReason.DRAINED
            assert work.ended == [(term, "returned")]
            assert diary.errors == []

    run(scenario)


def test_a_worker_that_does_not_look_is_cancelled_at_the_deadline(redis_url: str) -> None:
    async def scenario() -> None:
        diary, work = Diary(), Work()
        async with a_group(redis_url, work, diary, "k") as group:
            term = await work.begun(1)
            assert await group.drain(0.2)
            assert await work.over(1) == (term, "CancelledError")
            assert term.reason is DemotionReason.DRAINED
            assert diary.errors == []

    run(scenario)


def test_stop_waits_until_a_worker_has_cleaned_up(redis_url: str) -> None:
    cleaned: list[str] = []

    async def act(term: WorkerTerm) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            cleaned.append(term.key)

    async def scenario() -> None:
        diary, work = Diary(), Work(act)
        keys = [f"k{number}" for number in range(20)]
        async with a_group(redis_url, work, diary, *keys):
            await work.begun(20)
        assert sorted(cleaned) == sorted(keys)
        assert diary.errors == []

    run(scenario)


@pytest.mark.parametrize("public_class", [ElectionGroup, Elector])
def test_stop_waits_no_longer_than_it_may(redis_url: str, public_class: Any) -> None:
    async def scenario() -> None:
        go_on = asyncio.Event()

        async def resist(_term: WorkerTerm) -> None:
            while not go_on.is_set():
                try:
                    await go_on.wait()
                except asyncio.CancelledError:
                    continue

        errors: list[MultielectError] = []
        work = Work(resist)
        group = public_class(
            redis_url, prefix=PREFIX, ttl=60.0, worker=work, on_error=errors.append
        )
        if public_class is ElectionGroup:
            group.add("k")
        await group.start()
        await work.begun(1)
        began = time.monotonic()
        await group.stop(0.3)
        assert 0.3 <= time.monotonic() - began < LONG_S / 10
        assert work.running == 1
        go_on.set()
        await work.over(1)
        await eventually(lambda: len(errors) == 1)
        assert "1 worker still runs after stop" in str(errors[0])

    run(scenario)


@pytest.mark.parametrize("call", ["stop", "drain"])
def test_a_worker_may_end_its_own_group(redis_url: str, call: str) -> None:
    async def scenario() -> None:
        groups: list[ElectionGroup] = []
        ready = asyncio.Event()

        async def act(term: WorkerTerm) -> None:
            await ready.wait()
            await asyncio.wait_for(getattr(groups[0], call)(LONG_S), LONG_S / 10)

        diary, work = Diary(), Work(act)
        group = a_group(redis_url, work, diary, "k")
        groups.append(group)
        await group.start()
        await work.begun(1)
        ready.set()
        await work.over(1)
        await eventually(lambda: len(diary.demotions()) == 1)
        await group.stop()
        assert diary.errors == []

    run(scenario)


def test_a_loop_that_was_blocked_runs_the_worker_of_the_term_that_goes_on(redis_url: str) -> None:
    async def scenario() -> None:
        diary, work = Diary(), Work()
        async with a_group(redis_url, work, diary, "k", ttl=60.0) as group:
            first = await work.begun(1)
            flapping = threading.Thread(target=_flap, args=(group, 20), daemon=True)
            flapping.start()
            flapping.join(LONG_S / 10)  # the loop is blocked meanwhile
            assert not flapping.is_alive()
            last = await work.begun(2)
            assert last.epoch == group["k"].require_leader()
            assert [term for term, _ in work.ended] == [first]
            assert work.at_once == []

    run(scenario)


def _flap(group: ElectionGroup, times: int) -> None:
    election = group["k"]
    for _ in range(times):
        before = election.epoch
        election.resign()
        election.campaign()
        while not (election.is_leader and election.epoch > before):
            time.sleep(0.001)


def test_a_thousand_elections_have_a_thousand_workers(redis_url: str) -> None:
    async def scenario() -> None:
        diary, work = Diary(), Work()
        keys = [f"k{number}" for number in range(1000)]
        async with a_group(redis_url, work, diary, *keys) as group:
            await work.begun(1000)
            for key in keys[::2]:
                group[key].resign()
            await work.over(500)
            assert work.running == 500
        assert work.running == 0
        assert diary.errors == []

    run(scenario)


def test_an_elector_has_a_worker_as_well(redis_url: str) -> None:
    async def scenario() -> None:
        work = Work()
        async with Elector(redis_url, prefix=PREFIX, ttl=30.0, worker=work) as elector:
            term = await work.begun(1)
            assert term.epoch == elector.require_leader()
        assert [how for _, how in work.ended] == ["CancelledError"]

    run(scenario)


def test_what_has_no_place_beside_a_worker_is_refused() -> None:
    with pytest.raises(ConfigError, match="on_draining cannot be used with worker"):
        ElectionGroup("redis://localhost:1", prefix=PREFIX, worker=fail, on_draining=print)
    with pytest.raises(ConfigError, match="worker must be a function or None, not 'f'"):
        Elector("redis://localhost:1", prefix=PREFIX, worker="f")  # type: ignore[arg-type]
