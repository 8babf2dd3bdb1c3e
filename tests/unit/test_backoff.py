"""How long a node waits between two attempts."""

from __future__ import annotations

import itertools

import pytest

from multielect import ConfigError, ConnectionLostError, MultielectError
from multielect._connection.backoff import MAX_PAUSE_S, PAUSES_A_TTL, Backoff, Pauses, pause_s

MS = 1_000_000
TTLS_MS = [100, 500, 1_000, 3_000, 10_000, 3_600_000]
PASSES = ConnectionLostError("away")
PERMANENT = ConfigError("wrong")


def pauses(backoff: Backoff, error: MultielectError, count: int) -> list[float]:
    return [backoff.after_failure(error) for _ in range(count)]


@pytest.mark.parametrize("ttl_ms", TTLS_MS)
def test_what_passes_is_tried_within_a_part_of_the_ttl(ttl_ms: int) -> None:
    told = pauses(Backoff(ttl_ms * MS, lambda: 1.0), PASSES, 20)
    assert max(told) == min(MAX_PAUSE_S, ttl_ms / 1000 / PAUSES_A_TTL)
    assert all(one <= other for one, other in itertools.pairwise(told))


@pytest.mark.parametrize("ttl_ms", TTLS_MS)
def test_what_does_not_pass_is_tried_ever_more_seldom(ttl_ms: int) -> None:
    told = pauses(Backoff(ttl_ms * MS, lambda: 1.0), PERMANENT, 20)
    assert told[:7] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0]
    assert set(told[7:]) == {30.0}


@pytest.mark.parametrize("error", [PASSES, PERMANENT], ids=["passes", "permanent"])
def test_pauses_are_spread_over_their_second_half(error: MultielectError) -> None:
    least = pauses(Backoff(10_000 * MS, lambda: 0.0), error, 12)
    most = pauses(Backoff(10_000 * MS, lambda: 1.0), error, 12)
    assert [one / other for one, other in zip(least, most, strict=True)] == [0.5] * 12


def test_a_connection_that_lasted_is_replaced_at_once() -> None:
    backoff = Backoff(10_000 * MS, lambda: 1.0)
    pauses(backoff, PASSES, 8)
    assert backoff.after_loss(PASSES, lasted_s=1.0) == 0.0
    assert backoff.after_failure(PASSES) == 0.05


def test_one_that_did_not_last_is_an_attempt_that_failed() -> None:
    backoff = Backoff(10_000 * MS, lambda: 1.0)
    told = [backoff.after_loss(PASSES, lasted_s=0.01) for _ in range(8)]
    assert told == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


def test_one_kind_of_trouble_begins_anew_after_the_other() -> None:
    backoff = Backoff(10_000 * MS, lambda: 1.0)
    for error, first_s in [(PASSES, 0.05), (PERMANENT, 0.5), (PASSES, 0.05)]:
        assert pauses(backoff, error, 3)[0] == first_s


def test_a_reader_waits_ever_longer_until_an_attempt_works() -> None:
    pauses = Pauses(lambda: 1.0)
    assert [pauses.take() for _ in range(7)] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0]
    pauses.reset()
    assert pauses.take() == 0.05


def test_any_number_of_failures_has_a_pause() -> None:
    told = [
        pause_s(failures, first_s=0.1, max_s=30.0, chance=lambda: 0.0)
        for failures in (0, 1, 2, 1_000, 10_000)
    ]
    assert told == [0.05, 0.05, 0.1, 15.0, 15.0]
