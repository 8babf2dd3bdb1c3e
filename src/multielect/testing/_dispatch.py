"""Brings events to callbacks in a simulated world, where nothing runs at once.

Rules of this file:
    * What the dispatcher of threads promises is kept, its mailbox being the same: in order for one
      election, in turns for different ones, and not while the process is stopped.
    * A callback that waits for something lets the world go on. It keeps one of the node's
      callback threads meanwhile, and with none left nobody else is told.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Generic, TypeVar

from .._callbacks.dispatcher import MAX_ERRORS, callback_error, term_event_error
from .._callbacks.mailbox import Mailbox, TermEvent
from ..errors import MultielectError
from ._log import SimulatedLog

if TYPE_CHECKING:
    from ._node import SimulatedNode

T = TypeVar("T")


class SimulatedDispatcher(Generic[T]):
    """Runs `notify` for each event and `notify_error` for each error, one at a time."""

    def __init__(
        self,
        node: SimulatedNode,
        *,
        notify: Callable[[T], object] | None,
        notify_error: Callable[[MultielectError], object] | None,
        notifies_drains: bool,
        threads: int,
        logger: logging.Logger,
        who: str,
    ) -> None:
        """Keep what to call."""
        self.is_listening = notify is not None
        self.notifies_drains = notifies_drains
        self._node = node
        self._notify = notify or (lambda _: None)
        self._notify_error = notify_error
        self.log = SimulatedLog(node, logger, who)
        self._max_inside = threads
        self._inside = 0
        self._mailbox: Mailbox[T] = Mailbox()
        self._errors: deque[MultielectError] = deque(maxlen=MAX_ERRORS)
        # Keys that have something to tell; None stands for the errors.
        self._ready: deque[Hashable] = deque()
        self._busy = 0
        self._is_called = False
        self._closed = False

    def start(self) -> None:
        """Be ready to tell."""
        self.log.open()

    def unstart(self) -> None:
        """Be as before `start`: here nothing is refused."""

    def is_inside(self) -> bool:
        """Tell whether this is called by a callback, which must not wait for callbacks."""
        return self._inside > 0

    def put(self, *term_events: TermEvent[T]) -> None:
        """Have events told, each after all earlier ones of its key."""
        if not self.is_listening or self._closed:
            return
        for term_event in term_events:
            if self._mailbox.put(term_event):
                self._busy += 1
                self._ready.append(term_event.key)
        self._call()

    def put_error(self, error: MultielectError) -> None:
        """Log an error and have it told to the user."""
        self.log.report(error)
        if not self._closed:
            self._report(error)

    def close(self, timeout_s: float) -> bool:
        """Take nothing more, and wait for what waits, unless called from a callback."""
        told = False
        if not self.is_inside():
            told = self._node.world.run_until(
                lambda: not self._busy and not self._errors, timeout_s
            )
        self._closed = True
        self.log.close(0.0)
        return told

    def abandon(self) -> None:
        """Die: tell nothing more."""
        self.log.abandon()
        self._closed = True
        self._busy = 0
        self._ready.clear()
        self._errors.clear()

    def resume(self) -> None:
        """Go on after the process was stopped."""
        self._call()

    # ---- inside

    def _report(self, error: MultielectError) -> None:
        if self._notify_error is not None:
            if not self._errors:
                self._ready.append(None)
            self._errors.append(error)
            self._call()

    def _call(self, *, goes_on: bool = False) -> None:
        """Have something told: at once where others were just told, else after the delay."""
        if self._ready and not self._is_called and self._inside < self._max_inside:
            self._is_called = True
            delay_ns = 0 if goes_on else self._node.callback_delay_ns
            self._node.world.at(self._node.world.now_ns + delay_ns, self._work)

    def _work(self) -> None:
        self._is_called = False
        if not self._ready or self._node.is_stopped or self._inside >= self._max_inside:
            return
        key = self._ready.popleft()
        self._inside += 1
        # Should this one wait for something, another goes on.
        self._call(goes_on=True)
        try:
            if key is None:
                self._work_on_errors()
            else:
                self._work_on(key)
        finally:
            self._inside -= 1
        self._call(goes_on=True)

    def _work_on(self, key: Hashable) -> None:
        term_event = self._mailbox.take(key)
        if term_event is None:
            self._busy -= 1
            return
        try:
            self._notify(term_event.subject)
        # What is no Exception is for the test, whose thread this is.
        except Exception as cause:  # noqa: BLE001
            error = term_event_error(term_event, cause)
            self.log.report(error)
            self._report(error)
        # Others first: one election's news must not keep all the rest waiting.
        self._ready.append(key)

    def _work_on_errors(self) -> None:
        assert self._notify_error is not None
        error = self._errors.popleft()
        if self._errors:
            self._ready.append(None)
        try:
            self._notify_error(error)
        except Exception as cause:  # noqa: BLE001
            self.log.report(callback_error("on_error", "", 0, cause))
