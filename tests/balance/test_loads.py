"""Loads are fair: by weight, within caps, among those who may."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st
from tests.balance.fleets import (
    CAPS,
    KEY_COUNTS,
    LABEL_SETS,
    WEIGHTS,
    examples,
    fleets,
    keys_named,
    labelled_keys,
    may_lead,
    reaches,
)

from multielect.balance import Assignment, KeySet, Member, assign


def given_out(answer: Assignment) -> None:
    """Check that every key is with exactly one member, or is told to be with none."""
    given_out = [key for member in answer.members for key in answer.of(member.holder)]
    assert sorted([*given_out, *answer.unassigned]) == sorted(answer.keys_given.names)
    assert answer.loads == {m.holder: len(answer.of(m.holder)) for m in answer.members}
    for member in answer.members:
        assert all(answer[key] is member for key in answer.of(member.holder))


@examples(100)
@given(fleets(), KEY_COUNTS)
def test_equal_nodes_differ_by_at_most_one(members: list[Member], count: int) -> None:
    answer = assign(members, keys_named(count))

    given_out(answer)
    assert not answer.unassigned
    assert max(answer.loads.values()) - min(answer.loads.values()) <= 1


@examples(100)
@given(fleets(weights=WEIGHTS), KEY_COUNTS)
def test_loads_are_shares_rounded_down_or_up(members: list[Member], count: int) -> None:
    answer = assign(members, keys_named(count))

    given_out(answer)
    assert not answer.unassigned
    weight = sum(member.thousandths for member in members)
    for member in members:
        share = Fraction(count * member.thousandths, weight)
        assert int(share) <= answer.loads[member.holder] <= -int(-share // 1)


@examples(100)
@given(fleets(weights=WEIGHTS, caps=CAPS), KEY_COUNTS)
def test_caps_hold_and_the_rest_is_shared_by_weight(members: list[Member], count: int) -> None:
    answer = assign(members, keys_named(count))

    given_out(answer)
    loads = answer.loads
    full = [m for m in members if m.max_leases is not None and loads[m.holder] == m.max_leases]
    others = [member for member in members if member not in full]
    for member in members:
        assert member.max_leases is None or loads[member.holder] <= member.max_leases
    if others:
        assert not answer.unassigned
        left = count - sum(loads[member.holder] for member in full)
        weight = sum(member.thousandths for member in others)
        for member in others:
            # By one more than rounding, as a share that rounds up to a cap fills it.
            share = Fraction(left * member.thousandths, weight)
            assert abs(loads[member.holder] - share) < 2
    else:
        assert len(answer) == sum(member.max_leases or 0 for member in members)
    for member in full:
        # Nobody is kept at a cap while another has more for its weight than rounding explains.
        for other in others:
            assert (loads[member.holder] - 1) * other.thousandths <= (
                loads[other.holder] + 1
            ) * member.thousandths


@examples(150)
@given(fleets(caps=CAPS, labels=LABEL_SETS, most=12), labelled_keys())
def test_no_chain_of_moves_evens_out_equal_nodes(members: list[Member], keys: KeySet) -> None:
    answer = assign(members, keys)

    given_out(answer)
    loads = answer.loads
    assert all(may_lead(keys, member, key) for key, member in answer.items())
    for member in members:
        if member.max_leases is None or loads[member.holder] < member.max_leases:
            givers, loose = reaches(answer, member)
            assert not loose
            assert all(loads[giver] <= loads[member.holder] + 1 for giver in givers)
        else:
            assert loads[member.holder] == member.max_leases


@examples(150)
@given(fleets(weights=WEIGHTS, caps=CAPS, labels=LABEL_SETS, most=12), labelled_keys())
def test_no_chain_of_moves_evens_out_weights(members: list[Member], keys: KeySet) -> None:
    answer = assign(members, keys)

    given_out(answer)
    loads, weights = answer.loads, {member.holder: member.thousandths for member in members}
    assert all(may_lead(keys, member, key) for key, member in answer.items())
    for member in members:
        if member.max_leases is None or loads[member.holder] < member.max_leases:
            givers, loose = reaches(answer, member)
            assert not loose
            more = loads[member.holder] + 1
            assert all(
                (loads[giver] - 1) * weights[member.holder] <= more * weights[giver]
                for giver in givers
            )


@examples(60)
@given(fleets(weights=WEIGHTS, most=12), fleets(weights=WEIGHTS, most=12), KEY_COUNTS)
def test_what_was_held_changes_no_rule(
    members: list[Member], others: list[Member], count: int
) -> None:
    answer = assign(others, keys_named(count)).after(members)

    given_out(answer)
    weight = sum(member.thousandths for member in members)
    for member in members:
        share = Fraction(count * member.thousandths, weight)
        assert abs(answer.loads[member.holder] - share) < 1


@examples(40)
@given(st.integers(1, 20), KEY_COUNTS)
def test_weight_nothing_gets_nothing_and_keeps_nothing(size: int, count: int) -> None:
    members = [Member(f"node-{number}") for number in range(size)]
    keys = KeySet(keys_named(count))
    leaving = Member("node-0", weight=0)

    answer = assign(members, keys).after([leaving, *members[1:]])

    given_out(answer)
    assert answer.of("node-0") == ()
    assert len(answer.unassigned) == (count if size == 1 else 0)
