"""Backoff: how long to wait before the next attempt, after attempts that failed.

Rules of this file:
    * No clock, no random numbers: the caller passes both.
    * `pause_s` computes every pause of the package. The formula is that of redis-py's
      `EqualJitterBackoff`, which will not do: it draws its own random numbers, so a simulated run
      could not be repeated, and it raises `OverflowError` after about 1,000 failures in a row.
    * After a temporary error, the next attempt comes within a part of the TTL. So a lease that was
      good when the connection was lost can still be refreshed.
    * After a permanent error, the pauses grow longer, because somebody has to mend the cause first.
    * A connection that has lasted is replaced at once. One that was lost at once counts as a failed
      attempt.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import ConfigError, MultielectError, ServerUnusableError

FIRST_PAUSE_S = 0.05
MAX_PAUSE_S = 2.0
FIRST_PERMANENT_PAUSE_S = 0.5
MAX_PERMANENT_PAUSE_S = 30.0
PAUSES_A_TTL = 4
"""At least this many pauses fit into a TTL."""

_LASTED_S = 0.5
_MAX_DOUBLINGS = 30
_NS = 1_000_000_000


def max_pause_s(ttl_ns: int) -> float:
    """Return the longest pause between two attempts, with leases of this TTL."""
    return min(MAX_PAUSE_S, ttl_ns / PAUSES_A_TTL / _NS)


def is_permanent(error: MultielectError | None) -> bool:
    """Return whether somebody has to mend something before another attempt can work."""
    if isinstance(error, ServerUnusableError):
        # A replica may become the primary at any moment.
        return error.reason != "replica"
    return isinstance(error, ConfigError)


def pause_s(failures: int, *, first_s: float, max_s: float, chance: Callable[[], float]) -> float:
    """Return how many seconds to wait after a number of failures in a row.

    The longest pause is `first_s` after the first failure. It doubles with each failure, up to
    `max_s`. The pause is a random part of it, at least half.

    Args:
        failures: the number of failures; 1 after the first.
        first_s: the longest pause after the first failure.
        max_s: the longest pause after any failure.
        chance: returns a random number from 0 to 1.
    """
    doublings = min(max(failures - 1, 0), _MAX_DOUBLINGS)
    return min(first_s * 2.0**doublings, max_s) * (1.0 + chance()) / 2


class Pauses:
    """Counts failures in a row, and computes the pause after each. For one thread."""

    def __init__(
        self,
        chance: Callable[[], float],
        *,
        first_s: float = FIRST_PAUSE_S,
        max_s: float = MAX_PAUSE_S,
    ) -> None:
        """Begin without failures; see `pause_s` for the arguments."""
        self._chance = chance
        self._first_s = first_s
        self._max_s = max_s
        self._failures = 0

    def reset(self) -> None:
        """Begin anew, as an attempt worked."""
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
        """Begin without failures.

        Args:
            ttl_ns: how long a lease lasts.
            chance: returns a random number from 0 to 1.
        """
        max_s = max_pause_s(ttl_ns)
        self._lasting_s = min(_LASTED_S, max_s)
        self._passing = Pauses(chance, first_s=min(FIRST_PAUSE_S, max_s), max_s=max_s)
        self._permanent = Pauses(
            chance, first_s=FIRST_PERMANENT_PAUSE_S, max_s=MAX_PERMANENT_PAUSE_S
        )

    def after_failure(self, error: MultielectError) -> float:
        """Return how many seconds to wait after a failed attempt."""
        if is_permanent(error):
            self._passing.reset()
            return self._permanent.take()
        self._permanent.reset()
        return self._passing.take()

    def after_loss(self, error: MultielectError, lasted_s: float) -> float:
        """Return how many seconds to wait after losing a connection that lasted `lasted_s`."""
        if lasted_s < self._lasting_s:
            return self.after_failure(error)
        self._passing.reset()
        self._permanent.reset()
        return 0.0
