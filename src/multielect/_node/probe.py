"""The probe, with which benchmarks measure a node. Ordinary programs do not need it.

Rules of this file:
    * A probe changes only when leases are refreshed, and whether lateness is counted.
"""

from __future__ import annotations

from collections.abc import Callable

from .._core.core import Core
from .environment import Running


class Probe:
    """Measures one node. Any thread may use it."""

    def __init__(self, core: Core, engine: Running, check_open: Callable[[], None]) -> None:
        """Keep the parts to measure.

        Args:
            core: the node's core.
            engine: the engine of that core.
            check_open: raises `ClosedError` if the node is over.
        """
        self._core = core
        self._engine = engine
        self._check_open = check_open

    def refresh_all(self) -> None:
        """Refresh every lease at once, whether it is due or not.

        Raises:
            ClosedError: if the node is over.
        """
        self._check_open()
        self._core.refresh_all()
        self._engine.wake()

    def watch_lateness(self) -> None:
        """Count from now on how late refreshes are sent; see `lateness_ns`."""
        self._core.watch_lateness()

    @property
    def lateness_ns(self) -> list[tuple[int, int]]:
        """Pairs of a lateness, rising, and how many refreshes since `watch_lateness` had it."""
        return self._core.lateness_ns

    @property
    def leading(self) -> int:
        """How many terms the node has now, with those whose deadline has passed."""
        return self._core.elections.leading

    @property
    def quiet_since_ns(self) -> int | None:
        """Since when every request that was due is answered; None while one is not."""
        return self._core.quiet_since_ns

    @property
    def memory_bytes(self) -> int:
        """Bytes that the core uses for the elections: slots, index and keys."""
        return self._core.elections.memory_bytes
