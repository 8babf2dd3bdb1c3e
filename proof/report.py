"""The report of a proof: one page for people, one file for programs, and the tables of the docs.

Rules of this file:
    * The pages of the docs are written by hand. Only the text between their marks is replaced, by
      the results of a run.
    * Each mark occurs once, on one page.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from .part import Part, Scale

PAGES = ("reliability.md", "protocol-model.md")
"""The pages in ``docs/`` that have marks."""

_MARKED = re.compile(r"(<!-- (table|summary): (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def machine() -> str:
    """Return a description of this machine, in one line."""
    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores,"
        f" CPython {platform.python_version()}"
    )


def as_markdown(parts: Sequence[Part], scale: Scale) -> str:
    """Return the report for people, as Markdown."""
    lines = ["# Results of the proof", "", f"On {machine()}; seed {scale.seed}.", ""]
    lines += ["| part | verdict | took |", "| --- | --- | ---: |"]
    lines += [f"| {part.title} | {part.verdict} | {_span(part.seconds)} |" for part in parts]
    for part in parts:
        lines += ["", f"## {part.title}", "", part.skipped or part.summary]
        for table in part.tables:
            lines += ["", table.markdown()]
        for trouble in part.trouble:
            lines += ["", "```", trouble, "```"]
    return "\n".join(lines) + "\n"


def as_json(parts: Sequence[Part], scale: Scale) -> str:
    """Return the report for programs, as JSON."""
    told = {
        "machine": machine(),
        "scale": asdict(scale),
        "parts": [asdict(part) | {"verdict": part.verdict} for part in parts],
    }
    return json.dumps(told, indent=1, default=str) + "\n"


def write(parts: Sequence[Part], scale: Scale, folder: Path) -> Path:
    """Write both reports into a folder. Returns the path of the one for people."""
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "report.md"
    page.write_text(as_markdown(parts, scale), "utf-8")
    (folder / "report.json").write_text(as_json(parts, scale), "utf-8")
    return page


def put_into(text: str, parts: Sequence[Part]) -> str:
    """Return a page with new tables and summaries of these parts between its marks."""
    found = {f"summary: {part.name}": f"{part.summary}\n" for part in parts if not part.skipped}
    for part in parts:
        found |= {f"table: {table.name}": f"{table.markdown()}\n" for table in part.tables}

    def anew(mark: re.Match[str]) -> str:
        made = found.get(f"{mark[2]}: {mark[3]}")
        return mark[0] if made is None else f"{mark[1]}{made}{mark[4]}"

    return _MARKED.sub(anew, text)


def write_docs(parts: Sequence[Part], folder: Path) -> None:
    """Replace the marked tables and summaries of these parts on the pages in this folder."""
    for page in (folder / name for name in PAGES):
        page.write_text(put_into(page.read_text("utf-8"), parts), "utf-8")


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
