"""The plan: what is kept of an assignment, how it is read, and when another follows."""

from __future__ import annotations

import contextlib
import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from multielect._fleet.plan import (
    MAX_KEYS,
    MAX_NEW_KEYS,
    Plan,
    following,
    planned,
    read_plan,
    succeeding,
)
from multielect.balance import Assignment, KeySet, Member, assign

FLEET = [Member("a", "1"), Member("b", "2", weight=2.0), Member("ü c", "3", max_leases=7)]


def keys(count: int) -> KeySet:
    return KeySet(f"k{number}" for number in range(count))


def next_plan(assignment: Assignment, plan: Plan | None = None) -> Plan:
    text = following(assignment, plan)
    assert text is not None
    return read_plan(1 if plan is None else plan.number + 1, text)


def test_a_plan_that_is_read_says_what_the_assignment_did() -> None:
    assignment = assign(FLEET, keys(100))
    plan = next_plan(assignment)
    assert plan.numbered_text == b"1 " + plan.text
    assert planned(FLEET, keys(100), plan) == assignment
    named = {key: plan.held[h] for key, h in zip(keys(100).names, keys(100).hashes, strict=True)}
    assert named == assignment.holders()


def test_bytes_that_are_no_text_survive() -> None:
    odd = Member(b"\xff\xfe".decode("utf-8", "surrogateescape"), "1")
    assert set(next_plan(assign([odd], keys(3))).held.values()) == {odd.holder}


def test_a_plan_by_another_is_the_same_plan() -> None:
    assignment = assign(FLEET, keys(100))
    turned = assign(list(reversed(FLEET)), KeySet(reversed(keys(100).names)))
    assert following(turned, None) == following(assignment, None)


@pytest.mark.parametrize(
    "other",
    [
        FLEET[:2],
        [*FLEET[:2], Member("ü c", "4", max_leases=7)],
        [*FLEET[:2], Member("ü c", "3", max_leases=8)],
        [*FLEET[:2], Member("ü c", "3", weight=1.001, max_leases=7)],
        [*FLEET[:2], Member("ü c", "3", max_leases=7, labels=frozenset("x"))],
    ],
)
def test_another_follows_where_the_fleet_is_another(other: list[Member]) -> None:
    plan = next_plan(assign(FLEET, keys(10)))
    assert following(planned(FLEET, keys(10), plan), plan) is None
    assert following(planned(other, keys(10), plan), plan) is not None


def test_other_keys_make_no_other_plan_but_are_given_out_all_the_same() -> None:
    plan = next_plan(assign(FLEET, keys(10)))
    more = planned(FLEET, keys(16), plan)
    assert following(more, plan) is None
    assert len(more) == 16
    # All are assigned anew only as far as the loads ask for.
    assert len(more.moved_since(assign(FLEET, keys(10)))) <= len(FLEET)


def test_many_keys_need_no_plan() -> None:
    assert following(assign(FLEET, keys(MAX_NEW_KEYS)), None) is not None
    assert following(assign(FLEET, keys(MAX_NEW_KEYS + 1)), None) is None


def test_a_plan_is_kept_up_to_twice_as_many() -> None:
    few, many = keys(MAX_KEYS), keys(MAX_KEYS + 1)
    plan = next_plan(assign(FLEET, keys(10)))
    assert len(next_plan(planned(FLEET[:2], few, plan), plan).held) == MAX_KEYS
    given_up = next_plan(planned(FLEET[:2], many, plan), plan)
    assert given_up.held == {}
    assert planned(FLEET[:2], many, given_up) == assign(FLEET[:2], many)
    # And it is said once.
    assert following(assign(FLEET, many), given_up) is None


@pytest.mark.parametrize("count", [100, MAX_NEW_KEYS + 1])
def test_who_leaves_names_the_successors_that_the_others_come_to(count: int) -> None:
    old = next_plan(assign(FLEET[1:], keys(count))) if count == 100 else None
    assignment = planned(FLEET, keys(count), old)
    text = following(assignment, old)
    kept = None if text is None else read_plan(2, text)
    assert succeeding(assignment, old, FLEET[:2]) == planned(FLEET[:2], keys(count), kept)
    # Who has heard of it by then comes to the same.
    assert succeeding(assignment, kept, FLEET[:2]) == planned(FLEET[:2], keys(count), kept)


def test_a_first_plan_moves_nothing() -> None:
    before = assign(FLEET, keys(500))
    assert planned(FLEET, keys(500), next_plan(before)) == before


@example(b"-1:")
@example(b"1:x1:y3:abc")
@example(b"1:x1:y")
@given(st.binary(max_size=60))
def test_any_text_is_read_or_refused(text: bytes) -> None:
    with contextlib.suppress(ValueError):
        planned(FLEET, keys(5), read_plan(1, text))


def test_a_plan_that_is_cut_off_is_refused_or_says_less() -> None:
    text = next_plan(assign(FLEET, keys(20))).text
    chance = random.Random(1)
    for length in chance.sample(range(len(text)), 60):
        try:
            plan = read_plan(1, text[:length])
        except ValueError:
            continue
        assert len(planned(FLEET, keys(20), plan)) == 20
