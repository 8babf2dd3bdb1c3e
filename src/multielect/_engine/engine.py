"""Keeps a node's core going: its threads, its connection, what it has to tell.

Rules of this file:
    * The owner thread lives in the pump, which moves bytes without the GIL, and comes out
      of it only when a connection was lost, has arrived, or the node has stopped.
    * The event thread brings events from the core to the outlets. It may be late, for
      want of the GIL; the pump does not wait for it.
    * The connector thread connects. No callback runs on any of the three, and no logger.
    * They begin together or not at all: where a thread or a descriptor is refused, nothing is left.
    * None of them may fail. If one does all the same, the node ends, and its terms with it: what
      nobody looks after is led by others.
    * A forked child abandons the engine: it closes its copies of the sockets without a
      byte to the server, and the parent does not notice.
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

# What a machine too busy to run our threads in time is given beyond a timeout.
_GRACE_S = 1.0

_MS = 1_000_000


@dataclass(frozen=True)
class Arrival:
    """A connection that is there.

    Attributes:
        server: which server it leads to, as far as that is known.
        attempts: how many it took.
        away_s: since when there was none: since the last was lost, or since the start.
        is_first: whether there was none before.
    """

    server: str
    attempts: int
    away_s: float
    is_first: bool


@dataclass(frozen=True)
class Outlets:
    """Where the engine tells what happened. Called on its threads, these must not wait.

    Attributes:
        events: takes terms begun and ended; None where nobody wants them one by one.
        counts: takes how many there were for each reason, after `events`.
        membership: takes an answer to a membership poll.
        error: takes what went wrong.
        connected: takes connections that are there.
        changed: told that `Engine.reading` has changed.
        fault: takes the fault of ours that ended the node.
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
        """Whether all threads are at work: none before `start`, and none of them has ended."""
        threads = [*self._thread_group.threads, self._connector]
        return all(thread is not None and thread.is_alive() for thread in threads)

    @property
    def reading(self) -> Reading:
        """How the connection is."""
        return self._record.reading

    def start(self) -> None:
        """Stand for all elections of the core, from the moment a connection is there.

        Raises:
            OSError: if there are no descriptors left.
            RuntimeError: if there are no threads to be had. Nothing is left of the attempt then.
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
        """Return both ends of the pair that wakes the pump, and of the one that notifies."""
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
        """Have the core's next turn happen now: it was changed."""
        if self._pump is not None:
            self._pump.wake()

    def stop(self, timeout_s: float) -> None:
        """End all terms as they are released, and return at the latest after `timeout_s`."""
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
        """In a forked child: lead nothing, touch nothing that the parent shares."""
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
        """Connect. What the user gave for it may raise anything, and what it raised have no text.

        Raises:
            Exception: what it raised, or `ordinary` in its place.
        """
        self._attempts += 1
        try:
            return self._connect()
        except BaseException as cause:
            told = ordinary(cause)
            if told is cause:
                raise
            raise MultielectError(f"cannot connect to Redis: {told}") from cause

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
        """End the node for a fault of ours: what it leads is given up, and said so. Any thread."""
        fault = MultielectError(
            f"{what} failed, which is a fault of multielect: {in_words(error)}. This node has given"
            " up all that it led and stands for nothing any more: make a new one"
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
        # First of all: whoever is told may take his time.
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
        # The event thread reads the last to its end, delivers what is left, and closes it.
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
                    # The ends of the terms are still to be told.
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
        """Say once a connection what it means that the user may not do what a batch takes."""
        if error.code == "NOPERM" and not self._has_reported_right:
            self._has_reported_right = True
            self._report_error(refused_right(self.endpoint, error))

    def _notify_change(self) -> None:
        if self._has_changed:
            # First: what changes from now on is said again.
            self._has_changed = False
            self._outlets.changed()

    # ---- whichever thread learned of it

    def _changed(self) -> None:
        """Have the event thread say that `reading` has changed: a waiter may hold a lock."""
        self._has_changed = True
        # Before the start, and after the end, there is nobody to say it to; and a full buffer
        # wakes as well as one more byte would.
        with contextlib.suppress(OSError, IndexError):
            self._ends[2].send(b"\0")


class _GuardedConnector(Connector):
    """A connector whose end, if it has a fault, is not silent."""

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
