"""A soak in small, and that one which is not flat would be seen."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .soak import MIN_BYTES, SPARE_DESCRIPTORS, Usage, soak

MB = 1 << 20


def test_a_short_soak() -> None:
    report = soak(0.2, elections=300, nodes=3, seed=3, ttl_s=0.6)
    assert [kept.words for kept in report.rounds.violations] == []
    assert report.rounds.rounds >= 2
    (used,) = report.usage
    assert used.is_flat, used
    assert len(used.memory_bytes) > 10
    assert min(used.memory_bytes) > MB
    assert min(used.descriptors) > 3
    assert report.ok


def flat(at: int) -> float:
    return 100.0


def rises_at_first(at: int) -> float:
    return min(100.0, 50.0 + at)


def leaks(at: int) -> float:
    return 100.0 + at / 5


def one_peak(at: int) -> float:
    return 200.0 if at == 299 else 100.0


@pytest.mark.parametrize(
    ("memory_mb", "holds"), [(flat, True), (rises_at_first, True), (one_peak, True), (leaks, False)]
)
def test_memory_that_grows_is_seen(memory_mb: Callable[[int], float], holds: bool) -> None:
    memory = [round(memory_mb(at) * MB) for at in range(300)]
    assert Usage("node", memory, [10] * 300).is_flat is holds


def test_what_may_grow_is_little() -> None:
    grown = [100 * MB] * 200 + [100 * MB + MIN_BYTES + MB] * 100
    assert Usage("node", grown, [10] * 300).is_flat
    grown = [10 * MB] * 200 + [10 * MB + MIN_BYTES + 1] * 100
    assert not Usage("node", grown, [10] * 300).is_flat


def test_descriptors_that_leak_are_seen() -> None:
    descriptors = [10] * 200 + [10 + SPARE_DESCRIPTORS + 1] * 100
    assert not Usage("node", [MB] * 300, descriptors).is_flat
