"""A right that is missing is told with its name and its cost, once; nothing is lost in silence."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import redis
from tests.diary import until

from multielect import DemotionReason, EndlessLeaseError, ServerError
from multielect.embedded import EmbeddedServer

from .conftest import Stand
from .lease import LAYOUT, PREFIX, Lease
from .record import Record

Allow = Callable[..., str]


@pytest.fixture
def allow(private_server: EmbeddedServer) -> Iterator[Allow]:
    """Make a user who may do all, but for these rules; returns a URL to connect by."""
    with redis.Redis.from_url(private_server.url) as client:

        def make(*rules: str) -> str:
            default = ("on", ">p", "resetchannels", f"&{PREFIX}:released", "~*", "+@all")
            client.execute_command("ACL", "SETUSER", "u", "reset", *default, *rules)
            return f"unix://u:p@{private_server.socket_path}"

        yield make


def refusals(client: redis.Redis) -> int:
    """Return how many commands the server has refused for missing rights."""
    return sum(int(str(entry["count"])) for entry in client.acl_log())


def server_errors(told: Record) -> list[ServerError]:
    return [error for error in told.errors if isinstance(error, ServerError)]


@pytest.mark.parametrize(
    ("rules", "right"), [(["-publish"], "+publish"), (["resetchannels"], f"&{PREFIX}:released")]
)
def test_a_release_that_cannot_be_announced_is_told_once(
    private_server: EmbeddedServer,
    allow: Allow,
    stand: Stand,
    rules: list[str],
    right: str,
) -> None:
    url = allow(*rules)
    group, told = stand(url, "a", "b", ttl=10.0)
    for key in "ab":
        told.wait_elected(key)
        group[key].resign()
    error = told.wait_error(ServerError, "the user needs")
    assert isinstance(error, ServerError)
    assert (error.code, error.request) == ("NOPERM", "release")
    assert f"the user needs {right})" in str(error)
    assert "cannot announce elections" in str(error)
    with redis.Redis.from_url(private_server.url) as client:
        until(lambda: not Lease(client, "b").is_held)
    group.stop()
    assert len(server_errors(told)) == 1


def test_a_claim_that_cannot_be_made_is_told_once(
    private_server: EmbeddedServer, allow: Allow, stand: Stand
) -> None:
    keys = [f"k{n}" for n in range(8)]
    first, told_first = stand(private_server.url, *keys, ttl=0.6, balance=True)
    for key in keys:
        told_first.wait_elected(key)
    _, told = stand(allow("-publish"), *keys, ttl=0.6, balance=True)
    error = told.wait_error(ServerError, "no leader hands an election over to it")
    assert isinstance(error, ServerError)
    assert (error.code, error.request) == ("NOPERM", "acquire")
    assert "the user needs +publish)" in str(error)
    checks = first.counters.refreshes
    until(lambda: first.counters.refreshes > checks + 3 * len(keys))
    assert len([e for e in server_errors(told) if e.request == "acquire"]) == 1


def test_a_release_that_is_forbidden_is_told_and_its_lease_runs_out(
    allow: Allow, stand: Stand
) -> None:
    group, told = stand(allow("-del"), "k", ttl=0.6)
    epoch = told.wait_elected("k").epoch
    assert group["k"].resign()
    error = told.wait_error(ServerError, "until the lease expires")
    assert isinstance(error, ServerError)
    assert (error.code, error.request, error.key) == ("NOPERM", "release", "k")
    assert "the user needs +del)" in str(error)
    assert group.counters.released == 0
    told.wait_elected("k", above=epoch)


@pytest.mark.parametrize(
    ("missing", "request_name"), [("time", "acquire"), ("set", "acquire"), ("pexpireat", "refresh")]
)
def test_a_command_that_is_forbidden_is_named(
    allow: Allow, stand: Stand, missing: str, request_name: str
) -> None:
    _, told = stand(allow(f"-{missing}"), "k", ttl=0.6)
    error = told.wait_error(ServerError, "the user needs")
    assert isinstance(error, ServerError)
    assert (error.code, error.request, error.key) == ("NOPERM", request_name, "k")
    assert f"+{missing}" in str(error)


@pytest.mark.parametrize("missing", ["getrange", "strlen", "hgetall"])
def test_a_fleet_that_cannot_read_its_plan_is_told_once(
    private_server: EmbeddedServer, allow: Allow, stand: Stand, missing: str
) -> None:
    keys = [f"k{n}" for n in range(8)]
    _, told = stand(allow(f"-{missing}"), *keys, ttl=0.6, balance=True)
    with redis.Redis.from_url(private_server.url) as client:
        # There is a plan to be read.
        client.set(LAYOUT.plan_key, "1 x")
        error = told.wait_error(ServerError, "the user needs")
        assert isinstance(error, ServerError)
        assert (error.code, error.request) == ("NOPERM", "membership")
        assert f"+{missing}" in str(error)
        polled = refusals(client)
        until(lambda: refusals(client) >= polled + 3)
    assert len([each for each in server_errors(told) if each.request == "membership"]) == 1


def test_a_full_server_has_its_code_whatever_its_version(
    private_server: EmbeddedServer, stand: Stand
) -> None:
    with redis.Redis.from_url(private_server.url) as client:
        client.config_set("maxmemory", 1)
        _, told = stand(private_server.url, "k", ttl=0.6)
        error = told.wait_error(ServerError, "OOM")
        assert isinstance(error, ServerError)
        assert (error.code, error.key) == ("OOM", "k")
        client.config_set("maxmemory", 0)
        told.wait_elected("k")
        # The scripts came with refused batches: that they are not there is nobody's business.
        assert {error.code for error in server_errors(told)} == {"OOM"}


def test_a_leader_key_without_an_end_is_told_once(
    redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    for key in ("a", "b", "c"):
        redis_client.set(LAYOUT.leader_key(key.encode()), "go-node")
    group, told = stand(redis_url, "a", "b", "c", "good", ttl=0.3)
    error = told.wait_error(EndlessLeaseError, "for 3 elections")
    assert isinstance(error, EndlessLeaseError)
    assert (error.holder, error.elections) == ("go-node", 3)
    told.wait_elected("good")
    checks = group.counters.checks
    until(lambda: group.counters.checks > checks + 9)
    assert [type(error) for error in told.errors] == [EndlessLeaseError]
    # What it says to do.
    assert redis_client.delete(error.leader_key) == 1
    told.wait_elected(error.key)
    group.stop()
    assert told.told(error.key) == [None, DemotionReason.STOPPED]
