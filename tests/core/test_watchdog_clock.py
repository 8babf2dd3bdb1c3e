"""The watchdog on a manual clock: a term ends at the instant its worker has been silent too long.

Rules of this file:
    * Time moves by half a millisecond a step, and the core turns at each: what it does
      it does at the step at which it is due, within one tick of the timing wheel.
    * Replies arrive at once, unless the test keeps them.
"""

from __future__ import annotations

import pytest
from tests.core.answering import AnsweringServer

from multielect import DemotionReason
from multielect._core.candidacy import BaseCandidacy
from multielect._core.core import Core
from multielect._core.driver import Driver
from multielect._protocol.keys import group_layout
from multielect._protocol.scripts import WITH_FLAGS
from multielect._runtime.clock import ManualClock

MS = 1_000_000
STEP_NS = MS // 2
WHEEL_TICK_MS = 1.5
LAYOUT = group_layout("watchdog", 1)
TTL_MS = 1000


class Worker:
    """A core that stands for one election, and the worker behind it."""

    def __init__(self, max_stall_ms: int) -> None:
        self.clock = ManualClock()
        self.server = AnsweringServer(self.clock)
        self.core = Core(
            now_ns=self.clock.now_ns(),
            ttl_ns=TTL_MS * MS,
            margin_ns=100 * MS,
            key_prefixes=LAYOUT.key_prefixes,
            separator=LAYOUT.separator,
            holder=b"node/1",
            channel=LAYOUT.channel,
        )
        self.driver = Driver(self.core)
        number, generation, _ = self.core.elections.add(b"key", 0, max_stall_ms * MS)
        self.place = number, generation
        self.candidacy = BaseCandidacy(self.core.elections.slots, self.clock, number, generation)
        self.told: list[tuple[DemotionReason | None, float]] = []
        self.kept: list[bytes] | None = None
        self.core.elections.start()
        self.driver.connect(WITH_FLAGS)
        self.born_ns = self.clock.now_ns()
        self.turn()
        assert self.leads()

    @property
    def now_ms(self) -> float:
        return (self.clock.now_ns() - self.born_ns) / MS

    def leads(self) -> bool:
        return self.candidacy.is_leader

    def keep_replies(self) -> None:
        self.kept = []

    def deliver(self) -> None:
        kept, self.kept = self.kept or [], None
        for reply in kept:
            self.driver.receive(reply, self.clock.now_ns())

    def turn(self) -> None:
        """Let the core do what is due, and the server answer."""
        for _ in range(10):
            self.driver.turn(self.clock.now_ns())
            with memoryview(self.driver.outgoing) as waiting:
                data = bytes(waiting)
            self.driver.sent(len(data))
            reply = self.server.answer(data)
            if not reply:
                break
            if self.kept is None:
                self.driver.receive(reply, self.clock.now_ns())
            else:
                self.kept.append(reply)
        for _, _, _, _, reason, at_ns in self.core.reporter.take_events():
            why = DemotionReason(reason) if reason else None
            self.told.append((why, (at_ns - self.born_ns) / MS))

    def run_ms(self, span_ms: float, *, heartbeat_every_ms: float = 0) -> None:
        until_ns = self.clock.now_ns() + round(span_ms * MS)
        spoke_ms = self.now_ms
        while self.clock.now_ns() < until_ns:
            self.clock.advance_ns(STEP_NS)
            if heartbeat_every_ms and self.now_ms - spoke_ms >= heartbeat_every_ms:
                self.candidacy.heartbeat()
                spoke_ms = self.now_ms
            self.turn()

    def reasons(self) -> list[DemotionReason | None]:
        return [reason for reason, _ in self.told]


@pytest.mark.parametrize("max_stall_ms", [10, 100, 333, 334, 700, 1000, 2500, 10_000])
def test_silence_ends_the_term_in_time(max_stall_ms: int) -> None:
    worker = Worker(max_stall_ms)
    worker.run_ms(max_stall_ms - 1)
    assert worker.reasons() == [None]
    assert worker.leads()
    worker.run_ms(1 + WHEEL_TICK_MS)
    assert worker.reasons() == [None, DemotionReason.STALLED]
    assert max_stall_ms <= worker.told[-1][1] <= max_stall_ms + WHEEL_TICK_MS
    assert not worker.leads()
    assert worker.server.model.get(LAYOUT.leader_key(b"key")) is None


@pytest.mark.parametrize("max_stall_ms", [50, 400, 3000])
def test_a_sign_of_life_keeps_the_term(max_stall_ms: int) -> None:
    worker = Worker(max_stall_ms)
    worker.run_ms(4 * max_stall_ms, heartbeat_every_ms=max_stall_ms * 0.9)
    assert worker.reasons() == [None]
    assert worker.leads()
    worker.candidacy.heartbeat()
    silent_from_ms = worker.now_ms
    worker.run_ms(max_stall_ms - 1)
    assert worker.leads()
    worker.run_ms(1 + WHEEL_TICK_MS)
    assert worker.reasons() == [None, DemotionReason.STALLED]
    assert 0 <= worker.told[-1][1] - silent_from_ms - max_stall_ms <= WHEEL_TICK_MS


def test_without_a_watchdog_nobody_need_speak() -> None:
    worker = Worker(0)
    worker.run_ms(20 * TTL_MS)
    assert worker.reasons() == [None]
    assert worker.leads()


def test_the_others_go_first_for_one_ttl() -> None:
    worker = Worker(200)
    worker.run_ms(200 + WHEEL_TICK_MS)
    ended_ms = worker.told[-1][1]
    acquires = worker.server.asked["acquire"]
    worker.run_ms(ended_ms + TTL_MS - worker.now_ms - 1)
    assert worker.server.asked["acquire"] == acquires
    worker.run_ms(1 + 2 * WHEEL_TICK_MS)
    assert worker.reasons() == [None, DemotionReason.STALLED, None]
    # Elected again, the worker has as long again to show that it goes on.
    worker.run_ms(200 - 2 * WHEEL_TICK_MS - 1)
    assert worker.leads()
    worker.run_ms(3 * WHEEL_TICK_MS + 1)
    assert worker.reasons()[3:] == [DemotionReason.STALLED]


def test_to_campaign_cuts_that_short() -> None:
    worker = Worker(200)
    worker.run_ms(200 + WHEEL_TICK_MS)
    assert not worker.leads()
    worker.core.elections.campaign(*worker.place)
    worker.turn()
    assert worker.reasons() == [None, DemotionReason.STALLED, None]
    assert worker.leads()


def test_a_refresh_on_its_way_neither_delays_it_nor_undoes_it() -> None:
    worker = Worker(500)
    worker.run_ms(300)
    worker.keep_replies()
    worker.run_ms(200 + WHEEL_TICK_MS)
    assert worker.server.asked["refresh"] >= 1
    assert worker.reasons() == [None, DemotionReason.STALLED]
    assert 500 <= worker.told[-1][1] <= 500 + WHEEL_TICK_MS
    worker.deliver()
    worker.turn()
    assert not worker.leads()
    assert worker.reasons() == [None, DemotionReason.STALLED]


def test_a_lost_connection_does_not_delay_it() -> None:
    worker = Worker(500)
    worker.run_ms(100)
    worker.driver.disconnect(worker.clock.now_ns())
    worker.run_ms(400 + WHEEL_TICK_MS)
    assert worker.reasons() == [None, DemotionReason.STALLED]
    assert 500 <= worker.told[-1][1] <= 500 + WHEEL_TICK_MS


def test_signs_of_life_of_an_earlier_election_do_not_count() -> None:
    worker = Worker(500)
    former = worker.candidacy
    worker.core.elections.remove(b"key", worker.clock.now_ns())
    worker.turn()
    worker.turn()
    number, generation, is_new = worker.core.elections.add(b"other", 0, 500 * MS)
    assert (is_new, number) == (True, worker.place[0])
    assert generation != worker.place[1]
    worker.turn()
    worker.candidacy = BaseCandidacy(worker.core.elections.slots, worker.clock, number, generation)
    assert worker.leads()
    began_ms = worker.told[-1][1]
    worker.run_ms(400)
    former.heartbeat()
    worker.run_ms(began_ms + 500 + WHEEL_TICK_MS - worker.now_ms)
    assert worker.reasons()[-2:] == [None, DemotionReason.STALLED]
