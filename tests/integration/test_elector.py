"""`Elector` shares one election with nodes written in Go, which are played here by their scripts.

A Go node's acquire gets the leader key and, where it is free, sets it with EX to its bare id and
increments the epoch, in one script. Its refresh compares that bare id and sets the expiry. Its stop
leaves the key as it is: it only refreshes no more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from tests.diary import WITHIN_S, until

from multielect import ClosedError, Counters, DemotionReason, Elector, NotLeaderError, Term
from multielect._protocol.keys import elector_layout
from multielect._runtime.clock import Clock

from .lease import Lease

PREFIX = "billing"
LAYOUT = elector_layout(PREFIX)
NS = 1_000_000_000
SOON_NS = NS // 2

GO_ACQUIRE = """
local leader = redis.call('GET', KEYS[1])
if leader then return {0, leader} end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return {redis.call('INCR', KEYS[2]), ARGV[1]}
"""
GO_REFRESH = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('EXPIRE', KEYS[1], ARGV[2])
"""


class GoNode:
    """One node that does what the Go elector does, when the test says so."""

    def __init__(self, client: redis.Redis, node_id: str, ttl_s: int) -> None:
        self.epoch = 0
        self.seen: bytes | None = None
        self._client: Any = client
        self._node_id = node_id
        self._ttl_s = ttl_s

    def acquire(self) -> bool:
        """Stand for election once; the epoch is there if it won."""
        self.epoch, self.seen = self._client.eval(
            GO_ACQUIRE, 2, LAYOUT.leader_key(b""), LAYOUT.epoch_key(b""), self._node_id, self._ttl_s
        )
        return self.epoch > 0

    def refresh(self) -> bool:
        """Extend the lease if it is this node's."""
        return bool(
            self._client.eval(GO_REFRESH, 1, LAYOUT.leader_key(b""), self._node_id, self._ttl_s)
        )


@pytest.fixture
def lease(redis_client: redis.Redis) -> Lease:
    """What the server holds of the election."""
    return Lease(redis_client, "", LAYOUT)


@pytest.fixture
def go(redis_client: redis.Redis) -> GoNode:
    """A Go node whose leases last long."""
    return GoNode(redis_client, "go-node", 60)


@pytest.fixture
def elector(redis_url: str) -> Iterator[Elector]:
    """An elector, not started yet."""
    elector = Elector(redis_url, prefix=PREFIX, node_id="python-node", ttl=1.2)
    yield elector
    elector.stop()


def test_it_counts_what_it_has_done_as_a_group_does(elector: Elector) -> None:
    assert elector.counters == Counters(*[0] * len(dataclasses.fields(Counters)))
    elector.start()
    assert elector.wait(WITHIN_S)
    until(lambda: elector.counters.refreshes > 0)
    assert elector.resign()
    until(lambda: elector.counters.released == 1)
    assert (elector.counters.elected, elector.counters.demoted) == (1, 1)


def test_both_use_the_same_two_keys(lease: Lease) -> None:
    assert lease.leader_key == b"billing:{election}:leader"
    assert lease.epoch_key == b"billing:{election}:epoch"


def test_a_go_leader_is_respected_and_seen(go: GoNode, elector: Elector, lease: Lease) -> None:
    assert go.acquire()
    ends_ms = lease.ends_ms
    elector.start()
    until(lambda: elector.leader_id == "go-node")
    assert not elector.is_leader
    with pytest.raises(NotLeaderError):
        elector.require_leader()
    assert elector.wait(timeout=1.0) is False
    assert (lease.holder, lease.ends_ms) == (b"go-node", ends_ms)
    assert go.refresh()
    elector.stop()
    assert lease.holder == b"go-node"
    assert go.refresh()


def test_a_python_leader_is_respected_and_seen(go: GoNode, elector: Elector, lease: Lease) -> None:
    elector.start()
    assert elector.wait(WITHIN_S)
    ends_ms = lease.ends_ms
    assert not go.acquire()
    assert go.seen is not None
    assert go.seen.startswith(b"python-node/")
    assert not go.refresh()
    assert lease.ends_ms >= ends_ms
    # It goes on to refresh.
    until(lambda: lease.ends_ms > ends_ms + 1200)
    assert elector.is_leader
    assert elector.leader_id == elector.node_id == "python-node"


def test_a_lease_of_a_go_node_that_somebody_deletes_is_taken_within_a_third_of_the_ttl(
    go: GoNode, elector: Elector, lease: Lease
) -> None:
    # It would last a minute, and nobody announces anything.
    assert go.acquire()
    elector.start()
    until(lambda: elector.leader_id == "go-node")
    deleted_ns = Clock().now_ns()
    lease.delete()
    assert elector.wait(WITHIN_S)
    assert Clock().now_ns() - deleted_ns < 0.4 * NS + SOON_NS
    assert elector.epoch > go.epoch


def test_a_go_leader_that_stops_or_crashes_is_followed_when_its_lease_ends(
    redis_client: redis.Redis, elector: Elector, lease: Lease
) -> None:
    go = GoNode(redis_client, "go-node", 2)
    began_ns = Clock().now_ns()
    assert go.acquire()
    leads_ns = Clock().now_ns()
    elector.start()
    until(lambda: elector.leader_id == "go-node")
    # From here on it refreshes no more, as a stop or a crash would have it.
    assert elector.wait(WITHIN_S)
    took_over_ns = Clock().now_ns()
    assert took_over_ns - began_ns > 1.99 * NS
    assert took_over_ns - leads_ns < 2 * NS + SOON_NS
    assert elector.epoch > go.epoch
    assert lease.holder == elector._node.holder.encode()


def test_go_follows_a_python_leader_that_stops(go: GoNode, elector: Elector) -> None:
    elector.start()
    assert elector.wait(WITHIN_S)
    assert not go.acquire()
    elector.stop()
    assert go.acquire()
    assert go.epoch > elector.epoch


def test_epochs_rise_across_both(redis_url: str, go: GoNode, lease: Lease) -> None:
    epochs: list[int] = []
    for _ in range(3):
        assert go.acquire()
        epochs.append(go.epoch)
        lease.delete()
        with Elector(redis_url, prefix=PREFIX) as elector:
            assert elector.wait(WITHIN_S)
            epochs.append(elector.require_leader())
    assert epochs == sorted(set(epochs))


def test_a_go_node_that_takes_the_lease_ends_the_term(
    redis_url: str, go: GoNode, lease: Lease
) -> None:
    ended: list[DemotionReason] = []
    told: list[Term] = []

    def demoted(term: Term, reason: DemotionReason) -> None:
        told.append(term)
        ended.append(reason)

    with Elector(redis_url, prefix=PREFIX, ttl=0.6, on_demoted=demoted) as elector:
        assert elector.wait(WITHIN_S)
        epoch = elector.epoch
        lease.delete()
        assert go.acquire()
        until(lambda: ended == [DemotionReason.LOST])
        assert not elector.is_leader
        until(lambda: elector.leader_id == "go-node")
    assert lease.holder == b"go-node"
    assert [term.epoch for term in told] == [epoch]


def test_two_electors_follow_each_other_at_once(redis_url: str) -> None:
    first = Elector(redis_url, prefix=PREFIX, ttl=30.0, node_id="first")
    second = Elector(redis_url, prefix=PREFIX, ttl=30.0, node_id="second")
    with second:
        with first:
            until(lambda: first.is_leader or second.is_leader)
            leader, other = (first, second) if first.is_leader else (second, first)
            until(lambda: other.leader_id == leader.node_id)
            epoch = leader.epoch
            assert leader.resign()
            resigned_ns = Clock().now_ns()
            assert other.wait(WITHIN_S)
            assert Clock().now_ns() - resigned_ns < 2 * SOON_NS
            assert other.epoch > epoch
            leader.campaign()
        assert second.wait(WITHIN_S)


def test_callbacks_that_take_nothing_are_called_with_nothing(redis_url: str) -> None:
    calls: list[str] = []
    elector = Elector(
        redis_url,
        prefix=PREFIX,
        on_elected=lambda: calls.append("elected"),
        on_demoted=lambda: calls.append("demoted"),
    )
    with elector:
        assert elector.wait(WITHIN_S)
    assert calls == ["elected", "demoted"]
    with pytest.raises(ClosedError):
        elector.start()
