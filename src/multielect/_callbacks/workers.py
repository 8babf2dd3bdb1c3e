"""Workers on threads: one a term, begun and stopped with it.

Rules of this file:
    * A worker runs on a thread of its own, for as long as it takes; it costs no lease, holds up no
      callback and no other worker. There are as many as there are terms, and those that are late.
    * Threads are started on a thread of their own, the foreman's: where Python has no time for
      that, whoever brings the news of all elections must not wait for it.
    * A term without a worker is given up: where the worker returned or failed, where no thread is
      to be had, and where the worker of the term before does not end.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from .._runtime.interruptible import wait_for
from ..election import Term
from ..errors import MultielectError
from .dispatcher import callback_error
from .mailbox import Kind, TermEvent
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
    """One term, as its worker is given it.

    ::

        def work(term):
            while not term.stopping.wait(timeout=1.0):
                do_some(term.key, term.epoch)

    All that a `Term` offers may be used from any thread. `deadline` and `reason` are filled in
    before `stopping` is set.

    Attributes:
        stopping: set when the worker is to return: the term has ended (`is_leader` is False), or
            drains (`is_leader` is True, until `deadline` at the latest): then it may finish what it
            has in hand, and its return hands the term over.
    """

    __slots__ = ()

    _event = threading.Event
    stopping: threading.Event


class Workers:
    """Has a worker run for each term. All but `start` may be called on any thread."""

    def __init__(self, setup: WorkerSetup) -> None:
        """Keep what to run."""
        self._work = setup.work
        self._patience_s = setup.patience_s
        self._report = setup.report
        self._name = setup.name
        self._lock = threading.Lock()
        self._called = threading.Condition(self._lock)
        self._emptied = threading.Condition(self._lock)
        self._registry: WorkerRegistry[WorkerTerm] = WorkerRegistry()
        self._to_start: deque[WorkerTerm] = deque()
        # When to see what has become of a term, rising, as all are given the same time.
        self._to_see: deque[tuple[float, Callable[[WorkerTerm], None], WorkerTerm]] = deque()
        self._closed = False
        self._foreman: threading.Thread | None = None
        self._inside = threading.local()

    def start(self) -> None:
        """Be ready.

        Raises:
            RuntimeError: if the system or the interpreter has no thread for us.
        """
        foreman = threading.Thread(target=self._live, name=f"{self._name}s", daemon=True)
        foreman.start()
        self._foreman = foreman

    def unstart(self) -> None:
        """Be as before `start`: the node could not be started."""
        with self._lock:
            self._closed = True
            self._called.notify()
        if self._foreman is not None:
            self._foreman.join()
        self._closed = False

    def is_inside(self) -> bool:
        """Tell whether this is called by a worker, which must not wait for workers."""
        return bool(getattr(self._inside, "worker", False))

    def put(self, *term_events: TermEvent[Term]) -> None:
        """Begin and stop workers as terms begin, drain and end."""
        with self._lock:
            if self._closed:
                return
            for term_event in term_events:
                if term_event.kind is Kind.BEGIN:
                    self._begin(WorkerTerm.of(term_event.subject))
                else:
                    self._stop(term_event.subject)
            self._called.notify()

    def close(self, timeout_s: float) -> bool:
        """Have no more begin, stop all, and wait for them. Returns whether all have ended.

        Called by a worker it does not wait: a worker cannot outwait itself.
        """
        with self._lock:
            was_closed, self._closed = self._closed, True
            for term in self._registry:
                term.stopping.set()
            self._called.notify()
            wait_s = 0.0 if self.is_inside() else timeout_s
            ended = wait_for(self._emptied, lambda: not self._registry, wait_s)
            left = list(self._registry)
        if left and not was_closed and not self.is_inside():
            self._report(left_behind(left))
        return ended

    # ---- with the lock held

    def _begin(self, term: WorkerTerm) -> None:
        if self._registry.begin(term):
            self._to_start.append(term)
        else:
            self._see_later(self._see_waiting, term)

    def _stop(self, told: Term) -> None:
        ended = self._registry.stop(told)
        if ended is not None:
            self._see_later(self._see_ended, ended)

    def _see_later(self, see: Callable[[WorkerTerm], None], term: WorkerTerm) -> None:
        self._to_see.append((time.monotonic() + self._patience_s, see, term))

    # ---- the foreman's thread

    def _live(self) -> None:
        while True:
            with self._lock:
                while not self._to_start and not self._is_due() and not self._closed:
                    self._called.wait(self._due_in_s())
                if self._closed and not self._to_start:
                    return
                due = self._to_see.popleft() if self._is_due() else None
                term = self._to_start.popleft() if self._to_start else None
            if due is not None:
                _, see, seen = due
                see(seen)
            if term is not None:
                self._start_thread(term)

    def _is_due(self) -> bool:
        return bool(self._to_see) and self._to_see[0][0] <= time.monotonic()

    def _due_in_s(self) -> float | None:
        return max(0.0, self._to_see[0][0] - time.monotonic()) if self._to_see else None

    def _see_waiting(self, term: WorkerTerm) -> None:
        with self._lock:
            former = self._registry.stop_waiting(term)
        if former is not None:
            self._report(given_up_for_want(term, former))
            give_up(term)

    def _see_ended(self, term: WorkerTerm) -> None:
        with self._lock:
            is_late = self._registry.is_working(term)
        if is_late:
            self._report(still_at_work(term, self._patience_s))

    def _start_thread(self, term: WorkerTerm) -> None:
        name = f"{self._name}-{term.key!a:.40}"
        try:
            threading.Thread(target=self._run, args=(term,), name=name, daemon=True).start()
        except RuntimeError as cause:
            error = MultielectError(
                f"there is no thread for the worker of election {term.key!r}: its term (epoch"
                f" {term.epoch}) is given up. Let this node lead less (max_leases), or the system"
                f" have more threads: {cause}"
            )
            error.__cause__ = cause
            self._report(error)
            self._leave(term)

    # ---- a worker's thread

    def _run(self, term: WorkerTerm) -> None:
        self._inside.worker = True
        try:
            # A term that is over, or to be handed over, has nothing left to be begun.
            if not term.stopping.is_set():
                self._work(term)
        # Also SystemExit and its like: there is nothing here for them to end.
        except BaseException as cause:  # noqa: BLE001
            self._report(callback_error("worker", term.key, term.epoch, cause))
        finally:
            self._leave(term)

    def _leave(self, term: WorkerTerm) -> None:
        # While it is still at work for the registry, so that the term that follows finds it done.
        give_up(term)
        with self._lock:
            following = self._registry.leave(term)
            if following is not None:
                self._to_start.append(following)
                self._called.notify()
            if not self._registry:
                self._emptied.notify_all()
