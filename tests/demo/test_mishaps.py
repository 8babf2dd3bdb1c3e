"""A change of the fleet is over when every share is even, and is a finding if that never comes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import pytest

from multielect import DemotionReason
from multielect.cli.demo.beliefs import BelievedTerm
from multielect.cli.demo.mishaps import Mishaps, is_balanced
from multielect.cli.demo.result import Change, Result
from multielect.cli.demo.view import NodeState, Snapshot

from .examples import MS, term

RUNNING, FROZEN, STARTING = NodeState.RUNNING, NodeState.FROZEN, NodeState.STARTING
STOPPING = NodeState.STOPPING


def snapshot(leads: dict[str, int], leaderless: int = 0, **states: NodeState) -> Snapshot:
    return Snapshot(
        elapsed_s=1.0,
        events=10,
        committed=5,
        per_second=1.0,
        refused=0,
        leads=leads,
        leaderless=leaderless,
        states=states or dict.fromkeys("xy", RUNNING),
    )


EVEN = snapshot({"x": 2, "y": 3})
UNEVEN = snapshot({"x": 1, "y": 4})


@pytest.mark.parametrize(
    "stand",
    [
        EVEN,
        snapshot({"x": 2, "y": 2}),
        snapshot({"x": 5}, x=RUNNING, y=FROZEN),
        snapshot({"x": 5}, x=RUNNING, y=STARTING),
        snapshot({"x": 1}, x=RUNNING, y=RUNNING),
    ],
)
def test_even_shares_are_balanced(stand: Snapshot) -> None:
    assert is_balanced(stand)


@pytest.mark.parametrize(
    "stand",
    [
        UNEVEN,
        snapshot({"x": 5}),
        snapshot({"x": 2, "y": 2}, leaderless=1),
        snapshot({"x": 2, "y": 1}, leaderless=0, x=RUNNING, y=STOPPING),
        snapshot({"x": 2, "y": 1, "z": 2}, x=RUNNING, y=STOPPING, z=RUNNING),
        snapshot({"x": 3, "y": 1, "z": 2}, x=RUNNING, y=RUNNING, z=RUNNING),
        snapshot({"x": 2, "y": 2, "z": 4}, x=RUNNING, y=RUNNING, z=RUNNING),
    ],
)
def test_uneven_shares_and_leases_of_who_is_gone_are_not(stand: Snapshot) -> None:
    assert not is_balanced(stand)


class Script:
    """A fleet and a watch that go through given looks, each with what was believed by then."""

    def __init__(self, *looks: tuple[Snapshot, list[BelievedTerm]]) -> None:
        self._looks = looks
        self._terms: list[BelievedTerm] = []

    def terms(self) -> Iterable[BelievedTerm]:
        return self._terms

    def sees(self, done: Callable[[Snapshot], bool]) -> bool:
        for shown, terms in self._looks:
            self._terms = terms
            if done(shown):
                return True
        return False


def change(*looks: tuple[Snapshot, list[BelievedTerm]]) -> Change:
    script = cast("Any", Script(*looks))
    mishaps = Mishaps(script, script, script, Result(elections=5, nodes=2))
    return mishaps._change("y", 2, 50 * MS, comes=True)


# Four elections that stay with their nodes.
STAYING = [term(node, 1, 0, None, election=place) for place, node in enumerate("xxyy", start=1)]
HANDED = term("x", 1, 0, 60, reason=DemotionReason.REBALANCED)
TAKEN = term("y", 2, 60, None, elected_ms=64)


def test_a_change_is_over_when_shares_are_even_and_every_successor_was_told() -> None:
    found = change(
        (UNEVEN, [HANDED]),
        (EVEN, [HANDED]),
        (EVEN, [*STAYING, HANDED, TAKEN]),
        (UNEVEN, []),
    )

    assert found.is_balanced
    assert (found.given, found.moves.moved, found.moves.lost) == (1, 1, 0)
    assert found.takeovers.durations_ms == [4.0]


@pytest.mark.parametrize("stand", [UNEVEN, EVEN])
def test_a_change_that_does_not_come_to_its_end_is_a_finding(stand: Snapshot) -> None:
    found = change((stand, [HANDED]), (stand, [HANDED]))

    assert not found.is_balanced
    assert found.moves.unfinished == 1
    assert found.is_idle


def test_a_change_in_which_nothing_moved_is_idle() -> None:
    found = change((EVEN, [*STAYING, term("y", 1, 0, None)]))

    assert found.is_balanced
    assert found.is_idle


@pytest.mark.parametrize(
    "late",
    [
        pytest.param([term("x", 1, 0, None)], id="neither told"),
        pytest.param([term("x", 1, 0, None), TAKEN], id="its leader did not tell of the end"),
        pytest.param([HANDED], id="the next one did not tell"),
    ],
)
def test_a_move_that_the_server_knows_before_it_is_told_is_waited_for(
    late: list[BelievedTerm],
) -> None:
    found = change((EVEN, [*STAYING, *late]), (EVEN, [*STAYING, HANDED, TAKEN]))

    assert found.is_balanced
    assert found.moves.moved == 1
