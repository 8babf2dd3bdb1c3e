"""The log of a simulated node: the same lines, in simulated time.

Rules of this file:
    * There are no threads, so the log calls the logger at once, on the test's thread. An
      `Exception` of the logger ends nothing. Any other `BaseException` is for the test.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Hashable
from functools import partial
from typing import TYPE_CHECKING

from .._logging.log import SETTLE_S, Log
from .._logging.throttle import Line, Report, Throttle

if TYPE_CHECKING:
    from ._node import SimulatedNode

_NS = 1_000_000_000


class SimulatedLog(Log):
    """Writes the lines of one simulated node, as `ThreadLog` does for a real one."""

    def __init__(self, node: SimulatedNode, logger: logging.Logger, who: str) -> None:
        super().__init__(who)
        self._node = node
        self._logger = logger
        self._throttle = Throttle()
        self._due_ns: int | None = None
        # Most simulated stories log nowhere; this saves the work.
        self._is_silent = getattr(logger, "disabled", False) is True

    def open(self) -> None:
        """Do nothing, as this log needs no thread."""

    def sum_up(self, kind: str, text: Callable[[int], str], amount: int, *, level: int) -> None:
        """Log an event after `SETTLE_S`, in one line with the same kind of events until then."""
        self._put(partial(Report, self.who, level, kind, text, amount, SETTLE_S))

    def remind(self, after_s: float, act: Callable[[], object]) -> None:
        """Do nothing, as a simulated node asks for no reminders."""

    def abandon(self) -> None:
        """Die: write nothing more."""
        self._is_silent = True

    def close(self, timeout_s: float) -> None:
        """Write the lines that wait."""
        del timeout_s  # writing takes no simulated time
        self._write(self._throttle.flush(self._now_s()))

    def _put(self, make: Callable[[], Report]) -> None:
        if not self._is_silent:
            self._write(self._throttle.add(make(), self._now_s()))
            self._look_again()

    def _is_known(self, kind: Hashable) -> bool:
        return self._throttle.knows(kind, self._now_s())

    def _now_s(self) -> float:
        return self._node.world.now_ns / _NS

    def _look_again(self) -> None:
        next_s = self._throttle.next_s()
        if next_s is None:
            return
        due_ns = int(next_s * _NS) + 1
        if self._due_ns is None or due_ns < self._due_ns:
            self._due_ns = due_ns
            self._node.world.at(due_ns, self._write_due)

    def _write_due(self) -> None:
        if self._is_silent:
            return
        self._due_ns = None
        self._write(self._throttle.due(self._now_s()))
        self._look_again()

    def _write(self, lines: list[Line]) -> None:
        for line in lines:
            with contextlib.suppress(Exception):
                self._logger.log(line.level, "%s: %s", line.who, line.text, exc_info=line.cause)
