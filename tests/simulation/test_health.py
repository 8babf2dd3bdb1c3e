"""Health and waiting for it, in the simulated world: the same as on a real server."""

from __future__ import annotations

import pytest

from multielect import ClosedError, ConfigError, ConnectionLostError, ServerUnusableError
from multielect.testing import SimulatedWorld

from .worlds import make

PREFIX = "orders"


def test_health_follows_what_befalls_the_node(world: SimulatedWorld) -> None:
    group = world.group("a", prefix=PREFIX, keys=["k"], start=False)
    assert (group.health.state, group.is_running) == ("new", False)
    group.start(wait=1)
    health = group.health
    assert (health.state, group.is_running) == ("connected", True)
    assert health.connected_since is not None
    assert group["k"].wait(1)
    assert (group.health.elections, group.health.leading) == (1, 1)

    world.server.restart(seconds=3)
    world.run(1)
    health = group.health
    assert (health.state, health.connected_since, health.reconnects) == ("connecting", None, 1)
    assert isinstance(health.last_error, ConnectionLostError)
    assert health.failed_attempts > 0
    assert not group.wait_connected(1)
    assert group.wait_connected(10)
    assert group.health.failed_attempts == 0

    group.stop()
    assert (group.health.state, group.is_running) == ("stopped", False)
    with pytest.raises(ClosedError):
        group.wait_connected(1)


def test_a_process_that_died_has_failed(world: SimulatedWorld) -> None:
    group = make(world, "a", "k")
    world.run(1)
    world.crash(group)
    assert (group.health.state, group.is_running, group.health.leading) == ("failed", False, 0)


def test_a_start_that_waits_in_vain_takes_simulated_time(world: SimulatedWorld) -> None:
    world.server.restart(seconds=1000)
    group = world.group("a", prefix=PREFIX, keys=["k"], start=False)
    with pytest.raises(ConnectionLostError, match="no server listens there"):
        group.start(wait=100)
    assert 100 <= world.now < 110
    assert group.health.state == "stopped"


def test_a_replica_is_waited_for_and_other_buckets_are_not(world: SimulatedWorld) -> None:
    world.server.model.is_replica = True
    world.after(5, lambda: setattr(world.server.model, "is_replica", False))
    group = world.group("a", prefix=PREFIX, start=False)
    group.start(wait=10)
    assert isinstance(group.health.last_error, ServerUnusableError)
    other = world.group("b", prefix=PREFIX, buckets=16, start=False)
    before = world.now
    with pytest.raises(ConfigError, match="buckets"):
        other.start(wait=100)
    assert world.now - before < 10


def test_balanced(world: SimulatedWorld) -> None:
    keys = [f"k{number}" for number in range(30)]
    first = world.group("a", prefix=PREFIX, keys=keys, balance=True)
    assert first.wait_balanced(10)
    assert first.health.leading == 30
    # Who comes within its delay of the eldest is given its share at once.
    world.run(5)
    second = world.group("b", prefix=PREFIX, keys=keys, balance=True, join_delay=2.0)
    assert not second.wait_balanced(1)
    assert second.wait_balanced(60)
    assert second.health.leading == 15
    assert first.wait_balanced(10)
    assert first.health.leading == 15
