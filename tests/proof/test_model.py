"""The model of the lease protocol, at the smallest bounds that show anything: `make model` has all.

Rules of this file:
    * Without spin it is skipped: a model is checked by machine or not at all.
"""

from __future__ import annotations

import pytest
from proof.model import CAUGHT, FAULTS, LIMITS, LONG, MODEL, SOUND, Question, ask, missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"{missing()} is not installed")

SMALL = ("GRANTS=2", "LIVES=2", "WIRE=1")
FEW = {
    "ANCHOR_AT_REPLY",
    "NO_SERIAL",
    "ADOPT_LOST_ACQUIRE",
    "RELEASE_WITHOUT_EPOCH",
    "GRANT_IS_A_TERM",
    "NEWER_EPOCH_IGNORED",
    "FLOOR_NOT_SENT",
    "STALE_EPOCH_LED",
}


@pytest.mark.parametrize(
    "bounds", [SMALL, ("GRANTS=2", "LIVES=1", "WIRE=1", "TTL=2", "DRIFT=0", "ORPHAN")]
)
def test_the_invariants_hold(bounds: tuple[str, ...]) -> None:
    answer = ask(Question("small", "", bounds))
    assert answer.is_as_expected, answer.history
    assert answer.whole
    assert answer.states > 100_000


@pytest.mark.parametrize(
    "fault", [fault for fault in FAULTS if fault.name in FEW], ids=lambda fault: str(fault.name)
)
def test_a_planted_fault_is_found(fault: Question) -> None:
    answer = ask(fault)
    assert answer.is_as_expected
    assert answer.broken in {"I1", "I2", "I3", "I4", "I7"}
    assert any("asks for the lease" in step for step in answer.history)


def test_what_breaks_an_invariant_is_not_taken_for_sound() -> None:
    answer = ask(Question("small", "", (*SMALL, "RELEASE_BEFORE_END")))
    assert not answer.is_as_expected
    assert answer.verdict == "BROKEN: I4"


def test_a_fault_that_is_not_planted_is_not_found() -> None:
    answer = ask(Question("small", "", ("GRANTS=1", "LIVES=1", "WIRE=1", "NO_SUCH"), CAUGHT))
    assert not answer.is_as_expected
    assert answer.verdict == "NOT FOUND"


def test_every_question_is_about_something_the_model_knows() -> None:
    text = MODEL.read_text("utf-8")
    for question in (*SOUND, *LONG, *FAULTS, *LIMITS):
        for define in question.defines:
            assert define.partition("=")[0] in text, question
