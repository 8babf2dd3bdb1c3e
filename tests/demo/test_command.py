"""What the user got wrong is said in a line, before anything is started."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from multielect.cli.command import multielect
from multielect.cli.demo.plan import Plan
from multielect.embedded import EmbeddedServer, EmbeddedServerError

if TYPE_CHECKING:
    from pathlib import Path


def run(*args: str) -> tuple[int, str]:
    ended = CliRunner().invoke(multielect, ["demo", *args], prog_name="multielect")
    return ended.exit_code, ended.output


@pytest.mark.parametrize("args", [["--help"], ["demo", "--help"], ["demo", "-h"]])
def test_help_fits_80_columns(args: list[str]) -> None:
    ended = CliRunner().invoke(multielect, args, prog_name="multielect")

    assert ended.exit_code == 0
    assert "demo" in ended.output
    assert max(map(len, ended.output.splitlines())) <= 80


def test_help_teaches() -> None:
    _, text = run("--help")

    for words in (
        "Each aircraft is a",
        "kill -9",
        "a fourth joins",
        "Exit status",
        "multielect demo --url redis://localhost:6379/0",
        "--nodes",
        "default: 3",
        "--ttl",
        "--seconds",
        "--events",
        "--json",
        "--no-kill",
        "--no-freeze",
        "--no-join",
        "--cluster",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--nodes", "1"], "1 is not in the range 2<=x<=16"),
        (["--nodes", "three"], "'three' is not a valid integer"),
        (["--ttl", "0.1"], "0.1 is not in the range"),
        (["--seconds", "0"], "is not in the range"),
        (["--events", "nowhere.csv"], "'nowhere.csv' does not exist"),
        (["--url", "localhost"], "Redis URL must specify one of the following schemes"),
        (["--url", "redis://localhost:port"], "--url"),
        (["--url", "redis+cluster://:6379"], "must name nodes as HOST:PORT"),
        (["--cluster", "--url", "redis://localhost:6379"], "leave out --url"),
        (["--json", "nowhere/figures.json"], "no directory nowhere"),
    ],
)
def test_wrong_options_are_refused(args: list[str], message: str) -> None:
    status, text = run(*args)

    assert status == 2
    assert message in text
    assert "Traceback" not in text


def test_events_without_aircraft_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("flight\n1\n")
    status, text = run("--events", str(path))

    assert status == 2
    assert "no column 'tailnum'" in " ".join(text.split())


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
def test_a_server_that_is_not_there_is_reported(scheme: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        status, text = run("--url", f"{scheme}://127.0.0.1:{unused.getsockname()[1]}")

    assert status == 1
    assert "cannot use the server at --url" in text
    assert "onnection refused" in text
    assert "Traceback" not in text


def test_a_wrong_password_is_reported(binary: str) -> None:
    with EmbeddedServer(binary=binary, settings={"requirepass": "right"}) as server:
        status, text = run("--url", server.url.replace("right", "wrong"))

    assert status == 1
    assert "cannot use the server at --url" in text


def test_without_any_server_program_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_server(_self: EmbeddedServer) -> None:
        raise EmbeddedServerError("there is no Redis server to run: install one")

    monkeypatch.setattr(EmbeddedServer, "start", no_server)
    status, text = run()

    assert status == 1
    assert text.endswith("Error: there is no Redis server to run: install one\n")


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra_it_says_what_to_install(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from multielect.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )

    assert ended.returncode == 1
    assert f"needs {missing}" in ended.stderr
    assert "pip install 'multielect[cli,embedded]'" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("plan", "frozen", "joining", "killed", "stopped"),
    [
        (Plan.make(2), "node-2", "node-3", "node-1", "node-2"),
        (Plan.make(2, join=False), "node-2", None, "node-1", None),
        (Plan.make(2, join=False, kill=False), "node-2", None, None, "node-1"),
        (Plan.make(3), "node-3", "node-4", "node-1", "node-2"),
        (Plan.make(3, freeze=False, join=False), None, None, "node-1", "node-2"),
        (Plan.make(5, kill=False), "node-5", "node-6", None, "node-1"),
    ],
)
def test_one_node_at_least_stays_to_the_end(
    plan: Plan, frozen: str | None, joining: str | None, killed: str | None, stopped: str | None
) -> None:
    assert (plan.frozen, plan.joining, plan.killed, plan.stopped) == (
        frozen, joining, killed, stopped,
    )  # fmt: skip
    assert {*plan.nodes, plan.joining} - {plan.killed, plan.stopped, None}
