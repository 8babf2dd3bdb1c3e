"""What a fault is, and what it finds when it strikes.

Rules of this file:
    * A fault is a generator: what stands before its one `yield` strikes, what stands behind it
      heals. So what it chose, it still knows when it heals.
    * When several strike at once they heal in the opposite order. Those that keep the server from
      answering strike last, so that nothing but time has to pass until they heal.
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
"""How long after a TTL all may take to be led again: the longest pause between two attempts to
connect (2 s), an attempt that is under way (two waits of 0.5 s), and a busy machine (2 s)."""


class Rank(enum.IntEnum):
    """In which order faults strike that strike at once."""

    TAMPERS = 1
    """Changes what the server holds: to be done while it still takes writes."""
    ENDS_NODE = 2
    """Ends the process of a node that no other fault has."""
    HURTS_NODE = 3
    """Takes a node, or its wire, that no other fault has."""
    LIMITS_SERVER = 4
    """The server answers, and refuses."""
    STOPS_SERVER = 5
    """The server does not answer, or is gone. One at a time."""
    REPLACES_SERVER = 6
    """Another server takes its place. Strikes alone: what another limits is not there to heal."""
    TURNS_CLOCK = 7
    """Needs a server with a clock of its own."""


@dataclass(frozen=True)
class Fault:
    """Something that may happen.

    Attributes:
        name: by which it can be run alone.
        about: what happens, for a person.
        happen: strikes, yields, and heals.
        rank: what it takes hold of.
        lasts_ttls: for how many TTLs it is left alone.
        excuses: the invariants that are not promised from the strike to one TTL after the heal.
        bound_s: after the heal and one TTL, how long until all is led again.
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
    """What one fault finds.

    Attributes:
        fleet: what it strikes.
        random: from which it chooses.
        taken: the nodes that other faults of the moment have.
        spared: the nodes whose processes are not to be ended.
        struck: the elections that it strikes; None for all.
        heals: since when nothing was in the way already before the fault healed.
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
        """Take a node for this fault: of those that are left, the one that leads most.

        Args:
            to_end: whether the fault ends its process.
        """
        free = [node for node in self.fleet.living() if node not in self.taken]
        if to_end:
            free = [node for node in free if node not in self.spared]
        node = max(free, key=lambda node: len(self.led(node)))
        self.taken.add(node)
        return node

    def led(self, node: Node) -> list[int]:
        """Return what a node leads, as it was told."""
        node.history.skim()
        return sorted(node.history.leads())

    def some(self, least: int = 1) -> list[int]:
        """Choose some elections, a third of all, and strike these only."""
        count = max(least, self.fleet.plan.elections // 3)
        chosen = sorted(self.random.sample(range(self.fleet.plan.elections), count))
        self.struck = frozenset(chosen)
        return chosen

    def stir(self, elections: Iterable[int] | None = None) -> None:
        """Have terms end by resignation, so that others must begin; all, or those of some."""
        for node in self.fleet.living():
            if node not in self.taken:
                wanted = self.led(node)
                if elections is not None:
                    wanted = [number for number in wanted if number in set(elections)]
                if wanted:
                    node.order("resign", *wanted)

    def wait_led_by_others(self) -> None:
        """Wait until all is led again; from now on nothing is in the way of those who are left."""
        now_ns, plan = self.fleet.now_ns(), self.fleet.plan
        heal = Heal(now_ns, now_ns + plan.patience_ns + round(BOUND_S * 1e9))
        self.heals.append(heal)
        self.fleet.wait_led(heal.at_ns, heal.by_ns)

    def wait(self, ttls: float) -> None:
        """Let time pass: a fault lasts."""
        time.sleep(ttls * self.ttl_s)


FAULTS: dict[str, Fault] = {}
"""All faults, by name, once their modules are imported: see `registry`."""

Happen = Callable[[Scene], Iterator[None]]


def fault(
    name: str,
    rank: Rank,
    *,
    lasts_ttls: float = 1.5,
    excuses: frozenset[str] = NOTHING,
    bound_s: float = BOUND_S,
) -> Callable[[Happen], Happen]:
    """Enter a generator under its name; its docstring says what happens."""

    def enter(happen: Happen) -> Happen:
        assert name not in FAULTS, f"{name} is there already"
        about = (happen.__doc__ or "").strip().split("\n", 1)[0]
        FAULTS[name] = Fault(name, about, happen, rank, lasts_ttls, excuses, bound_s)
        return happen

    return enter
