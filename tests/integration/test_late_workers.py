"""Workers that are late: the next term waits, and a stop waits for them, both for a bounded time.

Rules of this file:
    * A worker waits for its term's `stopping`, or for events that the test sets; none sleeps.
    * When a test is over no thread of a worker is left.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.diary import WITHIN_S, until

from multielect import (
    ElectionGroup,
    Elector,
    MultielectError,
    WorkerTerm,
)

from .conftest import Stand
from .lease import PREFIX
from .working import LONG_S, TTL_S, Work, no_thread_is_left, wait


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield from no_thread_is_left()


def test_a_worker_that_is_late_holds_up_the_next_and_is_told_of(
    redis_url: str, stand: Stand
) -> None:
    go_on = threading.Event()
    work = Work(lambda term: [go_on.wait(LONG_S), term.stopping.wait(LONG_S)])
    group, told = stand(redis_url, "k", ttl=TTL_S, worker=work)
    first = work.wait_begun(1)
    group["k"].resign()
    group["k"].campaign()
    late = told.wait_error(MultielectError, "the worker of election 'k' still runs 0.5 s after")
    assert f"epoch {first.epoch}" in str(late)
    up = told.wait_error(MultielectError, "the term of election 'k' at epoch ")
    assert f"was given up: the worker of the previous term (epoch {first.epoch})" in str(up)
    assert len(work.terms) == 1
    go_on.set()
    # Those that ended while they waited never have one: the next is that of a term that goes on.
    second = work.wait_begun(2)
    group["k"].require_leader()
    assert second.epoch > first.epoch
    assert work.at_once == []
    assert [term.epoch for term in work.terms] == [first.epoch, second.epoch]


def test_a_term_that_ends_while_it_waits_has_no_worker(redis_url: str, stand: Stand) -> None:
    go_on = threading.Event()
    work = Work(lambda term: [go_on.wait(LONG_S), term.stopping.wait(LONG_S)])
    group, told = stand(redis_url, "k", ttl=60.0, worker=work)
    epochs = []
    for _ in range(3):
        assert group["k"].wait(WITHIN_S)
        work.wait_begun(1)
        epochs.append(group["k"].epoch)
        group["k"].resign()
        group["k"].campaign()
    assert group["k"].wait(WITHIN_S)
    told.wait_elected("k", above=epochs[-1])
    go_on.set()
    work.wait_begun(2)
    assert [term.epoch for term in work.terms] == [epochs[0], group["k"].epoch]
    assert told.errors == []


def test_a_term_that_ended_while_it_waited_is_not_given_up(redis_url: str, stand: Stand) -> None:
    go_on = threading.Event()
    work = Work(lambda term: go_on.wait(LONG_S))
    group, told = stand(redis_url, "k", "other", ttl=TTL_S, worker=work)
    work.wait_begun(2)
    group["k"].resign()
    group["k"].campaign()
    second = told.wait_elected("k", above=told.wait_demoted("k").epoch)
    group["k"].resign()
    told.wait_demoted("k", above=second.epoch - 1)
    # What the second would have been told of is due before this.
    group["other"].resign()
    told.wait_error(MultielectError, "election 'other' still runs")
    assert not [error for error in told.errors if "given up" in str(error)]
    go_on.set()


@pytest.mark.parametrize("public_class", [ElectionGroup, Elector])
def test_stop_waits_for_workers_and_no_longer_than_it_may(
    redis_url: str, public_class: Any, record_property: Callable[[str, object], None]
) -> None:
    go_on = threading.Event()
    errors: list[MultielectError] = []
    work = Work(lambda term: go_on.wait(LONG_S))
    group = public_class(redis_url, prefix=PREFIX, ttl=60.0, worker=work, on_error=errors.append)
    if public_class is ElectionGroup:
        group.add("k")
    group.start()
    work.wait_begun(1)
    began = time.monotonic()
    group.stop(0.3)
    took_s = time.monotonic() - began
    record_property("stop_s", round(took_s, 3))
    assert 0.3 <= took_s < WITHIN_S
    assert work.terms[0].stopping.is_set()
    assert work.running == 1
    go_on.set()
    work.wait_ended(1)
    until(lambda: len(errors) == 1)
    which = " ('k')" if public_class is ElectionGroup else ""
    assert str(errors[0]).startswith(f"1 worker still runs after stop{which}: have them return")


def test_stop_returns_when_the_last_worker_has(redis_url: str, stand: Stand) -> None:
    def act(term: WorkerTerm) -> None:
        wait(term)
        time.sleep(0.05)

    work = Work(act)
    keys = [f"k{number}" for number in range(20)]
    group, told = stand(redis_url, *keys, ttl=60.0, worker=work)
    work.wait_begun(20)
    group.stop(LONG_S)
    assert work.running == 0
    assert len(work.ended) == 20
    assert told.errors == []
