"""Brings events to callbacks, away from the thread that refreshes.

Rules of this file:
    * For one election, callbacks run in order and never at once; for different elections
      they run side by side, as many as there are threads.
    * What waits is bounded: see `_callbacks.mailbox`. Errors that wait are kept to the newest.
    * An exception in a callback is logged and reported, and nothing else suffers. No logger is
      called here: see `_logging.log`.
    * Callbacks that hold all threads for long are told of: see `_callbacks.blocked_threads`.
    * The first thread is there from the start. More may be refused: an interpreter that is
      ending starts none in some versions of Python, and then the last terms are still to be
      told.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from functools import partial
from typing import Generic, Protocol, TypeVar

from .._logging.log import Log
from .._logging.thread_log import ThreadLog
from .._protocol.keys import decode_key
from .._runtime.foreign import in_words
from .._runtime.interruptible import wait_for
from ..errors import CallbackError, MultielectError
from .blocked_threads import BlockedThreads
from .mailbox import Kind, Mailbox, TermEvent

MAX_ERRORS = 100

_UNSTART_S = 1.0
"""What a thread that has nothing to do is given to end."""

_PATIENCE_S = 0.002
"""A callback that takes longer is slow, and has others help."""

T = TypeVar("T")


_CALLBACKS = {Kind.BEGIN: "on_elected", Kind.DRAIN: "on_draining", Kind.END: "on_demoted"}


class Dispatcher(Protocol[T]):
    """What brings events and errors to the user."""

    is_listening: bool
    """Whether anybody wants to be told of events."""

    notifies_drains: bool
    """Whether anybody wants to finish his work before a term is handed over."""

    @property
    def log(self) -> Log:
        """Where else it is told what happened."""

    def start(self) -> None:
        """Be ready to tell. Before the first `put`, on the thread that starts the node.

        Raises:
            RuntimeError: where it cannot be; nothing is left of the attempt.
        """

    def unstart(self) -> None:
        """Be as before `start`: the node could not be started."""

    def is_inside(self) -> bool:
        """Tell whether this is called by a callback, which must not wait for callbacks."""

    def put(self, *term_events: TermEvent[T]) -> None:
        """Have events told, each after all earlier ones of its key. Any thread."""

    def put_error(self, error: MultielectError) -> None:
        """Log an error and have it told to the user. Any thread."""

    def close(self, timeout_s: float) -> bool:
        """Take nothing more, and wait for what waits. Returns whether all was told.

        Called from a callback it does not wait: a callback cannot outwait itself.
        """


class ThreadDispatcher(Generic[T]):
    """Runs `notify` for each event and `notify_error` for each error, on threads of its own.

    There is one thread from `start` on, and more when they are needed, up to `threads`.
    Callbacks that are quick are told by one, as more would only contend for the GIL; one that
    is slow or blocks has others come to help. The threads are daemons: a callback that never
    returns does not keep the interpreter from ending.
    """

    def __init__(
        self,
        *,
        notify: Callable[[T], object] | None,
        notify_error: Callable[[MultielectError], object] | None,
        notifies_drains: bool = False,
        threads: int,
        name: str,
        logger: logging.Logger,
        who: str = "",
    ) -> None:
        """Keep what to call; there are no threads yet."""
        self.is_listening = notify is not None
        self.notifies_drains = notifies_drains
        self._notify = notify or (lambda _: None)
        self._notify_error = notify_error
        self.log = ThreadLog(logger, who, on_fault=self._report)
        self._max_threads = threads
        self._name = name
        self._mailbox: Mailbox[T] = Mailbox()
        self._errors: deque[MultielectError] = deque(maxlen=MAX_ERRORS)
        # Keys that have something to tell and no reader; None stands for the errors.
        self._ready: deque[Hashable] = deque()
        self._lock = threading.Lock()
        self._called = threading.Condition(self._lock)
        self._errors_reported = threading.Condition(self._lock)
        self._ended = threading.Condition(self._lock)
        self._threads = 0
        self._idle = 0
        self._working = 0
        self._wanted = 1
        self._notified = 0
        self._is_watched = False
        self._reporting_errors = False
        self._closed = False
        self._inside = threading.local()
        self._blocked = BlockedThreads(self.log, threads, waiting=lambda: len(self._ready))

    def start(self) -> None:
        """Make the first thread, if there is anything that it could tell.

        Raises:
            RuntimeError: if the system or the interpreter has no thread for us.
        """
        self.log.open()
        try:
            with self._lock:
                if not self._threads and (self.is_listening or self._notify_error is not None):
                    self._add_thread()
        except BaseException:
            self.log.close(0.0)
            raise

    def unstart(self) -> None:
        """Be as before `start`: the node could not be started."""
        with self._lock:
            self._closed = True
            self._called.notify_all()
            self._ended.wait_for(lambda: not self._threads, _UNSTART_S)
            self._closed = False
        self.log.close(0.0)

    def is_inside(self) -> bool:
        """Tell whether this is called by a callback, which must not wait for callbacks."""
        return bool(getattr(self._inside, "callback", False))

    def put(self, *term_events: TermEvent[T]) -> None:
        """Have events told, each after all earlier ones of its key. Any thread."""
        if not self.is_listening or self._closed:
            return
        begun = [term_event.key for term_event in term_events if self._mailbox.put(term_event)]
        with self._lock:
            self._ready.extend(begun)
            self._call()

    def put_error(self, error: MultielectError) -> None:
        """Log an error and have it told to the user. Any thread."""
        self.log.error(error)
        if not self._closed:
            self._report(error)

    def _report(self, error: MultielectError) -> None:
        if self._notify_error is None:
            return
        with self._lock:
            self._errors.append(error)
            if not self._reporting_errors:
                self._reporting_errors = True
                self._ready.append(None)
                self._call()

    def close(self, timeout_s: float) -> bool:
        """Take nothing more, and wait for what waits. Returns whether all was told.

        Called from a callback it does not wait: a callback cannot outwait itself.
        """
        until = time.monotonic() + timeout_s
        told = False
        if not self.is_inside():
            told = self._mailbox.wait_until_empty(timeout_s)
            with self._lock:
                left_s = max(0.0, until - time.monotonic())
                told &= wait_for(self._errors_reported, lambda: not self._reporting_errors, left_s)
        with self._lock:
            self._closed = True
            self._called.notify_all()
        left_s = 0.0 if self.is_inside() else until - time.monotonic()
        self.log.close(max(0.0, left_s))
        return told

    # ---- the threads, and what is done with the lock held

    def _call(self) -> None:
        """Have one thread more look whether it should work, or watch those who do."""
        if not self._ready or (self._working >= self._wanted and self._is_watched):
            return
        if self._idle:
            self._called.notify()
        elif self._threads < self._max_threads:
            # Refused, the work is left to those who are there: it must not end up on the
            # caller, who brings the news of all other elections too.
            with contextlib.suppress(RuntimeError):
                self._add_thread()

    def _add_thread(self) -> None:
        name = f"{self._name}-{self._threads + 1}"
        threading.Thread(target=self._live, name=name, daemon=True).start()
        self._threads += 1

    def _live(self) -> None:
        self._inside.callback = True
        with self._lock:
            while self._ready or not self._closed:
                if self._ready and self._working < self._wanted:
                    self._working += 1
                    self._work()
                    self._working -= 1
                elif self._ready and not self._is_watched:
                    self._watch()
                else:
                    self._wait(None)
            self._threads -= 1
            self._ended.notify_all()

    def _work(self) -> None:
        while self._ready and self._working <= self._wanted:
            key = self._ready.popleft()
            self._call()
            self._lock.release()
            began = time.monotonic()
            try:
                self._work_on(key)
            finally:
                took_s = time.monotonic() - began
                self._lock.acquire()
            self._notified += 1
            if took_s > _PATIENCE_S:
                self._want_more()
        if not self._ready:
            self._wanted = 1

    def _watch(self) -> None:
        """See whether those at work get anywhere, and have them helped if not."""
        self._is_watched = True
        told = self._notified
        was_called = self._wait(_PATIENCE_S)
        self._is_watched = False
        if not was_called and self._notified == told:
            self._want_more()

    def _want_more(self) -> None:
        self._wanted = min(self._wanted + 1, self._max_threads)
        self._call()

    def _wait(self, timeout_s: float | None) -> bool:
        self._idle += 1
        try:
            return self._called.wait(timeout_s)
        finally:
            self._idle -= 1

    def _work_on(self, key: Hashable) -> None:
        if key is None:
            self._work_on_errors()
            return
        while (term_event := self._mailbox.take(key)) is not None:
            self._blocked.begin(partial(_name_of, term_event))
            try:
                self._notify(term_event.subject)
            # Also SystemExit and its like: there is nothing here for them to end.
            except BaseException as cause:  # noqa: BLE001
                error = callback_error(term_event, cause)
                self.log.failure(error, cause, error.callback)
                # Also after the close, by a callback that closed from inside.
                self._report(error)
            finally:
                self._blocked.end()

    def _work_on_errors(self) -> None:
        assert self._notify_error is not None
        while True:
            with self._lock:
                if not self._errors:
                    self._reporting_errors = False
                    self._errors_reported.notify_all()
                    return
                error = self._errors.popleft()
            self._blocked.begin(lambda: "on_error")
            try:
                self._notify_error(error)
            except BaseException as cause:  # noqa: BLE001
                self.log.failure(on_error_failure(cause), cause, "on_error")
            finally:
                self._blocked.end()


def _name_of(term_event: TermEvent[T]) -> str:
    key = term_event.key
    text = decode_key(key) if isinstance(key, bytes) else str(key)
    return f"{_CALLBACKS[term_event.kind]} of {text!r}"


def callback_error(term_event: TermEvent[T], cause: BaseException) -> CallbackError:
    """Return the error that says that the callback for an event raised `cause`."""
    key = term_event.key
    text = decode_key(key) if isinstance(key, bytes) else str(key)
    error = CallbackError(_CALLBACKS[term_event.kind], text, term_event.epoch)
    error.__cause__ = cause
    return error


def on_error_failure(cause: BaseException) -> MultielectError:
    """Return the error that says that `on_error` raised `cause`. On the thread that it ran on."""
    return MultielectError(f"on_error failed: {in_words(cause)}")
