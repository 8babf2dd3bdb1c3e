"""A simulated process: its clock, its connections and its faults.

Rules of this file:
    * `ElectionGroup` and `Elector` take a node in place of the address of Redis. They then run the
      production code, except for threads and sockets.
    * A process does not notice that it was paused. It goes on with the messages that have arrived.
    * A process that has died stays dead. A new process may use its name.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeVar

from .._callbacks.dispatcher import Delivery, Dispatcher
from .._connection.endpoint import Endpoint
from .._core.core import Core
from .._engine.engine import Outlets
from .._fleet.balancer import Balancer
from .._node.environment import Environment, Running
from .._protocol.keys import KeyLayout
from .._settings.settings import BalanceSettings
from ..errors import ClosedError
from ._clocks import LocalClock
from ._dispatch import SimulatedDispatcher
from ._engine import SimulatedEngine
from ._link import Link, Weather

if TYPE_CHECKING:
    from ._server import SimulatedServer
    from ._world import SimulatedWorld

T = TypeVar("T")

_NS = 1_000_000_000


class SimulatedNode(Environment):
    """A process of a simulated world. A group or an elector takes it as its `redis`.

    Only a world makes nodes, by `SimulatedWorld.node`. Its methods also cause their faults.

    Attributes:
        name: its name in the world's history.
        world: its world.
        server: the server to which it connects.
        clock: its machine's clock.
        has_died: whether it was killed.
        is_stopped: whether it does nothing now, as it is paused or dead.
    """

    is_simulated = True
    clock: LocalClock

    def __init__(
        self, world: SimulatedWorld, name: str, number: int, *, resp: int, server: SimulatedServer
    ) -> None:
        self.name = name
        self.world = world
        self.server = server
        self.clock = LocalClock(world.now_ns)
        self.has_died = False
        self.is_stopped = False
        self.paused_until_ns = 0
        self.stuffed_until_ns = 0
        self.held_until_ns = 0
        self.hears_pushes = resp > 2
        self.links: list[Link] = []
        self.lag_ms = 0.0
        self.callback_delay_ns = 0
        self.chance = random.Random(f"{world.seed}/{name}/{number}")
        self.weather = Weather(random.Random(f"{world.seed}/{name}/{number}/link"))
        self.engines: list[SimulatedEngine] = []
        self.dispatchers: list[SimulatedDispatcher[Any]] = []
        self._number = number
        self._starts = 0
        self._links_made = 0
        self._waiting: list[Callable[[], None]] = []

    @property
    def is_alive(self) -> bool:
        """Whether the process was not killed."""
        return not self.has_died

    def __repr__(self) -> str:
        state = "dead" if not self.is_alive else "stopped" if self.is_stopped else "running"
        return f"<SimulatedNode {self.name!r}: {state}>"

    def _address(self) -> str:
        is_first = self.server is self.world.server
        return "the simulated server" + ("" if is_first else f" {self.server.name!r}")

    # ---- what a node takes from its environment

    def monotonic_s(self) -> float:
        """Return this machine's time."""
        return self.clock.now_ns() / _NS

    def time_of_day(self) -> datetime:
        """Return the time of this machine's only clock, which nobody sets."""
        return datetime.fromtimestamp(self.clock.now_ns() / _NS, timezone.utc)

    def incarnation(self) -> str:
        """Return a text that differs at each start, and is the same for the same seed."""
        self._starts += 1
        text = f"{self.world.seed}/{self.name}/{self._number}/{self._starts}"
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def seed(self) -> int:
        """Return 64 random bits, the same for the same seed."""
        return self.chance.getrandbits(64)

    def wait_for(
        self, condition: threading.Condition, is_so: Callable[[], bool], timeout_s: float | None
    ) -> bool:
        """Let the world go on until `is_so` returns True."""
        del condition  # there is no other thread to wait for
        return self.world.run_until(is_so, timeout_s)

    def dispatcher(self, delivery: Delivery[T]) -> Dispatcher[T]:
        """Return a dispatcher that calls callbacks one at a time."""
        made = SimulatedDispatcher(self, delivery)
        self.dispatchers.append(made)
        return made

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
        """Return the engine of a core, which runs a step at a time.

        Raises:
            ClosedError: if this process has died.
        """
        del is_balanced  # one server has the keys of the fleet and those of the elections
        if not self.is_alive:
            raise ClosedError(f"the process {self.name!r} has died: make another node")
        made = SimulatedEngine(
            self,
            core,
            layout=layout,
            endpoint=Endpoint(layout.prefix, node_id, self._address()),
            ttl_ns=ttl_ns,
            response_timeout_ns=response_timeout_ns,
            outlets=outlets,
            name=name,
        )
        self.engines.append(made)
        return made

    def balancer(
        self,
        core: Core,
        settings: BalanceSettings,
        **named: Any,  # noqa: ANN401
    ) -> Balancer:
        """Return the balancer of a core, which runs a step at a time."""
        made = SteppedBalancer(core, settings, **named)
        for engine in self.engines:
            if engine.core is core:
                engine.balance = made.turn
        return made

    # ---- faults

    def lag_ns(self) -> int:
        """Return how late the next turn is."""
        return int(self.lag_ms * 1_000_000 * self.chance.random()) if self.lag_ms else 0

    def when_resumed(self, act: Callable[[], None]) -> None:
        """Call `act` when the process goes on."""
        self._waiting.append(act)

    @property
    def is_stuffed(self) -> bool:
        """Whether the process cannot send, as its send buffer is full."""
        return self.world.now_ns < self.stuffed_until_ns

    def send_waiting(self) -> None:
        """Send the messages that could not be sent."""
        if not self.is_stopped:
            for engine in self.engines:
                engine.flush()

    def link(self, what: str, **settings: Any) -> Link:  # noqa: ANN401  # those of Link
        """Return a new connection to the server."""
        self._links_made += 1
        name = f"{self.name} {what} {self._links_made}"
        made = Link(self.world, self.weather, self.server, name=name, **settings)
        self.links = [*self.heard_links(), made]
        return made

    def heard_links(self) -> list[Link]:
        """Return the connections on which messages may still reach the server."""
        return [link for link in self.links if link.is_heard]

    def go_on(self) -> None:
        """Go on, as after SIGCONT."""
        if not self.is_alive or not self.is_stopped:
            return
        self.is_stopped = False
        for engine in self.engines:
            engine.resume()
        for dispatcher in self.dispatchers:
            dispatcher.resume()
        waiting, self._waiting = self._waiting, []
        for act in waiting:
            act()

    def die(self) -> None:
        """End at once, as after SIGKILL."""
        self.has_died = self.is_stopped = True
        for engine in self.engines:
            engine.abandon()
        for dispatcher in self.dispatchers:
            dispatcher.abandon()
        self._waiting.clear()


class SteppedBalancer(Balancer):
    """A balancer without a thread: the engine calls its `turn`."""

    _may_work = False

    @property
    def is_running(self) -> bool:
        """Whether the balancer works."""
        return not self._closed

    def start(self) -> None:
        """Become a member."""
        self.call()

    def unstart(self) -> None:
        """Do nothing, as there is no thread to end."""

    def join(self, timeout_s: float) -> None:
        """Do nothing, as there is no thread to wait for."""

    def turn(self) -> int | None:
        """Do the work that is due. Returns when there will be more."""
        self._may_work = True
        self._run()
        return None if self._closed else self._due_ns

    def _wait(self) -> bool:
        with self._changed:
            due_ns = self._due_ns
            is_due = due_ns is not None and due_ns <= self._clock.now_ns()
            is_called = self._has_answer or (self._keys_changed and bool(self._entries))
            goes_on = self._may_work and not self._closed and (is_called or is_due)
            self._may_work = False
            if goes_on:
                self._has_answer = False
            return goes_on
