"""Workers in an event loop: one task a term, begun and cancelled with it.

Rules of this file:
    * What `workers` says of threads holds here for tasks: one worker at a time for an election, and
      a term without a worker is given up.
    * A worker is cancelled when its term has ended. While the term drains it is told, and may
      finish; what it is told by is the same for threads.
    * `put` is called on other threads and never waits for the loop. What it hands over is bounded,
      however long the loop is blocked: see `Mailbox`.
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
    """One term, as its worker is given it: see `multielect.WorkerTerm`.

    ::

        async def work(term):
            while not term.stopping.is_set():
                await do_some(term.key, term.epoch)

    Attributes:
        stopping: set when the worker is to return, as the term drains or has ended. In the latter
            case the worker is cancelled as well, so one that does not look at this at all keeps a
            term that drains until its `deadline`.
    """

    __slots__ = ()

    _event = asyncio.Event
    stopping: asyncio.Event


class AsyncioWorkers:
    """Has a worker run for each term, in the loop that `start` was called in."""

    def __init__(self, setup: WorkerSetup) -> None:
        """Keep what to run."""
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
        """Be as before `start`: the node could not be started."""
        self._loop = None

    # ---- any thread

    def is_inside(self) -> bool:
        """Return False: workers here count as callbacks, which the dispatcher knows of."""
        return False

    def put(self, *term_events: TermEvent[Term]) -> None:
        """Begin and stop workers as terms begin, drain and end."""
        begun = [term_event.key for term_event in term_events if self._mailbox.put(term_event)]
        if begun:
            self._call(self._take, begun)

    def close(self, timeout_s: float) -> bool:
        """Have no more begin, cancel all, and wait for them. Not in the loop's thread.

        Returns:
            Whether all have ended.
        """
        if self._loop is None or self._loop.is_closed():
            return True
        # After all that was put.
        self._call(self._close)
        ended = self._ended.wait(timeout_s)
        left = list(self._registry)
        if left and timeout_s:
            self._report(left_behind(left))
        return ended

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        # A loop that is closed has nobody left to work.
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
            self._see_later(self._see_waiting, term)

    def _stop(self, told: Term) -> None:
        ended = self._registry.stop(told)
        if ended is not None:
            self._tasks[ended].cancel()
            self._see_later(self._see_ended, ended)

    def _close(self) -> None:
        self._closed = True
        for timer in self._timers:
            timer.cancel()
        for term in self._registry:
            term.stopping.set()
            # What was cancelled before has heard of it.
            if term.reason is None:
                self._tasks[term].cancel()
        self._look_whether_ended()

    def _look_whether_ended(self) -> None:
        if self._closed and not self._registry:
            self._ended.set()

    def _see_later(self, see: Callable[[WorkerTerm], None], term: WorkerTerm) -> None:
        def see_now() -> None:
            self._timers.discard(timer)
            see(term)

        timer = asyncio.get_running_loop().call_later(self._patience_s, see_now)
        self._timers.add(timer)

    def _see_waiting(self, term: WorkerTerm) -> None:
        former = self._registry.stop_waiting(term)
        if former is not None:
            self._report(given_up_for_want(term, former))
            give_up(term)

    def _see_ended(self, term: WorkerTerm) -> None:
        if self._registry.is_working(term):
            self._report(still_at_work(term, self._patience_s))

    def _start_task(self, term: WorkerTerm) -> None:
        name = f"{self._name}-{term.key!a:.40}"
        task = asyncio.get_running_loop().create_task(self._run(term), name=name)
        self._tasks[term] = task
        task.add_done_callback(lambda task: self._leave(term, task))

    async def _run(self, term: WorkerTerm) -> None:
        count_as_callback()
        # A term that is over, or to be handed over, has nothing left to be begun.
        if term.stopping.is_set():
            return
        outcome = self._work(term)
        if not inspect.isawaitable(outcome):
            raise TypeError(f"worker must be a coroutine function here; it returned {outcome!r}")
        await outcome

    def _leave(self, term: WorkerTerm, task: asyncio.Task[None]) -> None:
        was_stopped = term.reason is not None or self._closed
        cause: BaseException | None
        if task.cancelled():
            # By others than us, it failed.
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
        self._look_whether_ended()
