"""The simulated world as users see it: groups and electors, and what may befall them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from multielect import (
    CallbackError,
    ClosedError,
    ConfigError,
    ConnectionLostError,
    DemotionReason,
    ElectionGroup,
    Elector,
    MultielectError,
    NotLeaderError,
    ServerError,
    Term,
    aio,
)
from multielect.testing import Refusal, SimulatedWorld

TTL_S = 2.0


@pytest.fixture
def world() -> Iterator[SimulatedWorld]:
    with SimulatedWorld(seed=1) as made:
        yield made


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


def watched(world: SimulatedWorld, name: str, *keys: str) -> tuple[ElectionGroup, Told]:
    told = Told(world)
    group = make(
        world,
        name,
        *keys,
        on_elected=told.elected,
        on_demoted=told.demoted,
        on_error=told.errors.append,
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


def test_a_group_leads_and_gives_up(world: SimulatedWorld) -> None:
    group, told = watched(world, "a", "x", "y")
    assert not group["x"].is_leader
    world.run(10)
    assert {election.key for election in group.owned} == {"x", "y"}
    assert group["x"].require_leader() == group["x"].epoch > 0
    assert group["x"].leader_id == "a"
    assert group["x"].remaining > TTL_S / 2
    group.stop()
    assert told.terms == [
        ("x", None),
        ("y", None),
        ("x", DemotionReason.STOPPED),
        ("y", DemotionReason.STOPPED),
    ]
    assert not [key for key in world.server.dump() if key.endswith(b":leader")]
    with pytest.raises(ClosedError):
        group.add("z")
    assert not told.errors


def test_time_passes_only_where_it_is_let(world: SimulatedWorld) -> None:
    group = make(world, "a", "k")
    assert world.now == 0
    assert world.happened == 0
    assert group["k"].wait(timeout=1)
    assert 0 < world.now < 0.01
    before = world.now
    other = make(world, "b", "k")
    assert not other["k"].wait(timeout=1.5)
    assert world.now == pytest.approx(before + 1.5)


def test_who_waits_for_ever_is_told_that_nothing_will_come(world: SimulatedWorld) -> None:
    make(world, "a", "k")
    world.run(1)
    with pytest.raises(TimeoutError, match="after an hour"):
        make(world, "b", "k")["k"].wait()


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
    assert not a.owned
    with pytest.raises(ClosedError, match="has died"):
        a["k"].wait()
    assert b["k"].is_leader
    assert TTL_S / 2 < successor.times[0] - crashed < TTL_S + 0.1
    again = make(world, "a", "k")
    assert again.holder != a.holder
    world.run(1)
    assert again["k"].leader_id == "b"
    a.stop()


def test_a_resignation_wakes_the_others(world: SimulatedWorld) -> None:
    a, b = leader_and_other(world)
    before = world.now
    assert a["k"].resign()
    assert not a["k"].is_leader
    assert b["k"].wait(timeout=1)
    assert world.now - before < 0.01
    with pytest.raises(NotLeaderError):
        a["k"].require_leader()


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
    asked = len([batch for batch in world.server.batches if batch.request == "release"])
    world.run(3 * TTL_S)
    batches = [batch for batch in world.server.batches if batch.request == "release"]
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
    world.flush()
    world.run(TTL_S)
    assert told.terms == [("k", None), ("k", DemotionReason.LOST), ("k", None)]
    assert a["k"].epoch > epoch


def test_a_failover_forgets_the_last_writes(world: SimulatedWorld) -> None:
    world.run(1)
    a, _ = watched(world, "a", "k")
    world.run(0.3)
    epoch = a["k"].epoch
    world.pause(a)
    world.fail_over(losing=0.5)
    b = make(world, "b", "k")
    world.run(0.5)
    assert b["k"].is_leader, "the new server knows nothing of the first lease"
    assert a["k"].is_leader, "which the first node cannot know: see fencing"
    assert b["k"].epoch > epoch


def test_a_server_that_restarts_keeps_what_it_had_or_not(world: SimulatedWorld) -> None:
    a, told = watched(world, "a", "k")
    world.run(1)
    world.restart_server(seconds=0.2)
    world.run(5)
    assert told.terms == [("k", None)]
    world.restart_server(keeping_data=False)
    world.run(5)
    assert told.terms[1:] == [("k", DemotionReason.LOST), ("k", None)]
    assert a["k"].is_leader


def test_a_stalled_server_answers_late_and_in_order(world: SimulatedWorld) -> None:
    a, told = watched(world, "a", "k")
    world.run(1)
    world.stall_server(0.4)
    world.run(5)
    assert told.terms == [("k", None)]
    assert a["k"].is_leader


def test_the_servers_clock_ends_leases(world: SimulatedWorld) -> None:
    a, b = leader_and_other(world)
    world.pause(a)
    world.step_server_clock(10)
    b["k"].campaign()
    world.cut(b)
    world.run(0.1)
    assert b["k"].is_leader
    assert a["k"].is_leader, "two at once: what the README says Redis cannot promise"
    world.step_server_clock(-3600)
    world.run(1)
    assert world.server.remaining_ms(b"p:{") == -2


def test_clocks_drift_and_jump(world: SimulatedWorld) -> None:
    a, told = watched(world, "a", "k")
    node = world.node("a")
    began_s = node.monotonic_s()
    world.drift(a, 30_000)
    world.drift(None, -20_000)
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
    assert len(a.owned) == 8
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
    world.server.refusal = Refusal("LOADING Redis is loading the dataset in memory")
    world.run(0.4)
    world.server.refusal = None
    world.server.forget_scripts()
    world.run(5)
    assert told.terms == [("k", None)]
    assert any(isinstance(error, ServerError) for error in told.errors)
    world.server.is_full = True
    world.run(5)
    assert a["k"].is_leader, "a full server still refreshes"
    a.add("late")
    world.run(5)
    assert not a["late"].is_leader
    world.server.is_replica = True
    world.run(1)
    assert any("replica" in str(error) for error in told.errors)
    world.heal()
    world.run(2 * TTL_S)
    assert len(a.owned) == 2


@pytest.mark.parametrize("resp", [2, 3])
def test_old_servers_speak_resp2_and_know_no_flags(resp: int) -> None:
    with SimulatedWorld(redis_version=(6, 2)) as world:
        world.node("a", resp=resp)
        world.node("b", resp=resp)
        a, b = leader_and_other(world)
        a["k"].resign()
        before = world.now
        assert b["k"].wait(timeout=1)
        assert world.now - before < 0.01, "the release was heard"
        assert {batch.command for batch in world.server.batches} == {"EVAL", "EVALSHA"}


def test_an_elector_stands_in_the_world_too(world: SimulatedWorld) -> None:
    told: list[str] = []
    first = world.elector("a", prefix="sole", ttl=TTL_S, on_elected=lambda: told.append("a"))
    world.run(0.1)
    second = Elector(world.node("b"), prefix="sole", ttl=TTL_S, on_elected=lambda: told.append("b"))
    with second:
        world.run(1)
        assert first.is_leader
        world.crash(first)
        assert second.wait(timeout=2 * TTL_S)
        world.run(0.1)
        assert told == ["a", "b"]
    assert not second.is_leader


def test_callbacks_that_raise_are_reported_and_cost_nothing(
    world: SimulatedWorld, caplog: pytest.LogCaptureFixture
) -> None:
    errors: list[MultielectError] = []
    group = make(
        world,
        "a",
        "k",
        on_elected=lambda term: 1 / 0,
        on_error=errors.append,
        logger=logging.getLogger("own"),
    )
    world.run(5)
    assert group["k"].is_leader
    assert isinstance(errors[0], CallbackError)
    assert isinstance(errors[0].__cause__, ZeroDivisionError)
    assert "a callback failed" in caplog.text


def test_a_failed_test_in_a_callback_is_not_swallowed(world: SimulatedWorld) -> None:
    make(world, "a", "k", on_elected=lambda term: pytest.fail("from inside"))
    with pytest.raises(pytest.fail.Exception, match="from inside"):
        world.run(1)


def test_a_callback_may_wait_and_others_are_told_meanwhile(world: SimulatedWorld) -> None:
    told: list[str] = []

    def elected(term: Term) -> None:
        told.append(f"{term.key} begins")
        if term.key == "x":
            assert groups[0].add("z").wait(timeout=60)
            told.append("x goes on")

    groups = [make(world, "a", "x", "y", on_elected=elected)]
    world.run(10)
    assert told == ["x begins", "y begins", "x goes on", "z begins"]


def test_a_callback_that_waits_keeps_one_of_the_threads(world: SimulatedWorld) -> None:
    told: list[str] = []

    def elected(term: Term) -> None:
        told.append(term.key)
        if term.key == "x":
            world.run_until(lambda: False, timeout=5)

    make(world, "a", "x", "y", on_elected=elected, callback_threads=1)
    world.run_until(lambda: bool(told), timeout=1)
    assert told == ["x"]
    assert world.now > 5
    world.run(0.01)
    assert told == ["x", "y"]


def test_a_callback_may_stop_its_group(world: SimulatedWorld) -> None:
    groups: list[ElectionGroup] = []
    groups.append(make(world, "a", "k", on_elected=lambda term: groups[0].stop()))
    world.run(1)
    assert not groups[0]["k"].is_leader
    assert not [key for key in world.server.dump() if key.endswith(b":leader")]


def test_a_balanced_fleet_shares_and_hands_over(world: SimulatedWorld) -> None:
    drained: list[tuple[str, float]] = []
    keys = [f"k{number}" for number in range(12)]

    def finish(term: Term, deadline: float) -> None:
        drained.append((term.key, deadline - world.node("a").monotonic_s()))
        world.after(0.2, term.drained)

    a = make(world, "a", *keys, balance=True, on_draining=finish, drain_timeout=5.0)
    world.run(2 * TTL_S)
    assert len(a.owned) == 12
    b = make(world, "b", *keys, balance=True)
    world.run(2 * TTL_S)
    assert len(a.owned) == len(b.owned) == 6
    assert len(drained) == 6
    assert all(4.9 < left_s <= 5.0 for _, left_s in drained)
    assert {member.node_id for member in a.members} == {"a", "b"}
    assert a.drain(timeout=10)
    world.run(1)
    assert len(b.owned) == 12
    world.crash(a)
    world.crash(b)
    c = make(world, "c", *keys, balance=True)
    world.run(4 * TTL_S)
    assert len(c.owned) == 12


def test_two_groups_of_one_process_share_its_fate(world: SimulatedWorld) -> None:
    first = world.group("a", prefix="one", ttl=TTL_S, keys=["k"])
    second = world.group("a", prefix="two", ttl=TTL_S, keys=["k"])
    world.run(1)
    assert first["k"].is_leader
    assert second["k"].is_leader
    world.crash(first)
    assert not second.owned
    assert world.node("a") is not first._node.surroundings


def test_another_number_of_buckets_is_refused(world: SimulatedWorld) -> None:
    world.group("a", prefix="p", buckets=16, keys=["k"])
    world.run(1)
    errors: list[MultielectError] = []
    world.group("b", prefix="p", buckets=8, keys=["k"], on_error=errors.append)
    world.run(1)
    assert isinstance(errors[0], ConfigError)
    assert "16 buckets" in str(errors[0])


def test_what_makes_no_sense_is_refused(world: SimulatedWorld) -> None:
    group = make(world, "a", "k")
    with SimulatedWorld() as another, pytest.raises(ConfigError, match="not of this world"):
        another.pause(group)
    with pytest.raises(ConfigError, match="must not be negative"):
        world.run(-1)
    with pytest.raises(ConfigError, match="from the least to the most"):
        world.delay(group, 2, 1)
    with pytest.raises(ConfigError, match="event loop"):
        aio.ElectionGroup(world.node("b"), prefix="p")  # type: ignore[arg-type]
    node = world.node("c")
    world.crash(node)
    with pytest.raises(ClosedError, match="has died"):
        ElectionGroup(node, prefix="p")


def test_the_history_tells_what_happened(world: SimulatedWorld) -> None:
    group = make(world, "a", "k")
    world.run(1)
    world.pause(group, 5)
    world.run(10)
    lines = [str(line) for line in world.history]
    assert lines[0].endswith("a: connected")
    assert any("elected for b'k', epoch" in line for line in lines)
    assert any("expired, b'k', epoch" in line for line in lines)
    assert [line.what for line in world.history if line.at == 1.0] == ["paused"]


def test_the_digest_tells_histories_apart() -> None:
    def digest(seed: int, pause_s: float) -> str:
        with SimulatedWorld(seed=seed) as world:
            group = make(world, "a", "k")
            world.run(1)
            world.pause(group, pause_s)
            world.run(5)
            return world.digest()

    assert digest(1, 1.0) == digest(1, 1.0)
    assert digest(1, 1.0) != digest(2, 1.0)
    assert digest(1, 1.0) != digest(1, 1.5)


def test_nodes_that_come_and_go_leave_nothing_behind(world: SimulatedWorld) -> None:
    for number in range(50):
        group = make(world, f"n{number}", "k")
        world.run(0.1)
        world.crash(group)
        world.run(TTL_S)
    assert len(world.nodes) <= 2
    assert len(world.server.subscribers) <= 1
