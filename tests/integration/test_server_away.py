"""Promise 6: a server that is gone, frozen or busy costs the terms it must, and nothing more."""

from __future__ import annotations

import contextlib
import os
import signal
import threading

import redis
from tests.diary import until

from multielect import ConnectionLostError, DemotionReason, ServerError, ServerUnusableError
from multielect.embedded import EmbeddedServer

from .conftest import Stand
from .lease import Lease

# Ends by itself, in case nobody kills it.
BUSY_SCRIPT = "for i = 1, 2000000000 do end return 1"


def test_a_killed_server_that_comes_back_empty(
    private_server: EmbeddedServer, stand: Stand
) -> None:
    group, told = stand(private_server.url, "k", ttl=0.6)
    epoch = told.wait_elected("k").epoch
    os.kill(private_server.pid, signal.SIGKILL)
    ended = told.wait_demoted("k")
    assert (ended.reason, ended.epoch) == (DemotionReason.EXPIRED, epoch)
    assert not group["k"].is_leader
    assert group["k"].remaining == 0.0
    told.wait_error(ConnectionLostError, "")
    refused = told.wait_error(ConnectionLostError, "cannot connect")
    assert isinstance(refused.__cause__, redis.ConnectionError)
    private_server.stop()
    private_server.start()
    assert told.wait_elected("k").epoch == epoch
    assert told.wait_elected("k", above=epoch).epoch > epoch


def test_a_frozen_server(private_server: EmbeddedServer, stand: Stand) -> None:
    group, told = stand(private_server.url, "k", ttl=0.6)
    epoch = told.wait_elected("k").epoch
    os.kill(private_server.pid, signal.SIGSTOP)
    try:
        assert told.wait_demoted("k").reason is DemotionReason.EXPIRED
        assert not group["k"].is_leader
        told.wait_error(ConnectionLostError, "did not answer")
        told.wait_error(ConnectionLostError, "cannot connect")
    finally:
        os.kill(private_server.pid, signal.SIGCONT)
    told.wait_elected("k", above=epoch)


def test_clients_paused_for_longer_than_an_answer_may_take(
    private_server: EmbeddedServer, stand: Stand
) -> None:
    group, told = stand(private_server.url, "k", ttl=0.6)
    epoch = told.wait_elected("k").epoch
    with redis.Redis.from_url(private_server.url) as client:
        client.client_pause(1000)
    told.wait_error(ConnectionLostError, "did not answer")
    assert told.wait_demoted("k").reason is DemotionReason.EXPIRED
    told.wait_elected("k", above=epoch)
    assert group["k"].wait(0.0)


def test_a_short_pause_costs_no_term(private_server: EmbeddedServer, stand: Stand) -> None:
    group, told = stand(private_server.url, "k", ttl=2.0)
    epoch = told.wait_elected("k").epoch
    with redis.Redis.from_url(private_server.url) as client:
        refreshed = group.counters.refreshes
        client.client_pause(10_000, all=False)
        until(lambda: group.counters.refreshes > refreshed)
        client.client_unpause()
        until(lambda: client.pttl(Lease(client).leader_key) > 1900)
    assert group["k"].require_leader() == epoch
    assert group.counters.reconnects == 0


def test_a_busy_server_is_asked_again(private_server: EmbeddedServer, stand: Stand) -> None:
    group, told = stand(private_server.url, "k", ttl=3.0)
    epoch = told.wait_elected("k").epoch
    with (
        redis.Redis.from_url(private_server.url) as hog,
        redis.Redis.from_url(private_server.url) as client,
    ):
        client.config_set("lua-time-limit", 1)

        def keep_busy() -> None:
            with contextlib.suppress(redis.RedisError):
                hog.eval(BUSY_SCRIPT, 0)

        busy = threading.Thread(target=keep_busy)
        busy.start()
        try:
            error = told.wait_error(ServerError, "BUSY")
        finally:
            # Until the limit has passed nobody is heard, and the script may not have begun.
            until(lambda: _script_killed(client))
            busy.join()
    assert isinstance(error, ServerError)
    assert (error.code, error.request, error.elections) == ("BUSY", "refresh", 1)
    refreshed = group.counters.refreshes
    until(lambda: group.counters.refreshes > refreshed and group["k"].remaining > 2.0)
    assert group["k"].require_leader() == epoch
    assert [entry.reason for entry in told.of("k")] == [None]


def _script_killed(client: redis.Redis) -> bool:
    try:
        client.script_kill()
    except redis.ResponseError:
        return False
    return True


def test_a_server_that_forgets_the_scripts_is_told_them_again(
    redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    group, told = stand(redis_url, "k", "other", ttl=0.6)
    epoch = told.wait_elected("k").epoch
    told.wait_elected("other")
    refreshed = group.counters.refreshes
    until(lambda: group.counters.refreshes > refreshed)
    redis_client.script_flush()
    # All three are needed again: refresh now, release and acquire by the resignation.
    refreshed = group.counters.refreshes
    until(lambda: group.counters.refreshes > refreshed + 4)
    assert group["k"].require_leader() == epoch
    group["k"].resign()
    group["k"].campaign()
    told.wait_elected("k", above=epoch)
    group.stop()
    assert told.wait_demoted("other").reason is DemotionReason.STOPPED
    assert not Lease(redis_client).is_held
    assert told.errors == []


def test_a_server_that_becomes_a_replica_is_left(
    private_server: EmbeddedServer, stand: Stand
) -> None:
    group, told = stand(private_server.url, "k", ttl=0.6)
    epoch = told.wait_elected("k").epoch
    with redis.Redis.from_url(private_server.url) as client:
        # Of a primary that is not there: it keeps its data and refuses writes.
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        error = told.wait_error(ServerError, "READONLY")
        assert isinstance(error, ServerError)
        assert error.code == "READONLY"
        left = told.wait_error(ServerUnusableError, "does not serve elections: READONLY")
        refused = told.wait_error(ServerUnusableError, "a replica of 127.0.0.1:1: elections can")
        assert isinstance(left, ServerUnusableError)
        assert isinstance(refused, ServerUnusableError)
        assert left.reason == refused.reason == "replica"
        ended = told.wait_demoted("k")
        assert (ended.reason, ended.epoch) == (DemotionReason.EXPIRED, epoch)
        client.execute_command("REPLICAOF", "NO", "ONE")
    told.wait_elected("k", above=epoch)
    assert group["k"].is_leader


def test_a_connection_that_is_cut_again_and_again_costs_no_term(
    private_server: EmbeddedServer, stand: Stand
) -> None:
    group, told = stand(private_server.url, "k", ttl=2.0)
    epoch = told.wait_elected("k").epoch
    with redis.Redis.from_url(private_server.url) as client:
        # Each time as soon as it is of use: no connection lasts for long.
        for _ in range(10):
            refreshed = group.counters.refreshes
            until(lambda refreshed=refreshed: group.counters.refreshes > refreshed)  # type: ignore[misc]
            lost = group.counters.reconnects
            client.client_kill_filter(_type="pubsub")
            until(lambda lost=lost: group.counters.reconnects > lost)  # type: ignore[misc]
        refreshed = group.counters.refreshes
        until(lambda: group.counters.refreshes > refreshed)
    assert group["k"].require_leader() == epoch
    assert [entry.reason for entry in told.of("k")] == [None]
