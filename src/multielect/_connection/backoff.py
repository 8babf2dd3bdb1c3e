"""How long to wait before the next attempt to connect.

Rules of this file:
    * It reads no clock and draws no random number: both are its caller's.
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
LONGEST_PAUSE_S = 2.0
FIRST_PERMANENT_PAUSE_S = 0.5
LONGEST_PERMANENT_PAUSE_S = 30.0
PAUSES_A_TTL = 4
"""How many pauses fit into a TTL at the least."""

_LASTED_S = 0.5
_NS = 1_000_000_000


def longest_pause_s(ttl_ns: int) -> float:
    """Return the longest pause between two attempts, with leases of this TTL."""
    return min(LONGEST_PAUSE_S, ttl_ns / PAUSES_A_TTL / _NS)


def is_permanent(error: MultielectError | None) -> bool:
    """Tell whether somebody has to mend something before another attempt can work."""
    if isinstance(error, ServerUnusableError):
        # Which server is the primary changes by itself.
        return error.reason != "replica"
    return isinstance(error, ConfigError)


class Backoff:
    """Counts the attempts of one node. For one thread."""

    def __init__(self, ttl_ns: int, chance: Callable[[], float]) -> None:
        """Begin anew.

        Args:
            ttl_ns: how long a lease lasts.
            chance: gives a random number from 0 to 1.
        """
        self._chance = chance
        self._longest_s = longest_pause_s(ttl_ns)
        self._first_s = min(FIRST_PAUSE_S, self._longest_s)
        self._lasting_s = min(_LASTED_S, self._longest_s)
        self._passing_s = self._first_s
        self._permanent_s = FIRST_PERMANENT_PAUSE_S

    def after_failure(self, error: MultielectError) -> float:
        """Return how many seconds to wait after an attempt that failed."""
        if is_permanent(error):
            wait_s = self._permanent_s
            self._permanent_s = min(2 * wait_s, LONGEST_PERMANENT_PAUSE_S)
            self._passing_s = self._first_s
        else:
            wait_s = self._passing_s
            self._passing_s = min(2 * wait_s, self._longest_s)
            self._permanent_s = FIRST_PERMANENT_PAUSE_S
        return wait_s * (1.0 + self._chance()) / 2

    def after_loss(self, error: MultielectError, lasted_s: float) -> float:
        """Return how many seconds to wait after a connection that lasted so long was lost."""
        if lasted_s < self._lasting_s:
            return self.after_failure(error)
        self._passing_s = self._first_s
        self._permanent_s = FIRST_PERMANENT_PAUSE_S
        return 0.0
