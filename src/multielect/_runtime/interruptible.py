"""Waits that let Python run a signal's handler, on whichever thread the signal arrives.

Rules of this file:
    * Python runs the handler of a signal on the main thread, when that thread is awake. The system
      may give the signal to any other thread, and then nothing wakes the main thread. So each wait
      of the main thread is a row of short waits.
    * Every user's call that waits uses these functions. Our own threads need not.
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
"""How long a signal's handler may be delayed."""


def wait_for(
    condition: threading.Condition, is_so: Callable[[], bool], timeout_s: float | None
) -> bool:
    """Wait until `is_so` returns True, as `threading.Condition.wait_for` does."""
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
    """Wait for the next item of a queue, as its `get` does."""
    while True:
        try:
            return waiting.get(timeout=_SIGNALS_SEEN_EVERY_S)
        except queue.Empty:
            continue
