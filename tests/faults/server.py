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


@dataclass(frozen=True)
class _Orphan:
    """A primary in whose place another is."""

    server: EmbeddedServer
    admin: Any
    tap: Tap


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
        self.end_orphan()
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

    # ---- a replica in its place

    def replace(self) -> None:
        """Stop its process by SIGSTOP, and promote a replica that has all its data.

        From here on the replica is the server; what was stopped is an orphan, that knows nothing
        of it. Whatever is asked of the orphan waits there. Let nobody ask the new one before this
        returns.
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
        # What is under way is replicated and in the ledger; what comes later waits.
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
        """Let the old primary go on: it answers what waited."""
        assert self._orphan is not None
        os.kill(self._orphan.server.pid, signal.SIGCONT)
        self._orphan.admin.client_unpause()

    def end_orphan(self) -> list[Grant]:
        """End the old primary, if there is one, and return what it granted since then."""
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
            # What it got at first is in the append-only file as well.
            and not info["aof_rewrite_in_progress"]
            and not info["aof_rewrite_scheduled"]
        )

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
        """Have another server take the place, with a folder for its data and nothing in it."""
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
                # There must be a plan to save for a failure to save to matter.
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
