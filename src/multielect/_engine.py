"""Keeps a node's core going: its threads, its connection, what it has to tell.

Rules of this file:
    * The owner thread lives in the pump, which moves bytes without the GIL, and comes out
      of it only when a connection was lost, has arrived, or the node has stopped.
    * The courier thread brings events from the core to the outlets. It may be late, for
      want of the GIL; the pump does not wait for it.
    * The connector thread connects. No callback runs on any of the three.
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
from collections.abc import Callable
from dataclasses import dataclass

from ._backoff import Backoff
from ._clock import Clock
from ._connect import Connection, Connector
from ._core.fleet import FleetCore
from ._pump import Pump
from .errors import ClockJumpError, ConnectionLostError, MultielectError, ProtocolError, ServerError

_NS = 1_000_000_000

# What a machine too busy to run our threads in time is given beyond a timeout.
_GRACE_S = 1.0

CoreEvent = tuple[bytes, int, int, int, int, int]
"""Key, number, generation, epoch, reason, at_ns: see `Core.take_events`."""


@dataclass(frozen=True)
class Outlets:
    """Where the engine tells what happened. Called on its threads, these must not wait."""

    events: Callable[[list[CoreEvent]], None]
    roll: Callable[[bytes], None]
    error: Callable[[MultielectError], None]


class Engine:
    """Runs a core over a connection until it is stopped."""

    def __init__(
        self,
        core: FleetCore,
        connect: Callable[[], Connection],
        *,
        clock: Clock,
        backoff: Backoff,
        response_timeout_ns: int,
        outlets: Outlets,
        name: str,
    ) -> None:
        """Prepare; `start` begins."""
        self.reconnects = 0
        self._core = core
        self._clock = clock
        self._response_timeout_ns = response_timeout_ns
        self._outlets = outlets
        self._arrival = threading.Lock()
        self._accepts = False
        self._arrived: Connection | None = None
        self._connection: Connection | None = None
        self._pump: Pump | None = None
        self._ends: list[socket.socket] = []
        self._owner = threading.Thread(target=self._run, name=name, daemon=True)
        self._courier = threading.Thread(target=self._carry, name=f"{name}-courier", daemon=True)
        self._connector = Connector(
            connect,
            backoff=backoff,
            on_connected=self._connected,
            on_failure=outlets.error,
            name=f"{name}-connect",
        )
        _live.add(self)

    # ---- any thread

    def start(self) -> None:
        """Stand for all elections of the core, from the moment a connection is there."""
        alarm, alarm_end = socket.socketpair()
        news, news_end = socket.socketpair()
        self._ends = [alarm, alarm_end, news_end, news]
        for end in self._ends[:3]:
            end.settimeout(0.0)
        self._pump = Pump(
            self._core,
            self._clock,
            alarm=alarm.fileno(),
            alarm_end=alarm_end.fileno(),
            news=news_end.fileno(),
            response_timeout_ns=self._response_timeout_ns,
        )
        self._accepts = True
        self._core.start()
        self._courier.start()
        self._owner.start()
        self._connector.start()
        self._connector.want()

    def wake(self) -> None:
        """Have the core's next turn happen now: it was changed."""
        if self._pump is not None:
            self._pump.wake()

    def stop(self, timeout_s: float) -> None:
        """End all terms as they are released, and return at the latest after `timeout_s`."""
        now_ns = self._clock.now_ns()
        until = time.monotonic() + timeout_s + _GRACE_S
        self._core.stop()
        assert self._pump is not None
        self._pump.stop_by(now_ns + int(timeout_s * _NS))
        for thread in (self._owner, self._courier):
            if thread is not threading.current_thread():
                thread.join(max(0.0, until - time.monotonic()))
        self._connector.close()
        self._connector.join_unless_connecting(max(0.0, until - time.monotonic()))

    def abandon(self) -> None:
        """In a forked child: lead nothing, touch nothing that the parent shares."""
        self._core.abandon()
        for connection in (self._connection, self._arrived):
            if connection is not None:
                connection.abandon()
        if self._pump is not None:
            self._pump.close()
        for end in self._ends:
            end.close()

    # ---- the connector's thread

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
        except BaseException as error:
            # A fault of ours. What this node leads is given up, and said so.
            fault = MultielectError(f"the owner thread failed: {error!r}")
            fault.__cause__ = error
            self._outlets.error(fault)
            raise
        finally:
            self._finish()

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
            self._core.prepare(connection.scripts)
            self._connection = connection

    def _lose(self, error: MultielectError) -> None:
        connection, self._connection = self._connection, None
        assert connection is not None
        connection.close()
        self.reconnects += 1
        self._outlets.error(error)
        self._connector.want(error)

    def _error_of(self, outcome: str) -> MultielectError:
        assert self._pump is not None
        if outcome == "nonsense":
            return ProtocolError(self._core.complaint)
        if outcome == "broken":
            reason = os.strerror(self._pump.error_number)
            return ConnectionLostError(f"the connection to Redis broke: {reason}")
        if outcome == "silent":
            waited_s = self._pump.waited_ns / _NS
            return ConnectionLostError(f"Redis did not answer for {waited_s:.3f} seconds")
        if outcome == "refused":
            return ConnectionLostError("this server does not serve elections any more")
        return ConnectionLostError("Redis closed the connection")

    def _finish(self) -> None:
        _live.discard(self)
        self._core.abandon()
        self._connector.close()
        with self._arrival:
            self._accepts = False
            leftover = [self._connection, self._arrived]
            self._connection = self._arrived = None
        for connection in leftover:
            if connection is not None:
                connection.close()
        assert self._pump is not None
        self._pump.close()
        # The courier reads the news to its end, tells what is left, and closes the last.
        for end in self._ends[:3]:
            end.close()

    # ---- the courier's thread

    def _carry(self) -> None:
        assert self._pump is not None
        news = self._ends[3]
        with contextlib.closing(news):
            going_on = True
            while going_on:
                going_on = bool(news.recv(4096))
                self._pump.heard()
                self._tell()

    def _tell(self) -> None:
        while events := self._core.take_events():
            self._outlets.events(events)
        answer = self._core.take_roll()
        if answer is not None:
            self._outlets.roll(answer)
        for request, elections, text in self._core.take_notes():
            if request == "clock":
                self._outlets.error(ClockJumpError(int(text), terms=elections))
            else:
                self._outlets.error(ServerError(text, request=request, elections=elections))


_live: weakref.WeakSet[Engine] = weakref.WeakSet()


def _abandon_all() -> None:
    for engine in list(_live):
        engine.abandon()
    _live.clear()


os.register_at_fork(after_in_child=_abandon_all)
