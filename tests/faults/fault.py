"""A fault, and the scene in which it strikes.

Rules of this file:
    * A fault is a generator with one `yield`. The code before it strikes, and the code after it
      heals. So the fault still has its choices when it heals.
    * Faults that strike together heal in the opposite order. A fault that keeps the server from
      answering strikes last, so that no other fault needs the server until it heals.
"""

from __future__ import annotations

import enum
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from .checker import NOTHING, Heal
from .fleet import Fleet, Node

BOUND_S = 5.0
"""How long after a heal and one TTL all elections may take to be led again: the longest pause
between two attempts to connect (2 s), one attempt (two waits of 0.5 s), and 2 s for a busy
machine."""


class Rank(enum.IntEnum):
    """The order in which faults strike that strike together."""

    TAMPERS = 1
    """Changes the server's data. Strikes first, while the server still takes writes."""
    ENDS_NODE = 2
    """Ends the process of a node that no other fault strikes."""
    HURTS_NODE = 3
    """Strikes a node that no other fault strikes, or its wire."""
    LIMITS_SERVER = 4
    """The server answers with errors."""
    STOPS_SERVER = 5
    """The server does not answer, or has ended. Only one of these faults strikes at a time."""
    REPLACES_SERVER = 6
    """Another server takes its place. Strikes alone, as other faults could not heal that server."""
    TURNS_CLOCK = 7
    """Needs a server with a clock of its own."""


@dataclass(frozen=True)
class Fault:
    """A fault.

    Attributes:
        name: its name on the command line.
        about: what happens, for people.
        happen: the generator that strikes, yields, and heals.
        rank: what it strikes, and so when.
        lasts_ttls: how many TTLs lie between strike and heal.
        excuses: the invariants that are not promised from the strike to one TTL after the heal.
        bound_s: within how many seconds after the heal and one TTL all elections are led again.
    """

    name: str
    about: str
    happen: Callable[[Scene], Iterator[None]]
    rank: Rank
    lasts_ttls: float
    excuses: frozenset[str]
    bound_s: float


@dataclass
class Scene:
    """What one fault has to strike.

    Attributes:
        fleet: the fleet.
        random: the source of the fault's choices.
        taken: the nodes that faults of this round strike.
        spared: the nodes whose processes no fault may end.
        struck: the elections that the fault strikes; None for all.
        heals: further heals: times before the heal of the fault at which elections must be led.
    """

    fleet: Fleet
    random: random.Random
    taken: set[Node]
    spared: frozenset[Node]
    struck: frozenset[int] | None = None
    heals: list[Heal] = field(default_factory=list)

    @property
    def ttl_s(self) -> float:
        """The TTL in seconds."""
        return self.fleet.plan.ttl_s

    def leader(self, *, to_end: bool = False) -> Node:
        """Take a node for this fault: of the nodes that are left, the one that leads most.

        Args:
            to_end: whether the fault ends the node's process.
        """
        free = [node for node in self.fleet.living() if node not in self.taken]
        if to_end:
            free = [node for node in free if node not in self.spared]
        node = max(free, key=lambda node: len(self.led(node)))
        self.taken.add(node)
        return node

    def led(self, node: Node) -> list[int]:
        """Return the elections that a node leads, as its callbacks reported."""
        node.history.skim()
        return sorted(node.history.leads())

    def some(self, least: int = 1) -> list[int]:
        """Choose a third of all elections, at least `least`. The fault strikes only these."""
        count = max(least, self.fleet.plan.elections // 3)
        chosen = sorted(self.random.sample(range(self.fleet.plan.elections), count))
        self.struck = frozenset(chosen)
        return chosen

    def stir(self, elections: Iterable[int] | None = None) -> None:
        """Let leaders resign, so that new terms must begin: of some elections, or of all."""
        for node in self.fleet.living():
            if node not in self.taken:
                wanted = self.led(node)
                if elections is not None:
                    wanted = [number for number in wanted if number in set(elections)]
                if wanted:
                    node.order("resign", *wanted)

    def wait_led_by_others(self) -> None:
        """Wait until all elections are led again. The other nodes must take over from now on."""
        now_ns, plan = self.fleet.now_ns(), self.fleet.plan
        heal = Heal(now_ns, now_ns + plan.patience_ns + round(BOUND_S * 1e9))
        self.heals.append(heal)
        self.fleet.wait_led(heal.at_ns, heal.by_ns)

    def wait(self, ttls: float) -> None:
        """Let so many TTLs pass."""
        time.sleep(ttls * self.ttl_s)


FAULTS: dict[str, Fault] = {}
"""All faults, by name. Their modules add them when `registry` imports them."""

Happen = Callable[[Scene], Iterator[None]]


def fault(
    name: str,
    rank: Rank,
    *,
    lasts_ttls: float = 1.5,
    excuses: frozenset[str] = NOTHING,
    bound_s: float = BOUND_S,
) -> Callable[[Happen], Happen]:
    """Add a generator to `FAULTS`. The first line of its docstring becomes `about`."""

    def enter(happen: Happen) -> Happen:
        assert name not in FAULTS, f"there are two faults {name}"
        about = (happen.__doc__ or "").strip().split("\n", 1)[0]
        FAULTS[name] = Fault(name, about, happen, rank, lasts_ttls, excuses, bound_s)
        return happen

    return enter
