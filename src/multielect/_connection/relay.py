"""TLS for the pump: a thread that carries bytes between it and an encrypted connection.

Rules of this file:
    * The pump knows plain sockets only. Over TLS the bytes must pass through Python's `ssl`, which
      needs the GIL. So with a relay, a thread that keeps the GIL can delay a refresh. Everything
      else is the same.
    * The bytes in transit are bounded in both directions.
    * When one end is closed, the other one is closed too.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading

_MAX_BYTES = 1 << 18
_READ_BYTES = 1 << 16


class Relay(threading.Thread):
    """Carries bytes between `near`, which is for the pump, and an encrypted socket."""

    def __init__(self, encrypted: ssl.SSLSocket) -> None:
        """Take over the encrypted socket. `start` begins."""
        super().__init__(name="multielect-tls", daemon=True)
        self.near, self._far = socket.socketpair()
        self._encrypted = encrypted
        self.near.settimeout(0.0)
        self._far.settimeout(0.0)
        encrypted.settimeout(0.0)
        self._leaving = bytearray()
        self._arriving = bytearray()

    def run(self) -> None:
        """Carry until one end is closed."""
        # The relay ends when the owner of the connection closes a socket that is in use here.
        with contextlib.suppress(OSError, ValueError):
            while self._carry():
                pass
        self._far.close()

    def abandon(self) -> None:
        """Close a forked child's copies of both ends."""
        self.near.close()
        self._far.close()

    def _carry(self) -> bool:
        moved = False
        for source, sink, waiting in (
            (self._far, self._encrypted, self._leaving),
            (self._encrypted, self._far, self._arriving),
        ):
            if len(waiting) < _MAX_BYTES:
                data = _receive(source)
                if data == b"":
                    return False
                if data:
                    waiting.extend(data)
                    moved = True
            if waiting and (count := _send(sink, waiting)):
                del waiting[:count]
                moved = True
        if not moved:
            self._wait()
        return True

    def _wait(self) -> None:
        poll = select.poll()
        for own, leaving, arriving in (
            (self._far, self._arriving, self._leaving),
            (self._encrypted, self._leaving, self._arriving),
        ):
            wanted = select.POLLIN if len(arriving) < _MAX_BYTES else 0
            poll.register(own, wanted | (select.POLLOUT if leaving else 0))
        poll.poll()


def _receive(source: socket.socket) -> bytes | None:
    try:
        return source.recv(_READ_BYTES)
    except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return None


def _send(sink: socket.socket, data: bytearray) -> int:
    try:
        return sink.send(data)
    except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return 0
