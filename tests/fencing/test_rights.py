"""Fences whose client may not do all that a write needs: the server's words, and what to grant."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.exceptions import NoPermissionError
from tests.rights import Clerk

from multielect.fencing import AsyncFence, Fence, FencedScript, Write, Writer

from .elections import LAYOUT, PREFIX, elect

RIGHTS = ("eval", "evalsha", "get", "hset", "set", "xadd")
KEYS = (f"{PREFIX}:*", "data:*")
CALLS_INCR = FencedScript("return redis.call('INCR', KEYS[1])")


@pytest.fixture
def client(clerk: Clerk) -> Iterator[redis.Redis]:
    clerk.may(RIGHTS, KEYS)
    with redis.Redis.from_url(clerk.url) as made:
        yield made


def made_by(client: redis.Redis, write: Write) -> Exception | None:
    return Fence(client, PREFIX).write_many([write])[0].error


def made_in_a_loop(url: str, write: Write) -> Exception | None:
    async def make() -> Exception | None:
        async with redis.asyncio.Redis.from_url(url) as client:
            return (await AsyncFence(client, PREFIX).write_many([write]))[0].error

    return asyncio.run(make())


def written(command: str, epoch: int, name: str = "data:p") -> Write:
    writer = Writer(key="p", epoch=epoch)
    if command == "hset":
        return Write.hset(writer, name, {"a": 1})
    return Write.xadd(writer, name, {"a": 1}) if command == "xadd" else Write.set(writer, name, 1)


@pytest.mark.parametrize("right", ["evalsha", "get", "set", "hset", "xadd"])
def test_a_refused_write_names_the_command_and_is_made_once_that_is_granted(
    client: redis.Redis, clerk: Clerk, redis_client: redis.Redis, right: str
) -> None:
    epoch = elect(redis_client)
    write = written(right, epoch)
    # As a group leaves it: a fence asks for it until it is there.
    redis_client.set(LAYOUT.buckets_key, len(LAYOUT.key_prefixes))
    fence = Fence(client, PREFIX)
    fence.set(Writer(key="p", epoch=epoch), "data:first", 1)
    clerk.take_away(right)
    outcomes = [fence.write_many([write])[0].error]
    if right != "get":  # a new fence asks for the number of buckets first, by GET
        outcomes += [made_by(client, write), made_in_a_loop(clerk.url, write)]
    for error in outcomes:
        assert isinstance(error, NoPermissionError)
        assert f"the '{right}' command" in str(error)
    assert redis_client.keys("data:*") == [b"data:first"], "nothing was done"
    clerk.grant(right)
    assert fence.write_many([write])[0].error is None


def test_a_fence_that_may_not_be_raised_names_the_command(
    client: redis.Redis, clerk: Clerk, redis_client: redis.Redis
) -> None:
    write = written("hset", elect(redis_client))
    clerk.take_away("set")
    error = made_by(client, write)
    assert isinstance(error, NoPermissionError)
    assert "the 'set' command" in str(error)
    assert not redis_client.exists("data:p")


def test_what_a_body_of_the_users_may_not_call_is_no_error_of_the_body(
    client: redis.Redis, redis_client: redis.Redis
) -> None:
    write = Write.run(Writer(key="p", epoch=elect(redis_client)), CALLS_INCR, ["data:p"])
    error = made_by(client, write)
    assert isinstance(error, NoPermissionError)


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_a_key_that_may_not_be_used_fails_alone(
    client: redis.Redis, clerk: Clerk, redis_client: redis.Redis, kind: str
) -> None:
    names = [f"data:{n}" for n in range(40)]
    names[7] = "secret:7"
    names[31] = "secret:31"
    epoch = elect(redis_client)
    writes = [written("set", epoch, name) for name in names]

    async def in_a_loop() -> Any:
        async with redis.asyncio.Redis.from_url(clerk.url) as other:
            return await AsyncFence(other, PREFIX).write_many(writes)

    in_threads = kind == "threads"
    outcomes = Fence(client, PREFIX).write_many(writes) if in_threads else asyncio.run(in_a_loop())
    failed = [name for name, outcome in zip(names, outcomes, strict=True) if outcome.error]
    assert failed == ["secret:7", "secret:31"]
    assert all(isinstance(outcomes[n].error, NoPermissionError) for n in (7, 31))
    assert len(redis_client.keys("data:*")) == 38
