"""What `ElectionGroup` and its elections offer, on a real server."""

from __future__ import annotations

import inspect
import threading
from datetime import timedelta
from typing import Any

import pytest
import redis
from tests.diary import WITHIN_S, until

from multielect import (
    ClosedError,
    ConfigError,
    DemotionReason,
    Election,
    ElectionGroup,
    Elector,
    NotLeaderError,
    aio,
)

from .conftest import Stand
from .lease import LAYOUT, PREFIX, Lease

LONG_TTL_S = 30.0


def test_an_election_is_led_by_one_node_and_seen_by_the_other(
    redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    first, told = stand(redis_url, "k", node_id="first")
    entry = told.wait_elected("k")
    second, _ = stand(redis_url, "k", node_id="second")
    until(lambda: second["k"].leader_id == "first")
    led, watched = first["k"], second["k"]

    assert led.is_leader
    assert led.epoch == led.require_leader() == entry.epoch == Lease(redis_client).epoch
    assert 0 < led.remaining <= 0.9
    assert led.leader_id == "first"
    assert Lease(redis_client).holder == first.holder.encode()
    assert first.holder.startswith("first/")

    assert not watched.is_leader
    assert (watched.epoch, watched.remaining) == (0, 0.0)
    with pytest.raises(NotLeaderError, match="'k'"):
        watched.require_leader()
    assert second.led == []
    assert first.led == [led]


def test_nobody_leads_before_the_start(redis_url: str) -> None:
    group = ElectionGroup(redis_url, prefix=PREFIX)
    election = group.add("k")
    assert not election.is_leader
    assert election.leader_id is None
    for timeout in (None, 0.0):
        with pytest.raises(ClosedError, match=r"not started: call start\(\) before you wait"):
            election.wait(timeout)
    assert not election.resign()
    election.campaign()
    assert group.led == []
    group.remove("k")
    assert len(group) == 0
    with pytest.raises(ClosedError, match="removed"):
        election.wait()


def test_a_group_is_a_collection_of_its_elections(redis_url: str, stand: Stand) -> None:
    group, told = stand(redis_url, "a", "b")
    assert group.add("a") == group["a"]
    assert hash(group.add("a")) == hash(group["a"])
    assert group["a"] != group["b"]
    assert group.add_many(["b", "c", "c", "d"]) == 2
    assert list(group) == ["a", "b", "c", "d"]
    assert len(group) == 4
    assert "a" in group
    assert b"a" in group
    assert "nobody" not in group
    assert "" not in group
    assert 7 not in group
    for key in group:
        told.wait_elected(key)
    assert {election.key for election in group.led} == set(group)
    with pytest.raises(KeyError, match="nobody"):
        group["nobody"]
    with pytest.raises(KeyError, match="nobody"):
        group.remove("nobody")


def test_removing_an_election_releases_it(
    redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    group, told = stand(redis_url, "k", "kept", ttl=LONG_TTL_S)
    epoch = told.wait_elected("k").epoch
    removed = group["k"]
    group.remove("k")
    assert not removed.is_leader
    assert "k" not in group
    ended = told.wait_demoted("k")
    assert (ended.reason, ended.epoch) == (DemotionReason.REMOVED, epoch)
    until(lambda: not Lease(redis_client).is_held)
    with pytest.raises(ClosedError, match="was removed"):
        removed.wait(timeout=WITHIN_S)
    # Added again it is another election, of which the old handle knows nothing.
    again = group.add("k")
    assert again.wait(WITHIN_S)
    assert again.epoch > epoch
    assert not removed.is_leader
    assert removed != again
    assert not removed.resign()
    assert again.is_leader


@pytest.mark.parametrize(
    "key",
    [b"\x00\xff\r\n", b"}{", b"a:leader", "Grüße, 世界", b" ", b"*" * 512, "$5\r\nhello"],
    ids=repr,
)
def test_a_key_may_hold_any_bytes(
    key: str | bytes, redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    raw = key if isinstance(key, bytes) else key.encode()
    first, _ = stand(redis_url, key, ttl=LONG_TTL_S)
    assert first[key].wait(WITHIN_S)
    assert redis_client.get(LAYOUT.leader_key(raw)) == first.holder.encode()
    assert [name.encode("utf-8", "surrogateescape") for name in first] == [raw]
    second, _ = stand(redis_url, key, ttl=LONG_TTL_S)
    until(lambda: second[key].leader_id == first.node_id)
    # The announcement names the key as well.
    first.stop()
    assert second[key].wait(WITHIN_S)
    assert second[key].epoch > first[key].epoch


def test_resigning_lets_others_go_first_for_one_ttl(redis_url: str, stand: Stand) -> None:
    group, told = stand(redis_url, "k", ttl=0.6)
    election = group["k"]
    epoch = told.wait_elected("k").epoch
    assert election.resign()
    assert not election.is_leader
    assert not election.resign()
    resigned = told.wait_demoted("k")
    assert (resigned.reason, resigned.epoch) == (DemotionReason.RESIGNED, epoch)
    again = told.wait_elected("k", above=epoch)
    assert again.at_ns - resigned.at_ns >= 0.6e9


def test_campaigning_cuts_the_resignation_short(redis_url: str, stand: Stand) -> None:
    group, told = stand(redis_url, "k", ttl=LONG_TTL_S)
    epoch = told.wait_elected("k").epoch
    assert group["k"].resign()
    group["k"].campaign()
    assert told.wait_elected("k", above=epoch).epoch > epoch


def test_a_term_resigns_for_itself_alone(redis_url: str, stand: Stand) -> None:
    group, told = stand(redis_url, "k", ttl=LONG_TTL_S)
    old = told.wait_elected("k").term
    assert old.resign()
    old.campaign()
    new = told.wait_elected("k", above=old.epoch).term
    assert not old.is_leader
    assert not old.resign()
    assert new.is_leader
    assert new.require_leader() == group["k"].epoch > old.epoch


def test_wait(redis_url: str, stand: Stand) -> None:
    group, _ = stand(redis_url, "k", ttl=LONG_TTL_S)
    assert group["k"].wait()
    assert group["k"].wait(0.0)
    other, _ = stand(redis_url, "k", ttl=LONG_TTL_S)
    assert other["k"].wait(timeout=0.05) is False
    with pytest.raises(ConfigError, match="timeout"):
        other["k"].wait(timeout=-1)


@pytest.mark.parametrize("end", ["stop", "removal"])
def test_who_waits_is_told_that_there_is_nothing_to_wait_for(
    end: str, redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    Lease(redis_client).overwrite("other/1")
    group, _ = stand(redis_url, "k", ttl=LONG_TTL_S)
    election = group["k"]
    outcomes: list[object] = []

    def wait() -> None:
        try:
            outcomes.append(election.wait(WITHIN_S))
        except ClosedError as error:
            outcomes.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    if end == "stop":
        group.stop()
    else:
        group.remove("k")
    waiting.join(WITHIN_S)
    assert [type(outcome) for outcome in outcomes] == [ClosedError]


def test_what_is_stopped_can_be_read_and_not_used(redis_url: str, stand: Stand) -> None:
    group, told = stand(redis_url, "k")
    epoch = told.wait_elected("k").epoch
    election: Election = group["k"]
    group.stop()
    assert not election.is_leader
    assert (election.epoch, election.remaining) == (epoch, 0.0)
    assert list(group) == ["k"]
    assert group.led == []
    assert group.counters.elected == group.counters.demoted == 1
    assert "not running" in repr(group)
    for change in (
        group.start,
        lambda: group.add("k"),
        lambda: group.add_many(["k"]),
        lambda: group.remove("k"),
        election.resign,
        election.campaign,
        lambda: election.wait(0.0),
    ):
        with pytest.raises(ClosedError, match="was stopped"):
            change()


def test_leaving_the_context_stops_also_after_an_error(
    redis_url: str, redis_client: redis.Redis
) -> None:
    group = ElectionGroup(redis_url, prefix=PREFIX)

    def lead_and_fail() -> None:
        with group:
            assert group.add("k").wait(WITHIN_S)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        lead_and_fail()
    assert not Lease(redis_client).is_held
    with pytest.raises(ClosedError):
        group.add("another")


def test_max_leases_leaves_the_rest_to_others_until_there_is_room(
    redis_url: str, stand: Stand
) -> None:
    keys = [f"k{number}" for number in range(6)]
    first, _ = stand(redis_url, *keys, max_leases=4, ttl=LONG_TTL_S)
    until(lambda: len(first.led) == 4)
    # In the order in which they were added.
    assert {election.key for election in first.led} == set(keys[:4])
    second, _ = stand(redis_url, *keys, max_leases=4, ttl=LONG_TTL_S)
    until(lambda: len(second.led) == 2)
    assert {election.key for election in second.led} == set(keys[4:])
    # What one gives up for good the other has room for.
    first.remove("k0")
    first.remove("k1")
    until(lambda: len(second.led) == 4)
    assert {election.key for election in second.led} == {"k0", "k1", "k4", "k5"}
    # And what one resigns while the other is full it takes back when its time has come.
    first["k2"].resign()
    first["k2"].campaign()
    assert first["k2"].wait(WITHIN_S)
    assert len(first.led) == 2
    second.stop()
    until(lambda: {election.key for election in first.led} == {"k2", "k3", "k4", "k5"})


def test_terms_tell_when_they_began_and_ended(redis_url: str, stand: Stand) -> None:
    group, told = stand(redis_url, "k")
    began = told.wait_elected("k")
    group.stop()
    ended = told.wait_demoted("k")
    assert (began.term.began_ns, began.term.ended_ns) == (began.at_ns, None)
    assert (ended.term.began_ns, ended.term.ended_ns) == (None, ended.at_ns)
    assert began.at_ns < ended.at_ns
    assert began.term.epoch == ended.term.epoch


NUMBERS_OF_SECONDS = ("ttl", "margin", "max_stall", "drain_timeout")
NO_NUMBERS: list[Any] = ["10", True, float("nan"), float("inf"), 10**400, b"1", [1]]

BAD: list[tuple[dict[str, Any], str]] = [
    *(
        ({name: value}, f"{name} must be a number of seconds or a timedelta, not ")
        for name in NUMBERS_OF_SECONDS
        for value in NO_NUMBERS
    ),
    ({"ttl": 0.09}, "ttl must be from 0.1 to"),
    ({"ttl": timedelta(milliseconds=90)}, "ttl must be from 0.1 to"),
    ({"margin": -0.1}, "margin must be from 0 to half of the ttl"),
    ({"ttl": 1.0, "margin": 0.6}, r"half of the ttl \(0.5 seconds\), not 0.6"),
    ({"max_stall": 0}, "max_stall must be from 0.01 to"),
    ({"drain_timeout": -1}, "drain_timeout must be from 0 to"),
    *(
        ({name: value}, f"{name} must be a whole number from 1 to {most}, not ")
        for name, most in (
            ("max_leases", 2147483647),
            ("buckets", 16384),
            ("callback_threads", 1000),
        )
        for value in (0, -1, 1.0, 1.5, True, "3", most + 1)
    ),
    ({"on_draining": print, "drain_timeout": 0}, "on_draining needs a drain_timeout above 0"),
    ({"epochs": "random"}, "epochs must be 'time' or 'counter', not 'random'"),
    ({"prefix": ""}, "prefix must be 1 to 512 bytes long, not 0"),
    ({"prefix": "x" * 513}, "prefix must be 1 to 512 bytes long, not 513"),
    ({"prefix": "a{b}"}, "prefix must not have braces"),
    ({"prefix": b"bytes"}, "prefix must be str, not bytes"),
    ({"prefix": None}, "prefix must be str, not NoneType"),
    ({"node_id": ""}, "node_id must be 1 to 512 bytes long"),
    ({"node_id": b"n"}, "node_id must be str, not bytes"),
    ({"node_id": "a/b"}, "node_id must not have '/'"),
    ({"node_id": "a\nb"}, "or control characters"),
    ({"balance": "yes"}, "balance must be True or False, not 'yes'"),
    ({"balance": True, "labels": "gpu"}, "labels must be a set of texts, not 'gpu'"),
    ({"balance": True, "labels": b"gpu"}, "labels must be a set of texts, not b'gpu'"),
    ({"balance": True, "labels": [1]}, "labels must hold texts that are not empty, not 1"),
    ({"balance": True, "labels": 3}, "labels must be a set of texts, not 3"),
    *(
        ({"balance": True, "weight": value}, "weight must be 0 or a number from 0.001")
        for value in (-1, True, "2", float("nan"), float("inf"), None)
    ),
    ({"balance": True, "only": {"k": "gpu"}}, "must be a set of texts, not 'gpu'"),
    ({"balance": True, "only": {"k": []}}, "names no label: no node could lead that key"),
    ({"balance": True, "only": {b"k": {"gpu"}}}, "only must have keys that are str, not b'k'"),
    ({"balance": True, "only": {"": {"gpu"}}}, "a key must be 1 to 512 bytes long"),
    ({"balance": True, "only": "gpu"}, "only must map keys to sets of labels"),
    ({"balance": True, "moves_per_second": True}, "moves_per_second must be a number"),
    ({"redis": "http://localhost"}, "a Redis URL must begin with redis://"),
    ({"redis": 6379}, "redis must be a URL .*, not int"),
]


def refusals() -> list[Any]:
    """Each bad input for each public class that takes it."""
    return [
        pytest.param(
            public_class,
            given,
            words,
            id=f"{public_class.__module__}.{public_class.__name__}-{number}",
        )
        for public_class in (ElectionGroup, Elector, aio.ElectionGroup, aio.Elector)
        for number, (given, words) in enumerate(BAD)
        if given.keys() <= inspect.signature(public_class).parameters.keys()
    ]


@pytest.mark.parametrize(("public_class", "given", "words"), refusals())
def test_bad_input_is_refused_where_it_enters(public_class: Any, given: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        public_class(**{"redis": "redis://localhost:1", "prefix": PREFIX, **given})


@pytest.mark.parametrize("group", [ElectionGroup, aio.ElectionGroup])
@pytest.mark.parametrize("keys", ["abc", b"abc", "", 3, None])
def test_what_is_not_many_keys_is_refused(group: Any, keys: Any) -> None:
    made = group("redis://localhost:1", prefix=PREFIX)
    with pytest.raises(ConfigError, match=r"add_many takes an iterable of keys.*: use add for one"):
        made.add_many(keys)
    assert len(made) == 0


@pytest.mark.parametrize("group", [ElectionGroup, aio.ElectionGroup])
@pytest.mark.parametrize(
    "keys", [["a", b"b"], {"a", "b"}, {"a": 1, "b": 2}, (key for key in "ab"), range(0)]
)
def test_whatever_gives_keys_is_taken(group: Any, keys: Any) -> None:
    made = group("redis://localhost:1", prefix=PREFIX)
    added = made.add_many(keys)
    assert added == len(made)
    assert set(made) in ({"a", "b"}, set())


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("", "a key must be 1 to 512 bytes long, not 0"),
        (b"", "a key must be 1 to 512 bytes long, not 0"),
        ("é" * 257, "a key must be 1 to 512 bytes long, not 514"),
        (7, "a key must be str or bytes, not int"),
        (None, "a key must be str or bytes, not NoneType"),
    ],
)
def test_a_bad_key_is_refused(key: Any, words: str) -> None:
    group = ElectionGroup("redis://localhost:1", prefix=PREFIX)
    with pytest.raises(ConfigError, match=words):
        group.add(key)
    with pytest.raises(ConfigError, match=words):
        group.add_many(["good", key])
    assert list(group) == ["good"]
