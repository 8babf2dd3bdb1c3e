"""Brings events into an event loop: to callbacks that run there, and to those who iterate.

Rules of this file:
    * `put`, `put_error` and `pulse` are called on other threads and never wait for the loop.
      What they hand over is bounded, however long the loop is blocked: see `Mailbox`.
    * Each election that has something to tell has one task, which tells it in order. If it ends
      before all is told, as what a callback awaited was cancelled, another goes on.
    * A group belongs to the loop in which it was started. Once that has closed there is nobody to
      be told; who waits in another hears so at once.
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
from .dispatcher import MAX_ERRORS, callback_error, on_error_failure
from .mailbox import Mailbox, TermEvent

_CANCEL_S = 1.0
"""What callbacks are given to end when they are cancelled."""

_callback: contextvars.ContextVar[asyncio.Task[None] | None] = contextvars.ContextVar(
    "multielect_callback", default=None
)


def count_as_callback() -> None:
    """Have the task that calls this, and what it begins, count as a callback's: see `is_inside`."""
    _callback.set(asyncio.current_task())


class _Reader:
    """One who iterates over events."""

    def __init__(self) -> None:
        self.mailbox: Mailbox[Term] = Mailbox()
        self.ready: deque[Hashable] = deque()
        self.arrived = asyncio.Event()


class AsyncioDispatcher:
    """Runs callbacks in the loop that `start` was called in."""

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
        # Not by what it is worth as a truth, which is the logger's own.
        logger = logging.getLogger("multielect") if logger is None else logger
        self.log = ThreadLog(logger, who, on_fault=self._report)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._mailbox: Mailbox[Term] = Mailbox()
        self._errors: deque[MultielectError] = deque(maxlen=MAX_ERRORS)
        self._tasks: set[asyncio.Task[None]] = set()
        # Weak: whoever drops an iterator, begun or not, is no reader any more.
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
            ClosedError: where somebody waits for it in another loop.
        """
        if self._loop is not None and self._loop.is_closed():
            self._loop = None  # whoever waited there waits no more
        self.be_here()
        self.log.open()

    def unstart(self) -> None:
        """Be as before `start`: the node could not be started."""
        self.log.close_behind(lambda: None)
        if not self._watchers and not self._readers:
            self._loop = None

    def be_here(self) -> None:
        """Wait in the loop that runs, from now on.

        Raises:
            ClosedError: if the group belongs to another loop.
        """
        here = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = here
        if self._loop is here:
            return
        if self._loop.is_closed():
            raise ClosedError(
                "this was started in an event loop that has closed, and can be waited for no more:"
                " stop it and make a new one in this loop"
            )
        raise ClosedError(
            "this belongs to the event loop that it was started in, and cannot be waited for in"
            " another: use asyncio.run_coroutine_threadsafe with that loop"
        )

    def be_here_to_stop(self) -> None:
        """The same, but that what a closed loop has left behind may be stopped in any.

        Raises:
            ClosedError: if the group belongs to another loop, which is not closed.
        """
        if self._loop is None or not self._loop.is_closed():
            self.be_here()

    async def finish(self, timeout_s: float) -> None:
        """After `close`: wait for the errors that wait, then cancel the callbacks that run.

        On behalf of a callback it does neither: the others still have things to be told.
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
            # A loop that was closed meanwhile has nobody left to be told.
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

        What the condition raises is passed on.
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
        """Return an iterator over what happens from now on."""
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
        """Tell whether this is called on behalf of a callback, which must not wait for others."""
        # What a callback begins inherits its context, and may outlive it.
        task = _callback.get()
        return task is not None and not task.done()

    def put(self, *term_events: TermEvent[Term]) -> None:
        """Have events told, each after all earlier ones of its key."""
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
        """Log an error and have it told to the user."""
        self.log.error(error)
        if not self._closed:
            self._report(error)

    def _report(self, error: MultielectError) -> None:
        if self._on_error is not None:
            self._errors.append(error)
            self._call(self._begin_errors)

    def pulse(self) -> None:
        """Have all who wait look again."""
        if self._loop is not None and not self._pulsed:
            self._pulsed = True
            self._call(self._pulse)

    def close(self, timeout_s: float) -> bool:
        """Take nothing more, and wait for what waits. Not in the loop's thread.

        Called on behalf of a callback it does not wait: a callback cannot outwait itself. Nor
        does it where the loop is closed, and nobody left to be told.
        """
        waits = not self.is_inside() and self._loop is not None and not self._loop.is_closed()
        told = waits and self._mailbox.wait_until_empty(timeout_s)
        self._closed = True
        self.pulse()
        self._call(self._end_readings)
        return told

    def _present_readers(self) -> list[_Reader]:
        readers = [reference() for reference in tuple(self._readers)]
        return [reader for reader in readers if reader is not None]

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        # A loop that is closed has nobody left to be told.
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
                # This task ends, be it that it was cancelled itself or what the callback awaited.
                # Another goes on with the election, if the loop does.
                if not self._is_finishing:
                    asyncio.get_running_loop().call_soon(self._begin, [key])
                    if not _is_cancelled(cause):
                        self._fail(term_event, cause)
                raise

    def _fail(self, term_event: TermEvent[Term], cause: BaseException) -> None:
        error = callback_error(term_event, cause)
        self.log.failure(error, cause, error.callback)
        # Also after the close, by a callback that closed from inside.
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
                self.log.failure(on_error_failure(cause), cause, "on_error")
            except BaseException as cause:
                if not self._is_finishing:
                    asyncio.get_running_loop().call_soon(self._begin_errors)
                    if not _is_cancelled(cause):
                        self.log.failure(on_error_failure(cause), cause, "on_error")
                raise


def _is_cancelled(cause: BaseException) -> bool:
    """Tell whether it was this task that was cancelled; Python 3.10 cannot say."""
    if not isinstance(cause, asyncio.CancelledError):
        return False
    asked = getattr(asyncio.current_task(), "cancelling", None)
    return asked is not None and bool(asked())
