"""A wire that a test can hold, slow, cut and watch, between a node and its server.

Rules of this file:
    * Bytes pass unchanged and in order, or not at all: only time and loss are added.
    * Requests are parsed before they are passed on, so that a test can act on the very command
      that it waits for: `on_command` runs before the server sees any of the bytes that came
      with it, and what it sets holds from the server's answer on.
    * Everything runs on one thread of the proxy's own; the setters may be called from any.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from types import TracebackType

import hiredis

from multielect._scripts import WITH_FLAGS, WITHOUT_FLAGS

Command = list[bytes]

READ_BYTES = 1 << 16
MOST_COMMANDS = 100_000

_NAMES = {
    text: name
    for scripts in (WITH_FLAGS, WITHOUT_FLAGS)
    for name in ("acquire", "refresh", "release")
    for text in (getattr(scripts, name).body, getattr(scripts, name).sha)
}


class Proxy:
    """Listens on a TCP port of the loopback, and passes on to the server's socket.

    Attributes:
        url: where the node connects.
        commands: what nodes have asked, the newest last.
        on_command: called with each command before it is passed on.
        reply_delay_s: how much later than it came a reply is passed on.
        drops_requests: whether what the node sends vanishes.
        loses_replies: whether a connection is cut when the server answers on it.
    """

    def __init__(self, socket_path: str) -> None:
        """Prepare; entering the context listens."""
        self.url = ""
        self.commands: deque[Command] = deque(maxlen=MOST_COMMANDS)
        self.on_command: Callable[[Command], None] = lambda _: None
        self.reply_delay_s = 0.0
        self.drops_requests = False
        self.loses_replies = False
        self._socket_path = socket_path
        self._loop = asyncio.new_event_loop()
        self._flow = asyncio.Event()
        self._flow.set()
        self._links: set[asyncio.Task[None]] = set()
        self._listening = threading.Event()
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def hold_replies(self) -> None:
        """Keep what the server answers until `pass_replies`."""
        self._call(self._flow.clear)

    def pass_replies(self) -> None:
        """Pass on what was kept, and what comes."""
        self._call(self._flow.set)

    def cut(self) -> None:
        """End all connections that there are."""
        self._call(lambda: [link.cancel() for link in self._links])

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

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.url = f"redis://127.0.0.1:{port}"
        self._listening.set()
        await self._closing.wait()
        server.close()
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _accept(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None
        self._links.add(link)
        far_writer = None
        try:
            far, far_writer = await asyncio.open_unix_connection(self._socket_path)
            waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
            await _until_one_ends(
                self._pass_requests(near, far_writer),
                self._take_replies(far, waiting),
                self._deliver(waiting, back),
            )
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._links.discard(link)
            back.transport.abort()
            if far_writer is not None:
                far_writer.transport.abort()

    async def _pass_requests(
        self, near: asyncio.StreamReader, server: asyncio.StreamWriter
    ) -> None:
        parser = hiredis.Reader()
        while data := await near.read(READ_BYTES):
            drops = self.drops_requests
            parser.feed(data)
            while (command := parser.gets()) is not False:
                self.commands.append(command)
                self.on_command(command)
            if not drops:
                server.write(data)
                await server.drain()

    async def _take_replies(
        self, far: asyncio.StreamReader, waiting: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        while data := await far.read(READ_BYTES):
            if self.loses_replies:
                return
            waiting.put_nowait((self._loop.time() + self.reply_delay_s, data))

    async def _deliver(
        self, waiting: asyncio.Queue[tuple[float, bytes]], back: asyncio.StreamWriter
    ) -> None:
        while True:
            due, data = await waiting.get()
            await asyncio.sleep(due - self._loop.time())
            await self._flow.wait()
            back.write(data)
            await back.drain()


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
