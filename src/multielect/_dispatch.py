"""Brings events to callbacks, away from the thread that refreshes.

Rules of this file:
    * For one election, callbacks run in order and never at once; for different elections
      they run side by side, as many as there are threads.
    * What waits is bounded: behind others that wait, a term that ended before its begin was
      told is not told at all, so that no more than three wait for one election. Errors that
      wait are kept to the newest.
    * An exception in a callback is logged and reported, and nothing else suffers.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from .errors import CallbackError, MultielectError

MOST_ERRORS = 100

T = TypeVar("T")


@dataclass(frozen=True)
class Happening(Generic[T]):
    """A term begun or ended, to be told to a callback."""

    key: Hashable
    epoch: int
    is_begin: bool
    subject: T


class Dispatcher(Protocol[T]):
    """What brings happenings and errors to the user."""

    is_listening: bool
    """Whether anybody wants to be told of happenings."""

    def put(self, happening: Happening[T]) -> None:
        """Have a happening told after all earlier ones of its key. Any thread."""

    def put_error(self, error: MultielectError) -> None:
        """Log an error and have it told to the user. Any thread."""

    def close(self, timeout_s: float) -> bool:
        """Take nothing more, and wait for what waits. Returns whether all was told.

        Called from a callback it does not wait: a callback cannot outwait itself.
        """


class Mailbox(Generic[T]):
    """Happenings that wait, in order for each key, with one reader a key at a time."""

    def __init__(self) -> None:
        """Begin empty."""
        self._lock = threading.Lock()
        self._emptied = threading.Condition(self._lock)
        self._waiting: dict[Hashable, deque[Happening[T]]] = {}

    def put(self, happening: Happening[T]) -> bool:
        """Add a happening. Returns True if its key has no reader, who must be found now."""
        with self._lock:
            queue = self._waiting.get(happening.key)
            if queue is None:
                # The one being told stands outside the queue; the entry says that there
                # is a reader.
                self._waiting[happening.key] = deque([happening])
                return True
            if (
                len(queue) > 1
                and not happening.is_begin
                and queue[-1].is_begin
                and queue[-1].epoch == happening.epoch
            ):
                queue.pop()
            else:
                queue.append(happening)
            return False

    def take(self, key: Hashable) -> T | None:
        """Take the next happening of a key, for its reader; None ends the reader's duty."""
        with self._lock:
            queue = self._waiting[key]
            if queue:
                return queue.popleft().subject
            del self._waiting[key]
            if not self._waiting:
                self._emptied.notify_all()
            return None

    def wait_until_empty(self, timeout_s: float) -> bool:
        """Wait until all has been taken and all readers are done."""
        with self._lock:
            return self._emptied.wait_for(lambda: not self._waiting, timeout_s)


class ThreadDispatcher(Generic[T]):
    """Runs `tell` for each happening and `tell_error` for each error, on threads of its own."""

    def __init__(
        self,
        *,
        tell: Callable[[T], object] | None,
        tell_error: Callable[[MultielectError], object] | None,
        threads: int,
        name: str,
        logger: logging.Logger,
    ) -> None:
        """Make the threads when they are first needed."""
        self.is_listening = tell is not None
        self._tell = tell or (lambda _: None)
        self._tell_error = tell_error
        self._logger = logger
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._mailbox: Mailbox[T] = Mailbox()
        self._errors_lock = threading.Lock()
        self._errors_told = threading.Condition(self._errors_lock)
        self._errors: deque[MultielectError] = deque(maxlen=MOST_ERRORS)
        self._telling_errors = False
        self._closed = False
        self._inside = threading.local()

    def put(self, happening: Happening[T]) -> None:
        """Have a happening told after all earlier ones of its key. Any thread."""
        if self.is_listening and not self._closed and self._mailbox.put(happening):
            self._run(self._work, happening.key)

    def put_error(self, error: MultielectError) -> None:
        """Log an error and have it told to the user. Any thread."""
        self._logger.warning("%s", error)
        if not self._closed:
            self._report(error)

    def _report(self, error: MultielectError) -> None:
        if self._tell_error is None:
            return
        with self._errors_lock:
            self._errors.append(error)
            begins = not self._telling_errors
            self._telling_errors = True
        if begins:
            self._run(self._work_errors)

    def close(self, timeout_s: float) -> bool:
        """Take nothing more, and wait for what waits. Returns whether all was told.

        Called from a callback it does not wait: a callback cannot outwait itself.
        """
        until = time.monotonic() + timeout_s
        told = False
        if not getattr(self._inside, "callback", False):
            told = self._mailbox.wait_until_empty(timeout_s)
            with self._errors_lock:
                left_s = max(0.0, until - time.monotonic())
                told &= self._errors_told.wait_for(lambda: not self._telling_errors, left_s)
        self._closed = True
        self._pool.shutdown(wait=False)
        return told

    def _run(self, work: Callable[..., None], *arguments: object) -> None:
        try:
            self._pool.submit(work, *arguments)
        except RuntimeError:
            # The interpreter is ending and takes no more work for its threads: better told
            # on this one than not at all.
            work(*arguments)

    def _work(self, key: Hashable) -> None:
        self._inside.callback = True
        while (subject := self._mailbox.take(key)) is not None:
            try:
                self._tell(subject)
            except Exception as cause:
                self._logger.exception("a callback failed for election %r", key)
                # Also after the close, by a callback that closed from inside.
                self._report(callback_error(key, cause))

    def _work_errors(self) -> None:
        self._inside.callback = True
        assert self._tell_error is not None
        while True:
            with self._errors_lock:
                if not self._errors:
                    self._telling_errors = False
                    self._errors_told.notify_all()
                    return
                error = self._errors.popleft()
            try:
                self._tell_error(error)
            except Exception:
                self._logger.exception("on_error failed")


def callback_error(key: Hashable, cause: Exception) -> CallbackError:
    """Return the error that says that a callback raised `cause`."""
    error = CallbackError(f"a callback failed for election {key!r}: {cause!r}")
    error.__cause__ = cause
    return error
