"""Brings events into an event loop: to callbacks that run there, and to iterators.

Rules of this file:
    * Other threads call `put`, `put_error` and `pulse`, which never wait for the loop. The events
      that they hand over are bounded, however long the loop is blocked: see `Mailbox`.
    * Each election that has events has one task, which delivers them in order. If the task is
      cancelled before it has delivered all, another task goes on.
    * A group belongs to the loop in which it was started. When that loop has closed, no callback
      runs, and a wait in another loop raises at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import logging
import time
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable, Hashable

from .._logging.thread_log import ThreadLog
from .._logging.writer import FLUSH_S
from ..election import DemotionReason, Term
from ..errors import ClosedError, MultielectError
from .dispatcher import MAX_ERRORS, callback_error, term_event_error
from .mailbox import Mailbox, TermEvent

_CANCEL_S = 1.0
"""How long callbacks have to end when they are cancelled."""

_callback: contextvars.ContextVar[asyncio.Task[None] | None] = contextvars.ContextVar(
    "multielect_callback", default=None
)


def count_as_callback() -> None:
    """Let the calling task, and tasks that it starts, count as callbacks: see `is_inside`."""
    _callback.set(asyncio.current_task())


class _Reader:
    """An iterator over events."""

    def __init__(self) -> None:
        self.mailbox: Mailbox[Term] = Mailbox()
        self.ready: deque[Hashable] = deque()
        self.arrived = asyncio.Event()


class AsyncioDispatcher:
    """Runs callbacks in the loop in which `start` was called."""

    is_listening = True

    def __init__(
        self,
        *,
        on_elected: Callable[[Term], object] | None,
        on_demoted: Callable[[Term, DemotionReason], object] | None,
        on_draining: Callable[[Term, float], object] | None = None,
        on_error: Callable[[MultielectError], object] | None,
        logger: logging.Logger | None,
        who: str = "",
    ) -> None:
        """Keep the callbacks; none runs before `start`."""
        self._on_elected = on_elected
        self._on_demoted = on_demoted
        self._on_draining = on_draining
        self.notifies_drains = on_draining is not None
        self._on_error = on_error
        # Not `logger or ...`, because a logger may define its own truth value.
        logger = logging.getLogger("multielect") if logger is None else logger
        self.log = ThreadLog(logger, who, on_fault=self._report)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._mailbox: Mailbox[Term] = Mailbox()
        self._errors: deque[MultielectError] = deque(maxlen=MAX_ERRORS)
        self._tasks: set[asyncio.Task[None]] = set()
        # Weak references, so that an iterator that the user dropped is no reader any more.
        self._readers: set[weakref.ref[_Reader]] = set()
        self._watchers: set[asyncio.Event] = set()
        self._reporting_errors: asyncio.Task[None] | None = None
        self._pulsed = False
        self._closed = False
        self._is_finishing = False

    # ---- the loop's thread

    def start(self) -> None:
        """Run callbacks in this loop from now on.

        Raises:
            ClosedError: if a task waits for the group in another loop.
        """
        if self._loop is not None and self._loop.is_closed():
            self._loop = None  # no task waits in a closed loop
        self.be_here()
        self.log.open()

    def unstart(self) -> None:
        """Undo `start`, because the node could not be started."""
        self.log.close_behind(lambda: None)
        if not self._watchers and not self._readers:
            self._loop = None

    def be_here(self) -> None:
        """Belong to the running loop from now on.

        Raises:
            ClosedError: if the group belongs to another loop.
        """
        running = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = running
        if self._loop is running:
            return
        if self._loop.is_closed():
            raise ClosedError(
                "this was started in an event loop that has closed, and no task can wait for it any"
                " more: stop it and make a new one in this loop"
            )
        raise ClosedError(
            "this belongs to the event loop in which it was started, and tasks of another loop"
            " cannot wait for it: use asyncio.run_coroutine_threadsafe with that loop"
        )

    def be_here_to_stop(self) -> None:
        """Do as `be_here`, but allow any loop if the group's loop has closed.

        Raises:
            ClosedError: if the group belongs to another loop, which is not closed.
        """
        if self._loop is None or not self._loop.is_closed():
            self.be_here()

    async def finish(self, timeout_s: float) -> None:
        """Wait until the errors are reported, and then cancel the callbacks. Call it after `close`.

        In a callback it does neither, because other callbacks may still have to run.
        """
        if self.is_inside():
            self.log.close_behind(lambda: None)
            return
        until = time.monotonic() + timeout_s
        await self._finish_callbacks(timeout_s)
        await self._finish_log(max(0.0, until - time.monotonic()))

    async def _finish_log(self, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        written = asyncio.Event()

        def notify() -> None:
            # If the loop was closed meanwhile, no task waits.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(written.set)

        if self.log.close_behind(notify):
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(written.wait(), min(timeout_s, FLUSH_S))

    async def _finish_callbacks(self, timeout_s: float) -> None:
        if self._loop is not asyncio.get_running_loop():
            return
        if self._errors:
            self._begin_errors()
        if self._reporting_errors is not None and not self._reporting_errors.done():
            await asyncio.wait({self._reporting_errors}, timeout=timeout_s)
        self._is_finishing = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=_CANCEL_S)

    async def wait_for(self, condition: Callable[[], bool], timeout_s: float | None) -> bool:
        """Wait until the condition holds. Returns False if it does not after `timeout_s`.

        An exception of the condition is passed on.
        """
        changed = asyncio.Event()
        self.be_here()
        self._watchers.add(changed)

        async def wait() -> None:
            while not condition():
                await changed.wait()
                changed.clear()

        try:
            await asyncio.wait_for(wait(), timeout_s)
        except asyncio.TimeoutError:
            return False
        finally:
            self._watchers.discard(changed)
        return True

    def subscribe(self) -> AsyncGenerator[Term, None]:
        """Return an iterator over the events from now on."""
        reader = _Reader()
        self._readers.add(weakref.ref(reader, self._readers.discard))
        return self._read(reader)

    async def _read(self, reader: _Reader) -> AsyncGenerator[Term, None]:
        self.be_here()
        while True:
            while reader.ready:
                key = reader.ready.popleft()
                term_event = reader.mailbox.take(key)
                if term_event is not None:
                    reader.ready.append(key)
                    yield term_event.subject
            if self._closed:
                return
            await reader.arrived.wait()
            reader.arrived.clear()

    # ---- any thread

    def is_inside(self) -> bool:
        """Return whether the caller works for a callback, which must not wait for callbacks."""
        # A task that a callback started inherits its context, and may outlive the callback.
        task = _callback.get()
        return task is not None and not task.done()

    def put(self, *term_events: TermEvent[Term]) -> None:
        """Deliver events, each after all earlier events of its key."""
        if self._closed:
            return
        callbacks = (self._on_elected, self._on_demoted, self._on_draining)
        if callbacks != (None, None, None):
            begun = [term_event.key for term_event in term_events if self._mailbox.put(term_event)]
            if begun:
                self._call(self._begin, begun)
        for reader in self._present_readers():
            begun = [term_event.key for term_event in term_events if reader.mailbox.put(term_event)]
            if begun:
                reader.ready.extend(begun)
                self._call(reader.arrived.set)

    def put_error(self, error: MultielectError) -> None:
        """Log an error and report it through `on_error`."""
        self.log.report(error)
        if not self._closed:
            self._report(error)

    def _report(self, error: MultielectError) -> None:
        if self._on_error is not None:
            self._errors.append(error)
            self._call(self._begin_errors)

    def pulse(self) -> None:
        """Let all tasks that wait check their conditions again."""
        if self._loop is not None and not self._pulsed:
            self._pulsed = True
            self._call(self._pulse)

    def close(self, timeout_s: float) -> bool:
        """Wait until all events are delivered, and take no more. Not in the loop's thread.

        In a callback it does not wait, because a callback cannot wait for itself. If the loop is
        closed it does not wait either, because no callback will run.

        Returns:
            Whether all events were delivered.
        """
        waits = not self.is_inside() and self._loop is not None and not self._loop.is_closed()
        delivered = waits and self._mailbox.wait_until_empty(timeout_s)
        self._closed = True
        self.pulse()
        self._call(self._end_readings)
        return delivered

    def _present_readers(self) -> list[_Reader]:
        readers = [reference() for reference in tuple(self._readers)]
        return [reader for reader in readers if reader is not None]

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        # A closed loop runs no callbacks.
        with contextlib.suppress(RuntimeError):
            if self._loop is not None:
                self._loop.call_soon_threadsafe(function, *arguments)

    # ---- in the loop

    def _pulse(self) -> None:
        self._pulsed = False
        for changed in self._watchers:
            changed.set()

    def _end_readings(self) -> None:
        for reader in self._present_readers():
            reader.arrived.set()

    def _begin(self, keys: list[Hashable]) -> None:
        for key in keys:
            self._keep(asyncio.ensure_future(self._work(key)))

    def _begin_errors(self) -> None:
        if self._reporting_errors is None or self._reporting_errors.done():
            self._reporting_errors = asyncio.ensure_future(self._work_errors())
            self._keep(self._reporting_errors)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, key: Hashable) -> None:
        count_as_callback()
        while (term_event := self._mailbox.take(key)) is not None:
            try:
                await self._notify(term_event.subject)
            except GeneratorExit:
                raise
            except Exception as cause:  # noqa: BLE001
                self._fail(term_event, cause)
            except BaseException as cause:
                # This task ends, because it was cancelled, or a task that the callback awaited.
                # If the loop goes on, another task goes on with the election.
                if not self._is_finishing:
                    asyncio.get_running_loop().call_soon(self._begin, [key])
                    if not _is_cancelled(cause):
                        self._fail(term_event, cause)
                raise

    def _fail(self, term_event: TermEvent[Term], cause: BaseException) -> None:
        error = term_event_error(term_event, cause)
        self.log.report(error)
        # Even after `close`, because a callback may have called it.
        self._report(error)

    async def _notify(self, term: Term) -> None:
        outcome: object = None
        if term.deadline is not None:
            if self._on_draining is not None:
                outcome = self._on_draining(term, term.deadline)
        elif term.reason is None:
            if self._on_elected is not None:
                outcome = self._on_elected(term)
        elif self._on_demoted is not None:
            outcome = self._on_demoted(term, term.reason)
        if inspect.isawaitable(outcome):
            await outcome

    async def _work_errors(self) -> None:
        assert self._on_error is not None
        count_as_callback()
        while self._errors:
            try:
                outcome = self._on_error(self._errors.popleft())
                if inspect.isawaitable(outcome):
                    await outcome
            except GeneratorExit:
                raise
            except Exception as cause:  # noqa: BLE001
                self.log.report(callback_error("on_error", "", 0, cause))
            except BaseException as cause:
                if not self._is_finishing:
                    asyncio.get_running_loop().call_soon(self._begin_errors)
                    if not _is_cancelled(cause):
                        self.log.report(callback_error("on_error", "", 0, cause))
                raise


def _is_cancelled(cause: BaseException) -> bool:
    """Return whether this task itself was cancelled. Python 3.10 cannot say, and gives False."""
    if not isinstance(cause, asyncio.CancelledError):
        return False
    asked = getattr(asyncio.current_task(), "cancelling", None)
    return asked is not None and bool(asked())
