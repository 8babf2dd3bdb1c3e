"""The simulated world as users see it: groups and electors, time and callbacks."""

from __future__ import annotations

import logging

import pytest

from multielect import (
    CallbackError,
    ClosedError,
    ConfigError,
    DemotionReason,
    ElectionGroup,
    Elector,
    MultielectError,
    NotLeaderError,
    Term,
    aio,
)
from multielect.testing import SimulatedWorld

from .worlds import TTL_S, leader_and_other, make, watched


def test_a_group_leads_and_gives_up(world: SimulatedWorld) -> None:
    group, told = watched(world, "a", "x", "y")
    assert not group["x"].is_leader
    world.run(10)
    assert {election.key for election in group.led} == {"x", "y"}
    assert group["x"].require_leader() == group["x"].epoch > 0
    assert group["x"].leader_id == "a"
    assert group["x"].remaining > TTL_S / 2
    group.stop()
    assert set(told.terms[:2]) == {("x", None), ("y", None)}
    assert set(told.terms[2:]) == {("x", DemotionReason.STOPPED), ("y", DemotionReason.STOPPED)}
    assert not [key for key in world.server.model.dump() if key.endswith(b":leader")]
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
    with pytest.raises(TimeoutError, match="after a simulated hour"):
        make(world, "b", "k")["k"].wait()


def test_a_resignation_wakes_the_others(world: SimulatedWorld) -> None:
    a, b = leader_and_other(world)
    before = world.now
    assert a["k"].resign()
    assert not a["k"].is_leader
    assert b["k"].wait(timeout=1)
    assert world.now - before < 0.01
    with pytest.raises(NotLeaderError):
        a["k"].require_leader()


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
        assert {batch.command for batch in world.server.model.batches} == {"EVAL", "EVALSHA"}


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
    epoch = group["k"].epoch
    assert str(errors[0]).startswith(f"on_elected failed for election 'k' at epoch {epoch}: Zero")
    assert str(errors[0]) in caplog.text


def test_the_log_of_an_outage_is_a_few_lines_none_twice_the_same(
    world: SimulatedWorld, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    keys = [f"k{number}" for number in range(100)]
    group = make(world, "a", *keys, logger=logging.getLogger("own"))
    world.run(5)
    world.server.restart(seconds=60)
    world.run(70)
    assert len(group.led) == len(keys)
    group.stop()
    assert 8 <= len(caplog.messages) <= 30
    assert len(set(caplog.messages)) == len(caplog.messages)
    assert any("100 terms expired" in text for text in caplog.messages)
    assert any("connected again" in text for text in caplog.messages)


def test_a_logger_that_raises_costs_nothing(world: SimulatedWorld) -> None:
    class Raising(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            raise ValueError(record.getMessage())

    logger = logging.getLogger("tests.simulation.raising")
    logger.addFilter(Raising())
    group = make(world, "a", "k", logger=logger)
    world.run(5)
    world.cut()
    world.run(5)
    assert group["k"].is_leader


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
    assert not [key for key in world.server.model.dump() if key.endswith(b":leader")]


def test_a_balanced_fleet_shares_and_hands_over(world: SimulatedWorld) -> None:
    drained: list[tuple[str, float]] = []
    keys = [f"k{number}" for number in range(12)]

    def finish(term: Term, deadline: float) -> None:
        drained.append((term.key, deadline - world.node("a").monotonic_s()))
        world.after(0.2, term.finish_drain)

    a = make(world, "a", *keys, balance=True, on_draining=finish, drain_timeout=5.0)
    world.run(2 * TTL_S)
    assert len(a.led) == 12
    b = make(world, "b", *keys, balance=True)
    world.run(2 * TTL_S)
    assert len(a.led) == len(b.led) == 6
    assert len(drained) == 6
    assert all(4.9 < left_s < 5.0 + 1e-9 for _, left_s in drained)
    assert {member.node_id for member in a.members} == {"a", "b"}
    assert a.drain(timeout=10)
    world.run(1)
    assert len(b.led) == 12
    world.crash(a)
    world.crash(b)
    c = make(world, "c", *keys, balance=True)
    world.run(4 * TTL_S)
    assert len(c.led) == 12


@pytest.mark.parametrize("join_delay", [0.0, 2 * TTL_S])
def test_a_balanced_fleet_outlives_a_clock_that_is_set_back(
    world: SimulatedWorld, join_delay: float
) -> None:
    keys = [f"k{number}" for number in range(12)]
    groups = [make(world, name, *keys, balance=True, join_delay=join_delay) for name in "ab"]
    world.run(4 * TTL_S)
    world.server.step_clock(-60.0)
    world.run(2 * TTL_S)
    assert [len(group.led) for group in groups] == [6, 6]
    groups.append(make(world, "c", *keys, balance=True))
    world.run(3 * TTL_S)
    assert [len(group.led) for group in groups] == [4, 4, 4]
    world.crash(groups.pop())
    world.run(3 * TTL_S)
    assert [len(group.led) for group in groups] == [6, 6]
    # When the clock has caught up, they do not look like ones that have just come.
    groups.append(make(world, "d", *keys, balance=True))
    for _ in range(70):
        world.run(1.0)
        assert all(group.led for group in groups[:2])
    assert [len(group.led) for group in groups] == [4, 4, 4]


def test_two_groups_of_one_process_share_its_fate(world: SimulatedWorld) -> None:
    first = world.group("a", prefix="one", ttl=TTL_S, keys=["k"])
    second = world.group("a", prefix="two", ttl=TTL_S, keys=["k"])
    world.run(1)
    assert first["k"].is_leader
    assert second["k"].is_leader
    world.crash(first)
    assert not second.led
    assert world.node("a") is not first._node.environment


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
    with (
        SimulatedWorld() as another,
        pytest.raises(ConfigError, match="to this world"),
    ):
        another.pause(group)
    with pytest.raises(ConfigError, match="must not be negative"):
        world.run(-1)
    with pytest.raises(ConfigError, match="must have the shorter time first"):
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
    assert len(world.server.model.subscribers) <= 1
