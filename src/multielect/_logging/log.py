"""The log: what our threads have to say, written where nobody waits for it.

Rules of this file:
    * A logger, its filters, handlers and formatters are the user's code: they may raise, block, or
      take their time. They are called on one thread, the writer's, and nowhere else; so are the
      texts of errors made. Whoever has something to say leaves it in a queue: that never blocks,
      raises or runs code of the user's.
    * There is one writer for all groups of a process, made by the first that starts and gone after
      the last has stopped. It is a daemon: nothing waits for it but `close` and the interpreter's
      exit, both for a bounded time. A forked child has none until it makes its own.
    * How often a thing is told is `_logging.throttle`'s affair, for each logger as a whole.
    * What a logger raises is told once, through `on_error`. Lines that it lost are counted, and so
      are reports that came while the queue was full.

Which code of the user's runs on which of our threads:

    ============================  ==============================================================
    owner (``multielect-ID``)     none
    events (``-events``)          none
    connector (``-connect``)      the connection class of a `redis.Redis` that was given. What it
                                  raises is a failed attempt; while it blocks nobody connects, and
                                  `stop` does not wait for it.
    ``multielect-credentials``    the credential provider of a `redis.Redis` that was given. What it
                                  raises, and that it does not answer, is a failed attempt.
    relay (``multielect-tls``)    none
    balancer (``-balance``)       `only`. What it raises, and that it does not return for a TTL, is
                                  told; while it blocks nothing is moved,
                                  and `stop` waits for it no longer than its timeout.
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

import atexit
import contextlib
import logging
import os
import queue
import re
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from functools import partial

from .._runtime.foreign import in_words, place_of, repr_of, text_of
from ..errors import CallbackError, MultielectError, ServerError
from .throttle import Line, Report, Throttle

MAX_WAITING = 10_000
"""How many reports wait for the writer; what comes beyond that is counted and dropped."""

SETTLE_S = 1.0
"""How long more of the same is waited for, where it comes election by election."""

_GATHER_S = 0.1
"""How long of that is waited for before the writer is told of it."""

FLUSH_S = 2.0
"""How long `close`, and the interpreter's exit, wait for the writer at the most."""

_WORD = re.compile(r"""b?'[^']*'|b?"[^"]*"|\S+""")
_ADDRESS = re.compile(r"\S+:\d{1,5}\W*")


_Sum = tuple[Callable[[int], str], int, int]
"""What to say of an amount, the amount, and the level."""

_NOTHING: _Sum = (str, 0, 0)


class Log(ABC):
    """Where one group says what happened. Any thread; nothing here waits or raises.

    Attributes:
        who: what each line begins with.
        ttl_s: how long the group's leases last, once that is known: what holds others up for longer
            is worth a warning.
    """

    def __init__(self, who: str) -> None:
        """Keep what each line begins with."""
        self.who = who
        self.ttl_s: float | None = None

    @abstractmethod
    def open(self) -> None:
        """Be ready to write.

        Raises:
            RuntimeError: if the system or the interpreter has no thread for us.
        """

    @abstractmethod
    def close(self, timeout_s: float) -> None:
        """Write what waits, and return after `timeout_s` or `FLUSH_S` in any case."""

    def report(self, error: MultielectError) -> None:
        """Report what went wrong. The first report of what a callback raised has a traceback."""
        if isinstance(error, CallbackError) and error.__cause__ is not None:
            self._raised(error, error.__cause__)
            return
        who = self.who
        self._put(lambda: report_of(who, error))

    def _raised(self, error: CallbackError, cause: BaseException) -> None:
        # Known by its type and place: what it says may be different each time.
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
        """Tell what happened: see `Report`."""
        self._emit(Report(self.who, level, kind, text, amount))

    def _emit(self, report: Report) -> None:
        self._put(lambda: report)

    @abstractmethod
    def sum_up(self, kind: str, text: Callable[[int], str], amount: int, *, level: int) -> None:
        """Tell what happened, after `SETTLE_S`, in one line with the like of it until then."""

    @abstractmethod
    def remind(self, after_s: float, act: Callable[[], object]) -> None:
        """Have `act` called after so many seconds, where it is written; not after the close."""

    @abstractmethod
    def _put(self, make: Callable[[], Report]) -> None:
        """Take a report, to be made where it is written."""

    @abstractmethod
    def _is_known(self, kind: Hashable) -> bool:
        """Tell whether something of this kind was reported lately."""


def report_of(who: str, error: MultielectError) -> Report:
    """Return the report of an error."""
    text = text_of(error)
    return Report(who, logging.WARNING, kind_of(error, text), text, error=error)


def kind_of(error: MultielectError, text: str) -> Hashable:
    """Return what makes two errors one kind: never numbers, names or times that it tells of."""
    if isinstance(error, ServerError):
        return (type(error), error.code, error.request)
    words = _WORD.findall(text)
    return (type(error), *(word if _is_of_a_kind(word) else "#" for word in words))


def _is_of_a_kind(word: str) -> bool:
    return word.strip("().,:;").isalpha() or _ADDRESS.fullmatch(word) is not None


class ThreadLog(Log):
    """A log that is written on the process's writer thread."""

    def __init__(
        self,
        logger: logging.Logger,
        who: str,
        on_fault: Callable[[MultielectError], object] | None = None,
    ) -> None:
        """Keep where to write.

        Args:
            logger: where.
            who: what each line begins with.
            on_fault: told, once, what the logger raised; on the writer's thread.
        """
        super().__init__(who)
        self.on_fault = on_fault
        self.has_reported_fault = False
        self._book = _writer.book_of(logger)
        self._lock = threading.Lock()
        self._sums: dict[str, _Sum] = {}
        self._is_open = False

    def open(self) -> None:
        """Be ready to write. Opening twice does nothing."""
        if not self._is_open:
            self._sums = {}
            _writer.open(self._book, self)
            self._is_open = True

    def close(self, timeout_s: float) -> None:
        """Write what waits. Closing twice does nothing."""
        written = threading.Event()
        if self.close_behind(written.set) and not _writer.is_here():
            written.wait(min(timeout_s, FLUSH_S))

    def close_behind(self, done: Callable[[], object]) -> bool:
        """Have what waits written, and `done` called then, on the writer's thread.

        Returns whether it will be; not where it is closed.
        """
        was_open, self._is_open = self._is_open, False
        if was_open:
            self._say_sums()
            _writer.close(self._book, self, done)
        return was_open

    def sum_up(self, kind: str, text: Callable[[int], str], amount: int, *, level: int) -> None:
        """Tell what happened, after `SETTLE_S`, in one line with the like of it until then."""
        with self._lock:
            is_first = not self._sums
            self._sums[kind] = (text, amount + self._sums.get(kind, _NOTHING)[1], level)
        # Terms begin batch by batch: the writer is not woken for each.
        if is_first:
            self.remind(_GATHER_S, self._say_sums)

    def _say_sums(self) -> None:
        for report in self.take_sums():
            self._emit(report)

    def take_sums(self) -> list[Report]:
        """Return what was summed up, and forget it."""
        with self._lock:
            sums, self._sums = self._sums, {}
        return [
            Report(self.who, level, kind, text, amount, SETTLE_S - _GATHER_S)
            for kind, (text, amount, level) in sums.items()
        ]

    def remind(self, after_s: float, act: Callable[[], object]) -> None:
        """Have `act`, which must not block, called after so many seconds on the writer's thread."""
        _writer.remind(self, time.monotonic() + after_s, act)

    @property
    def is_written(self) -> bool:
        """Whether it is open, as the writer sees it."""
        return self in self._book.logs

    def _put(self, make: Callable[[], Report]) -> None:
        _writer.put(self._book, make)

    def _is_known(self, kind: Hashable) -> bool:
        return self._book.is_known(kind)


class Book:
    """What is to be written to one logger. All but `is_known` is for whoever writes."""

    def __init__(self, logger: logging.Logger) -> None:
        """Begin empty."""
        self.logger = logger
        self.throttle = Throttle()
        self.logs: list[ThreadLog] = []
        self.dropped = 0
        self._lost = 0
        self._fault = ""
        self._awaited: set[Hashable] = set()

    def is_known(self, kind: Hashable) -> bool:
        """Tell whether this kind was asked for, or reported, lately. Any thread."""
        if kind in self._awaited or self.throttle.knows(kind, time.monotonic()):
            return True
        if len(self._awaited) < MAX_WAITING:
            self._awaited.add(kind)
        return False

    def add(self, make: Callable[[], Report]) -> None:
        """Take a report and write what is due."""
        report = make()
        self.write(self.throttle.add(report, time.monotonic()))
        self._awaited.discard(report.kind)

    def open(self, log: ThreadLog) -> None:
        """Write for one log more."""
        if not self.logs:
            self.begin_anew()
        self.logs.append(log)

    def close(self, log: ThreadLog) -> None:
        """Write for this log no more. With the last one, all that waits is written."""
        if log in self.logs:
            self.logs.remove(log)
        if not self.logs:
            self.begin_anew()

    def write_all(self) -> None:
        """Write all that waits."""
        now_s = time.monotonic()
        for log in list(self.logs):
            for report in log.take_sums():
                self.write(self.throttle.add(report, now_s))
        self.write(self.throttle.flush(now_s))

    def begin_anew(self) -> None:
        """Write all that waits, and remember nothing."""
        self.write_all()
        self.throttle = Throttle()
        self._awaited.clear()

    def write(self, lines: list[Line]) -> None:
        """Write lines; one that the logger cannot take is lost, and counted."""
        for line in lines:
            try:
                self._write_losses()
                self._write(line)
            # Also SystemExit and its like: there is nothing here for them to end.
            except BaseException as error:  # noqa: BLE001
                self._lost += 1
                self._fault = in_words(error)
                self._report_fault(error)

    def _write(self, line: Line) -> None:
        # Some errors say of themselves who it is.
        who = f"{line.who}: " if line.who and not line.text.startswith(line.who) else ""
        self.logger.log(line.level, "%s%s", who, line.text, exc_info=line.cause)

    def _write_losses(self) -> None:
        lost, dropped = self._lost, self.dropped
        if lost:
            text = "%s lines before this one were lost: the logger raised %s"
            self.logger.log(logging.WARNING, text, lost, self._fault)
            self._lost = 0
        if dropped:
            text = "%s reports before this one were lost: the log was held up"
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


_Work = tuple["Book | None", Callable[[], object]]
"""What the writer is to do, and for which book."""


class Writer:
    """The thread that writes, for all groups of a process."""

    def __init__(self) -> None:
        """Begin without a thread."""
        self._books: weakref.WeakValueDictionary[int, Book] = weakref.WeakValueDictionary()
        self._prepare()

    def _prepare(self) -> None:
        # May be entered again by what the collector of garbage calls.
        self._lock = threading.RLock()
        self._waiting: queue.SimpleQueue[_Work] = queue.SimpleQueue()
        self._due_s: dict[Book, float] = {}
        self._reminders: list[tuple[float, ThreadLog, Callable[[], object]]] = []
        self._thread: threading.Thread | None = None
        self._open = 0

    def forget_parent(self) -> None:
        """In a forked child: there is no thread, and nothing to be told of the parent's groups."""
        self._prepare()
        for book in list(self._books.values()):
            book.logs.clear()
            book.throttle = Throttle()

    # ---- any thread

    def book_of(self, logger: logging.Logger) -> Book:
        """Return the book of a logger: the same for all groups that log there."""
        # Not by equality, which is the logger's own.
        with self._lock:
            book = self._books.get(id(logger))
            if book is None:
                book = self._books[id(logger)] = Book(logger)
            return book

    def open(self, book: Book, log: ThreadLog) -> None:
        """Have a thread for what is put.

        Raises:
            RuntimeError: if the system or the interpreter has none for us.
        """
        with self._lock:
            self._begin()
            self._open += 1
        self._waiting.put((book, partial(book.open, log)))

    def close(self, book: Book, log: ThreadLog, done: Callable[[], object]) -> None:
        """Have all written that was put before; then `done` is called, on the writer's thread."""
        self._waiting.put((book, partial(self._close, book, log, done)))

    def flush(self, timeout_s: float) -> None:
        """Have all written that was put before, and wait for it no longer than that."""
        if self._thread is not None:
            flushed = threading.Event()
            self._waiting.put((None, partial(self._write_all, flushed.set)))
            flushed.wait(timeout_s)

    def put(self, book: Book, make: Callable[[], Report]) -> None:
        """Have a report written."""
        if self._waiting.qsize() >= MAX_WAITING:
            book.dropped += 1
            return
        self._waiting.put((book, partial(book.add, make)))
        # None but for groups that never started, or have stopped.
        if self._thread is None:
            with contextlib.suppress(RuntimeError):
                self._begin()

    def remind(self, log: ThreadLog, due_s: float, act: Callable[[], object]) -> None:
        """Have something done at a time, unless the log is closed by then."""
        self._waiting.put((None, partial(self._add_reminder, due_s, log, act)))

    def is_here(self) -> bool:
        """Tell whether this is called by the writer: by a logger, which cannot outwait itself."""
        return self._thread is threading.current_thread()

    def _begin(self) -> None:
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="multielect-log", daemon=True)
                self._thread = thread
                try:
                    thread.start()
                except BaseException:
                    self._thread = None
                    raise

    # ---- the writer's thread

    def _run(self) -> None:
        while True:
            book: Book | None = None
            act: Callable[[], object] = _nothing
            with contextlib.suppress(queue.Empty):
                book, act = self._waiting.get(timeout=self._left_s())
            # What comes here is ours, and must not fail; if it does, the next is done.
            with contextlib.suppress(Exception):
                act()
            self._look_at(book)
            self._keep_reminders()
            if not self._due_s and self._waiting.empty() and self._may_end():
                return

    def _left_s(self) -> float | None:
        due_s = [*self._due_s.values(), *(due_s for due_s, _, _ in self._reminders)]
        return max(0.0, min(due_s) - time.monotonic()) if due_s else None

    def _look_at(self, changed: Book | None) -> None:
        """Write what is due, and see when something will be."""
        now_s = time.monotonic()
        seen = {book for book, due_s in self._due_s.items() if due_s <= now_s}
        if changed is not None:
            seen.add(changed)
        for book in seen:
            book.write(book.throttle.due(now_s))
            next_s = book.throttle.next_s()
            if next_s is None:
                self._due_s.pop(book, None)
            else:
                self._due_s[book] = next_s

    def _add_reminder(self, due_s: float, log: ThreadLog, act: Callable[[], object]) -> None:
        if log.is_written:
            self._reminders.append((due_s, log, act))

    def _keep_reminders(self) -> None:
        now_s = time.monotonic()
        due = [each for each in self._reminders if each[0] <= now_s]
        if due:
            self._reminders = [each for each in self._reminders if each[0] > now_s]
        for _, _, act in due:
            with contextlib.suppress(Exception):
                act()

    def _write_all(self, done: Callable[[], object]) -> None:
        for book in list(self._books.values()):
            book.write_all()
        done()

    def _close(self, book: Book, log: ThreadLog, done: Callable[[], object]) -> None:
        book.close(log)
        self._reminders = [each for each in self._reminders if each[1] is not log]
        with self._lock:
            self._open = max(0, self._open - 1)
        done()

    def _may_end(self) -> bool:
        with self._lock:
            if self._open:
                return False
            # Whoever puts something from now on makes another.
            thread, self._thread = self._thread, None
            if self._waiting.empty():
                return True
            self._thread = thread
            return False


def _nothing() -> None:
    """Do nothing: it was time to look whether something is due."""


_writer = Writer()

os.register_at_fork(after_in_child=_writer.forget_parent)
# After the nodes that nobody stopped are: what is registered first is called last.
atexit.register(_writer.flush, FLUSH_S)
