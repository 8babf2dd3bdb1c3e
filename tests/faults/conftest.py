"""Gives the tests of this folder a fleet. One fleet serves many tests, until a test breaks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .fleet import Fleet, FleetPlan
from .server import faketime_library


class Fleets:
    """Runs one fleet at a time, because a machine has few cores."""

    def __init__(self, folder: Callable[[], Path]) -> None:
        self._folder = folder
        self._fleet: Fleet | None = None

    def get(self, plan: FleetPlan) -> Fleet:
        """Return a fleet of this plan that no test has broken. Starts one if necessary."""
        if self._fleet is None or self._fleet.plan != plan:
            self.drop()
            fleet = Fleet(plan, self._folder() / "fleet")
            fleet.__enter__()
            self._fleet = fleet
        return self._fleet

    def drop(self) -> None:
        """End the fleet at once, because a test broke it or another plan is wanted."""
        if self._fleet is not None:
            fleet, self._fleet = self._fleet, None
            fleet.__exit__(None, None, None)

    def stop(self) -> None:
        """Stop the fleet cleanly, and check that it reported the end of every term."""
        if self._fleet is not None:
            try:
                assert self._fleet.stop().violations == []
            finally:
                self.drop()


@pytest.fixture(scope="module")
def fleets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleets]:
    """Give fleets. The last one is stopped after all tests."""
    kept = Fleets(lambda: tmp_path_factory.mktemp("faults"))
    yield kept
    kept.stop()


@pytest.fixture(scope="session")
def faketime() -> str:
    """Return the path of the library that gives a server its own clock."""
    library = faketime_library()
    if library is None:
        pytest.skip("no libfaketime (Debian: apt-get install faketime), or no bundled server")
    return library
