"""That the examples of docs/testing.md run, and find what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from multielect.testing import SimulatedWorld

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_an_example_passes(block: str) -> None:
    there: dict[str, Any] = {}
    exec(block, there)  # the page is ours
    (test,) = [value for name, value in there.items() if name.startswith("test_")]
    test()


def test_each_call_of_the_tables_is_there() -> None:
    """The first table has methods of the world, the second those of a server."""
    tables = re.findall(r"(?:^\|.*\n)+", PAGE.read_text("utf-8"), re.MULTILINE)
    with SimulatedWorld() as world:
        for there, table in zip((world, world.server), tables, strict=True):
            calls = re.findall(r"[|,] `([a-z_.]+)", table)
            assert len(calls) >= 10
            for call in calls:
                found: Any = there
                for name in call.split("."):
                    found = getattr(found, name)
