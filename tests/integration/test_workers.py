"""Workers on threads: one a term, begun and stopped with it, and never two for one election.

Rules of this file:
    * A worker waits for its term's `stopping`, or for events that the test sets; none sleeps.
    * When a test is over no thread of a worker is left.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from tests.diary import WITHIN_S, until

from multielect import (
    CallbackError,
    ConfigError,
    DemotionReason,
    ElectionGroup,
    Elector,
    MultielectError,
    WorkerTerm,
)
from multielect.testing import SimulatedWorld

from .conftest import Stand
from .lease import PREFIX
from .working import LONG_S, TTL_S, Work, lose_lease, no_thread_is_left, wait


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield from no_thread_is_left()


def test_a_worker_runs_for_as_long_as_its_term(redis_url: str, stand: Stand) -> None:
    names: list[str] = []

    def act(term: WorkerTerm) -> None:
        names.append(threading.current_thread().name)
        wait(term)

    work = Work(act)
    group, told = stand(redis_url, "k", node_id="n", worker=work)
    term = work.wait_begun(1)
    assert (term.key, term.epoch) == ("k", told.wait_elected("k").epoch)
    assert term.epoch == term.require_leader() == group["k"].epoch
    assert [term.reason, term.deadline, term.stopping.is_set()] == [None, None, False]
    assert names == ["multielect-n-worker-'k'"]

    group["k"].resign()
    assert work.wait_ended(1) is term
    assert not term.is_leader
    assert term.reason is DemotionReason.RESIGNED
    assert term.ended_ns == told.wait_demoted("k").at_ns

    group["k"].campaign()
    second = work.wait_begun(2)
    assert second.epoch > term.epoch
    group.stop()
    assert work.wait_ended(2) is second
    assert second.reason is DemotionReason.STOPPED
    assert told.errors == []


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda group, client: group.remove("k"), DemotionReason.REMOVED),
        (lambda group, client: lose_lease(client, "k"), DemotionReason.LOST),
    ],
)
def test_however_a_term_ends_its_worker_is_told(
    redis_url: str,
    redis_client: redis.Redis,
    stand: Stand,
    end: Callable[[ElectionGroup, redis.Redis], None],
    reason: DemotionReason,
) -> None:
    work = Work()
    group, told = stand(redis_url, "k", worker=work)
    work.wait_begun(1)
    end(group, redis_client)
    assert work.wait_ended(1).reason is reason
    assert told.errors == []


def test_never_two_at_once_for_one_election_however_leases_come_and_go(
    redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    # Each goes on for a while when it is told to stop: until the next has had time to overtake it.
    def act(term: WorkerTerm) -> None:
        wait(term)
        time.sleep(0.05)

    work = Work(act)
    keys = [f"k{number}" for number in range(10)]
    group, told = stand(redis_url, *keys, ttl=TTL_S, worker=work)
    for turn in range(10):
        until(lambda: len(group.led) == len(keys))
        demotions = group.counters.demoted
        for key in keys[turn % 3 :: 3]:
            lose_lease(redis_client, key)
        group[keys[turn]].resign()
        group[keys[turn]].campaign()
        until(lambda: group.counters.demoted >= demotions + 3)  # noqa: B023  # called at once
    until(lambda: len(group.led) == len(keys))
    group.stop()
    work.wait_for(lambda: work.running == 0)
    assert work.at_once == []
    assert len(work.terms) == len(work.ended) > 2 * len(keys)
    for key in keys:
        epochs = [term.epoch for term in work.terms if term.key == key]
        assert epochs == sorted(set(epochs))
        assert set(epochs) <= {entry.epoch for entry in told.of(key)}
    assert told.errors == []


def test_a_worker_that_returns_gives_its_term_up_and_another_node_takes_it(
    redis_url: str, stand: Stand
) -> None:
    returning, staying = Work(lambda term: None), Work()
    first, told = stand(redis_url, "k", ttl=30.0, worker=returning)
    assert told.wait_demoted("k").reason is DemotionReason.RESIGNED
    stand(redis_url, "k", ttl=30.0, worker=staying)
    assert staying.wait_begun(1).epoch > returning.wait_ended(1).epoch
    # Its node stands back for one TTL, and there is nothing wrong.
    assert len(returning.terms) == 1
    assert told.errors == []
    assert not first["k"].is_leader


@pytest.mark.parametrize("raised", [ZeroDivisionError("by design"), SystemExit(3)])
def test_a_worker_that_raises_is_told_of_and_its_term_is_given_up(
    redis_url: str, stand: Stand, raised: BaseException
) -> None:
    def fail(term: WorkerTerm) -> None:
        if term.key == "bad":
            raise raised
        wait(term)

    work = Work(fail)
    group, told = stand(redis_url, "bad", "good", ttl=30.0, worker=work)
    error = told.wait_error(CallbackError, "worker failed for election 'bad' at epoch ")
    assert isinstance(error, CallbackError)
    assert error.__cause__ is raised
    assert (error.callback, error.key, error.epoch) == ("worker", "bad", group["bad"].epoch)
    assert told.wait_demoted("bad").reason is DemotionReason.RESIGNED
    work.wait_begun(2)
    assert [election.key for election in group.led] == ["good"]
    assert told.errors == [error]


def test_a_worker_that_fails_goes_on_elsewhere(redis_url: str, stand: Stand) -> None:
    failing, well = Work(lambda term: 1 / 0), Work()
    first, told = stand(redis_url, "k", worker=failing, node_id="failing")
    told.wait_elected("k")
    stand(redis_url, "k", worker=well)
    well.wait_begun(1)
    until(lambda: first["k"].leader_id != "failing")


def test_a_term_that_drains_is_handed_over_when_its_worker_returns(
    redis_url: str, stand: Stand
) -> None:
    go_on, draining = threading.Event(), threading.Event()
    leads: list[bool] = []

    def act(term: WorkerTerm) -> None:
        wait(term)
        draining.set()
        assert go_on.wait(WITHIN_S)
        leads.append(term.is_leader)

    work = Work(act)
    group, told = stand(redis_url, "k", ttl=30.0, worker=work)
    term = work.wait_begun(1)
    with ThreadPoolExecutor(1) as pool:
        drain = pool.submit(group.drain, LONG_S)
        assert draining.wait(WITHIN_S)
        assert term.reason is None
        assert term.deadline is not None
        assert 0 < term.deadline - time.monotonic() <= LONG_S
        assert term.is_leader
        assert told.demotions() == []
        go_on.set()
        assert drain.result(WITHIN_S)
    assert leads == [True]
    assert told.wait_demoted("k").reason is DemotionReason.DRAINED
    assert told.errors == []


def test_a_worker_that_fails_while_its_term_drains_hands_it_over(
    redis_url: str, stand: Stand
) -> None:
    work = Work(lambda term: [term.stopping.wait(LONG_S), 1 / 0])
    group, told = stand(redis_url, "k", ttl=30.0, worker=work)
    work.wait_begun(1)
    assert group.drain(LONG_S)
    assert told.wait_demoted("k").reason is DemotionReason.DRAINED
    told.wait_error(CallbackError, "worker failed for election 'k'")


def test_a_worker_that_does_not_return_keeps_a_draining_term_to_its_deadline(
    redis_url: str, stand: Stand
) -> None:
    go_on = threading.Event()
    work = Work(lambda term: go_on.wait(LONG_S))
    group, told = stand(redis_url, "k", ttl=30.0, worker=work)
    term = work.wait_begun(1)
    assert group.drain(0.2)
    assert told.wait_demoted("k").reason is DemotionReason.DRAINED
    until(lambda: term.reason is DemotionReason.DRAINED)
    go_on.set()


def test_a_balanced_fleet_moves_terms_as_their_workers_return(redis_url: str, stand: Stand) -> None:
    keys = [f"k{number}" for number in range(20)]
    one, two = Work(), Work()
    first, told = stand(redis_url, *keys, balance=True, worker=one)
    one.wait_begun(20)
    second, _ = stand(redis_url, *keys, balance=True, worker=two)
    two.wait_begun(10)
    until(lambda: (len(first.led), len(second.led)) == (10, 10))
    moved = {term.key for term in two.terms}
    assert {term.key for term in one.ended} >= moved
    handed = [term for term in one.ended if term.key in moved]
    assert all(term.deadline is not None for term in handed)
    # Callbacks wait for no worker, and no worker for them.
    told.wait_for(lambda: len(told.demotions()) >= len(moved))
    assert {entry.reason for entry in told.demotions()} == {DemotionReason.REBALANCED}


def test_callbacks_are_told_beside_a_worker_and_neither_waits_for_the_other(
    redis_url: str, stand: Stand
) -> None:
    go_on = threading.Event()
    work = Work()
    group, told = stand(
        redis_url, "k", worker=work, on_elected=lambda _: go_on.wait(LONG_S), callback_threads=1
    )
    assert work.wait_begun(1).is_leader
    go_on.set()
    group.stop()
    assert told.wait_demoted("k").reason is DemotionReason.STOPPED


@pytest.mark.parametrize("call", ["stop", "drain"])
def test_a_worker_may_end_its_own_group(redis_url: str, stand: Stand, call: str) -> None:
    answers: list[object] = []
    standing: list[ElectionGroup] = []
    ready = threading.Event()

    def act(term: WorkerTerm) -> None:
        assert ready.wait(WITHIN_S)
        began = time.monotonic()
        answers.append(getattr(standing[0], call)(LONG_S))
        answers.append(time.monotonic() - began < WITHIN_S)
        wait(term)

    work = Work(act)
    group, told = stand(redis_url, "k", ttl=30.0, worker=work)
    standing.append(group)
    ready.set()
    work.wait_ended(1)
    assert answers == [None if call == "stop" else False, True]
    told.wait_demoted("k")
    assert told.errors == []


def test_a_term_without_a_thread_is_given_up(
    redis_url: str, stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start
    refused: list[str] = []

    def refuse(thread: threading.Thread) -> None:
        if "worker-'full'" in thread.name:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    work = Work()
    group, told = stand(redis_url, "full", "free", ttl=30.0, worker=work)
    error = told.wait_error(
        MultielectError, "no thread could be started for the worker of election 'full'"
    )
    assert "max_leases" in str(error)
    assert told.wait_demoted("full").reason is DemotionReason.RESIGNED
    assert work.wait_begun(1).key == "free"
    assert [election.key for election in group.led] == ["free"]
    assert len(refused) == 1


def test_a_worker_that_keeps_the_gil_costs_no_lease(redis_url: str, stand: Stand) -> None:
    kept = threading.Event()

    def keep_gil(term: WorkerTerm) -> None:
        if term.key == "k0":
            ctypes.PyDLL(None).usleep(3_000_000)
            kept.set()
        wait(term)

    keys = [f"k{number}" for number in range(50)]
    group, told = stand(redis_url, *keys, ttl=1.0, worker=Work(keep_gil))
    assert kept.wait(LONG_S)
    assert group.counters.demoted == 0
    until(lambda: len(group.led) == 50)
    assert told.demotions() == []


def test_a_thousand_elections_have_a_thousand_workers(redis_url: str, stand: Stand) -> None:
    keys = [f"k{number}" for number in range(1000)]
    work = Work()
    group, told = stand(redis_url, *keys, ttl=10.0, worker=work)
    work.wait_begun(1000)
    assert work.running == 1000
    assert {term.key for term in work.terms} == set(keys)
    for key in keys[::2]:
        group[key].resign()
    work.wait_ended(500)
    group.stop(LONG_S)
    assert work.running == 0
    assert work.at_once == []
    assert told.errors == []


def test_an_elector_has_a_worker_as_well(redis_url: str) -> None:
    work = Work()
    with Elector(redis_url, prefix="worked", ttl=30.0, worker=work) as elector:
        term = work.wait_begun(1)
        assert (term.key, term.epoch) == ("", elector.require_leader())
    assert work.running == 0


def test_a_worker_without_arguments_is_given_none(redis_url: str, stand: Stand) -> None:
    called = threading.Event()
    stand(redis_url, "k", worker=called.set)
    assert called.wait(WITHIN_S)


def test_what_has_no_place_beside_a_worker_is_refused() -> None:
    def made(**given: Any) -> None:
        ElectionGroup("redis://localhost:1", prefix=PREFIX, **given)

    async def coroutine(_: WorkerTerm) -> None: ...

    with pytest.raises(ConfigError, match="on_draining cannot be used with worker"):
        made(worker=print, on_draining=print)
    with pytest.raises(ConfigError, match="worker must be a plain function, as"):
        made(worker=coroutine)
    with pytest.raises(ConfigError, match="worker must be a function or None, not 'f'"):
        made(worker="f")
    with SimulatedWorld(seed=1) as world:
        with pytest.raises(ConfigError, match="worker needs threads"):
            world.group("a", prefix=PREFIX, ttl=1.0, keys=["k"], worker=print)
        with pytest.raises(ConfigError, match="worker needs threads"):
            Elector(world.node("b"), prefix=PREFIX, worker=print)
