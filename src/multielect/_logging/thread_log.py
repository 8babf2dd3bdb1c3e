"""The log of a group on real threads: sums up, and hands its reports to the writer.

Rules of this file:
    * No call waits for the logger, except `close`, for a bounded time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable

from ..errors import MultielectError
from .log import SETTLE_S, Log
from .throttle import Report
from .writer import FLUSH_S, WRITER

_GATHER_S = 0.1
"""How long a log gathers events for a sum before it hands the sum to the writer."""

_Sum = tuple[Callable[[int], str], int, int]
"""The text for an amount, the amount, and the level."""

_NOTHING: _Sum = (str, 0, 0)


class ThreadLog(Log):
    """A log that the process's writer thread writes."""

    def __init__(
        self,
        logger: logging.Logger,
        who: str,
        on_fault: Callable[[MultielectError], object] | None = None,
    ) -> None:
        """Keep the logger.

        Args:
            logger: the logger.
            who: the beginning of each line.
            on_fault: called once, on the writer's thread, with what the logger raised.
        """
        super().__init__(who)
        self.on_fault = on_fault
        self.has_reported_fault = False
        self._book = WRITER.book_of(logger)
        self._lock = threading.Lock()
        self._sums: dict[str, _Sum] = {}
        self._is_open = False

    def open(self) -> None:
        """Prepare to write. A second call does nothing."""
        if not self._is_open:
            self._sums = {}
            WRITER.open(self._book, self)
            self._is_open = True

    def close(self, timeout_s: float) -> None:
        """Write the reports that wait. A second call does nothing."""
        written = threading.Event()
        if self.close_behind(written.set) and not WRITER.is_here():
            written.wait(min(timeout_s, FLUSH_S))

    def close_behind(self, done: Callable[[], object]) -> bool:
        """Let the writer write the reports that wait, and then call `done` on its thread.

        Returns:
            Whether `done` will be called. It is not if the log was closed before.
        """
        was_open, self._is_open = self._is_open, False
        if was_open:
            self._emit_sums()
            WRITER.close(self._book, self, done)
        return was_open

    def sum_up(self, kind: str, text: Callable[[int], str], amount: int, *, level: int) -> None:
        """Log an event after `SETTLE_S`, in one line with all events of this kind until then."""
        with self._lock:
            is_first = not self._sums
            self._sums[kind] = (text, amount + self._sums.get(kind, _NOTHING)[1], level)
        # Terms begin batch by batch: do not wake the writer for each.
        if is_first:
            self.remind(_GATHER_S, self._emit_sums)

    def _emit_sums(self) -> None:
        for report in self.take_sums():
            self._emit(report)

    def take_sums(self) -> list[Report]:
        """Return the sums, and forget them."""
        with self._lock:
            sums, self._sums = self._sums, {}
        return [
            Report(self.who, level, kind, text, amount, SETTLE_S - _GATHER_S)
            for kind, (text, amount, level) in sums.items()
        ]

    def remind(self, after_s: float, act: Callable[[], object]) -> None:
        """Call `act`, which must not block, on the writer's thread after that many seconds."""
        WRITER.remind(self, time.monotonic() + after_s, act)

    @property
    def is_written(self) -> bool:
        """Whether the writer knows this log as open."""
        return self in self._book.logs

    def _put(self, make: Callable[[], Report]) -> None:
        WRITER.put(self._book, make)

    def _is_known(self, kind: Hashable) -> bool:
        return self._book.is_known(kind)
