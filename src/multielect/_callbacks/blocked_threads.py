"""Sees whether callbacks hold all threads that there are, so that nobody else is told anything.

Rules of this file:
    * It is looked at once a TTL, on the log's thread, and only while all threads are taken: no
      thread and no timer are added for it.
    * A thread that its callback has held for longer than a TTL is held. While one returns now and
      then, what waits will be told, and nothing is said.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from .._logging.log import Log

_MAX_NAMES = 3


class BlockedThreads:
    """What runs on the threads of one dispatcher."""

    def __init__(self, log: Log, threads: int, waiting: Callable[[], int]) -> None:
        """Begin with nothing that runs.

        Args:
            log: where it is told.
            threads: how many there may be.
            waiting: tells how many elections wait to be told something.
        """
        self._log = log
        self._threads = threads
        self._waiting = waiting
        self._running: dict[int, tuple[Callable[[], str], float]] = {}
        self._is_watched = False

    def begin(self, name: Callable[[], str]) -> None:
        """A callback begins, whose name can be asked for. On its thread."""
        self._running[threading.get_ident()] = (name, time.monotonic())
        if len(self._running) == self._threads and not self._is_watched:
            self._is_watched = True
            self._look_again(self._log.ttl_s)

    def end(self) -> None:
        """It has returned. On its thread."""
        del self._running[threading.get_ident()]

    def _look_again(self, after_s: float | None) -> None:
        if after_s is not None:
            self._log.remind(after_s, self._look)

    def _look(self) -> None:
        # Before looking: whoever takes the last thread from now on has it looked at again.
        self._is_watched = False
        running = list(self._running.values())
        ttl_s = self._log.ttl_s
        if len(running) < self._threads or ttl_s is None:
            return
        self._is_watched = True
        least_s = time.monotonic() - max(since_s for _, since_s in running)
        if least_s < ttl_s:
            self._look_again(ttl_s - least_s)
            return
        waiting = self._waiting()
        if waiting:
            self._report([name() for name, _ in running], waiting)
        self._look_again(ttl_s)

    def _report(self, callbacks: list[str], waiting: int) -> None:
        names = ", ".join(sorted(callbacks)[:_MAX_NAMES])
        more = len(callbacks) - _MAX_NAMES
        self._log.say(
            "callbacks hold all threads",
            f"callbacks hold all {len(callbacks)} callback threads, each for longer than"
            f" {self._log.ttl_s:g} s: {names}{f' and {more} more' if more > 0 else ''}."
            f" {waiting:,} others wait to be told. Let callbacks return at once and do the work in"
            " worker=, or give the group more callback_threads",
            level=logging.WARNING,
        )
