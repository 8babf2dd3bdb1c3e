"""A private PostgreSQL for one test session: in a temporary directory, on a socket, not durable.

PostgreSQL refuses to run as root; where the tests do, it runs as the user that its package made.
It ends with this process, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import selectors
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 20
PORT = 5432
READY = b"ready to accept connections"
# Errors are told to whoever made them; a log of them would fill a pipe that nobody empties.
QUIET = "-clog_min_messages=log"


class NotAvailableError(Exception):
    """There is no PostgreSQL to run; the message says what is missing."""


@contextlib.contextmanager
def private_postgres() -> Iterator[str]:
    """Run a server; gives the connection string.

    Raises:
        NotAvailableError: if that cannot be done here.
    """
    initdb, server = _program("initdb"), _program("postgres")
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise NotAvailableError("there is no setpriv (of util-linux) to end PostgreSQL with us")
    user = _user()
    # Not in pytest's own directory: another user must be able to reach it.
    with tempfile.TemporaryDirectory(prefix="multielect-pg-", dir="/tmp") as directory:
        os.chown(directory, user.pw_uid, user.pw_gid)
        data = str(Path(directory) / "data")
        as_user = [
            setpriv,
            *(
                [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
                if os.geteuid() == 0
                else []
            ),
            "--pdeathsig=QUIT",
            "--",
        ]
        made = subprocess.run(
            [
                *as_user,
                initdb,
                "-D",
                data,
                "-A",
                "trust",
                "-U",
                "tests",
                "-N",
                "--locale=C",
                "--encoding=UTF8",
            ],
            check=False,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_S,
            cwd=directory,
        )
        if made.returncode:
            raise NotAvailableError(f"initdb failed: {made.stderr.strip()}")
        options = [f"-k{directory}", f"-p{PORT}", "-clisten_addresses=", "-F", QUIET]
        running = subprocess.Popen(
            [*as_user, server, "-D", data, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=directory,
            # Ctrl-C is for the tests, which then end the server themselves.
            start_new_session=True,
        )
        try:
            _wait_until_ready(running)
            yield f"host={directory} port={PORT} user=tests dbname=postgres"
        finally:
            running.send_signal(signal.SIGQUIT)
            try:
                running.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()
            assert running.stdout is not None
            running.stdout.close()


def _wait_until_ready(running: subprocess.Popen[bytes]) -> None:
    assert running.stdout is not None
    said = b""
    with selectors.DefaultSelector() as selector:
        selector.register(running.stdout, selectors.EVENT_READ)
        while READY not in said:
            chunk = b""
            if selector.select(START_TIMEOUT_S):
                chunk = os.read(running.stdout.fileno(), 65536)
            if not chunk:
                raise NotAvailableError(f"PostgreSQL did not start: {said.decode()}")
            said += chunk


def _program(name: str) -> str:
    # Debian keeps them off the PATH, by version.
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = str(places[-1]) if places else shutil.which(name)
    if found is None:
        raise NotAvailableError(f"there is no {name}: install PostgreSQL (Debian: postgresql)")
    return found


def _user() -> pwd.struct_passwd:
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise NotAvailableError("PostgreSQL does not run as root, and there is no user for it")
