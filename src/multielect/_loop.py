"""Brings events into an event loop: to callbacks that run there, and to those who iterate.

Rules of this file:
    * `put`, `put_error` and `pulse` are called on other threads and never wait for the loop.
      What they hand over is bounded, however long the loop is blocked: see `Mailbox`.
    * Each election that has something to tell has one task, which tells it in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Hashable, Iterator

from ._dispatch import MOST_ERRORS, Happening, Mailbox, callback_error
from .election import DemotionReason, Term
from .errors import MultielectError

_inside_callback: contextvars.ContextVar[bool] = contextvars.ContextVar(
    "multielect_inside_callback", default=False
)


class _Reader:
    """One who iterates over events."""

    def __init__(self) -> None:
        self.mailbox: Mailbox[Term] = Mailbox()
        self.ready: deque[Hashable] = deque()
        self.arrived = asyncio.Event()


class LoopDispatcher:
    """Runs callbacks in the loop that `open` was given."""

    is_listening = True

    def __init__(
        self,
        *,
        on_elected: Callable[[Term], object] | None,
        on_demoted: Callable[[Term, DemotionReason], object] | None,
        on_error: Callable[[MultielectError], object] | None,
        logger: logging.Logger | None,
    ) -> None:
        """Keep the callbacks; none runs before `open`."""
        self._on_elected = on_elected
        self._on_demoted = on_demoted
        self._on_error = on_error
        self._logger = logger or logging.getLogger("multielect")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._mailbox: Mailbox[Term] = Mailbox()
        self._errors: deque[MultielectError] = deque(maxlen=MOST_ERRORS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._readers: set[_Reader] = set()
        self._watchers: set[asyncio.Event] = set()
        self._telling_errors: asyncio.Task[None] | None = None
        self._pulsed = False
        self._closed = False

    # ---- the loop's thread

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run callbacks in `loop` from now on."""
        self._loop = loop

    def cancel(self) -> None:
        """Cancel the callbacks that still run, and end the iterations."""
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
        for reader in self._readers:
            reader.arrived.set()

    @contextlib.contextmanager
    def watching(self) -> Iterator[asyncio.Event]:
        """Give an event that is set whenever someone who waits should look again."""
        changed = asyncio.Event()
        self._watchers.add(changed)
        try:
            yield changed
        finally:
            self._watchers.discard(changed)

    def subscribe(self) -> AsyncIterator[Term]:
        """Return an iterator over what happens from now on."""
        reader = _Reader()
        self._readers.add(reader)
        return self._read(reader)

    async def _read(self, reader: _Reader) -> AsyncIterator[Term]:
        try:
            while True:
                while reader.ready:
                    key = reader.ready.popleft()
                    term = reader.mailbox.take(key)
                    if term is not None:
                        reader.ready.append(key)
                        yield term
                if self._closed:
                    return
                await reader.arrived.wait()
                reader.arrived.clear()
        finally:
            self._readers.discard(reader)

    # ---- any thread

    def put(self, *happenings: Happening[Term]) -> None:
        """Have happenings told, each after all earlier ones of its key."""
        if self._closed:
            return
        if self._on_elected or self._on_demoted:
            begun = [happening.key for happening in happenings if self._mailbox.put(happening)]
            if begun:
                self._call(self._begin, begun)
        for reader in tuple(self._readers):
            begun = [happening.key for happening in happenings if reader.mailbox.put(happening)]
            if begun:
                reader.ready.extend(begun)
                self._call(reader.arrived.set)

    def put_error(self, error: MultielectError) -> None:
        """Log an error and have it told to the user."""
        self._logger.warning("%s", error)
        if self._on_error is not None and not self._closed:
            self._errors.append(error)
            self._call(self._begin_errors)

    def pulse(self) -> None:
        """Have all who wait look again."""
        if not self._pulsed:
            self._pulsed = True
            self._call(self._pulse)

    def close(self, timeout_s: float) -> bool:
        """Take nothing more, and wait for what waits. Not in the loop's thread.

        Called on behalf of a callback it does not wait: a callback cannot outwait itself.
        """
        told = not _inside_callback.get() and self._mailbox.wait_until_empty(timeout_s)
        self._closed = True
        self.pulse()
        return told

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

    def _begin(self, keys: list[Hashable]) -> None:
        for key in keys:
            self._keep(asyncio.ensure_future(self._work(key)))

    def _begin_errors(self) -> None:
        if self._telling_errors is None or self._telling_errors.done():
            self._telling_errors = asyncio.ensure_future(self._work_errors())
            self._keep(self._telling_errors)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, key: Hashable) -> None:
        _inside_callback.set(True)
        while (term := self._mailbox.take(key)) is not None:
            try:
                await self._tell(term)
            except Exception as cause:
                self._logger.exception("a callback failed for election %r", key)
                self.put_error(callback_error(key, cause))

    async def _tell(self, term: Term) -> None:
        outcome: object = None
        if term.reason is None:
            if self._on_elected is not None:
                outcome = self._on_elected(term)
        elif self._on_demoted is not None:
            outcome = self._on_demoted(term, term.reason)
        if inspect.isawaitable(outcome):
            await outcome

    async def _work_errors(self) -> None:
        assert self._on_error is not None
        while self._errors:
            try:
                outcome = self._on_error(self._errors.popleft())
                if inspect.isawaitable(outcome):
                    await outcome
            except Exception:
                self._logger.exception("on_error failed")
