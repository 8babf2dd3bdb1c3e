"""Clocks that follow the world's time, each at its own speed.

Rules of this file:
    * The world's time counts whole nanoseconds and only goes forward. So do the clocks of nodes,
      like CLOCK_BOOTTIME. Only the server's wall clock can be set back; the store has it.
"""

from __future__ import annotations

from .._runtime.clock import ManualClock

_PARTS = 1_000_000


class LocalClock(ManualClock):
    """The clock of one machine.

    Args:
        world_ns: the world's time.
    """

    def __init__(self, world_ns: int) -> None:
        super().__init__(world_ns)
        self._world_ns = world_ns
        self._base_world_ns = world_ns
        self._base_ns = world_ns
        self._speed = _PARTS
        self._shown_ns = world_ns

    def follow(self, world_ns: int) -> None:
        """Show this clock's time for the world's time `world_ns`."""
        self._world_ns = world_ns
        shown = self._base_ns + (world_ns - self._base_world_ns) * self._speed // _PARTS
        if shown != self._shown_ns:
            self.advance_ns(shown - self._shown_ns)
            self._shown_ns = shown

    def drift(self, parts_per_million: int) -> None:
        """Run that much faster than the world from now on, or slower if negative.

        Raises:
            ValueError: if the speed would be half or less, or double or more.
        """
        if not -_PARTS < 2 * parts_per_million < 2 * _PARTS:
            raise ValueError(f"a clock cannot be wrong by {parts_per_million} parts per million")
        self._rebase(self._shown_ns)
        self._speed = _PARTS + parts_per_million

    def jump(self, step_ns: int) -> None:
        """Set the clock forward."""
        self.advance_ns(step_ns)
        self._shown_ns += step_ns
        self._rebase(self._shown_ns)

    def world_ns(self, local_ns: int) -> int:
        """Return the world's time at which this clock shows `local_ns`, or the time now."""
        ahead = local_ns - self._base_ns
        at_ns = self._base_world_ns - (-ahead * _PARTS) // self._speed
        return max(at_ns, self._world_ns)

    def _rebase(self, shown_ns: int) -> None:
        self._base_world_ns = self._world_ns
        self._base_ns = shown_ns
