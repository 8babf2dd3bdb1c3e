"""Thousands of leader elections in one process, over one pipelined connection to Redis.

An `ElectionGroup` holds many elections, an `Elector` holds one. The layers follow. Each layer
imports only layers below it::

    cli, __main__          the command line
    streams                consumers of partitioned Redis streams
    fencing                writes that only the newest epoch can make
    aio, group, elector    the public classes: what a program makes and calls
    _node                  one node: puts the parts together
    _callbacks             callbacks and workers, on threads and in an event loop
    _fleet                 the members of a balanced fleet, and who leads what
    _engine                the threads, and the pump (Cython) between core and connection
    _connection            one connection to a server: address, login, TLS, errors, backoff
    _logging               what is logged, how often, and on which thread
    election               an election and a term of it, as users hold them
    _settings              settings, and checks of what users pass in
    _core (Cython)         schedule, states, packing, parsing: no sockets, no clock, no threads
    balance (Cython)       who should lead what: a pure function
    _protocol              keys, Lua scripts, error replies
    errors                 what is raised and reported
    _runtime               the clock, threads, texts of foreign objects

Two packages stand beside the layers: `embedded`, a private server, and `testing`, a simulated
world for groups and electors.
"""

from ._runtime import interpreter  # noqa: F401  # first: it refuses unsafe interpreters

# isort: split
from ._callbacks.workers import WorkerTerm
from ._connection.health import Health
from ._node.counters import Counters
from ._node.environment import Source
from ._settings.settings import generate_node_id
from .election import DemotionReason, Election, Term
from .elector import Elector
from .errors import (
    CallbackError,
    ClockJumpError,
    ClosedError,
    ConfigError,
    ConnectionLostError,
    EndlessLeaseError,
    HandlerError,
    MultielectError,
    NotLeaderError,
    ProtocolError,
    ServerError,
    ServerUnusableError,
    StaleEpochError,
)
from .group import ElectionGroup

__version__ = "0.1.0"

__all__ = [
    "CallbackError",
    "ClockJumpError",
    "ClosedError",
    "ConfigError",
    "ConnectionLostError",
    "Counters",
    "DemotionReason",
    "Election",
    "ElectionGroup",
    "Elector",
    "EndlessLeaseError",
    "HandlerError",
    "Health",
    "MultielectError",
    "NotLeaderError",
    "ProtocolError",
    "ServerError",
    "ServerUnusableError",
    "Source",
    "StaleEpochError",
    "Term",
    "WorkerTerm",
    "generate_node_id",
]
