"""What the host of a virtual machine keeps from it is told, where the system knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from multielect.cli.bench.instruments import machine
from multielect.cli.bench.instruments.machine import Stolen

# user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice
BEFORE = [100, 0, 50, 1000, 5, 0, 5, 20, 7, 0]


def stolen(monkeypatch: pytest.MonkeyPatch, after: list[int]) -> list[str]:
    told = iter([BEFORE, after])
    monkeypatch.setattr(machine, "_processor_ticks", lambda: next(told))
    return Stolen().notes()


@pytest.mark.parametrize(
    ("after", "share"),
    [
        ([160, 0, 70, 9000, 900, 0, 5, 40, 9, 0], "20%"),
        ([100, 0, 50, 1100, 5, 0, 5, 120, 7, 0], "100%"),
        ([190, 0, 59, 1000, 5, 0, 5, 21, 7, 0], "1%"),
    ],
)
def test_it_is_told_by_what_was_wanted(
    monkeypatch: pytest.MonkeyPatch, after: list[int], share: str
) -> None:
    (words,) = stolen(monkeypatch, after)
    assert f"gave {share} to others" in words


@pytest.mark.parametrize(
    "after",
    [
        [1100, 0, 50, 1000, 5, 0, 5, 25, 7, 0],
        BEFORE,
        [160, 0, 70, 9000],
        [],
    ],
)
def test_next_to_nothing_is_not_told(monkeypatch: pytest.MonkeyPatch, after: list[int]) -> None:
    assert stolen(monkeypatch, after) == []


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="this system tells it otherwise")
def test_this_system_tells_it() -> None:
    ticks = machine._processor_ticks()
    assert len(ticks) > machine._STEAL
    assert sum(ticks) > 0
