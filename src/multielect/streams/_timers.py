"""Who stands back until when.

Rules of this file:
    * No clock of its own: the time is passed in.
    * Whoever stood back comes back once for each time; whether it still means anything is the
      asker's affair.
"""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

T = TypeVar("T")


class Timers(Generic[T]):
    """What is to be gone on with later."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self._number = 0

    def set(self, waiting: T, until_s: float) -> None:
        """Have `due` return this once that time has come."""
        self._number += 1
        heapq.heappush(self._heap, (until_s, self._number, waiting))

    def due(self, now_s: float) -> list[T]:
        """Take what has waited for long enough, the earliest first."""
        found = []
        while self._heap and self._heap[0][0] <= now_s:
            found.append(heapq.heappop(self._heap)[2])
        return found

    @property
    def next_s(self) -> float | None:
        """When the next is due."""
        return self._heap[0][0] if self._heap else None
