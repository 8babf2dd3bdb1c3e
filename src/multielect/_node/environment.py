"""What a node runs in: a machine with threads, a clock and a way to Redis.

Rules of this file:
    * What a node takes from the world around it, it takes from here: time, chance, threads and
      connections. `multielect.testing` has an environment of its own, in which the same node runs
      on simulated ones.
    * The public classes pass what the user gave them as `redis` to `environment_of`, and look no
      further.
"""

from __future__ import annotations

import logging
import random
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, Protocol, TypeAlias, TypeVar

import redis

from .._callbacks.dispatcher import Dispatcher, ThreadDispatcher
from .._connection.backoff import Backoff
from .._connection.connector import Server, connect_timeout_s
from .._connection.endpoint import Endpoint
from .._connection.health import Reading
from .._core.core import Core
from .._engine.engine import Engine, Outlets
from .._fleet.balancer import Balancer
from .._protocol.keys import KeyLayout
from .._runtime.clock import Clock
from .._runtime.interruptible import wait_for
from .._settings.settings import BalanceSettings
from ..errors import ConfigError, MultielectError

T = TypeVar("T")


class Running(Protocol):
    """What keeps a core going, as `Engine` does.

    Attributes:
        endpoint: who connects, and where.
        reconnects: how many connections were lost.
    """

    endpoint: Endpoint
    reconnects: int

    @property
    def is_running(self) -> bool:
        """Whether all of it is at work: it was started, and nothing of it has ended."""

    @property
    def reading(self) -> Reading:
        """How its connection is."""

    def start(self) -> None:
        """Stand for all elections of the core."""

    def wake(self) -> None:
        """Have the core's next turn happen now: it was changed."""

    def stop(self, timeout_s: float) -> None:
        """End all terms now, release them, and return at the latest after `timeout_s`."""


class Environment(ABC):
    """What a node takes from the world around it: time, chance, threads, the way to Redis.

    Attributes:
        clock: what deadlines are measured on.
        is_simulated: whether nothing here outlives the test: no threads, no connection.
        has_died: whether what runs here ended without a word: only where that is simulated.
    """

    clock: Clock
    is_simulated: bool
    has_died = False

    @abstractmethod
    def monotonic_s(self) -> float:
        """Return the time that users are told deadlines by."""

    @abstractmethod
    def time_of_day(self) -> datetime:
        """Return the time that people are told, in UTC."""

    @abstractmethod
    def incarnation(self) -> str:
        """Return what tells this start of a node from all others."""

    @abstractmethod
    def seed(self) -> int:
        """Return 64 random bits."""

    @abstractmethod
    def wait_for(
        self, condition: threading.Condition, is_so: Callable[[], bool], timeout_s: float | None
    ) -> bool:
        """Wait, with the condition held, until something is so. Returns whether it is."""

    @abstractmethod
    def dispatcher(
        self,
        *,
        notify: Callable[[T], object] | None,
        notify_error: Callable[[MultielectError], object] | None,
        notifies_drains: bool = False,
        threads: int,
        name: str,
        logger: logging.Logger,
        who: str,
    ) -> Dispatcher[T]:
        """Return what brings events to callbacks: see `ThreadDispatcher`."""

    @abstractmethod
    def engine(
        self,
        core: Core,
        *,
        layout: KeyLayout,
        node_id: str,
        ttl_ns: int,
        response_timeout_ns: int,
        outlets: Outlets,
        name: str,
    ) -> Running:
        """Return what keeps a core going.

        Raises:
            ConfigError: where it cannot know how to reach Redis.
        """

    @abstractmethod
    def balancer(
        self,
        core: Core,
        settings: BalanceSettings,
        **named: Any,  # noqa: ANN401
    ) -> Balancer:
        """Return what keeps a core in line with its fleet: see `Balancer`."""


class RealEnvironment(Environment):
    """The machine that this process runs on, and a real server."""

    is_simulated = False

    def __init__(self, source: str | redis.Redis) -> None:
        """Keep where Redis is; nothing is connected yet."""
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

    def dispatcher(
        self,
        *,
        notify: Callable[[T], object] | None,
        notify_error: Callable[[MultielectError], object] | None,
        notifies_drains: bool = False,
        threads: int,
        name: str,
        logger: logging.Logger,
        who: str,
    ) -> Dispatcher[T]:
        """Return one with threads of its own."""
        return ThreadDispatcher(
            notify=notify,
            notify_error=notify_error,
            notifies_drains=notifies_drains,
            threads=threads,
            name=name,
            logger=logger,
            who=who,
        )

    def engine(
        self,
        core: Core,
        *,
        layout: KeyLayout,
        node_id: str,
        ttl_ns: int,
        response_timeout_ns: int,
        outlets: Outlets,
        name: str,
    ) -> Running:
        """Return one with threads and sockets.

        Raises:
            ConfigError: for a URL that cannot be understood, or another kind of object.
        """
        server = Server(self._source, layout, connect_timeout_s(ttl_ns), node_id=node_id)
        return Engine(
            core,
            server.connect,
            layout=layout,
            endpoint=server.endpoint,
            clock=self.clock,
            time_of_day=self.time_of_day,
            backoff=Backoff(ttl_ns, random.random),
            response_timeout_ns=response_timeout_ns,
            outlets=outlets,
            name=name,
        )

    def balancer(
        self,
        core: Core,
        settings: BalanceSettings,
        **named: Any,  # noqa: ANN401
    ) -> Balancer:
        """Return one with a thread of its own."""
        return Balancer(core, settings, **named)


Source: TypeAlias = str | redis.Redis | Environment
"""What groups and electors take as `redis`: a URL, a client, or a node of a simulated world."""


def environment_of(source: Source) -> Environment:
    """Return what a node that is given `source` runs in."""
    return source if isinstance(source, Environment) else RealEnvironment(source)


def real_environment_of(source: Source) -> RealEnvironment:
    """Return the same where only a real machine will do.

    Raises:
        ConfigError: for a simulated one.
    """
    if isinstance(source, Environment):
        raise ConfigError("a simulated node has no event loop: use multielect.ElectionGroup there")
    return RealEnvironment(source)
