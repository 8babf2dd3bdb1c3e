"""The books: what is to be written to one logger, and what that logger lost.

Rules of this file:
    * Only the writer's thread calls the logger.
    * Whatever a logger raises costs its own line, and ends nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable
from typing import Protocol

from .._runtime.foreign import in_words, repr_of
from ..errors import MultielectError
from .throttle import Line, Report, Throttle

MAX_WAITING = 10_000
"""How many reports wait for the writer. Further reports are counted and dropped."""


class BookedLog(Protocol):
    """A log, as the writer sees it.

    Attributes:
        on_fault: called once with what the logger raised.
        has_reported_fault: whether `on_fault` was called.
    """

    on_fault: Callable[[MultielectError], object] | None
    has_reported_fault: bool

    @property
    def is_written(self) -> bool:
        """Whether the writer knows the log as open."""

    def take_sums(self) -> list[Report]:
        """Return the sums, and forget them."""


class Book:
    """The reports for one logger. Only the writer uses it, except for `is_known`."""

    def __init__(self, logger: logging.Logger) -> None:
        """Begin empty."""
        self.logger = logger
        self.throttle = Throttle()
        self.logs: list[BookedLog] = []
        self.dropped = 0
        self._lost = 0
        self._fault = ""
        self._awaited: set[Hashable] = set()

    def is_known(self, kind: Hashable) -> bool:
        """Return whether this kind was asked for, or reported, lately. Any thread."""
        if kind in self._awaited or self.throttle.knows(kind, time.monotonic()):
            return True
        if len(self._awaited) < MAX_WAITING:
            self._awaited.add(kind)
        return False

    def add(self, make: Callable[[], Report]) -> None:
        """Take a report, and write the lines that are due."""
        report = make()
        self.write(self.throttle.add(report, time.monotonic()))
        self._awaited.discard(report.kind)

    def open(self, log: BookedLog) -> None:
        """Begin to write for a log."""
        if not self.logs:
            self.begin_anew()
        self.logs.append(log)

    def close(self, log: BookedLog) -> None:
        """Stop to write for a log. With the last log, all reports are written."""
        if log in self.logs:
            self.logs.remove(log)
        if not self.logs:
            self.begin_anew()

    def write_all(self) -> None:
        """Write all reports that wait."""
        now_s = time.monotonic()
        for log in list(self.logs):
            for report in log.take_sums():
                self.write(self.throttle.add(report, now_s))
        self.write(self.throttle.flush(now_s))

    def begin_anew(self) -> None:
        """Write all reports that wait, and forget all kinds."""
        self.write_all()
        self.throttle = Throttle()
        self._awaited.clear()

    def write(self, lines: list[Line]) -> None:
        """Write lines. Count those for which the logger raises."""
        for line in lines:
            try:
                self._write_losses()
                self._write(line)
            # SystemExit as well: in this thread it would end nothing but the writer.
            except BaseException as error:  # noqa: BLE001
                self._lost += 1
                self._fault = in_words(error)
                self._report_fault(error)

    def _write(self, line: Line) -> None:
        # Some errors name the group themselves.
        who = f"{line.who}: " if line.who and not line.text.startswith(line.who) else ""
        self.logger.log(line.level, "%s%s", who, line.text, exc_info=line.cause)

    def _write_losses(self) -> None:
        lost, dropped = self._lost, self.dropped
        if lost:
            text = "%s lines before this one were lost: the logger raised %s"
            self.logger.log(logging.WARNING, text, lost, self._fault)
            self._lost = 0
        if dropped:
            text = "%s reports before this one were lost: the log's queue was full"
            self.logger.log(logging.WARNING, text, dropped)
            self.dropped = 0

    def _report_fault(self, cause: BaseException) -> None:
        for log in list(self.logs):
            if log.has_reported_fault:
                continue
            log.has_reported_fault = True
            error = MultielectError(
                f"a line could not be logged, as the logger {repr_of(self.logger)} raised"
                f" {in_words(cause)}. Lines are lost until its filters and handlers are mended"
            )
            error.__cause__ = cause
            if log.on_fault is not None:
                log.on_fault(error)
