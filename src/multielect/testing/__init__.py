"""For tests of programs that use multielect: a simulated world, without threads or sleeping.

`SimulatedWorld` runs the real groups and electors on simulated time, against a model of Redis,
and lets things go wrong at chosen moments: see `docs/testing.md`. `ManualClock` stands still until
it is told to move.
"""

from .._runtime.clock import ManualClock
from ._model import RedisModel
from ._node import SimulatedNode
from ._resp import Refusal
from ._timeline import Line
from ._world import SimulatedWorld

__all__ = ["Line", "ManualClock", "RedisModel", "Refusal", "SimulatedNode", "SimulatedWorld"]
