"""How long to wait before the next attempt, after attempts that failed.

Rules of this file:
    * It reads no clock and draws no random number: both are its caller's.
    * Every pause of the package is computed by `pause_s`. The formula is that of redis-py's
      `EqualJitterBackoff`, which cannot serve here: it draws its own random numbers, so a simulated
      run could not be repeated, and it raises `OverflowError` after about 1,000 failures in a row.
    * What passes by itself is tried again within a part of the TTL, so that a lease that was good
      when the connection was lost can still be refreshed.
    * What does not pass by itself is tried ever more seldom: somebody has to mend it first.
    * A connection that has lasted is replaced at once. One that was lost as soon as it was there
      is an attempt that failed.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import ConfigError, MultielectError, ServerUnusableError

FIRST_PAUSE_S = 0.05
MAX_PAUSE_S = 2.0
FIRST_PERMANENT_PAUSE_S = 0.5
MAX_PERMANENT_PAUSE_S = 30.0
PAUSES_A_TTL = 4
"""How many pauses fit into a TTL at the least."""

_LASTED_S = 0.5
_MAX_DOUBLINGS = 30
_NS = 1_000_000_000


def max_pause_s(ttl_ns: int) -> float:
    """Return the longest pause between two attempts, with leases of this TTL."""
    return min(MAX_PAUSE_S, ttl_ns / PAUSES_A_TTL / _NS)


def is_permanent(error: MultielectError | None) -> bool:
    """Tell whether somebody has to mend something before another attempt can work."""
    if isinstance(error, ServerUnusableError):
        # Which server is the primary changes by itself.
        return error.reason != "replica"
    return isinstance(error, ConfigError)


def pause_s(failures: int, *, first_s: float, max_s: float, chance: Callable[[], float]) -> float:
    """Return how many seconds to wait after so many failures in a row.

    The pause doubles with each failure, from `first_s` up to `max_s`, and lies in the second
    half of that.

    Args:
        failures: how many; the first counts 1.
        first_s: the longest pause after the first failure.
        max_s: the longest pause after any failure.
        chance: gives a random number from 0 to 1.
    """
    doublings = min(max(failures - 1, 0), _MAX_DOUBLINGS)
    return min(first_s * 2.0**doublings, max_s) * (1.0 + chance()) / 2


class Pauses:
    """Counts failures in a row, and says how long to wait after each. For one thread."""

    def __init__(
        self,
        chance: Callable[[], float],
        *,
        first_s: float = FIRST_PAUSE_S,
        max_s: float = MAX_PAUSE_S,
    ) -> None:
        """Begin anew; see `pause_s` for the arguments."""
        self._chance = chance
        self._first_s = first_s
        self._max_s = max_s
        self._failures = 0

    def reset(self) -> None:
        """Begin anew: an attempt worked."""
        self._failures = 0

    def take(self) -> float:
        """Count a failure and return how many seconds to wait after it."""
        self._failures += 1
        return pause_s(
            self._failures,
            first_s=self._first_s,
            max_s=self._max_s,
            chance=self._chance,
        )


class Backoff:
    """Counts the attempts of one node to connect. For one thread."""

    def __init__(self, ttl_ns: int, chance: Callable[[], float]) -> None:
        """Begin anew.

        Args:
            ttl_ns: how long a lease lasts.
            chance: gives a random number from 0 to 1.
        """
        max_s = max_pause_s(ttl_ns)
        self._lasting_s = min(_LASTED_S, max_s)
        self._passing = Pauses(chance, first_s=min(FIRST_PAUSE_S, max_s), max_s=max_s)
        self._permanent = Pauses(
            chance, first_s=FIRST_PERMANENT_PAUSE_S, max_s=MAX_PERMANENT_PAUSE_S
        )

    def after_failure(self, error: MultielectError) -> float:
        """Return how many seconds to wait after an attempt that failed."""
        if is_permanent(error):
            self._passing.reset()
            return self._permanent.take()
        self._permanent.reset()
        return self._passing.take()

    def after_loss(self, error: MultielectError, lasted_s: float) -> float:
        """Return how many seconds to wait after a connection that lasted so long was lost."""
        if lasted_s < self._lasting_s:
            return self.after_failure(error)
        self._passing.reset()
        self._permanent.reset()
        return 0.0
