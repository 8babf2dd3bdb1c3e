"""What may befall nodes, connections and the server of a simulated world, and what follows."""

from __future__ import annotations

import pytest

from multielect import (
    ClosedError,
    ConnectionLostError,
    DemotionReason,
    ServerError,
)
from multielect.testing import Refusal, SimulatedWorld

from .worlds import TTL_S, leader_and_other, make, watched


def test_a_pause_ends_a_term_and_the_sleeper_knows_at_once(world: SimulatedWorld) -> None:
    a, told = watched(world, "a", "k")
    world.run(0.1)
    b = make(world, "b", "k")
    world.run(1)
    world.pause(a, seconds=2 * TTL_S)
    both: list[float] = []

    def observe() -> None:
        if a["k"].is_leader and b["k"].is_leader:
            both.append(world.now)

    world.observe = observe
    world.run(2 * TTL_S - 0.001)
    assert not both
    assert b["k"].is_leader
    assert told.terms == [("k", None)], "a process that stands still is told nothing"
    world.run(0.01)
    assert told.terms == [("k", None), ("k", DemotionReason.EXPIRED)]


def test_a_pause_may_be_ended_early_and_made_longer(world: SimulatedWorld) -> None:
    a, b = leader_and_other(world)
    world.pause(a, seconds=1)
    world.pause(a, seconds=5)
    world.run(4)
    assert b["k"].is_leader
    world.pause(b)
    world.run(60)
    assert a["k"].is_leader, "awake again after 5 s, not before"
    world.resume(b)
    world.run(1)
    assert b["k"].leader_id == "a"


def test_a_crash_is_silent_and_noticed_when_the_lease_ends(world: SimulatedWorld) -> None:
    a, told = watched(world, "a", "k")
    world.run(0.1)
    b, successor = watched(world, "b", "k")
    world.run(1)
    world.crash(a)
    crashed = world.now
    world.run(2 * TTL_S)
    assert told.terms == [("k", None)]
    assert not a["k"].is_leader
    assert not a.led
    with pytest.raises(ClosedError, match="has died"):
        a["k"].wait()
    assert b["k"].is_leader
    assert TTL_S / 2 < successor.times[0] - crashed < TTL_S + 0.1
    again = make(world, "a", "k")
    assert again.holder != a.holder
    world.run(1)
    assert again["k"].leader_id == "b"
    a.stop()


def test_a_release_that_was_lost_costs_a_ttl(world: SimulatedWorld) -> None:
    a, b = leader_and_other(world)
    world.hold(a)
    assert a["k"].resign()
    world.crash(a)
    assert not b["k"].wait(timeout=TTL_S / 4)
    assert b["k"].wait(timeout=TTL_S)


def test_a_late_release_ends_nothing_of_its_successor(world: SimulatedWorld) -> None:
    a, b = leader_and_other(world)
    world.hold(a, replies=False)
    a.stop(timeout=0.1)
    world.cut(a, late=2 * TTL_S)
    assert b["k"].wait(timeout=TTL_S)
    epoch = b["k"].epoch
    asked = len([batch for batch in world.server.model.batches if batch.request == "release"])
    world.run(3 * TTL_S)
    batches = [batch for batch in world.server.model.batches if batch.request == "release"]
    assert len(batches) == asked + 1, "it did arrive"
    assert b["k"].require_leader() == epoch


def test_lost_replies_end_a_term_at_its_deadline(world: SimulatedWorld) -> None:
    a, told = watched(world, "a", "k")
    world.run(1)
    world.hold(a, seconds=3 * TTL_S, requests=False)
    world.run(2 * TTL_S)
    assert told.terms[-1] == ("k", DemotionReason.EXPIRED)
    assert any("did not answer" in str(error) for error in told.errors)
    world.run(4 * TTL_S)
    assert a["k"].is_leader


def test_a_full_send_buffer_makes_what_is_sent_old(world: SimulatedWorld) -> None:
    a, told = watched(world, "a", "k")
    world.run(1)
    world.stuff(a, seconds=0.5)
    world.run(3)
    assert told.terms == [("k", None)]
    world.stuff(a, seconds=TTL_S)
    world.run(TTL_S - 0.01)
    assert told.terms[-1] == ("k", DemotionReason.EXPIRED)


def test_a_cut_connection_comes_back_and_costs_nothing(world: SimulatedWorld) -> None:
    a, told = watched(world, "a", "k")
    world.run(1)
    world.cut()
    world.run(10)
    assert told.terms == [("k", None)]
    assert a.counters.reconnects == 1
    assert isinstance(told.errors[0], ConnectionLostError)


def test_flushall_gives_the_epochs_no_rest(world: SimulatedWorld) -> None:
    a, told = watched(world, "a", "k")
    world.run(1)
    epoch = a["k"].epoch
    world.server.flush()
    world.run(TTL_S)
    assert told.terms == [("k", None), ("k", DemotionReason.LOST), ("k", None)]
    assert a["k"].epoch > epoch


def test_a_failover_forgets_the_last_writes(world: SimulatedWorld) -> None:
    world.run(1)
    a, _ = watched(world, "a", "k")
    world.run(0.3)
    epoch = a["k"].epoch
    world.pause(a)
    world.server.fail_over(losing=0.5)
    b = make(world, "b", "k")
    world.run(0.5)
    assert b["k"].is_leader, "the new server knows nothing of the first lease"
    assert a["k"].is_leader, "which the first node cannot know: see fencing"
    assert b["k"].epoch > epoch


def test_a_server_that_restarts_keeps_what_it_had_or_not(world: SimulatedWorld) -> None:
    a, told = watched(world, "a", "k")
    world.run(1)
    world.server.restart(seconds=0.2)
    world.run(5)
    assert told.terms == [("k", None)]
    world.server.restart(keeping_data=False)
    world.run(5)
    assert told.terms[1:] == [("k", DemotionReason.LOST), ("k", None)]
    assert a["k"].is_leader


def test_a_stalled_server_answers_late_and_in_order(world: SimulatedWorld) -> None:
    a, told = watched(world, "a", "k")
    world.run(1)
    world.server.stall(0.4)
    world.run(5)
    assert told.terms == [("k", None)]
    assert a["k"].is_leader


def test_the_servers_clock_ends_leases(world: SimulatedWorld) -> None:
    a, b = leader_and_other(world)
    world.pause(a)
    world.server.step_clock(10)
    b["k"].campaign()
    world.cut(b)
    world.run(0.1)
    assert b["k"].is_leader
    assert a["k"].is_leader, "two at once: what the README says Redis cannot promise"
    world.server.step_clock(-3600)
    world.run(1)
    assert world.server.model.remaining_ms(b"p:{") == -2


def test_clocks_drift_and_jump(world: SimulatedWorld) -> None:
    a, told = watched(world, "a", "k")
    node = world.node("a")
    began_s = node.monotonic_s()
    world.drift(a, 30_000)
    world.server.drift(-20_000)
    world.run(10)
    assert node.monotonic_s() - began_s == pytest.approx(10.3)
    assert told.terms == [("k", None)]
    world.jump(a, 1.5 * TTL_S)
    assert not a["k"].is_leader
    world.run(1)
    assert told.terms[1:] == [("k", DemotionReason.EXPIRED), ("k", None)]
    with pytest.raises(ValueError, match="cannot be wrong"):
        world.drift(a, -600_000)


def test_slow_and_split_messages_change_nothing_but_times(world: SimulatedWorld) -> None:
    a, told = watched(world, "a", *"abcdefgh")
    world.delay(None, 0.05, 0.1)
    world.split(None, 1.0)
    world.run(20)
    assert len(a.led) == 8
    assert 0.1 < told.times[0] < 0.5
    assert len(told.terms) == 8


def test_a_busy_machine_is_late_but_safe(world: SimulatedWorld) -> None:
    _, told = watched(world, "a", "k")
    world.lag(world.node("a"), 0.2)
    world.delay_callbacks(world.node("a"), 0.5)
    world.run(5)
    assert told.terms == [("k", None)]
    assert told.times[0] > 0.5


def test_refusals_are_reported_and_survived(world: SimulatedWorld) -> None:
    a, told = watched(world, "a", "k")
    world.run(1)
    world.server.model.refusal = Refusal("LOADING Redis is loading the dataset in memory")
    world.run(0.4)
    world.server.model.refusal = None
    world.server.model.forget_scripts()
    world.run(5)
    assert told.terms == [("k", None)]
    assert any(isinstance(error, ServerError) for error in told.errors)
    world.server.model.is_full = True
    world.run(5)
    assert a["k"].is_leader, "a full server still refreshes"
    a.add("late")
    world.run(5)
    assert not a["late"].is_leader
    world.server.model.is_replica = True
    world.run(1)
    assert any("replica" in str(error) for error in told.errors)
    world.heal()
    world.run(2 * TTL_S)
    assert len(a.led) == 2
