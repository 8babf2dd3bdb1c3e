"""Who leads what is read as the server has it, and a lease's end is never put too late."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from multielect._protocol.keys import group_layout
from multielect._runtime.clock import Clock
from multielect.cli.demo.leases import LeaseReader

if TYPE_CHECKING:
    import redis

KEYS = [f"k{number}" for number in range(1_100)]
TTL_MS = 60_000
MS = 1_000_000


@pytest.fixture
def reader(redis_client: redis.Redis) -> LeaseReader:
    return LeaseReader(redis_client, "flights", KEYS)


def lease(client: redis.Redis, number: int, node: str) -> None:
    key = group_layout("flights").leader_key(KEYS[number].encode())
    client.set(key, f"{node}/0123abcd", px=TTL_MS)


def test_leaders_are_read_in_the_order_of_the_elections(
    reader: LeaseReader, redis_client: redis.Redis
) -> None:
    lease(redis_client, 1, "x")
    lease(redis_client, 1_050, "y")

    leaders = reader.leaders()

    assert len(leaders) == len(KEYS)
    assert {place: node for place, node in enumerate(leaders) if node} == {1: "x", 1_050: "y"}


def test_the_leases_of_one_node_are_found_with_their_ends(
    reader: LeaseReader, redis_client: redis.Redis
) -> None:
    now_ns = Clock().now_ns
    lease(redis_client, 0, "x")
    before_ns = now_ns()
    lease(redis_client, 1_050, "x")
    after_ns = now_ns()
    lease(redis_client, 7, "y")

    reading_ns = now_ns()
    held = reader.held_by("x")
    took_ns = now_ns() - reading_ns

    assert sorted(held) == [0, 1_050]
    # The server counts whole milliseconds, so what is left may look up to one shorter.
    ends_ns = held[1_050].ends_ns
    # Too early is allowed, by as long as the question may have been on its way.
    assert before_ns - 2 * MS - took_ns <= ends_ns - TTL_MS * MS <= after_ns + MS
