"""The checker finds each thing that can go wrong, and finds nothing where nothing did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from multielect.cli.demo.beliefs import BelievedTerm
from multielect.cli.demo.checkpoint import JournalEntry
from multielect.cli.demo.result import Change
from multielect.cli.demo.verdict import Verdict, judge

from .examples import beliefs, change, entry, stream_of, term

STREAM = stream_of("aaaabb")
A1, A2, B1 = term("x", 1, 0, 50), term("y", 2, 60, 90), term("y", 1, 0, 90, election=1)
SOUND = [
    [entry(STREAM, 0, 2), entry(STREAM, 2, 4, epoch=2, node="y")],
    [entry(STREAM, 0, 2, partition=1, node="y")],
]


def verdict(
    journal: list[list[JournalEntry]] | None = None,
    *terms: BelievedTerm,
    newest: tuple[int, int] = (2, 1),
    changes: Sequence[Change] = (),
) -> Verdict:
    return judge(STREAM, journal or SOUND, newest, [beliefs(*(terms or (A1, A2, B1)))], changes)


def of_a(*entries: JournalEntry) -> list[list[JournalEntry]]:
    return [list(entries), SOUND[1]]


def findings(found: Verdict) -> dict[str, float]:
    """Return the faults that were found, without those of which there are none."""
    counts = {
        "lost": found.lost,
        "duplicates": found.duplicates,
        "out_of_order": found.out_of_order,
        "wrong_digests": found.wrong_digests,
        "by_no_leader": found.by_no_leader,
        "falling_epochs": found.falling_epochs,
        "overlaps": found.overlaps,
        "overlap_ms": found.overlap_ms,
        "unpaired": found.unpaired,
        "planned_lost": found.planned_lost,
        "idle_joins": found.idle_joins,
        "unbalanced": found.unbalanced,
    }
    return {name: count for name, count in counts.items() if count}


def test_a_sound_run_passes() -> None:
    found = verdict()

    assert found.ok
    assert found.epochs_rise
    assert findings(found) == {}
    assert (found.events, found.committed, found.commits, found.terms) == (6, 6, 3, 3)


FIRST, SECOND = SOUND[0]
FAULTY_JOURNALS = {
    "lost at the end": ([FIRST], {"lost": 2}),
    "lost at the beginning": ([SECOND], {"lost": 2}),
    "lost in the middle": (
        [entry(STREAM, 0, 1), entry(STREAM, 3, 4, epoch=2, node="y")],
        {"lost": 2},
    ),
    "doubled": ([FIRST, FIRST, SECOND], {"duplicates": 2}),
    "doubled in part": ([FIRST, entry(STREAM, 1, 4, epoch=2, node="y")], {"duplicates": 1}),
    "out of order": (
        [entry(STREAM, 2, 4), entry(STREAM, 0, 2, epoch=2, node="y")],
        {"out_of_order": 2},
    ),
    "out of order with a gap filled later": (
        [entry(STREAM, 0, 1), entry(STREAM, 2, 4), entry(STREAM, 1, 2)],
        {"out_of_order": 1},
    ),
    "processed something else": (
        [FIRST._replace(digest=12345), SECOND],
        {"wrong_digests": 1},
    ),
    "more than there is": ([FIRST, SECOND._replace(after=5)], {"wrong_digests": 1}),
    "backwards": ([FIRST, SECOND, SECOND._replace(first=3, after=2)], {"wrong_digests": 1}),
    "epoch never granted": ([FIRST, SECOND._replace(epoch=3)], {"by_no_leader": 1}),
    "epoch of another node": ([FIRST, SECOND._replace(node="x")], {"by_no_leader": 1}),
    "epoch of another election": ([FIRST._replace(node="y"), SECOND], {"by_no_leader": 1}),
    "older epoch after a newer one": (
        [FIRST._replace(epoch=2, node="y"), SECOND._replace(epoch=1, node="x")],
        {"falling_epochs": 1},
    ),
}


@pytest.mark.parametrize("name", FAULTY_JOURNALS)
def test_faults_in_the_journal_are_found(name: str) -> None:
    entries, expected = FAULTY_JOURNALS[name]
    found = verdict(of_a(*entries))

    assert findings(found) == expected
    assert not found.ok


FAULTY_BELIEFS = {
    "overlap": ([replace(A1, ended_ns=63_000_000), A2], {"overlaps": 1, "overlap_ms": 3}),
    "one within the other": (
        [replace(A1, ended_ns=99_000_000), A2],
        {"overlaps": 1, "overlap_ms": 30},
    ),
    "overlap with the term after the next": (
        [term("x", 1, 0, 100), term("y", 2, 60, 70), term("y", 3, 80, 90)],
        {"overlaps": 2, "overlap_ms": 20, "falling_epochs": 1},
    ),
    "belief that never ends": ([replace(A1, ended_ns=None), A2], {"overlaps": 1, "overlap_ms": 30}),
    "one instant": ([replace(A1, ended_ns=60_000_001), A2], {"overlaps": 1, "overlap_ms": 1e-6}),
    "epochs fall": (
        [replace(A1, epoch=2), replace(A2, epoch=1)],
        {"falling_epochs": 1, "by_no_leader": 2},
    ),
    "one epoch granted twice": (
        [replace(A1, epoch=2), A2],
        {"falling_epochs": 1, "by_no_leader": 1},
    ),
    "epoch that the server never counted to": (
        [A1, A2, term("x", 3, 91, 92)],
        {"falling_epochs": 1},
    ),
}


@pytest.mark.parametrize("name", FAULTY_BELIEFS)
def test_faults_in_what_was_believed_are_found(name: str) -> None:
    terms, expected = FAULTY_BELIEFS[name]
    found = verdict(None, *terms, B1)

    assert findings(found) == expected
    assert not found.ok


def test_terms_that_touch_do_not_overlap() -> None:
    assert verdict(None, replace(A1, ended_ns=A2.began_ns), A2, B1).ok


def test_callbacks_without_a_partner_fail_the_run() -> None:
    found = judge(STREAM, SOUND, (2, 1), [beliefs(A1, A2, B1, unpaired=1), beliefs(unpaired=2)], [])

    assert findings(found) == {"unpaired": 3}
    assert not found.ok


FAULTY_CHANGES = {
    "a term was lost": (change(lost=2), {"planned_lost": 2}),
    "a join moved nothing": (change(moved=0), {"idle_joins": 1}),
    "the shares stayed uneven": (change(is_balanced=False), {"unbalanced": 1}),
    "a stop lost a term": (change(comes=False, moved=0, lost=1), {"planned_lost": 1}),
}


@pytest.mark.parametrize("name", FAULTY_CHANGES)
def test_faults_in_planned_changes_are_found(name: str) -> None:
    faulty, expected = FAULTY_CHANGES[name]
    found = verdict(changes=[change(moved=3), faulty])

    assert findings(found) == expected
    assert not found.ok


def test_sound_changes_pass() -> None:
    nothing_to_give = change(least=0, moved=0)
    found = verdict(changes=[change(moved=3), nothing_to_give, change(comes=False, moved=0)])

    assert found.ok
    assert found.planned_moves == 3


def test_nothing_at_all_is_everything_lost() -> None:
    found = judge(STREAM, [[], []], (0, 0), [], [])

    assert findings(found) == {"lost": 6}
