"""The same question has the same answer everywhere; and what an answer can be asked."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.balance.fleets import (
    CAPS,
    LABEL_SETS,
    WEIGHTS,
    examples,
    fleets,
    keys_named,
    labelled_keys,
)

from multielect import ConfigError
from multielect.balance import KeySet, Member, assign

GOLDEN = """
import hashlib
from multielect.balance import KeySet, Member, assign
zones = [("a",), ("b",), ("a", "b"), ()]
members = [
    Member(f"node-{n}", f"{n:x}", 1 + n % 3, 60 if n == 4 else None, frozenset(zones[n % 4]))
    for n in range(11)
]
names = [f"partition-{n}" for n in range(1000)] + ["schl\\u00fcssel", b"\\xff\\x00 key"]
only = {f"partition-{n}": {"ab"[n % 2]} for n in range(0, 1000, 3)}
keys = KeySet(names, only)
first = assign(members, keys)
second = first.after([*members[2:], Member("late", weight=2.5)])
for answer in (first, second):
    text = "\\n".join(f"{key} {answer[key].holder}" for key in answer)
    print(hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16])
print(*first.of("node-7")[:6], second.loads["late"])
"""
EXPECTED = """
b956b6e78aacff83
31f3037a83b1e98d
partition-1 partition-101 partition-104 partition-112 partition-115 partition-151 127
"""


@pytest.mark.parametrize("seed", ["0", "1", "random"])
def test_golden_values(seed: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", GOLDEN],
        env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert run.stdout.split() == EXPECTED.split()


@examples(60)
@given(
    fleets(weights=WEIGHTS, caps=CAPS, labels=LABEL_SETS, most=16),
    labelled_keys(),
    st.randoms(use_true_random=False),
)
def test_order_does_not_matter(members: list[Member], keys: KeySet, chance: random.Random) -> None:
    names, fleet = list(keys.names), list(members)
    chance.shuffle(names)
    chance.shuffle(fleet)
    half = assign(members[: len(members) // 2 + 1], keys).holders()
    turned = dict(reversed(half.items()))

    assert assign(fleet, KeySet(names, keys.only)) == assign(members, keys)
    assert assign(fleet, KeySet(names, keys.only), held=turned) == assign(members, keys, held=half)


@examples(40)
@given(fleets(weights=WEIGHTS, caps=CAPS, labels=LABEL_SETS, most=12), labelled_keys(most=60))
def test_a_function_decides_like_the_labels_it_reads(members: list[Member], keys: KeySet) -> None:
    only = keys.only
    assert isinstance(only, dict)
    asking = KeySet(
        keys.names, lambda key, member: key not in only or bool(only[key] & member.labels)
    )

    assert assign(members, asking) == assign(members, keys)
    assert assign(members, asking).after(members[1:]) == assign(members, keys).after(members[1:])


def test_a_function_is_asked_once_for_each_pair() -> None:
    asked = []

    def may_lead(key: str, member: Member) -> bool:
        asked.append((key, member.node_id))
        return key != "k0" or member.node_id == "b"

    keys = KeySet(["k0", "k1", "k2"], may_lead)
    answer = assign([Member("a"), Member("b")], keys).after([Member("b"), Member("c")])

    assert answer["k0"].node_id == "b"
    assert sorted(asked) == [(key, node) for key in keys.names for node in "abc"]


def test_who_is_ineligible_is_known_without_asking_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def may_lead(key: str, member: Member) -> bool:
        return key != "k0" or member.node_id == "b"

    answer = assign([Member("a"), Member("b")], KeySet(["k0", "k1", "k2"], may_lead))
    alone = assign([Member("a")], KeySet(["k0", "k1"], may_lead))
    monkeypatch.setattr(KeySet, "classes", lambda *_: pytest.fail("worked out again"))

    assert answer.ineligible(0) == b"\1\0\0"
    assert answer.ineligible(1) == b"\0\0\0"
    assert alone.ineligible(0) == b"\1\0"


def test_a_set_knows_whom_it_has_asked_about() -> None:
    keys = KeySet(["k0"], lambda _key, _member: True)
    one, other = Member("a"), Member("b")
    assert not keys.knows([one])
    assign([one], keys)
    assert keys.knows([one])
    assert not keys.knows([one, other])
    assert KeySet(["k0"], {"k0": {"x"}}).knows([one, other])


def test_what_a_function_raises_is_passed_on() -> None:
    def broken(key: str, member: Member) -> bool:
        raise LookupError(key)

    with pytest.raises(LookupError, match="k0"):
        assign([Member("a")], KeySet(["k0"], broken))


def test_a_node_that_restarts_gets_its_keys_back() -> None:
    before = assign([Member("a", "1"), Member("b", "1")], keys_named(100))
    after = before.after([Member("a", "2"), Member("b", "1")])

    assert after.of("a") == before.of("a")
    assert after.of("a/2") == before.of("a/1")
    assert after.of("a/1") == ()
    assert after.moved_since(before) == ()
    assert after.change_since(before, "a/2").gained == before.of("a")


def test_two_incarnations_of_a_node_are_two_members() -> None:
    answer = assign([Member("a", "1"), Member("a", "2")], keys_named(101))

    assert sorted(answer.loads.values()) == [50, 51]
    assert answer.of("a") == KeySet(keys_named(101)).names


def test_strangers_hold_nothing() -> None:
    members, keys = [Member("a", "1"), Member("b", "1")], KeySet(keys_named(50))

    strangers = assign(members, keys, held=dict.fromkeys([*keys.names, "no key"], "gone/7"))

    assert strangers == assign(members, keys)


def test_a_leader_that_may_not_lead_a_key_loses_it() -> None:
    members = [Member("a", labels=frozenset({"gpu"})), Member("b")]
    keys = KeySet(["k0", "k1"], {"k0": {"gpu"}})

    assert assign(members, keys, held={"k0": "b", "k1": "a"}).holders() == {"k0": "a", "k1": "b"}


def test_changes_tell_what_is_gained_and_lost() -> None:
    before = assign([Member("a"), Member("b")], KeySet(keys_named(90)))
    after = before.after([Member("a"), Member("b"), Member("c")])

    moved = set(after.moved_since(before))
    lost = {key for node in "ab" for key in after.change_since(before, node).lost}

    assert len(moved) == 30
    assert lost == moved == set(after.change_since(before, "c").gained)
    assert after.change_since(before, "a").gained == ()
    assert after.change_since(before, "nobody") == after.change_since(after, "a")
    assert set(after.keys()) == set(keys_named(90))


def test_changed_keys_are_hashed_as_if_new() -> None:
    keys = KeySet(["a", "b", "c"])

    changed = keys.changed(add=["d", b"e", "a"], remove=["b", "unknown"])

    assert changed.names == ("a", "c", "d", "e")
    assert changed.hashes == KeySet(changed.names).hashes
    assert keys.names == ("a", "b", "c")
    assert keys.changed(add=["a"], remove=["a"]).names == ("a", "b", "c")


def test_nobody_and_nothing() -> None:
    assert assign([], ["k"]).unassigned == ("k",)
    assert assign([Member("a")], []).loads == {"a": 0}
    assert assign([], []).after([Member("a")]).unassigned == ()
    assert assign([Member("a")], ["k"]).after([]).unassigned == ("k",)
    with pytest.raises(KeyError):
        assign([], ["k"])["k"]
    with pytest.raises(KeyError):
        assign([Member("a")], ["k"])["unknown"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"node_id": "a/b"}, "not have '/'"),
        ({"node_id": ""}, "1 to 512 bytes"),
        ({"incarnation": "1/2"}, "without '/'"),
        ({"weight": -1}, "0 or a number from 0.001"),
        ({"weight": 0.0001}, "0 or a number from 0.001"),
        ({"weight": 2e6}, "to 1,000,000"),
        ({"weight": float("nan")}, "0 or a number"),
        ({"weight": True}, "0 or a number"),
        ({"max_leases": -1}, "whole number from 0"),
        ({"max_leases": 1.5}, "whole number from 0"),
        ({"max_leases": 2**31}, "whole number from 0 to 2147483647"),
        ({"labels": "gpu"}, "a set of texts"),
        ({"labels": {""}}, "not empty"),
        ({"labels": {7}}, "texts"),
    ],
)
def test_a_bad_member_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Member(**({"node_id": "a"} | wrong))


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ({"k": "gpu"}, "a set of texts"),
        ({"k": set()}, "names no label"),
        ({"k": [1]}, "texts"),
        ("gpu", "map keys to sets of labels"),
    ],
)
def test_bad_labels_are_refused(only: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        KeySet(["k"], only)


def test_bad_fleets_and_keys_are_refused() -> None:
    with pytest.raises(ConfigError, match="two members are 'a/1'"):
        assign([Member("a", "1"), Member("a", "1", weight=2)], ["k"])
    with pytest.raises(ConfigError, match="1 to 512 bytes"):
        assign([Member("a")], [""])


def test_hashes_are_those_of_blake2b() -> None:
    digest = hashlib.blake2b(b"k", digest_size=8, person=b"key").digest()

    assert KeySet(["k"]).hashes[0] == int.from_bytes(digest, "little")
