"""The throttle: turns reports into lines, one for each kind, less and less often, with counts.

Rules of this file:
    * No clock, no threads, no logger. The caller passes the time, and the throttle returns lines.
    * The first report of a kind becomes a line at once, or after it has settled. The throttle
      counts the next ones, and writes one line after 1, 2, 4, 8 ... seconds, up to `MAX_S`.
    * All groups with the same logger share a throttle. An event in a hundred groups is one kind,
      and its line says how many groups there were.
    * No two lines of a kind are the same: each later line says how many reports there were in all.
    * A kind that was quiet for long is forgotten. At most `MAX_KINDS` are kept; reports of further
      kinds share one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import NamedTuple

FIRST_S = 1.0
MAX_S = 256.0
QUIET_S = 300.0
"""How long a kind must be quiet before it is forgotten."""

MAX_KINDS = 200
_MAX_NAMES = 3
_MAX_KEPT_NAMES = 1_000


class Report(NamedTuple):
    """An event for the log.

    Attributes:
        who: the group: its prefix and node id.
        level: a level of `logging`.
        kind: the kind. Reports of one kind share a line.
        text: the text; or a function that returns the text for an amount. The amounts of such
            reports are added up.
        amount: how many elections, terms and so on the report concerns.
        settle_s: how long to wait for more reports of this kind before the first line.
        error: the error that is reported, if it is one of ours.
        cause: the exception whose traceback goes into the first line.
    """

    who: str
    level: int
    kind: Hashable
    text: str | Callable[[int], str]
    amount: int = 1
    settle_s: float = 0.0
    error: BaseException | None = None
    cause: BaseException | None = None


class Line(NamedTuple):
    """One line for the log: see `Report`."""

    level: int
    who: str
    text: str
    error: BaseException | None = None
    cause: BaseException | None = None


@dataclass
class _Kind:
    """The state of one kind. Times are in seconds."""

    latest: Report
    due_s: float
    since_s: float
    last_s: float
    interval_s: float = FIRST_S
    lines: int = 0
    waiting: int = 0
    amount: int = 0
    amount_in_all: int = 0
    names: dict[str, None] = field(default_factory=dict)

    def is_quiet(self, now_s: float) -> bool:
        """Return whether this kind was not reported for long."""
        return not self.waiting and now_s - self.last_s >= max(QUIET_S, 2 * self.interval_s)

    def take(self, report: Report, now_s: float) -> None:
        if not self.waiting:
            self.due_s = max(self.due_s, now_s + report.settle_s)
        self.latest = report
        self.last_s = now_s
        self.waiting += 1
        self.amount += report.amount
        self.amount_in_all += report.amount
        if len(self.names) < _MAX_KEPT_NAMES:
            self.names[report.who] = None

    def line(self, now_s: float) -> Line:
        report = self.latest
        passed = _seconds(now_s - self.since_s)
        if not isinstance(report.text, str):
            text = report.text(self.amount)
            if self.lines:
                text += f" (in {passed}; {self.amount_in_all:,} in all)"
        elif self.lines or self.waiting > 1:
            # The first line shows the latest report, which is not one of the `more`.
            more = self.amount if self.lines else self.amount - report.amount
            text = f"{report.text} ({more:,} more in {passed}, {self.amount_in_all:,} in all)"
        else:
            text = report.text
        cause = None if self.lines else report.cause
        made = Line(report.level, _named(list(self.names)), text, report.error, cause)
        if self.lines:
            self.interval_s = min(2 * self.interval_s, MAX_S)
        self.due_s = now_s + self.interval_s
        self.since_s = now_s
        self.lines += 1
        self.waiting = self.amount = 0
        self.names.clear()
        return made


class Throttle:
    """Turns reports into lines."""

    def __init__(self) -> None:
        self._kinds: dict[Hashable, _Kind] = {}

    def knows(self, kind: Hashable, now_s: float) -> bool:
        """Return whether something of this kind was reported lately. Any thread."""
        known = self._kinds.get(kind)
        return known is not None and not known.is_quiet(now_s)

    def add(self, report: Report, now_s: float) -> list[Line]:
        """Take a report. Returns the lines to write now."""
        kind = report.kind
        if kind not in self._kinds and len(self._kinds) >= MAX_KINDS:
            kind = ("more kinds", report.level)
        known = self._kinds.get(kind)
        if known is None or known.is_quiet(now_s):
            known = self._kinds[kind] = _Kind(report, now_s + report.settle_s, now_s, now_s)
        known.take(report, now_s)
        return self.due(now_s)

    def due(self, now_s: float) -> list[Line]:
        """Return the lines to write now, and forget the kinds that were quiet for long."""
        lines = []
        for kind, known in list(self._kinds.items()):
            if known.waiting:
                if now_s >= known.due_s:
                    lines.append(known.line(now_s))
            elif known.is_quiet(now_s):
                del self._kinds[kind]
        return lines

    def flush(self, now_s: float) -> list[Line]:
        """Return the lines for all reports that wait."""
        return [known.line(now_s) for known in self._kinds.values() if known.waiting]

    def next_s(self) -> float | None:
        """Return when `due` will have a line if nothing more is reported; None for never."""
        return min((known.due_s for known in self._kinds.values() if known.waiting), default=None)


def _named(names: list[str]) -> str:
    if len(names) <= _MAX_NAMES:
        return ", ".join(names)
    more = len(names) - _MAX_NAMES
    return f"{len(names):,} groups ({', '.join(names[:_MAX_NAMES])} and {more:,} more)"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:,.0f} s"
