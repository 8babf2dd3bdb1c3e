"""The fence for asyncio keeps the same promises."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import redis
import redis.asyncio

from multielect import ConfigError, StaleEpochError
from multielect.aio import ElectionGroup
from multielect.fencing import AsyncFence, FencedScript, Write, Writer

from .elections import PREFIX, counter, elect, lose_counter

ECHO = FencedScript("return ARGV[1]")


def with_client(url: str, work: Callable[[redis.asyncio.Redis], Awaitable[None]]) -> None:
    async def run() -> None:
        async with redis.asyncio.Redis.from_url(url) as client:
            await work(client)

    asyncio.run(asyncio.wait_for(run(), 60))


@pytest.mark.parametrize("knows_flags", [None, False])
def test_the_older_epoch_is_refused_once_a_newer_was_elected(
    redis_client: redis.Redis, redis_url: str, knows_flags: bool | None
) -> None:
    async def work(client: redis.asyncio.Redis) -> None:
        fence = AsyncFence(client, PREFIX)
        fence._knows_flags = knows_flags
        old = Writer(key="p", epoch=elect(redis_client))
        assert await fence.set(old, "register", "old", ttl=60) is True
        new = Writer(key="p", epoch=elect(redis_client))
        writes: list[Awaitable[Any]] = [
            fence.set(old, "register", "late"),
            fence.hset(old, "hash", {"a": 1}),
            fence.xadd(old, "stream", {"a": 1}),
            fence.run(old, ECHO, [], ["late"]),
        ]
        for write in writes:
            with pytest.raises(StaleEpochError):
                await write
        assert redis_client.get("register") == b"old"
        assert await fence.hset(new, "hash", {"a": 1}) is True
        assert await fence.xadd(new, "stream", {"a": 1}, id="5-1", maxlen=10) == b"5-1"
        assert await fence.run(new, ECHO, [], ["in time"]) == b"in time"
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            await fence.hset(new, "stream", {"a": 1})
        lose_counter(redis_client)
        with pytest.raises(StaleEpochError):
            await fence.set(old, "register", "late")
        assert counter(redis_client) == b"%d" % new.epoch
        lax = AsyncFence(client, PREFIX, raise_stale=False)
        assert await lax.set(old, "register", "late") is False

    with_client(redis_url, work)


def test_many_writes_have_an_outcome_each(redis_client: redis.Redis, redis_url: str) -> None:
    async def work(client: redis.asyncio.Redis) -> None:
        fence = AsyncFence(client, PREFIX)
        old, new = elect(redis_client), elect(redis_client)
        outcomes = await fence.write_many(
            Write.set(Writer(key="p", epoch=new if i % 2 else old), f"k{i}", i) for i in range(600)
        )
        assert [outcome.is_written for outcome in outcomes] == [False, True] * 300
        assert redis_client.exists(*[f"k{i}" for i in range(600)]) == 300
        await client.script_flush()
        assert (await fence.write_many([Write.set(Writer(key="p", epoch=new), "k", 1)]))[
            0
        ].is_written

    with_client(redis_url, work)


def test_another_number_of_buckets_is_refused(redis_client: redis.Redis, redis_url: str) -> None:
    async def work(client: redis.asyncio.Redis) -> None:
        redis_client.set(f"{PREFIX}:buckets", 16)
        with pytest.raises(ConfigError, match="16 buckets"):
            await AsyncFence(client, PREFIX).set(Writer(key="p", epoch=1), "register", 1)

    with_client(redis_url, work)


def test_after_a_lost_connection_nothing_more_is_sent(
    redis_client: redis.Redis, redis_url: str
) -> None:
    class Failing(redis.asyncio.Redis):
        scripts = 0

        async def evalsha(self, *arguments: Any) -> Any:
            self.scripts += 1
            if self.scripts == 2:
                raise redis.ConnectionError("as planned")
            return await super().evalsha(*arguments)

    async def run() -> None:
        writer = Writer(key="p", epoch=elect(redis_client))
        async with Failing.from_url(redis_url) as client:
            assert isinstance(client, Failing)
            outcomes = await AsyncFence(client, PREFIX).write_many(
                Write.set(writer, f"k{i}", i) for i in range(750)
            )
            assert client.scripts == 2
        assert [outcome.is_written for outcome in outcomes] == [True] * 250 + [False] * 500
        assert str(outcomes[-1].error).startswith("not sent")

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_server_that_forbids_scripts_says_so(redis_client: redis.Redis, redis_url: str) -> None:
    class Forbidden(redis.asyncio.Redis):
        answer = "NOPERM this user has no permissions to run the 'eval' command"

        async def eval(self, script: str, *arguments: Any) -> Any:
            if script.startswith("#!lua"):
                raise redis.ResponseError(self.answer)
            return await super().eval(script, *arguments)

    async def run() -> None:
        writer = Writer(key="p", epoch=elect(redis_client))
        async with Forbidden.from_url(redis_url) as client:
            assert isinstance(client, Forbidden)
            with pytest.raises(redis.ResponseError, match="NOPERM"):
                await AsyncFence(client, PREFIX).set(writer, "register", 1)
            client.answer = "Error compiling script (new function): unexpected symbol near '#'"
            assert await AsyncFence(client, PREFIX).set(writer, "register", 1)

    asyncio.run(asyncio.wait_for(run(), 60))


def test_the_terms_of_a_group_for_asyncio_write_too(
    redis_client: redis.Redis, redis_url: str
) -> None:
    async def work(client: redis.asyncio.Redis) -> None:
        async with ElectionGroup(redis_url, prefix=PREFIX, ttl=2.0) as group:
            fence = AsyncFence(client, group)
            election = group.add("p")
            assert await election.wait(timeout=10)
            assert await fence.set(election, fence.data_key("p", "offset"), 7)
            redis_client.incr(f"{PREFIX}:{fence.tag('p')}:p:epoch")
            with pytest.raises(StaleEpochError):
                await fence.set(election, fence.data_key("p", "offset"), 8)

    with_client(redis_url, work)
