"""The recipes of docs/fencing.md, which is where they are kept, by the names they have there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "fencing.md"


def recipes(language: str = "sql") -> dict[str, str]:
    """Return each named block of the page; in SQL, with parameters spelled ``:name``."""
    named = rf"^```{language} ([a-z-]+)\n(.*?)^```$"
    blocks = re.findall(named, PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
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
