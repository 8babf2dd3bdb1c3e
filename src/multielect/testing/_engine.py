"""The engine of a simulated node: pump, connector and event thread, a step at a time.

Rules of this file:
    * It does what the real engine and its pump do, in the same order. A turn reads the time, ticks
      the core, and then sends. Bytes are received at the time at which they are read.
    * Nothing runs while the node's process is paused. When the process goes on, the engine first
      reads the bytes that have arrived, and then does what is due, as a pump does when it wakes up.
    * Between two attempts to connect it waits as `_connection.backoff` says.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from .._connection.backoff import Backoff
from .._connection.endpoint import Endpoint
from .._connection.errors import refusal
from .._connection.health import ConnectionRecord, Reading
from .._core.core import Core
from .._core.driver import Driver
from .._core.reporter import DRAINING_REASON
from .._engine.engine import Outlets, clock_jump_error, deliver, refusal_error
from .._engine.lane_connection import Arrival
from .._protocol.keys import KeyLayout
from ..election import DemotionReason
from ..errors import ConfigError, MultielectError, ProtocolError
from ._link import Link
from ._resp import encode

if TYPE_CHECKING:
    from ._node import SimulatedNode

_WHAT = {0: "elected for", DRAINING_REASON: "draining"} | {
    reason.value: f"{reason.name.lower()}," for reason in DemotionReason
}
_MS = 1_000_000
_NS = 1_000_000_000
_GRACE_S = 1.0
_MIN_TURN_NS = 20_000


class SimulatedEngine:
    """Runs a core over a simulated connection until it is stopped."""

    def __init__(
        self,
        node: SimulatedNode,
        core: Core,
        *,
        layout: KeyLayout,
        endpoint: Endpoint,
        ttl_ns: int,
        response_timeout_ns: int,
        outlets: Outlets,
        name: str,
    ) -> None:
        """Prepare; `start` begins."""
        self.reconnects = 0
        self.endpoint = endpoint
        self.core = core
        self.driver = Driver(core)
        self.links: list[Link] = []
        self.name = name
        self.balance: Callable[[], int | None] = lambda: None
        self._node = node
        self._layout = layout
        # No wake-up is needed: the world checks each wait after every event.
        self._record = ConnectionRecord(node.time_of_day, lambda: None)
        self._response_timeout_ns = response_timeout_ns
        self._outlets = outlets
        self._stop_by_ns: int | None = None
        self._is_running = False
        self._is_connected = False
        self._turn_number = 0
        self._turn_due_ns: int | None = None
        self._attempt_number = 0
        self._backoff = Backoff(ttl_ns, node.chance.random)
        self._connected_ns = 0
        self._attempts = 0
        self._away_since_ns = 0
        self._was_connected = False
        self._arrived: list[tuple[bytes, bool]] = []
        self._broken: MultielectError | None = None
        _live.add(self)

    # ---- for the node

    @property
    def is_running(self) -> bool:
        """Whether the engine was started and has not ended."""
        return self._is_running

    @property
    def reading(self) -> Reading:
        """The state of the connection."""
        return self._record.reading

    def start(self) -> None:
        """Stand for all elections of the core as soon as there is a connection."""
        self._is_running = True
        self._away_since_ns = self._node.world.now_ns
        self.core.elections.start()
        self._turn_at(self._node.world.now_ns)
        self._connect_at(self._node.world.now_ns)

    def wake(self) -> None:
        """Run the core's next turn now, as the core was changed."""
        if self._is_running:
            self._turn_at(self._node.world.now_ns)

    def stop(self, timeout_s: float) -> None:
        """End all terms as they are released. Returns after `timeout_s` at the latest."""
        now_ns = self._node.clock.now_ns()
        self.core.elections.stop()
        self._stop_by_ns = now_ns + int(timeout_s * _NS)
        self.wake()
        self._node.world.run_until(lambda: not self._is_running, timeout_s + _GRACE_S)

    def abandon(self) -> None:
        """Lead nothing and send nothing any more, as the process died or is a forked child."""
        self.core.elections.abandon()
        self._record.ended()
        self._is_running = self._is_connected = False
        for link in self.links:
            link.close()
        self.links.clear()

    def forsake(self) -> None:
        """Do as `abandon` in a forked child, and leave the parent's connections alone."""
        self.links.clear()
        self.abandon()

    # ---- turns

    def resume(self) -> None:
        """Go on after the process was paused: first read, then do what is due."""
        self._read()
        self._turn()

    def flush(self) -> None:
        """Send the bytes that could not be sent while the send buffer was full."""
        self._send()

    def _turn_at(self, world_ns: int) -> None:
        if self._turn_due_ns is not None and self._turn_due_ns <= world_ns:
            return
        self._turn_due_ns = world_ns
        self._turn_number += 1
        number = self._turn_number

        def turn() -> None:
            # Another number means that an earlier turn was asked for since, and replaces this one.
            if number == self._turn_number:
                self._turn()

        self._node.world.at(world_ns, turn)

    def _turn(self) -> None:
        node = self._node
        self._turn_due_ns = None
        self._turn_number += 1
        if not self._is_running or node.is_stopped:
            return
        now_ns = node.clock.now_ns()
        next_ns = self.driver.turn(now_ns)
        self._deliver()
        if self._broken is not None:
            self._lose(self._broken)
        if self._stop_by_ns is not None and (self.driver.is_quiet or now_ns >= self._stop_by_ns):
            self.driver.give_up(now_ns)
            self._finish()
            return
        self._send()
        if self._is_connected:
            next_ns = self._watch(next_ns, now_ns)
        if self._stop_by_ns is not None:
            next_ns = min(next_ns, self._stop_by_ns)
        balance_ns = self.balance()
        if balance_ns is not None:
            next_ns = min(next_ns, balance_ns)
        # A pump sleeps by the millisecond, and a turn takes its time.
        sleep_ns = max(-(-(next_ns - now_ns) // _MS) * _MS, _MIN_TURN_NS)
        self._turn_at(node.clock.world_ns(now_ns + sleep_ns) + node.lag_ns())

    def _watch(self, next_ns: int, now_ns: int) -> int:
        if self.driver.is_refused:
            self._lose(refusal(self.endpoint, self.driver.refusal))
            return now_ns
        since_ns = self.driver.owed_since_ns
        if since_ns is None:
            return next_ns
        if now_ns - since_ns >= self._response_timeout_ns:
            waited_s = (now_ns - since_ns) / _NS
            self._lose(self.endpoint.lost(f"it did not answer for {waited_s:.3f} s"))
            return now_ns
        return min(next_ns, since_ns + self._response_timeout_ns)

    def _send(self) -> None:
        if not self._is_connected or self._node.is_stuffed or not self.driver.outgoing_bytes:
            return
        with memoryview(self.driver.outgoing) as waiting:
            data = bytes(waiting)
        self.driver.sent(len(data))
        self.links[0].send(data)

    def _deliver(self) -> None:
        has_more = True
        while has_more:
            report = self.core.reporter.take()
            for key, _, _, epoch, reason, _ in report.events:
                self._node.world.note(self._node, f"{_WHAT[reason]} {key!r}, epoch {epoch}")
            deliver(report, self._outlets)
            for jump in report.clock_jumps:
                self._report(clock_jump_error(jump, self.endpoint.address))
            for refused in report.errors:
                self._report(refusal_error(refused, self._layout, self.endpoint.address))
            has_more = bool(report.counts)

    def _report(self, error: MultielectError) -> None:
        self._record.troubled(error)
        self._outlets.error(error)

    def _finish(self) -> None:
        self.abandon()
        self._deliver()
        _live.discard(self)

    # ---- receiving

    def _receive(self, data: bytes, *, listens: bool) -> None:
        self._arrived.append((data, listens))
        if not self._node.is_stopped:
            self._read()
            self._turn()

    def _read(self) -> None:
        arrived, self._arrived = self._arrived, []
        for data, listens in arrived:
            if not self._is_connected:
                return
            now_ns = self._node.clock.now_ns()
            try:
                if listens:
                    self.driver.hear(data, now_ns)
                else:
                    self.driver.receive(data, now_ns)
            except ProtocolError as error:
                self._lose(error)

    # ---- connecting

    def _connect_at(self, world_ns: int) -> None:
        self._attempt_number += 1
        number = self._attempt_number
        self._node.world.at(world_ns, lambda: self._connect(number))

    def _connect(self, number: int) -> None:
        node = self._node
        if number != self._attempt_number or not self._is_running:
            return
        if node.is_stopped:
            # A real connector's thread would be paused too.
            node.when_resumed(lambda: self._connect(number))
            return
        self._attempts += 1
        try:
            self._try_to_connect()
        except MultielectError as error:
            node.world.note(node, f"cannot connect: {error}")
            self._record.failed(error)
            self._outlets.error(error)
            self._connect_after(self._backoff.after_failure(error))

    def _connect_after(self, wait_s: float) -> None:
        clock = self._node.clock
        self._connect_at(clock.world_ns(clock.now_ns() + int(wait_s * _NS)))

    def _try_to_connect(self) -> None:
        node, world = self._node, self._node.world
        weather = node.weather
        if not node.server.is_reachable or weather.holds_requests or weather.holds_replies:
            raise self.endpoint.unreachable("no server listens there")
        server = node.server.model
        if server.is_replica:
            raise self.endpoint.unusable(
                "replica",
                "it is a replica: elections can only be held on a primary",
                "Give the address of the primary",
            )
        self._check_buckets()
        self._connected_ns = node.clock.now_ns()
        self.links = [self._link("link", pushes=True, listens=False)]
        if not node.hears_pushes:
            self.links.append(self._link("listener", pushes=False, listens=True))
        self.driver.connect(node.server.scripts)
        self._is_connected = True
        self._broken = None
        self._arrived.clear()
        self._record.made("")
        world.note(node, "connected")
        away_s = (world.now_ns - self._away_since_ns) / _NS
        self._outlets.connected(
            Arrival(self.endpoint.address, self._attempts, away_s, not self._was_connected)
        )
        self._attempts, self._was_connected = 0, True
        self.links[-1].send(encode([b"SUBSCRIBE", self._layout.channel]))
        self._turn_at(world.now_ns)

    def _link(self, what: str, *, pushes: bool, listens: bool) -> Link:
        return self._node.link(
            what,
            receive=lambda data: self._receive(data, listens=listens),
            closed=self._link_closed,
            pushes=pushes,
        )

    def _link_closed(self) -> None:
        if self._is_connected and self._broken is None:
            self._broken = self.endpoint.lost("the server closed it")
            self._turn_at(self._node.world.now_ns)

    def _check_buckets(self) -> None:
        key, wanted = self._layout.buckets_key, len(self._layout.key_prefixes)
        if not key:
            return
        server = self._node.server.model
        found = server.get(key)
        if found is None:
            server.put(key, b"%d" % wanted)
        elif found != b"%d" % wanted:
            raise ConfigError(
                f"{self.endpoint.who}: at {self.endpoint.address} this namespace is divided into"
                f" {found.decode(errors='replace')} buckets, not {wanted}: use the same number"
                " on all nodes, or another prefix"
            )

    def _lose(self, error: MultielectError) -> None:
        self._is_connected = False
        self._away_since_ns = self._node.world.now_ns
        self._broken = None
        for link in self.links:
            link.close()
        self.links.clear()
        self._arrived.clear()
        self.driver.disconnect(self._node.clock.now_ns())
        self.reconnects += 1
        self._record.lost(error)
        self._node.world.note(self._node, f"connection lost: {error}")
        self._outlets.error(error)
        self._deliver()
        lasted_s = (self._node.clock.now_ns() - self._connected_ns) / _NS
        self._connect_after(self._backoff.after_loss(error, lasted_s))
        self._turn_at(self._node.world.now_ns)


_live: weakref.WeakSet[SimulatedEngine] = weakref.WeakSet()


def _forsake_all() -> None:
    for engine in list(_live):
        engine.forsake()
    _live.clear()


os.register_at_fork(after_in_child=_forsake_all)
