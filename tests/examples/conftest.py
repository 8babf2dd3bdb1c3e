"""What the tests of the examples share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from .nodes import Node, closing_nodes


@pytest.fixture
def start() -> Iterator[Callable[..., Node]]:
    """Start nodes; they are gone when the test ends."""
    with closing_nodes() as starting:
        yield starting
