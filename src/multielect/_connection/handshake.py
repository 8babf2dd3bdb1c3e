"""A socket for the handshake, which limits how much a server may send and for how long.

Rules of this file:
    * redis-py trusts the lengths that a server sends, and waits anew after each byte. This socket
      limits both: the answers may have `MAX_BYTES` and take `TIMEOUTS` timeouts.
    * The first bytes of a server are kept, because they often say why an attempt failed.
    * Nothing else is changed. The plain socket is taken out when the connection is ready.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from typing import Any

from redis.connection import AbstractConnection

from ..errors import ConfigError, ProtocolError

MAX_BYTES = 1 << 20
TIMEOUTS = 5
"""How many timeouts an attempt may take in all."""

MAX_HEARD_BYTES = 1 << 10
_LAST_WORDS_S = 0.2


class HandshakeSocket:
    """A socket that counts what it receives.

    Attributes:
        plain: the plain socket.
        heard: the first bytes of the server.
        failure: the error of TLS, if the connection could not be written to.
    """

    def __init__(self, plain: socket.socket, timeout_s: float) -> None:
        """Begin to count."""
        self.plain = plain
        self.heard = b""
        self.failure: ssl.SSLError | None = None
        self._left = MAX_BYTES
        self._until = time.monotonic() + TIMEOUTS * timeout_s

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # whatever a socket has
        return getattr(self.plain, name)

    def sendall(self, data: bytes, flags: int = 0) -> None:
        """Send, as on a socket."""
        try:
            self.plain.sendall(data, flags)
        except OSError:
            # A server that closed the connection may have sent the reason before.
            with contextlib.suppress(OSError):
                self.plain.settimeout(_LAST_WORDS_S)
                self._hear_last_words()
            raise

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Receive, as of a socket."""
        data = self.plain.recv(size, flags)
        self._count(data)
        return data

    def recv_into(self, buffer: bytearray, *arguments: Any) -> int:  # noqa: ANN401  # as a socket's
        """Receive, as of a socket."""
        count = self.plain.recv_into(buffer, *arguments)
        self._count(bytes(buffer[:count]))
        return count

    def _hear_last_words(self) -> None:
        try:
            self.heard = self.heard or self.plain.recv(MAX_HEARD_BYTES)
        except ssl.SSLError as failure:
            self.failure = failure

    def _count(self, data: bytes) -> None:
        if len(self.heard) < MAX_HEARD_BYTES:
            self.heard += data[: MAX_HEARD_BYTES - len(self.heard)]
        self._left -= len(data)
        if self._left < 0:
            raise ProtocolError(
                f"the server answered with more than {MAX_BYTES:,} bytes while connecting"
            )
        if time.monotonic() > self._until:
            # Not a timeout, because redis-py would drop its text.
            raise ProtocolError("the server did not finish its answers while connecting")


def guarded(kind: type[AbstractConnection], timeout_s: float) -> type[AbstractConnection]:
    """Return a subclass of a kind of connection that uses a `HandshakeSocket`.

    `last_words` and `wait_for_tls` are for such connections.
    """

    class Guarded(kind):  # type: ignore[misc, valid-type]
        handshake: HandshakeSocket | None = None
        tls_wait_s = timeout_s

        def _connect(self) -> HandshakeSocket:
            found = super()._connect()
            if not isinstance(found, socket.socket):
                raise ConfigError(
                    f"{kind.__module__}.{kind.__qualname__} connects by a"
                    f" {type(found).__qualname__}: elections need a real socket"
                )
            self.handshake = HandshakeSocket(found, timeout_s)
            return self.handshake

        def _wrap_socket_with_ssl(self, sock: socket.socket) -> socket.socket:
            sock.settimeout(self.tls_wait_s)
            wrapped: socket.socket = super()._wrap_socket_with_ssl(sock)
            wrapped.settimeout(timeout_s)
            return wrapped

    return Guarded


def wait_for_tls(connection: AbstractConnection, timeout_s: float) -> None:
    """Set how long a `guarded` connection waits for the server's part of the TLS handshake."""
    connection.tls_wait_s = timeout_s  # type: ignore[attr-defined]


def last_words(connection: AbstractConnection) -> tuple[bytes, ssl.SSLError | None]:
    """Return the first bytes of the server on a `guarded` connection, and the error of TLS."""
    handshake: HandshakeSocket | None = getattr(connection, "handshake", None)
    return (b"", None) if handshake is None else (handshake.heard, handshake.failure)


def plain_socket_of(connection: AbstractConnection) -> socket.socket | None:
    """Return the plain socket of a ready connection; None if it has ended meanwhile."""
    found: Any = connection._sock  # redis-py has no public name for it
    plain: socket.socket | None = found.plain if isinstance(found, HandshakeSocket) else found
    return plain
