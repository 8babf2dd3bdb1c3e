"""A real server that keeps its data through a kill, may have a clock of its own, and is watched.

Rules of this file:
    * What the server acknowledged it has after `kill` and `restart`: the append-only file is
      written before the answer. `restart(empty=True)` takes the file away.
    * Its commands are read by MONITOR from before the first node asks to after the last, but for
      the moments around a kill.
    * What the rig itself asks goes past the wires, on connections of names that `is_ours` knows.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry
from tests.diary import until

from multielect._clock import Clock
from multielect.embedded import EmbeddedServer, bundled_binary

from .ledger import Ledger

OURS = "rig"
WITHIN_S = 20.0
CAUGHT_UP_S = 60.0
LOADED_S = 60.0
"""Where a machine is busy, what many elections do to a server is read much later."""

UNTOLD_NS = 50_000_000
"""How much of what a killed server did MONITOR may not have told, at the least: one turn of its
loop."""

_FAKETIME = "/usr/lib/*/faketime/libfaketimeMT.so.1"


def faketime_library() -> str | None:
    """Return libfaketime's path where it is installed and there is a server that bears it."""
    found = sorted(Path("/").glob(_FAKETIME[1:]))
    # Under it, servers with jemalloc (Debian's) never come up.
    return str(found[0]) if found and bundled_binary() else None


class WatchedServer:
    """A server, its clock, and the ledger of what it did.

    Attributes:
        ledger: to be read while `reading` is held.
    """

    def __init__(
        self, folder: Path, ledger: Ledger, *, ttl_ns: int, binary: str | None, fakes_clock: bool
    ) -> None:
        """Prepare a server whose data is in `folder`."""
        self.ledger = ledger
        self.reading = threading.Lock()
        self.data = folder / "data"
        self.data.mkdir()
        self._ttl_ns = ttl_ns
        self._now_ns = Clock().now_ns
        self._clock_file = folder / "clock"
        self._fakes_clock = fakes_clock
        self._beside_s = [0.0]
        self._server = EmbeddedServer(
            binary=self._under_faketime(folder) if fakes_clock else binary,
            settings={
                "dir": str(self.data),
                "appendonly": "yes",
                "appendfsync": "no",
                "auto-aof-rewrite-percentage": 0,
                # There must be a plan to save for a failure to save to matter.
                "save": "3600 1000000000",
                "dbfilename": "dump.rdb",
            },
        )
        assert self._server.socket_path is not None
        self.socket_path: str = self._server.socket_path
        self.admin: Any = redis.Redis.from_url(
            self._server.url,
            client_name=OURS,
            socket_timeout=WITHIN_S,
            retry=Retry(ConstantBackoff(0.02), 50),
        )
        self._marks = 0
        self._marked = threading.Condition(self.reading)
        self._tap: socket.socket | None = None
        self._tapper: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where clients of the rig's own connect."""
        return self._server.url

    @property
    def description(self) -> str:
        """What it calls itself."""
        return f"{self._server.name} {self._server.version}"

    def __enter__(self) -> WatchedServer:
        self._server.start()
        self._listen()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.admin.close()
        self._server.stop()
        self._end_listening()

    def freeze(self) -> None:
        """Stop its process by SIGSTOP."""
        os.kill(self._server.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self._server.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End its process by SIGKILL, in the midst of whatever it does."""
        killed_ns = self._now_ns()
        os.kill(self._server.pid, signal.SIGKILL)
        dead_ns = self._now_ns()
        self._server.stop()
        self._end_listening()
        with self.reading:
            # What it did last it may have told the nodes and not us: what was not sent yet is lost.
            since_ns = min(killed_ns - UNTOLD_NS, self.ledger.read_to_ns)
            self.ledger.went_blind(since_ns, dead_ns + UNTOLD_NS, self._ttl_ns)

    def restart(self, *, empty: bool = False) -> None:
        """Start it again, with its data or without. Let nobody ask it before this returns."""
        if empty:
            shutil.rmtree(self.data)
            self.data.mkdir()
        self._server.start()
        self._listen()
        # What it has kept it reads first, and serves nobody until then.
        until(lambda: not self.admin.info("persistence")["loading"], LOADED_S)

    def step_clock(self, seconds: float) -> None:
        """Set its clock forward by so many seconds, or back."""
        assert self._fakes_clock, "it goes by the machine's clock"
        self._beside_s = [self._beside_s[-1], self._beside_s[-1] + seconds]
        following = self._clock_file.with_suffix(".new")
        following.write_text(f"{self._beside_s[-1]:+f}\n")
        following.rename(self._clock_file)

    def kill_clients(self) -> int:
        """End all connections but the rig's, by CLIENT KILL; returns how many there were."""
        clients = [client for client in self.admin.client_list() if client["name"] != OURS]
        return sum(self.admin.client_kill_filter(_id=client["id"]) for client in clients)

    def catch_up(self) -> None:
        """Return when the ledger has all that was done before the call."""
        self._marks += 1
        mark = f"{os.getpid()}-{self._marks}"
        self.admin.echo(mark)
        with self._marked:
            came = self._marked.wait_for(lambda: mark.encode() in self.ledger.marks, CAUGHT_UP_S)
            assert came, "MONITOR fell silent"
            self.ledger.marks.clear()

    # ---- MONITOR

    def _listen(self) -> None:
        tap = socket.socket(socket.AF_UNIX)
        tap.settimeout(WITHIN_S)
        tap.connect(self.socket_path)
        tap.sendall(f"CLIENT SETNAME {OURS}\r\nMONITOR\r\n".encode())
        heard = b""
        while heard.count(b"+OK\r\n") < 2:
            heard += tap.recv(4096)
        tap.settimeout(None)
        self._tap = tap
        self._tapper = threading.Thread(
            target=self._read, args=(tap, heard.split(b"+OK\r\n", 2)[2]), name="monitor"
        )
        self._tapper.start()

    def _end_listening(self) -> None:
        # The server is gone, and the connection with it.
        assert self._tap is not None
        assert self._tapper is not None
        self._tapper.join()
        self._tap.close()

    def _read(self, tap: socket.socket, rest: bytes) -> None:
        while True:
            try:
                data = tap.recv(1 << 18)
            except ConnectionError:
                return
            if not data:
                return
            lines, newline, rest = (rest + data).rpartition(b"\r\n")
            if newline:
                with self._marked:
                    plain = lines.replace(b"\r\n+", b"\n").removeprefix(b"+")
                    self.ledger.feed(plain, self._placer())
                    self._marked.notify_all()

    def _placer(self) -> Callable[[int], int]:
        now_ns = self._now_ns()
        ahead_ns = time.time_ns() - now_ns
        if not self._fakes_clock:
            return lambda server_us: server_us * 1000 - ahead_ns

        def placed(server_us: int) -> int:
            # Around a step it may be by either clock: a line is heard soon after it was written.
            times = [
                server_us * 1000 - ahead_ns - round(beside_s * 1e9) for beside_s in self._beside_s
            ]
            return min(times, key=lambda at_ns: abs(now_ns - at_ns))

        return placed

    def _under_faketime(self, folder: Path) -> str:
        library, binary = faketime_library(), bundled_binary()
        assert library is not None
        assert binary is not None
        self._clock_file.write_text("+0\n")
        program = folder / "server"
        program.write_text(
            "#!/bin/sh\n"
            f"export LD_PRELOAD='{library}' FAKETIME_TIMESTAMP_FILE='{self._clock_file}'\n"
            "export FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1\n"
            f"exec '{binary}' \"$@\"\n"
        )
        program.chmod(0o700)
        return str(program)
