"""Takeovers are counted from the right instant to the right callback."""

from __future__ import annotations

from collections import Counter

import pytest

from multielect import DemotionReason
from multielect.cli.demo.leases import Lease
from multielect.cli.demo.takeover import (
    Moves,
    Takeovers,
    after_lease_ends,
    first_elected,
    moves_since,
)

from .examples import MS, term

DRAINED, REBALANCED = DemotionReason.DRAINED, DemotionReason.REBALANCED
LOST = DemotionReason.LOST


def test_a_crash_is_counted_from_the_lease_end_to_the_first_successors_callback() -> None:
    leases = {0: Lease("dead", 100 * MS), 1: Lease("dead", 150 * MS)}
    terms = [
        term("dead", 1, 0, 90),
        term("early", 1, 10, 20, election=0),
        term("x", 2, 101, 140, elected_ms=103),
        term("y", 3, 141, None),
        term("y", 2, 151, None, election=1, elected_ms=158),
        term("y", 2, 95, None, election=2),
    ]

    assert after_lease_ends(leases, 90 * MS, terms) == Takeovers([3.0, 8.0])


def test_an_election_without_a_successor_has_no_takeover() -> None:
    leases = {0: Lease("frozen", 100 * MS)}

    assert len(after_lease_ends(leases, 90 * MS, [term("frozen", 9, 95, None)])) == 0


def test_what_moved_is_counted_from_the_end_of_belief() -> None:
    terms = [
        term("gone", 1, 0, 49, reason=LOST),
        term("gone", 3, 49, 51, reason=DRAINED),
        term("x", 4, 52, None, elected_ms=56),
        term("gone", 3, 20, 52, election=1, reason=DRAINED),
        term("y", 4, 52, 54, election=1, elected_ms=53, reason=REBALANCED),
        term("x", 5, 54, None, election=1, elected_ms=60),
        term("gone", 3, 20, 30, election=2),
        term("y", 4, 60, None, election=2),
    ]

    # In any order, as files of several nodes are read.
    moves = moves_since(50 * MS, reversed(terms))

    assert moves == Moves(Counter(x=2, y=1), 0, 0, Counter(x=2, y=1), Takeovers([1.0, 5.0, 6.0]))
    assert moves.moved == 3


def test_what_stayed_has_not_moved_and_what_is_not_led_yet_is_unfinished() -> None:
    terms = [
        term("x", 1, 0, 60, reason=REBALANCED),
        term("x", 2, 61, None),
        term("x", 1, 0, 60, election=1, reason=REBALANCED),
    ]

    assert moves_since(50 * MS, terms) == Moves(Counter(), 0, 1, Counter(x=1), Takeovers([]))


@pytest.mark.parametrize(
    "reason", [reason for reason in DemotionReason if reason not in {DRAINED, REBALANCED}]
)
def test_a_term_that_was_not_handed_over_is_lost(reason: DemotionReason) -> None:
    terms = [term("x", 1, 0, 60, reason=reason), term("y", 2, 61, None)]

    assert moves_since(50 * MS, terms).lost == 1
    assert moves_since(61 * MS, terms).lost == 0


def test_each_election_is_first_led_by_whoever_was_told_first() -> None:
    terms = [term("x", 2, 9, 11), term("y", 1, 5, 7, elected_ms=6), term("x", 1, 3, 4, election=1)]

    assert first_elected(terms) == {0: 6 * MS, 1: 3 * MS}


@pytest.mark.parametrize(
    ("count", "p50", "p99", "longest"), [(1, 1, 1, 1), (2, 1, 2, 2), (100, 50, 99, 100)]
)
def test_percentiles_are_durations_that_occurred(
    count: int, p50: float, p99: float, longest: float
) -> None:
    takeovers = Takeovers([float(number) for number in range(1, count + 1)])

    assert takeovers.to_json() == {"count": count, "p50": p50, "p99": p99, "max": longest}


def test_no_takeovers_have_no_percentiles() -> None:
    assert Takeovers([]).to_json() == {"count": 0, "p50": None, "p99": None, "max": None}
