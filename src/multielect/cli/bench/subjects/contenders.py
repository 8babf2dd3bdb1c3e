"""Contenders, which refresh leases, and the cost of a refresh.

Rules of this file:
    * All contenders are measured alike: the wall time, the server's CPU time as it reports it, and
      the CPU time of this process.
    * A round measures each of them once, in another order each time.
    * A refresh that takes less than `MIN_ROUND_S` is repeated within a round.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

T = TypeVar("T")

MIN_ROUND_S = 0.05
_MAX_PASSES = 200


@dataclass(frozen=True)
class Cost:
    """A cost in seconds: wall time, and CPU time of this process."""

    wall_s: float
    client_s: float


class Contender(ABC):
    """Holds leases, and refreshes all of them when told to.

    Attributes:
        name: its name in tables.
        leases: the number of its leases.
    """

    name: str
    leases: int

    @abstractmethod
    def refresh(self) -> Cost:
        """Refresh each lease once. Returns the cost until the last refresh is confirmed."""

    @abstractmethod
    def close(self) -> None:
        """Close connections, and end threads."""


@dataclass(frozen=True)
class Costs:
    """The cost of refreshing one lease, in seconds."""

    wall_s: float
    server_s: float
    client_s: float


def passes_of(contender: Contender) -> int:
    """Refresh once to measure how long it takes. Returns how often to refresh in each round."""
    wall_s = contender.refresh().wall_s
    return min(_MAX_PASSES, max(1, math.ceil(MIN_ROUND_S / max(wall_s, 1e-6))))


class Metered(Protocol):
    """A server, or several, whose CPU time can be read."""

    def cpu_s(self) -> float:
        """Return the CPU time used so far, in seconds."""


def measure(contender: Contender, passes: int, server: Metered) -> Costs:
    """Measure one contender in one round."""
    before_s = server.cpu_s()
    costs = [contender.refresh() for _ in range(passes)]
    server_s = server.cpu_s() - before_s
    refreshed = passes * contender.leases
    return Costs(
        wall_s=sum(cost.wall_s for cost in costs) / refreshed,
        server_s=server_s / refreshed,
        client_s=sum(cost.client_s for cost in costs) / refreshed,
    )


def in_turns(those: Sequence[T], number: int) -> list[T]:
    """Return the contenders in the order of round `number`, which differs from round to round."""
    first = number % len(those)
    turned = [*those[first:], *those[:first]]
    return turned[::-1] if number % 2 else turned


class Stopwatch:
    """Measures wall time, and CPU time of this process, from when it is made."""

    def __init__(self) -> None:
        self._wall_s = time.perf_counter()
        self._cpu_s = time.process_time()

    def cost(self) -> Cost:
        """Return the cost until now."""
        client_s = time.process_time() - self._cpu_s
        return Cost(time.perf_counter() - self._wall_s, client_s)
