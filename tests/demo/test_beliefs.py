"""What was believed survives kill -9, and sightings widen it by what they prove, no more."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from multielect import DemotionReason
from multielect.cli.demo.beliefs import (
    BeliefLog,
    BeliefRecord,
    BeliefsFullError,
    Kind,
    NodeBeliefs,
    believed_terms,
    read_beliefs,
)

from .examples import MS, beliefs, term

if TYPE_CHECKING:
    from pathlib import Path

EXPIRED = DemotionReason.EXPIRED
ELECTED, DEMOTED = Kind.ELECTED, Kind.DEMOTED
SEEN, LAST_SEEN = Kind.SEEN_LEADING, Kind.LAST_SEEN_LEADING

KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from multielect.cli.demo.beliefs import BeliefLog, Kind
log = BeliefLog(Path(sys.argv[1]), 1000)
for number in range(500):
    log.write(Kind.ELECTED, number, number + 1, belief_ns=number, written_ns=number)
os.kill(os.getpid(), signal.SIGKILL)
"""


def record(kind: Kind, epoch: int, belief_ms: int, written_ms: int | None = None) -> BeliefRecord:
    written_ms = belief_ms if written_ms is None else written_ms
    reason = EXPIRED if kind is DEMOTED else None
    return BeliefRecord(
        written_ms * MS, belief_ms * MS, epoch, 0, 0 if reason is None else reason.value, kind
    )


def believed(*records: BeliefRecord, died_ms: int | None = None) -> NodeBeliefs:
    return believed_terms("x", records, died_ns=None if died_ms is None else died_ms * MS)


def test_records_outlive_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "beliefs"
    ended = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(path)], check=False)

    assert ended.returncode == -signal.SIGKILL
    assert [found.election for found in read_beliefs(path)] == list(range(500))


def test_a_record_without_its_last_field_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "beliefs"
    log = BeliefLog(path, 3)
    for epoch in (1, 2, 3):
        log.write(ELECTED, 0, epoch, belief_ns=5, written_ns=6)
    content = bytearray(path.read_bytes())
    size = len(content) // 3
    content[2 * size - 2 : 2 * size] = bytes(2)
    path.write_bytes(content)

    assert [found.epoch for found in read_beliefs(path)] == [1, 3]


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "beliefs"
    log = BeliefLog(path, 3)
    log.write(DEMOTED, 70_000, 1 << 52, belief_ns=5, written_ns=6, reason=EXPIRED.value)

    assert read_beliefs(path) == [BeliefRecord(6, 5, 1 << 52, 70_000, EXPIRED.value, DEMOTED)]


def test_a_full_file_says_so(tmp_path: Path) -> None:
    log = BeliefLog(tmp_path / "beliefs", 1)
    log.write(ELECTED, 0, 1, belief_ns=0, written_ns=0)

    with pytest.raises(BeliefsFullError, match="more than 1 "):
        log.write(DEMOTED, 0, 1, belief_ns=0, written_ns=0)


def test_callbacks_bound_a_term() -> None:
    found = believed(record(ELECTED, 5, 10, written_ms=12), record(DEMOTED, 5, 20, written_ms=25))

    assert found == beliefs(term("x", 5, 10, 20, elected_ms=12, reason=EXPIRED))


def test_sightings_beyond_the_callbacks_widen_a_term() -> None:
    found = believed(
        record(SEEN, 5, 9), record(ELECTED, 5, 10), record(DEMOTED, 5, 20), record(LAST_SEEN, 5, 31)
    )

    assert found == beliefs(term("x", 5, 9, 31, elected_ms=10, reason=EXPIRED))


def test_sightings_within_the_callbacks_narrow_nothing() -> None:
    found = believed(
        record(ELECTED, 5, 10),
        record(SEEN, 5, 12),
        record(LAST_SEEN, 5, 18),
        record(DEMOTED, 5, 20),
    )

    assert found == beliefs(term("x", 5, 10, 20, reason=EXPIRED))


def test_death_ends_what_a_node_believed() -> None:
    found = believed(record(ELECTED, 5, 10), record(SEEN, 5, 11), died_ms=40)

    assert found == beliefs(term("x", 5, 10, 40))


def test_a_last_sighting_does_not_end_the_belief_of_the_dead() -> None:
    found = believed(
        record(ELECTED, 5, 10), record(SEEN, 5, 11), record(LAST_SEEN, 5, 30), died_ms=40
    )

    assert found == beliefs(term("x", 5, 10, 40))


def test_a_term_that_was_only_seen_counts() -> None:
    found = believed(record(SEEN, 5, 10), record(LAST_SEEN, 5, 13))

    assert found == beliefs(term("x", 5, 10, 13))
    assert believed(record(SEEN, 5, 10), died_ms=40) == beliefs(term("x", 5, 10, 40))


def test_a_single_sighting_proves_no_span() -> None:
    assert believed(record(SEEN, 5, 10), record(LAST_SEEN, 5, 9)) == beliefs()


@pytest.mark.parametrize(
    ("records", "unpaired"),
    [
        pytest.param([record(ELECTED, 5, 10)], 1, id="never demoted"),
        pytest.param([record(DEMOTED, 5, 10)], 1, id="never elected"),
        pytest.param([record(ELECTED, 5, 10), record(ELECTED, 6, 11)], 2, id="twice elected"),
        pytest.param(
            [record(ELECTED, 5, 10), record(DEMOTED, 5, 11), record(DEMOTED, 5, 12)],
            1,
            id="twice demoted",
        ),
        pytest.param(
            [record(ELECTED, 5, 10), record(DEMOTED, 4, 11)], 1, id="demoted of another term"
        ),
        pytest.param(
            [
                record(ELECTED, 5, 10),
                record(DEMOTED, 5, 11),
                record(ELECTED, 5, 12),
                record(DEMOTED, 5, 13),
            ],
            1,
            id="one epoch twice",
        ),
    ],
)
def test_callbacks_without_a_partner_are_counted(
    records: list[BeliefRecord], unpaired: int
) -> None:
    assert believed(*records).unpaired == unpaired
