"""The rig, as a fixture, and properties that are tried on the same examples every time."""

from __future__ import annotations

import hypothesis
import pytest

from .rig import Rig

hypothesis.settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture
def rig() -> Rig:
    """A server without nodes."""
    return Rig()
