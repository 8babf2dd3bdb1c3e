"""A fleet in trouble, and what its changes cost, on real servers.

Rules of this file:
    * Moves are counted by what all nodes told, so that one there and back would count twice.
    * What is wrong with the server's data is put there by a client, as anybody might.
"""

from __future__ import annotations

import itertools
import math
import os
import random
import signal
import time
from collections.abc import Iterable
from typing import Any

import pytest
import redis
from tests.diary import until

from multielect import DemotionReason, ElectionGroup, MultielectError
from multielect._fleet.plan import fleet_mark, read_plan
from multielect._protocol.keys import group_layout
from multielect.balance import KeySet, Member
from multielect.embedded import EmbeddedServer

from .conftest import Stand
from .lease import PREFIX
from .record import Record

LAYOUT = group_layout(PREFIX)
TTL_S = 1.0

Owners = dict[str, str]


def keys_named(count: int) -> list[str]:
    return [f"k{number}" for number in range(count)]


def owners(groups: Iterable[ElectionGroup]) -> Owners:
    return {election.key: group.node_id for group in groups for election in group.led}


def plan_number(client: redis.Redis) -> int:
    text = client.get(LAYOUT.plan_key)
    assert text is None or isinstance(text, bytes)
    return 0 if text is None else int(text.partition(b" ")[0])


def entries(client: redis.Redis) -> dict[bytes, bytes]:
    """Return what the server holds of each member."""
    found: Any = client.hgetall(LAYOUT.members_key)
    assert isinstance(found, dict)
    return found


def began_ms(client: redis.Redis) -> dict[bytes, bytes]:
    """Return since when each member is one, as the server holds it."""
    return {holder: text.split(b" ")[1] for holder, text in entries(client).items()}


def is_at_rest(client: redis.Redis, groups: list[ElectionGroup]) -> bool:
    """Tell whether the plan is for this fleet, as all see it, and all is led by whom it says."""
    if client.type(LAYOUT.plan_key) != b"string":
        return False
    text = client.get(LAYOUT.plan_key)
    if not isinstance(text, bytes):
        return False
    number, _, rest = text.partition(b" ")
    plan = read_plan(int(number), rest)
    for group in groups:
        if len(group.members) != len(groups) or plan.fleet != fleet_mark(group.members):
            return False
    names = KeySet(groups[0])
    holders = {group.node_id: group.holder for group in groups}
    led = {key: holders[node] for key, node in owners(groups).items()}
    return led == {k: plan.held.get(h) for k, h in zip(names.names, names.hashes, strict=True)}


def is_even(groups: list[ElectionGroup], count: int) -> bool:
    loads = [len(group.led) for group in groups]
    return sum(loads) == count and max(loads) - min(loads) <= 1


def max_gap_s(records: Iterable[Record]) -> float:
    """Return for how long an election had no leader, at worst; check that none had two."""
    terms: dict[str, list[tuple[int, int, int]]] = {}
    for record in records:
        begun = {(e.key, e.epoch): e.at_ns for e in record.elections()}
        for end in record.demotions():
            terms.setdefault(end.key, []).append((end.epoch, begun[end.key, end.epoch], end.at_ns))
    longest_ns = 0
    for key, found in terms.items():
        found.sort()
        for (epoch, _, ended_ns), (next_epoch, began_ns, _) in itertools.pairwise(found):
            assert epoch < next_epoch, key
            assert ended_ns <= began_ns, f"{key} had two leaders at once"
            longest_ns = max(longest_ns, began_ns - ended_ns)
    return longest_ns / 1e9


@pytest.mark.parametrize("count", [41, 150])
def test_a_join_and_a_leave_move_one_share(
    redis_url: str, redis_client: redis.Redis, stand: Stand, count: int
) -> None:
    groups: list[ElectionGroup] = []
    records: list[Record] = []
    chance = random.Random(count)
    moves = [0]

    def settle(changes: int) -> None:
        """Wait until all is led in even shares, and the next change can go by it."""
        until(lambda: is_at_rest(redis_client, groups))
        assert is_even(groups, count)
        assert plan_number(redis_client) == changes

    def moved() -> int:
        told = sum(len(record.demotions()) for record in records)
        moves.append(told)
        return told - moves[-2]

    def join() -> None:
        group, record = stand(redis_url, *keys_named(count), balance=True, ttl=10.0)
        groups.append(group)
        records.append(record)

    join()
    settle(1)
    for size in range(2, 7):
        before = owners(groups)
        join()
        settle(size)
        after = owners(groups)
        other = sum(before[key] != after[key] for key in before)
        until(lambda other=other: sum(len(r.demotions()) for r in records) - moves[-1] >= other)  # type: ignore[misc]
        assert moved() == other <= math.ceil(count / size)
    for size in range(6, 2, -1):
        before = owners(groups)
        leaver = groups.pop(chance.randrange(size))
        led = len(leaver.led)
        leaver.stop()
        settle(13 - size)
        after = owners(groups)
        ended = [
            [(entry.key, entry.at_ns, entry.reason) for entry in record.demotions()]
            for record in records
        ]
        assert moved() == sum(before[key] != after[key] for key in before) == led, ended
        assert led <= math.ceil(count / size)
    assert max_gap_s(records) < 5


def test_members_that_see_different_fleets_share_nothing(
    redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    keys = keys_named(48)
    pairs = [stand(redis_url, *keys, balance=True, ttl=TTL_S) for _ in range(4)]
    groups, records = [group for group, _ in pairs], [record for _, record in pairs]
    until(lambda: is_even(groups, 48))
    chance = random.Random(1)
    moved_before = sum(len(record.demotions()) for record in records)
    ends = time.monotonic() + 5 * TTL_S
    while time.monotonic() < ends:
        # Whoever calls before this member does misses it; nobody is told.
        holders = list(began_ms(redis_client))
        if holders:
            redis_client.hdel(LAYOUT.members_key, chance.choice(holders))
        if chance.random() < 0.5:
            redis_client.publish(LAYOUT.channel, b"1:/")
        time.sleep(0.01)
    until(lambda: len(began_ms(redis_client)) == 4)
    until(lambda: is_even(groups, 48))
    assert sum(len(record.demotions()) for record in records) > moved_before, "all saw the same"
    for group in groups:
        group.stop()
    # Two TTLs, and time for a busy machine.
    assert max_gap_s(records) < 2 * TTL_S + 5
    for record in records:
        record.terms()
        # A node that is no member for long leads what the others are to lead, and is reported.
        assert all("are no members of its fleet" in str(error) for error in record.errors)


def test_a_server_that_comes_back_empty_finds_the_fleet_as_it_was(
    private_server: EmbeddedServer, stand: Stand
) -> None:
    keys = keys_named(60)
    pairs = [stand(private_server.url, *keys, balance=True, ttl=TTL_S) for _ in range(3)]
    groups = [group for group, _ in pairs]
    with redis.Redis.from_url(private_server.url) as client:
        until(lambda: is_at_rest(client, groups))
        before, number, since = owners(groups), plan_number(client), began_ms(client)
    os.kill(private_server.pid, signal.SIGKILL)
    for _, told in pairs:
        until(lambda told=told: len(told.demotions()) >= 20)  # type: ignore[misc]
    private_server.stop()
    private_server.start()
    until(lambda: owners(groups) == before)
    with redis.Redis.from_url(private_server.url) as client:
        until(lambda: plan_number(client) == number)
        assert began_ms(client) == since
    for _, told in pairs:
        told.terms()


def test_garbage_where_the_fleet_is_kept_costs_nothing(
    redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    keys = keys_named(30)
    pairs = [stand(redis_url, *keys, balance=True, ttl=TTL_S) for _ in range(2)]
    groups = [group for group, _ in pairs]
    until(lambda: is_at_rest(redis_client, groups))
    before = owners(groups)
    ended = [group.counters.demoted for group in groups]
    seconds, micros = redis_client.time()
    lasts = seconds * 1000 + micros // 1000 + 3_600_000
    garbage: dict[Any, Any] = {f"ghost-{number}/1": f"{lasts} 1 no json" for number in range(50)}
    garbage |= {
        "": "",
        "eternal/1": f"{lasts * 1000} 1 " + '{"weight":1}',
        "endless/1": "9" * 400 + " 1 x",
        "\x00": "\x00",
        "long/1": "x" * 100_000,
    }
    redis_client.hset(LAYOUT.members_key, mapping=garbage)
    for message in (b"", b"1:", b"1:/1:/", b"x" * 100_000, b"5:/ghos3:abc", b"\r\n"):
        redis_client.publish(LAYOUT.channel, message)
    refreshes = [group.counters.refreshes for group in groups]
    until(
        lambda: all(
            group.counters.refreshes > count + 15 * 9
            for group, count in zip(groups, refreshes, strict=True)
        )
    )
    assert owners(groups) == before
    # What is no entry was taken out; what looks like one and cannot be read was told once.
    ghosts = {f"ghost-{number}/1".encode() for number in range(50)}
    assert entries(redis_client).keys() == ghosts | {g.holder.encode() for g in groups}
    assert [group.counters.demoted for group in groups] == ended
    for _, told in pairs:
        (error,) = told.errors
        assert "50 entries of the membership are malformed" in str(error)


@pytest.mark.parametrize("value", ["list", "text", "forged"])
def test_garbage_in_place_of_the_plan_is_replaced(
    redis_url: str, redis_client: redis.Redis, stand: Stand, value: str
) -> None:
    pairs = [stand(redis_url, *keys_named(30), balance=True, ttl=TTL_S) for _ in range(2)]
    groups = [group for group, _ in pairs]
    until(lambda: is_at_rest(redis_client, groups))
    number = plan_number(redis_client)
    redis_client.delete(LAYOUT.plan_key)
    if value == "list":
        redis_client.rpush(LAYOUT.plan_key, "x")
    else:
        redis_client.set(LAYOUT.plan_key, "no plan" if value == "text" else "41 no plan")
    number = 42 if value == "forged" else number
    until(
        lambda: (
            redis_client.type(LAYOUT.plan_key) == b"string"
            and redis_client.strlen(LAYOUT.plan_key) > 100
        )
    )
    # One who knew of an older plan may have been the first.
    until(lambda: plan_number(redis_client) == number)
    until(lambda: is_at_rest(redis_client, groups))
    # Whoever read it said so; another may have heard of nothing but what came after.
    counts = [len(told.errors) for _, told in pairs]
    assert max(counts) == (1 if value == "forged" else 0)


def test_a_hash_that_is_none_is_told_once(
    redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    group, told = stand(redis_url, *keys_named(5), balance=True, ttl=TTL_S)
    until(lambda: len(group.led) == 5)
    redis_client.set(LAYOUT.members_key, "no hash")
    told.wait_error(MultielectError, "WRONGTYPE")
    refreshes = group.counters.refreshes
    until(lambda: group.counters.refreshes > refreshes + 30)
    assert len(told.errors) == 1
    assert told.demotions() == []
    # It leaves without its last call, which is refused as well.
    began = time.monotonic()
    group.stop(timeout=30)
    assert time.monotonic() - began < 15


def test_a_slow_function_holds_up_no_refresh_and_no_stop(
    redis_url: str, stand: Stand, redis_client: redis.Redis
) -> None:
    slow = False

    def may_lead(_key: str, _member: Member) -> bool:
        if slow:
            time.sleep(0.2)
        return True

    keys = keys_named(200)
    group, told = stand(redis_url, *keys, balance=True, ttl=TTL_S, only=may_lead)
    until(lambda: len(group.led) == 200)
    slow = True
    # Now it takes 40 seconds to find out what this one may lead.
    stand(redis_url, *keys, balance=True, ttl=TTL_S)
    until(lambda: len(group.members) == 2)
    refreshes = group.counters.refreshes
    until(lambda: group.counters.refreshes > refreshes + 200 * 9)
    assert told.demotions() == []
    began = time.monotonic()
    group.stop(timeout=5)
    assert time.monotonic() - began < 15
    assert {entry.reason for entry in told.demotions()} == {DemotionReason.STOPPED}
    assert group.holder.encode() not in began_ms(redis_client)
