"""How a consumer is, and waiting for its connection, of either kind."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import redis
from tests.aio.running import eventually, run
from tests.diary import WITHIN_S, until

from multielect import ClosedError, ConfigError, ConnectionLostError, ServerUnusableError
from multielect.embedded import EmbeddedServer
from multielect.streams import AsyncStreamConsumer, StreamConsumer

from .rig import PREFIX, append, done


@contextmanager
def nobody() -> Iterator[str]:
    """An address where nobody listens, nor will."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"redis://127.0.0.1:{taken.getsockname()[1]}"


def consumer_of(url: str, handler: Any = print) -> StreamConsumer:
    return StreamConsumer(url, prefix=PREFIX, partitions=["s0"], handler=handler, ttl=1.0)


def async_consumer_of(url: str, handler: Any = print) -> AsyncStreamConsumer:
    return AsyncStreamConsumer(url, prefix=PREFIX, partitions=["s0"], handler=handler, ttl=1.0)


def threads_of(consumer: StreamConsumer) -> list[threading.Thread]:
    name = f"multielect-{consumer.group.node_id}"
    return [each for each in threading.enumerate() if each.name.startswith(name)]


class TestThreads:
    def test_health_from_the_making_to_the_stop(self, redis_url: str) -> None:
        consumer = consumer_of(redis_url)
        assert (consumer.health.state, consumer.is_running) == ("new", False)
        with pytest.raises(ClosedError, match="not started"):
            consumer.wait_connected(0.0)
        with consumer:
            assert consumer.wait_connected(WITHIN_S)
            assert (consumer.health.state, consumer.is_running) == ("connected", True)
            assert consumer.health == consumer.group.health
        assert (consumer.health.state, consumer.is_running) == ("stopped", False)

    def test_a_start_that_waits_and_then_a_run(
        self, redis_url: str, redis_client: redis.Redis
    ) -> None:
        append(redis_client, 1, keys=["s0"])

        def handle(batch: Any) -> None:
            batch.xadd("out:s0", {"n": 0})
            consumer.stop()

        consumer = consumer_of(redis_url, handle)
        consumer.start(wait=timedelta(seconds=WITHIN_S))
        assert consumer.health.state == "connected"
        consumer.run()
        assert done(redis_client, 1, ["s0"])
        with pytest.raises(ClosedError):
            consumer.start(wait=WITHIN_S)

    def test_a_start_that_waits_in_vain_raises_the_cause_and_stops(self) -> None:
        with nobody() as url:
            consumer = consumer_of(url)
            with pytest.raises(ConnectionLostError, match="no server listens there"):
                consumer.start(wait=0.3)
        assert (consumer.health.state, consumer.is_running) == ("stopped", False)
        until(lambda: not threads_of(consumer))
        with pytest.raises(ClosedError):
            consumer.start()

    def test_a_wait_in_vain_stops_nothing(self) -> None:
        with nobody() as url, consumer_of(url) as consumer:
            assert not consumer.wait_connected(0.1)
            assert consumer.is_running

    def test_a_start_does_not_wait_for_what_does_not_pass(
        self, private_server: EmbeddedServer
    ) -> None:
        with redis.Redis.from_url(private_server.url) as client:
            client.config_set("requirepass", "secret")
        consumer = consumer_of(private_server.url)
        with pytest.raises(ServerUnusableError, match="requires a password"):
            consumer.start(wait=600)
        assert not consumer.is_running

    @pytest.mark.parametrize("wait", [-1, float("nan"), "soon", True])
    def test_a_bad_wait_starts_nothing(self, wait: Any, redis_url: str) -> None:
        consumer = consumer_of(redis_url)
        with pytest.raises(ConfigError):
            consumer.start(wait=wait)
        assert consumer.health.state == "new"
        assert not threads_of(consumer)

    def test_a_stop_ends_a_wait(self) -> None:
        with nobody() as url:
            consumer = consumer_of(url)
            caught: list[BaseException] = []

            def start() -> None:
                try:
                    consumer.start(wait=WITHIN_S)
                except ClosedError as error:
                    caught.append(error)

            starting = threading.Thread(target=start)
            starting.start()
            until(lambda: consumer.health.failed_attempts > 0)
            consumer.stop()
            starting.join(WITHIN_S)
        assert [type(error) for error in caught] == [ClosedError]


class TestAsyncio:
    def test_health_from_the_making_to_the_stop(self, redis_url: str) -> None:
        async def scenario() -> None:
            consumer = async_consumer_of(redis_url)
            assert (consumer.health.state, consumer.is_running) == ("new", False)
            with pytest.raises(ClosedError, match="not started"):
                await consumer.wait_connected(0.0)
            async with consumer:
                assert await consumer.wait_connected(WITHIN_S)
                assert (consumer.health.state, consumer.is_running) == ("connected", True)
                assert consumer.health == consumer.group.health
            assert (consumer.health.state, consumer.is_running) == ("stopped", False)

        run(scenario)

    def test_a_start_that_waits_and_then_a_run(
        self, redis_url: str, redis_client: redis.Redis
    ) -> None:
        append(redis_client, 1, keys=["s0"])

        async def scenario() -> None:
            async def handle(batch: Any) -> None:
                batch.xadd("out:s0", {"n": 0})
                await consumer.stop()

            consumer = async_consumer_of(redis_url, handle)
            await consumer.start(wait=WITHIN_S)
            assert consumer.health.state == "connected"
            await consumer.run()
            with pytest.raises(ClosedError):
                await consumer.start(wait=WITHIN_S)

        run(scenario)
        assert done(redis_client, 1, ["s0"])

    def test_a_start_that_waits_in_vain_raises_the_cause_and_stops(self) -> None:
        async def scenario() -> None:
            with nobody() as url:
                consumer = async_consumer_of(url)
                with pytest.raises(ConnectionLostError, match="no server listens there"):
                    await consumer.start(wait=0.3)
            assert (consumer.health.state, consumer.is_running) == ("stopped", False)

        run(scenario)

    def test_a_start_does_not_wait_for_what_does_not_pass(
        self, private_server: EmbeddedServer
    ) -> None:
        async def scenario() -> None:
            consumer = async_consumer_of(private_server.url)
            with pytest.raises(ServerUnusableError, match="requires a password"):
                await consumer.start(wait=600)
            assert not consumer.is_running

        with redis.Redis.from_url(private_server.url) as client:
            client.config_set("requirepass", "secret")
        run(scenario)

    def test_a_bad_wait_starts_nothing(self, redis_url: str) -> None:
        async def scenario() -> None:
            consumer = async_consumer_of(redis_url)
            with pytest.raises(ConfigError):
                await consumer.start(wait=-1)
            assert consumer.health.state == "new"

        run(scenario)

    def test_a_start_that_is_cancelled_stops_the_consumer(self) -> None:
        async def scenario() -> None:
            with nobody() as url:
                consumer = async_consumer_of(url)
                starting = asyncio.ensure_future(consumer.start(wait=600))
                await eventually(lambda: consumer.health.failed_attempts > 0)
                starting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await starting
                assert starting.cancelled()
                assert consumer.health.state == "stopped"

        run(scenario)
