"""The connector: the thread that connects, and connects again when the connection was lost.

Rules of this file:
    * The pauses between attempts grow: see `_connection.backoff`.
    * An error that nobody foresaw is reported, and does not end further attempts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from .._runtime.foreign import in_words
from ..errors import MultielectError
from .backoff import Backoff
from .server import Connection


class Connector(threading.Thread):
    """Connects on request, again and again until it works."""

    def __init__(
        self,
        connect: Callable[[], Connection | None],
        *,
        backoff: Backoff,
        on_connected: Callable[[Connection], None],
        on_failure: Callable[[MultielectError], None],
        on_warning: Callable[[MultielectError], None],
        name: str,
    ) -> None:
        """Keep the callbacks, which run on this thread. `start` begins.

        `connect` returns None if there is to be no connection after all.
        """
        super().__init__(name=name, daemon=True)
        self._connect = connect
        self._backoff = backoff
        self._on_connected = on_connected
        self._on_failure = on_failure
        self._on_warning = on_warning
        self._wanted = threading.Event()
        self._closing = threading.Event()
        self._connecting = threading.Event()
        self._connected_at = 0.0
        self._lost: MultielectError | None = None

    def want(self, lost: MultielectError | None = None) -> None:
        """Ask for a connection: the first, or a new one after `lost`. Any thread."""
        self._lost = lost
        self._wanted.set()

    def close(self) -> None:
        """Make no more connections. An attempt under way ends by its timeout. Any thread."""
        self._closing.set()
        self._wanted.set()

    def join_unless_connecting(self, timeout_s: float) -> None:
        """Wait for the thread's end, unless an attempt is under way. After `close`; any thread.

        One that was not started yet is not waited for: it ends as soon as it starts.
        """
        is_idle = self.is_alive() and not self._connecting.is_set()
        if is_idle and self is not threading.current_thread():
            self.join(timeout_s)

    def run(self) -> None:
        """Serve requests until closed."""
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if self._closing.is_set():
                return
            # Before `_closing` is read again, so that a thread that closes this one either sees
            # the attempt or prevents it.
            self._connecting.set()
            self._connect_until_done()
            self._connecting.clear()

    def _connect_until_done(self) -> None:
        if self._lost is not None:
            lasted_s = time.monotonic() - self._connected_at
            self._closing.wait(self._backoff.after_loss(self._lost, lasted_s))
        while not self._closing.is_set():
            try:
                connection = self._connect()
            # redis-py passes on its own errors and those of the socket. An unforeseen error must
            # not end all further attempts.
            except Exception as cause:  # noqa: BLE001
                error = cause if isinstance(cause, MultielectError) else _unforeseen(cause)
                self._on_failure(error)
                self._closing.wait(self._backoff.after_failure(error))
                continue
            if connection is None:
                return
            self._connected_at = time.monotonic()
            for warning in connection.warnings:
                self._on_warning(warning)
            self._on_connected(connection)
            return


def _unforeseen(cause: Exception) -> MultielectError:
    error = MultielectError(f"cannot connect, by a fault of multielect: {in_words(cause)}")
    error.__cause__ = cause
    return error
