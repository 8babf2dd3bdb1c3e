"""A server that answers as the real one behind it does, and lies where a test says so.

Rules of this file:
    * A request that is lied to never reaches the real server: nothing comes of it.
    * A lie is bytes, as many as somebody takes. What follows it on that connection is silence,
      or the truth for the requests that come after it.
    * It keeps no more than what is on its way, so that memory that is held is the node's.
    * It has threads of its own, which end with it; lies are set from any.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType

import hiredis
from tests.core.memory_probe import resident_bytes

from multielect._protocol.scripts import WITH_FLAGS, WITHOUT_FLAGS

Command = list[bytes]
Lie = Callable[[Command], "Iterable[bytes] | None"]
"""Given a request: the answer in pieces, or None for the truth."""

_NAMES = {
    text: name
    for scripts in (WITH_FLAGS, WITHOUT_FLAGS)
    for name, script in vars(scripts).items()
    for text in (script.body, script.sha)
}


def always(*pieces: bytes) -> Lie:
    """Return a lie that says the same each time."""
    return lambda _: pieces


def endless(head: bytes, piece: bytes) -> Lie:
    """Return a lie that goes on for as long as somebody listens."""
    return lambda _: itertools.chain([head], itertools.repeat(piece))


def won(command: Command) -> list[bytes]:
    """Grant whatever is asked for."""
    count = int(command[2]) // 2
    return [
        b"*%d\r\n:1\r\n*0\r\n" % (2 + count) + b":%d\r\n" % (time.time_ns() // 1_000_000) * count
    ]


class _Link:
    """A connection of a node, and the one behind it."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.near = near
        self.far = far
        self._saying = threading.Lock()

    def say(self, data: bytes) -> None:
        """Send to the node; what is said at once is not mixed."""
        with self._saying:
            self.near.sendall(data)

    def end(self) -> None:
        """Hang up on both."""
        for end in (self.near, self.far):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Liar:
    """Listens on a TCP port of the loopback, in front of a server's socket.

    Attributes:
        url: where the node connects.
        lies: what to answer to a request: by the name of a script, or of a command in lower case.
        links: when each connection was made, by `time.monotonic`.
        lied: the requests that were lied to.
        said: how many bytes of lies were taken.
        held_bytes: the most memory that this process has had while it was lied to.
    """

    def __init__(self, socket_path: str) -> None:
        """Listen; entering the context begins to answer."""
        self.lies: dict[str, Lie] = {}
        self.links: list[float] = []
        self.lied: list[str] = []
        self.said = 0
        self.held_bytes = 0
        self._socket_path = socket_path
        self._lock = threading.Lock()
        self._closing = False
        self._links: list[_Link] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Liar:
        self._begin(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._closing = True
        # An accept that waits is not ended by closing its socket everywhere.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for link in self._links:
            link.end()
        for thread in self._threads:
            thread.join(10.0)
            assert not thread.is_alive(), "the liar does not end"
        self._listener.close()
        for link in self._links:
            link.near.close()
            link.far.close()

    # ---- the liar's threads

    def _begin(self, work: Callable[..., None], *arguments: object) -> None:
        with self._lock:
            if not self._closing:
                thread = threading.Thread(
                    target=_until_closed, args=(work, *arguments), name="liar", daemon=True
                )
                self._threads.append(thread)
                thread.start()

    def _accept(self) -> None:
        while True:
            near, _ = self._listener.accept()
            far = socket.socket(socket.AF_UNIX)
            far.connect(self._socket_path)
            link = _Link(near, far)
            with self._lock:
                self._links.append(link)
            self.links.append(time.monotonic())
            self._begin(self._take_requests, link)
            self._begin(self._pass_on, link)

    def _take_requests(self, link: _Link) -> None:
        parser = hiredis.Reader()
        try:
            while data := link.near.recv(1 << 16):
                parser.feed(data)
                while (command := parser.gets()) is not False:
                    name = _name_of(command)
                    lie = self.lies.get(name)
                    pieces = None if lie is None else lie(command)
                    if pieces is None:
                        link.far.sendall(_packed(command))
                    else:
                        self.lied.append(name)
                        # Beside reading: whoever is lied to may go on asking.
                        self._begin(self._tell, pieces, link)
        finally:
            link.end()

    def _tell(self, pieces: Iterable[bytes], link: _Link) -> None:
        for piece in pieces:
            link.say(piece)
            self.said += len(piece)
            self.held_bytes = max(self.held_bytes, resident_bytes())

    def _pass_on(self, link: _Link) -> None:
        try:
            while data := link.far.recv(1 << 16):
                link.say(data)
        finally:
            link.end()


def _until_closed(work: Callable[..., None], *arguments: object) -> None:
    # Whoever is lied to hangs up sooner or later, and so does the liar.
    with contextlib.suppress(OSError):
        work(*arguments)


def _packed(command: Command) -> bytes:
    words = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in command)
    return b"*%d\r\n%s" % (len(command), words)


def _name_of(command: Command) -> str:
    if command[0] in {b"EVAL", b"EVALSHA"}:
        return _NAMES.get(command[1], "eval")
    return command[0].decode("latin-1").lower()
