"""Workers on threads: one for each term, started and stopped with it.

Rules of this file:
    * A worker runs on its own thread, for as long as it takes. It delays no lease, no callback and
      no other worker. There are as many threads as terms, and those of late workers.
    * The starter's thread starts the workers' threads. A start may be slow when Python is busy, and
      the event thread must not wait for it.
    * A term without a worker is given up. That happens when the worker returned or failed, when no
      thread can be started, and when the previous worker does not end.
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
    """One term, as its worker receives it.

    ::

        def work(term):
            while not term.stopping.wait(timeout=1.0):
                do_some(term.key, term.epoch)

    It is a `Term`, and may be used from any thread. `deadline` and `reason` are set before
    `stopping`.

    Attributes:
        stopping: set when the worker must return. Either the term has ended (`is_leader` is False),
            or it drains (`is_leader` is True, until `deadline` at the latest). In a drain the
            worker may finish its work, and its return hands the term over.
    """

    __slots__ = ()

    _event = threading.Event
    stopping: threading.Event


class Workers:
    """Runs a worker for each term. Any thread may call its methods, except for `start`."""

    def __init__(self, setup: WorkerSetup) -> None:
        """Keep the worker function."""
        self._work = setup.work
        self._patience_s = setup.patience_s
        self._report = setup.report
        self._name = setup.name
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._emptied = threading.Condition(self._lock)
        self._registry: WorkerRegistry[WorkerTerm] = WorkerRegistry()
        self._to_start: deque[WorkerTerm] = deque()
        # In order of time, because every check is due after the same patience.
        self._checks: deque[tuple[float, Callable[[WorkerTerm], None], WorkerTerm]] = deque()
        self._closed = False
        self._starter: threading.Thread | None = None
        self._inside = threading.local()

    def start(self) -> None:
        """Start the starter's thread.

        Raises:
            RuntimeError: if no thread can be started.
        """
        starter = threading.Thread(target=self._live, name=f"{self._name}s", daemon=True)
        starter.start()
        self._starter = starter

    def unstart(self) -> None:
        """Undo `start`, because the node could not be started."""
        with self._lock:
            self._closed = True
            self._changed.notify()
        if self._starter is not None:
            self._starter.join()
        self._closed = False

    def is_inside(self) -> bool:
        """Return whether the caller is a worker, which must not wait for workers."""
        return bool(getattr(self._inside, "worker", False))

    def put(self, *term_events: TermEvent[Term]) -> None:
        """Start and stop workers as terms begin, drain and end."""
        with self._lock:
            if self._closed:
                return
            for term_event in term_events:
                if term_event.kind is Kind.BEGIN:
                    self._begin(WorkerTerm.of(term_event.subject))
                else:
                    self._stop(term_event.subject)
            self._changed.notify()

    def close(self, timeout_s: float) -> bool:
        """Stop all workers, start no more, and wait. Returns whether all have ended.

        In a worker it does not wait, because a worker cannot wait for itself.
        """
        with self._lock:
            was_closed, self._closed = self._closed, True
            for term in self._registry:
                term.stopping.set()
            self._changed.notify()
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
            self._check_later(self._check_waiting, term)

    def _stop(self, latest: Term) -> None:
        ended = self._registry.stop(latest)
        if ended is not None:
            self._check_later(self._check_ended, ended)

    def _check_later(self, check: Callable[[WorkerTerm], None], term: WorkerTerm) -> None:
        self._checks.append((time.monotonic() + self._patience_s, check, term))

    # ---- the starter's thread

    def _live(self) -> None:
        while True:
            with self._lock:
                while not self._to_start and not self._is_due() and not self._closed:
                    self._changed.wait(self._due_in_s())
                if self._closed and not self._to_start:
                    return
                due = self._checks.popleft() if self._is_due() else None
                term = self._to_start.popleft() if self._to_start else None
            if due is not None:
                _, check, checked = due
                check(checked)
            if term is not None:
                self._start_thread(term)

    def _is_due(self) -> bool:
        return bool(self._checks) and self._checks[0][0] <= time.monotonic()

    def _due_in_s(self) -> float | None:
        return max(0.0, self._checks[0][0] - time.monotonic()) if self._checks else None

    def _check_waiting(self, term: WorkerTerm) -> None:
        with self._lock:
            former = self._registry.stop_waiting(term)
        if former is not None:
            self._report(given_up_for_want(term, former))
            give_up(term)

    def _check_ended(self, term: WorkerTerm) -> None:
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
                f"no thread could be started for the worker of election {term.key!r}: its term"
                f" (epoch {term.epoch}) is given up. Lower max_leases, or let the system have more"
                f" threads: {cause}"
            )
            error.__cause__ = cause
            self._report(error)
            self._leave(term)

    # ---- a worker's thread

    def _run(self, term: WorkerTerm) -> None:
        self._inside.worker = True
        try:
            # No work begins under a term that has ended or drains.
            if not term.stopping.is_set():
                self._work(term)
        # SystemExit as well: in a thread it would end nothing but this thread.
        except BaseException as cause:  # noqa: BLE001
            self._report(callback_error("worker", term.key, term.epoch, cause))
        finally:
            self._leave(term)

    def _leave(self, term: WorkerTerm) -> None:
        # Before it leaves the registry, so that the next worker begins after this term is over.
        give_up(term)
        with self._lock:
            following = self._registry.leave(term)
            if following is not None:
                self._to_start.append(following)
                self._changed.notify()
            if not self._registry:
                self._emptied.notify_all()
