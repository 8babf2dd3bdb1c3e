"""A raw connection: sends and receives bytes as fast as a socket allows.

Rules of this file:
    * The bytes are packed beforehand, so the cost of packing is not measured.
    * Sending and receiving overlap, so neither the server nor the socket ever waits.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Callable
from types import TracebackType
from typing import Any

import redis

_CHUNK_BYTES = 1 << 18
_READ_BYTES = 1 << 20
_SILENCE_S = 30.0
_LATER = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def packed(*arguments: bytes) -> bytes:
    """Return a command as Redis reads it."""
    return b"*%d\r\n" % len(arguments) + b"".join(
        b"$%d\r\n%s\r\n" % (len(each), each) for each in arguments
    )


class RawConnection:
    """A connection that redis-py has set up, used without it. A context manager."""

    def __init__(self, url: str) -> None:
        """Connect."""
        pool = redis.ConnectionPool.from_url(url)
        connection: Any = pool.make_connection()
        connection.connect()
        self._connection = connection
        self._socket: socket.socket = connection._sock
        self._socket.settimeout(0.0)

    def exchange(self, data: bytes, is_done: Callable[[bytes], bool]) -> None:
        """Send all of `data`, and receive until `is_done` returns True for the newest bytes.

        Raises:
            ConnectionError: if the server closes the connection, or sends nothing for 30 seconds.
        """
        left = memoryview(data)
        while True:
            waiting = [self._socket] if left else []
            readable, writable, _ = select.select([self._socket], waiting, [], _SILENCE_S)
            if not readable and not writable:
                raise ConnectionError(f"the server sent nothing for {_SILENCE_S:.0f} seconds")
            if writable:
                left = self._send(left)
            if readable and self._receive(is_done):
                return

    def _send(self, left: memoryview) -> memoryview:
        try:
            return left[self._socket.send(left[:_CHUNK_BYTES]) :]
        except _LATER:
            return left

    def _receive(self, is_done: Callable[[bytes], bool]) -> bool:
        # TLS may have decrypted more bytes than the socket shows.
        while True:
            try:
                received = self._socket.recv(_READ_BYTES)
            except _LATER:
                return False
            if not received:
                raise ConnectionError("the server closed the connection")
            if is_done(received):
                return True

    def close(self) -> None:
        """Close it."""
        self._connection.disconnect()

    def __enter__(self) -> RawConnection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
