"""The report of a proof, and what of it goes into the docs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from proof.part import QUICK, Advance, Part, Scale, Table
from proof.parts import PARTS, ROOT
from proof.report import PAGES, as_json, as_markdown, put_into, write_docs

from proof import __main__ as command

DOCS = ROOT / "docs"


def part(name: str, **given: object) -> Part:
    made = Part(name, name.title(), ok=True, summary=f"all of {name}")
    made.tables = [Table(name, ("what", ">how many"), [("a|b", "1,000")])]
    for field, value in given.items():
        setattr(made, field, value)
    return made


def test_the_report_tells_each_part_and_what_went_wrong() -> None:
    broken = part("chaos", ok=False, trouble=["round 7: I1\n  python -m again"])
    page = as_markdown([part("model"), broken, part("fuzz", skipped="clang is missing")], Scale())
    assert "| Model | holds |" in page
    assert "| Chaos | BROKEN |" in page
    assert "| Fuzz | not run |" in page
    assert "round 7: I1\n  python -m again" in page
    assert "| a\\|b | 1,000 |" in page
    assert "---:" in page


def test_the_same_for_programs() -> None:
    told = json.loads(as_json([part("model")], QUICK))
    assert told["scale"]["chaos_rounds"] == QUICK.chaos_rounds
    assert told["parts"][0]["verdict"] == "holds"


def test_only_what_was_run_is_put_into_the_docs() -> None:
    text = (
        "before\n<!-- table: model -->\nold\n<!-- end -->\n<!-- summary: model -->\n<!-- end -->\n"
        "<!-- table: chaos -->\nkept\n<!-- end -->\nafter\n"
    )
    made = put_into(text, [part("model"), part("chaos", skipped="no", tables=[])])
    assert "old" not in made
    assert "a\\|b" in made
    assert "all of model\n<!-- end -->" in made
    assert "kept" in made
    assert made.startswith("before\n")
    assert made.endswith("after\n")
    assert put_into(made, [part("model")]) == made


def marks(kind: str) -> list[str]:
    """Return the names of all marks of this kind, on all pages."""
    texts = [page.read_text("utf-8") for page in sorted(DOCS.glob("*.md"))]
    return [name for text in texts for name in re.findall(rf"<!-- {kind}: (\w+) -->", text)]


def test_the_docs_have_a_place_for_every_part() -> None:
    assert sorted(marks("summary")) == sorted(PARTS)
    text = (DOCS / "reliability.md").read_text("utf-8")
    for name in PARTS:
        assert name in text


def test_a_table_stands_in_one_place() -> None:
    tables = marks("table")
    assert "model" in tables
    assert len(tables) == len(set(tables))


def test_every_page_with_marks_is_written() -> None:
    marked = {page.name for page in DOCS.glob("*.md") if "<!-- end -->" in page.read_text("utf-8")}
    assert marked == set(PAGES)


def test_each_page_is_given_what_it_has_a_place_for(tmp_path: Path) -> None:
    for name in PAGES:
        (tmp_path / name).write_text(f"<!-- summary: {name[:5]} -->\nold\n<!-- end -->\n", "utf-8")
    write_docs([part(name[:5]) for name in PAGES if name != "protocol-model.md"], tmp_path)
    assert "all of relia\n" in (tmp_path / "reliability.md").read_text("utf-8")
    assert "old" in (tmp_path / "protocol-model.md").read_text("utf-8")


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *parts: Part | type[BaseException]) -> int:
    """Run the command with these parts in place of the real ones."""

    def giving(given: Part | type[BaseException]) -> object:
        def run_part(_: Scale, progress: Advance) -> Part:
            progress(1, 2, "something")
            if isinstance(given, Part):
                return given
            raise given

        return run_part

    monkeypatch.setattr(
        command, "PARTS", {str(number): giving(given) for number, given in enumerate(parts)}
    )
    result = CliRunner().invoke(command.main, ["--quick", "--folder", str(folder)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code


def test_it_succeeds_if_every_part_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(tmp_path, monkeypatch, part("model"), part("fuzz")) == 0
    assert "Model" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(
    "bad", [part("x", ok=False), part("x", ok=False, skipped="why")], ids=["broken", "not run"]
)
def test_it_fails_if_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: Part
) -> None:
    assert run(tmp_path, monkeypatch, part("model"), bad) == 1


def test_what_was_done_before_an_interrupt_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(tmp_path, monkeypatch, part("model"), KeyboardInterrupt, part("fuzz")) == 130
    page = (tmp_path / "report.md").read_text()
    assert "Model" in page
    assert "Fuzz" not in page


def test_what_breaks_a_part_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(tmp_path, monkeypatch, part("model"), ZeroDivisionError, part("fuzz")) == 1
    page = (tmp_path / "report.md").read_text()
    assert "Model" in page
    assert "ZeroDivisionError" in page
    assert "Fuzz" in page
