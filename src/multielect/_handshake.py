"""A socket while its connection is being set up: what may come, and for how long.

Rules of this file:
    * redis-py believes what a server says of lengths, and waits anew after each byte. Here that
      has an end: no answer to connecting is `MOST_BYTES` long, nor takes for ever.
    * Nothing else is changed, and the socket below is taken out once the connection stands.
"""

from __future__ import annotations

import socket
import time
from typing import Any

from redis.connection import AbstractConnection

from .errors import ConfigError, ProtocolError

MOST_BYTES = 1 << 20
TIMEOUTS = 5
"""How many timeouts an attempt may take as a whole."""


class HandshakeSocket:
    """A socket that counts what it receives."""

    def __init__(self, plain: socket.socket, timeout_s: float) -> None:
        """Count from now on."""
        self.plain = plain
        self._left = MOST_BYTES
        self._until = time.monotonic() + TIMEOUTS * timeout_s

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # whatever a socket has
        return getattr(self.plain, name)

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Receive, as of a socket."""
        data = self.plain.recv(size, flags)
        self._count(len(data))
        return data

    def recv_into(self, *arguments: Any) -> int:  # noqa: ANN401  # as a socket's own
        """Receive, as of a socket."""
        count = self.plain.recv_into(*arguments)
        self._count(count)
        return count

    def _count(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise ProtocolError(
                f"the server answered with more than {MOST_BYTES:,} bytes while connecting"
            )
        if time.monotonic() > self._until:
            # Of a timeout redis-py would keep no word.
            raise ProtocolError("the server did not come to an end of its answers to connecting")


def guarded(kind: type[AbstractConnection], timeout_s: float) -> type[AbstractConnection]:
    """Return a kind of connection that does the same, over a `HandshakeSocket`."""

    class Guarded(kind):  # type: ignore[misc, valid-type]
        def _connect(self) -> HandshakeSocket:
            found = super()._connect()
            if not isinstance(found, socket.socket):
                raise ConfigError(
                    f"{kind.__module__}.{kind.__qualname__} connects by a"
                    f" {type(found).__qualname__}: elections need a real socket"
                )
            return HandshakeSocket(found, timeout_s)

    return Guarded


def plain_socket_of(connection: AbstractConnection) -> socket.socket | None:
    """Return the socket of a connection that stands; None if it has ended meanwhile."""
    found: Any = connection._sock  # redis-py has no public name for it
    plain: socket.socket | None = found.plain if isinstance(found, HandshakeSocket) else found
    return plain
