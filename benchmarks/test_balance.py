"""How long does one assignment of 100,000 keys to 100 nodes take?

Rules of this file:
    * Each case is a moment in the life of a node: its start, a join, a join with leaders as read
      from Redis, and a join with labels.
    * Each case must take at most a second, with the hashing of the keys.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from multielect.balance import Assignment, KeySet, Member, assign

LIMIT_S = 1.0
NAMES = [f"partition-{number}" for number in range(100_000)]
ZONES = [f"zone-{number}" for number in range(10)]
MEMBERS = [
    Member(
        f"node-{number}",
        weight=1 + number % 3,
        labels=frozenset({ZONES[number % 10], ZONES[number // 10]}),
    )
    for number in range(100)
]
LARGER = [*MEMBERS, Member("newcomer", labels=frozenset(ZONES[:2]))]


Timed = Callable[[float, Callable[[], Assignment]], Assignment]


@pytest.fixture(scope="module")
def before() -> Assignment:
    """Return the assignment before a node joins."""
    return assign(MEMBERS, KeySet(NAMES))


@pytest.fixture(scope="module")
def before_with_labels() -> Assignment:
    """Return the same with half of the keys restricted to one of ten zones each."""
    only = {name: {ZONES[at % 10]} for at, name in enumerate(NAMES) if at % 2}
    return assign(MEMBERS, KeySet(NAMES, only))


@pytest.fixture
def timed(benchmark: Callable[..., Assignment]) -> Timed:
    """Measure some work. Fails if even the fastest run took too long."""

    def measure(limit_s: float, work: Callable[[], Assignment]) -> Assignment:
        taken_s = []

        def once() -> Assignment:
            began = time.perf_counter()
            answer = work()
            taken_s.append(time.perf_counter() - began)
            return answer

        answer = benchmark(once)
        assert min(taken_s) < limit_s
        return answer

    return measure


def test_keys_and_all(timed: Timed) -> None:
    """A node starts, and also hashes the keys."""
    answer = timed(LIMIT_S, lambda: assign(MEMBERS, KeySet(NAMES)))
    assert len(answer) == len(NAMES)


def test_at_the_start(timed: Timed, before: Assignment) -> None:
    """No key has a holder yet."""
    answer = timed(LIMIT_S, lambda: assign(MEMBERS, before.keys_given))
    assert answer == before


def test_after_a_join(timed: Timed, before: Assignment) -> None:
    """A node joins, and the last assignment is known."""
    answer = timed(LIMIT_S / 4, lambda: before.after(LARGER))
    assert len(answer.moved_since(before)) == answer.loads["newcomer"] > 0


def test_with_leaders_as_seen(timed: Timed, before: Assignment) -> None:
    """A node joins, and the leaders are known by their names."""
    seen = before.holders()
    answer = timed(LIMIT_S / 2, lambda: assign(LARGER, before.keys_given, held=seen))
    assert answer == before.after(LARGER)


def test_after_a_join_with_labels(timed: Timed, before_with_labels: Assignment) -> None:
    """A node joins that may lead the keys of two zones."""
    answer = timed(LIMIT_S / 2, lambda: before_with_labels.after(LARGER))
    assert not answer.unassigned
