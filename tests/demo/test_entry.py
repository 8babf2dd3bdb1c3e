"""The ways to the command line, and that the server has one name on all of it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from multielect import __version__
from multielect.cli.command import multielect

WITHOUT = "import runpy, sys; sys.modules[{package!r}] = None; runpy.run_module('multielect')"


def test_the_module_does_what_the_command_does() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "multielect", "--version"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == f"multielect, version {__version__}\n"


@pytest.mark.parametrize("package", ["click", "rich"])
def test_it_says_what_to_install_for_the_command_line(package: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(package=package)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"multielect: the command line needs {package}, which is not installed.\n"
        "Install it with:  pip install 'multielect[cli,embedded]'\n"
    )


@pytest.mark.parametrize("command", sorted(multielect.commands))
def test_the_server_is_named_by_url_everywhere(command: str) -> None:
    helped = CliRunner().invoke(multielect, [command, "--help"], prog_name="multielect")
    assert "--url URL" in helped.output
    assert "--redis" not in helped.output
    ended = CliRunner().invoke(multielect, [command, "--redis", "redis://localhost:1"])
    assert ended.exit_code == 2
    assert "there is no option --redis: use --url for the server" in ended.output
