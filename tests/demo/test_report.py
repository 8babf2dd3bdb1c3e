"""The summary says what happened and what did not hold; the JSON has every promised figure."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from multielect.cli.demo.report import print_report, to_json
from multielect.cli.demo.result import Crash, Freezing, Result
from multielect.cli.demo.takeover import Takeovers
from multielect.cli.demo.verdict import Verdict

from .examples import change

GOOD = Verdict(
    events=1000,
    committed=1000,
    commits=700,
    lost=0,
    duplicates=0,
    out_of_order=0,
    wrong_digests=0,
    by_no_leader=0,
    terms=90,
    falling_epochs=0,
    overlaps=0,
    overlap_ms=0.0,
    unpaired=0,
    planned_moves=31,
    planned_lost=0,
    idle_joins=0,
    unbalanced=0,
)
FAULTS = {
    "lost": "every event was committed",
    "duplicates": "once",
    "out_of_order": "in order",
    "wrong_digests": "in order",
    "by_no_leader": "by a leader",
    "falling_epochs": "epochs rise",
    "overlaps": "one leader at a time",
    "unpaired": "callbacks come in pairs",
    "planned_lost": "planned moves cost no term",
    "idle_joins": "nodes that come get a share",
    "unbalanced": "shares are even",
}


def result(verdict: Verdict = GOOD) -> Result:
    made = Result(elections=30, nodes=3, all_led_ms=12.3456, even_ms=612.5, stream_s=9.9)
    made.fenced_out = 5
    made.freezing = Freezing("node-3", 10, 2.1, 5, 5, Takeovers([7.0]))
    made.join = change("node-4", least=7, moved=8)
    made.crash = Crash("node-1", 15, Takeovers([1.0, 2.0, 30.25]))
    made.verdict = verdict
    return made


def printed(shown: Result) -> str:
    written = io.StringIO()
    print_report(Console(file=written, width=80, highlight=False), shown)
    return written.getvalue()


def test_the_summary_of_a_good_run() -> None:
    text = printed(result())

    assert "PASSED" in text
    assert "NO" not in text
    assert "node-1 was killed with kill -9 while it led 15" in text
    assert "5 were refused" in " ".join(text.split())
    assert "killed: from the end of each lease             2.0      30.2      30.2" in text
    assert "joined: from the end of each term              2.0       2.0       2.0" in text
    assert "stopped: from the end of each term      did not happen in this run" in text
    assert "node-4 joined: 8 elections moved, of which 7 had to." in text
    assert max(map(len, text.splitlines())) <= 80
    assert not any(line != line.rstrip() for line in text.splitlines())


@pytest.mark.parametrize("fault", FAULTS)
def test_the_summary_marks_what_did_not_hold(fault: str) -> None:
    verdict = replace(GOOD, **{fault: 4})
    text = printed(result(verdict))

    assert not verdict.ok
    assert "FAILED" in text
    assert "PASSED" not in text
    (marked,) = [line for line in text.splitlines() if line.lstrip().startswith("NO")]
    assert FAULTS[fault] in marked


def test_the_json_has_every_figure() -> None:
    figures = to_json(result(), ttl=2.0, seconds=12.0, server="Valkey 9")

    assert json.loads(json.dumps(figures)) == {
        "ok": True,
        "server": "Valkey 9",
        "ttl_ms": 2000,
        "stream_ms": 12000,
        "elections": 30,
        "nodes": 3,
        "events": 1000,
        "committed": 1000,
        "commits": 700,
        "lost": 0,
        "duplicates": 0,
        "out_of_order": 0,
        "wrong_digests": 0,
        "by_no_leader": 0,
        "fenced_out": 5,
        "late_commits": 5,
        "terms": 90,
        "all_led_ms": 12.346,
        "even_ms": 612.5,
        "crash_takeover_ms": {"count": 3, "p50": 2.0, "p99": 30.25, "max": 30.25},
        "freeze_takeover_ms": {"count": 1, "p50": 7.0, "p99": 7.0, "max": 7.0},
        "back_takeover_ms": {"count": 0, "p50": None, "p99": None, "max": None},
        "back_least": 0,
        "join_takeover_ms": {"count": 8, "p50": 2.0, "p99": 2.0, "max": 2.0},
        "join_least": 7,
        "release_takeover_ms": {"count": 0, "p50": None, "p99": None, "max": None},
        "release_least": 0,
        "planned_moves": 31,
        "planned_lost": 0,
        "idle_joins": 0,
        "unbalanced": 0,
        "overlap_ms": 0.0,
        "overlaps": 0,
        "epochs_rise": True,
        "unpaired": 0,
    }


def test_epochs_that_fell_are_in_the_json() -> None:
    figures = to_json(
        result(replace(GOOD, falling_epochs=1)), ttl=2.0, seconds=12.0, server="Valkey 9"
    )

    assert (figures["ok"], figures["epochs_rise"]) == (False, False)
