"""A thread that keeps the GIL, in a single C call, costs no lease.

Rules of this file:
    * The GIL is kept by a call through `ctypes.PyDLL`, which does not release it: no other
      thread of Python runs until it returns.
    * What is asserted of the pump is read first of all when the call returns, from the core,
      before any thread of Python could have caught up.
    * The same scenario over a pump in Python loses its leases: so the scenario can fail.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from tests.diary import Diary, until
from tests.python_pump import PythonPump

from multielect import DemotionReason, ElectionGroup

PREFIX = "gil-held"


def keep_gil(seconds: float) -> None:
    """Keep the GIL for so long in a single C call."""
    ctypes.PyDLL(None).usleep(round(seconds * 1_000_000))


def keys(count: int) -> list[str]:
    return [f"election-{number}" for number in range(count)]


@contextmanager
def leading(url: str, *, leases: int, ttl: float, diary: Diary) -> Iterator[ElectionGroup]:
    """Run a group that leads all of its elections."""
    group = ElectionGroup(
        url,
        prefix=PREFIX,
        ttl=ttl,
        on_elected=diary.elected,
        on_demoted=diary.demoted,
        on_error=diary.error,
    )
    group.add_many(keys(leases))
    with group:
        diary.wait_for(lambda: len(diary.entries) == leases)
        yield group


def assert_nothing_is_lost(
    url: str, *, leases: int, ttl: float, starve: Callable[[], None], times: int
) -> None:
    """Starve the process of the GIL for three TTLs, so many times, and look what is left."""
    diary = Diary()
    with leading(url, leases=leases, ttl=ttl, diary=diary) as group:
        epochs = {election.key: election.epoch for election in group.led}
        assert len(epochs) == leases
        for _ in range(times):
            before = group.counters
            starve()
            after, led_now = group.counters, group.led
            assert len(led_now) == leases
            assert after.demoted == 0
            assert after.reconnects == 0
            # Nine are due in three TTLs; a third is left out for a busy machine.
            assert after.refreshes - before.refreshes >= 6 * leases
            assert {election.key: election.epoch for election in led_now} == epochs
        assert diary.errors == []
        assert diary.demotions() == []
    assert [entry.reason for entry in diary.demotions()] == [DemotionReason.STOPPED] * leases


def test_costs_no_lease(redis_url: str) -> None:
    assert_nothing_is_lost(redis_url, leases=50, ttl=1.0, starve=lambda: keep_gil(3.0), times=1)


@pytest.mark.slow
def test_costs_none_of_a_thousand_three_times_over(redis_url: str) -> None:
    assert_nothing_is_lost(redis_url, leases=1000, ttl=2.0, starve=lambda: keep_gil(6.0), times=3)


@pytest.mark.parametrize(
    ("leases", "ttl"), [(50, 1.0), pytest.param(1000, 2.0, marks=pytest.mark.slow)]
)
def test_costs_all_leases_of_a_pump_in_python(
    redis_url: str, record_property: Callable[[str, object], None], leases: int, ttl: float
) -> None:
    with PythonPump(redis_url, prefix=PREFIX, keys=keys(leases), ttl_s=ttl) as pump:
        until(lambda: pump.leading == leases)
        assert pump.demotions == []
        late_before_s = pump.worst_late_s
        keep_gil(3 * ttl)
        # It may lead some of them again by now: it is their terms that were lost.
        until(lambda: len(pump.demotions) == leases)
    assert pump.demotions == [DemotionReason.EXPIRED] * leases
    assert late_before_s < ttl / 3
    # The call lasts three TTLs, and up to a third of one is left until a refresh is due.
    assert pump.worst_late_s > 2 * ttl
    record_property("leases_lost", len(pump.demotions))
    record_property("worst_refresh_late_s", round(pump.worst_late_s, 3))
