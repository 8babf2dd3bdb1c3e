"""Imports go down only, and every module has a place.

The table below is the picture in the package's docstring, bottom up: each may import only what
stands before it. A module that it does not name fails the test, so that whoever adds one says where
it belongs; so does a name without a module. Imports that only the type checker sees count like any
other; so do those of stubs. Within a folder they alone may go round in a circle.
"""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import multielect

if TYPE_CHECKING:
    from collections.abc import Iterator

ORDER = (
    # What Python gives, errors, what is said to Redis.
    "_runtime",
    "errors",
    "_protocol",
    # Pure: no sockets, no clock, no threads. Who should lead what; the core; input.
    "balance",
    "_core",
    "_settings",
    # What users hold of an election.
    "election",
    # One node: its log, its connection, the threads in between, its fleet, its callbacks.
    "_logging",
    "_connection",
    "_engine",
    "_fleet",
    "_callbacks",
    "_node",
    # The public classes.
    "elector",
    "group",
    "aio",
    "__init__",
    # What people and programs touch.
    "fencing",
    "streams",
    "cli",
    "__main__",
)
LEVELS: dict[str, int] = {name: level for level, name in enumerate(ORDER)}

BESIDE: dict[str, int] = {
    # Stand beside the layers; with the highest level that they may import.
    "embedded": LEVELS["errors"],
    "testing": LEVELS["fencing"],
}

MAY_IMPORT_BESIDE = {"cli", *BESIDE}

OF_OTHERS = {"redis", "hiredis"}
OF_OTHERS_IN_CLI = OF_OTHERS | {"click", "rich", "matplotlib"}
NOT_AT_RUN_TIME = {
    ".pxd": {"cpython", "cython", "libc", "posix"},
    ".pyx": {"cpython", "cython", "libc", "posix"},
    ".pyi": {"typing_extensions"},  # every type checker brings it
}

_STRING_OR_COMMENT = re.compile(r'("""|\'\'\')(?:\\.|(?!\1).)*\1|#[^\n]*', re.DOTALL)
_FROM = re.compile(
    r"^[ \t]*from[ \t]+(\.*[\w.]*)[ \t]+c?import[ \t]+(\([^)]*\)|[^\n]+)", re.MULTILINE
)
_IMPORT = re.compile(r"^[ \t]*c?import[ \t]+([^\n(]+)", re.MULTILINE)


@dataclass(frozen=True)
class Source:
    """One file of the package."""

    path: Path
    module: str
    is_package: bool

    @property
    def component(self) -> str:
        """The name under which the table knows it."""
        parts = self.module.split(".")
        return parts[1] if len(parts) > 1 else "__init__"

    def absolute(self, name: str, dots: int) -> str:
        """Return the full name of what this file calls `name` after so many dots."""
        if not dots:
            return name
        parts = self.module.split(".")
        up = dots - 1 if self.is_package else dots
        return ".".join([*parts[: len(parts) - up], *([name] if name else [])])


def sources(package: Path) -> list[Source]:
    found = []
    for path in sorted(package.rglob("*")):
        if path.suffix in {".py", ".pyi", ".pyx", ".pxd"}:
            names = [package.name, *path.relative_to(package).with_suffix("").parts]
            is_package = names[-1] == "__init__"
            found.append(Source(path, ".".join(names[:-1] if is_package else names), is_package))
    return found


def imports(source: Source, *, typing: bool = True) -> Iterator[tuple[str, list[str]]]:
    """Yield each imported module's full name, with the names taken from it."""
    text = source.path.read_text("utf-8")
    if source.path.suffix in {".py", ".pyi"}:
        if not typing and source.path.suffix == ".pyi":
            return
        tree = ast.parse(text)
        for node in ast.walk(tree if typing else _AtRunTime().visit(tree)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield alias.name, []
            elif isinstance(node, ast.ImportFrom):
                names = [alias.name for alias in node.names]
                yield source.absolute(node.module or "", node.level), names
        return
    code = _STRING_OR_COMMENT.sub("", text).replace("\\\n", " ")
    for origin, taken in _FROM.findall(code):
        name = origin.lstrip(".")
        names = [part.split()[0] for part in taken.strip("() \t").split(",") if part.strip()]
        yield source.absolute(name, len(origin) - len(name)), names
    for listed in _IMPORT.findall(code):
        for part in listed.split(","):
            yield part.split()[0], []


def out_of_order(files: list[Source], package: str) -> list[str]:
    """Return what breaks the order that the docstring of `_core` tells."""
    (told,) = (each for each in files if each.module == f"{package}._core")
    docstring = ast.get_docstring(ast.parse(told.path.read_text("utf-8"))) or ""
    order = re.findall(r"^ {4}(\w+) {2,}\S", docstring, re.MULTILINE)
    there = {each.module.split(".")[-1] for each in files if each.component == "_core"} - {"_core"}
    found = [f"_core/{name}: the docstring and the folder differ" for name in {*order} ^ there]
    modules = {each.module for each in files}
    for source in files:
        for target in targets(source, modules):
            here, name = source.module.split(".")[-1], target.split(".")[-1]
            if source.component == "_core" and target.startswith(f"{package}._core."):
                is_below = {here, name} <= {*order} and order.index(name) <= order.index(here)
                found += [] if is_below else [f"_core/{here}: imports {name}, which is above it"]
    return found


def circles(files: list[Source], package: str) -> list[str]:
    """Return, for each folder, the modules that import each other."""
    graphs: dict[str, TopologicalSorter[str]] = {}
    for source in files:
        graph = graphs.setdefault(source.component, TopologicalSorter())
        for target in targets(source, {each.module for each in files}, typing=False):
            if target.startswith(f"{package}.{source.component}.") and target != source.module:
                graph.add(source.module, target)
    found = []
    for graph in graphs.values():
        try:
            graph.prepare()
        except CycleError as error:
            found.append(f"{' -> '.join(reversed(error.args[1]))}: import each other in a circle")
    return found


class _AtRunTime(ast.NodeTransformer):
    """Takes out what only the type checker sees."""

    def visit_If(self, node: ast.If) -> ast.AST:
        if ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
        return node


def targets(source: Source, modules: set[str], *, typing: bool = True) -> Iterator[str]:
    """Yield the full name of each module that a file imports."""
    for origin, names in imports(source, typing=typing):
        whole = [f"{origin}.{name}" for name in names]
        yield from {part if part in modules else origin for part in whole} or {origin}


def faults(package: Path) -> list[str]:
    """Return what breaks the layers in this package, in words."""
    files = sources(package)
    modules = {source.module for source in files}
    gone = (LEVELS | BESIDE).keys() - {source.component for source in files}
    found = [f"{name}: is in the table of layers, but gone" for name in sorted(gone)]
    found += [
        f"{source.path.name}: has no place in the table of layers"
        for source in files
        if source.component not in LEVELS | BESIDE
    ]
    for source in files:
        if source.component not in LEVELS | BESIDE:
            continue
        for target in targets(source, modules):
            fault = _fault(source, target, package.name)
            found += [f"{source.module} ({source.path.suffix}): {fault}"] if fault else []
    return found + circles(files, package.name)


def _fault(source: Source, target: str, package: str) -> str | None:
    here = source.component
    top, *rest = target.split(".")
    if top != package:
        return None if top in _allowed_from_outside(source) else f"imports {top}, no dependency"
    there = rest[0] if rest else "__init__"
    if there == here:
        return None
    if there in BESIDE:
        return None if here in MAY_IMPORT_BESIDE else f"imports {there}, which is for tests"
    if there not in LEVELS or LEVELS[there] > (LEVELS | BESIDE)[here]:
        return f"imports {there}, which is above it"
    return None


def _allowed_from_outside(source: Source) -> frozenset[str]:
    of_others = OF_OTHERS_IN_CLI if source.component == "cli" else OF_OTHERS
    return sys.stdlib_module_names | of_others | NOT_AT_RUN_TIME.get(source.path.suffix, set())


def test_imports_go_down_only() -> None:
    assert multielect.__file__ is not None
    package = Path(multielect.__file__).parent
    assert faults(package) == []


SOUND = {
    "__init__.py": "from .group import Group\n",
    "group.py": '"""\nfrom .cli import not_code\n"""\nfrom . import _engine, errors\n',
    "errors.py": "import enum\n",
    "_engine.py": "import redis\nfrom ._core.core import Core\nfrom multielect._core import core\n",
    "_core/__init__.py": "",
    "_core/core.pyx": "from libc.stdint cimport int8_t\nfrom ..errors import (\n    A,\n)\n",
    "_core/core.pxd": "from .slots cimport Slot  # from multielect.cli import this\n",
    "_core/slots.pxd": 'cdef extern from "header.h":\n    pass\n',
    "_core/core.pyi": "from multielect.errors import MultielectError\n",
    "cli/__init__.py": "import click\nfrom multielect import ElectionGroup\n",
    "cli/demo/run.py": "from ...embedded import EmbeddedServer\nfrom ..view import View\n",
    "cli/view.py": "import rich.live\n",
    "embedded.py": "from .errors import MultielectError\n",
    "testing.py": "from multielect._engine import Engine\n",
}

PLANTED = [
    ("errors.py", "from ._keys import x", None),
    ("errors.py", "from . import group", "above it"),
    ("errors.py", "import multielect.group", "above it"),
    ("_engine.py", "def f():\n    from multielect.group import G", "above it"),
    ("_engine.py", "from multielect import ElectionGroup", "above it"),
    ("_engine.py", "if TYPE_CHECKING:\n    from .elector import E", "above it"),
    ("_core/core.pyx", "from multielect._engine cimport E", "above it"),
    ("_core/core.pyx", "cimport multielect._engine", "above it"),
    ("_core/core.pyx", "from .. import (\n    errors,\n    group)", "above it"),
    ("_core/core.pyx", "from \\\n    .._engine import x", "above it"),
    ("_core/slots.pxd", "    from .._engine cimport E", "above it"),
    ("_core/core.pyi", "from ..group import G", "above it"),
    ("_core/core.pyx", "import click", "no dependency"),
    ("_core/core.pyx", "import hiredis", None),
    ("_core/__init__.py", "import cython", "no dependency"),
    ("group.py", "import rich", "no dependency"),
    ("group.py", "from .embedded import EmbeddedServer", "for tests"),
    ("_engine.py", "from . import testing", "for tests"),
    ("embedded.py", "from ._engine import Engine", "above it"),
    ("testing.py", "from .group import Group", None),
    ("testing.py", "from .streams import Batch", "above it"),
    ("group.py", "from .cli import main", "above it"),
    ("_engine.py", "from ._fleet.plan import Plan", "above it"),
    ("_core/slots.pxd", "from .core cimport Core", "in a circle"),
    ("cli/view.py", "from .demo.run import main", "in a circle"),
    ("cli/view.py", "if TYPE_CHECKING:\n    from .demo.run import main", None),
    ("group.py", "from .nowhere import x", "above it"),
    ("novelty.py", "", "no place"),
    ("novelty/__init__.py", "", "no place"),
]


@pytest.mark.parametrize(("file", "line", "message"), PLANTED)
def test_the_check_sees_what_is_planted(
    tmp_path: Path, file: str, line: str, message: str | None
) -> None:
    package = tmp_path / "multielect"
    for name, text in SOUND.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for component in (LEVELS | BESIDE).keys() - {
        name.split("/")[0].split(".")[0] for name in SOUND
    }:
        (package / f"{component}.py").touch()
    assert faults(package) == []

    planted = package / file
    planted.parent.mkdir(exist_ok=True)
    with planted.open("a") as end:
        end.write(f"{line}\n")

    found = faults(package)
    assert [message in fault for fault in found if message] == ([True] if message else [])


def test_the_check_sees_what_is_gone(tmp_path: Path) -> None:
    for component in (LEVELS | BESIDE).keys() - {"elector"}:
        (tmp_path / f"{component}.py").touch()
    assert faults(tmp_path) == ["elector: is in the table of layers, but gone"]


MAY_REACH_A_NODE = {"multielect._node.interface", "multielect.election"}
"""Modules that lead from a handle of a user's to the node behind it, each by functions."""


def reached(package: Path) -> list[str]:
    """Return where a module takes a node out of somebody else's handle."""
    return [
        f"{source.module}: {ast.unparse(found)}"
        for source in sources(package)
        if source.path.suffix == ".py" and source.module not in MAY_REACH_A_NODE
        for found in ast.walk(ast.parse(source.path.read_text("utf-8")))
        if isinstance(found, ast.Attribute)
        and found.attr == "_node"
        and not (isinstance(found.value, ast.Name) and found.value.id == "self")
    ]


def test_nodes_are_reached_through_their_interface() -> None:
    assert multielect.__file__ is not None
    assert reached(Path(multielect.__file__).parent) == []


def test_the_check_sees_who_reaches_for_a_node(tmp_path: Path) -> None:
    (tmp_path / "group.py").write_text("def f(self):\n    return self._node.layout\n")
    (tmp_path / "fencing.py").write_text("def f(group):\n    return group._node.layout\n")
    assert reached(tmp_path) == [f"{tmp_path.name}.fencing: group._node"]


def test_the_core_is_in_the_order_that_it_tells() -> None:
    package = Path(multielect.__file__).parent
    assert out_of_order(sources(package), package.name) == []


def test_the_check_sees_what_is_out_of_order(tmp_path: Path) -> None:
    core = tmp_path / "multielect" / "_core"
    core.mkdir(parents=True)
    (core / "__init__.py").write_text(
        '"""The core.\n\nIn order:\n\n    slots   below\n    lane    above\n    gone    x\n"""'
    )
    (core / "slots.pxd").write_text("from .lane cimport Lane\n")
    (core / "lane.pyx").write_text("from .slots cimport Slots\n")
    (core / "new.pyx").write_text("")
    assert sorted(out_of_order(sources(core.parent), "multielect")) == [
        "_core/gone: the docstring and the folder differ",
        "_core/new: the docstring and the folder differ",
        "_core/slots: imports lane, which is above it",
    ]
