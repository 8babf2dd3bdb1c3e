"""Thousands of leader elections in one process, over one pipelined connection to Redis.

`ElectionGroup` holds many elections, `Elector` one. The layers, each of which imports only
what stands below it::

    cli, __main__, fencing, streams           what people and programs touch
    group, elector, aio                       the fronts; _front is what they share
    election, _node, _writes, _refusals       one node, put together; what it writes, and
                                              what it may not
    _surroundings                             a machine, or a simulated world
    _balancer, _roll, _plan, _strangers       who is in the fleet, and what follows from it
    _engine, _connect, _backoff, _source      the owner thread, connecting, again and again
    _handshake, _admission, _relay, _tls      the socket, what the server must be, TLS
    _credentials                              who it logs in as, by a provider of the user's
    _connection_errors, _endpoint             what goes wrong with it, in words
    _readiness, _health                       whether it is ready, and how it is
    _dispatch, _loop, _held, _crew            callbacks on threads, and in an event loop
    _log, _news, _throttle                    what is logged, when, and on which thread
    _workers, _loop_workers, _roster          a worker a term, on threads and in an event loop
    _pump (Cython)                            sockets and core, without the GIL
    _core, balance (Cython), _settings,       schedule, pack, parse; who should lead what;
    _callbacks                                input: no I/O, no clock
    lua/, _scripts, _keys, _clock,            scripts, names, time, errors
    _interpreter, _interruptible, _foreign, _notes, errors

Beside them stand `embedded`, a private server, and `testing`, a simulated world for the fronts.
"""

from . import _interpreter  # noqa: F401  # before all else: it refuses where that is not safe
from ._health import Health
from ._node import Counters
from ._settings import generate_node_id
from ._surroundings import Source
from ._workers import WorkerTerm
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
