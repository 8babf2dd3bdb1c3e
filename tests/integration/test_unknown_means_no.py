"""Promise 4: what was in flight on a lost connection is unknown, and unknown means no."""

from __future__ import annotations

import pytest
import redis
from tests.diary import until

from multielect import ConnectionLostError, DemotionReason

from .conftest import Stand
from .lease import Lease
from .proxy import Command, Proxy, script_name


def test_a_killed_connection_costs_no_term(
    redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    group, told = stand(redis_url, "k", ttl=2.0)
    epoch = told.wait_elected("k").epoch
    redis_client.client_kill_filter(_type="pubsub", skipme=True)
    told.wait_error(ConnectionLostError, "")
    assert group["k"].is_leader
    # With a new connection comes a refresh, whenever the next is due.
    refreshed = group.counters.refreshes
    until(lambda: group.counters.refreshes > refreshed)
    until(lambda: redis_client.pttl(Lease(redis_client).leader_key) > 1500)
    assert group.counters.reconnects == 1
    assert group["k"].require_leader() == epoch
    assert [entry.reason for entry in told.of("k")] == [None]


def test_an_acquire_whose_answer_is_lost_gives_no_leadership(
    proxy: Proxy, redis_client: redis.Redis, stand: Stand
) -> None:
    lease = Lease(redis_client)
    lost: list[int] = []

    def lose(command: Command) -> None:
        if script_name(command) == "acquire":
            # The second comes when the first has been executed.
            lost.append(lease.epoch)
            if len(lost) == 1:
                proxy.lose_reply()

    proxy.on_command = lose
    group, told = stand(proxy.url, "k", ttl=60.0)
    # Its own lease does not keep it waiting: it takes it over under a new epoch.
    taken = told.wait_elected("k", within_s=10.0).epoch
    assert lost[0] == 0 < lost[1] < taken == lease.epoch
    assert group.counters.reconnects == 1
    assert [entry.reason for entry in told.of("k")] == [None]


def test_a_refresh_whose_answer_is_lost_leaves_the_deadline(
    proxy: Proxy, redis_client: redis.Redis, stand: Stand
) -> None:
    group, told = stand(proxy.url, "k", ttl=2.0)
    epoch = told.wait_elected("k").epoch
    remaining: list[float] = []

    def lose(command: Command) -> None:
        if not remaining and script_name(command) == "refresh":
            remaining.append(group["k"].remaining)
            proxy.loses_replies = True
            proxy.drops_requests = True

    proxy.on_command = lose
    told.wait_error(ConnectionLostError, "")
    assert group["k"].remaining <= remaining[0]
    proxy.loses_replies = proxy.drops_requests = False
    until(lambda: group["k"].remaining > remaining[0])
    assert group["k"].require_leader() == epoch
    assert [entry.reason for entry in told.of("k")] == [None]


@pytest.mark.parametrize("change", ["deleted", "overwritten"])
def test_a_lease_that_is_not_ours_any_more_ends_the_term(
    change: str, redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    lease = Lease(redis_client)
    group, told = stand(redis_url, "k", ttl=0.6)
    epoch = told.wait_elected("k").epoch
    if change == "deleted":
        lease.delete()
    else:
        lease.overwrite("other/1")
    ended = told.wait_demoted("k")
    assert (ended.reason, ended.epoch) == (DemotionReason.LOST, epoch)
    if change == "deleted":
        assert told.wait_elected("k", above=epoch).epoch > epoch
    else:
        until(lambda: group["k"].leader_id == "other")
        assert not group["k"].is_leader
        assert lease.holder == b"other/1"
        assert lease.ends_ms == -1
