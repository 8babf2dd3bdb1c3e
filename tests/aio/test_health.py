"""How a group is, and waiting for it, in a loop that stays free meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from tests.aio.running import eventually, run
from tests.diary import WITHIN_S

from multielect import ClosedError, ConfigError, ConnectionLostError, ServerUnusableError
from multielect.aio import ElectionGroup, Elector
from multielect.embedded import EmbeddedServer

PREFIX = "aio-health"


@contextmanager
def nobody() -> Iterator[str]:
    """An address where nobody listens, nor will."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"redis://127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize("kind", [ElectionGroup, Elector])
def test_health_from_the_making_to_the_stop(kind: Any, redis_url: str) -> None:
    async def scenario() -> None:
        node = kind(redis_url, prefix=PREFIX)
        assert (node.health.state, node.is_running) == ("new", False)
        with pytest.raises(ClosedError, match="not started"):
            await node.wait_connected(0.0)
        async with node:
            assert await node.wait_connected(WITHIN_S)
            assert (node.health.state, node.is_running) == ("connected", True)
            assert node.health.version
        assert (node.health.state, node.is_running) == ("stopped", False)

    run(scenario)


@pytest.mark.parametrize("kind", [ElectionGroup, Elector])
def test_a_start_that_waits(kind: Any, redis_url: str) -> None:
    async def scenario() -> None:
        node = kind(redis_url, prefix=PREFIX)
        await node.start(wait=WITHIN_S)
        async with node:
            assert node.health.state == "connected"

    run(scenario)


@pytest.mark.parametrize("kind", [ElectionGroup, Elector])
def test_a_start_that_waits_in_vain_raises_the_cause_and_stops(kind: Any) -> None:
    async def scenario() -> None:
        with nobody() as url:
            node = kind(url, prefix=PREFIX)
            with pytest.raises(ConnectionLostError, match="no server listens there"):
                await node.start(wait=0.3)
        assert (node.health.state, node.is_running) == ("stopped", False)

    run(scenario)


def test_a_start_does_not_wait_for_what_does_not_pass(private_server: EmbeddedServer) -> None:
    async def scenario() -> None:
        group = ElectionGroup(private_server.url, prefix=PREFIX)
        with pytest.raises(ServerUnusableError, match="requires a password"):
            await group.start(wait=600)
        assert not group.is_running

    with redis.Redis.from_url(private_server.url) as client:
        client.config_set("requirepass", "secret")
    run(scenario)


def test_a_start_that_is_cancelled_stops_the_group() -> None:
    async def scenario() -> None:
        with nobody() as url:
            group = ElectionGroup(url, prefix=PREFIX)
            starting = asyncio.ensure_future(group.start(wait=600))
            await eventually(lambda: group.health.failed_attempts > 0)
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await starting
            assert starting.cancelled()
            assert group.health.state == "stopped"

    run(scenario)


def test_the_loop_is_free_while_it_is_waited_for() -> None:
    async def scenario() -> None:
        with nobody() as url:
            async with ElectionGroup(url, prefix=PREFIX) as group:
                waiting = asyncio.ensure_future(group.wait_connected(600))
                await eventually(lambda: group.health.failed_attempts > 1)
                assert not waiting.done()
            with pytest.raises(ClosedError):
                await waiting

    run(scenario)


def test_balanced(redis_url: str) -> None:
    async def scenario() -> None:
        keys = [f"k{number}" for number in range(20)]
        first = ElectionGroup(redis_url, prefix=PREFIX, ttl=1.0, balance=True)
        second = ElectionGroup(redis_url, prefix=PREFIX, ttl=1.0, balance=True)
        first.add_many(keys)
        second.add_many(keys)
        async with first:
            assert await first.wait_balanced(WITHIN_S)
            assert first.health.leading == 20
            async with second:
                assert await second.wait_balanced(WITHIN_S)
                assert second.health.leading == 10
        alone = ElectionGroup(redis_url, prefix=PREFIX)
        with pytest.raises(ConfigError, match="balance=True"):
            await alone.wait_balanced(0.0)

    run(scenario)
