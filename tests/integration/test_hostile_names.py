"""Keys, node ids, labels and values that look like anything but what they are, on real servers.

A key may hold any bytes; what is announced of it must be about it alone. With the long TTLs here
nothing but an announcement can hand an election over in time.
"""

from __future__ import annotations

import pytest
import redis
from tests.diary import until

from multielect import ConfigError, ElectionGroup, Elector, EndlessLeaseError
from multielect._protocol.keys import decode_key, encode_key

from .conftest import Stand
from .lease import LAYOUT
from .record import Record

LONG_S = 60.0

LOOK_ALIKES: tuple[str | bytes, ...] = (
    *(b"\x00", b"\x00\x00", b"a\x00b", b"\r\n", b"a\r\nb", b"\n", b" ", b"\t"),
    *("{}", "{x}", "}{", "}", "{", "{0}", "}:", "it:{0}:x", "it:{0}:x:leader"),
    *(":leader", "x:leader", "x:leader:leader", ":epoch", "x:epoch", ":", "x:fence"),
    *("/", "//", "a/b", "/a", "a/"),
    *("5:you/1", "1:/", "5:claim", "5:grant", "0:", "3:abc,", "9999999:x", "18446744073709551616:"),
    *("*3\r\n:1\r\n", "$-1\r\n", "+OK", "-ERR no", ">3\r\n$7\r\nmessage\r\n", "_\r\n"),
    *("%d+", "%", "%%", "^(.*)$", "[^a]", "%b()", "%z", "*", "?", "[a-z]", "\\", "'\"", "$1"),
    *("nil", "false", "0", "-1", "1e3", "NaN"),
    *("ключ", "\U0001f5f3", "e\u0301", "\u202e", "\ufeff", "\udcff", "\udc80x"),
    *(b"\xff" * 512, b"\x00" * 512, "x" * 512, "ж" * 256, b"}" * 512),
)
BYTES = tuple(bytes((number,)) for number in range(256))

NODE_IDS = (
    *("5:you", "grant", "claim", "0", ":", "1:", "{0}", "}", "it:{0}:x:leader", "a:leader"),
    *("*3", "$-1", "%d+", "%", "^$", " ", "ключ", "\udcff", "\u202e", '"}', "\\", "x" * 512),
)
BAD_NODE_IDS: tuple[object, ...] = (
    *("", "/", "a/b", "/a", "a/", "\ud800", "x" * 513, "ж" * 257, b"bytes", 7),
    *(f"a{chr(number)}b" for number in (*range(32), 127)),
)


def test_keys_of_any_bytes_are_led_and_come_back_as_they_went(
    redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    keys = [*LOOK_ALIKES, *BYTES]
    raw = {encode_key(key) for key in keys}
    group, told = stand(redis_url, *keys, ttl=LONG_S)
    until(lambda: len(group.led) == len(raw))
    assert {encode_key(election.key) for election in group.led} == raw
    for key in keys:
        assert group[key].is_leader
        assert encode_key(group[key].key) == encode_key(key)
        assert group[group[key].key].epoch == group[key].epoch
    held = set(redis_client.scan_iter(match=b"*:leader", count=10_000))
    assert {LAYOUT.leader_key(key) for key in raw} <= held
    for key in raw:
        value = redis_client.get(LAYOUT.leader_key(key))
        assert isinstance(value, bytes)
        assert value.startswith(group.node_id.encode() + b"/")
    # Callbacks are called after the node leads.
    told.wait_for(lambda: {encode_key(entry.key) for entry in told.elections()} == raw)
    group.stop()
    assert not any(redis_client.exists(LAYOUT.leader_key(key)) for key in raw)
    assert told.errors == []
    assert told.terms().keys() == {decode_key(key) for key in raw}


def test_a_wake_up_is_about_the_election_that_was_set_free(redis_url: str, stand: Stand) -> None:
    keys = LOOK_ALIKES
    one, _ = stand(redis_url, *keys, ttl=LONG_S)
    until(lambda: len(one.led) == len(one))
    other, told = stand(redis_url, *keys, ttl=LONG_S)
    # What is set free before its first question is answered is asked for without a wake-up.
    until(lambda: all(other[key].leader_id == one.node_id for key in keys))
    expected = set()
    for key in keys:
        assert one[key].resign()
        expected.add(decode_key(encode_key(key)))
        assert other[key].wait(timeout=20.0)
        assert {election.key for election in other.led} == expected
    assert other.counters.wakeups == len(other)
    # Set free all at once: one message, or a few, for all.
    other.stop()
    assert set(told.terms()) == expected


@pytest.mark.parametrize("turn", range(0, len(NODE_IDS), 2))
def test_claims_and_grants_are_for_whom_they_name(redis_url: str, stand: Stand, turn: int) -> None:
    """A join moves half of the elections: by claims, and grants in another's name."""
    names = NODE_IDS[turn : turn + 2]
    labels = ({'"', "\\", "a b"}, {"\udcff", "ключ", "1:/", "}"})
    one, told_one = stand(
        redis_url, *LOOK_ALIKES, node_id=names[0], labels=labels[0], balance=True, ttl=LONG_S
    )
    until(lambda: len(one.led) == len(one))
    other, told_other = stand(
        redis_url, *LOOK_ALIKES, node_id=names[1], labels=labels[1], balance=True, ttl=LONG_S
    )
    until(lambda: abs(len(one.led) - len(other.led)) <= 1)
    until(lambda: len(one.led) + len(other.led) == len(one))
    for group in (one, other):
        told = {member.node_id: member.labels for member in group.members}
        assert told == dict(zip(names, map(frozenset, labels), strict=True))
    until(lambda: len(told_one.demotions()) >= len(other.led))
    # Nothing was moved that was not to be, nor more than once.
    assert len(told_one.demotions()) == len(other.led)
    assert told_other.demotions() == []
    assert told_one.errors == told_other.errors == []
    assert other.drain(20.0)
    until(lambda: len(one.led) == len(one))


@pytest.mark.parametrize("node_id", NODE_IDS)
def test_any_other_node_id_is_told_as_it_is(redis_url: str, stand: Stand, node_id: str) -> None:
    one, _ = stand(redis_url, "k", ttl=LONG_S, node_id=node_id)
    assert one["k"].wait(timeout=20.0)
    other, told = stand(redis_url, "k", ttl=LONG_S)
    until(lambda: other["k"].leader_id == node_id)
    one.stop()
    assert other["k"].wait(timeout=20.0)
    assert told.errors == []


@pytest.mark.parametrize("node_id", BAD_NODE_IDS)
def test_a_bad_node_id_is_refused_by_both_classes(node_id: str) -> None:
    for make in (ElectionGroup, Elector):
        with pytest.raises(ConfigError, match="node_id"):
            make("redis://localhost", prefix="p", node_id=node_id)


@pytest.mark.parametrize(
    "value",
    [b"", b"/", b"//", b"a/b/c", b"\x00", b"\r\n", b"1:/", b"\xff\xfe", b"x" * 1_000_000],
)
def test_any_value_of_a_lease_is_somebody_elses(
    redis_url: str, redis_client: redis.Redis, stand: Stand, value: bytes
) -> None:
    leader = LAYOUT.leader_key(b"k")
    redis_client.set(leader, value)
    group, told = stand(redis_url, "k", "free", ttl=0.5)
    assert group["free"].wait(timeout=20.0)
    until(lambda: group["k"].leader_id is not None)
    shown = group["k"].leader_id
    assert shown == decode_key(value[:1100]).partition("/")[0]
    assert not group["k"].is_leader
    # It has no TTL, which is told once, however often it is looked at.
    error = told.wait_error(EndlessLeaseError, "has no TTL")
    assert isinstance(error, EndlessLeaseError)
    assert (error.key, error.leader_key) == ("k", leader.decode())
    redis_client.delete(leader)
    assert group["k"].wait(timeout=20.0)
    assert told.errors == [error]


GOOD = b'{"weight":1}'
ENTRIES: dict[str, tuple[bytes, bytes]] = {
    "nothing": (b"x/1", b""),
    "garbage": (b"x/1", bytes(range(256))),
    "no holder": (b"", b"%d 1 " + GOOD),
    "a slash": (b"/", b"%d 1 " + GOOD),
    "a NUL": (b"\x00/1", b"%d 1 " + GOOD),
    "a long name": (b"x" * 5000 + b"/1", b"%d 1 " + GOOD),
    "an end that never comes": (b"x/1", b"9" * 30 + b" 1 " + GOOD),
    "an end like no number": (b"x/1", b"9" * 400 + b" 1 " + GOOD),
    "an end in the next century": (b"x/1", b"5000000000000 1 " + GOOD),
    "a beginning that never comes": (b"x/1", b"%d " + b"9" * 30 + b" " + GOOD),
    "a beginning in the next century": (b"x/1", b"%d 4398046511104 " + GOOD),
    "no words": (b"x/1", b"%d 1 "),
    "nested words": (b"x/1", b"%d 1 " + b"[" * 100_000),
    "an infinite weight": (b"x/1", b'%d 1 {"weight":1e999}'),
    "no weight": (b"x/1", b'%d 1 {"weight":NaN}'),
    "a weight of many digits": (b"x/1", b'%d 1 {"weight":' + b"9" * 5000 + b"}"),
    "an endless delay": (b"x/1", b'%d 1 {"weight":1,"join_delay_ms":1e300}'),
    "labels of labels": (b"x/1", b'%d 1 {"weight":1,"labels":[["a"]]}'),
    "a lone surrogate": (b"x/1", b'%d 1 {"weight":0,"labels":["\\ud800"]}'),
    "netstrings": (b"4:x/1", b"%d 1 1:14:{}"),
}


@pytest.mark.parametrize("what", ENTRIES)
def test_a_hostile_entry_of_the_membership_costs_nobody_else(
    redis_url: str, redis_client: redis.Redis, stand: Stand, what: str
) -> None:
    holder, entry = ENTRIES[what]
    keys = [f"k{number}" for number in range(20)]
    group, told = stand(redis_url, *keys, balance=True)
    until(lambda: len(group.led) == len(keys))
    seconds, _ = redis_client.time()
    # Not to be taken for one that has just died: it lasts for as long as the test does.
    entry = entry.replace(b"%d", b"%d" % (seconds * 1000 + 600_000))
    redis_client.hset(LAYOUT.members_key, holder, entry)
    # It polls the membership in every sixth of a TTL.
    batches = group.counters.batches
    until(lambda: group.counters.batches > batches + 6)
    # Everything goes on: callbacks, the membership, and those who come.
    group.add("late")
    told.wait_elected("late")
    other, told_other = stand(redis_url, *keys, "late", balance=True)
    until(lambda: len(other.led) > 0 and len(group.led) + len(other.led) == len(keys) + 1)
    for record in (told, told_other):
        # What cannot be read is told, once.
        assert len(record.errors) <= 1
        assert all("of the membership are malformed" in str(error) for error in record.errors)
    assert group.drain(20.0)
    until(lambda: len(other.led) == len(keys) + 1)


@pytest.mark.parametrize("prefix", ["%d", " ", "*", "ж", "a:b", "\udcff", "$1", "\x00", "p" * 512])
def test_any_prefix_without_braces_will_do(
    redis_url: str, redis_client: redis.Redis, prefix: str
) -> None:
    told = Record()
    with ElectionGroup(redis_url, prefix=prefix, ttl=LONG_S, on_error=told.error) as one:
        one.add_many(["}", "k"])
        assert one["}"].wait(timeout=20.0)
        with ElectionGroup(redis_url, prefix=prefix, ttl=LONG_S, on_error=told.error) as other:
            other.add_many(["}", "k"])
            until(lambda: other["k"].leader_id is not None)
            assert one["}"].resign()
            assert other["}"].wait(timeout=20.0)
            assert not other["k"].is_leader
    assert told.errors == []
