"""Threads that start together, or not at all.

Rules of this file:
    * A system may refuse any thread. No thread of a group begins its work until all are started. So
      a start that fails has nothing to undo: the threads that were started end at once.
    * The threads are daemons: none keeps the interpreter alive.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class ThreadGroup:
    """Some threads, which begin their work at the same moment."""

    def __init__(self) -> None:
        """Begin empty."""
        self.threads: list[threading.Thread] = []
        self._decided = threading.Event()
        self._goes = False

    def add(self, work: Callable[[], object], name: str) -> threading.Thread:
        """Add a thread that will do this work."""

        def run() -> None:
            self._decided.wait()
            if self._goes:
                work()

        thread = threading.Thread(target=run, name=name, daemon=True)
        self.threads.append(thread)
        return thread

    def start(self) -> None:
        """Start all threads. They wait for `go`.

        Raises:
            RuntimeError: if one cannot be started. The others have then ended.
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
        """Let the threads begin their work."""
        self._goes = True
        self._decided.set()

    def abort(self, started: list[threading.Thread] | None = None) -> None:
        """Let the threads end without work, and wait for that."""
        self._decided.set()
        for thread in self.threads if started is None else started:
            thread.join()
