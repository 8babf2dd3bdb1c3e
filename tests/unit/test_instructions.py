"""The core spends no more instructions on a lease than are kept in `benchmarks/instructions.json`.

They are counted without a clock, so that a slip shows on a machine that is busy.
"""

from __future__ import annotations

import pytest
from benchmarks import instructions
from benchmarks.core_stage import LAYOUT, OTHER_LEADER, STEPS, TTL_MS, Stage
from tests.core.answering import AnsweringServer

from multielect._runtime.clock import ManualClock
from multielect.errors import ProtocolError


def outgoing(stage: Stage) -> bytes:
    """Tick, and return what is to be sent."""
    stage.driver.turn(stage.now_ns)
    with memoryview(stage.driver.outgoing) as waiting:
        data = bytes(waiting)
    stage.driver.sent(len(data))
    return data


@pytest.mark.skipif(not instructions.has_callgrind(), reason="needs valgrind")
def test_no_step_costs_more_instructions_than_are_kept() -> None:
    kept = instructions.kept(instructions.kind())
    if kept is None:
        pytest.skip(
            f"no counts are kept for {instructions.kind()}: "
            "on a state that is known to be good, make instructions ARGS=--keep"
        )
    risen = instructions.risen(instructions.count(), kept)
    assert not risen, "if it is worth it: make instructions ARGS=--keep"


def test_a_count_has_risen_where_it_is_beyond_what_is_tolerated() -> None:
    kept = dict.fromkeys(STEPS, 1000.0)
    assert instructions.tolerance() == 0.05
    assert instructions.risen(kept, kept) == []
    assert instructions.risen(kept | {"pack": 1050.0, "parse": 1.0}, kept) == []
    (said,) = instructions.risen(kept | {"pack": 1051.0, "parse": 1.0}, kept)
    assert said == "pack: 1051 instructions a lease, where 1000 are kept"


@pytest.mark.parametrize("name", STEPS)
def test_what_is_measured_is_done_and_can_be_done_again(name: str) -> None:
    stage = Stage(500)
    for _ in range(3):
        STEPS[name].prepare(stage)
        STEPS[name].run(stage)
        STEPS[name].check(stage)


@pytest.mark.parametrize("name", STEPS)
def test_a_step_that_is_left_out_is_noticed(name: str) -> None:
    stage = Stage(500)
    STEPS[name].prepare(stage)
    with pytest.raises((AssertionError, ProtocolError)):
        STEPS[name].check(stage)


def test_the_stage_answers_as_the_model_of_redis_does() -> None:
    stage = Stage(500)
    clock = ManualClock(stage.now_ns)
    server = AnsweringServer(clock)

    def wait() -> None:
        before_ns = stage.now_ns
        stage.wait()
        clock.advance_ns(stage.now_ns - before_ns)

    stage.begin()
    assert server.answer(outgoing(stage)) == stage.won
    stage.driver.receive(stage.won, stage.now_ns)
    wait()
    assert server.answer(outgoing(stage)) == stage.extended
    stage.driver.receive(stage.extended, stage.now_ns)
    server.model.put(LAYOUT.leader_key(b"bystander"), OTHER_LEADER, TTL_MS)
    stage.core.elections.add(b"bystander", LAYOUT.bucket(b"bystander"))
    assert server.answer(outgoing(stage)) == stage.led_by_other
    stage.driver.receive(stage.led_by_other, stage.now_ns)
    server.model.store.clear()
    wait()
    assert server.answer(outgoing(stage)) == stage.lost
