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
from typing import Generic, TypeVar

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


class Dispatcher(Generic[T]):
    """Runs `tell` for each happening and `tell_error` for each error, on threads of its own."""

    def __init__(
        self,
        *,
        tell: Callable[[T], object],
        tell_error: Callable[[MultielectError], object] | None,
        threads: int,
        name: str,
        logger: logging.Logger,
    ) -> None:
        """Make the threads when they are first needed."""
        self._tell = tell
        self._tell_error = tell_error
        self._logger = logger
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._waiting: dict[Hashable, deque[Happening[T]]] = {}
        self._errors: deque[MultielectError] = deque(maxlen=MOST_ERRORS)
        self._errors_running = False
        self._closed = False
        self._inside = threading.local()

    def put(self, happening: Happening[T]) -> None:
        """Have a happening told after all earlier ones of its key. Any thread."""
        with self._lock:
            if self._closed:
                return
            queue = self._waiting.get(happening.key)
            if queue is None:
                # The one being told stands outside the queue; the entry says that a
                # thread is at work for this key.
                self._waiting[happening.key] = deque([happening])
            elif (
                len(queue) > 1
                and not happening.is_begin
                and queue[-1].is_begin
                and queue[-1].epoch == happening.epoch
            ):
                queue.pop()
            else:
                queue.append(happening)
        if queue is None:
            self._run(self._work, happening.key)

    def put_error(self, error: MultielectError) -> None:
        """Log an error and have it told to the user. Any thread."""
        self._logger.warning("%s", error)
        if self._tell_error is None:
            return
        with self._lock:
            if self._closed:
                return
            self._errors.append(error)
            begins = not self._errors_running
            self._errors_running = True
        if begins:
            self._run(self._work_errors)

    def close(self, timeout_s: float) -> bool:
        """Take nothing more, and wait for what waits. Returns whether all was told.

        Called from a callback it does not wait: a callback cannot outwait itself.
        """
        until = time.monotonic() + timeout_s
        with self._lock:
            if not getattr(self._inside, "callback", False):
                while self._waiting or self._errors_running:
                    left_s = until - time.monotonic()
                    if left_s <= 0 or not self._idle.wait(left_s):
                        break
            told = not self._waiting and not self._errors_running
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
        while True:
            with self._lock:
                queue = self._waiting[key]
                if not queue:
                    del self._waiting[key]
                    self._idle.notify_all()
                    return
                happening = queue.popleft()
            try:
                self._tell(happening.subject)
            except Exception as cause:
                self._logger.exception("a callback failed for election %r", key)
                error = CallbackError(f"a callback failed for election {key!r}: {cause!r}")
                error.__cause__ = cause
                self.put_error(error)

    def _work_errors(self) -> None:
        self._inside.callback = True
        while True:
            with self._lock:
                if not self._errors:
                    self._errors_running = False
                    self._idle.notify_all()
                    return
                error = self._errors.popleft()
            try:
                assert self._tell_error is not None
                self._tell_error(error)
            except Exception:
                self._logger.exception("on_error failed")
