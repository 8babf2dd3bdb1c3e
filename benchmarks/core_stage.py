"""The core alone, in the steps that a lease goes through: no server, no socket, no clock.

Rules of this file:
    * A step has what it needs prepared, and is then run: what is measured is the run alone. After
      it, `check` says whether all was done: a core that does nothing would be the quickest.
    * The answers are bytes written beforehand, as of a server where all goes well;
      `tests/unit/test_instructions.py` holds them against the model of Redis.
    * Nothing but the core, the keys and the scripts is imported: it is run under callgrind too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from multielect._core.core import Core
from multielect._core.driver import Driver
from multielect._protocol.keys import group_layout
from multielect._protocol.scripts import WITH_FLAGS

MS = 1_000_000
TTL_MS = 10_000
DUE_MS = TTL_MS // 3 + 2  # by then every refresh is due, whichever phase it belongs to
SERVER_AHEAD_MS = 1_700_000_000_000
MAX_IN_FLIGHT = 32
REFRESHED_AT_ONCE = 250
ACQUIRED_AT_ONCE = REFRESHED_AT_ONCE // 2
MAX_LEASES = MAX_IN_FLIGHT * ACQUIRED_AT_ONCE
HOLDER = b"node-1/0123456789abcdef"
OTHER_LEADER = b"node-2/fedcba9876543210"
LAYOUT = group_layout("orders")


class Stage:
    """One core that leads so many elections, and what a server would answer it."""

    def __init__(self, leases: int) -> None:
        if leases % REFRESHED_AT_ONCE or not 0 < leases <= MAX_LEASES:
            raise ValueError(
                f"leases must fill batches of {REFRESHED_AT_ONCE}, {MAX_LEASES} at most: {leases}"
            )
        self.leases = leases
        self.now_ns = 1_000_000_000
        self.begin()
        self.acquire()
        self.check_led()

    # ---- what is run

    def acquire(self) -> None:
        """Ask for all, and be given all."""
        self.tick()
        self.driver.receive(self.won, self.now_ns)

    def tick(self) -> None:
        """Do what is due, and have it sent."""
        self.driver.turn(self.now_ns)
        self.driver.sent(self.driver.outgoing_bytes)

    def parse(self) -> None:
        """Be told that all leases are extended."""
        self.driver.receive(self.extended, self.now_ns)

    def refresh(self) -> None:
        """Have all leases extended."""
        self.tick()
        self.parse()

    # ---- what comes before

    def begin(self) -> None:
        """Have a new core, connected, which stands for all and has asked for nothing yet."""
        self.core = Core(
            now_ns=self.now_ns,
            ttl_ns=TTL_MS * MS,
            margin_ns=TTL_MS // 10 * MS,
            key_prefixes=LAYOUT.key_prefixes,
            separator=LAYOUT.separator,
            holder=HOLDER,
            channel=LAYOUT.channel,
            seed=1,
        )
        for number in range(self.leases):
            key = b"partition-%d" % number
            self.core.elections.add(key, LAYOUT.bucket(key))
        self.core.elections.start()
        self.driver = Driver(self.core)
        self.driver.connect(WITH_FLAGS)
        self.refreshed_before = 0
        self._write_answers()

    def wait(self) -> None:
        """Let the time pass until all leases are due."""
        self.now_ns += DUE_MS * MS
        self._write_answers()

    def wait_and_fill(self) -> None:
        """The same, with no room for a batch any more."""
        for key in self._bystanders():
            self.core.elections.add(key, 0)
            self.tick()
        self.wait()

    def wait_and_queue(self) -> None:
        """Have all in the queue, for the next tick to write them."""
        self.wait_and_fill()
        self.driver.turn(self.now_ns)
        self.empty()

    def wait_and_ask(self) -> None:
        """Have asked for all, the answers being on their way."""
        self.wait()
        self.tick()

    def wait_and_lose(self) -> None:
        """Lose all leases at once, as after FLUSHALL, and stand for all again."""
        self.wait_and_ask()
        self.driver.receive(self.lost, self.now_ns)
        self.refreshed_before += self.leases
        while self.core.reporter.take_events():
            pass
        assert self.core.elections.leading == 0

    def empty(self) -> None:
        """Make room again: a rival leads what was asked for."""
        assert self.driver.outgoing_bytes == 0, "it was to have no room"
        self.driver.receive(self.led_by_other * MAX_IN_FLIGHT, self.now_ns)
        for key in self._bystanders():
            self.core.elections.remove(key, self.now_ns)

    # ---- what comes after

    def check_led(self) -> None:
        """See that each election is led, and take what there is to tell."""
        while self.core.reporter.take_events():
            pass
        assert self.core.elections.leading == self.leases
        assert self.core.elections.counters["stale_replies"] == 0

    def check_refreshed(self) -> None:
        """See that each lease was refreshed once, and is led still."""
        self.refreshed_before += self.leases
        assert self.core.elections.counters["refreshes"] == self.refreshed_before
        assert self.driver.owed_since_ns is None, "an answer is missing"
        assert self.driver.next_turn_ns(self.now_ns) > self.now_ns, "something is left to do"
        self.check_led()

    def check_packed(self) -> None:
        """See that all leases were asked for, and go on from there."""
        self.parse()
        self.check_refreshed()

    def check_queued(self) -> None:
        """See that the timers have rung, and go on from there."""
        assert self.driver.next_turn_ns(self.now_ns) > self.now_ns, "a timer is left"
        self.empty()
        self.tick()
        self.check_packed()

    def _bystanders(self) -> list[bytes]:
        return [b"bystander-%d" % number for number in range(MAX_IN_FLIGHT)]

    def _write_answers(self) -> None:
        time = b":%d\r\n" % (SERVER_AHEAD_MS + self.now_ns // MS)
        won = b"*%d\r\n%s*0\r\n%s" % (2 + ACQUIRED_AT_ONCE, time, time * ACQUIRED_AT_ONCE)
        all_of_them = b"".join(b":%d\r\n" % place for place in range(1, 1 + REFRESHED_AT_ONCE))
        lost = b"*3\r\n%s*%d\r\n%s*0\r\n" % (time, REFRESHED_AT_ONCE, all_of_them)
        extended = b"*3\r\n%s*0\r\n*0\r\n" % time
        rival = b"$%d\r\n%s\r\n" % (len(OTHER_LEADER), OTHER_LEADER)
        self.won = won * (self.leases // ACQUIRED_AT_ONCE)
        self.lost = lost * (self.leases // REFRESHED_AT_ONCE)
        self.extended = extended * (self.leases // REFRESHED_AT_ONCE)
        self.led_by_other = b"*3\r\n%s*1\r\n%s:-%d\r\n" % (time, rival, 256 * TTL_MS + 1)


@dataclass(frozen=True)
class Step:
    """One of the things that a core does with a lease."""

    about: str
    prepare: Callable[[Stage], None]
    run: Callable[[Stage], None]
    check: Callable[[Stage], None]


STEPS = {
    "schedule": Step(
        "its timer rings, the next is set, it is queued",
        Stage.wait_and_fill,
        Stage.tick,
        Stage.check_queued,
    ),
    "pack": Step(
        "it goes from the queue into a batch",
        Stage.wait_and_queue,
        Stage.tick,
        Stage.check_packed,
    ),
    "parse": Step(
        "an answer extends it, the next timer is set",
        Stage.wait_and_ask,
        Stage.parse,
        Stage.check_refreshed,
    ),
    "refresh": Step(
        "these three, one after the other",
        Stage.wait,
        Stage.refresh,
        Stage.check_refreshed,
    ),
    "acquire": Step(
        "from the queue to a term, and the event that tells",
        Stage.wait_and_lose,
        Stage.acquire,
        Stage.check_led,
    ),
}
