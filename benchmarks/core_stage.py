"""Runs the core alone through the steps of a lease, without a server, a socket or a clock.

Rules of this file:
    * A step is prepared, run, and checked. Only the run is measured. The check makes sure that the
      core did all its work, because a core that does nothing would be fastest.
    * The replies are prepared bytes, as a server sends them if all goes well.
      `tests/unit/test_instructions.py` compares them with the model of Redis.
    * This file imports only the core, the keys and the scripts, because it also runs under
      callgrind.
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
    """One core with some elections, and the replies of a server to it."""

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

    # ---- runs

    def acquire(self) -> None:
        """Acquire all elections, with success."""
        self.tick()
        self.driver.receive(self.won, self.now_ns)

    def tick(self) -> None:
        """Do one turn of the core, and take the bytes that it sends."""
        self.driver.turn(self.now_ns)
        self.driver.sent(self.driver.outgoing_bytes)

    def parse(self) -> None:
        """Receive the replies that all leases are refreshed."""
        self.driver.receive(self.extended, self.now_ns)

    def refresh(self) -> None:
        """Refresh all leases."""
        self.tick()
        self.parse()

    # ---- preparations

    def begin(self) -> None:
        """Make a new core that is connected, stands for all elections, and has sent nothing yet."""
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
        """Advance the time until all leases are due."""
        self.now_ns += DUE_MS * MS
        self._write_answers()

    def wait_and_fill(self) -> None:
        """Advance the time until all leases are due, with no room for another batch."""
        for key in self._bystanders():
            self.core.elections.add(key, 0)
            self.tick()
        self.wait()

    def wait_and_queue(self) -> None:
        """Queue all leases, so that the next turn writes their refreshes."""
        self.wait_and_fill()
        self.driver.turn(self.now_ns)
        self.empty()

    def wait_and_ask(self) -> None:
        """Send the refreshes of all leases, whose replies are still to come."""
        self.wait()
        self.tick()

    def wait_and_lose(self) -> None:
        """Lose all leases at once, as after FLUSHALL, and stand for all elections again."""
        self.wait_and_ask()
        self.driver.receive(self.lost, self.now_ns)
        self.refreshed_before += self.leases
        while self.core.reporter.take_events():
            pass
        assert self.core.elections.leading == 0

    def empty(self) -> None:
        """Make room for batches again, by replies that a rival leads those elections."""
        assert self.driver.outgoing_bytes == 0, "it was to have no room"
        self.driver.receive(self.led_by_other * MAX_IN_FLIGHT, self.now_ns)
        for key in self._bystanders():
            self.core.elections.remove(key, self.now_ns)

    # ---- checks

    def check_led(self) -> None:
        """Check that the core leads each election, and take its events."""
        while self.core.reporter.take_events():
            pass
        assert self.core.elections.leading == self.leases
        assert self.core.elections.counters["stale_replies"] == 0

    def check_refreshed(self) -> None:
        """Check that each lease was refreshed once, and that its election is still led."""
        self.refreshed_before += self.leases
        assert self.core.elections.counters["refreshes"] == self.refreshed_before
        assert self.driver.owed_since_ns is None, "an answer is missing"
        assert self.driver.next_turn_ns(self.now_ns) > self.now_ns, "something is left to do"
        self.check_led()

    def check_packed(self) -> None:
        """Check that refreshes of all leases were sent, and receive their replies."""
        self.parse()
        self.check_refreshed()

    def check_queued(self) -> None:
        """Check that the timers have fired, and make room for the refreshes."""
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
    """One step of a lease."""

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
