"""Medians, spread, ratios and verdicts, without a server."""

from __future__ import annotations

import pytest

from multielect.cli.bench.results.spread import Bound, Spread, number, ratios
from multielect.cli.bench.subjects.contenders import in_turns


def test_a_spread_is_median_quartiles_and_ends() -> None:
    spread = Spread.of([9.0, 1.0, 3.0, 2.0, 4.0])

    assert (spread.median, spread.low, spread.high) == (3.0, 2.0, 4.0)
    assert (spread.least, spread.most) == (1.0, 9.0)
    assert spread.percent == pytest.approx(100 / 3)


def test_one_wild_round_moves_neither_median_nor_quartiles() -> None:
    calm, wild = Spread.of([1, 2, 3, 4, 5]), Spread.of([1, 2, 3, 4, 5_000])

    assert (calm.median, calm.low, calm.high) == (wild.median, wild.low, wild.high)


def test_one_value_is_its_own_spread() -> None:
    assert Spread.of([2.5]) == Spread(2.5, 2.5, 2.5, 2.5, 2.5)
    assert Spread.of([0.0, 0.0]).percent == 0


def test_there_is_no_spread_of_nothing() -> None:
    with pytest.raises(ValueError, match="no values"):
        Spread.of([])


def test_a_ratio_is_of_one_round() -> None:
    # A machine ten times slower in the second round changes no ratio.
    assert ratios([3.0, 30.0], [2.0, 20.0]) == [1.5, 1.5]


def test_a_round_that_was_cut_short_has_no_ratio() -> None:
    assert ratios([3.0, 30.0], [2.0]) == [1.5]
    assert ratios([3.0], [0.0]) == []


@pytest.mark.parametrize(
    ("bound", "label", "holding", "missing"),
    [
        (Bound(at_most=1.5), "at most 1.5", (0.0, 1.5), 1.51),
        (Bound(at_least=6), "at least 6", (6.0, 100.0), 5.99),
        (Bound(at_most=0), "at most 0", (0.0, 0.0), 1.0),
    ],
)
def test_a_bound_holds_up_to_its_end(
    bound: Bound, label: str, holding: tuple[float, float], missing: float
) -> None:
    assert str(bound) == label
    assert all(map(bound.holds, holding))
    assert not bound.holds(missing)


@pytest.mark.parametrize("ends", [{}, {"at_most": 1.0, "at_least": 1.0}])
def test_a_bound_has_one_end(ends: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="either at_most or at_least"):
        Bound(**ends)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234.5, "1,234"), (123.4, "123"), (12.34, "12.3"), (1.234, "1.23"), (0.1234, "0.123"),
        (0.0001234, "1.2e-04"), (0.0, "0"), (6.0, "6"), (-1.5, "-1.50"),
    ],
)  # fmt: skip
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_rounds_go_in_turns() -> None:
    orders = ["".join(in_turns("abcd", number)) for number in range(4)]

    assert all(sorted(order) == list("abcd") for order in orders)
    assert len({order[0] for order in orders}) > 1
    # Nobody always comes after the same.
    for who in "abcd":
        before = {order[order.index(who) - 1] for order in orders if order[0] != who}
        assert len(before) > 1
