"""Starting, stopping and cancelling in a loop: all is released, and nothing is left behind.

Rules of this file:
    * What was released is asked of Redis, by a client of its own.
    * `run` sees to it that no task and no thread is left of any scenario.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from tests.aio.running import eventually, run
from tests.diary import Diary

from multielect import ClosedError, ConfigError, DemotionReason
from multielect._settings.settings import Seconds
from multielect.aio import ElectionGroup

PREFIX = "aio-life"


def leases(client: redis.Redis) -> int:
    return len(client.keys("*:leader"))


def a_group(url: str, diary: Diary) -> ElectionGroup:
    group = ElectionGroup(
        url, prefix=PREFIX, ttl=60, on_elected=diary.elected, on_demoted=diary.demoted
    )
    group.add_many(["a", "b", "c"])
    return group


def assert_told_of_the_stop(diary: Diary) -> None:
    for key in ("a", "b", "c"):
        assert diary.told(key) == [None, DemotionReason.STOPPED]


def test_leaving_the_block_releases_all(redis_url: str, redis_client: redis.Redis) -> None:
    diary = Diary()

    async def scenario() -> None:
        async with a_group(redis_url, diary) as group:
            await eventually(lambda: len(diary.entries) == 3)
            assert leases(redis_client) == 3
        assert leases(redis_client) == 0
        assert_told_of_the_stop(diary)
        assert group.led == []
        await group.stop()
        with pytest.raises(ClosedError, match="stopped"):
            await group.start()
        with pytest.raises(ClosedError, match="stopped"):
            group.add("d")

    run(scenario)


def test_stopping_does_not_wait_for_other_work_in_the_executor(redis_url: str) -> None:
    diary = Diary()
    gate = threading.Event()

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(max_workers=1))
        group = a_group(redis_url, diary)
        await group.start()
        await eventually(lambda: len(diary.entries) == 3)
        busy = loop.run_in_executor(None, gate.wait, 30)
        try:
            await asyncio.wait_for(group.stop(), 10)
            assert not busy.done()
        finally:
            gate.set()
            await busy
        assert_told_of_the_stop(diary)

    run(scenario)


# A loop on a thread that goes on when the main one has ended.
OUTLIVING = """
import asyncio, sys, threading
from multielect.aio import ElectionGroup

async def main():
    async with ElectionGroup(
        sys.argv[1], prefix="aio-life", ttl=60,
        on_demoted=lambda term, reason: print("demoted", term.key, reason.name, flush=True),
    ) as group:
        started.set()
        assert await group.add("a").wait(10)
        while threading.main_thread().is_alive():
            await asyncio.sleep(0.005)

started = threading.Event()
threading.Thread(target=asyncio.run, args=[main()]).start()
assert started.wait(10)
"""


@pytest.mark.skipif(
    sys.version_info[:2] == (3, 12),
    reason="3.12.1 starts no thread once the main one has ended: stop() says so",
)
def test_a_loop_that_outlives_the_main_thread_is_told_all(
    redis_url: str, redis_client: redis.Redis
) -> None:
    process = subprocess.run(
        [sys.executable, "-c", OUTLIVING, redis_url],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (process.stdout, process.stderr) == ("demoted a STOPPED\n", "")
    assert process.returncode == 0
    assert leases(redis_client) == 0


def test_an_error_in_the_block_is_not_lost(redis_url: str, redis_client: redis.Redis) -> None:
    diary = Diary()

    async def scenario() -> None:
        async def work() -> None:
            async with a_group(redis_url, diary):
                await eventually(lambda: len(diary.entries) == 3)
                raise LookupError("planted")

        with pytest.raises(LookupError, match="planted"):
            await work()
        assert leases(redis_client) == 0
        assert_told_of_the_stop(diary)

    run(scenario)


def test_cancelling_the_block_releases_all(redis_url: str, redis_client: redis.Redis) -> None:
    diary = Diary()

    async def scenario() -> None:
        async def work() -> None:
            async with a_group(redis_url, diary):
                await asyncio.Event().wait()

        worker = asyncio.create_task(work())
        await eventually(lambda: len(diary.entries) == 3)
        worker.cancel()
        await asyncio.wait([worker])
        assert worker.cancelled()
        assert leases(redis_client) == 0
        assert_told_of_the_stop(diary)

    run(scenario)


def test_cancelling_the_stop_as_well_releases_all(
    redis_url: str, redis_client: redis.Redis
) -> None:
    diary = Diary()

    async def scenario() -> None:
        before = asyncio.all_tasks()
        stopping = asyncio.Event()
        told = asyncio.Event()

        async def on_demoted(term: object, reason: DemotionReason) -> None:
            stopping.set()
            await told.wait()
            diary.demoted(term, reason)  # type: ignore[arg-type]

        async def work() -> None:
            group = ElectionGroup(
                redis_url,
                prefix=PREFIX,
                ttl=60,
                on_elected=diary.elected,
                on_demoted=on_demoted,
            )
            group.add_many(["a", "b", "c"])
            async with group:
                await asyncio.Event().wait()

        worker = asyncio.create_task(work())
        await eventually(lambda: len(diary.entries) == 3)
        worker.cancel()
        await stopping.wait()
        worker.cancel()
        await asyncio.wait([worker])
        assert worker.cancelled()
        # The task did not wait, but what it had begun goes on to its end.
        assert len(diary.entries) == 3
        told.set()
        await eventually(lambda: len(diary.entries) == 6)
        assert_told_of_the_stop(diary)
        assert leases(redis_client) == 0
        await eventually(lambda: asyncio.all_tasks() == before)

    run(scenario)


class Hasty(ElectionGroup):
    """A group that gives callbacks little time when its block is left."""

    async def stop(self, timeout: Seconds = 0.2) -> None:
        await super().stop(timeout)


def test_cancelling_the_stop_leaves_no_callback_that_hangs(redis_url: str) -> None:
    ended: list[str] = []

    async def scenario() -> None:
        before = asyncio.all_tasks()
        begun, stopping = asyncio.Event(), asyncio.Event()

        async def on_elected(_: object) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("cancelled")

        async def work() -> None:
            group = Hasty(redis_url, prefix=PREFIX, ttl=60, on_elected=on_elected)
            group.add("a")
            async with group:
                await begun.wait()
                stopping.set()

        worker = asyncio.create_task(work())
        await stopping.wait()
        worker.cancel()
        await asyncio.wait([worker])
        assert worker.cancelled()
        assert ended == []
        await eventually(lambda: ended == ["cancelled"])
        await eventually(lambda: asyncio.all_tasks() == before)

    run(scenario)


def test_a_stop_that_is_cancelled_still_ends_all(redis_url: str, redis_client: redis.Redis) -> None:
    diary = Diary()

    async def scenario() -> None:
        group = a_group(redis_url, diary)
        await group.start()
        await eventually(lambda: len(diary.entries) == 3)
        reader = asyncio.create_task(_read(group))
        waiter = asyncio.create_task(group.add("d").wait())
        await asyncio.sleep(0)
        stop = asyncio.create_task(group.stop())
        await asyncio.sleep(0)
        stop.cancel()
        await asyncio.wait([stop])
        assert stop.cancelled()
        await asyncio.wait_for(reader, 10)
        await asyncio.wait([waiter], timeout=10)
        assert waiter.done()
        assert isinstance(waiter.exception(), ClosedError) or waiter.result()
        await eventually(lambda: len(diary.demotions()) >= 3)
        await eventually(lambda: leases(redis_client) == 0)

    run(scenario)


async def _read(group: ElectionGroup) -> None:
    async for _ in group.events():
        pass


def test_starting_twice_is_starting_once(redis_url: str) -> None:
    diary = Diary()

    async def scenario() -> None:
        group = a_group(redis_url, diary)
        await group.start()
        async with group:
            await eventually(lambda: len(diary.entries) == 3)
            with pytest.raises(ConfigError, match="timeout"):
                await group.stop(timeout=-1)
            assert len(group.led) == 3
        assert_told_of_the_stop(diary)

    run(scenario)


def test_waiting_for_and_stopping_what_never_started(redis_url: str) -> None:
    async def scenario() -> None:
        group = a_group(redis_url, Diary())
        for timeout in (None, 0):
            with pytest.raises(ClosedError, match=r"not started: call start\(\) before you wait"):
                await group["a"].wait(timeout)
        await group.stop()
        with pytest.raises(ClosedError, match="stopped"):
            await group["a"].wait()

    run(scenario)


FORGOTTEN = """
import asyncio, atexit, sys, time

exiting_since = 0.0

@atexit.register
def tell_how_long():        # the first to be registered is the last to be called
    if time.monotonic() - exiting_since > 1.5:
        print("it took long to exit")

from multielect.aio import ElectionGroup

async def main():
    global group
    told = asyncio.Event()

    def elected(term):
        print("elected", term.key, flush=True)
        told.set()

    group = ElectionGroup(sys.argv[1], prefix="aio-life", ttl=60, on_elected=elected)
    group.add("a")
    await group.start()
    await asyncio.wait_for(told.wait(), 10)
    if sys.argv[2] == "stop":
        await group.stop()

asyncio.run(main(), debug=True)
exiting_since = time.monotonic()
"""


@pytest.mark.parametrize("ending", ["stop", "forget"])
def test_a_program_ends_clean(redis_url: str, redis_client: redis.Redis, ending: str) -> None:
    """In Python's development mode, with warnings as errors: not a word on standard error."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", FORGOTTEN, redis_url, ending],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("elected a\n", "", 0)
    assert leases(redis_client) == 0
