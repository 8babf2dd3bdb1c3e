"""Takeovers are counted from the right instant to the right callback."""

from __future__ import annotations

import pytest

from multielect.cli.demo.leases import Lease
from multielect.cli.demo.takeover import Takeovers, after_lease_ends, after_release, release_times

from .examples import MS, term


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


def test_a_release_is_counted_from_the_end_of_belief() -> None:
    terms = [
        term("gone", 1, 0, 10),
        term("gone", 3, 20, 51),
        term("gone", 3, 20, 52, election=1),
        term("gone", 3, 20, 30, election=2),
        term("x", 2, 11, 19),
        term("x", 4, 52, None, elected_ms=56),
        term("y", 4, 54, None, election=1, elected_ms=54),
        term("y", 4, 60, None, election=2),
    ]
    released = release_times("gone", 50 * MS, terms)

    assert released == {0: 51 * MS, 1: 52 * MS}
    assert after_release("gone", released, terms) == Takeovers([2.0, 5.0])


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
