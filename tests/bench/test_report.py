"""What was found is told to people in 80 columns, and as JSON with all that it follows from."""

from __future__ import annotations

import io
import json
import statistics

import pytest
from rich.console import Console

from multielect.cli.bench.results.findings import Case, Findings, Key
from multielect.cli.bench.results.report import print_machine, print_suite, to_json
from multielect.cli.bench.results.spread import Bound

from .examples import CASE, OURS, WALL, Example, found


def printed(findings: Findings, *, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding=encoding)
    print_suite(Console(file=out, width=80, highlight=False), Example(), findings)
    out.flush()
    return raw.getvalue().decode(encoding)


def test_the_median_of_ratios_is_told_beside_the_bound() -> None:
    text = printed(found())

    assert "example: What would it cost?" in text
    # The ratio of the medians would be 1.4 as well; that of the means 1.3, of the last 1.3.
    assert "wall against the limit" in text
    assert "to reach: at most 1.5 - reached 1.30" in text
    assert "to reach: at most 2 - reached 1.40" in text
    assert "NO" not in text


def test_a_bound_that_is_missed_is_said_so() -> None:
    findings = found()
    findings.expect("wall, in half", OURS, Bound(at_most=0.7))

    (line,) = [line for line in printed(findings).splitlines() if "in half" in line]
    assert line.endswith("to reach: at most 0.7 - reached 1.40, NO")


def test_the_table_has_a_row_each_and_a_column_each() -> None:
    lines = printed(found()).splitlines()

    assert any(line.split() == ["wall", "wall"] for line in lines)
    assert any(line.split() == ["us", "a", "lease", "times", "ours"] for line in lines)
    assert "10,000 leases" in lines
    (row,) = [line for line in lines if line.startswith("  the limit")]
    assert row.split() == ["the", "limit", "1", "±225%", "0.769", "±4%"]


def test_it_fits_80_columns_and_is_plain() -> None:
    findings = found()
    findings.expect("words that go on and on, " * 3 + "and on", OURS, Bound(at_most=0.7))
    findings.notes.append("and on and on " * 20)
    findings.not_measured["somebody"] = "it is not there, " * 10

    text = printed(findings)

    assert max(map(len, text.splitlines())) < 80
    assert "\x1b" not in text
    assert "somebody: not measured: it is not there" in text


def test_it_can_be_told_in_ascii() -> None:
    assert "+-4%" in printed(found(), encoding="ascii")


def test_nothing_found_is_nothing_told() -> None:
    findings = Findings()
    findings.expect("wall", OURS, Bound(at_most=1))

    assert printed(findings).strip() == "example: What would it cost?"
    assert findings.to_json()["expected"] == []


def test_json_follows_from_its_rounds() -> None:
    told = json.loads(json.dumps(to_json({"server": "x"}, [(Example(), found())], quick=True)))

    assert told["machine"] == {"server": "x"}
    assert told["quick"] is True
    suite = told["suites"]["example"]
    assert suite["question"] == "What would it cost?"
    by_subject = {one["subject"]: one for one in suite["figures"]}
    assert by_subject["the limit"]["rounds"] == [1.0, 1.0, 10.0]
    assert by_subject["multielect"] | {"rounds": ...} == {
        "case": "10,000 leases", "size": 10_000, "subject": "multielect", "quantity": "wall",
        "unit": "us a lease", "median": 1.4, "low": pytest.approx(1.3),
        "high": pytest.approx(7.2), "least": 1.2, "most": 13.0, "rounds": ...,
    }  # fmt: skip
    for ratio in suite["ratios"]:
        over = by_subject[ratio["over"]["subject"]]["rounds"]
        under = by_subject[ratio["under"]["subject"]]["rounds"]
        assert ratio["rounds"] == [a / b for a, b in zip(over, under, strict=True)]
        assert ratio["median"] == statistics.median(ratio["rounds"])
    assert suite["ratios"][0]["to_reach"] == "at most 1.5"
    assert suite["ratios"][0]["reached"] is True
    assert suite["expected"][0]["median"] == 1.4


def test_what_was_not_measured_is_held_against_nothing() -> None:
    findings = found()
    findings.expect("of another size", Key(Case.of(1), "multielect", WALL), Bound(at_most=1))

    assert [words for words, *_ in findings.verdicts()] == [
        "wall against the limit", "wall, us a lease",
    ]  # fmt: skip
    assert CASE.label == "10,000 leases"


def test_the_machine_is_told() -> None:
    out = io.StringIO()
    print_machine(Console(file=out, width=80), {"server": "Valkey 9", "machine": "fast " * 30})

    assert "server      Valkey 9" in out.getvalue()
    assert max(map(len, out.getvalue().splitlines())) < 80
