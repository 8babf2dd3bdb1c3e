"""The rig, as a fixture."""

from __future__ import annotations

import pytest

from .rig import Rig


@pytest.fixture
def rig() -> Rig:
    """A server without nodes."""
    return Rig()
