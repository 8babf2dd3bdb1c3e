"""Brings events to callbacks, away from the thread that refreshes leases.

Rules of this file:
    * Callbacks of one election run in order and never at once. Callbacks of different elections run
      side by side, as many as there are threads.
    * The events that wait are bounded: see `_callbacks.mailbox`. Of the errors that wait, the
      newest are kept.
    * An exception of a callback is logged and reported, and harms nothing else. This file calls no
      logger: see `_logging.log`.
    * Callbacks that block all threads are reported: see `_callbacks.blocked_threads`.
    * The first thread is started with the node. Later starts may be refused, as some versions of
      Python start no thread while the interpreter ends, and the last terms must still be delivered.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Generic, Protocol, TypeVar

from .._logging.log import Log
from .._logging.thread_log import ThreadLog
from .._protocol.keys import decode_key
from .._runtime.interruptible import wait_for
from ..errors import CallbackError, MultielectError
from .blocked_threads import BlockedThreads
from .mailbox import Kind, Mailbox, TermEvent

MAX_ERRORS = 100

_UNSTART_S = 1.0
"""How long an idle thread has to end."""

_PATIENCE_S = 0.002
"""A callback that takes longer is slow, and another thread helps."""

T = TypeVar("T")


_CALLBACKS = {Kind.BEGIN: "on_elected", Kind.DRAIN: "on_draining", Kind.END: "on_demoted"}


@dataclass(frozen=True)
class Delivery(Generic[T]):
    """How a dispatcher on threads delivers events and errors.

    Attributes:
        notify: called with each event's subject; None if nobody listens.
        notify_error: called with each error; None if nobody listens.
        threads: how many callbacks may run at once.
        name: the beginning of the threads' names.
        logger: where errors are logged.
        notifies_drains: whether a callback wants to finish its work before a term is handed over.
        who: the beginning of each line of the log.
    """

    notify: Callable[[T], object] | None
    notify_error: Callable[[MultielectError], object] | None
    threads: int
    name: str
    logger: logging.Logger
    notifies_drains: bool = False
    who: str = ""


class Dispatcher(Protocol[T]):
    """Brings events and errors to the user."""

    is_listening: bool
    """Whether there is a callback for events."""

    notifies_drains: bool
    """Whether a callback wants to finish its work before a term is handed over."""

    @property
    def log(self) -> Log:
        """The node's log."""

    def start(self) -> None:
        """Prepare for the first `put`. Called on the thread that starts the node.

        Raises:
            RuntimeError: if no thread can be started; the attempt is then undone.
        """

    def unstart(self) -> None:
        """Undo `start`, because the node could not be started."""

    def is_inside(self) -> bool:
        """Return whether the caller is a callback, which must not wait for callbacks."""

    def put(self, *term_events: TermEvent[T]) -> None:
        """Deliver events, each after all earlier events of its key. Any thread."""

    def put_error(self, error: MultielectError) -> None:
        """Log an error and report it through `on_error`. Any thread."""

    def close(self, timeout_s: float) -> bool:
        """Wait until all is delivered, and take no more. Returns whether all was delivered.

        In a callback it does not wait, because a callback cannot wait for itself.
        """


class ThreadDispatcher(Generic[T]):
    """Calls `notify` for each event and `notify_error` for each error, on its own threads.

    There is one thread from `start` on, and more when they are needed, up to `threads`. One thread
    runs all quick callbacks, as more threads would only contend for the GIL. When a callback is
    slow or blocks, another thread helps. The threads are daemons: a callback that never returns
    does not keep the interpreter alive.
    """

    def __init__(self, delivery: Delivery[T]) -> None:
        """Keep the callbacks. Starts no thread."""
        self.is_listening = delivery.notify is not None
        self.notifies_drains = delivery.notifies_drains
        self._notify = delivery.notify or (lambda _: None)
        self._notify_error = delivery.notify_error
        self.log = ThreadLog(delivery.logger, delivery.who, on_fault=self._report)
        self._max_threads = delivery.threads
        self._name = delivery.name
        self._mailbox: Mailbox[T] = Mailbox()
        self._errors: deque[MultielectError] = deque(maxlen=MAX_ERRORS)
        # Keys that have events and no reader; None stands for the errors.
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
        self._blocked = BlockedThreads(self.log, delivery.threads, waiting=lambda: len(self._ready))

    def start(self) -> None:
        """Start the first thread, if there is a callback.

        Raises:
            RuntimeError: if no thread can be started.
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
        """Undo `start`, because the node could not be started."""
        with self._lock:
            self._closed = True
            self._called.notify_all()
            self._ended.wait_for(lambda: not self._threads, _UNSTART_S)
            self._closed = False
        self.log.close(0.0)

    def is_inside(self) -> bool:
        """Return whether the caller is a callback, which must not wait for callbacks."""
        return bool(getattr(self._inside, "callback", False))

    def put(self, *term_events: TermEvent[T]) -> None:
        """Deliver events, each after all earlier events of its key. Any thread."""
        if not self.is_listening or self._closed:
            return
        begun = [term_event.key for term_event in term_events if self._mailbox.put(term_event)]
        with self._lock:
            self._ready.extend(begun)
            self._call()

    def put_error(self, error: MultielectError) -> None:
        """Log an error and report it through `on_error`. Any thread."""
        self.log.report(error)
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
        """Wait until all is delivered, and take no more. Returns whether all was delivered.

        In a callback it does not wait, because a callback cannot wait for itself.
        """
        until = time.monotonic() + timeout_s
        delivered = False
        if not self.is_inside():
            delivered = self._mailbox.wait_until_empty(timeout_s)
            with self._lock:
                left_s = max(0.0, until - time.monotonic())
                delivered &= wait_for(
                    self._errors_reported, lambda: not self._reporting_errors, left_s
                )
        with self._lock:
            self._closed = True
            self._called.notify_all()
        left_s = 0.0 if self.is_inside() else until - time.monotonic()
        self.log.close(max(0.0, left_s))
        return delivered

    # ---- the threads; these methods need the lock

    def _call(self) -> None:
        """Wake or start one more thread, to work or to watch the threads that work."""
        if not self._ready or (self._working >= self._wanted and self._is_watched):
            return
        if self._idle:
            self._called.notify()
        elif self._threads < self._max_threads:
            # If the start is refused, the existing threads do the work. The caller must not do it,
            # because it delivers the events of all other elections too.
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
        """Watch the threads that work, and want one more if no callback returns for a while."""
        self._is_watched = True
        notified_before = self._notified
        was_called = self._wait(_PATIENCE_S)
        self._is_watched = False
        if not was_called and self._notified == notified_before:
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
            # SystemExit as well: in a thread it would end nothing but this thread.
            except BaseException as cause:  # noqa: BLE001
                error = term_event_error(term_event, cause)
                self.log.report(error)
                # Even after `close`, because a callback may have called it.
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
                self.log.report(callback_error("on_error", "", 0, cause))
            finally:
                self._blocked.end()


def _name_of(term_event: TermEvent[T]) -> str:
    key = term_event.key
    text = decode_key(key) if isinstance(key, bytes) else str(key)
    return f"{_CALLBACKS[term_event.kind]} of {text!r}"


def term_event_error(term_event: TermEvent[T], cause: BaseException) -> CallbackError:
    """Return the error for an event whose callback raised `cause`."""
    key = term_event.key
    text = decode_key(key) if isinstance(key, bytes) else str(key)
    return callback_error(_CALLBACKS[term_event.kind], text, term_event.epoch, cause)


def callback_error(callback: str, key: str, epoch: int, cause: BaseException) -> CallbackError:
    """Return the error that says that code of the user's raised `cause`."""
    error = CallbackError(callback, key, epoch)
    error.__cause__ = cause
    return error
