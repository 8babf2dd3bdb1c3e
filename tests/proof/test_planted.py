"""Planting faults: that it finds what is wrong, and does not find what is not.

Rules of this file:
    * The long list is for `make planted`; here one fault of it is planted, in the scripts, which
      need no compiler, and small projects of this file's own show the rest.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from proof.planted import (
    CRASHED,
    FAILED,
    PACKAGE,
    ROOT,
    Finding,
    PlantingError,
    look_for,
    look_for_all,
    read_changed,
    row,
)
from proof.planted_faults import PLANTED, Edit, Fault

TESTS = """
import os
from multielect import answer

def test_nothing():
    pass

def test_answer():
    if answer() == "crash":
        os._exit(1)
    assert answer() == 42
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one function, and a test for it."""
    package = tmp_path / PACKAGE
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("def answer():\n    return 42\n\nUNUSED = 7\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_answer.py").write_text(TESTS)
    return tmp_path


def fault(before: str, after: str) -> Fault:
    return Fault("small", "", (Edit("__init__.py", before, after),), ("tests",))


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: str(planted.name))
def test_each_fault_can_still_be_planted(planted: Fault) -> None:
    for edit in planted.edits:
        assert read_changed(ROOT, edit) != (ROOT / PACKAGE / edit.file).read_text("utf-8")
    for suite in planted.suites:
        assert (ROOT / suite).exists()


def test_there_are_enough_of_them_and_no_name_is_used_twice() -> None:
    assert len({planted.name for planted in PLANTED}) == len(PLANTED) >= 20


def test_a_release_that_compares_nothing_is_found() -> None:
    (listed,) = (planted for planted in PLANTED if planted.name == "release-compares-nothing")
    suite = "tests/integration/test_only_the_holder.py"
    finding = look_for(Fault(listed.name, listed.about, listed.edits, (suite,)))
    assert finding.is_found, finding.said
    assert finding.how == FAILED
    assert finding.test.startswith(suite)
    assert finding.test in row(finding)


def test_a_fault_is_found_by_the_test_that_fails(project: Path) -> None:
    told: list[Finding] = []
    (finding,) = look_for_all([fault("return 42", "return 43")], told.append, root=project)
    assert told == [finding]
    assert finding.is_found
    assert (finding.test, finding.how) == ("tests/test_answer.py::test_answer", FAILED)
    assert "43" in finding.said
    assert "42" in (project / PACKAGE / "__init__.py").read_text()


def test_what_changes_nothing_survives(project: Path) -> None:
    finding = look_for(fault("UNUSED = 7", "UNUSED = 8"), project)
    assert not finding.is_found
    assert finding.verdict == "SURVIVED"


def test_a_crash_is_a_find(project: Path) -> None:
    finding = look_for(fault("return 42", "return 'crash'"), project)
    assert finding.is_found
    assert (finding.test, finding.how) == ("tests/test_answer.py::test_answer", CRASHED)


def test_a_test_that_fails_anyway_finds_nothing(project: Path) -> None:
    (project / "tests" / "test_answer.py").write_text("def test_wrong():\n    assert False\n")
    finding = look_for(fault("UNUSED = 7", "UNUSED = 8"), project)
    assert not finding.is_found
    assert finding.verdict == "FAILS ANYWAY"


@pytest.mark.parametrize("before", ["return 41", "4"], ids=["nowhere", "twice"])
def test_what_does_not_stand_there_once_is_refused(project: Path, before: str) -> None:
    (project / PACKAGE / "__init__.py").write_text("FIRST, SECOND = 4, 4\n")
    with pytest.raises(PlantingError, match="not once"):
        look_for(fault(before, "x"), project)


def test_a_fault_that_cannot_be_imported_is_no_find(project: Path) -> None:
    with pytest.raises(PlantingError, match="not what is imported"):
        look_for(fault("return 42", "return ("), project)


def test_a_suite_without_tests_is_refused(project: Path) -> None:
    shutil.rmtree(project / "tests")
    with pytest.raises(PlantingError, match="could not be run"):
        look_for(fault("UNUSED = 7", "UNUSED = 8"), project)
