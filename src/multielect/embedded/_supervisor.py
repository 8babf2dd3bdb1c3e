"""A small process between an embedded server and the process that uses it.

Rules of this file:
    * It runs as a separate program. It uses the standard library only and does not import
      multielect, so it starts within a few hundredths of a second.
    * It owns the server and its directory. When it must end, or when its parent is gone, it ends
      the server and removes the directory.
    * It checks its parent's process id to learn whether its parent lives. The end of a pipe would
      not do, because a forked child of the dead parent may hold the other end. A death signal from
      the kernel would not do, because it comes when the parent's thread ends, not its process.
    * It reports once, in one line of JSON: the server's pid, name and version, or an error.
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
"""How often to check whether the parent lives. Everything else arrives as a signal."""

POLL_S = 0.005
"""How often to try a server that is starting; nothing announces that it listens."""

LOG_TAIL_BYTES = 2000


class _StoppedEarlyError(Exception):
    """The parent asked for a stop, or died, before the server answered."""


@dataclass
class Order:
    """The parent's order, read as JSON from standard input.

    Attributes:
        parent: the pid that must stay this process's parent.
        directory: the directory for socket, configuration and log. This process makes and removes
            it.
        binary: the server's program.
        config: the text of its configuration file.
        address: the path of its socket, or a host and a port.
        password: the password, or empty.
        startup_timeout: seconds within which the server must answer.
    """

    parent: int
    directory: str
    binary: str
    config: str
    address: str | list[str | int]
    password: str
    startup_timeout: float


class _Server:
    """The server's process. This process spawns and reaps it."""

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
        """Return the exit code, or None while the server runs."""
        if self._exit_code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._exit_code = os.waitstatus_to_exitcode(status)
        return self._exit_code

    def end(self) -> None:
        """Kill the server. No shutdown is needed, as it saves nothing."""
        if self.exit_code() is None:
            os.kill(self.pid, signal.SIGKILL)
            _, status = os.waitpid(self.pid, 0)
            self._exit_code = os.waitstatus_to_exitcode(status)

    def log_tail(self) -> str:
        """Return the last lines that it logged."""
        return self._log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()


class _Signals:
    """Waits for signals, and knows when to end."""

    def __init__(self, parent: int) -> None:
        self._parent = parent
        self._must_stop = False
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        # Only SIGCHLD and SIGTERM matter here. Ignore the parent's terminal and signal mask.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._stop)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])

    def _stop(self, *_: object) -> None:
        self._must_stop = True

    def wait(self, seconds: float) -> None:
        """Return after that many seconds, or as soon as a signal comes."""
        if select.select([self._reader], [], [], seconds)[0]:
            os.read(self._reader, 4096)

    def must_end(self) -> bool:
        """Return whether the parent asked for a stop, or is gone."""
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
    """Return the report: the server's description, or why it did not start."""
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
    """Send the report to the parent, and close the pipe to it."""
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
    """Run one server until it ends, the parent ends, or the parent asks for a stop."""
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
