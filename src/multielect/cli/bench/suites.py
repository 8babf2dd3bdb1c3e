"""The suites there are, in the order in which they run."""

from __future__ import annotations

from .acquire import Acquire
from .hold import Hold
from .memory import Memory
from .refresh import Refresh
from .suite import Suite

SUITES: tuple[Suite, ...] = (Refresh(), Acquire(), Memory(), Hold())
