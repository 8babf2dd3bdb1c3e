"""What a benchmark asks of a node and makes it do. No program that leads anything needs it.

Rules of this file:
    * It changes nothing but when leases are refreshed, and whether lateness is counted.
"""

from __future__ import annotations

from collections.abc import Callable

from .._core.core import Core
from .environment import Running


class Probe:
    """Measures one node. Any thread."""

    def __init__(self, core: Core, engine: Running, check_open: Callable[[], None]) -> None:
        """Keep what to measure.

        Args:
            core: the elections of the node.
            engine: what keeps the core going.
            check_open: raises `ClosedError` where the node is over.
        """
        self._core = core
        self._engine = engine
        self._check_open = check_open

    def refresh_all(self) -> None:
        """Refresh every lease at once, due or not.

        Raises:
            ClosedError: if the node is over.
        """
        self._check_open()
        self._core.refresh_all()
        self._engine.wake()

    def watch_lateness(self) -> None:
        """Count from now on how late refreshes go out; see `lateness_ns`."""
        self._core.watch_lateness()

    @property
    def lateness_ns(self) -> list[tuple[int, int]]:
        """How late refreshes went out since `watch_lateness`, rising, and how many so late."""
        return self._core.lateness_ns

    @property
    def leading(self) -> int:
        """How many terms the node has now, overdue ones included."""
        return self._core.elections.leading

    @property
    def quiet_since_ns(self) -> int | None:
        """Since when all that was due is answered; None while something is not."""
        return self._core.quiet_since_ns

    @property
    def memory_bytes(self) -> int:
        """Bytes that the core holds for the elections: slots, index and keys."""
        return self._core.elections.memory_bytes
