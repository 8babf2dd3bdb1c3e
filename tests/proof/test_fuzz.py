"""Fuzzing, for a few seconds: `make fuzz` goes on for as long as it is told.

Rules of this file:
    * Only the parser is fuzzed here, as it is built in a few seconds. What was found in the rest
      is kept as tests.
    * Each run is the same as the one before: one process, from a number that is given.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from proof.fuzz.build import TARGETS, Compiler, build, find_compilers, missing
from proof.fuzz.campaign import found, replay, run
from proof.fuzz.faults import FAULTS
from proof.fuzz.recording import seeds

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

EXECUTIONS = 100_000
MOST_FOR_A_FAULT = 50_000
FAULT = next(fault for fault in FAULTS if fault.name == "attributes-counted-wrong")


@pytest.mark.parametrize("compiler", find_compilers(), ids=lambda compiler: str(compiler.command))
def test_the_parser_bears_whatever_comes(compiler: Compiler) -> None:
    report = run(
        EXECUTIONS, targets=["replies"], seed=1, program=build(("replies",), compiler=compiler)
    )
    assert report.crashes == []
    assert report.total >= EXECUTIONS
    if compiler.guided:
        assert report.covered["replies"].edges > 100


def test_a_planted_fault_is_found() -> None:
    report = run(
        MOST_FOR_A_FAULT, targets=["replies"], seed=1, program=build(("replies",), fault=FAULT)
    )
    (crash, *_) = report.crashes
    assert "a frame was handed out that is not whole" in crash.what
    assert b"|" in crash.data
    assert crash.kept.read_bytes() == crash.data


def test_what_was_found_is_tried_again() -> None:
    inputs = found("replies")
    assert inputs
    assert replay("replies", inputs) == ""


def test_an_input_that_breaks_something_is_told_of(tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(b"\0\0|1\r\n+a\r\n+b\r\n:1\r\n")
    assert replay("replies", [bad]) == ""
    program = build(("replies",), fault=FAULT)
    assert "not whole" in replay("replies", [bad], program)


def test_the_seeds_are_the_same_each_time() -> None:
    assert seeds().keys() == set(TARGETS)
    assert seeds() == seeds()
    assert all(len(each) > 20 for each in seeds().values())
