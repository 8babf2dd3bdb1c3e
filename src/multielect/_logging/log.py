"""The log of a group: takes reports from any thread, and never makes the caller wait.

Rules of this file:
    * A logger, its filters, handlers and formatters are the user's code: they may raise, block or
      be slow. Only the writer's thread calls them. It also makes the texts of errors, as these are
      the user's code too. Every other thread puts its report into a queue, which never blocks,
      raises or runs user code.
    * One writer serves all groups of a process: see `_logging.writer`.
    * `_logging.throttle` decides how often something is logged, for each logger as a whole.
    * What a logger raises is reported once, through `on_error`. The log counts the lines that the
      logger lost, and the reports that came while the queue was full.

Which user code runs on which of our threads:

    ============================  ==============================================================
    owner (``multielect-ID``)     none
    events (``-events``)          none
    connector (``-connect``)      the connection class of the `redis.Redis` that the user passed. If
                                  it raises, the attempt has failed. While it blocks, nobody
                                  connects, and `stop` does not wait for it.
    ``multielect-credentials``    the credential provider of the `redis.Redis` that the user passed.
                                  If it raises or does not answer, the attempt has failed.
    relay (``multielect-tls``)    none
    balancer (``-balance``)       `only`. It is reported if it raises, or does not return within a
                                  TTL. While it blocks, no election moves, and `stop` waits for it
                                  no longer than its timeout.
    callbacks (``-callback-N``)   `on_elected`, `on_demoted`, `on_draining`, `on_error`
    workers (``-worker-KEY``)     `worker`
    the event loop                all of these, in `aio`
    ``multielect-stop``           none
    stream consumers'             `handler` (``-handle-N``), `partitions` (``-discover``); none on
                                  those that fetch, watch, write and keep the time
    writer (``multielect-log``)   loggers, and what they call; texts of exceptions
    ============================  ==============================================================
"""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable

from .._runtime.foreign import place_of, text_of
from ..errors import CallbackError, MultielectError, ServerError
from .throttle import Report

SETTLE_S = 1.0
"""How long the log waits for more of the same before it writes a sum."""

_WORD = re.compile(r"""b?'[^']*'|b?"[^"]*"|\S+""")
_ADDRESS = re.compile(r"\S+:\d{1,5}\W*")


class Log(ABC):
    """The log of one group. Any thread may call it; no call waits or raises.

    Attributes:
        who: the beginning of each line.
        ttl_s: how long the group's leases last, once that is known. The log warns of what blocks
            others for longer.
    """

    def __init__(self, who: str) -> None:
        """Keep the beginning of each line."""
        self.who = who
        self.ttl_s: float | None = None

    @abstractmethod
    def open(self) -> None:
        """Prepare to write.

        Raises:
            RuntimeError: if no thread can be started.
        """

    @abstractmethod
    def close(self, timeout_s: float) -> None:
        """Write the reports that wait. Returns after `timeout_s` or `FLUSH_S` in any case."""

    def report(self, error: MultielectError) -> None:
        """Log an error. The first line of a kind that a user's callback caused has a traceback."""
        if isinstance(error, CallbackError) and error.__cause__ is not None:
            self._raised(error, error.__cause__)
            return
        who = self.who
        self._put(lambda: report_of(who, error))

    def _raised(self, error: CallbackError, cause: BaseException) -> None:
        # The kind is the type and the place: the text may differ each time.
        kind = (error.callback, id(type(cause)), place_of(cause))
        who, traced = self.who, None if self._is_known(kind) else cause
        self._put(
            lambda: Report(who, logging.ERROR, kind, text_of(error), error=error, cause=traced)
        )

    def say(
        self,
        kind: str,
        text: str | Callable[[int], str],
        amount: int = 1,
        *,
        level: int = logging.INFO,
    ) -> None:
        """Log an event: see `Report`."""
        self._emit(Report(self.who, level, kind, text, amount))

    def _emit(self, report: Report) -> None:
        self._put(lambda: report)

    @abstractmethod
    def sum_up(self, kind: str, text: Callable[[int], str], amount: int, *, level: int) -> None:
        """Log an event after `SETTLE_S`, in one line with all events of this kind until then."""

    @abstractmethod
    def remind(self, after_s: float, act: Callable[[], object]) -> None:
        """Call `act` on the writer's thread after that many seconds, unless the log is closed."""

    @abstractmethod
    def _put(self, make: Callable[[], Report]) -> None:
        """Take a report. The writer makes it."""

    @abstractmethod
    def _is_known(self, kind: Hashable) -> bool:
        """Return whether something of this kind was reported lately."""


def report_of(who: str, error: MultielectError) -> Report:
    """Return the report of an error."""
    text = text_of(error)
    return Report(who, logging.WARNING, kind_of(error, text), text, error=error)


def kind_of(error: MultielectError, text: str) -> Hashable:
    """Return the kind of an error, which does not depend on numbers, names or times in it."""
    if isinstance(error, ServerError):
        return (type(error), error.code, error.request)
    words = _WORD.findall(text)
    return (type(error), *(word if _is_of_a_kind(word) else "#" for word in words))


def _is_of_a_kind(word: str) -> bool:
    return word.strip("().,:;").isalpha() or _ADDRESS.fullmatch(word) is not None
