"""The suites there are, in the order in which they run."""

from __future__ import annotations

from .hold import Hold
from .refresh import Refresh
from .suite import Suite

SUITES: tuple[Suite, ...] = (Refresh(), Hold())
