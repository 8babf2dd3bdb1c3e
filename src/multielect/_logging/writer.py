"""The writer: one thread that calls the loggers, for all groups of a process.

Rules of this file:
    * The first group that starts makes the writer's thread, and the thread ends after the last
      group has stopped. It is a daemon. Only `ThreadLog.close` and the interpreter's exit wait for
      it, both for a bounded time. A forked child has no thread until it makes its own.
    * `put` never blocks, raises or runs user code.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial

from .book import MAX_WAITING, Book, BookedLog
from .throttle import Report, Throttle

FLUSH_S = 2.0
"""How long the close of a log, and the interpreter's exit, wait for the writer at most."""

_Work = tuple["Book | None", Callable[[], object]]
"""A task of the writer, and the book that it changes."""


class Writer:
    """The thread that writes, for all groups of a process."""

    def __init__(self) -> None:
        """Begin without a thread."""
        self._books: weakref.WeakValueDictionary[int, Book] = weakref.WeakValueDictionary()
        self._prepare()

    def _prepare(self) -> None:
        # Reentrant, because the garbage collector may call code that logs.
        self._lock = threading.RLock()
        self._waiting: queue.SimpleQueue[_Work] = queue.SimpleQueue()
        self._due_s: dict[Book, float] = {}
        self._reminders: list[tuple[float, BookedLog, Callable[[], object]]] = []
        self._thread: threading.Thread | None = None
        self._open = 0

    def forget_parent(self) -> None:
        """Forget the thread and the groups of the parent, in a forked child."""
        self._prepare()
        for book in list(self._books.values()):
            book.logs.clear()
            book.throttle = Throttle()

    # ---- any thread

    def book_of(self, logger: logging.Logger) -> Book:
        """Return the book of a logger: the same for all groups that log there."""
        # By identity: a logger may define its own equality.
        with self._lock:
            book = self._books.get(id(logger))
            if book is None:
                book = self._books[id(logger)] = Book(logger)
            return book

    def open(self, book: Book, log: BookedLog) -> None:
        """Start the thread if there is none, and begin to write for a log.

        Raises:
            RuntimeError: if no thread can be started.
        """
        with self._lock:
            self._begin()
            self._open += 1
        self._waiting.put((book, partial(book.open, log)))

    def close(self, book: Book, log: BookedLog, done: Callable[[], object]) -> None:
        """Write everything that was put before. Then call `done` on the writer's thread."""
        self._waiting.put((book, partial(self._close, book, log, done)))

    def flush(self, timeout_s: float) -> None:
        """Wait until everything that was put before is written, at most that long."""
        if self._thread is not None:
            flushed = threading.Event()
            self._waiting.put((None, partial(self._write_all, flushed.set)))
            flushed.wait(timeout_s)

    def put(self, book: Book, make: Callable[[], Report]) -> None:
        """Take a report to be written."""
        if self._waiting.qsize() >= MAX_WAITING:
            book.dropped += 1
            return
        self._waiting.put((book, partial(book.add, make)))
        # There is no thread for a group that never started, or that has stopped.
        if self._thread is None:
            with contextlib.suppress(RuntimeError):
                self._begin()

    def remind(self, log: BookedLog, due_s: float, act: Callable[[], object]) -> None:
        """Call `act` at that time, unless the log is closed by then."""
        self._waiting.put((None, partial(self._add_reminder, due_s, log, act)))

    def is_here(self) -> bool:
        """Return whether the caller is the writer's thread, which cannot wait for itself."""
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
            # The tasks are ours and must not fail. If one does, go on with the next.
            with contextlib.suppress(Exception):
                act()
            self._write_due(book)
            self._call_reminders()
            if not self._due_s and self._waiting.empty() and self._may_end():
                return

    def _left_s(self) -> float | None:
        due_s = [*self._due_s.values(), *(due_s for due_s, _, _ in self._reminders)]
        return max(0.0, min(due_s) - time.monotonic()) if due_s else None

    def _write_due(self, changed: Book | None) -> None:
        """Write the lines that are due, and note when the next ones are."""
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

    def _add_reminder(self, due_s: float, log: BookedLog, act: Callable[[], object]) -> None:
        if log.is_written:
            self._reminders.append((due_s, log, act))

    def _call_reminders(self) -> None:
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

    def _close(self, book: Book, log: BookedLog, done: Callable[[], object]) -> None:
        book.close(log)
        self._reminders = [each for each in self._reminders if each[1] is not log]
        with self._lock:
            self._open = max(0, self._open - 1)
        done()

    def _may_end(self) -> bool:
        with self._lock:
            if self._open:
                return False
            # A `put` from now on makes another thread.
            thread, self._thread = self._thread, None
            if self._waiting.empty():
                return True
            self._thread = thread
            return False


def _nothing() -> None:
    """Do nothing, when no task came in time."""


WRITER = Writer()

os.register_at_fork(after_in_child=WRITER.forget_parent)
# Registered before the nodes' own exit handler, so it is called after that.
atexit.register(WRITER.flush, FLUSH_S)
