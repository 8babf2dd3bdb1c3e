"""What running groups do: a join or a leave moves a share and little more, and all nodes agree.

Nodes go by the members and the plan that the fleet keeps (`multielect._fleet.plan`). In each step
here somebody comes, goes or changes its weight; some nodes have heard of the newest plan, and
others only of the one before; they must come to the same.

The bound, for a node that comes or goes: its share in whole keys, and 5 % of all keys, or one key
where that is more, as rounding may ask for one.
"""

from __future__ import annotations

import math
import random

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
    may_lead,
    min_moves,
)
from tests.balance.test_moves import STEPS, walk

from multielect._fleet.plan import MAX_NEW_KEYS, Plan, following, planned, read_plan
from multielect.balance import Assignment, KeySet, Member

COUNTS = st.one_of(st.integers(1, 70), st.integers(1, 5_000))


class Fleet:
    """What the nodes of a fleet know: some the newest plan, some the one before."""

    def __init__(self, keys: KeySet, members: list[Member]) -> None:
        self.keys = keys
        self.plan: Plan | None = None
        self.answer = self.become(members)

    def become(self, members: list[Member]) -> Assignment:
        """Go on with other members. Returns who is to lead what, having checked that all agree."""
        old = self.plan
        answer = planned(members, self.keys, old)
        text = following(answer, old)
        if text is not None:
            self.plan = read_plan(1 if old is None else old.number + 1, text)
        turned = KeySet(reversed(self.keys.names), self.keys.only)
        assert planned(members[::-1], turned, self.plan) == answer, "it matters who knows the plan"
        self.answer = answer
        return answer


def max_moves(share: float, keys: int) -> int:
    return math.ceil(share) + max(1, keys // 20)


@examples(120)
@given(fleets(), COUNTS, STEPS)
def test_equal_nodes(
    members: list[Member], count: int, steps: list[tuple[bool, float, int | None, int]]
) -> None:
    fleet = Fleet(KeySet(keys_named(count)), members)
    for after, _ in walk(members, [(joins, 1.0, None, at) for joins, _, _, at in steps]):
        before = fleet.answer

        answer = fleet.become(after)

        assert len(answer) == count
        assert max(answer.loads.values()) - min(answer.loads.values()) <= 1
        largest = max(len(before.members), len(after))
        share = math.ceil(count / largest)
        # Where there is a plan, not even the 5 % are needed.
        allowed = share if count <= MAX_NEW_KEYS else max_moves(share, count)
        assert len(answer.moved_since(before)) <= allowed


@examples(150)
@given(fleets(weights=WEIGHTS), COUNTS, STEPS)
def test_weights(
    members: list[Member], count: int, steps: list[tuple[bool, float, int | None, int]]
) -> None:
    fleet = Fleet(KeySet(keys_named(count)), members)
    for after, subject in walk(members, [(joins, w, None, at) for joins, w, _, at in steps]):
        before = fleet.answer

        answer = fleet.become(after)

        weight = sum(member.thousandths for member in after)
        for member in after:
            assert abs(answer.loads[member.holder] - count * member.thousandths / weight) < 1
        largest = max(before.members, after, key=len)
        share = count * subject.thousandths / sum(member.thousandths for member in largest)
        assert len(answer.moved_since(before)) <= max_moves(share, count)


@examples(80)
@given(fleets(weights=WEIGHTS, caps=CAPS), COUNTS, STEPS)
def test_caps(
    members: list[Member], count: int, steps: list[tuple[bool, float, int | None, int]]
) -> None:
    fleet = Fleet(KeySet(keys_named(count)), members)
    for after, subject in walk(members, steps):
        before = fleet.answer

        answer = fleet.become(after)

        for member in after:
            assert member.max_leases is None or answer.loads[member.holder] <= member.max_leases
        # A share is then what a node has, as a cap may give its neighbours more.
        loads = [each.loads.get(subject.holder, 0) for each in (before, answer)]
        assert len(answer.moved_since(before)) <= max_moves(max(loads), count)


@examples(50)
@given(fleets(weights=WEIGHTS, caps=CAPS, labels=LABEL_SETS, most=7), labelled_keys(most=24), STEPS)
def test_labels_move_the_least_there_is_for_their_loads(
    members: list[Member], keys: KeySet, steps: list[tuple[bool, float, int | None, int]]
) -> None:
    fleet = Fleet(keys, members)
    for after, _ in walk(members, steps[:4]):
        before = fleet.answer

        answer = fleet.become(after)

        assert all(may_lead(keys, member, key) for key, member in answer.items())
        moves = sum(key not in answer or answer[key].holder != before[key].holder for key in before)
        assert moves == min_moves(before.holders(), answer)


@pytest.mark.parametrize("count", [10, 100, 1_000, 4_044])
@pytest.mark.parametrize("weights", [[1.0], [0.5, 1, 1, 2, 4, 8]], ids=["equal", "weighted"])
def test_a_rolling_deploy_moves_two_shares_a_node(count: int, weights: list[float]) -> None:
    chance = random.Random(f"{count} {weights}")
    members = [Member(f"node-{n}", "1", chance.choice(weights)) for n in range(20)]
    fleet = Fleet(KeySet(keys_named(count)), members)
    total = sum(member.weight for member in members)
    for number, member in enumerate(list(members)):
        # It drains, is gone, and comes again; each is another fleet.
        for instead in ([Member(member.node_id, "1", 0.0)], [], [Member(member.node_id, "2")]):
            others = [other for other in members if other.node_id != member.node_id]
            before = fleet.answer
            weight = instead[0].weight if instead else 0.0
            members = [*others, *instead]
            answer = fleet.become(members)
            share = count * max(member.weight, weight) / total
            moved = len(answer.moved_since(before))
            assert moved <= (max_moves(share, count) if instead else 0), (number, instead)
        total = sum(member.weight for member in members)
