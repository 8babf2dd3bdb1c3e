"""A wire that a test can hold, slow, cut and watch, between a node and its server.

Rules of this file:
    * Bytes pass unchanged and in order, or not at all: only time and loss are added.
    * Requests are parsed before they are passed on, so that a test can act on the very command
      that it waits for: `on_command` runs before the server sees any of the bytes that came
      with it, and what it sets holds from the server's answer on.
    * Requests that are held when their connection ends outlive it: `pass_late` brings them to
      the server, on the connection that the node has given up.
    * Everything runs on one thread of the proxy's own; the setters may be called from any.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType

import hiredis

from multielect._protocol.scripts import WITH_FLAGS, WITHOUT_FLAGS

Command = list[bytes]

READ_BYTES = 1 << 16
MAX_COMMANDS = 100_000
LATE_S = 1.0
"""What the server gets to read what comes late, and to close."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

_NAMES = {
    text: name
    for scripts in (WITH_FLAGS, WITHOUT_FLAGS)
    for name in ("acquire", "refresh", "release")
    for text in (getattr(scripts, name).body, getattr(scripts, name).sha)
}


class Half(enum.Enum):
    """What follows the first half of a message."""

    SILENCE = 1
    """Nothing more in that direction, on a connection that stays."""
    CUT = 2
    """The connection's end."""


class Proxy:
    """Listens on a TCP port of the loopback, and passes on to the server's socket.

    Attributes:
        url: where the node connects.
        commands: what nodes have asked, the newest last.
        on_command: called with each command before it is passed on.
        request_delay_s: how much later than it came a request is passed on.
        reply_delay_s: the same for replies.
        drops_requests: whether what the node sends vanishes.
        drops_replies: whether what the server sends vanishes.
        halves_requests: what follows when the next that the node sends on a connection is passed
            on by half; None passes it on whole.
        halves_replies: the same for what the server sends.
        loses_replies: whether a connection is cut when the server answers on it; see `lose_reply`
            for that of one command.
        refuses: whether new connections are closed at once.
    """

    def __init__(self, socket_path: str) -> None:
        """Prepare; entering the context listens."""
        self.url = ""
        self.commands: deque[Command] = deque(maxlen=MAX_COMMANDS)
        self.on_command: Callable[[Command], None] = lambda _: None
        self.request_delay_s = 0.0
        self.reply_delay_s = 0.0
        self.drops_requests = False
        self.drops_replies = False
        self.halves_requests: Half | None = None
        self.halves_replies: Half | None = None
        self.loses_replies = False
        self.refuses = False
        self._socket_path = socket_path
        self._loop = asyncio.new_event_loop()
        self._requests_pass = asyncio.Event()
        self._requests_pass.set()
        self._replies_pass = asyncio.Event()
        self._replies_pass.set()
        self._links: set[asyncio.Task[None]] = set()
        self._asking: _Waiting | None = None
        self._late: set[asyncio.Task[None]] = set()
        self._late_passes = asyncio.Event()
        self._resetting: set[asyncio.Task[None]] = set()
        self._listening = threading.Event()
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def hold_requests(self) -> None:
        """Keep what nodes send until `pass_requests`, or `pass_late` if their connection ends."""
        self._call(self._requests_pass.clear)

    def pass_requests(self) -> None:
        """Pass on what was kept on the connections that there are, and what comes."""
        self._call(self._requests_pass.set)

    def pass_late(self) -> None:
        """Pass on what was kept on connections that ended."""

        def pass_late() -> None:
            self._late_passes.set()
            self._late_passes = asyncio.Event()

        self._call(pass_late)

    def hold_replies(self) -> None:
        """Keep what the server answers until `pass_replies`."""
        self._call(self._replies_pass.clear)

    def pass_replies(self) -> None:
        """Pass on what was kept, and what comes."""
        self._call(self._replies_pass.set)

    def lead_to(self, socket_path: str) -> None:
        """Pass what comes on new connections to another server; those that there are stay."""

        def lead_to() -> None:
            self._socket_path = socket_path

        self._call(lead_to)

    def cut(self) -> None:
        """End all connections that there are."""
        self._call(self._cut)

    def reset(self) -> None:
        """End all connections that there are by a reset: the node's next read fails."""

        def reset() -> None:
            self._resetting |= self._links
            self._cut()

        self._call(reset)

    def lose_reply(self) -> None:
        """Cut the connection that `on_command` is called for when the server answers on it."""
        assert self._asking is not None
        self._asking.is_lost = True

    def mend(self) -> None:
        """Pass everything on again, at once and whole."""
        self.on_command = lambda _: None
        self.request_delay_s = self.reply_delay_s = 0.0
        self.drops_requests = self.drops_replies = False
        self.halves_requests = self.halves_replies = None
        self.loses_replies = self.refuses = False
        self.pass_requests()
        self.pass_replies()
        self.pass_late()

    def scripts(self, name: str) -> list[Command]:
        """Return the batches of one of our scripts that have been asked for."""
        return [command for command in list(self.commands) if script_name(command) == name]

    def __enter__(self) -> Proxy:
        self._thread.start()
        assert self._listening.wait(5.0), "the proxy does not listen"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(5.0)

    def _call(self, action: Callable[[], object]) -> None:
        # At once where the proxy itself is at work, so that `on_command` acts on this answer.
        if threading.current_thread() is self._thread:
            action()
            return
        done = threading.Event()
        self._loop.call_soon_threadsafe(action)
        self._loop.call_soon_threadsafe(done.set)
        assert done.wait(5.0), "the proxy hangs"

    # ---- the proxy's thread

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    def _cut(self) -> None:
        for link in self._links:
            link.cancel()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.url = f"redis://127.0.0.1:{port}"
        self._listening.set()
        await self._closing.wait()
        self._late_passes.set()
        self._requests_pass.set()
        # Whoever is being let in this very moment is no link yet, and must not become one; and
        # asyncio leaves a connection open that it was still letting in when its server was closed.
        self.refuses = True
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            self._cut()
            await asyncio.gather(*others, return_exceptions=True)
        server.close()
        # What was aborted is closed in the next turn of the loop.
        await asyncio.sleep(0)

    async def _accept(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None
        self._links.add(link)
        requests, replies = _Waiting(), _Waiting()
        far = far_writer = None
        try:
            if self.refuses:
                return
            far, far_writer = await asyncio.open_unix_connection(self._socket_path)
            await _until_one_ends(
                self._take_requests(near, requests, replies),
                self._pass(requests, far_writer, self._requests_pass),
                self._take_replies(far, replies),
                self._pass(replies, back, self._replies_pass),
            )
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._links.discard(link)
            if link in self._resetting:
                self._resetting.discard(link)
                back.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE
                )
            back.transport.abort()
            if far is not None and far_writer is not None:
                if requests.is_empty or self._requests_pass.is_set():
                    far_writer.transport.abort()
                else:
                    late = asyncio.ensure_future(self._pass_late(requests, far, far_writer))
                    self._late.add(late)
                    late.add_done_callback(self._late.discard)

    async def _take_requests(
        self, near: asyncio.StreamReader, requests: _Waiting, replies: _Waiting
    ) -> None:
        parser = hiredis.Reader()
        while data := await near.read(READ_BYTES):
            drops, half = self.drops_requests, self.halves_requests
            due = self._loop.time() + self.request_delay_s
            parser.feed(data)
            while (command := parser.gets()) is not False:
                self.commands.append(command)
                self._asking = replies
                self.on_command(command)
            if not drops:
                requests.put(_Message(due, data, half))

    async def _take_replies(self, far: asyncio.StreamReader, replies: _Waiting) -> None:
        while data := await far.read(READ_BYTES):
            if self.loses_replies or replies.is_lost:
                return
            if not self.drops_replies:
                due = self._loop.time() + self.reply_delay_s
                replies.put(_Message(due, data, self.halves_replies))

    async def _pass(
        self, waiting: _Waiting, out: asyncio.StreamWriter, flow: asyncio.Event
    ) -> None:
        is_silent = False
        while True:
            # It waits on while it is held: what comes late is taken from there.
            message = await waiting.first()
            await asyncio.sleep(message.due - self._loop.time())
            await flow.wait()
            waiting.drop_first()
            if is_silent:
                continue
            out.write(message.passed)
            await out.drain()
            if message.half is Half.CUT:
                return
            is_silent = message.half is Half.SILENCE

    async def _pass_late(
        self, requests: _Waiting, far: asyncio.StreamReader, out: asyncio.StreamWriter
    ) -> None:
        await self._late_passes.wait()
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            while not requests.is_empty:
                out.write((await requests.first()).data)
                requests.drop_first()
            await out.drain()
            # The server reads what came before the end, and then closes.
            out.write_eof()
            await asyncio.wait_for(far.read(), LATE_S)
        out.transport.abort()


@dataclass(frozen=True)
class _Message:
    """Bytes on their way: when they may go on, and what becomes of the second half."""

    due: float
    data: bytes
    half: Half | None

    @property
    def passed(self) -> bytes:
        return self.data if self.half is None else self.data[: len(self.data) // 2]


class _Waiting:
    """The bytes that wait in one direction of a connection, until they are passed or lost."""

    def __init__(self) -> None:
        self.is_lost = False
        self._messages: deque[_Message] = deque()
        self._arrived = asyncio.Event()

    @property
    def is_empty(self) -> bool:
        return not self._messages

    def put(self, message: _Message) -> None:
        self._messages.append(message)
        self._arrived.set()

    async def first(self) -> _Message:
        """Return what came first, once there is something; it stays."""
        await self._arrived.wait()
        return self._messages[0]

    def drop_first(self) -> None:
        self._messages.popleft()
        if not self._messages:
            self._arrived.clear()


async def _until_one_ends(*parts: Coroutine[object, object, None]) -> None:
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def script_name(command: Command) -> str | None:
    """Return which of our scripts a command runs, or None."""
    if command[0] not in (b"EVAL", b"EVALSHA"):
        return None
    return _NAMES.get(command[1])


def script_keys(command: Command) -> list[bytes]:
    """Return the KEYS of a script's command."""
    return command[3 : 3 + int(command[2])]
