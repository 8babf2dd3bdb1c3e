"""A fence on a real cluster takes the writes of a group's terms there, and refuses older ones."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import redis
import redis.asyncio
from tests.clusters import HOST, Cluster
from tests.diary import until

from multielect import DemotionReason, ElectionGroup, StaleEpochError, Term
from multielect.fencing import AsyncFence, Fence, Write, Writer

PREFIX = "fenced"
KEYS = [f"partition-{number}" for number in range(60)]


@pytest.fixture
def client(cluster: Cluster) -> Iterator[redis.RedisCluster]:
    with redis.RedisCluster(host=HOST, port=cluster.nodes[0].port) as made:
        made.flushall()
        yield made


class Leader:
    """A group that leads all of `KEYS`, and what it was told."""

    def __init__(self, client: redis.RedisCluster) -> None:
        self.terms: dict[str, Term] = {}
        self.ended: list[tuple[str, DemotionReason]] = []
        self.group = ElectionGroup(
            client,
            prefix=PREFIX,
            ttl=5.0,
            on_elected=lambda term: self.terms.update({str(term.key): term}),
            on_demoted=lambda term, reason: self.ended.append((str(term.key), reason)),
        )
        self.group.add_many(KEYS)


@pytest.fixture
def leader(client: redis.RedisCluster) -> Iterator[Leader]:
    made = Leader(client)
    with made.group:
        until(lambda: len(made.terms) == len(KEYS))
        yield made


def test_the_writes_of_all_terms_are_taken_on_every_primary(
    cluster: Cluster, client: redis.RedisCluster, leader: Leader
) -> None:
    fence = Fence(client, leader.group)

    outcomes = fence.write_many(
        Write.set(term, fence.data_key(key, "offset"), key) for key, term in leader.terms.items()
    )

    assert all(outcome.is_written for outcome in outcomes)
    assert all(client.get(fence.data_key(key, "offset")) == key.encode() for key in KEYS)
    assert all(
        any(key.endswith(":offset") for key in primary.call("KEYS", "*"))
        for primary in cluster.primaries
    )


def test_an_older_epoch_is_refused_and_its_leader_stands_again_above_the_newer(
    client: redis.RedisCluster, leader: Leader
) -> None:
    key, term = KEYS[7], leader.terms[KEYS[7]]
    fence = Fence(client, leader.group)
    newer = term.epoch + 1_000_000
    fence.set(Writer(key=key, epoch=newer), fence.data_key(key, "offset"), 2)

    with pytest.raises(StaleEpochError):
        fence.set(term, fence.data_key(key, "offset"), 1)

    until(lambda: leader.terms[key].epoch > newer)
    assert leader.ended == [(key, DemotionReason.SUPERSEDED)]
    fence.set(leader.terms[key], fence.data_key(key, "offset"), 3)
    assert client.get(fence.data_key(key, "offset")) == b"3"


def test_a_fence_of_asyncio_does_so_too(cluster: Cluster, leader: Leader) -> None:
    async def write() -> None:
        async with redis.asyncio.RedisCluster(host=HOST, port=cluster.nodes[1].port) as client:
            fence = AsyncFence(client, leader.group)
            outcomes = await fence.write_many(
                Write.set(term, fence.data_key(key, "offset"), key)
                for key, term in leader.terms.items()
            )
            assert all(outcome.is_written for outcome in outcomes)
            key, term = KEYS[3], leader.terms[KEYS[3]]
            old = Writer(key=key, epoch=term.epoch - 1)
            with pytest.raises(StaleEpochError):
                await fence.set(old, fence.data_key(key, "offset"), "old")

    asyncio.run(write())
