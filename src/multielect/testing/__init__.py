"""For tests of programs that use multielect: a simulated world, without threads or sleeps.

`SimulatedWorld` runs the real groups and electors on simulated time, against a model of Redis. The
test chooses what fails and when: see `docs/testing.md`. A `ManualClock` stands still until the test
advances it.
"""

from .._runtime.clock import ManualClock
from ._model import RedisModel
from ._node import SimulatedNode
from ._resp import Refusal
from ._server import SimulatedServer
from ._timeline import Line
from ._world import SimulatedWorld

__all__ = [
    "Line",
    "ManualClock",
    "RedisModel",
    "Refusal",
    "SimulatedNode",
    "SimulatedServer",
    "SimulatedWorld",
]
