"""A join or a leave moves no more than it must."""

from __future__ import annotations

import math
import random

import pytest
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
    min_moves,
)

from multielect.balance import Assignment, KeySet, Member, assign

STEPS = st.lists(st.tuples(st.booleans(), WEIGHTS, CAPS, st.integers(0, 63)), max_size=8)


def walk(
    members: list[Member], steps: list[tuple[bool, float, int | None, int]]
) -> list[tuple[list[Member], Member]]:
    """Return the fleet after each join or leave, with who came or went."""
    fleet, stages = list(members), []
    for number, (joins, weight, cap, which) in enumerate(steps):
        if (joins or len(fleet) == 1) and len(fleet) < 64:
            subject = Member(f"late-{number}", "1", weight, cap)
            fleet = [*fleet, subject]
        else:
            subject = fleet[which % len(fleet)]
            fleet = [member for member in fleet if member is not subject]
        stages.append((fleet, subject))
    return stages


def load_of(subject: Member, before: Assignment, after: Assignment) -> int:
    return max(before.loads.get(subject.holder, 0), after.loads.get(subject.holder, 0))


@examples(100)
@given(fleets(), KEY_COUNTS, STEPS)
def test_equal_nodes_move_one_share_and_no_key_more(
    members: list[Member], count: int, steps: list[tuple[bool, float, int | None, int]]
) -> None:
    answer = assign(members, KeySet(keys_named(count)))
    for fleet, subject in walk(members, [(joins, 1.0, None, at) for joins, _, _, at in steps]):
        before, answer = answer, answer.after(fleet)
        largest = max(len(before.members), len(fleet))

        moved = len(answer.moved_since(before))

        assert moved == load_of(subject, before, answer)
        assert moved <= math.ceil(count / largest)
        assert max(answer.loads.values()) - min(answer.loads.values()) <= 1


@examples(150)
@given(fleets(weights=WEIGHTS), KEY_COUNTS, STEPS)
def test_weighted_nodes_move_a_share_and_at_most_five_percent(
    members: list[Member], count: int, steps: list[tuple[bool, float, int | None, int]]
) -> None:
    answer = assign(members, KeySet(keys_named(count)))
    for fleet, subject in walk(members, [(joins, w, None, at) for joins, w, _, at in steps]):
        before, answer = answer, answer.after(fleet)
        largest = max(before.members, fleet, key=len)
        share = count * subject.weight / sum(member.weight for member in largest)

        moved = len(answer.moved_since(before))

        # Rounding may ask for a key more, however few there are.
        assert moved <= math.ceil(share) + max(1, count // 20)
        assert moved == min_moves_for_loads(before, answer)


def min_moves_for_loads(before: Assignment, after: Assignment) -> int:
    """Return how many keys must move where all may lead all: what each has too many."""
    loads = after.loads
    return sum(max(0, load - loads.get(holder, 0)) for holder, load in before.loads.items())


@examples(100)
@given(fleets(weights=WEIGHTS, caps=CAPS), KEY_COUNTS, STEPS)
def test_caps_move_only_what_the_loads_ask_for(
    members: list[Member], count: int, steps: list[tuple[bool, float, int | None, int]]
) -> None:
    answer = assign(members, KeySet(keys_named(count)))
    for fleet, subject in walk(members, steps):
        before, answer = answer, answer.after(fleet)

        moved = len(answer.moved_since(before))

        assert moved == min_moves_for_loads(before, answer)
        assert moved <= load_of(subject, before, answer) + max(1, count // 20)


@examples(60)
@given(
    fleets(weights=WEIGHTS, caps=CAPS, labels=LABEL_SETS, most=6),
    fleets(weights=WEIGHTS, caps=CAPS, labels=LABEL_SETS, most=7),
    labelled_keys(most=24),
)
def test_with_labels_no_way_to_the_same_loads_moves_less(
    members: list[Member], others: list[Member], keys: KeySet
) -> None:
    before = assign(members, keys)

    after = before.after(others)

    moved = sum(after.get(key) is None or after[key].holder != before[key].holder for key in before)
    assert moved == min_moves(before.holders(), after)


@examples(60)
@given(
    fleets(weights=WEIGHTS, caps=CAPS, labels=LABEL_SETS, most=12),
    fleets(weights=WEIGHTS, caps=CAPS, labels=LABEL_SETS, most=12),
    labelled_keys(),
)
def test_nothing_moves_when_nothing_changes(
    members: list[Member], others: list[Member], keys: KeySet
) -> None:
    answer = assign(members, keys).after(others)

    assert answer.after(others) == answer
    assert assign(others, keys, held=answer.holders()) == answer


@examples(100)
@given(
    fleets(weights=WEIGHTS, caps=CAPS, most=20),
    fleets(weights=WEIGHTS, caps=CAPS, most=20),
    KEY_COUNTS,
    st.randoms(use_true_random=False),
)
def test_moves_half_made_do_not_change_the_other_half(
    members: list[Member], others: list[Member], count: int, chance: random.Random
) -> None:
    keys = KeySet(keys_named(count))
    before = assign(members, keys)
    after = before.after(others)
    old, new = before.holders(), after.holders()

    seen = {}
    for key in keys.names:
        between = old.get(key) if old.get(key) == new.get(key) else None
        holder = chance.choice([old.get(key), new.get(key), between])
        if holder is not None:
            seen[key] = holder

    assert assign(others, keys, held=seen) == after


@examples(30)
@given(
    fleets(weights=WEIGHTS, caps=CAPS, labels=LABEL_SETS, most=12),
    fleets(weights=WEIGHTS, caps=CAPS, labels=LABEL_SETS, most=12),
    labelled_keys(),
    st.randoms(use_true_random=False),
)
def test_with_labels_moves_come_to_an_end_as_well(
    members: list[Member], others: list[Member], keys: KeySet, chance: random.Random
) -> None:
    seen = assign(members, keys).holders()
    for _ in range(60):
        wanted = assign(others, keys, held=seen).holders()
        due = [key for key in keys.names if seen.get(key) != wanted.get(key)]
        if not due:
            break
        for key in chance.sample(due, (len(due) + 2) // 3):
            if key in wanted:
                seen[key] = wanted[key]
            else:
                del seen[key]
    else:
        pytest.fail("still moving")


@examples(60)
@given(fleets(weights=WEIGHTS, most=20), KEY_COUNTS, st.integers(1, 50))
def test_new_keys_move_no_others_than_shares_ask_for(
    members: list[Member], count: int, more: int
) -> None:
    keys = KeySet(keys_named(count))
    before = assign(members, keys)
    grown = before.after(members, keys.changed(add=[f"new-{number}" for number in range(more)]))

    loads = {
        node: sum(key.startswith("partition") for key in grown.of(node)) for node in grown.loads
    }
    moved = len(grown.moved_since(before))

    assert moved == sum(max(0, before.loads[node] - loads[node]) for node in loads)
    assert moved <= len(members)
    # Each rounded load may be one key off.
    assert len(grown.after(members, keys).moved_since(grown)) <= len(members)


@pytest.mark.parametrize("count", [1_000, 4_044, 20_000])
@pytest.mark.parametrize("size", [2, 5, 20, 64])
@pytest.mark.parametrize("weights", [[1.0], [0.5, 1, 1, 2, 4, 8]], ids=["equal", "weighted"])
def test_without_what_was_held_five_percent_from_a_thousand_keys_on(
    count: int, size: int, weights: list[float]
) -> None:
    keys = KeySet(keys_named(count))
    chance = random.Random(f"{count} {size} {weights}")
    for attempt in range(5):
        fleet = [
            Member(f"node-{attempt}-{number}", weight=chance.choice(weights))
            for number in range(size)
        ]
        share = math.ceil(count * fleet[-1].weight / sum(member.weight for member in fleet))
        small, large = assign(fleet[:-1], keys), assign(fleet, keys)

        assert len(large.moved_since(small)) <= share + 0.05 * count
        assert len(small.moved_since(large)) <= share + 0.05 * count
