"""Groups in a simulated world, and what their callbacks were told."""

from __future__ import annotations

from typing import Any

from multielect import DemotionReason, ElectionGroup, MultielectError, Term
from multielect.testing import SimulatedWorld

TTL_S = 2.0


class Told:
    """What callbacks were told."""

    def __init__(self, world: SimulatedWorld) -> None:
        self.terms: list[tuple[str, DemotionReason | None]] = []
        self.errors: list[MultielectError] = []
        self.times: list[float] = []
        self._world = world

    def elected(self, term: Term) -> None:
        self.terms.append((term.key, None))
        self.times.append(self._world.now)

    def demoted(self, term: Term, reason: DemotionReason) -> None:
        self.terms.append((term.key, reason))
        self.times.append(self._world.now)


def make(world: SimulatedWorld, name: str, *keys: str, **settings: Any) -> ElectionGroup:
    return world.group(name, prefix="p", ttl=TTL_S, keys=keys, **settings)


def watched(
    world: SimulatedWorld, name: str, *keys: str, **settings: Any
) -> tuple[ElectionGroup, Told]:
    told = Told(world)
    group = make(
        world,
        name,
        *keys,
        on_elected=told.elected,
        on_demoted=told.demoted,
        on_error=told.errors.append,
        **settings,
    )
    return group, told


def leader_and_other(world: SimulatedWorld) -> tuple[ElectionGroup, ElectionGroup]:
    a = make(world, "a", "k")
    world.run(0.1)
    b = make(world, "b", "k")
    world.run(1)
    assert a["k"].is_leader
    assert not b["k"].is_leader
    return a, b
