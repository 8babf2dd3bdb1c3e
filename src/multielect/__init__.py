"""Thousands of leader elections in one process, over one pipelined connection to Redis.

`ElectionGroup` holds many elections, `Elector` one. The layers, each of which imports only
what stands below it::

    cli, fencing, streams                     what people and programs touch
    group, elector, aio                       the fronts; _front is what they share
    election, _node, _writes                  one node, put together; what it writes
    _engine, _connect, _relay                 the owner thread, connecting, TLS
    _dispatch, _loop                          callbacks on threads, and in an event loop
    _pump (Cython)                            sockets and core, without the GIL
    _core, balance (Cython)                   schedule, pack, parse; who should lead what:
                                              no I/O, no clock
    lua/, _scripts, _keys, _settings,         scripts, names, input, time, errors
    _clock, _interpreter, errors
"""

from . import _interpreter  # noqa: F401  # before all else: it refuses where that is not safe
from ._node import Counters
from ._settings import generate_node_id
from .election import DemotionReason, Election, Term
from .elector import Elector
from .errors import (
    CallbackError,
    ClosedError,
    ConfigError,
    ConnectionLostError,
    HandlerError,
    MultielectError,
    NotLeaderError,
    ProtocolError,
    ServerError,
    StaleEpochError,
)
from .group import ElectionGroup

__version__ = "0.1.0"

__all__ = [
    "CallbackError",
    "ClosedError",
    "ConfigError",
    "ConnectionLostError",
    "Counters",
    "DemotionReason",
    "Election",
    "ElectionGroup",
    "Elector",
    "HandlerError",
    "MultielectError",
    "NotLeaderError",
    "ProtocolError",
    "ServerError",
    "StaleEpochError",
    "Term",
    "generate_node_id",
]
