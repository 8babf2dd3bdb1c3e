"""What is still to be told of terms, in order for each election.

Rules of this file:
    * What waits is bounded: behind others that wait, a term that ended before its begin was
      told is not told at all, nor is a drain that is over. So no more than four wait for one
      election.
    * Nothing here tells anybody: threads, event loops and simulated worlds each do so in their way.
"""

from __future__ import annotations

import enum
import threading
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from .._runtime.interruptible import wait_for

T = TypeVar("T")


class Kind(enum.Enum):
    """What may happen to a term."""

    BEGIN = 1
    DRAIN = 2
    END = 3


@dataclass(frozen=True)
class Happening(Generic[T]):
    """A term begun, draining or ended, to be told to a callback."""

    key: Hashable
    epoch: int
    kind: Kind
    subject: T


class Mailbox(Generic[T]):
    """Happenings that wait, in order for each key, with one reader a key at a time."""

    def __init__(self) -> None:
        """Begin empty."""
        self._lock = threading.Lock()
        self._emptied = threading.Condition(self._lock)
        self._waiting: dict[Hashable, deque[Happening[T]]] = {}

    def put(self, happening: Happening[T]) -> bool:
        """Add a happening. Returns True if its key has no reader, who must be found now."""
        with self._lock:
            queue = self._waiting.get(happening.key)
            if queue is None:
                # The one being told stands outside the queue; the entry says that there
                # is a reader.
                self._waiting[happening.key] = deque([happening])
                return True
            if happening.kind is Kind.END:
                if _is_last(queue, Kind.DRAIN, happening.epoch):
                    queue.pop()
                if len(queue) > 1 and _is_last(queue, Kind.BEGIN, happening.epoch):
                    queue.pop()
                    return False
            queue.append(happening)
            return False

    def take(self, key: Hashable) -> Happening[T] | None:
        """Take the next happening of a key, for its reader; None ends the reader's duty."""
        with self._lock:
            queue = self._waiting[key]
            if queue:
                return queue.popleft()
            del self._waiting[key]
            if not self._waiting:
                self._emptied.notify_all()
            return None

    def wait_until_empty(self, timeout_s: float) -> bool:
        """Wait until all has been taken and all readers are done."""
        with self._lock:
            return wait_for(self._emptied, lambda: not self._waiting, timeout_s)


def _is_last(queue: deque[Happening[T]], kind: Kind, epoch: int) -> bool:
    return bool(queue) and queue[-1].kind is kind and queue[-1].epoch == epoch
