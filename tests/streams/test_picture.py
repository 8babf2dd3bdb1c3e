"""The files of the streams package import only those below them, as its docstring draws it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from multielect import streams

_ROW = re.compile(r"^    ((?:_\w+, )*_\w+,?)(?:  |$)", re.MULTILINE)


def levels(picture: str) -> dict[str, int]:
    """Return the level of each file, the lowest first; a row that ends in a comma goes on."""
    found: dict[str, int] = {}
    level = 0
    for row in _ROW.findall(picture):
        found |= dict.fromkeys(re.findall(r"\w+", row), level)
        level -= not row.endswith(",")
    return found


def faults(sources: dict[str, str], picture: str) -> list[str]:
    level_of = levels(picture)
    found = [f"{name} is not in the picture" for name in sorted(sources.keys() - level_of)]
    found += [f"{name} is in the picture alone" for name in sorted(level_of.keys() - sources)]
    for name in sources.keys() & level_of:
        for node in ast.walk(ast.parse(sources[name])):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                other = (node.module or "").split(".")[0]
                if level_of.get(other, 1) > level_of[name]:
                    found.append(f"{name} imports {other}")
    return found


def sources() -> dict[str, str]:
    assert streams.__file__ is not None
    folder = Path(streams.__file__).parent
    return {
        path.stem: path.read_text("utf-8")
        for path in folder.glob("*.py")
        if path.stem != "__init__"
    }


def test_the_picture_is_true() -> None:
    assert streams.__doc__ is not None
    assert len(levels(streams.__doc__)) > 10
    assert faults(sources(), streams.__doc__) == []


def test_what_is_planted_is_seen() -> None:
    picture = "    _top           what\n    _left,\n    _right\n    _low    it\n"
    sound = {"_top": "from ._low import x", "_left": "from ._right import x", "_right": "import os"}
    assert faults({**sound, "_low": ""}, picture) == []
    assert faults({**sound, "_low": "from ._top import x"}, picture) == ["_low imports _top"]
    assert faults({**sound, "_low": "", "_new": ""}, picture) == ["_new is not in the picture"]
    assert faults(sound, picture) == ["_low is in the picture alone"]
