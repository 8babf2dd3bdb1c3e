"""The suites, in the order in which they run."""

from __future__ import annotations

from ..suite import Suite
from .acquire import Acquire
from .cluster import Cluster
from .hold import Hold
from .lateness import Lateness
from .memory import Memory
from .neighbours import Neighbours
from .refresh import Refresh
from .standby import Standby
from .takeover import Takeover

SUITES: tuple[Suite, ...] = (
    Refresh(),
    Acquire(),
    Memory(),
    Hold(),
    Takeover(),
    Standby(),
    Neighbours(),
    Lateness(),
    Cluster(),
)
