"""How a node is: connected to whom and since when, and what went wrong last.

Rules of this file:
    * A record is written by the engine's threads; whoever reads it waits for none of them.
    * What was read stays as it is: it is a picture of one moment.
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
    """How a group or an elector is at one moment.

    Attributes:
        state: ``"new"`` before the start; ``"connecting"`` while there is no connection;
            ``"connected"``; ``"draining"``: connected, and standing for nothing any more;
            ``"stopped"``; ``"failed"``: a thread of its own has ended, which is a fault of
            multielect; ``"forked"``: it belongs to the parent of this process.
        server: where the server is: host and port, or the path of its socket.
        version: what the server calls itself, such as ``Redis 7.0.15``; empty before the first
            connection, or where it does not say.
        connected_since: since when there is a connection; None while there is none.
        last_error: the last error of the connection or the server, also if all is well since.
        last_error_at: when that was.
        is_permanent: whether that error is of those that somebody must mend: see
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
    """What an engine knows of its connection; the attributes are those of `Health`."""

    version: str = ""
    connected_since: datetime | None = None
    last_error: MultielectError | None = None
    last_error_at: datetime | None = None
    failed_attempts: int = 0


class ConnectionRecord:
    """Keeps what becomes of an engine's connection.

    Attributes:
        reading: how it is now.
    """

    def __init__(self, now: Callable[[], datetime], changed: Callable[[], None]) -> None:
        """Begin without a connection.

        Args:
            now: the time of day.
            changed: called after each change, by whoever made it; it must not wait.
        """
        self.reading = Reading()
        self._now = now
        self._changed = changed
        self._writing = threading.Lock()

    def made(self, version: str) -> None:
        """There is a connection."""
        self._write(version=version, connected_since=self._now(), failed_attempts=0)

    def failed(self, error: MultielectError) -> None:
        """An attempt to connect failed."""
        self._write(
            last_error=error,
            last_error_at=self._now(),
            failed_attempts=self.reading.failed_attempts + 1,
        )

    def lost(self, error: MultielectError) -> None:
        """The connection is gone."""
        self._write(last_error=error, last_error_at=self._now(), connected_since=None)

    def troubled(self, error: MultielectError) -> None:
        """Something went wrong on the connection, which goes on."""
        self._write(last_error=error, last_error_at=self._now())

    def ended(self) -> None:
        """There will be no connection any more."""
        self._write(connected_since=None)

    def _write(self, **changes: object) -> None:
        with self._writing:
            self.reading = replace(self.reading, **changes)  # type: ignore[arg-type]
        self._changed()
