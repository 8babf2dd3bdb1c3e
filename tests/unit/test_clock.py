"""The clocks that deadlines are measured on."""

from __future__ import annotations

import time

import pytest

from multielect._runtime.clock import Clock
from multielect.testing import ManualClock


def test_the_machines_clock_counts_suspended_time_where_there_is_such_a_clock() -> None:
    same = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    before = time.clock_gettime_ns(same)
    now_ns = Clock().now_ns()
    assert before <= now_ns <= time.clock_gettime_ns(same)


def test_a_manual_clock_stands_still_until_it_is_moved() -> None:
    clock = ManualClock(5)
    assert [clock.now_ns(), clock.now_ns()] == [5, 5]
    assert clock.advance_ns(7) == 12
    assert clock.now_ns() == 12


def test_a_manual_clock_may_stand_at_its_beginning() -> None:
    assert ManualClock(0).now_ns() == 0


def test_no_clock_goes_back() -> None:
    clock = ManualClock()
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance_ns(-1)
    with pytest.raises(ValueError, match="must not be negative"):
        ManualClock(-1)
