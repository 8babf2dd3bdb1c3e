"""What is read next: nobody starves, nobody is asked twice at once, and no room is lost."""

from __future__ import annotations

from multielect.streams._entries import Entry
from multielect.streams._intake import POLL_S, Intake
from multielect.streams._reading import Ask, Partition, Reading, State
from multielect.streams._settings import FlowSettings


class Term:
    """A term without an end."""

    key = "p"
    epoch = 1
    is_leader = True

    def heartbeat(self) -> None: ...

    def finish_drain(self) -> bool:
        return False

    def learn_epoch(self, newest_epoch: int) -> bool:
        return False


def reading(name: str) -> Reading:
    made = Reading(Partition(name, name.encode()), Term())
    made.state = State.READING
    made.position = made.checkpoint = "0-0"
    return made


def bring(intake: Intake, ask: Ask, count: int) -> None:
    """Answer a request with so many entries of each stream, which are handled at once."""
    intake.end(ask)
    for one in ask.readings:
        intake.take_in(one, [Entry("1-1", [])] * min(count, ask.count), ask.count)
        intake.drop(one)
        intake.queue(one, 0.0)


def taken(ask: Ask | None) -> Ask:
    assert ask is not None
    return ask


def test_a_stream_that_is_caught_up_takes_its_turn_beside_a_backlog() -> None:
    intake = Intake(FlowSettings(batch=1, max_in_hand=4))
    quiet = reading("quiet")
    quiet.is_caught_up = True
    intake.queue(quiet, POLL_S)
    busy = [reading(f"busy-{number}") for number in range(20)]
    for one in busy:
        intake.queue(one, 0.0)
    now_s = 0.0
    for _ in range(20):
        now_s += POLL_S
        intake.tick(now_s)
        ask = taken(intake.take_fetch())
        if quiet in ask.readings:
            return
        bring(intake, ask, 1)
    raise AssertionError("it is never asked, as long as others lie behind")


def test_a_reading_that_stood_back_stands_in_the_queue_once() -> None:
    intake = Intake(FlowSettings(batch=1, max_in_hand=10))
    one = reading("p")
    for _ in range(3):
        intake.queue(one, 0.0)
        intake.unqueue(one)
        assert not intake.may_fetch
    intake.queue(one, 0.0)
    assert taken(intake.take_fetch()).readings == [one]
    assert intake.take_fetch() is None


def test_nobody_is_called_to_wait_for_streams_without_room() -> None:
    intake = Intake(FlowSettings(batch=1, max_in_hand=4, readers=1))
    intake.led = 3
    for name in "abc":
        one = reading(name)
        one.is_caught_up = True
        intake.queue(one, POLL_S)
    ask = taken(intake.take_watch())
    assert len(ask.readings) == 2, "half of the room is kept for what is known to be there"
    assert not intake.may_watch
    assert intake.take_watch() is None
    intake.end(ask)
    assert intake.may_watch
