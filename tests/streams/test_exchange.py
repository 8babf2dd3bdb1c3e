"""What follows from answers: whom an error concerns, and how often it is told."""

from __future__ import annotations

import random
from typing import Any

import pytest
import redis

from multielect import MultielectError
from multielect._connection.backoff import Pauses
from multielect.fencing import Outcome
from multielect.streams._commits import commit
from multielect.streams._exchange import Exchange
from multielect.streams._flow import Flow
from multielect.streams._reading import Ask
from multielect.streams._settings import FlowSettings

from .test_flow import Term

STREAMS = [f"p{number}" for number in range(8)]
OF_THE_SERVER = [
    redis.ResponseError("UNBLOCKED force unblock from blocking operation"),
    redis.ResponseError("MISCONF Redis is configured to save RDB snapshots"),
    redis.ResponseError("BUSY Redis is busy running a script"),
    redis.exceptions.MasterDownError("Link with MASTER is down"),
    redis.exceptions.ReadOnlyError("You can't write against a read only replica."),
    redis.exceptions.NoPermissionError("User u has no permissions to run the 'xread' command"),
    redis.ConnectionError("gone"),
    RuntimeError("odd"),
]
OF_A_STREAM = [
    redis.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
    redis.exceptions.NoPermissionError("no permissions to access one of the keys"),
]


class Rig:
    """A flow that leads all streams, asked by an exchange."""

    def __init__(self) -> None:
        self.flow = Flow(FlowSettings(), random.Random(1))
        self.reports: list[MultielectError] = []
        self.exchange = Exchange(
            self.flow,
            prefix="test",
            start="0-0",
            dead_letters=b"dead",
            checkpoint_key=str.encode,
            report=self.reports.append,
            clock=lambda: self.now_s,
        )
        self.now_s = 0.0
        self.pauses = Pauses(random.random)
        for key in STREAMS:
            self.flow.add(key, key.encode())
            self.flow.elected(Term(key))
        due = self.flow.take_writes()
        assert due is not None
        self.claims = due

    def begin(self) -> Ask:
        self.exchange.settled(self.claims, [Outcome(reply=b"0-0")] * len(STREAMS))
        ask = self.flow.take_fetch()
        assert ask is not None
        assert len(ask.readings) == len(STREAMS)
        return ask


@pytest.mark.parametrize("error", OF_THE_SERVER, ids=str)
def test_an_error_of_the_server_is_told_once_and_the_streams_are_asked_again(
    error: Exception,
) -> None:
    rig = Rig()
    ask = rig.begin()
    for _ in range(3):
        then = rig.exchange.unanswered(ask, error, rig.pauses)
        assert not then.asks
        assert then.pause_s > 0
        again = rig.flow.take_fetch()
        assert again is not None
        assert len(again.readings) == len(STREAMS)
        ask = again
    assert len(rig.reports) == 1


@pytest.mark.parametrize("error", OF_A_STREAM, ids=str)
def test_an_error_of_one_stream_is_told_of_that_stream(error: redis.ResponseError) -> None:
    rig = Rig()
    asks, alone = [rig.begin()], 0
    while asks:
        ask = asks.pop()
        if b"p5" in ask.streams:
            then = rig.exchange.unanswered(ask, error, rig.pauses)
            asks += then.asks
            alone += len(ask.readings) == 1
        else:
            rig.exchange.answered(ask, [], rig.pauses)
    assert alone == 1
    (report,) = rig.reports
    assert "'p5'" in str(report)


def test_a_reply_that_cannot_be_read_is_none() -> None:
    rig = Rig()
    odd: Any = [[b"p0", [[b"no id"]]]]
    assert rig.exchange.answered(rig.begin(), odd, rig.pauses).pause_s > 0
    assert len(rig.reports) == 1
    assert rig.flow.take_fetch() is not None


def test_what_goes_wrong_again_and_again_is_told_ever_more_seldom() -> None:
    rig = Rig()
    lost = Outcome(error=redis.ConnectionError("gone"))
    told = []
    for turn in range(640):
        rig.now_s = turn / 10
        before = len(rig.reports)
        rig.exchange.settled(rig.claims, [lost] * len(STREAMS))
        told += [rig.now_s] * (len(rig.reports) - before)
    assert told == [0, 1, 3, 7, 15, 31, 63]


def test_checkpoints_that_were_moved_are_told_of_all_at_once() -> None:
    rig = Rig()
    ask = rig.begin()
    rig.exchange.answered(
        ask, [[key.encode(), [[b"1-0", [b"n", b"1"]]]] for key in STREAMS], rig.pauses
    )
    for _ in STREAMS:
        work = rig.flow.take_work()
        assert work is not None
        rig.flow.handled(work, commit(work, b"checkpoint", []))
    due = rig.flow.take_writes()
    assert due is not None
    rig.exchange.settled(due, [Outcome(reply=[b"MOVED", b"5-0"])] * len(STREAMS))
    (report,) = rig.reports
    assert str(report).startswith("another program moved the checkpoint of 8 partitions")


def test_what_is_wrong_with_one_partition_is_told_by_its_name() -> None:
    rig = Rig()
    wrong = Outcome(error=redis.ResponseError("WRONGTYPE Operation against a key"))
    outcomes = [wrong, *[Outcome(reply=b"0-0")] * (len(STREAMS) - 1)]
    rig.exchange.settled(rig.claims, outcomes)
    (report,) = rig.reports
    assert "'p0'" in str(report)
    assert "WRONGTYPE" in str(report)
