"""One core over several servers, each behind a lane of its own, on one manual clock.

Rules of this file:
    * A server is a model of Redis that is no cluster: it takes whatever key it is asked for. So a
      test sees what was asked of which server.
    * Nothing happens by itself, as on the rig.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from multielect._core.candidacy import BaseCandidacy
from multielect._core.core import Core
from multielect._core.driver import Driver
from multielect._core.records import Report
from multielect._core.reporter import DRAINING_REASON
from multielect._core.slot_map import slot_of_key
from multielect._protocol.scripts import WITH_FLAGS
from multielect._runtime.clock import ManualClock
from multielect.election import DemotionReason
from multielect.testing._model import RedisModel
from multielect.testing._resp import encode, parse_commands

from .rig import LAYOUT, MS

SLOTS = 16_384
MAX_ROUNDS = 10_000


class Lane:
    """A server, and the way to it."""

    def __init__(self, core: Core, index: int, clock: ManualClock) -> None:
        self.clock = clock
        self.driver = Driver(core, index)
        self.server = RedisModel(clock)
        self.requests: deque[list[bytes]] = deque()
        self.is_connected = False

    def connect(self) -> None:
        self.is_connected = True
        self.driver.connect(WITH_FLAGS)

    def lose(self) -> None:
        self.is_connected = False
        self.requests.clear()
        self.driver.disconnect(self.clock.now_ns())

    def send(self) -> None:
        """Put what is to be sent on its way."""
        with memoryview(self.driver.outgoing) as waiting:
            data = bytes(waiting)
        self.driver.sent(len(data))
        self.requests.extend(parse_commands(data))

    def serve(self) -> int:
        """Have everything answered that is on its way. Returns how many batches."""
        served = len(self.requests)
        while self.requests:
            reply = encode(self.server.call(self.requests.popleft()))
            self.driver.receive(reply, self.clock.now_ns())
        return served

    def asked(self, request: str) -> list[list[bytes]]:
        """Return the keys of each batch of this kind so far."""
        return [list(batch.keys) for batch in self.server.batches if batch.request == request]


class Lanes:
    """A core with so many lanes, which share the slots evenly; all are connected."""

    def __init__(self, count: int = 2, *, ttl_ms: int = 1000, **settings: Any) -> None:
        self.clock = ManualClock()
        self.core = Core(
            now_ns=self.clock.now_ns(),
            ttl_ns=ttl_ms * MS,
            margin_ns=ttl_ms // 10 * MS,
            key_prefixes=LAYOUT.key_prefixes,
            separator=LAYOUT.separator,
            holder=b"node/1",
            channel=LAYOUT.channel,
            fleet_slot=slot_of_key(LAYOUT.members_key),
            **settings,
        )
        for _ in range(1, count):
            self.core.add_lane()
        self.lanes = [Lane(self.core, index, self.clock) for index in range(count)]
        self.ends: dict[str, list[DemotionReason]] = {}
        for index in range(count):
            first, beyond = index * SLOTS // count, (index + 1) * SLOTS // count
            self.core.map_slots(first, beyond - 1, index)
        for lane in self.lanes:
            lane.connect()

    def lead(self, *keys: str) -> None:
        """Add elections, and lead them."""
        for key in keys:
            self.core.elections.add(key.encode(), LAYOUT.bucket(key.encode()))
        self.core.elections.start()
        self.settle()
        assert all(self.leads(key) for key in keys)

    def lane_of(self, key: str) -> int:
        """Return which lane serves the election as the slots were shared at first."""
        return slot_of(key) * len(self.lanes) // SLOTS

    def candidacy(self, key: str) -> BaseCandidacy:
        place = self.core.elections.find(key.encode())
        assert place is not None
        return BaseCandidacy(self.core.elections.slots, self.clock, *place)

    def leads(self, key: str) -> bool:
        return self.candidacy(key).is_leader

    def turn(self) -> None:
        """One turn, and what is to be sent is on its way."""
        self.lanes[0].driver.turn(self.clock.now_ns())
        for lane in self.lanes:
            lane.send()

    def settle(self) -> None:
        """Let everything happen that happens at this instant."""
        for _ in range(MAX_ROUNDS):
            self.turn()
            if not sum(lane.serve() for lane in self.lanes if lane.is_connected):
                return
        raise AssertionError("the node does not come to rest")

    def run_ms(self, span_ms: int) -> None:
        """Play the time from now on."""
        for _ in range(span_ms):
            self.clock.advance_ns(MS)
            self.settle()

    def take_report(self) -> Report:
        """Take what came out, and keep in `ends` why terms have ended."""
        report = self.core.reporter.take()
        for event in report.events:
            if event.reason not in (0, DRAINING_REASON):
                ends = self.ends.setdefault(event.key.decode(), [])
                ends.append(DemotionReason(event.reason))
        return report


def slot_of(key: str) -> int:
    """Return the slot of an election's keys."""
    return slot_of_key(LAYOUT.leader_key(key.encode()))


def names(count: int) -> list[str]:
    return [f"k{number}" for number in range(count)]
