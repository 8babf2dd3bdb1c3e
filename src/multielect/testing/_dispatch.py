"""Brings events to callbacks in a simulated world, which has one thread only.

Rules of this file:
    * It keeps the promises of the thread dispatcher, and uses the same mailbox. Events of one
      election come in order, different elections take turns, and a paused process delivers none.
    * A callback that waits lets the world go on. It occupies one of the node's callback threads
      meanwhile. When all are occupied, no other callback runs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import TYPE_CHECKING, Generic, TypeVar

from .._callbacks.dispatcher import MAX_ERRORS, Delivery, callback_error, term_event_error
from .._callbacks.mailbox import Mailbox, TermEvent
from ..errors import MultielectError
from ._log import SimulatedLog

if TYPE_CHECKING:
    from ._node import SimulatedNode

T = TypeVar("T")


class SimulatedDispatcher(Generic[T]):
    """Calls `notify` for each event and `notify_error` for each error, one at a time."""

    def __init__(self, node: SimulatedNode, delivery: Delivery[T]) -> None:
        """Keep the callbacks."""
        self.is_listening = delivery.notify is not None
        self.notifies_drains = delivery.notifies_drains
        self._node = node
        self._notify = delivery.notify or (lambda _: None)
        self._notify_error = delivery.notify_error
        self.log = SimulatedLog(node, delivery.logger, delivery.who)
        self._max_inside = delivery.threads
        self._inside = 0
        self._mailbox: Mailbox[T] = Mailbox()
        self._errors: deque[MultielectError] = deque(maxlen=MAX_ERRORS)
        # Keys that have events; None stands for the errors.
        self._ready: deque[Hashable] = deque()
        self._busy = 0
        self._is_scheduled = False
        self._closed = False

    def start(self) -> None:
        """Open the log."""
        self.log.open()

    def unstart(self) -> None:
        """Do nothing, as there is no thread to end."""

    def is_inside(self) -> bool:
        """Return whether the caller is a callback, which must not wait for callbacks."""
        return self._inside > 0

    def put(self, *term_events: TermEvent[T]) -> None:
        """Deliver events, each after all earlier events of its key."""
        if not self.is_listening or self._closed:
            return
        for term_event in term_events:
            if self._mailbox.put(term_event):
                self._busy += 1
                self._ready.append(term_event.key)
        self._schedule()

    def put_error(self, error: MultielectError) -> None:
        """Log an error and report it through `on_error`."""
        self.log.report(error)
        if not self._closed:
            self._report(error)

    def close(self, timeout_s: float) -> bool:
        """Wait until all events are delivered, unless called by a callback; then take no more."""
        delivered = False
        if not self.is_inside():
            delivered = self._node.world.run_until(
                lambda: not self._busy and not self._errors, timeout_s
            )
        self._closed = True
        self.log.close(0.0)
        return delivered

    def abandon(self) -> None:
        """Deliver nothing more, as the process died."""
        self.log.abandon()
        self._closed = True
        self._busy = 0
        self._ready.clear()
        self._errors.clear()

    def resume(self) -> None:
        """Go on after the process was paused."""
        self._schedule()

    # ---- inside

    def _report(self, error: MultielectError) -> None:
        if self._notify_error is not None:
            if not self._errors:
                self._ready.append(None)
            self._errors.append(error)
            self._schedule()

    def _schedule(self, *, goes_on: bool = False) -> None:
        """Schedule a delivery: at once after another delivery, else after the node's delay."""
        if self._ready and not self._is_scheduled and self._inside < self._max_inside:
            self._is_scheduled = True
            delay_ns = 0 if goes_on else self._node.callback_delay_ns
            self._node.world.at(self._node.world.now_ns + delay_ns, self._work)

    def _work(self) -> None:
        self._is_scheduled = False
        if not self._ready or self._node.is_stopped or self._inside >= self._max_inside:
            return
        key = self._ready.popleft()
        self._inside += 1
        # If this callback waits, another delivery goes on meanwhile.
        self._schedule(goes_on=True)
        try:
            if key is None:
                self._work_on_errors()
            else:
                self._work_on(key)
        finally:
            self._inside -= 1
        self._schedule(goes_on=True)

    def _work_on(self, key: Hashable) -> None:
        term_event = self._mailbox.take(key)
        if term_event is None:
            self._busy -= 1
            return
        try:
            self._notify(term_event.subject)
        # Another BaseException is for the test, on whose thread this runs.
        except Exception as cause:  # noqa: BLE001
            error = term_event_error(term_event, cause)
            self.log.report(error)
            self._report(error)
        # Other elections first: one with many events must not delay them.
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
