"""Timers: what the flow resumes later, and when.

Rules of this file:
    * No clock: the caller passes the time.
    * `due` returns an item once for each `set`. The caller decides whether it still matters.
"""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

T = TypeVar("T")


class Timers(Generic[T]):
    """Items that are due at a later time."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self._number = 0

    def set(self, waiting: T, until_s: float) -> None:
        """Let `due` return `waiting` from `until_s` on."""
        self._number += 1
        heapq.heappush(self._heap, (until_s, self._number, waiting))

    def due(self, now_s: float) -> list[T]:
        """Remove and return the items that are due, the earliest first."""
        found = []
        while self._heap and self._heap[0][0] <= now_s:
            found.append(heapq.heappop(self._heap)[2])
        return found

    @property
    def next_s(self) -> float | None:
        """When the next item is due; None if there is none."""
        return self._heap[0][0] if self._heap else None
