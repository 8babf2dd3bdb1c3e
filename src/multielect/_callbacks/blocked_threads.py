"""Warns when callbacks block all threads of a dispatcher, so that no other callback runs.

Rules of this file:
    * The check runs once a TTL on the log's thread, and only while all threads are taken. It needs
      no thread and no timer of its own.
    * A thread is blocked if its callback has run for longer than a TTL. If only one thread is not
      blocked, the other callbacks will run, and there is no warning.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from .._logging.log import Log

_MAX_NAMES = 3


class BlockedThreads:
    """The callbacks that run on the threads of one dispatcher."""

    def __init__(self, log: Log, threads: int, waiting: Callable[[], int]) -> None:
        """Begin with no callback.

        Args:
            log: takes the warnings.
            threads: how many threads there may be.
            waiting: returns how many elections have events that wait.
        """
        self._log = log
        self._threads = threads
        self._waiting = waiting
        self._running: dict[int, tuple[Callable[[], str], float]] = {}
        self._is_watched = False

    def begin(self, name: Callable[[], str]) -> None:
        """Note that a callback begins; `name` returns its name. Called on its thread."""
        self._running[threading.get_ident()] = (name, time.monotonic())
        if len(self._running) == self._threads and not self._is_watched:
            self._is_watched = True
            self._look_again(self._log.ttl_s)

    def end(self) -> None:
        """Note that the callback has returned. Called on its thread."""
        del self._running[threading.get_ident()]

    def _look_again(self, after_s: float | None) -> None:
        if after_s is not None:
            self._log.remind(after_s, self._look)

    def _look(self) -> None:
        # Reset before the check: a callback that takes the last thread now asks for another one.
        self._is_watched = False
        running = list(self._running.values())
        ttl_s = self._log.ttl_s
        if len(running) < self._threads or ttl_s is None:
            return
        self._is_watched = True
        shortest_s = time.monotonic() - max(since_s for _, since_s in running)
        if shortest_s < ttl_s:
            self._look_again(ttl_s - shortest_s)
            return
        waiting = self._waiting()
        if waiting:
            self._report([name() for name, _ in running], waiting)
        self._look_again(ttl_s)

    def _report(self, callbacks: list[str], waiting: int) -> None:
        names = ", ".join(sorted(callbacks)[:_MAX_NAMES])
        more = len(callbacks) - _MAX_NAMES
        self._log.say(
            "callbacks block all threads",
            f"callbacks block all {len(callbacks)} callback threads, each for longer than"
            f" {self._log.ttl_s:g} s: {names}{f' and {more} more' if more > 0 else ''}."
            f" {waiting:,} other callbacks wait. Let callbacks return at once and do the work in"
            " worker=, or give the group more callback_threads",
            level=logging.WARNING,
        )
