"""Eight threads on one core for a simulated hour, beside the thread that pumps.

Rules of this file:
    * The pumping thread alone moves the clock, turns, sends and receives, as the owner thread
      does; it has a server that now and then loses the connection or gives a lease
      to a rival.
    * The others do everything that users may do from any thread, from seeds of their own,
      and keep books. The schedule of the threads is the machine's: what is held here is what
      must hold under any.
"""

from __future__ import annotations

import random
import sys
import threading
from collections import Counter

import pytest
from tests.core.answering import AnsweringServer

from multielect._core.candidacy import BaseCandidacy
from multielect._core.core import Core
from multielect._core.driver import Driver
from multielect._protocol.keys import group_layout
from multielect._protocol.scripts import WITH_FLAGS
from multielect._runtime.clock import ManualClock

MS = 1_000_000
THREADS = 8
TTL_MS = 3_000
HOUR_MS = 3_600_000
LAYOUT = group_layout("stress", 16)
HOLDER = b"node/1"
KEYS_A_THREAD = 24
SHARED = [b"shared-%d" % number for number in range(4)]
MAX_S = 100.0

Event = tuple[bytes, int, int, int, int, int]


class Pumping:
    """The thread that moves the clock and the bytes, and takes the events."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.server = AnsweringServer(self.clock)
        self.core = Core(
            now_ns=self.clock.now_ns(),
            ttl_ns=TTL_MS * MS,
            margin_ns=TTL_MS * MS // 10,
            key_prefixes=LAYOUT.key_prefixes,
            separator=LAYOUT.separator,
            holder=HOLDER,
            channel=LAYOUT.channel,
            max_leases=200,
        )
        self.driver = Driver(self.core)
        self.events: list[Event] = []
        self.losses = 0
        self._random = random.Random(99)

    def run(self, until_ms: int) -> None:
        until_ns = self.clock.now_ns() + until_ms * MS
        while self.clock.now_ns() < until_ns:
            self.clock.advance_ns(self._random.randrange(20, 500) * MS)
            self.turn()
            if self._random.random() < 0.02:
                self._lose()
            if self._random.random() < 0.01:
                self._rob()

    def turn(self) -> None:
        """Exchange what there is; with users at work, there may always be more."""
        for _ in range(20):
            self.driver.turn(self.clock.now_ns())
            with memoryview(self.driver.outgoing) as waiting:
                data = bytes(waiting)
            self.driver.sent(len(data))
            reply = self.server.answer(data)
            # In two pieces: the mutex is free between them.
            half = len(reply) // 2
            self.driver.receive(reply[:half], self.clock.now_ns())
            self.driver.receive(reply[half:], self.clock.now_ns())
            while events := self.core.reporter.take_events():
                self.events += events
            if not reply:
                return

    def _lose(self) -> None:
        self.losses += 1
        self.driver.turn(self.clock.now_ns())
        self.driver.disconnect(self.clock.now_ns())
        self.server.forget_unread()
        self.driver.connect(WITH_FLAGS)

    def _rob(self) -> None:
        leases = self.server.leases()
        if leases:
            self.server.model.put(self._random.choice(list(leases)), b"rival/1", TTL_MS)


class User:
    """One thread that does what users do, and its books."""

    def __init__(self, pumping: Pumping, seed: int) -> None:
        self.own: set[bytes] = set()
        self.balance: Counter[bytes] = Counter()
        self.calls = 0
        self.failure: BaseException | None = None
        self._pumping = pumping
        self._core = pumping.core
        self._random = random.Random(seed)
        self._mine = [b"thread-%d-%d" % (seed, number) for number in range(KEYS_A_THREAD)]
        self._candidacies: dict[bytes, tuple[BaseCandidacy, int]] = {}
        self.thread = threading.Thread(target=self._run, name=f"user-{seed}")

    def _run(self) -> None:
        try:
            while not ended.is_set():
                self.calls += 1
                self._change() if self._random.random() < 0.5 else self._look()
        except BaseException as failure:  # noqa: BLE001  # for the test, on its own thread
            self.failure = failure

    def _change(self) -> None:
        draw, core, now_ns = self._random, self._core, self._pumping.clock.now_ns()
        key = draw.choice(self._mine)
        shared = draw.choice(SHARED)
        place = core.elections.find(key)
        assert (place is not None) == (key in self.own)
        match draw.randrange(5):
            case 0:
                number, generation, is_new = core.elections.add(
                    key, LAYOUT.bucket(key), 60_000 * MS
                )
                assert is_new == (key not in self.own)
                self.own.add(key)
                if is_new:
                    candidacy = BaseCandidacy(
                        core.elections.slots, self._pumping.clock, number, generation
                    )
                    self._candidacies[key] = (candidacy, 0)
            case 1:
                assert core.elections.remove(key, now_ns) == (key in self.own)
                self.own.discard(key)
                self._candidacies.pop(key, None)
            case 2:
                self.balance[shared] += core.elections.add(shared, LAYOUT.bucket(shared))[2]
            case 3:
                self.balance[shared] -= core.elections.remove(shared, now_ns)
            case _:
                if place is not None:
                    core.elections.resign(*place, 0, now_ns)
                    core.elections.campaign(*place)

    def _look(self) -> None:
        core = self._core
        for key, (candidacy, epoch_before) in self._candidacies.items():
            candidacy.heartbeat()
            led, epoch = candidacy.is_leader, candidacy.epoch
            assert epoch >= epoch_before
            assert epoch > 0 or not led
            assert not candidacy.is_removed
            assert 0 <= candidacy.remaining <= TTL_MS / 1000
            self._candidacies[key] = (candidacy, epoch)
        match self._random.randrange(4):
            case 0:
                keys = set(core.elections.list_keys())
                assert keys & set(self._mine) == self.own
            case 1:
                led_now = core.elections.led(self._pumping.clock.now_ns())
                assert {key for key, _, _ in led_now} & set(self._mine) <= self.own
                assert len({number for _, number, _ in led_now}) == len(led_now)
            case 2:
                counters = core.elections.counters
                assert 0 <= counters["elected"] - counters["demoted"] <= 200
            case _:
                place = core.elections.find(self._random.choice(self._mine))
                if place is not None:
                    assert core.elections.leader(*place) in {None, b"rival/1"}


ended = threading.Event()


@pytest.mark.parametrize("minutes", [5, pytest.param(60, marks=pytest.mark.slow)])
def test_an_hour_of_eight_threads(minutes: int) -> None:
    pumping = Pumping()
    core = pumping.core
    core.elections.start()
    pumping.driver.connect(WITH_FLAGS)
    ended.clear()
    users = [User(pumping, seed) for seed in range(THREADS)]
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        for user in users:
            user.thread.start()
        pumping.run(minutes * HOUR_MS // 60)
    finally:
        ended.set()
        for user in users:
            user.thread.join(MAX_S)
        sys.setswitchinterval(usual_s)
    assert [user.failure for user in users] == [None] * THREADS
    assert min(user.calls for user in users) > 100
    assert_the_books_agree(pumping, users)
    assert_events_are_pairs(pumping)


def assert_the_books_agree(pumping: Pumping, users: list[User]) -> None:
    balance: Counter[bytes] = Counter()
    for user in users:
        balance.update(user.balance)
    assert {balance[key] for key in SHARED} <= {0, 1}
    expected = {key for key in SHARED if balance[key]}.union(*(user.own for user in users))
    core = pumping.core
    assert set(core.elections.list_keys()) == expected
    assert len(core.elections) == len(expected)
    # Two TTLs more: rivals' leases end, and what was resigned is stood for again.
    for _ in range(2 * TTL_MS // 100):
        pumping.clock.advance_ns(100 * MS)
        for key in expected:
            place = core.elections.find(key)
            assert place is not None
            core.elections.campaign(*place)
            BaseCandidacy(core.elections.slots, pumping.clock, *place).heartbeat()
        pumping.turn()
    led_now = {key for key, _, _ in core.elections.led(pumping.clock.now_ns())}
    assert led_now == expected
    held = {key for key, holder in pumping.server.leases().items() if holder == HOLDER}
    assert held == {LAYOUT.leader_key(key) for key in expected}
    core.elections.stop()
    for _ in range(100):
        pumping.turn()
    assert pumping.driver.is_quiet
    assert core.elections.leading == 0
    assert HOLDER not in pumping.server.leases().values()


def assert_events_are_pairs(pumping: Pumping) -> None:
    counters = pumping.core.elections.counters
    assert counters["elected"] == counters["demoted"] > 0
    assert len(pumping.events) % 2 == 0
    running: dict[bytes, int] = {}
    latest: dict[bytes, int] = {}
    for key, _, _, epoch, reason, _ in pumping.events:
        if reason == 0:
            assert key not in running
            assert epoch > latest.get(key, 0)
            running[key] = latest[key] = epoch
        else:
            assert running.pop(key) == epoch
    assert not running
    assert pumping.losses > 0
    assert counters["refreshes"] > 1000
