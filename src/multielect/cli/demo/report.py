"""The report of a run: as text and as JSON.

Rules of this file:
    * Every line of the checklist names the figure that decides it.
    * A reader understands the report without reading anything else.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from rich.text import Text

from .takeover import Takeovers
from .view import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from .result import Change, Result
    from .verdict import Verdict


def to_json(result: Result, *, ttl: float, seconds: float, server: str) -> dict[str, Any]:
    """Return all figures of a run for JSON. Durations are in milliseconds."""
    verdict = result.verdict
    none = Takeovers([])
    freezing, crash = result.freezing, result.crash
    back, join, stop = result.back, result.join, result.stop
    return {
        "ok": verdict.ok,
        "server": server,
        "ttl_ms": round(ttl * 1000),
        "stream_ms": round(seconds * 1000),
        "elections": result.elections,
        "nodes": result.nodes,
        "events": verdict.events,
        "committed": verdict.committed,
        "commits": verdict.commits,
        "lost": verdict.lost,
        "duplicates": verdict.duplicates,
        "out_of_order": verdict.out_of_order,
        "wrong_digests": verdict.wrong_digests,
        "by_no_leader": verdict.by_no_leader,
        "fenced_out": result.fenced_out,
        "late_commits": freezing.late_commits if freezing else 0,
        "terms": verdict.terms,
        "all_led_ms": round(result.all_led_ms, 3),
        "even_ms": round(result.even_ms, 3),
        "crash_takeover_ms": (crash.takeovers if crash else none).to_json(),
        "freeze_takeover_ms": (freezing.takeovers if freezing else none).to_json(),
        "back_takeover_ms": (back.takeovers if back else none).to_json(),
        "back_least": back.least if back else 0,
        "join_takeover_ms": (join.takeovers if join else none).to_json(),
        "join_least": join.least if join else 0,
        "release_takeover_ms": (stop.takeovers if stop else none).to_json(),
        "release_least": stop.least if stop else 0,
        "planned_moves": verdict.planned_moves,
        "planned_lost": verdict.planned_lost,
        "idle_joins": verdict.idle_joins,
        "unbalanced": verdict.unbalanced,
        "overlap_ms": round(verdict.overlap_ms, 3),
        "overlaps": verdict.overlaps,
        "epochs_rise": verdict.epochs_rise,
        "unpaired": verdict.unpaired,
    }


def print_report(console: Console, result: Result) -> None:
    """Print what happened, what was checked, the figures, and the verdict."""
    for title, lines in (
        ("What happened", _story(result)),
        ("What was checked", _checklist(result.verdict)),
        ("How long elections had no leader, in milliseconds", _figures(result)),
    ):
        console.print(Text(f"\n{title}", style="bold"))
        for line in lines:
            console.print(line, soft_wrap=True)
    console.print()
    if result.verdict.ok:
        verdict = "PASSED: every event was committed once, in order, by the one leader."
        console.print(Text(verdict, style="bold green"))
    else:
        verdict = "FAILED: at least one check did not hold; see the lines marked NO."
        console.print(Text(verdict, style="bold red"))


def _story(result: Result) -> Iterator[Text]:
    for sentences in _mishaps(result):
        for line in textwrap.wrap(
            sentences, COLUMNS, initial_indent="  - ", subsequent_indent="    "
        ):
            yield Text(line)


def _mishaps(result: Result) -> Iterator[str]:
    verdict = result.verdict
    yield (
        f"{result.nodes} processes shared {result.elections:,} elections out, one an aircraft; "
        f"all were led {result.all_led_ms:,.0f} ms after the start, and after "
        f"{result.even_ms / 1e3:.1f} s every node led its share."
    )
    yield (
        f"The leader of an election processed the aircraft's events: {verdict.committed:,} events "
        f"in {verdict.commits:,} commits, {result.stream_s:.1f} s."
    )
    if result.freezing:
        freezing = result.freezing
        yield (
            f"{freezing.node} was frozen for {freezing.frozen_s:.1f} s while it led "
            f"{freezing.led:,}. Others took over when its leases ended. Woken up, it sent "
            f"{freezing.late_commits} commits of terms that were over: "
            f"{freezing.late_refused} were refused."
        )
    if result.back:
        yield (f"Then {result.back.node} was given its share back: {_moved(result.back)}.")
    if result.join:
        yield (
            f"{result.join.node} joined: {_moved(result.join)}. Each leader first committed the "
            "events that it had read, and then handed the election over."
        )
    if result.crash:
        yield (
            f"{result.crash.node} was killed with kill -9 while it led {result.crash.led:,}. "
            "Others took over when its leases ended."
        )
    if result.stop:
        yield (
            f"{result.stop.node} was stopped with SIGTERM. It drained: each election that it led "
            f"went to its successor. {_moved(result.stop)}."
        )


def _moved(change: Change) -> str:
    return f"{change.moves.moved:,} elections moved, of which {change.least:,} had to"


def _checklist(verdict: Verdict) -> Iterator[Text]:
    rows = [
        (
            not verdict.lost,
            "every event was committed",
            f"{verdict.committed:,} of {verdict.events:,}, {verdict.lost:,} lost",
        ),
        (not verdict.duplicates, "once", f"{verdict.duplicates:,} doubled"),
        (
            not verdict.out_of_order and not verdict.wrong_digests,
            "in order, and unaltered",
            f"{verdict.out_of_order:,} out of order, {verdict.wrong_digests:,} wrong digests",
        ),
        (
            not verdict.by_no_leader,
            "by a leader",
            f"{verdict.by_no_leader:,} commits by a node without that epoch",
        ),
        (
            verdict.epochs_rise,
            "epochs rise",
            f"{verdict.terms:,} terms, {verdict.falling_epochs:,} not above the last",
        ),
        (
            not verdict.overlaps,
            "one leader at a time",
            f"{verdict.overlaps:,} overlaps, {verdict.overlap_ms:,.1f} ms with two leaders",
        ),
        (
            not verdict.unpaired,
            "callbacks come in pairs",
            f"{verdict.unpaired:,} elected without demoted, or the reverse",
        ),
        (
            not verdict.planned_lost,
            "planned moves cost no term",
            f"{verdict.planned_moves:,} moves, {verdict.planned_lost:,} terms lost",
        ),
        (
            not verdict.idle_joins,
            "nodes that come get a share",
            f"{verdict.idle_joins:,} nodes that came got no elections",
        ),
        (
            not verdict.unbalanced,
            "shares are even",
            f"{verdict.unbalanced:,} changes left them uneven",
        ),
    ]
    for held, what, figure in rows:
        mark = ("yes", "green") if held else ("NO ", "bold red")
        yield Text.assemble("  ", mark, f"  {what:<28}{figure}")


def _figures(result: Result) -> Iterator[Text]:
    yield Text(f"  {'':<40}{'p50':>10}{'p99':>10}{'max':>10}", style="dim")
    for what, mishap in (
        ("killed: from the end of each lease", result.crash),
        ("frozen: from the end of each lease", result.freezing),
        ("back: from the end of each term", result.back),
        ("joined: from the end of each term", result.join),
        ("stopped: from the end of each term", result.stop),
    ):
        if mishap is None:
            yield Text(f"  {what:<40}did not happen in this run")
            continue
        figures = (mishap.takeovers.percentile(per_cent) for per_cent in (50, 99, 100))
        cells = ("-" if ms is None else f"{ms:,.1f}" for ms in figures)
        yield Text(f"  {what:<40}" + "".join(f"{cell:>10}" for cell in cells))
