"""Time in a simulated world: the events to come, and the history.

Rules of this file:
    * Time moves when the test lets it, from one event to the next. Events at the same instant
      happen in the order in which they were scheduled.
    * Every event goes into the digest, and the newest events into the history.
"""

from __future__ import annotations

import hashlib
import heapq
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from .._settings.settings import checked_seconds
from ..errors import ConfigError

START_NS = 1_000_000_000
MAX_LINES = 10_000
MAX_AT_ONCE = 100_000
MAX_WAIT_S = 3600.0

_NS = 1_000_000_000


class Line(NamedTuple):
    """One line of a world's history.

    Attributes:
        at: seconds since the world began.
        who: a node's name, or ``"server"``.
        what: what happened.
    """

    at: float
    who: str
    what: str

    def __str__(self) -> str:
        return f"{self.at:10.6f} {self.who}: {self.what}"


class Timeline(ABC):
    """Events that happen one after the other."""

    def __init__(self) -> None:
        self.now_ns = START_NS
        self.happened = 0
        self.observe: Callable[[], None] | None = None
        self._agenda: list[tuple[int, int, Callable[[], object]]] = []
        self._number = 0
        self._at_once = 0
        self._lines: deque[Line] = deque(maxlen=MAX_LINES)
        self._digest = hashlib.blake2b(digest_size=16)

    @abstractmethod
    def _moved(self) -> None:
        """Set all clocks, as time has moved."""

    # ---- time

    @property
    def now(self) -> float:
        """Seconds since the world began."""
        return (self.now_ns - START_NS) / _NS

    def run(self, seconds: float) -> None:
        """Let that many seconds pass, with all their events.

        Raises:
            ConfigError: if `seconds` is negative or not a number.
        """
        until_ns = self.now_ns + span_ns("seconds", seconds)
        while self._agenda and self._agenda[0][0] <= until_ns:
            self._happen()
        self._move(max(until_ns, self.now_ns))

    def run_until(self, is_so: Callable[[], bool], timeout: float | None = None) -> bool:
        """Let time pass until `is_so` returns True. Returns what it returned last.

        Args:
            is_so: called after each event.
            timeout: seconds to wait at most.

        Raises:
            TimeoutError: if there is no `timeout` and an hour has passed.
        """
        wait_ns = span_ns("timeout", MAX_WAIT_S if timeout is None else timeout)
        until_ns = self.now_ns + wait_ns
        while not is_so():
            if not self._agenda or self._agenda[0][0] > until_ns:
                self._move(max(until_ns, self.now_ns))
                if timeout is None and not is_so():
                    raise TimeoutError("the condition is still false after a simulated hour")
                return is_so()
            self._happen()
        return True

    def after(self, seconds: float, act: Callable[[], object]) -> None:
        """Call `act` after that many seconds."""
        self.at(self.now_ns + span_ns("seconds", seconds), act)

    # ---- the history

    @property
    def history(self) -> list[Line]:
        """The newest lines of the history, oldest first."""
        return list(self._lines)

    def digest(self) -> str:
        """Return a digest of the whole history: all bytes, times and events."""
        return self._digest.hexdigest()

    def note_line(self, name: str, what: str) -> None:
        """Add a line to the history."""
        self._lines.append(Line(self.now, name, what))
        self._digest.update(f"{self.now_ns} {name} {what}\n".encode())

    def note_bytes(self, name: str, data: bytes) -> None:
        """Add bytes to the digest."""
        self._digest.update(b"%d %s %d " % (self.now_ns, name.encode(), len(data)))
        self._digest.update(data)

    # ---- for the parts of the world

    def at(self, at_ns: int, act: Callable[[], object]) -> None:
        """Call `act` at a time of the world."""
        self._number += 1
        heapq.heappush(self._agenda, (max(at_ns, self.now_ns), self._number, act))

    # ---- inside

    def _happen(self) -> None:
        at_ns, _, act = heapq.heappop(self._agenda)
        self._at_once = self._at_once + 1 if at_ns == self.now_ns else 0
        if self._at_once > MAX_AT_ONCE:
            raise RuntimeError("the simulated world does not come to rest")
        self._move(at_ns)
        self.happened += 1
        act()
        if self.observe is not None:
            self.observe()

    def _move(self, at_ns: int) -> None:
        if at_ns != self.now_ns:
            self.now_ns = at_ns
            self._moved()


def span_ns(what: str, seconds: float) -> int:
    """Return a span of time in nanoseconds.

    Raises:
        ConfigError: if it is negative or not a number.
    """
    span_ns = round(checked_seconds(what, seconds) * _NS)
    if span_ns < 0:
        raise ConfigError(f"{what} must not be negative: {seconds!r}")
    return span_ns
