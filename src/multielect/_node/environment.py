"""The environment of a node: time, random numbers, threads and connections.

Rules of this file:
    * A node takes all of these from its environment. `multielect.testing` has an environment in
      which the same node runs with simulated ones.
    * The public classes pass the user's `redis` argument to `environment_of`, and do not look at it
      themselves.
"""

from __future__ import annotations

import random
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, Protocol, TypeAlias, TypeVar

import redis

from .._callbacks.dispatcher import Delivery, Dispatcher, ThreadDispatcher
from .._connection.endpoint import Endpoint
from .._connection.health import Reading
from .._connection.server import Server, connect_timeout_s
from .._connection.source import address_of, cluster_nodes_of
from .._core.core import Core
from .._engine.engine import Engine, Outlets
from .._fleet.balancer import Balancer
from .._protocol.keys import KeyLayout
from .._runtime.clock import Clock
from .._runtime.interruptible import wait_for
from .._settings.settings import BalanceSettings
from ..errors import ConfigError

T = TypeVar("T")


class Running(Protocol):
    """An engine: runs a core over a connection.

    Attributes:
        endpoint: the node that connects, and the address.
    """

    endpoint: Endpoint

    @property
    def reconnects(self) -> int:
        """How many connections were lost."""

    @property
    def is_running(self) -> bool:
        """Whether the engine was started, and none of its parts has ended."""

    @property
    def reading(self) -> Reading:
        """The state of its connection."""

    def start(self) -> None:
        """Stand for all elections of the core."""

    def wake(self) -> None:
        """Run the core's next turn now, as the core was changed."""

    def stop(self, timeout_s: float) -> None:
        """End all terms, release them, and return after `timeout_s` at the latest."""


class Environment(ABC):
    """Where a node takes time, random numbers, threads and connections from.

    Attributes:
        clock: the clock of the deadlines.
        is_simulated: whether there are no threads and no connections.
        has_died: whether the process of a simulated node was killed.
    """

    clock: Clock
    is_simulated: bool
    has_died = False

    @abstractmethod
    def monotonic_s(self) -> float:
        """Return the time in seconds, on the clock of the deadlines that users see."""

    @abstractmethod
    def time_of_day(self) -> datetime:
        """Return the wall-clock time in UTC."""

    @abstractmethod
    def incarnation(self) -> str:
        """Return a text that differs at each start of a node."""

    @abstractmethod
    def seed(self) -> int:
        """Return 64 random bits."""

    @abstractmethod
    def wait_for(
        self, condition: threading.Condition, is_so: Callable[[], bool], timeout_s: float | None
    ) -> bool:
        """Wait, with the condition held, until `is_so` returns True. Returns its last result."""

    @abstractmethod
    def dispatcher(self, delivery: Delivery[T]) -> Dispatcher[T]:
        """Return a dispatcher: see `ThreadDispatcher`."""

    @abstractmethod
    def engine(
        self,
        core: Core,
        *,
        layout: KeyLayout,
        node_id: str,
        ttl_ns: int,
        response_timeout_ns: int,
        is_balanced: bool,
        outlets: Outlets,
        name: str,
    ) -> Running:
        """Return an engine for a core.

        Raises:
            ConfigError: if the address of Redis is not allowed.
        """

    @abstractmethod
    def balancer(
        self,
        core: Core,
        settings: BalanceSettings,
        **named: Any,  # noqa: ANN401
    ) -> Balancer:
        """Return a balancer for a core: see `Balancer`."""


class RealEnvironment(Environment):
    """The machine on which this process runs, and a real server."""

    is_simulated = False

    def __init__(self, source: str | redis.Redis | redis.RedisCluster) -> None:
        """Keep the address of Redis. Does not connect."""
        self.clock = Clock()
        self._source = source

    def monotonic_s(self) -> float:
        """Return `time.monotonic`."""
        return time.monotonic()

    def time_of_day(self) -> datetime:
        """Return the time of this machine's wall clock."""
        return datetime.now(timezone.utc)

    def incarnation(self) -> str:
        """Return random text."""
        return secrets.token_hex(8)

    def seed(self) -> int:
        """Return 64 random bits."""
        return random.getrandbits(64)

    def wait_for(
        self, condition: threading.Condition, is_so: Callable[[], bool], timeout_s: float | None
    ) -> bool:
        """Block the calling thread."""
        return wait_for(condition, is_so, timeout_s)

    def dispatcher(self, delivery: Delivery[T]) -> Dispatcher[T]:
        """Return a dispatcher with its own threads."""
        return ThreadDispatcher(delivery)

    def engine(
        self,
        core: Core,
        *,
        layout: KeyLayout,
        node_id: str,
        ttl_ns: int,
        response_timeout_ns: int,
        is_balanced: bool,
        outlets: Outlets,
        name: str,
    ) -> Running:
        """Return an engine with threads and sockets.

        Raises:
            ConfigError: if the source is a URL that cannot be read, or another kind of object.
        """
        nodes = cluster_nodes_of(self._source)
        return Engine(
            core,
            Server(
                address_of(self._source),
                layout,
                connect_timeout_s(ttl_ns),
                node_id=node_id,
                is_in_cluster=bool(nodes),
            ),
            nodes=nodes,
            layout=layout,
            clock=self.clock,
            time_of_day=self.time_of_day,
            ttl_ns=ttl_ns,
            response_timeout_ns=response_timeout_ns,
            is_balanced=is_balanced,
            outlets=outlets,
            name=name,
        )

    def balancer(
        self,
        core: Core,
        settings: BalanceSettings,
        **named: Any,  # noqa: ANN401
    ) -> Balancer:
        """Return a balancer with its own thread."""
        return Balancer(core, settings, **named)


Source: TypeAlias = str | redis.Redis | redis.RedisCluster | Environment
"""The `redis` argument of groups and electors: a URL, a client, or a node of a simulated world."""


def environment_of(source: Source) -> Environment:
    """Return the environment for a user's `redis` argument."""
    return source if isinstance(source, Environment) else RealEnvironment(source)


def real_environment_of(source: Source) -> RealEnvironment:
    """Return the real environment for a user's `redis` argument.

    Raises:
        ConfigError: if the argument is a node of a simulated world.
    """
    if isinstance(source, Environment):
        raise ConfigError("a simulated node has no event loop: use multielect.ElectionGroup there")
    return RealEnvironment(source)
