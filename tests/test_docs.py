"""The pages for people agree with the tree, and with each other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "multielect"
DESIGN = ROOT / "docs" / "design.md"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
MAX_README_LINES = 160

_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_IN_DOCS = re.compile(r"\bP(\d+)\b")
_IN_CODE = re.compile(r"\b[Pp]romise (\d+)\b")  # P99 is a percentile there


def prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    return _FENCED.sub("", page.read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    """Return what a link to a heading of this page may name, as GitHub makes it."""
    headings = _HEADING.findall(prose(page))
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def promises() -> list[int]:
    """Return the numbers of the promises of the design, in its order."""
    return [int(number) for number in re.findall(r"^\*\*P(\d+)\. ", prose(DESIGN), re.MULTILINE)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in _LINK.findall(prose(page)):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_linked_from_the_readme_or_from_a_page_that_is() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        names = (link.partition("#")[0] for link in _LINK.findall(prose(page)) if "://" not in link)
        waiting += [(page.parent / name).resolve() for name in names if name]
    assert set(PAGES) <= reached


def test_the_layout_of_the_design_is_that_of_the_package() -> None:
    text = DESIGN.read_text("utf-8")
    (layout,) = re.findall(r"^src/multielect/\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    told = re.findall(r"^  (\S+)", layout, re.MULTILINE)
    there = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert told == sorted(told)
    assert set(told) == there


def test_the_promises_are_numbered_and_those_that_are_cited_are_there() -> None:
    numbers = promises()
    assert numbers == list(range(1, len(numbers) + 1))
    cited = [(page.name, found) for page in PAGES for found in _IN_DOCS.findall(prose(page))]
    for folder in ("src", "tests"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".py", ".pyx", ".pxd"}:
                cited += [(path.name, found) for found in _IN_CODE.findall(path.read_text("utf-8"))]
    assert {name for name, _ in cited} > {"design.md", "server_clock.pyx"}
    assert [(name, found) for name, found in cited if int(found) not in numbers] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= MAX_README_LINES
