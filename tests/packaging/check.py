"""Hold a built sdist and wheel against what they promise: `make check-package`.

The wheel is installed into an empty environment, away from the source tree, and holds an
election there: first with what multielect depends on and nothing else, against a server that
this process runs; then with its extras, against the one that it brings.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path, PurePosixPath

from multielect.embedded import EmbeddedServer

IN_BOTH = {"*.lua", "*.pxd", "*.pyi", "py.typed", "*.csv.zip"}
IN_SDIST = IN_BOTH | {"*.pyx", "Makefile", "CHANGELOG.md", "LICENSE", "tests/conftest.py"}
IN_WHEEL = IN_BOTH | {"*.so", "*.dist-info/licenses/LICENSE"}
NEVER_IN_SDIST = {"multielect/*.c", "_*/*.c", "balance/*.c", "streams/*.c", "*.so", "*.pyc"}
NEVER_IN_WHEEL = {"*.c", "*.pyx", "*.pyc", "tests/*"}

ELECTION = """
import sys
from multielect import ElectionGroup

with ElectionGroup(sys.argv[1], prefix="smoke", ttl=2.0) as group:
    election = group.add("only")
    assert election.wait(timeout=10), "nobody was elected within 10 s"
    assert election.require_leader() > 0
    assert election.is_leader
assert not election.is_leader
"""

WITH_EXTRAS = """
import subprocess, sys
from multielect.embedded import EmbeddedServer, bundled_binary

with EmbeddedServer(binary=bundled_binary()) as server:
    subprocess.run([sys.executable, "-I", "-c", sys.argv[1], server.url], check=True)
"""


class WrongPackageError(Exception):
    """A distribution that is not as promised; the message says how."""


def check_names(path: Path, names: list[str], wanted: set[str], unwanted: set[str]) -> None:
    """Compare the files of a distribution with patterns of what it must and must not hold."""
    files = [PurePosixPath(name) for name in names]
    if missing := [part for part in wanted if not any(file.match(part) for file in files)]:
        raise WrongPackageError(f"{path.name} holds no {', no '.join(sorted(missing))}")
    if extra := [str(file) for file in files if any(file.match(part) for part in unwanted)]:
        raise WrongPackageError(f"{path.name} must not hold {', '.join(extra)}")


def check_every_module_is_compiled(sdist: list[str], wheel: list[str]) -> None:
    """See that each .pyx of the sdist became a module of the wheel."""
    compiled = {name.split(".", 1)[0] for name in wheel if name.endswith(".so")}
    sources = {
        name.split("/src/", 1)[1][: -len(".pyx")]
        for name in sdist
        if "/src/" in name and name.endswith(".pyx")
    }
    if compiled != sources:
        raise WrongPackageError(f"of {sorted(sources)} the wheel holds {sorted(compiled)}")


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in `cwd`, with bounded time, and raise with its output if it fails."""
    done = subprocess.run(
        command, cwd=cwd, check=False, capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        shown = " ".join(str(part) for part in command[:4])
        raise WrongPackageError(
            f"{shown} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        )
    return done


def check_installed(wheel: Path, nowhere: Path) -> None:
    """Install the wheel into an empty environment and use it there."""
    venv.create(nowhere / "venv", with_pip=True)
    python = nowhere / "venv" / "bin" / "python"
    install: list[str | Path] = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]

    run(*install, str(wheel), cwd=nowhere)
    with EmbeddedServer() as server:
        run(python, "-I", "-c", ELECTION, server.url, cwd=nowhere)
    print("an election, with nothing but its dependencies: held")

    run(*install, f"{wheel}[cli,embedded]", cwd=nowhere)
    run(python, "-I", "-c", WITH_EXTRAS, ELECTION, cwd=nowhere)
    run(nowhere / "venv" / "bin" / "multielect", "demo", "--help", cwd=nowhere)
    print("an election and the command line, with the extras: held")


def main() -> None:
    """Check the one sdist and the one wheel in the directory that the command line names."""
    dist = Path(sys.argv[1]).resolve()
    (sdist,) = dist.glob("*.tar.gz")
    (wheel,) = dist.glob("*.whl")
    with tarfile.open(sdist) as archive:
        in_sdist = archive.getnames()
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = archive.namelist()
    check_names(sdist, in_sdist, IN_SDIST, NEVER_IN_SDIST)
    check_names(wheel, in_wheel, IN_WHEEL, NEVER_IN_WHEEL)
    check_every_module_is_compiled(in_sdist, in_wheel)
    print(f"{sdist.name}, {wheel.name}: hold what they should")
    with tempfile.TemporaryDirectory(prefix="multielect-package-") as nowhere:
        check_installed(wheel, Path(nowhere))


if __name__ == "__main__":
    try:
        main()
    except WrongPackageError as wrong:
        sys.exit(f"check-package: {wrong}")
