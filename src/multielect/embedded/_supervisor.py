"""A tiny process that stands between an embedded server and the process that wants it.

Rules of this file:
    * It runs as a program of its own, from the standard library alone and without importing
      multielect, so that it is up in a few hundredths of a second.
    * The server and its directory are this process's own: whichever way this process is told
      to end, or finds its parent gone, it ends the server and removes the directory.
    * It looks whether its parent lives by asking who its parent is. The end of a pipe would
      tell as much, but not while a forked child of the dead parent holds the other end; and a
      death signal from the kernel comes when the parent's thread ends, not its process.
    * It reports once, one line of JSON: the server's pid, name and version, or an error.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

TICK_S = 0.1
"""How often to look whether the parent lives: all other news arrives as a signal."""

POLL_S = 0.005
"""How often to try a server that is starting up; nothing announces that it listens."""

LOG_TAIL_BYTES = 2000


class _StoppedEarlyError(Exception):
    """The parent said stop, or died, before the server was up."""


@dataclass
class Order:
    """What the parent wants, read as JSON from standard input.

    Attributes:
        parent: the pid that must stay this process's parent.
        directory: where to put socket, configuration and log; made here, and removed.
        binary: the server's program.
        config: the text of its configuration file.
        address: the path of its socket, or a host and a port.
        password: empty for none.
        startup_timeout: seconds.
    """

    parent: int
    directory: str
    binary: str
    config: str
    address: str | list[str | int]
    password: str
    startup_timeout: float


class _Server:
    """The server's process: spawned by this one, and reaped by it."""

    def __init__(self, order: Order) -> None:
        config = Path(order.directory, "server.conf")
        config.write_bytes(os.fsencode(order.config))
        self._log = Path(order.directory, "server.log")
        appending = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._exit_code: int | None = None
        self.pid = os.posix_spawn(
            order.binary,
            [order.binary, str(config)],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self._log), appending, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsigdef=[signal.SIGINT, signal.SIGHUP, signal.SIGPIPE],
        )

    def exit_code(self) -> int | None:
        """Return how it ended, or None while it runs."""
        if self._exit_code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._exit_code = os.waitstatus_to_exitcode(status)
        return self._exit_code

    def end(self) -> None:
        """Kill it, which is as good as a shutdown: there is nothing that it should save."""
        if self.exit_code() is None:
            os.kill(self.pid, signal.SIGKILL)
            _, status = os.waitpid(self.pid, 0)
            self._exit_code = os.waitstatus_to_exitcode(status)

    def log_tail(self) -> str:
        """Return the last lines that it logged."""
        return self._log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()


class _Signals:
    """Waits for a signal or a tick, and knows when it is time to end."""

    def __init__(self, parent: int) -> None:
        self._parent = parent
        self._must_stop = False
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        # The parent's terminal and mask are not ours: only these two say anything here.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._stop)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])

    def _stop(self, *_: object) -> None:
        self._must_stop = True

    def wait(self, seconds: float) -> None:
        """Return after so many seconds, or as soon as a signal comes."""
        if select.select([self._reader], [], [], seconds)[0]:
            os.read(self._reader, 4096)

    def must_end(self) -> bool:
        """Return whether the parent said stop, or is gone."""
        return self._must_stop or os.getppid() != self._parent


def _ask_for_info(order: Order) -> dict[str, str] | None:
    """Return the server's description of itself, or None while it does not answer."""
    family = socket.AF_UNIX if isinstance(order.address, str) else socket.AF_INET
    address = order.address if isinstance(order.address, str) else tuple(order.address)
    request = b"INFO server\r\n"
    if order.password:
        request = b"AUTH %s\r\n%s" % (order.password.encode(), request)
    reply = b""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as link:
            link.settimeout(1.0)
            link.connect(address)
            link.sendall(request)
            while not reply.endswith(b"\r\n\r\n"):
                received = link.recv(65536)
                if not received or reply.startswith(b"-"):
                    return None
                reply += received
    except OSError:
        return None
    lines = reply.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _wait_until_up(order: Order, server: _Server, signals: _Signals) -> dict[str, object]:
    """Return the report: what the server is, or why it is not up."""
    deadline = time.monotonic() + order.startup_timeout
    while (info := _ask_for_info(order)) is None:
        if signals.must_end():
            raise _StoppedEarlyError
        code = server.exit_code()
        if code is not None:
            what = f"ended at once, with exit status {code}"
        elif time.monotonic() > deadline:
            what = f"did not answer within {order.startup_timeout:g} s"
        else:
            signals.wait(POLL_S)
            continue
        return {"error": f"{order.binary} {what}. The end of its log:\n{server.log_tail()}"}
    name = info.get("server_name", "redis")
    return {
        "pid": server.pid,
        "name": name,
        "version": info.get(f"{name}_version", info.get("redis_version", "")),
    }


def _report(report: dict[str, object]) -> None:
    """Tell the parent, and let go of the pipe to it."""
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(report).encode() + b"\n")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _supervise(order: Order, signals: _Signals) -> None:
    server = _Server(order)
    try:
        report = _wait_until_up(order, server, signals)
        if "error" in report:
            server.end()
        _report(report)
        while server.exit_code() is None and not signals.must_end():
            signals.wait(TICK_S)
    finally:
        server.end()


def main() -> None:
    """Run one server until it ends, the parent ends, or the parent says so."""
    order = Order(**json.load(sys.stdin))
    signals = _Signals(order.parent)
    os.umask(0o077)
    try:
        Path(order.directory).mkdir(0o700)
    except OSError as error:
        _report({"error": f"cannot make a directory for the server: {error}"})
        return
    try:
        _supervise(order, signals)
    except _StoppedEarlyError:
        pass
    except OSError as error:
        _report({"error": f"cannot run {order.binary}: {error}"})
    finally:
        shutil.rmtree(order.directory, ignore_errors=True)


if __name__ == "__main__":
    main()
