"""The connection of one lane: made, lost, and made again.

Rules of this file:
    * A connector thread connects. The pump then has the sockets, until it reports their loss.
    * Each lane connects by itself. The other lanes do not notice.
    * A lane that is closed makes no more connections. One that arrives late is closed at once.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from .._connection.backoff import Backoff
from .._connection.connector import Connector
from .._connection.endpoint import Endpoint
from .._connection.errors import refusal
from .._connection.server import Connection
from .._core.core import Core
from .._core.driver import Driver
from .._runtime.foreign import ordinary
from ..errors import MultielectError
from .pump import Pump

_NS = 1_000_000_000


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
class LaneOutlets:
    """The functions that take what becomes of a lane's connection. They must not wait.

    Attributes:
        made: takes a new connection, on the connector's thread.
        lost: takes the error that ended one, before another is asked for.
        failed: takes the error of an attempt to connect, on the connector's thread.
        warned: takes a fault that does not keep the node from leading, on the connector's thread.
        fault: takes a fault of multielect that ended the connector's thread.
    """

    made: Callable[[LaneConnection, Connection, Arrival], None]
    lost: Callable[[LaneConnection, MultielectError], None]
    failed: Callable[[LaneConnection, MultielectError], None]
    warned: Callable[[MultielectError], None]
    fault: Callable[[str, BaseException], None]


class LaneConnection:
    """Keeps one lane connected to its server.

    Attributes:
        index: the number of the lane.
        endpoint: the node and the server's address.
        connection: the connection; None while there is none.
        has_reported_right: whether a missing right was reported for this connection.
    """

    def __init__(
        self,
        index: int,
        endpoint: Endpoint,
        connect: Callable[[], Connection | None],
        *,
        core: Core,
        pump: Pump,
        backoff: Backoff,
        outlets: LaneOutlets,
        name: str,
    ) -> None:
        """Prepare; `start` begins.

        Args:
            index: the number of the lane.
            endpoint: the node and the server's address.
            connect: makes a connection; it returns None if there is to be none.
            core: the core of the lane.
            pump: takes the sockets.
            backoff: says how long to wait between attempts.
            outlets: take what becomes of the connection.
            name: the name of the connector's thread.
        """
        self.index = index
        self.endpoint = endpoint
        self.connection: Connection | None = None
        self.has_reported_right = False
        self._connect = connect
        self._pump = pump
        self._driver = Driver(core, index)
        self._outlets = outlets
        self._lock = threading.Lock()
        self._is_open = True
        self._attempts = 0
        self._away_since_s = time.monotonic()
        self._was_connected = False
        self._connector = _GuardedConnector(
            self._attempt,
            backoff=backoff,
            on_connected=self._connected,
            on_failure=self._failed,
            on_warning=outlets.warned,
            name=name,
        )
        self._connector.on_fault = outlets.fault

    # ---- any thread

    @property
    def is_running(self) -> bool:
        """Whether the connector's thread runs."""
        return self._connector.is_alive()

    def start(self) -> None:
        """Start the connector's thread.

        Raises:
            RuntimeError: if no thread can be started.
        """
        self._connector.start()

    def want(self) -> None:
        """Ask for the first connection."""
        self._away_since_s = time.monotonic()
        self._connector.want()

    def close(self) -> None:
        """Make no more connections. The pump keeps the one that there is."""
        with self._lock:
            self._is_open = False
        self._connector.close()

    def join_unless_connecting(self, timeout_s: float) -> None:
        """Wait for the end of the connector's thread, unless an attempt is under way."""
        self._connector.join_unless_connecting(timeout_s)

    def abandon(self) -> None:
        """Close a forked child's copies of the sockets, without sending a byte."""
        if self.connection is not None:
            self.connection.abandon()

    # ---- the thread that takes losses from the pump, or that ends the engine

    def discard(self) -> None:
        """Close the sockets, as the pump does not use them any more."""
        with self._lock:
            connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()

    def lose(self, outcome: str, error_number: int, waited_ns: int) -> MultielectError:
        """Close the sockets of a lost connection, and ask for another. Returns the error.

        Args:
            outcome: how the pump lost the connection: one of `OUTCOMES`.
            error_number: the number of the system's error, after 'broken'.
            waited_ns: how long the server was silent, after 'silent'.
        """
        error = self._error_of(outcome, error_number, waited_ns)
        self.discard()
        self._away_since_s = time.monotonic()
        self._outlets.lost(self, error)
        self._connector.want(error)
        return error

    def _error_of(self, outcome: str, error_number: int, waited_ns: int) -> MultielectError:
        if outcome == "malformed":
            return self.endpoint.malformed(self._driver.parse_error)
        if outcome == "refused":
            return refusal(self.endpoint, self._driver.refusal)
        if outcome == "broken":
            return self.endpoint.lost(os.strerror(error_number))
        if outcome == "silent":
            return self.endpoint.lost(f"it did not answer for {waited_ns / _NS:.3f} s")
        return self.endpoint.lost("the server closed it")

    # ---- the connector's thread

    def _attempt(self) -> Connection | None:
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
        self._outlets.failed(self, error)

    def _connected(self, connection: Connection) -> None:
        with self._lock:
            accepted = self._is_open
            if accepted:
                self.connection = connection
                self.has_reported_right = False
                arrival = Arrival(
                    self.endpoint.server(connection.version),
                    self._attempts,
                    time.monotonic() - self._away_since_s,
                    is_first=not self._was_connected,
                )
                self._attempts = 0
                self._was_connected = True
                # Before the pump has the sockets, and with them the thread that uses the scripts.
                self._driver.prepare(connection.scripts)
                listener = connection.listener
                # The reports come first, as the pump may lose the connection at once.
                self._outlets.made(self, connection, arrival)
                self._pump.attach(
                    self.index,
                    connection.batches.fileno(),
                    -1 if listener is None else listener.fileno(),
                )
        if not accepted:
            connection.close()


class _GuardedConnector(Connector):
    """A connector that reports a fault that ends it."""

    on_fault: Callable[[str, BaseException], None]

    def run(self) -> None:
        try:
            super().run()
        except BaseException as error:  # noqa: BLE001
            self.on_fault("the thread that connects", error)
