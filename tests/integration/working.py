"""A worker that writes down when it runs, for the tests of workers."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator

import redis
from tests.diary import WITHIN_S, until

from multielect import WorkerTerm

from .lease import LAYOUT

LONG_S = 10 * WITHIN_S
TTL_S = 0.5


class Work:
    """A worker that writes down when it runs, and ends when its term does, or when it may."""

    def __init__(self, act: Callable[[WorkerTerm], object] | None = None) -> None:
        self.terms: list[WorkerTerm] = []
        self.ended: list[WorkerTerm] = []
        self.at_once: list[str] = []
        self._act = act or (lambda term: term.stopping.wait(LONG_S))
        self._working: Counter[str] = Counter()
        self._changed = threading.Condition()

    def __call__(self, term: WorkerTerm) -> None:
        with self._changed:
            self._working[term.key] += 1
            if self._working[term.key] > 1:
                self.at_once.append(term.key)
            self.terms.append(term)
            self._changed.notify_all()
        try:
            self._act(term)
        finally:
            with self._changed:
                self._working[term.key] -= 1
                self.ended.append(term)
                self._changed.notify_all()

    @property
    def running(self) -> int:
        return sum(self._working.values())

    def wait_for(self, condition: Callable[[], object]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, WITHIN_S), f"in vain: {self.terms}"

    def wait_begun(self, count: int) -> WorkerTerm:
        """Wait for the so many-th worker."""
        self.wait_for(lambda: len(self.terms) >= count)
        return self.terms[count - 1]

    def wait_ended(self, count: int) -> WorkerTerm:
        """Wait for the so many-th to have ended."""
        self.wait_for(lambda: len(self.ended) >= count)
        return self.ended[count - 1]


def no_thread_is_left() -> Iterator[None]:
    """Wait, after a test, until the threads of its workers have ended."""
    before = set(threading.enumerate())
    yield
    until(lambda: not [t for t in threading.enumerate() if "worker" in t.name and t not in before])


def wait(term: WorkerTerm) -> None:
    assert term.stopping.wait(LONG_S)


def lose_lease(client: redis.Redis, key: str) -> None:
    client.delete(LAYOUT.leader_key(key.encode()))
