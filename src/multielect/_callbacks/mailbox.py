"""The mailbox: events of terms that are still to be delivered, in order for each election.

Rules of this file:
    * The mailbox is bounded. Behind other events that wait, a term that ended before its begin was
      delivered is dropped, and so is a drain that is over. So at most four events wait for one
      election.
    * The mailbox delivers nothing. Threads, event loops and simulated worlds take events out of it.
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
    """The kind of an event of a term."""

    BEGIN = 1
    DRAIN = 2
    END = 3


@dataclass(frozen=True)
class TermEvent(Generic[T]):
    """A term began, drains or ended. A callback is notified of it.

    Attributes:
        key: the election's key.
        epoch: the term's epoch.
        kind: the kind of event.
        subject: what the callback receives.
    """

    key: Hashable
    epoch: int
    kind: Kind
    subject: T


class Mailbox(Generic[T]):
    """Events that wait, in order for each key, with one reader a key at a time."""

    def __init__(self) -> None:
        """Begin empty."""
        self._lock = threading.Lock()
        self._emptied = threading.Condition(self._lock)
        self._waiting: dict[Hashable, deque[TermEvent[T]]] = {}

    def put(self, term_event: TermEvent[T]) -> bool:
        """Add an event. Returns True if its key has no reader: the caller must find one now."""
        with self._lock:
            queue = self._waiting.get(term_event.key)
            if queue is None:
                # An entry means that the key has a reader, even if its queue is empty while the
                # reader delivers an event.
                self._waiting[term_event.key] = deque([term_event])
                return True
            if term_event.kind is Kind.END:
                if _is_last(queue, Kind.DRAIN, term_event.epoch):
                    queue.pop()
                if len(queue) > 1 and _is_last(queue, Kind.BEGIN, term_event.epoch):
                    queue.pop()
                    return False
            queue.append(term_event)
            return False

    def take(self, key: Hashable) -> TermEvent[T] | None:
        """Return the next event of a key to its reader. None ends the reader's duty."""
        with self._lock:
            queue = self._waiting[key]
            if queue:
                return queue.popleft()
            del self._waiting[key]
            if not self._waiting:
                self._emptied.notify_all()
            return None

    def wait_until_empty(self, timeout_s: float) -> bool:
        """Wait until all events have been taken and all readers are done."""
        with self._lock:
            return wait_for(self._emptied, lambda: not self._waiting, timeout_s)


def _is_last(queue: deque[TermEvent[T]], kind: Kind, epoch: int) -> bool:
    return bool(queue) and queue[-1].kind is kind and queue[-1].epoch == epoch
