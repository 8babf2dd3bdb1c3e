"""Worlds with several servers: a node knows one, and a fault of one does not touch the others."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from multielect import ClockJumpError, ConfigError, ElectionGroup, ServerError
from multielect.testing import Refusal, SimulatedServer, SimulatedWorld

from .worlds import TTL_S, Told, make, watched

Watched = tuple[ElectionGroup, Told]


def two(world: SimulatedWorld) -> tuple[SimulatedServer, Watched, Watched]:
    """Return a second server, and two nodes: each leads 'x', at another server."""
    other = world.add_server("other")
    here = watched(world, "here", "x")
    there = watched(world, "there", "x", server=other)
    world.run(2)
    assert here[0]["x"].is_leader
    assert there[0]["x"].is_leader
    return other, here, there


def test_nodes_at_two_servers_do_not_contest_an_election(world: SimulatedWorld) -> None:
    other, here, there = two(world)
    world.run(10 * TTL_S)
    for group, told in (here, there):
        assert group["x"].is_leader
        assert told.terms == [("x", None)]
    assert world.server is world.servers[0]
    assert other.model.dump().keys() == world.server.model.dump().keys()


FAULTS: dict[str, Callable[[SimulatedServer], object]] = {
    "restart": lambda server: server.restart(2 * TTL_S),
    "stall": lambda server: server.stall(2 * TTL_S),
    "flush": lambda server: server.flush(),
    "fail over": lambda server: server.fail_over(losing=10, seconds=2 * TTL_S),
    "clock": lambda server: server.step_clock(60),
    "refusal": lambda server: setattr(server.model, "refusal", Refusal("LOADING it loads")),
    "replica": lambda server: setattr(server.model, "is_replica", True),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("is_first", [False, True])
def test_a_fault_of_one_server_costs_its_own_leaders_alone(
    world: SimulatedWorld, name: str, *, is_first: bool
) -> None:
    other, here, there = two(world)
    (hit, spared) = (here, there) if is_first else (there, here)
    FAULTS[name](world.server if is_first else other)
    world.run(2 * TTL_S)
    assert len(hit[1].terms) > 1, "its term has ended"
    assert spared[1].terms == [("x", None)]
    assert spared[1].errors == []
    world.heal()
    world.run(5 * TTL_S)
    assert hit[0]["x"].is_leader
    assert spared[1].terms == [("x", None)]


def test_errors_name_the_server(world: SimulatedWorld) -> None:
    other, here, there = two(world)
    other.model.is_full = True
    there[0].add("y")
    world.run(1)
    (error, *_) = there[1].errors
    assert isinstance(error, ServerError)
    assert error.server == "the simulated server 'other'"
    other.step_clock(60)
    world.run(2)
    jumps = [error for error in there[1].errors if isinstance(error, ClockJumpError)]
    assert {jump.server for jump in jumps} == {"the simulated server 'other'"}
    assert here[1].errors == []


def test_a_server_of_an_older_version_runs_the_scripts_that_it_understands(
    world: SimulatedWorld,
) -> None:
    old = world.add_server("old", redis_version=(6, 2))
    group = make(world, "a", "x", server=old)
    world.run(1)
    assert group["x"].is_leader


def test_what_happens_to_a_server_stands_in_the_history_under_its_name(
    world: SimulatedWorld,
) -> None:
    other = world.add_server("other")
    other.flush()
    world.server.flush()
    other.drift(500)
    assert [(line.who, line.what) for line in world.history[-3:]] == [
        ("other", "FLUSHALL"),
        ("server", "FLUSHALL"),
        ("other", "its clock drifts by 500 ppm"),
    ]
    assert repr(other) == "<SimulatedServer 'other': serves>"
    other.stall(1)
    assert repr(other) == "<SimulatedServer 'other': does not serve>"


def test_bad_input_is_refused(world: SimulatedWorld) -> None:
    other = world.add_server("other")
    with pytest.raises(ConfigError, match="there is a server 'other' already"):
        world.add_server("other")
    node = world.node("a", server=other)
    assert world.node("a") is node
    assert world.node("a", server=other) is node
    with pytest.raises(ConfigError, match="connects to <SimulatedServer 'other'"):
        world.node("a", server=world.server)
    with SimulatedWorld() as another, pytest.raises(ConfigError, match="does not belong"):
        another.node("a", server=other)
