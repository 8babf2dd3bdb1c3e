"""What the user got wrong is said in a line, before anything is measured."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from multielect.cli.bench.suites import SUITES
from multielect.cli.command import multielect
from multielect.embedded import EmbeddedServer, EmbeddedServerError


def run(*args: str) -> tuple[int, str]:
    ended = CliRunner().invoke(multielect, ["bench", *args], prog_name="multielect")
    return ended.exit_code, ended.output


def test_help_teaches_in_80_columns() -> None:
    status, text = run("--help")

    assert status == 0
    assert max(map(len, text.splitlines())) <= 80
    for words in (
        "multielect bench --quick",
        "multielect bench --url redis://localhost:6379/0",
        "Trust the ratios more than the figures",
        "pip install --group peers",
        "Exit status",
        "--suite",
        "--rounds",
        "--plot",
        *(f"{suite.name:<12}{suite.question}" for suite in SUITES),
    ):
        assert words in " ".join(text.split()) or words in text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--suite", "nonsense"], "'nonsense' is not one of"),
        (["--rounds", "0"], "0 is not in the range"),
        (["--leases", "none"], "'none' is not a valid integer"),
        (["--url", "localhost"], "Redis URL must specify one of the following schemes"),
        (["--peers", "nowhere"], "'nowhere' does not exist"),
        (["--json", "nowhere/figures.json"], "no directory nowhere"),
        (["--plot", "nowhere/figures.svg"], "no directory nowhere"),
        (["--plot", "figures.svg", "--suite", "hold"], "refresh and takeover: this run"),
        (["--plot", "figures.gif"], "must end in .svg or .png"),
    ],
)
def test_wrong_options_are_refused(args: list[str], message: str) -> None:
    status, text = run(*args)

    assert status == 2
    assert message in text
    assert "Traceback" not in text


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name)
    )
    monkeypatch.setattr(EmbeddedServer, "start", _must_not_start)
    status, text = run("--plot", "figures.svg")

    assert status == 2
    assert "pip install 'multielect[cli,plot]'" in " ".join(text.split())


def test_a_server_that_is_not_there_is_reported() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        status, text = run("--url", f"redis://127.0.0.1:{unused.getsockname()[1]}")

    assert status == 1
    assert "cannot use the server at --url" in text
    assert "Traceback" not in text


def test_without_any_server_program_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(EmbeddedServer, "start", _must_not_start)
    status, text = run()

    assert status == 1
    assert "there is no Redis server to run" in text


def test_an_adapter_that_is_none_is_reported(tmp_path: Path) -> None:
    (tmp_path / "nobody.py").write_text("class Peer:\n    name = 'nobody'\n")
    status, text = run("--suite", "refresh", "--quick", "--peers", str(tmp_path))

    assert status == 1
    assert "lacks library, one_by_one, version" in " ".join(text.split())
    assert "Traceback" not in text


def _must_not_start(_self: EmbeddedServer) -> None:
    raise EmbeddedServerError("there is no Redis server to run: install one")
