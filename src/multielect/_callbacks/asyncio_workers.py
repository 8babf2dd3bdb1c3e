"""Workers in an event loop: one task for each term, started and cancelled with it.

Rules of this file:
    * As in `workers`, an election has one worker at a time, and a term without a worker is given
      up.
    * A worker is cancelled when its term has ended. When the term drains, `stopping` is set and the
      worker may finish, as on threads.
    * Other threads call `put`, which never waits for the loop. The events that it hands over are
      bounded, however long the loop is blocked: see `Mailbox`.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Callable, Hashable

from ..election import Term
from .asyncio_dispatcher import count_as_callback
from .dispatcher import callback_error
from .mailbox import Kind, Mailbox, TermEvent
from .worker_dispatcher import WorkerSetup
from .worker_registry import (
    WorkedTerm,
    WorkerRegistry,
    give_up,
    given_up_for_want,
    left_behind,
    still_at_work,
)


class WorkerTerm(WorkedTerm):
    """One term, as its worker receives it: see `multielect.WorkerTerm`.

    ::

        async def work(term):
            while not term.stopping.is_set():
                await do_some(term.key, term.epoch)

    Attributes:
        stopping: set when the worker must return, because the term drains or has ended. When the
            term has ended, the worker is cancelled as well. So a worker that never looks at
            `stopping` keeps a draining term until its `deadline`.
    """

    __slots__ = ()

    _event = asyncio.Event
    stopping: asyncio.Event


class AsyncioWorkers:
    """Runs a worker for each term, in the loop in which `start` was called."""

    def __init__(self, setup: WorkerSetup) -> None:
        """Keep the worker function."""
        self._work = setup.work
        self._patience_s = setup.patience_s
        self._report = setup.report
        self._name = setup.name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._mailbox: Mailbox[Term] = Mailbox()
        self._registry: WorkerRegistry[WorkerTerm] = WorkerRegistry()
        self._tasks: dict[WorkerTerm, asyncio.Task[None]] = {}
        self._timers: set[asyncio.TimerHandle] = set()
        self._closed = False
        self._ended = threading.Event()

    def start(self) -> None:
        """Run workers in this loop from now on."""
        self._loop = asyncio.get_running_loop()

    def unstart(self) -> None:
        """Undo `start`, because the node could not be started."""
        self._loop = None

    # ---- any thread

    def is_inside(self) -> bool:
        """Return False: these workers count as callbacks, for which the dispatcher answers."""
        return False

    def put(self, *term_events: TermEvent[Term]) -> None:
        """Start and stop workers as terms begin, drain and end."""
        begun = [term_event.key for term_event in term_events if self._mailbox.put(term_event)]
        if begun:
            self._call(self._take, begun)

    def close(self, timeout_s: float) -> bool:
        """Cancel all workers, start no more, and wait. Do not call it in the loop's thread.

        Returns:
            Whether all have ended.
        """
        if self._loop is None or self._loop.is_closed():
            return True
        # The loop runs this after all earlier events.
        self._call(self._close)
        ended = self._ended.wait(timeout_s)
        left = list(self._registry)
        if left and timeout_s:
            self._report(left_behind(left))
        return ended

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        # A closed loop runs no workers.
        with contextlib.suppress(RuntimeError):
            if self._loop is not None:
                self._loop.call_soon_threadsafe(function, *arguments)

    # ---- in the loop

    def _take(self, keys: list[Hashable]) -> None:
        for key in keys:
            while (term_event := self._mailbox.take(key)) is not None:
                if term_event.kind is Kind.BEGIN:
                    self._begin(WorkerTerm.of(term_event.subject))
                else:
                    self._stop(term_event.subject)

    def _begin(self, term: WorkerTerm) -> None:
        if self._closed:
            return
        if self._registry.begin(term):
            self._start_task(term)
        else:
            self._check_later(self._check_waiting, term)

    def _stop(self, latest: Term) -> None:
        ended = self._registry.stop(latest)
        if ended is not None:
            self._tasks[ended].cancel()
            self._check_later(self._check_ended, ended)

    def _close(self) -> None:
        self._closed = True
        for timer in self._timers:
            timer.cancel()
        for term in self._registry:
            term.stopping.set()
            # A term with a reason was cancelled when it ended.
            if term.reason is None:
                self._tasks[term].cancel()
        self._set_if_ended()

    def _set_if_ended(self) -> None:
        if self._closed and not self._registry:
            self._ended.set()

    def _check_later(self, check: Callable[[WorkerTerm], None], term: WorkerTerm) -> None:
        def check_now() -> None:
            self._timers.discard(timer)
            check(term)

        timer = asyncio.get_running_loop().call_later(self._patience_s, check_now)
        self._timers.add(timer)

    def _check_waiting(self, term: WorkerTerm) -> None:
        former = self._registry.stop_waiting(term)
        if former is not None:
            self._report(given_up_for_want(term, former))
            give_up(term)

    def _check_ended(self, term: WorkerTerm) -> None:
        if self._registry.is_working(term):
            self._report(still_at_work(term, self._patience_s))

    def _start_task(self, term: WorkerTerm) -> None:
        name = f"{self._name}-{term.key!a:.40}"
        task = asyncio.get_running_loop().create_task(self._run(term), name=name)
        self._tasks[term] = task
        task.add_done_callback(lambda task: self._leave(term, task))

    async def _run(self, term: WorkerTerm) -> None:
        count_as_callback()
        # No work begins under a term that has ended or drains.
        if term.stopping.is_set():
            return
        outcome = self._work(term)
        if not inspect.isawaitable(outcome):
            raise TypeError(f"worker must be a coroutine function; it returned {outcome!r}")
        await outcome

    def _leave(self, term: WorkerTerm, task: asyncio.Task[None]) -> None:
        was_stopped = term.reason is not None or self._closed
        cause: BaseException | None
        if task.cancelled():
            # A task that somebody else cancelled has failed.
            cause = None if was_stopped else asyncio.CancelledError()
        else:
            cause = task.exception()
        if cause is not None:
            self._report(callback_error("worker", term.key, term.epoch, cause))
        give_up(term)
        del self._tasks[term]
        following = self._registry.leave(term)
        if following is not None:
            self._start_task(following)
        self._set_if_ended()
