"""Fleets for the tests of this folder: started when the first test wants one, kept while sound."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .fleet import Fleet, FleetPlan
from .server import faketime_library


class Fleets:
    """The fleet that runs; one at a time, as a machine has few cores."""

    def __init__(self, folder: Callable[[], Path]) -> None:
        self._folder = folder
        self._fleet: Fleet | None = None

    def get(self, plan: FleetPlan) -> Fleet:
        """Return a sound fleet of this plan."""
        if self._fleet is None or self._fleet.plan != plan:
            self.drop()
            fleet = Fleet(plan, self._folder() / "fleet")
            fleet.__enter__()
            self._fleet = fleet
        return self._fleet

    def drop(self) -> None:
        """End the fleet: it is not sound any more, or another is wanted."""
        if self._fleet is not None:
            fleet, self._fleet = self._fleet, None
            fleet.__exit__(None, None, None)

    def stop(self) -> None:
        """Have the fleet stop as it should, and see that it had told every end."""
        if self._fleet is not None:
            try:
                assert self._fleet.stop().violations == []
            finally:
                self.drop()


@pytest.fixture(scope="module")
def fleets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleets]:
    """Fleets, of which the last is stopped at the end."""
    kept = Fleets(lambda: tmp_path_factory.mktemp("faults"))
    yield kept
    kept.stop()


@pytest.fixture(scope="session")
def faketime() -> str:
    """The library that gives a server a clock of its own."""
    library = faketime_library()
    if library is None:
        pytest.skip("no libfaketime (Debian: apt-get install faketime), or no bundled server")
    return library
