"""Where nothing can compile the core, the last line says what to install."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("Cython", reason="Cython, which builds the core, is not installed")

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("compiler", ["/nonexistent/cc", "false"])
def test_the_last_line_says_what_to_install(tmp_path: Path, compiler: str) -> None:
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    package = tmp_path / "src" / "multielect"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "_one.pyx").write_text("def one():\n    return 1\n")
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=tmp_path,
        env={**os.environ, "CC": compiler},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    *_, before, last = done.stderr.splitlines()
    assert before.startswith("multielect could not be compiled: ")
    assert compiler in before
    assert last.startswith("Building it takes a C compiler and Python's headers. Install gcc and")
    assert "set CC" in last
    assert "Traceback" not in done.stderr
