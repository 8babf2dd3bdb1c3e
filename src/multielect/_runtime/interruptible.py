"""Waits that a signal ends, whichever thread the system gives the signal to.

Rules of this file:
    * Python runs the handler of a signal on the main thread, once that thread is awake. The system
      may give the signal to any thread: one that has just been started takes it from the main
      thread. So each wait that may be the main thread's is a row of short ones.
    * Where a user's call waits, it waits by these. Our own threads wait as they like.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_SIGNALS_SEEN_EVERY_S = 1.0
"""How long a signal may wait for the main thread, at the most."""


def wait_for(
    condition: threading.Condition, is_so: Callable[[], bool], timeout_s: float | None
) -> bool:
    """Wait until something is so, as `threading.Condition.wait_for` does. Returns whether it is."""
    until_s = math.inf if timeout_s is None else time.monotonic() + timeout_s
    while True:
        left_s = max(0.0, until_s - time.monotonic())
        if condition.wait_for(is_so, min(left_s, _SIGNALS_SEEN_EVERY_S)):
            return True
        if left_s == 0.0:
            return False


def join(thread: threading.Thread, timeout_s: float) -> None:
    """Wait until a thread has ended, as `threading.Thread.join` does."""
    until_s = time.monotonic() + timeout_s
    while thread.is_alive():
        left_s = max(0.0, until_s - time.monotonic())
        thread.join(min(left_s, _SIGNALS_SEEN_EVERY_S))
        if left_s == 0.0:
            return


def take(waiting: queue.SimpleQueue[T]) -> T:
    """Wait for what is put into a queue, as its `get` does."""
    while True:
        try:
            return waiting.get(timeout=_SIGNALS_SEEN_EVERY_S)
        except queue.Empty:
            continue
