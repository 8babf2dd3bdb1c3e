"""A simulated world, as a fixture."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from multielect.testing import SimulatedWorld


@pytest.fixture
def world() -> Iterator[SimulatedWorld]:
    with SimulatedWorld(seed=1) as made:
        yield made
