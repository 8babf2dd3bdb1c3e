"""The health of a node: its connection, since when there is one, and the last error.

Rules of this file:
    * The engine's threads write the record. A thread that reads it waits for none of them.
    * A `Health` and a `Reading` show one moment, and never change.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, TypeAlias

from ..errors import MultielectError

HealthState: TypeAlias = Literal[
    "new", "connecting", "connected", "draining", "stopped", "failed", "forked"
]


@dataclass(frozen=True)
class Health:
    """The health of a group or an elector at one moment.

    Attributes:
        state: ``"new"`` before the start; ``"connecting"`` while there is no connection;
            ``"connected"``; ``"draining"``: connected, and campaigning for nothing any more;
            ``"stopped"``; ``"failed"``: a fault of multielect has ended one of its threads;
            ``"forked"``: it belongs to the parent of this process.
        server: the server's address: host and port, or the path of its socket.
        version: the server's name and version, such as ``Redis 7.0.15``; empty before the first
            connection, or if the server does not say.
        connected_since: since when there is a connection; None while there is none.
        last_error: the last error of the connection or the server, even if it is over.
        last_error_at: when the last error happened.
        is_permanent: whether somebody must mend the cause of the last error: see
            `ServerUnusableError`.
        failed_attempts: how many attempts to connect have failed since there was a connection.
        reconnects: how many connections were lost.
        elections: how many elections it stands for.
        leading: how many of them it leads.
    """

    state: HealthState
    server: str
    version: str
    connected_since: datetime | None
    last_error: MultielectError | None
    last_error_at: datetime | None
    is_permanent: bool
    failed_attempts: int
    reconnects: int
    elections: int
    leading: int


@dataclass(frozen=True)
class Reading:
    """The state of an engine's connection. The attributes are those of `Health`."""

    version: str = ""
    connected_since: datetime | None = None
    last_error: MultielectError | None = None
    last_error_at: datetime | None = None
    failed_attempts: int = 0


class ConnectionRecord:
    """Records the state of an engine's connections: one for each lane that it needs.

    The node is connected while all of them are.

    Attributes:
        reading: the state now.
    """

    def __init__(self, now: Callable[[], datetime], changed: Callable[[], None]) -> None:
        """Begin without a connection, and with one lane, number 0.

        Args:
            now: the time of day.
            changed: called after each change, on the thread that made it; it must not wait.
        """
        self.reading = Reading()
        self._needed = {0}
        self._connected: set[int] = set()
        self._now = now
        self._changed = changed
        self._writing = threading.Lock()

    def need(self, lanes: set[int]) -> None:
        """Record which lanes need a connection from now on."""
        with self._writing:
            self._needed = lanes
        self._write()

    def made(self, version: str, lane: int = 0) -> None:
        """Record a new connection of a lane."""
        with self._writing:
            self._connected.add(lane)
        self._write(version=version, failed_attempts=0)

    def failed(self, error: MultielectError) -> None:
        """Record an attempt to connect that failed."""
        self._write(
            last_error=error,
            last_error_at=self._now(),
            failed_attempts=self.reading.failed_attempts + 1,
        )

    def lost(self, error: MultielectError, lane: int = 0) -> None:
        """Record that a lane has lost its connection."""
        with self._writing:
            self._connected.discard(lane)
        self._write(last_error=error, last_error_at=self._now())

    def dropped(self, lane: int) -> None:
        """Record that a lane has no connection any more, as it needs none."""
        with self._writing:
            self._connected.discard(lane)
        self._write()

    def troubled(self, error: MultielectError) -> None:
        """Record an error on the connection, which goes on."""
        self._write(last_error=error, last_error_at=self._now())

    def ended(self) -> None:
        """Record that there will be no more connections."""
        with self._writing:
            self._connected.clear()
        self._write()

    def _write(self, **changes: object) -> None:
        with self._writing:
            since = self.reading.connected_since
            if not self._needed or not self._needed <= self._connected:
                since = None
            elif since is None:
                since = self._now()
            changed = {**changes, "connected_since": since}
            self.reading = replace(self.reading, **changed)  # type: ignore[arg-type]
        self._changed()
