"""A worker processes what it leads, in order, and nothing that its term does not cover."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import redis

from multielect._protocol.keys import DEFAULT_BUCKETS, group_layout
from multielect._runtime.clock import ManualClock
from multielect.cli.demo.checkpoint import Checkpoint, CheckpointStore, connect
from multielect.cli.demo.stream import Replay
from multielect.cli.demo.worker import Freeze, Worker

from .examples import entry, stream_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from multielect.embedded import EmbeddedServer

SECOND = 1_000_000_000
A, B = 0, 1


@dataclass
class HandMadeTerm:
    """A term that leads for as long as the test says so."""

    epoch: int
    is_leader: bool = True
    resigned: int = 0
    handed_over: int = 0

    def resign(self) -> None:
        self.resigned += 1

    def finish_drain(self) -> None:
        self.handed_over += 1
        self.is_leader = False


@dataclass
class Stage:
    """A worker on a stream of ten events, one a second: ``abababaaab``."""

    client: redis.Redis
    happened: list[object] = field(default_factory=list)

    def __post_init__(self) -> None:
        # As whoever stands for election first does: else each fenced write begins with a question.
        self.client.set(group_layout("flights").buckets_key, DEFAULT_BUCKETS)
        self.clock = ManualClock()
        self.stream = stream_of("abababaaab")
        self.store = CheckpointStore(self.client, "flights", self.stream.keys)
        self.on_frozen: Callable[[], object] = lambda: None
        self.freeze = Freeze(self.clock.now_ns, self._stop, self.happened.append)
        self.worker = Worker(
            "x",
            self.stream,
            Replay(10, self.clock.now_ns(), 10 * SECOND),
            self.store,
            now_ns=self.clock.now_ns,
            freeze=self.freeze,
        )

    def _stop(self, commits: int) -> None:
        self.happened.append(commits)
        self.on_frozen()

    def grant(self, partition: int, epoch: int) -> HandMadeTerm:
        key = self.stream.keys[partition].encode()
        self.client.set(group_layout("flights").epoch_key(key), epoch)
        return HandMadeTerm(epoch)

    def elect(self, partition: int, epoch: int) -> HandMadeTerm:
        term = self.grant(partition, epoch)
        self.worker.elected(partition, term)
        return term

    def run_for(self, seconds: float) -> None:
        self.clock.advance_ns(int(seconds * SECOND))
        self.worker.pass_once()


@pytest.fixture
def stage(redis_client: redis.Redis) -> Stage:
    return Stage(redis_client)


def test_available_events_of_led_partitions_are_processed_in_order(stage: Stage) -> None:
    stage.elect(A, 3)
    stage.run_for(2.5)
    stage.run_for(2)
    stage.run_for(100)

    assert stage.store.journal()[A] == [
        entry(stage.stream, 0, 2, epoch=3),
        entry(stage.stream, 2, 3, epoch=3),
        entry(stage.stream, 3, 6, epoch=3),
    ]
    assert stage.store.journal()[B] == []


def test_a_pass_commits_all_partitions_in_one_call(stage: Stage) -> None:
    stage.elect(A, 3)
    stage.elect(B, 4)
    stage.run_for(100)

    assert [len(entries) for entries in stage.store.journal()] == [1, 1]
    assert [found.next_event for found in stage.store.read([A, B])] == [6, 4]


def test_a_term_goes_on_from_the_checkpoint_of_the_one_before(stage: Stage) -> None:
    stage.elect(A, 3)
    stage.run_for(2.5)
    other = Stage(stage.client)
    other.elect(A, 4)
    other.run_for(100)

    assert stage.store.journal()[A] == [
        entry(stage.stream, 0, 2, epoch=3),
        entry(stage.stream, 2, 6, epoch=4),
    ]


def test_what_is_not_led_any_more_is_not_touched(stage: Stage) -> None:
    term = stage.elect(A, 3)
    stage.run_for(0.5)
    term.is_leader = False
    stage.run_for(100)

    assert stage.store.journal()[A] == [entry(stage.stream, 0, 1, epoch=3)]
    assert stage.store.totals().refused == 0, "the fence had nothing to do"


def test_a_refused_commit_ends_the_term_for_the_worker(stage: Stage) -> None:
    stage.elect(A, 3)
    stage.grant(A, 9)
    stage.run_for(0.5)
    stage.run_for(100)

    assert stage.store.journal()[A] == []
    assert stage.store.totals().refused == 1


def test_a_new_term_of_the_same_node_reads_the_checkpoint_again(stage: Stage) -> None:
    stage.elect(A, 3)
    stage.run_for(0.5)
    other = Stage(stage.client)
    other.elect(A, 4)
    other.run_for(4.5)
    stage.elect(A, 5)
    stage.run_for(100)

    assert [found[:3] for found in stage.store.journal()[A]] == [(3, 0, 1), (4, 1, 3), (5, 3, 6)]


def test_a_draining_term_is_handed_over_when_all_that_was_available_is_committed(
    stage: Stage,
) -> None:
    term = stage.elect(A, 3)
    stage.run_for(0.5)
    committed: list[int] = []
    term.finish_drain = lambda: committed.append(stage.store.read([A])[0].next_event)  # type: ignore[method-assign]
    stage.worker.draining(A, term)
    assert committed == []
    stage.run_for(2)

    assert committed == [2]
    stage.run_for(100)
    assert stage.store.read([A])[0].next_event == 2, "it is not led any more"


def test_a_term_that_drains_as_it_begins_is_handed_over(stage: Stage) -> None:
    term = stage.elect(A, 3)
    stage.worker.draining(A, term)
    stage.run_for(0.5)

    assert term.handed_over == 1


def test_what_was_drained_is_not_the_term_that_came_after(stage: Stage) -> None:
    term = stage.elect(A, 3)
    stage.elect(A, 4)
    stage.worker.draining(A, term)
    stage.run_for(0.5)
    stage.run_for(100)

    assert [found[:3] for found in stage.store.journal()[A]] == [(4, 0, 1), (4, 1, 6)]


def test_nothing_is_handed_over_while_checkpoints_cannot_be_read(
    private_server: EmbeddedServer,
) -> None:
    with connect(private_server.url) as client:
        client.connection_pool.connection_kwargs["socket_timeout"] = 0.2
        stage = Stage(client)
        term = stage.elect(A, 3)
        stage.worker.draining(A, term)
        with stopped(private_server.pid):
            stage.run_for(100)
        assert term.handed_over == 0
        stage.run_for(0)

        assert term.handed_over == 1
        assert stage.store.read([A])[0].next_event == 6


def test_a_commit_that_fails_resigns_its_term_alone(stage: Stage) -> None:
    bad, good = stage.elect(A, 3), stage.elect(B, 3)
    for key in stage.client.scan_iter("*:epoch"):
        if b":a:" in bytes(key):
            stage.client.delete(key)
            stage.client.zadd(key, {"not what it should be": 1})
    stage.run_for(100)

    assert (bad.resigned, good.resigned) == (1, 0)
    assert stage.store.read([A, B])[1].next_event == 4


def test_a_call_without_a_reply_resigns_its_terms(private_server: EmbeddedServer) -> None:
    """It may still be carried out: only a newer epoch keeps it out for certain."""
    with connect(private_server.url) as client:
        client.connection_pool.connection_kwargs["socket_timeout"] = 0.2
        stage = Stage(client)
        term = stage.elect(A, 3)
        stage.run_for(0.5)
        with stopped(private_server.pid):
            stage.run_for(2)
        assert term.resigned == 1

        # The server did carry it out, late; a node that had tried again would have doubled it.
        stage.run_for(100)
        assert stage.store.read([A]) == [Checkpoint(2, stage.stream.digests(A)[2])]
        stage.elect(A, 4)
        stage.run_for(0)
        assert [found[:3] for found in stage.store.journal()[A]] == [
            (3, 0, 1),
            (3, 1, 2),
            (4, 2, 6),
        ]


def test_checkpoints_that_could_not_be_read_are_read_later(
    private_server: EmbeddedServer,
) -> None:
    with connect(private_server.url) as client:
        client.connection_pool.connection_kwargs["socket_timeout"] = 0.2
        stage = Stage(client)
        stage.elect(A, 3)
        with stopped(private_server.pid):
            stage.run_for(100)
        stage.run_for(0)

        assert stage.store.journal()[A] == [entry(stage.stream, 0, 6, epoch=3)]


def test_a_freeze_comes_between_processing_and_commit(stage: Stage) -> None:
    stage.elect(A, 3)
    stage.elect(B, 4)
    stage.freeze.ask()
    stage.on_frozen = lambda: stage.happened.append(stage.grant(A, 9).epoch)
    stage.run_for(1.5)

    commits, newest_epoch, outcomes = stage.happened
    assert (commits, newest_epoch) == (2, 9)
    assert isinstance(outcomes, list)
    assert sorted((outcome.is_stale, outcome.is_written) for outcome in outcomes) == [
        (False, True),
        (True, False),
    ]
    assert stage.store.journal()[A] == []
    assert stage.store.totals().refused == 1


def test_a_freeze_without_commits_comes_after_a_second(stage: Stage) -> None:
    stage.freeze.ask()
    stage.run_for(0.9)
    assert stage.happened == []
    stage.run_for(0.2)
    assert stage.happened == [0, []]
    stage.run_for(5)
    assert stage.happened == [0, []], "once asked, once frozen"


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Keep a process stopped while the block runs."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
