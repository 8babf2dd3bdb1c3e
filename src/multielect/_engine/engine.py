"""The engine: runs a node's core with its threads and its connections.

Rules of this file:
    * The owner thread stays in the pump, which moves bytes without the GIL, until the node has
      stopped.
    * The event thread brings events from the core to the outlets, and replaces the connections that
      the pump has lost. It may be late when others keep the GIL; the pump does not wait for it.
    * Connectors connect, each on its own thread. No callback and no logger runs on any of them.
    * The first threads start together or not at all. If a thread or a descriptor is refused, the
      start is undone. A cluster needs more threads; those start as its lanes are found.
    * If a thread fails by a fault of ours, the node and its terms end, so that others can lead.
    * A forked child abandons the engine. It closes its copies of the sockets without sending a
      byte, and the parent does not notice.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from .._connection.admission import ClusterNodeError
from .._connection.cluster import Address
from .._connection.errors import refused_right
from .._connection.health import ConnectionRecord, Reading
from .._connection.server import Connection, Server
from .._core.core import Core
from .._core.driver import Driver
from .._core.records import ClockJump, ErrorReport, Report, TermEvent
from .._core.slot_map import slot_of_key
from .._protocol.error_replies import as_error
from .._protocol.keys import KeyLayout
from .._runtime.clock import Clock
from .._runtime.foreign import in_words
from .._runtime.interruptible import join
from .._runtime.thread_group import ThreadGroup
from ..errors import ClockJumpError, MultielectError, ServerError
from .cluster import Cluster
from .lane_connection import Arrival
from .lanes import Lanes
from .pump import Pump

_NS = 1_000_000_000

# How much longer than its timeout a stop waits, as a busy machine may run our threads late.
_GRACE_S = 1.0

_MS = 1_000_000


@dataclass(frozen=True)
class Outlets:
    """The functions that take the engine's reports. They run on its threads, and must not wait.

    Attributes:
        events: takes the events of terms; None if nobody wants single events.
        counts: takes the number of events for each reason, after `events`.
        membership: takes an answer to a membership poll.
        error: takes an error.
        connected: takes a new connection.
        changed: called when `Engine.reading` has changed.
        fault: takes the fault of multielect that ended the node.
    """

    events: Callable[[list[TermEvent]], None] | None
    counts: Callable[[Mapping[int, int]], None]
    membership: Callable[[bytes], None]
    error: Callable[[MultielectError], None]
    connected: Callable[[Arrival], None]
    changed: Callable[[], None]
    fault: Callable[[MultielectError], None]


def deliver(report: Report, outlets: Outlets) -> None:
    """Hand on what came out of a core's turns, but for what went wrong."""
    if report.events and outlets.events is not None:
        outlets.events(report.events)
    if report.counts:
        outlets.counts(report.counts)
    if report.membership is not None:
        outlets.membership(report.membership)


def clock_jump_error(jump: ClockJump, server: str) -> MultielectError:
    """Return the error that a clock's jump is reported as."""
    return ClockJumpError(int(jump.jump_ns / _MS), terms=jump.ended, server=server)


def refusal_error(refused: ErrorReport, layout: KeyLayout, server: str) -> MultielectError:
    """Return the error that a refusal is reported as."""
    return as_error(
        refused.request,
        refused.elections,
        refused.text,
        refused.key,
        layout=layout,
        server=server,
    )


class Engine:
    """Runs a core over its connections until it is stopped."""

    def __init__(
        self,
        core: Core,
        server: Server,
        *,
        nodes: tuple[Address, ...] = (),
        layout: KeyLayout,
        clock: Clock,
        time_of_day: Callable[[], datetime],
        ttl_ns: int,
        response_timeout_ns: int,
        is_balanced: bool,
        outlets: Outlets,
        name: str,
    ) -> None:
        """Prepare; `start` begins.

        Args:
            core: the core to run.
            server: the server, or a node of a cluster.
            nodes: the nodes that the user named; nothing if the user named no cluster.
            layout: where the elections are kept.
            clock: the clock of the deadlines.
            time_of_day: returns the wall-clock time.
            ttl_ns: how long a lease lasts.
            response_timeout_ns: how long a server may take to answer.
            is_balanced: whether the node is a member of a fleet.
            outlets: take the reports.
            name: what the names of the threads begin with.
        """
        self.endpoint = server.endpoint
        if nodes:
            self.endpoint = replace(server.endpoint, address=",".join(map(str, nodes)))
        self._core = core
        self._server = server
        self._nodes = nodes
        self._layout = layout
        self._record = ConnectionRecord(time_of_day, self._changed)
        self._has_changed = False
        self._clock = clock
        self._response_timeout_ns = response_timeout_ns
        self._is_balanced = is_balanced
        self._outlets = outlets
        self._pump: Pump | None = None
        self._ends: list[socket.socket] = []
        self._name = name
        self._thread_group = ThreadGroup()
        self._lanes = Lanes(
            core,
            record=self._record,
            report=outlets.error,
            arrived=outlets.connected,
            fault=self._fail,
            changed=self._want_slots,
            ttl_ns=ttl_ns,
            name=name,
        )
        self._cluster: Cluster | None = None
        self._is_closing = False
        _live.add(self)

    # ---- any thread

    @property
    def is_running(self) -> bool:
        """Whether the engine was started and none of its threads has ended."""
        threads = self._thread_group.threads
        is_whole = all(thread.is_alive() for thread in threads) and self._lanes.is_running
        return bool(threads) and is_whole and (self._cluster is None or self._cluster.is_running)

    @property
    def reading(self) -> Reading:
        """The state of the connections."""
        return self._record.reading

    @property
    def reconnects(self) -> int:
        """How many connections were lost."""
        return self._lanes.reconnects

    def start(self) -> None:
        """Stand for all elections of the core as soon as there is a connection.

        Raises:
            OSError: if no file descriptor is left.
            RuntimeError: if no thread can be started. The start is then undone.
        """
        thread_group = ThreadGroup()
        thread_group.add(self._carry, f"{self._name}-events")
        thread_group.add(self._run, self._name)
        ends = self._make_ends()
        try:
            self._pump = Pump(
                self._core,
                self._clock,
                wake_fd=ends[0].fileno(),
                wake_end_fd=ends[1].fileno(),
                notify_fd=ends[2].fileno(),
                response_timeout_ns=self._response_timeout_ns,
            )
            self._lanes.serve_by(self._pump)
            thread_group.start()
            try:
                begin = self._start_connecting()
            except BaseException:
                thread_group.abort()
                raise
        except BaseException:
            self._pump = None
            for end in ends:
                end.close()
            raise
        self._ends = ends
        self._thread_group = thread_group
        self._core.elections.start()
        thread_group.go()
        begin()

    def _start_connecting(self) -> Callable[[], None]:
        """Start the thread that connects. Returns what lets it begin."""
        if self._nodes:
            return self._start_cluster(self._nodes)
        lane = self._lanes.add(self.endpoint, self._connect)
        try:
            lane.start()
        except BaseException:
            self._lanes.remove(lane)
            raise
        return lane.want

    def _start_cluster(self, nodes: tuple[Address, ...]) -> Callable[[], None]:
        slots = {slot_of_key(prefix) for prefix in self._layout.key_prefixes}
        if self._is_balanced:
            slots.add(slot_of_key(self._layout.members_key))
        cluster = Cluster(
            self._server,
            nodes,
            core=self._core,
            lanes=self._lanes,
            record=self._record,
            layout=self._layout,
            slots=slots,
            report=self._outlets.error,
            wake=self.wake,
            fault=self._fail,
            name=f"{self._name}-slots",
        )
        self._core.enter_cluster()
        cluster.start()
        self._cluster = cluster
        # A thread that stops the engine meanwhile either sees the cluster or is seen here.
        if self._is_closing:
            cluster.close()
        return cluster.want

    @staticmethod
    def _make_ends() -> list[socket.socket]:
        """Return both ends of the socket pair that wakes the pump, and of the one that notifies."""
        wake, wake_end = socket.socketpair()
        try:
            notify, notify_end = socket.socketpair()
        except BaseException:
            wake.close()
            wake_end.close()
            raise
        ends = [wake, wake_end, notify_end, notify]
        for end in ends[:3]:
            end.settimeout(0.0)
        return ends

    def wake(self) -> None:
        """Run the core's next turn now, as the core was changed."""
        if self._pump is not None:
            self._pump.wake()

    def stop(self, timeout_s: float) -> None:
        """End all terms as they are released. Returns after `timeout_s` at the latest."""
        now_ns = self._clock.now_ns()
        until = time.monotonic() + timeout_s + _GRACE_S
        self._core.elections.stop()
        assert self._pump is not None
        self._pump.stop_by(now_ns + int(timeout_s * _NS))
        for thread in self._thread_group.threads:
            if thread is not threading.current_thread():
                join(thread, max(0.0, until - time.monotonic()))
        self._close_connecting(until)

    def _close_connecting(self, until_s: float) -> None:
        self._close_cluster()
        self._lanes.close(until_s)

    def _close_cluster(self) -> None:
        self._is_closing = True
        if self._cluster is not None:
            self._cluster.close()

    def abandon(self) -> None:
        """Lead nothing in a forked child, and leave alone what it shares with its parent."""
        self._core.elections.abandon()
        self._lanes.abandon()
        if self._pump is not None:
            self._pump.close()
        for end in self._ends:
            end.close()

    # ---- the connectors' threads

    def _connect(self, index: int) -> Connection | None:
        """Connect to the only server. If it is a node of a cluster, let others connect."""
        try:
            return self._server.connect()
        except ClusterNodeError:
            lane = self._lanes.lane(index)
            begin = self._start_cluster((self._server.address,))
            if lane is not None:
                self._lanes.remove(lane)
            begin()
            return None

    def _want_slots(self) -> None:
        if self._cluster is not None:
            self._cluster.want()

    # ---- the owner thread

    def _run(self) -> None:
        assert self._pump is not None
        try:
            self._pump.run()
        except BaseException as error:  # noqa: BLE001
            self._fail("the owner thread", error)
        finally:
            self._finish()

    def _fail(self, what: str, error: BaseException) -> None:
        """End the node and its terms for a fault of ours, and report the fault. Any thread."""
        fault = MultielectError(
            f"{what} failed, which is a fault of multielect: {in_words(error)}. This node has given"
            " up all its terms and campaigns for nothing any more: make a new one"
        )
        fault.__cause__ = error
        self._core.elections.stop()
        Driver(self._core).give_up(self._clock.now_ns())
        self._outlets.fault(fault)
        if self._pump is not None:
            self._pump.stop_by(self._clock.now_ns())
        self._close_connecting(0.0)

    def _finish(self) -> None:
        _live.discard(self)
        self._core.elections.abandon()
        self._close_cluster()
        self._lanes.finish()
        self._record.ended()
        assert self._pump is not None
        self._pump.close()
        # The event thread reads the last end until it is empty, delivers the rest, and closes it.
        for end in self._ends[:3]:
            end.close()

    # ---- the event thread

    def _carry(self) -> None:
        assert self._pump is not None
        notify = self._ends[3]
        with contextlib.closing(notify):
            going_on = True
            while going_on:
                going_on = bool(notify.recv(4096))
                self._pump.heard()
                for work in (self._lanes.take_losses, self._notify_change, self._deliver):
                    try:
                        work()
                    except BaseException as error:  # noqa: BLE001
                        # Go on: the demotions must still be delivered.
                        self._fail("the event thread", error)

    def _deliver(self) -> None:
        has_more = True
        while has_more:
            report = self._core.reporter.take(with_events=self._outlets.events is not None)
            deliver(report, self._outlets)
            if report.importing and self._cluster is not None:
                self._cluster.want_lane(report.importing)
            if report.wants_slots:
                self._want_slots()
            for jump in report.clock_jumps:
                self._report_error(clock_jump_error(jump, self._address_of(jump.lane)))
            for refused in report.errors:
                self._report_refusal(refused)
            has_more = bool(report.counts)

    def _address_of(self, lane: int) -> str:
        found = self._lanes.lane(lane)
        return (self if found is None else found).endpoint.address

    def _report_refusal(self, refused: ErrorReport) -> None:
        error = refusal_error(refused, self._layout, self._address_of(refused.lane))
        self._report_error(error)
        if isinstance(error, ServerError) and refused.request == error.request:
            self._report_refused_right(error, refused.lane)

    def _report_error(self, error: MultielectError) -> None:
        self._record.troubled(error)
        self._outlets.error(error)

    def _report_refused_right(self, error: ServerError, index: int) -> None:
        """Report once for each connection that the user lacks a right for a script."""
        lane = self._lanes.lane(index)
        if error.code == "NOPERM" and lane is not None and not lane.has_reported_right:
            lane.has_reported_right = True
            self._report_error(refused_right(lane.endpoint, error))

    def _notify_change(self) -> None:
        if self._has_changed:
            # Reset it first, so that a change from now on is reported again.
            self._has_changed = False
            self._outlets.changed()

    # ---- any thread of ours

    def _changed(self) -> None:
        """Let the event thread report the change of `reading`, as this thread may hold a lock."""
        self._has_changed = True
        # Before the start and after the end no thread listens. A full buffer wakes the event
        # thread as well as one more byte would.
        with contextlib.suppress(OSError, IndexError):
            self._ends[2].send(b"\0")


_live: weakref.WeakSet[Engine] = weakref.WeakSet()


def _abandon_all() -> None:
    for engine in list(_live):
        engine.abandon()
    _live.clear()


os.register_at_fork(after_in_child=_abandon_all)
