"""One server of a simulated world: a model of Redis, whether it is there, and its faults.

Rules of this file:
    * The model answers at once. This file decides when bytes reach it, and whether they do.
    * A fault of one server does not touch the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._protocol.scripts import WITH_FLAGS, WITHOUT_FLAGS
from .._settings.settings import checked_seconds
from ._clocks import LocalClock
from ._model import RedisModel
from ._timeline import START_NS, span_ns

if TYPE_CHECKING:
    from ._link import Link
    from ._world import SimulatedWorld

_NS = 1_000_000_000

FLAGS_SINCE = (7, 0)
"""The first version of Redis whose scripts may have flags."""


class SimulatedServer:
    """A server of a simulated world. Only a world makes servers, by `SimulatedWorld.add_server`.

    Attributes:
        name: its name in the world's history.
        model: the model of Redis. A test may read and change its keys.
        clock: its wall clock.
        scripts: the scripts that its version understands.
    """

    def __init__(self, world: SimulatedWorld, name: str, redis_version: tuple[int, int]) -> None:
        self.name = name
        self.clock = LocalClock(START_NS)
        self.clock.follow(world.now_ns)
        self.model = RedisModel(self.clock)
        self.model.store.remembers = True
        self.scripts = WITH_FLAGS if redis_version >= FLAGS_SINCE else WITHOUT_FLAGS
        self._world = world
        self._up_ns = START_NS
        self._free_ns = START_NS
        self._inbox: list[tuple[Link, bytes]] = []

    def __repr__(self) -> str:
        state = "serves" if self.is_reachable else "does not serve"
        return f"<SimulatedServer {self.name!r}: {state}>"

    @property
    def is_reachable(self) -> bool:
        """Whether the server accepts connections now."""
        return self._world.now_ns >= max(self._up_ns, self._free_ns)

    # ---- faults

    def flush(self) -> None:
        """Delete everything, as FLUSHALL does."""
        self._note("FLUSHALL")
        self.model.store.clear()

    def drift(self, parts_per_million: int) -> None:
        """Let the wall clock run too fast, or (negative) too slow, from now on."""
        self._note(f"its clock drifts by {parts_per_million} ppm")
        self.clock.drift(parts_per_million)

    def step_clock(self, seconds: float) -> None:
        """Set the wall clock, by which leases end, forward or (negative) back."""
        self._note(f"its clock is set by {seconds:g} s")
        self.model.store.step_clock(round(checked_seconds("seconds", seconds) * _NS))

    def stall(self, seconds: float) -> None:
        """Do nothing for some seconds, as during a slow command."""
        self._note("stalled")
        self._free_ns = self._world.until_ns(self._free_ns, seconds)
        self._world.after(seconds, self._go_on)

    def restart(self, seconds: float = 0.0, *, keeping_data: bool = True) -> None:
        """Stop, and start again after some seconds, with the data or empty."""
        self._note(f"restarts {'with' if keeping_data else 'without'} its data")
        self._stop(seconds)
        if not keeping_data:
            self.model.store.clear()

    def fail_over(self, losing: float, seconds: float = 0.0) -> None:
        """Let a replica take over that lacks the last writes.

        Args:
            losing: how many seconds of writes it lacks, at most 10.
            seconds: for how long there is no server.
        """
        self._note(f"fails over, losing {losing:g} s")
        self._stop(seconds)
        self.model.store.forget(span_ns("losing", losing))

    def heal(self) -> None:
        """Run, serve and accept writes again."""
        self._up_ns = self._free_ns = self._world.now_ns
        self._go_on()
        self.model.refusal = None
        self.model.is_full = self.model.is_replica = False

    # ---- inside, for links

    def serve(self, link: Link, data: bytes) -> None:
        """Take bytes from a connection, now or when the stall ends."""
        if self._world.now_ns < self._free_ns or self._inbox:
            self._inbox.append((link, data))
        else:
            link.take(data)

    # ---- inside

    def _note(self, what: str) -> None:
        self._world.note_line(self.name, what)

    def _go_on(self) -> None:
        if self._world.now_ns < self._free_ns:
            return
        inbox, self._inbox = self._inbox, []
        for link, data in inbox:
            link.take(data)

    def _stop(self, seconds: float) -> None:
        self._up_ns = self._world.until_ns(self._up_ns, seconds)
        self._inbox.clear()
        self.model.forget_scripts()
        for node in self._world.nodes:
            for link in node.heard_links() if node.server is self else ():
                link.hang_up()
