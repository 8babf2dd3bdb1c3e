"""What a server tells of itself by MONITOR, read into a ledger.

Rules of this file:
    * A tap ends with its server: what the server did not send by then is lost.
    * Whoever reads the ledger holds `changed`, by which it is told of what comes.
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
        ledger: what is read goes there; another may take its place while `changed` is held.
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
            socket_path: where the server listens.
            ledger: what is read goes there.
            changed: held while the ledger is written.
            placer: gives, as of now, what `Ledger.feed` places times by.
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
        """Read the rest. The server is gone, and the connection with it."""
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
