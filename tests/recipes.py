"""What the pages tell users to write, by the names that it has there.

A block of a page is a recipe if its first line names it after the language.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FENCING = ROOT / "docs" / "fencing.md"
STREAMS = ROOT / "docs" / "streams.md"
WORKERS = ROOT / "docs" / "workers.md"
README = ROOT / "README.md"


def recipes(language: str = "sql", page: Path = FENCING) -> dict[str, str]:
    """Return each named block of a page; in SQL, with parameters spelled ``:name``."""
    named = rf"^```{language} ([a-z-]+)\n(.*?)^```$"
    blocks = re.findall(named, page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    found = dict(blocks)
    assert len(found) == len(blocks), "two recipes have one name"
    return found


def function(name: str, guard: str | bytes) -> Callable[..., Any]:
    """Return the `write` that the Python block of this name defines."""
    there: dict[str, Any] = {"GUARD": guard}
    exec(recipes("python")[name], there)  # the page is ours
    write: Callable[..., Any] = there["write"]
    return write


def as_psycopg(statement: str) -> str:
    """Return the statement with its parameters spelled as psycopg wants them."""
    return re.sub(r":([a-z_]+)", r"%(\1)s", statement)
