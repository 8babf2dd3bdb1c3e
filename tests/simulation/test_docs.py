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


def test_each_call_of_the_table_is_there() -> None:
    table = re.findall(r"^\| `(.*)` \|", PAGE.read_text("utf-8"), re.MULTILINE)
    calls = [name for row in table for name in re.findall(r"(?:^|`)([a-z_.]+)", row)]
    assert len(calls) > 20
    with SimulatedWorld() as world:
        for call in calls:
            found: Any = world
            for name in call.split("."):
                found = getattr(found, name)
