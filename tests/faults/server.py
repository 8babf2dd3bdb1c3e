"""A real server that keeps its data after a kill, may have its own clock, and is monitored.

Rules of this file:
    * The server writes its append-only file before it answers. So it has every acknowledged write
      after `kill` and `restart`. `restart(empty=True)` removes the file.
    * MONITOR runs from before the first command of a node until after the last, except around a
      kill.
    * The rig's own connections do not pass through the wires. Their name is `OURS`.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry
from tests.diary import until
from tests.ports import free_port

from multielect._runtime.clock import Clock
from multielect.embedded import EmbeddedServer, bundled_binary

from .ledger import Grant, Ledger
from .tap import OURS, WITHIN_S, Tap

CAUGHT_UP_S = 60.0
PAUSED_MS = 600_000
LOADED_S = 60.0
"""How long a server may take to load its data, or a replica to get it, on a busy machine."""

UNTOLD_NS = 50_000_000
"""How much of a killed server's last work MONITOR may lack: at least one turn of its event loop."""

_FAKETIME = "/usr/lib/*/faketime/libfaketimeMT.so.1"


def faketime_library() -> str | None:
    """Return the path of libfaketime if it is installed and a server that runs with it is there."""
    found = sorted(Path("/").glob(_FAKETIME[1:]))
    # Servers with jemalloc, such as Debian's, never start with it.
    return str(found[0]) if found and bundled_binary() else None


@dataclass(frozen=True)
class _Orphan:
    """A primary that was replaced and still runs."""

    server: EmbeddedServer
    admin: Any
    tap: Tap


class WatchedServer:
    """A server, its clock, and the ledger of its leases.

    Attributes:
        ledger: the ledger. Hold `reading` while you read it.
    """

    def __init__(
        self, folder: Path, ledger: Ledger, *, ttl_ns: int, binary: str | None, fakes_clock: bool
    ) -> None:
        """Prepare a server with its data in `folder`."""
        self.ledger = ledger
        self.reading = threading.Lock()
        self._folder = folder
        self._ttl_ns = ttl_ns
        self._now_ns = Clock().now_ns
        self._clock_file = folder / "clock"
        self._fakes_clock = fakes_clock
        self._beside_s = [0.0]
        self._binary = self._under_faketime(folder) if fakes_clock else binary
        self._servers = 0
        self.data: Path
        self.socket_path: str
        self.admin: Any
        self._server = self._prepared()
        self._marks = 0
        self._marked = threading.Condition(self.reading)
        self._tap: Tap | None = None
        self._orphan: _Orphan | None = None

    @property
    def url(self) -> str:
        """The URL for clients of the rig."""
        return self._server.url

    @property
    def description(self) -> str:
        """The server's name and version."""
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
        self.end_orphan()
        self.admin.close()
        self._server.stop()
        self._end_listening()

    def freeze(self) -> None:
        """Stop the process by SIGSTOP."""
        os.kill(self._server.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the process go on."""
        os.kill(self._server.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End the process by SIGKILL, at any moment of its work."""
        killed_ns = self._now_ns()
        os.kill(self._server.pid, signal.SIGKILL)
        dead_ns = self._now_ns()
        self._server.stop()
        self._end_listening()
        with self.reading:
            # The nodes may have the replies to its last commands, which MONITOR had not sent yet.
            since_ns = min(killed_ns - UNTOLD_NS, self.ledger.read_to_ns)
            self.ledger.went_blind(since_ns, dead_ns + UNTOLD_NS, self._ttl_ns)

    def restart(self, *, empty: bool = False) -> None:
        """Start the server again, with its data or empty. Nodes may use it once this returns."""
        if empty:
            shutil.rmtree(self.data)
            self.data.mkdir()
        self._server.start()
        self._listen()
        # The server loads its data first, and answers no other command until then.
        until(lambda: not self.admin.info("persistence")["loading"], LOADED_S)

    # ---- a replica in its place

    def replace(self) -> None:
        """Stop the process by SIGSTOP, and promote a replica that has all its data.

        From now on the replica is the server. The stopped server is an orphan: it does not know
        that it was replaced, and the commands that it gets wait. No node may use the replica before
        this returns.
        """
        assert self._tap is not None
        server, admin, tap = self._server, self.admin, self._tap
        port = free_port()
        for name, value in (("bind", "127.0.0.1"), ("port", port), ("repl-diskless-sync-delay", 0)):
            admin.config_set(name, value)
        self._server = self._prepared()
        self._server.start()
        self.admin.replicaof("127.0.0.1", port)
        until(self._is_synchronous, LOADED_S)
        # Commands until now are replicated and in the ledger. Later commands wait in the server.
        admin.client_pause(PAUSED_MS, all=False)
        self._mark(admin)
        assert admin.wait(1, round(WITHIN_S * 1000)) == 1, "the replica fell behind"
        with self._marked:
            tap.ledger = Ledger(prefix=self.ledger.prefix, elections=self.ledger.elections)
        os.kill(server.pid, signal.SIGSTOP)
        self._orphan = _Orphan(server, admin, tap)
        self.admin.replicaof("NO", "ONE")
        self._listen()

    def wake_orphan(self) -> None:
        """Let the old primary go on. It answers the commands that waited."""
        assert self._orphan is not None
        os.kill(self._orphan.server.pid, signal.SIGCONT)
        self._orphan.admin.client_unpause()

    def end_orphan(self) -> list[Grant]:
        """End the old primary, if there is one. Returns its grants since it was replaced."""
        if self._orphan is None:
            return []
        orphan, self._orphan = self._orphan, None
        orphan.admin.close()
        os.kill(orphan.server.pid, signal.SIGKILL)
        orphan.server.stop()
        orphan.tap.close()
        with self.reading:
            return self.ledger.take_grants(orphan.tap.ledger)

    def _is_synchronous(self) -> bool:
        info = self.admin.info()
        return bool(
            info["master_link_status"] == "up"
            and not info["loading"]
            # The append-only file also has the data of the first synchronization.
            and not info["aof_rewrite_in_progress"]
            and not info["aof_rewrite_scheduled"]
        )

    def step_clock(self, seconds: float) -> None:
        """Set the server's clock forward by some seconds, or (negative) back."""
        assert self._fakes_clock, "this server uses the machine's clock"
        self._beside_s = [self._beside_s[-1], self._beside_s[-1] + seconds]
        following = self._clock_file.with_suffix(".new")
        following.write_text(f"{self._beside_s[-1]:+f}\n")
        following.rename(self._clock_file)

    def kill_clients(self) -> int:
        """End all connections except the rig's, by CLIENT KILL. Returns their number."""
        clients = [client for client in self.admin.client_list() if client["name"] != OURS]
        return sum(self.admin.client_kill_filter(_id=client["id"]) for client in clients)

    def catch_up(self) -> None:
        """Wait until the ledger has everything that the server did before the call."""
        self._mark(self.admin)

    def _mark(self, admin: Any) -> None:
        self._marks += 1
        mark = f"{os.getpid()}-{self._marks}"
        admin.echo(mark)
        with self._marked:
            came = self._marked.wait_for(lambda: mark.encode() in self.ledger.marks, CAUGHT_UP_S)
            assert came, "MONITOR fell silent"
            self.ledger.marks.clear()

    # ---- its place

    def _prepared(self) -> EmbeddedServer:
        """Prepare another server in this one's place, with an empty folder for its data."""
        self._servers += 1
        self.data = self._folder / f"data-{self._servers}"
        self.data.mkdir()
        server = EmbeddedServer(
            binary=self._binary,
            settings={
                "dir": str(self.data),
                "appendonly": "yes",
                "appendfsync": "no",
                "auto-aof-rewrite-percentage": 0,
                # A failed save only matters to a server that has a schedule for saves.
                "save": "3600 1000000000",
                "dbfilename": "dump.rdb",
            },
        )
        assert server.socket_path is not None
        self.socket_path = server.socket_path
        self.admin = redis.Redis.from_url(
            server.url,
            client_name=OURS,
            socket_timeout=WITHIN_S,
            retry=Retry(ConstantBackoff(0.02), 50),
        )
        return server

    # ---- MONITOR

    def _listen(self) -> None:
        self._tap = Tap(self.socket_path, self.ledger, self._marked, self._placer)

    def _end_listening(self) -> None:
        assert self._tap is not None
        self._tap.close()

    def _placer(self) -> Callable[[int], int]:
        now_ns = self._now_ns()
        ahead_ns = time.time_ns() - now_ns
        if not self._fakes_clock:
            return lambda server_us: server_us * 1000 - ahead_ns

        def placed(server_us: int) -> int:
            # Right after a step, a line may have the old clock's time or the new one's. It is read
            # soon after it was written, which tells which.
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
