"""The owner thread: bytes between the core and its connection, events out of it.

Rules of this file:
    * One thread owns the sockets. Others change the core only under the mutex, which is
      held for one tick or one read at a time and never while anything waits.
    * The time of a tick is read before its bytes are sent: it is what deadlines count from.
    * A batch without an answer for a third of the TTL means that the connection is dead,
      so that there is time for another try before a deadline.
    * No callback runs here.
    * A forked child abandons the engine: it closes its copies of the sockets without a
      byte to the server, and the parent does not notice.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass

from ._clock import Clock
from ._connect import Connection, Connector
from ._core.core import Core
from .errors import ConnectionLostError, MultielectError, ProtocolError, ServerError

_READ_BYTES = 1 << 16
_MS_IN_NS = 1_000_000
_NS = 1_000_000_000
_LONGEST_SLEEP_MS = 60_000

CoreEvent = tuple[bytes, int, int, int, int, int]
"""Key, number, generation, epoch, reason (0: elected), at_ns: see `Core.take_events`."""


@dataclass(frozen=True)
class Outlets:
    """Where the engine tells what happened. Both are called on its threads and must not wait."""

    events: Callable[[list[CoreEvent]], None]
    error: Callable[[MultielectError], None]


class Engine:
    """Runs a core over a connection until it is stopped."""

    def __init__(
        self,
        core: Core,
        connect: Callable[[], Connection],
        *,
        clock: Clock,
        response_timeout_ns: int,
        outlets: Outlets,
        name: str,
    ) -> None:
        """Prepare; `start` begins."""
        self.core = core
        self.mutex = threading.Lock()
        self.reconnects = 0
        self._clock = clock
        self._response_timeout_ns = response_timeout_ns
        self._outlets = outlets
        self._connection: Connection | None = None
        self._arrived: Connection | None = None
        self._accepts = False
        self._alarm: socket.socket | None = None
        self._alarm_end: socket.socket | None = None
        self._stop_by_ns: int | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._connector = Connector(
            connect,
            on_connected=self._connected,
            on_failure=outlets.error,
            name=f"{name}-connect",
        )
        _live.add(self)

    # ---- any thread

    def start(self) -> None:
        """Stand for all elections of the core, from the moment a connection is there."""
        self._alarm, self._alarm_end = socket.socketpair()
        self._alarm.settimeout(0.0)
        self._alarm_end.settimeout(0.0)
        with self.mutex:
            self._accepts = True
            self.core.start()
        self._thread.start()
        self._connector.start()
        self._connector.want()

    def wake(self) -> None:
        """Have the next tick happen now: the core was changed."""
        # A full buffer wakes as well as one more byte would, and a closed one is past waking.
        if self._alarm_end is not None:
            with contextlib.suppress(OSError):
                self._alarm_end.send(b"\0")

    def stop(self, timeout_ns: int) -> None:
        """End all terms now, release them, and return at the latest after `timeout_ns`."""
        now_ns = self._clock.now_ns()
        with self.mutex:
            if self._stop_by_ns is None:
                self.core.stop(now_ns)
                self._stop_by_ns = now_ns + timeout_ns
        self.wake()
        if self._thread is not threading.current_thread():
            # The thread ends by itself at that time; the second more is for a machine
            # that is too busy to let it.
            self._thread.join(timeout_ns / _NS + 1.0)
        self._connector.close()

    def abandon(self) -> None:
        """In a forked child: lead nothing, touch nothing that the parent shares."""
        self.core.abandon()
        for connection in (self._connection, self._arrived):
            if connection is not None:
                connection.abandon()
        self._close_alarm()

    # ---- the connector's thread

    def _connected(self, connection: Connection) -> None:
        with self.mutex:
            accepted = self._accepts
            if accepted:
                self._arrived = connection
        if accepted:
            self.wake()
        else:
            connection.close()

    # ---- the owner thread

    def _run(self) -> None:
        try:
            while not self._is_finished():
                self._adopt()
                self._turn()
        finally:
            self._finish()

    def _turn(self) -> None:
        """Tick, send, tell, wait, and read what has come."""
        now_ns = self._clock.now_ns()
        with self.mutex:
            self.core.tick(now_ns)
            next_ns = self.core.next_tick_ns(now_ns)
        self._send()
        self._tell()
        ready = self._wait(next_ns)
        connection = self._connection
        self._quiet_alarm()
        if connection is None:
            return
        if connection.batches.fileno() in ready:
            self._read(connection.batches)
        listener = connection.listener
        if listener is not None and self._connection is connection and listener.fileno() in ready:
            self._read(listener)
        self._check_connection()

    def _wait(self, next_ns: int) -> set[int]:
        poll = select.poll()
        assert self._alarm is not None
        poll.register(self._alarm, select.POLLIN)
        oldest_ns = self.core.oldest_sent_ns
        if oldest_ns is not None:
            next_ns = min(next_ns, oldest_ns + self._response_timeout_ns)
        if self._stop_by_ns is not None:
            next_ns = min(next_ns, self._stop_by_ns)
        connection = self._connection
        if connection is not None:
            wanted = select.POLLIN | (select.POLLOUT if self.core.outgoing_bytes else 0)
            poll.register(connection.batches, wanted)
            if connection.listener is not None:
                poll.register(connection.listener, select.POLLIN)
        wait_ms = -(-(next_ns - self._clock.now_ns()) // _MS_IN_NS)
        return {number for number, _ in poll.poll(max(0, min(wait_ms, _LONGEST_SLEEP_MS)))}

    def _send(self) -> None:
        connection = self._connection
        while connection is not None and self.core.outgoing_bytes:
            try:
                with memoryview(self.core.outgoing) as waiting:
                    count = connection.batches.send(waiting)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                # SSL tells by exceptions of its own that it must wait.
                if _must_wait(error):
                    return
                self._lose(ConnectionLostError(f"the connection to Redis broke: {error}"))
                return
            self.core.sent(count)

    def _read(self, source: socket.socket) -> None:
        while True:
            try:
                data = source.recv(_READ_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if not _must_wait(error):
                    self._lose(ConnectionLostError(f"the connection to Redis broke: {error}"))
                return
            if not data:
                self._lose(ConnectionLostError("Redis closed the connection"))
                return
            try:
                with self.mutex:
                    if self._connection is not None and source is self._connection.listener:
                        self.core.receive_announcements(data)
                    else:
                        self.core.receive(data, self._clock.now_ns())
            except ProtocolError as error:
                self._lose(error)
                return
            # TLS may hold decrypted bytes that poll() does not know of.
            if len(data) < _READ_BYTES and not getattr(source, "pending", int)():
                return

    def _check_connection(self) -> None:
        if self._connection is None:
            return
        if self.core.is_refused:
            self._lose(ConnectionLostError("this server does not serve elections any more"))
            return
        oldest_ns = self.core.oldest_sent_ns
        if oldest_ns is not None:
            waited_ns = self._clock.now_ns() - oldest_ns
            if waited_ns >= self._response_timeout_ns:
                self._lose(
                    ConnectionLostError(f"Redis did not answer for {waited_ns / _NS:.3f} seconds")
                )

    def _adopt(self) -> None:
        with self.mutex:
            connection = self._arrived
            if connection is None:
                return
            self._arrived = None
            self._connection = connection
            self.core.connection_made(connection.scripts)

    def _lose(self, error: MultielectError) -> None:
        connection = self._connection
        if connection is None:
            return
        self._connection = None
        with self.mutex:
            self.core.connection_lost(self._clock.now_ns())
        connection.close()
        self.reconnects += 1
        self._outlets.error(error)
        self._connector.want()

    def _tell(self) -> None:
        with self.mutex:
            events = self.core.take_events()
            notes = self.core.take_notes()
        if events:
            self._outlets.events(events)
        for request, elections, text in notes:
            self._outlets.error(ServerError(text, request=request, elections=elections))

    def _quiet_alarm(self) -> None:
        assert self._alarm is not None
        with contextlib.suppress(BlockingIOError, InterruptedError):
            while self._alarm.recv(4096):
                pass

    def _is_finished(self) -> bool:
        if self._stop_by_ns is None:
            return False
        if self._clock.now_ns() >= self._stop_by_ns:
            return True
        with self.mutex:
            return self.core.is_quiet

    def _finish(self) -> None:
        _live.discard(self)
        self._tell()
        self._connector.close()
        with self.mutex:
            self._accepts = False
            self.core.abandon()
            leftover = [self._connection, self._arrived]
            self._connection = self._arrived = None
        for connection in leftover:
            if connection is not None:
                connection.close()
        self._close_alarm()

    def _close_alarm(self) -> None:
        for end in (self._alarm, self._alarm_end):
            if end is not None:
                end.close()


def _must_wait(error: OSError) -> bool:
    # By name, so that a Python built without ssl works.
    return type(error).__name__ in ("SSLWantReadError", "SSLWantWriteError")


_live: weakref.WeakSet[Engine] = weakref.WeakSet()


def _abandon_all() -> None:
    for engine in list(_live):
        engine.abandon()
    _live.clear()


os.register_at_fork(after_in_child=_abandon_all)
