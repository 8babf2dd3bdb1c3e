"""Who stands back until when, and for how long after how many failures in a row.

Rules of this file:
    * No clock and no randomness of its own: both are passed in.
    * Whoever stood back comes back once for each time; whether it still means anything is the
      asker's affair.
"""

from __future__ import annotations

import heapq
import random
from typing import Generic, TypeVar

_LONGEST_DOUBLING = 30

T = TypeVar("T")


class Timers(Generic[T]):
    """What is to be gone on with later."""

    def __init__(self, randomness: random.Random) -> None:
        self._random = randomness
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

    def pause_s(self, failures: int, base_s: float, most_s: float) -> float:
        """Return how long to stand back after so many failures, the first of which counts 1."""
        doublings = min(max(failures - 1, 0), _LONGEST_DOUBLING)
        return min(base_s * 2.0**doublings, most_s) * self._random.uniform(0.5, 1.0)
