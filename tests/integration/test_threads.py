"""Eight threads change one group under load, and no change of any is lost.

Rules of this file:
    * Each thread draws its calls from a seed of its own and keeps books of what it did; at
      the end the group, the callbacks and Redis are held against the books.
    * A key that all contend for is added as often as it is removed, or once more.
"""

from __future__ import annotations

import contextlib
import random
import sys
import threading
from collections import Counter
from collections.abc import Iterator

import pytest
import redis
from tests.diary import WITHIN_S, Diary, until

from multielect import DemotionReason, ElectionGroup

PREFIX = "threads"
THREADS = 8
CALLS = 6000
SHARED = [f"shared-{number}" for number in range(4)]


class Books:
    """One thread, and what it did."""

    def __init__(self, group: ElectionGroup, seed: int) -> None:
        self.own: set[str] = set()
        self.balance: Counter[str] = Counter()
        self.failure: BaseException | None = None
        self._group = group
        self._random = random.Random(seed)
        self._mine = [f"thread-{seed}-{number}" for number in range(12)]
        self.thread = threading.Thread(target=self._run, name=f"stress-{seed}")

    def _run(self) -> None:
        try:
            for _ in range(CALLS):
                self._call()
        except BaseException as failure:  # noqa: BLE001  # for the test, on its own thread
            self.failure = failure

    def _call(self) -> None:
        key = self._random.choice(self._mine)
        match self._random.randrange(4):
            case 0:
                self._add_or_remove(key)
            case 1:
                self._contend(self._random.choice(SHARED))
            case 2:
                self._look(key)
            case _:
                if key in self.own:
                    self._group[key].resign()
                    self._group[key].campaign()

    def _add_or_remove(self, key: str) -> None:
        if self._random.random() < 0.6:
            added = self._group.add_many([key])
            assert added == (key not in self.own)
            self.own.add(key)
        elif key in self.own:
            self._group.remove(key)
            self.own.remove(key)
        else:
            with pytest.raises(KeyError):
                self._group.remove(key)

    def _contend(self, key: str) -> None:
        if self._random.random() < 0.5:
            self.balance[key] += self._group.add_many([key])
        else:
            with contextlib.suppress(KeyError):
                self._group.remove(key)
                self.balance[key] -= 1

    def _look(self, key: str) -> None:
        assert (key in self._group) == (key in self.own)
        if key in self.own:
            election = self._group.add(key)
            assert not election.is_removed
            assert not election.is_leader or election.epoch > 0
            assert election.leader_id in {None, self._group.node_id}
        # Those of other threads may be removed, and forgotten, at any moment.
        mine = [election for election in self._group.led if election.key in self._mine]
        assert all(election.epoch > 0 for election in mine)
        assert set(self._mine) & set(self._group) == self.own


@contextlib.contextmanager
def impatient_interpreter() -> Iterator[None]:
    """Have threads take turns far more often than they would."""
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(usual_s)


def test_no_update_is_lost(redis_url: str, redis_client: redis.Redis) -> None:
    diary = Diary()
    group = ElectionGroup(
        redis_url,
        prefix=PREFIX,
        ttl=6.0,
        on_elected=diary.elected,
        on_demoted=diary.demoted,
        on_error=diary.error,
    )
    with group, impatient_interpreter():
        books = [Books(group, seed) for seed in range(THREADS)]
        for book in books:
            book.thread.start()
        for book in books:
            book.thread.join(60)
        assert [book.failure for book in books] == [None] * THREADS
        balance: Counter[str] = Counter()
        for book in books:
            balance.update(book.balance)
        left = {key for key in SHARED if balance[key]}
        assert {balance[key] for key in SHARED} <= {0, 1}
        expected = left.union(*(book.own for book in books))
        assert set(group) == expected
        assert len(group) == len(expected)
        for key in expected:
            group[key].campaign()
            assert group[key].wait(WITHIN_S)
        assert {election.key for election in group.led} == expected
        # What was given up is released as well, in its turn.
        until(lambda: len(redis_client.keys("*:leader")) == len(expected))
        assert group.counters.reconnects == 0
        # A term that ended before its begin was told would not be told of.
        diary.wait_for(lambda: all(diary.told(key)[-1:] == [None] for key in expected))
    assert diary.errors == []
    diary.terms()
    assert len(diary.elections()) == len(diary.demotions())
    stopped = [e.key for e in diary.demotions() if e.reason is DemotionReason.STOPPED]
    assert sorted(stopped) == sorted(expected)
    assert not redis_client.keys("*:leader")
