"""Fuzzing, for a few seconds: `make fuzz` goes on for as long as it is told.

Rules of this file:
    * Only the parser is fuzzed here, as it is built in a few seconds. What was found in the rest
      is kept as tests.
    * Each run begins with the same seeds, and the fault is one that the seeds themselves find: how
      long coverage takes to lead somewhere differs from run to run.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from proof.fuzz.build import TARGETS, Compiler, Fault, build, find_compilers, missing
from proof.fuzz.campaign import found, replay, run
from proof.fuzz.faults import FAULTS
from proof.fuzz.recording import seeds

from multielect import _core

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

EXECUTIONS = 100_000
FAULT = next(fault for fault in FAULTS if fault.name == "scanned-place-kept")


@pytest.mark.parametrize("compiler", find_compilers(), ids=lambda compiler: str(compiler.command))
def test_the_parser_bears_whatever_comes(compiler: Compiler) -> None:
    report = run(
        EXECUTIONS, targets=["replies"], seed=1, program=build(("replies",), compiler=compiler)
    )
    assert report.crashes == []
    assert report.total >= EXECUTIONS
    if compiler.guided:
        assert report.covered["replies"].edges > 100


def test_a_planted_fault_is_found_and_told_of() -> None:
    program = build(("replies",), fault=FAULT)
    report = run(EXECUTIONS, targets=["replies"], seed=1, program=program)
    (crash,) = report.crashes
    assert crash.target == "replies"
    assert "cut differently" in crash.what
    assert crash.kept.read_bytes() == crash.data
    assert report.total < EXECUTIONS
    assert "cut differently" in replay("replies", [crash.kept], program)
    assert replay("replies", [crash.kept]) == ""


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_can_be_planted(fault: Fault, tmp_path: Path) -> None:
    core = tmp_path / "multielect" / "_core"
    core.mkdir(parents=True)
    shutil.copy(Path(_core.__file__).parent / f"{fault.module}.pyx", core)
    fault.plant(tmp_path)
    assert fault.broken in (core / f"{fault.module}.pyx").read_text("utf-8")


def test_what_was_found_is_tried_again() -> None:
    inputs = found("replies")
    assert inputs
    assert replay("replies", inputs) == ""


def test_the_seeds_are_the_same_each_time() -> None:
    assert seeds().keys() == set(TARGETS)
    assert seeds() == seeds()
    assert all(len(each) > 20 for each in seeds().values())
