"""Threads that begin together, or not at all.

Rules of this file:
    * A system may refuse any thread. Until all of a group are there none of them does anything, so
      that a start that fails has nothing to undo: those that are there end at once.
    * They are daemons: none keeps the interpreter from ending.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class ThreadGroup:
    """Some threads, and the moment at which they begin."""

    def __init__(self) -> None:
        """Begin empty."""
        self.threads: list[threading.Thread] = []
        self._decided = threading.Event()
        self._goes = False

    def add(self, work: Callable[[], object], name: str) -> threading.Thread:
        """Have one thread more, which will do this work."""

        def run() -> None:
            self._decided.wait()
            if self._goes:
                work()

        thread = threading.Thread(target=run, name=name, daemon=True)
        self.threads.append(thread)
        return thread

    def start(self) -> None:
        """Have all threads there; they wait for `go`.

        Raises:
            RuntimeError: if one is refused; those that were there have ended.
        """
        started: list[threading.Thread] = []
        try:
            for thread in self.threads:
                thread.start()
                started.append(thread)
        except BaseException:
            self.abort(started)
            raise

    def go(self) -> None:
        """Have them begin."""
        self._goes = True
        self._decided.set()

    def abort(self, started: list[threading.Thread] | None = None) -> None:
        """Have them end, in place of `go`; returns when they have."""
        self._decided.set()
        for thread in self.threads if started is None else started:
            thread.join()
