"""The fence in Redis Cluster: one real server that has all slots."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import redis
import redis.asyncio
from tests.ports import free_cluster_port

from multielect import ConfigError, StaleEpochError
from multielect.embedded import EmbeddedServer
from multielect.fencing import AsyncFence, Fence, FencedScript, Write, Writer

from .elections import PREFIX, elect

PUSH = FencedScript("return redis.call('RPUSH', KEYS[1], ARGV[1])")


@pytest.fixture(scope="module")
def port(binary: str) -> Iterator[int]:
    port = free_cluster_port()
    settings: dict[str, str | int] = {
        "port": port,
        "bind": "127.0.0.1",
        "cluster-enabled": "yes",
    }
    with EmbeddedServer(binary=binary, settings=settings) as server:
        with redis.Redis.from_url(server.url) as client:
            client.cluster("ADDSLOTS", *range(16384))
            wait_until_served(client)
        yield port


def wait_until_served(client: redis.Redis) -> None:
    """Ask until the server has settled, which takes it two seconds after its slots are there."""
    for _ in range(200_000):
        if client.cluster("INFO")["cluster_state"] == "ok":
            return
    pytest.fail("the cluster does not come up")


def test_many_writes_go_out_by_bucket(port: int) -> None:
    with redis.RedisCluster(host="127.0.0.1", port=port) as client:
        client.flushall()
        fence = Fence(client, PREFIX)
        keys = [f"p{i}" for i in range(40)]
        old = {key: elect(client, key) for key in keys}
        new = {key: elect(client, key) for key in keys[::2]}
        outcomes = fence.write_many(
            Write.run(Writer(key=key, epoch=old[key]), PUSH, [fence.data_key(key, "log")], ["old"])
            for key in keys
        )
        assert [outcome.is_stale for outcome in outcomes] == [key in new for key in keys]
        assert all(outcome.is_written or outcome.is_stale for outcome in outcomes)
        for key in keys:
            log = client.lrange(fence.data_key(key, "log").decode(), 0, -1)
            assert log == ([] if key in new else [b"old"])


def test_a_key_in_another_slot_is_refused_before_anything_is_sent(port: int) -> None:
    with redis.RedisCluster(host="127.0.0.1", port=port) as client:
        client.flushall()
        fence = Fence(client, PREFIX)
        writer = Writer(key="p", epoch=elect(client))
        with pytest.raises(ConfigError, match="hash tag"):
            fence.set(writer, "register", 1)
        assert fence.set(writer, f"audit:{fence.tag('p')}", 1)


def test_the_fence_for_asyncio_does_the_same(port: int) -> None:
    async def run(old: Writer) -> None:
        async with redis.asyncio.RedisCluster(host="127.0.0.1", port=port) as client:
            fence = AsyncFence(client, PREFIX)
            with pytest.raises(StaleEpochError):
                await fence.set(old, fence.data_key("p", "register"), "late")

    with redis.RedisCluster(host="127.0.0.1", port=port) as client:
        client.flushall()
        old = Writer(key="p", epoch=elect(client))
        fence = Fence(client, PREFIX)
        assert fence.set(old, fence.data_key("p", "register"), "old")
        elect(client)
    asyncio.run(asyncio.wait_for(run(old), 60))
