"""A fleet that shares its elections out, on real servers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from tests.diary import check_no_overlap, until

from multielect import DemotionReason, ElectionGroup, MultielectError, Term, aio
from multielect.balance import Member

from .conftest import Stand
from .lease import LAYOUT, PREFIX

KEYS = tuple(f"k{number}" for number in range(60))
MEMBER = Path(__file__).with_name("member.py")
LONG_S = 10.0


def loads(*groups: ElectionGroup) -> list[int]:
    return [len(group.led) for group in groups]


def let_pass(ttls: int, group: ElectionGroup) -> None:
    """Wait until a group has refreshed all that it leads for so many TTLs."""
    refreshes = group.counters.refreshes + 3 * ttls * len(group.led)
    until(lambda: group.counters.refreshes >= refreshes)


def settle(expected: list[int], *groups: ElectionGroup) -> None:
    """Wait until each group leads what is its own: loads alone are the same while groups swap."""
    until(lambda: loads(*groups) == expected and all(group.wait_balanced(0.0) for group in groups))


@contextmanager
def member(url: str, ttl: float = 1.0) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, str(MEMBER), url, PREFIX, str(len(KEYS)), str(ttl)]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            yield process
        finally:
            process.kill()


def test_equal_nodes_lead_equal_shares(redis_url: str, stand: Stand) -> None:
    groups, records = zip(*(stand(redis_url, *KEYS, balance=True) for _ in range(4)), strict=True)
    settle([15] * 4, *groups)
    assert {m.node_id for m in groups[0].members} == {group.node_id for group in groups}
    for group in groups:
        group.stop()
    check_no_overlap(*records)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({"weight": 2.0}, {}, [40, 20]),
        ({"max_leases": 10}, {}, [10, 50]),
        ({"weight": 0}, {}, [0, 60]),
        ({"max_leases": 10}, {"max_leases": 20}, [10, 20]),
    ],
)
def test_shares_go_by_weight_and_stay_within_caps(
    first: dict[str, float],
    second: dict[str, float],
    expected: list[int],
    redis_url: str,
    stand: Stand,
) -> None:
    one, _ = stand(redis_url, *KEYS, balance=True, **first)
    other, _ = stand(redis_url, *KEYS, balance=True, **second)
    settle(expected, one, other)


@pytest.mark.parametrize("as_function", [True, False])
def test_nobody_leads_what_it_may_not(redis_url: str, stand: Stand, as_function: bool) -> None:
    special = set(KEYS[:20])

    def may_lead(key: str, node: Member) -> bool:
        return key not in special or "gpu" in node.labels

    only = may_lead if as_function else {key: {"gpu"} for key in special}
    plain, told = stand(redis_url, *KEYS, balance=True, only=only)
    until(lambda: len(plain.led) == 40)
    # Time enough to be taken by one who looks whether it is free.
    let_pass(2, plain)
    assert loads(plain) == [40]
    labelled, _ = stand(redis_url, *KEYS, balance=True, only=only, labels={"gpu"})
    settle([30, 30], plain, labelled)
    assert special <= {election.key for election in labelled.led}
    assert not special & {entry.key for entry in told.elections()}


def test_a_join_moves_its_share_and_a_drain_hands_it_back(redis_url: str, stand: Stand) -> None:
    one, told_one = stand(redis_url, *KEYS, balance=True, ttl=30.0)
    settle([60], one)
    other, told_other = stand(redis_url, *KEYS, balance=True, ttl=30.0)
    settle([30, 30], one, other)
    until(lambda: len(told_one.demotions()) == 30)
    assert [e.reason for e in told_one.demotions()] == [DemotionReason.REBALANCED] * 30
    assert other.drain(LONG_S)
    settle([60, 0], one, other)
    until(lambda: len(told_other.demotions()) == 30)
    assert {e.reason for e in told_other.demotions()} == {DemotionReason.DRAINED}
    other.stop()
    settle([60], one)
    one.stop()
    check_no_overlap(told_one, told_other)


def test_nodes_that_are_all_drained_at_once_wait_for_nobody(redis_url: str, stand: Stand) -> None:
    """Each of them begins while it takes the others for its successors."""
    groups = [stand(redis_url, *KEYS, balance=True, ttl=120.0)[0] for _ in range(3)]
    settle([20, 20, 20], *groups)
    drains = [threading.Thread(target=group.drain, args=(120.0,), daemon=True) for group in groups]
    for drain in drains:
        drain.start()
    for drain in drains:
        drain.join(2 * LONG_S)
        assert not drain.is_alive(), "it waits for a successor, and there is none"
    assert loads(*groups) == [0, 0, 0]


def test_a_stop_without_a_drain_names_the_successors(redis_url: str, stand: Stand) -> None:
    one, _ = stand(redis_url, *KEYS, balance=True, ttl=30.0)
    other, _ = stand(redis_url, *KEYS, balance=True, ttl=30.0)
    settle([30, 30], one, other)
    other.stop()
    settle([60], one)


def test_what_a_killed_member_led_is_shared_out(redis_url: str, stand: Stand) -> None:
    one, _ = stand(redis_url, *KEYS, balance=True)
    other, _ = stand(redis_url, *KEYS, balance=True)
    with member(redis_url) as process:
        settle([20, 20], one, other)
        process.kill()
        settle([30, 30], one, other)


def test_a_forked_child_is_no_member(redis_url: str, stand: Stand) -> None:
    one, told = stand(redis_url, *KEYS, balance=True)
    settle([60], one)
    elections = one.led
    child = os.fork()
    if child == 0:
        quiet = 1
        try:
            quiet = int(bool(one.led) or any(each.is_leader for each in elections))
        finally:
            os._exit(quiet)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    let_pass(2, one)
    assert loads(one) == [60]
    assert told.demotions() == []


def test_a_fleet_comes_back_after_redis_forgot_all(
    redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    # A member that is starved for two thirds of the TTL is out, and comes back to another share.
    one, told_one = stand(redis_url, *KEYS, balance=True, ttl=6.0)
    other, told_other = stand(redis_url, *KEYS, balance=True, ttl=6.0)
    settle([30, 30], one, other)
    before = {election.key for election in one.led}
    redis_client.flushall()
    for told in (told_one, told_other):
        until(lambda told=told: len(told.demotions()) >= 30)  # type: ignore[misc]
    # By its assignee, also what another found free a moment earlier.
    until(lambda: {election.key for election in one.led} == before)
    settle([30, 30], one, other)


def test_what_its_node_does_not_stand_for_is_led_by_another(redis_url: str, stand: Stand) -> None:
    one, told = stand(redis_url, *KEYS, balance=True)
    other, _ = stand(redis_url, *KEYS[:30], balance=True)
    until(lambda: sum(loads(one, other)) == 60)
    let_pass(2, one)
    # A starved machine lets terms expire, which is nothing of the balance.
    until(lambda: sum(loads(one, other)) == 60)
    assert all(election.key in KEYS[:30] for election in other.led)
    moved = [
        entry.key
        for entry in told.demotions()
        if entry.key in KEYS[30:] and entry.reason is DemotionReason.REBALANCED
    ]
    assert moved == [], "what nobody else stands for was handed over"


def test_a_worker_finishes_before_it_hands_over(redis_url: str, stand: Stand) -> None:
    order: list[tuple[str, str]] = []
    drains: list[tuple[Term, float]] = []
    draining = threading.Event()

    def on_draining(term: Term, deadline: float) -> None:
        order.append((term.key, "draining"))
        drains.append((term, deadline))
        draining.set()

    one, told = stand(
        redis_url,
        *KEYS,
        balance=True,
        drain_timeout=60.0,
        on_draining=on_draining,
        on_elected=lambda term: order.append((term.key, "elected")),
        on_demoted=lambda term, _: order.append((term.key, "demoted")),
    )
    settle([60], one)
    other, _ = stand(redis_url, *KEYS, balance=True)
    until(lambda: len(drains) == 30)
    # More than a TTL: it is refreshed meanwhile.
    let_pass(2, one)
    assert loads(one, other) == [60, 0]
    for term, deadline in drains:
        assert term.is_leader
        assert 30 < deadline - time.monotonic() <= 60
        assert term.finish_drain()
        assert not term.finish_drain()
    settle([30, 30], one, other)
    until(lambda: len(order) == 60 + 30 + 30)
    for term, _ in drains:
        assert [what for key, what in order if key == term.key] == [
            "elected",
            "draining",
            "demoted",
        ]
    assert told.errors == []


def test_a_worker_that_does_not_finish_is_cut_short(redis_url: str, stand: Stand) -> None:
    one, told = stand(
        redis_url, *KEYS, balance=True, drain_timeout=0.5, on_draining=lambda _term, _by: None
    )
    settle([60], one)
    other, _ = stand(redis_url, *KEYS, balance=True)
    settle([30, 30], one, other)
    # A term is over a moment before that is told.
    until(lambda: len(told.demotions()) == 30)
    assert {entry.reason for entry in told.demotions()} == {DemotionReason.REBALANCED}


def test_a_plain_group_drains_too(redis_url: str, stand: Stand) -> None:
    drained: list[str] = []

    def on_draining(term: Term, _deadline: float) -> None:
        drained.append(term.key)
        term.finish_drain()

    one, told = stand(redis_url, *KEYS, ttl=30.0, on_draining=on_draining)
    until(lambda: len(one.led) == 60)
    other, _ = stand(redis_url, *KEYS, ttl=30.0)
    assert one.drain(LONG_S)
    until(lambda: loads(one, other) == [0, 60])
    until(lambda: len(told.demotions()) == 60)
    assert sorted(drained) == sorted(KEYS)
    assert {entry.reason for entry in told.demotions()} == {DemotionReason.DRAINED}


def test_a_coroutine_finishes_before_it_hands_over(redis_url: str) -> None:
    async def run() -> list[str]:
        said: list[str] = []

        async def on_draining(term: Term, _deadline: float) -> None:
            said.append("draining")
            await asyncio.sleep(0)
            term.finish_drain()

        def on_demoted(_term: Term, reason: DemotionReason) -> None:
            said.append(reason.name)

        async with aio.ElectionGroup(
            redis_url,
            prefix=PREFIX,
            ttl=5.0,
            balance=True,
            on_draining=on_draining,
            on_demoted=on_demoted,
        ) as group:
            assert await group.add("k").wait(LONG_S)
            assert await group.drain(LONG_S)
        return said

    assert asyncio.run(run()) == ["draining", "DRAINED"]


def test_elections_added_and_removed_are_shared_out(redis_url: str, stand: Stand) -> None:
    one, _ = stand(redis_url, *KEYS, balance=True)
    other, _ = stand(redis_url, *KEYS, balance=True)
    settle([30, 30], one, other)
    for group in (one, other):
        group.add_many(f"new-{number}" for number in range(20))
    settle([40, 40], one, other)
    for group in (one, other):
        for key in KEYS:
            group.remove(key)
    settle([10, 10], one, other)


def test_who_joins_with_a_delay_waits(redis_url: str, stand: Stand) -> None:
    one, _ = stand(redis_url, *KEYS, balance=True, join_delay=1.5)
    settle([60], one)
    time.sleep(1.6)
    began = time.monotonic()
    other, _ = stand(redis_url, *KEYS, balance=True, join_delay=1.5)
    settle([30, 30], one, other)
    assert time.monotonic() - began >= 1.4


def test_who_never_reached_redis_has_nothing_to_leave(stand: Stand) -> None:
    group, _ = stand("unix:///nowhere/at/all.sock", *KEYS, balance=True)
    began = time.monotonic()
    group.stop(timeout=LONG_S)
    assert time.monotonic() - began < LONG_S / 2


STRANGE = "no members of its fleet"


def test_a_node_that_does_not_balance_beside_those_that_do_is_told_of(
    redis_url: str, stand: Stand
) -> None:
    alone, told = stand(redis_url, *KEYS)
    told.wait_for(lambda: len(alone.led) == len(KEYS))
    fleet, heard = stand(redis_url, *KEYS, balance=True, ttl=0.6)
    why = str(heard.wait_error(MultielectError, STRANGE))
    assert f"{len(KEYS)} election(s)" in why
    assert f"{alone.holder!r} ({len(KEYS)})" in why
    alone.stop()
    settle([len(KEYS)], fleet)
    assert sum(STRANGE in str(error) for error in heard.errors) == 1


def test_the_leases_of_the_dead_are_no_unknown_leaders(
    redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    for key in KEYS:
        redis_client.set(LAYOUT.leader_key(key.encode()), "dead/incarnation", px=600)
    group, told = stand(redis_url, *KEYS, balance=True, ttl=0.6)
    settle([len(KEYS)], group)
    let_pass(4, group)
    assert not [error for error in told.errors if STRANGE in str(error)]
