"""Percentiles of one round, without a server."""

from __future__ import annotations

import pytest

from multielect.cli.bench.results.findings import Case, Findings
from multielect.cli.bench.results.percentiles import Tail

MS = 1_000_000


def test_percentiles_are_values_that_occurred() -> None:
    values = [number * MS for number in range(1, 201)]

    assert Tail.of(reversed(values)) == Tail(p50=100.0, p99=198.0, longest=200.0)


@pytest.mark.parametrize(
    ("values_ms", "tail"),
    [
        ([7], Tail(7.0, 7.0, 7.0)),
        ([1, 9], Tail(1.0, 9.0, 9.0)),
        ([1, 2, 9], Tail(2.0, 9.0, 9.0)),
        ([-3, 5], Tail(-3.0, 5.0, 5.0)),
        ([1] * 99 + [50], Tail(1.0, 1.0, 50.0)),
        ([1] * 98 + [50, 60], Tail(1.0, 50.0, 60.0)),
    ],
)
def test_a_tail_of_few(values_ms: list[int], tail: Tail) -> None:
    assert Tail.of(value * MS for value in values_ms) == tail


def test_counts_tell_the_same_as_their_values() -> None:
    counts = [(1 * MS, 60), (2 * MS, 38), (30 * MS, 1), (40 * MS, 1)]
    values = [value for value, count in counts for _ in range(count)]

    assert Tail.of_counts(counts) == Tail.of(values) == Tail(1.0, 30.0, 40.0)


def test_of_nothing_there_is_none() -> None:
    with pytest.raises(ValueError, match="nothing was timed"):
        Tail.of([])


def test_one_is_held_against_another_of_its_round() -> None:
    assert Tail(2.0, 5.0, 9.0).beyond(Tail(1.0, 6.0, 2.0)) == Tail(1.0, -1.0, 7.0)


def test_a_round_adds_one_value_to_each_figure() -> None:
    findings, case = Findings(), Case.of(10)
    for p99 in (2.0, 3.0):
        Tail(1.0, p99, 9.0).add_to(findings, case, "somebody")

    assert {key.quantity.name: values for key, values in findings.series.items()} == {
        "p50": [1.0, 1.0], "p99": [2.0, 3.0], "max": [9.0, 9.0],
    }  # fmt: skip
