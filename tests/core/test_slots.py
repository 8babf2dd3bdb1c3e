"""Elections come and go; what speaks of an earlier one never speaks for a later one."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multielect._core.candidacy import BaseCandidacy
from multielect._core.core import Core
from multielect._core.driver import Driver
from multielect._protocol.scripts import WITH_FLAGS
from multielect._runtime.clock import ManualClock

from .rig import LAYOUT, Rig


def test_the_seat_of_a_removed_election_reads_false_also_when_its_slot_is_used_again(
    rig: Rig,
) -> None:
    node = rig.leader("old")
    old, number = node.candidacy("old"), node.number("old")
    old_term = node.candidacy("old", term_epoch=old.epoch)
    old_epoch = old.epoch
    node.remove("old")
    assert not reads_leader(old)
    assert old.is_removed
    rig.settle()
    assert not reads_leader(old)

    new = rig.another_of_its_bucket("old")
    node.add(new)
    assert node.number(new) == number, "the slot is used again"
    rig.settle()
    assert node.leads(new)
    for candidacy in (old, old_term):
        assert not reads_leader(candidacy)
        assert candidacy.remaining == 0.0
        assert candidacy.is_removed
    assert old.epoch == 0
    assert old_term.epoch == old_epoch


def reads_leader(candidacy: BaseCandidacy) -> bool:
    return candidacy.is_leader


def test_a_stale_number_changes_nothing(rig: Rig) -> None:
    node = rig.leader("old")
    number, generation = node.place("old")
    node.remove("old")
    rig.settle()
    node.add("new")
    rig.settle()

    now_ns = rig.clock.now_ns()
    assert not node.core.elections.resign(number, generation, 0, now_ns)
    assert node.leads("new")
    assert node.resign("new")
    rig.settle()
    node.core.elections.campaign(number, generation)
    rig.settle()
    assert not node.leads("new"), "it is still in its cooldown"
    assert node.core.elections.leader(number, generation) is None


def test_a_slot_is_kept_until_its_last_event_is_taken(rig: Rig) -> None:
    node = rig.leader("old")
    number = node.number("old")
    node.core.elections.remove(b"old", rig.clock.now_ns())
    node.driver.turn(rig.clock.now_ns())
    node.take_outgoing()
    node.driver.receive(b"*3\r\n:1\r\n*0\r\n*0\r\n", rig.clock.now_ns())
    new = rig.another_of_its_bucket("old")
    node.add(new)
    assert node.number(new) != number
    node.take()
    assert node.told("old")[-1] is not None
    newer = rig.another_of_its_bucket(new)
    node.add(newer)
    assert node.number(newer) == number


def test_a_seat_of_one_term_ends_with_it(rig: Rig) -> None:
    node = rig.leader("a")
    first = node.candidacy("a", term_epoch=node.candidacy("a").epoch)
    assert reads_leader(first)
    node.resign("a")
    rig.settle()
    node.campaign("a")
    rig.settle()
    assert node.leads("a")
    assert not reads_leader(first)


def test_an_abandoned_core_leads_nothing(rig: Rig) -> None:
    node = rig.leader("a")
    node.core.elections.abandon()
    assert not node.leads("a")
    assert node.candidacy("a").remaining == 0.0


def test_a_seat_needs_a_slot(rig: Rig) -> None:
    node = rig.leader("a")
    with pytest.raises(IndexError, match="no election number 1024"):
        BaseCandidacy(node.core.elections.slots, rig.clock, 1024, 0)


def test_adding_twice_gives_the_same_election(rig: Rig) -> None:
    node = rig.leader("a")
    bucket = node.layout.bucket(b"a")
    assert node.core.elections.add(b"a", bucket) == (*node.place("a"), False)
    assert len(node.core.elections) == 1
    assert node.leads("a")


def make_core() -> Core:
    return Core(
        now_ns=10**9,
        ttl_ns=10**9,
        margin_ns=0,
        key_prefixes=LAYOUT.key_prefixes,
        separator=LAYOUT.separator,
        holder=b"node/1",
        channel=LAYOUT.channel,
    )


steps = st.lists(
    st.tuples(st.sampled_from(["add", "add", "remove", "take"]), st.binary(max_size=2)),
    max_size=300,
)


@settings(max_examples=200)
@given(steps=steps)
def test_the_index_holds_what_a_dictionary_would(steps: list[tuple[str, bytes]]) -> None:
    core = make_core()
    there: dict[bytes, tuple[int, int]] = {}
    for what, key in steps:
        if what == "add":
            number, generation, is_new = core.elections.add(key, 0)
            assert is_new is (key not in there)
            assert there.setdefault(key, (number, generation)) == (number, generation)
        elif what == "remove":
            assert core.elections.remove(key, 10**9) is (there.pop(key, None) is not None)
        elif what == "take":
            assert core.reporter.take_events() == []
        assert core.elections.find(key) == there.get(key)
        assert len(core.elections) == len(there)
    assert sorted(core.elections.list_keys()) == sorted(there)
    for key, place in there.items():
        assert core.elections.find(key) == place


def test_fifty_thousand_elections_are_all_found() -> None:
    core = make_core()
    keys = [b"key-%d" % number for number in range(50_000)]
    places = {key: core.elections.add(key, 0)[:2] for key in keys}
    gone = random.Random(1).sample(keys, 30_000)
    for key in gone:
        del places[key]
        assert core.elections.remove(key, 10**9)
    core.reporter.take_events()
    assert all(core.elections.find(key) is None for key in gone)
    assert {key: core.elections.find(key) for key in places} == places
    assert sorted(core.elections.list_keys()) == sorted(places)


def test_elections_are_added_before_and_after_the_start() -> None:
    core, clock = make_core(), ManualClock()
    driver = Driver(core)
    core.elections.add(b"before", 0)
    driver.connect(WITH_FLAGS)
    driver.turn(clock.now_ns())
    assert driver.outgoing_bytes == 0, "not started"
    core.elections.start()
    core.elections.add(b"after", 0)
    driver.turn(clock.now_ns())
    with memoryview(driver.outgoing) as waiting:
        assert bytes(waiting).index(b"before") < bytes(waiting).index(b"after")


@pytest.mark.parametrize("batch_keys", [0, 251])
def test_a_batch_size_out_of_bounds_is_refused(batch_keys: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 250"):
        Core(
            now_ns=1,
            ttl_ns=10**9,
            margin_ns=0,
            key_prefixes=LAYOUT.key_prefixes,
            separator=b":",
            holder=b"n/1",
            channel=b"c",
            batch_keys=batch_keys,
        )
