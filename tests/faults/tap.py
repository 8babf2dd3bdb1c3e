"""Reads the output of a server's MONITOR into a ledger.

Rules of this file:
    * A tap ends with its server. Lines that the server has not sent by then are lost.
    * Code that reads the ledger holds `changed`, and is notified through it of new lines.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

from .ledger import Ledger

OURS = "rig"
WITHIN_S = 20.0


class Tap:
    """A connection that runs MONITOR, and the thread that reads it.

    Attributes:
        ledger: takes the lines. It may be replaced while `changed` is held.
    """

    def __init__(
        self,
        socket_path: str,
        ledger: Ledger,
        changed: threading.Condition,
        placer: Callable[[], Callable[[int], int]],
    ) -> None:
        """Begin to listen.

        Args:
            socket_path: the server's Unix socket.
            ledger: takes the lines.
            changed: held while lines are added to the ledger.
            placer: returns the function that `Ledger.feed` needs, for the lines of now.
        """
        self.ledger = ledger
        self._changed = changed
        self._placer = placer
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(WITHIN_S)
        self._socket.connect(socket_path)
        self._socket.sendall(f"CLIENT SETNAME {OURS}\r\nMONITOR\r\n".encode())
        heard = b""
        while heard.count(b"+OK\r\n") < 2:
            heard += self._socket.recv(4096)
        self._socket.settimeout(None)
        self._thread = threading.Thread(
            target=self._read, args=(heard.split(b"+OK\r\n", 2)[2],), name="monitor"
        )
        self._thread.start()

    def close(self) -> None:
        """Read the rest, as the server has ended and its connection with it."""
        self._thread.join()
        self._socket.close()

    def _read(self, rest: bytes) -> None:
        while True:
            try:
                data = self._socket.recv(1 << 18)
            except ConnectionError:
                return
            if not data:
                return
            lines, newline, rest = (rest + data).rpartition(b"\r\n")
            if newline:
                with self._changed:
                    plain = lines.replace(b"\r\n+", b"\n").removeprefix(b"+")
                    self.ledger.feed(plain, self._placer())
                    self._changed.notify_all()
