"""Passes events to workers first and then to callbacks, on threads and in event loops alike.

Rules of this file:
    * Workers and callbacks start together or not at all. `close` waits for both.
    * A `WorkerSetup` holds what workers need. Only this file makes one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from .._logging.log import Log
from .._settings.settings import Settings
from ..election import Term
from ..errors import MultielectError
from .dispatcher import Dispatcher
from .mailbox import TermEvent

_NS = 1_000_000_000


@dataclass(frozen=True)
class WorkerSetup:
    """What it takes to run workers.

    Attributes:
        work: called with each term.
        patience_s: how long after its term's end a worker may run before it is told of, and how
            long the next term waits for it.
        report: told of what went wrong; must not wait. Any thread.
        name: what the names of threads and tasks begin with.
    """

    work: Callable[..., object]
    patience_s: float
    report: Callable[[MultielectError], None]
    name: str


class RunsWorkers(Protocol):
    """Starts and stops workers: `Workers` or `AsyncioWorkers`."""

    def start(self) -> None:
        """Prepare for the first term.

        Raises:
            RuntimeError: if no thread can be started.
        """

    def unstart(self) -> None:
        """Undo `start`, because the node could not be started."""

    def is_inside(self) -> bool:
        """Return whether the caller is a worker, which must not wait for workers."""

    def put(self, *term_events: TermEvent[Term]) -> None:
        """Start and stop workers as terms begin, drain and end. Any thread."""

    def close(self, timeout_s: float) -> bool:
        """Stop all workers, start no more, and wait. Returns whether all have ended."""


class WorkerDispatcher:
    """Runs a worker for each term, and passes everything to another dispatcher."""

    is_listening = True
    notifies_drains = True

    def __init__(self, below: Dispatcher[Term], workers: RunsWorkers) -> None:
        """Keep both."""
        self._below = below
        self._workers = workers

    @property
    def log(self) -> Log:
        """The log of the dispatcher below."""
        return self._below.log

    def start(self) -> None:
        """Start the dispatcher below and the workers.

        Raises:
            RuntimeError: if no thread can be started.
        """
        self._below.start()
        try:
            self._workers.start()
        except BaseException:
            self._below.unstart()
            raise

    def unstart(self) -> None:
        """Undo `start`, because the node could not be started."""
        self._workers.unstart()
        self._below.unstart()

    def is_inside(self) -> bool:
        """Return whether the caller is a callback or a worker."""
        return self._below.is_inside() or self._workers.is_inside()

    def put(self, *term_events: TermEvent[Term]) -> None:
        """Start and stop workers, and deliver the events. Any thread."""
        self._workers.put(*term_events)
        self._below.put(*term_events)

    def put_error(self, error: MultielectError) -> None:
        """Log an error and report it through `on_error`. Any thread."""
        self._below.put_error(error)

    def close(self, timeout_s: float) -> bool:
        """Take no more events, and wait for workers and callbacks. Returns whether all ended."""
        until = time.monotonic() + timeout_s
        ended = self._workers.close(0.0 if self._below.is_inside() else timeout_s)
        return self._below.close(max(0.0, until - time.monotonic())) and ended


def with_workers(
    below: Dispatcher[Term],
    work: Callable[..., object] | None,
    settings: Settings,
    make: Callable[[WorkerSetup], RunsWorkers],
) -> Dispatcher[Term]:
    """Return a dispatcher that has `work` done for each term as well; the same if there is none.

    Args:
        below: brings all else to the user.
        work: what the user gave as `worker`.
        settings: those of the node.
        make: returns what runs workers, on threads or in an event loop.
    """
    if work is None:
        return below
    setup = WorkerSetup(
        work,
        patience_s=settings.ttl_ns / _NS,
        report=below.put_error,
        name=f"multielect-{settings.node_id}-worker",
    )
    return WorkerDispatcher(below, make(setup))
