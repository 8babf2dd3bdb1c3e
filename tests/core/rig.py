"""Cores on one manual clock, against a model of Redis: the stage of all tests of the core.

Rules of this file:
    * Nothing happens by itself. What a core sends waits until the test lets the server run
      it, and what the server answers waits until the test delivers it.
    * `settle` and `run_ms` play an engine on a network without delay.
    * Every loop ends: one that does not is a failed test.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from multielect._core.candidacy import BaseCandidacy
from multielect._core.core import Core
from multielect._core.driver import Driver
from multielect._core.records import ErrorReport, Report
from multielect._core.records import TermEvent as CoreEvent
from multielect._core.reporter import DRAINING_REASON
from multielect._protocol.keys import KeyLayout, group_layout
from multielect._protocol.scripts import WITH_FLAGS
from multielect._runtime.clock import ManualClock
from multielect.election import DemotionReason
from multielect.testing._model import RedisModel
from multielect.testing._resp import Push, encode, parse_commands

MS = 1_000_000
WHEEL_TICK_NS = 1 << 20
DUE_MS = 335  # a third of a TTL of one second, and one tick of the wheel: a refresh is due
MAX_ROUNDS = 10_000

LAYOUT = group_layout("rig", 16)


class TermEvent(NamedTuple):
    """A term begun (`reason` None) or ended, as the core told it."""

    key: str
    epoch: int
    reason: DemotionReason | None
    at_ns: int


class Drain(NamedTuple):
    """A term told to drain, until `until_ns`, after so many events."""

    key: str
    epoch: int
    until_ns: int
    after: int


class Node:
    """One core and its connection, taken step by step."""

    def __init__(
        self,
        server: RedisModel,
        *,
        holder: str,
        ttl_ms: int,
        margin_ms: int,
        layout: KeyLayout = LAYOUT,
        epochs: str = "time",
        max_leases: int = 0xFFFF_FFFF,
        batch_keys: int = 250,
        seed: int = 1,
        balanced: bool = False,
        drain_ms: int | None = None,
        moves_per_second: int = 0,
        retention_ms: int = 0,
    ) -> None:
        self.server = server
        assert isinstance(server.clock, ManualClock)
        self.clock = server.clock
        self.holder = holder.encode()
        self.layout = layout
        self.core = Core(
            now_ns=self.clock.now_ns(),
            ttl_ns=ttl_ms * MS,
            margin_ns=margin_ms * MS,
            key_prefixes=layout.key_prefixes,
            separator=layout.separator,
            holder=self.holder,
            channel=layout.channel,
            epochs=epochs.encode(),
            max_leases=max_leases,
            batch_keys=batch_keys,
            seed=seed,
            balanced=balanced,
            notifies_drains=drain_ms is not None,
            drain_ns=(drain_ms or 0) * MS,
            move_ns=1_000_000_000 // moves_per_second if moves_per_second else 0,
            retention_ms=retention_ms,
        )
        self.driver = Driver(self.core)
        self.term_events: list[TermEvent] = []
        self.drains: list[Drain] = []
        self.untaken: list[ErrorReport] = []
        self.requests: deque[list[bytes]] = deque()
        self.replies: deque[bytes] = deque()
        self.is_connected = False

    # ---- elections

    def add(self, *keys: str) -> None:
        for key in keys:
            self.core.elections.add(key.encode(), self.layout.bucket(key.encode()))

    def number(self, key: str) -> int:
        return self.place(key)[0]

    def place(self, key: str) -> tuple[int, int]:
        """The number and the generation of an election's slot."""
        place = self.core.elections.find(key.encode())
        assert place is not None, f"there is no election {key!r}"
        return place

    def candidacy(self, key: str, term_epoch: int = 0) -> BaseCandidacy:
        return BaseCandidacy(self.core.elections.slots, self.clock, *self.place(key), term_epoch)

    def leads(self, key: str) -> bool:
        return self.candidacy(key).is_leader

    def remove(self, key: str) -> None:
        assert self.core.elections.remove(key.encode(), self.clock.now_ns()), f"there is no {key!r}"

    def resign(self, key: str, epoch: int = 0) -> bool:
        return self.core.elections.resign(*self.place(key), epoch, self.clock.now_ns())

    def learn(self, key: str, newest_epoch: int, term_epoch: int = 0) -> bool:
        now_ns = self.clock.now_ns()
        return self.core.elections.learn_epoch(*self.place(key), term_epoch, newest_epoch, now_ns)

    def campaign(self, key: str) -> None:
        self.core.elections.campaign(*self.place(key))

    def seen_leader(self, key: str) -> bytes | None:
        return self.core.elections.leader(*self.place(key))

    # ---- the fleet

    def assign(self, owners: Mapping[str, Node | None], *, ineligible: Iterable[str] = ()) -> None:
        """Tell this node who is to lead what."""
        nodes = sorted({node.holder for node in owners.values() if node is not None})
        places = [-1 if node is None else nodes.index(node.holder) for node in owners.values()]
        self.core.fleet.assign(
            [key.encode() for key in owners],
            array("i", places),
            nodes,
            nodes.index(self.holder) if self.holder in nodes else -1,
            bytes(key in set(ineligible) for key in owners),
            self.clock.now_ns(),
        )

    def finish_drain(self, key: str, epoch: int = 0) -> bool:
        return self.core.elections.finish_drain(*self.place(key), epoch, self.clock.now_ns())

    def retire(self, within_ms: int, *, alone: bool = False) -> None:
        now_ns = self.clock.now_ns()
        self.core.elections.retire(alone, now_ns + within_ms * MS, now_ns)

    # ---- the connection

    def connect(self) -> None:
        self.is_connected = True
        self.server.subscribers.append((self.layout.channel, self._hear))
        self.driver.connect(WITH_FLAGS)

    def lose(self) -> None:
        """Lose the connection, with all that is on its way."""
        self.is_connected = False
        self.server.subscribers.remove((self.layout.channel, self._hear))
        self.requests.clear()
        self.replies.clear()
        self.driver.disconnect(self.clock.now_ns())
        self.take()

    def turn(self) -> None:
        """Turn, and put what is to be sent on its way."""
        self.driver.turn(self.clock.now_ns())
        self.send()
        self.take()

    def send(self) -> None:
        """Put what is to be sent on its way."""
        self.requests.extend(parse_commands(self.take_outgoing()))

    def take_outgoing(self) -> bytes:
        with memoryview(self.driver.outgoing) as waiting:
            data = bytes(waiting)
        self.driver.sent(len(data))
        return data

    def serve(self, most: int = MAX_ROUNDS) -> int:
        """Let the server run what has been sent. Returns how many batches."""
        served = 0
        while self.requests and served < most:
            self.replies.append(encode(self.server.call(self.requests.popleft())))
            served += 1
        return served

    def deliver(self, most: int = MAX_ROUNDS) -> int:
        """Let the core have what the server answered and pushed. Returns how many frames."""
        delivered = 0
        while self.replies and delivered < most:
            self.driver.receive(self.replies.popleft(), self.clock.now_ns())
            delivered += 1
        self.take()
        return delivered

    def exchange(self) -> None:
        """Turn once, and have all requests answered."""
        self.turn()
        self.serve()
        self.deliver()

    def take(self) -> None:
        """Take the events there are."""
        while events := self.core.reporter.take_events():
            self._record(events)

    def take_report(self) -> Report:
        """Take all that came out since the last report."""
        Node.take(self)
        report = self.core.reporter.take()
        self._record(report.events)
        return report

    def _record(self, events: Iterable[CoreEvent]) -> None:
        for key, _, _, epoch, reason, at_ns in events:
            if reason == DRAINING_REASON:
                self.drains.append(Drain(key.decode(), epoch, at_ns, len(self.term_events)))
                continue
            why = DemotionReason(reason) if reason else None
            self.term_events.append(TermEvent(key.decode(), epoch, why, at_ns))

    def next_turn_ns(self) -> int:
        return self.driver.next_turn_ns(self.clock.now_ns())

    def owed_since_ns(self) -> int | None:
        return self.driver.owed_since_ns

    def is_refused(self) -> bool:
        return self.driver.is_refused

    def is_quiet(self) -> bool:
        return self.driver.is_quiet

    def told(self, key: str) -> list[DemotionReason | None]:
        """Return what became of one election's terms: None for each that began."""
        return [term_event.reason for term_event in self.term_events if term_event.key == key]

    def counted(self, what: str) -> int:
        return self.core.elections.counters[what]

    def error_reports(self) -> list[tuple[str, int, str]]:
        """Take what the server refused: request, number of elections, its words."""
        return [report[:3] for report in self.refusals()]

    def refusals(self) -> list[tuple[str, int, str, bytes | None]]:
        """Take the same, each with the key of one of the elections."""
        refused = [*self.untaken, *self.take_report().errors]
        self.untaken.clear()
        return [report[:4] for report in refused]

    def _hear(self, push: Push) -> None:
        self.replies.append(encode(push))


class Rig:
    """A server and the nodes that stand for its elections."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.server = RedisModel(self.clock)
        self.nodes: list[Node] = []

    def node(
        self,
        *keys: str,
        holder: str | None = None,
        ttl_ms: int = 1000,
        margin_ms: int = 100,
        epochs: str = "time",
        max_leases: int = 0xFFFF_FFFF,
        batch_keys: int = 250,
        balanced: bool = False,
        drain_ms: int | None = None,
        moves_per_second: int = 0,
        retention_ms: int = 0,
        layout: KeyLayout = LAYOUT,
    ) -> Node:
        """Return a node that is connected, stands for `keys` and has asked for nothing yet."""
        name = holder or f"node-{len(self.nodes)}/incarnation"
        node = Node(
            self.server,
            holder=name,
            ttl_ms=ttl_ms,
            margin_ms=margin_ms,
            epochs=epochs,
            max_leases=max_leases,
            batch_keys=batch_keys,
            seed=len(self.nodes) + 1,
            balanced=balanced,
            drain_ms=drain_ms,
            moves_per_second=moves_per_second,
            retention_ms=retention_ms,
            layout=layout,
        )
        self.nodes.append(node)
        node.add(*keys)
        node.core.elections.start()
        node.connect()
        return node

    def leader(self, *keys: str, ttl_ms: int = 1000, margin_ms: int = 100) -> Node:
        """Return a node that leads `keys`."""
        node = self.node(*keys, ttl_ms=ttl_ms, margin_ms=margin_ms)
        node.exchange()
        assert all(node.leads(key) for key in keys)
        return node

    def settle(self) -> None:
        """Let everything happen that happens at this instant."""
        for _ in range(MAX_ROUNDS):
            for node in self.nodes:
                node.turn()
            moved = sum(node.serve() for node in self.nodes)
            if not moved + sum(node.deliver() for node in self.nodes):
                return
        raise AssertionError("the nodes do not come to rest")

    def advance_ms(self, step_ms: float) -> None:
        """Move the clock; nothing else happens."""
        self.clock.advance_ns(round(step_ms * MS))

    def run_ms(self, span_ms: float) -> None:
        """Play the time from now on, each node turning when it asked to."""
        until_ns = self.clock.now_ns() + round(span_ms * MS)
        while True:
            self.settle()
            now_ns = self.clock.now_ns()
            if now_ns >= until_ns:
                return
            # At least one step of the wheel, as an engine that polls by the millisecond.
            next_ns = max(min(node.next_turn_ns() for node in self.nodes), now_ns + 1)
            self.clock.advance_ns(min(next_ns, until_ns) - now_ns)

    def another_of_its_bucket(self, key: str) -> str:
        """Return another key that is in the same bucket."""
        wanted = LAYOUT.bucket(key.encode())
        others = (f"{key}-{number}" for number in range(MAX_ROUNDS))
        return next(other for other in others if LAYOUT.bucket(other.encode()) == wanted)

    def leader_key(self, key: str) -> bytes:
        return LAYOUT.leader_key(key.encode())

    def epoch_key(self, key: str) -> bytes:
        return LAYOUT.epoch_key(key.encode())

    def holder_of(self, key: str) -> bytes | None:
        """Return whose lease the server holds."""
        return self.server.get(self.leader_key(key))
