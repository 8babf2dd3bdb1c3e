"""The engine: runs a node's core with its threads and its connection.

Rules of this file:
    * The owner thread stays in the pump, which moves bytes without the GIL. It leaves the pump only
      when a connection was lost or has arrived, or the node has stopped.
    * The event thread brings events from the core to the outlets. It may be late when others keep
      the GIL; the pump does not wait for it.
    * The connector thread connects. No callback and no logger runs on any of the three.
    * The threads start together or not at all. If a thread or a descriptor is refused, the start is
      undone.
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
from dataclasses import dataclass
from datetime import datetime

from .._connection.backoff import Backoff
from .._connection.connector import Connection, Connector
from .._connection.endpoint import Endpoint
from .._connection.errors import refusal, refused_right
from .._connection.health import ConnectionRecord, Reading
from .._core.core import Core
from .._core.driver import Driver
from .._core.records import ClockJump, ErrorReport, Report, TermEvent
from .._protocol.error_replies import as_error
from .._protocol.keys import KeyLayout
from .._runtime.clock import Clock
from .._runtime.foreign import in_words, ordinary
from .._runtime.interruptible import join
from .._runtime.thread_group import ThreadGroup
from ..errors import ClockJumpError, MultielectError, ServerError
from .pump import Pump

_NS = 1_000_000_000

# How much longer than its timeout a stop waits, as a busy machine may run our threads late.
_GRACE_S = 1.0

_MS = 1_000_000


@dataclass(frozen=True)
class Arrival:
    """A new connection.

    Attributes:
        server: the server's address, and its version if that is known.
        attempts: how many attempts it took.
        away_s: for how long there was none: since the last one was lost, or since the start.
        is_first: whether it is the first.
    """

    server: str
    attempts: int
    away_s: float
    is_first: bool


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
    """Runs a core over a connection until it is stopped."""

    def __init__(
        self,
        core: Core,
        connect: Callable[[], Connection],
        *,
        layout: KeyLayout,
        endpoint: Endpoint,
        clock: Clock,
        time_of_day: Callable[[], datetime],
        backoff: Backoff,
        response_timeout_ns: int,
        outlets: Outlets,
        name: str,
    ) -> None:
        """Prepare; `start` begins."""
        self.reconnects = 0
        self.endpoint = endpoint
        self._core = core
        self._driver = Driver(core)
        self._layout = layout
        self._record = ConnectionRecord(time_of_day, self._changed)
        self._has_changed = False
        self._clock = clock
        self._response_timeout_ns = response_timeout_ns
        self._outlets = outlets
        self._arrival = threading.Lock()
        self._accepts = False
        self._arrived: Connection | None = None
        self._connection: Connection | None = None
        self._has_reported_right = False
        self._pump: Pump | None = None
        self._ends: list[socket.socket] = []
        self._connect = connect
        self._backoff = backoff
        self._name = name
        self._attempts = 0
        self._away_since_s = 0.0
        self._was_connected = False
        self._thread_group = ThreadGroup()
        self._connector: Connector | None = None
        _live.add(self)

    # ---- any thread

    @property
    def is_running(self) -> bool:
        """Whether the engine was started and none of its threads has ended."""
        threads = [*self._thread_group.threads, self._connector]
        return all(thread is not None and thread.is_alive() for thread in threads)

    @property
    def reading(self) -> Reading:
        """The state of the connection."""
        return self._record.reading

    def start(self) -> None:
        """Stand for all elections of the core as soon as there is a connection.

        Raises:
            OSError: if no file descriptor is left.
            RuntimeError: if no thread can be started. The start is then undone.
        """
        thread_group = ThreadGroup()
        thread_group.add(self._carry, f"{self._name}-events")
        thread_group.add(self._run, self._name)
        connector = _GuardedConnector(
            self._attempt,
            backoff=self._backoff,
            on_connected=self._connected,
            on_failure=self._failed,
            on_warning=self._outlets.error,
            name=f"{self._name}-connect",
        )
        connector.on_fault = self._fail
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
            thread_group.start()
            try:
                connector.start()
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
        self._connector = connector
        self._away_since_s = time.monotonic()
        self._accepts = True
        self._core.elections.start()
        thread_group.go()
        connector.want()

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
        assert self._connector is not None
        self._connector.close()
        self._connector.join_unless_connecting(max(0.0, until - time.monotonic()))

    def abandon(self) -> None:
        """Lead nothing in a forked child, and leave alone what it shares with its parent."""
        self._core.elections.abandon()
        for connection in (self._connection, self._arrived):
            if connection is not None:
                connection.abandon()
        if self._pump is not None:
            self._pump.close()
        for end in self._ends:
            end.close()

    # ---- the connector's thread

    def _attempt(self) -> Connection:
        """Connect. The user's connection class may raise anything, even without a text.

        Raises:
            Exception: what it raised, or an error in place of what is not an `Exception`.
        """
        self._attempts += 1
        try:
            return self._connect()
        except BaseException as cause:
            error = ordinary(cause)
            if error is cause:
                raise
            raise MultielectError(f"cannot connect to Redis: {error}") from cause

    def _failed(self, error: MultielectError) -> None:
        self._record.failed(error)
        self._outlets.error(error)

    def _connected(self, connection: Connection) -> None:
        with self._arrival:
            accepted = self._accepts
            if accepted:
                self._arrived = connection
                assert self._pump is not None
                self._pump.interrupt()
        if not accepted:
            connection.close()

    # ---- the owner thread

    def _run(self) -> None:
        try:
            while self._pump_once():
                pass
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
        self._driver.give_up(self._clock.now_ns())
        self._outlets.fault(fault)
        if self._pump is not None:
            self._pump.stop_by(self._clock.now_ns())
        if self._connector is not None:
            self._connector.close()

    def _pump_once(self) -> bool:
        assert self._pump is not None
        connection = self._connection
        outcome = (
            self._pump.run(-1, -1)
            if connection is None
            else self._pump.run(
                connection.batches.fileno(),
                -1 if connection.listener is None else connection.listener.fileno(),
            )
        )
        if outcome == "finished":
            return False
        if outcome == "interrupted":
            self._adopt()
        else:
            self._lose(self._error_of(outcome))
        return True

    def _adopt(self) -> None:
        with self._arrival:
            connection, self._arrived = self._arrived, None
        if connection is not None:
            self._driver.prepare(connection.scripts)
            self._has_reported_right = False
            self._connection = connection
            self._record.made(connection.version)
            self._outlets.connected(
                Arrival(
                    self.endpoint.server(connection.version),
                    self._attempts,
                    time.monotonic() - self._away_since_s,
                    is_first=not self._was_connected,
                )
            )
            self._was_connected = True
            self._attempts = 0

    def _lose(self, error: MultielectError) -> None:
        connection, self._connection = self._connection, None
        assert connection is not None
        connection.close()
        self.reconnects += 1
        self._away_since_s = time.monotonic()
        assert self._connector is not None
        # Before the reports, which may be slow.
        self._connector.want(error)
        self._record.lost(error)
        self._outlets.error(error)

    def _error_of(self, outcome: str) -> MultielectError:
        assert self._pump is not None
        if outcome == "malformed":
            return self.endpoint.malformed(self._driver.parse_error)
        if outcome == "refused":
            return refusal(self.endpoint, self._driver.refusal)
        if outcome == "broken":
            return self.endpoint.lost(os.strerror(self._pump.error_number))
        if outcome == "silent":
            return self.endpoint.lost(f"it did not answer for {self._pump.waited_ns / _NS:.3f} s")
        return self.endpoint.lost("the server closed it")

    def _finish(self) -> None:
        _live.discard(self)
        self._core.elections.abandon()
        assert self._connector is not None
        self._connector.close()
        with self._arrival:
            self._accepts = False
            leftover = [self._connection, self._arrived]
            self._connection = self._arrived = None
        for connection in leftover:
            if connection is not None:
                connection.close()
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
                try:
                    self._notify_change()
                    self._deliver()
                except BaseException as error:  # noqa: BLE001
                    # Go on: the demotions must still be delivered.
                    self._fail("the event thread", error)

    def _deliver(self) -> None:
        has_more = True
        while has_more:
            report = self._core.reporter.take(with_events=self._outlets.events is not None)
            deliver(report, self._outlets)
            for jump in report.clock_jumps:
                self._report_error(clock_jump_error(jump, self.endpoint.address))
            for refused in report.errors:
                self._report_refusal(refused)
            has_more = bool(report.counts)

    def _report_refusal(self, refused: ErrorReport) -> None:
        error = refusal_error(refused, self._layout, self.endpoint.address)
        self._report_error(error)
        if isinstance(error, ServerError) and refused.request == error.request:
            self._report_refused_right(error)

    def _report_error(self, error: MultielectError) -> None:
        self._record.troubled(error)
        self._outlets.error(error)

    def _report_refused_right(self, error: ServerError) -> None:
        """Report once for each connection that the user lacks a right for a script."""
        if error.code == "NOPERM" and not self._has_reported_right:
            self._has_reported_right = True
            self._report_error(refused_right(self.endpoint, error))

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


class _GuardedConnector(Connector):
    """A connector that reports a fault that ends it."""

    on_fault: Callable[[str, BaseException], None]

    def run(self) -> None:
        try:
            super().run()
        except BaseException as error:  # noqa: BLE001
            self.on_fault("the thread that connects", error)


_live: weakref.WeakSet[Engine] = weakref.WeakSet()


def _abandon_all() -> None:
    for engine in list(_live):
        engine.abandon()
    _live.clear()


os.register_at_fork(after_in_child=_abandon_all)
